"""What a predicate sees: an exact network and batch, and what docs/theory.md section 1 derives from them.

Every number is exact. The same code runs on rationals and on traced numbers
(:mod:`exan_verify.theorems.claims.tracing`), with which a search covers all inputs or all weights; a
predicate that sticks to the arrays below works for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from exan_verify.core.budget import seconds_left
from exan_verify.core.network import Array, Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Loss, Question, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus, Trust, Verdict
from exan_verify.errors import InputError
from exan_verify.exact.backprop import Forward, backward_mod, forward
from exan_verify.exact.modular import point
from exan_verify.exact.softmax import VanishingDenominatorError, loss_vectors_mod
from exan_verify.exclusivity import exan_counts, pattern_groups
from exan_verify.theorems.certified import verdict_on

WORK = 2_000_000
"""Work limit of one call of the exact engines: a fraction of a second at the sizes that claims have."""


class Undecided(Exception):  # noqa: N818 - a signal to the search, not a mistake
    """Raised inside a predicate when no engine decides what it asks: the situation counts for nothing."""


class Situation:
    """A network of L affine layers and a batch of M samples, exactly.

    Arrays of layers are indexed from 0: ``patterns[0]`` is hidden layer 1, ``deltas[0]`` is delta_1,
    ``dW[0]`` the gradient of W_1. Samples are columns, except in ``x`` (M, d) and ``y``.
    """

    def __init__(
        self, weights: Sequence[Array], biases: Sequence[Array], x: Array, y: Array, question: Question
    ) -> None:
        self.weights = tuple(weights)
        """W_1 .. W_L, each (n_i, n_{i-1})."""
        self.biases = tuple(biases)
        """b_1 .. b_L, each (n_i,); none at all for a network without biases."""
        self.x = x
        """Inputs (M, d)."""
        self.y = y
        """Classes (M,) for cross_entropy and hinge, target vectors (M, K) for mse and bce."""
        self.question = question

    @classmethod
    def of(cls, network: ReluNetwork, batch: Batch, question: Question) -> Situation:
        """The situation of exact records."""
        layers = network.layers
        made = cls(
            weights=[rational_array(layer.weight) for layer in layers],
            biases=[rational_array(layer.bias) for layer in layers if layer.bias is not None],
            x=rational_array(batch.inputs),
            y=batch.labels if batch.labels.ndim == 1 else rational_array(batch.labels),
            question=question,
        )
        made.__dict__.update(network=network, batch=batch)
        return made

    # ---- what is given

    @property
    def widths(self) -> tuple[int, ...]:
        """``(n_0, ..., n_L)``: input dimension, hidden widths, number of logits."""
        return (self.weights[0].shape[1], *(weight.shape[0] for weight in self.weights))

    @property
    def depth(self) -> int:
        """L; there are L - 1 hidden layers."""
        return len(self.weights)

    @property
    def samples(self) -> int:
        """M."""
        return int(self.x.shape[0])

    @cached_property
    def network(self) -> ReluNetwork:
        """The network as an exact record."""
        biases = [exact_values(bias) for bias in self.biases] or None
        return ReluNetwork.from_arrays([exact_values(weight) for weight in self.weights], biases)

    @cached_property
    def batch(self) -> Batch:
        """The batch as an exact record."""
        labels = self.y if self.y.ndim == 1 else exact_values(self.y)
        return Batch.of(
            exact_values(self.x),
            labels,
            network=self.network,
            loss=self.question.loss,
            labels=self.question.labels,
        )

    # ---- forward

    @cached_property
    def _passed(self) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]]:
        hidden, before, patterns = [self.x.T], [], []
        for i in range(self.depth - 1):
            z = self._affine(i, hidden[-1])
            active = positive(z)
            before.append(z)
            patterns.append(active)
            hidden.append(masked(z, active))
        return tuple(hidden), tuple(before), tuple(patterns)

    @property
    def hidden(self) -> tuple[Array, ...]:
        """h_0 (the inputs) .. h_{L-1}, each (n_i, M)."""
        return self._passed[0]

    @property
    def preactivations(self) -> tuple[Array, ...]:
        """z_1 .. z_{L-1}, each (n_i, M)."""
        return self._passed[1]

    @property
    def patterns(self) -> tuple[Array, ...]:
        """Which neurons are active (z > 0), each (n_i, M) of bool."""
        return self._passed[2]

    @cached_property
    def zeros(self) -> tuple[Array, ...]:
        """Where a pre-activation is exactly 0, each (n_i, M) of bool."""
        return tuple(zero(z) for z in self.preactivations)

    @cached_property
    def logits(self) -> Array:
        """f (K, M)."""
        return self._affine(self.depth - 1, self.hidden[-1])

    # ---- exclusivity

    @cached_property
    def exans(self) -> tuple[tuple[int, ...], ...]:
        """The exclusivity state: ``exans[i][m]`` neurons of hidden layer i + 1 are active for m alone."""
        return tuple(exan_counts(pattern) for pattern in self.patterns)

    @cached_property
    def groups(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Per hidden layer, the samples grouped by equal patterns."""
        return tuple(pattern_groups(pattern) for pattern in self.patterns)

    def exclusive(self, layer: int, neuron: int) -> int | None:
        """The sample that ``neuron`` of hidden layer ``layer + 1`` is exclusive to, or None."""
        active = np.flatnonzero(self.patterns[layer][neuron])
        return int(active[0]) if len(active) == 1 else None

    # ---- backward

    @cached_property
    def deltas(self) -> tuple[Array, ...]:
        """delta_1 .. delta_L, each (n_i, M); delta_L are the loss vectors. For mse and hinge only."""
        found = [self._loss_vectors()]
        for weight, pattern in zip(self.weights[:0:-1], self.patterns[::-1], strict=True):
            found.insert(0, masked(weight.T @ found[0], pattern))
        return tuple(found)

    @property
    def loss_vectors(self) -> Array:
        """g (K, M), divided as the reduction says. For mse and hinge only."""
        return self.deltas[-1]

    @cached_property
    def dW(self) -> tuple[Array, ...]:  # noqa: N802 - the letters of docs/theory.md
        """Gradients of the weights, each (n_i, n_{i-1}). For mse and hinge only."""
        return tuple(delta @ h.T for delta, h in zip(self.deltas, self.hidden, strict=True))

    @cached_property
    def db(self) -> tuple[Array, ...]:
        """Gradients of the biases, each (n_i,); also defined for a network without biases."""
        return tuple(delta.sum(axis=1) for delta in self.deltas)

    @cached_property
    def nonzero_deltas(self) -> tuple[Array, ...]:
        """Where delta_i is not 0, each (n_i, M) of bool; for every loss."""
        if self.question.loss.rational:
            return tuple(~zero(delta) for delta in self.deltas)
        return _nonzero_mod(self.network, self.batch, self.question.loss)

    # ---- the question

    def outcome(self) -> Outcome:
        """UNIQUE or AMBIGUOUS, certified: whether another batch of M samples has this gradient."""
        return self.verdict.outcome

    def status(self, m: int) -> SampleStatus:
        """DETERMINED or FREE, certified: whether sample m is in every batch with this gradient."""
        status = self.verdict.samples[m]
        if status is SampleStatus.UNKNOWN:
            raise Undecided(f"whether sample {m} is determined")
        return status

    @cached_property
    def verdict(self) -> Verdict:
        """What the exact engines certify. Raises :class:`Undecided` when that is nothing."""
        left = seconds_left()
        verdict = verdict_on(
            self.network,
            self.batch,
            self.question,
            engine="exact",
            work_limit=WORK,
            budget=None if left is None else max(left, 0.01),
        )
        if verdict.outcome is Outcome.UNKNOWN or verdict.trust is not Trust.CERTIFIED:
            raise Undecided(verdict.reason)
        return verdict

    @property
    def asked_outcome(self) -> Outcome | None:
        """The certified outcome if a predicate has asked for it."""
        found = self.__dict__.get("verdict")
        return found.outcome if isinstance(found, Verdict) else None

    def _affine(self, i: int, h: Array) -> Array:
        z: Array = self.weights[i] @ h
        return z + self.biases[i].reshape(-1, 1) if self.biases else z

    def _loss_vectors(self) -> Array:
        loss, (classes, samples) = self.question.loss, self.logits.shape
        divisor = loss.divisor(self.question.reduction, samples, classes)
        if loss is Loss.MSE:
            vectors: Array = (self.logits - self.y.T) * Fraction(2, divisor)
            return vectors
        if loss is Loss.HINGE:
            return hinge_vectors(self.logits, self.y, Fraction(1, classes * divisor))
        raise InputError(
            f"the loss vectors of {loss.value} are not rational; a predicate for it can use patterns, "
            "nonzero_deltas, outcome() and status(m)"
        )


def hinge_vectors(logits: Array, labels: Sequence[int] | Array, share: Fraction) -> Array:
    """multi_margin_loss, p = 1, margin 1: each class c != y with 1 - f_y + f_c > 0 has weight ``share``."""
    out = np.full(logits.shape, Fraction(0), dtype=object)
    for m, y in enumerate(int(v) for v in labels):
        for c in range(len(logits)):
            if c != y and 1 - logits[y, m] + logits[c, m] > 0:
                out[c, m] += share
                out[y, m] -= share
    return out


def positive(values: Array) -> Array:
    """Elementwise ``> 0`` as an array of bool, of the same shape."""
    return _tested(values, lambda v: bool(v > 0))


def zero(values: Array) -> Array:
    """Elementwise ``== 0`` as an array of bool, of the same shape."""
    return _tested(values, lambda v: bool(v == 0))


def masked(values: Array, keep: Array) -> Array:
    """The values where ``keep``, of the same shape, holds, 0 elsewhere."""
    out = values.copy()
    out[~keep] = Fraction(0)
    return out


def _tested(values: Array, test: Any) -> Array:
    return np.array([test(v) for v in values.reshape(-1)], dtype=bool).reshape(values.shape)


def exact_values(array: Array) -> Array:
    """The numbers as they are at this point, of the same shape: traced numbers become rationals."""
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = value.exact() if hasattr(value, "exact") else value
    return out


def rational_array(array: Array) -> Array:
    """The same numbers, of the same shape, as Fractions."""
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = to_fraction(value)
    return out


def _nonzero_mod(network: ReluNetwork, batch: Batch, loss: Loss) -> tuple[Array, ...]:
    """A residue that is not 0 proves an active neuron's delta non-zero; a residue 0 proves nothing (3.6)."""
    passed = forward(network, batch)
    residues = _residues(network, passed, batch, loss)
    patterns = [*passed.patterns, np.ones(passed.logits.shape, dtype=bool)]
    if any(np.any(active & (delta == 0)) for active, delta in zip(patterns, residues, strict=True)):
        raise Undecided("whether a delta is zero")
    return tuple(patterns)


def _residues(network: ReluNetwork, passed: Forward, batch: Batch, loss: Loss) -> tuple[Any, ...]:
    divisor = loss.divisor(Reduction.SUM, batch.size, network.classes)
    attempt = 0
    while True:
        try:
            t = point(f"situation/{attempt}")
            vectors = loss_vectors_mod(loss, passed.logits, batch.labels, divisor, t)
            return backward_mod(network, passed, vectors)
        except VanishingDenominatorError:
            attempt += 1
