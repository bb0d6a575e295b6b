"""The plain question as constraints: which batches of M samples have this gradient?

One encoder writes both forms of the question (docs/smt.md): without fixed literals, the whole question with
one Boolean per neuron and sample; with the literals of a *cube* fixed, the same constraints folded to a
conjunction of polynomial equations and inequalities. Nothing of the theory of lifting enters here: only the
forward pass, the backward pass and the gradient equations of docs/theory.md section 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from exan_verify.core.network import Activation, Linear, to_fraction
from exan_verify.core.question import Loss
from exan_verify.smt.question.encoder import Encoder, Fixed, Neuron, Sample
from exan_verify.smt.question.losses import encode_labels, encode_vector
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.terms import (
    FALSE,
    TRUE,
    Formula,
    Junction,
    Literal,
    Poly,
    Script,
    at_most,
    conj,
    degree,
    disj,
    equal,
    implies,
    less,
    negate,
    total,
)

ORDER = "order of the samples, which does not matter"
"""Comment of the constraints that choose one order of the samples: no property of the batch."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The constraints of a question; ``equations`` are the polynomials ``G' - G``, one per entry."""

    script: Script
    samples: tuple[Sample, ...]
    equations: tuple[tuple[str, Poly], ...]


def encode(posed: Posed, fixed: Fixed | None = None) -> Encoding:
    """All batches of the question as constraints, with the literals in ``fixed`` folded."""
    script = Script(title=posed.title)
    encoder = Encoder(script, dict(fixed or {}))
    for name, facts in posed.target.facts:
        script.require(facts, name)
    script.reals.extend(posed.target.symbols)
    samples = tuple(_sample(encoder, posed, m) for m in range(posed.size))
    _label_counts(encoder, posed, samples)
    equations = tuple(_gradient_equations(encoder, posed, samples))
    for name, difference in equations:
        for formula in _matches(posed, difference):
            encoder.require(formula, f"gradient: {name}")
    for left, right in pairwise(samples):
        _ordered(encoder, left, right)
    return Encoding(script, samples, equations)


def abstraction(posed: Posed) -> Script:
    """A linear over-approximation of the question over its literals: what cubes are enumerated from.

    Constraints with products are dropped; what a non-zero entry of a weight's gradient says about the
    literals is kept: some sample must have a delta above that weight and a value below it.
    """
    encoding = encode(posed)
    script = encoding.script
    script.logic = "QF_LRA"
    script.assertions = [(c, f) for c, f in script.assertions if degree(f) <= 1]
    for i in range(1, posed.network.depth + 1):
        for j, k in posed.target.nonzero_weights(i, posed.question.tolerance):
            script.require(
                disj(conj([s.passes(i, j), s.has_value(i - 1, k)]) for s in encoding.samples),
                f"entry ({j}, {k}) of weight gradient {i} is not zero",
            )
    return script


def state_names(posed: Posed, sample: int) -> list[str]:
    """The literals of a sample that a cube fixes: neurons, layer by layer (with an upper end: those that are
    active, then those at the end), then labels, then violated margins.
    """
    widths, found = posed.network.widths, list[str]()
    for i in range(1, posed.network.depth):
        found += [neuron_name(sample, i, j) for j in range(widths[i])]
        if phi(posed, i).high is not None:
            found += [cap_name(sample, i, j) for j in range(widths[i])]
    if posed.alphabet is not None and len(posed.alphabet) > 1:
        found += [f"label_s{sample}_{c}" for c in range(len(posed.alphabet))]
    if posed.question.loss is Loss.HINGE:
        found += [f"margin_s{sample}_c{c}" for c in range(widths[-1])]
    return found


def neuron_name(sample: int, layer: int, neuron: int) -> str:
    """Name of the literal "neuron ``neuron`` of hidden layer ``layer`` is active for the sample"."""
    return f"on_s{sample}_l{layer}_n{neuron}"


def cap_name(sample: int, layer: int, neuron: int) -> str:
    """Name of the literal "neuron ``neuron`` of hidden layer ``layer`` is at its upper end"."""
    return f"cap_s{sample}_l{layer}_n{neuron}"


def _sample(encoder: Encoder, posed: Posed, m: int) -> Sample:
    features = posed.network.widths[0]
    sample = Sample(index=m, x=tuple(encoder.real(f"x_s{m}_{i}") for i in range(features)))
    for i, (low, high) in enumerate(posed.bounds or ()):
        encoder.require(at_most(Poly.constant(low), sample.x[i]), f"sample {m}: domain")
        encoder.require(at_most(sample.x[i], high), f"sample {m}: domain")
    _forward(encoder, posed, sample)
    encode_labels(encoder, posed, sample)
    encode_vector(encoder, posed, sample)
    return sample


def _forward(encoder: Encoder, posed: Posed, sample: Sample) -> None:
    h = sample.x
    for i, layer in enumerate(posed.network.layers[:-1], 1):
        sample.hidden.append(h)
        z, activation = _affine(layer, h), phi(posed, i)
        neurons = [_activated(encoder, value, activation, (sample.index, i, j)) for j, value in enumerate(z)]
        sample.pre.append(z)
        sample.neurons.append(tuple(neurons))
        sample.state += [neuron.active for neuron in neurons]
        if activation.high is not None:
            sample.state += [neuron.capped for neuron in neurons]
        h = tuple(neuron.value for neuron in neurons)
    sample.hidden.append(h)
    sample.logits = _affine(posed.network.layers[-1], h)


def phi(posed: Posed, layer: int) -> Activation:
    """What follows a hidden layer (1-based); ReLU has slopes of zero and no upper end."""
    activation = posed.network.activation(layer)
    if activation is None:
        return Activation(slope=np.zeros(posed.network.widths[layer], dtype=int), name="ReLU")
    return activation


def _activated(encoder: Encoder, z: Poly, activation: Activation, place: tuple[int, int, int]) -> Neuron:
    """A neuron is active iff low < z < high; its derivative at either end is that outside (docs/theory.md
    sections 1 and 3.7). Without an upper end, what is not active is below.
    """
    m, i, j = place
    comment = f"sample {m}, hidden layer {i}, neuron {j}"
    low, high, slope = activation.low, activation.high, to_fraction(activation.slope[j])
    below = (z - low) * slope + low
    active = encoder.literal(neuron_name(m, i, j))
    encoder.require(implies(active, less(Poly.constant(low), z)), comment)
    if high is None:
        encoder.require(implies(negate(active), at_most(z, low)), comment)
        value = encoder.select(active, z, below, f"h_s{m}_l{i}_n{j}", comment)
        return Neuron(
            active=active,
            capped=FALSE,
            value=value,
            passes=TRUE if slope else active,
            has_value=TRUE if slope or low else active,
        )
    capped = encoder.literal(cap_name(m, i, j))
    encoder.require(implies(active, less(z, high)), comment)
    encoder.require(implies(capped, at_most(Poly.constant(high), z)), comment)
    encoder.require(disj([active, capped, at_most(z, low)]), comment)
    end = encoder.select(capped, Poly.constant(high), below, f"end_s{m}_l{i}_n{j}", comment)
    value = encoder.select(active, z, end, f"h_s{m}_l{i}_n{j}", comment)
    # the ends are no zeros but where they are said to be
    at_ends = ([capped] if high else [], [conj([negate(active), negate(capped)])] if low else [])
    has_value = TRUE if low and high else disj([active, *at_ends[0], *at_ends[1]])
    return Neuron(active=active, capped=capped, value=value, passes=active, has_value=has_value)


def _affine(layer: Linear, h: Sequence[Poly]) -> tuple[Poly, ...]:
    out = []
    for j, row in enumerate(layer.weight):
        z = total(value * to_fraction(w) for w, value in zip(row, h, strict=True))
        out.append(z if layer.bias is None else z + to_fraction(layer.bias[j]))
    return tuple(out)


def _backward(
    encoder: Encoder, posed: Posed, sample: Sample
) -> tuple[list[tuple[Poly, ...]], dict[int, tuple[Poly, ...]]]:
    """delta_1 .. delta_L with delta_L the loss vector and delta_i = D_i W_{i+1}^T delta_{i+1}; and for layers
    whose slopes are trained what each of them gets: (W_{i+1}^T delta_{i+1})_j z_j where j is not active.
    """
    deltas, gained = [sample.vector], dict[int, tuple[Poly, ...]]()
    layers, m = posed.network.layers, sample.index
    for i in range(len(layers) - 1, 0, -1):
        above, activation, row, own = deltas[0], phi(posed, i), list[Poly](), list[Poly]()
        comment = f"sample {m}, backward"
        for j, (neuron, z) in enumerate(zip(sample.layer(i), sample.pre[i - 1], strict=True)):
            back = total(above[k] * to_fraction(w) for k, w in enumerate(layers[i].weight[:, j]))
            below = back * to_fraction(activation.slope[j])
            row.append(encoder.select(neuron.active, back, below, f"delta_s{m}_l{i}_n{j}", comment))
            if activation.trained:
                own.append(encoder.select(neuron.active, Poly({}), back * z, f"gain_s{m}_l{i}_n{j}", comment))
        if activation.trained:
            gained[i] = tuple(own)
        deltas.insert(0, tuple(row))
    return deltas, gained


def _gradient_equations(encoder: Encoder, posed: Posed, samples: Sequence[Sample]) -> list[tuple[str, Poly]]:
    """dW_i = Delta_i H_{i-1} and db_i = Delta_i 1, and what trained slopes get, minus the given gradient."""
    passes = [_backward(encoder, posed, s) for s in samples]
    deltas = [d for d, _ in passes]
    found: list[tuple[str, Poly]] = []
    given = iter(posed.target.entries())
    for i, layer in enumerate(posed.network.layers):
        named = [name for name, _ in layer.parameters()]
        for j in range(layer.shape[0]):
            for k in range(layer.shape[1]):
                entry = total(d[i][j] * s.hidden[i][k] for d, s in zip(deltas, samples, strict=True))
                found.append((f"{named[0]}[{j},{k}]", entry - next(given)))
            if layer.bias is not None:
                entry = total(d[i][j] for d in deltas)
                found.append((f"{named[1]}[{j}]", entry - next(given)))
    for i, activation in posed.network.trained_slopes():
        entries = [total(gained[i][j] for _, gained in passes) for j in range(posed.network.widths[i])]
        for j, entry in enumerate([total(entries)] if activation.shared else entries):
            found.append((f"{activation.parameter}[{j}]", entry - next(given)))
    return found


def _matches(posed: Posed, difference: Poly) -> list[Formula]:
    if posed.question.tolerance is None:
        return [equal(difference, 0)]
    return [at_most(difference, posed.question.tolerance), at_most(-difference, posed.question.tolerance)]


def _label_counts(encoder: Encoder, posed: Posed, samples: Sequence[Sample]) -> None:
    """Known labels: every label is used exactly as often as it was given."""
    if posed.counts is None or posed.alphabet is None:
        return
    one, zero = Poly.constant(1), Poly.constant(0)
    for c, count in enumerate(posed.counts):
        used = []
        for sample in samples:
            assert sample.labels is not None
            name = f"uses_s{sample.index}_{c}"
            used.append(encoder.select(sample.labels[c], one, zero, name, "known labels"))
        encoder.require(equal(total(used), count), "known labels, in unknown order")


LONGEST_CHAIN = 100
"""Formulas are nested one level per literal of the order; longer ones are cut by a Boolean of their own,
since recursion has an end."""


def _ordered(encoder: Encoder, left: Sample, right: Sample) -> None:
    """States in lexicographic order, equal states ordered by the first input: a choice of representative
    among the orders of the samples.
    """
    rest: Formula = at_most(left.x[0], right.x[0])
    for k, (a, b) in enumerate(zip(left.state[::-1], right.state[::-1], strict=True), 1):
        rest = conj([implies(a, b), disj([conj([negate(a), b]), rest])])
        if k % LONGEST_CHAIN == 0 and isinstance(rest, Junction) and rest.parts:
            name = f"rest_s{left.index}_{k}"
            encoder.script.booleans.append(name)
            encoder.require(implies(Literal(name), rest), ORDER)
            rest = Literal(name)
    encoder.require(rest, ORDER)
