"""The question as it is put to the solvers: with the network, the gradient, and what follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import product

import numpy as np

from exan_verify.core.arrays import PerLayer
from exan_verify.core.network import Array, Batch, Gradient, Network, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.errors import GradientError, InputError
from exan_verify.exact.backprop import gradient as exact_gradient
from exan_verify.smt.question.terms import Formula, Poly

Vector = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A sample of the known batch: its logits and its probabilities in the target's symbols."""

    logits: Vector
    probabilities: tuple[Poly, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The gradient that the unknown batch must have: one polynomial per entry, by layer.

    Constants where the gradient is rational. For cross_entropy and bce with a batch given it is linear in
    ``symbols``, the batch's own probabilities, inside ``enclosures`` and with ``facts`` proved;
    ``weight_sizes`` bounds the absolute value of each entry from below (0 where it may be zero). ``slopes``:
    the entries of trained slopes, layer by layer.
    """

    weights: tuple[tuple[tuple[Poly, ...], ...], ...]
    biases: tuple[tuple[Poly, ...] | None, ...]
    weight_sizes: PerLayer[tuple[tuple[Fraction, ...], ...]]
    slopes: tuple[Poly, ...] = ()
    symbols: tuple[str, ...] = ()
    enclosures: Mapping[str, tuple[Fraction, Fraction]] = field(default_factory=dict)
    facts: tuple[tuple[str, Formula], ...] = ()
    reference: tuple[Reference, ...] = ()

    def entries(self) -> list[Poly]:
        """All entries in the order of the equations: layer by layer, neuron by neuron, the row of the weight
        and then the bias; trained slopes behind all of them.
        """
        found = [
            entry
            for rows, bias in zip(self.weights, self.biases, strict=True)
            for j, row in enumerate(rows)
            for entry in (*row, *(() if bias is None else (bias[j],)))
        ]
        return [*found, *self.slopes]

    def nonzero_weights(self, i: int, tolerance: Fraction | None) -> list[tuple[int, int]]:
        """The entries (j, k) of dW_i that are proved different from zero, tolerance included."""
        least = tolerance or Fraction(0)
        return [
            (j, k)
            for j, row in enumerate(self.weight_sizes.at(i))
            for k, size in enumerate(row)
            if size > least
        ]


@dataclass(frozen=True, kw_only=True)
class Posed:
    """A question as it is put to the solvers: which batches of ``size`` samples have the gradient ``target``?

    Beside the question what follows from it: ``alphabet`` lists the admitted label vectors (unit vectors for
    class losses), None for real labels; ``counts`` says how often each occurs when labels are known up to
    order; ``bounds`` are the domain's, one pair per feature, None for R^d. ``question.batch_size`` is said.
    """

    network: Network
    question: Question
    alphabet: tuple[Vector, ...] | None
    counts: tuple[int, ...] | None
    bounds: tuple[tuple[Fraction, Fraction], ...] | None
    target: Target

    @property
    def size(self) -> int:
        """M."""
        assert self.question.batch_size is not None
        return self.question.batch_size

    @property
    def divisor(self) -> int:
        """What the sum over samples is divided by."""
        return self.question.divisor(self.size, self.network.classes)

    @property
    def relu(self) -> ReluNetwork | None:
        """The network, for arguments about regions, which are made for ReLU; None of other activations."""
        return self.network if isinstance(self.network, ReluNetwork) else None

    @cached_property
    def title(self) -> str:
        """Comment lines that say what is asked."""
        widths, asked, network = "-".join(map(str, self.network.widths)), self.question, self.network
        title = (
            f"Which batches of {self.size} samples have the given gradient?\n"
            f"Network {widths}{'' if network.has_bias else ' without biases'}, "
            f"loss {asked.loss.value}, "
            f"reduction {asked.reduction.value}, labels {asked.labels.value}.\n"
            "on_s<m>_l<i>_n<j>: neuron j of hidden layer i is active for sample m; x_s<m>_<i>: its input i."
        )
        if self.relu is not None:
            return title
        title += f"\nThe network is {network.architecture}."
        if any((phi := network.activation(k)) and phi.high is not None for k in range(1, network.depth)):
            title += "\ncap_s<m>_l<i>_n<j>: it is at its upper end; neither active nor there, at the lower."
        return title


def posed_question(network: Network, question: Question, batch: Batch | None, target: Target) -> Posed:
    """The question with what follows from it; bounds and labels become exact rationals.

    ``batch`` gives the labels where they are known; ``question`` says a batch size.
    """
    alphabet, counts = alphabet_of(question, network.classes, batch)
    bounds = None
    if question.domain is not None:
        low, high = question.domain.bounds(network.widths[0])
        bounds = tuple((to_fraction(a), to_fraction(b)) for a, b in zip(low, high, strict=True))
    return Posed(
        network=network, question=question, alphabet=alphabet, counts=counts, bounds=bounds, target=target
    )


def alphabet_of(
    question: Question, classes: int, batch: Batch | None
) -> tuple[tuple[Vector, ...] | None, tuple[int, ...] | None]:
    """The admitted label vectors and, for known labels, how often each occurs in ``batch``.

    Raises :class:`InputError` when known labels are asked for without a batch.
    """
    loss = question.loss
    if question.labels is Labels.REAL:
        return None, None
    if question.labels is Labels.KNOWN:
        if batch is None:
            raise InputError("labels='known' needs the labels; pass batch=, or labels='one_hot'")
        counted = Counter(label_vectors(loss, batch, classes))
        ordered = sorted(counted)
        return tuple(ordered), tuple(counted[v] for v in ordered)
    zero, one = Fraction(0), Fraction(1)
    if loss is Loss.BCE or (loss is Loss.MSE and classes == 1):
        return tuple(product((zero, one), repeat=classes)), None
    return tuple(tuple(Fraction(c == k) for k in range(classes)) for c in range(classes)), None


def label_vectors(loss: Loss, batch: Batch, classes: int) -> list[Vector]:
    """The labels of a batch as target vectors (unit vectors for the class losses)."""
    if loss.class_labels:
        return [tuple(Fraction(c == y) for c in range(classes)) for y in batch.y]
    return [tuple(y) for y in batch.y if isinstance(y, tuple)]


def labels_array(loss: Loss, vectors: list[Vector]) -> Array:
    """The inverse of :func:`label_vectors`: labels as a :class:`Batch` holds them."""
    if loss.class_labels:
        return np.array([v.index(Fraction(1)) for v in vectors], dtype=np.int64)
    out = np.empty((len(vectors), len(vectors[0])), dtype=object)
    for m, vector in enumerate(vectors):
        out[m] = vector
    return out


def rational_target(network: Network, gradient: Gradient) -> Target:
    """The target of an exact rational gradient; which batches have the gradient zero is a question too."""
    weights, biases, sizes = [], [], []
    for weight, bias in gradient.for_network(network, zero=True):
        entries = tuple(tuple(to_fraction(v) for v in row) for row in weight)
        weights.append(tuple(tuple(map(Poly.constant, row)) for row in entries))
        sizes.append(tuple(tuple(abs(v) for v in row) for row in entries))
        biases.append(None if bias is None else tuple(Poly.constant(to_fraction(v)) for v in bias))
    trained = [activation.parameter for _, activation in network.trained_slopes()]
    missing = [name for name in trained if name not in gradient.tensors]
    if missing:
        raise GradientError(
            f"tensor {missing[0]!r} is missing: the slopes are trained, and have a gradient; add it"
        )
    slopes = tuple(Poly.constant(to_fraction(v)) for name in trained for v in gradient.tensors[name])
    return Target(weights=tuple(weights), biases=tuple(biases), weight_sizes=PerLayer(sizes), slopes=slopes)


def batch_target(network: Network, batch: Batch, question: Question) -> Target:
    """The target of a batch under a rational loss: its exact gradient."""
    return rational_target(network, exact_gradient(network, batch, question.loss, question.reduction))
