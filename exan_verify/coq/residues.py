"""The integers and residues that the Coq library computes of a batch, and minors that show its ranks.

Only what the file must bring along is looked for here: which rows and columns, and inverses. Coq computes the
rest again (proofs/coq/tensors.v, certificates.v), so a mistake here makes coqc reject the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

import flint
import numpy as np

from exan_verify.coq.document import Given
from exan_verify.coq.literals import Rows, Tensor
from exan_verify.core.question import Loss

MODULI = (2147483629, 2147483587, 2147483579)
"""Primes below 2^31, where two residues' product and a third fit into a word of 63 bits."""

Matrix = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """A layer on integers: ``by_weight W x + by_bias b`` over ``out`` where x is over a denominator."""

    weight: Matrix
    bias: Matrix
    by_weight: int
    by_bias: int
    out: int


def affine(weight: Tensor, bias: Tensor, denominator: int) -> Affine:
    """``affine_of`` of tensors.v, for W (n_i, n_{i-1}): over the least common denominator of W x, b."""
    of_product = weight.denominator * denominator
    common = gcd(of_product, bias.denominator)
    factor = bias.denominator // common
    return Affine(
        weight=integers(weight.numerators),
        bias=integers(bias.numerators)[0],
        by_weight=factor,
        by_bias=of_product // common,
        out=of_product * factor,
    )


def integers(rows: Rows) -> Matrix:
    """Rows of Python integers as a matrix of objects."""
    out = np.empty((len(rows), len(rows[0])), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return out


def states(layers: Sequence[Affine], sample: Matrix) -> list[Matrix]:
    """All pre-activations of one sample, the logits last."""
    found = []
    for layer in layers:
        z = layer.by_weight * layer.weight.dot(sample) + layer.by_bias * layer.bias
        found.append(z)
        sample = np.maximum(z, 0)
    return found


def deltas(layers: Sequence[Affine], passed: Sequence[Matrix], vector: Matrix, p: int) -> list[Matrix]:
    """Deltas of one sample modulo p up to a common factor, the first layer's first."""
    found = [vector]
    for layer, z in zip(layers[:0:-1], passed[-2::-1], strict=True):
        found.append(np.where(z > 0, layer.weight.T.dot(found[-1]) % p, 0))
    return found[::-1]


def loss_vectors(given: Given, logits: Sequence[Matrix], one: int, p: int, point: int) -> list[Matrix]:
    """The loss vectors modulo p of all samples from their ``logits``, integers over ``one``.

    Each up to a factor that is not zero: under losses with exponentials the denominators of softmax or of the
    sigmoids, ``point`` standing for T = e^(1/one).
    """
    if not isinstance(given.labels, Tensor):
        of_class = _hinge_vector if given.loss is Loss.HINGE else _cross_entropy_vector
        return [of_class(f, c, one, p, point) for f, c in zip(logits, given.labels, strict=True)]
    targets, over = integers(given.labels.numerators), given.labels.denominator
    if given.loss is Loss.MSE:
        return [(over * f - one * y) % p for f, y in zip(logits, targets, strict=True)]
    return [_bce_vector(f, y, over, p, point) for f, y in zip(logits, targets, strict=True)]


def _hinge_vector(logits: Matrix, label: int, one: int, p: int, _point: int) -> Matrix:
    violated = one - logits[label] + logits > 0
    violated[label] = False
    vector: Matrix = violated.astype(int).astype(object)
    vector[label] = -int(violated.sum()) % p
    return vector


def _cross_entropy_vector(logits: Matrix, label: int, _one: int, p: int, point: int) -> Matrix:
    """T^a_k - [k = label] sum_j T^a_j, with exponents from 0 up."""
    least = min(0, *logits)
    vector = np.array([pow(point, int(a - least), p) for a in logits], dtype=object)
    vector[label] = (vector[label] - vector.sum()) % p
    return vector


def _bce_vector(logits: Matrix, targets: Matrix, over: int, p: int, point: int) -> Matrix:
    """(over e_k - y_k q_k) times the other q_j, where sigmoid is e / q with exponents from 0 up."""
    e = [pow(point, int(max(0, a)), p) for a in logits]
    q = [pow(point, int(max(0, -a)), p) + v for a, v in zip(logits, e, strict=True)]
    return np.array(
        [(over * e[k] - y * q[k]) * prod(q[:k] + q[k + 1 :]) % p for k, y in enumerate(targets)],
        dtype=object,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Minor:
    """``columns`` of a matrix of full row rank, and the transposed inverse of the minor there modulo p."""

    columns: list[int]
    inverse: Rows


def reduced(matrix: Matrix, p: int) -> flint.nmod_mat:
    """A matrix of integers modulo p."""
    rows, cols = matrix.shape
    return flint.nmod_mat(rows, cols, [int(v) % p for v in matrix.reshape(-1)], p)


def pivots(matrix: flint.nmod_mat) -> list[int]:
    """The first maximal set of independent columns."""
    echelon, rank = matrix.rref()
    columns: list[int] = []
    for column in range(matrix.ncols()):
        if len(columns) < rank and int(echelon[len(columns), column]) != 0:
            columns.append(column)
    return columns


def select(matrix: Matrix, p: int) -> Minor | None:
    """Columns that show that all rows of ``matrix`` are independent modulo p; None where they are not."""
    found = pivots(reduced(matrix, p))
    if len(found) < len(matrix):
        return None
    return Minor(columns=found, inverse=inverse_transposed(matrix[:, found], p))


def inverse_transposed(square: Matrix, p: int) -> Rows:
    """The transposed inverse modulo p of an invertible matrix."""
    size = len(square)
    found = reduced(square, p).inv().transpose().entries()
    return [[int(v) for v in found[i * size : (i + 1) * size]] for i in range(size)]
