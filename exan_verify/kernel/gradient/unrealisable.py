"""Checks the evidence for UNREALISABLE: no batch of the claim's size has this gradient (3.1, 3.5)."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from exan_verify.core.arrays import PerLayer, fractions
from exan_verify.core.certificate import Forced, RankBound, rational
from exan_verify.core.network import Array, Batch, Gradient, ReluNetwork
from exan_verify.core.question import Loss, Question
from exan_verify.errors import LabelError
from exan_verify.exact.backprop import affine, backward_mod, gradient
from exan_verify.exact.linalg import multiply, rank_mod, solve
from exan_verify.exact.modular import PRIME, Residues, random_residues, residues
from exan_verify.exact.rational import RationalMatrix, product, residue_product
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.kernel.given import Subject, require


class _Contradiction(Exception):  # noqa: N818 - a finding, not an error
    """The batch that the gradient forces does not exist: what is to be shown."""


def check_rank_bound_of_gradient(
    evidence: RankBound, given: Gradient, network: ReluNetwork, size: int
) -> None:
    """rank [dW | db] of M samples is at most M; here it is larger than ``size``."""
    layers = given.for_network(network)
    require(1 <= evidence.layer <= network.depth, f"there is no layer {evidence.layer}")
    found = rank_mod(_mod_p(_joined(*layers.at(evidence.layer))))
    _compare(evidence, found, size)


def check_rank_bound_of_batch(evidence: RankBound, subject: Subject, size: int) -> None:
    """The same for the gradient of a given batch, at the certificate's point (3.6)."""
    require(1 <= evidence.layer <= subject.network.depth, f"there is no layer {evidence.layer}")
    require(1 < evidence.point < PRIME, "the point t is outside [2, p)")
    passed = subject.passed
    try:
        vectors = loss_vectors_mod(
            subject.question.loss, passed.logits, subject.batch.labels, subject.divisor, evidence.point
        )
    except VanishingDenominatorError:
        require(False, "a softmax denominator vanishes at the certificate's point t")
    delta = backward_mod(subject.network, passed, vectors).at(evidence.layer)
    features = passed.features(evidence.layer).residues()
    if subject.network.has_bias:
        features = np.concatenate([features, np.ones((1, subject.samples), dtype=np.uint64)])
    mixer = random_residues(f"kernel/bound/{evidence.layer}", subject.samples + 3, len(features))
    _compare(evidence, rank_mod(residue_product(delta, residue_product(mixer, features).T)), size)


def check_forced(evidence: Forced, given: Gradient, network: ReluNetwork, question: Question) -> None:
    """Every batch is forced (C1), and following it through the layers ends in a contradiction."""
    require(network.has_bias and question.loss.rational, "forced batches need biases and a rational loss")
    require(1 <= evidence.layer < network.depth, f"there is no hidden layer {evidence.layer}")
    layers = PerLayer(_joined(*layer) for layer in given.for_network(network))
    samples, block = question.samples, layers.at(evidence.layer)
    require(len(evidence.columns) == samples, "there must be one column of the gradient per sample")
    require(all(0 <= c < block.shape[1] for c in evidence.columns), "a column is out of range")
    basis = block[:, list(evidence.columns)]
    require(rank_mod(_mod_p(basis)) == samples, "the columns are not shown to be independent")
    outgoing = _outgoing(layers, network, evidence.layer, samples)
    unknowns = samples * (samples + 1) // 2 + samples * outgoing.shape[1]
    require(unknowns - samples <= len(basis), f"{len(basis)} neurons are too few for {unknowns} unknowns")
    rank = rank_mod(_system(basis, outgoing))
    if not evidence.matrix:
        require(rank > unknowns - samples, "null(R) is not shown to be too small for M samples")
        return
    require(rank == unknowns - samples, "dim null(R) = M is not shown")
    directions = _checked_directions(evidence, basis, outgoing, samples)
    try:
        _follow(basis, directions, evidence.layer, layers, given, network, question)
    except _Contradiction:
        return
    require(False, "the forced batch has the gradient: nothing is contradicted")


def _compare(evidence: RankBound, found: int, size: int) -> None:
    require(evidence.prime == PRIME, f"the prime is {evidence.prime}, this schema's is {PRIME}")
    require(found == evidence.rank, f"the rank is {found} mod p, the certificate says {evidence.rank}")
    require(found > size, f"rank {found} does not exceed the batch size {size}")


def _outgoing(layers: PerLayer[Array], network: ReluNetwork, layer: int, samples: int) -> Array:
    """Rows w_j on the unknowns of u: all of R^n, or M independent columns of the next layer's gradient, which
    are a basis of its column space for every batch when its rank is M.
    """
    weights = fractions(network.layers[layer].weight.T)
    if weights.shape[1] <= samples:
        return weights
    following = layers[layer]
    chosen: list[int] = []
    for c in range(following.shape[1]):
        if rank_mod(_mod_p(following[:, [*chosen, c]])) == len(chosen) + 1:
            chosen.append(c)
        if len(chosen) == samples:
            return multiply(weights, following[:, chosen])
    return weights


def _system(basis: Array, outgoing: Array) -> Residues:
    rows = []
    for c, w in zip(basis, outgoing, strict=True):
        squares = [c[a] * c[b] for a in range(len(c)) for b in range(a, len(c))]
        rows.append(squares + [-x * v for x in c for v in w])
    return _mod_p(np.array(rows, dtype=object))


def _checked_directions(evidence: Forced, basis: Array, outgoing: Array, samples: int) -> Array:
    """The p_m (columns): independent, and each with its u_m solves every neuron's equation exactly."""
    matrix = _read(evidence.matrix, (samples, samples), "the mixing matrix")
    following = _read(evidence.following, (samples, outgoing.shape[1]), "the next deltas")
    require(rank_mod(_mod_p(matrix)) == samples, "the directions are not shown to be independent")
    here = multiply(basis, matrix)
    there = multiply(outgoing, following.T)
    wrong = [1 for a, b in zip(here.reshape(-1), there.reshape(-1), strict=True) if a * (a - b) != 0]
    require(not wrong, "a direction does not solve the lifted system")
    return matrix


def _follow(
    basis: Array,
    directions: Array,
    layer: int,
    layers: PerLayer[Array],
    given: Gradient,
    network: ReluNetwork,
    question: Question,
) -> None:
    """From the forced directions down to X, up to the labels, and to the gradient (3.4)."""
    block = layers.at(layer)
    columns = multiply(basis, directions)
    scales = solve(columns, block[:, [-1]])
    if scales is None or not all(scales[:, 0]):
        raise _Contradiction
    delta = fractions(columns * scales[:, 0])
    features = _features(delta, block)
    for i in range(layer - 1, 0, -1):
        if np.any(features < 0):
            raise _Contradiction
        active = np.array([[value > 0 for value in row] for row in features]).T
        delta = product(network.layers[i].weight.T, RationalMatrix.of(delta)).masked(active).fractions()
        features = _features(delta, layers.at(i))
    _compare_gradient(features, layers, given, network, question)


def _features(delta: Array, block: Array) -> Array:
    """The unique H with ``delta @ [H 1] = [dW | db]``; a contradiction when there is none."""
    found = solve(delta, block)
    if found is None:
        require(rank_mod(_mod_p(delta)) == delta.shape[1], "a Delta is not shown to have full column rank")
        raise _Contradiction
    if np.any(found[:, -1] != 1):
        raise _Contradiction
    return found[:, :-1]


def _compare_gradient(
    inputs: Array,
    layers: PerLayer[Array],
    given: Gradient,
    network: ReluNetwork,
    question: Question,
) -> None:
    samples = question.samples
    hidden = RationalMatrix.of(inputs.T)
    for layer in network.layers[:-1]:
        z = affine(layer, hidden)
        hidden = z.masked(z.positive())
    extended = np.concatenate([hidden.fractions(), np.full((1, samples), Fraction(1))]).T
    vectors = solve(extended.T, layers[-1].T)
    if vectors is None:
        require(rank_mod(_mod_p(extended)) == samples, "rank [H_{L-1} 1] = M is not shown")
        raise _Contradiction
    labels = _labels(vectors, affine(network.layers[-1], hidden).fractions(), network, question)
    try:
        batch = Batch.of(inputs, labels, network=network, loss=question.loss, labels=question.labels)
    except LabelError:
        raise _Contradiction from None
    again = gradient(network, batch, question.loss, question.reduction)
    if any(np.any(array != given.tensors[name]) for name, array in again.tensors.items()):
        raise _Contradiction
    if question.domain is not None and not question.domain.contains(batch):
        raise _Contradiction


def _labels(vectors: Array, logits: Array, network: ReluNetwork, question: Question) -> Array:
    """The labels that the loss vectors (M, K) force."""
    if question.loss is Loss.HINGE:
        negative = [[k for k, value in enumerate(row) if value < 0] for row in vectors]
        if any(len(found) != 1 for found in negative):
            raise _Contradiction
        return np.array([found[0] for found in negative])
    divisor = question.divisor(question.samples, network.classes)
    targets: Array = logits.T - vectors * Fraction(divisor, 2)
    return targets


def _joined(weight: Array, bias: Array | None) -> Array:
    parts = [weight.astype(object)]
    if bias is not None:
        parts.append(bias.astype(object).reshape(-1, 1))
    return fractions(np.concatenate(parts, axis=1))


def _read(rows: tuple[tuple[str, ...], ...], shape: tuple[int, int], what: str) -> Array:
    require(len(rows) == shape[0] and all(len(row) == shape[1] for row in rows), f"{what} has a wrong shape")
    out = np.empty(shape, dtype=object)
    for i, row in enumerate(rows):
        for k, text in enumerate(row):
            out[i, k] = rational(text)
    return out


def _mod_p(matrix: Array) -> Residues:
    return residues(fractions(matrix))
