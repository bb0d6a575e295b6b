"""Sums of two branches: what determines them, and equations that do not (CV1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import backward, forward
from exan_verify.exact.linalg import nullspace, rank
from exan_verify.exact.softmax import loss_vectors
from exan_verify.theorems.certified import kernel_outcome
from exan_verify.theorems.statement import Exhibit, Result, Standing, Statement
from exan_verify.theorems.support.example_check import all_met
from exan_verify.theorems.support.laboratory import drawn, exact
from exan_verify.theorems.support.shorthands import REFUTES, by_instances, coq, kernel, written


@dataclass(frozen=True, kw_only=True)
class Sum:
    """``relu(B u + S h)``, u = relu(A h), on lines: ``inner`` A (C, k) and ``shortcut`` S (K, k) are taps of
    convolutions of one channel, ``top`` B (K, C) one of single taps. ``pictures`` h (M, d), ``deltas`` those
    of the sum (M, K, d - k + 1). ``moved``: another batch of pictures.
    """

    inner: Array
    top: Array
    shortcut: Array
    pictures: Array
    deltas: Array
    moved: Array

    def inside(self, pictures: Array) -> Array:
        """A h (M, C, positions)."""
        return _convolved(self.inner, pictures)

    def added(self, pictures: Array) -> Array:
        """What the ReLU after the sum is given, (M, K, positions)."""
        u = np.maximum(self.inside(pictures), 0)
        found: Array = np.einsum("oc,mcp->mop", self.top, u) + _convolved(self.shortcut, pictures)
        return found

    def gradients(self, pictures: Array) -> list[Array]:
        """Of B, A and S, where the sum has the deltas; the inner pattern is that of the ``pictures``."""
        z, windows = self.inside(pictures), _windows(pictures, self.inner.shape[1])
        below = np.einsum("oc,mop->mcp", self.top, self.deltas) * (z > 0)
        return [
            np.einsum("mop,mcp->oc", self.deltas, np.maximum(z, 0)),
            np.einsum("mcp,mpk->ck", below, windows),
            np.einsum("mop,mpk->ok", self.deltas, windows),
        ]

    def alone(self) -> Array:
        """Rows on (m, position): what the gradient of B says of one channel of u."""
        samples, channels, positions = self.deltas.shape
        found: Array = self.deltas.transpose(1, 0, 2).reshape(channels, samples * positions)
        return found

    def below(self) -> Array:
        """Rows on (m, pixel): active outputs of A, then the change of its weight gradient."""
        active = self.inside(self.pictures) > 0
        deltas = np.einsum("oc,mop->mcp", self.top, self.deltas) * active
        windows = self.inner.shape[1]

        def row(v: Array) -> Array:
            gradient = np.einsum("mcp,mpk->ck", deltas, _windows(v, windows))
            return np.concatenate([_convolved(self.inner, v)[active], gradient.reshape(-1)])

        return _matrix(row, self.pictures.shape)

    def kept(self) -> Array:
        """Rows on (m, pixel): the active outputs of the sum, on the region of the pictures."""
        on = self.inside(self.pictures) > 0
        active = self.added(self.pictures) > 0

        def row(v: Array) -> Array:
            u = _convolved(self.inner, v) * on
            found: Array = np.einsum("oc,mcp->mop", self.top, u) + _convolved(self.shortcut, v)
            return found[active]

        return _matrix(row, self.pictures.shape)


def _windows(pictures: Array, size: int) -> Array:
    found: Array = np.lib.stride_tricks.sliding_window_view(pictures, size, axis=1)
    return found


def _convolved(taps: Array, pictures: Array) -> Array:
    found: Array = np.einsum("ok,mpk->mop", taps, _windows(pictures, taps.shape[1]))
    return found


def _matrix(row: object, shape: tuple[int, ...]) -> Array:
    """The matrix of a linear map on arrays of ``shape``, column by column."""
    size = int(np.prod(shape))
    assert callable(row)
    columns = []
    for index in range(size):
        unit = np.full(size, Fraction(0), dtype=object)
        unit[index] = Fraction(1)
        columns.append(row(unit.reshape(shape)))
    found: Array = np.array(columns, dtype=object).T
    return found


def determined_sums(seed: int) -> Iterator[Sum]:
    """Sums at which the gradient of B alone tells u, and u the pictures; beside other pictures."""
    return drawn("CV1/sums", seed, _draw)


def _draw(rng: Random) -> Sum | None:
    samples, size, taps, channels, outputs = rng.choice((1, 2)), 3, 2, 1, rng.choice((4, 5))

    def integers(*shape: int) -> Array:
        values = [Fraction(rng.randint(-5, 5)) for _ in range(int(np.prod(shape)))]
        return np.array(values, dtype=object).reshape(shape)

    made = Sum(
        inner=integers(channels, taps),
        top=integers(outputs, channels),
        shortcut=integers(outputs, taps),
        pictures=integers(samples, size),
        deltas=integers(samples, outputs, size - taps + 1),
        moved=integers(samples, size),
    )
    made = replace(made, deltas=made.deltas * (made.added(made.pictures) > 0))
    positions = size - taps + 1
    if rank(made.alone()) < samples * positions or rank(made.below()) < made.pictures.size:
        return None
    # other pictures that keep the sum while patterns stay, where there are any
    free = nullspace(made.kept())
    if free.shape[1]:
        made = replace(made, moved=made.pictures + free[:, 0].reshape(made.pictures.shape))
    return None if (made.moved == made.pictures).all() else made


def values_or_gradients_differ(case: Sum) -> bool:
    """The sum of the other pictures, or a weight gradient, is another one."""
    here, there = (np.maximum(case.added(x), 0) for x in (case.pictures, case.moved))
    pairs = zip(case.gradients(case.pictures), case.gradients(case.moved), strict=True)
    return bool((here != there).any()) or any(bool((one != other).any()) for one, other in pairs)


def not_moved(case: Sum) -> Sum:
    """The same pictures in place of others."""
    return replace(case, moved=case.pictures)


# ---- equations that are not enough ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Folded:
    """``relu(w u + c + x)``, u = relu(a x), on channels of one pixel, a = 1: ``weights`` w, ``biases`` c,
    ``pictures`` x (M, channels), ``deltas`` (M, channels) of the sum, and ``moved``, other pictures.
    """

    weights: tuple[Fraction, ...]
    biases: tuple[int, ...]
    pictures: Array
    deltas: Array
    moved: Array

    def values(self, x: Array) -> Array:
        """Of the sum, (M, channels)."""
        found: Array = np.maximum(np.array(self.weights) * np.maximum(x, 0) + np.array(self.biases) + x, 0)
        return found

    def gradients(self, x: Array) -> tuple[Array, ...]:
        """Of w, c, a and a's bias, each (channels,)."""
        inner = np.array(self.weights) * self.deltas * (x > 0)
        parts = (self.deltas * np.maximum(x, 0), self.deltas, inner * x, inner)
        return tuple(part.sum(axis=0) for part in parts)

    def joint(self) -> Array:
        """Rows on (m, channel): active outputs of the sum and of a, and the gradients of w and a, on the
        region of the pictures."""
        on = self.pictures > 0
        slopes = np.array(self.weights) * on + 1
        inner = np.array(self.weights) * self.deltas * on

        def row(v: Array) -> Array:
            rows = (
                (slopes * v)[self.values(self.pictures) > 0],
                v[on],
                (self.deltas * on * v).sum(axis=0),
                (inner * v).sum(axis=0),
            )
            return np.concatenate(rows)

        return _matrix(row, self.pictures.shape)


def folded(targets: tuple[int, int, int] = (1, 1, -2)) -> Folded:
    """Three samples whose first channel is turned from 1 to -1, with deltas that are multiples of
    ``targets`` at every channel."""
    pictures = exact([[1, 3, 2], [1, 1, 5], [1, 4, 9]])
    return Folded(
        weights=(Fraction(-2), Fraction(1, 2), Fraction(1, 4)),
        biases=(5, 1, 2),
        pictures=pictures,
        deltas=exact([[t, 2 * t, 3 * t] for t in targets]),
        moved=pictures * exact([-1, 1, 1]),
    )


def joint_rank_and_another_batch(case: Folded) -> bool:
    """All equations together have full column rank, and the other pictures have the values and gradients."""
    full = rank(case.joint()) == case.pictures.size
    values = bool((case.values(case.pictures) == case.values(case.moved)).all())
    pairs = zip(case.gradients(case.pictures), case.gradients(case.moved), strict=True)
    other = bool((case.pictures != case.moved).any())
    return full and values and other and all(bool((one == two).all()) for one, two in pairs)


def other_deltas(_case: Folded) -> Folded:
    """The first channel's deltas no longer add up to nothing."""
    return folded((1, 1, 1))


def head_on(case: Folded) -> tuple[ReluNetwork, Batch, Array]:
    """A head 3-40-1 on the values of the sum, labels under which its gradient by them is, at the first
    channel, a multiple of (1, 1, -2), and that gradient (M, channels)."""
    rng = np.random.default_rng(3)
    head = ReluNetwork.from_arrays(
        [rng.integers(-4, 5, (40, 3)), rng.integers(1, 4, (1, 40))], [rng.integers(-9, 10, 40), [0]]
    )
    values = case.values(case.pictures)

    def labelled(labels: Array) -> Batch:
        return Batch.of(values, labels, network=head, loss=Loss.MSE, labels=Labels.REAL)

    passed = forward(head, labelled(exact([[0]] * 3)))
    first = head.layers[0].weight.T

    def back(vectors: Array) -> Array:
        found: Array = exact(first).dot(backward(head, passed, vectors).at(1).fractions()).T
        return found

    slopes = back(np.full((1, 3), Fraction(1)))[:, 0]
    wanted = np.array([Fraction(1), Fraction(1), Fraction(-2)])
    labels = (passed.logits[0] - wanted / (2 * slopes)).reshape(3, 1)
    batch = labelled(labels)
    vectors = loss_vectors(Loss.MSE, passed.logits, batch.labels, 1)
    return head, batch, back(vectors)


def seen_at(case: Folded) -> Result:
    """That the equations are full, that another batch has the gradient, below a head that is determined."""
    head, batch, gradient = head_on(case)
    below = replace(case, deltas=gradient * (case.values(case.pictures) > 0))
    question = Question(loss=Loss.MSE, reduction=Reduction.SUM, labels=Labels.REAL)
    return all_met(
        {
            "the head's gradient determines the sum's values and labels, the kernel says": (
                kernel_outcome(head, batch, question) is Outcome.UNIQUE
            ),
            "all equations of both branches have full column rank, and the other batch has the sum's values "
            "and the whole gradient": joint_rank_and_another_batch(below),
        }
    )


def exhibit() -> Exhibit:
    """The sum as text to retype."""
    return Exhibit(
        lines=(
            "from fractions import Fraction as F",
            "w, c, deltas = (F(-2), F(1, 2), F(1, 4)), (5, 1, 2), (1, 1, -2)",
            "x, other = [(1, 3, 2), (1, 1, 5), (1, 4, 9)], [(-1, 3, 2), (-1, 1, 5), (-1, 4, 9)]",
            "value = lambda x: [max(0, w * max(0, v) + c + v) for w, c, v in zip(w, c, x)]",
            "of_w = lambda x: sum(d * max(0, v[0]) for d, v in zip(deltas, x))  # at the first channel",
            "of_a = lambda x: sum(w[0] * d * v[0] * (v[0] > 0) for d, v in zip(deltas, x))",
            "biases = lambda x: sum(w[0] * d * (v[0] > 0) for d, v in zip(deltas, x))",
            "same = lambda f: f(x) == f(other)",
            "list(map(value, x)) == list(map(value, other)) and same(of_w) and same(of_a) and same(biases)",
        ),
        note="relu(w u + c + x), u = relu(x), on three channels of one pixel, below a head 3-40-1 that "
        "determines the sum's values and the labels: the first channel of every sample may be turned from 1 "
        "to -1, where the sum stays 4.",
        shown=lambda: seen_at(folded()),
    )


def stored(_seed: int) -> Iterator[Folded]:
    """The stored counterexample."""
    yield folded()


STATEMENTS = (
    Statement(
        name="sums-determined",
        group="CV1",
        title="A sum of two branches is inverted where the last weight gradient of one of them tells it",
        source="docs/theory.md, section 10, sums of branches",
        reading="Where the values of a sum of two branches and its deltas are determined, and the weight "
        "gradient of the last convolution of one branch alone has only the solution zero, what this "
        "convolution takes is determined, and from it the values before the sum by CV1.",
        quantifiers="all branches of convolutions, one of them perhaps the identity or one convolution, M",
        hypotheses=(
            "the values of h = relu(A_k u + S h') and its deltas are those of every batch with the gradient",
            "sum_m D_k(delta^m) v_m = 0 makes v 0 (u is told), and H2 holds for A_{k-1}, .., A_1",
            "or S is a convolution and the same holds for its weight gradient (h' is told)",
        ),
        conclusion="What the sum takes is that of every batch with the gradient.",
        latex=r"\{v:\ \textstyle\sum_m D_k(\delta^m)v_m=0\}=\{0\}\ \Longrightarrow\ u'=u,\ h'=h",
        standing=Standing.PROVED,
        grounds=(
            coq("convolutions.v: CV1_sum, CV1_shortcut", "for branches whose matrices are linear in weights"),
            written("CV1 for sums", "how the step joins the others; each certificate's ranks are recomputed"),
        ),
        checks=(
            by_instances(
                "other-pictures",
                "compares the sum and all weight gradients of other pictures, along motions that keep the "
                "sum where there are any, with those of a batch whose systems have full column rank over Q",
                instances=determined_sums,
                conclusion=values_or_gradients_differ,
                spoiled=not_moved,
                count=20,
                said="sums that are told and other pictures",
            ),
        ),
        remark="The active outputs of the sum are not used: each of them adds what two branches give.",
    ),
    Statement(
        name="residual-joint-system",
        group="CV1",
        title="All equations of both branches of a sum, taken together",
        source="docs/theory.md, section 10, sums of branches",
        reading="If the active outputs and the weight gradients of all convolutions of a sum, linear on the "
        "region of the batch, together have full column rank below a head that determines its inputs and "
        "the labels, the batch is UNIQUE.",
        quantifiers="some network and batch (refuted)",
        hypotheses=(
            "the head determines the values of the sum and the labels",
            "the equations of both branches, with the inner patterns of the batch, have full column rank",
        ),
        conclusion="The batch is UNIQUE.",
        latex=r"\operatorname{rank}\big(\text{active rows of }A_1,\,A_2,\,S;\ \nabla W\big)=M d\ "
        r"\not\Longrightarrow\ X'=X",
        standing=Standing.REFUTED,
        grounds=(
            kernel(
                "residual-joint-system: its example",
                "three channels of one pixel and a head 3-40-1, M = 3, mse: the first channel of every "
                "sample may be turned, and the kernel says that the head determines what it takes",
                REFUTES,
            ),
        ),
        checks=(
            by_instances(
                "turned channel",
                "computes over Q the rank of all equations together, and the values and gradients of both "
                "batches",
                instances=stored,
                conclusion=joint_rank_and_another_batch,
                spoiled=other_deltas,
                count=1,
                said="counterexamples replayed",
                direction=REFUTES,
            ),
        ),
        example=exhibit,
        smallest="The turned channel needs deltas that add up to nothing without all being zero, so at least "
        "two samples; with fewer channels or a smaller head none was looked for.",
        remark="The inner pattern changes, which no row of the sum sees. What may be used needs no inner "
        "pattern (`sums-determined`).",
    ),
)
