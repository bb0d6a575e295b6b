"""A box around one order of the given batch holds no other solution (docs/theory.md CB14, CB5).

Inside the box every other solution of the gradient's equations would be p + h with ``J h = 0`` for some J
within the range of the Jacobian over the box (mean value theorem, entry by entry), and ``A h >= 0`` for the
inequalities of the cube that are equalities at p. If for every coordinate and sign some combination of these
with weights y >= 0 on the latter is that coordinate but for less than 1 in the sum of absolute values, then
``|h| <= eps |h|`` with eps < 1, and h = 0. Coordinates are in units of the box's widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, permutations, product
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.exact import linalg
from exan_verify.exact.algebraic import Element
from exan_verify.exact.softmax import loss_vectors, loss_vectors_ball, to_ball
from exan_verify.kernel.algebraic import loss_vector, value_of
from exan_verify.kernel.cubes.listing import PRECISION, target_of
from exan_verify.kernel.cubes.relaxation import Cube, Letter, extent
from exan_verify.kernel.given import require

Point = tuple[Element, ...]


def told(cube: Cube, m: int) -> Cube:
    """The cube with the samples in sample m's region where the gradient has them; it tells the region's ``T =
    sum g [x ; 1]^T``, without biases ``sum g x^T`` (CB5).

    s samples with independent loss vectors, and independent [x ; 1] (without biases x): T has rank s, so that
    those of any other s samples span the same space. Equal samples, with biases and their own label: with s
    of them ``sum g' = s g`` and ``sum g' f' = s g f``, and g f is strictly convex in g, so that all g' and
    all f' are the own ones.
    """
    sums, members = cube.sums, cube.sums.members
    members.require_rational()
    require(m < len(cube.patterns), "there is no such sample")
    pattern = cube.patterns[m]
    own = [k for k, p in enumerate(sums.own) if p == pattern]
    here = [k for k, p in enumerate(cube.patterns) if p == pattern]
    require(len(own) == len(here), "the region has another number of samples than the batch has there")
    others = [p for p in dict.fromkeys((*cube.patterns, *sums.own)) if p != pattern]
    block = sums.region(pattern).system
    rest = np.concatenate([sums.region(p).system for p in others], axis=1) if others else block[:, :0]
    whole = linalg.rank(np.concatenate([block, rest], axis=1))
    require(whole == block.shape[1] + linalg.rank(rest), "the gradient does not tell the region's sum")
    inputs = members.points(own)
    if len(own) > 1 and len(set(inputs)) == 1:
        _require_equal(cube, own, here)
        sides = list(cube.sides)
        for k in here:
            sides[k * cube.features : (k + 1) * cube.features] = [(v, v) for v in inputs[0]]
        return replace(cube, sides=tuple(sides))
    bias = Fraction(int(members.network.has_bias))
    points = np.array([[*x, bias] for x in inputs], dtype=object)
    require(linalg.rank(points) == len(own), "the inputs in the region are dependent")
    require(_independent_losses(cube, own), "the loss vectors in the region are not shown to be independent")
    rows = linalg.nullspace(points).T
    if not bias:  # the constant is not seen
        rows = linalg.nullspace(points[:, :-1]).T
        rows = np.concatenate([rows, np.full((len(rows), 1), Fraction(0), dtype=object)], axis=1)
    for k in here:
        cube = replace(cube, spans={**cube.spans, k: rows}).narrowed(k)
    return cube


def _independent_losses(cube: Cube, own: list[int]) -> bool:
    """Whether the loss vectors of these members are independent."""
    members, loss = cube.sums.members, cube.loss
    logits, labels = members.rational_logits(own), members.labels_of(own)
    if loss.rational:
        return linalg.rank(loss_vectors(loss, logits, labels, 1)) == len(own)
    with flint.ctx.workprec(PRECISION):
        found = loss_vectors_ball(loss, logits, labels, 1, PRECISION)
        for rows in combinations(range(cube.classes), len(own)):
            entries = [found[c, k] for c in rows for k in range(len(own))]
            if not flint.arb_mat(len(own), len(own), entries).det().contains(0):
                return True
    return False


def _require_equal(cube: Cube, own: list[int], here: list[int]) -> None:
    members = cube.sums.members
    require(cube.loss is not Loss.HINGE, "loss vectors of hinge are not convex")
    require(members.network.has_bias, "without biases the sum of loss vectors is not told")
    places = {(x, members.labels[k]) for x, k in zip(members.points(own), own, strict=True)}
    require(len(places) == 1, "the batch's samples in the region are not equal")
    ((_, label),) = places
    target = target_of(label, cube.loss, cube.classes)
    letters = [cube.letter(k) for k in here]
    same = all(letter is not None and letter.target == target for letter in letters)
    require(same, "the labels in the region are not the batch's own")
    maps = cube.region(here[0]).logits[:, :-1]
    if cube.loss.zero_sum:  # a shift of all logits is not seen
        maps = maps[:-1] - maps[-1:]
    require(linalg.rank(maps) == maps.shape[1], "the logits do not tell the input")


def known_points(cube: Cube) -> list[Point]:
    """The orders of the members that fit the cube's regions, labels, orders and box, each once."""
    members, size = cube.sums.members, len(cube.patterns)
    targets = [target_of(label, cube.loss, cube.classes) for label in members.labels]
    found: list[Point] = []
    for order in permutations(range(size)):
        letters = [cube.letter(m) for m in range(size)]
        fits = all(
            letter is not None
            and cube.sums.own[n] == cube.patterns[m]
            and targets[n] == letter.target
            and _vector_fits(cube, letter, n)
            for m, (n, letter) in enumerate(zip(order, letters, strict=True))
        )
        point = tuple(v for n in order for v in members.inputs[n])
        if fits and point not in found and _inside(cube, point):
            found.append(point)
    return found


def _vector_fits(cube: Cube, letter: Letter, n: int) -> bool:
    """Hinge: whether member n has the letter's loss vector."""
    if letter.vector is None:
        return True
    members = cube.sums.members
    target = [members.field.constant(v) for v in letter.target]
    vector = loss_vector(members.field, cube.loss, members.logits[n], target)
    return [value_of(v) for v in vector] == list(letter.vector)


def _inside(cube: Cube, point: Point) -> bool:
    field = cube.sums.members.field

    def at_most(a: Element, b: Element) -> bool:
        return field.sign(field.plus(a, b, Fraction(-1))) <= 0

    in_box = all(
        (lo is None or at_most(field.constant(lo), v)) and (hi is None or at_most(v, field.constant(hi)))
        for v, (lo, hi) in zip(point, cube.sides, strict=True)
    )
    firsts = point[:: cube.features]
    same = [cube.in_order(m) for m in range(len(firsts) - 1)]
    return in_box and all(at_most(a, b) for a, b, k in zip(firsts, firsts[1:], same, strict=False) if k)


def alone(cube: Cube) -> bool:
    """Whether exactly one order of the members lies in the cube's box, and nothing else does."""
    require(len(cube.given) == len(cube.patterns), "a sample has no label")
    if any(end is None for side in cube.sides for end in side):
        return False
    points = known_points(cube)
    if len(points) != 1:
        return False
    moving = [k for k, (lo, hi) in enumerate(cube.sides) if lo != hi]
    if not moving:
        return True
    with flint.ctx.workprec(PRECISION):
        widths = [hi - lo for lo, hi in cube.sides if lo is not None and hi is not None]
        rows = jacobian(cube) + [[to_ball(v) for v in row] for row in _straight(cube)]
        slopes = [[row[k] * to_ball(widths[k]) for k in moving] for row in rows]
        tight = _tight(cube, points[0])[:, moving] * np.array([widths[k] for k in moving], dtype=object)
        return _rigid(slopes, tight)


def definite(cube: Cube, weights: Sequence[Fraction]) -> bool:
    """mse: an order p of the members lies in the box, and no other solution in the cube (CB7).

    The gradient's entries at p + h are ``J h + B(h, h)`` more than at p. With ``weights J = 0`` and ``S =
    weights B`` nowhere negative, a solution has S h = 0. If all B vanish where S does, J h = 0; and if J is
    injective there, h = 0.
    """
    require(cube.loss is Loss.MSE and len(cube.given) == len(cube.patterns), "forms are for labels under mse")
    cube.sums.members.require_rational()
    require(len(weights) == len(cube.sums.shares), "the gradient has another number of entries")
    points = known_points(cube)
    if not points:
        return False
    squares, slopes = cube.forms()
    at = np.array([value_of(v) for v in points[0]], dtype=object)
    jacobian = 2 * (squares @ at) + slopes
    y = np.array(weights, dtype=object)
    if np.any(y @ jacobian != 0):
        return False
    kernel = _kernel_of_form(np.tensordot(y, squares, axes=1))
    if kernel is None:
        return False
    flat = all(not linalg.multiply(kernel.T, linalg.multiply(b, kernel)).any() for b in squares)
    return flat and linalg.rank(linalg.multiply(jacobian, kernel)) == kernel.shape[1]


def _kernel_of_form(form: Array) -> Array | None:
    """A basis (n, k) of the vectors on which a form is zero, if it is nowhere negative: each pivot of the
    elimination is positive, or zero with its row.
    """
    rest = form.copy()
    while len(rest):
        pivot, row = rest[0, 0], rest[0, 1:]
        if pivot < 0 or (pivot == 0 and row.any()):
            return None
        rest = rest[1:, 1:] - (np.outer(row, row) / pivot if pivot else 0)
    return linalg.nullspace(form)


def _tight(cube: Cube, point: Point) -> Array:
    """Rows (n, coordinates) with ``row h >= 0`` for every other solution at p + h."""
    d, field = cube.features, cube.sums.members.field
    rows = []
    for m in range(len(cube.patterns)):
        x = [*point[m * d : (m + 1) * d], field.constant(Fraction(1))]
        neurons = len(cube.region(m).active)
        count = 1 + neurons + 2 * d
        numbers = list(range(1, count))
        letter = cube.letter(m)
        if letter is not None and letter.vector is not None:
            numbers += [count + k for k in range(cube.classes) if not letter.target[k]]
        for k in numbers:
            row, _ = cube.functional(m, k)
            value: Element = {}
            for rate, v in zip(row, x, strict=True):
                value = field.plus(value, v, rate)
            if field.sign(value) == 0:
                rows.append(_placed(cube, {m: row[:-1]}))
        if m + 1 < len(cube.patterns) and cube.in_order(m) and point[m * d] == point[(m + 1) * d]:
            first = linalg.identity(d)[0]
            rows.append(_placed(cube, {m: -first, m + 1: first}))
    return np.array(rows, dtype=object).reshape(-1, len(cube.sides))


def _straight(cube: Cube) -> list[Array]:
    """Rows that are zero on the difference of two solutions: of samples in a span."""
    return [_placed(cube, {m: row[:-1]}) for m, rows in cube.spans.items() for row in rows]


def _placed(cube: Cube, parts: dict[int, Array]) -> Array:
    out = np.full(len(cube.sides), Fraction(0), dtype=object)
    for m, row in parts.items():
        out[m * cube.features : (m + 1) * cube.features] += row
    return out


def jacobian(cube: Cube) -> list[list[Any]]:
    """Balls around the derivative of every entry of the gradient by every coordinate, over the box."""
    sums, d = cube.sums, cube.features
    width = d + sums.network.has_bias
    columns: list[list[list[Any]]] = []
    for m in range(len(cube.patterns)):
        system = cube.region(m).system.reshape(-1, sums.free, width)
        vector, gains = _vector(cube, m)
        x = [*(to_ball(lo).union(to_ball(hi)) for lo, hi in _bounded(cube, m)), flint.arb(1)]
        rows = []
        for entry in system:
            row = [flint.arb(0)] * d
            for c, rate in enumerate(entry):
                if not rate.any():
                    continue
                value = sum((to_ball(r) * v for r, v in zip(rate, x, strict=False) if r), flint.arb(0))
                for k in range(d):
                    row[k] = row[k] + value * gains[c][k] + (to_ball(rate[k]) * vector[c] if rate[k] else 0)
            rows.append(row)
        columns.append(rows)
    return [[v for row in rows for v in row] for rows in zip(*columns, strict=True)]


def _bounded(cube: Cube, m: int) -> list[tuple[Fraction, Fraction]]:
    return [(lo, hi) for lo, hi in cube.box(m) if lo is not None and hi is not None]


def _vector(cube: Cube, m: int) -> tuple[list[Any], list[list[Any]]]:
    """Balls around g over sample m's box, and around its derivatives (K, d)."""
    letter, logits, box = cube.letter(m), cube.region(m).logits, cube.box(m)
    assert letter is not None
    d = cube.features
    if letter.vector is not None:
        return [to_ball(v) for v in letter.vector], [[flint.arb(0)] * d] * cube.classes
    slopes = [[to_ball(v) for v in row[:-1]] for row in logits]
    if cube.loss is Loss.MSE:
        values = [
            2 * (_hull(extent(row, box)) - to_ball(y)) for row, y in zip(logits, letter.target, strict=True)
        ]
        return values, [[2 * s for s in row] for row in slopes]
    chances = []
    for c, own in enumerate(logits):
        others = [0 * own] if cube.loss is Loss.BCE else [row for k, row in enumerate(logits) if k != c]
        chances.append(1 / sum((_hull(extent(row - own, box)).exp() for row in others), flint.arb(1)))
    vector = [p - to_ball(y) for p, y in zip(chances, letter.target, strict=True)]
    if cube.loss is Loss.BCE:
        return vector, [[p * (1 - p) * s for s in row] for p, row in zip(chances, slopes, strict=True)]
    means = [
        sum((p * row[k] for p, row in zip(chances, slopes, strict=True)), flint.arb(0)) for k in range(d)
    ]
    return vector, [
        [p * (row[k] - means[k]) for k in range(d)] for p, row in zip(chances, slopes, strict=True)
    ]


def _hull(side: tuple[Fraction | None, Fraction | None]) -> Any:
    low, high = side
    require(low is not None and high is not None, "a box is not bounded")
    assert low is not None
    assert high is not None
    return to_ball(low).union(to_ball(high))


def _rigid(slopes: list[list[Any]], tight: Array) -> bool:
    """Whether ``J h = 0`` and ``tight h >= 0`` leave h = 0 for every J in the balls."""
    if not all(v.is_finite() for row in slopes for v in row):
        return False
    middle = np.array([[float(v.mid()) for v in row] for row in slopes])
    size = middle.shape[1]
    signs = (1, -1) if len(tight) else (1,)
    for i, sign in product(range(size), signs):
        weights, lifted = _guessed(middle, tight.astype(np.float64), i, sign)
        distance: Any = flint.arb(0)
        for k in range(size):
            share = sum((w * row[k] for w, row in zip(weights, slopes, strict=True)), flint.arb(0))
            share = share - sum(
                (y * to_ball(row[k]) for y, row in zip(lifted, tight, strict=True)), flint.arb(0)
            )
            distance += abs(share - (sign if k == i else 0))
        if not distance < 1:
            return False
    return True


def _guessed(slopes: Array, tight: Array, i: int, sign: int) -> tuple[list[Any], list[Any]]:
    """Weights with ``weights J - lifted A`` near the unit vector, lifted >= 0: any would be right."""
    goal = np.zeros(slopes.shape[1])
    goal[i] = sign
    if not len(tight):
        return [flint.arb(float(v)) for v in goal @ np.linalg.pinv(slopes)], []
    from scipy.optimize import nnls  # slow to load: only where a sample stands on the boundary

    n = len(slopes)
    try:
        found, _ = nnls(np.concatenate([slopes, -slopes, -tight]).T, goal)
    except RuntimeError:  # it did not converge
        return [flint.arb(0)] * n, [flint.arb(0)] * len(tight)
    return [flint.arb(float(v)) for v in found[:n] - found[n : 2 * n]], [
        flint.arb(max(float(v), 0.0)) for v in found[2 * n :]
    ]
