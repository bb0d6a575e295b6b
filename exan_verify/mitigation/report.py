"""What ``mitigate`` returns: a finding per defence, and what is recommended, with its proof or without."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exan_verify.api.attack_own_batch import READABLE_PSNR, Recovery
from exan_verify.api.records import finite, pretty, verdict_record
from exan_verify.core.certificate import domain_record
from exan_verify.core.question import Question
from exan_verify.core.verdict import SampleStatus, Verdict
from exan_verify.mitigation.attacked import Gained
from exan_verify.mitigation.case import Floats
from exan_verify.mitigation.protection import Protection, Reach

SCHEMA = "exan/mitigation/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Exclusivity of what is sent: ``exans`` by hidden layer, among the rows that are sent, and how many of
    the ``samples`` of the step can be peeled."""

    exans: tuple[int, ...]
    peelable: int
    samples: int

    @property
    def total(self) -> int:
        """Exclusive neurons of all hidden layers."""
        return sum(self.exans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the defence costs.

    ``accuracy`` on held-out samples, the median ``by_seed``, and ``baseline`` without it; ``distortion``:
    |g' - g| / |g| of what is sent; ``epsilon`` of one release and ``epsilon_run`` of the whole training, both
    where clipping bounds a sample's influence. None where there is none, and ``note`` may say why.
    """

    accuracy: float | None = None
    baseline: float | None = None
    by_seed: tuple[float, ...] = ()
    distortion: float | None = None
    epsilon: float | None = None
    epsilon_run: float | None = None
    note: str = ""

    @property
    def loss(self) -> float | None:
        """Accuracy lost, in shares of the held-out samples."""
        return None if self.accuracy is None or self.baseline is None else self.baseline - self.accuracy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finding:
    """One defence on one batch.

    ``exclusivity`` of what is sent. ``verdict``: the exact answer about ``asked_of`` (the samples; the
    members of all groups that were averaged; the changed inputs that the training step saw), None where none
    can be asked; ``means``: about the means of groups, where there are some. ``samples``: what is proved of
    each of the ``subjects`` (M, d), the samples to protect. ``attack``: what the attack got.
    ``protection``: its three numbers; ``cost``. ``facts``: what the defence did. ``random``: noise was added.
    """

    name: str
    assumes: str
    exclusivity: State
    verdict: Verdict | None
    samples: tuple[SampleStatus, ...]
    attack: Gained
    protection: Protection
    cost: Cost
    subjects: Floats
    facts: Mapping[str, Any] = field(default_factory=dict)
    asked_of: str = "samples"
    means: Verdict | None = None
    random: bool = False

    def count(self, status: SampleStatus) -> int:
        """How many subjects have this status."""
        return sum(one is status for one in self.samples)

    @property
    def outcome(self) -> str:
        """What is proved of the subjects, in a word for a table."""
        size = len(self.samples)
        if self.count(SampleStatus.DETERMINED) == size:
            return "UNIQUE"
        if self.count(SampleStatus.FREE):
            return "AMBIGUOUS"
        if self.verdict is not None and self.asked_of != "members":
            return self.verdict.outcome.value.upper()
        return "random" if self.random else "not asked" if self.verdict is None else "UNKNOWN"

    @property
    def proved_hidden(self) -> bool:
        """Whether every subject is proved to be free: it differs between batches with this release."""
        return bool(self.samples) and self.count(SampleStatus.FREE) == len(self.samples)

    @property
    def exposed(self) -> float:
        """The best picture of any sample, in dB, that the attack or the estimate made; minus infinity where
        neither made one."""
        shown = [one.psnr for one in self.attack.by_sample if one is not None]
        return max([*shown, *(self.protection.estimate or ())], default=-math.inf)

    @property
    def useless(self) -> bool:
        """Whether it kept nothing back: all samples proved determined, or shown readably by the attack."""
        size = len(self.samples)
        return self.count(SampleStatus.DETERMINED) == size or self.attack.readable == size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MitigationReport:
    """All defences on one batch of M samples: ``before``, without any, and ``defences`` in the order asked.

    ``inputs`` (M, d), each of the ``shape`` in which it was given. ``left_out``: defences that were not
    tried, with the reason. Epsilons are at ``delta``, over a training run by ``accountant``.
    """

    widths: tuple[int, ...]
    question: Question
    inputs: Floats
    shape: tuple[int, ...]
    classes: tuple[int, ...]
    before: Finding
    defences: tuple[Finding, ...]
    left_out: Mapping[str, str]
    delta: float
    accountant: str
    seed: int
    notes: tuple[str, ...] = ()

    @property
    def batch_size(self) -> int:
        """M."""
        return len(self.inputs)

    @property
    def recommended(self) -> Finding | None:
        """The defence with every sample proved free and no picture that a viewer recognises, with the highest
        accuracy; where none is proved, the best of those that bound a sample's influence by a finite epsilon;
        None where there is neither."""
        proved = [f for f in self.defences if f.proved_hidden and f.exposed < READABLE_PSNR]
        bounded = [
            f
            for f in self.defences
            if f.cost.epsilon_run is not None and math.isfinite(f.cost.epsilon_run) and not f.attack.readable
        ]
        ranked = proved or bounded
        return max(ranked, key=lambda f: -1.0 if f.cost.accuracy is None else f.cost.accuracy, default=None)

    @property
    def recommendation(self) -> str:
        """In plain words, with what it rests on."""
        best = self.recommended
        open_but_readable = "".join(
            f" {f.name} is proved to hide directions of every sample, but a picture of {f.exposed:.1f} dB "
            "was made of one."
            for f in self.defences
            if f.proved_hidden and f.exposed >= READABLE_PSNR
        )
        if best is None:
            return (
                "None of the defences that were tried keeps the samples back: each leaves them determined, "
                f"recognisable, or has nothing proved of it.{open_but_readable} Try a projection to fewer "
                "public directions (project-pca:8) or larger averages (average:4)."
            )
        loss = best.cost.loss
        price = "" if loss is None else f" It costs {100 * loss:.1f} points of accuracy on held-out samples."
        if best.proved_hidden:
            hidden, of = best.protection.hidden, best.protection.of
            return (
                f"Use {best.name}. Proved: every one of the {len(best.samples)} samples differs between "
                f"batches that send exactly the same, and at least {hidden} of {of} dimensions are hidden. "
                f"Measured only: the best copy that was made of any sample has {best.exposed:.1f} dB, "
                f"below the {READABLE_PSNR:g} dB that count as recognisable here; look at what the report "
                f"shows, and a better prior may do better.{price} Against: {best.assumes}"
            )
        return (
            f"Use {best.name}, measured only: nothing exact is proved, since noise is random. Each sample "
            "changes the probability of anything sent in training by a factor of at most "
            f"e^{best.cost.epsilon_run:.1f} (delta {self.delta:g}), and the attack recognised "
            f"none.{open_but_readable}{price} Against: {best.assumes}"
        )

    @property
    def useless(self) -> tuple[str, ...]:
        """Defences after which every sample is still determined or recognised."""
        return tuple(f.name for f in self.defences if f.useless)

    def to_record(self) -> dict[str, Any]:
        """A JSON-able dict of schema ``exan/mitigation/1``; it never contains the batch's inputs."""
        best = self.recommended
        return {
            "schema": SCHEMA,
            "widths": self.widths,
            "loss": self.question.loss,
            "reduction": self.question.reduction,
            "labels": self.question.labels,
            "domain": domain_record(self.question.domain, self.widths[0]),
            "batch_size": self.batch_size,
            "classes": self.classes,
            "seed": self.seed,
            "delta": self.delta,
            "accountant": self.accountant,
            "before": _finding_record(self.before),
            "defences": [_finding_record(one) for one in self.defences],
            "left_out": dict(self.left_out),
            "recommended": None if best is None else best.name,
            "recommendation": self.recommendation,
            "useless": self.useless,
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """The record as indented JSON text."""
        return pretty(self.to_record()).decode()


def _finding_record(found: Finding) -> dict[str, Any]:
    gained, cost = found.attack, found.cost
    return {
        "name": found.name,
        "assumes": found.assumes,
        "outcome": found.outcome,
        "samples": [status.value for status in found.samples],
        "asked_of": found.asked_of,
        "verdict": None if found.verdict is None else verdict_record(found.verdict),
        "means": None if found.means is None else verdict_record(found.means),
        "exclusivity": {"exans": found.exclusivity.exans, "peelable": found.exclusivity.peelable},
        "attack": {
            "confirmed": gained.confirmed,
            "consistent": gained.consistent,
            "candidates": gained.candidates,
            "readable": gained.readable,
            "psnr": _finite(gained.psnr),
            "rmse": _finite(gained.rmse),
            "by_sample": [_picture_record(one) for one in gained.by_sample],
            "reason": gained.reason,
        },
        "protection": _protection_record(found.protection),
        "cost": {
            "accuracy": cost.accuracy,
            "baseline": cost.baseline,
            "by_seed": cost.by_seed,
            "distortion": cost.distortion,
            "epsilon": _finite(cost.epsilon),
            "epsilon_run": _finite(cost.epsilon_run),
            "note": cost.note,
        },
        "facts": dict(found.facts),
    }


def _picture_record(one: Recovery | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"tier": one.tier, "rmse": _finite(one.rmse), "psnr": _finite(one.psnr), "label": one.label}


def _protection_record(found: Protection) -> dict[str, Any]:
    return {
        "hidden": found.hidden,
        "of": found.of,
        "reach": None if found.reach is None else _reach_record(found.reach),
        "estimate": None if found.estimate is None else finite(found.estimate),
        "public": found.public,
        "note": found.note,
    }


def _reach_record(found: Reach) -> dict[str, Any]:
    return {
        "domain": found.domain,
        "interval": {"median": found.interval[0], "worst": found.interval[1]},
        "distance": {"median": found.farthest[0], "worst": found.farthest[1]},
        "pixels": found.pixels,
        "low": found.low,
        "high": found.high,
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
