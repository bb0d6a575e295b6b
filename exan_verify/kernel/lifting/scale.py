"""Checks evidence about networks without biases: scales and twins (docs/theory.md, section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import flint
import numpy as np

from exan_verify.core.certificate import Scale, Twin, Twins, rational
from exan_verify.core.facts import Facts
from exan_verify.core.network import to_fraction
from exan_verify.core.question import Box, Labels, Loss
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import Residues, add_mod, negate_mod
from exan_verify.exact.rational import product_mod
from exan_verify.exact.softmax import to_ball
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.labels import admitted, label_of
from exan_verify.kernel.lifting.degree_two import (
    Image,
    check_null_space,
    check_reduction,
    groups_of,
    image_at,
    lifted_system,
)

Interval = tuple[Fraction, Fraction]

MAX_TEXT = 20_000
"""Characters of a bracket; 1200 in the tests."""


def twin_facts(evidence: Twins, subject: Subject) -> Facts:
    """Each twin replaces one sample and keeps every product of delta and feature: a second batch."""
    require(not subject.network.has_bias, "twins are for networks without biases")
    require(len(evidence.twins) > 0, "the evidence names no twin")
    named = [twin.sample for twin in evidence.twins]
    require(len(set(named)) == len(named), "a sample has two twins")
    domain = subject.question.domain
    for twin in evidence.twins:
        require(0 <= twin.sample < subject.samples, f"there is no sample {twin.sample}")
        _check_twin(twin, subject, domain)
    if not subject.batch.distinct:
        return Facts(ambiguous=True)
    return Facts(free=frozenset(twin.sample for twin in evidence.twins))


def scale_facts(evidence: Scale, subject: Subject) -> Facts:
    """Lifting leaves single samples a positive scale; the samples named have no twin at any scale."""
    network, samples, i = subject.network, subject.samples, evidence.layer
    require(not network.has_bias, "this argument is for networks without biases")
    image = image_at(evidence.prime, evidence.point, subject, biases=False)
    check_reduction(image, i)
    groups = groups_of(subject.passed.pattern(i), tuple(range(samples)))
    require(evidence.groups == groups, f"the pattern groups of layer {i} are {groups}")
    check_null_space(evidence, lifted_system(image, evidence, tuple(range(samples))), groups)
    alone = {group[0] for group in groups if len(group) == 1}
    require(i == 1 or len(alone) == samples, "samples share a pattern, and the layers below stay open")
    require(evidence.lower_ranks == (samples,) * (i - 1), "a lower Delta lacks full column rank")
    for k in range(1, i):
        require(rank_mod(image.delta(k)) == samples, f"rank(Delta_{k}) = M is not shown")
    known = i if evidence.parametrisation in ("single", "row_space") else i + 1
    require(len(set(evidence.determined)) == len(evidence.determined), "a sample is named twice")
    for m in evidence.determined:
        require(m in alone, f"sample {m} shares its pattern")
        require(_injective(image, known, m), f"the backward map of sample {m} is not shown to be injective")
        require(_no_twin(subject, m), f"sample {m} may have a twin")
    return Facts(determined=frozenset(evidence.determined))


def _injective(image: Image, layer: int, m: int) -> bool:
    """Sample m's map from loss vectors to ``delta_layer`` is injective on the span of loss vectors."""
    network = image.subject.network
    back: Residues = np.eye(network.classes, dtype=np.uint64)
    for k in range(network.depth - 1, layer - 1, -1):
        back = product_mod(network.layers[k].weight.T, back) * image.subject.passed.pattern(k)[:, [m]]
    if image.subject.question.loss.zero_sum:
        back = add_mod(back[:, 1:], negate_mod(back[:, :1]))
    width: int = back.shape[1]
    return rank_mod(back) == width


def _no_twin(subject: Subject, m: int) -> bool:
    """No c > 0 and admitted y' other than c = 1, y' = y satisfy ``c g(c f, y') = g(f, y)``, in all of R^d."""
    loss = subject.question.loss
    if loss is Loss.HINGE:
        return True
    if loss is Loss.MSE:
        return subject.question.labels is not Labels.REAL and all(
            not _positive_roots_exist(subject, m, other)
            for other in admitted(subject.question, subject.batch.labels, subject.network.classes)
        )
    found = _margins(subject, m)
    return not found or min(found) <= 0 or len(set(found)) > 1


def _margins(subject: Subject, m: int) -> list[Fraction]:
    logits = [to_fraction(v) for v in subject.passed.logits[:, m]]
    label = subject.batch.labels[m]
    if subject.question.loss is Loss.CROSS_ENTROPY:
        return [logits[int(label)] - v for k, v in enumerate(logits) if k != int(label)]
    return [v if y == 1 else -v for v, y in zip(logits, label, strict=True)]


def _positive_roots_exist(subject: Subject, m: int, other: Sequence[Fraction]) -> bool:
    """Whether the K quadratics have a common positive root besides c = 1 with y' = y; True when unsure."""
    label = [to_fraction(v) for v in subject.batch.labels[m]]
    rows = [
        (y - f, -z, f)
        for f, y, z in zip(map(to_fraction, subject.passed.logits[:, m]), label, other, strict=True)
    ]
    common = flint.fmpq_poly([])
    for row in rows:
        common = common.gcd(flint.fmpq_poly([flint.fmpq(v.numerator, v.denominator) for v in row]))
    if common == 0:
        return True
    if list(label) == list(other):
        while common.degree() > 0 and common(1) == 0:
            common = common // flint.fmpq_poly([-1, 1])
    return _sign_changes_on_the_right(common) > 0


def _sign_changes_on_the_right(polynomial: flint.fmpq_poly) -> int:
    """Number of distinct positive roots, by Sturm's theorem on (0, infinity)."""
    while polynomial.degree() > 0 and polynomial(0) == 0:
        polynomial = polynomial // flint.fmpq_poly([0, 1])
    chain = [polynomial, polynomial.derivative()]
    while chain[-1] != 0:
        chain.append(-(chain[-2] % chain[-1]))
    at_zero = [p(0) for p in chain[:-1]]
    at_infinity = [p[p.degree()] for p in chain[:-1]]
    return _variations(at_zero) - _variations(at_infinity)


def _variations(values: Sequence[flint.fmpq]) -> int:
    signs = [1 if v > 0 else -1 for v in values if v != 0]
    return sum(a != b for a, b in pairwise(signs))


def _check_twin(twin: Twin, subject: Subject, domain: Box | None) -> None:
    m = twin.sample
    require(len(twin.low) + len(twin.high) <= MAX_TEXT, "the bracket of a scale is too long")
    low, high = rational(twin.low), rational(twin.high)
    require(0 < low <= high, "a scale must be positive")
    row = [to_fraction(v) for v in subject.batch.inputs[m]]
    require(any(row), "the zero input has no other scale")
    if domain is not None:
        lo, hi = domain.bounds(len(row))
        ends = [
            to_fraction(a) <= c * v <= to_fraction(b)
            for c in (low, high)
            for v, a, b in zip(row, lo, hi, strict=True)
        ]
        require(all(ends), "the twin may leave the domain")
    require(not low <= 1 <= high or twin.target is not None, "the scale may be 1, which changes nothing")
    if subject.question.loss is Loss.MSE:
        _check_mse_twin(twin, subject, (low, high))
        return
    require(twin.target is None, "a twin under this loss keeps its label")
    require(subject.question.loss in (Loss.CROSS_ENTROPY, Loss.BCE), "hinge admits no other scale than 1")
    found = _margins(subject, m)
    require(len(found) > 0 and len(set(found)) == 1 and found[0] > 0, "no other scale fits these margins")
    weight = subject.network.classes - 1 if subject.question.loss is Loss.CROSS_ENTROPY else 1
    signs = {_sign(found[0], weight, c) for c in (low, high)}
    require(signs == {1, -1}, "the bracket is not shown to hold a root")


def _check_mse_twin(twin: Twin, subject: Subject, bracket: Interval) -> None:
    """All K quadratics vanish at one c in the bracket: they are multiples of one with a sign change."""
    m = twin.sample
    label = label_of(subject.batch.labels[m])
    require(twin.target is None or len(twin.target) == len(label), "the twin's target has a wrong length")
    other = label if twin.target is None else tuple(rational(v) for v in twin.target)
    if subject.question.labels is not Labels.REAL:
        known = subject.question.labels is Labels.KNOWN
        labels = (
            [label] if known else admitted(subject.question, subject.batch.labels, subject.network.classes)
        )
        require(other in labels, "the twin's target is not admitted")
    rows = [
        [y - f, -z, f]
        for f, y, z in zip(map(to_fraction, subject.passed.logits[:, m]), label, other, strict=True)
    ]
    low, high = bracket
    if low == high:
        require(all(_value(row, low) == 0 for row in rows), "the twin's loss vector differs")
        require(low != 1 or other != label, "the twin is the sample itself")
        return
    common = flint.fmpq_poly([])
    for row in rows:
        common = common.gcd(flint.fmpq_poly([flint.fmpq(v.numerator, v.denominator) for v in row]))
    ends = [common(flint.fmpq(c.numerator, c.denominator)) for c in bracket]
    require(ends[0] * ends[1] < 0, "the bracket is not shown to hold a root")
    require(not low <= 1 <= high or other != label, "the scale may be 1, which changes nothing")


def _value(row: Sequence[Fraction], c: Fraction) -> Fraction:
    return row[0] + row[1] * c + row[2] * c * c


def _sign(margin: Fraction, weight: int, c: Fraction) -> int:
    """Sign of ``c (e^t + w) - (e^{ct} + w)`` by balls; 0 when 2^14 bits cannot tell."""
    for bits in (128, 512, 2048, 1 << 14):
        with flint.ctx.workprec(bits):
            t, scale = to_ball(margin), to_ball(c)
            value = scale * (t.exp() + weight) - ((scale * t).exp() + weight)
            if value > 0 or value < 0:
                return 1 if value > 0 else -1
    return 0
