"""The general first-order family (docs/theory.md S4) on small networks: exact linear algebra over Q.

Fix every pattern. Motions dx with ``A_m dx_m = 0`` (mse) or margins that keep their state (hinge) leave the
loss vectors and so all deltas as they are; the gradient stays iff ``sum_m delta_i^m (J_{i-1}^m dx_m)^T = 0``
at every layer i. Both are linear: the batches of this kind are exactly X + L cut by the regions and the box,
a convex set. It is more than a point iff the tangent cone at X (zero pre-activations, tied margins, faces of
the box) is more than {0}; then a segment of batches leaves X.

For cross_entropy and bce the loss vectors are combinations of real symbols with rational coefficients
(:func:`symbols`). Asking the equations of every symbol separately gives a subfamily that is exact as well:
dead samples, samples with equal loss vectors, deltas that vanish whatever the symbols are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from exan_verify.core.arrays import PerLayer, fractions
from exan_verify.core.budget import Budget
from exan_verify.core.network import Array
from exan_verify.core.question import Loss
from exan_verify.decide.context import Context
from exan_verify.decide.families.cone import Cone, cone
from exan_verify.decide.families.radius import farther, second_batch
from exan_verify.decide.families.result import GENERATORS_SHOWN, Part, names, of_batches
from exan_verify.decide.motion import margins, masked, scaled
from exan_verify.exact.backprop import backward, jacobians
from exan_verify.exact.linalg import multiply, nullspace, pivots
from exan_verify.exact.softmax import loss_vectors

_MAX_UNKNOWNS = 160
_MAX_ENTRIES = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A linear family of batches: ``generators`` (M d, q) span its directions, ``inner`` (M, d) is a generic
    direction along which a segment of batches exists.
    """

    generators: Array
    inner: Array

    @property
    def dimension(self) -> int:
        """The exact dimension of the family."""
        return int(self.generators.shape[1])


def within_reach(context: Context) -> bool:
    """Whether the exact linear algebra of S4 is affordable here."""
    unknowns = context.samples * context.network.widths[0]
    rows = sum(min(a, context.samples) * b for a, b in _layer_sizes(context))
    symbols = 1 if context.question.loss.rational else context.samples * context.network.classes
    return unknowns <= _MAX_UNKNOWNS and symbols * rows * unknowns <= _MAX_ENTRIES


def family(context: Context) -> Family:
    """The family S4 of a batch: the whole of it for a rational loss."""
    maps = [jacobians(context.network, context.passed, m) for m in range(context.samples)]
    basis = scaled(nullspace(_equations(context, maps)))
    if not basis.shape[1]:
        return Family(generators=basis, inner=_no_steps(context))
    blocked = _blocked(context, maps)
    found: Cone = cone(
        multiply(blocked, basis) if len(blocked) else blocked, basis.shape[1], context.setting.seed
    )
    if not found.dimension:
        return Family(generators=basis[:, :0], inner=_no_steps(context))
    inner = multiply(basis, found.inner.reshape(-1, 1))
    return Family(generators=scaled(multiply(basis, found.span)), inner=inner.reshape(context.samples, -1))


def decide(context: Context, budget: Budget) -> Part:
    """Find the family S4 and second batches in it."""
    if not within_reach(context):
        return Part(note="the exact first-order system is too large here")
    budget.spend((context.samples * context.network.widths[0]) ** 3)
    found = family(context)
    if not found.dimension:
        return Part(note="no first-order family")
    movable = [m for m in range(context.samples) if found.inner[m].any()]
    batches = [b for b in (second_batch(context, found.inner),) if b is not None]
    batches += farther(context, found.generators, movable, batches, budget)
    reason = (
        f"a linear family of dimension {found.dimension} ({_exactness(context)}) moves {names(movable)} "
        "inside the regions and keeps the gradient"
    )
    part = of_batches(batches, note=reason, reason=reason)
    shape = (context.samples, context.network.widths[0])
    shown = tuple(
        found.generators[:, g].reshape(shape) for g in range(min(found.dimension, GENERATORS_SHOWN))
    )
    return replace(part, dimension=found.dimension, generators=shown)


def _exactness(context: Context) -> str:
    return "exact" if context.question.loss.rational else "at least"


def _layer_sizes(context: Context) -> list[tuple[int, int]]:
    return [(layer.shape[0], layer.shape[1]) for layer in context.network.layers]


def _equations(context: Context, maps: list[PerLayer[Array]]) -> Array:
    """One row per equation on vec(dX), sample by sample."""
    samples, d = context.samples, context.network.widths[0]
    rows: list[Array] = []
    loss, logits, labels = context.question.loss, context.passed.logits, context.batch.labels
    for vectors in [loss_vectors(loss, logits, labels, 1)] if loss.rational else symbols(context):
        for i, matrix in enumerate(backward(context.network, context.passed, vectors)):
            delta = matrix.fractions()
            inputs = [_hidden_jacobian(context, maps[m], i, m) for m in range(samples)]
            for r in pivots(delta.T):
                blocks = [inputs[m] * delta[r, m] for m in range(samples)]
                rows.extend(np.concatenate(blocks, axis=1))
    for m in range(samples):
        rows.extend(_embedded(row, m, samples) for row in logit_rows(context.question.loss, maps[m][-1]))
    kept = [row for row in rows if row.any()]
    return np.array(kept, dtype=object).reshape(len(kept), samples * d)


def symbols(context: Context) -> list[Array]:
    """Coefficients (K, M) of each real number that the loss vectors of cross_entropy or bce are made of.

    cross_entropy: ``softmax(f) - e_y`` is the sum over c != y of ``p_c (e_c - e_y)``, and p_c a function of
    the gaps f - f_y; with two classes, of one gap. bce: ``sigmoid(f) - y`` is sigmoid(f) for y = 0 and
    -sigmoid(-f) for y = 1. Equal functions of equal numbers are one symbol.
    """
    logits, labels = context.passed.logits, context.batch.labels
    found: dict[tuple[Any, ...], Array] = {}

    def add(name: tuple[Any, ...], m: int, row: int, amount: int) -> None:
        table = found.setdefault(name, np.full(logits.shape, Fraction(0), dtype=object))
        table[row, m] += amount

    for m in range(context.samples):
        if context.question.loss is Loss.BCE:
            for k, f in enumerate(logits[:, m]):
                sign = -1 if labels[m][k] else 1
                add((sign * f,), m, k, sign)
            continue
        own = int(labels[m])
        gaps = tuple(logits[:, m] - logits[own, m])
        for c in range(len(gaps)):
            if c != own:
                name = (gaps[c],) if len(gaps) == 2 else (gaps, own, c)
                add(name, m, c, 1)
                add(name, m, own, -1)
    return list(found.values())


def logit_rows(loss: Loss, jacobian: Array) -> list[Array]:
    """What must vanish at a motion that leaves the loss vector: logits, for cross_entropy up to a common
    shift, for hinge nothing (its margins are conditions).
    """
    if loss is Loss.HINGE:
        return []
    return list(jacobian[:-1] - jacobian[-1]) if loss is Loss.CROSS_ENTROPY else list(jacobian)


def _hidden_jacobian(context: Context, maps: PerLayer[Array], layer: int, m: int) -> Array:
    """``J_layer = dh_layer / dx`` of sample m (n_layer, d); the identity for layer 0."""
    if layer == 0:
        return fractions(np.eye(context.network.widths[0]))
    return masked(maps.at(layer), context.passed.pattern(layer)[:, m])


def _blocked(context: Context, maps: list[PerLayer[Array]]) -> Array:
    """Functionals of vec(dX) that must not grow: zero pre-activations, tied margins, faces of the box."""
    samples, d = context.samples, context.network.widths[0]
    rows = [_embedded(row, m, samples) for m in range(samples) for row in blocked_rows(context, maps[m], m)]
    return np.array(rows, dtype=object).reshape(len(rows), samples * d)


def blocked_rows(context: Context, maps: PerLayer[Array], m: int) -> list[Array]:
    """The functionals (d,) of sample m's motion that must not grow."""
    rows = [maps[i][j] for i, zeros in enumerate(context.passed.zeros) for j in np.flatnonzero(zeros[:, m])]
    if context.question.loss is Loss.HINGE:
        label = int(context.batch.labels[m])
        tied = np.flatnonzero(margins(context.passed.logits[:, m], label) == 0)
        rows += [maps[-1][c] - maps[-1][label] for c in tied]
    return [row for row in rows + _faces(context, m) if row.any()]


def _faces(context: Context, m: int) -> list[Array]:
    if context.question.domain is None:
        return []
    d = context.network.widths[0]
    lo, hi = context.question.domain.bounds(d)
    x, unit = context.batch.inputs[m], fractions(np.eye(d))
    return [-unit[k] for k in np.flatnonzero(x == lo)] + [unit[k] for k in np.flatnonzero(x == hi)]


def _embedded(row: Array, m: int, samples: int) -> Array:
    out = np.full(samples * len(row), Fraction(0), dtype=object)
    out[m * len(row) : (m + 1) * len(row)] = row
    return out


def _no_steps(context: Context) -> Array:
    return np.full((context.samples, context.network.widths[0]), Fraction(0), dtype=object)
