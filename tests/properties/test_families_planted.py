"""Law: planted ambiguity of the kinds S1 to S4 is found, and everything found is true.

Each find is replayed: exactly (or in balls), by autograd, and by the kernel from the evidence alone.
"""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.exact.backprop import forward
from tests.conftest import examples
from tests.support.cases import batch_of, two_one_five_one
from tests.support.contexts import context_of
from tests.support.family_cases import (
    found_by_engine,
    in_one_region,
    labels_for,
    random_network,
    replay,
    shown_to_kernel,
    unit_box,
)

SEEDS = st.integers(0, 10**6)


def check_found(context, *, free=None):
    finding = found_by_engine(context)
    assert finding.facts.is_ambiguous, finding.attempts[0].note
    if free is not None:
        assert free <= finding.facts.free
    assert shown_to_kernel(context, finding) == finding.facts
    if finding.witness.batch is not None:
        replay(context, finding.witness.batch)
    return finding


def hidden_widths(rng):
    return [int(v) for v in rng.integers(2, 6, rng.integers(1, 4))]


@examples(30)
@given(seed=SEEDS, reduction=st.sampled_from(list(Reduction)), boxed=st.booleans())
def test_mse_orbits(seed, reduction, boxed):
    """S1: at least two more samples than labels, in one region; d as large as the logits can see."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 4))
    network = random_network(rng, [int(rng.integers(1, 3)), *hidden_widths(rng), classes])
    counts = classes + 2 if classes > 1 else 4
    inputs = in_one_region(rng, network, counts)
    assume(inputs is not None)
    y = labels_for(Loss.MSE, classes, rng.integers(0, classes if classes > 1 else 2, counts))
    batch = batch_of(network, inputs, y)
    columns = np.concatenate([np.ones((counts, 1)), batch.labels], axis=1)
    assume(counts - np.linalg.matrix_rank(columns) >= 2)
    projected = np.eye(counts) - columns @ np.linalg.pinv(columns)
    assume(np.abs(projected @ (inputs - inputs[0]).astype(np.float64)).max() > 1e-9)
    domain = unit_box(network.widths[0]) if boxed else None
    check_found(context_of(network, batch, Loss.MSE, reduction=reduction, domain=domain))


@examples(24)
@given(seed=SEEDS, loss=st.sampled_from(list(Loss)), biases=st.booleans(), boxed=st.booleans())
def test_shears(seed, loss, biases, boxed):
    """S2: more samples of one region than their loss vectors have dimensions, and a direction unseen."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2 if loss in (Loss.CROSS_ENTROPY, Loss.HINGE) else 1, 4))
    features = classes + int(rng.integers(1, 3))
    network = random_network(rng, [features, *hidden_widths(rng), classes], biases=biases)
    count = classes + 1
    inputs = in_one_region(rng, network, count)
    assume(inputs is not None)
    y = labels_for(
        loss,
        classes,
        rng.integers(0, max(2, classes) if loss is not Loss.MSE else classes, count) % max(classes, 2),
    )
    batch = batch_of(network, inputs, y, loss)
    domain = unit_box(features) if boxed else None
    finding = check_found(context_of(network, batch, loss, domain=domain))
    assert len(finding.facts.free) >= (1 if loss is Loss.HINGE else 2)


@examples(30)
@given(seed=SEEDS, loss=st.sampled_from(list(Loss)), labels=st.sampled_from(list(Labels)))
def test_dead_samples(seed, loss, labels):
    """S3: a sample strictly inside the dead set of some hidden layer is FREE, its copy with it."""
    assume(labels is not Labels.REAL or loss is Loss.MSE)
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 4))
    network = random_network(rng, [int(rng.integers(1, 4)), *hidden_widths(rng), classes])
    layer = int(rng.integers(1, network.depth))
    weights = [entry.weight for entry in network.layers]
    biases = [entry.bias.copy() for entry in network.layers]
    x = rng.integers(-4, 5, (2, network.widths[0])).astype(np.float64)
    h = x[:1]
    for k in range(layer):
        z = h @ weights[k].T + biases[k]
        assume(k == layer - 1 or np.all(z != 0))
        h = np.maximum(z, 0)
    biases[layer - 1] -= np.maximum(z[0], 0) + 1
    network = type(network).from_arrays(weights, biases)
    copies = int(rng.integers(1, 3))
    inputs = np.concatenate([np.repeat(x[:1], copies, axis=0), x[1:]])
    y = labels_for(loss, classes, [0] * copies + [int(rng.integers(0, classes))])
    batch = batch_of(network, inputs, y, loss, labels)
    check_found(context_of(network, batch, loss, labels=labels), free=set(range(copies)))


@examples(30)
@given(seed=SEEDS, loss=st.sampled_from([Loss.MSE, Loss.HINGE]))
def test_silent_samples(seed, loss):
    """S3: a zero loss vector; the sample may move wherever its logits allow."""
    rng = np.random.default_rng(seed)
    classes = 2
    network = random_network(rng, [3, *hidden_widths(rng), classes])
    inputs = in_one_region(rng, network, 2)
    assume(inputs is not None)
    passed = forward(network, Batch(inputs=inputs, labels=np.zeros(2, dtype=np.int64)))
    biases = [entry.bias for entry in network.layers]
    goal = np.array([1, 0] if loss is Loss.MSE else [3, 0])
    shifted = np.array(
        [b + g - f for b, g, f in zip(biases[-1], goal, passed.logits[:, 0], strict=True)], dtype=object
    )
    network = type(network).from_arrays([e.weight for e in network.layers], [*biases[:-1], shifted])
    batch = batch_of(network, inputs, labels_for(loss, classes, [0, 1]), loss)
    check_found(context_of(network, batch, loss), free={0})


@examples(30)
@given(seed=SEEDS, loss=st.sampled_from([Loss.MSE, Loss.BCE]))
def test_bottlenecks_below_other_layers(seed, loss):
    """S4, not S2: the samples have different patterns above a first layer of one neuron (2-1-n-1). The shear
    of mse exists for bce as well, with real coefficients.
    """
    network, batch, second = two_one_five_one(seed)
    assume(second != batch and not np.array_equal(batch.inputs[0], batch.inputs[1]))
    passed, moved = (forward(network, b) for b in (batch, second))
    assume(not any(z.any() for z in passed.zeros) and passed.patterns[0].all())
    assume(all(np.array_equal(a, b) for a, b in zip(passed.patterns, moved.patterns, strict=True)))
    same = batch_of(network, batch.inputs, batch.labels, loss)
    check_found(context_of(network, same, loss))


@examples(20)
@given(seed=SEEDS, biases=st.booleans())
def test_real_labels(seed, biases):
    """S5: two samples of one region are never determined when targets are real."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, [int(rng.integers(1, 4)), *hidden_widths(rng), 2], biases=biases)
    inputs = in_one_region(rng, network, 2)
    assume(inputs is not None)
    y = rng.integers(-5, 6, (2, 2)).astype(np.float64)
    batch = batch_of(network, inputs, y, labels=Labels.REAL)
    check_found(context_of(network, batch, Loss.MSE, labels=Labels.REAL), free={0, 1})
