"""Checks evidence about networks of convolutions below a fully connected head (docs/theory.md, CV1 and CV3).

*CV1.* The head's evidence shows, over all of R^n, that the samples (h_S, y) are in every batch; they are
distinct, so every batch has them, in one order. Equal h_S have equal patterns, and with equal labels the
gradient of the loss by h_S is equal, so delta_S is. The difference v of the h_{S-1} of two batches then
solves the homogeneous system of stage S: active outputs are equal, and so is the weight gradient. Where it
has nothing but zero, h_{S-1} are equal, and so on down to the pictures.

*Sums of branches*, h_s = relu(A_k u + S h) with u = relu(A_{k-1} ..) of h = h_{s-1}. Equal h_s have equal
patterns and delta_s as before; the active outputs mix the differences of u and h and are not used. The
weight gradient of A_k is linear in u alone: where it has nothing but zero for the difference of u, u is
equal, and the inner branch is a stack of convolutions whose values and deltas are known, taken down as above.
Or S is a convolution whose weight gradient has nothing but zero for the difference of h.

A constant shift and scale of the pictures before the first stage is invertible, so that what it gives and the
pictures determine each other, and motions of one are motions of the other.

*CV3.* Motions X + tV are counted that keep all active outputs of stage s, all outputs up to s that are
exactly zero, and the weight gradients of the stages up to s. On the region of X these are linear equations.
Pixels on a face of the domain, and those that the evidence holds still, do not move: they are no unknowns,
and outputs that see nothing that moves are no equations. What moves above a stage are its active outputs.
For small t no pattern changes: outputs that are not zero keep their signs, those that are zero stay so. The
values of stage s stay, and so do all values, loss vectors and deltas above, hence all deltas, and the
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from exan_verify.core.certificate import (
    Apart,
    Certificate,
    Claim,
    DegreeThree,
    Lifting,
    StageMotions,
    Stages,
)
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch
from exan_verify.core.question import Question
from exan_verify.core.staged import Convolution, StagedNetwork
from exan_verify.errors import CertificateRejected
from exan_verify.exact.elimination import PRIMES
from exan_verify.exact.modular import Residues, UnsuitablePrimeError, point
from exan_verify.exact.pictures import StagesForward, deltas_mod, forward_stages, sees
from exan_verify.exact.rational import Mask, product_mod
from exan_verify.exact.shared_weights import systems
from exan_verify.exact.softmax import VanishingDenominatorError
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.lifting import apart, degree_three
from exan_verify.kernel.lifting import degree_two as lifting

HEAD: Mapping[type, Callable[[Any, Subject], Facts]] = {
    Lifting: lifting.facts,
    DegreeThree: degree_three.facts,
    Apart: apart.facts,
}
"""The evidence that is taken about the head: it speaks of all inputs in R^n."""

_POINTS = 4
"""Points t that are tried where a denominator vanishes."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The network, the batch of pictures and the question of a certificate."""

    network: StagedNetwork
    batch: Batch
    question: Question

    @cached_property
    def passed(self) -> StagesForward:
        """The exact pass through the stages, recomputed."""
        return forward_stages(self.network, self.batch)

    @cached_property
    def head(self) -> Subject:
        """What the head is given: the features, over all of R^n."""
        features = self.passed.values[-1].T.fractions()
        features.setflags(write=False)
        return Subject(
            model=self.network.head,
            batch=Batch(inputs=features, labels=self.batch.labels),
            question=replace(self.question, domain=None),
        )


def facts(evidence: Stages | StageMotions, subject: Pictures) -> Facts:
    """What the evidence shows. Raises :class:`CertificateRejected` at the first step that does not hold."""
    if isinstance(evidence, StageMotions):
        return _moving(evidence, subject)
    return _determined(evidence, subject)


def _determined(evidence: Stages, subject: Pictures) -> Facts:
    stages, samples = subject.network.unpooled, subject.batch.size
    sizes = tuple(samples * int(np.prod(stage.input_shape)) for stage in stages)
    require(evidence.unknowns in (sizes, ()), f"the stages have {sizes} unknowns")
    require(0 < len(evidence.head) <= 8 * (samples + subject.network.head.depth), "the head has no evidence")
    known = Facts()
    for part in evidence.head:
        known |= HEAD[type(part)](part, replace(subject.head, settled=known.determined))
    require(len(known.determined) == samples, "features and labels are not shown for every sample")
    require(subject.head.batch.distinct, "two samples have equal features and labels")
    everyone = frozenset(range(samples))
    if not evidence.unknowns:
        return Facts(features=everyone)
    require(not subject.network.pooled, "pooling hides the patterns that CV1 reads")
    left = list(range(len(stages)))
    try:
        for prime in PRIMES:
            deltas = _deltas(subject, prime) if left else None
            if deltas is not None:
                left = [k for k in left if not _full(subject, k, deltas[k], prime)]
    except MemoryError as error:
        raise CertificateRejected(f"a rank cannot be taken here: {error}") from None
    require(not left, f"the equations of stage {left[:1]} (from 0) do not have full column rank mod p")
    return Facts(determined=everyone)


def _full(subject: Pictures, k: int, deltas: tuple[Residues, ...], prime: int) -> bool:
    """Whether the values below stage k follow from those above, by systems of full column rank mod p."""
    stage, active = subject.network.unpooled[k], subject.passed.patterns[k]
    if isinstance(stage, Convolution):
        return _only_zero(stage, active, deltas[0], prime)
    unused = np.zeros_like(active)
    if stage.shortcut is not None and _only_zero(stage.shortcut, unused, deltas[-1], prime):
        return True
    if not _only_zero(stage.inner[-1], unused, deltas[len(stage.inner) - 1], prime):
        return False
    below = range(len(stage.inner) - 1)
    return all(_only_zero(stage.inner[j], subject.passed.inner[k][j], deltas[j], prime) for j in below)


def _only_zero(stage: Convolution, active: Mask, delta: Residues, prime: int) -> bool:
    """Whether zero alone keeps the outputs that are ``active`` and the weight gradient, in every group."""
    if stage.trained is not None:
        # an average pool is part of these weights, whose gradient is not known: the active outputs alone
        delta = np.zeros_like(delta)
    return all(system.full() for system in systems(stage, active, delta, prime))


def _deltas(subject: Pictures, prime: int) -> tuple[tuple[Residues, ...], ...] | None:
    """The stages' deltas mod a prime, at a point of the kernel's own; None where there is no image."""
    head = subject.head
    for attempt in range(_POINTS):
        try:
            image = lifting.image_in(prime, point(f"kernel/stages/{attempt}", prime), head)
            back = product_mod(head.model.layers[0].weight.T, image.delta(1), prime)
            return deltas_mod(subject.network, subject.passed, back, prime)
        except VanishingDenominatorError:
            continue
        except UnsuitablePrimeError:
            return None
    return None


def _moving(evidence: StageMotions, subject: Pictures) -> Facts:
    network, passed, batch = subject.network, subject.passed, subject.batch
    stages = network.convolutions  # what is pooled above them is a function of what stays
    require(1 <= evidence.stage <= len(stages), "there is no such convolution")
    kept, pixels = evidence.stage, batch.inputs.shape[1]
    movable = np.ones((pixels, batch.size), dtype=bool)
    if evidence.moving:
        require(len(evidence.moving) == batch.size, f"the batch has {batch.size} samples")
        movable[:] = False
        for m, places in enumerate(evidence.moving):
            require(all(place < pixels for place in places), f"a picture has {pixels} pixels")
            movable[list(places), m] = True
    if subject.question.domain is not None:
        lo, hi = subject.question.domain.bounds(pixels)
        movable &= ((batch.inputs > lo) & (batch.inputs < hi)).T
    # equations on each sample: active outputs of the stage, outputs up to it that stand at zero
    own, moving = np.zeros(batch.size, dtype=int), movable
    for k, stage in enumerate(stages[:kept]):
        seen = sees(stage, moving)
        own += (seen & passed.zeros[k]).sum(axis=0)
        moving = seen & passed.patterns[k]
    own += moving.sum(axis=0)
    shared = sum(stage.numbers for stage in stages[:kept])
    surplus = movable.sum(axis=0) - own
    dimension = int(np.maximum(surplus, 0).sum()) - shared
    require(dimension > 0, "no more dimensions of motion than equations")
    require(0 < evidence.dimension <= dimension, f"the motions are shown to have {dimension} dimensions")
    alone = {m for m in range(batch.size) if int(surplus[m]) > shared}
    moved = Subject(model=network.head, batch=batch, question=subject.question)
    return Facts(ambiguous=True, free=moved.leaving(alone))


def claim(record: Certificate, question: Question, network: StagedNetwork, batch: Batch) -> Claim:
    """The claim of a certificate about a batch of pictures, derived again."""
    plain = question.release is None and question.tolerance is None
    require(plain, "of networks with convolutions only the whole gradient of a batch is asked")
    require(question.samples == batch.size, f"the batch has {batch.size} samples")
    inside = question.domain is None or question.domain.contains(batch)
    require(inside, "the batch lies outside the claim's domain")
    require(len(record.evidence) == 1 and record.rebuild is None, "one piece of evidence is expected")
    part = record.evidence[0]
    if not isinstance(part, Stages | StageMotions):
        raise CertificateRejected(f"{type(part).__name__} is no evidence about a network with convolutions")
    found = facts(part, Pictures(network=network, batch=batch, question=question))
    return Claim(
        question=record.claim.question,
        outcome=found.outcome(batch.size, distinct=batch.distinct),
        samples=found.statuses(batch.size),
    )
