"""Cones of a plane of inputs: they cover regions, bounds hold to infinity, and no zero is overlooked."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest

from exan_verify.core.question import Loss
from exan_verify.exact.softmax import to_ball
from exan_verify.instances import tiny_question
from exan_verify.smt.arguments.cones import Cone, _fan, covered_in_cones
from exan_verify.smt.arguments.enclose import Box, System, boxes_left
from exan_verify.smt.arguments.no_other_batch import only_known
from exan_verify.smt.arguments.regions import Regions
from exan_verify.smt.question.transcendental import PRECISION
from tests.support.smt_cases import own_literals, posed

F = Fraction


def exact(values: Any) -> Any:
    """Multiples of 1/4 as Fractions, in an array of the same shape."""
    return np.vectorize(lambda v: F(round(4 * v), 4), otypes=[object])(values)


def vector(loss: Loss, logits: Any, label: Any) -> Any:
    """g in floating point: logits (K,), label (K,)."""
    if loss is Loss.BCE:
        return 1 / (1 + np.exp(-np.clip(logits, -700, 700))) - label
    odds = np.exp(logits - logits.max())
    return odds / odds.sum() - label


def drawn(rng: np.random.Generator, loss: Loss, points: Any, classes: int) -> System:
    """``sum_m g_m a_m^T`` of samples with random logits and labels is what it is at ``points`` (M, 2)."""
    logits = [exact(rng.normal(size=(classes, 3)) * (0, 2, 2)) for _ in points]
    labels = [
        np.eye(classes, dtype=int)[rng.integers(classes)]
        if loss is Loss.CROSS_ENTROPY
        else rng.integers(0, 2, classes)
        for _ in points
    ]
    places = [(c, k) for c in range(classes - (loss is Loss.CROSS_ENTROPY)) for k in (1, 2)]
    weights = np.full((len(places), len(points), classes, 3), F(0), dtype=object)
    for e, (c, k) in enumerate(places):
        weights[e, :, c, k] = F(1)
    system = System(
        loss=loss,
        logits=tuple(logits),
        labels=tuple(tuple(F(int(v)) for v in y) for y in labels),
        conditions=tuple(() for _ in points),
        weights=weights,
        right=(flint.arb(0),) * len(places),
        known=(),
    )
    with flint.ctx.workprec(PRECISION):
        values, _ = system._smooth(tuple(to_ball(v) for v in points.reshape(-1)))
    return replace(system, right=tuple(values.entries()))


def conditions(rng: np.random.Generator) -> tuple[tuple[Any, bool], ...]:
    rows = exact(rng.normal(size=(rng.integers(0, 4), 3)) * (0, 1, 1))
    return tuple((row, bool(rng.integers(2))) for row in rows)


def holds(rows: tuple[tuple[Any, bool], ...], a: Any) -> bool:
    return all(v > 0 or not (strict or v) for v, strict in ((row[1:] @ a, strict) for row, strict in rows))


@pytest.mark.parametrize("seed", range(6))
def test_the_cones_cover_the_region(seed: int) -> None:
    """Inputs that satisfy the conditions lie in a cone, also on rays where a margin or a condition is 0; no
    cone carries two rays on which a margin is 0."""
    rng = np.random.default_rng(seed)
    for _ in range(30):
        system = drawn(rng, Loss.CROSS_ENTROPY, exact(rng.normal(size=(1, 2))), 3)
        system = replace(system, conditions=(conditions(rng),))
        fan = _fan(system, 0)
        frames = [cone.frame[1:, 1:] for cone in fan]
        margins = [mu[1:] for mu in system.margins(0)]
        for u, w in (frame.T for frame in frames):
            assert u[0] * w[1] > u[1] * w[0], "less than a half plane, in order"
            assert sum(any(mu.any() and mu @ ray == 0 for mu in margins) for ray in (u, w)) < 2
        rows = [*margins, *(row[1:] for row, _ in system.conditions[0])]
        points = [s * np.array([-row[1], row[0]], dtype=object) for row in rows if row.any() for s in (1, -1)]
        points += list(exact(rng.normal(size=(20, 2)) * 5))
        for a in (a for a in points if a.any() and holds(system.conditions[0], a)):
            inside = [
                u[0] * a[1] >= u[1] * a[0] and a[0] * w[1] >= a[1] * w[0] for u, w in (f.T for f in frames)
            ]
            assert any(inside) or not fan


def test_a_region_that_is_a_ray_has_no_cones() -> None:
    rng = np.random.default_rng(0)
    system = drawn(rng, Loss.BCE, exact(rng.normal(size=(1, 2))), 2)
    line = np.array([F(0), F(1), F(-1)], dtype=object)
    for strict in (False, True):
        rows = ((line, False), (-line, strict), (np.array([F(0), F(1), F(0)], dtype=object), True))
        fan = _fan(replace(system, conditions=(rows,)), 0)
        assert not fan
        found = covered_in_cones(replace(system, conditions=(rows,)), 50)
        assert found is None, "no cones are no cover"


def boxes(rng: np.random.Generator, coordinates: int) -> tuple[Box, Any]:
    """A box with some unbounded sides, and a random point in it, far out now and then."""
    sides, point = [], []
    for _ in range(coordinates):
        low = F(int(rng.integers(0, 9)), 2)
        width = None if rng.random() < 0.6 else F(int(rng.integers(1, 9)), 4)
        sides.append((low, None if width is None else low + width))
        step = 10 ** rng.uniform(-2, 3) if width is None else float(width) * rng.random()
        point.append(float(low) + step)
    return tuple(
        (flint.fmpq(a.numerator, a.denominator), b and flint.fmpq(b.numerator, b.denominator))
        for a, b in sides
    ), np.array(point)


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_to_infinity(loss: Loss, seed: int) -> None:
    """At a point of an unbounded box what a sample adds to an equation, and its products ``g_c a_k``, are
    within their bounds."""
    rng = np.random.default_rng([seed, loss is Loss.BCE])
    for _ in range(40):
        system = drawn(rng, loss, exact(rng.normal(size=(2, 2))), 3)
        box, point = boxes(rng, 4)
        for m in range(2):
            part, a = box[2 * m : 2 * m + 2], np.append(1.0, point[2 * m : 2 * m + 2])
            g = vector(loss, system.logits[m].astype(float) @ a, np.array(system.labels[m], dtype=float))
            with flint.ctx.workprec(PRECISION):
                bounds = system._bounds(m, part)
                shares = system._shares(m, part)
            assert shares is not None
            for c, row in enumerate(bounds.products):
                for k, ends in enumerate(row):
                    within(ends, g[c] * a[k])
            for e, ends in enumerate(shares):
                within(ends, float(g @ (system.weights[e, m].astype(float) @ a)))


def within(ends: Any, value: float) -> None:
    low, high = (float(v) for v in ends)
    assert low - 1e-6 * (1 + abs(low)) <= value <= high + 1e-6 * (1 + abs(high))


@pytest.mark.parametrize("loss", [Loss.CROSS_ENTROPY, Loss.BCE])
@pytest.mark.parametrize("far", [1.0, 40.0])
def test_no_zero_is_overlooked(loss: Loss, far: float) -> None:
    """A point that solves the equations is never covered unless it is told, wherever it lies; told, it is
    alone (there are more equations than coordinates)."""
    rng = np.random.default_rng([5, loss is Loss.BCE, int(far)])
    alone = 0
    for _ in range(3):
        point = exact(rng.normal(size=(1, 2)) * far + F(1, 2))
        system = drawn(rng, loss, point, 3)
        assert not covered_in_cones(system, 120)
        alone += covered_in_cones(replace(system, known=(tuple(point[0]),)), 120) is True
    assert alone


def test_no_pair_is_overlooked_near_a_tie() -> None:
    """Two samples, one of them far out beside a ray on which its label and another class are equal."""
    rng = np.random.default_rng(8)
    for _ in range(2):
        draft = drawn(rng, Loss.CROSS_ENTROPY, exact(rng.normal(size=(2, 2))), 3)
        frame = next(
            cone.frame
            for cone in _fan(draft, 0)
            if any(mu @ cone.frame[:, 1] == 0 for mu in draft.margins(0))
        )
        far = frame @ np.array([F(1), F(60), F(3)], dtype=object)
        points = np.array([far[1:], exact(rng.normal(size=2))])
        with flint.ctx.workprec(PRECISION):
            values, _ = draft._smooth(tuple(to_ball(v) for v in points.reshape(-1)))
        system = replace(draft, right=tuple(values.entries()))
        assert not covered_in_cones(system, 150, [_around(system, m, p) for m, p in enumerate(points)])


def _around(system: System, m: int, point: Any) -> Cone:
    """The cone of sample m that a point (2,) lies in."""
    return next(
        cone
        for cone in _fan(system, m)
        if (np.linalg.solve(cone.frame[1:, 1:].astype(float), point.astype(float)) > -1e-9).all()
    )


@pytest.mark.parametrize("seed", [4, 35])
def test_small_boxes_are_spared_for_more_equations(seed: int) -> None:
    """Two equations leave a point of the plane over in small boxes, unless they are told of it; others refute
    it there, but not where they hold at it."""
    rng = np.random.default_rng(seed)
    point = exact(rng.normal(size=(1, 2)) + 1)
    whole = drawn(rng, Loss.CROSS_ENTROPY, point, 3)
    part = replace(whole, weights=whole.weights[:2], right=whole.right[:2])
    found: list[tuple[Cone, ...]] = []
    assert covered_in_cones(part, 300, spared=found)
    assert found
    assert not any(covered_in_cones(whole, 100, cones) for cones in found)
    moved = replace(whole, right=(*whole.right[:3], whole.right[3] + flint.arb("0.01")))
    assert all(covered_in_cones(moved, 100, cones) for cones in found)
    others: list[tuple[Cone, ...]] = []
    assert covered_in_cones(replace(part, known=(tuple(point[0]),)), 300, spared=others)
    assert not others


def test_what_cannot_be_left_out_stays() -> None:
    """One equation ``g a_1 = 1`` over a ray on which g may fade has a solution as far out as one likes."""
    zero, one = F(0), F(1)
    system = System(
        loss=Loss.BCE,
        logits=(np.array([[zero, zero, one]], dtype=object),),
        labels=((one,),),
        conditions=((),),
        weights=np.array([[[[zero, -one, zero]]]], dtype=object),
        right=(flint.arb(1),),
        known=(),
    )
    assert not covered_in_cones(system, 300)
    # a second equation g a_2 = 1 sees that what is left of g there is too little: a_2 e^-a_2 < 1
    both = replace(
        system,
        weights=np.array([[[[zero, -one, zero]]], [[[zero, zero, -one]]]], dtype=object),
        right=(flint.arb(1), flint.arb(1)),
    )
    far = ((flint.fmpq(1), None), (flint.fmpq(1), None))
    assert boxes_left(both, far, 5) >= 0
    assert boxes_left(system, far, 60) < 0


def test_two_samples_of_one_region_without_biases() -> None:
    question, truth = posed(tiny_question(Loss.CROSS_ENTROPY, 97))
    assert only_known(Regions(posed=question), own_literals(question, truth), truth)
