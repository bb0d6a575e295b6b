"""Questions with the network and the batch that they are about, and the small suite of them.

The small suite: seeded instances small enough for every engine, over all losses and corner cases.

d <= 3 inputs, at most 6 neurons in a hidden layer, K <= 3 logits, M <= 3 samples; weights and inputs are
small dyadic numbers, so that degenerate positions (zero pre-activations, ties, parallel vectors) occur
instead of having probability zero. Generator and seeds are fixed: an instance is named by
``family/loss/biases/index`` and its name is its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction
from exan_verify.exact.backprop import forward, gradient, gradient_ball

Vector = list[Fraction]
Matrix = list[Vector]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One question: is ``batch`` the only batch with its gradient? ``certify``, ``audit``, ``attack`` and
    ``check`` take it in place of the model, with its batch and its words.

    ``planted`` says that a second batch exists by construction (docs/theory.md S1 to S3): never UNIQUE;
    ``twin`` is that batch, where it is known. Its printed form makes it again; ``written`` is that form where
    the numbers would be too many.
    """

    network: ReluNetwork
    batch: Batch
    question: Question
    name: str = ""
    planted: bool = False
    twin: Batch | None = None
    written: str = ""

    @classmethod
    def of(
        cls,
        weights: Sequence[Any],
        biases: Sequence[Any] | None,
        x: Any,
        y: Any,
        *,
        loss: str,
        reduction: str = "mean",
        labels: str = "one_hot",
        domain: Box | None = None,
        twin: tuple[Any, Any] | None = None,
        planted: bool = False,
        name: str = "",
    ) -> Instance:
        """From nested lists, as :meth:`ReluNetwork.from_arrays` and :meth:`Batch.of` take them; ``twin`` is a
        pair like ``(x, y)``. Raises what these do.
        """
        network = ReluNetwork.from_arrays(weights, biases)
        question = Question.of(loss, reduction, labels, domain=domain)
        first, *more = (
            Batch.of(*pair, network=network, loss=question.loss, labels=question.labels)
            for pair in ((x, y), twin)
            if pair is not None
        )
        second = more[0] if more else None
        return cls(
            network=network,
            batch=first,
            question=question,
            name=name,
            planted=planted or second is not None,
            twin=second,
        )

    @property
    def loss(self) -> Loss:
        """The question's."""
        return self.question.loss

    @property
    def reduction(self) -> Reduction:
        """The question's."""
        return self.question.reduction

    @property
    def labels(self) -> Labels:
        """The question's."""
        return self.question.labels

    @property
    def domain(self) -> Box | None:
        """The question's."""
        return self.question.domain

    def rounded_gradient(self) -> dict[str, Array]:
        """The batch's gradient by parameter name, each of the same shape as the parameter, exact but for its
        rounding to float64."""
        balls = gradient_ball(self.network, self.batch, self.loss, self.reduction)
        return {
            name: np.array([float(v.mid()) for v in balls[name].entries()]).reshape(array.shape)
            for name, array in self.network.parameters()
        }

    def within(self, domain: Box) -> Instance:
        """The same with inputs confined to ``domain``."""
        written = f"{self.written}.within({source(domain)})" if self.written else ""
        return replace(self, question=replace(self.question, domain=domain), written=written)

    def __repr__(self) -> str:
        if self.written:
            return self.written
        layers = self.network.layers
        biases = None if all(v.bias is None for v in layers) else [layer.bias for layer in layers]
        parts = [
            source([layer.weight for layer in layers]),
            source(biases),
            f"x={source(self.batch.inputs)}",
            f"y={source(self.batch.labels)}",
            f"loss={self.loss.value!r}",
            f"reduction={self.reduction.value!r}",
            f"labels={self.labels.value!r}",
        ]
        if self.domain is not None:
            parts.append(f"domain={source(self.domain)}")
        if self.twin is not None:
            parts.append(f"twin=({source(self.twin.inputs)}, {source(self.twin.labels)})")
        elif self.planted:
            parts.append("planted=True")
        if self.name:
            parts.append(f"name={self.name!r}")
        return f"Instance.of({', '.join(parts)})"


def source(value: Any) -> str:
    """Python source of an exact array, a list of them, a box or None: whole numbers as integers, other floats
    as they are, rationals as ``Fraction(1, 3)``.
    """
    if value is None:
        return "None"
    if isinstance(value, Box):
        lo, hi = (source(v[0] if len(v) == 1 else v) for v in (value.lo, value.hi))
        return f"Box({lo}, {hi})"
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return f"[{', '.join(source(part) for part in value)}]"
    exact = to_fraction(value)
    if exact.denominator == 1:
        return str(exact.numerator)
    return (
        f"Fraction({exact.numerator}, {exact.denominator})"
        if isinstance(value, Fraction)
        else repr(float(value))
    )


@dataclass(slots=True)
class _Draft:
    """An instance while it is being drawn: plain lists of Fractions."""

    weights: list[Matrix]
    biases: list[Vector] | None
    x: Matrix
    y: list[int]
    classes: int

    @property
    def features(self) -> int:
        return len(self.weights[0][0])


PER_CELL = 5
"""Instances per family, loss and choice of biases."""


def iterate_suite() -> Iterator[Instance]:
    """All instances, one by one: 7 families x 4 losses x with or without biases x :data:`PER_CELL`."""
    for family in FAMILIES:
        for loss in Loss:
            for has_bias in (True, False):
                for index in range(PER_CELL):
                    yield instance(family, loss, has_bias, index)


def instance(family: str, loss: Loss, has_bias: bool, index: int) -> Instance:
    """The instance of that name; a draw whose gradient is zero everywhere is drawn again."""
    name = f"{family}/{loss.value}/{'bias' if has_bias else 'nobias'}/{index}"
    rng = Random(f"exan_verify small suite 1: {name}")
    for _ in range(1000):
        draft = FAMILIES[family](rng, loss, has_bias)
        found = None if draft is None else _finish(name, draft, rng, loss, planted=family == "twin")
        if found is not None and not _silent(found):
            return found
    raise AssertionError(f"no draw of {name} has a gradient")


def tiny_question(loss: Loss, number: int) -> Instance:
    """The ``number``-th random tiny question of that loss: d <= 3, 1 or 2 hidden layers of 1 to 5 neurons,
    K <= 3, M <= 3, with or without biases. A gradient that is zero everywhere is a question like any other.
    """
    name = f"tiny/{loss.value}/{number}"
    rng = Random(f"exan_verify tiny questions 1: {name}")
    hidden = [rng.randint(1, 5) for _ in range(rng.randint(1, 2))]
    draft = _draw(rng, loss, rng.random() < 0.5, hidden=hidden, samples=rng.randint(1, 3))
    found = _finish(name, draft, rng, loss, planted=False)
    assert found is not None
    return found


def _finish(name: str, draft: _Draft, rng: Random, loss: Loss, *, planted: bool) -> Instance | None:
    kinds = [Labels.ONE_HOT] * 3 + [Labels.KNOWN] + ([Labels.REAL] if loss is Loss.MSE else [])
    labels = rng.choice(kinds)
    network = ReluNetwork.from_arrays(draft.weights, draft.biases)
    batch = Batch.of(draft.x, _targets(draft, rng, loss), network=network, loss=loss, labels=labels)
    domain = Box(-4, 4) if not planted and rng.random() < 0.25 else None
    if planted and not _one_region(network, batch):
        return None
    return Instance(
        name=name,
        network=network,
        batch=batch,
        question=Question(
            loss=loss, reduction=rng.choice([Reduction.MEAN, Reduction.SUM]), labels=labels, domain=domain
        ),
        planted=planted,
    )


def _targets(draft: _Draft, rng: Random, loss: Loss) -> list[int] | Matrix:
    if loss.class_labels:
        return draft.y
    if loss is Loss.MSE and draft.classes > 1:
        return [[Fraction(c == y) for c in range(draft.classes)] for y in draft.y]
    vectors = [[Fraction(rng.randint(0, 1)) for _ in range(draft.classes)] for _ in range(2**draft.classes)]
    return [vectors[y] for y in draft.y]


def _silent(found: Instance) -> bool:
    if not found.loss.rational:
        return False
    tensors = gradient(found.network, found.batch, found.loss, found.reduction).tensors
    return not any((value != 0).any() for value in tensors.values())


def _one_region(network: ReluNetwork, batch: Batch) -> bool:
    """All samples strictly inside one region, so that the planted motion stays in it for a while."""
    passed = forward(network, batch)
    return all((p == p[:, :1]).all() for p in passed.patterns) and not any(z.any() for z in passed.zeros)


def _number(rng: Random, low: int, high: int, denominator: int = 2) -> Fraction:
    return Fraction(rng.randint(low * denominator, high * denominator), denominator)


def _draw(
    rng: Random,
    loss: Loss,
    has_bias: bool,
    *,
    hidden: list[int] | None = None,
    features: int | None = None,
    classes: int | None = None,
    samples: int | None = None,
) -> _Draft:
    least = 2 if loss.class_labels else 1
    k = classes or rng.randint(least, 3)
    d = features or rng.randint(1, 3)
    m = samples or rng.choice([1, 2, 2, 2, 3])
    widths = [d, *(hidden or [rng.randint(2, 6)]), k]
    weights = [
        [[_number(rng, -2, 2) for _ in range(cols)] for _ in range(rows)] for cols, rows in pairwise(widths)
    ]
    biases = [[_number(rng, -2, 2) for _ in range(rows)] for rows in widths[1:]] if has_bias else None
    return _Draft(
        weights=weights,
        biases=biases,
        x=[[_number(rng, -3, 3) for _ in range(d)] for _ in range(m)],
        y=[rng.randrange(k) for _ in range(m)],
        classes=k,
    )


def _plain(rng: Random, loss: Loss, has_bias: bool) -> _Draft:
    return _draw(rng, loss, has_bias)


def _deep(rng: Random, loss: Loss, has_bias: bool) -> _Draft:
    """Two hidden layers."""
    return _draw(rng, loss, has_bias, hidden=[rng.randint(2, 4), rng.randint(2, 4)])


def _dead(rng: Random, loss: Loss, has_bias: bool) -> _Draft:
    """The first sample activates nothing in the first layer."""
    draft = _draw(rng, loss, has_bias, samples=rng.randint(2, 3))
    for j, row in enumerate(draft.weights[0]):
        z = _dot(row, draft.x[0])
        if draft.biases is not None:
            draft.biases[0][j] = min(draft.biases[0][j], -z - Fraction(rng.randint(0, 1), 2))
        elif z > 0:
            draft.weights[0][j] = [-v for v in row]
    return draft


def _shared(rng: Random, loss: Loss, has_bias: bool) -> _Draft:
    """All samples within a short distance of the first: mostly one region."""
    draft = _draw(rng, loss, has_bias, samples=rng.randint(2, 3))
    for m in range(1, len(draft.x)):
        draft.x[m] = [v + Fraction(rng.randint(-2, 2), 16) for v in draft.x[0]]
    return draft


def _twin(rng: Random, loss: Loss, has_bias: bool) -> _Draft:
    """A second batch by construction: two samples of one region with parallel loss vectors and an input
    direction that no logit sees (S2). One logit, or two for the class losses, makes the loss vectors
    parallel; a first weight matrix that ignores its last input gives the direction, but then the first
    layer's gradient still sees it: only the sum over the samples is conserved.
    """
    classes = 2 if loss.class_labels else 1
    draft = _draw(rng, loss, has_bias, samples=2, features=rng.randint(2, 3), classes=classes)
    for row in draft.weights[0]:
        row[-1] = Fraction(0)
    draft.x[1] = [v + Fraction(rng.randint(-1, 1), 16) for v in draft.x[0]]
    return draft


def _zero(rng: Random, loss: Loss, has_bias: bool) -> _Draft | None:
    """A pre-activation of the first sample is exactly zero."""
    draft = _draw(rng, loss, has_bias)
    if draft.biases is not None:
        draft.biases[0][0] = -_dot(draft.weights[0][0], draft.x[0])
        return draft
    if draft.features == 1:
        draft.x[0] = [Fraction(0)]
    else:
        row, x = draft.weights[0][0], draft.x[0]
        row[0], row[1], row[2:] = x[1], -x[0], [Fraction(0)] * (len(row) - 2)
    return draft if len(draft.x) > 1 or draft.features > 1 else None


def _equal(rng: Random, loss: Loss, has_bias: bool) -> _Draft:
    """Two equal samples."""
    draft = _draw(rng, loss, has_bias, samples=rng.randint(2, 3))
    draft.x[1], draft.y[1] = list(draft.x[0]), draft.y[0]
    return draft


def _dot(left: Vector, right: Vector) -> Fraction:
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


FAMILIES: dict[str, Callable[[Random, Loss, bool], _Draft | None]] = {
    "plain": _plain,
    "deep": _deep,
    "dead": _dead,
    "shared": _shared,
    "twin": _twin,
    "zero": _zero,
    "equal": _equal,
}
"""How each family of instances is drawn."""
