"""Checks twins: in a network without biases, a sample at another scale with the same share of the gradient.

Such a network is positively homogeneous: at c x the pattern stays and the logits are c f. So (c x, y') keeps
every product of delta and feature when ``c g(c f, y') = g(f, y)`` (docs/theory.md, section 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import flint

from exan_verify.core.certificate import Twin, Twins, rational
from exan_verify.core.facts import Facts
from exan_verify.core.network import to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.softmax import to_ball
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.labels import admitted, label_of

Interval = tuple[Fraction, Fraction]

MAX_TEXT = 20_000
"""Characters of a bracket; 1200 in the tests."""


def facts(evidence: Twins, subject: Subject) -> Facts:
    """Each twin replaces one sample and keeps every product of delta and feature: a second batch."""
    require(not subject.network.has_bias, "twins are for networks without biases")
    require(len(evidence.twins) > 0, "the evidence names no twin")
    named = [twin.sample for twin in evidence.twins]
    require(len(set(named)) == len(named), "a sample has two twins")
    for twin in evidence.twins:
        require(0 <= twin.sample < subject.samples, f"there is no sample {twin.sample}")
        _check_twin(twin, subject)
    if not subject.batch.distinct:
        return Facts(ambiguous=True)
    return Facts(free=frozenset(twin.sample for twin in evidence.twins))


def margins(subject: Subject, m: int) -> list[Fraction]:
    """The label's logit less every other one, or per logit for bce: a twin needs all of them equal."""
    logits = [to_fraction(v) for v in subject.passed.logits[:, m]]
    label = subject.batch.labels[m]
    if subject.question.loss is Loss.CROSS_ENTROPY:
        return [logits[int(label)] - v for k, v in enumerate(logits) if k != int(label)]
    return [v if y == 1 else -v for v, y in zip(logits, label, strict=True)]


def common_factor(
    subject: Subject, m: int, label: Sequence[Fraction], other: Sequence[Fraction]
) -> flint.fmpq_poly:
    """Greatest common divisor of ``f c^2 - y' c - (f - y)`` over the K logits of sample m, for mse."""
    common = flint.fmpq_poly([])
    for f, y, z in zip(map(to_fraction, subject.passed.logits[:, m]), label, other, strict=True):
        row = [y - f, -z, f]
        common = common.gcd(flint.fmpq_poly([flint.fmpq(v.numerator, v.denominator) for v in row]))
    return common


def _check_twin(twin: Twin, subject: Subject) -> None:
    m, domain = twin.sample, subject.question.domain
    require(len(twin.low) + len(twin.high) <= MAX_TEXT, "the bracket of a scale is too long")
    low, high = rational(twin.low), rational(twin.high)
    require(0 < low <= high, "a scale must be positive")
    row = subject.batch.x[m]
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
    found = margins(subject, m)
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
    low, high = bracket
    common = common_factor(subject, m, label, other)
    ends = [common(flint.fmpq(c.numerator, c.denominator)) for c in bracket]
    if low == high:
        require(ends[0] == 0, "the twin's loss vector differs")
        require(low != 1 or other != label, "the twin is the sample itself")
        return
    require(ends[0] * ends[1] < 0, "the bracket is not shown to hold a root")
    require(not low <= 1 <= high or other != label, "the scale may be 1, which changes nothing")


def _sign(margin: Fraction, weight: int, c: Fraction) -> int:
    """Sign of ``c (e^t + w) - (e^{ct} + w)`` by balls; 0 when 2^14 bits cannot tell."""
    for bits in (128, 512, 2048, 1 << 14):
        with flint.ctx.workprec(bits):
            t, scale = to_ball(margin), to_ball(c)
            value = scale * (t.exp() + weight) - ((scale * t).exp() + weight)
            if value > 0 or value < 0:
                return 1 if value > 0 else -1
    return 0
