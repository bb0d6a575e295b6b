"""Replay of a solver's model: a batch in exact numbers, run forward and backward without the encoding.

A model is believed only after this: its inputs and labels are taken, everything else is computed again by
the definition (docs/theory.md section 1) in exact arithmetic, and the gradient is compared exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Batch, exact_array, to_fraction
from exan_verify.core.question import Loss
from exan_verify.exact import backprop
from exan_verify.smt.question.algebraic import Point
from exan_verify.smt.question.exponentials import is_zero
from exan_verify.smt.question.posed import Posed, Vector, labels_array
from exan_verify.smt.question.terms import Poly, total

Row = tuple[Poly, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactBatch:
    """A batch of exact real numbers: inputs and label vectors as polynomials in the point's generators."""

    x: tuple[Row, ...]
    y: tuple[Row, ...]
    point: Point

    @property
    def rational(self) -> bool:
        """Whether all numbers are rational."""
        return all(v.is_constant for row in (*self.x, *self.y) for v in row)

    def batch(self, loss: Loss) -> Batch:
        """The batch as the package's record (rational batches only)."""
        inputs = np.empty((len(self.x), len(self.x[0])), dtype=object)
        for m, row in enumerate(self.x):
            inputs[m] = [v.value for v in row]
        vectors: list[Vector] = [tuple(v.value for v in row) for row in self.y]
        labels = labels_array(loss, vectors)
        return Batch(
            inputs=exact_array(inputs, "x"),
            labels=_frozen(labels) if labels.ndim == 1 else exact_array(labels, "y"),
        )

    def describe(self) -> list[str]:
        """One line per sample, irrational coordinates as roots with 20 digits."""
        return [
            f"x = ({', '.join(self._text(v) for v in row)}), y = ({', '.join(self._text(v) for v in y)})"
            for row, y in zip(self.x, self.y, strict=True)
        ]

    def __str__(self) -> str:
        return "; ".join(self.describe())

    def record(self) -> dict[str, Any]:
        """A form for JSON: coordinates as polynomials in named roots, each root by its minimal polynomial
        (constant term first) and an isolating interval.
        """
        return {
            "kind": "algebraic",
            "roots": {
                name: {"polynomial": list(r.polynomial), "low": str(r.low), "high": str(r.high)}
                for name, r in self.point.roots.items()
            },
            "x": [[_expression(v) for v in row] for row in self.x],
            "y": [[_expression(v) for v in row] for row in self.y],
            "about": self.describe(),
        }

    def _text(self, value: Poly) -> str:
        if value.is_constant:
            return str(value.value)
        return f"{self.point.ball(value).str(20, radius=False)}..."


def _expression(value: Poly) -> str:
    terms = sorted(value.terms.items(), key=lambda e: (len(e[0]), e[0]))
    return " + ".join("*".join([str(c), *monomial]) for monomial, c in terms) or "0"


def exact_batch(batch: Batch, vectors: Sequence[Vector]) -> ExactBatch:
    """A rational batch with its label vectors."""
    return ExactBatch(
        x=tuple(tuple(map(Poly.constant, row)) for row in batch.x),
        y=tuple(tuple(map(Poly.constant, row)) for row in vectors),
        point=Point(),
    )


@dataclass(slots=True)
class Trace:
    """Forward and backward pass of an exact batch.

    ``states`` has one tuple of truth values per sample, in the order of ``encode.state_names``;
    ``gradient`` one polynomial per entry in the order of the equations, linear in the probability symbols
    of ``logits`` for the transcendental losses.
    """

    states: list[tuple[bool, ...]] = field(default_factory=list)
    gradient: list[Poly] = field(default_factory=list)
    logits: dict[str, tuple[tuple[Poly, ...], int]] = field(default_factory=dict)
    vectors: list[Row] = field(default_factory=list)


def trace(posed: Posed, batch: ExactBatch, prefix: str = "p") -> Trace:
    """Run the batch; probability symbols are named ``<prefix>_<sample>_<class>``."""
    found, runs, deltas = Trace(), [], []
    gained: list[dict[int, Row]] = []
    for m, (x, y) in enumerate(zip(batch.x, batch.y, strict=True)):
        run = _forward(posed, batch.point, x)
        vector, margins = _vector(posed, batch.point, run.rows[-1], y, f"{prefix}_{m}", found)
        label = [] if posed.alphabet is None or len(posed.alphabet) == 1 else _label_bits(posed, y)
        found.states.append((*run.bits, *label, *margins))
        found.vectors.append(vector)
        runs.append(run)
        down, own = _backward(posed, run, vector)
        deltas.append(down)
        gained.append(own)
    for i, layer in enumerate(posed.network.layers):
        for j in range(layer.shape[0]):
            for k in range(layer.shape[1]):
                found.gradient.append(
                    total(d[i][j] * run.rows[i][k] for d, run in zip(deltas, runs, strict=True))
                )
            if layer.bias is not None:
                found.gradient.append(total(d[i][j] for d in deltas))
    for i, activation in posed.network.trained_slopes():
        rows = [total(own) for own in zip(*(one[i] for one in gained), strict=True)]
        found.gradient += [total(rows)] if activation.shared else rows
    return found


@dataclass(slots=True)
class _Pass:
    """Forward pass of a sample: ``rows`` the values of every layer from the inputs to the logits, ``pre`` the
    pre-activations of the hidden layers and ``factors`` the derivatives there; ``bits`` as in a state.
    """

    rows: list[Row]
    pre: list[Row] = field(default_factory=list)
    factors: list[tuple[Fraction, ...]] = field(default_factory=list)
    bits: list[bool] = field(default_factory=list)


def _forward(posed: Posed, point: Point, x: Row) -> _Pass:
    run = _Pass(rows=[x])
    layers = posed.network.layers
    for i, layer in enumerate(layers, 1):
        z = []
        for j in range(layer.shape[0]):
            value = total(v * to_fraction(w) for v, w in zip(run.rows[-1], layer.weight[j], strict=True))
            z.append(value if layer.bias is None else value + to_fraction(layer.bias[j]))
        if i == len(layers):
            run.rows.append(tuple(z))
            break
        values, factors, on, capped = [], [], [], []
        activation = posed.network.activation(i)
        for j, value in enumerate(z):
            slope = Fraction(0) if activation is None else to_fraction(activation.slope[j])
            low = Fraction(0) if activation is None else activation.low
            high = None if activation is None else activation.high
            # at either end the derivative is that outside
            above = high is not None and point.sign(value - high) >= 0
            active = not above and point.sign(value - low) > 0
            factors.append(Fraction(1) if active else Fraction(0) if above else slope)
            below = (value - low) * slope + low
            values.append(value if active else Poly.constant(high) if above and high is not None else below)
            on.append(active)
            capped += [] if high is None else [above]
        run.pre.append(tuple(z))
        run.factors.append(tuple(factors))
        run.bits += [*on, *capped]
        run.rows.append(tuple(values))
    return run


def run_forward(posed: Posed, point: Point, x: Row) -> Row:
    """The logits of one sample."""
    return _forward(posed, point, x).rows[-1]


def _backward(posed: Posed, run: _Pass, vector: Row) -> tuple[list[Row], dict[int, Row]]:
    """The deltas of every layer, and what trained slopes get, by hidden layer."""
    deltas, gained, trained = [vector], dict[int, Row](), dict(posed.network.trained_slopes())
    for i in range(len(run.factors), 0, -1):
        weight, row, own = posed.network.layers[i].weight, list[Poly](), list[Poly]()
        for j, (factor, z) in enumerate(zip(run.factors[i - 1], run.pre[i - 1], strict=True)):
            parts = zip(deltas[0], weight[:, j], strict=True)
            back = total(d * to_fraction(w) for d, w in parts) if factor or i in trained else Poly({})
            row.append(back * factor)
            own.append(Poly({}) if factor == 1 else back * z)
        if i in trained:
            gained[i] = tuple(own)
        deltas.insert(0, tuple(row))
    return deltas, gained


def _label_bits(posed: Posed, y: Row) -> list[bool]:
    assert posed.alphabet is not None
    values = tuple(v.value for v in y)
    return [values == letter for letter in posed.alphabet]


def _vector(
    posed: Posed, point: Point, logits: Row, y: Row, symbol: str, found: Trace
) -> tuple[Row, list[bool]]:
    """The divided loss vector of a sample and, for hinge, its violated margins."""
    scale = Fraction(1, posed.divisor)
    if posed.question.loss is Loss.MSE:
        return tuple((f - t) * (2 * scale) for f, t in zip(logits, y, strict=True)), []
    if posed.question.loss is Loss.HINGE:
        own = next(c for c, t in enumerate(y) if t.value == 1)
        margins = [c != own and point.sign(logits[own] - f - 1) < 0 for c, f in enumerate(logits)]
        share = scale / len(logits)
        return tuple(
            Poly.constant(-share * sum(margins) if c == own else share * v) for c, v in enumerate(margins)
        ), margins
    symbols = []
    for c in range(len(logits)):
        found.logits[f"{symbol}_{c}"] = (logits, c)
        symbols.append(Poly.variable(f"{symbol}_{c}"))
    return tuple((p - t) * scale for p, t in zip(symbols, y, strict=True)), []


def same_gradient(posed: Posed, left: ExactBatch, right: ExactBatch) -> bool | None:
    """Whether two batches have exactly the same gradient; None when that cannot be told (transcendental
    loss at irrational inputs).
    """
    a, b = trace(posed, left, "p"), trace(posed, right, "q")
    differences = [u - v for u, v in zip(a.gradient, b.gradient, strict=True)]
    if posed.question.loss.rational:
        return _all_zero(Point({**left.point.roots, **right.point.roots}), differences)
    if not (left.rational and right.rational):
        return None
    logits = {n: (tuple(v.value for v in f), c) for n, (f, c) in (a.logits | b.logits).items()}
    return all(is_zero(d, logits, posed.question.loss) for d in differences)


def _all_zero(point: Point, elements: list[Poly]) -> bool:
    return all(point.sign(e) == 0 for e in elements)


def matches_target(posed: Posed, batch: ExactBatch) -> bool:
    """Whether a batch has the question's rational target gradient, within the tolerance if there is one.

    Rational batches are run through :mod:`exan_verify.exact.backprop` as well; both must agree. For
    cross_entropy and bce only the tolerance version can be confirmed, by balls.
    """
    slack = posed.question.tolerance or Fraction(0)
    if not posed.question.loss.rational:
        return batch.rational and slack > 0 and _within_by_balls(posed, batch, slack)
    gradient = trace(posed, batch).gradient
    differences = [g - t for g, t in zip(gradient, posed.target.entries(), strict=True)]
    if batch.rational and not _confirmed_by_backprop(posed, batch, gradient):
        return False
    if not slack:
        return _all_zero(batch.point, differences)
    return all(batch.point.sign(d - slack) <= 0 <= batch.point.sign(d + slack) for d in differences)


def _confirmed_by_backprop(posed: Posed, batch: ExactBatch, gradient: list[Poly]) -> bool:
    exact = backprop.gradient(
        posed.network, batch.batch(posed.question.loss), posed.question.loss, posed.question.reduction
    )
    return _in_order(posed, exact.tensors) == [v.value for v in gradient]


def _in_order(posed: Posed, tensors: Any) -> list[Fraction]:
    out: list[Fraction] = []
    for layer in posed.network.layers:
        arrays = [tensors[name] for name, _ in layer.parameters()]
        for j in range(layer.shape[0]):
            out += [to_fraction(v) for v in arrays[0][j]]
            out += [to_fraction(arrays[1][j])] if layer.bias is not None else []
    for _, activation in posed.network.trained_slopes():
        out += [to_fraction(v) for v in tensors[activation.parameter]]
    return out


def _within_by_balls(posed: Posed, batch: ExactBatch, slack: Fraction) -> bool:
    balls = backprop.gradient_ball(
        posed.network, batch.batch(posed.question.loss), posed.question.loss, posed.question.reduction
    )
    entries: list[Any] = []
    for layer in posed.network.layers:
        named = [balls[name] for name, _ in layer.parameters()]
        for j in range(layer.shape[0]):
            entries += [named[0][j, k] for k in range(layer.shape[1])]
            entries += [named[1][j, 0]] if layer.bias is not None else []
    for _, activation in posed.network.trained_slopes():
        entries += balls[activation.parameter].entries()
    symbols = {n: _arb(low).union(_arb(high)) for n, (low, high) in posed.target.enclosures.items()}
    goal = [g.evaluate(symbols, _arb) for g in posed.target.entries()]
    limit = _arb(slack)
    return all(abs(e - g) <= limit for e, g in zip(entries, goal, strict=True))


def _arb(value: Fraction) -> Any:
    return flint.arb(flint.fmpq(value.numerator, value.denominator))


def in_domain(posed: Posed, batch: ExactBatch) -> bool:
    """Whether every input lies in the question's domain."""
    if posed.bounds is None:
        return True
    sign = batch.point.sign
    return all(
        sign(v - low) >= 0 >= sign(v - high)
        for row in batch.x
        for v, (low, high) in zip(row, posed.bounds, strict=True)
    )


def labels_admitted(posed: Posed, batch: ExactBatch) -> bool:
    """Whether the labels are in the alphabet and, for known labels, occur as often as they should."""
    if posed.alphabet is None:
        return True
    vectors = [tuple(v.value for v in row) for row in batch.y]
    if posed.counts is not None:
        return all(vectors.count(u) == c for u, c in zip(posed.alphabet, posed.counts, strict=True))
    return all(v in posed.alphabet for v in vectors)


def distance_exceeds(posed: Posed, left: ExactBatch, right: ExactBatch, radius: Fraction) -> bool:
    """Whether for every order of the samples some label differs or some input differs by more than
    ``radius`` (real labels count as inputs do): with radius 0, whether the batches differ up to order.
    """
    point = Point({**left.point.roots, **right.point.roots})
    limit = radius if posed.alphabet is None else Fraction(0)

    def apart(a: int, b: int) -> bool:
        near = zip(left.x[a], right.x[b], strict=True)
        if any(_far(point, u - v, radius) for u, v in near):
            return True
        return any(_far(point, u - v, limit) for u, v in zip(left.y[a], right.y[b], strict=True))

    count = range(len(left.x))
    return not _matched([[b for b in count if not apart(a, b)] for a in count])


def _matched(partners: Sequence[Sequence[int]]) -> bool:
    """Whether everyone can have a partner of his own, by augmenting paths (Berge)."""
    taken: dict[int, int] = {}

    def place(a: int, tried: set[int]) -> bool:
        for b in partners[a]:
            if b not in tried:
                tried.add(b)
                if b not in taken or place(taken[b], tried):
                    taken[b] = a
                    return True
        return False

    return all(place(a, set()) for a in range(len(partners)))


def _far(point: Point, difference: Poly, radius: Fraction) -> bool:
    return point.sign(difference - radius) > 0 or point.sign(difference + radius) < 0


def contains(batch: ExactBatch, x: Row, y: Row, point: Point) -> bool:
    """Whether the sample (x, y) is in the batch."""
    joint = Point({**batch.point.roots, **point.roots})
    return any(
        all(joint.sign(u - v) == 0 for u, v in zip((*bx, *by), (*x, *y), strict=True))
        for bx, by in zip(batch.x, batch.y, strict=True)
    )


def _frozen(array: Any) -> Any:
    array.setflags(write=False)
    return array
