"""``audit``: what the gradient of one's own batch gives away, by four arguments that are kept apart.

1. *The published condition* (P1): at least two ExANs per sample in the last hidden layer, one in every other.
2. *The peeling closure* (E4): samples that a simple attack takes out of the gradient one after the other.
3. *The certified verdict*: which samples belong to every batch with this gradient, proved exactly.
4. *The ambiguity radius*: how far a sample can move while the gradient stays the same. Non-unique is not
   private: a radius of 1e-6 protects nobody.

The first two describe attacks; only the third is a proof, and only the fourth speaks of protection.
See docs/theory.md sections 2 to 4.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from exan_verify.api.certify import certify
from exan_verify.api.records import exclusivity_record, pretty, verdict_record
from exan_verify.core.certificate import domain_record
from exan_verify.core.network import Batch
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Budget, SampleStatus, Verdict
from exan_verify.decide.context import Progress
from exan_verify.errors import BudgetExhausted, fitting_into_memory
from exan_verify.exclusivity import ExclusivityState, exclusivity
from exan_verify.models.chain import to_network

SCHEMA = "exan/audit/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The four answers for a batch of M samples, and the ``question`` that was asked.

    ``exclusivity``: ExAN counts, the published condition and the peeling closure; None where the budget ended
    before they were known, and then ``published`` and ``peelable`` are not known either. ``verdict``: what is
    proved. ``radius[m]``: 0 where sample m is determined, a proved lower bound (L-infinity) where it is
    known to be free, None where no engine has decided it: None is not a promise of safety.
    """

    widths: tuple[int, ...]
    question: Question
    classes: tuple[Any, ...]
    exclusivity: ExclusivityState | None
    verdict: Verdict
    radius: tuple[float | None, ...]

    @property
    def loss(self) -> Loss:
        """Of the question."""
        return self.question.loss

    @property
    def reduction(self) -> Reduction:
        """Of the question."""
        return self.question.reduction

    @property
    def labels(self) -> Labels:
        """The label set of the question."""
        return self.question.labels

    @property
    def domain(self) -> Box | None:
        """Of the question; None for all inputs."""
        return self.question.domain

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed of the model, or taken off it, before it was audited; a line each."""
        return self.verdict.notes

    @property
    def size(self) -> int:
        """M, the number of samples."""
        return len(self.verdict.samples)

    @property
    def published(self) -> bool | None:
        """Whether the published exclusivity condition holds for the whole batch."""
        return None if self.exclusivity is None else self.exclusivity.published

    @property
    def peelable(self) -> tuple[bool | None, ...]:
        """Per sample, whether it is in the peeling closure."""
        return (None,) * self.size if self.exclusivity is None else self.exclusivity.peelable

    def to_record(self) -> dict[str, Any]:
        """The audit as a JSON-able dict of schema ``exan/audit/1``; it never contains the batch's inputs."""
        return {
            "schema": SCHEMA,
            "widths": self.widths,
            "loss": self.loss,
            "reduction": self.reduction,
            "labels": self.labels,
            "domain": domain_record(self.domain, self.widths[0]),
            "batch_size": self.size,
            "classes": self.classes,
            "published": self.published,
            "peelable": self.peelable,
            "exclusivity": None if self.exclusivity is None else exclusivity_record(self.exclusivity),
            "verdict": verdict_record(self.verdict),
            "radius": self.radius,
            "notes": self.notes,
        }

    def to_json(self) -> str:
        """The record as indented JSON text."""
        return pretty(self.to_record()).decode()


@fitting_into_memory("the audit")
def audit(
    model: Any,
    batch: tuple[Any, Any] | Batch,
    *,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    domain: Box | None = None,
    budget: float | None = None,
    work_limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Audit:
    """Audit ``batch = (x, y)``: x (M, d) or (M, ...), y as the torch loss takes it; options as ``certify``'s.
    ``budget`` is for all of it.

    Raises :class:`exan_verify.errors.InputError` or a subclass naming what cannot be used.
    """
    limits = Budget(seconds=budget, work=work_limit)
    network = to_network(model)
    question = Question.of(loss, reduction, labels, domain=domain)
    exact = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    state = None
    with limits.kept(), suppress(BudgetExhausted, MemoryError):
        state = exclusivity(network, exact, loss=question.loss)
    verdict = certify(
        network,
        batch=exact,
        loss=loss,
        reduction=reduction,
        labels=labels,
        domain=domain,
        budget=limits,
        seed=seed,
        jobs=jobs,
        progress=progress,
    )
    return Audit(
        widths=network.widths,
        question=replace(question, batch_size=exact.size),
        classes=_classes(exact),
        exclusivity=state,
        verdict=verdict,
        radius=ambiguity_radius(verdict),
    )


def ambiguity_radius(verdict: Verdict) -> tuple[float | None, ...]:
    """Per sample: 0 where determined (it cannot move), the proved lower bound where free, None where none is
    proved: a free sample without a bound above 0 does move, by an unknown distance.
    """
    proved = verdict.witness.radius if verdict.witness is not None else None
    radii: list[float | None] = []
    for m, status in enumerate(verdict.samples):
        if status is SampleStatus.DETERMINED:
            radii.append(0.0)
        elif status is SampleStatus.FREE and proved is not None:
            radii.append(proved[m] if proved[m] > 0 else None)
        else:
            radii.append(None)
    return tuple(radii)


def _classes(batch: Batch) -> tuple[Any, ...]:
    """One readable label per sample: a class, or its target vector."""
    if batch.labels.ndim == 1:
        return tuple(int(v) for v in batch.labels)
    return tuple([float(v) for v in row] for row in batch.labels)
