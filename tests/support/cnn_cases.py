"""Pictures, and how far found ones are from the truth, for tests of convolutional models."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.support.torch_reference import uniform


def pictures(shape: tuple[int, ...], samples: int, seed: int = 0) -> Tensor:
    """Smooth random pictures in [0, 1], float64."""
    raw = uniform(samples, *shape, seed=seed)
    return (raw + raw.roll(1, -1) + raw.roll(1, -2)) / 3


def largest_error(found: Tensor, truth: Tensor) -> Tensor:
    """For every found row the L-infinity distance to the nearest true one."""
    distances = torch.cdist(found.flatten(1), truth.flatten(1), p=float("inf"))
    return distances.min(dim=1).values
