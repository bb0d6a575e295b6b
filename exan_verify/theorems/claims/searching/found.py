"""What a search found: counterexamples that were verified exactly, and how much was looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from exan_verify.core.arrays import exact_array
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.verdict import Outcome
from exan_verify.theorems.claims.claim import Claim, Judgement, admitted, concluded, unique
from exan_verify.theorems.claims.situation import Situation
from exan_verify.theorems.replay import Replay, replay
from exan_verify.theorems.statement import Example, Progress

__all__ = ["Counterexample", "Progress", "Records", "Stage", "candidate_size", "nothing_tested", "verified"]

Records = tuple[ReluNetwork, Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """A situation in which every hypothesis holds and the conclusion does not, exactly.

    ``replay``: of what rests on a second batch or on a certificate; ``confirmed`` is None where the
    predicates are arithmetic alone, which has then been evaluated anew on exact records.
    """

    example: Example
    replay: Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One way of looking, and what it looked at. ``counts`` are numbers by what they count."""

    name: str
    says: str
    counts: Mapping[str, int]
    seconds: float

    @property
    def looked_at(self) -> int:
        """Situations or paths."""
        return self.counts.get("situations", 0) + self.counts.get("paths", 0)

    @property
    def inside(self) -> int:
        """So many of them met the hypotheses."""
        counts = self.counts
        return counts.get("within the hypotheses", 0) + counts.get("paths within the hypotheses", 0)

    @property
    def undecided(self) -> int:
        """So many of these left the conclusion open."""
        return self.counts.get("undecided", 0) + self.counts.get("paths undecided", 0)


def nothing_tested(looked_at: int, inside: int, undecided: int, what: str) -> str:
    """Why so many situations or paths tested nothing of a claim; "" when they did, or there were none."""
    if looked_at and not inside:
        return f"hypotheses never met in {looked_at} {what}: nothing was tested"
    if inside and inside == undecided:
        return f"conclusion decided in none of {inside} {what} within the hypotheses: nothing was tested"
    return ""


def verified(
    claim: Claim, network: ReluNetwork, batch: Batch, note: str, second: Batch | None = None
) -> Counterexample | None:
    """The counterexample, evaluated anew on fresh exact records and replayed; None when it is none.

    ``second``: another batch that refutes a claim of uniqueness, where one is known.
    """
    question = claim.question
    if question.domain is not None and not question.domain.contains(batch):
        return None
    situation = Situation.of(network, batch, question)
    if not admitted(claim, situation):
        return None
    if second is None or claim.conclusion is not unique:
        if concluded(claim, situation) is not Judgement.FAILS:
            return None
        second = _witness(situation)
    outcome = Outcome.AMBIGUOUS if second is not None else situation.asked_outcome
    example = Example(
        network=network,
        batch=batch,
        question=question,
        note=note,
        second=second,
        outcome=outcome,
    )
    replayed = replay(example)
    return None if replayed.confirmed is False else Counterexample(example=example, replay=replayed)


def _witness(situation: Situation) -> Batch | None:
    """The second batch of a verdict that a predicate asked for, when there is an explicit one."""
    if situation.asked_outcome is not Outcome.AMBIGUOUS:
        return None
    witness = situation.verdict.witness
    return None if witness is None else witness.batch


def candidate_size(network: ReluNetwork, batch: Batch) -> tuple[int, int, int]:
    """How large an example is to a reader: samples and neurons, numbers that are not 0, their digits."""
    values = list(_numbers(network, batch))
    shape = sum(network.widths) + batch.size
    digits = sum(v.denominator.bit_length() + abs(v.numerator).bit_length() + (v < 0) for v in values)
    return shape, sum(v != 0 for v in values), digits


def _numbers(network: ReluNetwork, batch: Batch) -> Iterator[Fraction]:
    arrays = [*(array for _, array in network.parameters()), batch.inputs, batch.labels]
    for array in arrays:
        for value in exact_array(array, "example").reshape(-1):
            yield Fraction(value)
