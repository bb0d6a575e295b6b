"""Checks that a motion that the first layers do not see leaves faces of the box inwards, and counts what
moves with it (docs/theory.md section 4, narrow first layer).

Samples S, E the r rows of Delta_1 that may be non-zero there, W the first weight. An entry (m, k) may move
where it is strictly inside, or where the certificate's integers T are not zero; there the exact motion A* has
the sign of T, into the box. A* is built here, near floats A^ near T, in two steps.

*Columns.* For the entries Z that may move at a feature let R be floats with ``rho = |E_Z R - I| < 1/2`` (the
largest sum of a row). Then ``R' = R (E_Z R)^-1`` is an exact right inverse, and ``a - R' E_Z a`` is in the
kernel of E, away from a by ``|R| |E_Z a| / (1 - rho)`` at most. So A^ becomes A' with ``E A' = 0``.

*Rows.* On features where all of S may move let ``|W Q - I| <= sigma < 1/2``. Then ``A* = A' - (A' W^T) (W
Q)^-T Q^T`` has ``A* W^T = 0``, still ``E A* = 0``, and is away from A' by ``|A' W^T| |Q| / (1 - sigma)`` at
most. (For motions that the second layer does not see: :mod:`exan_verify.kernel.second.second_layer`.) Where
both distances together are less than |A^|, the sign of A* is that of A^.

*Count.* E has full row rank r, as E R = I shows. Let c_k entries be able to move at feature k, and r_k rows
of E be alive among them. The B on these entries with ``E B = 0`` have dimension ``sum (c_k - r_k)`` at least,
and ``B -> B W^T`` leads into ``{P: E P = 0}``, of dimension (|S| - r) n. So

    dim {B: B W^T = 0, E B = 0}  >=  sum_{k in K} (c_k - r_k) - (|S| - r) n,     K = {k: c_k > r_k},

n the rows of W that are not zero on K; of the second layer all equations are taken off. X + t (A* + B) is in
the box for all small B and small t > 0: every entry on a face that moves goes inwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from exan_verify.core.certificate import Inwards
from exan_verify.exact.balls import Floats, ball_matrix, midpoints, upper, working_precision
from exan_verify.exact.rational import Mask
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.second.first_layer import FirstLayer, Inverse, above, part_of, right_inverse
from exan_verify.kernel.second.second_layer import SecondLayer, equations_of

_ROUNDS = 3
"""Of projections in floats, to and fro: the first leaves what rounding leaves, the others what that moved."""

MAX_WORK = 1 << 28
"""Products of balls: of E with the right inverses of all sets of entries, of the motion with E and W."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """``dimension`` of the batches with this gradient in the box, at least; the ``samples`` that A* moves."""

    dimension: int
    samples: frozenset[int]


def moved(
    evidence: Inwards, subject: Subject, chosen: list[int], inside: Mask, sent: Mask, live: Mask
) -> Moved:
    """What moves. ``inside`` (S, d): entries strictly inside the box; ``live`` (n, S): entries of the rows
    ``sent`` of Delta_1 that may be non-zero.

    Raises :class:`exan_verify.errors.CertificateRejected` at the first step that does not hold.
    """
    motion = _integers(evidence, subject, chosen)
    features = np.array(evidence.features)
    x = subject.batch.inputs[chosen][:, features]
    require(subject.question.domain is not None, "there are no faces without a box")
    assert subject.question.domain is not None
    low, high = (side[features] for side in subject.question.domain.bounds(inside.shape[1]))
    require(bool((motion[x == low] >= 0).all()), "the motion leaves the box at a lower face")
    require(bool((motion[x == high] <= 0).all()), "the motion leaves the box at an upper face")
    movable = inside.copy()
    movable[:, features] |= motion != 0
    rows = np.flatnonzero(live.any(axis=1))
    weight = subject.network.layers[0].weight
    neurons = np.flatnonzero((weight != 0).any(axis=1))
    if evidence.layer == 1:  # others see nothing of the motion, but something of what may be added to it
        neurons = np.flatnonzero((weight[:, features] != 0).any(axis=1))
    columns = movable[:, features]
    sets, group = np.unique(columns, axis=1, return_inverse=True)
    equations, size = len(rows), len(chosen)
    work = size * (equations**2 * (sets.shape[1] + 1) + len(features) * (equations + len(neurons)))
    require(work + len(neurons) ** 2 * len(features) <= MAX_WORK, "the motion is too large")
    owners = np.flatnonzero(sent)[rows]
    with working_precision():
        delta = part_of(subject.deltas[0], owners, chosen)
        everyone = right_inverse(delta)  # so that E has full row rank
        solved: list[_Columns | FirstLayer | SecondLayer] = []
        for number, members in enumerate(map(np.flatnonzero, sets.T)):
            part = part_of(delta, np.flatnonzero(live[np.ix_(rows, members)].any(axis=1)), members)
            inverse = everyone if len(members) == size else right_inverse(part)
            solved.append(_Columns(members, np.flatnonzero(group.reshape(-1) == number), inverse))
        first = FirstLayer.of(weight[np.ix_(neurons, features)], np.flatnonzero(columns.all(axis=0)))
        last: FirstLayer | SecondLayer = first
        if evidence.layer == 2:
            last = SecondLayer.of(first, equations_of(subject, chosen, neurons, delta, owners), everyone)
        solved.append(last)
        near = motion
        for _ in range(_ROUNDS):
            for step in solved:
                near = step.cleaned(near)
        error = np.zeros(near.shape)
        for step in solved:  # the columns have no entries in common; what comes last moves their sum
            error = above(error + step.bound(near, error))
    surely = np.abs(near) > error
    held = ~inside[:, features] & (motion != 0)
    right = surely & (np.sign(near) == np.sign(motion))
    require(bool(right[held].all()), "the motion is not shown to leave every face that it should")
    require(bool(surely.any()), "nothing is shown to move")
    may = live[rows].astype(np.int64) @ movable.astype(np.int64) > 0
    surplus = movable.sum(axis=0) - np.minimum(may.sum(axis=0), movable.sum(axis=0))
    if isinstance(last, SecondLayer):
        conditions = last.count
    else:
        conditions = (size - equations) * int((weight[:, surplus > 0] != 0).any(axis=1).sum())
    dimension = int(surplus.sum()) - conditions
    samples = frozenset(m for m, row in zip(chosen, surely, strict=True) if row.any())
    return Moved(dimension=max(1, dimension), samples=samples)  # 1: the ray X + t A* itself


def _integers(evidence: Inwards, subject: Subject, chosen: list[int]) -> Floats:
    """The motion T, (S, features), of integers."""
    features, count = evidence.features, subject.batch.inputs.shape[1]
    require(len(features) > 0 and max(features) < count, "there is no such feature")
    require(len(set(features)) == len(features), "a feature is named twice")
    shaped = len(evidence.motion) == len(chosen) and all(len(r) == len(features) for r in evidence.motion)
    require(shaped, "the motion has another shape than samples and features")
    return np.array(evidence.motion, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The features ``at``, where ``members`` of S may move and no others; ``inverse``: of E there."""

    members: Any
    at: Any
    inverse: Inverse

    def cleaned(self, near: Floats) -> Floats:
        """Floats that are nearer to the kernel of E."""
        found, own = near.copy(), np.ix_(self.members, self.at)
        found[own] -= self.inverse.floats @ (midpoints(self.inverse.matrix) @ near[own])
        return found

    def bound(self, near: Floats, _error: Floats) -> Floats:
        """How far the exact A' is from ``near``: |R| |E a| / (1 - rho)."""
        own = np.ix_(self.members, self.at)
        left = upper(self.inverse.matrix * ball_matrix(near[own])).max(axis=0, initial=0.0)
        found = np.zeros(near.shape)
        found[own] = above(np.outer(self.inverse.gain, left))
        return found
