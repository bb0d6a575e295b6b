"""Networks with other activations than ReLU: solvers, whose constraints are the definition alone, as ground
truth of what is proved about them, and second batches that are there by construction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import fractions, freeze
from exan_verify.core.network import Activation, Array, Batch, PiecewiseNetwork, ReluNetwork
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.exact import linalg
from exan_verify.exact.backprop import forward, jacobians
from exan_verify.testing.laws.law import WORK, Case, cases, law, require, require_no_contradiction
from exan_verify.testing.laws.verdicts import same_gradient_of, samples_of
from exan_verify.testing.strategies import questions

SLOPES = (-2, -0.5, 0.25, 3)
"""Below zero; above it is 1."""

KINDS = ("slopes", "PReLU", "PReLU, one slope", "ReLU6", "Hardtanh")

SOLVERS_WORK = 300_000
"""Of the solvers, in their own units, in short rounds on cubes: the whole question, asked first otherwise,
takes a hundred times as long where second batches form a family.
"""

_DRAWN: Mapping[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(KINDS),
    "slopes": st.lists(st.sampled_from(SLOPES), min_size=5, max_size=5),
}


def with_activations(network: ReluNetwork, kind: str, slopes: Sequence[float]) -> PiecewiseNetwork:
    """The same layers with activations of a kind of :data:`KINDS`; ``slopes``: at least as many as neurons.

    The ends are near enough for small numbers to lie beyond them.
    """
    if kind in ("ReLU6", "Hardtanh"):
        low = Fraction(-1 if kind == "Hardtanh" else 0)
        return PiecewiseNetwork(
            layers=network.layers,
            activations=tuple(
                Activation(slope=np.zeros(n), low=low, high=Fraction(2), name=kind)
                for n in network.widths[1:-1]
            ),
        )
    one = kind == "PReLU, one slope"
    found = network.sloped([list(slopes[:1]) * n if one else slopes[:n] for n in network.widths[1:-1]])
    if kind == "slopes":
        return found
    own = tuple(
        replace(activation, parameter=f"slope.{k}", shared=one, name=kind)
        for k, activation in enumerate(found.activations)
        if activation is not None
    )
    return replace(found, activations=own)


def answers(case: Case, network: PiecewiseNetwork, batch: Batch) -> tuple[Verdict, Verdict]:
    """What ``certify`` proves of ``batch``, and what solvers say of it, who may give up."""
    from exan_verify.api.certify import certify
    from exan_verify.smt.decide import decide
    from exan_verify.smt.portfolio import ROUNDS, Settings

    asked = case.question.question
    proved = certify(
        network,
        batch=batch,
        loss=asked.loss.value,
        reduction=asked.reduction.value,
        labels=asked.labels.value,
        engine="exact",
        work_limit=WORK,
    )
    settings = Settings(rounds=ROUNDS[:2], work_limit=SOLVERS_WORK, scout=False)
    solved = decide(network, asked, batch=batch, settings=settings)
    require_no_contradiction(proved, solved, f"certify and solvers, {case.params['kind']}")
    return proved, solved


@law(
    "slopes",
    "Tiny networks with other activations than ReLU: solvers do not contradict what is proved of them",
    lambda: cases(
        st.one_of(
            questions(samples=2, widths=(1, 5, 1), generic=True, biases=True, labels="one_hot"),
            questions(samples=2, widths=(1, 5, 2), generic=True, biases=True, labels="one_hot"),
            questions(samples=(1, 2), widths=(2, 4, 1), biases=True),
            questions(samples=(1, 2), widths=(2, 3, 2), biases=True),
            questions(samples=(1, 2), widths=(1, 2, 2, 2), biases=True),
        ),
        **_DRAWN,
    ),
)
def solvers_agree_with_what_is_proved(case: Case) -> str:
    """Nothing of the theory is in the solvers' constraints; rational second batches of either are compared
    with the batch by the exact passes.
    """
    question = case.question
    network = with_activations(question.network, case.params["kind"], case.params["slopes"])
    proved, solved = answers(case, network, question.batch)
    for verdict in (proved, solved):
        other = None if verdict.witness is None else verdict.witness.batch
        if other is not None and verdict.outcome is Outcome.AMBIGUOUS:
            require(samples_of(other) != samples_of(question.batch), "the second batch is the batch itself")
            require(
                same_gradient_of(network, question.question, question.batch, other),
                f"the second batch has another gradient: {verdict.reason}",
            )
    return f"proved {proved.outcome.value}, solvers {solved.outcome.value}"


@law(
    "slopes-twins",
    "A second batch planted in a network with other activations than ReLU: never UNIQUE, for nobody",
    lambda: cases(
        st.one_of(
            questions(samples=1, widths=(2, 3, 1), biases=True),
            questions(samples=1, widths=(3, 3, 2), biases=True),
            questions(samples=1, widths=(3, 2, 2, 2), biases=True),
        ),
        **_DRAWN,
    ),
)
def planted_shears_are_never_denied(case: Case) -> str:
    """x and x + v, v in the kernel of the logits' derivative, with one label have one loss vector; x - v and
    x + 2 v have the same, and the same sums, where v is so short that no neuron changes its state.
    """
    question = case.question
    network = with_activations(question.network, case.params["kind"], case.params["slopes"])
    passed = forward(network, question.batch)
    if any(zero.any() for zero in passed.zeros):
        return "at an end"
    x = fractions(question.batch.inputs)[0]
    v = linalg.nullspace(jacobians(network, passed, 0).at(network.depth))[:, 0]
    while not _one_state(network, _rows(x - v, x, x + v, x + 2 * v), question.batch):
        v = v / 2
    labels = freeze(np.concatenate([question.batch.labels] * 2))
    batch, other = (Batch(inputs=rows, labels=labels) for rows in (_rows(x, x + v), _rows(x - v, x + 2 * v)))
    require(
        same_gradient_of(network, question.question, batch, other), "what is planted has another gradient"
    )
    proved, solved = answers(case, network, batch)
    for verdict in (proved, solved):
        require(verdict.outcome is not Outcome.UNIQUE, f"a planted batch is denied: {verdict.reason}")
        require(
            SampleStatus.DETERMINED not in verdict.samples,
            f"a sample is called determined and missing in the planted batch: {verdict.reason}",
        )
    return f"proved {proved.outcome.value}, solvers {solved.outcome.value}"


def _rows(*points: Array) -> Array:
    return freeze(np.array(points, dtype=object))


def _one_state(network: PiecewiseNetwork, inputs: Array, like: Batch) -> bool:
    """Whether all neurons are in one state for all inputs (M, d), strictly."""
    passed = forward(
        network, Batch(inputs=inputs, labels=freeze(np.repeat(like.labels, len(inputs), axis=0)))
    )
    for k in range(1, network.depth):
        active = passed.pattern(k)
        if (active != active[:, :1]).any() or passed.zero(k).any():
            return False
        activation = network.activation(k)
        if activation is not None and activation.high is not None:
            values = passed.features(k + 1).fractions()[~active[:, 0]]
            if (values != values[:, :1]).any():
                return False
    return True
