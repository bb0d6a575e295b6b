"""Claims about situations whose inputs or weights are unknowns: traced numbers instead of rationals.

A claim of uniqueness becomes a question about two batches: is there a second one, with inputs that are
unknowns too, whose gradient has the same entries? For mse and hinge all of it is polynomial.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement, permutations

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork, to_fraction
from exan_verify.core.question import Labels, Question
from exan_verify.smt.question.posed import alphabet_of, labels_array
from exan_verify.smt.question.terms import TRUE, Formula, conj, disj, negate
from exan_verify.theorems.claims.claim import Claim, Judgement, admitted, concluded, unique
from exan_verify.theorems.claims.searching.explore import Point
from exan_verify.theorems.claims.situation import Situation
from exan_verify.theorems.claims.tracing import Path, Traced, all_hold, unknown

Vector = tuple[Fraction, ...]
NETWORK, FIRST, SECOND, TARGET = "w", "x", "u", "t"
"""What names of unknowns start with: parameters, inputs, the second batch's inputs, its real labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A network and a batch, of which every array in ``free`` (by the names above) is unknown.

    ``network`` and ``x`` (M, d) give the values that are not free, and the first point. ``second``: labels
    of the second batch that a claim of uniqueness is asked about.
    """

    network: ReluNetwork
    x: Array
    y: Array
    second: Array
    free: frozenset[str]

    def start(self) -> dict[str, Fraction]:
        """The first point: the template's own values; a second batch one step away."""
        point: dict[str, Fraction] = {}
        if NETWORK in self.free:
            for name, array in self._parameters():
                point |= _named(name, array)
        if FIRST in self.free:
            point |= _named(FIRST, self.x)
        if SECOND in self.free:
            point |= _named(SECOND, self.x + 1)
        if TARGET in self.free:
            point |= _named(TARGET, self.y + 1)
        return point

    def situation(self, point: Point, path: Path, question: Question) -> Situation:
        """The first batch at a point."""
        arrays = [self._filled(NETWORK, name, array, point, path) for name, array in self._parameters()]
        step = 2 if self.network.has_bias else 1
        x = self._filled(FIRST, FIRST, self.x, point, path)
        return Situation(arrays[::step], arrays[1::2] if step == 2 else [], x, self.y, question)

    def other(self, first: Situation, point: Point, path: Path) -> Situation:
        """The second batch at a point, in the same network."""
        x = self._filled(SECOND, SECOND, self.x, point, path)
        y = self._filled(TARGET, TARGET, self.second, point, path)
        return Situation(first.weights, first.biases, x, y, first.question)

    def _parameters(self) -> Iterator[tuple[str, Array]]:
        for k, layer in enumerate(self.network.layers):
            yield f"{NETWORK}{k}", layer.weight
            if layer.bias is not None:
                yield f"{NETWORK}b{k}", layer.bias

    def _filled(self, kind: str, name: str, array: Array, point: Point, path: Path) -> Array:
        if kind not in self.free:
            return array if array.ndim == 1 and kind == TARGET else _exact(array)
        out = np.empty(array.shape, dtype=object)
        for index in np.ndindex(array.shape):
            key = _key(name, index)
            out[index] = unknown(key, point[key], path)
        return out


def run_claim(claim: Claim, template: Template, point: Point, path: Path) -> Judgement:
    """Judge ``claim`` at a point of ``template``, recording on ``path`` all that the answer depends on."""
    first = template.situation(point, path, claim.question)
    if not (in_domain(claim, first) and admitted(claim, first)):
        return Judgement.OUTSIDE
    if claim.conclusion is not unique:
        return concluded(claim, first)
    second = template.other(first, point, path)
    if not in_domain(claim, second):
        return Judgement.HOLDS
    formula = is_second_batch(first, second)
    there = all_hold([formula], point)
    return Judgement.FAILS if path.decide(formula, there) else Judgement.HOLDS


def exact_batches(claim: Claim, template: Template, point: Point) -> tuple[ReluNetwork, Batch, Batch]:
    """The records at a point: network, batch, second batch."""
    path = Path()
    first = template.situation(point, path, claim.question)
    return first.network, first.batch, template.other(first, point, path).batch


def is_second_batch(first: Situation, second: Situation) -> Formula:
    """The gradients have equal entries, and no order of the samples makes the batches equal."""
    pairs = [*zip(first.dW, second.dW, strict=True)]
    if first.biases:
        pairs += zip(first.db, second.db, strict=True)
    equations = [_equation(a, b) for p, q in pairs for a, b in zip(p.reshape(-1), q.reshape(-1), strict=True)]
    orders = permutations(range(first.samples))
    return conj([*equations, *(_differs(first, second, order) for order in orders)])


def in_domain(claim: Claim, situation: Situation) -> bool:
    """Whether the inputs lie in the claim's domain."""
    if claim.question.domain is None:
        return True
    low, high = claim.question.domain.bounds(situation.x.shape[1])
    return all(
        to_fraction(low[i]) <= row[i] <= to_fraction(high[i]) for row in situation.x for i in range(len(row))
    )


def label_pairs(claim: Claim, logits: int, samples: int) -> Iterator[tuple[Array, Array]]:
    """Labels of a batch, and of a second one, up to the order of the samples; equal ones first.

    For real labels the first batch gets 0 and 1, and the second's are unknowns.
    """
    chosen = _label_multisets(claim, logits, samples)
    yield from ((labels, labels) for labels in chosen)
    if claim.conclusion is unique and claim.question.labels is Labels.ONE_HOT:
        yield from ((a, b) for a in chosen for b in chosen if a is not b)


def _label_multisets(claim: Claim, logits: int, samples: int) -> list[Array]:
    alphabet, _ = alphabet_of(Question(loss=claim.question.loss), logits, None)
    return [
        labels_array(claim.question.loss, list(found))
        for found in combinations_with_replacement(alphabet or (), samples)
    ]


def second_labels(claim: Claim, network: ReluNetwork, batch: Batch) -> Iterator[Array]:
    """Labels of a second batch beside this one, up to the order of the samples; the batch's own first.

    For real labels they are unknowns.
    """
    yield batch.labels
    if claim.question.labels is Labels.ONE_HOT:
        yield from _label_multisets(claim, network.classes, batch.size)


def free_of(claim: Claim, *names: str) -> frozenset[str]:
    """``names``, with what a claim of uniqueness leaves open of the second batch."""
    if claim.conclusion is not unique:
        return frozenset(names)
    real = {TARGET} if claim.question.labels is Labels.REAL else set()
    return frozenset(names) | {SECOND} | real


def polynomial(claim: Claim) -> str:
    """Why a claim is not about polynomials, or nothing."""
    if claim.question.loss.rational:
        return ""
    return f"{claim.question.loss.value} is not polynomial: only drawn situations were tried"


def _equation(left: Traced | Fraction, right: Traced | Fraction) -> Formula:
    if isinstance(left, Traced):
        return left.equation(right)
    if isinstance(right, Traced):
        return right.equation(left)
    return TRUE if left == right else negate(TRUE)


def _differs(first: Situation, second: Situation, order: tuple[int, ...]) -> Formula:
    """Some sample differs from the one that the order puts beside it, in an input or in its label."""
    parts = [
        negate(_equation(a, b))
        for m, k in enumerate(order)
        for a, b in zip(_sample(first, k), _sample(second, m), strict=True)
    ]
    return disj(parts)


def _sample(situation: Situation, m: int) -> list[Traced | Fraction]:
    labels = situation.y[m : m + 1] if situation.y.ndim == 1 else situation.y[m]
    return [*situation.x[m], *(Fraction(int(v)) if situation.y.ndim == 1 else v for v in labels)]


def _named(name: str, array: Array) -> dict[str, Fraction]:
    return {_key(name, index): to_fraction(value) for index, value in np.ndenumerate(array)}


def _key(name: str, index: tuple[int, ...]) -> str:
    return "_".join([name, *map(str, index)])


def _exact(array: Array) -> Array:
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = to_fraction(value)
    return out
