"""Makes a counterexample smaller: by the engines' word, or by a solver asked about the smaller network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.smt.solvers.run import Worker
from exan_verify.theorems.claims.claim import Claim, Judged, unique
from exan_verify.theorems.claims.situation import rational_array
from exan_verify.theorems.claims.tracing import Path
from exan_verify.theorems.searching.explore import Exploration, Limits, Point, explore
from exan_verify.theorems.searching.found import Counterexample, Records, verified
from exan_verify.theorems.searching.shrinking import shrink
from exan_verify.theorems.searching.tally import Tally
from exan_verify.theorems.searching.unknowns import (
    FIRST,
    Template,
    exact_batches,
    free_of,
    label_pairs,
    polynomial,
    run_claim,
    second_labels,
)

AT_ONCE = 24
"""Questions to a solver about one candidate, per labelling."""


def minimal(
    tally: Tally, records: Records, second: Batch | None, *, questions: int, seed: int
) -> Counterexample | None:
    """The smallest counterexample from here that can be verified; at most ``questions`` go to a solver."""
    note = f"{tally.what}, seed {seed}, made smaller step by step"
    with Worker() as worker:
        smaller = _Smaller(tally, note, questions, seed, worker)
        smallest = shrink(tally.claim, records, smaller.find, tally.late)
    known = smaller.seconds.get(_key(smallest))
    found = verified(tally.claim, *smallest, note, known)
    return found or verified(tally.claim, *records, note, second)


@dataclass(slots=True)
class _Smaller:
    """Says whether candidates are counterexamples. ``seconds``: second batches that the solver found."""

    tally: Tally
    note: str
    questions: int
    seed: int
    worker: Worker
    seconds: dict[tuple[str, str], Batch] = field(default_factory=dict)

    def find(self, network: ReluNetwork, batch: Batch, cut: bool) -> Records | None:
        """This batch or, where the candidate is a cut, any with so many samples in this network."""
        claim = self.tally.claim
        judged = self.tally.judge(network, batch)
        if judged is Judged.FAILS:
            return network, batch
        found = None
        if not polynomial(claim) and judged is Judged.UNDECIDED and claim.conclusion is unique:
            found = self._ask(_beside(claim, network, batch))
        if not polynomial(claim) and found is None and cut:
            found = self._ask(_anywhere(claim, network, batch))
        return found

    def _ask(self, templates: Iterator[Template]) -> Records | None:
        """What a solver finds, if it is verified: found is exact, and not to find is no proof."""
        for template in templates:
            at_once = min(AT_ONCE, self.questions)
            if at_once < 1 or self.tally.late():
                return None
            limits = Limits(runs=at_once, queries=at_once, deadline=self.tally.deadline, seed=self.seed)
            explored = Exploration()
            found = self._explore(template, limits, explored)
            self.questions -= explored.queries
            if found is not None:
                return found
        return None

    def _explore(self, template: Template, limits: Limits, explored: Exploration) -> Records | None:
        claim = self.tally.claim

        def program(point: Point, path: Path) -> Judged:
            return run_claim(claim, template, point, path)

        for point, _, judged in explore(program, template.start(), limits, self.worker, explored):
            if judged is Judged.FAILS:
                network, batch, second = exact_batches(claim, template, point)
                other = second if claim.conclusion is unique else None
                if verified(claim, network, batch, self.note, other) is not None:
                    if other is not None:
                        self.seconds[_key((network, batch))] = other
                    return network, batch
        return None


def _beside(claim: Claim, network: ReluNetwork, batch: Batch) -> Iterator[Template]:
    """Is there a second batch beside this one? Its inputs, and real labels, are unknown."""
    y = batch.labels if batch.labels.ndim == 1 else rational_array(batch.labels)
    for second in second_labels(claim, network, batch):
        yield Template(network=network, x=batch.inputs, y=y, second=second, free=free_of(claim))


def _anywhere(claim: Claim, network: ReluNetwork, batch: Batch) -> Iterator[Template]:
    """Is there a counterexample with so many samples in this network? The batch's inputs come first."""
    for y, second in label_pairs(claim, network.classes, batch.size):
        yield Template(network=network, x=batch.inputs, y=y, second=second, free=free_of(claim, FIRST))


def _key(records: Records) -> tuple[str, str]:
    return records[0].digest, records[1].digest
