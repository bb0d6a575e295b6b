"""What `audit` calls peelable, `peel` finds: as a sample, or as a candidate that is not hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.exclusivity import exclusivity
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from tests.conftest import examples
from tests.support.attack_cases import LOSSES
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd

SIZES = ("tiny", "tiny", "tiny", "narrow", "wide", "digits")


def check_law(seed: int, size: str) -> tuple[int, int]:
    """How many samples are peelable, and how many of these are not found."""
    rng = np.random.default_rng(seed)
    loss = LOSSES[int(rng.integers(4))]
    reduction = ("mean", "sum")[int(rng.integers(2))]
    classes = int(rng.integers(1 if loss in ("mse", "bce") else 2, 5))
    depth, samples = int(rng.integers(1, 3)), int(rng.integers(1, 7))
    widths = {
        "tiny": (int(rng.integers(3, 9)), *(int(n) for n in rng.integers(3, 9, depth)), classes),
        "narrow": (784, 16, 10),
        "wide": (int(rng.integers(20, 60)), *(int(n) for n in rng.integers(60, 200, depth)), classes),
        "digits": (784, 512, 10),
    }[size]
    model = drawn_network(widths, rng)
    x, y = drawn_batch(("rand", "randn")[int(rng.integers(2))], samples, widths[0], widths[-1], rng)
    if loss == "bce" or (loss == "mse" and widths[-1] == 1):
        y = torch.tensor(rng.integers(2, size=(samples, widths[-1]))).double()
    elif loss == "mse":
        y = nn.functional.one_hot(y, widths[-1]).double()
    network = to_network(model)
    batch = Batch.of(x.numpy(), y.numpy(), network=network, loss=Loss(loss), labels=Labels.ONE_HOT)
    peelable = exclusivity(network, batch, loss=Loss(loss)).peelable
    if not any(peelable):
        return 0, 0
    gradient = autograd(model, x, y, loss, reduction)
    found = run(network, gradient, loss=loss, reduction=reduction, batch_size=samples, method="peel")
    shown = torch.cat([found.x, *(one.x[None] for one in found.candidates)])
    near = torch.cdist(x, shown).amin(dim=1) if len(shown) else torch.full((samples,), torch.inf)
    missed = sum(p and not float(d) < 1e-6 for p, d in zip(peelable, near, strict=True))
    for row, status in zip(found.x, found.status, strict=True):
        if all(peelable):
            assert float((x - row).abs().amax(dim=1).min()) <= status.error_bound
    if missed:
        assert not found.complete
        assert found.reason
    return sum(peelable), missed


@given(st.integers(0, 2**31), st.sampled_from(SIZES))
@examples(60)
def test_what_is_peelable_is_found(seed: int, size: str):
    peelable, missed = check_law(seed, size)
    assert not missed or peelable == 0


@pytest.mark.parametrize("seed", [399, 1404])
def test_a_row_of_three_samples_that_passes_for_one_hides_none(seed: int):
    """Loss vectors of hinge add up: the row of two samples less a third has the bias entry of a sample."""
    peelable, missed = check_law(seed, "tiny")
    assert (peelable, missed) == (3, 0)
