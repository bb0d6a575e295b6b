"""Checks that what is sent is a submersion of the inputs, so that its fibres are manifolds (docs/theory.md,
releases: submersion).

Samples S move in their features strictly inside the domain; no pre-activation of theirs is zero, so that
around X the entries that are sent are analytic functions of these coordinates (cross_entropy, bce, mse).
While the patterns stay, every entry is a fixed rational combination of the moments ``T_r``, the sum of ``g [x
; 1]^T`` over the samples of S in region r (S0):

    dW_i[j, k] = sum_r B_i[j, :] T_r J_{i-1}[k, :]^T,      db_i[j] = sum_r B_i[j, :] T_r e,

B_i the backward map from the logits, J_{i-1} the affine map of the features, both of the region. Of these
combinations s independent ones (exactly, over Q) give all others. If the Jacobian of these s entries has rank
s at X (mod p: a proof), X lies on a manifold of batches with the same release, of dimension (number of
coordinates) - s, whose tangent space is the Jacobian's kernel. Sample m moves along it unless the kernel's
part of m is zero; then the Jacobian without m's columns has a rank smaller by their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.certificate import Submersion
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.errors import CertificateRejected
from exan_verify.exact.backprop import backward_mod, jacobians
from exan_verify.exact.linalg import multiply, pivots, rank_mod
from exan_verify.exact.modular import PRIME, Residues, add_mod, multiply_mod, negate_mod, residues
from exan_verify.exact.rational import Mask, RationalMatrix, product, product_mod, residue_product
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.second.counting import Count

MAX_COMBINATIONS = 300_000
"""Rationals of the combinations of moments: seconds of elimination over Q."""

MAX_ENTRIES = 1 << 22
"""Of the Jacobian, all its ranks together: seconds of elimination mod p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Entries of layer ``layer``: (j, k) of dW and j of db."""

    layer: int
    weights: list[tuple[int, int]]
    biases: list[int]

    def __len__(self) -> int:
        return len(self.weights) + len(self.biases)


def facts(evidence: Submersion, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that move.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    return Facts(ambiguous=True, free=count(evidence, subject).free)


def count(evidence: Submersion, subject: Subject) -> Count:
    """The coordinates and the entries that show :func:`facts`; raises as it does."""
    chosen = list(evidence.samples)
    require(evidence.prime == PRIME, f"the prime is {evidence.prime}, this schema's is {PRIME}")
    require(1 < evidence.point < PRIME, "the point t is outside [2, p)")
    require(subject.question.loss is not Loss.HINGE, "the loss vector of hinge jumps")
    require(len(set(chosen)) == len(chosen) > 0, "a sample is named twice, or none is")
    require(all(m < subject.samples for m in chosen), "there is no such sample")
    zeros = [bool(zero[:, chosen].any()) for zero in subject.passed.zeros]
    require(not any(zeros), "a pre-activation is zero, where the gradient may have a kink")
    inside = _inside(subject)[chosen]
    entries = _independent(subject, chosen, inside, _sent(subject, chosen, inside))
    left, own = sum(map(len, entries)), inside.sum(axis=1)
    coordinates = int(own.sum())
    require(left < coordinates, f"{left} entries against {coordinates} coordinates leave nothing open")
    asked = own <= left  # who has more coordinates than there are equations moves anyway
    ranks = 1 + int((asked & (own > 0)).sum())
    require(left * coordinates * ranks <= MAX_ENTRIES, "the Jacobian is too large")
    matrix = _jacobian(evidence, subject, inside, entries)
    rank = rank_mod(matrix)
    require(rank == left, f"the Jacobian of {left} entries has rank {rank} mod p")
    owner = np.repeat(chosen, own)
    moving = {m for m, many in zip(chosen, ~asked, strict=True) if many}
    for m, size in zip(chosen, own, strict=True):
        if 0 < size <= left and rank_mod(matrix[:, owner != m]) > left - size:
            moving.add(m)
    return Count(motions=coordinates, equations=left, free=subject.leaving(moving))


def _inside(subject: Subject) -> Mask:
    """The entries (M, d) strictly inside the domain."""
    x = subject.batch.inputs
    if subject.question.domain is None:
        return np.ones(x.shape, dtype=bool)
    lo, hi = subject.question.domain.bounds(x.shape[1])
    found: Mask = (x > lo) & (x < hi)
    return found


def _sent(subject: Subject, chosen: list[int], inside: Mask) -> list[Entries]:
    """The entries that are sent and may change, from the first layer on: for some sample of S neuron j of the
    layer and neuron k below it are active.
    """
    network, question = subject.network, subject.question
    there = [np.asarray(subject.batch.inputs[chosen] != 0, dtype=bool).T | inside.T]
    there += [pattern[:, chosen] for pattern in subject.passed.patterns]
    there.append(np.ones((network.classes, len(chosen)), dtype=bool))
    found = []
    for number, layer in enumerate(network.layers, 1):
        both = there[number].astype(np.int64) @ there[number - 1].astype(np.int64).T > 0
        weights = np.argwhere(both & question.sent_weights(layer)[:, None])
        biases: list[int] = []
        if layer.bias is not None:
            live = there[number].any(axis=1) & question.sent_biases(layer)
            biases = np.flatnonzero(live).tolist()
        found.append(Entries(layer=number, weights=[(int(j), int(k)) for j, k in weights], biases=biases))
    return found


def _independent(subject: Subject, chosen: list[int], inside: Mask, entries: list[Entries]) -> list[Entries]:
    """Entries of which all others are fixed combinations while the patterns stay."""
    network, passed, depth = subject.network, subject.passed, subject.network.depth
    patterns = [pattern[:, chosen] for pattern in passed.patterns]
    together = np.concatenate([np.ones((1, len(chosen)), dtype=bool), *patterns])
    _, first = np.unique(together, axis=1, return_index=True)
    regions = [chosen[k] for k in first]
    # features that are zero and stay zero have no moments; without weights nothing but the ones has
    used = np.flatnonzero((np.asarray(subject.batch.inputs[chosen] != 0, dtype=bool) | inside).any(axis=0))
    weighted = any(part.weights for part in entries)
    classes = network.classes - subject.question.loss.zero_sum
    size = sum(map(len, entries)) * len(regions) * classes * (weighted * len(used) + 1)
    require(size <= MAX_COMBINATIONS, f"the combinations of moments have {size} coefficients")
    if not size:  # nothing that is sent changes near X
        return [Entries(layer=part.layer, weights=[], biases=[]) for part in entries]
    columns = []
    for m in regions:
        basis = fractions(np.eye(network.classes))
        if subject.question.loss.zero_sum:
            basis = basis[:, :-1] - basis[:, -1:]
        back = [RationalMatrix.of(basis)]  # B_L, B_{L-1}, ...
        for number in range(depth - 1, 0, -1):
            down = product(network.layer(number + 1).weight.T, back[-1])
            back.append(down.masked(np.repeat(passed.pattern(number)[:, [m]], classes, axis=1)))
        features = _features(subject, m, used) if weighted else []
        rows = []
        for part, matrix in zip(entries, reversed(back), strict=True):
            maps, width = matrix.fractions(), weighted * len(used) + 1
            for j, k in part.weights:
                rows.append(np.outer(maps[j], features[part.layer - 1][k]).reshape(-1))
            for j in part.biases:
                ones = np.full((classes, width), Fraction(0), dtype=object)
                ones[:, -1] = maps[j]
                rows.append(ones.reshape(-1))
        columns.append(np.array(rows, dtype=object))
    kept, start, found = set(pivots(np.concatenate(columns, axis=1).T)), 0, []
    for part in entries:
        middle = start + len(part.weights)
        weights = [pair for k, pair in enumerate(part.weights, start) if k in kept]
        biases = [j for k, j in enumerate(part.biases, middle) if k in kept]
        found.append(Entries(layer=part.layer, weights=weights, biases=biases))
        start += len(part)
    return found


def _features(subject: Subject, m: int, used: Array) -> list[Array]:
    """The affine maps (n, |used| + 1) of h_0, h_1, ... in the region of sample m, the constant last."""
    passed, x = subject.passed, fractions(subject.batch.inputs[m])
    unit = fractions(np.eye(len(x)))
    maps = [unit]
    for matrix, pattern in zip(jacobians(subject.network, passed, m)[:-1], passed.patterns, strict=True):
        maps.append(matrix * pattern[:, m].astype(int)[:, None])
    found = []
    for matrix, hidden in zip(maps, passed.hidden, strict=True):
        constant = hidden.fractions()[:, [m]] - multiply(matrix, x[:, None])
        found.append(np.concatenate([matrix[:, used], constant], axis=1))
    return found


def _jacobian(evidence: Submersion, subject: Subject, inside: Mask, entries: list[Entries]) -> Residues:
    """The derivatives mod p of the entries (s, coordinates), sample by sample."""
    network, passed, loss = subject.network, subject.passed, subject.question.loss
    try:
        vectors = loss_vectors_mod(loss, passed.logits, subject.batch.labels, 1, evidence.point)
    except VanishingDenominatorError:
        raise CertificateRejected("a softmax denominator vanishes at the certificate's point t") from None
    deltas = backward_mod(network, passed, vectors)
    hidden = [features.residues() for features in passed.hidden]
    columns = []
    for m, free in zip(evidence.samples, inside, strict=True):
        motions: list[Residues] = [np.eye(len(free), dtype=np.uint64)[:, free]]  # of h_0, h_1, ...
        for affine, pattern in zip(network.layers[:-1], passed.patterns, strict=True):
            motions.append(product_mod(affine.weight, motions[-1]) * pattern[:, [m]])
        logits = product_mod(network.layers[-1].weight, motions[-1])
        change = residue_product(_hessian(subject, vectors, m), logits)  # of delta_L, delta_{L-1}, ...
        blocks = []
        for layer in range(network.depth, 0, -1):
            delta, features, left = deltas.at(layer)[:, m], hidden[layer - 1][:, m], entries[layer - 1]
            rows, cols = np.array(left.weights, dtype=int).reshape(-1, 2).T
            # d (delta_j h_k) = d delta_j h_k + delta_j d h_k
            blocks.append(change[left.biases])
            blocks.append(
                add_mod(
                    multiply_mod(change[rows], features[cols][:, None]),
                    multiply_mod(delta[rows][:, None], motions[layer - 1][cols]),
                )
            )
            if layer > 1:
                active = passed.pattern(layer - 1)[:, [m]]
                change = product_mod(network.layer(layer).weight.T, change) * active
        columns.append(np.concatenate(blocks))
    return np.concatenate(columns, axis=1)


def _hessian(subject: Subject, vectors: Residues, m: int) -> Residues:
    """The derivative (K, K) mod p of sample m's loss vector by its logits.

    mse: 2; bce: p (1 - p) in each logit; cross_entropy: diag(p) - p p^T. p is the loss vector plus the label.
    """
    classes, label = subject.network.classes, subject.batch.labels[m]
    unit = np.eye(classes, dtype=np.uint64)
    if subject.question.loss is Loss.MSE:
        return unit * np.uint64(2)
    if subject.question.loss is Loss.BCE:
        p = add_mod(vectors[:, m], residues(fractions(label)))
        return unit * multiply_mod(p, add_mod(np.ones_like(p), negate_mod(p)))
    p = add_mod(vectors[:, m], unit[int(label)])
    return add_mod(unit * p, negate_mod(multiply_mod(p[:, None], p[None, :])))
