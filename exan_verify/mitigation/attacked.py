"""What an attack gets from a release: the package's attack, told what is sent, and an alternating refit.

Where single entries are sent, or noise was added, no release says so. The attack is then also given the best
approximation of each tensor by a matrix of rank M, which is what the gradient of M samples is, and what it
shows of the whole batch is fitted to exactly the entries that were sent: loss vectors and patterns from the
inputs, inputs from these by least squares, in turn. That is floating point: it finds, and proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exan_verify.api.attack import attack
from exan_verify.api.attack_own_batch import Recovery, compared, scored, value_range
from exan_verify.core.budget import poll
from exan_verify.core.question import Labels, Question, Release
from exan_verify.errors import BudgetExhausted, InputError
from exan_verify.mitigation.case import Floats, Mask, Released
from exan_verify.mitigation.steps import labels_tensor, layers_of
from exan_verify.numeric.problem.torch_losses import summed_loss

_REFITS = 40
_NEAR = 1e-3
"""Relative error of the sent entries below which a fit is taken for better than what it began with."""

_FITS = 1e-9
"""Relative error at which the sent entries are reproduced: float64's rounding over a thousand terms."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gained:
    """What the attack made of each of the M subjects, and of how many in each tier.

    ``by_sample[m]``: None where nothing was found of sample m. ``enters``: the tiers speak of what enters the
    training step where that is not the samples themselves (a projection, a mean). ``reason``: why not all.
    """

    by_sample: tuple[Recovery | None, ...]
    confirmed: int
    consistent: int
    candidates: int
    enters: str = ""
    reason: str = ""

    @property
    def recovered(self) -> int:
        """Samples of what enters the step that are confirmed or consistent."""
        return self.confirmed + self.consistent

    @property
    def readable(self) -> int:
        """Subjects that a viewer would recognise, whatever the tier."""
        return sum(one is not None and one.readable for one in self.by_sample)

    @property
    def psnr(self) -> float | None:
        """Median over the subjects of which anything is shown, in dB."""
        shown = [one.psnr for one in self.by_sample if one is not None]
        return float(np.median(shown)) if shown else None

    @property
    def rmse(self) -> float | None:
        """Median over the subjects of which anything is shown."""
        shown = [one.rmse for one in self.by_sample if one is not None]
        return float(np.median(shown)) if shown else None


def attack_release(released: Released, question: Question, *, seed: int, budget: float | None) -> Gained:
    """Attack what is sent, told the model, the loss, the batch size and which defence is in use."""
    x, y = np.asarray(released.batch.inputs, dtype=np.float64), released.batch.labels
    made: tuple[Recovery | None, ...] = (None,) * released.batch.size
    reason = ""
    for tensors, release in _views(released):
        try:
            found = attack(
                released.network,
                tensors,
                loss=question.loss,
                reduction=question.reduction,
                labels=Labels.REAL if question.labels is Labels.REAL else Labels.ONE_HOT,
                batch_size=released.batch.size,
                release=release,
                weights="positive" if released.weighted else "equal",
                seed=seed,
                budget=budget,
            )
        except BudgetExhausted:
            reason = "the attack's time ran out"
            continue
        except InputError as error:
            reason = str(error)
            continue
        attacked = scored(found, x, y)
        both = tuple(
            a or b
            for a, b in zip(
                attacked.recoveries, attacked.candidates or (None,) * released.batch.size, strict=True
            )
        )
        if release is None and released.kept:
            both = _refit(released, question, both)
        reason = reason or found.reason
        if _worth(both) > _worth(made):
            made, reason = both, found.reason
        if all(one is not None and one.tier != "candidate" for one in made):
            break
    return _of_subjects(released, made, reason)


def _worth(made: tuple[Recovery | None, ...]) -> tuple[int, int]:
    tiers = [one.tier for one in made if one is not None]
    return sum(tier != "candidate" for tier in tiers), len(tiers)


def _views(released: Released) -> Iterator[tuple[Mapping[str, Tensor], Release | None]]:
    """The ways in which the attack is given what is sent: as a release; where it is none, because entries are
    missing or noisy, as it is, and at the rank that M samples have."""
    release = released.release
    yield released.sent, release
    if release is None:
        yield _low_rank(released), None


def _low_rank(released: Released) -> dict[str, Tensor]:
    """Each layer's [dW | db] replaced by the nearest matrix of rank M (Eckart and Young 1936)."""
    found = dict(released.sent)
    for layer in released.network.layers:
        names = [name for name, _ in layer.parameters() if name in found]
        if not names:
            continue
        parts = [found[name].reshape(len(found[name]), -1) for name in names]
        left, values, right = torch.linalg.svd(torch.cat(parts, dim=1), full_matrices=False)
        rank = min(released.batch.size, len(values))
        near = (left[:, :rank] * values[:rank]) @ right[:rank]
        for name, part in zip(names, near.split([p.shape[1] for p in parts], dim=1), strict=True):
            found[name] = part.reshape(found[name].shape).contiguous()
    return found


def _refit(
    released: Released, question: Question, made: tuple[Recovery | None, ...]
) -> tuple[Recovery | None, ...]:
    """All M samples fitted to the sent entries of layer 1, from what the attack shows; else what it
    showed."""
    if any(one is None for one in made):
        return made
    weight_name, *_ = (name for name, _ in released.network.layers[0].parameters())
    if weight_name not in released.sent:
        return made
    sent = released.sent[weight_name].numpy()
    kept = released.kept.get(weight_name, np.ones(sent.shape, dtype=bool))
    x = np.stack([one.values.reshape(-1) for one in made if one is not None])
    y = _labels(released, question, made, x, sent, kept)
    best, error = x, math.inf
    norm = float(np.linalg.norm(sent)) or 1.0
    for _ in range(_REFITS):
        poll()
        delta = _first_delta(released, question, torch.tensor(x), y)
        now = float(np.linalg.norm(np.where(kept, delta @ x - sent, 0.0))) / norm
        if now < error:
            best, error = x, now
        if error < _FITS:
            break
        x = _least_squares(delta, sent, kept)
        # a neuron whose activity is still wrong spoils its whole row: the worse half is left out
        off = np.linalg.norm(np.where(kept, delta @ x - sent, 0.0), axis=1)
        live = kept.any(axis=1)
        trusted = live & (off <= np.median(off[live]))
        x = _least_squares(delta, sent, kept & trusted[:, None])
    if not error < _NEAR:
        return made
    truth = np.asarray(released.batch.inputs, dtype=np.float64)
    span = value_range(truth)
    fits = error < _FITS
    return tuple(
        replace(
            compared(one, best[m], truth[m], span),
            label=_label(y[m]),
            tier="consistent" if fits else "candidate",
            how="fitted to the sent entries",
        )
        if one is not None and (fits or one.tier == "candidate")
        else one
        for m, one in enumerate(made)
    )


def _label(y: Tensor) -> Any:
    return int(y) if y.dim() == 0 else tuple(y.tolist())


def _labels(
    released: Released,
    question: Question,
    made: tuple[Recovery | None, ...],
    x: Floats,
    sent: Floats,
    kept: Mask,
) -> Tensor:
    """The labels found; where none was, the one whose Delta_1 column is most like that of dW_1 X^+."""
    classes = question.loss.class_labels
    known = [
        None if one is None or one.label == "-" or (classes and not isinstance(one.label, int)) else one.label
        for one in made
    ]
    size = released.batch.size
    if released.batch.labels.ndim > 1 or all(label is not None for label in known):
        nowhere = [0.0] * released.network.classes
        return labels_tensor([nowhere if label is None else label for label in known])
    whole = kept.all(axis=1)
    near = (sent @ np.linalg.pinv(x))[whole]
    alike = []
    for label in range(released.network.classes):
        delta = _first_delta(released, question, torch.tensor(x), torch.full((size,), label))[whole]
        alike.append((delta * near).sum(axis=0) / np.maximum(np.linalg.norm(delta, axis=0), 1e-300))
    guessed = np.argmax(alike, axis=0)
    return labels_tensor(
        [int(g) if label is None else label for g, label in zip(guessed, known, strict=True)]
    )


def _first_delta(released: Released, question: Question, x: Tensor, y: Tensor) -> Floats:
    """Delta_1 (n_1, M) of inputs and labels, divided as the gradient is."""
    layers = layers_of(released.network)
    h, patterns = x, []
    for k, (weight, bias) in enumerate(layers):
        z = torch.nn.functional.linear(h, weight, bias)
        if k + 1 < len(layers):
            patterns.append(z > 0)
            z = z.relu()
        h = z
    logits = h.requires_grad_(True)
    (delta,) = torch.autograd.grad(summed_loss(question.loss, logits, y), logits)
    for (weight, _), active in zip(reversed(layers[1:]), reversed(patterns), strict=True):
        delta = (delta @ weight) * active
    divisor = question.divisor(len(x), released.network.classes)
    return np.asarray((delta / divisor).T.numpy(), dtype=np.float64)


def _least_squares(delta: Floats, sent: Floats, kept: Mask) -> Floats:
    """X (M, d) with Delta X nearest to the kept entries of ``sent`` (n, d), one feature after the other."""
    rows = kept.any(axis=1)
    if kept[rows].all():
        return np.asarray(np.linalg.lstsq(delta[rows], sent[rows], rcond=None)[0], dtype=np.float64)
    return np.stack(
        [
            np.linalg.lstsq(delta[kept[:, k]], sent[kept[:, k], k], rcond=None)[0]
            for k in range(sent.shape[1])
        ],
        axis=1,
    )


def _of_subjects(released: Released, made: tuple[Recovery | None, ...], reason: str) -> Gained:
    """Pictures of the subjects from what was found of the step's own inputs."""
    tiers = [one.tier for one in made if one is not None]
    counts = {
        "confirmed": tiers.count("confirmed"),
        "consistent": tiers.count("consistent"),
        "candidates": tiers.count("candidate"),
    }
    enters, span = "", value_range(released.subjects)
    pictures = list(made)
    if released.projected is not None:
        enters = "projections"
        # without any prior the shortest input with this projection: B (B^T B)^-1 z
        back = np.linalg.pinv(released.projected.columns)
        pictures = [
            None if one is None else compared(one, one.values @ back, released.subjects[m], span)
            for m, one in enumerate(made)
        ]
    elif released.averages is not None:
        enters = "means"
        rows = released.averages.rows
        pictures = [
            None if (one := made[row]) is None else compared(one, one.values, released.subjects[m], span)
            for m, row in enumerate(rows)
        ]
    elif released.moved:
        enters = "changed inputs"
        pictures = [
            None if one is None else compared(one, one.values, released.subjects[m], span)
            for m, one in enumerate(made)
        ]
    return Gained(by_sample=tuple(pictures), enters=enters, reason=reason, **counts)
