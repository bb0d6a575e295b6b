"""UNIQUE by lifting at any hidden layer, under every loss: evidence and a file's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb
from typing import Literal

import numpy as np

from exan_verify.coq.document import Given, claim_opening, opening
from exan_verify.coq.literals import Rows, indices_literal, widths_literal, words_of
from exan_verify.coq.residues import (
    MODULI,
    Affine,
    Matrix,
    Minor,
    affine,
    deltas,
    integers,
    inverse_transposed,
    loss_vectors,
    pivots,
    reduced,
    select,
    states,
)
from exan_verify.core.question import Loss

Choice = Literal["AllEntries", "SumZero", "NextDeltas", "Alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """What shows the rank of one lifted system, of all samples or of a group that shares a pattern below.

    ``next_minors``: of the next layer's deltas and of its [H 1], where these are the unknowns; ``neurons``
    and ``dropped``: the rows of an invertible minor, and the unknowns that are not its columns. A sample
    alone needs no lifted system, and so no neurons; at degree three ``equations`` says by which unknown each
    neuron's product is multiplied.
    """

    choice: Choice
    next_minors: tuple[Minor, ...]
    deltas_minor: Minor
    neurons: list[int]
    equations: list[int]
    dropped: list[int]
    inverse: list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What ``argument`` of proofs/coq/certificates.v holds, and the modulus of all inverses.

    ``point``: what T = e^(1/F) is sent to, F being the logits' denominator (docs/theory.md 3.6); ``layer``:
    the hidden layer that it is about; ``lower``: for each layer below a minor of its deltas;
    ``output_minor``: of [H 1] under the output layer, by which labels are told below the last hidden layer,
    or ``backward_minors``: of each sample's map from loss vectors to the next delta; ``splits``: for each
    layer above, as long as samples are left that share their patterns, the systems of these groups.
    """

    modulus: int
    point: int
    layer: int
    system: System
    inputs_minor: Minor
    lower: tuple[Minor, ...]
    output_minor: Minor | None
    backward_minors: tuple[Minor, ...]
    splits: tuple[tuple[System, ...], ...]


class _State:
    """What Coq computes of the batch: pre-activations per sample, on integers."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.inputs = integers(given.inputs.numerators)
        self.denominator = denominator = given.inputs.denominator
        self.layers: list[Affine] = []
        for weight, bias in given.layers:
            self.layers.append(affine(weight, bias, denominator))
            denominator = self.layers[-1].out
        self.passed = [states(self.layers, sample) for sample in self.inputs]
        self._deltas: dict[int, list[Matrix]] = {}

    @property
    def depth(self) -> int:
        """L, the number of affine layers."""
        return len(self.layers)

    def deltas(self, p: int) -> list[Matrix]:
        """Deltas modulo p from the first layer up, one sample a row, each up to a factor of its own."""
        if p not in self._deltas:
            logits = [passed[-1] for passed in self.passed]
            vectors = loss_vectors(self.given, logits, self.layers[-1].out, p, _point(p))
            found = [deltas(self.layers, *pair, p) for pair in zip(self.passed, vectors, strict=True)]
            self._deltas[p] = [np.array(rows) for rows in zip(*found, strict=True)]
        return self._deltas[p]

    def backward(self, layer: int, p: int) -> list[Matrix]:
        """For each sample the deltas of ``layer`` modulo p that unit vectors of the logits give, (K, n)."""
        units = np.eye(self.given.widths[-1], dtype=int).astype(object)
        above = self.layers[layer - 1 :]
        return [
            np.array([deltas(above, passed[layer - 1 :], unit, p)[0] for unit in units])
            for passed in self.passed
        ]

    def groups(self, layer: int, members: Sequence[int]) -> list[list[int]]:
        """The members that share the pattern of ``layer``, group by group, in the order in which Coq has them
        (``undup`` keeps what comes last).
        """
        found: dict[bytes, list[int]] = {}
        for m in members:
            pattern = np.array([z > 0 for z in self.passed[m][layer - 1]], dtype=bool).tobytes()
            found.setdefault(pattern, []).append(m)
        return sorted(found.values(), key=lambda group: group[-1])

    def lifted_inputs(self, layer: int) -> Matrix:
        """[h 1] below ``layer`` (1-based), one sample a row, times the common denominator."""
        rows = self.inputs if layer == 1 else np.array([np.maximum(z[layer - 2], 0) for z in self.passed])
        one = self.denominator if layer == 1 else self.layers[layer - 2].out
        return np.concatenate([rows, np.full((len(rows), 1), one, dtype=object)], axis=1)


def _point(p: int) -> int:
    """One for each modulus: a rank that falls there by accident is found at another."""
    return int(np.random.default_rng(p).integers(2, p - 1))


def find_evidence(
    given: Given, layers: Sequence[int], choices: Sequence[Choice], *, degree: int = 2
) -> Evidence | None:
    """Minors for the ranks of C1 or L3, groups told apart above, by the first of ``layers`` and ``choices``
    that reaches them all.
    """
    state = _State(given)
    for layer in layers:
        for choice in choices:
            for p in MODULI:
                found = _evidence(state, layer, choice, choices, p, degree)
                if found is not None:
                    return found
    return None


def _evidence(
    state: _State, layer: int, choice: Choice, choices: Sequence[Choice], p: int, degree: int
) -> Evidence | None:
    everyone = range(state.given.samples)
    system = _found_system(state, layer, choice, everyone, p, degree)
    inputs = select(state.lifted_inputs(layer), p)
    lower = [select(state.deltas(p)[k - 1], p) for k in range(1, layer)]
    if system is None or inputs is None or None in lower:
        return None
    splits = _splits(state, layer, choices, p, degree) if choice != "Alone" else ()
    output, backward = None, list[Minor | None]()
    if layer < state.depth - 1 or choice == "Alone":
        output = select(state.lifted_inputs(state.depth), p)
        if output is None and choice != "Alone":
            backward = [select(matrix, p) for matrix in state.backward(layer + 1, p)]
        if output is None and (not backward or None in backward):
            return None
    if splits is None:
        return None
    return Evidence(
        modulus=p,
        point=_point(p),
        layer=layer,
        system=system,
        inputs_minor=inputs,
        lower=tuple(minor for minor in lower if minor is not None),
        output_minor=output,
        backward_minors=tuple(minor for minor in backward if minor is not None),
        splits=splits,
    )


def _splits(
    state: _State, layer: int, choices: Sequence[Choice], p: int, degree: int
) -> tuple[tuple[System, ...], ...] | None:
    """The systems that tell groups of ``layer`` apart, layer by layer (docs/theory.md 6.4, step 11), of
    degree two where that is enough.
    """
    levels = list[tuple[System, ...]]()
    groups = [group for group in state.groups(layer, range(state.given.samples)) if len(group) > 1]
    while groups:
        layer += 1
        if layer == state.depth:
            return None
        systems = [
            next(
                (
                    found
                    for power in range(2, degree + 1)
                    for choice in choices
                    if choice != "Alone" and (found := _found_system(state, layer, choice, group, p, power))
                ),
                None,
            )
            for group in groups
        ]
        if None in systems:
            return None
        levels.append(tuple(system for system in systems if system is not None))
        groups = [part for group in groups for part in state.groups(layer, group) if len(part) > 1]
    return tuple(levels)


def _found_system(
    state: _State, layer: int, choice: Choice, members: Sequence[int], p: int, degree: int
) -> System | None:
    """A minor of the lifted system of ``members`` at ``layer`` that leaves what their groups must leave, at
    degree two the square of each group's size (docs/theory.md, C2), and one of their deltas; None where the
    ranks are not reached.
    """
    if choice == "SumZero" and layer < state.depth - 1:
        return None
    if choice == "Alone" and len(members) > 1:
        return None
    all_deltas = state.deltas(p)
    delta = all_deltas[layer - 1][list(members)]
    weight = state.layers[layer].weight % p
    minors = [select(delta, p)]
    if choice == "NextDeltas":
        minors += [select(all_deltas[layer], p), select(state.lifted_inputs(layer + 1), p)]
        weight = all_deltas[layer].dot(weight) % p
    elif choice == "SumZero":
        weight = (weight[:-1] - weight[-1:]) % p
    found = [minor for minor in minors if minor is not None]
    if len(found) < len(minors):
        return None
    neurons, equations, dropped, inverse = list[int](), list[int](), list[int](), list[list[int]]()
    if choice != "Alone":
        sizes = [len(group) for group in state.groups(layer, members)]
        free = sum(size**2 if degree == 2 else comb(size + 2, 3) for size in sizes)
        system = reduced(_system(delta, weight) if degree == 2 else _cubic_system(delta, weight, p), p)
        columns = pivots(system)
        if len(columns) < system.ncols() - free:
            return None
        matrix = integers([[int(system[i, j]) for j in columns] for i in range(system.nrows())])
        rows = neurons = pivots(reduced(matrix.T, p))
        dropped = sorted(set(range(system.ncols())) - set(columns))
        inverse = [list(row) for row in inverse_transposed(matrix[rows], p)]
        if degree == 3:
            width = delta.shape[1]
            neurons, equations = [row % width for row in rows], [row // width for row in rows]
    return System(
        choice=choice,
        next_minors=tuple(found[1:]),
        deltas_minor=found[0],
        neurons=neurons,
        equations=equations,
        dropped=dropped,
        inverse=inverse,
    )


def _system(delta: Matrix, weight: Matrix) -> Matrix:
    """R (n, U), the products q_a q_b (a <= b) first, then q_a u_c, from delta (M, n) and V^T (K', n)."""
    pairs = combinations_with_replacement(range(len(delta)), 2)
    columns = [delta[a] * delta[b] * (1 if a == b else 2) for a, b in pairs]
    columns += [-row * w for row in delta for w in weight]
    return np.array(columns, dtype=object).T


def _cubic_system(delta: Matrix, weight: Matrix, p: int) -> Matrix:
    """R3 modulo p (docs/theory.md, Appendix L3): a row for each unknown x and neuron j, with x e_j.

    Columns: sorted triples of unknowns of which the first is one of q, in their order.
    """
    samples, width = delta.shape
    second = np.concatenate([delta, -weight])
    unknowns = len(second)
    triples = combinations_with_replacement(range(unknowns), 3)
    column = {triple: k for k, triple in enumerate(t for t in triples if t[0] < samples)}
    matrix = np.zeros((unknowns * width, len(column)), dtype=object)
    for a in range(samples):
        for b in range(unknowns):
            term = delta[a] * second[b] % p
            for x in range(unknowns):
                first, middle, last = sorted((a, b, x))
                matrix[x * width : (x + 1) * width, column[first, middle, last]] += term
    return matrix % p


def document(given: Given, evidence: Evidence, *, about: str) -> str:
    """The Coq file; ``about``: what its header says."""
    (d, *hidden, classes), samples = given.widths, given.samples
    system, layer = evidence.system, evidence.layer
    said, supposed = _OTHERS[given.loss]
    theorem = f"unique_{given.loss.value}"
    numbers, library, hypothesis = f"{evidence.modulus}%uint63", "", ""
    if not given.loss.rational:
        numbers += f" {evidence.point}%uint63"
        library, hypothesis = "softmax", "e_transcendental "
    terms = _Terms()
    sizes, lower = f"{d} {hidden[0]} {widths_literal(hidden[1:])}", ""
    if layer > 1:
        theorem += "_deep"
        below, above = widths_literal(hidden[: layer - 2]), widths_literal(hidden[layer:])
        sizes = f"{d} {below} {hidden[layer - 2]} {hidden[layer - 1]} {above}"
        lower = f"Definition lower := {terms.minors(evidence.lower)}.\n"
    told = "LossVectors"
    if evidence.output_minor is not None:
        told = f"OutputRank {terms.minor(evidence.output_minor)}"
    elif evidence.backward_minors:
        told = f"BackwardRank {terms.minors(evidence.backward_minors)}"
    argument = f"""Argument
  {terms.unknowns(system)}
  {terms.minor(system.deltas_minor)}
  {terms.minor(evidence.inputs_minor)}
  {indices_literal(system.neurons)}
  {indices_literal(system.equations)}
  {indices_literal(system.dropped)}
  {terms.matrix(system.inverse)}
  {terms.levels(evidence.splits)}"""
    return f"""{opening(given, about, library)}
(* What coqc checks the claim with. *)
{"".join(terms.sentences)}{lower}Definition evidence := {argument}.
Definition told := {told}.

Local Close Scope array_scope.
Local Close Scope uint63_scope.

Lemma checked :
  {theorem}_ok {numbers} {sizes} {classes} {samples - 1}
    layers inputs labels {"lower " if lower else ""}evidence told.
Proof. vm_cast_no_check (erefl true). Qed.

{claim_opening(given)}
(* Every batch of {samples} samples, {said}, that has this gradient *)
(* is this batch up to the order of its samples. *)
Theorem claimed (x' : 'I_{samples} -> 'cV[R]_{d}) (y' : 'I_{samples} -> 'cV[R]_{classes}) :
  {supposed}bgrad loss N x' y' = bgrad loss N x y -> same_batch x x' y y'.
Proof.
apply: ({theorem} {hypothesis}_ checked); by rewrite invr_eq0 pnatr_eq0.
Qed.

End Claim.
"""


class _Terms:
    """Terms of the evidence, and ``sentences`` to go before them: the rows of its large matrices."""

    def __init__(self) -> None:
        self.sentences = list[str]()

    def matrix(self, rows: Rows) -> str:
        """A square matrix of residues."""
        sentences, words = words_of(f"inverse_{len(self.sentences)}", rows)
        if sentences:
            self.sentences.append(sentences)
        return f"(rows_of {len(rows)} {len(rows)} {words})"

    def minor(self, minor: Minor) -> str:
        return f"(Minor {indices_literal(minor.columns)} {self.matrix(minor.inverse)})"

    def minors(self, minors: Sequence[Minor]) -> str:
        return "[:: " + ";\n  ".join(map(self.minor, minors)) + "]"

    def unknowns(self, system: System) -> str:
        return f"({' '.join([system.choice, *map(self.minor, system.next_minors)])})"

    def levels(self, splits: Sequence[Sequence[System]]) -> str:
        """For each layer the groups' systems, as ``division`` of proofs/coq/divisions.v."""
        levels = ["[:: " + ";\n  ".join(map(self.division, level)) + "]" for level in splits]
        return "[:: " + ";\n  ".join(levels) + "]"

    def division(self, system: System) -> str:
        parts = [
            self.minor(system.deltas_minor),
            self.unknowns(system),
            indices_literal(system.neurons),
            indices_literal(system.equations),
            indices_literal(system.dropped),
            self.matrix(system.inverse),
        ]
        return f"Division {' '.join(parts)}"


_OTHERS = {
    Loss.MSE: ("whatever its inputs and targets", ""),
    Loss.HINGE: ("whatever its inputs and classes", "(forall m, is_class (y' m)) ->\n  "),
    Loss.CROSS_ENTROPY: (
        "whatever its inputs and its targets that sum to one",
        "(forall m, sums_to_one (y' m)) ->\n  ",
    ),
    Loss.BCE: ("whatever its inputs and targets", ""),
}
"""Which other batches a theorem speaks of, in words and as a hypothesis of its statement."""
