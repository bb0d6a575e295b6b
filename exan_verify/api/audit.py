"""``audit``: what the gradient of one's own batch gives away, by four arguments that are kept apart.

1. *The published condition* (P1): at least two ExANs per sample in the last hidden layer, one in every other.
2. *The peeling closure* (E4): samples that a simple attack takes out of the gradient one after the other.
3. *The certified verdict*: which samples belong to every batch with this gradient, proved exactly.
4. *The ambiguity radius*: how far a sample can move while the gradient stays the same. Non-unique is not
   private: a radius of 1e-6 protects nobody.

The first two describe attacks; only the third is a proof, and only the fourth speaks of protection.
See docs/theory.md sections 2 to 4. On request the gradient is attacked as well: what comes back has
leaked, whatever the other four leave open, and what does not is not thereby safe.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exan_verify.api.attack import with_convolutions
from exan_verify.api.attack_own_batch import OwnBatchAttack, attack_own_batch
from exan_verify.api.certify import certify, exact_network
from exan_verify.api.instances import taking_instances
from exan_verify.api.records import (
    attack_record,
    exclusivity_record,
    pretty,
    release_record,
    verdict_record,
)
from exan_verify.api.releases import network_seen_through, of_network, projection_release
from exan_verify.core.arrays import exact_array
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import domain_record
from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction, Release
from exan_verify.core.staged import StagedNetwork
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.decide.context import Progress
from exan_verify.errors import (
    BudgetExhausted,
    InputError,
    UnsupportedLayerError,
    fitting_into_memory,
    flag,
    short,
    unknown,
)
from exan_verify.exclusivity import ExclusivityState, exclusivity

SCHEMA = "exan/audit/1"

NO_AUDIT = (
    "exact arguments are for fully connected networks, and for convolutions with ReLU below one, so nothing "
    "is proved about this model; what the attack does not rebuild is not thereby safe"
)
"""Why a model with convolutions has no certified verdict."""

RAN_OUT = "the budget ran out"

NO_EXANS = "exclusive neurons, and the attacks by them, are for networks with ReLU in every hidden layer"

NO_EXANS_OF_PICTURES = "exclusive neurons, and the attacks by them, are for fully connected networks"
"""Why an audit has no exclusivity state."""

ATTACK_GATES = ("recovered", "candidates")
"""Gates that the attack decides; the others are decided without it."""

GATES = ("determined", *ATTACK_GATES, "peel", "exan")
"""The names of all gates."""

_LISTED = 16
"""Samples that a sentence names: a batch may have thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The four answers for a batch of M samples, and the ``question`` that was asked.

    ``exclusivity``: ExAN counts, the published condition and the peeling closure; None where the budget ended
    before they were known, or where they are no notions of the network's, as ``no_exclusivity`` says, and
    then ``published`` and ``peelable`` are not known either. ``verdict``: what is
    proved. ``radius[m]``: 0 where sample m is determined, a proved lower bound (L-infinity) where it is
    known to be free, None where no engine has decided it: None is not a promise of safety. ``attack``: what
    an attack makes of the gradient, None where none was asked for or none came to an end; ``no_attack`` says
    why not. With a release (``question.release``) the verdict and the radius are about what is sent, peeling
    is from the rows that are sent, and ExANs and the published condition are the batch's as ever. The attack
    is given what is sent; with an input basis B it finds B^T x, and its recoveries are the pictures that
    these give.
    """

    widths: tuple[int, ...]
    question: Question
    classes: tuple[Any, ...]
    exclusivity: ExclusivityState | None
    no_exclusivity: str = ""
    verdict: Verdict
    radius: tuple[float | None, ...]
    attack: OwnBatchAttack | None = None
    no_attack: str = ""

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
    def release(self) -> Release | None:
        """What of the gradient is sent; None for all of it."""
        return self.question.release

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed of the model, or taken off it, before it was audited; a line each."""
        return self.verdict.notes

    @property
    def batch_size(self) -> int:
        """M, the number of samples."""
        return len(self.verdict.samples)

    @property
    def published(self) -> bool | None:
        """Whether the published exclusivity condition holds for the whole batch."""
        return None if self.exclusivity is None else self.exclusivity.published

    @property
    def peelable(self) -> tuple[bool | None, ...]:
        """Per sample, whether it is in the peeling closure."""
        return (None,) * self.batch_size if self.exclusivity is None else self.exclusivity.peelable

    @property
    def recovered_unproved(self) -> tuple[int, ...]:
        """Samples that the attack recovers, confirmed or consistent, and that are not proved determined; none
        where it recovers only what a first layer sees of them."""
        if self.attack is None or self.attack.projected:
            return ()
        return tuple(
            m
            for m, status in enumerate(self.verdict.samples)
            if status is not SampleStatus.DETERMINED and self.attack.recoveries[m] is not None
        )

    @property
    def beyond_proof(self) -> str:
        """One sentence on :attr:`recovered_unproved`, empty where there are none."""
        those = self.recovered_unproved
        if not those:
            return ""
        named = ", ".join(map(str, those[:_LISTED]))
        more = f" and {len(those) - _LISTED} more" if len(those) > _LISTED else ""
        which, are = ("sample", "is") if len(those) == 1 else ("samples", "are")
        return (
            f"the attack recovers {which} {named}{more}, which {are} not proved determined: that no "
            "proof was found, or that another batch exists, has kept nothing back"
        )

    def gate(self, name: str) -> str:
        """The state of a gate: ``hit``, ``passed`` or ``undecided``.

        ``determined``, ``peel`` and ``exan`` are hit by one sample that is proved determined (itself, or its
        features and label), can be peeled or meets the published condition, and passed by a proof only.
        ``recovered`` is hit by one sample that the attack confirms or finds consistent, ``candidates`` also
        by one candidate; they are passed where the attack ran to its end and found none, which is no promise
        that there is nothing to find. Where a first layer sees B^T x only, what is found of it counts where
        it gives a picture of 20 dB or more.

        Raises :class:`InputError` for any other name.
        """
        if name not in GATES:
            raise InputError(unknown("gate", name, GATES))
        if name in ATTACK_GATES:
            return "undecided" if self.attack is None else self.attack.gate(candidates=name == "candidates")
        if name in ("peel", "exan"):
            state = self.exclusivity
            if state is None:
                return "undecided"
            return "hit" if any(state.peelable if name == "peel" else state.published_by_sample) else "passed"
        statuses = set(self.verdict.samples)
        if statuses & {SampleStatus.DETERMINED, SampleStatus.FEATURES}:
            return "hit"
        return "undecided" if not statuses or SampleStatus.UNKNOWN in statuses else "passed"

    def to_record(self) -> dict[str, Any]:
        """The audit as a JSON-able dict of schema ``exan/audit/1``; it never contains the batch's inputs."""
        return {
            "schema": SCHEMA,
            "widths": self.widths,
            "loss": self.loss,
            "reduction": self.reduction,
            "labels": self.labels,
            "domain": domain_record(self.domain, self.widths[0]),
            "batch_size": self.batch_size,
            "classes": self.classes,
            "published": self.published,
            "peelable": self.peelable,
            "exclusivity": None if self.exclusivity is None else exclusivity_record(self.exclusivity),
            "verdict": verdict_record(self.verdict),
            "radius": self.radius,
            "notes": self.notes,
            "attack": None if self.attack is None else attack_record(self.attack.found, self.attack.score),
            "no_attack": self.no_attack,
            "beyond_proof": self.beyond_proof,
        } | self._optional_record()

    def _optional_record(self) -> dict[str, Any]:
        why = {"no_exclusivity": self.no_exclusivity} if self.no_exclusivity else {}
        return why | ({} if self.release is None else {"release": release_record(self.release)})

    def to_json(self) -> str:
        """The record as indented JSON text."""
        return pretty(self.to_record()).decode()


@taking_instances
@fitting_into_memory("the audit")
def audit(
    model: Any,
    batch: tuple[Any, Any] | Batch | None = None,
    *,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    domain: Box | None = None,
    release: Release | None = None,
    attack: bool = False,
    budget: float | None = None,
    work_limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Audit:
    """Audit ``batch = (x, y)``: x (M, d) or (M, ...), y as the torch loss takes it; options as ``certify``'s.
    ``attack``: attack the batch's float64 gradient too, in what the other answers leave of ``budget``, which
    is for all of it. Of a model with convolutions that the exact side does not take nothing but the attack's
    answer is known. With a ``release`` the attack is given what is sent, and nothing else.

    Raises :class:`exan_verify.errors.InputError` or a subclass naming what cannot be used.
    """
    start = time.monotonic()
    limits = Budget(seconds=budget, work=work_limit)
    if batch is None:
        raise InputError("batch is missing; give a pair (x, y) of inputs and labels")
    question = Question.of(loss, reduction, labels, domain=domain)
    if (flag(attack, "attack") and not isinstance(batch, Batch)) and not provable(model, batch):
        if release is not None:
            raise InputError("a release is asked of a fully connected model; leave out release=")
        return _attacked_only(model, batch, question, budget=budget, seed=seed, progress=progress)
    network = exact_network(model, batch)
    if isinstance(network, StagedNetwork):
        if release is not None:
            raise InputError("a release is asked of a fully connected model; leave out release=")
        options = {"budget": limits, "seed": seed, "progress": progress}
        shown = _of_pictures(network, batch, question, options)
        return _with_attack(shown, model, batch, budget, start, seed, progress) if attack else shown
    entered = network
    sent = None
    release = projection_release(model, batch) if release is None else release
    if release is not None:
        network = network_seen_through(network, release, model)
        question = replace(question, release=of_network(release, network))
        sent = question.sent_neurons(network.layers[0])
        asked = question.release
        if asked is not None and (asked.input_basis is not None or asked.averages is not None):
            sent = np.zeros_like(sent)  # dW_1 B gives B^T x, not x; of means it gives means
    exact = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    state, missing = None, RAN_OUT if isinstance(network, ReluNetwork) else NO_EXANS
    with limits.kept(), suppress(BudgetExhausted, MemoryError):
        if isinstance(network, ReluNetwork):
            state = exclusivity(network, exact, loss=question.loss, sent=sent)
    verdict = certify(
        network,
        batch=exact,
        loss=loss,
        reduction=reduction,
        labels=labels,
        domain=domain,
        release=question.release,
        budget=limits,
        seed=seed,
        jobs=jobs,
        progress=progress,
    )
    found = Audit(
        widths=network.widths,
        question=replace(question, batch_size=exact.size),
        classes=_classes(exact),
        exclusivity=state,
        no_exclusivity=missing if state is None else "",
        verdict=verdict,
        radius=ambiguity_radius(verdict),
    )
    if not attack:
        return found
    return _with_attack(found, entered, exact, budget, start, seed, progress)


def provable(model: Any, batch: Any) -> bool:
    """Whether the exact side takes the model: all but some with convolutions, of which the attack takes more.
    Whatever else is wrong with a model is said where it is read.
    """
    if not with_convolutions(model):
        return True
    try:
        exact_network(model, batch)
    except UnsupportedLayerError:
        return False
    return True


def _with_attack(
    found: Audit,
    model: Any,
    batch: tuple[Any, Any] | Batch,
    budget: float | None,
    start: float,
    seed: int,
    progress: Progress | None,
) -> Audit:
    """The audit with the attack beside it, in what is left of the budget."""
    parts = (batch.inputs, batch.labels) if isinstance(batch, Batch) else batch
    x, y = (np.asarray(exact_array(part, "batch"), dtype=np.float64) for part in parts)
    left = time_left(budget, start)
    done, why = _attack_beside(model, (x, y), found.question, left=left, seed=seed, progress=progress)
    return replace(found, attack=done, no_attack=why)


def _of_pictures(
    network: StagedNetwork, batch: tuple[Any, Any] | Batch, question: Question, options: dict[str, Any]
) -> Audit:
    """The audit of a model with convolutions that the exact side takes, without the attack."""
    exact = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    verdict = certify(
        network,
        batch=exact,
        loss=question.loss.value,
        reduction=question.reduction.value,
        labels=question.labels.value,
        domain=question.domain,
        **options,
    )
    return Audit(
        widths=network.widths,
        question=replace(question, batch_size=exact.size),
        classes=_classes(exact),
        exclusivity=None,
        no_exclusivity=NO_EXANS_OF_PICTURES,
        verdict=verdict,
        radius=ambiguity_radius(verdict),
    )


def _attacked_only(
    model: Any,
    batch: tuple[Any, Any],
    question: Question,
    *,
    budget: float | None,
    seed: int,
    progress: Progress | None,
) -> Audit:
    """The audit of a model with convolutions: the attack, and a verdict that nothing is known."""
    from exan_verify.models.pictures.graph import to_convolutional

    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InputError(f"batch={short(batch)} cannot be used; give a pair (x, y) of inputs and labels")
    x, y = (
        np.asarray(exact_array(part, name), dtype=np.float64)
        for part, name in zip(batch, ("x", "y"), strict=True)
    )
    network = to_convolutional(model, x.shape[1:] if x.ndim == 4 else None).head
    nowhere = np.zeros((len(y), network.widths[0]))
    exact = Batch.of(nowhere, y, network=network, loss=question.loss, labels=question.labels)
    done, why = _attack_beside(model, (x, y), question, left=budget, seed=seed, progress=progress)
    statuses = (SampleStatus.UNKNOWN,) * len(y)
    verdict = Verdict(outcome=Outcome.UNKNOWN, samples=statuses, reason=NO_AUDIT, batch_size=len(y))
    return Audit(
        widths=network.widths,
        question=replace(question, batch_size=len(y)),
        classes=_classes(exact),
        exclusivity=None,
        verdict=verdict,
        radius=(None,) * len(y),
        attack=done,
        no_attack=why,
    )


def _attack_beside(
    model: Any,
    batch: tuple[Array, Array],
    question: Question,
    *,
    left: float | None,
    seed: int,
    progress: Progress | None,
) -> tuple[OwnBatchAttack | None, str]:
    """The attack on an audited batch, within the ``left`` seconds of the budget; else why there is none."""
    if left is not None and left <= 0:
        return None, "not tried: the audit took the whole budget"
    tell = None if progress is None else lambda what, share: progress(f"attack: {what}", share)
    try:
        return attack_own_batch(model, *batch, question, seed=seed, budget=left, progress=tell), ""
    except BudgetExhausted:
        return None, "not finished: the budget ran out"
    except InputError as error:  # an audit has more that it applies to than the attack
        return None, f"not possible: {error}"


def time_left(budget: float | None, start: float) -> float | None:
    """Seconds of ``budget`` that are left since ``start`` (:func:`time.monotonic`)."""
    return None if budget is None else budget - (time.monotonic() - start)


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
