"""Gradient given: find the batch that it forces, or prove that no batch of this size has it (3.1, 3.5)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Forced, Mixing, RankBound
from exan_verify.core.network import Batch, Gradient
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.gradient.reconstruction import (
    Found,
    ImpossibleError,
    LayerGradient,
    NotFoundError,
    Task,
    rebuild,
)
from exan_verify.errors import LabelError
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues, UnsuitablePrimeError, random_residues
from exan_verify.exact.rational import RationalMatrix, residue_product


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What the gradient gave: a batch that has it, or a refutation, or neither with the reason."""

    samples: int
    reason: str
    attempts: tuple[Attempt, ...] = field(default=())
    batch: Batch | None = None
    mixing: Mixing | None = None
    refutation: RankBound | Forced | None = None


def search(setting: Setting, gradient: Gradient, batch_size: int | None, limits: Budget) -> Search:
    """Rank bounds first; then, layer by layer, the batch that lifting forces."""
    layers = gradient.for_network(setting.relu)
    try:
        ranks = [rank_mod(_residues(layer)) for layer in layers]
    except UnsuitablePrimeError as error:
        return Search(samples=batch_size or 0, reason=str(error))
    samples = batch_size or max(ranks)
    if max(ranks) > samples:
        layer = ranks.index(max(ranks)) + 1
        bound = RankBound(prime=PRIME, layer=layer, rank=max(ranks))
        reason = too_few(bound, samples)
        return Search(samples=samples, reason=reason, refutation=bound)
    if not setting.network.has_bias:
        return Search(samples=samples, reason="the network has no biases, so every sample keeps a scale")
    task = Task(
        network=setting.relu,
        gradient=layers,
        loss=setting.question.loss,
        reduction=setting.question.reduction,
        samples=samples,
    )
    return _by_layers(setting, gradient, task, given=batch_size is not None, limits=limits)


def too_few(bound: RankBound, samples: int) -> str:
    """What the rank of a layer's gradient says of batches that are smaller."""
    count = "one sample is" if samples == 1 else f"{samples} samples are"
    return f"the gradient of layer {bound.layer} has rank {bound.rank} at least, so {count} too few"


def rank_bound_of_batch(context: Context, batch_size: int) -> RankBound | None:
    """The layer where the given batch's gradient has a rank above ``batch_size``, shown mod p."""
    for layer in range(1, context.network.depth + 1):
        found = rank_mod(_projected_gradient(context, layer))
        if found > batch_size:
            return RankBound(prime=PRIME, layer=layer, rank=found, point=context.image.point)
    return None


def _by_layers(setting: Setting, gradient: Gradient, task: Task, *, given: bool, limits: Budget) -> Search:
    attempts: list[Attempt] = []
    for layer in range(1, setting.network.depth):
        limits.spend(sum(array.size for array in gradient.tensors.values()))
        if stopped := limits.exhausted:
            return Search(samples=task.samples, reason=f"{stopped}; give more", attempts=tuple(attempts))
        try:
            found = rebuild(task, layer)
            batch = _accepted(setting, gradient, found)
        except ImpossibleError as error:
            return Search(
                samples=task.samples,
                reason=f"{error}; every batch of {task.samples} samples would have to agree",
                attempts=tuple(attempts),
                refutation=error.forced,
            )
        except NotFoundError as error:
            attempts.append(Attempt(engine=Engine.LIFTING, layer=layer, note=f"layer {layer}: {error}"))
            continue
        return Search(
            samples=task.samples, reason="", attempts=tuple(attempts), batch=batch, mixing=found.mixing
        )
    size = f"batch size {task.samples} ({'given' if given else 'the rank found'})"
    notes = "; ".join(a.note for a in attempts) or "the network has no hidden layer, which lifting needs"
    reason = f"no batch was reconstructed for {size}: {notes}"
    return Search(samples=task.samples, reason=reason, attempts=tuple(attempts))


def _accepted(setting: Setting, gradient: Gradient, found: Found) -> Batch:
    """The forced batch, when labels, gradient and domain agree; else :class:`ImpossibleError`."""
    layer = found.mixing.layer
    try:
        batch = Batch.of(
            found.batch.inputs,
            found.batch.labels,
            network=setting.relu,
            loss=setting.question.loss,
            labels=setting.question.labels,
        )
    except LabelError as error:
        raise ImpossibleError(
            f"layer {layer} forces labels outside the label set: {error}", found.forced
        ) from None
    again = exact_gradient(setting.network, batch, setting.question.loss, setting.question.reduction)
    wrong = [name for name, array in again.tensors.items() if np.any(array != gradient.tensors[name])]
    if wrong:
        raise ImpossibleError(
            f"layer {layer} forces a batch with another gradient in {wrong[0]!r}", found.forced
        )
    if setting.question.domain is not None and not setting.question.domain.contains(batch):
        raise ImpossibleError(f"layer {layer} forces a batch outside the domain", found.forced)
    return batch


def _residues(layer: LayerGradient) -> Residues:
    """``[dW | db]`` mod p."""
    weight, bias = layer
    parts = [RationalMatrix.of(weight).residues()]
    if bias is not None:
        parts.append(RationalMatrix.of(bias.reshape(-1, 1)).residues())
    return np.concatenate(parts, axis=1)


def _projected_gradient(context: Context, layer: int) -> Residues:
    """``[dW | db]`` of the batch mod p, its columns projected to M + 2 random combinations."""
    samples = context.samples
    features = context.passed.features(layer).residues()
    if context.network.has_bias:
        features = np.concatenate([features, np.ones((1, samples), dtype=np.uint64)])
    projection = random_residues(f"bound/{layer}", samples + 2, len(features))
    return residue_product(context.image.delta(layer), residue_product(projection, features).T)
