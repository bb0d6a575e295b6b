"""Checks that one motion unseen by the first layer leaves the faces of the box inwards, and counts what moves
with it (docs/theory.md section 4, narrow first layer).

Samples S, E the rows of Delta_1 (r of them) that may be non-zero there, W the first weight. An entry (m, k)
may move where it is strictly inside, or where the certificate's integers T are not zero; there A* has the
sign of T, into the box. Let A^ be float64 numbers near T: A* is the exact motion near A^ that is built here.

*Columns.* For the entries Z that may move at a feature, let R be floats with ``rho = |E_Z R - I| < 1/2`` (norm
of rows). Then ``R' = R (E_Z R)^-1`` is an exact right inverse, and ``a - R' E_Z a`` is in the kernel of E,
away from a by at most ``|R| |E_Z a| / (1 - rho)``. So A^ becomes A' with ``E A' = 0``.

*Rows.* On features where all of S may move let ``|W Q - I| <= sigma < 1/2``. Then ``A* = A' - (A' W^T) (W
Q)^-T Q^T`` has ``A* W^T = 0``, still ``E A* = 0``, and is away from A' by at most ``|A' W^T| |Q| / (1 -
sigma)``. Where both distances together are less than |A^|, the sign of A* is that of A^.

*Count.* All E are of full row rank r, as E R = I shows. Let c_k entries be able to move at feature k, r_k rows
of E be alive among them. The B on these entries with ``E B = 0`` have dimension ``sum (c_k - r_k)`` at least,
and ``B -> B W^T`` leads into ``{P: E P = 0}``, of dimension (|S| - r) n. So

    dim {B: B W^T = 0, E B = 0}  >=  sum_{k in K} (c_k - r_k) - (|S| - r) n,     K = {k: c_k > r_k},

n the rows of W that are not zero on K. X + t (A* + B) is in the box for all small B and small t > 0: every
entry on a face that moves goes inwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import Array
from exan_verify.core.budget import poll
from exan_verify.core.certificate import Inwards
from exan_verify.exact.backprop import backward_ball
from exan_verify.exact.balls import (
    PRECISION,
    Floats,
    ball_matrix,
    identity,
    midpoints,
    upper,
    working_precision,
)
from exan_verify.exact.rational import Mask
from exan_verify.exact.softmax import loss_vectors_ball
from exan_verify.kernel.given import Subject, require

_ROUNDS = 3
"""Of projections in floats, to and fro: the first leaves what rounding leaves, the others what that moved."""

MAX_WORK = 1 << 28
"""Products of balls: of E with the right inverses of all sets of entries, of the motion with E and W."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """``dimension`` of the batches with this gradient in the box, at least, and samples that A* moves."""

    dimension: int
    samples: frozenset[int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Inverse:
    """Floats R for the balls ``matrix`` with ``rho = |matrix R - I| < 1/2``. ``gain``: the row sums of |R|, over
    1 - rho, which bound ``|R (matrix R)^-1 v|`` by the largest |v|.
    """

    matrix: Any
    floats: Floats
    gain: Floats


def moved(
    evidence: Inwards, subject: Subject, chosen: list[int], inside: Mask, sent: Mask, live: Mask
) -> Moved:
    """What moves. ``inside`` (S, d): entries strictly inside the box; ``live`` (n, S): entries of the rows
    ``sent`` of Delta_1 that may be non-zero.

    Raises :class:`exan_verify.errors.CertificateRejected` at the first step that does not hold.
    """
    features, motion = list(evidence.features), _integers(evidence, subject, chosen)
    x = subject.batch.inputs[np.ix_(chosen, features)]
    require(subject.question.domain is not None, "there are no faces without a box")
    assert subject.question.domain is not None
    low, high = (side[features] for side in subject.question.domain.bounds(inside.shape[1]))
    require(bool((motion[x == low] >= 0).all()), "the motion leaves the box at a lower face")
    require(bool((motion[x == high] <= 0).all()), "the motion leaves the box at an upper face")
    movable = inside.copy()
    movable[:, features] |= motion != 0
    rows = np.flatnonzero(live.any(axis=1))
    weight = subject.network.layers[0].weight
    used = weight[:, features]
    used = used[(used != 0).any(axis=1)]
    columns = movable[:, features]
    sets, group = np.unique(columns, axis=1, return_inverse=True)
    equations, size = len(rows), len(chosen)
    work = size * (equations**2 * (sets.shape[1] + 1) + len(features) * (equations + len(used)))
    require(work + len(used) ** 2 * len(features) <= MAX_WORK, "the motion is too large")
    with working_precision():
        delta = _delta(subject, chosen, sent, rows)
        everyone = right_inverse(delta)  # so that E has full row rank
        solved = []
        for number, members in enumerate(map(np.flatnonzero, sets.T)):
            alive = np.flatnonzero(live[np.ix_(rows, members)].any(axis=1))
            part = _part(delta, alive, members)
            inverse = everyone if len(members) == size else right_inverse(part)
            solved.append(_Columns(members, np.flatnonzero(group.reshape(-1) == number), part, inverse))
        unseen = FirstLayer.of(used, np.flatnonzero(columns.all(axis=0)))
        near = motion
        for _ in range(_ROUNDS):
            for part in solved:
                near = part.cleaned(near)
            near = unseen.cleaned(near)
        error = np.zeros(near.shape)
        for part in solved:
            part.bound(near, error)
        error = above(error + unseen.bound(near, error))
    surely = np.abs(near) > error
    held = ~inside[:, features] & (motion != 0)
    right = surely & (np.sign(near) == np.sign(motion))
    require(bool(right[held].all()), "the motion is not shown to leave every face that it should")
    require(bool(surely.any()), "nothing is shown to move")
    may = live[rows].astype(np.int64) @ movable.astype(np.int64) > 0
    surplus = movable.sum(axis=0) - np.minimum(may.sum(axis=0), movable.sum(axis=0))
    seen = int((weight[:, surplus > 0] != 0).any(axis=1).sum())
    dimension = int(surplus.sum()) - (size - equations) * seen
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


def _delta(subject: Subject, chosen: list[int], sent: Mask, rows: Any) -> Any:
    """The balls E: rows of Delta_1, up to the loss's divisor, (r, S)."""
    passed, question = subject.passed, subject.question
    vectors = loss_vectors_ball(question.loss, passed.logits, subject.batch.labels, 1, PRECISION)
    delta = backward_ball(subject.network, passed, vectors)[0]
    return _part(delta, np.flatnonzero(sent)[rows], chosen)


def _part(matrix: Any, rows: Any, columns: Any) -> Any:
    entries = [matrix[int(i), int(k)] for i in rows for k in columns]
    return flint.arb_mat(len(rows), len(columns), entries)


def right_inverse(matrix: Any) -> Inverse:
    """Of balls (r, s). Rejects unless ``|M R - I| < 1/2``, row sums of absolute values, for all M in the balls."""
    poll()
    rows, columns = matrix.nrows(), matrix.ncols()
    require(rows <= columns, f"{rows} equations of {columns} unknowns")
    middle = midpoints(matrix)
    require(bool(np.isfinite(middle).all()), "the equations are too large for floating point")
    if not rows:
        return Inverse(matrix=matrix, floats=np.zeros((columns, 0)), gain=np.zeros(columns))
    floats = np.linalg.pinv(middle)
    off = above(upper(matrix * ball_matrix(floats) - identity(rows)).sum(axis=1).max())
    require(off < 0.5, "the equations are not shown to be independent")
    return Inverse(matrix=matrix, floats=floats, gain=above(np.abs(floats).sum(axis=1) / (1 - off)))


def above(values: Any) -> Any:
    """An upper bound of what a few thousand operations on non-negative numbers in float64 gave."""
    return values * (1 + 2.0**-30) + 2.0**-1000


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The features ``at``, where exactly ``members`` of S may move, and the rows of E that are alive there."""

    members: Any
    at: Any
    part: Any
    inverse: Inverse

    def cleaned(self, near: Floats) -> Floats:
        """Floats that are nearer to the kernel of E."""
        found, own = near.copy(), np.ix_(self.members, self.at)
        found[own] -= self.inverse.floats @ (midpoints(self.part) @ near[own])
        return found

    def bound(self, near: Floats, error: Floats) -> None:
        """Fill in how far the exact A' is from ``near``: |R| |E a| / (1 - rho)."""
        own = np.ix_(self.members, self.at)
        left = upper(self.part * ball_matrix(near[own])).max(axis=0, initial=0.0)
        error[own] = above(np.outer(self.inverse.gain, left))


@dataclass(frozen=True, slots=True, eq=False)
class FirstLayer:
    """A W^T = 0, by means of the features ``whole``, where all of S may move."""

    weight: Any
    absolute: Floats
    whole: Any
    inverse: Inverse

    @classmethod
    def of(cls, weight: Array, whole: Any) -> FirstLayer:
        """``weight`` (n, f): the rows that see the features of the motion."""
        balls = ball_matrix(weight)
        return cls(balls, upper(balls), whole, right_inverse(ball_matrix(weight[:, whole])))

    def cleaned(self, near: Floats) -> Floats:
        """Floats that W sees less of."""
        found = near.copy()
        found[:, self.whole] -= (near @ midpoints(self.weight).T) @ self.inverse.floats.T
        return found

    def seen(self, near: Floats, error: Floats) -> Floats:
        """Bounds (S, n) of |A' W^T|."""
        own = upper(ball_matrix(near) * self.weight.transpose())
        return above(own + error @ self.absolute.T)

    def bound(self, near: Floats, error: Floats) -> Floats:
        """How far A* is from A' at most."""
        found = np.zeros(near.shape)
        most = self.seen(near, error).max(axis=1, initial=0.0)
        found[:, self.whole] = above(np.outer(most, self.inverse.gain))
        return found
