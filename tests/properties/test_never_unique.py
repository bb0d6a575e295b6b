"""Law: planted second batches, and batches that lifting alone cannot settle, are never called UNIQUE."""

from functools import partial

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from exan_verify.api import certify as door
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.exact.backprop import forward, gradient
from exan_verify.testing.strategies import LOSSES, batches, networks
from tests.conftest import examples
from tests.support.cases import batch_of, two_one_five_one

certify = partial(door.certify, engine="exact")


def extended(batch, x, y, network, loss, labels=Labels.ONE_HOT):
    return batch_of(
        network, np.concatenate([batch.inputs, x]), np.concatenate([batch.labels, y]), loss, labels
    )


@examples(120)
@given(data=st.data(), loss=LOSSES, generic=st.booleans())
def test_two_copies_of_a_sample(data, loss, generic):
    network = data.draw(networks(max_width=14, generic=generic))
    batch = data.draw(batches(network, loss, max_samples=3, generic=generic))
    doubled = extended(batch, batch.inputs[:1], batch.labels[:1], network, loss)
    verdict = certify(network, batch=doubled, loss=loss.value, engine="lifting")
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.samples[0] is verdict.samples[-1] is SampleStatus.UNKNOWN


@examples(120)
@given(data=st.data(), loss=LOSSES, generic=st.booleans())
def test_samples_of_one_region(data, loss, generic):
    network = data.draw(networks(max_width=14, generic=generic))
    batch = data.draw(batches(network, loss, max_samples=3, generic=generic))
    direction = np.random.default_rng(data.draw(st.integers(0, 999))).normal(size=(1, network.widths[0]))
    near = batch.inputs[:1] + direction * 2.0**-30
    label = data.draw(st.integers(0, batch.size - 1))
    close = extended(batch, near, batch.labels[label : label + 1], network, loss)
    patterns = forward(network, close).patterns
    assume(all(np.array_equal(p[:, 0], p[:, -1]) for p in patterns))
    verdict = certify(network, batch=close, loss=loss.value, engine="lifting")
    assert verdict.outcome is not Outcome.UNIQUE
    assert verdict.samples[0] is verdict.samples[-1] is SampleStatus.UNKNOWN


@examples(60)
@given(seed=st.integers(0, 10**6))
def test_a_bottleneck_below_the_layer_that_lifting_passes(seed):
    """C1's warning, 2-1-5-1: the second batch is exact, and no sample that moves is called determined."""
    network, batch, second = two_one_five_one(seed)
    assume(second != batch)
    same = gradient(network, batch, Loss.MSE, Reduction.MEAN) == gradient(
        network, second, Loss.MSE, Reduction.MEAN
    )
    assert same
    verdict = certify(network, batch=batch, loss="mse")
    assert verdict.outcome is not Outcome.UNIQUE
    for m in range(2):
        if batch.x[m] not in second.x:
            assert verdict.samples[m] is not SampleStatus.DETERMINED


@examples(60)
@given(data=st.data())
def test_planted_shears_with_real_labels(data):
    """Two samples of one region: sum alpha_m g^m = 0 is arranged through real labels (S2), exactly."""
    network = data.draw(networks(max_depth=2, max_width=10, max_classes=2))
    d = network.widths[0]
    assume(d >= 2)
    batch = data.draw(batches(network, Loss.MSE, max_samples=2, labels=Labels.REAL))
    x = batch.inputs[0]
    passed = forward(network, Batch(inputs=x.reshape(1, -1), labels=batch.labels[:1]))
    active = passed.patterns[0][:, 0]
    weight = network.layers[0].weight[active]
    _, values, right = np.linalg.svd(weight) if active.any() else (None, np.zeros(0), np.eye(d))
    null = [v for k, v in enumerate(right) if k >= len(values) or values[k] < 1e-9]
    assume(not active.any() or len(null) > 0)
    step = np.round(np.array(null[0]) * 8) / 8 if len(null) else np.zeros(d)
    assume(np.any(step) and not np.any(weight @ step))
    other = x + step * 2.0**-6
    logits = passed.logits[:, 0]
    g = 1.0
    labels = np.array([[float(f) - g for f in logits], [float(f) + g for f in logits]])
    first = batch_of(network, [x, other], labels, labels=Labels.REAL)
    second = batch_of(network, [x + step * 2.0**-7, other + step * 2.0**-7], labels, labels=Labels.REAL)
    patterns = [forward(network, b).patterns[0] for b in (first, second)]
    assume(all(np.array_equal(p[:, k], active) for p in patterns for k in range(2)))
    assert gradient(network, first, Loss.MSE, Reduction.SUM) == gradient(
        network, second, Loss.MSE, Reduction.SUM
    )
    verdict = certify(network, batch=first, loss="mse", labels="real")
    assert verdict.outcome is not Outcome.UNIQUE
    assert verdict.determined == 0
