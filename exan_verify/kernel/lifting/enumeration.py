"""Checks an enumeration cover by searching again (docs/theory.md 3.3 and Appendix E).

The certificate says in which order neurons are taken, and nothing more: any order is sound, a bad one only
takes longer. Deltas, outgoing weights, states and every subspace are computed here, in code of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.core.certificate import Conclusion, Enumeration
from exan_verify.core.facts import Facts
from exan_verify.core.network import Array, to_fraction
from exan_verify.exact.backprop import backward
from exan_verify.exact.modular import PRIME, Residues, add_mod, inverses_mod, multiply_mod, negate_mod
from exan_verify.exact.rational import Mask, RationalMatrix, product
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.lifting.degree_two import (
    check_reduction,
    concluded,
    groups_of,
    image_at,
    outgoing_weights,
    row_space,
    unknowns_above,
)

_BATCH = 1 << 14

MAX_VARIABLES = 64
"""M + K': no search in more dimensions ends."""

_LEAST = 1 << 14
_FACTOR = 4
"""Cuts: this many, and four times as many as the engine counted, which may have merged equal subspaces
elsewhere.
"""

Counts = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Neuron:
    """Functionals on (q, u) that vanish when the neuron is inactive, active; the groups (G,) of samples whose
    members all satisfy them exactly.
    """

    inactive: Residues
    active: Residues
    inactive_for: Mask
    active_for: Mask


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """Subspaces of one dimension: reduced echelon bases (B, d, N), inactive cuts (B,), and ``known`` (B, G):
    how many dimensions of each group's span satisfy all equations exactly, at least.
    """

    bases: Residues
    known: Counts
    inactive: npt.NDArray[np.int64]


def facts(evidence: Enumeration, subject: Subject) -> Facts:
    """The samples that the evidence proves to be in every batch with this gradient.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    conclusion, samples = evidence.conclusion, subject.samples
    image = image_at(evidence.prime, evidence.point, subject)
    check_reduction(image, conclusion.layer)
    require(conclusion.parametrisation != "single", "enumeration is for more than one sample")
    delta = image.delta(conclusion.layer)
    order = list(evidence.order)
    require(all(0 <= j < len(delta) for j in order), "the order names a neuron that is not there")
    require(len(order) <= 8 * len(delta), "the order is much longer than the layer")
    require(samples + unknowns_above(image, conclusion) <= MAX_VARIABLES, "M + K' is too large for a search")
    outgoing = outgoing_weights(image, conclusion)
    groups = groups_of(subject.passed.pattern(conclusion.layer), tuple(range(samples)))
    states = exact_states(subject, conclusion.layer)
    by_group = [np.stack([table[:, list(g)].all(axis=1) for g in groups], axis=1) for table in states]
    neurons = [_neuron(delta[j], outgoing[j], by_group[0][j], by_group[1][j]) for j in order]
    exact = conclusion.parametrisation != "column_space" and small_minors(subject, conclusion, order)
    most = _LEAST + _FACTOR * evidence.subspaces
    leaves = _cover(neurons, groups, samples + outgoing.shape[1], exact, most)
    parts = _joined([{m for k in leaf for m in groups[k]} for leaf in leaves])
    require(parts == conclusion.groups, f"the leaves join to {parts}")
    return Facts(determined=concluded(image, conclusion))


def _neuron(delta: Residues, outgoing: Residues, inactive: Mask, active: Mask) -> _Neuron:
    return _Neuron(
        inactive=np.concatenate([delta, np.zeros_like(outgoing)]),
        active=np.concatenate([delta, negate_mod(outgoing)]),
        inactive_for=inactive,
        active_for=active,
    )


def exact_states(subject: Subject, layer: int) -> tuple[Mask, Mask]:
    """(n, M) each: the sample surely satisfies delta . q = 0; delta . q = w . u. By its pattern, or because
    w . u is exactly zero, which is decided for rational losses only.
    """
    pattern, question = subject.passed.pattern(layer), subject.question
    if not question.loss.rational:
        return ~pattern, pattern
    vectors = loss_vectors(question.loss, subject.passed.logits, subject.batch.labels, subject.divisor)
    above = backward(subject.network, subject.passed, vectors)[layer]
    incoming = product(subject.network.layers[layer].weight.T, above)
    return ~(pattern & incoming.nonzero()), pattern | ~incoming.nonzero()


def small_minors(subject: Subject, conclusion: Conclusion, order: list[int]) -> bool:
    """Whether all minors of the outgoing weights, columns scaled to integers, are below p (Hadamard)."""
    columns = exact_columns(subject, conclusion)[order].T
    product_of_squares = Fraction(1)
    for row in columns:
        values = [to_fraction(v) for v in row]
        scale = lcm(1, *(v.denominator for v in values))
        product_of_squares *= max(1, sum((v * scale) ** 2 for v in values))
    return product_of_squares < PRIME**2


def exact_columns(subject: Subject, conclusion: Conclusion) -> Array:
    """The outgoing weights (n, K') as Fractions, for every parametrisation but ``column_space``."""
    if conclusion.parametrisation == "row_space":
        return row_space(subject, conclusion.layer)
    weights = RationalMatrix.of(subject.network.layers[conclusion.layer].weight.T).fractions()
    if conclusion.parametrisation == "full":
        return weights
    difference: Array = weights[:, :-1] - weights[:, -1:]
    return difference


def _cover(
    neurons: list[_Neuron], groups: tuple[tuple[int, ...], ...], variables: int, exact: bool, most: int
) -> set[tuple[int, ...]]:
    """The leaves, as tuples of groups; rejects unless every leaf is inside the span of its groups."""
    samples = sum(len(group) for group in groups)
    everyone = np.array([[len(group) for group in groups]], dtype=np.uint64)
    root = _Nodes(np.eye(variables, dtype=np.uint64)[None], everyone, np.zeros(1, dtype=np.int64))
    waiting = [(0, [root])]
    leaves: set[tuple[int, ...]] = set()
    visited = 0
    while waiting:
        used, level = waiting.pop()
        large = max(range(len(level)), key=lambda i: len(level[i].bases))
        if len(level[large].bases) > _BATCH:
            half = len(level[large].bases) // 2
            waiting.append((used, [_part(level[large], slice(half, None))]))
            level[large] = _part(level[large], slice(None, half))
            waiting.append((used, level))
            continue
        open_nodes = [_without_leaves(nodes, leaves, last=used == len(neurons)) for nodes in level]
        following: dict[int, list[_Nodes]] = {}
        for nodes in (nodes for nodes in open_nodes if len(nodes.bases)):
            for child in _branch(nodes, neurons[used], samples, exact):
                following.setdefault(child.bases.shape[1], []).append(child)
                visited += len(child.bases) if child.bases.shape[1] < nodes.bases.shape[1] else 0
            require(visited <= most, f"the search takes more than {most} subspaces")
        if following:
            waiting.append((used + 1, [_merged(parts) for parts in following.values()]))
    return leaves


def _without_leaves(nodes: _Nodes, leaves: set[tuple[int, ...]], *, last: bool) -> _Nodes:
    """Add to ``leaves`` the lines in known spans, and after the last neuron everything; return the rest."""
    spanned = nodes.known.sum(axis=1) == nodes.bases.shape[1]
    require(not last or bool(spanned.all()), "a leaf is larger than the span of its true samples")
    done = spanned if last or nodes.bases.shape[1] == 1 else np.zeros_like(spanned)
    leaves.update(tuple(np.flatnonzero(row).tolist()) for row in np.unique(nodes.known[done], axis=0))
    return _part(nodes, ~done)


def _branch(nodes: _Nodes, neuron: _Neuron, samples: int, exact: bool) -> list[_Nodes]:
    """The nodes whole where one of the functionals vanishes mod p; both cuts of the others."""
    inactive, active = _evaluated(nodes.bases, neuron.inactive), _evaluated(nodes.bases, neuron.active)
    both = np.logical_and(inactive.any(axis=1), active.any(axis=1))
    out = [_part(nodes, ~both)]
    if nodes.bases.shape[1] > 1 and both.any():
        parents = _part(nodes, both)
        states = ((inactive[both], neuron.inactive_for, 1), (active[both], neuron.active_for, 0))
        for values, satisfied, counted in states:
            bases = _intersected(parents.bases, values)
            lost = np.minimum(parents.known, np.uint64(1))
            known = parents.known - np.where(satisfied, np.uint64(0), lost)
            cut = _Nodes(bases, known, parents.inactive + counted)
            # q = 0 over the reals: by M inactive equations, or as dependences of active ones are exact
            certain = (cut.inactive == samples) | exact
            out.append(_part(cut, bases[:, :, :samples].any(axis=(1, 2)) | ~certain))
    return [nodes for nodes in out if len(nodes.bases)]


def _evaluated(bases: Residues, functional: Residues) -> Residues:
    """The functional on every basis vector, (B, d)."""
    total = np.zeros(bases.shape[:2], dtype=np.uint64)
    for k in np.flatnonzero(functional):
        total = add_mod(total, multiply_mod(bases[:, :, k], functional[k]))
    return total


def _intersected(bases: Residues, values: Residues) -> Residues:
    """Kernels of the functional on the spans: each vector minus its multiple of the last one with a value."""
    count, dimension, variables = bases.shape
    out = np.empty((count, dimension - 1, variables), dtype=np.uint64)
    last = np.array([np.flatnonzero(row)[-1] for row in values != 0])
    for k in set(last.tolist()):
        here = last == k
        removed = bases[here, k]
        factors = multiply_mod(values[here], inverses_mod(values[here, k])[:, None])
        rows = [i for i in range(dimension) if i != k]
        multiples = multiply_mod(factors[:, rows, None], removed[:, None, :])
        out[here] = add_mod(bases[here][:, rows], negate_mod(multiples))
    return out


def _merged(parts: list[_Nodes]) -> _Nodes:
    """Equal bases with equal ``known`` once, with the least number of inactive cuts of all."""
    bases = np.concatenate([part.bases for part in parts])
    known = np.concatenate([part.known for part in parts])
    inactive = np.concatenate([part.inactive for part in parts])
    keys = np.ascontiguousarray(np.concatenate([bases.reshape(len(bases), -1), known], axis=1))
    whole = keys.view(np.dtype((np.void, keys.dtype.itemsize * keys.shape[1])))[:, 0]
    _, first, which = np.unique(whole, return_index=True, return_inverse=True)
    least = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(least, which, inactive)
    return _Nodes(bases[first], known[first], least)


def _part(nodes: _Nodes, index: npt.NDArray[Any] | slice) -> _Nodes:
    return _Nodes(nodes.bases[index], nodes.known[index], nodes.inactive[index])


def _joined(leaves: list[set[int]]) -> tuple[tuple[int, ...], ...]:
    """The finest partition of the samples in which every leaf lies in one part."""
    parts: list[set[int]] = []
    for leaf in leaves:
        merged, apart = set(leaf), []
        for part in parts:
            if part & merged:
                merged |= part
            else:
                apart.append(part)
        parts = [*apart, merged]
    return tuple(sorted(tuple(sorted(part)) for part in parts))
