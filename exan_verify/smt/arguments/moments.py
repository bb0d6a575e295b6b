"""mse in a cube: gradients see a region's samples through their second moments only (docs/theory.md S1, CB6).

With ``f = A [x ; 1]`` and labels fixed, ``T = sum 2 (f - y) [x ; 1]^T = 2 A S - 2 sum_l y_l X_l^T``, where
``S = sum [x ; 1] [x ; 1]^T`` and X_l sums ``[x ; 1]`` over the samples with label y_l. When the gradient
determines S and the X_l of every region, inputs are determined up to an orthogonal matrix O of the region's
samples with ``O 1 = 1`` and ``O Y = Y``; where Y leaves at most one dimension, O only exchanges samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact import linalg
from exan_verify.exact.regions import Region

Label = tuple[Fraction, ...]


def moments_determine(
    groups: Sequence[tuple[Region, Sequence[Label], Sequence[tuple[Fraction, ...]]]], *, has_bias: bool
) -> bool:
    """Whether the known batch is alone in its cube by its second moments.

    ``groups``: each region with the labels and inputs of its samples, in one order.
    """
    if not all(_rigid(labels, inputs, has_bias) for _, labels, inputs in groups):
        return False
    parts = [_responses(region, labels, has_bias) for region, labels, _ in groups]
    system = np.concatenate(parts, axis=1)
    return linalg.rank(system) == int(system.shape[1])


def _rigid(labels: Sequence[Label], inputs: Sequence[tuple[Fraction, ...]], has_bias: bool) -> bool:
    """Whether second moments of (x, y, 1) leave only exchanges of samples with equal labels.

    O fixes the span of 1 and Y. In the complement, of dimension e, it is orthogonal: e = 0, or e = 1 where
    the only reflection exchanges two samples with equal labels, or all inputs lie in the span.
    """
    rows = [(*y, Fraction(has_bias)) for y in labels]
    left = len(labels) - linalg.rank(np.array(rows, dtype=object))
    if not left:
        return True
    if len({(x, y) for x, y in zip(inputs, labels, strict=True)}) == 1:
        return has_bias
    return left == 1 and len(set(labels)) < len(labels)


def _responses(region: Region, labels: Sequence[Label], has_bias: bool) -> Array:
    """Columns: the gradient's change with each free entry of S and of the X_l."""
    size = region.logits.shape[1] - (not has_bias)
    maps = region.logits[:, :size]
    letters = list(dict.fromkeys(labels))
    if has_bias:  # sum X_l = S e, and the last entries are counts
        *others, last = letters
        maps = maps.copy()
        maps[:, -1] -= np.array(last, dtype=object)
        letters = [tuple(a - b for a, b in zip(y, last, strict=True)) for y in others]
    changes = [
        maps @ _symmetric(i, j, size)
        for j in range(size)
        for i in range(j + 1)
        if not has_bias or i < size - 1
    ]
    for y in letters:
        if any(y):
            changes += [-np.outer(np.array(y, dtype=object), _unit(k, size)) for k in range(size - has_bias)]
    columns = np.array([change.reshape(-1) for change in changes], dtype=object).T
    return linalg.multiply(region.system, columns)


def _symmetric(i: int, j: int, size: int) -> Array:
    out = np.full((size, size), Fraction(0), dtype=object)
    out[i, j] = out[j, i] = Fraction(1)
    return out


def _unit(k: int, size: int) -> Array:
    out = np.full(size, Fraction(0), dtype=object)
    out[k] = Fraction(1)
    return out
