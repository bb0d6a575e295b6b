"""UNIQUE by lifting of degree two at the hidden layer, squared error: the file's evidence and its text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np

from exan_verify.coq.literals import Tensor, indices_literal, words_literal
from exan_verify.coq.residues import (
    MODULI,
    Affine,
    Matrix,
    Minor,
    affine,
    deltas,
    integers,
    inverse_transposed,
    pivots,
    reduced,
    select,
    states,
)

Choice = Literal["AllEntries", "NextDeltas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Network and batch as tensors: ``layers`` (weight, bias), ``inputs`` (M, d), ``targets`` (M, K)."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    inputs: Tensor
    targets: Tensor

    @property
    def widths(self) -> tuple[int, ...]:
        """``(n_0, ..., n_L)``."""
        return (len(self.inputs.numerators[0]), *(len(weight.numerators) for weight, _ in self.layers))

    @property
    def samples(self) -> int:
        """M."""
        return len(self.inputs.numerators)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What ``argument`` of proofs/coq/certificates.v holds, and the modulus of all its inverses."""

    modulus: int
    choice: Choice
    next_minors: tuple[Minor, ...]
    deltas_minor: Minor
    inputs_minor: Minor
    neurons: list[int]
    dropped: list[int]
    inverse: list[list[int]]


class _State:
    """What Coq computes of the batch: pre-activations and deltas per sample, on integers."""

    def __init__(self, given: Given) -> None:
        self.inputs = integers(given.inputs.numerators)
        self.denominator = denominator = given.inputs.denominator
        self.layers: list[Affine] = []
        for weight, bias in given.layers:
            self.layers.append(affine(weight, bias, denominator))
            denominator = self.layers[-1].out
        self.passed = [states(self.layers, sample) for sample in self.inputs]
        targets = integers(given.targets.numerators)
        vectors = [
            given.targets.denominator * passed[-1] - denominator * target
            for passed, target in zip(self.passed, targets, strict=True)
        ]
        self.deltas = [deltas(self.layers, *pair) for pair in zip(self.passed, vectors, strict=True)]

    def delta(self, layer: int) -> Matrix:
        """Deltas of ``layer`` (1-based), one sample a row."""
        return np.array([found[layer - 1] for found in self.deltas])

    def lifted_inputs(self, layer: int) -> Matrix:
        """[h 1] below ``layer`` (1-based), one sample a row, times the common denominator."""
        rows = self.inputs if layer == 1 else np.array([np.maximum(z[layer - 2], 0) for z in self.passed])
        one = self.denominator if layer == 1 else self.layers[layer - 2].out
        return np.concatenate([rows, np.full((len(rows), 1), one, dtype=object)], axis=1)


def find_evidence(given: Given, choices: tuple[Choice, ...]) -> Evidence | None:
    """Minors for the ranks of C1 at the hidden layer, by the first of ``choices`` that reaches them all."""
    state = _State(given)
    for choice in choices:
        for p in MODULI:
            found = _evidence(state, choice, p)
            if found is not None:
                return found
    return None


def _evidence(state: _State, choice: Choice, p: int) -> Evidence | None:
    first = state.delta(1) % p
    weight = state.layers[1].weight % p
    following: tuple[Minor | None, ...] = ()
    if choice == "NextDeltas":
        following = (select(state.delta(2), p), select(state.lifted_inputs(2), p))
        weight = state.delta(2).dot(weight) % p
    minors = (select(first, p), select(state.lifted_inputs(1), p), *following)
    system = reduced(_system(first, weight), p)
    columns = pivots(system)
    if None in minors or len(columns) < system.ncols() - len(first):
        return None
    chosen = [minor for minor in minors if minor is not None]
    matrix = integers([[int(system[i, j]) for j in columns] for i in range(system.nrows())])
    neurons = pivots(reduced(matrix.T, p))
    return Evidence(
        modulus=p,
        choice=choice,
        next_minors=tuple(chosen[2:]),
        deltas_minor=chosen[0],
        inputs_minor=chosen[1],
        neurons=neurons,
        dropped=sorted(set(range(system.ncols())) - set(columns)),
        inverse=[list(row) for row in inverse_transposed(matrix[neurons], p)],
    )


def _system(delta: Matrix, weight: Matrix) -> Matrix:
    """R (n, U), the products q_a q_b (a <= b) first, then q_a u_c, from delta (M, n) and V^T (K', n)."""
    pairs = combinations_with_replacement(range(len(delta)), 2)
    columns = [delta[a] * delta[b] * (1 if a == b else 2) for a, b in pairs]
    columns += [-row * w for row in delta for w in weight]
    return np.array(columns, dtype=object).T


def document(given: Given, evidence: Evidence, *, factor: int, about: str) -> str:
    """The Coq file; ``factor``: what the sum over samples is divided by; ``about``: what its header says."""
    d, n, classes = given.widths
    samples = given.samples
    (weight, bias), (weight2, bias2) = given.layers
    choice = evidence.choice
    if evidence.next_minors:
        choice_literal = f"({choice} " + " ".join(_minor(m, samples) for m in evidence.next_minors) + ")"
    else:
        choice_literal = choice
    size = len(evidence.neurons)
    return f"""(*{about}*)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import network downward residues tensors certificates.

Import GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.
Local Open Scope uint63_scope.
Local Open Scope array_scope.

(* The network, layer by layer: weight and bias. *)
Definition weight_1 := {weight.literal}.
Definition bias_1 := {bias.literal}.
Definition weight_2 := {weight2.literal}.
Definition bias_2 := {bias2.literal}.
Definition layers := [:: (weight_1, bias_1); (weight_2, bias_2)].

(* The batch: one sample, one target a row. *)
Definition inputs := {given.inputs.literal}.
Definition targets := {given.targets.literal}.

(* What coqc checks the claim with. *)
Definition evidence := Argument
  {choice_literal}
  {_minor(evidence.deltas_minor, samples)}
  {_minor(evidence.inputs_minor, samples)}
  {indices_literal(evidence.neurons)}
  {indices_literal(evidence.dropped)}
  (rows_of {size} {size} {words_literal(evidence.inverse)}).

Local Close Scope array_scope.
Local Close Scope uint63_scope.

Lemma checked :
  unique_mse_ok {evidence.modulus}%uint63 {d} {n} {classes} {samples - 1} layers inputs targets evidence.
Proof. vm_cast_no_check (erefl true). Qed.

Section Claim.

Variable R : realFieldType.

Definition N : params R {d} [:: {n}%N] {classes} := net R {d} [:: {n}%N] {classes} layers.
Definition x (m : 'I_{samples}) : 'cV[R]_{d} := colt R {d} inputs m.
Definition y (m : 'I_{samples}) : 'cV[R]_{classes} := colt R {classes} targets m.
Definition loss : 'cV[R]_{classes} -> 'cV[R]_{classes} -> 'cV[R]_{classes} := mse_lv {factor}%:R^-1.

(* Every batch of {samples} samples, whatever its inputs and targets, that has this gradient *)
(* is this batch up to the order of its samples. *)
Theorem claimed (x' : 'I_{samples} -> 'cV[R]_{d}) (y' : 'I_{samples} -> 'cV[R]_{classes}) :
  bgrad loss N x' y' = bgrad loss N x y -> same_batch x x' y y'.
Proof.
apply: (unique_mse _ checked); by rewrite invr_eq0 pnatr_eq0.
Qed.

End Claim.
"""


def _minor(minor: Minor, size: int) -> str:
    return f"(Minor {indices_literal(minor.columns)} (rows_of {size} {size} {words_literal(minor.inverse)}))"
