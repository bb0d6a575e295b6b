"""Section 8: without biases every sample keeps a scale, and the loss decides which scales fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

from exan_verify.core.network import Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.theorems.bounded import twins
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Check, Example, Progress, Result, Standing, Statement
from exan_verify.theorems.support.laboratory import (
    Pair,
    drawn,
    exact,
    integer_network,
    integers,
    mse_batch,
    noticing_nudge,
    same_gradient,
    same_samples,
    spoiled,
)
from exan_verify.theorems.support.shorthands import by_instances, kernel, symbolic, written


@dataclass(frozen=True, kw_only=True)
class Margin:
    """A rational margin t, w = K - 1, and how many scales c != 1 are claimed to fit."""

    margin: Fraction
    weight: int
    others: int


@dataclass(frozen=True, kw_only=True)
class Classified:
    """One sample of a two-class softmax network without biases; ``twin``: whether its margin is positive."""

    network: ReluNetwork
    batch: Batch
    twin: bool


def scaled(seed: int) -> Iterator[Pair]:
    """Networks without biases: one sample scaled by c, real targets with c g' = g, beside another sample."""
    return drawn("scale", seed, _draw_scaled)


def _draw_scaled(rng: Random) -> Pair | None:
    network = integer_network(rng, rng.choice(((2, 4, 2), (3, 4, 3, 2), (2, 3, 1))), biases=False)
    first = mse_batch(network, integers(rng, 2, network.widths[0], 5), integers(rng, 2, network.classes))
    c = Fraction(rng.choice((1, 2, 3, 5, 7)), rng.choice((2, 3, 4)))
    if c == 1 or not first.inputs[0].any():
        return None
    logits = forward(network, first).logits[:, 0]
    inputs, labels = exact(first.inputs), exact(first.labels)
    inputs[0] = inputs[0] * c
    labels[0] = [c * f - (f - y) / c for f, y in zip(logits, labels[0], strict=True)]
    second = replace(first, inputs=inputs, labels=labels)
    return noticing_nudge(Pair(network=network, first=first, second=second))


def same_gradient_elsewhere(pair: Pair) -> bool:
    """One gradient, over Q; another batch."""
    return same_gradient(pair) and not same_samples(pair)


def sampled_margins(seed: int) -> Iterator[Margin]:
    """Rational margins of both signs."""
    rng = Random(f"twins/{seed}")
    while True:
        margin = Fraction(rng.randint(-60, 60), rng.randint(1, 12))
        yield Margin(margin=margin, weight=rng.randint(1, 9), others=int(margin > 0))


def as_many_as_claimed(found: Margin) -> bool:
    """Counts scales by balls: sign changes of k(c) - k(1) on a grid away from c = 1, and k's slope at c = 1.

    For t > 0, k(c) = k(1) has its other root right of 1 when k rises at 1, and left of it when k falls: there
    the difference must change its sign once; without another root it must not.
    """
    slope = twins.slope_sign(found.margin, found.weight, Fraction(1))
    if slope == 0:
        return False
    near = Fraction(1) + slope * Fraction(1, 2**40)
    far = Fraction(4000) if slope > 0 else Fraction(1, 2**200)
    signs = [twins.difference(found.margin, found.weight, c) for c in (near, far)]
    start, end = (1 if v > 0 else -1 if v < 0 else 0 for v in signs)
    return start == 1 and end == (-1 if found.others else 1)


def wrong_number(found: Margin) -> Margin:
    """The opposite claim."""
    return replace(found, others=1 - found.others)


def lemma_steps(progress: Progress, _seed: int) -> Result:
    """Every step of the two-solution lemma, by sympy."""
    progress("steps of the lemma", 0, 1)
    found = twins.steps()
    failed = [step.says for step in found if not step.holds]
    said = "; ".join(step.says for step in found)
    return Result(holds=not failed, detail=f"fails: {'; '.join(failed)}" if failed else f"confirmed: {said}")


def classified(seed: int) -> Iterator[Classified]:
    """Single samples of two-class networks without biases, margins of both signs."""
    return drawn("twins softmax", seed, _draw_classified)


def _draw_classified(rng: Random) -> Classified | None:
    network = integer_network(rng, (2, 4, 2), biases=False)
    label = rng.randint(0, 1)
    batch = Batch.of(
        integers(rng, 1, 2, 4) / 8, [label], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT
    )
    passed = forward(network, batch)
    logits = [to_fraction(v) for v in passed.logits[:, 0]]
    margin = logits[label] - logits[1 - label]
    if any(z.any() for z in passed.zeros) or not margin or not passed.patterns[0].any():
        return None
    # h and delta must not vanish, or rank A = M fails and the sample is free for another reason
    weight = exact(network.layers[1].weight)
    seen = ((weight[0] - weight[1]) * passed.patterns[0][:, 0]) != 0
    return Classified(network=network, batch=batch, twin=margin > 0) if seen.any() else None


def kernel_agrees_on_twins(found: Classified) -> bool:
    """The kernel accepts AMBIGUOUS by a twin when the margin is positive, UNIQUE otherwise."""
    softmax = Question(loss=Loss.CROSS_ENTROPY)
    outcome = kernel_outcome(found.network, found.batch, softmax, engine="scale")
    return outcome is (Outcome.AMBIGUOUS if found.twin else Outcome.UNIQUE)


def other_label(found: Classified) -> Classified:
    """The opposite claim."""
    return replace(found, twin=not found.twin)


def lonely_sample() -> Example:
    """1-1-2 without biases, one sample classified correctly under softmax."""
    network = ReluNetwork.from_arrays([[[1]], [[1], [0]]])
    batch = Batch.of([[1]], [0], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    return Example(
        network=network,
        batch=batch,
        question=Question(loss=Loss.CROSS_ENTROPY),
        outcome=Outcome.AMBIGUOUS,
        note="t = 1: besides x = 1 there is one more c with c / (e^c + 1) = 1 / (e + 1).",
    )


STATEMENTS = (
    Statement(
        name="scale",
        group="scale",
        title="Without biases each sample keeps a scale",
        source="docs/theory.md section 8",
        reading="A ReLU network without biases is positively homogeneous. Replacing a sample by (c x, y') "
        "with c > 0 keeps the whole gradient if c g(c f, y') = g(f, y). Real targets follow any c, so with "
        "mse and real labels even one sample is AMBIGUOUS.",
        quantifiers="all depths and widths without biases, all losses, c > 0",
        hypotheses=("no biases", "c > 0 and c g(c f, y') = g(f, y)"),
        conclusion="(c x, y') has the same gradient as (x, y) in every layer.",
        latex=r"c>0,\ c\,g(cf,y')=g(f,y)\ \Longrightarrow\ \nabla(cx,y')=\nabla(x,y)",
        standing=Standing.PROVED,
        grounds=(
            written("section 8", "delta'_k = delta_k / c, h'_{k-1} = c h_{k-1}: each product is kept"),
            kernel("scale", "twins and their absence are certified and checked sample by sample"),
        ),
        checks=(
            by_instances(
                "scaled",
                "scales one sample beside another, solves for its real target, compares the gradients over Q",
                instances=scaled,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=25,
                said="scaled samples have the same gradient",
            ),
        ),
        remark="Necessary as well when the backward map from the logits is injective on loss vectors.",
    ),
    Statement(
        name="twins-softmax",
        group="scale",
        title="Twins under softmax: exactly one when all other logits agree and the margin is positive",
        source="docs/theory.md section 8 (cross_entropy)",
        reading="Without biases, under cross_entropy: a scale c > 0, c != 1, fits a sample only when all "
        "logits but its label's agree. With their common margin t = f_y - f_k, exactly one c != 1 fits when "
        "t > 0 and none when t <= 0. For K = 2: a sample has a twin exactly when its margin is positive, "
        "that is, when it is classified correctly without a tie.",
        quantifiers="all depths, widths, K >= 2; rational logits",
        hypotheses=(
            "no biases, cross_entropy",
            "c > 0 (a negative scale changes the patterns)",
            "logits rational (stored numbers are)",
        ),
        conclusion="The number of scales c > 0, c != 1, with c g(c f, y) = g(f, y) is 1 if all other logits "
        "agree and t > 0, else 0.",
        latex=r"\#\{c>0,\ c\ne1:\ \tfrac{c}{e^{ct}+w}=\tfrac1{e^t+w}\}=\begin{cases}1&t>0\\0&t\le0\end{cases}"
        r"\qquad t\in\mathbb Q,\ w=K-1",
        standing=Standing.PROVED,
        grounds=(
            written("section 8", "the lemma, and that the top is not at c = 1 (Hermite, Lindemann)"),
            symbolic(
                "exan_verify/theorems/bounded/twins.py: steps", "derivatives, signs and limits, by sympy"
            ),
            kernel(
                "twins", "each twin is enclosed in an interval with a sign change, each absence is checked"
            ),
        ),
        checks=(
            Check(
                name="lemma",
                what="confirms every derivative, value and limit of the proof with sympy",
                run=lemma_steps,
            ),
            by_instances(
                "balls",
                "encloses k(c) - k(1) beside c = 1 and far away, on the side where k rises from k(1), for "
                "rational margins of both signs",
                instances=sampled_margins,
                conclusion=as_many_as_claimed,
                spoiled=wrong_number,
                count=60,
                said="margins have as many twins as claimed",
            ),
            by_instances(
                "kernel",
                "certifies single samples of two-class networks and compares with the sign of the margin",
                instances=classified,
                conclusion=kernel_agrees_on_twins,
                spoiled=other_label,
                count=20,
                said="samples have a twin exactly when classified correctly",
            ),
        ),
        example=lonely_sample,
        remark="Such a c is a twin of the sample (scale). So without biases and with two classes, correct "
        "classification leaves a second scale; where the margin is not positive no other scale fits.",
    ),
)
