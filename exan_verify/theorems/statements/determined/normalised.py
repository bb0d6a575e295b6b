"""BatchNorm in eval mode: whose gradient says nothing more than that of the weights beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

from exan_verify.theorems.statement import Exhibit, Result, Standing, Statement
from exan_verify.theorems.support.example_check import all_met
from exan_verify.theorems.support.laboratory import drawn
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, symbolic, written

Numbers = tuple[Fraction, ...]


@dataclass(frozen=True, kw_only=True)
class Normed:
    """``w (gamma n + beta) + b``, n = (x - mean) root, one number each, at samples ``x`` with ``deltas`` of
    its output; b = 0 and not trained where not ``biased``. ``other``: samples and deltas of another batch.
    """

    root: Fraction
    mean: Fraction
    gamma: Fraction
    beta: Fraction
    weight: Fraction
    x: Numbers
    deltas: Numbers
    other: tuple[Numbers, Numbers]
    biased: bool

    def of_weights(self, batch: tuple[Numbers, Numbers]) -> Numbers:
        """The gradient of w, and of b where there is one."""
        x, deltas = batch
        taken = [self.gamma * (v - self.mean) * self.root + self.beta for v in x]
        weights = sum((d * v for d, v in zip(deltas, taken, strict=True)), start=Fraction(0))
        return (weights, sum(deltas, start=Fraction(0))) if self.biased else (weights,)

    def of_norm(self, batch: tuple[Numbers, Numbers]) -> Numbers:
        """The gradients of gamma and beta."""
        x, deltas = batch
        above = [self.weight * d for d in deltas]
        scale = sum(
            (a * (v - self.mean) * self.root for a, v in zip(above, x, strict=True)), start=Fraction(0)
        )
        return scale, sum(above, start=Fraction(0))

    @property
    def batch(self) -> tuple[Numbers, Numbers]:
        """The first batch."""
        return self.x, self.deltas


def biased(seed: int) -> Iterator[Normed]:
    """Norms before a weight with a bias, and two batches that have the gradient of weight and bias."""
    return drawn("CV1/norms", seed, _draw)


def _draw(rng: Random) -> Normed | None:
    def number() -> Fraction:
        return Fraction(rng.randint(-5, 5))

    x, deltas, third = (number(), number()), (number(), number()), number()
    made = Normed(
        root=Fraction(rng.randint(1, 4), 3),
        mean=number(),
        gamma=number(),
        beta=number(),
        weight=number(),
        x=x,
        deltas=deltas,
        other=((third, x[1]), deltas),
        biased=True,
    )
    if 0 in (made.gamma, made.weight, deltas[0], deltas[1]) or third == x[0]:
        return None
    # the second sample makes up for what the first one moves
    second = x[1] + deltas[0] * (x[0] - third) / deltas[1]
    return replace(made, other=((third, second), deltas))


def norm_says_nothing_more(case: Normed) -> bool:
    """The batches have one gradient of weight and bias, and so of gamma and beta."""
    same = case.of_weights(case.batch) == case.of_weights(case.other)
    return same and case.of_norm(case.batch) == case.of_norm(case.other)


def without_bias(_case: Normed) -> Normed:
    """The stored case, of a weight without a bias."""
    return unbiased()


def unbiased() -> Normed:
    """x + 1 before a weight 1 without a bias: a sample 1 with delta 1, and a sample 0 with delta 2."""
    one, nothing = Fraction(1), Fraction(0)
    return Normed(
        root=one,
        mean=nothing,
        gamma=one,
        beta=one,
        weight=one,
        x=(one,),
        deltas=(one,),
        other=((nothing,), (Fraction(2),)),
        biased=False,
    )


def norm_says_more(case: Normed) -> bool:
    """The batches have one gradient of the weight, and others of beta."""
    same = case.of_weights(case.batch) == case.of_weights(case.other)
    return same and case.of_norm(case.batch) != case.of_norm(case.other)


def with_the_bias(case: Normed) -> Normed:
    """The bias' gradient tells the batches apart."""
    return replace(case, biased=True)


def stored(_seed: int) -> Iterator[Normed]:
    """The stored counterexample."""
    yield unbiased()


def seen_at(case: Normed) -> Result:
    """:func:`norm_says_more`, in words."""
    return all_met({"one gradient of the weight, two of beta": norm_says_more(case)})


def exhibit() -> Exhibit:
    """The two batches as text to retype."""
    return Exhibit(
        lines=(
            "z = lambda x: 1 * x + 1  # gamma = beta = 1, and the weight after it is 1, without a bias",
            "one, other = [(1, 1)], [(0, 2)]  # (sample, delta)",
            "weight = lambda batch: sum(d * z(x) for x, d in batch)",
            "beta = lambda batch: sum(1 * d for x, d in batch)",
            "weight(one) == weight(other) and beta(one) != beta(other)",
        ),
        note="One sample of one number: 1 with delta 1, or 0 with delta 2.",
        shown=lambda: seen_at(unbiased()),
    )


STATEMENTS = (
    Statement(
        name="norms-fold",
        group="CV1",
        title="BatchNorm in eval mode beside weights with biases adds nothing to their gradient",
        source="docs/theory.md, section 10, BatchNorm in eval mode",
        reading="The gradients of gamma and beta are linear functions of the gradients of the weights and "
        "biases that the norm is folded into, which determine them and are determined by those of the "
        "layer's own.",
        quantifiers="all widths, M, losses; a factor gamma / sqrt(var + eps) that is taken as it is",
        hypotheses=("gamma is not 0", "the weights beside it have biases, or beta is theirs"),
        conclusion="Two batches have one gradient of all parameters iff they have one of the folded ones.",
        latex=r"\nabla(B)=\nabla(B')\iff\nabla_{\mathrm{folded}}(B)=\nabla_{\mathrm{folded}}(B')",
        standing=Standing.PROVED,
        grounds=(
            written("BatchNorm in eval mode", "the formulas, for a norm on either side of the weights"),
        ),
        checks=(
            by_instances(
                "two batches",
                "computes over Q the gradients of two batches that have one gradient of weight and bias",
                instances=biased,
                conclusion=norm_says_nothing_more,
                spoiled=without_bias,
                count=20,
                said="norms before a weight with a bias",
            ),
        ),
        remark="The factor is irrational for almost all gamma and var; claims are about the network with the "
        "rounded one.",
    ),
    Statement(
        name="norms-fold-without-biases",
        group="CV1",
        title="BatchNorm in eval mode before weights without biases",
        source="docs/theory.md, section 10, BatchNorm in eval mode",
        reading="The gradient of a norm's own parameters is a function of the gradient of the weights after "
        "it, biases or none.",
        quantifiers="some network and batch (refuted)",
        hypotheses=("gamma is not 0", "the weights after the norm have no biases"),
        conclusion="Two batches with one gradient of the weights have one of gamma and beta.",
        latex=r"\nabla_W(B)=\nabla_W(B')\ \not\Longrightarrow\ \nabla_\beta(B)=\nabla_\beta(B')",
        standing=Standing.REFUTED,
        grounds=(
            symbolic(
                "norms-fold-without-biases: its example", "one number, two batches of one sample", REFUTES
            ),
        ),
        checks=(
            by_instances(
                "beta",
                "computes the gradients of both batches over Q",
                instances=stored,
                conclusion=norm_says_more,
                spoiled=with_the_bias,
                count=1,
                said="counterexamples replayed",
                direction=REFUTES,
            ),
        ),
        example=exhibit,
        smallest="One sample and one number: none is smaller.",
        remark="So a BatchNorm before weights without biases is refused: the folded network could have a "
        "second batch that the gradient of beta tells apart.",
    ),
)
