"""What becomes of a candidate ``H'_{L-1} = Q H_{L-1}``: excluded exactly, or followed down to a batch.

A candidate fulfils the equations of the output layer. Below it, the activations must be >= 0, their signs
give the pattern and with it Delta', and ``Delta'_k [H'_{k-1} 1] = [dW_k | db_k]`` must have a solution whose
forward pass is the activations above (docs/theory.md 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.network import Array, Batch
from exan_verify.decide.residual.unsettled import Rest
from exan_verify.exact.backprop import affine, backward
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.exact.linalg import multiply, rank, solve
from exan_verify.exact.rational import RationalMatrix, product
from exan_verify.exact.softmax import loss_vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """``excluded``: no batch belongs to the candidate; ``batch``: a rest with the same gradient; else open.

    ``mixed``: the batch's inputs are Q X.
    """

    excluded: bool = False
    batch: Batch | None = None
    mixed: bool = False


def follow(rest: Rest, matrix: Array, labels: Array) -> Followed:
    """Follow Q = ``matrix`` (r, r) with the labels (r, ...) down the network. Rational losses only."""
    mixed = mixed_inputs(rest, matrix, labels)
    if mixed is not None:
        return Followed(batch=mixed, mixed=True)
    return _descend(rest, matrix, labels)


def mixed_inputs(rest: Rest, matrix: Array, labels: Array) -> Batch | None:
    """The inputs Q X, Q (r, r), when they give the rest's gradient, as they do within a shared region."""
    inputs = multiply(matrix, rest.features(0).T.fractions())
    return accepted(rest, inputs, labels)


def accepted(rest: Rest, inputs: Array, labels: Array) -> Batch | None:
    """The batch of ``inputs`` (r, d) when it is admitted and its exact gradient is the rest's, else None."""
    setting = rest.context.setting
    batch = Batch.of(
        inputs, labels, network=setting.network, loss=setting.question.loss, labels=setting.question.labels
    )
    if setting.question.domain is not None and not setting.question.domain.contains(batch):
        return None
    ours, theirs = (
        exact_gradient(setting.network, b, setting.question.loss, setting.question.reduction)
        for b in (rest.batch, batch)
    )
    return batch if ours == theirs else None


def _descend(rest: Rest, matrix: Array, labels: Array) -> Followed:
    network, depth = rest.context.network, rest.context.network.depth
    hidden = multiply(matrix, rest.features(depth - 1).T.fractions()).T
    logits = affine(network.layers[-1], RationalMatrix.of(hidden)).fractions()
    delta = RationalMatrix.of(loss_vectors(rest.context.question.loss, logits, labels, rest.context.divisor))
    ours = _deltas(rest)
    for k in range(depth - 1, 0, -1):
        if np.any(hidden < 0):
            return Followed(excluded=True)
        active = hidden > 0
        delta = product(network.layers[k].weight.T, delta).masked(active)
        found = _features_below(rest, k, delta, ours.at(k))
        if found is None:
            return Followed(excluded=True) if rank(delta.fractions()) == rest.size else Followed()
        z = affine(network.layer(k), RationalMatrix.of(found)).fractions()
        if np.any(np.where(active, z != hidden, z > 0)):
            return Followed(excluded=True)
        hidden = found
    batch = accepted(rest, hidden.T, labels)
    return Followed(batch=batch) if batch is not None else Followed(excluded=True)


def _deltas(rest: Rest) -> PerLayer[RationalMatrix]:
    passed = rest.context.passed
    vectors = loss_vectors(
        rest.context.question.loss, passed.logits, rest.context.batch.labels, rest.context.divisor
    )
    members = list(rest.members)
    whole = backward(rest.context.network, passed, vectors)
    return PerLayer(RationalMatrix(d.digits[:, :, members], d.denominator) for d in whole)


def _features_below(rest: Rest, layer: int, delta: RationalMatrix, ours: RationalMatrix) -> Array | None:
    """H'_{layer-1}^T with ``Delta' [H' 1] = Delta [H 1]`` at ``layer``, or None."""
    features = rest.features(layer - 1)
    right = product(ours, features.T).fractions()
    if rest.affine:
        right = np.concatenate([right, ours.row_sums().fractions()], axis=1)
    found = solve(delta.fractions(), right)
    if found is None:
        return None
    if not rest.affine:
        return found.T
    return found[:, :-1].T if np.all(found[:, -1] == 1) else None
