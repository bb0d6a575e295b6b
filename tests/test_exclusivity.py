import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.exact.backprop import forward, gradient
from exan_verify.exclusivity import exan_counts, exclusivity, pattern_groups
from exan_verify.testing.strategies import batches, networks
from tests.conftest import examples


def test_counts_by_hand():
    pattern = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    assert exan_counts(pattern) == (1, 0, 2)
    assert pattern_groups(np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)) == ((0, 2), (1,))


def one_layer(weights, x, y, loss=Loss.MSE):
    """A network with the given first layer (identity-like) whose single output sums the neurons."""
    n = len(weights)
    network = ReluNetwork.from_arrays([weights, [[1] * n]], [[0] * n, [0]])
    return network, Batch.of(x, y, network=network, loss=loss, labels=Labels.ONE_HOT)


def test_peeling_goes_on_after_the_first_sample():
    """Sample 1 has no ExAN until sample 0 is peeled."""
    network, batch = one_layer([[1, 0], [1, 1]], [[1, 1], [-1, 3]], [0, 0])
    state = exclusivity(network, batch, loss=Loss.MSE)
    assert state.counts == ((1, 0),)
    assert state.peelable == (True, True)
    assert state.stopping_set == ()
    assert not state.published


def test_a_vanishing_delta_stops_peeling():
    """f = y for sample 0: its ExAN carries nothing."""
    network, batch = one_layer([[1, 0], [0, 1]], [[1, 0], [0, 5]], [1, 0])
    state = exclusivity(network, batch, loss=Loss.MSE)
    assert state.counts == ((1, 1),)
    assert state.peelable == (False, True)
    assert state.stopping_set == (0,)


def test_published_condition_needs_two_in_the_last_layer_and_one_elsewhere():
    weights = [[1, 0], [2, 0], [0, 1], [0, 2]]
    network, batch = one_layer(weights, [[1, 0], [0, 5]], [0, 0])
    assert exclusivity(network, batch, loss=Loss.MSE).published
    network, batch = one_layer(weights[1:], [[1, 0], [0, 5]], [0, 0])
    assert exclusivity(network, batch, loss=Loss.MSE).published_by_sample == (False, True)


def test_without_biases_nothing_is_peelable():
    network = ReluNetwork.from_arrays([[[1, 0], [0, 1]], [[1, 1]]])
    batch = Batch.of([[1, 0], [0, 1]], [0, 0], network=network, loss=Loss.MSE, labels=Labels.ONE_HOT)
    state = exclusivity(network, batch, loss=Loss.MSE)
    assert state.counts == ((1, 1),)
    assert state.peelable == (False, False)


@examples(80)
@given(data=st.data(), loss=st.sampled_from(list(Loss)))
def test_the_closure_is_the_greatest_stopping_set(data, loss):
    network = data.draw(networks(max_depth=3))
    batch = data.draw(batches(network, loss))
    state = exclusivity(network, batch, loss=loss)
    left = set(state.stopping_set)
    assert left == {m for m, ok in enumerate(state.peelable) if not ok}
    active = forward(network, batch).patterns[0]
    if loss is Loss.MSE:
        # every sample outside can be removed one by one by an ExAN with a non-zero delta, and none inside
        single = [gradient(network, batch.select([m]), loss, Reduction.SUM) for m in range(batch.size)]
        name = next(n for n, _ in network.parameters() if n.endswith("bias"))
        nonzero = np.array([[v != 0 for v in g.tensors[name]] for g in single]).T
        members = sorted(left)
        alone = active[:, members].sum(axis=1) == 1
        assert not any(np.any(alone & nonzero[:, m] & active[:, m]) for m in members)


@examples(60)
@given(data=st.data())
def test_groups_partition_the_batch(data):
    network = data.draw(networks())
    batch = data.draw(batches(network, Loss.MSE))
    for layer in exclusivity(network, batch, loss=Loss.MSE).groups:
        assert sorted(m for group in layer for m in group) == list(range(batch.size))
