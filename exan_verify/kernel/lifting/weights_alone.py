"""Checks that dW_1 alone, without db_1, leaves no sample another scale (docs/theory.md, releases: weights
alone).

One hidden layer. Of rows S of dW_1 with rank M and inputs of rank M, lifting leaves a sample that shares its
pattern on S with nobody one unknown: every batch with this release has a sample ``x' = c x`` with the loss
vector ``g' = g / c``, c != 0 (with weights w: ``w' g' = w g / c``). It remains to show that c = 1.

*Pattern.* Where w_j . g != 0 for a neuron j in S, ``delta'_j = delta_j / c`` says that j is active at c x iff
it is at x: c lies in an interval around 1, the hull of which is [low, high]. If no other neuron that the
logits see switches inside it, the logits at c x are ``c s + a``, with s and a rational.

*Scale.* ``g(c s + a, y') = g(f, y) / c`` is solved by c = 1, y' = y alone:

cross_entropy: for K >= 3 one entry of g is negative and two or more are positive, so c > 0 and y' = y. Ratios
of the others say ``e^((c - 1)(s_k - s_l)) = 1``. Where all s_k, k != y, agree one equation is left (below).
bce, and K = 2: the same in each logit, if c > 0 is known from low >= 0.
mse: ``s c^2 + (a - y') c - (f - y) = 0`` in each logit; no common root in the interval.
hinge: the positive entries of g are one number, so c = 1; or one margin alone is violated, and c = -1.

*One equation.* ``F(c) = c / (V e^(cs) + W)``, V, W > 0, has ``F(c) = F(1)``. F' has the sign of ``W + V
e^(cs) (1 - cs)``. For s <= 0 F increases. For s > 0 it increases, then decreases from its top: the one other
solution lies above 1 where F'(1) > 0, and beyond ``high`` where F(high) > F(1); and likewise below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import flint
import numpy as np

from exan_verify.core.arrays import fractions, to_fraction
from exan_verify.core.certificate import Scale
from exan_verify.core.facts import Facts
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import add_mod, negate_mod
from exan_verify.exact.rational import Mask, RationalMatrix, product, product_mod
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ray:
    """Sample m along c x: logits ``c slopes + offsets`` for c in [low, high]; None: no end."""

    slopes: list[Fraction]
    offsets: list[Fraction]
    low: Fraction | None
    high: Fraction | None

    def outside(self, c: Fraction) -> bool:
        """Whether c is not in the interval."""
        return (self.low is not None and c < self.low) or (self.high is not None and c > self.high)

    @property
    def positive(self) -> bool:
        """Whether the interval has no negative number."""
        return self.low is not None and self.low >= 0


def facts(evidence: Scale, subject: Subject) -> Facts:
    """The samples named are in every batch with this release.

    Raises :class:`CertificateRejected` at the first step that does not hold.
    """
    network, samples = subject.network, subject.samples
    require(network.depth == 2, "dW_1 alone is for networks of one hidden layer")
    require(evidence.layer == 1 and not evidence.lower_ranks, "dW_1 alone is lifted at the first layer")
    require(evidence.parametrisation != "row_space", "the loss vectors are needed with all their entries")
    image = image_at(evidence.prime, evidence.point, subject, weights_alone=True)
    check_reduction(image, 1)
    everyone = tuple(range(samples))
    groups = groups_of(subject.passed.pattern(1)[image.sent(1)], everyone)
    require(evidence.groups == groups, f"the pattern groups of layer 1 are {groups}")
    check_null_space(evidence, lifted_system(image, evidence, everyone), groups)
    alone = {group[0] for group in groups if len(group) == 1}
    require(len(set(evidence.determined)) == len(evidence.determined), "a sample is named twice")
    for m in evidence.determined:
        require(m in alone, f"sample {m} shares its pattern")
        require(samples > 1 or _told_by_delta(image), "the rows sent do not tell the sample's loss vector")
        require(_only_one(subject, ray_of(image, m), m), f"another scale of sample {m} is not excluded")
    return Facts(determined=frozenset(evidence.determined))


def _told_by_delta(image: Image) -> bool:
    """One sample, of which lifting leaves q alone: the rows of delta_1 give its loss vector."""
    live = image.sent(1) & (image.delta(1)[:, 0] != 0)
    back = product_mod(
        image.subject.network.layers[1].weight.T[live], np.eye(image.subject.network.classes, dtype=np.uint64)
    )
    if image.subject.question.loss.zero_sum:
        back = add_mod(back[:, 1:], negate_mod(back[:, :1]))
    width: int = back.shape[1]
    return rank_mod(back) == width


def ray_of(image: Image, m: int) -> Ray:
    """The logits along c x and the interval of c; raises where a neuron may switch inside it."""
    subject = image.subject
    first, last = subject.network.layers
    active = subject.passed.pattern(1)[:, m]
    held = image.sent(1) & (product_mod(last.weight.T, image.delta(2)[:, [m]])[:, 0] != 0)
    matters: Mask = np.any(last.weight != 0, axis=0)
    rates = product(first.weight, RationalMatrix.of(np.ascontiguousarray(subject.batch.inputs[[m]].T)))
    rate = rates.fractions()[:, 0]
    bias = fractions(np.zeros(len(rate)) if first.bias is None else first.bias)
    # z_j(c) = c rate_j + bias_j is zero at stop_j; the state at 1 holds above it or below it
    stops = [(j, -bias[j] / rate[j]) for j in range(len(rate)) if rate[j]]
    above = [stop for j, stop in stops if held[j] and active[j] == (rate[j] > 0)]
    below = [stop for j, stop in stops if held[j] and active[j] != (rate[j] > 0)]
    low, high = max(above, default=None), min(below, default=None)
    slopes = product(last.weight, RationalMatrix.of((rate * active.astype(int))[:, None])).fractions()[:, 0]
    offsets = [to_fraction(f) - s for f, s in zip(subject.passed.logits[:, m], slopes, strict=True)]
    ray = Ray(slopes=list(slopes), offsets=offsets, low=low, high=high)
    switching = [j for j, stop in stops if matters[j] and not held[j] and stop not in (low, high)]
    inside = [j for j in switching if not ray.outside(dict(stops)[j])]
    require(not inside, f"a neuron that is not held may switch while sample {m} is scaled")
    return ray


def _only_one(subject: Subject, ray: Ray, m: int) -> bool:
    """Whether c = 1 with its own label is the only solution on the ray."""
    loss, question, y = subject.question.loss, subject.question, subject.batch.labels[m]
    if loss is Loss.CROSS_ENTROPY:
        others = [k for k in range(len(ray.slopes)) if k != int(y)]
        if len(others) > 1 and len({ray.slopes[k] for k in others}) > 1:
            return True
        if question.weighted or not others or (len(others) < 2 and not ray.positive):
            return False
        k = others[0]
        label = ray.slopes[int(y)] - ray.slopes[k], ray.offsets[int(y)] - ray.offsets[k]
        return _one_equation(ray, *label, [ray.offsets[other] - ray.offsets[k] for other in others])
    if question.weighted:
        return False
    if loss is Loss.BCE:
        signs = [1 if v == 1 else -1 for v in y]
        return ray.positive and any(
            _one_equation(ray, sign * s, sign * a, [Fraction(0)])
            for sign, s, a in zip(signs, ray.slopes, ray.offsets, strict=True)
        )
    if loss is Loss.HINGE:
        # g is not zero, since delta is not
        margins = [
            1 - subject.passed.logits[int(y), m] + f
            for k, f in enumerate(subject.passed.logits[:, m])
            if k != int(y)
        ]
        return sum(margin > 0 for margin in margins) > 1 or ray.outside(Fraction(-1))
    return question.labels is not Labels.REAL and all(
        _no_common_root(subject, ray, m, other)
        for other in admitted(question, subject.batch.labels, subject.network.classes)
    )


def _one_equation(ray: Ray, s: Fraction, v: Fraction, others: Sequence[Fraction]) -> bool:
    """Whether F(c) = F(1), c > 0 in the interval, has no solution but 1: V = e^v, W = the sum of e^others."""
    if s <= 0:
        return True
    for bits in (128, 1024):
        with flint.ctx.workprec(bits):
            slope, shift = to_ball(s), to_ball(v)
            rest = sum((to_ball(o).exp() for o in others), flint.arb(0))
            rising = rest + (slope + shift).exp() * (1 - slope)
            end = ray.high if rising > 0 else ray.low if rising < 0 else None
            if end is None or end <= 0:
                continue
            there: Any = to_ball(end) / ((to_ball(end) * slope + shift).exp() + rest)
            if end == 1 or there > 1 / ((slope + shift).exp() + rest):
                return True
    return False


def _no_common_root(subject: Subject, ray: Ray, m: int, other: Sequence[Fraction]) -> bool:
    """mse: the K quadratics of target ``other`` share no root in the interval but c = 1 of the own target."""
    own = label_of(subject.batch.labels[m])
    common = flint.fmpq_poly([])
    for s, a, y, z in zip(ray.slopes, ray.offsets, own, other, strict=True):
        row = [-(s + a - y), a - z, s]
        common = common.gcd(flint.fmpq_poly([flint.fmpq(v.numerator, v.denominator) for v in row]))
    if common == 0:
        return False
    if tuple(own) == tuple(other):
        while common.degree() > 0 and common(1) == 0:
            common = common // flint.fmpq_poly([-1, 1])
    coefficients = [Fraction(int(c.p), int(c.q)) for c in common.coeffs()]
    if len(coefficients) == 1:
        return True
    if len(coefficients) == 2:
        return ray.outside(-coefficients[0] / coefficients[1])
    constant, linear, square = coefficients
    return linear**2 < 4 * constant * square
