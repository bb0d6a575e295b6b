"""Batches with a planted second batch of every kind S1 to S4, and the replay of what the engine finds."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.facts import Facts
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Labels, Loss
from exan_verify.decide import families
from exan_verify.decide.context import Context, Finding
from exan_verify.exact.backprop import forward, gradient, gradient_ball
from exan_verify.kernel.checker import CHECKERS
from tests.support import torch_reference
from tests.support.cases import as_floats
from tests.support.contexts import subject_of


def found_by_engine(context: Context) -> Finding:
    return families.decide(context, Budget())


def shown_to_kernel(context: Context, finding: Finding) -> Facts:
    facts = Facts()
    for part in finding.evidence:
        facts |= CHECKERS[type(part)](part, subject_of(context))
    return facts


def replay(context: Context, other: Batch) -> None:
    """The other batch has the exact gradient of the given one (rational losses), the same balls (others), the
    same autograd gradient; its labels and inputs are admitted; it is another batch.
    """
    network, loss, reduction = context.network, context.question.loss, context.question.reduction
    again = Batch.of(other.inputs, other.labels, network=network, loss=loss, labels=context.question.labels)
    samples = [sorted(zip(b.x, map(str, b.y), strict=True)) for b in (context.batch, again)]
    assert samples[0] != samples[1]
    if context.question.labels is Labels.KNOWN:
        assert sorted(map(str, again.y)) == sorted(map(str, context.batch.y))
    if context.question.domain is not None:
        assert context.question.domain.contains(again)
    if loss.rational:
        assert gradient(network, context.batch, loss, reduction) == gradient(network, again, loss, reduction)
    else:
        first, second = (gradient_ball(network, b, loss, reduction) for b in (context.batch, again))
        for name in first:
            assert all(
                a.overlaps(b) for a, b in zip(first[name].entries(), second[name].entries(), strict=True)
            )
    rounded = [as_floats(b) for b in (context.batch, again)]
    before, after = (torch_reference.gradient(network, b, loss, reduction) for b in rounded)
    if _clear_of_kinks(network, again) and _clear_of_kinks(network, context.batch):
        for name, value in before.items():
            np.testing.assert_allclose(value, after[name], rtol=1e-6, atol=1e-7 * (1 + np.abs(value).max()))


def _clear_of_kinks(network: ReluNetwork, batch: Batch) -> bool:
    """Rounding to float64 cannot change a pattern."""
    x = batch.inputs.astype(np.float64)
    for layer in network.layers[:-1]:
        z = x @ layer.weight.astype(np.float64).T
        z = z if layer.bias is None else z + layer.bias.astype(np.float64)
        if z.size and np.abs(z).min() < 1e-9 * (1 + np.abs(z).max()):
            return False
        x = np.maximum(z, 0)
    return True


def integers(rng: np.random.Generator, *shape: int, top: int = 4) -> np.ndarray:
    return rng.integers(-top, top + 1, shape).astype(np.float64)


def random_network(rng, widths, *, biases=True) -> ReluNetwork:
    weights = [integers(rng, b, a) for a, b in pairwise(widths)]
    return ReluNetwork.from_arrays(weights, [integers(rng, b) for b in widths[1:]] if biases else None)


def in_one_region(rng, network, count, *, spread=Fraction(1, 2**12)):
    """``count`` distinct points of one region, no pre-activation zero; None when the draw fails."""
    d = network.widths[0]
    x = [Fraction(int(v), 8) for v in rng.integers(-16, 17, d)]
    points = [
        [v + spread * int(s) for v, s in zip(x, rng.integers(-9, 10, d), strict=True)] for _ in range(count)
    ]
    inputs = np.array(points, dtype=object)
    passed = forward(network, Batch(inputs=inputs, labels=np.zeros(count, dtype=np.int64)))
    together = all((p == p[:, :1]).all() for p in passed.patterns)
    clear = not any(z.any() for z in passed.zeros)
    return inputs if together and clear and len(set(map(tuple, points))) == count else None


def labels_for(loss, classes, chosen):
    """Labels of the loss's kind from class numbers."""
    if loss in (Loss.CROSS_ENTROPY, Loss.HINGE):
        return np.array(chosen)
    if classes == 1:
        return np.array(chosen, dtype=np.float64).reshape(-1, 1) % 2
    return np.eye(classes)[list(chosen)]


def unit_box(features: int) -> Box:
    return Box([-100] * features, [100] * features)
