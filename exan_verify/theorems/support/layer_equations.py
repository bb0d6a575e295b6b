"""The equations (*) of 3.1 as objects of their own: patterns, outgoing weights and next deltas of one layer.

No network is needed: the lifted systems of degree two and three depend on the table of patterns, the columns
w_j and the next deltas u_m only (docs/theory.md 3.2, Appendix L3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import comb
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact.elimination import PRIMES
from exan_verify.exact.linalg import multiply, nullspace, rank, rank_mod
from exan_verify.exact.modular import residues
from exan_verify.exclusivity import Groups, pattern_groups
from exan_verify.kernel.lifting.degree_three import cubic_system
from exan_verify.theorems.support.laboratory import exact, integers


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One hidden layer as (*) sees it.

    ``patterns`` (n, M) of 0 and 1, ``outgoing`` (n, K') with rows w_j, ``following`` (K', M) with columns
    u_m; Fractions.
    """

    patterns: Array
    outgoing: Array
    following: Array

    @property
    def samples(self) -> int:
        """M."""
        return int(self.patterns.shape[1])

    @property
    def extra(self) -> int:
        """K'."""
        return int(self.following.shape[0])

    @cached_property
    def delta(self) -> Array:
        """Delta (n, M): ``w_j . u_m`` where neuron j is active for sample m."""
        found: Array = multiply(self.outgoing, self.following) * self.patterns
        return found

    @property
    def groups(self) -> Groups:
        """Samples that share their pattern."""
        return pattern_groups(self.patterns.astype(bool))

    @property
    def unknowns(self) -> int:
        """U = M (M + 1) / 2 + M K'."""
        return comb(self.samples + 1, 2) + self.samples * self.extra

    @property
    def cubic_unknowns(self) -> int:
        """V, the number of monomials of degree three that some q_a divides."""
        size, extra = self.samples, self.extra
        return comb(size + 2, 3) + comb(size + 1, 2) * extra + size * comb(extra + 1, 2)

    def matrix(self) -> Array:
        """R (n, U) over Q: columns q_a q_b for a <= b, then q_a u_k."""
        delta, outgoing = self.delta, self.outgoing
        left, right = np.triu_indices(self.samples)
        twice = np.where(left == right, 1, 2)
        mixed = -(delta[:, :, None] * outgoing[:, None, :])
        return np.concatenate(
            [delta[:, left] * delta[:, right] * twice, mixed.reshape(len(delta), -1)], axis=1
        )

    def rank(self) -> int:
        """rank R over Q."""
        return rank(self.matrix())

    def rank_mod(self) -> int:
        """rank R mod p: at most the rank over Q, faster."""
        return rank_mod(residues(self.matrix()))

    def cubic_rank_mod(self) -> int:
        """rank R3 mod p, a lower bound of the rank over Q."""
        p = PRIMES[0]
        return cubic_system(residues(self.delta, p), residues(self.outgoing, p), p).rank()

    def branches(self) -> Iterator[Array]:
        """For every choice of a state for every neuron, the solutions (q, u) of (*): bases (M + K', dim)."""
        inactive = np.concatenate(
            [self.delta, exact(np.zeros((len(self.delta), self.extra), dtype=int))], axis=1
        )
        active = np.concatenate([self.delta, -self.outgoing], axis=1)
        for states in product((False, True), repeat=len(self.delta)):
            rows = [active[j] if on else inactive[j] for j, on in enumerate(states)]
            yield nullspace(np.array(rows, dtype=object))

    def explains(self, basis: Array, groups: Groups) -> bool:
        """Whether solutions (M + K', dim) have q = 0, or lie in one group's span with u = U_group q."""
        q, u = basis[: self.samples], basis[self.samples :]
        if not q.any():
            return True
        held = [group for group in groups if q[list(group)].any()]
        return len(held) == 1 and bool((multiply(self.following, q) == u).all())


@dataclass(frozen=True, kw_only=True)
class Regrouped(Layer):
    """A layer with every neuron active for every sample, that claims the groups ``claimed``."""

    claimed: Groups

    @property
    def groups(self) -> Groups:
        """What is claimed, not what the patterns say."""
        return self.claimed


def claiming_singles(layer: Layer) -> Layer:
    """A layer about which C1's and C2's conclusion is false: one group that is called many."""
    return Regrouped(
        patterns=layer.patterns * 0 + 1,
        outgoing=layer.outgoing,
        following=layer.following,
        claimed=tuple((m,) for m in range(layer.samples)),
    )


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A layer whose samples share patterns in groups of these sizes."""

    layer: Layer
    sizes: tuple[int, ...]


def one_group_more(counted: Counted) -> Counted:
    """The same layer with wrong sizes."""
    return replace(counted, sizes=(*counted.sizes, 1))


def random_layer(rng: Random, patterns: Array, extra: int, top: int = 50) -> Layer:
    """Integer weights and next deltas at random for a table of patterns (n, M)."""
    neurons, samples = patterns.shape
    return Layer(
        patterns=patterns,
        outgoing=integers(rng, neurons, extra, top),
        following=integers(rng, extra, samples, top),
    )


def random_patterns(rng: Random, neurons: int, samples: int) -> Array:
    """A table (n, M) of independent fair coins, no row empty."""
    rows: list[list[int]] = []
    while len(rows) < neurons:
        row = [rng.randint(0, 1) for _ in range(samples)]
        if any(row):
            rows.append(row)
    return exact(rows)


def grouped_patterns(rng: Random, neurons: int, sizes: tuple[int, ...]) -> Array:
    """A random table (neurons, M) whose samples share patterns in groups of these sizes."""
    table = random_patterns(rng, neurons, len(sizes))
    return np.repeat(table, sizes, axis=1)
