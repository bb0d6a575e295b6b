"""Counts what a search has judged; keeps the smallest counterexample, and networks to look at closer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from exan_verify.core.budget import until
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.errors import BudgetExhausted
from exan_verify.theorems.claims.claim import Claim, Judgement, judge
from exan_verify.theorems.claims.searching.found import Records, candidate_size
from exan_verify.theorems.claims.situation import Situation
from exan_verify.theorems.statement import Progress

KEPT = 4
"""So many networks in which the hypotheses held are kept for the stages that take all inputs."""


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
    _answers: dict[tuple[str, str], Judgement] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """Different situations in all."""
        return len(self._answers)

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
                found = judge(self.claim, situation) if inside else Judgement.OUTSIDE
        except BudgetExhausted:  # of a timer, in the middle of a predicate
            return Judgement.UNDECIDED
        self._answers[key] = found
        self.counts[found] += 1
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
        inside = self.judged - self.counts[Judgement.OUTSIDE]
        return {
            "situations": self.judged,
            "within the hypotheses": inside,
            "undecided": self.counts[Judgement.UNDECIDED],
            "counterexamples": self.counts[Judgement.FAILS],
        }
