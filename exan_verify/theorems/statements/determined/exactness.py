"""3.6: a rank found modulo p is a proof over the reals, softmax included; a deficit is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import flint
import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.exact.backprop import forward
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues
from exan_verify.exact.softmax import loss_vectors_ball, loss_vectors_mod
from exan_verify.theorems.statement import Example, Result, Standing, Statement
from exan_verify.theorems.support.example_check import by_example
from exan_verify.theorems.support.laboratory import drawn, integer_network, integers
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, coq, symbolic, written

BITS = 400
"""Precision of the balls: minors of size four of numbers down to e^-40."""


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Logits (K, M) and labels of a batch; its loss vectors, cut to ``rows``, are a square minor."""

    loss: Loss
    logits: Array
    labels: Array
    rows: tuple[int, ...]
    point: int

    @property
    def residues(self) -> Residues:
        """The minor (M, M) mod p under T -> point."""
        found = loss_vectors_mod(self.loss, self.logits, self.labels, 1, self.point)
        return found[list(self.rows)]

    @property
    def determinant(self) -> Any:
        """The minor over the reals, as a ball."""
        with flint.ctx.workprec(BITS):
            balls = loss_vectors_ball(self.loss, self.logits, self.labels, 1, BITS)
            size = self.logits.shape[1]
            cut = flint.arb_mat(size, size, [balls[i, m] for i in self.rows for m in range(size)])
            return cut.det()


def minors(seed: int) -> Iterator[Vectors]:
    """Minors of softmax and sigmoid loss vectors that are non-zero mod p."""
    return drawn("3.6", seed, _draw)


def _draw(rng: Random) -> Vectors | None:
    loss = rng.choice((Loss.CROSS_ENTROPY, Loss.BCE))
    classes = rng.randint(3, 5)
    size = rng.randint(2, classes - 1)
    network = integer_network(rng, (2, 4, classes), top=2)
    inputs = integers(rng, size, 2, 3)
    classed = np.array([rng.randrange(classes) for _ in range(size)], dtype=np.int64)
    labels = classed if loss is Loss.CROSS_ENTROPY else np.eye(classes)[classed]
    passed = forward(network, Batch(inputs=inputs, labels=labels))
    found = Vectors(
        loss=loss,
        logits=passed.logits,
        labels=labels,
        rows=tuple(sorted(rng.sample(range(classes), size))),
        point=rng.randrange(2, PRIME),
    )
    return found if rank_mod(found.residues) == size else None


def real_minor_is_not_zero(vectors: Vectors) -> bool:
    """The ball of the real minor excludes zero."""
    return not vectors.determinant.contains(0)


def equal_columns(vectors: Vectors) -> Vectors:
    """The same with the first sample twice: every minor is zero."""
    logits, labels = vectors.logits.copy(), vectors.labels.copy()
    logits[:, 1], labels[1] = logits[:, 0], labels[0]
    return replace(vectors, logits=logits, labels=labels)


@dataclass(frozen=True, kw_only=True)
class Root:
    """T = e; ``exponent`` a with T^a = 1 modulo p at ``point``."""

    exponent: int
    point: int


def deficits(_seed: int) -> Iterator[Root]:
    """Softmax values that agree modulo p and not over the reals: t = 2 has order 61 modulo 2^61 - 1."""
    yield Root(exponent=61, point=2)


def deficit_that_is_none(root: Root) -> bool:
    """e^a - 1 vanishes mod p at the point, and is a real number larger than zero."""
    with flint.ctx.workprec(BITS):
        real = flint.arb(root.exponent).exp() - 1
    return pow(root.point, root.exponent, PRIME) == 1 and bool(real > 0)


def confused_modulo_p() -> Example:
    """1-1-2 under bce: the loss vectors of two samples have rank 1 mod p at t = 2, and rank 2 over R."""
    network = ReluNetwork.from_arrays([[[1]], [[61], [0]]], [[0], [0, 0]])
    batch = Batch.of([[0], [1]], [[0, 0], [0, 0]], network=network, loss=Loss.BCE, labels=Labels.ONE_HOT)
    return Example(
        network=network,
        batch=batch,
        question=Question(loss=Loss.BCE),
        shown=rank_falls_modulo_p,
        note="Logits (0, 0) and (61, 0): with T = e the loss vectors (1/2, 1/2) and (T^61 / (T^61 + 1), 1/2) "
        "have the same image at t = 2, because 2^61 = 1 modulo p = 2^61 - 1.",
    )


def rank_falls_modulo_p(example: Example) -> Result:
    """At t = 2 the minor of the example's loss vectors is zero modulo p, and its ball excludes zero."""
    vectors = Vectors(
        loss=example.question.loss,
        logits=forward(example.network, example.batch).logits,
        labels=example.batch.labels,
        rows=tuple(range(example.batch.size)),
        point=2,
    )
    found, real = rank_mod(vectors.residues), vectors.determinant
    holds = found < example.batch.size and not real.contains(0)
    detail = f"loss vectors: rank {found} of {example.batch.size} mod p; their determinant is {real.str(6)}"
    return Result(holds=holds, detail=detail)


def no_root(root: Root) -> Root:
    """An exponent for which the residue does not vanish."""
    return replace(root, exponent=root.exponent + 1)


STATEMENTS = (
    Statement(
        name="exactness",
        group="3.6",
        title="A rank found modulo p is a proof over the reals, softmax included",
        source="docs/theory.md 3.6",
        reading="Put T = e^(1/D) with D the common denominator of all logits of the batch. T is "
        "transcendental, so softmax and sigmoid values are rational functions of T, and sending T to a "
        "non-zero t in F_p is a ring homomorphism where no denominator vanishes. A rank of at least r "
        "modulo p is then a rank of at least r over the reals.",
        quantifiers="all matrices over Q(T) without p or a vanishing factor in a denominator",
        hypotheses=("T is transcendental", "no denominator vanishes at t modulo p"),
        conclusion="rank over F_p <= rank over the reals.",
        latex=r"\varphi:\mathbb Z_{(p)}[T]_{S}\to\mathbb F_p,\ T\mapsto t:\quad "
        r"\operatorname{rank}_{\mathbb F_p}\varphi(B)\le\operatorname{rank}_{\mathbb R}B",
        standing=Standing.PROVED,
        grounds=(
            coq("modular.v: rank_mod, rank_mod_ge", "for every ring homomorphism to F_p and embedding in R"),
            written("3.6", "T is transcendental (Hermite, Lindemann), and T -> t is such a homomorphism"),
        ),
        checks=(
            by_instances(
                "balls",
                "takes minors of loss vectors that are non-zero mod p and encloses their real values in "
                "balls "
                f"of {BITS} bits, which must exclude zero",
                instances=minors,
                conclusion=real_minor_is_not_zero,
                spoiled=equal_columns,
                count=40,
                said="minors that are non-zero mod p are non-zero over the reals",
            ),
        ),
        remark="The claim is about real arithmetic on the stored numbers, not an accelerator's rounding.",
    ),
    Statement(
        name="exactness-of-deficits",
        group="3.6",
        title="A deficit modulo p as a proof",
        source="docs/theory.md 3.6 ('rank deficits and equalities mod p prove nothing')",
        reading="A minor that vanishes modulo p vanishes over the reals.",
        quantifiers="all elements of Q(T) and all t",
        hypotheses=("the image in F_p is zero",),
        conclusion="The real number is zero.",
        latex=r"\varphi(b)=0\ \not\Longrightarrow\ b=0",
        standing=Standing.REFUTED,
        grounds=(
            symbolic(
                "exactness-of-deficits: order",
                "T^61 - 1 is zero at t = 2 modulo p = 2^61 - 1, and e^61 - 1 > 0",
                REFUTES,
            ),
            symbolic(
                "exactness-of-deficits: its example",
                "1-1-2 under bce: loss vectors of rank 1 modulo p at t = 2, of rank 2 over the reals",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "order",
                "computes 2^61 modulo p and encloses e^61 - 1 in a ball",
                instances=deficits,
                conclusion=deficit_that_is_none,
                spoiled=no_root,
                count=1,
                said="residues vanish where the real number does not",
                direction=REFUTES,
            ),
            by_example(
                "loss vectors",
                "computes the rank of a batch's loss vectors at t = 2 modulo p, encloses their determinant",
                example=confused_modulo_p,
                judge=rank_falls_modulo_p,
            ),
        ),
        example=confused_modulo_p,
        smallest="Smallest known. Under bce one loss vector is zero modulo p nowhere, so one sample is not "
        "enough for it.",
        remark="So nothing is concluded from a zero, a deficit or an equality modulo p anywhere.",
    ),
)
