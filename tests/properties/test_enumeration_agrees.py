"""Law: enumeration, lifting and a naive search over Q never contradict each other, and planted ambiguity is
never called UNIQUE.
"""

from functools import partial
from itertools import pairwise, product

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st

from exan_verify.api.certify import certify
from exan_verify.api.check import check
from exan_verify.core.budget import Budget
from exan_verify.core.network import ReluNetwork, to_fraction
from exan_verify.core.question import Loss, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.decide import enumeration
from exan_verify.decide.enumeration import engine, search
from exan_verify.decide.enumeration.rays import rays
from exan_verify.decide.lifting import degree_three
from exan_verify.decide.lifting import degree_two as lifting
from exan_verify.decide.lifting.system import plan
from exan_verify.exact.backprop import backward, forward
from exan_verify.exact.linalg import multiply, nullspace
from exan_verify.exact.softmax import loss_vectors
from exan_verify.testing.strategies import LOSSES, batches, networks
from tests.conftest import examples
from tests.support import contexts
from tests.support.cases import batch_of

context_of = partial(contexts.context_of, reduction=Reduction.SUM, engine="enumeration")


@examples(120)
@given(data=st.data(), loss=LOSSES, generic=st.booleans())
def test_what_lifting_determines_enumeration_never_denies(data, loss, generic):
    """Generic and wide enough: whatever one of them settles in full, the kernel accepts, and all agree."""
    network = data.draw(networks(max_width=9, max_classes=3, generic=generic))
    batch = data.draw(batches(network, loss, max_samples=3, generic=generic))
    context = context_of(network, batch, loss)
    lifted = lifting.decide(context, Budget()).facts | degree_three.decide(context, Budget()).facts
    found = enumeration.decide(context, Budget(work=10**7))
    if batch.distinct and lifted.determined == frozenset(range(batch.size)) and batch.size > 1:
        assert found.facts.determined <= lifted.determined
    verdict = certify(network, batch=batch, loss=loss.value, reduction="sum", engine="enumeration")
    assert frozenset(m for m, s in enumerate(verdict.samples) if s is SampleStatus.DETERMINED) == (
        found.facts.determined
    )
    if verdict.certificate is not None:
        assert check(verdict.certificate, network, batch=batch).samples == verdict.samples


@examples(60)
@given(seed=st.integers(0, 10**6), loss=LOSSES, samples=st.integers(2, 4))
def test_generic_batches_that_lifting_settles_are_settled_by_enumeration(seed, loss, samples):
    rng = np.random.default_rng(seed)
    network = generic_network(rng, [6, 30, 3])
    batch = random_batch(rng, network, samples, loss)
    context = context_of(network, batch, loss)
    if lifting.decide(context, Budget()).facts.determined == frozenset(range(samples)):
        assert enumeration.decide(context, Budget()).facts.determined == frozenset(range(samples))


@examples(80)
@example(seed=267, neurons=6, classes=2, samples=3, size=2)
@example(seed=479, neurons=6, classes=2, samples=3, size=2)
@example(seed=619, neurons=6, classes=2, samples=3, size=2)
@given(
    seed=st.integers(0, 10**6),
    neurons=st.integers(3, 7),
    classes=st.integers(1, 2),
    samples=st.integers(2, 3),
    size=st.sampled_from([2, 9]),
)
def test_a_naive_search_over_q_finds_the_same(seed, neurons, classes, samples, size):
    """Every state of every neuron, the exact solution space of its equations: all of them lie in the span of
    the true samples (q_m, u_m) of one group when enumeration leaves nothing open. When they do, enumeration
    settles the layer, unless exactly zero deltas make a leaf of samples that do not share the pattern.

    The search mod p may leave a line open that lies in the span of a group: it knows of a subspace only which
    true samples satisfy its equations, and a combination of them can satisfy equations that none of them
    does. Being inside mod p would prove nothing. The search over Q that follows sees that it is inside.
    """
    rng = np.random.default_rng(seed)
    network = ReluNetwork.from_arrays(
        [rng.integers(-size, size + 1, (neurons, 3)), rng.integers(-size, size + 1, (classes, neurons))],
        [rng.integers(-size, size + 1, neurons), rng.integers(-size, size + 1, classes)],
    )
    x = rng.integers(-size, size + 1, (samples, 3))
    y = rng.integers(0, 2, (samples, 1)) if classes == 1 else np.eye(2)[rng.integers(0, 2, samples)]
    batch = batch_of(network, x, y)
    context = context_of(network, batch, Loss.MSE)
    assume(lifting.hypotheses(context, 1) is None)
    quadratic = plan(context, 1, tuple(range(samples)))
    found = engine.layer_equations(context, quadratic)
    equations = found.equations
    tally = search.search(equations, 0, equations.whole(), search.Limits())
    groups = quadratic.groups if tally.open_leaves else search.components(tally.leaves)
    stray = [space for space in solution_spaces(context) if not _true_samples_of_one(context, space, groups)]
    assert tally.open_leaves or not stray
    if tally.open_leaves and not stray and set(search.components(tally.leaves)) <= set(quadratic.groups):
        followed = rays(context, quadratic, found.neurons, equations, Budget())
        assert followed.complete
        assert not followed.second


def _true_samples_of_one(context, space, groups):
    """Whether q meets one group only, and u is sum q_m u_m, as far as the neurons see it."""
    q, u = space[: context.samples], space[context.samples :]
    touched = [group for group in groups if any(np.any(q[m] != 0) for m in group)]
    weight = [[to_fraction(v) for v in row] for row in context.network.layers[1].weight.T]
    beside = multiply(np.array(weight, dtype=object), u - multiply(_vectors(context), q))
    seen = np.array([np.any(row != 0) for row in _deltas(context)])
    return len(touched) == 1 and not np.any(beside[seen] != 0)


def _vectors(context):
    """The loss vectors (K, M): the next deltas u_m of the true samples."""
    return loss_vectors(Loss.MSE, context.passed.logits, context.batch.labels, context.divisor)


def _deltas(context):
    """Delta_1 (n, M) over Q."""
    return backward(context.network, context.passed, _vectors(context))[0].fractions()


def solution_spaces(context):
    """Bases (columns) of all (q, u) that satisfy one equation per neuron, over Q, at the one hidden layer."""
    network, samples = context.network, context.samples
    delta = _deltas(context)
    weight = network.layers[1].weight
    rows = []
    for j in np.flatnonzero((delta != 0).any(axis=1)):
        tail = [-to_fraction(v) for v in weight[:, j]]
        rows.append(([*delta[j], *[0 * v for v in tail]], [*delta[j], *tail]))
    for states in product((0, 1), repeat=len(rows)):
        matrix = np.array([row[state] for row, state in zip(rows, states, strict=True)], dtype=object)
        space = nullspace(matrix)
        if space.shape[1] and np.any(space[:samples] != 0):
            yield space


@examples(80)
@given(data=st.data(), loss=LOSSES, generic=st.booleans())
def test_planted_duplicates_and_shared_regions_are_never_unique(data, loss, generic):
    network = data.draw(networks(max_width=8, max_classes=3, generic=generic))
    batch = data.draw(batches(network, loss, max_samples=2, generic=generic))
    step = data.draw(st.sampled_from([0.0, 2.0**-30]))
    direction = np.random.default_rng(data.draw(st.integers(0, 999))).normal(size=(1, network.widths[0]))
    label = data.draw(st.integers(0, batch.size - 1))
    close = batch_of(
        network,
        np.concatenate([batch.inputs, batch.inputs[:1] + step * direction]),
        np.concatenate([batch.labels, batch.labels[label : label + 1]]),
        loss,
    )
    assume(all(np.array_equal(p[:, 0], p[:, -1]) for p in forward(network, close).patterns))
    verdict = certify(network, batch=close, loss=loss.value, engine="enumeration")
    assert verdict.outcome is not Outcome.UNIQUE
    assert verdict.samples[0] is verdict.samples[-1] is SampleStatus.UNKNOWN


def generic_network(rng, widths):
    pairs = list(pairwise(widths))
    return ReluNetwork.from_arrays(
        [rng.normal(size=(b, a)) for a, b in pairs], [rng.normal(size=b) for _, b in pairs]
    )


def random_batch(rng, network, samples, loss):
    labels = rng.integers(0, network.classes, samples)
    y = np.eye(network.classes)[labels] if loss in (Loss.MSE, Loss.BCE) else labels
    x = rng.normal(size=(samples, network.widths[0]))
    return batch_of(network, x, y, loss)
