"""What every file says: the network and the batch as tensors, and what the theorem's statement is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exan_verify.coq.literals import Tensor, indices_literal, widths_literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Network and batch as tensors: ``layers`` (weight, bias), ``inputs`` (M, d), and the labels: target
    vectors (M, K) under mse, classes under hinge. ``factor``: the loss vector's entries are divided by it.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    inputs: Tensor
    labels: Tensor | Sequence[int]
    factor: int

    @property
    def widths(self) -> tuple[int, ...]:
        """``(n_0, ..., n_L)``."""
        return (len(self.inputs.numerators[0]), *(len(weight.numerators) for weight, _ in self.layers))

    @property
    def samples(self) -> int:
        """M."""
        return len(self.inputs.numerators)

    @property
    def squared(self) -> bool:
        """Whether the loss is mse; else hinge."""
        return isinstance(self.labels, Tensor)

    @property
    def loss(self) -> str:
        """As the library names it."""
        return "mse" if self.squared else "hinge"

    @property
    def labels_literal(self) -> str:
        """The labels as a Coq term."""
        return self.labels.literal if isinstance(self.labels, Tensor) else indices_literal(self.labels)


def opening(given: Given, about: str, library: str) -> str:
    """The file up to the batch; ``about``: what its header says, ``library``: where its theorem lies."""
    tensors = "".join(
        f"Definition weight_{k} := {weight.literal}.\nDefinition bias_{k} := {bias.literal}.\n"
        for k, (weight, bias) in enumerate(given.layers, start=1)
    )
    layers = "; ".join(f"(weight_{k}, bias_{k})" for k in range(1, len(given.layers) + 1))
    return f"""(*{about}*)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import network downward residues tensors certificates claims {library}.

Import GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.
Local Open Scope uint63_scope.
Local Open Scope array_scope.

(* The network, layer by layer. *)
{tensors}Definition layers := [:: {layers}].

(* The batch: one sample a row. *)
Definition inputs := {given.inputs.literal}.
Definition labels := {given.labels_literal}.
"""


def claim_opening(given: Given) -> str:
    """Network, batch and loss over an ordered field."""
    (d, *hidden, classes), samples = given.widths, given.samples
    network = f"R {d} {widths_literal(hidden)} {classes}"
    vector = f"'cV[R]_{classes}"
    label = f"colt R {classes} labels m" if given.squared else f"class R {classes} (nth 0%N labels m)"
    return f"""Section Claim.

Variable R : realFieldType.

Definition N : params {network} := net {network} layers.
Definition x (m : 'I_{samples}) : 'cV[R]_{d} := colt R {d} inputs m.
Definition y (m : 'I_{samples}) : {vector} := {label}.
Definition loss : {vector} -> {vector} -> {vector} := {given.loss}_lv {given.factor}%:R^-1.
"""
