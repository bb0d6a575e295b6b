"""Law: permuting samples or neurons, and scaling a neuron by a power of two, changes no verdict."""

from functools import partial

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from exan_verify.api import certify as door
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels
from exan_verify.core.verdict import Outcome
from exan_verify.testing.strategies import LOSSES, batches, networks
from tests.conftest import examples

certify = partial(door.certify, engine="lifting")


@st.composite
def questions(draw):
    generic = draw(st.booleans())
    loss = draw(LOSSES)
    network = draw(networks(max_depth=3, max_width=12, generic=generic))
    batch = draw(batches(network, loss, max_samples=3, generic=generic))
    return network, batch, loss


def rebuild(layers):
    return ReluNetwork.from_arrays([w for w, _ in layers], [b for _, b in layers])


def arrays(network):
    return [[layer.weight.copy(), layer.bias.copy()] for layer in network.layers]


def summary(network, batch, loss):
    verdict = certify(network, batch=batch, loss=loss.value)
    return verdict.outcome, verdict.samples


@examples(100)
@given(question=questions(), data=st.data())
def test_permuting_samples(question, data):
    network, batch, loss = question
    order = data.draw(st.permutations(range(batch.size)))
    outcome, samples = summary(network, batch, loss)
    again, permuted = summary(network, batch.select(order), loss)
    assert again is outcome
    assert permuted == tuple(samples[m] for m in order)


@examples(100)
@given(question=questions(), data=st.data())
def test_permuting_neurons(question, data):
    network, batch, loss = question
    layers = arrays(network)
    k = data.draw(st.integers(0, len(layers) - 2))
    order = list(data.draw(st.permutations(range(layers[k][0].shape[0]))))
    layers[k] = [layers[k][0][order], layers[k][1][order]]
    layers[k + 1][0] = layers[k + 1][0][:, order]
    assert summary(rebuild(layers), batch, loss) == summary(network, batch, loss)


@examples(100)
@given(question=questions(), data=st.data(), power=st.integers(-6, 6))
def test_scaling_a_neuron(question, data, power):
    network, batch, loss = question
    layers = arrays(network)
    k = data.draw(st.integers(0, len(layers) - 2))
    j = data.draw(st.integers(0, layers[k][0].shape[0] - 1))
    layers[k][0][j] *= 2.0**power
    layers[k][1][j] *= 2.0**power
    layers[k + 1][0][:, j] *= 2.0**-power
    assert summary(rebuild(layers), batch, loss) == summary(network, batch, loss)


@examples(60)
@given(question=questions(), data=st.data())
def test_dead_neurons_change_nothing(question, data):
    network, batch, loss = question
    layers = arrays(network)
    d = network.widths[0]
    # inputs are below 2^20 in size, so this neuron never fires for the batch
    layers[0] = [np.vstack([layers[0][0], np.zeros((1, d))]), np.append(layers[0][1], -1.0)]
    extra = data.draw(st.integers(-4, 4))
    layers[1][0] = np.hstack([layers[1][0], np.full((layers[1][0].shape[0], 1), float(extra))])
    assert summary(rebuild(layers), batch, loss) == summary(network, batch, loss)


@examples(25)
@given(question=questions(), data=st.data(), power=st.integers(-3, 3))
def test_all_engines_together_never_turn_a_verdict_round(question, data, power):
    """Searches have limits, so another order may end in UNKNOWN; UNIQUE never becomes AMBIGUOUS."""
    network, batch, loss = question
    order = data.draw(st.permutations(range(batch.size)))
    layers = arrays(network)
    layers[0][0][0] *= 2.0**power
    layers[0][1][0] *= 2.0**power
    layers[1][0][:, 0] *= 2.0**-power
    one = door.certify(network, batch=batch, loss=loss.value, engine="exact").outcome
    two = door.certify(rebuild(layers), batch=batch.select(order), loss=loss.value, engine="exact").outcome
    assert {one, two} != {Outcome.UNIQUE, Outcome.AMBIGUOUS}


@examples(60)
@given(question=questions())
def test_storing_the_same_numbers_otherwise_changes_nothing(question):
    network, batch, loss = question
    assume(np.array_equal(batch.inputs, batch.inputs.astype(np.float32)))
    narrow = Batch.of(
        batch.inputs.astype(np.float32), batch.labels, network=network, loss=loss, labels=Labels.ONE_HOT
    )
    assert summary(network, narrow, loss) == summary(network, batch, loss)
