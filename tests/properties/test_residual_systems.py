"""Laws of residual systems: planted second solutions are found, what is settled has no other root."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import least_squares

from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Claim, QuestionRecord, SecondBatch, issue
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.decide import residual
from exan_verify.exact.backprop import forward, gradient
from exan_verify.testing.strategies import LOSSES, REDUCTIONS, batches, networks
from tests.conftest import examples
from tests.support.contexts import context_of
from tests.support.residual_cases import one_region


def claimed(question, finding):
    """The certificate of this finding alone."""
    facts, samples = finding.facts, question.batch.size
    return issue(
        claim=Claim(
            question=QuestionRecord(
                entrance="batch",
                loss=question.setting.question.loss,
                reduction=question.setting.question.reduction,
                labels=question.setting.question.labels,
                batch_size=samples,
            ),
            outcome=facts.outcome(samples, distinct=question.batch.distinct),
            samples=facts.statuses(samples),
        ),
        evidence=finding.evidence,
        model_sha256=question.network.digest,
        batch_sha256=question.batch.digest,
    )


@examples(60)
@given(data=st.data(), loss=LOSSES, reduction=REDUCTIONS)
def test_what_is_found_is_accepted_and_witnesses_are_exact(data, loss, reduction):
    network = data.draw(networks(max_depth=3, max_width=5, max_classes=4, biases=None))
    batch = data.draw(batches(network, loss, max_samples=3))
    question = context_of(network, batch, loss, reduction=reduction)
    finding = residual.decide(question, Budget(work=10**8))
    if not finding.evidence:
        return
    claim = check(json.dumps(claimed(question, finding)), network, batch=batch)
    assert claim.samples == finding.facts.statuses(batch.size)
    if finding.witness is not None and loss.rational:
        ours, theirs = (gradient(network, b, loss, reduction) for b in (batch, finding.witness.batch))
        assert ours == theirs
        assert sorted(zip(batch.x, batch.y, strict=True)) != sorted(
            zip(finding.witness.batch.x, finding.witness.batch.y, strict=True)
        )


@examples(60)
@given(
    slope=st.integers(2, 40).map(lambda k: Fraction(k, 16)),
    start=st.integers(-20, 20).map(lambda k: Fraction(k, 8)),
    length=st.integers(1, 24).map(lambda k: Fraction(k, 8)),
    offset=st.integers(-9, 9).map(lambda k: Fraction(k, 5)),
    antisymmetric=st.booleans(),
)
def test_parallel_pairs_between_the_samples_are_ambiguous(slope, start, length, offset, antisymmetric):
    """R5: 0 < l < 2, l != 1 with y_2 - y_1 = l (f_2 - f_1)."""
    head = [[slope], [-slope]] if antisymmetric else [[slope]]
    network = ReluNetwork.from_arrays([[[1]], head], [[9], [offset, offset][: len(head)]])
    ratio = 1 / (slope * length)
    assume(0 < ratio < 2)
    assume(ratio != 1)
    labels = [[0, 1], [1, 0]] if antisymmetric else [[0], [1]]
    x = [[start], [start + length]]
    batch = Batch.of(x, labels, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    if antisymmetric:
        batch = Batch.of(x, labels[::-1], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    finding = residual.decide(context_of(network, batch, Loss.MSE), Budget())
    assert finding.facts.ambiguous
    a = 1 - ratio / 2
    expected = [(start + a * length,), (start + length - a * length,)]
    found = finding.witness.batch
    assert sorted(found.x) == sorted(expected) or gradient(
        network, found, Loss.MSE, Reduction.MEAN
    ) == gradient(network, batch, Loss.MSE, Reduction.MEAN)


@examples(25)
@given(
    seed=st.integers(0, 10**6),
    counts=st.sampled_from([(0, 0), (0, 1), (0, 1, 2), (0, 0, 1)]),
    classes=st.integers(3, 5),
)
def test_no_numeric_root_beside_the_permutations(seed, counts, classes):
    """Wherever mse is settled, least squares from random starts ends at permutations or at no root."""
    network, batch = one_region(counts, classes=classes, seed=seed % 97)
    x, y = batch
    exact = Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    finding = residual.decide(context_of(network, exact, Loss.MSE), Budget())
    assume(finding.facts.unique)
    others = [q for case in finding.evidence[0].argument.cases for q in case.others]
    logits = forward(network, exact).logits.T.astype(np.float64)
    size, targets = len(counts), exact.labels.astype(np.float64)
    # conditioned: the logits of close samples differ little, so their differences are scaled up
    scale = np.abs(logits - logits[0]).max()

    def equations(flat):
        q = flat.reshape(size, size)
        moved = q @ logits - targets
        system = (q.T @ moved - (logits - targets)) / scale
        return np.concatenate([system.ravel(), (q.sum(axis=1) - 1) * 10])

    rng = np.random.default_rng(seed)
    for _ in range(6):
        end = least_squares(equations, rng.normal(size=size * size), xtol=1e-15, ftol=1e-15, gtol=1e-15)
        q = end.x.reshape(size, size)
        if np.abs(equations(end.x)).max() < 1e-9 and np.abs(q).max() < 1e3:
            rounded = np.round(q)
            permutation = np.abs(q - rounded).max() < 1e-3 and set(rounded.ravel()) <= {0.0, 1.0}
            named = any(
                np.abs(q - np.array([[float(Fraction(v)) for v in row] for row in other])).max() < 1e-3
                for other in others
            )
            assert permutation or named, q


@examples(30)
@given(data=st.data(), loss=LOSSES)
def test_the_order_of_the_samples_never_turns_a_verdict_round(data, loss):
    network = data.draw(networks(max_depth=2, max_width=6, max_classes=4, generic=True))
    most = 3 if loss in (Loss.MSE, Loss.HINGE) else 2
    batch = data.draw(batches(network, loss, max_samples=most, generic=True))
    order = data.draw(st.permutations(range(batch.size)))
    first, second = (
        residual.decide(context_of(network, b, loss), Budget(work=10**8)).facts
        for b in (batch, batch.select(order))
    )
    # covers are cut in the order of the samples, so a limit may stop one order and not the other
    assert not (first.unique and second.is_ambiguous)
    assert not (first.is_ambiguous and second.unique)
    if loss in (Loss.MSE, Loss.HINGE):
        assert first.unique == second.unique


def test_second_batches_are_written_as_mixes():
    """Evidence for a second batch inside a region holds Q, not inputs."""
    network = ReluNetwork.from_arrays([[[1]], [[Fraction(2, 3)]]], [[9], [0]])
    batch = Batch.of([[0], [1]], [0, 1], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    (part,) = residual.decide(context_of(network, batch, Loss.MSE), Budget()).evidence
    assert isinstance(part, SecondBatch)
    assert part.directions == ()
    assert part.moves[0].mix == ((0, "1/4"), (1, "3/4")) or part.moves[0].mix == ((0, "3/4"), (1, "1/4"))
