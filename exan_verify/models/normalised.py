"""BatchNorm in eval mode as an exact shift and scale.

It computes ``gamma (z - mean) / sqrt(var + eps) + beta``, whose factor is irrational for almost all stored
numbers. What is taken is the number nearest to it in the precision in which torch multiplies by it, a dyadic
one: ``factor z + (beta - factor mean)``, whose shift is exact. Every claim is about the network with this
factor, as notes say.

*Nothing of a gradient is lost, and nothing added, by folding it into the Linear or Conv2d beside it* (V, c;
W = factor V). Let k = factor / gamma stand for 1 / sqrt(var + eps). After the layer, with db = sum of deltas
and dW = sum delta h^T, the gradients of the model's own parameters are

    dV = factor dW,   dc = factor db,   dbeta = db,   dgamma_j = k_j (V_j . dW_j + (c_j - mean_j) db_j),

and before it (W = V diag(factor), u = factor h + shift what V is given)

    dV = dW factor + db shift^T,   dc = db,   dbeta = V^T db,   dgamma_i = k_i (V_i . dW_i - mean_i V_i . db)

with the columns V_i, dW_i; so V needs biases c there, whose gradient is db. No factor is zero, so the
gradient of (W, b) and that of all of V, c, beta, gamma determine one another: a batch that is determined by
one is so by the other, and so is one that is not.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np
from torch import nn

from exan_verify.core.arrays import exact_array, fractions
from exan_verify.errors import InputError, UnsupportedLayerError
from exan_verify.models.chain import describe
from exan_verify.models.folding import Affine

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
"""The modules that are folded."""


def check_norm(module: Any, path: str) -> None:
    """Refuse a BatchNorm that uses the batch's own statistics, or whose numbers are none."""
    if module.training or module.running_mean is None:
        raise UnsupportedLayerError(
            f"{describe(module, path)} normalises by the batch's own statistics, which mixes its samples: "
            "the gradient is not a sum of one term per sample; "
            "call model.eval() first, with track_running_stats=True; of a step in training mode the attack "
            "reads what the running statistics after it tell (buffers_after)"
        )
    check_numbers(module, path)


def check_numbers(module: nn.Module, path: str) -> None:
    """Refuse parameters and running statistics without numbers, or with NaN among them."""
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        full = f"{path}.{name}" if path else name
        if tensor.is_meta:
            raise InputError(f"{full} is on the meta device and has no numbers; load the weights first")
        if tensor.is_floating_point():
            exact_array(tensor, full)


def exact_norm(module: Any, path: str) -> tuple[Affine, tuple[str, ...]]:
    """The shift and scale (C,) of a BatchNorm in eval mode, and the names of its parameters: weight, bias, or
    none where it has none.

    Raises what :func:`check_norm` raises, and :class:`InputError` where a variance is not positive.
    """
    check_norm(module, path)
    prefix = f"{path}." if path else ""
    mean = fractions(exact_array(module.running_mean, f"{prefix}running_mean"))
    variance = fractions(exact_array(module.running_var, f"{prefix}running_var")) + Fraction(module.eps)
    if np.any(variance <= 0):
        raise InputError(
            f"{prefix}running_var and eps add up to {float(variance.min())}, which has no root to divide by; "
            "load the statistics of a trained model"
        )
    gamma, beta = np.full(len(mean), Fraction(1)), np.full(len(mean), Fraction(0))
    names: tuple[str, ...] = ()
    if module.affine:
        gamma = fractions(exact_array(module.weight, f"{prefix}weight"))
        beta = fractions(exact_array(module.bias, f"{prefix}bias"))
        names = f"{prefix}weight", f"{prefix}bias"
    # ATen multiplies float16 and bfloat16 in float32
    bits = 53 if str(module.running_var.dtype) == "torch.float64" else 24
    roots = (_nearest_root(g * g / v, bits) for g, v in zip(gamma, variance, strict=True))
    factor = np.array([-r if g < 0 else r for g, r in zip(gamma, roots, strict=True)], dtype=object)
    return Affine(factor=factor, shift=np.asarray(beta - factor * mean)), names


def _nearest_root(square: Fraction, bits: int) -> Fraction:
    """The number with a significand of ``bits`` that is nearest to the root of ``square`` >= 0."""
    if square == 0:
        return square
    # 4^shift square has 2 bits + 3 binary digits at least, so that its root has bits + 2
    size = square.numerator.bit_length() - square.denominator.bit_length()
    shift = (2 * bits + 4 - size) // 2 + 1
    scaled = square * Fraction(4) ** shift
    root = isqrt(scaled.numerator // scaled.denominator)
    excess = root.bit_length() - bits
    # halfway is only where the root is exact, and then either neighbour is nearest
    return Fraction((root + (1 << (excess - 1))) >> excess) * Fraction(2) ** (excess - shift)
