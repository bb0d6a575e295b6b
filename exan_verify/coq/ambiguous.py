"""AMBIGUOUS by a second batch of rational numbers, under mse and hinge: the file's text."""

from __future__ import annotations

from collections.abc import Sequence

from exan_verify.coq.document import Given, claim_opening, opening
from exan_verify.coq.literals import Table, indices_literal, widths_literal


def document(given: Given, inputs: Table, labels: Table | Sequence[int], *, about: str) -> str:
    """The Coq file; the second batch's ``inputs`` and target vectors are over multiples of the first one's
    denominators.
    """
    (d, *hidden, classes), samples = given.widths, given.samples
    if isinstance(labels, Table):
        arguments = "inputs labels over over_labels inputs' labels'"
        told = f"vec R {classes} over_labels (nth [::] labels' m)"
        second = labels.definition("labels'")
        definitions = f"Definition over_labels := {labels.denominator}%BZ.\n{second}"
    else:
        arguments = "inputs labels over inputs' labels'"
        told = f"class R {classes} (nth 0%N labels' m)"
        definitions = f"Definition labels' := {indices_literal(labels)}.\n"
    return f"""{opening(given, about, "second")}
(* The second batch: integers over one denominator. *)
Definition over := {inputs.denominator}%BZ.
{inputs.definition("inputs'")}{definitions}
Local Close Scope array_scope.
Local Close Scope uint63_scope.

Lemma checked :
  ambiguous_{given.loss.value}_ok {d} {widths_literal(hidden)} {classes} {samples - 1}
    layers {arguments}.
Proof. vm_cast_no_check (erefl true). Qed.

{claim_opening(given)}
Definition x' (m : 'I_{samples}) : 'cV[R]_{d} := vec R {d} over (nth [::] inputs' m).
Definition y' (m : 'I_{samples}) : 'cV[R]_{classes} := {told}.

(* The second batch has this gradient, and is not this batch in any order of its samples. *)
Theorem claimed : bgrad loss N x' y' = bgrad loss N x y /\\ ~ same_batch x x' y y'.
Proof.
apply: (ambiguous_{given.loss.value} _ checked); by rewrite invr_eq0 pnatr_eq0.
Qed.

End Claim.
"""
