"""Whether contributions to a gradient cancel exactly: the one equation behind every second batch.

Two batches have the same gradient iff the samples of the first, with the samples of the second counted
negatively, contribute nothing. For mse and hinge the loss vectors are rational and this is one exact
computation. For cross_entropy and bce they are not; but samples whose logits agree up to what the loss
ignores, with equal labels, have *equal* loss vectors whatever their value. So each distinct loss vector is
a symbol, and it is enough that the coefficients of every entry of every symbol cancel exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from exan_verify.core.network import Array, Network, to_fraction
from exan_verify.core.question import Loss
from exan_verify.exact.backprop import Forward, backward, slope_contributions
from exan_verify.exact.rational import product
from exan_verify.exact.softmax import loss_vectors

Symbol = tuple[Fraction, ...]


def cancels(network: Network, passed: Forward, vectors: Array) -> bool:
    """Whether ``sum_m delta_i^m [h_{i-1}^m ; 1]^T = 0`` at every layer, for loss vectors (K, M), and what
    trained slopes get is zero at every neuron.

    Without biases the 1 is left out. ``passed`` is the forward pass of the M samples.
    """
    deltas = backward(network, passed, vectors)
    for delta, features in zip(deltas, passed.hidden, strict=True):
        if network.has_bias and delta.row_sums().nonzero().any():
            return False
        if product(delta, features.T).nonzero().any():
            return False
    # of slopes that are shared by all neurons the sum is sent, which then cancels too
    return not any(rows.nonzero().any() for _, rows in slope_contributions(network, passed, deltas))


def contributions_cancel(
    network: Network, passed: Forward, loss: Loss, labels: Array, counts: Sequence[int]
) -> bool:
    """Whether the samples' contributions, each taken ``counts[m]`` times, cancel exactly for ``loss``.

    Exact for mse and hinge. For cross_entropy and bce True is a proof; False proves nothing.
    """
    weights = np.array([Fraction(c) for c in counts], dtype=object)
    if loss.rational:
        return cancels(network, passed, loss_vectors(loss, passed.logits, labels, 1) * weights)
    entries = symbolic_loss_vectors(loss, passed.logits, labels)
    return all(cancels(network, passed, vectors * weights) for vectors in entries.values())


def symbolic_loss_vectors(loss: Loss, logits: Array, labels: Array) -> dict[Symbol, Array]:
    """Loss vectors as combinations of symbols with rational coefficients: ``g^m = sum_s s C_s[:, m]``.

    bce: sigmoid(f) - 1 = -(sigmoid(-f) - 0), so the symbol of a logit is f for y = 0 and -f, with the
    opposite sign, for y = 1. cross_entropy: the entries of softmax(f) - e_y but the last (they sum to zero),
    named by f - f_K, y and the class; with two classes it is bce of f_0 - f_1 along (1, -1).
    """
    classes, samples = logits.shape
    found: dict[Symbol, Array] = {}
    for m in range(samples):
        for name, vector in _terms(loss, tuple(logits[:, m]), labels[m]):
            if name not in found:
                found[name] = np.full((classes, samples), Fraction(0), dtype=object)
            found[name][:, m] += vector
    return found


def distinct_loss_vectors(loss: Loss, logits: Array, labels: Array) -> int:
    """An upper bound of how many loss vectors differ: equal columns of ``logits`` (K, M), up to a shift for
    cross_entropy, with equal labels have equal ones.
    """
    keys = set()
    for m in range(logits.shape[1]):
        shift = logits[-1, m] if loss is Loss.CROSS_ENTROPY else Fraction(0)
        own = np.atleast_1d(labels[m])
        keys.add((tuple(f - shift for f in logits[:, m]), tuple(map(to_fraction, own))))
    return len(keys)


def _terms(loss: Loss, logits: tuple[Fraction, ...], label: Array | int) -> list[tuple[Symbol, Array]]:
    classes = len(logits)
    if loss is Loss.BCE:
        targets = np.asarray(label)
        return [_sigmoid(logits[k], bool(targets[k]), _unit(classes, k)) for k in range(classes)]
    last = logits[-1]
    if classes == 2:
        return [_sigmoid(logits[0] - last, int(label) == 0, _unit(2, 0) - _unit(2, 1))]
    key = tuple(f - last for f in logits)
    return [
        ((*key, Fraction(int(label)), Fraction(c)), _unit(classes, c) - _unit(classes, classes - 1))
        for c in range(classes - 1)
    ]


def _sigmoid(logit: Fraction, positive: bool, direction: Array) -> tuple[Symbol, Array]:
    return ((-logit,), -direction) if positive else ((logit,), direction)


def _unit(size: int, index: int) -> Array:
    unit = np.full(size, Fraction(0), dtype=object)
    unit[index] = Fraction(1)
    return unit
