"""T6: every near batch has the centre's labels (docs/theory.md, Appendix T).

With the inputs and the loss vectors of a near batch enclosed, so is its label: y' = p(f') - N g' for
cross_entropy and bce, y' = f' - N g' / 2 for mse, and for hinge it is the one negative entry of g'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flint
import numpy as np

from exan_verify.core.question import Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.balls import BallMatrix, Floats, ball_matrix, interval_matrix, upper
from exan_verify.exact.softmax import probabilities
from exan_verify.kernel.given import require
from exan_verify.kernel.tolerance.bounds import right_inverse

if TYPE_CHECKING:
    from exan_verify.kernel.tolerance.check import Near


def check_labels(near: Near, moved: Floats, vectors: BallMatrix | None) -> None:
    """Show that only the centre's labels fit: ``moved`` (M, d) bounds the inputs' distances, ``vectors``
    (K, M) encloses the loss vectors where they are known from layer 1, else the output layer gives them.
    """
    hidden = feature_distances(near, moved)
    if vectors is None:
        vectors = _from_output_layer(near, hidden)
    last = near.network.layers[-1]
    shift = interval_matrix(upper(ball_matrix(np.abs(last.weight)) * ball_matrix(hidden)))
    logits = ball_matrix(near.passed.logits) + shift
    for m in range(near.samples):
        column = [logits[c, m] for c in range(near.network.classes)]
        own = _target(near, m)
        scaled = [near.divisor * vectors[c, m] for c in range(near.network.classes)]
        require(_told(near.question.loss, column, scaled, own), f"the label of sample {m} is not shown")


def feature_distances(near: Near, moved: Floats) -> Floats:
    """Bounds (n_{L-1}, M) of |h'_{L-1} - h_{L-1}|: a ReLU never enlarges a distance."""
    bound = moved.T
    for layer in near.network.layers[:-1]:
        bound = upper(ball_matrix(np.abs(layer.weight)) * ball_matrix(bound))
    return bound


def _from_output_layer(near: Near, hidden: Floats) -> BallMatrix:
    """G' from ``A'_L P = G' T``, ``T = [H'_{L-1} 1] P``, for any P (T1 at the output layer)."""
    depth = near.network.depth
    features = near.features(depth)
    right = right_inverse(features, f"[H_{depth - 1} 1]")
    exact = ball_matrix(near.passed.features(depth).fractions().T)
    ones = np.zeros((near.samples, 1))
    moved = np.concatenate([hidden.T, ones], axis=1)
    centre = _with_ones(exact, near.samples)
    mixed = (centre + interval_matrix(moved)) * right
    try:
        return mixed.transpose().solve((near.gradient(depth) * right).transpose()).transpose()
    except ZeroDivisionError:
        raise CertificateRejected(
            f"the loss vectors, and so the labels, are not determined: the features of layer {depth - 1} "
            "may come too close to dependent within the radius"
        ) from None


def _with_ones(features: BallMatrix, samples: int) -> BallMatrix:
    entries = []
    for m in range(samples):
        entries += [features[m, k] for k in range(features.ncols())]
        entries.append(flint.arb(1))
    return flint.arb_mat(samples, features.ncols() + 1, entries)


def _target(near: Near, m: int) -> list[int]:
    label = near.centre.labels[m]
    if near.centre.labels.ndim == 1:
        return [int(c == int(label)) for c in range(near.network.classes)]
    return [int(v) for v in label]


def _told(loss: Loss, logits: list[Any], scaled: list[Any], own: list[int]) -> bool:
    """Whether the enclosure of y' excludes, in every entry, the 0 or 1 that is not ``own``'s."""
    if loss is Loss.HINGE:
        return bool(scaled[own.index(1)] < 0)
    if loss is Loss.MSE:
        values = [f - g / 2 for f, g in zip(logits, scaled, strict=True)]
    else:
        values = [p - g for p, g in zip(probabilities(loss, logits), scaled, strict=True)]
    if loss is Loss.BCE or len(own) == 1:
        return all(v > 0 if y else v < 1 for v, y in zip(values, own, strict=True))
    return bool(values[own.index(1)] > 0)  # one-hot: a label that is not 0 there is this one
