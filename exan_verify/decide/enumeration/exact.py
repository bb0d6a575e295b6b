"""Enumeration over Q (docs/theory.md Appendix E, E7): which rational subspaces contain every candidate.

For mse and hinge all coefficients of (*) are rational. The search is that of :mod:`.search`, one subspace at
a time and without residues: equality is equality, and a leaf that is no span of true samples is a set of real
solutions of the layer's equations, an *extra* one. For small layers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import numpy as np
import numpy.typing as npt

from exan_verify.core.arrays import PerLayer
from exan_verify.core.budget import Budget
from exan_verify.core.network import Array
from exan_verify.decide.context import Context
from exan_verify.decide.lifting.system import Plan, exact_outgoing
from exan_verify.exact.backprop import backward
from exan_verify.exact.linalg import identity
from exan_verify.exact.rational import RationalMatrix
from exan_verify.exact.softmax import loss_vectors
from exan_verify.exclusivity import Groups

Vector = tuple[int, ...]
Subspace = tuple[Vector, ...]
"""A basis in reduced row echelon form with primitive integer rows: equal subspaces have equal bases."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """The equations (*) of one layer over Q, with everything that a batch must fit.

    ``inactive`` and ``active``: functionals on (q, u) per neuron with a non-zero delta, up to positive
    factors. ``truth`` (M, N): row m is (e_m, u_m). ``deltas``: Delta_1 .. Delta_L. ``outgoing`` (n, K'): w_j
    on the unknowns of u.
    """

    plan: Plan
    inactive: tuple[Vector, ...]
    active: tuple[Vector, ...]
    truth: Array
    deltas: PerLayer[RationalMatrix]
    outgoing: Array

    @property
    def samples(self) -> int:
        """M."""
        return len(self.truth)

    @property
    def groups(self) -> Groups:
        """The samples that share the layer's pattern."""
        return self.plan.groups


def problem(context: Context, plan: Plan, neurons: npt.NDArray[np.int64]) -> Problem:
    """The equations of ``plan`` for a rational loss; ``neurons`` (n,) in the order they are taken in."""
    vectors = loss_vectors(
        context.question.loss, context.passed.logits, context.batch.labels, context.divisor
    )
    deltas = backward(context.network, context.passed, vectors)
    delta, following = (deltas[k].fractions() for k in (plan.layer - 1, plan.layer))
    outgoing, coordinates = exact_outgoing(context, plan, following)
    truth = np.concatenate([identity(context.samples), coordinates.T], axis=1)
    nothing = [Fraction(0)] * outgoing.shape[1]
    return Problem(
        plan=plan,
        inactive=tuple(integers([*delta[j], *nothing]) for j in neurons),
        active=tuple(integers([*delta[j], *(-outgoing[j])]) for j in neurons),
        truth=truth,
        deltas=deltas,
        outgoing=outgoing,
    )


def subspaces(searched: Problem, budget: Budget, most: int) -> list[Subspace] | None:
    """Subspaces with some q != 0 that contain every candidate, none inside another; None when there are more
    than ``most`` on the way or the budget ran out.
    """
    variables = searched.truth.shape[1]
    whole: Subspace = tuple(tuple(int(i == k) for k in range(variables)) for i in range(variables))
    current = {whole}
    for inactive, active in zip(searched.inactive, searched.active, strict=True):
        following: set[Subspace] = set()
        for subspace in current:
            following.update(_children(subspace, inactive, active, searched.samples))
        budget.spend(sum(2 * len(subspace) * variables for subspace in current))
        current = following
        if len(current) > most or budget.exhausted:
            return None
    return maximal(current)


def maximal(found: set[Subspace]) -> list[Subspace]:
    """Without the subspaces that lie in others; largest first, in a fixed order."""
    kept: list[Subspace] = []
    for subspace in sorted(found, key=lambda s: (-len(s), s)):
        larger = (other for other in kept if len(other) > len(subspace))
        if not any(all(not any(reduced(row, other)) for row in subspace) for other in larger):
            kept.append(subspace)
    return kept


def reduced(vector: Vector, subspace: Subspace) -> Vector:
    """A multiple of ``vector`` minus its part in the span; zero iff it lies in the span."""
    for row in subspace:
        pivot = _pivot(row)
        if vector[pivot]:
            vector = _combined(vector, row[pivot], row, -vector[pivot])
    return vector


def joined(left: Subspace, right: Subspace) -> Subspace:
    """The sum of two subspaces."""
    rows = list(left)
    for vector in right:
        rest = reduced(vector, tuple(rows))
        if any(rest):
            pivot = _pivot(rest)
            rows = [_positive(_combined(r, rest[pivot], rest, -r[pivot])) if r[pivot] else r for r in rows]
            rows = sorted([*rows, _positive(rest)], key=_pivot)
    return tuple(rows)


def integers(vector: list[Fraction]) -> Vector:
    """The primitive integer vector on the same ray."""
    scale = lcm(1, *(v.denominator for v in vector))
    return _primitive([int(v * scale) for v in vector])


def value(functional: Vector, vector: Vector) -> int:
    """The functional on the vector."""
    return sum(a * b for a, b in zip(functional, vector, strict=True))


def in_span_of(subspace: Subspace, members: tuple[int, ...], truth: Array) -> bool:
    """Whether every (q, u) of the subspace is a combination of the true samples ``members``."""
    q = np.array([row[: len(truth)] for row in subspace], dtype=object)
    outside = [m for m in range(len(truth)) if m not in set(members)]
    return not np.any(q[:, outside]) and bool(np.all(q @ truth == np.array(subspace, dtype=object)))


def _children(subspace: Subspace, inactive: Vector, active: Vector, samples: int) -> list[Subspace]:
    values = [[value(functional, row) for row in subspace] for functional in (inactive, active)]
    if not all(map(any, values)):
        return [subspace]
    cuts = (_cut(subspace, column) for column in values)
    return [cut for cut in cuts if any(any(row[:samples]) for row in cut)]


def _cut(subspace: Subspace, values: list[int]) -> Subspace:
    """Where a functional with these values on the basis is zero: as :meth:`.subspaces.Subspaces.cut`."""
    last = max(k for k, v in enumerate(values) if v)
    return tuple(
        _positive(_combined(row, values[last], subspace[last], -values[k])) if values[k] else row
        for k, row in enumerate(subspace)
        if k != last
    )


def _pivot(row: Vector) -> int:
    return next(k for k, v in enumerate(row) if v)


def _combined(left: Vector, a: int, right: Vector, b: int) -> Vector:
    return _primitive([a * x + b * y for x, y in zip(left, right, strict=True)])


def _primitive(vector: list[int]) -> Vector:
    divisor = gcd(*vector)
    return tuple(v // divisor for v in vector) if divisor > 1 else tuple(vector)


def _positive(vector: Vector) -> Vector:
    leading = next((v for v in vector if v), 1)
    return vector if leading > 0 else tuple(-v for v in vector)
