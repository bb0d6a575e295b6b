"""PL1: lifting where inactive neurons have a slope of their own (LeakyReLU, PReLU)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations_with_replacement, product
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact.linalg import multiply, nullspace, rank
from exan_verify.theorems.statement import Standing, Statement
from exan_verify.theorems.support.laboratory import drawn, exact
from exan_verify.theorems.support.shorthands import by_instances, coq, measured, written

SLOPES = (Fraction(-2), Fraction(-1, 2), Fraction(1, 100), Fraction(1, 4), Fraction(3))
"""Below zero; above it is 1. None is 1, and none is -1 for a whole layer."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Neurons with outgoing weights (n, K') and slopes (n,), samples with next deltas (K', M), active or not
    (n, M). ``told``: the samples that are claimed to be all candidates.
    """

    weights: Array
    slopes: tuple[Fraction, ...]
    following: Array
    active: Array
    told: tuple[int, ...]

    @property
    def delta(self) -> Array:
        """Delta (n, M): the derivative times w_j . u_m."""
        back = multiply(self.weights, self.following)
        found: Array = np.where(self.active, back, back * np.array(self.slopes, dtype=object)[:, None])
        return found


def layers(seed: int) -> Iterator[Layer]:
    """Layers that reach the rank of PL1."""
    return drawn("PL1", seed, _draw)


def _draw(rng: Random) -> Layer | None:
    samples, extra = rng.choice(((2, 1), (2, 2), (3, 1)))
    unknowns = len(_monomials(samples, extra))
    neurons = unknowns - samples + rng.choice((0, 0, 1))
    layer = Layer(
        weights=exact([[rng.randint(-4, 4) for _ in range(extra)] for _ in range(neurons)]),
        slopes=tuple(rng.choice(SLOPES) for _ in range(neurons)),
        following=exact([[rng.randint(-4, 4) for _ in range(samples)] for _ in range(extra)]),
        active=np.array([[rng.random() < 0.5 for _ in range(samples)] for _ in range(neurons)]),
        told=tuple(range(samples)),
    )
    full = rank(layer.delta) == samples and rank(_lifted(layer)) == unknowns - samples
    return layer if full else None


def _monomials(samples: int, extra: int) -> list[tuple[int, int]]:
    return list(combinations_with_replacement(range(samples + extra), 2))


def _lifted(layer: Layer) -> Array:
    """R over Q: (Delta_j . q - w_j . u)(Delta_j . q - s_j w_j . u), multiplied out monomial by monomial."""
    neurons, samples = layer.delta.shape
    monomials = _monomials(samples, layer.weights.shape[1])
    rows = np.full((neurons, len(monomials)), Fraction(0), dtype=object)
    for j, slope in enumerate(layer.slopes):
        one = [*layer.delta[j], *(-layer.weights[j])]
        other = [*layer.delta[j], *(-slope * layer.weights[j])]
        for k, (a, b) in enumerate(monomials):
            rows[j, k] = one[a] * other[b] + (one[b] * other[a] if a != b else 0)
    return rows


def only_the_samples(layer: Layer) -> bool:
    """Over all 2^n states every (q, u) with q != 0 is a multiple of (e_m, u_m) for a sample that is told."""
    delta, samples = layer.delta, layer.delta.shape[1]
    for state in product((True, False), repeat=len(layer.slopes)):
        factors = np.array([1 if on else s for on, s in zip(state, layer.slopes, strict=True)], dtype=object)
        basis = nullspace(np.concatenate([delta, -layer.weights * factors[:, None]], axis=1))
        q, u = basis[:samples], basis[samples:]
        if not q.any():
            continue
        if basis.shape[1] > 1:
            return False
        moved = np.flatnonzero(q[:, 0])
        if len(moved) > 1 or int(moved[0]) not in layer.told:
            return False
        if (u[:, 0] != q[moved[0], 0] * layer.following[:, moved[0]]).any():
            return False
    return True


def one_sample_less(layer: Layer) -> Layer:
    """The same with a claim that leaves one of the samples out, which is a candidate."""
    return replace(layer, told=layer.told[1:])


STATEMENTS = (
    Statement(
        name="two-slopes",
        group="PL1",
        title="Lifting where inactive neurons have a slope of their own: LeakyReLU, PReLU",
        source="docs/theory.md, PL1",
        reading="With slope 1 above zero and s_j below, every neuron satisfies (Delta_j q - w_j u)"
        "(Delta_j q - s_j w_j u) = 0, a linear equation in the products of (q, u) by (q, u). If these n "
        "equations have rank U - M, one layer in polynomial time determines its inputs, deltas and next "
        "deltas, as C1 does for ReLU. No neuron is exclusive in such a network: every neuron passes every "
        "sample on.",
        quantifiers="all depths, widths, layers, M, K', loss vectors, slopes other than 1 for each neuron",
        hypotheses=(
            "the network has biases and rank [dW_i | db_i] = M at a hidden layer i",
            "u is written in K' unknowns that cover what any batch can have there",
            "rank R = U - M, with U = M(M+1)/2 + M K' + K'(K'+1)/2",
        ),
        conclusion="H_{i-1}, Delta_i and Delta_{i+1} are the same in every batch, up to order.",
        latex=r"(\Delta_j q-w_j u)(\Delta_j q-s_j w_j u)=0,\quad \operatorname{rank}R=U-M\ "
        r"\Longrightarrow\ Q=\Pi",
        standing=Standing.PROVED,
        grounds=(
            coq("slopes.v: PL1_batch_first", "groups of one, at the first hidden layer"),
            written("PL1", "groups of any sizes, going down, and what a negative slope takes away"),
            measured("this check", "all states of layers with slopes from -2 to 3"),
        ),
        checks=(
            by_instances(
                "all-states",
                "solves Delta_j q = w_j u or Delta_j q = s_j w_j u over Q for all 2^n states of layers that "
                "reach the rank: every solution with q != 0 must be a multiple of a sample's",
                instances=layers,
                conclusion=only_the_samples,
                spoiled=one_sample_less,
                count=12,
                said="layers with two slopes have their samples for candidates alone",
            ),
        ),
        remark="Where s is negative, values of that layer do not show its pattern: from above it, nothing "
        "below is determined (1-1-30-1 with slope -1/2 has X = (1, -4) and (-2, 2)).",
    ),
)
