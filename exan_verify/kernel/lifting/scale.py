"""Checks that single samples of networks without biases have one scale only (docs/theory.md, section 8)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import flint
import numpy as np

from exan_verify.core.certificate import Scale
from exan_verify.core.facts import Facts
from exan_verify.core.network import to_fraction
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import Residues, add_mod, negate_mod
from exan_verify.exact.rational import product_mod
from exan_verify.kernel.given import Subject, require
from exan_verify.kernel.labels import admitted
from exan_verify.kernel.lifting import weights_alone
from exan_verify.kernel.lifting.degree_two import (
    Image,
    check_null_space,
    check_reduction,
    feature_rank,
    groups_of,
    image_at,
    lifted_system,
)
from exan_verify.kernel.second.twins import common_factor, margins


def facts(evidence: Scale, subject: Subject) -> Facts:
    """Lifting leaves single samples a positive scale; the samples named have no twin at any scale. Of a
    release the scale is left by dW_1 alone, and the argument another.
    """
    if subject.question.release is not None:
        return weights_alone.facts(evidence, subject)
    network, samples, i = subject.network, subject.samples, evidence.layer
    require(not network.has_bias, "this argument is for networks without biases")
    image = image_at(evidence.prime, evidence.point, subject, biases=False)
    if i == network.depth:
        groups = _one_sample_at_the_output(image)
        require(evidence.parametrisation == "single", "at the output layer there is one sample alone")
    else:
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


def _one_sample_at_the_output(image: Image) -> tuple[tuple[int, ...], ...]:
    """``dW_L = g h^T`` with g, h != 0: h' = c h, g' = g / c, and c > 0 since features are not negative."""
    depth = image.subject.network.depth
    require(image.subject.samples == 1 and depth > 1, "this takes one sample and a hidden layer")
    require(rank_mod(image.delta(depth)) == 1, "the loss vector is not shown to be non-zero")
    require(feature_rank(image, depth - 1) == 1, "the last features are not shown to be non-zero")
    return ((0,),)


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
    found = margins(subject, m)
    return not found or min(found) <= 0 or len(set(found)) > 1


def _positive_roots_exist(subject: Subject, m: int, other: Sequence[Fraction]) -> bool:
    """Whether the K quadratics have a common positive root besides c = 1 with y' = y; True when unsure."""
    label = [to_fraction(v) for v in subject.batch.labels[m]]
    common = common_factor(subject, m, label, other)
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
