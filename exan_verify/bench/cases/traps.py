"""Networks whose first layer was set to trap samples, as an active server would.

Weights are at PyTorch's default initialisation; the bias of neuron j is minus a quantile of w_j . x over
public images, so that of B samples about deg_j are active there. The degrees are drawn from a robust soliton
distribution (Luby, LT codes, 2002), for which peeling one sample after the other ends with all of them:
rho(1) = 1 / B, rho(k) = 1 / (k (k - 1)), plus tau(k) = R / (k B) for k < B / R and R ln(R / delta) / B at
k = B / R, with R = c ln(B / delta) sqrt(B). Our reading of Shariati and Meybodi (arXiv 2609.09659), whose
c and delta are not known.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from exan_verify.data import initialised_network, load_mnist, to_inputs

WIDTHS = (784, 1000, 10)


def robust_soliton(samples: int, *, c: float = 0.1, delta: float = 0.5) -> NDArray[np.float64]:
    """The probabilities (B,) of the degrees 1 to B for B = ``samples``."""
    degree = np.arange(1, samples + 1)
    ideal = np.where(degree == 1, 1 / samples, 1 / np.maximum(degree * (degree - 1), 1))
    ripple = c * math.log(samples / delta) * math.sqrt(samples)
    spike = min(samples, max(1, round(samples / ripple)))
    extra = np.where(degree < spike, ripple / (degree * samples), 0.0)
    extra[spike - 1] += ripple * math.log(ripple / delta) / samples
    weights = ideal + extra.clip(min=0)
    total: NDArray[np.float64] = weights / weights.sum()
    return total


def trap_network(samples: int, seed: int) -> tuple[nn.Sequential, Float[Tensor, "B d"], Tensor]:
    """A float32 network of :data:`WIDTHS` with traps for ``samples`` digits, the digits, none of which the
    traps were set with, and their classes (B,)."""
    images, classes = load_mnist()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    mine, public = order[:samples], order[samples:]
    model = initialised_network(WIDTHS, seed=seed)
    degrees = rng.choice(np.arange(1, samples + 1), size=WIDTHS[1], p=robust_soliton(samples))
    with torch.no_grad():
        first = model[0]
        assert isinstance(first, nn.Linear)
        seen = torch.tensor(to_inputs(images[public])).double() @ first.weight.double().T
        falling = seen.sort(dim=0, descending=True).values
        place = torch.tensor(degrees * len(public) // samples).clamp(min=1, max=len(public) - 1)[None]
        first.bias.copy_(-(falling.gather(0, place - 1) + falling.gather(0, place))[0].float() / 2)
    return model, torch.tensor(to_inputs(images[mine])), torch.tensor(classes[mine])
