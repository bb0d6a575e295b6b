"""E2: columns of the last weight gradient give loss vectors up to scale; what grouping by them cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from exan_verify.core.network import Array
from exan_verify.core.question import Loss, Question, Reduction
from exan_verify.exact.backprop import forward, gradient, gradient_ball
from exan_verify.exact.linalg import rank
from exan_verify.exact.softmax import loss_vectors
from exan_verify.exclusivity import exclusivity
from exan_verify.theorems.statement import Example, Result, Standing, Statement
from exan_verify.theorems.support.counterexamples import parallel_columns, ratio_groups, zero_first_row
from exan_verify.theorems.support.example_check import by_example
from exan_verify.theorems.support.exclusive_layers import Layered, drawn_layer
from exan_verify.theorems.support.laboratory import drawn, exact
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, coq, kernel, refuted, written

SOURCE = "Algorithm B.1 of arXiv 2010.13356 as described; docs/theory.md section 2, E2"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A neuron of the last hidden layer that is exclusive to ``sample``."""

    layer: Layered
    neuron: int
    sample: int


def columns(seed: int) -> Iterator[Column]:
    """Exclusive neurons of random layers (mse), loss vectors pairwise not parallel."""
    return drawn("E2", seed, lambda rng: _draw(rng, rng.randint(2, 4), Loss.MSE))


def softmax_columns(seed: int) -> Iterator[Column]:
    """The same under cross_entropy with 3 to 5 classes and different labels for two samples."""
    return drawn("E2 labels", seed, lambda rng: _draw(rng, rng.randint(3, 5), Loss.CROSS_ENTROPY))


def two_class_columns(seed: int) -> Iterator[Layered]:
    """Layers under cross_entropy with two classes."""
    return drawn("E2 two", seed, lambda rng: drawn_layer(rng, (2, 2), 2, 2, Loss.CROSS_ENTROPY))


def _draw(rng: Random, classes: int, loss: Loss) -> Column | None:
    layer = drawn_layer(rng, (2, 1), classes, 2, loss)
    if layer is None:
        return None
    if loss is Loss.MSE and rank(_vectors(layer)) < 2:
        return None
    if loss is Loss.CROSS_ENTROPY and layer.batch.labels[0] == layer.batch.labels[1]:
        return None
    neuron = rng.randrange(3)
    return Column(layer=layer, neuron=neuron, sample=neuron // 2)


def _vectors(layer: Layered) -> Array:
    logits = forward(layer.network, layer.batch).logits
    return loss_vectors(layer.question.loss, logits, layer.batch.labels, 1)


def _last_weight(layer: Layered) -> Array:
    found = gradient(layer.network, layer.batch, layer.question.loss, Reduction.SUM).for_network(
        layer.network
    )
    return exact(found[-1][0])


def positive_multiple(column: Column) -> bool:
    """Column j of dW_L is a positive multiple of the sample's loss vector, over Q."""
    seen = _last_weight(column.layer)[:, column.neuron]
    own = _vectors(column.layer)[:, column.sample]
    factor = (seen @ own) / (own @ own)
    return bool(factor > 0 and np.all(seen == factor * own))


def negative_at_label(column: Column) -> bool:
    """By balls: the only negative entry of the column is at the sample's label, the others are positive."""
    layer = column.layer
    found = gradient_ball(layer.network, layer.batch, layer.question.loss, Reduction.SUM)
    name = f"{layer.network.layers[-1].name}.weight"
    label = int(layer.batch.labels[column.sample])
    entries = [found[name][k, column.neuron] for k in range(layer.network.classes)]
    return all(bool(v < 0) if k == label else bool(v > 0) for k, v in enumerate(entries))


def of_the_other(column: Column) -> Column:
    """The same neuron, said to belong to the other sample."""
    return replace(column, sample=1 - column.sample)


def opposite_rows(layer: Layered) -> bool:
    """By balls at two precisions: the rows of dW_L add up to zero, to 50 and to 300 digits."""
    for precision in (192, 1024):
        found = gradient_ball(layer.network, layer.batch, layer.question.loss, Reduction.SUM, precision)
        weight = found[f"{layer.network.layers[-1].name}.weight"]
        sums = [weight[0, j] + weight[1, j] for j in range(weight.ncols())]
        if not all(s.contains(0) and s.rad() < 2.0 ** (-precision // 2) for s in sums):
            return False
    return True


def as_bce(layer: Layered) -> Layered:
    """The same labels under bce, where the two logits' loss vectors are not opposite."""
    targets = np.eye(2, dtype=int)[layer.batch.labels.astype(int)]
    batch = replace(layer.batch, labels=exact(targets))
    return replace(layer, batch=batch, question=Question(loss=Loss.BCE))


def parallel_of_different_samples(example: Example) -> Result:
    """Whether ``example`` has two parallel columns of dW_L that belong to ExANs of different samples."""
    weight = _last_weight(Layered(network=example.relu, batch=example.batch))
    pattern = forward(example.network, example.batch).patterns[-1]
    alone = pattern.sum(axis=1) == 1
    pairs = [
        (a, b)
        for a in np.flatnonzero(alone & pattern[:, 0])
        for b in np.flatnonzero(alone & pattern[:, 1])
        if rank(weight[:, [a, b]]) == 1
    ]
    shown = [(int(a), int(b)) for a, b in pairs]
    return Result(holds=bool(shown), detail=f"parallel columns of different samples: {shown}")


def mixed_group(example: Example) -> Result:
    """Whether dW_L has as many directions of columns as there are samples, and one is no loss vector's."""
    layer = Layered(network=example.relu, batch=example.batch)
    weight, vectors = _last_weight(layer), _vectors(layer)
    groups: list[int] = []
    for j in range(weight.shape[1]):
        if weight[:, j].any() and all(rank(weight[:, [j, k]]) == 2 for k in groups):
            groups.append(j)
    mixed = [
        j
        for j in groups
        if all(rank(np.stack([weight[:, j], vectors[:, m]], axis=1)) == 2 for m in range(example.batch.size))
    ]
    holds = len(groups) == example.batch.size and bool(mixed)
    return Result(holds=holds, detail=f"columns of different directions: {groups}; no loss vector's: {mixed}")


def first_row_vanishes(example: Example) -> Result:
    """Whether the published condition holds and yet the first row of dW_L is zero and a column is not."""
    weight = _last_weight(Layered(network=example.relu, batch=example.batch))
    published = exclusivity(example.relu, example.batch, loss=example.question.loss).published
    holds = published and bool(np.all(weight[0] == 0)) and bool(np.any(weight != 0))
    rows = [[str(v) for v in row] for row in weight.tolist()]
    return Result(holds=holds, detail=f"dW_L (sum) = {rows}", data={"published": published})


STATEMENTS = (
    Statement(
        name="e2",
        group="E2",
        title="The column of an exclusive neuron is a positive multiple of the loss vector",
        source=SOURCE,
        published="The ratios of the last layer's gradient at a sample's exclusive neurons give its loss "
        "vector up to a factor.",
        reading="If j in layer L-1 is exclusive to m, column j of dW_L is h_j^m g^m, with h_j^m > 0.",
        quantifiers="all depths, widths, M, losses",
        hypotheses=("neuron j of the last hidden layer is active for sample m and for no other sample",),
        conclusion="Column j of dW_L is a positive multiple of g^m.",
        latex=r"z_{L-1}^{m'}[j]>0\iff m'=m\ \Longrightarrow\ (dW_L)_{:,j}=h_{L-1}^m[j]\,g^m,\quad "
        r"h_{L-1}^m[j]>0",
        standing=Standing.PROVED,
        grounds=(coq("exclusive.v: E2", "one hidden layer, or the top of a deeper network (gsum_topp)"),),
        checks=(
            by_instances(
                "columns",
                "compares columns of exact gradients with loss vectors computed from the logits, over Q",
                instances=columns,
                conclusion=positive_multiple,
                spoiled=of_the_other,
                count=40,
                said="columns of exclusive neurons",
            ),
        ),
    ),
    Statement(
        name="e2-label",
        group="E2",
        title="Under cross_entropy the column's single negative entry is the label",
        source=SOURCE,
        published="The label is read off the sign of the last layer's gradient.",
        reading="The loss vector softmax(f) - e_y is negative at y and positive elsewhere, and the column is "
        "a positive multiple of it.",
        quantifiers="all depths, widths, M, K",
        hypotheses=("cross_entropy", "neuron j of the last hidden layer is exclusive to sample m"),
        conclusion="Column j of dW_L is negative exactly at the label of m.",
        latex=r"(dW_L)_{c,j}<0\iff c=y_m",
        standing=Standing.PROVED,
        grounds=(
            coq("exclusive.v: E2", "the column is a positive multiple of g^m"),
            written("section 2, E2", "0 < softmax < 1 entry by entry"),
        ),
        checks=(
            by_instances(
                "signs",
                "encloses gradients of cross_entropy in balls and compares signs with the labels",
                instances=softmax_columns,
                conclusion=negative_at_label,
                spoiled=of_the_other,
                count=20,
                said="columns under softmax",
            ),
        ),
    ),
    refuted(
        name="e2-parallel",
        group="E2",
        title="Parallel columns come from one sample",
        source=SOURCE,
        published="Neurons are grouped into samples by parallel columns of the last weight gradient.",
        reading="If two exclusive neurons have parallel columns of dW_L, they are exclusive to the same "
        "sample.",
        hypotheses=("two neurons of the last hidden layer are exclusive", "their columns are parallel"),
        conclusion="They are exclusive to the same sample.",
        latex=r"(dW_L)_{:,j}\parallel(dW_L)_{:,k}\ \Longrightarrow\ m(j)=m(k)",
        grounds=(
            kernel("counterexamples.py: parallel_columns", "1-2-1, two samples, one neuron each", REFUTES),
        ),
        checks=(
            by_example(
                "parallel",
                "computes dW_L exactly and looks for parallel columns of different samples",
                example=parallel_columns,
                judge=parallel_of_different_samples,
            ),
        ),
        example=lambda: replace(parallel_columns(), shown=parallel_of_different_samples),
        smallest="Two samples with a neuron each: no network with a hidden layer is smaller than 1-2-1.",
        remark="The batch is UNIQUE all the same: what fails is the grouping, not the reconstruction.",
    ),
    refuted(
        name="e2-ratio-groups",
        group="E2",
        title="As many groups of parallel columns as samples are the samples",
        source=SOURCE,
        published="The columns of the last weight gradient are grouped by their ratios; a group is a sample.",
        reading="If the columns of dW_L that are not zero have exactly M different directions, these are the "
        "directions of the M loss vectors.",
        hypotheses=("the non-zero columns of dW_L have exactly M directions",),
        conclusion="Every one of them is the direction of a sample's loss vector.",
        latex=r"\#\{[(dW_L)_{:,j}]\neq0\}=M\ \Longrightarrow\ \{[(dW_L)_{:,j}]\}=\{[g^m]\}",
        grounds=(kernel("counterexamples.py: ratio_groups", "1-2-2, M = 2, mse", REFUTES),),
        checks=(
            by_example(
                "mixture",
                "computes dW_L and the loss vectors exactly and compares their directions",
                example=ratio_groups,
                judge=mixed_group,
            ),
        ),
        example=lambda: replace(ratio_groups(), shown=mixed_group),
        smallest="Two directions need two neurons and two logits, and one sample has one direction: 1-2-2 "
        "with M = 2 is the least.",
        remark="A shared neuron beside an exclusive one is enough; which groups are exclusive is not told by "
        "their number.",
    ),
    Statement(
        name="e2-two-classes",
        group="E2",
        title="Softmax with two classes: all columns are parallel",
        source=SOURCE,
        reading="For K = 2 and cross_entropy every loss vector is a multiple of (1, -1), so every column of "
        "dW_L is, and grouping by parallel columns separates nothing.",
        quantifiers="all depths, widths, M",
        hypotheses=("cross_entropy with K = 2",),
        conclusion="The two rows of dW_L are opposite: all columns are parallel.",
        latex=r"K=2\ \Longrightarrow\ (dW_L)_{1,:}=-(dW_L)_{2,:}",
        standing=Standing.PROVED,
        grounds=(written("section 2, E2", "softmax sums to one, so g sums to zero"),),
        checks=(
            by_instances(
                "opposite",
                "encloses dW_L in balls: row 1 + row 2 contains 0 at two precisions; under bce it does not",
                instances=two_class_columns,
                conclusion=opposite_rows,
                spoiled=as_bce,
                count=12,
                said="two-class layers",
            ),
        ),
    ),
    refuted(
        name="e2-first-row",
        group="E2",
        title="The first class's row of dW_L can be divided by",
        source=SOURCE,
        published="Ratios are taken against the first class's row of the last weight gradient.",
        reading="At the columns of exclusive neurons the first row of dW_L is not zero.",
        hypotheses=("the published condition holds",),
        conclusion="The first row of dW_L is not zero at the columns of exclusive neurons.",
        latex=r"(dW_L)_{1,j}\neq0",
        grounds=(
            kernel(
                "counterexamples.py: zero_first_row", "1-2-2, mse, the first logit is fitted exactly", REFUTES
            ),
        ),
        checks=(
            by_example(
                "first row",
                "computes dW_L exactly and the published condition",
                example=zero_first_row,
                judge=first_row_vanishes,
            ),
        ),
        example=lambda: replace(zero_first_row(), shown=first_row_vanishes),
        smallest="Two ExANs are two neurons, and one logit has one row: one sample in 1-2-2 is the least.",
        remark="Under cross_entropy g_1 is never zero, but softmax underflows to zero in floating point once "
        "logits differ by some hundreds. Normalised columns can be compared instead.",
    ),
)
