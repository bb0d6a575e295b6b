"""C4: known solutions of a small polynomial system are all of them, by one rank; and when that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations_with_replacement, permutations
from random import Random

import sympy

from exan_verify.exact.linalg import nullspace
from exan_verify.network import Array, Batch, Labels, Loss, ReluNetwork
from exan_verify.theorems.grounds import by_instances, coq, symbolic
from exan_verify.theorems.laboratory import drawn, exact
from exan_verify.theorems.macaulay import evaluation_rank, macaulay_rank, monomials, value
from exan_verify.theorems.statement import Example, Standing, Statement
from exan_verify.verdict import Outcome

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


def circles(_seed: int) -> Iterator[System]:
    """x^2 + y^2 = 1 with five known points at D = 2; and the line y = 0 with three."""
    five = ((1, 0), (0, 1), (-1, 0), (0, -1), (Fraction(3, 5), Fraction(4, 5)))
    one = Fraction(1)
    yield System(
        variables=2,
        equations=({(2, 0): one, (0, 2): one, (0, 0): -one},),
        known=tuple((Fraction(a), Fraction(b)) for a, b in five),
        degree=2,
        other=(Fraction(4, 5), Fraction(3, 5)),
    )
    yield System(
        variables=2,
        equations=({(0, 1): one},),
        known=tuple((Fraction(a), Fraction(0)) for a in range(3)),
        degree=2,
        other=(Fraction(7), Fraction(0)),
    )


def turning_batch() -> Example:
    """1-2-1, three samples of one region with equal labels: the Q that fix 1 form a circle (S1)."""
    network = ReluNetwork.from_arrays([[[1], [-1]], [[1, -2]]], [[5, 5], [0]])
    third = Fraction(1, 3)
    return Example(
        network=network,
        batch=_mse(network, [[0], [1], [3]]),
        second=_mse(network, [[-third], [8 * third], [5 * third]]),
        loss=Loss.MSE,
        outcome=Outcome.AMBIGUOUS,
        note="The output system of these samples is solved by a circle of matrices Q, the rotations about 1; "
        "three of them are permutations, this one is not. A list of known solutions is not all of them.",
    )


def _mse(network: ReluNetwork, inputs: list[list[Fraction]] | list[list[int]]) -> Batch:
    return Batch.of(inputs, [0, 0, 0], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)


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
        title="C4 without the independence of the evaluation vectors",
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
                "c4-dependent-vectors: circle",
                "x^2 + y^2 = 1 and five of its rational points at D = 2: rank 1 = 6 - 5, and a sixth point",
            ),
            symbolic(
                "c4-dependent-vectors: permutations",
                "the six 3 x 3 permutations have dependent vectors of degree one (rank 5); D = 3 repairs it",
            ),
        ),
        checks=(
            by_instances(
                "circle",
                "computes the ranks at D = 2 of a circle with five known points, and of a line with "
                "three, and "
                "evaluates the equations at another point",
                instances=circles,
                conclusion=rank_reached_with_another_solution,
                spoiled=other_is_none,
                count=2,
                said="systems reach rank N - k and have another solution",
            ),
            by_instances(
                "permutations",
                "computes the rank of the evaluation vectors of the six permutations in degree one and two",
                instances=small_degrees,
                conclusion=premise_fails_for_permutations,
                spoiled=at_degree_three,
                count=1,
                said="systems whose premise fails at D = 2 and holds at D = 3",
            ),
        ),
        example=turning_batch,
        remark="For the permutations at D = 2 only the argument fails: the quadrics through the six of them "
        "have no other common zero, as D = 3 shows.",
    ),
)
