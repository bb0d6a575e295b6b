"""MSE orbits (docs/theory.md S1): ``X' = O X`` for orthogonal O that fix 1 and the targets Y of a region.

With E a basis of the complement of span [1, Y], every skew N with N 1 = 0, N Y = 0 is E K E^T for a skew K,
and the Cayley transform ``O = (I - N)(I + N)^-1`` is orthogonal, rational, and fixes 1 and Y. Pre-activations
are affine in x inside the region, so they turn with X: z' = O z. With a one-dimensional complement there is
one reflection instead. Without biases 1 need not be fixed, because the logits are linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from random import Random

import numpy as np
import numpy.typing as npt

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Move, SecondBatch
from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.cone import cone
from exan_verify.decide.families.regions import shared_regions
from exan_verify.decide.families.result import Part, names, of_batches
from exan_verify.decide.second_batch import Accepted, accept
from exan_verify.exact.backprop import affine
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.linalg import multiply, nullspace, rank, solve
from exan_verify.exact.rational import RationalMatrix

_WINDOW = 8
_PLANES = 6
_FARTHEST = 2
_SCALES = [
    Fraction(2) ** k * Fraction(s, 4) for k in range(4, -26, -1) for s in ((7, 6, 5, 4) if k > -4 else (4,))
]


def decide(context: Context, budget: Budget) -> Part:
    """Second batches on the orbits of every shared region, for one_hot and known labels."""
    if context.question.loss is not Loss.MSE or context.question.labels is Labels.REAL:
        return Part(note="")
    found: list[Accepted] = []
    dimension, notes = 0, []
    for group in shared_regions(context):
        for window in _windows(group):
            budget.spend(len(window) ** 4 * context.network.widths[0])
            if budget.exhausted:
                break
            complement = complement_of_labels(context, window)
            batches = _of_window(context, window, complement)
            found += batches
            if batches:
                dimension = max(dimension, _dimension(context, window, complement))
            notes.append(f"{names(window)}: {complement.shape[1]} dimensions that the labels leave")
    if not found:
        return Part(note="no orbit stays in its region (" + ", ".join(notes) + ")" if notes else "")
    moved = sorted(frozenset().union(*(item.facts.free for item in found)))
    what = f"a continuous orbit (dimension {dimension})" if dimension else "a reflection"
    reason = f"{what} of mse keeps the second moments of {names(moved)} and so the gradient"
    part = of_batches(found, note=reason, reason=reason)
    return replace(part, dimension=dimension) if dimension else part


def complement_of_labels(context: Context, group: Sequence[int]) -> Array:
    """E (|S|, |S| - r): a basis of the complement of span [1, Y], of span Y without biases."""
    targets = fractions(context.batch.labels[list(group)]).T
    if context.network.has_bias:
        targets = np.concatenate([targets, np.full((1, len(group)), Fraction(1), dtype=object)])
    return nullspace(targets)


def _windows(group: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The group, or overlapping parts of it when it is large (shorter numbers, same facts)."""
    if len(group) <= _WINDOW:
        yield group
        return
    for start in range(0, len(group) - _WINDOW // 2, _WINDOW // 2):
        yield group[max(0, min(start, len(group) - _WINDOW)) :][:_WINDOW]


def _dimension(context: Context, group: Sequence[int], complement: Array) -> int:
    """Dimension of the orbit of SO(e) on E^T X where nothing blocks it, 0 for a reflection."""
    e = complement.shape[1]
    if _tied(context, group).any():
        return 0
    rest = e - rank(multiply(complement.T, fractions(context.batch.inputs[list(group)])))
    return int(e * (e - 1) // 2 - rest * (rest - 1) // 2)


def _of_window(context: Context, group: tuple[int, ...], complement: Array) -> list[Accepted]:
    if (
        not complement.shape[1]
        or not multiply(complement.T, fractions(context.batch.inputs[list(group)])).any()
    ):
        return []
    if complement.shape[1] == 1:
        reflected = _mixed(context, group, _reflection(complement))
        return [] if reflected is None else [reflected]
    found = []
    for plane in _planes(context, group, complement):
        found += _along(context, group, multiply(multiply(complement, plane), complement.T))
    return found


def _planes(context: Context, group: tuple[int, ...], complement: Array) -> Iterator[Array]:
    """Skew K (e, e) to try: one that unblocks what can be unblocked, then random ones."""
    e = complement.shape[1]
    pairs = list(combinations(range(e), 2))
    free = cone(_blocked(context, group, complement, pairs), len(pairs), context.setting.seed)
    if free.dimension:
        yield _skew(free.inner, pairs, e)
    rng = Random(f"orbits/{context.setting.seed}/{group}")
    for _ in range(_PLANES if e > 2 else 0):
        yield _skew([Fraction(rng.randint(-8, 8)) for _ in pairs], pairs, e)


def _blocked(
    context: Context, group: tuple[int, ...], complement: Array, pairs: list[tuple[int, int]]
) -> Array:
    """Functionals of K that must not grow: the first-order motion ``-2 N z`` of what stands at a limit."""
    values, tied = _limits(context, group), _tied(context, group)
    rows = []
    for column in np.flatnonzero(tied.any(axis=0)):
        coordinates = complement.T @ values[:, column]
        for m in np.flatnonzero(tied[:, column]):
            here = complement[m]
            # oriented so that the condition is "value >= 0": (N z)_m must not grow
            rows.append([here[a] * coordinates[b] - here[b] * coordinates[a] for a, b in pairs])
    return np.array(rows, dtype=object).reshape(len(rows), len(pairs))


def _along(context: Context, group: tuple[int, ...], skew: Array) -> list[Accepted]:
    """Points of the curve ``Cayley(s N) X`` that stay in the region: those that look farthest from X, and
    the nearest one that stays when those do not hold up exactly.
    """
    limits, tied = _limits(context, group), _tied(context, group)
    values, inputs = guessed(limits), guessed(context.batch.inputs[list(group)])
    size = max(abs(v) for v in skew.reshape(-1)) if skew.any() else Fraction(1)
    rotations = [_cayley(skew * (scale * sign / size)) for scale in _SCALES for sign in (1, -1)]
    likely = [r for r in rotations if _may_stay(r, values, tied)]
    ranked = sorted(likely, key=lambda r: -_seeming_distance(r, inputs))
    found: list[Accepted] = []
    for rotation in [*ranked[:_FARTHEST], *likely[::-1]]:
        item = _mixed(context, group, rotation)
        found += [item] if item is not None else []
        if len(found) >= _FARTHEST:
            break
    return found


def _seeming_distance(rotation: Array, inputs: npt.NDArray[np.float64]) -> float:
    """The least L-infinity distance between a sample and a rotated sample (floating point: a ranking)."""
    with np.errstate(all="ignore"):
        turned = guessed(rotation) @ inputs
        return float(np.abs(inputs[:, None, :] - turned[None, :, :]).max(axis=2).min())


def _may_stay(rotation: Array, values: npt.NDArray[np.float64], tied: Array) -> bool:
    """In floating point: whether all conditions seem to hold after the rotation (only a filter)."""
    with np.errstate(all="ignore"):
        turned = guessed(rotation) @ values
        return bool(np.all(turned >= np.where(tied, -1e-9, 0.0) * np.abs(values).max(initial=1.0)))


def _limits(context: Context, group: Sequence[int]) -> Array:
    """Every condition of the group as ``value >= 0`` (|S|, count): neurons by their state, box faces."""
    chosen = list(group)
    here = RationalMatrix.of(np.ascontiguousarray(context.batch.inputs[chosen].T))
    columns = []
    for layer, pattern in zip(context.network.layers[:-1], context.passed.patterns, strict=True):
        z = affine(layer, here)
        columns.append(z.fractions() * np.where(pattern[:, chosen], 1, -1))
        here = z.masked(pattern[:, chosen])
    if context.question.domain is not None:
        lo, hi = context.question.domain.bounds(context.batch.inputs.shape[1])
        x = fractions(context.batch.inputs[chosen])
        columns += [(x - fractions(lo)).T, (fractions(hi) - x).T]
    if not columns:
        return np.empty((len(chosen), 0), dtype=object)
    return np.concatenate(columns).T


def _tied(context: Context, group: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Where a condition stands at its limit."""
    found: npt.NDArray[np.bool_] = _limits(context, group) == 0
    return found


def _mixed(context: Context, group: tuple[int, ...], matrix: Array) -> Accepted | None:
    moves = tuple(
        Move(sample=m, mix=tuple((k, str(v)) for k, v in zip(group, row, strict=True) if v))
        for m, row in zip(group, matrix, strict=True)
    )
    return accept(context, SecondBatch(moves=moves))


def _cayley(skew: Array) -> Array:
    """``(I - N)(I + N)^-1``; I + N is invertible because the eigenvalues of N are imaginary."""
    identity = fractions(np.eye(len(skew)))
    found = solve(identity + skew, identity - skew)
    assert found is not None
    return found


def _reflection(normal: Array) -> Array:
    scale = Fraction(2) / sum(v * v for v in normal[:, 0])
    matrix: Array = fractions(np.eye(len(normal))) - multiply(normal, normal.T) * scale
    return matrix


def _skew(entries: Sequence[Fraction] | Array, pairs: list[tuple[int, int]], size: int) -> Array:
    out = np.full((size, size), Fraction(0), dtype=object)
    for value, (a, b) in zip(entries, pairs, strict=True):
        out[a, b], out[b, a] = value, -value
    return out
