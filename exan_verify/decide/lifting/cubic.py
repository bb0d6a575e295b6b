"""The lifted system of degree three, for the whole batch at one hidden layer (docs/theory.md, Appendix L3).

Every equation ``(Delta_j . q)(Delta_j . q - w_j . u) = 0`` is multiplied by every unknown of q and u. The
products are linear in the monomials q_a q_b q_c, q_a q_b u_k and q_a u_k u_l: all of degree three, all
divisible by some q_a. R3 is the matrix of these equations in V unknowns: one copy of R for every factor.

Monomials are numbered by the reverse lexicographical order, the products of the first variables first. So
R's pivots are the products of some a variables, about a^2 / 2 of them, and only monomials with at most one
of these a variables are left to eliminate (:mod:`exan_verify.exact.stacked`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import ceil, comb

import numpy as np

from exan_verify.decide.context import Context, Image
from exan_verify.decide.lifting.system import Plan, equations
from exan_verify.exact.elimination import floats
from exan_verify.exact.modular import add_mod
from exan_verify.exact.stacked import Stacked


@dataclass(frozen=True, slots=True, kw_only=True)
class Cubic:
    """Degree three at the layer of ``plan``, with the first ``neurons`` of its equations of degree two."""

    plan: Plan
    neurons: int

    @property
    def extra(self) -> int:
        """K', the number of unknowns of u."""
        size = len(self.plan.members)
        return (self.plan.unknowns - comb(size + 1, 2)) // size

    @property
    def variables(self) -> int:
        """M + K'."""
        return len(self.plan.members) + self.extra

    @property
    def unknowns(self) -> int:
        """V, the number of monomials."""
        size, extra = len(self.plan.members), self.extra
        return comb(size + 2, 3) + comb(size + 1, 2) * extra + size * comb(extra + 1, 2)

    @property
    def target(self) -> int:
        """V - sum binom(s_k + 2, 3): the largest rank that R3 can have."""
        return self.unknowns - sum(comb(len(group) + 2, 3) for group in self.plan.groups)

    @property
    def enough(self) -> int:
        """The least number of neurons whose equations can reach the target."""
        return ceil(self.target / self.variables)

    @property
    def missing(self) -> int:
        """How many neurons with a non-zero delta are missing (0: enough by count)."""
        return max(0, self.enough - self.plan.equations)

    @property
    def rows(self) -> int:
        """Equations of degree three."""
        return self.neurons * self.variables

    @property
    def work(self) -> int:
        """Modular multiplications that dense elimination would take: a bound for what is done."""
        return self.rows * self.unknowns * min(self.rows, self.unknowns)


def cubic_equations(context: Context, cubic: Cubic, image: Image) -> Stacked:
    """R3 mod p, (rows, unknowns): per variable the equations of degree two, at the products' columns."""
    size, p = len(cubic.plan.members), image.prime
    quadratic = equations(context, cubic.plan, image)[: cubic.neurons]
    factors = _quadratic_monomials(size, cubic.extra)
    # degree two leaves the 2 of 2 q_a q_b in the unknown; here the columns of different products meet
    twice = [k for k, (a, b) in enumerate(factors) if a < b < size]
    quadratic[:, twice] = add_mod(quadratic[:, twice], quadratic[:, twice], p)
    column = {monomial: k for k, monomial in enumerate(_cubic_monomials(size, cubic.variables))}
    order = sorted(range(len(factors)), key=lambda k: factors[k][::-1])
    places = [
        [column[tuple(sorted((*factors[k], variable)))] for k in order] for variable in range(cubic.variables)
    ]
    block = floats(quadratic[:, order], p)
    return Stacked(block=block, places=np.array(places), columns=cubic.unknowns, prime=p)


def _quadratic_monomials(size: int, extra: int) -> list[tuple[int, ...]]:
    """In the order of :func:`exan_verify.decide.lifting.system.equations`; variable ``size + k`` is u_k."""
    squares = list(combinations_with_replacement(range(size), 2))
    return [*squares, *((a, size + k) for a in range(size) for k in range(extra))]


def _cubic_monomials(size: int, variables: int) -> list[tuple[int, ...]]:
    found = [m for m in combinations_with_replacement(range(variables), 3) if m[0] < size]
    return sorted(found, key=lambda m: m[::-1])
