"""What an answer looks like: outcomes, sample statuses, verdicts and witnesses.

A verdict is a claim about real arithmetic on the stored numbers (docs/theory.md 3.6), not about an
accelerator's rounded arithmetic. Undecided is a value, never an exception and never "safe".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from exan_verify.core.network import Batch
from exan_verify.core.question import Release


class Outcome(StrEnum):
    """Which batches of the stated size, labels and domain have the gradient, up to order."""

    UNIQUE = "unique"
    AMBIGUOUS = "ambiguous"
    UNREALISABLE = "unrealisable"
    UNKNOWN = "unknown"


OUTCOME_MEANING: Mapping[Outcome, str] = {
    Outcome.UNIQUE: "exactly one batch has this gradient: in principle every sample can be rebuilt from it",
    Outcome.AMBIGUOUS: "at least two batches have this gradient; a sample may be the same in all of them",
    Outcome.UNREALISABLE: "no batch of this size, with these labels and inputs, has this gradient",
    Outcome.UNKNOWN: "not decided; this is not a statement that the batch is safe",
}
"""One sentence per outcome, for reports."""

RELEASE_MEANING: Mapping[Outcome, str] = {
    Outcome.UNIQUE: "exactly one batch has this release: in principle every sample can be rebuilt from it",
    Outcome.AMBIGUOUS: "at least two batches have this release; a sample may be the same in all of them",
    Outcome.UNREALISABLE: "no batch of this size, with these labels and inputs, has this release",
    Outcome.UNKNOWN: OUTCOME_MEANING[Outcome.UNKNOWN],
}
"""The same where less than the whole gradient is sent."""

TOLERANT_MEANING: Mapping[Outcome, str] = {
    Outcome.UNIQUE: "all batches with a gradient within the tolerance lie within the radius named below",
    Outcome.AMBIGUOUS: "two batches with gradients within the tolerance lie further apart than was asked",
    Outcome.UNREALISABLE: "no batch of this size, labels and inputs has a gradient within the tolerance",
    Outcome.UNKNOWN: OUTCOME_MEANING[Outcome.UNKNOWN],
}
"""The same when a tolerance was given: nothing is said about exact equality."""


class SampleStatus(StrEnum):
    """Whether a sample (x_m, y_m) belongs to every batch with this gradient.

    ``FEATURES``: what the fully connected head is given of it, and its label, do; its pixels are not decided.
    """

    DETERMINED = "determined"
    FREE = "free"
    FEATURES = "features"
    UNKNOWN = "unknown"


class Trust(StrEnum):
    """What a verdict rests on.

    ``CERTIFIED``: a certificate that the kernel rechecks. The others are the SMT path's: ``ARGUED``: its
    exact arguments alone, no solver's word and no certificate; ``CROSS_CHECKED``: everything that no such
    argument settled was refuted by two solvers; ``SOLVER_TRUSTED``: by one. The reason counts both kinds.
    """

    CERTIFIED = "certified"
    ARGUED = "argued"
    CROSS_CHECKED = "cross-checked"
    SOLVER_TRUSTED = "solver-trusted"


class Engine(StrEnum):
    """The argument that gave the verdict (docs/theory.md sections 3 and 4)."""

    DIRECT = "direct"
    LIFTING = "lifting"
    ENUMERATION = "enumeration"
    FAMILIES = "families"
    RESIDUAL = "residual"
    SCALE = "scale"
    SMT = "smt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One engine's word on the question: who was asked, where, and what came of it.

    For lifting: ``layer`` is 1-based; ``equations`` counts neurons with a non-zero delta row; ``unknowns``
    is U and ``rank`` the rank of R that was proved (docs/theory.md 3.2).
    """

    engine: Engine
    note: str
    layer: int | None = None
    equations: int | None = None
    unknowns: int | None = None
    rank: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Evidence for AMBIGUOUS: another batch with the same gradient, or a family of them."""

    batch: Batch | None = None
    dimension: int | None = None
    generators: tuple[Any, ...] = ()
    radius: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer to "which batches have this gradient?" (or ``release``), with what it rests on.

    ``samples`` has one status per sample (gradient given: of ``batch`` where one was found, else empty).
    ``batch_size`` is the size among which the question was decided. ``trust`` and ``certificate`` are None
    unless something was decided (for the batch or for single samples); ``trust`` is the weakest word that any
    part of the answer rests on, and the certificate may show more of it (``certified``, ``rests_on``).
    ``tolerant``: the question had a tolerance, so no sample is called determined; then ``distance`` is the
    largest entry of the difference between the given gradient and that of the nearest batch found (an upper
    bound; None where no engine of ours found a batch). ``architecture``: what the model was taken for, in
    words. ``notes``: what was assumed of the model, or done to it and to the gradient, before the question
    was asked; a line each.
    """

    outcome: Outcome
    samples: tuple[SampleStatus, ...]
    reason: str
    batch_size: int
    engine: Engine | None = None
    layer: int | None = None
    trust: Trust | None = None
    batch: Batch | None = None
    witness: Witness | None = None
    certificate: Mapping[str, Any] | None = None
    attempts: tuple[Attempt, ...] = ()
    tolerant: bool = False
    distance: float | None = None
    architecture: str = ""
    notes: tuple[str, ...] = ()
    release: Release | None = None

    @property
    def meaning(self) -> str:
        """What the outcome says, in one sentence; with a tolerance it speaks of a radius, not of equality."""
        if self.release is not None:
            return RELEASE_MEANING[self.outcome]
        return (TOLERANT_MEANING if self.tolerant else OUTCOME_MEANING)[self.outcome]

    @property
    def certified(self) -> tuple[int, ...]:
        """The samples whose status the certificate shows; the others' rests on ``trust``, or is unknown."""
        claimed = () if self.certificate is None else self.certificate["claim"]["samples"]
        return tuple(m for m, status in enumerate(claimed) if status != SampleStatus.UNKNOWN)

    @property
    def rests_on(self) -> str:
        """``trust`` in words; where it is weaker than a certificate (a solver's word, or an exact argument
        that has none) and a certificate shows a part of the answer, which.
        """
        if self.trust is None:
            return "nothing was decided"
        if self.certificate is None or self.trust is Trust.CERTIFIED:
            return self.trust.value
        shown = [f"samples {', '.join(map(str, self.certified))}"] if self.certified else []
        if self.certificate["claim"]["outcome"] == self.outcome:
            shown.insert(0, f"the outcome {self.outcome.value}")
        return f"{self.trust.value}; certified are {' and '.join(shown)}" if shown else self.trust.value

    @property
    def determined(self) -> int:
        """How many samples are in every batch with this gradient: each of them is a leak."""
        return sum(status is SampleStatus.DETERMINED for status in self.samples)
