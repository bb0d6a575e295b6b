"""Protection, which is three numbers and never one: how many directions are hidden, how far a sample can go
along them inside the domain, and what a named estimator gets from public knowledge all the same.

*Hidden dimension*: of the set of batches with this release, of M d; a lower bound, by counting. *Reach*: the
interval that a pixel can take while everything that is sent stays the same, and the L-infinity distance of
the sample from the farthest such input. *LMMSE*: the linear estimate of least mean squared error from mean
and covariance of public samples. Reach 1 and a readable estimate can go together: the estimate is a lower
bound of what leaks, never an upper one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.api.attack_own_batch import psnr, value_range
from exan_verify.core.arrays import fractions
from exan_verify.core.budget import poll
from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.errors import InputError
from exan_verify.exact.backprop import Forward, forward
from exan_verify.exact.lp import guessed_optimum
from exan_verify.exact.softmax import loss_vectors_ball, to_ball
from exan_verify.mitigation.case import Case, Floats, Released, equal_rows, samples_of
from exan_verify.mitigation.projection import Basis

Rationals = npt.NDArray[np.object_]

_BITS = 256
"""Of the balls that enclose a solution of real equations."""

PIXELS = 32
"""Pixels per sample whose interval is computed, drawn by the seed: two linear programs each."""

_LEAST_PUBLIC = 2
"""A covariance needs two samples; what it is worth grows with their number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """What everyone may know of the data: ``mean`` (d,) and ``covariance`` (d, d) of ``count`` public
    samples."""

    mean: Floats
    covariance: Floats
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far inputs can go while the release stays the same, inside ``domain``.

    Per sample m: ``pixels[m]``, and ``low[m]``, ``high[m]``: values that each of them takes in some input
    with this release, exact rationals rounded inwards; ``distance[m]``: L-infinity, to the farthest of those
    inputs. All are attained, so the true reach is at least this.
    """

    domain: str
    pixels: tuple[tuple[int, ...], ...]
    low: tuple[tuple[float, ...], ...]
    high: tuple[tuple[float, ...], ...]
    distance: tuple[float, ...]

    @property
    def widths(self) -> Floats:
        """Lengths of all intervals, of all samples."""
        return np.array(
            [
                top - bottom
                for low, high in zip(self.low, self.high, strict=True)
                for bottom, top in zip(low, high, strict=True)
            ]
        )

    @property
    def interval(self) -> tuple[float, float]:
        """The median and the smallest length of an interval."""
        return float(np.median(self.widths)), float(self.widths.min())

    @property
    def farthest(self) -> tuple[float, float]:
        """The median and the smallest distance of a sample."""
        return float(np.median(self.distance)), float(min(self.distance))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Protection:
    """The three numbers; None where one is not known, and ``note`` says why.

    ``hidden`` of ``of`` dimensions; ``estimate[m]``: PSNR in dB of the LMMSE estimate of sample m, infinite
    where the sample is determined; ``public``: samples that mean and covariance are from; ``pictures`` (M,
    d): the estimates.
    """

    hidden: int | None
    of: int
    reach: Reach | None = None
    estimate: tuple[float, ...] | None = None
    public: int = 0
    note: str = ""
    pictures: Floats | None = None

    @property
    def psnr(self) -> float | None:
        """The median of ``estimate``."""
        return None if self.estimate is None else float(np.median(self.estimate))


def prior_of(public: Floats) -> Prior:
    """Mean and covariance of public samples (P, d), divided by P - 1."""
    if len(public) < _LEAST_PUBLIC:
        raise InputError(f"the prior has {len(public)} samples; a covariance needs at least {_LEAST_PUBLIC}")
    return Prior(mean=public.mean(axis=0), covariance=np.cov(public, rowvar=False), count=len(public))


def public_samples(given: object, batch: Floats) -> Floats:
    """The public samples (P, d) that a user names as the prior.

    Raises :class:`InputError` where one of them is in the batch: what is secret is not public, and an
    estimate from it would be called a leak of the release.
    """
    public = samples_of(given, "prior", batch.shape[1])
    own = np.flatnonzero(equal_rows(public, batch))
    if len(own):
        raise InputError(
            f"prior[{int(own[0])}] is a sample of the batch ({len(own)} such samples); a prior is what "
            "everyone may know, so give public data that the batch was not taken from"
        )
    return public


def lmmse(prior: Prior, observed: Floats, z: Floats) -> Floats:
    """The linear estimates (M, d) of least mean squared error from ``z`` (M, r) = X C^T, ``observed`` C (r,
    d):

    mu + S C^T (C S C^T)^+ (z - C mu), with S the covariance; for Gaussian data the conditional mean.
    """
    seen = observed @ prior.covariance
    gain = seen.T @ np.linalg.pinv(seen @ observed.T, rcond=1e-10, hermitian=True)
    estimate: Floats = prior.mean + (z - observed @ prior.mean) @ gain.T
    return estimate


def estimates(released: Released, prior: Prior) -> Floats | None:
    """The LMMSE estimates (M, d) of the subjects, from what enters the step; None where no linear relation
    between the samples and the release is known.

    Of a mean of k samples with the same prior, independent of each other, the estimate of each is the mean.
    """
    x = np.asarray(released.batch.inputs, dtype=np.float64)
    if released.projected is not None:
        return lmmse(prior, released.projected.columns.T, x)
    if released.averages is not None:
        return x[list(released.averages.rows)]
    return None


def estimate_psnr(estimate: Floats, truth: Floats) -> tuple[float, ...]:
    """PSNR in dB, by sample."""
    span = value_range(truth)
    return tuple(psnr(float(np.sqrt(np.square(row).mean())), span) for row in estimate - truth)


# ---- projections -------------------------------------------------------------------------------------------


def hidden_by_projection(case: Case, released: Released, basis: Basis) -> tuple[int, ...]:
    """Per sample a lower bound of the dimension of the inputs with the same B^T x: the coordinates that are
    strictly inside the domain (all without one), less the r equations; 0 where that proves nothing.
    """
    inside = np.full(len(released.subjects), released.subjects.shape[1])
    if case.question.domain is not None:
        low, high = case.question.domain.bounds(released.subjects.shape[1])
        x = case.batch.inputs
        inside = ((x > low) & (x < high)).sum(axis=1)
    return tuple(max(0, int(n) - basis.rank_at_most) for n in inside)


def reach_of_projection(
    x: Floats,
    basis: Basis,
    box: tuple[Floats, Floats],
    rng: np.random.Generator,
    *,
    pixels: int | None = PIXELS,
) -> Reach:
    """The reach of samples ``x`` (M, d) that are inside ``box``, of which B^T x is known.

    Each end of an interval is a vertex of {x' in the box: B^T x' = B^T x}. HiGHS suggests which of its
    coordinates lie on faces; the others solve B^T x' = B^T x in rationals, and only what then lies in the box
    counts. ``pixels``: how many are drawn, None: all.
    """
    features = x.shape[1]
    count = features if pixels is None else min(pixels, features)
    chosen = [sorted(int(k) for k in rng.permutation(features)[:count]) for _ in x]
    ends = [_ends(row, basis, box, drawn) for row, drawn in zip(x, chosen, strict=True)]
    return Reach(
        domain=_named(box),
        pixels=tuple(map(tuple, chosen)),
        low=tuple(tuple(low for low, _ in found) for found in ends),
        high=tuple(tuple(high for _, high in found) for found in ends),
        distance=tuple(
            max(max(row[k] - low, high - row[k]) for k, (low, high) in zip(drawn, found, strict=True))
            for row, drawn, found in zip(x, chosen, ends, strict=True)
        ),
    )


def _ends(
    x: Floats, basis: Basis, box: tuple[Floats, Floats], pixels: list[int]
) -> list[tuple[float, float]]:
    """For each pixel the least and the greatest value found, rounded inwards."""
    exact, faces = fractions(x), (fractions(box[0]), fractions(box[1]))
    found = {k: [exact[k], exact[k]] for k in pixels}
    for end, direction, better in ((0, 1.0, min), (1, -1.0, max)):
        # one vertex may serve many pixels: all are asked together as long as one of them reaches its face
        left, together = [k for k in pixels if exact[k] != faces[end][k]], True
        while left:
            poll()
            asked = left if together else left[:1]
            objective = np.zeros(len(x))
            objective[asked] = direction
            vertex = _exact_vertex(exact, _vertex(x, basis, box, objective), basis, faces)
            if vertex is not None:
                for k in pixels:
                    found[k][end] = better(found[k][end], vertex[k])
            missed = [k for k in left if found[k][end] != faces[end][k]]
            left, together = (missed, True) if len(missed) < len(left) else (left[not together :], False)
    return [(_upwards(low), 0.0 - _upwards(-high)) for low, high in (found[k] for k in pixels)]


def _vertex(x: Floats, basis: Basis, box: tuple[Floats, Floats], objective: Floats) -> Floats:
    """A float vertex at which ``objective`` is least."""
    columns = basis.columns.T
    answer = guessed_optimum(
        objective, A_eq=columns, b_eq=columns @ x, bounds=np.stack(box, axis=1), method="highs-ds"
    )
    return x if answer.status != 0 else np.asarray(answer.x, dtype=np.float64)


def _exact_vertex(
    x: Rationals, vertex: Floats, basis: Basis, box: tuple[Rationals, Rationals]
) -> Rationals | None:
    """The exact vertex that the float one suggests, or None where that is not in the box.

    Coordinates on a face are exactly there; the r that are farthest from their faces solve the r equations
    B_F^T x'_F = B^T x - B_N^T x'_N, in integers: B is integers over UNIT.
    """
    from flint import fmpz_mat

    low, high = (np.asarray(face, dtype=np.float64) for face in box)
    order = np.argsort(-np.minimum(vertex - low, high - vertex), kind="stable")
    free, fixed = order[: basis.rank_at_most], order[basis.rank_at_most :]
    found: Rationals = np.where(vertex > (low + high) / 2, box[1], box[0])
    # the equations only need the differences from x, which is a solution
    step = found[fixed] - x[fixed]
    unit = lcm(*(v.denominator for v in step), 1)
    whole = np.array([int(v * unit) for v in step], dtype=object)
    right = -(basis.integers[fixed].T.astype(object) @ whole)
    try:
        solved = fmpz_mat(basis.integers[free].T.tolist()).solve(fmpz_mat([[int(v)] for v in right]))
    except ZeroDivisionError:
        return None
    for i, j in enumerate(free.tolist()):
        found[j] = x[j] + Fraction(int(solved[i, 0].p), int(solved[i, 0].q)) / unit
        if not box[0][j] <= found[j] <= box[1][j]:
            return None
    return found


def _upwards(value: Fraction) -> float:
    """The least float that is at least ``value``, or one above it."""
    near = float(value)
    return near if Fraction(near) >= value else float(np.nextafter(near, np.inf))


def _named(box: tuple[Floats, Floats]) -> str:
    low, high = box
    if (low == low[0]).all() and (high == high[0]).all():
        return f"[{low[0]:g}, {high[0]:g}]"
    return "the box that was given"


# ---- means -------------------------------------------------------------------------------------------------


def reach_of_means(released: Released, box: tuple[Floats, Floats]) -> Reach:
    """The reach of the subjects when only means of k are known: every pixel, in closed form.

    With sum s of a group and members in [a, b] a pixel lies in [max(a, s - (k - 1) b), min(b, s - (k - 1)
    a)]: the others take what is left, each the same share of it, and all of this interval is attained.
    """
    means = released.averages
    assert means is not None
    low, high = fractions(box[0]), fractions(box[1])
    others = means.size - 1
    total = fractions(means.members).sum(axis=1)[list(means.rows)]
    least = np.maximum(low, total - others * high)
    most = np.minimum(high, total - others * low)
    x = fractions(released.subjects)
    every = tuple(range(x.shape[1]))
    return Reach(
        domain=_named(box),
        pixels=(every,) * len(x),
        low=tuple(tuple(map(_upwards, row)) for row in least),
        high=tuple(tuple(0.0 - _upwards(-v) for v in row) for row in most),
        distance=tuple(float(max(row)) for row in np.maximum(x - least, most - x)),
    )


# ---- narrow first layers -----------------------------------------------------------------------------------


def reach_of_narrow(
    released: Released,
    question: Question,
    box: tuple[Floats, Floats],
    rng: np.random.Generator,
    *,
    pixels: int | None = PIXELS,
) -> Reach | None:
    """The reach along motions that the first layer does not see (docs/theory.md section 4, and M2): ``X +
    alpha v^T`` with ``W_1 v = 0`` and ``E alpha = 0``, E the rows of Delta_1 that are sent and may be
    non-zero, r of them. None where r is not below the number of samples.

    For sample m, alpha_m = 1, and r other samples follow from one square system, of which balls enclose the
    real solution and show that it has one; where they do not, or the system is singular, the sample's reach
    is 0 here. What every sample that moves may do in the box bounds v from both sides, and each end of an
    interval is an exact vertex of that polytope. The true reach is at least this: other alpha go further.
    """
    network, batch = released.network, released.batch
    passed, first = forward(network, batch), network.layers[0]
    live = np.all([pattern.any(axis=0) for pattern in passed.patterns], axis=0) & passed.patterns[0]
    release = released.release
    if release is not None:
        live &= release.sends(next(first.parameters())[0], len(live))[:, None]
    rows = np.flatnonzero(live.any(axis=1))
    if len(rows) >= batch.size:
        return None
    deltas = _deltas(network, batch, passed, question, rows)
    exact, faces = fractions(batch.inputs), (fractions(box[0]), fractions(box[1]))
    unseen = _unseen(first.weight)
    x = np.asarray(batch.inputs, dtype=np.float64)
    count = x.shape[1] if pixels is None else min(pixels, x.shape[1])
    chosen = [sorted(int(k) for k in rng.permutation(x.shape[1])[:count]) for _ in x]
    low, high, distance = [], [], []
    for m, drawn in enumerate(chosen):
        bounds = _room(_coefficients(deltas, m), exact, faces)
        ends = [(0.0, 0.0)] * len(drawn)
        if bounds is not None:
            ends = _ends(np.zeros(x.shape[1]), unseen, bounds, drawn)
        own = [exact[m][k] for k in drawn]
        low.append(tuple(_upwards(v + Fraction(a)) for v, (a, _) in zip(own, ends, strict=True)))
        high.append(tuple(0.0 - _upwards(-v - Fraction(b)) for v, (_, b) in zip(own, ends, strict=True)))
        distance.append(max(max(abs(a), b) for a, b in ends))
    return Reach(
        domain=_named(box),
        pixels=tuple(map(tuple, chosen)),
        low=tuple(low),
        high=tuple(high),
        distance=tuple(distance),
    )


def _deltas(
    network: ReluNetwork, batch: Batch, passed: Forward, question: Question, rows: npt.NDArray[np.int64]
) -> Any:
    """The rows of Delta_1 as balls, (r, M), up to the loss's divisor."""
    import flint

    with flint.ctx.workprec(_BITS):
        delta = loss_vectors_ball(question.loss, passed.logits, batch.labels, 1, _BITS)
        for number in range(network.depth - 1, 0, -1):
            weight = fractions(network.layer(number + 1).weight.T)
            kept = passed.pattern(number)
            delta = flint.arb_mat(*weight.shape, [to_ball(v) for v in weight.reshape(-1)]) * delta
            delta = flint.arb_mat(
                *kept.shape, [delta[i, k] if kept[i, k] else 0 for i, k in np.ndindex(*kept.shape)]
            )
        return flint.arb_mat(
            len(rows), batch.size, [delta[int(j), m] for j in rows for m in range(batch.size)]
        )


def _coefficients(deltas: Any, m: int) -> dict[int, tuple[Fraction, Fraction]] | None:
    """Bounds of alpha, of the samples that it moves: alpha_m = 1, and as many others as ``deltas`` has
    rows, which float elimination with pivots chooses. None where balls do not solve for them.
    """
    import flint
    from scipy.linalg import qr

    rows, size = deltas.nrows(), deltas.ncols()
    others = [k for k in range(size) if k != m]
    found = {m: (Fraction(1), Fraction(1))}
    if not rows:
        return found
    middle = np.array([[float(deltas[i, k].mid()) for k in others] for i in range(rows)])
    moved = [others[int(k)] for k in qr(middle, mode="r", pivoting=True)[1][:rows]]
    with flint.ctx.workprec(_BITS):
        square = flint.arb_mat(rows, rows, [deltas[i, k] for i in range(rows) for k in moved])
        right = flint.arb_mat(rows, 1, [-deltas[i, m] for i in range(rows)])
        try:
            solved = square.solve(right)
        except ZeroDivisionError:
            return None
        for i, k in enumerate(moved):
            least, most = _rational(solved[i, 0].lower()), _rational(solved[i, 0].upper())
            if least is None or most is None:
                return None
            found[k] = least, most
    return found


def _rational(end: Any) -> Fraction | None:
    """An end of a ball, which is a dyadic number; None where it is none."""
    if not end.is_finite():
        return None
    man, exp = end.mid().man_exp()
    return Fraction(int(man)) * Fraction(2) ** int(exp)


def _room(
    alpha: dict[int, tuple[Fraction, Fraction]] | None, x: Rationals, box: tuple[Rationals, Rationals]
) -> tuple[Floats, Floats] | None:
    """Bounds (d,) of v, rounded inwards, for which ``x_i + alpha_i v`` stays in the box for every i."""
    if alpha is None:
        return None
    width = box[1] - box[0]
    up, down = width.copy(), width.copy()  # of alpha_m = 1: no v is longer than the box
    for i, (least, most) in alpha.items():
        above, below = box[1] - x[i], x[i] - box[0]
        if most > 0:
            up, down = np.minimum(up, above / most), np.minimum(down, below / most)
        if least < 0:
            up, down = np.minimum(up, below / -least), np.minimum(down, above / -least)
    return (
        np.array([_upwards(-v) for v in down], dtype=np.float64),
        np.array([0.0 - _upwards(-v) for v in up], dtype=np.float64),
    )


def _unseen(weight: Array) -> Basis:
    """The rows of W_1 that are not zero as the columns of a basis, in integers over one unit."""
    exact = fractions(weight)
    exact = exact[[bool(row.any()) for row in exact]]
    unit = lcm(1, *(v.denominator for v in exact.reshape(-1)))
    integers = np.array([[int(v * unit) for v in row] for row in exact], dtype=object).reshape(exact.shape)
    return Basis(integers=integers.T, name="the rows of the first layer", unit=unit)
