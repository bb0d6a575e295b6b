"""CV1 and CV3: convolutions below a fully connected head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact.linalg import nullspace, rank
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import drawn
from exan_verify.theorems.support.shorthands import by_instances, measured, written


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One convolution of one channel on lines: ``taps`` (C_out, k), ``pictures`` (M, d), ``deltas`` (M,
    C_out, d - k + 1). ``moved``: another batch of pictures.
    """

    taps: Array
    pictures: Array
    deltas: Array
    moved: Array

    def outputs(self, pictures: Array) -> Array:
        """Pre-activations (M, C_out, positions)."""
        windows = np.lib.stride_tricks.sliding_window_view(pictures, self.taps.shape[1], axis=1)
        found: Array = np.einsum("ok,mpk->mop", self.taps, windows)
        return found

    def weight_gradient(self, pictures: Array) -> Array:
        """(C_out, k), of the deltas that the batch's pattern lets pass."""
        windows = np.lib.stride_tricks.sliding_window_view(pictures, self.taps.shape[1], axis=1)
        found: Array = np.einsum("mop,mpk->ok", self.deltas, windows)
        return found

    def system(self) -> Array:
        """Rows on (m, pixel): active outputs of each sample, then the change of the weight gradient."""
        samples, size = self.pictures.shape
        active = self.outputs(self.pictures) > 0
        rows = []
        for index in range(samples * size):
            unit = np.zeros(samples * size, dtype=object)
            unit[index] = Fraction(1)
            v = unit.reshape(samples, size)
            rows.append(np.concatenate([self.outputs(v)[active], self.weight_gradient(v).reshape(-1)]))
        found: Array = np.array(rows, dtype=object).T
        return found


def _random(rng: Random) -> Stage:
    samples, size, taps = rng.choice((1, 2)), 5, 2
    channels = rng.choice((1, 2, 3))

    def integers(*shape: int) -> Array:
        """Small integers as Fractions, of any shape."""
        values = [Fraction(rng.randint(-5, 5)) for _ in range(int(np.prod(shape)))]
        return np.array(values, dtype=object).reshape(shape)

    stage = Stage(
        taps=integers(channels, taps),
        pictures=integers(samples, size),
        deltas=integers(samples, channels, size - taps + 1),
        moved=integers(samples, size),
    )
    return replace(stage, deltas=stage.deltas * (stage.outputs(stage.pictures) > 0))


def moving_stages(seed: int) -> Iterator[Stage]:
    """Stages whose system has a solution other than zero, with a batch that is moved along it, inside X's
    region.
    """
    return drawn("CV3", seed, _draw_moving)


def _draw_moving(rng: Random) -> Stage | None:
    stage = _random(rng)
    basis = nullspace(stage.system())
    if not basis.shape[1] or not stage.outputs(stage.pictures).all():
        return None
    step = basis[:, 0].reshape(stage.pictures.shape)
    smallest = min(abs(value) for value in stage.outputs(stage.pictures).reshape(-1))
    largest = max([Fraction(1), *(abs(value) for value in stage.outputs(step).reshape(-1))])
    return replace(stage, moved=stage.pictures + step * smallest / (2 * largest))


def features_and_gradient_stay(stage: Stage) -> bool:
    """The moved pictures have the features and the weight gradient of the first."""
    here, there = stage.outputs(stage.pictures), stage.outputs(stage.moved)
    features = bool((np.where(here > 0, here, 0) == np.where(there > 0, there, 0)).all())
    gradients = stage.weight_gradient(stage.pictures) == stage.weight_gradient(stage.moved)
    return features and bool(gradients.all())


def another_step(stage: Stage) -> Stage:
    """The same with one active output changed, or where there is none the only pixel that is seen."""
    moved = stage.moved.copy()
    active = np.argwhere(stage.outputs(stage.pictures) > 0)
    m, o, p = active[0] if len(active) else (0, 0, 0)
    place = int(np.flatnonzero(stage.taps[o] != 0)[0]) if stage.taps[o].any() else 0
    moved[m, p + place] += 1000 if stage.taps[o, place] > 0 else -1000
    return replace(stage, moved=moved)


def full_stages(seed: int) -> Iterator[Stage]:
    """Stages of full column rank, beside a batch of other pictures."""
    return drawn("CV1", seed, _draw_full)


def _draw_full(rng: Random) -> Stage | None:
    stage = _random(rng)
    if rank(stage.system()) < stage.pictures.size or (stage.moved == stage.pictures).all():
        return None
    return stage


def others_differ(stage: Stage) -> bool:
    """Features or the weight gradient of other pictures, at the same deltas, are not those of the first."""
    return not features_and_gradient_stay(stage)


def not_moved(stage: Stage) -> Stage:
    """The same pictures in place of other ones."""
    return replace(stage, moved=stage.pictures)


STATEMENTS = (
    Statement(
        name="convolutions-determined",
        group="CV1",
        title="Convolutions whose equations have full column rank are inverted from the head down",
        source="docs/theory.md, section 10, CV1",
        reading="If the fully connected head determines its inputs and the labels, and for each "
        "convolution, from the last to the first, no change of its inputs but zero keeps the active outputs "
        "and the weight gradient, then exactly one batch of pictures has the gradient.",
        quantifiers="all stages, channels, kernels, strides, dilations, paddings, M, losses",
        hypotheses=(
            "the head with inputs in R^n determines them and the labels, up to order, and they are distinct",
            "no two convolutions share a weight, and ReLU follows each",
            "for all s: (A_s v_m)_j = 0 for active outputs j of m and sum_m D_s(delta_s^m) v_m = 0 make v 0",
        ),
        conclusion="Every batch with the gradient is the batch, up to order.",
        latex=r"\{v:\ (A_s v_m)_j=0\ (z^m_{s,j}>0),\ \textstyle\sum_m D_s(\delta_s^m)v_m=0\}=\{0\}\ "
        r"(s=S,\dots,1)\ \Longrightarrow\ X'=X",
        standing=Standing.PROVED,
        grounds=(
            written("CV1", "the induction from the head down; each certificate's ranks are recomputed"),
            measured("section 10", "12 and 64 channels on eight digits: 1.4 s of one core, 0.4 GiB"),
        ),
        checks=(
            by_instances(
                "other-pictures",
                "compares features and weight gradients of other pictures with those of a batch whose system "
                "has full column rank over Q",
                instances=full_stages,
                conclusion=others_differ,
                spoiled=not_moved,
                count=20,
                said="stages of full rank and other pictures",
            ),
        ),
        remark="A rank that is short above the first convolution says nothing about the pictures.",
    ),
    Statement(
        name="convolutions-moved",
        group="CV3",
        title="Pictures move where coordinates outnumber active outputs and weights",
        source="docs/theory.md, section 10, CV3",
        reading="Motions of the pictures that keep the active outputs of a convolution, the outputs up to it "
        "that are exactly zero, and the weight gradients up to it, keep the whole gradient while no pattern "
        "changes.",
        quantifiers="all stages, channels, kernels, strides, dilations, paddings, M, losses, heads",
        hypotheses=(
            "ReLU follows each convolution, and no two share a weight",
            "sum_m max(0, d - active outputs - outputs at zero) exceeds the weights up to the stage",
        ),
        conclusion="The batch is AMBIGUOUS, in a linear family of at least that many dimensions.",
        latex=r"\dim\{V\}\ \ge\ \sum_m\max(0,\,d-a_m)-\sum_{r\le s}|W_r|",
        standing=Standing.PROVED,
        grounds=(written("CV3", "what stays along a motion, and the count"),),
        checks=(
            by_instances(
                "null-vectors",
                "moves pictures along null vectors over Q of small stages, and compares features and weight "
                "gradient exactly",
                instances=moving_stages,
                conclusion=features_and_gradient_stay,
                spoiled=another_step,
                count=20,
                said="stages with a null vector",
            ),
        ),
        remark="The count is a lower bound: some of the equations may depend on others.",
    ),
)
