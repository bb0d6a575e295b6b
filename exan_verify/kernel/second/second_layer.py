"""Motions that the second layer does not see: its equations, and a step to the exact motion, for
:mod:`exan_verify.kernel.second.inwards` (docs/theory.md section 4, narrow first layer).

P = A W_1^T are the steps of the first pre-activations, none of which is zero, D their pattern, U the weight
of the second layer, G = Delta_2. Where the second layer is the last one and loss vectors sum to zero, U
stands for the differences from its last row, and G for the other rows. Small steps keep the patterns, and
with

    (a)  U (D_m p_m) = 0 for every sample m,        (b)  V := sum_m G_m (D_m p_m)^T = 0

also all loss vectors and deltas, hence by E A = 0 dW_1, and by (b) dW_2; nothing else depends on P. P = 0,
the first layer's condition, is more equations where the second layer is narrow.

Some of (a) and (b) follow from ``E P = 0`` and from the others, which are all that is asked, in this order:

1. A neuron that is active for few of the samples, or a sample with few active neurons, is asked ``P_mj = 0``
   for these, which says more. Of such a neuron whose row E_j is in E one entry with ``E_jm != 0`` is left
   out: ``(E P)_jj = sum_m E_jm P_mj = 0``.
2. ``sum_m G_m . U D_m p_m`` is the trace of E P where all live neurons are in E: then one equation of (a),
   with G_cm != 0, is left out.
3. ``V U^T = sum_m G_m (U D_m p_m)^T = 0`` by (a), and ``(U^T V)_jj = (E P)_jj = 0`` where E_j is in E. These
   are rational equations in V. Entries of V on which they have full column rank (mod p: a proof) are zero
   where the other entries are, and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import fractions
from exan_verify.core.budget import poll
from exan_verify.exact.balls import BallMatrix, Floats, ball_matrix, midpoints, upper
from exan_verify.exact.elimination import PRIMES, floats, reduced_echelon
from exan_verify.exact.modular import residues
from exan_verify.exact.rational import Mask
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.second.first_layer import FirstLayer, Inverse, above, part_of

MAX_STEPS = 1 << 24
"""Entries of the right inverse of the equations: samples times neurons times equations."""

MAX_PRODUCTS = 1 << 33
"""Of its computation in floats: seconds."""

_ROUNDING = 2.0**-40
"""More than n 2^-53 / (1 - n 2^-53), the relative error of float64 sums of n <= 4096 products in any
order."""


@dataclass(frozen=True, slots=True, eq=False)
class Equations:
    """``balls`` (k, p) times the p entries of P at ``samples`` and ``neurons`` are k of the left sides."""

    samples: Any
    neurons: Any
    balls: Any

    @property
    def middle(self) -> Floats:
        """Floats near the coefficients."""
        return midpoints(self.balls)

    @property
    def radius(self) -> Floats:
        """How far the coefficients are from :attr:`middle` at most."""
        return upper(self.balls - ball_matrix(self.middle))

    def of(self, steps: Any) -> Any:
        """The left sides (k, 1) as balls, for balls P (S, n)."""
        chosen = [steps[int(m), int(j)] for m, j in zip(self.samples, self.neurons, strict=True)]
        return self.balls * flint.arb_mat(len(chosen), 1, chosen)


def equations_of(
    subject: Subject, chosen: list[int], neurons: Any, delta: Any, owners: Any
) -> list[Equations]:
    """What is asked of P (S, neurons). ``delta``: the balls E (r, S), ``owners`` the neurons of its rows."""
    passed, question, network = subject.passed, subject.question, subject.network
    require(network.depth > 1, "there is no second layer")
    still = ~passed.zeros[0][np.ix_(neurons, chosen)]
    require(bool(still.all()), "a pre-activation is zero, and may not move")
    active = passed.patterns[0][np.ix_(neurons, chosen)]
    rows = len(network.layers[1].weight)
    size = max((rows**2 + len(neurons)) * rows * len(neurons), rows * len(neurons) * len(chosen))
    require(size <= MAX_STEPS, "the second layer is too wide")
    weight = fractions(network.layers[1].weight[:, neurons])
    outer = subject.deltas[1]
    alive = np.arange(rows)
    if network.depth == 2 and question.loss.zero_sum:
        weight = weight[:-1] - weight[-1]
        alive = alive[:-1]
    elif network.depth > 2:
        on = np.all([pattern.any(axis=0) for pattern in passed.patterns[1:]], axis=0) & passed.patterns[1]
        alive = np.flatnonzero(on[:, chosen].any(axis=1))
    g = part_of(outer, alive, chosen)
    left = active & ~_few(active, len(alive), len(weight))
    alone = active & ~left
    for row, owner in enumerate(owners):
        for j in np.flatnonzero((neurons == owner) & ~left.any(axis=1)):
            known = [m for m in np.flatnonzero(alone[j]) if not delta[row, int(m)].contains(0)]
            alone[j, known[:1]] = False
    asked = [Equations([m], [j], flint.arb_mat(1, 1, [1])) for j, m in np.argwhere(alone)]
    balls = ball_matrix(weight)
    whole = np.flatnonzero(left.any(axis=0))
    spare: tuple[int, int] | None = None
    if np.isin(neurons[active.any(axis=1)], owners).all():
        spare = _surely_not_zero(g, alive, whole)
    for m in whole:
        own = np.flatnonzero(active[:, m])
        kept = [c for c in range(len(weight)) if (c, int(m)) != spare]
        asked.append(Equations(np.full(len(own), m), own, part_of(balls, kept, own)))
    together = np.flatnonzero(left.any(axis=1))
    implied = _implied(weight[:, together], alive, np.isin(neurons[together], owners))
    for j, known in zip(together, implied.T, strict=True):
        members, others = np.flatnonzero(active[j]), np.flatnonzero(~known)
        if len(others):
            asked.append(Equations(members, np.full(len(members), j), part_of(g, others, members)))
    return asked


def _few(active: Mask, of_neuron: int, of_sample: int) -> Mask:
    """Where a neuron is active for at most ``of_neuron`` samples, or a sample has at most ``of_sample``
    active neurons, not counting entries that belong to such a one already; ``active`` (n, S).
    """
    found = np.zeros(active.shape, dtype=bool)
    while True:
        left = active & ~found
        more = (left.sum(axis=1) <= of_neuron)[:, None] | (left.sum(axis=0) <= of_sample)
        if not (left & more).any():
            return found
        found |= more


def _surely_not_zero(g: BallMatrix, alive: Any, samples: Any) -> tuple[int, int] | None:
    """Row and sample of the largest entry of G that cannot be zero, among ``samples``."""
    entries = [0.0 if v.contains(0) else abs(float(v.mid())) for v in g.entries()]
    size = np.array(entries).reshape(g.nrows(), g.ncols())
    if not size[:, samples].any():
        return None
    c, m = np.unravel_index(int(np.argmax(size[:, samples])), (len(size), len(samples)))
    return int(alive[c]), int(samples[m])


def _implied(weight: Any, alive: Any, owned: Mask) -> Mask:
    """Entries of V (rows ``alive`` of the second layer, neurons) that are zero where all others are."""
    prime, (count, size) = PRIMES[0], weight.shape
    if not len(alive) * size:
        return np.zeros((len(alive), size), dtype=bool)
    u = floats(residues(weight, prime), prime).reshape(count, size)
    rows = [np.kron(np.eye(len(alive)), u)]  # V U^T, entry by entry
    for j in np.flatnonzero(owned):  # (U^T V)_jj
        row = np.zeros((len(alive), size))
        row[:, j] = u[alive, j]
        rows.append(row.reshape(1, -1))
    matrix = np.ascontiguousarray(np.concatenate(rows))
    pivots = reduced_echelon(matrix, matrix.shape[1], prime)
    found = np.zeros(len(alive) * size, dtype=bool)
    found[pivots[pivots >= 0]] = True
    return found.reshape(len(alive), size)


@dataclass(frozen=True, slots=True, eq=False)
class SecondLayer:
    """The step to a motion that meets ``asked``: with floats T (S, n, N), ``|asked T - I| <= tau < 1/2`` once
    T is brought into the kernel of E, the exact step is ``- R T M^-1 asked(A' W^T)``, R the projection to the
    kernel.

    ``reach`` (S, n): the row sums of |T| after projection, over 1 - tau.
    """

    first: FirstLayer
    asked: Sequence[Equations]
    steps: Floats
    reach: Floats

    @classmethod
    def of(cls, first: FirstLayer, asked: Sequence[Equations], everyone: Inverse) -> SecondLayer:
        """``first``: the first layer on the features of the motion, ``everyone``: the right inverse of E."""
        count = sum(part.balls.nrows() for part in asked)
        rows, size = everyone.matrix.nrows(), everyone.matrix.ncols()
        neurons = first.weight.nrows()
        free = size - rows
        require(
            max(rows, size, neurons) <= 4096 and size * neurons * count <= MAX_STEPS, "too many equations"
        )
        require(count <= free * neurons, f"{count} equations of {free * neurons} unknowns")
        require(count**2 * free * neurons <= MAX_PRODUCTS, "too many equations")
        steps = _steps(asked, count, everyone, neurons)
        poll()
        # 1. E T, and with it what T loses where it is projected to the kernel of E
        e = midpoints(everyone.matrix)
        radius = upper(everyone.matrix - ball_matrix(e))
        flat = steps.reshape(size, -1)
        off = _most(e, radius, flat).reshape(rows, neurons, count).max(axis=0, initial=0.0)
        lost = above(np.outer(everyone.gain, above(off.sum(axis=1))))  # |R'E T|, summed over the equations
        # 2. the row sums of asked (T - R'E T) - I
        total, start = np.zeros(count), 0
        for part in asked:
            own = steps[part.samples, part.neurons]
            middle, spread = part.middle, part.radius
            unit = np.eye(count)[start : start + len(middle)]
            value = np.abs(middle @ own - unit) + 2.0**-52 + _error(middle, spread, own)
            far = upper(part.balls) @ lost[part.samples, part.neurons]
            total[start : start + len(middle)] = above(above(value.sum(axis=1)) + above(far))
            start += len(middle)
        tau = total.max(initial=0.0)
        require(bool(tau < 0.5), "the equations of the second layer are not shown to be independent")
        return cls(first, asked, steps, above((above(np.abs(steps).sum(axis=2)) + lost) / (1 - tau)))

    @property
    def count(self) -> int:
        """N."""
        return int(self.steps.shape[2])

    def cleaned(self, near: Floats) -> Floats:
        """Floats that meet the equations more nearly."""
        seen = near @ midpoints(self.first.weight).T
        off = np.zeros(self.count)
        if self.asked:
            off = np.concatenate([part.middle @ seen[part.samples, part.neurons] for part in self.asked])
        found = near.copy()
        found[:, self.first.whole] -= (self.steps @ off) @ self.first.inverse.floats.T
        return found

    def bound(self, near: Floats, error: Floats) -> Floats:
        """How far A* is from A' at most."""
        seen = ball_matrix(near) * self.first.weight.transpose()
        change = above(error @ self.first.absolute.T)  # |(A' - A^) W^T|
        most = 0.0
        for part in self.asked:
            absolute = upper(part.balls)
            more = absolute @ change[part.samples, part.neurons]
            most = max(most, above(upper(part.of(seen))[:, 0] + above(more)).max(initial=0.0))
        step = above(self.reach * most).max(axis=1, initial=0.0)
        found = np.zeros(near.shape)
        found[:, self.first.whole] = above(np.outer(step, self.first.inverse.gain))
        return found


def _steps(asked: Sequence[Equations], count: int, everyone: Inverse, neurons: int) -> Floats:
    """T (S, n, N), floats: steps in the kernel of E, one for each equation, which it alone sees."""
    rows, size = everyone.matrix.nrows(), everyone.matrix.ncols()
    _, _, right = np.linalg.svd(midpoints(everyone.matrix), full_matrices=True)
    kernel = right[rows:]
    table, start = np.zeros((count, size, neurons)), 0
    for part in asked:
        middle = part.middle
        table[start : start + len(middle), part.samples, part.neurons] += middle
        start += len(middle)
    seen = np.tensordot(table, kernel, axes=(1, 1)).reshape(count, neurons * (size - rows))
    inverse = np.linalg.solve(seen @ seen.T, seen).T if count else seen.T
    return np.tensordot(kernel, inverse.reshape(neurons, size - rows, count), axes=(0, 1))


def _most(middle: Floats, radius: Floats, right: Floats) -> Floats:
    """An upper bound of |M right| for M within ``radius`` of ``middle``."""
    return np.asarray(above(np.abs(middle @ right) + _error(middle, radius, right)))


def _error(middle: Floats, radius: Floats, right: Floats) -> Floats:
    """How far ``middle @ right`` in float64 is from M ``right``, for M within ``radius`` of ``middle``."""
    size = np.abs(right)
    return np.asarray(above(above(np.abs(middle) @ size) * _ROUNDING + above(radius @ size)))
