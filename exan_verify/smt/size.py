"""How large the constraints of a question are, told before any of them is written.

Counted are the terms of the polynomials that :mod:`exan_verify.smt.question.encode` writes: per sample, three
copies of every pre-activation, one of every backward value, and one product per entry of the gradient; a
cube's are fewer formulas with the choices folded into longer polynomials. Bytes follow from the lengths of
the numbers: the denominators of weights and inputs multiply up along the layers, and an equation is written
over their product.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise
from math import comb, factorial, log10

from exan_verify.core.network import Array, Batch, Network, to_fraction
from exan_verify.core.question import Labels, Loss, Question
from exan_verify.smt.question.difference import MOST_LISTED

MAX_TERMS = 1_000_000
"""Larger questions are not asked: their constraints take more than half a gigabyte of Python objects and
minutes to write, and the solvers have decided none of a tenth of that size."""

_NAME = 24
"""Characters of a term beside its digits: parentheses, one or two names, its share of a comment."""

_SAMPLED = 64
"""Numbers per tensor whose denominators are looked at."""


@dataclass(frozen=True, slots=True)
class Size:
    """``terms`` of the whole question, of its largest cube, and ``bytes`` of the whole question as text."""

    terms: int
    cube_terms: int
    bytes: int

    @property
    def refused(self) -> str:
        """Why no solver is asked: the question is larger than :data:`MAX_TERMS`; "" where it is not."""
        most = max(self.terms, self.cube_terms)
        if most <= MAX_TERMS:
            return ""
        return (
            f"the constraints would have about {amount(most)} terms, and solvers are asked about "
            f"{amount(MAX_TERMS)} at most; ask about fewer samples or a smaller network, or use another "
            "engine"
        )


def size_of(
    network: Network, question: Question, *, batch: Batch | None = None, has_radius: bool = False
) -> Size:
    """Estimate a question's size; ``batch`` is the known batch that it excludes, if there is one."""
    loss, labels = question.loss, question.labels
    samples = batch.size if batch is not None else question.batch_size or 1
    widths, classes = network.widths, network.classes
    letters = _letters(loss, labels, classes, samples)
    last = widths[-2] + 1
    vector = {  # terms of one entry of the loss vector
        Loss.MSE: last + 1 if labels is not Labels.REAL else 1,
        Loss.HINGE: 1,
        Loss.CROSS_ENTROPY: 2,
        Loss.BCE: 1 + (letters + 1) // 2,
    }[loss]
    # what the rows of the backward pass to the last hidden layer have: the entries' terms, merged
    back = {Loss.MSE: last + classes, Loss.BCE: classes + letters}.get(loss, 2 * classes)
    affine = sum(3 * b * (a + 1) for a, b in pairwise(widths[:-1]))
    activations = ((k, network.activation(k)) for k in range(1, network.depth))
    capped = sum(widths[k] for k, phi in activations if phi is not None and phi.high is not None)
    # what a trained slope gets: the terms of (W^T delta)_j, each times those of z_j
    affine += sum(
        widths[k] * (widths[k + 1] if k + 1 < network.depth else back) * (widths[k - 1] + 1)
        for k, _ in network.trained_slopes()
    )
    chosen = letters * letters if letters > 1 else 0
    if loss is Loss.HINGE:
        chosen += 4 * classes * classes * last
    backward = sum(a * b for a, b in pairwise(widths[1:-1]))
    backward += widths[-2] * back if network.depth > 1 else 0
    entries = [b * (a + network.has_bias) for a, b in pairwise(widths)]
    equations = [n * (vector if i == network.depth - 1 else 1) for i, n in enumerate(entries)]
    sample = widths[0] + (letters or classes * last)  # what tells it from another one
    excluded = 0 if batch is None else _exclusion(samples, has_radius) * sample
    # literals: implications around every choice, and the order of the samples
    local = affine + chosen + backward + 8 * (sum(widths[1:-1]) + 2 * capped + letters)
    terms = samples * (local + sum(equations)) + excluded
    return Size(
        terms=terms,
        cube_terms=samples * _cube(network, loss, labels, entries) + excluded,
        bytes=_bytes(network, loss, batch, samples, local, equations, excluded),
    )


def _letters(loss: Loss, labels: Labels, classes: int, samples: int) -> int:
    if labels is Labels.REAL:
        return 0
    most = 2**classes if loss is Loss.BCE or (loss is Loss.MSE and classes == 1) else classes
    return min(most, samples) if labels is Labels.KNOWN else most


def _exclusion(samples: int, has_radius: bool) -> int:
    """Pairs of samples that "not the known batch, in any order" speaks of."""
    orders = has_radius or samples <= MOST_LISTED
    return (1 + has_radius) * samples * (factorial(samples) if orders else samples)


def _cube(network: Network, loss: Loss, labels: Labels, entries: list[int]) -> int:
    """Terms per sample with all choices folded: inputs are the only unknowns beside free loss vectors."""
    d, depth = network.widths[0] + 1, network.depth
    free = loss in (Loss.CROSS_ENTROPY, Loss.BCE) or labels is Labels.REAL
    vector = 1 if loss is Loss.HINGE else network.classes if free else d
    products = vector * d if free or loss is Loss.HINGE else comb(d + 1, 2)
    states = sum(network.widths[1:-1]) * d
    states += sum(network.widths[k] * products for k, _ in network.trained_slopes())
    return states + sum(n * (products if i or depth == 1 else vector) for i, n in enumerate(entries))


def _bytes(
    network: Network,
    loss: Loss,
    batch: Batch | None,
    samples: int,
    local: int,
    equations: list[int],
    excluded: int,
) -> int:
    bits = [max(_bits(a) for _, a in layer.parameters()) for layer in network.layers]
    inputs = max(bits) if batch is None else _bits(batch.inputs)
    passes = 2 if loss is Loss.MSE else 1  # logits enter the loss vector of mse themselves
    found = samples * local * (_NAME + _digits(max(bits)))
    for i, terms in enumerate(equations):
        other = sum(bits) - bits[i] + inputs + (passes - 1) * (sum(bits) + inputs)
        found += samples * terms * (_NAME + _digits(other))
    return found + excluded * (_NAME + _digits(inputs))


def _bits(array: Array) -> int:
    """Bits of the largest denominator among the first entries."""
    return max((to_fraction(v).denominator.bit_length() for v in islice(array.flat, _SAMPLED)), default=1)


def _digits(bits: int) -> int:
    return round(bits * log10(2)) + 1


def amount(count: int) -> str:
    """A count in words: 12,000 as it is, then 3.2 million, 410 billion, and powers of ten."""
    if count >= 10**12:
        return f"10^{len(str(count)) - 1}"
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if count >= size:
            return f"{count / size:.{0 if count >= 10 * size else 1}f} {name}"
    return f"{count:,}"
