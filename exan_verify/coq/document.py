"""What every file says: the network and the batch as tensors, and what the theorem's statement is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from exan_verify.coq.literals import Tensor, indices_literal, widths_literal
from exan_verify.core.question import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Network and batch as tensors: ``layers`` (weight, bias), ``inputs`` (M, d), and the labels: target
    vectors (M, K) under mse and bce, classes under hinge and cross_entropy. ``factor``: the loss vector's
    entries are divided by it.
    """

    loss: Loss
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
    def labels_definition(self) -> str:
        """Sentences that define ``labels``."""
        if isinstance(self.labels, Tensor):
            return self.labels.definition("labels")
        return f"Definition labels := {indices_literal(self.labels)}.\n"


def opening(given: Given, about: str, library: str) -> str:
    """The file up to the batch; ``about``: what its header says, ``library``: what else its theorem uses."""
    tensors = "".join(
        weight.definition(f"weight_{k}") + bias.definition(f"bias_{k}")
        for k, (weight, bias) in enumerate(given.layers, start=1)
    )
    inputs = given.inputs.definition("inputs")
    layers = "; ".join(f"(weight_{k}, bias_{k})" for k in range(1, len(given.layers) + 1))
    return f"""(*{about}*)
From Coq Require Import ZArith Uint63 PArray.
From mathcomp Require Import all_ssreflect all_algebra.
From Exan Require Import network downward residues tensors layers divisions certificates claims {library}.

Import GRing.Theory Num.Theory.
Delimit Scope Z_scope with BZ.
Local Open Scope ring_scope.
Local Open Scope uint63_scope.
Local Open Scope array_scope.

(* The network, layer by layer. *)
{tensors}Definition layers := [:: {layers}].

(* The batch: one sample a row. *)
{inputs}{given.labels_definition}"""


def claim_opening(given: Given) -> str:
    """Network, batch and loss over an ordered field, under a loss with exponentials with one hypothesis."""
    (d, *hidden, classes), samples = given.widths, given.samples
    network = f"R {d} {widths_literal(hidden)} {classes}"
    vector = f"'cV[R]_{classes}"
    targets = isinstance(given.labels, Tensor)
    label = f"colt R {classes} labels m" if targets else f"class R {classes} (nth 0%N labels m)"
    vectors = _VECTORS[given.loss]
    return f"""Section Claim.

Variable R : realFieldType.
{"" if given.loss.rational else _EXPONENTIAL}
Definition N : params {network} := net {network} layers.
Definition x (m : 'I_{samples}) : 'cV[R]_{d} := colt R {d} inputs m.
Definition y (m : 'I_{samples}) : {vector} := {label}.
Definition loss : {vector} -> {vector} -> {vector} := {vectors} {given.factor}%:R^-1.
"""


def hypotheses(text: str) -> list[str]:
    """What the theorem of a file supposes beside the data, as it stands there."""
    return re.findall(r"^Hypothesis \w+ : (.*)\.$", text, re.MULTILINE)


_VECTORS = {
    Loss.MSE: "mse_lv",
    Loss.HINGE: "hinge_lv",
    Loss.CROSS_ENTROPY: "ce_lv exp",
    Loss.BCE: "bce_lv exp",
}
"""The loss vectors as the library names them."""

_EXPONENTIAL = """Variable exp : exponential R.
(* No integer polynomial but zero vanishes at e (Hermite, 1873). *)
Hypothesis e_transcendental : transcendental (exp 1).
"""
