"""AMBIGUOUS by a second batch of rational numbers, under mse and hinge: the file's text."""

from __future__ import annotations

from collections.abc import Sequence

from exan_verify.coq.document import Given, claim_opening, inputs_term, labels_term, opening
from exan_verify.coq.literals import Tensor, indices_literal, widths_literal


def document(given: Given, inputs: Tensor, labels: Tensor | Sequence[int], *, about: str) -> str:
    """The Coq file; ``inputs`` and ``labels`` of the second batch are over the first one's denominators."""
    (d, *hidden, classes), samples = given.widths, given.samples
    second = labels.literal if isinstance(labels, Tensor) else indices_literal(labels)
    return f"""{opening(given, about, "second")}
(* The second batch. *)
Definition inputs' := {inputs.literal}.
Definition labels' := {second}.

Local Close Scope array_scope.
Local Close Scope uint63_scope.

Lemma checked :
  ambiguous_{given.loss}_ok {d} {widths_literal(hidden)} {classes} {samples - 1}
    layers inputs inputs' labels labels'.
Proof. vm_cast_no_check (erefl true). Qed.

{claim_opening(given)}
Definition x' (m : 'I_{samples}) : 'cV[R]_{d} := {inputs_term(given, "inputs'")}.
Definition y' (m : 'I_{samples}) : 'cV[R]_{classes} := {labels_term(given, "labels'")}.

(* The second batch has this gradient, and is not this batch in any order of its samples. *)
Theorem claimed : bgrad loss N x' y' = bgrad loss N x y /\\ ~ same_batch x x' y y'.
Proof.
apply: (ambiguous_{given.loss} _ checked); by rewrite invr_eq0 pnatr_eq0.
Qed.

End Claim.
"""
