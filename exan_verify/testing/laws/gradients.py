"""Exact gradients are autograd's, what has a gradient is never refuted, and peeling stops where it must."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import backward, forward, gradient
from exan_verify.exact.softmax import loss_vectors
from exan_verify.exclusivity import exclusivity
from exan_verify.testing.laws.law import WORK, Case, cases, certified, law, require
from exan_verify.testing.laws.verdicts import samples_of
from exan_verify.testing.strategies import questions


@law(
    "autograd",
    "Exact gradients are those that PyTorch computes, up to rounding, for every loss",
    lambda: cases(st.one_of(questions(), questions(generic=True), questions(published=True))),
)
def exact_gradients_are_autograds(case: Case) -> str:
    """Relative to the size of what is summed: a gradient that cancels keeps its terms' rounding."""
    from exan_verify.api.attack_own_batch import batch_gradient

    question = case.question
    x, y = question.batch.inputs, question.batch.labels
    theirs = batch_gradient(question.network, x, y, question.question)
    ours = question.rounded_gradient()
    scale = max(1.0, *(float(np.abs(array).max()) for array in ours.values()))
    for name, array in ours.items():
        off = float(np.abs(array - theirs[name].detach().numpy().reshape(array.shape)).max())
        require(off <= 1e-9 * scale, f"{name} is off by {off:.1e}")
    return question.loss.value


@law(
    "realised",
    "The gradient of a batch is never UNREALISABLE at its size, and UNIQUE from it is the batch",
    lambda: cases(
        st.one_of(
            questions(loss="mse", samples=(1, 2)),
            questions(loss="hinge", samples=(1, 2)),
            questions(loss="mse", outcome="unique", samples=(1, 3)),
            questions(loss="mse", widths=(4, 40, 3), samples=(1, 3), generic=True, biases=True),
        )
    ),
)
def gradients_of_batches_are_realised(case: Case) -> Outcome | str:
    """From the exact gradient alone."""
    question = case.question
    exact = gradient(question.network, question.batch, question.loss, question.reduction)
    if not any(np.any(array != 0) for array in exact.tensors.values()) or question.labels.value == "known":
        return "nothing to ask"
    verdict = certified(question, gradient=exact, batch_size=question.batch.size, work_limit=WORK)
    require(verdict.outcome is not Outcome.UNREALISABLE, f"a batch's gradient is refuted: {verdict.reason}")
    if verdict.outcome is Outcome.UNIQUE and verdict.batch is not None:
        require(samples_of(verdict.batch) == samples_of(question.batch), "another batch is rebuilt")
    return verdict.outcome


@law(
    "radius",
    "Within a tolerance, UNIQUE's radius holds the batch that the rounded gradient is from",
    lambda: cases(
        questions(widths=(5, 40, 3), generic=True, samples=(1, 2), biases=True, labels="one_hot"),
        power=st.integers(-13, -9),
        seed=st.integers(0, 10**6),
    ),
)
def radii_hold_the_batch(case: Case) -> Outcome:
    """The gradient is moved by a part of the tolerance, entry by entry."""
    question, tolerance = case.question, 10.0 ** case.params["power"]
    rng = np.random.default_rng(case.params["seed"])
    moved = {
        name: array + 0.3 * tolerance * rng.uniform(-1, 1, array.shape)
        for name, array in question.rounded_gradient().items()
    }
    verdict = certified(question, gradient=moved, tolerance=tolerance, batch_size=question.batch.size)
    require(verdict.outcome is not Outcome.UNREALISABLE, f"a batch's gradient is refuted: {verdict.reason}")
    if verdict.outcome is not Outcome.UNIQUE or verdict.batch is None or verdict.witness is None:
        return verdict.outcome
    radii = np.array(verdict.witness.radius)
    found, true = (b.inputs.astype(np.float64) for b in (verdict.batch, question.batch))
    far = np.abs(found[:, None] - true[None]).max(axis=2)
    nearest = far.argmin(axis=1)
    require(sorted(nearest) == list(range(len(true))), "two samples of the batch found are one true sample")
    require(bool(np.all(far.min(axis=1) <= radii + 1e-12)), "the true batch lies outside the radius")
    labels = np.array_equal(np.asarray(verdict.batch.labels), np.asarray(question.batch.labels)[nearest])
    require(labels, "the labels within the radius are others")
    return verdict.outcome


@law(
    "stopping-sets",
    "What peeling leaves is the union of all stopping sets",
    lambda: cases(
        st.one_of(*(questions(loss=loss, biases=True, samples=(1, 4)) for loss in ("mse", "hinge")))
        | questions(loss="mse", stopping_set=True, biases=True)
        | questions(loss="mse", peelable="all")
    ),
)
def peeling_stops_at_stopping_sets(case: Case) -> str:
    """By the definition, over all sets of samples: no neuron tells one of them from the rest of the set."""
    question = case.question
    passed = forward(question.network, question.batch)
    vectors = loss_vectors(question.loss, passed.logits, question.batch.labels, 1)
    nonzero = backward(question.network, passed, vectors)[0].nonzero()
    active, size = passed.patterns[0], question.batch.size
    left: set[int] = set()
    for count in range(1, size + 1):
        for members in combinations(range(size), count):
            alone = active[:, list(members)].sum(axis=1) == 1
            if not any(np.any(alone & active[:, m] & nonzero[:, m]) for m in members):
                left |= set(members)
    state = exclusivity(question.network, question.batch, loss=question.loss)
    require(state.stopping_set == tuple(sorted(left)), f"{state.stopping_set} is left, not {sorted(left)}")
    return "all peeled" if not left else "stopped"
