"""Gradients that are exact, rounded, scaled, noisy, altered or another network's: nothing that is confirmed
lies beyond its bound, and what is consistent satisfies its own equations.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from exan_verify.errors import ExanError
from exan_verify.models.chain import to_network
from exan_verify.numeric.attack import run
from exan_verify.numeric.problem.records import Tier
from tests.support.attack_cases import LOSSES
from tests.support.numeric_cases import drawn_batch, drawn_network
from tests.support.torch_reference import autograd

KINDS = ("exact", "signs flipped", "noise", "another network", "scaled", "float16", "float32", "negated")
METHODS = ("auto", "auto", "peel", "sample", "assign", "lift")

OWN = {"exact": 1e-6, "scaled": 1e-6, "negated": 1e-6, "another network": 1e-6, "float32": 1e-2}
"""Share of a sample's delta that may lie outside the column space of [dW_1 | db_1], which for the other kinds
is everything, and holds the deltas where [X 1] has rank M."""


def check_spoiled(seed: int) -> tuple[int, int]:
    """How many samples of a spoiled gradient are confirmed, and how many consistent, all rightly."""
    rng = np.random.default_rng([seed, 77])
    loss = LOSSES[int(rng.integers(4))]
    classes = int(rng.integers(1 if loss in ("mse", "bce") else 2, 5))
    hidden = rng.integers(*((20, 60) if rng.random() < 0.3 else (3, 9)), int(rng.integers(1, 3)))
    widths = (int(rng.integers(3, 9)), *(int(n) for n in hidden), classes)
    samples, model = int(rng.integers(1, 6)), drawn_network(widths, rng)
    kind = ("rand", "randn")[int(rng.integers(2))]
    x, y = drawn_batch(kind, samples, widths[0], classes, rng, loss)
    reduction = ("mean", "sum")[int(rng.integers(2))]
    kind = KINDS[int(rng.integers(len(KINDS)))]
    given = {name: spoiled(kind, g, rng) for name, g in autograd(model, x, y, loss, reduction).items()}
    if kind == "another network":
        model = drawn_network(widths, rng)
    size = samples if rng.random() < 0.6 else None
    try:
        found = run(
            to_network(model),
            given,
            loss=loss,
            reduction=reduction,
            batch_size=size,
            method=METHODS[int(rng.integers(len(METHODS)))],
        )
    except ExanError:
        return 0, 0
    consistent = 0
    for row, label, status in zip(found.x, found.y, found.status, strict=True):
        if status.tier is Tier.CONFIRMED:
            # the claim is about batches of the size found, which samples nearer than rounding make smaller
            assert (
                float((x - row).abs().amax(dim=1).min()) <= status.error_bound or found.batch_size < samples
            )
        elif status.tier is Tier.CONSISTENT:
            consistent += 1
            if kind in OWN and samples <= widths[0] + 1:
                own = autograd(model, row[None], label[None], loss, "sum")["0.bias"]
                assert outside(given, own) <= OWN[kind]
    return len(found.status) - consistent, consistent


def spoiled(kind: str, g: Tensor, rng: np.random.Generator) -> Tensor:
    match kind:
        case "signs flipped":
            return torch.where(torch.tensor(rng.random(g.shape) < 0.05), -g, g)
        case "noise":
            level = 10 ** rng.uniform(-10, -1) * g.square().mean().sqrt()
            return g + level * torch.tensor(rng.standard_normal(g.shape))
        case "scaled":
            return g * 37.5
        case "negated":
            return -g
        case "float16" | "float32":
            return g.to(getattr(torch, kind))
    return g


def outside(given: dict[str, Tensor], delta: Tensor) -> float:
    """The share of ``delta`` (n,) outside the column space of [dW_1 | db_1]."""
    first = torch.cat([given["0.weight"], given["0.bias"][:, None]], dim=1)
    u, values, _ = torch.linalg.svd(first.double(), full_matrices=False)
    basis = u[:, values > values[0] * 10 * torch.finfo(first.dtype).eps]
    return float((delta - basis @ (basis.T @ delta)).norm() / delta.norm())


def test_nothing_wrong_is_said_of_a_spoiled_gradient():
    confirmed, consistent = np.sum([check_spoiled(seed) for seed in range(40)], axis=0)
    # the law would hold for an attack that finds nothing
    assert confirmed >= 5
    assert consistent >= 1


@pytest.mark.campaign
def test_nothing_wrong_is_said_of_five_thousand_spoiled_gradients():
    confirmed, consistent = np.sum([check_spoiled(seed) for seed in range(5000)], axis=0)
    print(f"5000 gradients: {confirmed} samples confirmed, {consistent} consistent")
