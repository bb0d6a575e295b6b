"""Networks without biases: counts of positive roots, and evidence that skips a lower layer."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import flint
import numpy as np
import pytest

from exan_verify.core.certificate import LayerArgument, Scale
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.errors import CertificateRejected
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME
from exan_verify.kernel.given import Subject
from exan_verify.kernel.lifting import scale
from exan_verify.kernel.lifting.degree_two import groups_of, image_at, lifted_system

ROOTS = [
    ([], 0),
    ([2], 1),
    ([-2], 0),
    ([0], 0),
    ([0, 3], 1),
    ([0, 0, 3], 1),
    ([0, 0, -1, 1, 4], 2),
    ([1, 2], 2),
    ([-1, 2], 1),
    ([2, 2], 1),
    ([-1, -2], 0),
    ([Fraction(1, 3), 5, -4], 2),
    ([1, 1, 1, 7], 2),
    ([1, 2, 3, -1, 0], 3),
]


@pytest.mark.parametrize(("roots", "positive"), ROOTS)
@pytest.mark.parametrize("factor", [1, -3])
@pytest.mark.parametrize("complex_pair", [False, True])
def test_distinct_positive_roots(roots: list[int], positive: int, factor: int, complex_pair: bool) -> None:
    lines = [flint.fmpq_poly([flint.fmpq(-Fraction(r).numerator, Fraction(r).denominator), 1]) for r in roots]
    pair = [flint.fmpq_poly([5, -2, 1])] if complex_pair else []
    polynomial = prod([*lines, *pair], start=flint.fmpq_poly([factor]))
    assert scale._sign_changes_on_the_right(polynomial) == positive


def above_three_neurons(*, unheard: bool) -> tuple[Subject, Scale]:
    """Three samples, told apart by layer 2; a neuron of layer 1 may be ``unheard`` there."""
    rng = np.random.default_rng(1)
    middle = rng.normal(size=(80, 3)) * [1, 1, not unheard]
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1], [-1, 1]], middle, rng.normal(size=(5, 80))])
    x = [[4.0, 1.0], [1.0, 1.0], [1.0, 5.0]]
    batch = Batch.of(x, [0, 1, 2], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    question = Question(
        loss=Loss.CROSS_ENTROPY,
        reduction=Reduction.MEAN,
        labels=Labels.ONE_HOT,
        batch_size=3,
    )
    subject = Subject(model=network, batch=batch, question=question)
    groups = groups_of(subject.passed.patterns[1], (0, 1, 2))
    argument = LayerArgument(
        layer=2,
        parametrisation="zero_sum",
        unknowns=0,
        rank=0,
        groups=groups,
        lower_ranks=(),
        determined=(),
        labels="loss_vectors",
    )
    system = lifted_system(image_at(PRIME, 5, subject, biases=False), argument, (0, 1, 2))
    evidence = Scale(
        layer=2,
        parametrisation="zero_sum",
        unknowns=system.shape[1],
        rank=rank_mod(system),
        groups=groups,
        lower_ranks=(3,),
        determined=(),
        prime=PRIME,
        point=5,
    )
    return subject, evidence


def test_a_lower_delta_of_too_small_a_rank_is_refused() -> None:
    """Two neurons of layer 1 that count give rank(Delta_1) = 2 for three samples; the top has rank 3."""
    subject, evidence = above_three_neurons(unheard=True)
    assert rank_mod(image_at(PRIME, 5, subject, biases=False).deltas[-1]) == 3
    with pytest.raises(CertificateRejected, match=r"rank\(Delta_1\) = M is not shown"):
        scale.facts(evidence, subject)
    subject, evidence = above_three_neurons(unheard=False)
    assert scale.facts(evidence, subject).determined == frozenset()
