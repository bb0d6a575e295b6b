"""What `certify` determines in float64, the attack returns or says why not; nothing confirmed is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exan_verify import certify
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import RangeError
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.records import Tier
from tests.support.attack_cases import LOSSES
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd


def wholly_determined(seed: int, work: int) -> bool | None:
    """Whether a small network's batch is attacked completely; None where it is not proved determined."""
    rng = np.random.default_rng([seed, 5])
    depth = int(rng.integers(1, 3))
    loss = LOSSES[int(rng.integers(4))]
    classes = int(rng.integers(1 if loss in ("bce", "mse") else 2, 5))
    widths = (int(rng.integers(3, 9)), *(int(n) for n in rng.integers(3, 9, depth)), classes)
    samples = int(rng.integers(1, 7))
    model = drawn_network(widths, rng)
    kind = ("rand", "randn")[int(rng.integers(2))]
    x, y = drawn_batch(kind, samples, widths[0], classes, rng, loss)
    reduction = ("mean", "sum")[int(rng.integers(2))]
    network = to_network(model)
    verdict = certify(
        network,
        batch=(x.numpy(), y.numpy()),
        loss=loss,
        reduction=reduction,
        engine="exact",
        work_limit=work,
    )
    if not all(status is SampleStatus.DETERMINED for status in verdict.samples):
        return None
    gradient = autograd(model, x, y, loss, reduction)
    try:
        found = run(network, gradient, loss=loss, reduction=reduction, batch_size=samples)
    except RangeError:
        return False
    for row, status in zip(found.x, found.status, strict=True):
        if status.tier is Tier.CONFIRMED:
            assert float((x - row).abs().amax(dim=1).min()) <= status.error_bound
    assert found.complete or found.reason
    near = torch.cdist(x, found.x).amin(dim=1) if len(found.x) else torch.full((samples,), torch.inf)
    return bool((near < 1e-5).all())


def test_batches_that_are_determined_are_attacked():
    outcomes = [wholly_determined(seed, work=100_000) for seed in range(15)]
    judged = [one for one in outcomes if one is not None]
    assert len(judged) >= 3
    assert all(judged)


@pytest.mark.campaign
def test_batches_that_are_determined_are_attacked_campaign():
    outcomes = [wholly_determined(seed, work=3_000_000) for seed in range(500)]
    judged = [one for one in outcomes if one is not None]
    assert sum(not one for one in judged) <= 0.02 * len(judged)
