"""Samples as the unknowns of a cover by boxes (docs/theory.md, CB8; the cover itself is :mod:`.enclose`).

The unknowns are coordinates a_m with ``[x_m ; 1] = F [1 ; a_m]``. Of one region whose T is known, the
equations are ``sum_m g_m [1 ; a_m]^T = sum g [1 ; a]^T`` over its known samples; where these are independent
(and as many), the unknown inputs lie in their affine span, and F is a frame of it: one coordinate less than
there are samples. Without biases they lie in their span, with as many coordinates as samples. Otherwise, and
for all regions at once, whose equations are the gradient's, F is the identity: the inputs are the
coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import permutations
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact import linalg
from exan_verify.exact.regions import Pattern
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.arguments.cones import Cone, covered_in_cones
from exan_verify.smt.arguments.cube import Cube, Point
from exan_verify.smt.arguments.enclose import System, only_known_zeros
from exan_verify.smt.arguments.minors import combination
from exan_verify.smt.question.posed import Vector
from exan_verify.smt.question.transcendental import PRECISION

MAX_COORDINATES = 4
"""Boxes double with every cut of a side: in five dimensions the boxes allowed cut each side but twice."""

Alone = tuple[tuple[tuple[Array, int], ...], ...]
"""Per sample the equations that it satisfies by itself, as :class:`.enclose.System` takes them."""

FLAT = 2
"""In so few dimensions boxes are quick, and four times as many are looked at."""


def covered(
    cube: Cube, here: tuple[Point, ...], known: tuple[Point, ...], joint: Array | None = None
) -> bool:
    """Whether a cover shows that samples with the regions and labels of ``here`` are ``known``, or that there
    are none.

    Of one region, or with the ``joint`` system (entries of the gradient, entries of all T) of all at once.
    """
    spanned = joint is None and len(here) == len(known) and cube.independent(known)
    size = len(known) - cube.has_bias if spanned else len(cube.known[0].x)
    if not cube.boxes or len(here) * size > MAX_COORDINATES:
        return False
    if joint is not None and not joint.any():
        return False  # no equation sees any sample of these regions
    system = _system(cube, here, known, joint, spanned=spanned)
    limit = cube.boxes * (4 if len(here) * size <= FLAT else 1)
    found = covered_in_cones(system, limit)
    if found is None:
        return only_known_zeros(system, ((None, None),) * (len(here) * size), limit)
    return found


def covered_in_turn(
    cube: Cube,
    here: tuple[Point, ...],
    known: tuple[Point, ...],
    joint: Array,
    others: tuple[Point, ...],
    whole: Array,
) -> bool:
    """The same of ``here``, where its ``joint`` system may leave a few small boxes over, if in none of them
    the ``whole`` system of these samples and the ``others`` has a solution (docs/theory.md, CB13).
    """
    size = len(cube.known[0].x)
    if not cube.boxes or len(here) * size > MAX_COORDINATES or not joint.any():
        return False
    limit = cube.boxes * (4 if len(here) * size <= FLAT else 1)
    system = _system(cube, here, known, joint)
    spared: list[tuple[Cone, ...]] = []
    found = covered_in_cones(system, limit, spared=spared)
    if found is None:
        return only_known_zeros(system, ((None, None),) * (len(here) * size), limit)
    if not found or (spared and not others):
        return False
    if not spared:
        return True
    system = _system(cube, (*here, *others), (), whole)
    return all(covered_in_cones(system, limit, cones) for cones in spared)


def _system(
    cube: Cube,
    here: tuple[Point, ...],
    known: tuple[Point, ...],
    joint: Array | None,
    *,
    spanned: bool = False,
) -> System:
    frame = _span(known, affine=cube.has_bias) if spanned else _input_frame(len(cube.known[0].x))
    if joint is None:
        weights, right = _equations_of_total(cube, len(here), known, frame)
    else:
        weights, right = _equations_of_gradient(cube, here, joint)
    return System(
        loss=cube.loss,
        logits=tuple(linalg.multiply(cube.region(p.pattern).logits, frame) for p in here),
        labels=tuple(p.y for p in here),
        conditions=tuple(tuple(_conditions(cube, p, frame)) for p in here),
        weights=weights,
        right=right,
        known=tuple(_arrangements(here, known, frame)),
        alone=_alone_in_region(cube, here, known) if spanned else _alone_in_layer(cube, here),
    )


def _span(known: Sequence[Point], *, affine: bool) -> Array:
    """``[x ; 1] = frame [1 ; a]`` on the span of the inputs: columns [x_1 ; 1] and x_m - x_1 for the affine
    one, else [0 ; 1] and the x_m.
    """
    rows = np.array([[*p.x, Fraction(1)] for p in known], dtype=object)
    if affine:
        rows[1:] -= rows[0]
        return rows.T
    rows[:, -1] = Fraction(0)
    return np.concatenate([[[Fraction(0)] * len(known[0].x) + [Fraction(1)]], rows]).T


def _alone_in_region(cube: Cube, here: Sequence[Point], known: Sequence[Point]) -> Alone:
    """Of a region whose T = G [1 ; a] is known, of rank its number of samples: each of them is one column of
    G P times one row of P^-1, so its row q and its column p have q . p = 1, and g lies in the span of G. In
    the span's coordinates q is (1 - sum a, a), without biases a.
    """
    with flint.ctx.workprec(PRECISION):
        vectors = np.array([cube.vector(p) for p in known], dtype=object).T[list(cube.free_classes)]
        parts = _parts(vectors)
        size = len(known)
        coordinates = np.full((size, size + (not cube.has_bias)), Fraction(0), dtype=object)
        for k in range(size):
            coordinates[k, k + (not cube.has_bias)] = Fraction(1)
        if cube.has_bias:
            coordinates[0, 1:] = -Fraction(1)
        return () if parts is None else (_equations_alone(*parts, coordinates),) * len(here)


def _alone_in_layer(cube: Cube, here: Sequence[Point]) -> Alone:
    """The same of the first layer, Delta_1 [X 1] of rank M, where there are no more inputs than that: its
    deltas are the region's backward map of g.
    """
    size = len(cube.known[0].x) + cube.has_bias
    if len(here) != len(cube.samples) or len(cube.samples) != size:
        return ()
    points = np.array([(*p.x, Fraction(1))[:size] for p in cube.known], dtype=object)
    if linalg.rank(points) < size:
        return ()
    inverse = linalg.solve(points.T, linalg.identity(size))
    assert inverse is not None
    # q from [1 ; x]
    coordinates = np.full((size, len(cube.known[0].x) + 1), Fraction(0), dtype=object)
    coordinates[:, 1:] = inverse[:, : len(cube.known[0].x)]
    if cube.has_bias:
        coordinates[:, 0] = inverse[:, -1]
    with flint.ctx.workprec(PRECISION):
        maps = {p: _first_deltas(cube, p, size) for p in cube.patterns}
        columns = []
        for p in cube.known:
            vector = cube.vector(p)
            columns.append([combination(row, vector[: len(row)]) for row in maps[p.pattern]])
        parts = _parts(np.array(columns, dtype=object).T)
        if parts is None:
            return ()
        return tuple(_equations_alone(*parts, coordinates, maps[p.pattern]) for p in here)


def _first_deltas(cube: Cube, pattern: Pattern, width: int) -> Array:
    """The region's map (n_1, free classes) from g to the deltas of the first layer."""
    neurons = cube.posed.network.widths[1]
    found: Array = cube.region(pattern).system[: neurons * width : width, ::width]
    return found


def _parts(columns: Array) -> tuple[list[int], Any, Any] | None:
    """Rows I in which the columns are independent, (columns_I)^-1, and ``columns (columns_I)^-1``; None where
    none are seen to be.
    """
    size = columns.shape[1]
    rest = np.array([[float(v.mid()) for v in row] for row in columns])
    if not np.isfinite(rest).all():
        return None
    rest = rest / np.maximum(np.abs(rest).max(axis=0, initial=0.0), 1e-290)
    chosen: list[int] = []
    for _ in range(size):
        sizes = np.abs(rest).max(axis=1, initial=0.0)
        if not sizes.max(initial=0.0) > 1e-12:
            return None
        chosen.append(int(sizes.argmax()))
        place = int(np.abs(rest[chosen[-1]]).argmax())
        rest = rest - np.outer(rest[:, place] / rest[chosen[-1], place], rest[chosen[-1]])
    try:
        inverse = flint.arb_mat(size, size, [v for k in chosen for v in columns[k]]).inv()
    except ZeroDivisionError:
        return None
    whole = flint.arb_mat(len(columns), size, list(columns.reshape(-1)))
    return chosen, inverse, whole * inverse


def _equations_alone(
    chosen: list[int], inverse: Any, shares: Any, coordinates: Array, maps: Array | None = None
) -> tuple[tuple[Array, int], ...]:
    """``delta_j = sum_I shares_jI delta_I`` for the other rows j, and ``q . (inverse delta_I) = 1``; delta is
    ``maps g``, or g itself, and q is ``coordinates [1 ; a]``.
    """
    size, width = len(chosen), coordinates.shape[1]
    maps = linalg.identity(shares.nrows()) if maps is None else maps
    balls = np.array([[to_ball(v) for v in row] for row in maps], dtype=object)
    found = []
    for j in range(len(maps)):
        if j not in chosen:
            row = balls[j] - sum(shares[j, k] * balls[i] for k, i in enumerate(chosen))
            rows = np.full((len(row), width), flint.arb(0), dtype=object)
            rows[:, 0] = row
            found.append((rows, 0))
    rows = np.full((balls.shape[1], width), flint.arb(0), dtype=object)
    for m in range(size):
        column = sum(inverse[m, k] * balls[i] for k, i in enumerate(chosen))
        rows = rows + np.outer(column, np.array([to_ball(v) for v in coordinates[m]], dtype=object))
    return (*found, (rows, 1))


def _input_frame(size: int) -> Array:
    """``[x ; 1]`` from ``[1 ; x]``."""
    frame = np.full((size + 1, size + 1), Fraction(0), dtype=object)
    frame[size, 0] = Fraction(1)
    for k in range(size):
        frame[k, k + 1] = Fraction(1)
    return frame


def _equations_of_total(
    cube: Cube, samples: int, known: tuple[Point, ...], frame: Array
) -> tuple[Array, tuple[Any, ...]]:
    """``sum_m g_mc [1 ; a_m]_k`` is what it is for the known samples: one equation per class c and coordinate
    k (no constant without biases), weights (equations, samples, K, coordinates + 1) and right sides.
    """
    columns = range(1 - cube.has_bias, frame.shape[1])
    places = [(c, k) for c in cube.free_classes for k in columns]
    weights = np.full(
        (len(places), samples, cube.posed.network.classes, frame.shape[1]), Fraction(0), dtype=object
    )
    for e, (c, k) in enumerate(places):
        weights[e, :, c, k] = Fraction(1)
    with flint.ctx.workprec(PRECISION):
        points = [(Fraction(1), *_coordinates(p, frame)) for p in known]
        vectors = [cube.vector(p) for p in known]
        right = tuple(
            sum((v[c] * to_ball(a[k]) for v, a in zip(vectors, points, strict=True)), flint.arb(0))
            for c, k in places
        )
    return weights, right


def _equations_of_gradient(
    cube: Cube, here: tuple[Point, ...], joint: Array
) -> tuple[Array, tuple[Any, ...]]:
    """Independent entries e of the gradient: ``weights[e, m]`` at sample m's region, constants first, and
    the right sides.
    """
    rows = joint[linalg.pivots(joint.T)]
    width, size = joint.shape[1] // len(cube.patterns), len(cube.known[0].x)
    weights = np.full((len(rows), len(here), cube.posed.network.classes, size + 1), Fraction(0), dtype=object)
    for m, sample in enumerate(here):
        place = cube.patterns.index(sample.pattern)
        shape = (len(rows), len(cube.free_classes), size + cube.has_bias)
        part = rows[:, place * width : (place + 1) * width].reshape(shape)
        weights[:, m, : part.shape[1], 1:] = part[:, :, :size]
        if cube.has_bias:
            weights[:, m, : part.shape[1], 0] = part[:, :, size]
    with flint.ctx.workprec(PRECISION):
        entries = cube.totals()
        return weights, tuple(combination(row, entries) for row in rows)


def _conditions(cube: Cube, sample: Point, frame: Array) -> Iterator[tuple[Array, bool]]:
    """The region and the domain, as affine functions of the coordinates."""
    region = cube.region(sample.pattern)
    if len(region.states):
        rows = linalg.multiply(region.states, frame)
        yield from ((row, True) if on else (-row, False) for row, on in zip(rows, region.active, strict=True))
    for k, (low, high) in enumerate(cube.posed.bounds or ()):
        below, above = frame[k].copy(), -frame[k]
        below[0] -= low
        above[0] += high
        yield below, False
        yield above, False


def _arrangements(here: Sequence[Point], known: Sequence[Point], frame: Array) -> list[Vector]:
    """The orders of the known samples that fit regions and labels, as coordinates."""
    if len(here) != len(known):
        return []
    found = [
        sum((_coordinates(p, frame) for p in order), ())
        for order in permutations(known)
        if all(a.pattern == b.pattern and a.y == b.y for a, b in zip(here, order, strict=True))
    ]
    return list(dict.fromkeys(found))


def _coordinates(p: Point, frame: Array) -> Vector:
    found = linalg.solve(frame, np.array([[*p.x, Fraction(1)]], dtype=object).T)
    assert found is not None
    return tuple(found[1:, 0])
