"""Cubes: one per joint activation pattern, label assignment and set of violated margins.

The literals of the question are enumerated from its linear over-approximation, so that patterns that no
input has, or that contradict the linear part of the gradient equations, never become cubes. That the list is
complete is itself a query (``complete``): the over-approximation with every listed cube excluded is
unsatisfiable, in exact rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

from exan_verify.errors import RangeError
from exan_verify.smt.arguments.cube import MAX_BOXES
from exan_verify.smt.arguments.isolate_softmax import softmax_isolation
from exan_verify.smt.arguments.no_other_batch import only_known
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.question.difference import Known, other_batch, placements, values_at, without_sample
from exan_verify.smt.question.encode import Encoding, abstraction, encode, state_names
from exan_verify.smt.question.encoder import Fixed
from exan_verify.smt.question.isolate import EVERYWHERE, isolation
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.refine import Lemma, lemma_formula
from exan_verify.smt.question.terms import Formula, Literal, Script, disj

FIRST_BOXES = 1000
"""A second, before solvers are asked; what they leave open gets more. The known batch's own cube gets all
at once where a loss is transcendental: solvers do not close it.
"""

MAX_UNKNOWNS = 40
"""No ball is looked for with more inputs: it takes half a minute at this size, and solvers get nowhere
beyond."""

MAX_PLACEMENTS = 24
"""So many orders of the known batch in one cube get a ball; the others exclude the point alone."""

Reaches = tuple[tuple[tuple[int, ...], Fraction], ...]
"""For each order in which the known batch lies in the cube, the radius of the ball excluded around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One cube of a question: its literals and what is excluded in it.

    ``others``: batches that the unknown one must differ from (by more than ``radius``); ``missing``: a
    sample of the first of them that it must not contain, instead. ``fixed`` empty: the whole question.
    ``settled``: shown to hold no such batch without a solver.
    """

    index: int
    posed: Posed
    fixed: tuple[tuple[str, bool], ...] = ()
    others: tuple[Known, ...] = ()
    radius: Fraction = Fraction(0)
    missing: int | None = None
    reaches: Reaches = ()
    lemmas: tuple[Lemma, ...] = ()
    settled: bool = False

    @property
    def assignment(self) -> Fixed:
        """The cube's literals by name."""
        return dict(self.fixed)

    @property
    def name(self) -> str:
        """The cube in a line: per sample its neurons, label and margins as bits."""
        bits = ["".join(str(int(v)) for n, v in self.fixed if f"_s{m}_" in n) for m in range(self.posed.size)]
        return f"cube {self.index} [{' '.join(bits)}]"


def all_literals(posed: Posed) -> list[str]:
    """The literals of all samples, in the order of a cube's bits."""
    return [name for m in range(posed.size) for name in state_names(posed, m)]


def completeness(posed: Posed, cubes: Sequence[Sequence[bool]]) -> Script:
    """Unsatisfiable iff every solution of the linear over-approximation lies in one of the cubes."""
    script = abstraction(posed)
    literals = all_literals(posed)
    script.title += "\nUnsatisfiable: the listed cubes hold all batches of the question."
    for k, bits in enumerate(cubes):
        outside = disj(Literal(name, not bit) for name, bit in zip(literals, bits, strict=True))
        script.require(outside, f"not in cube {k}")
    return script


def cube_tasks(whole: Task, cubes: Sequence[Sequence[bool]], first: int = 0) -> list[Task]:
    """The task of the whole question, once per cube; indices count from ``first``.

    Where the known batch lies in a cube, a ball around it is excluded if it can be.
    """
    posed = whole.posed
    literals = all_literals(posed)
    isolated = posed.question.tolerance is None and whole.missing is None and len(whole.others) == 1
    regions = Regions(posed=posed)
    tasks = []
    for k, bits in enumerate(cubes, first):
        fixed = tuple(zip(literals, bits, strict=True))
        settled = _settled(regions, dict(fixed), whole.others)
        reaches = excluded_balls(posed, dict(fixed), whole.others[0]) if isolated else ()
        tasks.append(replace(whole, index=k, fixed=fixed, reaches=reaches, settled=settled))
    return tasks


def _settled(regions: Regions, fixed: Fixed, others: Sequence[Known]) -> bool:
    """What is cheap to see: no matrices T fit, or none but the known batch's; and more in its own cube."""
    if regions.posed.question.tolerance is not None or regions.posed.relu is None:
        return False
    if regions.inconsistent(fixed):
        return True
    for other in others:
        if not _comparable(regions, fixed, other):
            continue
        # solvers handle polynomials better than covers do, but not the regions of a transcendental batch
        boxes = 0
        if not regions.posed.question.loss.rational:
            if any(placements(regions.posed, other, fixed)):
                boxes = MAX_BOXES
            elif sorted(regions.patterns(fixed)) == sorted(regions.states(other.states)):
                boxes = FIRST_BOXES
        if only_known(regions, fixed, other, boxes=boxes):
            return True
    return False


def settled_later(task: Task) -> bool:
    """For a cube that solvers leave open at first: whether its regions leave no batch but the known one."""
    if not (task.fixed and task.others) or task.posed.question.tolerance is not None:
        return False
    if task.posed.relu is None:
        return False
    regions = Regions(posed=task.posed)
    return any(
        _comparable(regions, task.assignment, other) and only_known(regions, task.assignment, other)
        for other in task.others
    )


def _comparable(regions: Regions, fixed: Fixed, truth: Known) -> bool:
    """Whether the regions of a cube and of the known batch are few and small enough for linear algebra."""
    posed = regions.posed
    return posed.alphabet is not None and regions.tractable(
        len({*regions.patterns(fixed), *regions.states(truth.states)})
    )


def excluded_balls(posed: Posed, fixed: Fixed, truth: Known) -> Reaches:
    """The balls around a rational known batch that hold no second one, for each order that fits the cube."""
    if not truth.batch.rational or posed.size * posed.network.widths[0] > MAX_UNKNOWNS:
        return ()
    orders = list(islice(placements(posed, truth, fixed), MAX_PLACEMENTS))
    if not orders:
        return ()
    encoding = encode(posed, fixed)
    equations = [e for _, e in encoding.equations]
    found = []
    for order in orders:
        if posed.question.loss.rational:
            reach = isolation(equations, values_at(encoding, truth, order))
        else:
            reach = _softmax_reach(posed, encoding, truth, order)
        if reach is not None:
            found.append((order, _short(reach)))
    return tuple(found)


def _softmax_reach(posed: Posed, encoding: Encoding, truth: Known, order: Sequence[int]) -> Fraction | None:
    try:
        return softmax_isolation(posed, encoding, truth.batch, order)
    except RangeError:
        return None  # without the ball only the point is excluded


def _short(reach: Fraction) -> Fraction:
    """Rounded down to eight bits: solvers are slow with long numbers."""
    if reach == EVERYWHERE:
        return reach
    scale = Fraction(1)
    while reach * scale < 128:
        scale *= 2
    while reach * scale >= 256:
        scale /= 2
    return Fraction((reach * scale).__floor__()) / scale


def build(task: Task) -> Script:
    """The constraints of a task: the encoding, the exclusions, and the lemmas found so far."""
    encoding = encode(task.posed, task.assignment)
    script = encoding.script
    script.title += f"\n{task.name}" if task.fixed else ""
    _exclude(task, encoding)
    for lemma in task.lemmas:
        script.require(lemma_formula(task.posed, encoding.samples, lemma), "property of exp")
    return script


def _exclude(task: Task, encoding: Encoding) -> None:
    script = encoding.script
    for other in task.others:
        script.reals.extend(other.batch.point.roots)
        for fact in other.facts:
            script.require(fact, "irrational coordinates of the known batch")
    comment = "not the known batch, in any order of its samples"
    if task.missing is not None:
        comment = f"sample {task.missing} of the known batch is not in the batch"
    for formula in exclusions(task, encoding):
        script.require(formula, comment)


def exclusions(task: Task, encoding: Encoding) -> list[Formula]:
    """What the unknown batch must not be."""
    posed = task.posed
    if task.missing is not None:
        return without_sample(posed, encoding, task.others[0], task.missing)
    found: list[Formula] = []
    for k, other in enumerate(task.others):
        reaches = dict(task.reaches) if k == 0 else {}
        found += other_batch(posed, encoding, other, task.assignment, radius=task.radius, reaches=reaches)
    return found
