"""UNIQUE by exhaustive cubes, with a certificate (docs/theory.md CB14).

A cube fixes the region and the label of every sample that is left. All regions of one input are listed, their
multisets that cannot have the gradient are left out, and every other cube is cut into boxes over which linear
inequalities between inputs and their products with loss vectors contradict each other, or which hold the
batch alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import msgspec

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Cubes
from exan_verify.core.facts import Facts
from exan_verify.core.question import Labels
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.cubes.patterns import listed
from exan_verify.decide.cubes.problem import MAX_ENTRIES, Problem
from exan_verify.decide.cubes.relaxation import Blocks, Cube
from exan_verify.decide.cubes.search import Limits, Node, Tree
from exan_verify.decide.residual.unsettled import Rest, rest_of
from exan_verify.decide.solvers.spanned import spanned
from exan_verify.exact.regions import Pattern

MAX_NEURONS = 16
MAX_SAMPLES = 4
MAX_LETTERS = 32
MAX_NODES = 400


def decide(context: Context, budget: Budget) -> Finding:
    """UNIQUE where every cube but the batch's own is refuted, and the own holds it alone."""
    rest = rest_of(context)
    if rest is None or not _asked(rest):
        return Finding()
    fewer = spanned(context)
    if fewer is not None:
        setting = replace(context.setting, network=fewer.network, question=fewer.question)
        rest = Rest(context=Context(setting=setting, batch=fewer.batch), members=rest.members)
    return _finding(Problem(rest=rest), budget, spares=fewer is not None)


def decide_near(context: Context, entries: Sequence[Fraction], budget: Budget) -> Finding:
    """The same of a batch that is not rational and has the gradient ``entries`` (reduction sum, layer by
    layer, row by row, the bias last); that of ``context`` is near it, in the same regions.
    """
    rest = Rest(context=context, members=tuple(range(context.samples)))
    return _finding(Problem(rest=rest, entries=tuple(entries)), budget) if _asked(rest) else Finding()


def _finding(problem: Problem, budget: Budget, *, spares: bool = False) -> Finding:
    """``spares``: the problem is one of fewer features."""
    start, members = time.monotonic(), problem.rest.members
    seconds = budget.seconds_left
    end = math.inf if seconds is None else start + seconds / 2
    found = _trees(problem, Limits(nodes=MAX_NODES, budget=budget, end=end))
    spent = time.monotonic() - start
    if isinstance(found, str):
        return Finding(attempts=(Attempt(engine=Engine.RESIDUAL, note=f"cubes: {found}", seconds=spent),))
    evidence = msgspec.structs.replace(found, spanned=spares)
    names, boxes = ", ".join(map(str, members)), sum(map(len, evidence.cubes))
    note = f"cubes: {len(evidence.cubes)} multisets of regions in {boxes} parts"
    return Finding(
        attempts=(Attempt(engine=Engine.RESIDUAL, note=note, seconds=spent),),
        facts=Facts(determined=frozenset(members), unique=True),
        evidence=(evidence,),
        reason=f"in every combination of regions and labels that samples {names} may have, sums over the "
        "regions contradict the gradient, but at the batch itself",
    )


def _asked(rest: Rest) -> bool:
    context = rest.context
    if context.question.labels is Labels.REAL or context.question.tolerance is not None:
        return False
    network = context.network
    entries = sum(array.size for _, array in network.parameters())
    hidden = sum(network.widths[1:-1])
    return (
        rest.size <= MAX_SAMPLES
        and network.classes > context.question.loss.zero_sum  # one class has no loss vector to speak of
        and hidden <= MAX_NEURONS
        and entries <= MAX_ENTRIES
        and (network.widths[0] <= 4 and network.classes <= 4)
    )


def _trees(problem: Problem, limits: Limits) -> Cubes | str:
    """The evidence, or why there is none. The own cube comes first: where other solutions are left in it
    nothing else helps.
    """
    if len(problem.letters) > MAX_LETTERS:
        return "more labels than are tried"
    blocks = Blocks(problem=problem)

    def grown(chosen: tuple[Pattern, ...]) -> list[Node] | None:
        return Tree(limits=limits).grown(
            Cube(blocks=blocks, patterns=chosen, sides=problem.sides * problem.size)
        )

    own = grown(tuple(sorted(problem.patterns)))
    if own is None:
        return limits.stopped or "a box is not refuted"
    found = listed(problem, limits.budget)
    if found is None:
        return limits.budget.exhausted or "more regions than are tried"
    patterns, states = found
    sets = problem.multisets(patterns, limits.budget)
    if sets is None:
        return "more multisets of regions than are tried"
    trees: list[list[Node]] = []
    for chosen in sets:
        tree = own if sorted(chosen) == sorted(problem.patterns) else grown(chosen)
        if tree is None:
            return f"{limits.stopped or 'a box is not refuted'}, after {len(trees)} multisets of regions"
        trees.append(tree)
    return Cubes(patterns=tuple(states), cubes=tuple(map(tuple, trees)))
