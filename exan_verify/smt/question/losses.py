"""Labels and loss vectors of one unknown sample as constraints (docs/theory.md section 1)."""

from __future__ import annotations

from fractions import Fraction

from exan_verify.core.question import Loss
from exan_verify.smt.question.encoder import Encoder, Sample
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.terms import (
    FALSE,
    TRUE,
    Formula,
    Poly,
    conj,
    disj,
    implies,
    less,
    negate,
    total,
)


def encode_labels(encoder: Encoder, posed: Posed, sample: Sample) -> None:
    """One literal per admitted label, exactly one of them true; ``sample.y`` is the chosen target."""
    if posed.alphabet is None:
        return
    m, alphabet = sample.index, posed.alphabet
    names = [f"label_s{m}_{c}" for c in range(len(alphabet))]
    literals = [encoder.literal(n) for n in names] if len(alphabet) > 1 else [TRUE]
    comment = f"sample {m}: exactly one label"
    encoder.require(disj(literals), comment)
    for a in range(len(literals)):
        for b in range(a):
            encoder.require(disj([negate(literals[a]), negate(literals[b])]), comment)
    sample.labels = tuple(literals)
    if len(alphabet) > 1:
        sample.state += literals
    chosen = [
        encoder.select(literal, Poly.constant(1), Poly.constant(0), f"is_s{m}_{c}", f"sample {m}: label {c}")
        for c, literal in enumerate(literals)
    ]
    sample.y = tuple(
        total(chosen[c] * alphabet[c][k] for c in range(len(alphabet))) for k in range(len(alphabet[0]))
    )


def encode_vector(encoder: Encoder, posed: Posed, sample: Sample) -> None:
    """The loss vector of the sample, divided as the reduction says."""
    _VECTORS[posed.question.loss](encoder, posed, sample)


def _mse(encoder: Encoder, posed: Posed, sample: Sample) -> None:
    """g = 2 (f - y); a real target is whatever the loss vector makes it: y = f - g / 2."""
    scale = Fraction(2, posed.divisor)
    if posed.alphabet is not None:
        sample.vector = tuple((f - y) * scale for f, y in zip(sample.logits, sample.y, strict=True))
        return
    m = sample.index
    sample.vector = tuple(encoder.real(f"g_s{m}_{k}") for k in range(len(sample.logits)))
    sample.y = tuple(f - g * (1 / scale) for f, g in zip(sample.logits, sample.vector, strict=True))


def _hinge(encoder: Encoder, posed: Posed, sample: Sample) -> None:
    """multi_margin_loss: class c != y counts iff 1 - f_y + f_c > 0 (a tie does not), with weight 1/K."""
    assert sample.labels is not None
    m, classes = sample.index, len(sample.logits)
    share = Poly.constant(Fraction(1, classes * posed.divisor))
    zero = Poly.constant(0)
    margins = [encoder.literal(f"margin_s{m}_c{c}") for c in range(classes)]
    sample.state += margins
    chosen = list(zip(sample.labels, map(_class_of, posed.alphabet or ()), strict=True))
    for label, y in chosen:
        comment = f"sample {m}: margins violated if its label is {y}"
        encoder.require(implies(label, negate(margins[y])), comment)
        for c in range(classes):
            if c != y:
                violated = less(sample.logits[y] - sample.logits[c], 1)
                encoder.require(implies(label, _iff(margins[c], violated)), comment)
    comment = f"sample {m}: loss vector"
    weights = [encoder.select(v, share, zero, f"w_s{m}_c{c}", comment) for c, v in enumerate(margins)]
    own = [disj(label for label, y in chosen if y == c) for c in range(classes)]
    sample.vector = tuple(
        encoder.select(label, -total(weights), weights[c], f"g_s{m}_{c}", comment)
        for c, label in enumerate(own)
    )


def _class_of(letter: tuple[Fraction, ...]) -> int:
    return letter.index(Fraction(1))


def _cross_entropy(encoder: Encoder, posed: Posed, sample: Sample) -> None:
    """g = p - e_y with unknown probabilities: positive, of sum one, ordered as the logits are."""
    m, classes = sample.index, len(sample.logits)
    free = [encoder.real(f"p_s{m}_c{c}") for c in range(classes - 1)]
    sample.probabilities = (*free, Poly.constant(1) - total(free))
    for p in sample.probabilities:
        encoder.require(less(Poly.constant(0), p), f"sample {m}: softmax is positive")
    sample.vector = _minus_label(posed, sample)


def _bce(encoder: Encoder, posed: Posed, sample: Sample) -> None:
    """g_k = p_k - y_k with unknown probabilities between 0 and 1."""
    m, classes = sample.index, len(sample.logits)
    sample.probabilities = tuple(encoder.real(f"p_s{m}_c{c}") for c in range(classes))
    for p in sample.probabilities:
        encoder.require(less(Poly.constant(0), p), f"sample {m}: sigmoid is positive")
        encoder.require(less(p, 1), f"sample {m}: sigmoid is below one")
    sample.vector = _minus_label(posed, sample)


def _minus_label(posed: Posed, sample: Sample) -> tuple[Poly, ...]:
    scale = Fraction(1, posed.divisor)
    return tuple((p - y) * scale for p, y in zip(sample.probabilities, sample.y, strict=True))


def _iff(left: Formula, right: Formula) -> Formula:
    if left == TRUE:
        return right
    if left == FALSE:
        return negate(right)
    return conj([implies(left, right), implies(negate(left), negate(right))])


_VECTORS = {
    Loss.MSE: _mse,
    Loss.HINGE: _hinge,
    Loss.CROSS_ENTROPY: _cross_entropy,
    Loss.BCE: _bce,
}
