"""mse with equal samples: a combination of the gradient equations that is a definite quadratic form.

In a cube the equations at the known batch u read ``J h + B(h, h) = 0`` in the displacement h. Equal samples
make J singular, and no ball around u is excluded by its inverse. But if ``y^T J = 0`` and ``y^T B`` is
positive definite up to W, it forces h into W. Here W consists of motions of single samples that no logit
sees; on W all B(h, h) vanish, so J h = 0, and h = 0 if J is injective there (docs/theory.md, appendix C).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.network import Array
from exan_verify.exact import linalg
from exan_verify.exact.linalg import identity
from exan_verify.exact.regions import Region
from exan_verify.smt.question.isolate import shifted
from exan_verify.smt.question.terms import Poly

STARTS, STEPS = 8, 400
"""The least eigenvalue is concave in the weights, but on a sphere an ascent may end where it is negative:
then another start is tried. A step shrinks by 1 % each time, to a fiftieth of the first."""

GRID = 1 << 24
"""Weights are rounded to this grid: far finer than the eigenvalue ratio of 1e-4 that is asked of them."""

MAX_ENTRIES = 20_000
"""Entries of all forms together that are combined over Q: a second or two, which cannot be interrupted."""


def definite(equations: Sequence[Poly], solution: Mapping[str, Fraction], silent: Array) -> bool:
    """Whether ``solution`` is the only zero of equations of degree two.

    ``silent`` (unknowns, w): a basis of W, unknowns in the order of ``solution``.
    """
    names = list(solution)
    if len(equations) * len(names) ** 2 > MAX_ENTRIES:
        return False
    moved = [shifted(e, solution) for e in equations]
    if any(e.degree > 2 for e in moved):
        return False
    jacobian = np.array([[e.terms.get((n,), Fraction(0)) for n in names] for e in moved], dtype=object)
    return definite_weights(jacobian, [_form(e, names) for e in moved], silent) is not None


def definite_weights(jacobian: Array, forms: Sequence[Array], silent: Array) -> Array | None:
    """Weights y (equations,) with ``y^T J = 0`` and ``y^T B`` zero on W against everything and positive
    definite up to W, where J is injective on W and all B vanish there; None where none is found.

    ``jacobian`` (equations, unknowns), ``forms`` one (unknowns, unknowns) for each equation.
    """
    if silent.shape[1] and not _linear_and_injective(jacobian, forms, silent):
        return None
    rest = _complement(silent)
    if not rest.shape[1]:
        return np.full(len(forms), Fraction(0), dtype=object)
    chosen, basis = _combinations(jacobian, forms, silent)
    reduced = [linalg.multiply(rest.T, linalg.multiply(f, rest)) for f in basis]
    found = _definite_combination(reduced) if reduced else None
    if found is None:
        return None
    weights: Array = np.array(found, dtype=object) @ chosen
    return weights


def silent_motions(regions: Sequence[Region], size: int) -> Array:
    """Motions of single samples that no logit sees: a basis of W, (M d, w), a region per sample and ``size``
    inputs each.
    """
    parts = [linalg.nullspace(region.logits[:, :-1]) for region in regions]
    out = np.full((len(parts) * size, sum(p.shape[1] for p in parts)), Fraction(0), dtype=object)
    column = 0
    for m, part in enumerate(parts):
        out[m * size : (m + 1) * size, column : column + part.shape[1]] = part
        column += part.shape[1]
    return out


def _linear_and_injective(jacobian: Array, forms: Sequence[Array], silent: Array) -> bool:
    flat = all(not linalg.multiply(silent.T, linalg.multiply(f, silent)).any() for f in forms)
    return flat and linalg.rank(linalg.multiply(jacobian, silent)) == silent.shape[1]


def _combinations(jacobian: Array, forms: Sequence[Array], silent: Array) -> tuple[Array, list[Array]]:
    """Weights y (n, equations), and independent forms ``y^T B`` with ``y^T J = 0`` that vanish on W against
    everything.
    """
    conditions = [jacobian.T]
    if silent.shape[1]:
        seen = np.array([linalg.multiply(f, silent).reshape(-1) for f in forms], dtype=object)
        conditions.append(seen.T)
    chosen = linalg.nullspace(np.concatenate(conditions))
    flat = np.array([f.reshape(-1) for f in forms], dtype=object)
    found = linalg.multiply(chosen.T, flat) if chosen.shape[1] else np.empty((0, flat.shape[1]), dtype=object)
    size, kept = forms[0].shape[0], linalg.pivots(found.T) if len(found) else []
    scales = [max(abs(v) for v in found[k]) for k in kept]
    weights = np.array([chosen[:, k] / s for k, s in zip(kept, scales, strict=True)], dtype=object)
    return weights, [(found[k] / s).reshape(size, size) for k, s in zip(kept, scales, strict=True)]


def _definite_combination(forms: Sequence[Array]) -> list[Fraction] | None:
    """Search in floating point for a combination with positive eigenvalues; prove it over Q."""
    floats = np.array(forms).astype(np.float64)
    rng = np.random.default_rng(0)
    for _ in range(STARTS):
        weights = _ascend(floats, rng.normal(size=len(forms)))
        if weights is not None:
            exact = [Fraction(round(float(w) * GRID), GRID) for w in weights]
            total = sum((f * w for f, w in zip(forms, exact, strict=True)), 0 * forms[0])
            if _positive_definite(total):
                return exact
    return None


def _ascend(forms: np.ndarray, weights: np.ndarray) -> np.ndarray | None:
    """Subgradient ascent of the least eigenvalue on the unit sphere."""
    step = 0.3
    for _ in range(STEPS):
        poll()
        weights = weights / np.linalg.norm(weights)
        values, vectors = np.linalg.eigh(np.tensordot(weights, forms, axes=1))
        if values[0] > 1e-4 * values[-1] > 0:
            return weights
        weights = weights + step * (vectors[:, 0] @ forms @ vectors[:, 0])
        step *= 0.99
    return None


def _positive_definite(matrix: Array) -> bool:
    """Sylvester's criterion, by exact elimination."""
    rest = matrix.copy()
    while len(rest):
        poll()
        pivot = rest[0, 0]
        if pivot <= 0:
            return False
        rest = rest[1:, 1:] - np.outer(rest[1:, 0], rest[0, 1:]) / pivot
    return True


def _form(polynomial: Poly, names: Sequence[str]) -> Array:
    place = {n: k for k, n in enumerate(names)}
    out = np.full((len(names), len(names)), Fraction(0), dtype=object)
    for monomial, c in polynomial.terms.items():
        if len(monomial) == 2:
            a, b = (place[n] for n in monomial)
            out[a, b] += c / 2
            out[b, a] += c / 2
    return out


def _complement(silent: Array) -> Array:
    """Unit vectors that complete W to the whole space."""
    units = identity(silent.shape[0])
    chosen = linalg.pivots(np.concatenate([silent, units], axis=1))
    return units[:, [k - silent.shape[1] for k in chosen if k >= silent.shape[1]]]
