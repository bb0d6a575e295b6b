"""The first-order system of a batch when its loss vectors are only known up to symbols (docs/theory.md S4).

Each chosen sample may move in a rational space U_m that leaves its loss vector and everything that stands at
a limit alone. The gradient then changes by ``sum_s s M_s`` applied to the coefficients of the motion, with
one rational matrix M_s for each symbol s. Whatever the symbols are, the change lies in the joint column space
of all M_s: its dimension bounds the number of independent equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Box, Loss
from exan_verify.exact.backprop import Forward, backward, jacobians
from exan_verify.exact.linalg import multiply, nullspace, rank
from exan_verify.exact.modular import Residues, multiply_mod
from exan_verify.exact.rational import RationalMatrix

Bases = Mapping[int, Array]
"""Per sample, columns (d, q_m) that span U_m."""


def own_motions(
    network: ReluNetwork,
    passed: Forward,
    batch: Batch,
    loss: Loss,
    domain: Box | None,
    samples: Sequence[int],
) -> Bases:
    """For each sample, all motions that leave its loss vector and its limits alone (cross_entropy, bce)."""
    found = {}
    for m in samples:
        maps = jacobians(network, passed, m)
        top = maps[-1][:-1] - maps[-1][-1] if loss is Loss.CROSS_ENTROPY else maps[-1]
        limits = [maps[i][zeros[:, m]] for i, zeros in enumerate(passed.zeros)]
        found[m] = nullspace(np.concatenate([top, *limits, _faces(batch, domain, m)]))
    return found


def common_motions(
    network: ReluNetwork, passed: Forward, batch: Batch, domain: Box | None, samples: Sequence[int]
) -> Bases:
    """One space for all samples: what no neuron of layer 1 sees that is active or zero for one of them."""
    chosen = list(samples)
    seen = (passed.patterns[0][:, chosen] | passed.zeros[0][:, chosen]).any(axis=1)
    rows = [RationalMatrix.of(network.layers[0].weight).fractions()[seen]]
    basis = nullspace(np.concatenate([*rows, *(_faces(batch, domain, m) for m in chosen)]))
    return dict.fromkeys(chosen, basis)


def responses(network: ReluNetwork, passed: Forward, symbols: Sequence[Array], bases: Bases) -> list[Array]:
    """M_s for each symbol's coefficients (K, M): rows are the entries of all weight gradients, columns the
    basis vectors of all samples, in the order of ``bases``.
    """
    inputs = {m: _hidden_motions(network, passed, m, basis) for m, basis in bases.items()}
    found = []
    for vectors in symbols:
        deltas = [delta.fractions() for delta in backward(network, passed, vectors)]
        columns = [
            np.concatenate(
                [np.outer(d[:, m], h[:, k]).reshape(-1) for d, h in zip(deltas, inputs[m], strict=True)]
            )
            for m, basis in bases.items()
            for k in range(basis.shape[1])
        ]
        found.append(np.array(columns, dtype=object).reshape(len(columns), _entries(network)).T)
    return found


def most_equations(network: ReluNetwork, passed: Forward, symbols: Sequence[Array], bases: Bases) -> int:
    """R: the dimension of the joint column space of all M_s; 0 without symbols (one class)."""
    parts = responses(network, passed, symbols, bases)
    return rank(np.concatenate(parts, axis=1)) if parts else 0


def responses_mod(
    network: ReluNetwork, passed: Forward, deltas: Sequence[Residues], bases: Bases
) -> Residues:
    """``sum_s s M_s`` mod p, from the deltas' residues (n_i, M)."""
    columns = []
    for m, basis in bases.items():
        inputs = [RationalMatrix.of(h).residues() for h in _hidden_motions(network, passed, m, basis)]
        columns += [
            np.concatenate(
                [
                    multiply_mod(d[:, [m]], h[None, :, k]).reshape(-1)
                    for d, h in zip(deltas, inputs, strict=True)
                ]
            )
            for k in range(basis.shape[1])
        ]
    found: Residues = np.array(columns, dtype=np.uint64).reshape(len(columns), _entries(network)).T
    return found


def _hidden_motions(network: ReluNetwork, passed: Forward, m: int, basis: Array) -> list[Array]:
    """How ``h_0 .. h_{L-1}`` move along the columns of ``basis``."""
    found = [basis]
    for map_, pattern in zip(jacobians(network, passed, m)[:-1], passed.patterns, strict=True):
        found.append(multiply(map_ * pattern[:, m].astype(int)[:, None], basis))
    return found


def _faces(batch: Batch, domain: Box | None, m: int) -> Array:
    """Unit rows of the features that stand on a face of the box."""
    d = batch.inputs.shape[1]
    unit = RationalMatrix.of(np.eye(d)).fractions()
    if domain is None:
        return unit[:0]
    lo, hi = domain.bounds(d)
    rows: Array = unit[np.asarray((batch.inputs[m] == lo) | (batch.inputs[m] == hi), dtype=bool)]
    return rows


def _entries(network: ReluNetwork) -> int:
    return sum(layer.weight.size for layer in network.layers)
