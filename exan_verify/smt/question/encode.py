"""The plain question as constraints: which batches of M samples have this gradient?

One encoder writes both forms of the question (docs/smt.md): without fixed literals, the whole question with
one Boolean per neuron and sample; with the literals of a *cube* fixed, the same constraints folded to a
conjunction of polynomial equations and inequalities. Nothing of the theory of lifting enters here: only the
forward pass, the backward pass and the gradient equations of docs/theory.md section 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from exan_verify.core.network import Linear, to_fraction
from exan_verify.core.question import Loss
from exan_verify.smt.question.encoder import Encoder, Fixed, Sample
from exan_verify.smt.question.losses import encode_labels, encode_vector
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.terms import (
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
    literals is kept: some sample must be live at both ends of that weight.
    """
    encoding = encode(posed)
    script = encoding.script
    script.logic = "QF_LRA"
    script.assertions = [(c, f) for c, f in script.assertions if degree(f) <= 1]
    for i in range(1, posed.network.depth + 1):
        for j, k in posed.target.nonzero_weights(i, posed.question.tolerance):
            script.require(
                disj(conj([s.is_live(i, j), s.is_live(i - 1, k)]) for s in encoding.samples),
                f"entry ({j}, {k}) of weight gradient {i} is not zero",
            )
    return script


def state_names(posed: Posed, sample: int) -> list[str]:
    """The literals of a sample that a cube fixes: neurons, then labels, then violated margins."""
    widths = posed.network.widths
    found = [neuron_name(sample, i, j) for i in range(1, len(widths) - 1) for j in range(widths[i])]
    if posed.alphabet is not None and len(posed.alphabet) > 1:
        found += [f"label_s{sample}_{c}" for c in range(len(posed.alphabet))]
    if posed.question.loss is Loss.HINGE:
        found += [f"margin_s{sample}_c{c}" for c in range(widths[-1])]
    return found


def neuron_name(sample: int, layer: int, neuron: int) -> str:
    """Name of the literal "neuron ``neuron`` of hidden layer ``layer`` is active for the sample"."""
    return f"on_s{sample}_l{layer}_n{neuron}"


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
    m = sample.index
    for i, layer in enumerate(posed.network.layers[:-1], 1):
        sample.hidden.append(h)
        z, slopes = _affine(layer, h), slopes_below(posed, i)
        literals, out = [], []
        for j, (value, slope) in enumerate(zip(z, slopes, strict=True)):
            literal, activated = _activated(encoder, value, slope, m, i, j)
            literals.append(literal)
            out.append(activated)
        sample.active.append(tuple(literals))
        sample.live.append(tuple(TRUE if s else one for one, s in zip(literals, slopes, strict=True)))
        sample.state += literals
        h = tuple(out)
    sample.hidden.append(h)
    sample.logits = _affine(posed.network.layers[-1], h)


def slopes_below(posed: Posed, layer: int) -> list[Fraction]:
    """By how much the neurons of a hidden layer (1-based) multiply z <= 0: zero for ReLU."""
    activation = posed.network.activation(layer)
    if activation is None:
        return [Fraction(0)] * posed.network.widths[layer]
    return [to_fraction(slope) for slope in activation.slope]


def _activated(encoder: Encoder, z: Poly, slope: Fraction, m: int, i: int, j: int) -> tuple[Formula, Poly]:
    """A neuron is active iff z > 0, and its derivative at 0 is that below (docs/theory.md section 1)."""
    comment = f"sample {m}, hidden layer {i}, neuron {j}"
    literal = encoder.literal(neuron_name(m, i, j))
    encoder.require(implies(literal, less(Poly.constant(0), z)), comment)
    encoder.require(implies(negate(literal), at_most(z, 0)), comment)
    return literal, encoder.select(literal, z, z * slope, f"h_s{m}_l{i}_n{j}", comment)


def _affine(layer: Linear, h: Sequence[Poly]) -> tuple[Poly, ...]:
    out = []
    for j, row in enumerate(layer.weight):
        z = total(value * to_fraction(w) for w, value in zip(row, h, strict=True))
        out.append(z if layer.bias is None else z + to_fraction(layer.bias[j]))
    return tuple(out)


def _backward(encoder: Encoder, posed: Posed, sample: Sample) -> list[tuple[Poly, ...]]:
    """delta_1 .. delta_L with delta_L the loss vector and delta_i = D_i W_{i+1}^T delta_{i+1}."""
    deltas = [sample.vector]
    layers = posed.network.layers
    for i in range(len(layers) - 1, 0, -1):
        above, row, slopes = deltas[0], [], slopes_below(posed, i)
        for j, literal in enumerate(sample.pattern(i)):
            back = total(above[k] * to_fraction(w) for k, w in enumerate(layers[i].weight[:, j]))
            name, comment = f"delta_s{sample.index}_l{i}_n{j}", f"sample {sample.index}, backward"
            row.append(encoder.select(literal, back, back * slopes[j], name, comment))
        deltas.insert(0, tuple(row))
    return deltas


def _gradient_equations(encoder: Encoder, posed: Posed, samples: Sequence[Sample]) -> list[tuple[str, Poly]]:
    """dW_i = Delta_i H_{i-1} and db_i = Delta_i 1, minus the given gradient."""
    deltas = [_backward(encoder, posed, s) for s in samples]
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
