"""Declaring and asserting: one unknown sample, and the script that its constraints are collected in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exan_verify.core.arrays import PerLayer
from exan_verify.smt.question.terms import (
    FALSE,
    TRUE,
    Formula,
    Literal,
    Poly,
    Script,
    equal,
    implies,
    negate,
)

Fixed = Mapping[str, bool]
"""Truth values of the literals of a cube, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neuron:
    """A hidden neuron for a sample: whether it is ``active`` (its derivative is 1), or ``capped`` (at its
    upper end); its ``value``; and whether its derivative (``passes``) and its value may be other than zero.
    """

    active: Formula
    capped: Formula
    value: Poly
    passes: Formula
    has_value: Formula


@dataclass(slots=True)
class Sample:
    """One sample of the unknown batch: its polynomials and literals.

    ``vector`` is the loss vector divided as the reduction says; ``labels`` has one formula per admitted
    label (None for real labels, where ``y`` is a polynomial); ``state`` the literals that a cube fixes;
    ``neurons`` and ``pre``, their pre-activations, by hidden layer.
    """

    index: int
    x: tuple[Poly, ...]
    hidden: list[tuple[Poly, ...]] = field(default_factory=list)
    pre: list[tuple[Poly, ...]] = field(default_factory=list)
    neurons: list[tuple[Neuron, ...]] = field(default_factory=list)
    logits: tuple[Poly, ...] = ()
    probabilities: tuple[Poly, ...] = ()
    labels: tuple[Formula, ...] | None = None
    y: tuple[Poly, ...] = ()
    vector: tuple[Poly, ...] = ()
    state: list[Formula] = field(default_factory=list)

    def layer(self, i: int) -> tuple[Neuron, ...]:
        """The neurons of hidden layer i."""
        return PerLayer(self.neurons).at(i)

    def passes(self, i: int, neuron: int) -> Formula:
        """Whether a neuron of layer i may have a delta: logits always do."""
        return self.neurons[i - 1][neuron].passes if i <= len(self.neurons) else TRUE

    def has_value(self, i: int, neuron: int) -> Formula:
        """Whether a neuron of layer i may have a value other than zero: inputs (i = 0) always may."""
        return self.neurons[i - 1][neuron].has_value if i else TRUE


@dataclass(slots=True)
class Encoder:
    """Collects declarations and assertions; literals named in ``fixed`` are folded away."""

    script: Script
    fixed: Fixed

    def real(self, name: str) -> Poly:
        """Declare a real variable."""
        self.script.reals.append(name)
        return Poly.variable(name)

    def literal(self, name: str) -> Formula:
        """Declare a Boolean, or fold it to the value that the cube gives it."""
        if name in self.fixed:
            return TRUE if self.fixed[name] else FALSE
        self.script.booleans.append(name)
        return Literal(name)

    def require(self, formula: Formula, comment: str) -> None:
        """Assert."""
        self.script.require(formula, comment)

    def select(self, condition: Formula, then: Poly, other: Poly, name: str, comment: str) -> Poly:
        """``then`` where the condition holds, else ``other``: a new variable unless the choice is fixed."""
        if condition == TRUE or then == other:
            return then
        if condition == FALSE:
            return other
        chosen = self.real(name)
        self.require(implies(condition, equal(chosen, then)), comment)
        self.require(implies(negate(condition), equal(chosen, other)), comment)
        return chosen
