"""What is true by construction is never denied."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import Array, fractions
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.exact import linalg
from exan_verify.exact.backprop import backward_mod, forward
from exan_verify.exact.modular import point
from exan_verify.exact.softmax import loss_vectors_mod
from exan_verify.instances import Instance
from exan_verify.testing.laws.law import SEEDS, Case, cases, certified, law, require
from exan_verify.testing.laws.verdicts import same_gradient, samples_of
from exan_verify.testing.strategies import questions


@law(
    "unique",
    "Pairs of exclusive neurons that keep all samples apart: never AMBIGUOUS",
    lambda: cases(
        st.one_of(
            questions(outcome="unique"),
            questions(outcome="unique", numbers="rational", samples=(1, 3)),
            questions(outcome="unique", near_boundary=True, samples=(1, 3)),
        )
    ),
)
def apart_is_never_ambiguous(case: Case) -> Outcome:
    """A theorem of its own that no engine uses."""
    verdict = certified(case.question)
    require(verdict.outcome is not Outcome.AMBIGUOUS, f"UNIQUE is denied: {verdict.reason}")
    require(SampleStatus.FREE not in verdict.samples, f"a sample is called free: {verdict.reason}")
    return verdict.outcome


@law(
    "published",
    "Two samples under the published condition and its hypotheses: never AMBIGUOUS",
    lambda: cases(
        st.one_of(
            questions(published=True, samples=2, biases=True),
            questions(published=True, samples=2, biases=True, generic=True),
            questions(published=True, samples=2, biases=True, numbers="rational"),
        )
    ),
)
def published_pairs_are_never_ambiguous(case: Case) -> str:
    """The hypotheses: in every layer an ExAN of each sample with a delta that is not zero, features below the
    last hidden layer that differ, and in it an ExAN at which the other sample is strictly inactive.
    """
    question = case.question
    network, passed = question.network, forward(question.network, question.batch)
    seen = loss_vectors_mod(question.loss, passed.logits, question.batch.labels, 1, point("laws/published"))
    deltas = backward_mod(network, passed, seen)
    live = {
        (i, m): [
            j
            for j in np.flatnonzero(passed.pattern(i)[:, m] & ~passed.pattern(i)[:, 1 - m])
            if deltas.at(i)[j, m]
        ]
        for i in range(1, network.depth)
        for m in (0, 1)
    }
    last = network.depth - 1
    strict = [j for m in (0, 1) for j in live[last, m] if not passed.zeros[last - 1][j, 1 - m]]
    features = passed.hidden[last - 1].fractions()
    if not all(live.values()) or not strict or not np.any(features[:, 0] != features[:, 1]):
        return "hypotheses not met"
    verdict = certified(question)
    require(
        verdict.outcome is not Outcome.AMBIGUOUS, f"a theorem for two samples is denied: {verdict.reason}"
    )
    require(SampleStatus.FREE not in verdict.samples, f"a sample is called free: {verdict.reason}")
    return verdict.outcome.value


@law(
    "twins",
    "A planted second batch, also in more features: never UNIQUE, and samples that it lacks never determined",
    lambda: cases(
        st.one_of(
            questions(twins=True),
            questions(twins=True, numbers="rational"),
            questions(twins=True, generic=True),
            questions(twins=True, shared_region=(2, 1)),
            questions(twins=True, stopping_set=True),
            questions(twins=True, near_boundary=True),
        ),
        more=st.integers(0, 2),
        seed=SEEDS,
    ),
)
def twins_are_never_denied(case: Case) -> Outcome:
    """Dead samples, silent samples and shears; ``more`` features that tell nothing new."""
    question = case.question
    if case.params.get("more"):
        question = embedded(question, case.params["more"], case.params["seed"])
    twin = question.twin
    assert twin is not None
    require(same_gradient(question, twin), "the strategy's twin has another gradient")
    verdict = certified(question)
    require(verdict.outcome is not Outcome.UNIQUE, f"a planted second batch is denied: {verdict.reason}")
    theirs = samples_of(twin)
    for m, status in enumerate(verdict.samples):
        own = question.batch.x[m], question.batch.y[m]
        require(
            own in theirs or status is not SampleStatus.DETERMINED,
            f"sample {m} is called determined and missing in the planted batch: {verdict.reason}",
        )
    return verdict.outcome


def embedded(question: Instance, more: int, seed: int) -> Instance:
    """The same question about ``more`` features than it has, without its domain: ``x' = A [x ; C x]`` with A
    invertible, and ``W_1' = ([W_1 0] + R [-C I]) A^-1``.

    Pre-activations are what they were, and dW_1' = Delta_1 X' = dW_1 [I C^T] A^T: batches of one gradient
    have one again. C is 0, or its rows combine features.
    """
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> Array:
        """Integers of any shape."""
        return fractions(rng.integers(-2, 3, shape))

    first, size = fractions(question.network.layers[0].weight), question.network.widths[0]
    copies = drawn(more, size) * int(rng.integers(2))
    lower, upper = (np.tril(drawn(size + more, size + more), -1) for _ in range(2))
    ones = fractions(np.eye(size + more, dtype=int))
    invertible = (ones + lower) @ (ones + upper.T)
    unseen = drawn(len(first), more) @ np.concatenate([-copies, ones[:more, :more]], axis=1)
    known = np.concatenate([first, fractions(np.zeros((len(first), more), dtype=int))], axis=1) + unseen
    inverse = linalg.solve(invertible, ones)
    assert inverse is not None
    weights = [known @ inverse, *(layer.weight for layer in question.network.layers[1:])]
    biases = [layer.bias for layer in question.network.layers]
    network = ReluNetwork.from_arrays(weights, biases if question.network.has_bias else None)

    def moved(batch: Batch) -> Batch:
        x = fractions(batch.inputs)
        inputs = np.concatenate([x, x @ copies.T], axis=1) @ invertible.T
        return Batch.of(inputs, batch.labels, network=network, loss=question.loss, labels=question.labels)

    assert question.twin is not None
    return Instance(
        network=network,
        batch=moved(question.batch),
        question=replace(question.question, domain=None),
        twin=moved(question.twin),
    )


@law(
    "segments",
    "Between a batch and its planted twin in one region, every batch of the segment has the gradient",
    lambda: cases(questions(twins=True), part=st.integers(1, 15)),
)
def segments_keep_the_gradient(case: Case) -> str:
    """The segment of S2 and S3, at a sixteenth part."""
    question, twin = case.question, case.question.twin
    assert twin is not None
    share = Fraction(case.params["part"], 16)
    own, other = (fractions(b.inputs) for b in (question.batch, twin))
    inputs = np.array(
        [[a + share * (b - a) for a, b in zip(*rows, strict=True)] for rows in zip(own, other, strict=True)]
    )
    between = Batch.of(
        inputs, question.batch.labels, network=question.network, loss=question.loss, labels=question.labels
    )
    require(same_gradient(question, between), "a batch of the segment has another gradient")
    return "kept"
