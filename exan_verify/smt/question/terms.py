"""Polynomials, formulas and scripts: the small language in which the question is written.

A script is printed as SMT-LIB 2 text, and that text is the only thing that a solver ever sees, in process
or in a file: both are the same constraints by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm
from typing import TypeVar

from exan_verify.core.budget import poll

Monomial = tuple[str, ...]
Number = int | Fraction
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Poly:
    """A polynomial over Q in named real variables; a monomial is its sorted variables, with repetition."""

    terms: Mapping[Monomial, Fraction]

    @classmethod
    def constant(cls, value: Number) -> Poly:
        """The constant polynomial."""
        return cls({(): Fraction(value)} if value else {})

    @classmethod
    def variable(cls, name: str) -> Poly:
        """One variable."""
        return cls({(name,): Fraction(1)})

    @property
    def degree(self) -> int:
        """Total degree (0 for constants)."""
        return max((len(m) for m in self.terms), default=0)

    @property
    def is_constant(self) -> bool:
        """Whether no variable occurs."""
        return self.degree == 0

    @property
    def value(self) -> Fraction:
        """The constant term: the value of a constant polynomial."""
        return self.terms.get((), Fraction(0))

    def variables(self) -> set[str]:
        """Names that occur."""
        return {name for m in self.terms for name in m}

    def __add__(self, other: Poly | Number) -> Poly:
        out = dict(self.terms)
        for m, c in _poly(other).terms.items():
            total = out.get(m, Fraction(0)) + c
            if total:
                out[m] = total
            else:
                out.pop(m, None)
        return Poly(out)

    def __neg__(self) -> Poly:
        return self * -1

    def __sub__(self, other: Poly | Number) -> Poly:
        return self + _poly(other) * -1

    def __mul__(self, other: Poly | Number) -> Poly:
        if not isinstance(other, Poly):
            return Poly({m: c * other for m, c in self.terms.items()} if other else {})
        out: dict[Monomial, Fraction] = {}
        for m, c in self.terms.items():
            poll()
            for n, d in other.terms.items():
                key = tuple(sorted(m + n))
                out[key] = out.get(key, Fraction(0)) + c * d
        return Poly({m: c for m, c in out.items() if c})

    def evaluate(self, values: Mapping[str, Value], embed: Callable[[Fraction], Value]) -> Value:
        """The value at a point of any ring; ``embed`` maps rationals into the ring."""
        total = embed(Fraction(0))
        for m, c in self.terms.items():
            poll()
            product = embed(c)
            for name in m:
                product = product * values[name]  # type: ignore[operator]
            total = total + product  # type: ignore[operator]
        return total

    def at(self, values: Mapping[str, Fraction]) -> Fraction:
        """The value at a rational point."""
        return self.evaluate(values, Fraction)

    def derivative(self, name: str) -> Poly:
        """Partial derivative."""
        out = Poly({})
        for m, c in self.terms.items():
            power = m.count(name)
            if power:
                rest = list(m)
                rest.remove(name)
                out = out + Poly({tuple(rest): c * power})
        return out


def _poly(value: Poly | Number) -> Poly:
    return value if isinstance(value, Poly) else Poly.constant(value)


def total(parts: Iterable[Poly]) -> Poly:
    """The sum of polynomials."""
    out: dict[Monomial, Fraction] = {}
    for part in parts:
        poll()
        for m, c in part.terms.items():
            out[m] = out.get(m, Fraction(0)) + c
    return Poly({m: c for m, c in out.items() if c})


@dataclass(frozen=True, slots=True)
class Atom:
    """``poly relation 0`` with relation one of ``=``, ``<``, ``<=``, ``distinct``."""

    poly: Poly
    relation: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A Boolean variable or its negation."""

    name: str
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Junction:
    """Conjunction (``and``) or disjunction (``or``); the empty ones are true and false."""

    kind: str
    parts: tuple[Formula, ...]


Formula = Atom | Literal | Junction

TRUE = Junction("and", ())
FALSE = Junction("or", ())


def _atom(poly: Poly, relation: str, holds: Callable[[Fraction], bool]) -> Formula:
    if poly.is_constant:
        return TRUE if holds(poly.value) else FALSE
    return Atom(poly, relation)


def equal(left: Poly, right: Poly | Number) -> Formula:
    """left = right."""
    return _atom(left - right, "=", lambda v: v == 0)


def distinct(left: Poly, right: Poly | Number) -> Formula:
    """left != right."""
    return _atom(left - right, "distinct", lambda v: v != 0)


def less(left: Poly, right: Poly | Number) -> Formula:
    """left < right."""
    return _atom(left - right, "<", lambda v: v < 0)


def at_most(left: Poly, right: Poly | Number) -> Formula:
    """left <= right."""
    return _atom(left - right, "<=", lambda v: v <= 0)


def conj(parts: Iterable[Formula]) -> Formula:
    """Conjunction, with constants folded."""
    return _junction("and", parts, TRUE, FALSE)


def disj(parts: Iterable[Formula]) -> Formula:
    """Disjunction, with constants folded."""
    return _junction("or", parts, FALSE, TRUE)


def _junction(kind: str, parts: Iterable[Formula], neutral: Formula, absorbing: Formula) -> Formula:
    kept: list[Formula] = []
    poll()
    for part in parts:
        if part == absorbing:
            return absorbing
        if part != neutral:
            kept.extend(part.parts if isinstance(part, Junction) and part.kind == kind else [part])
    return kept[0] if len(kept) == 1 else Junction(kind, tuple(kept))


_OPPOSITE = {"=": "distinct", "distinct": "="}


def negate(formula: Formula) -> Formula:
    """The negation, pushed to the atoms."""
    if isinstance(formula, Literal):
        return Literal(formula.name, not formula.positive)
    if isinstance(formula, Junction):
        flipped = [negate(part) for part in formula.parts]
        return disj(flipped) if formula.kind == "and" else conj(flipped)
    if formula.relation in _OPPOSITE:
        return Atom(formula.poly, _OPPOSITE[formula.relation])
    return Atom(-formula.poly, "<" if formula.relation == "<=" else "<=")


def implies(premise: Formula, conclusion: Formula) -> Formula:
    """premise => conclusion."""
    return disj([negate(premise), conclusion])


def degree(formula: Formula) -> int:
    """The largest degree of a polynomial in the formula."""
    if isinstance(formula, Atom):
        return formula.poly.degree
    return max((degree(p) for p in formula.parts), default=0) if isinstance(formula, Junction) else 0


def names(formula: Formula) -> tuple[set[str], set[str]]:
    """``(reals, booleans)`` that occur."""
    poll()
    if isinstance(formula, Atom):
        return formula.poly.variables(), set()
    if isinstance(formula, Literal):
        return set(), {formula.name}
    found = [names(p) for p in formula.parts]
    return set().union(*(r for r, _ in found)), set().union(*(b for _, b in found))


@dataclass(slots=True)
class Script:
    """Declarations and commented assertions; :meth:`text` is what solvers read."""

    logic: str = "QF_NRA"
    title: str = ""
    reals: list[str] = field(default_factory=list)
    booleans: list[str] = field(default_factory=list)
    assertions: list[tuple[str, Formula]] = field(default_factory=list)

    def require(self, formula: Formula, comment: str) -> None:
        """Assert a formula (true ones are left out)."""
        if formula != TRUE:
            self.assertions.append((comment, formula))

    @property
    def refuted(self) -> bool:
        """Whether some assertion folded to false: unsatisfiable without any solver."""
        return any(formula == FALSE for _, formula in self.assertions)

    def used(self) -> tuple[list[str], list[str]]:
        """The declared names that occur in assertions, in the order of their declaration."""
        found = [names(f) for _, f in self.assertions]
        reals = set().union(*(r for r, _ in found))
        booleans = set().union(*(b for _, b in found))
        return [n for n in self.reals if n in reals], [n for n in self.booleans if n in booleans]

    def text(self, comments: bool = True) -> str:
        """SMT-LIB 2 text, ending with ``(check-sat)``."""
        lines = [f"; {line}" for line in self.title.splitlines()] if comments else []
        lines.append(f"(set-logic {self.logic})")
        reals, booleans = self.used()
        lines += [f"(declare-fun {name} () Real)" for name in reals]
        lines += [f"(declare-fun {name} () Bool)" for name in booleans]
        last = ""
        for comment, formula in self.assertions:
            if comments and comment != last:
                lines.append(f"; {comment}")
                last = comment
            lines.append(f"(assert {show(formula)})")
        return "\n".join([*lines, "(check-sat)", ""])


def show(formula: Formula) -> str:
    """SMT-LIB text of a formula."""
    poll()
    if isinstance(formula, Literal):
        return formula.name if formula.positive else f"(not {formula.name})"
    if isinstance(formula, Junction):
        if not formula.parts:
            return "true" if formula.kind == "and" else "false"
        return f"({formula.kind} {' '.join(show(p) for p in formula.parts)})"
    left = show_poly(_primitive(formula.poly))
    if formula.relation == "distinct":
        return f"(not (= {left} 0.0))"
    return f"({formula.relation} {left} 0.0)"


def _primitive(poly: Poly) -> Poly:
    """Scaled by a positive rational to coprime integers."""
    scale = lcm(*(c.denominator for c in poly.terms.values()))
    common = gcd(*(int(c * scale) for c in poly.terms.values()))
    return poly * Fraction(scale, common or 1)


def show_poly(poly: Poly) -> str:
    """SMT-LIB text of a polynomial, terms in a fixed order."""
    parts = [_show_term(m, c) for m, c in sorted(poly.terms.items(), key=lambda e: (-len(e[0]), e[0]))]
    if not parts:
        return "0.0"
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"


def _show_term(monomial: Monomial, coefficient: Fraction) -> str:
    if not monomial:
        return show_number(coefficient)
    factors = list(monomial) if coefficient == 1 else [show_number(coefficient), *monomial]
    return factors[0] if len(factors) == 1 else f"(* {' '.join(factors)})"


def show_number(value: Fraction) -> str:
    """SMT-LIB text of a rational."""
    size = f"{abs(value.numerator)}.0"
    text = size if value.denominator == 1 else f"(/ {size} {value.denominator}.0)"
    return f"(- {text})" if value < 0 else text
