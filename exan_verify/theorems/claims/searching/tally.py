"""Counts what a search has judged; keeps the smallest counterexample, and networks to look at closer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from exan_verify.core.budget import until
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.errors import BudgetExhausted
from exan_verify.theorems.claims.claim import Claim, Judgement, concluded, held
from exan_verify.theorems.claims.searching.found import Records, candidate_size
from exan_verify.theorems.claims.situation import Situation
from exan_verify.theorems.statement import Progress

KEPT = 4
"""So many networks in which the hypotheses held are kept for the stages that take all inputs."""

NEAREST = 16
"""So many situations in which most hypotheses held are kept for the stage that looks near them."""


@dataclass(slots=True)
class Tally:
    """The situations that one stage has judged; each counts once.

    After ``deadline`` (of ``time.monotonic``) nothing new is judged: ``judge`` then says UNDECIDED.
    """

    claim: Claim
    what: str
    total: int
    progress: Progress
    deadline: float | None = None
    counts: dict[Judgement, int] = field(default_factory=lambda: dict.fromkeys(Judgement, 0))
    best: Records | None = None
    promising: list[ReluNetwork] = field(default_factory=list)
    nearest: list[tuple[int, Records]] = field(default_factory=list)
    _answers: dict[tuple[str, str], Judgement] = field(default_factory=dict)
    _held: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """Different situations in all."""
        return len(self._answers)

    @property
    def inside(self) -> int:
        """So many of these are within the hypotheses."""
        return self.judged - self.counts[Judgement.OUTSIDE]

    def held(self, network: ReluNetwork, batch: Batch) -> int:
        """How many hypotheses were known to hold, before the first that did not, when this was judged."""
        return self._held.get((network.digest, batch.digest), 0)

    def late(self) -> bool:
        """Whether the time is over."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def judge(self, network: ReluNetwork, batch: Batch) -> Judgement:
        """Judge one situation, once; the smallest that contradicts the claim is kept."""
        key = network.digest, batch.digest
        known = self._answers.get(key)
        if known is not None:
            return known
        if self.late():
            return Judgement.UNDECIDED
        question = self.claim.question
        inside = question.domain is None or question.domain.contains(batch)
        situation = Situation.of(network, batch, question)
        try:
            with until(self.deadline):
                met = held(self.claim, situation) if inside else 0
                admitted = inside and met == len(self.claim.hypotheses)
                found = concluded(self.claim, situation) if admitted else Judgement.OUTSIDE
        except BudgetExhausted:  # of a timer, in the middle of a predicate
            return Judgement.UNDECIDED
        self._answers[key], self._held[key] = found, met
        self.counts[found] += 1
        if inside:
            # the last judged first: where a strategy begins, its numbers are all alike
            self.nearest.insert(0, (met, (network, batch)))
            self.nearest.sort(key=lambda one: -one[0])
            del self.nearest[NEAREST:]
        self.progress(self.what, self.judged, max(self.total, self.judged))
        if found is not Judgement.OUTSIDE and len(self.promising) < KEPT and network not in self.promising:
            self.promising.append(network)
        if found is Judgement.FAILS:
            size = candidate_size(network, batch)
            if self.best is None or size < candidate_size(*self.best):
                self.best = network, batch
        return found

    def numbers(self) -> dict[str, int]:
        """The counts, by what they count."""
        return {
            "situations": self.judged,
            "within the hypotheses": self.inside,
            "undecided": self.counts[Judgement.UNDECIDED],
            "counterexamples": self.counts[Judgement.FAILS],
        }
