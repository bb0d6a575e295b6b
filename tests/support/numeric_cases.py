"""Networks, batches and their gradients whose numbers come from numpy, for tests of the attack."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from exan_verify.bench.agreement import drawn_batch, drawn_network

__all__ = ["drawn_batch", "drawn_network", "two_batches"]


_MIXED = ("001011", "001101", "001110", "011001", "101001", "110001")


def two_batches(
    neurons: int, features: int, rng: np.random.Generator
) -> tuple[nn.Sequential, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A network with one logit and two batches of six samples, far apart, with one gradient (bce, sum).

    docs/theory.md, P.5: loss vectors s and s' = -s, all of one size because all logits are 1 or -1, and
    neurons that are exclusive to sample a in the first batch and active for the samples of row a of an
    invertible 0/1 matrix B in the second; then s_a x_a = sum_m B_am s'_m x'_m keeps every entry of the
    gradient. ``neurons`` at least 36, ``features`` at least 6.
    """
    mixing = np.array([[int(c) for c in row] for row in _MIXED], dtype=float)
    signs = np.array([-1.0, -1, -1, 1, 1, 1])
    inverse = np.diag(1 / signs) @ mixing @ np.diag(-signs)
    q = np.linalg.inv(inverse)
    x = rng.normal(size=(6, features))
    rows = []
    for j in range(neurons):
        a = j % 6
        # pre-activations z on X and Q z on X', of the signs e_a and B_a with room
        own, other = np.where(np.arange(6) == a, 1, -1), np.where(mixing[a] > 0, 1, -1)
        found = linprog(
            rng.uniform(0.1, 1, 6) * own,
            A_ub=-np.concatenate([np.diag(own), other[:, None] * q]),
            b_ub=-rng.uniform(0.1, 1, 12),
            bounds=[(-20, 20)] * 6,
        )
        assert found.success
        rows.append(np.linalg.pinv(np.concatenate([x, np.ones((6, 1))], axis=1)) @ found.x)
    first = np.array(rows)
    model = nn.Sequential(nn.Linear(features, neurons), nn.ReLU(), nn.Linear(neurons, 1)).double()
    hidden = [
        np.maximum(np.concatenate([points, np.ones((6, 1))], axis=1) @ first.T, 0) for points in (x, q @ x)
    ]
    logits = np.concatenate([-signs, signs])
    features_1 = np.concatenate([np.concatenate(hidden), np.ones((12, 1))], axis=1)
    second = np.linalg.lstsq(features_1, logits, rcond=None)[0]
    assert np.abs(features_1 @ second - logits).max() < 1e-10
    for layer, values in zip((model[0], model[2]), (first, second[None]), strict=True):
        assert isinstance(layer, nn.Linear)
        layer.weight.data, layer.bias.data = torch.tensor(values[:, :-1]), torch.tensor(values[:, -1])
    labels = [torch.tensor((side > 0)[:, None].astype(float)) for side in (-signs, signs)]
    return model, (torch.tensor(x), labels[0]), (torch.tensor(q @ x), labels[1])
