"""Cones of a plane of inputs, in which every logit or margin grows, fades or stays (docs/theory.md, CB12).

Without biases a region is a cone, and so is every set of inputs that gives its logits, or its label's
margins, their signs. In a plane such cones have two rays: ``a = t_1 u + t_2 w`` with t >= 0. A system of
:mod:`.enclose` in coordinates t has margins with rates of one sign, so that a box that reaches to infinity
says of every entry of the loss vector whether it fades there, and along which ray it may not. The rays on
which two logits stay equal are sides of boxes, one at most to a cone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cmp_to_key
from itertools import product

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.arguments.enclose import Bounds, Box, Ends, System, boxes_left
from exan_verify.smt.question.transcendental import PRECISION

Ray = tuple[Fraction, Fraction]

QUADRANT: Box = ((flint.fmpq(0), None), (flint.fmpq(0), None))
"""Where the coordinates of a cone lie."""

MAX_SYSTEMS = 256
"""Choices of a cone for every sample: each takes a millisecond or two before its first box is judged."""


@dataclass(frozen=True, slots=True)
class Cone:
    """A sample's coordinates t, ``[1 ; a] = frame [1 ; t]``, and the part of them where it is looked for."""

    frame: Array
    part: Box = QUADRANT


def covered_in_cones(
    system: System, limit: int, given: Sequence[Cone] = (), spared: list[tuple[Cone, ...]] | None = None
) -> bool | None:
    """Whether every solution is a known one (:func:`.enclose.boxes_left`), in one cone per sample after the
    other; the first samples have the cones ``given``. None where it is not for two coordinates without
    constants, or there are too many cones.
    """
    plane = system.coordinates == 2 and system.loss in (Loss.CROSS_ENTROPY, Loss.BCE)
    if not plane or system.weights[..., 0].any() or any(logits[:, 0].any() for logits in system.logits):
        return None
    fans = [[cone] for cone in given] + [_fan(system, m) for m in range(len(given), system.size)]
    if not all(fans):
        return None
    with flint.ctx.workprec(PRECISION):
        samples = [[_framed(system, m, cone.frame) for cone in fan] for m, fan in enumerate(fans)]
    bounds: dict[tuple[int, int, Box], Bounds] = {}
    seen: dict[tuple[int, int, Box], list[Ends] | None] = {}

    def made(cones: Sequence[int]) -> System:
        chosen = [found[k] for found, k in zip(samples, cones, strict=True)]
        known = [_coordinates(p, [fans[m][k].frame for m, k in enumerate(cones)]) for p in system.known]
        return replace(
            system,
            logits=tuple(c.logits for c in chosen),
            conditions=tuple(c.conditions for c in chosen),
            weights=np.stack([c.weights for c in chosen], axis=1),
            known=tuple(point for point in known if min(point) >= 0),
            alone=tuple(c.alone for c in chosen) if system.alone else (),
            cones=tuple(cones),
            bounds=bounds,
            seen=seen,
            tied={},
        )

    left = [
        [
            k
            for k in range(len(fan))
            if made([k if n == m else 0 for n in range(len(fans))]).possible(m, fan[k].part)
        ]
        for m, fan in enumerate(fans)
    ]
    if np.prod([len(found) for found in left]) > MAX_SYSTEMS:
        return None
    for cones in product(*left):
        chosen = [fans[m][k] for m, k in enumerate(cones)]
        here: list[Box] | None = None if spared is None else []
        box = tuple(side for cone in chosen for side in cone.part)
        limit = boxes_left(made(cones), box, limit, here)
        if limit < 0:
            return False
        if spared is not None:
            spared += [
                tuple(replace(cone, part=found[2 * m : 2 * m + 2]) for m, cone in enumerate(chosen))
                for found in here or ()
            ]
    return True


def _fan(system: System, m: int) -> list[Cone]:
    """Cones that cover the region of sample m, none where it has no inner points: as it is convex, each of
    its rays otherwise is a side of a cone with such points.

    The cones' sides are the rays on which a margin or a condition vanishes (and the axes, so that no cone is
    a half plane). Another ray stands between two on which margins vanish: near such a ray the loss vector may
    fade as slowly as one likes, and equations can leave one of them out, but not both.
    """
    margins = system.margins(m)
    conditions = [(row[1:], strict) for row, strict in system.conditions[m] if not row[0]]
    ties = {ray for mu in margins if mu[1:].any() for ray in _rays_of(mu[1:])}
    sides = {ray for row, _ in conditions if row.any() for ray in _rays_of(row)}
    axes = {(Fraction(s * k), Fraction(s * (1 - k))) for s in (1, -1) for k in (0, 1)}
    rays = _sorted(ties | sides | axes)
    between = {
        _sum(one, other)
        for one, other in zip(rays, [*rays[1:], rays[0]], strict=True)
        if one in ties and other in ties
    }
    rays = _sorted({*rays, *between})
    found: list[Cone] = []
    for one, other in zip(rays, [*rays[1:], rays[0]], strict=True):
        if all(_holds_within(row, strict, one, other) for row, strict in conditions):
            frame = np.full((3, 3), Fraction(0), dtype=object)
            frame[0, 0] = Fraction(1)
            for k, ray in enumerate((one, other), 1):
                frame[1:, k] = _unit(ray, margins)
            found.append(Cone(frame))
    return found


def _holds_within(row: Array, strict: bool, one: Ray, other: Ray) -> bool:
    """Whether ``row a >= 0`` (``> 0``) somewhere inside the cone of two rays, on whose sides it has no zero
    but at the rays.
    """
    values = _at(row, one), _at(row, other)
    return max(values) > 0 or (not strict and not any(values))


def _at(row: Array, ray: Ray) -> Fraction:
    found: Fraction = row[0] * ray[0] + row[1] * ray[1]
    return found


def _rays_of(row: Array) -> Iterator[Ray]:
    """The two directions on which a functional vanishes."""
    size = max(abs(v) for v in row)
    for sign in (1, -1):
        yield Fraction(-sign * row[1] / size), Fraction(sign * row[0] / size)


def _sum(one: Ray, other: Ray) -> Ray:
    x, y = one[0] + other[0], one[1] + other[1]
    size = max(abs(x), abs(y))
    return x / size, y / size


def _unit(ray: Ray, margins: Sequence[Array]) -> Ray:
    """The ray with a power of two as its factor, along which the fastest margin changes by about one."""
    fastest = max((abs(_at(mu[1:], ray)) for mu in margins), default=Fraction(0))
    if not fastest:
        return ray
    factor = Fraction(1)
    while fastest * factor > 1:
        factor /= 2
    while fastest * factor * 2 <= 1:
        factor *= 2
    return ray[0] * factor, ray[1] * factor


def _sorted(rays: set[Ray]) -> list[Ray]:
    """By their angle, from 0 to less than a full turn."""

    def half(ray: Ray) -> int:
        return int(ray[1] < 0 or (ray[1] == 0 and ray[0] < 0))

    def before(one: Ray, other: Ray) -> int:
        if half(one) != half(other):
            return half(one) - half(other)
        cross = one[0] * other[1] - one[1] * other[0]
        return -1 if cross > 0 else int(cross < 0)

    return sorted(rays, key=cmp_to_key(before))


@dataclass(frozen=True, slots=True)
class _Framed:
    """What a system says of one sample, in a cone's coordinates."""

    logits: Array
    conditions: tuple[tuple[Array, bool], ...]
    weights: Array
    alone: tuple[tuple[Array, int], ...]


def _framed(system: System, m: int, frame: Array) -> _Framed:
    weights = system.weights[:, m]
    return _Framed(
        logits=linalg.multiply(system.logits[m], frame),
        conditions=tuple(
            (linalg.multiply(row[None], frame)[0], strict) for row, strict in system.conditions[m]
        ),
        weights=_without_own(system, m, linalg.multiply(weights.reshape(-1, 3), frame)).reshape(
            weights.shape
        ),
        alone=tuple(
            (_alone_in_frame(system, m, rows, frame), right)
            for rows, right in (system.alone[m] if system.alone else ())
        ),
    )


def _without_own(system: System, m: int, rows: Array) -> Array:
    """cross_entropy: the label's own entry of g is minus the sum of the others, of one margin each."""
    if system.loss is Loss.BCE:
        return rows
    shaped = rows.reshape(len(system.weights), -1, 3)
    own = next(k for k, y in enumerate(system.labels[m]) if y)
    return (shaped - shaped[:, own : own + 1]).reshape(rows.shape)


def _alone_in_frame(system: System, m: int, rows: Array, frame: Array) -> Array:
    """Rows of balls in the frame's coordinates; cross_entropy: without the label's own entry as well."""
    balls = np.array([[to_ball(v) for v in row] for row in frame], dtype=object)
    out = np.full((len(system.labels[m]), 3), flint.arb(0), dtype=object)
    out[: len(rows)] = rows @ balls
    if system.loss is Loss.CROSS_ENTROPY:
        own = next(k for k, y in enumerate(system.labels[m]) if y)
        out = out - out[own].copy()
    return out


def _coordinates(point: Sequence[Fraction], frames: Sequence[Array]) -> tuple[Fraction, ...]:
    out: list[Fraction] = []
    for m, frame in enumerate(frames):
        found = linalg.solve(frame[1:, 1:], np.array([[v] for v in point[2 * m : 2 * m + 2]], dtype=object))
        assert found is not None
        out.extend(found[:, 0])
    return tuple(out)
