"""S3: dead and silent samples move over the whole set on which they stay so; it may be a single point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.backprop import forward
from exan_verify.exact.softmax import loss_vectors
from exan_verify.theorems.bounded.second_batches import none_for
from exan_verify.theorems.statement import Example, Result, Standing, Statement
from exan_verify.theorems.support.counterexamples import single_point
from exan_verify.theorems.support.example_check import all_met
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
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, coq, solver, written

WIDTHS = (((2, 3, 2), 1), ((3, 3, 1), 1), ((2, 3, 2, 2), 2), ((1, 3, 3, 1), 2))
"""(widths, dead layer)."""


def dead(seed: int) -> Iterator[Pair]:
    """A sample dead at a layer, beside a living one, against another point that is dead there as well."""
    return drawn("S3 dead", seed, _draw_dead)


def _draw_dead(rng: Random) -> Pair | None:
    widths, layer = rng.choice(WIDTHS)
    network = integer_network(rng, widths)
    inputs = integers(rng, 3, widths[0], 6)
    first = mse_batch(network, inputs, integers(rng, 3, network.classes))
    pattern = forward(network, first).pattern(layer)
    if pattern[:, 0].any() or pattern[:, 1].any() or (inputs[0] == inputs[1]).all():
        return None
    start, end = first.select([0, 2]), first.select([1, 2])
    return noticing_nudge(
        Pair(
            network=network,
            first=start,
            second=replace(end, labels=start.labels),
            members=(1,),
        )
    )


def silent(seed: int) -> Iterator[Pair]:
    """A sample with loss vector zero under hinge, against another input with loss vector zero."""
    return drawn("S3 silent", seed, _draw_silent)


def _draw_silent(rng: Random) -> Pair | None:
    network = integer_network(rng, (2, 3, rng.choice((2, 3))))
    inputs = integers(rng, 3, 2, 6)
    labels = np.array([rng.randrange(network.classes)] * 2 + [rng.randrange(network.classes)])
    batch = Batch.of(inputs, labels, network=network, loss=Loss.HINGE, labels=Labels.ONE_HOT)
    vectors = loss_vectors(Loss.HINGE, forward(network, batch).logits, batch.labels, 1)
    if vectors[:, :2].any() or (inputs[0] == inputs[1]).all():
        return None
    return noticing_nudge(
        Pair(
            network=network,
            first=batch.select([0, 2]),
            second=batch.select([1, 2]),
            members=(1,),
            loss=Loss.HINGE,
        )
    )


def same_gradient_elsewhere(pair: Pair) -> bool:
    """One gradient, over Q, and not the same samples."""
    return same_gradient(pair) and not same_samples(pair)


def _points(_seed: int) -> Iterator[Example]:
    yield single_point()


def dead_and_alone(example: Example) -> bool:
    """Every neuron is inactive at the sample, and the solvers find no second batch."""
    pattern = forward(example.network, example.batch).patterns[0]
    return not pattern.any() and none_for(example)


def dead_and_determined(example: Example) -> Result:
    """The same, in words."""
    return all_met({"every neuron is inactive, and z3 finds no second batch": dead_and_alone(example)})


def determined_point() -> Example:
    """The example with what is to be seen at it."""
    return replace(single_point(), shown=dead_and_determined)


def room_to_move(example: Example) -> Example:
    """The same network with biases -1, so that a whole interval is dead."""
    lower = ReluNetwork.from_arrays([[[1], [-1]], [[1, 2]]], [exact([-1, -1]), [3]])
    return replace(example, network=lower)


STATEMENTS = (
    Statement(
        name="s3",
        group="S3",
        title="Dead and silent samples move over the whole set on which they stay so",
        source="docs/theory.md section 4, S3; Appendix F6",
        reading="If a hidden layer is entirely inactive for a sample, or its loss vector is zero, then all "
        "its deltas below are zero. The sample may be replaced by any admitted input for which that layer is "
        "entirely inactive (or the loss vector zero), whatever the patterns below do. The batch is AMBIGUOUS "
        "when that set has a second point.",
        quantifiers="all depths, widths, layers, losses, batches around the sample",
        hypotheses=(
            "z_k(x_m) <= 0 and z_k(x') <= 0 at one hidden layer k, with one label; or g = 0 at both",
        ),
        conclusion="Replacing x_m by x' keeps the gradient of every layer.",
        latex=r"z_k(x)\le 0,\ z_k(x')\le 0\ \Longrightarrow\ \nabla(x,y)=\nabla(x',y);\qquad "
        r"g(x,y)=g(x',y')=0\ \Longrightarrow\ \nabla(x,y)=\nabla(x',y')=0",
        standing=Standing.PROVED,
        grounds=(
            coq("dead.v: S3_dead, S3_batch", "dead at any hidden layer, alone and in a batch"),
            coq("dead.v: S3_silent", "a zero loss vector contributes nothing"),
            written("Appendix F6", "when the set has a second point: closed regions searched by exact LPs"),
        ),
        checks=(
            by_instances(
                "dead",
                "replaces a sample that is dead at layer one or two by another dead input and compares the "
                "gradients over Q",
                instances=dead,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=20,
                said="dead samples moved",
            ),
            by_instances(
                "silent",
                "replaces a sample with loss vector zero under hinge by another one and compares the "
                "gradients",
                instances=silent,
                conclusion=same_gradient_elsewhere,
                spoiled=spoiled,
                count=10,
                said="silent samples moved",
            ),
        ),
        remark="The label of a dead sample is not free: the output layer's bias gradient still sees it.",
    ),
    Statement(
        name="s3-single-point",
        group="S3",
        title="A dead sample is not always free",
        source="docs/theory.md section 4, S3 ('it can be a single point')",
        reading="A batch with a dead sample is AMBIGUOUS.",
        quantifiers="all networks and batches",
        hypotheses=("some hidden layer is entirely inactive for a sample",),
        conclusion="The batch is AMBIGUOUS.",
        latex=r"z_k(x_m)\le 0\ \not\Longrightarrow\ \text{AMBIGUOUS}",
        standing=Standing.REFUTED,
        grounds=(
            solver(
                "s3-single-point.smt2",
                "1-2-1, z = (x, -x), x = 0: no second batch (mse, labels 0 and 1)",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "single-point",
                "asks z3 for a second batch of the example",
                instances=_points,
                conclusion=dead_and_alone,
                spoiled=room_to_move,
                count=1,
                said="dead samples that are determined",
                direction=REFUTES,
            ),
        ),
        example=determined_point,
        smallest="One neuron is inactive on a whole half-space: 1-2-1 with one sample is the least.",
        remark="A zero pre-activation makes it so; with all pre-activations below zero there is room to "
        "move.",
    ),
)
