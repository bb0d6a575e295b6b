"""Input directions that a region's loss vectors cannot see (docs/theory.md S2), exactly and at any width.

Rows are pulled back through the region, ``r W_i D_{i-1} W_{i-1} ... W_1``, so only few rows of length d are
ever held. A direction v solves a small system on a few features: one free feature, and pivots that correct
for it. Which free feature reaches farthest is guessed in floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import flint
import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.linear import logit_rows
from exan_verify.decide.motion import margins
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.linalg import multiply, solve
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.rational import RationalMatrix, product


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """Directions v with ``rows v = 0`` and ``v_k = 0`` off ``features``: a space of dimension ``dimension``
    at least. ``rows`` (r, d) are Fractions; ``pivots`` are features that correct any other.
    """

    rows: Array
    features: tuple[int, ...]
    pivots: tuple[int, ...]

    @property
    def dimension(self) -> int:
        """How many independent directions there are at least."""
        return max(0, len(self.features) - int(self.rows.shape[0]))

    @property
    def size(self) -> int:
        """d, the number of features."""
        return int(self.rows.shape[1])


def directions(context: Context, group: Sequence[int]) -> Directions:
    """The directions along which all samples of a region may move both ways: nothing at a limit moves."""
    seen = [_logits(context, group), *_at_limits(context, group)]
    rows = RationalMatrix.of(np.concatenate([part.fractions() for part in seen]))
    features = _off_faces(context, group)
    pivots = _pivots(rows.residues(), features)
    return Directions(rows=rows.fractions(), features=features, pivots=pivots)


def direction(space: Directions, feature: int) -> Array | None:
    """v (d,) with v_feature = 1 and corrections on the pivots, or None when there is none."""
    chosen = list(space.pivots)
    out = np.full(space.size, Fraction(0), dtype=object)
    out[feature] = Fraction(1)
    if chosen:
        correction = solve(space.rows[:, chosen], -space.rows[:, [feature]])
        if correction is None:
            return None
        out[chosen] = correction[:, 0]
    support = [*chosen, feature]
    return None if multiply(space.rows[:, support], out[support].reshape(-1, 1)).any() else out


def candidates(context: Context, space: Directions, group: Sequence[int], count: int) -> list[int]:
    """Free features, those that seem to move the first layer's neurons the least for their size first."""
    free = [k for k in space.features if k not in set(space.pivots)]
    weight = context.network.layers[0].weight
    if weight.dtype == object:
        return free[:count]
    bias = context.network.layers[0].bias
    with np.errstate(all="ignore"):  # what overflows is ranked last
        here = weight.astype(np.float64) @ guessed(context.batch.inputs[list(group)]).T
        slack = np.abs(here if bias is None else here + guessed(bias)[:, None]).min(axis=1)
        rate = np.abs(weight[:, free].astype(np.float64) / np.maximum(slack, 1e-9)[:, None]).max(axis=0)
    return [free[k] for k in np.argsort(rate, kind="stable")[:count]]


def _logits(context: Context, group: Sequence[int]) -> RationalMatrix:
    """What must vanish at v for the loss vectors to stay (rows of length d)."""
    top = np.array(
        logit_rows(context.question.loss, fractions(context.network.layers[-1].weight)), dtype=object
    ).reshape(-1, context.network.widths[-2])
    return _pulled_back(context, group[0], RationalMatrix.of(top), context.network.depth - 1)


def _at_limits(context: Context, group: Sequence[int]) -> list[RationalMatrix]:
    """Zero pre-activations and tied margins of any sample of the group."""
    found = []
    for i, zeros in enumerate(context.passed.zeros):
        tied = np.flatnonzero(zeros[:, list(group)].any(axis=1))
        if tied.size:
            rows = RationalMatrix.of(context.network.layers[i].weight[tied])
            found.append(_pulled_back(context, group[0], rows, i))
    if context.question.loss is Loss.HINGE:
        found += _tied_margins(context, group)
    return found


def _tied_margins(context: Context, group: Sequence[int]) -> list[RationalMatrix]:
    weight = fractions(context.network.layers[-1].weight)
    rows = []
    for m in group:
        label = int(context.batch.labels[m])
        tied = np.flatnonzero(margins(context.passed.logits[:, m], label) == 0)
        rows += [weight[c] - weight[label] for c in tied]
    if not rows:
        return []
    top = RationalMatrix.of(np.array(rows, dtype=object))
    return [_pulled_back(context, group[0], top, context.network.depth - 1)]


def _pulled_back(context: Context, sample: int, rows: RationalMatrix, layer: int) -> RationalMatrix:
    """``rows D_layer W_layer ... D_1 W_1``: functionals of h_layer as functionals of x."""
    for i in range(layer, 0, -1):
        active = context.passed.pattern(i)[:, sample]
        kept = rows.masked(np.broadcast_to(active, rows.shape))
        # the transposed product reads the weight block by block
        rows = product(context.network.layer(i).weight.T, kept.T).T
    return rows


def _off_faces(context: Context, group: Sequence[int]) -> tuple[int, ...]:
    d = context.network.widths[0]
    if context.question.domain is None:
        return tuple(range(d))
    lo, hi = context.question.domain.bounds(d)
    x = context.batch.inputs[list(group)]
    inside = np.flatnonzero(np.all((x > lo) & (x < hi), axis=0))
    return tuple(int(k) for k in inside)


def _pivots(rows: Residues, features: tuple[int, ...]) -> tuple[int, ...]:
    """Features whose columns are independent mod p, hence over Q; as many as the rank mod p."""
    if not rows.shape[0] or not features:
        return ()
    part = rows[:, list(features)]
    reduced, rank = flint.nmod_mat(*part.shape, part.reshape(-1).tolist(), PRIME).rref()
    found, column = [], 0
    for r in range(rank):
        while not int(reduced[r, column]):
            column += 1
        found.append(features[column])
    return tuple(found)
