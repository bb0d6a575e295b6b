"""Exclusivity reduction, the published mitigation, in three readings."""

from __future__ import annotations

from functools import partial

from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.exclusivity import exan_counts
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Example, Result
from exan_verify.theorems.support.counterexamples import masked, perturbed, regrouped
from exan_verify.theorems.support.example_check import all_met, by_example
from exan_verify.theorems.support.shorthands import REFUTES, kernel, measured, refuted

_refuted = partial(
    refuted,
    group="mitigation",
    source="the mitigation of arXiv 2010.13356 as we read it; docs/mitigation.md",
    published="Reducing the exclusivity of a batch enlarges the secure boundary.",
    conclusion="The batch is not UNIQUE.",
)
"""A reading that a batch contradicts: none of its exclusivity is left, or sent, and it is UNIQUE."""


def _exclusive(example: Example) -> list[int]:
    """How many neurons are exclusive to each sample, over all layers; (M,)."""
    counts = [exan_counts(p) for p in forward(example.network, example.batch).patterns]
    return [sum(map(int, column)) for column in zip(*counts, strict=True)]


def _unique(example: Example) -> bool:
    return kernel_outcome(example.network, example.batch, example.question) is Outcome.UNIQUE


def _regrouping(example: Example) -> Result:
    before, after = ((1, -1), (2, -2)), ((1, 2), (-1, -2))
    first, last = example.batch.inputs[:, 0]
    return all_met(
        {
            "the batch is one of the second grouping": (first, last) in after,
            "every sample has an ExAN in the first grouping": all(
                all(_exclusive(regrouped(p))) for p in before
            ),
            "no sample has one in the second": not any(any(_exclusive(regrouped(p))) for p in after),
            "kernel says UNIQUE of both groups": all(_unique(regrouped(p)) for p in after),
        }
    )


def _perturbing(example: Example) -> Result:
    return all_met(
        {
            "an exclusive neuron before": any(_exclusive(perturbed(-1))),
            "none after": not any(_exclusive(example)),
            "kernel says UNIQUE": _unique(example),
        }
    )


def _masking(example: Example) -> Result:
    pattern = forward(example.network, example.batch).pattern(1)
    exclusive = pattern.sum(axis=1) == 1
    release = example.question.release
    weight, bias = [name for name, _ in example.network.parameters()][:2]
    sent = [] if release is None else [release.sends(name, len(exclusive)) for name in (weight, bias)]
    return all_met(
        {
            "an exclusive neuron for every sample": all(_exclusive(example)),
            "no row of one is sent": bool(sent) and not any(bool(mask[exclusive].any()) for mask in sent),
            "kernel says UNIQUE of the release": _unique(example),
        }
    )


STATEMENTS = (
    _refuted(
        name="regrouping-protects",
        title="Regrouping a pool into batches without exclusive neurons",
        reading="If the samples of a pool are put into batches in which no neuron is exclusive, each of them "
        "shares its gradient with another batch.",
        hypotheses=("no ExAN in any layer of the batches after regrouping", "ExANs for all samples before"),
        latex=r"E=0\text{ after regrouping}\ \Longrightarrow\ \exists B'\neq B:\ \nabla(B')=\nabla(B)",
        grounds=(
            kernel("counterexamples.py: regrouped", "1-2-2, two pairs of a pool of four, mse", REFUTES),
            measured("exan bench mitigation", "784-512-10, 16 digits, `regroup`: UNIQUE, 16 of 16 rebuilt"),
        ),
        example=regrouped,
        checks=(
            by_example(
                "1-2-2",
                "recomputes the exclusivity of both groupings and certifies the groups without ExANs",
                example=regrouped,
                judge=_regrouping,
            ),
        ),
        smallest="One sample without an ExAN is dead and moves (S3), so that a group has two at least.",
        remark="What regrouping reaches is the hypothesis of P2, and P2 is false (p2-any-layer).",
    ),
    _refuted(
        name="perturbing-exans-away-protects",
        title="Moving the inputs until no neuron is exclusive",
        reading="If the inputs are moved a little until no neuron is exclusive, another batch has the same "
        "gradient as the moved one.",
        hypotheses=("no ExAN in any layer after the perturbation", "an ExAN before"),
        latex=r"E(X+A)=0\ \Longrightarrow\ \exists B'\neq(X+A,y):\ \nabla(B')=\nabla(X+A,y)",
        grounds=(
            kernel("counterexamples.py: perturbed", "1-2-2, M = 2, one input moved by 1/500, mse", REFUTES),
            measured("exan bench mitigation", "784-512-10, 16 digits, `perturb`: UNIQUE, 16 of 16 rebuilt"),
        ),
        example=perturbed,
        checks=(
            by_example(
                "1-2-2",
                "recomputes the exclusivity before and after, and certifies the batch that was moved",
                example=perturbed,
                judge=_perturbing,
            ),
        ),
        smallest="One sample without an ExAN is dead and moves (S3).",
        remark="What is determined is the moved batch. The true one is as near as it was moved: a picture "
        "moved by 1/500 is read as it was.",
    ),
    _refuted(
        name="masking-exan-rows-protects",
        title="Holding back the rows of exclusive neurons",
        reading="If the rows of all exclusive neurons of the first layer are held back, another batch has "
        "the same release.",
        hypotheses=(
            "no row of an exclusive neuron of the first layer is sent",
            "every sample has an ExAN there",
        ),
        latex=r"\{j: E_j=1\}\cap S=\emptyset\ \Longrightarrow\ \exists B'\neq B:\ "
        r"\nabla_S(B')=\nabla_S(B)",
        grounds=(
            kernel("counterexamples.py: masked", "2-9-2, M = 3, six rows of nine sent, mse", REFUTES),
            measured("exan bench mitigation", "784-512-10, 16 digits, `mask-exan`: UNIQUE, 16 of 16 rebuilt"),
        ),
        example=masked,
        checks=(
            by_example(
                "2-9-2",
                "recomputes which neurons are exclusive, and certifies the batch for the release",
                example=masked,
                judge=_masking,
            ),
        ),
        smallest="Smaller ones were not looked for; masked-rows says which rows are enough.",
        remark="Where the first layer is narrower than the inputs, few rows do leave batches open "
        "(narrow-release).",
    ),
)
