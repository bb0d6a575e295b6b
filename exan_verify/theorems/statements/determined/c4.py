"""C4: known solutions of a small polynomial system are all of them, by one rank; and when that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations_with_replacement, permutations
from random import Random

import sympy

from exan_verify.core.network import Array
from exan_verify.exact.linalg import nullspace
from exan_verify.theorems.statement import Exhibit, Result, Standing, Statement
from exan_verify.theorems.support.example_check import all_met
from exan_verify.theorems.support.laboratory import drawn, exact
from exan_verify.theorems.support.macaulay import evaluation_rank, macaulay_rank, monomials, value
from exan_verify.theorems.support.shorthands import NEITHER, REFUTES, by_instances, coq, symbolic

Point = tuple[Fraction, ...]
Polynomial = dict[tuple[int, ...], Fraction]


@dataclass(frozen=True, kw_only=True)
class System:
    """Polynomials in ``variables`` unknowns and points where all of them vanish; ``degree`` is C4's D."""

    variables: int
    equations: tuple[Polynomial, ...]
    known: tuple[Point, ...]
    degree: int
    other: Point | None = None

    @property
    def premise(self) -> bool:
        """Whether the known points' evaluation vectors of degree D - 1 are independent."""
        return evaluation_rank(self.known, self.degree - 1) == len(self.known)

    @property
    def rank_reached(self) -> bool:
        """Whether the multiples up to degree D have rank (number of monomials) - k."""
        columns = len(monomials(self.variables, self.degree))
        found = macaulay_rank(self.equations, self.variables, self.degree)
        return found == columns - len(self.known)


def settled_systems(seed: int) -> Iterator[System]:
    """All quadrics through random points, where C4's two ranks hold at D = 2 or 3; and the permutations."""
    yield permutation_system(3)
    yield from drawn("C4", seed, _draw)


def _draw(rng: Random) -> System | None:
    size = rng.choice((2, 2, 3))
    points = {tuple(Fraction(rng.randint(-3, 3)) for _ in range(size)) for _ in range(rng.randint(1, 4))}
    known = tuple(sorted(points))
    equations = _quadrics_through(known)
    for degree in (2, 3):
        system = System(variables=size, equations=equations, known=known, degree=degree)
        if system.premise and system.rank_reached:
            return system
    return None


def _quadrics_through(points: Sequence[Point]) -> tuple[Polynomial, ...]:
    """A basis of the polynomials of degree at most two that vanish at the points."""
    columns = monomials(len(points[0]), 2)
    basis = nullspace(exact([[value(m, point) for m in columns] for point in points]))
    return tuple(dict(zip(columns, column, strict=True)) for column in basis.T)


def permutation_system(degree: int) -> System:
    """Q of size 3 with rows and columns that sum to one and entries 0 or 1, in four free entries."""
    forms = _corner_forms()
    equations = tuple(_square_minus(form) for form in forms)
    points = [
        tuple(Fraction(order[a] == b) for a in range(2) for b in range(2)) for order in permutations(range(3))
    ]
    return System(variables=4, equations=equations, known=tuple(points), degree=degree)


def _corner_forms() -> list[Array]:
    """The nine entries of Q as affine forms (constant first) in the entries of its upper left corner."""
    units = exact([[int(k == i + 1) for k in range(5)] for i in range(4)])
    entry = {(a, b): units[2 * a + b] for a in range(2) for b in range(2)}
    one = exact([1, 0, 0, 0, 0])
    for a in range(2):
        entry[a, 2] = one - entry[a, 0] - entry[a, 1]
    for b in range(3):
        entry[2, b] = one - entry[0, b] - entry[1, b]
    return list(entry.values())


def _square_minus(form: Array) -> Polynomial:
    """``form^2 - form``, by exponents."""
    found: Polynomial = {}
    units = [(0,) * 4, *(tuple(int(i == k) for i in range(4)) for k in range(4))]
    for i, j in combinations_with_replacement(range(5), 2):
        key = tuple(a + b for a, b in zip(units[i], units[j], strict=True))
        found[key] = found.get(key, Fraction(0)) + form[i] * form[j] * (1 if i == j else 2)
    for i in range(5):
        found[units[i]] = found.get(units[i], Fraction(0)) - form[i]
    return {key: v for key, v in found.items() if v}


def groebner_counts_the_known(system: System) -> bool:
    """The quotient by the system has dimension k (sympy), so the k known solutions are all complex ones."""
    symbols = sympy.symbols(f"x:{system.variables}")
    polynomials = [
        sympy.Add(*(sympy.Rational(v.numerator, v.denominator) * _power(m, symbols) for m, v in p.items()))
        for p in system.equations
    ]
    basis = sympy.groebner(polynomials, *symbols, order="grevlex")
    if not basis.is_zero_dimensional:
        return False
    leading = [sympy.Poly(g, *symbols).monoms(order="grevlex")[0] for g in basis.exprs]
    standard = [m for m in monomials(system.variables, 4) if not any(_divides(lead, m) for lead in leading)]
    return len(standard) == len(system.known)


def _power(monomial: tuple[int, ...], symbols: Sequence[sympy.Symbol]) -> sympy.Expr:
    return sympy.Mul(*(s**e for s, e in zip(symbols, monomial, strict=True)))


def _divides(left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(left, right, strict=True))


def one_known_less(system: System) -> System:
    """The system with one solution forgotten."""
    return replace(system, known=system.known[1:])


def line() -> System:
    """y = 0 with two known points at D = 1; a third one solves it."""
    return System(
        variables=2,
        equations=({(0, 1): Fraction(1)},),
        known=((Fraction(0), Fraction(0)), (Fraction(1), Fraction(0))),
        degree=1,
        other=(Fraction(7), Fraction(0)),
    )


def circle() -> System:
    """x^2 + y^2 = 1 with five known points at D = 2; a sixth one solves it."""
    five = ((1, 0), (0, 1), (-1, 0), (0, -1), (Fraction(3, 5), Fraction(4, 5)))
    one = Fraction(1)
    return System(
        variables=2,
        equations=({(2, 0): one, (0, 2): one, (0, 0): -one},),
        known=tuple((Fraction(a), Fraction(b)) for a, b in five),
        degree=2,
        other=(Fraction(4, 5), Fraction(3, 5)),
    )


def overlooked(_seed: int) -> Iterator[System]:
    """Systems that reach the rank and have a solution that is not among the known ones."""
    yield line()
    yield circle()


def exhibit() -> Exhibit:
    """The line as text to retype, with what refutes."""
    return Exhibit(
        lines=(
            "f = lambda x, y: y",
            "known, other = [(0, 0), (1, 0)], (7, 0)",
            'monomials, multiples = ["1", "x", "y"], [f]  # up to degree D = 1',
            "solve = all(f(*v) == 0 for v in [*known, other])",
            "solve and other not in known and len(multiples) == len(monomials) - len(known)",
        ),
        note="One equation, y = 0, and two of its solutions, at D = 1: the rank is 1 = 3 - 2, and there are "
        "infinitely many others. The evaluation vectors of degree 0 are (1) and (1): dependent.",
        shown=lambda: seen_at(line()),
    )


def seen_at(system: System) -> Result:
    """:func:`rank_reached_with_another_solution`, in words."""
    columns, known = len(monomials(system.variables, system.degree)), len(system.known)
    evaluated = evaluation_rank(system.known, system.degree - 1)
    other = ", ".join(map(str, system.other or ()))
    return all_met(
        {
            f"rank {columns - known} = {columns} monomials - {known} known solutions, whose evaluation "
            f"vectors have rank {evaluated} only, and ({other}) is another solution": (
                rank_reached_with_another_solution(system)
            )
        }
    )


def rank_reached_with_another_solution(system: System) -> bool:
    """The known points solve the system, the rank is N - k, and yet ``other`` solves it and is not known."""
    assert system.other is not None
    points = (*system.known, system.other)
    solve = all(sum(v * value(m, x) for m, v in p.items()) == 0 for p in system.equations for x in points)
    return system.rank_reached and not system.premise and solve and system.other not in system.known


def other_is_none(system: System) -> System:
    """The system with a point that does not solve it."""
    return replace(system, other=(Fraction(2), Fraction(2)))


def small_degrees(_seed: int) -> Iterator[System]:
    """The six 3 x 3 permutations at D = 2."""
    yield permutation_system(2)


def premise_fails_for_permutations(system: System) -> bool:
    """Six evaluation vectors of degree one have rank five; at D = 3 both of C4's ranks hold."""
    dependent = evaluation_rank(system.known, system.degree - 1) == 5
    return dependent and permutation_system(3).premise and permutation_system(3).rank_reached


def at_degree_three(system: System) -> System:
    """The same at D = 3, where nothing fails."""
    return replace(system, degree=3)


STATEMENTS = (
    Statement(
        name="c4",
        group="C4",
        title="Known solutions of a small polynomial system are all of them, by one rank",
        source="docs/theory.md 3.2, C4; Appendix R",
        reading="Let v_1, ..., v_k solve a polynomial system. If their vectors of all monomials of degree at "
        "most D - 1 are independent, and the matrix of all multiples of the equations up to degree D has "
        "rank (number of monomials) - k over F_p, then there is no other solution in any extension field.",
        quantifiers="all systems, numbers of unknowns, degrees; every extension field of Q",
        hypotheses=(
            "v_1, ..., v_k solve every equation; D is at least every equation's degree",
            "their evaluation vectors on the monomials of degree <= D - 1 are independent",
            "the multiples of the equations up to degree D have rank N - k, N the number of monomials",
        ),
        conclusion="Every solution in every extension field is one of v_1, ..., v_k.",
        latex=r"\operatorname{rank}\big(\mathrm{ev}_{D-1}(v_1),\dots,\mathrm{ev}_{D-1}(v_k)\big)=k,\ "
        r"\operatorname{rank}\mathcal M_D=\tbinom{n+D}{D}-k\ \Longrightarrow\ V(f)=\{v_1,\dots,v_k\}",
        standing=Standing.PROVED,
        grounds=(
            coq("systems.v: C4", "the statement, with the Macaulay matrix and every field extension"),
            coq("modular.v: rank_mod_ge", "a rank found modulo p is enough"),
        ),
        checks=(
            by_instances(
                "groebner",
                "takes systems where both ranks hold (all quadrics through random points, and the 3 x 3 "
                "permutations at D = 3) and counts their complex solutions by a Groebner basis (sympy)",
                instances=settled_systems,
                conclusion=groebner_counts_the_known,
                spoiled=one_known_less,
                count=10,
                said="systems have no solution but the known ones",
            ),
        ),
        remark="With k = 0 it says that there is no solution at all.",
    ),
    Statement(
        name="c4-dependent-vectors",
        group="C4",
        title="Known solutions by a rank, without the independence of the evaluation vectors",
        source="docs/theory.md 3.2, C4 ('choose D accordingly')",
        reading="The rank N - k of the multiples up to degree D is enough to exclude other solutions.",
        quantifiers="all systems and degrees",
        hypotheses=("v_1, ..., v_k solve every equation", "the multiples up to degree D have rank N - k"),
        conclusion="There is no other solution.",
        latex=r"\operatorname{rank}\mathcal M_D=\tbinom{n+D}{D}-k\ \not\Longrightarrow\ "
        r"V(f)=\{v_1,\dots,v_k\}",
        standing=Standing.REFUTED,
        grounds=(
            symbolic(
                "c4-dependent-vectors: its example",
                "y = 0 and two of its points at D = 1: rank 1 = 3 - 2, and a third point",
                REFUTES,
            ),
            symbolic(
                "c4.py: circle",
                "x^2 + y^2 = 1 and five of its rational points at D = 2: rank 1 = 6 - 5, and a sixth point",
                REFUTES,
            ),
            symbolic(
                "c4.py: permutation_system",
                "the six 3 x 3 permutations have dependent vectors of degree one (rank 5); D = 3 repairs it",
                NEITHER,
            ),
        ),
        checks=(
            by_instances(
                "another solution",
                "computes the ranks of a line with two known points at D = 1, and of a circle with five at "
                "D = 2, and evaluates the equations at another point",
                instances=overlooked,
                conclusion=rank_reached_with_another_solution,
                spoiled=other_is_none,
                count=2,
                said="systems reach rank N - k and have another solution",
                direction=REFUTES,
            ),
            by_instances(
                "permutations",
                "computes the rank of the evaluation vectors of the six permutations in degree one and two",
                instances=small_degrees,
                conclusion=premise_fails_for_permutations,
                spoiled=at_degree_three,
                count=1,
                said="systems whose premise fails at D = 2 and holds at D = 3",
                direction=NEITHER,
            ),
        ),
        example=exhibit,
        smallest="In one unknown an equation of degree e has at most e roots, and one known solution is "
        "independent: one linear equation in two unknowns with two known solutions is the least.",
        remark="For the permutations at D = 2 only the argument fails: the quadrics through the six of them "
        "have no other common zero, as D = 3 shows.",
    ),
)
