"""Solvers take over: all inputs of fixed networks, then all weights of the smallest networks.

Both run the claim's predicates on traced numbers (:mod:`exan_verify.theorems.claims.searching.explore`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise, product

import numpy as np

from exan_verify.core.network import Array, ReluNetwork
from exan_verify.smt.solvers.run import Worker
from exan_verify.theorems.claims.claim import Claim, Judgement, unique
from exan_verify.theorems.claims.searching.explore import Exploration, Limits, Point, explore
from exan_verify.theorems.claims.searching.found import Counterexample, verified
from exan_verify.theorems.claims.searching.unknowns import (
    FIRST,
    NETWORK,
    Template,
    exact_batches,
    free_of,
    label_pairs,
    run_claim,
)
from exan_verify.theorems.claims.tracing import Path
from exan_verify.theorems.statement import Progress

UNKNOWNS = 14
"""Networks with more parameters are not searched for all weights: the polynomials have degree 3 and more in
them, and beyond this z3 answers few questions within its limit."""


SIDE_BY_SIDE = 12
RUNS_AT_A_TIME = 8
"""So many cases take turns, with so many runs each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What a stage with a solver did; a *case* is one network (or size), batch size and labelling."""

    exploration: Exploration
    begun: int
    complete: int
    counterexample: Counterexample | None = None

    def numbers(self) -> dict[str, int]:
        """The counts, by what they count."""
        runs = self.exploration.runs
        return {
            "cases": self.begun,
            "cases covered completely": self.complete,
            "paths": sum(runs.values()),
            "paths within the hypotheses": sum(runs.values()) - runs[Judgement.OUTSIDE],
            "paths undecided": runs[Judgement.UNDECIDED],
            "questions to z3": self.exploration.queries,
            "questions open": self.exploration.open,
            "paths decided at one point only": self.exploration.opaque,
        }


def all_inputs(claim: Claim, networks: Sequence[ReluNetwork], limits: Limits, progress: Progress) -> Solved:
    """Every batch of every admitted size and labelling, for each of the networks."""
    return _solve(claim, _inputs(claim, networks), limits, "all inputs", progress)


def all_weights(claim: Claim, limits: Limits, progress: Progress) -> Solved:
    """All weights of the smallest networks, at a few fixed batches of small integers."""
    return _solve(claim, _weights(claim), limits, "all weights", progress)


@dataclass(slots=True)
class _Case:
    """One exploration under way."""

    template: Template
    runs: Iterator[tuple[Point, Path, Judgement]]
    found: Exploration


def _solve(
    claim: Claim, templates: Iterator[Template], limits: Limits, what: str, progress: Progress
) -> Solved:
    """Explore the cases side by side, a few runs of each in turn, so that one hard case starves no other."""
    cases: list[_Case] = []
    waiting: deque[_Case] = deque()
    with Worker() as worker:
        while not limits.late and _queries(cases) < limits.queries:
            if len(waiting) < SIDE_BY_SIDE and (template := next(templates, None)) is not None:
                waiting.append(_begin(claim, template, limits, worker))
                cases.append(waiting[-1])
            elif not waiting:
                break
            case = waiting.popleft()
            counterexample, more = _advance(claim, case)
            progress(what, min(_queries(cases), limits.queries), limits.queries)
            if counterexample is not None:
                return _solved(cases, waiting, counterexample)
            if more:
                waiting.append(case)
    return _solved(cases, waiting)


def _begin(claim: Claim, template: Template, limits: Limits, worker: Worker) -> _Case:
    def program(point: Point, path: Path) -> Judgement:
        return run_claim(claim, template, point, path)

    found = Exploration()
    return _Case(template, explore(program, template.start(), limits, worker, found), found)


def _advance(claim: Claim, case: _Case) -> tuple[Counterexample | None, bool]:
    """A few runs more: a counterexample if there was one, and whether runs are left."""
    for _ in range(RUNS_AT_A_TIME):
        run = next(case.runs, None)
        if run is None:
            return None, False
        point, _, judged = run
        if judged is Judgement.FAILS:
            network, batch, second = exact_batches(claim, case.template, point)
            other = second if claim.conclusion is unique else None
            checked = verified(claim, network, batch, "found by a solver", other)
            if checked is not None:
                return checked, True
    return None, True


def _queries(cases: Sequence[_Case]) -> int:
    return sum(case.found.queries for case in cases)


def _solved(
    cases: Sequence[_Case], unfinished: Sequence[_Case], counterexample: Counterexample | None = None
) -> Solved:
    total = Exploration()
    for case in cases:
        total.add(case.found)
    covered = sum(case.found.complete for case in cases if all(case is not other for other in unfinished))
    return Solved(exploration=total, begun=len(cases), complete=covered, counterexample=counterexample)


def _inputs(claim: Claim, networks: Sequence[ReluNetwork]) -> Iterator[Template]:
    for samples in range(claim.sizes.samples[0], claim.sizes.samples[1] + 1):
        for network in networks:
            x = _spread(samples, network.widths[0])
            for y, second in label_pairs(claim, network.classes, samples):
                free = free_of(claim, FIRST)
                yield Template(network=network, x=x, y=y, second=second, free=free)


def _weights(claim: Claim) -> Iterator[Template]:
    if claim.networks:
        return
    for widths, has_bias in _shapes(claim):
        network = _plain(widths, has_bias)
        for samples in range(claim.sizes.samples[0], claim.sizes.samples[1] + 1):
            for x in islice(_small_batches(samples, widths[0]), 2):
                for y, second in islice(label_pairs(claim, widths[-1], samples), 6):
                    free = free_of(claim, NETWORK)
                    yield Template(network=network, x=x, y=y, second=second, free=free)


def _shapes(claim: Claim) -> list[tuple[tuple[int, ...], bool]]:
    """Sizes with few parameters, fewest first."""
    sizes = claim.sizes
    ranges = [range(a, b + 1) for a, b in (sizes.inputs, *sizes.hidden, sizes.logits)]
    kinds = (True, False) if sizes.biases is None else (sizes.biases,)
    tops = [islice(found, UNKNOWNS) for found in ranges]
    shapes = [(tuple(widths), has_bias) for widths in product(*tops) for has_bias in kinds]
    return sorted((s for s in shapes if _parameters(*s) <= UNKNOWNS), key=lambda s: (_parameters(*s), s))


def _parameters(widths: tuple[int, ...], has_bias: bool) -> int:
    return sum(a * b + has_bias * b for a, b in pairwise(widths))


def _plain(widths: tuple[int, ...], has_bias: bool) -> ReluNetwork:
    """A first point for the weights: 1 and -1 in turn."""
    weights = [np.array([[(-1) ** (i + j) for j in range(a)] for i in range(b)]) for a, b in pairwise(widths)]
    return ReluNetwork.from_arrays(weights, [np.zeros(b) for b in widths[1:]] if has_bias else None)


def _small_batches(samples: int, inputs: int) -> Iterator[Array]:
    """The corners 0, e_1, e_2, ..., then steps along the diagonal."""
    if samples <= inputs + 1:
        corners = np.zeros((samples, inputs))
        corners[range(1, samples), range(samples - 1)] = 1
        yield corners
    yield _spread(samples, inputs)


def _spread(samples: int, inputs: int) -> Array:
    """Different small integers in every input: sample m, input i has (m + 1) (i + 1) - 2."""
    out = np.empty((samples, inputs), dtype=object)
    for m, i in np.ndindex(out.shape):
        out[m, i] = Fraction((m + 1) * (i + 1) - 2)
    return out
