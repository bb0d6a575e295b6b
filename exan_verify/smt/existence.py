"""Witnesses that no rational number describes: a second batch proved to exist inside a small box.

For cross_entropy and bce a second batch is in general a transcendental point. Starting from a model of the
over-approximation, Newton's iteration looks for a common zero of the gradient equations with the true softmax
in them; Krawczyk's test in ball arithmetic then proves that a box of 2^-k holds one (R. Krawczyk,
"Newton-Algorithmen zur Bestimmung von Nullstellen mit Fehlerschranken", 1969).

The equations are linearly dependent as polynomials whenever a gradient has dependent entries; an
independent set, found over Q, has the same zeros. Where it has fewer equations than there are inputs, some
inputs are held at rational values: the batch is then one of a family. With more equations than inputs nothing
is attempted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.exact import linalg
from exan_verify.exact.softmax import to_ball
from exan_verify.smt.arguments.isolate_softmax import Row, partials, probability_slopes, total_derivative
from exan_verify.smt.question.encode import ORDER, Encoding
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.replay import ExactBatch
from exan_verify.smt.question.replay import Row as Exact
from exan_verify.smt.question.terms import Atom, Formula, Junction, Poly, equal
from exan_verify.smt.question.transcendental import PRECISION, unit_rows

ROUNDS = 40
PATIENCE, STALLED = 10, Fraction(1, 1000)
"""Newton's iteration is given up when its steps are still this long after so many rounds."""
BITS = 80
BOX = Fraction(1, 2**BITS)
"""Half width of the box around Newton's limit in which existence is proved."""

STEPS = (1.0, 0.25, 0.02, 0.001)
"""How far from a known batch its family is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BallBatch:
    """A batch proved to exist: sample m has an input within ``radius`` of ``x[m]`` in every coordinate, and
    exactly the label ``y[m]``. ``free``: the coordinates (sample, feature) that are not exactly those of
    ``x``.
    """

    x: tuple[tuple[Fraction, ...], ...]
    y: tuple[tuple[Fraction, ...], ...]
    radius: Fraction
    free: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        return "; ".join(
            f"x = ({', '.join(f'{float(v):.12g}...' for v in x)}), y = ({', '.join(map(str, y))})"
            for x, y in zip(self.x, self.y, strict=True)
        )

    def record(self) -> dict[str, Any]:
        """A form for JSON: the middle of the box and its half width, as rationals."""
        return {
            "kind": "ball",
            "x": [[str(v) for v in row] for row in self.x],
            "y": [[str(v) for v in row] for row in self.y],
            "radius": str(self.radius),
            "free": [list(place) for place in self.free],
        }

    def excludes(self, x: Exact, y: Exact) -> bool:
        """Whether the rational sample (x, y) is certainly not in the batch."""
        return all(
            any(abs(a - b.value) > self.radius for a, b in zip(bx, x, strict=True))
            or any(a != b.value for a, b in zip(by, y, strict=True))
            for bx, by in zip(self.x, self.y, strict=True)
        )


def prove_existence(
    posed: Posed,
    encoding: Encoding,
    exclusions: Sequence[Formula],
    start: Mapping[str, Fraction],
    labels: ExactBatch,
) -> BallBatch | None:
    """A batch of the cube near ``start`` (inputs by variable name) that satisfies every condition, or None.

    ``labels`` gives the label vectors of the cube.
    """
    with flint.ctx.workprec(PRECISION):
        system = _System(posed, encoding)
        found = None if system.equations is None else system.newton(dict(start))
        if found is None or not system.certain(*found, exclusions):
            return None
        point, varying = found
    free = tuple(
        (m, k) for m, s in enumerate(encoding.samples) for k, v in enumerate(s.x) if _name(v) in varying
    )
    x = tuple(tuple(point[_name(v)] for v in s.x) for s in encoding.samples)
    y = tuple(tuple(v.value for v in row) for row in labels.y)
    return BallBatch(x=x, y=y, radius=BOX, free=free)


def displaced(
    posed: Posed, encoding: Encoding, point: Mapping[str, Fraction]
) -> Iterator[dict[str, Fraction]]:
    """Starts near a known batch, along the directions in which its gradient is stationary: where it lies on a
    family of batches (docs/theory.md S2, S4) these lead to other members.
    """
    with flint.ctx.workprec(PRECISION):
        system = _System(posed, encoding)
        if system.equations is None:
            return
        exact = {n: to_ball(v) for n, v in point.items()}
        slopes, _ = unit_rows([[row[n] for n in system.names] for row in system.jacobian(exact)])
    slopes = slopes.reshape(-1, len(system.names))
    if not np.isfinite(slopes).all():
        return
    _, sizes, directions = np.linalg.svd(slopes)
    rank = int((sizes > 1e-9).sum())
    for step in STEPS:
        for direction in directions[rank:]:
            for sign in (1, -1):
                yield {
                    n: v + Fraction(round(sign * step * float(d) * 2**20), 2**20)
                    for (n, v), d in zip(((n, point[n]) for n in system.names), direction, strict=True)
                }


class _System:
    """The gradient equations of a cube as functions of the inputs alone."""

    def __init__(self, posed: Posed, encoding: Encoding) -> None:
        self.posed = posed
        self.encoding = encoding
        self.names = [_name(v) for s in encoding.samples for v in s.x]
        self.known = {n: _hull(*ends) for n, ends in posed.target.enclosures.items()}
        self.equations = self._independent()
        self.partials = [partials(e) for e in self.equations or ()]

    def _independent(self) -> list[Poly] | None:
        """A basis of the span of the equations over Q; None when there are more than inputs."""
        rows = [e for _, e in self.encoding.equations if e.terms]
        monomials = sorted({m for e in rows for m in e.terms})
        matrix = np.array([[e.terms.get(m, Fraction(0)) for e in rows] for m in monomials], dtype=object)
        if not rows:
            return []
        chosen = linalg.pivots(matrix.reshape(len(monomials), len(rows)))
        return [rows[k] for k in chosen] if len(chosen) <= len(self.names) else None

    def at(self, box: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Row]]:
        """Balls of all variables, and of the probabilities' derivatives, over a box of inputs."""
        return probability_slopes(self.posed, self.encoding.samples, {**self.known, **box})

    def values(self, box: Mapping[str, Any]) -> list[Any]:
        """The equations over a box."""
        balls, _ = self.at(box)
        return [e.evaluate(balls, to_ball) for e in self.equations or ()]

    def jacobian(self, box: Mapping[str, Any]) -> list[Row]:
        """Their derivatives by the inputs over a box."""
        balls, slopes = self.at(box)
        return [total_derivative(p, self.names, balls, slopes) for p in self.partials]

    def newton(self, point: dict[str, Fraction]) -> tuple[dict[str, Fraction], list[str]] | None:
        """Least-norm Newton steps, then plain ones in as many inputs as there are equations; the limit and
        those inputs if Krawczyk's test proves a zero in the box around it.
        """
        for k in range(ROUNDS):
            step = self._step(point, self.names)
            if step is None or (k == PATIENCE and _length(step) > STALLED):
                return None
            point = {n: _short(v + step.get(n, 0), 100) for n, v in point.items()}
            if _length(step) < BOX:
                break
        free = self._pivots(point)
        if free is None:
            return None
        point = {n: v if n in free else _short(v, 30) for n, v in point.items()}
        for _ in range(8):
            step = self._step(point, free)
            if step is None:
                return None
            point = {n: _short(v + step.get(n, 0), 180) for n, v in point.items()}
        return (point, free) if self._krawczyk(point, free) else None

    def _step(self, point: Mapping[str, Fraction], free: Sequence[str]) -> dict[str, Fraction] | None:
        exact = {n: to_ball(v) for n, v in point.items()}
        residual = np.array([float((v * 2**BITS).mid()) for v in self.values(exact)])
        slopes = np.array([[float(row[n].mid()) for n in free] for row in self.jacobian(exact)])
        if not residual.size:
            return {}
        sizes = np.maximum(np.abs(slopes).max(axis=1), 1e-300)
        with np.errstate(all="ignore"):
            scaled, goal = slopes / sizes[:, None], residual / sizes
        if not (np.isfinite(scaled).all() and np.isfinite(goal).all()):
            return None
        step = -np.linalg.lstsq(scaled, goal, rcond=1e-12)[0]
        if not np.isfinite(step).all() or np.abs(step).max() > 2.0**BITS * 1e6:
            return None
        return {n: Fraction(float(s)) / 2**BITS for n, s in zip(free, step, strict=True)}

    def _pivots(self, point: Mapping[str, Fraction]) -> list[str] | None:
        """As many inputs as equations by which the derivative is well conditioned; None if there are not."""
        exact = {n: to_ball(v) for n, v in point.items()}
        rest, _ = unit_rows([[row[n] for n in self.names] for row in self.jacobian(exact)])
        rest = rest.reshape(-1, len(self.names))
        if not np.isfinite(rest).all():
            return None
        chosen: list[str] = []
        for _ in range(len(self.equations or ())):
            norms = (rest**2).sum(axis=0)
            k = int(norms.argmax())
            if norms[k] < 1e-18:
                return None
            chosen.append(self.names[k])
            rest = rest - np.outer(rest[:, k], rest[:, k] @ rest) / norms[k]
        return chosen

    def _krawczyk(self, point: Mapping[str, Fraction], free: Sequence[str]) -> bool:
        """Whether y - Y F(y) + (I - Y F'(X)) (X - y) lies inside X = y +- BOX: then X holds a zero of F."""
        if not free:
            return all(v == 0 for v in self.values({n: to_ball(q) for n, q in point.items()}))
        exact = {n: to_ball(v) for n, v in point.items()}
        box = self.box(point, free)
        slopes = self.jacobian(exact)
        inverse = _approximate_inverse([[row[n] for n in free] for row in slopes])
        if inverse is None:
            return False
        values, wide = self.values(exact), self.jacobian(box)
        for i, weights in enumerate(inverse):
            moved = -_dot(weights, values)
            for k, n in enumerate(free):
                defect = _dot(weights, [row[n] for row in wide])
                moved += ((1 if i == k else 0) - defect) * _hull(-BOX, BOX)
            if not abs(moved) < to_ball(BOX):
                return False
        return True

    def box(self, point: Mapping[str, Fraction], free: Sequence[str]) -> dict[str, Any]:
        """The box around a point; inputs that are not free are exact."""
        return {n: _hull(v - BOX, v + BOX) if n in free else to_ball(v) for n, v in point.items()}

    def certain(
        self, point: Mapping[str, Fraction], free: Sequence[str], exclusions: Sequence[Formula]
    ) -> bool:
        """Whether everything but the equations holds all over the box."""
        balls, _ = self.at(self.box(point, free))
        solved = [equal(e, 0) for _, e in self.encoding.equations]
        others = [f for c, f in self.encoding.script.assertions if c != ORDER and f not in solved]
        return all(_holds(f, balls) for f in [*others, *exclusions])


def _holds(formula: Formula, balls: Mapping[str, Any]) -> bool:
    """Whether a formula certainly holds for all values in the balls."""
    if isinstance(formula, Junction):
        found = (_holds(p, balls) for p in formula.parts)
        return all(found) if formula.kind == "and" else any(found)
    if not isinstance(formula, Atom):
        return False
    value = formula.poly.evaluate(balls, to_ball)
    if formula.relation == "distinct":
        return not value.contains(0)
    return bool(value < 0) if formula.relation == "<" else formula.relation == "<=" and bool(value <= 0)


def _approximate_inverse(rows: Sequence[Sequence[Any]]) -> list[list[Any]] | None:
    matrix = np.array([[float(v.mid()) for v in row] for row in rows])
    try:
        inverse = np.linalg.inv(matrix)
    except np.linalg.LinAlgError:
        return None
    return [[flint.arb(float(v)) for v in row] for row in inverse]


def _dot(left: Sequence[Any], right: Sequence[Any]) -> Any:
    return sum((a * b for a, b in zip(left, right, strict=True)), flint.arb(0))


def _hull(low: Fraction, high: Fraction) -> Any:
    return to_ball(low).union(to_ball(high))


def _length(step: Mapping[str, Fraction]) -> Fraction:
    return max(map(abs, step.values()), default=Fraction(0))


def _short(value: Fraction, bits: int) -> Fraction:
    return Fraction(round(value * 2**bits), 2**bits)


def _name(variable: Poly) -> str:
    (name,) = variable.variables()
    return name
