"""Algorithm B.1's heuristic scale of the loss vectors: what it gets wrong, exactly."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from statistics import median
from typing import Any

import flint

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.exact.softmax import loss_vectors_ball
from exan_verify.theorems.statement import Check, Example, Progress, Result, Standing, Statement
from exan_verify.theorems.support.shorthands import REFUTES, kernel, measured, written

GUESS = Fraction(2, 3)
"""The share of its feasible maximum that Algorithm B.1 gives to the first entry of g."""

COUNT = 200
PRECISION, RADIUS = 192, 2.0**-100


def equal_logits() -> Example:
    """One sample, two classes, equal logits: softmax is (1/2, 1/2), the guess is one third too large."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [1]]], [[0], [0, 0]])
    return Example(
        network=network,
        batch=Batch.of([[1]], [0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT),
        question=Question(loss=Loss.CROSS_ENTROPY),
        outcome=Outcome.UNIQUE,
        shown=scale_is_wrong,
        note="g = (-1/2, 1/2); the heuristic says (-2/3, 2/3)",
    )


def scale_is_wrong(example: Example) -> Result:
    """Whether the guessed scale of the first sample is provably not the true one."""
    error = relative_error(vector_of(example.relu, example.batch), int(example.batch.labels[0]))
    wrong = not error.contains(0)
    return Result(holds=wrong, detail=f"(guessed scale) / (true scale) - 1 = {error.str(6)}")


def relative_error(vector: list[Any], label: int) -> Any:
    """(guessed scale) / (true scale) - 1 for a loss vector of cross_entropy (reduction sum), as a ball.

    ``g = s u``: the direction u is known, every entry but the label's is positive and ``-g_y < 1``. So the
    feasible maximum of s is ``1 / -u_y``, of every entry at once, and the guess puts ``-g_y = 2/3``.
    """
    with flint.ctx.workprec(PRECISION):
        return flint.arb(flint.fmpq(GUESS.numerator, GUESS.denominator)) / -vector[label] - 1


def vector_of(network: ReluNetwork, batch: Batch, precision: int = PRECISION) -> list[Any]:
    """The first sample's loss vector (reduction sum) as balls."""
    logits = forward(network, batch).logits
    with flint.ctx.workprec(precision):
        balls = loss_vectors_ball(Loss.CROSS_ENTROPY, logits, batch.labels, 1, precision)
    return [balls[k, 0] for k in range(network.classes)]


def _formula(progress: Progress, _seed: int) -> Result:
    """Equal logits: K = 2, ..., 12 against the exact value (3 - K) / (3 (K - 1))."""
    errors: dict[int, Fraction] = {}
    for classes in range(2, 13):
        progress("classes", classes - 2, 11)
        network = ReluNetwork.from_arrays([[[1]] * classes], [[0] * classes])
        batch = Batch.of([[0]], [0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
        wanted = Fraction(3 - classes, 3 * (classes - 1))
        found = relative_error(vector_of(network, batch), 0)
        with flint.ctx.workprec(PRECISION):
            rest = found * wanted.denominator - wanted.numerator
        if not rest.contains(0) or not rest.rad() < RADIUS:
            return Result(holds=False, detail=f"K = {classes}: {found}, not {wanted}")
        errors[classes] = wanted
    wrong = {str(classes): str(v) for classes, v in errors.items() if v}
    return Result(
        holds={str(k) for k in errors} - set(wrong) == {"3"},
        detail="with equal logits the scale is off by (3 - K) / (3 (K - 1)): right for K = 3 only",
        data=wrong,
    )


def _measure(progress: Progress, seed: int) -> Result:
    """Relative errors over random logits, in balls: how many are provably wrong, and by how much."""
    rng, errors = Random(f"B.1/{seed}"), []
    for k in range(COUNT):
        progress("random logits", k, COUNT)
        classes = rng.randint(2, 10)
        logits = [Fraction(rng.randint(-400, 400), 100) for _ in range(classes)]
        network = ReluNetwork.from_arrays([[[0]] * classes], [logits])
        label = rng.randrange(classes)
        batch = Batch.of([[0]], [label], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
        error = relative_error(vector_of(network, batch), label)
        if not error > flint.fmpq(-1, 3):
            return Result(holds=False, detail=f"relative error {error}, below the proved bound -1/3")
        errors.append(error)
    wrong = sum(not error.contains(0) for error in errors)
    sizes = sorted(float(abs(error).mid()) for error in errors)
    data = {"instances": COUNT, "wrong": wrong, "median": median(sizes), "largest": sizes[-1]}
    detail = f"{wrong} of {COUNT} scales provably wrong; relative error: median {data['median']:.2f}, "
    return Result(holds=wrong == COUNT, detail=f"{detail}largest {sizes[-1]:.1f}", data=data)


STATEMENTS = (
    Statement(
        name="b1-scale",
        group="B1",
        title="The heuristic scale of Algorithm B.1",
        source="Algorithm B.1 of arXiv 2010.13356 as described; docs/theory.md section 2, E3",
        published="The loss vector's scale is not determined by ratios; the algorithm puts its first entry "
        "at two thirds of the largest feasible value.",
        reading="Under cross_entropy, g = s u with u known; feasible means that softmax stays between 0 and "
        "1, so s < 1 / |u_y| and the guess is |g_y| = 2/3, that is p_y = 1/3 whatever the sample. Then s is "
        "the true scale.",
        quantifiers="some network and sample (refuted)",
        hypotheses=("cross_entropy", "the direction of the loss vector is known exactly"),
        conclusion="The guessed scale is the true one.",
        latex=r"\tfrac23\sup\{s:\ s\,|u_y|<1\}=s_{\mathrm{true}}",
        standing=Standing.REFUTED,
        grounds=(
            written(
                "Appendix P, P.6",
                "the relative error is 2 / (3 (1 - p_y)) - 1: above -1/3, without upper bound, 0 iff p_y = "
                "1/3",
                REFUTES,
            ),
            kernel("b1.py: equal_logits", "1-1-2, p_y = 1/2: exactly one third too large", REFUTES),
            measured("this check", "random logits between -4 and 4, K from 2 to 10"),
        ),
        checks=(
            Check(
                name="equal logits",
                what="encloses the relative error in balls and compares it with (3 - K) / (3 (K - 1))",
                run=_formula,
                direction=REFUTES,
            ),
            Check(
                name="random logits",
                what="encloses the relative error over random logits and counts those that exclude 0",
                run=_measure,
                direction=REFUTES,
            ),
        ),
        example=equal_logits,
        smallest="1-1-2 with one sample: no network with a hidden layer and two classes is smaller.",
        remark="Directions, labels and groups do not depend on the scale; everything solved for with it "
        "does. For a well classified sample the guess is far too large: p_y = 0.97 gives a factor of 22. E3 "
        "replaces it.",
    ),
)
