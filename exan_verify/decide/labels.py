"""Labels: when the loss vector, or its image further down, tells the labels apart (docs/theory.md 3.4).

Once x_m is known, so are its logits f. Two labels y, y' can be confused only if g(f, y) - g(f, y') vanishes
under the backward map from the logits to the layer where delta is known. Every inequality here is shown by a
non-zero residue, or exactly; residues that are zero only lose a proof.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from exan_verify.core.network import Array, Network
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.decide.context import Context
from exan_verify.exact.backprop import Forward
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.rational import product_mod
from exan_verify.exact.softmax import loss_vectors, loss_vectors_mod


def admitted(question: Question, own: Array, classes: int) -> Array:
    """All labels that a sample may have, where they are finitely many: targets (n, K), or classes (n,).

    The known ones are the different ones among ``own`` (M, ...), in the order in which they come first.
    """
    if question.labels is Labels.KNOWN:
        first: dict[tuple[object, ...], int] = {}
        for k, row in enumerate(own):
            first.setdefault(tuple(np.atleast_1d(row)), k)
        chosen: Array = own[list(first.values())]
        return chosen
    if question.loss.class_labels:
        return np.arange(classes)
    if question.loss is Loss.BCE:
        return np.array(list(product((0.0, 1.0), repeat=classes)))
    return np.eye(classes) if classes > 1 else np.array([[0.0], [1.0]])


def told_by_loss_vectors(context: Context, m: int) -> bool:
    """Whether g^m, once known (up to a positive factor with weights), leaves one admitted label."""
    if context.question.weighted:
        return _told_up_to_scale(context, np.eye(context.model.classes, dtype=np.uint64), m)
    if context.question.loss is not Loss.HINGE:
        # g(f, y) - g(f, y') = y' - y up to a factor, for one-hot, 0/1, known and real labels alike
        return True
    here = _hinge_vector(context, m, int(context.batch.labels[m]))
    others = (_hinge_vector(context, m, y) for y in _other_classes(context, m))
    return all(bool(np.any(other != here)) for other in others)


def told_by_backward_map(context: Context, backward: Residues, m: int) -> bool:
    """Whether ``backward @ g^m`` leaves one admitted label; ``backward`` (n, K) is sample m's map. With
    weights it is known up to a positive factor.
    """
    if context.question.weighted:
        return _told_up_to_scale(context, backward, m)
    loss, classes = context.question.loss, context.model.classes
    if context.question.labels is Labels.REAL or (
        loss is Loss.BCE and context.question.labels is Labels.ONE_HOT
    ):
        return rank_mod(backward) == classes
    alternatives = _alternative_labels(context, m)
    if not len(alternatives):
        return True
    logits = np.repeat(context.passed.logits[:, [m]], len(alternatives) + 1, axis=1)
    candidates = np.concatenate([context.batch.labels[[m]], alternatives])
    vectors = loss_vectors_mod(loss, logits, candidates, 1, context.image.point)
    differences = (vectors[:, 1:] + np.uint64(PRIME) - vectors[:, :1]) % np.uint64(PRIME)
    images = _small_product(backward, differences)
    return bool(np.all(np.any(images != 0, axis=0)))


def _told_up_to_scale(context: Context, backward: Residues, m: int) -> bool:
    """Whether ``c backward @ g^m`` with an unknown c > 0 leaves one admitted label.

    Where ``backward`` is injective on loss vectors, c g^m is known, and its signs are the label: of a
    cross_entropy or a hinge loss vector the label's entry alone is negative, of a bce loss vector those of
    the ones. Else the loss vectors of two labels must have independent images; parallel ones (mse: f - e_0
    and f - e_1 for f = (2, -1)) are confused by c.
    """
    loss, classes = context.question.loss, context.model.classes
    if context.question.labels is Labels.REAL:
        return False
    if loss is not Loss.MSE:
        differences = np.eye(classes, dtype=np.uint64)
        if loss.zero_sum:
            last = np.full((1, classes - 1), PRIME - 1, dtype=np.uint64)
            differences = np.concatenate([differences[:-1, :-1], last])  # e_k - e_K, k < K
        span = _small_product(backward, differences)
        if rank_mod(span) == span.shape[1]:
            own = context.batch.labels[m]
            return loss is not Loss.HINGE or bool(np.any(_hinge_vector(context, m, int(own)) != 0))
    if loss is Loss.BCE and context.question.labels is Labels.ONE_HOT:
        return False  # 2^K labels; the map would have to be injective
    alternatives = _alternative_labels(context, m)
    logits = np.repeat(context.passed.logits[:, [m]], len(alternatives) + 1, axis=1)
    candidates = np.concatenate([context.batch.labels[[m]], alternatives])
    vectors = loss_vectors_mod(loss, logits, candidates, 1, context.image.point)
    images = _small_product(backward, vectors)
    return all(rank_mod(images[:, [0, k]]) == 2 for k in range(1, images.shape[1]))


def backward_map(network: Network, passed: Forward, layer: int, m: int) -> Residues:
    """Sample m's map (n_layer, K) from loss vectors to ``delta_layer``, mod p."""
    current: Residues = np.eye(network.classes, dtype=np.uint64)
    for k in range(network.depth - 1, layer - 1, -1):
        current = passed.derivative_mod(k, product_mod(network.layers[k].weight.T, current), sample=m)
    return current


def _small_product(left: Residues, right: Residues) -> Residues:
    values: Residues = (left.astype(object) @ right.astype(object) % PRIME).astype(np.uint64)
    return values


def _alternative_labels(context: Context, m: int) -> Array:
    """Admitted labels other than sample m's, for label sets that are finite and small."""
    rows = admitted(context.question, context.batch.labels, context.model.classes)
    differs = rows != context.batch.labels[m]
    chosen: Array = rows[differs.any(axis=1) if differs.ndim == 2 else differs]
    return chosen


def _other_classes(context: Context, m: int) -> list[int]:
    return [int(y) for y in _alternative_labels(context, m)]


def _hinge_vector(context: Context, m: int, label: int) -> Array:
    return loss_vectors(Loss.HINGE, context.passed.logits[:, [m]], np.array([label]), 1)
