"""How well any attack can do on a noisy gradient: the Cramer-Rao bound on the inputs of a batch.

The entries of the gradient G(X) of a batch with known labels and Gaussian noise of deviation sigma on each
have the Fisher information J^T J / sigma^2 about the inputs, J = dG / dX. Inputs that are right on average
have a mean square error of at least sigma^2 trace (J^T J)^-1 over all their entries. Everything that can move
is free: all entries of all samples, and with them deltas and features, as the network ties them to the
inputs. Labels are discrete, and patterns do not change over errors that small.

The trace is not formed: for noise e of deviation 1, |(J^T J)^-1 J^T e|^2 has it as its mean, and a relative
deviation of 1 / sqrt(number of inputs' entries / 2) about it. The equations are solved by conjugate
gradients, preconditioned by the part of J^T J that leaves the deltas alone, (Delta Delta^T) (x) 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

_ROUNDS = 2000

_ACCURACY = 1e-6
"""Relative residual of the conjugate gradients: errors of the bound are far below those of one draw."""


def least_error(model: nn.Sequential, x: Tensor, y: Tensor, sigma: float, seed: int = 0) -> float:
    """Root mean square over the entries of ``x`` (M, d) that no unbiased estimate from the noisy gradient of
    mean cross_entropy can have less of.

    ``model``: one hidden layer of ReLU; ``y`` (M,) classes; ``sigma``: deviation of the noise on every entry.
    """
    w1, b1, w2, b2 = (one.detach().double() for one in model.parameters())
    x, size = x.double(), len(x)
    active = (x @ w1.T + b1 > 0).double()
    h = (x @ w1.T + b1) * active
    p = (h @ w2.T + b2).softmax(dim=1)
    g = (p - nn.functional.one_hot(y, len(w2))) / size
    delta = (g @ w2) * active

    def softened(change: Tensor) -> Tensor:
        """How the divided loss vectors change with the logits; symmetric."""
        moved: Tensor = p * (change - (p * change).sum(dim=1, keepdim=True)) / size
        return moved

    def forth(moved: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """J: the changes of dW_1, db_1, dW_2 and db_2 where the inputs are ``moved``."""
        dh = (moved @ w1.T) * active
        dg = softened(dh @ w2.T)
        ddelta = (dg @ w2) * active
        return ddelta.T @ x + delta.T @ moved, ddelta.sum(dim=0), dg.T @ h + g.T @ dh, dg.sum(dim=0)

    def back(dw1: Tensor, db1: Tensor, dw2: Tensor, db2: Tensor) -> Tensor:
        """J^T."""
        dg = ((x @ dw1.T + db1) * active) @ w2.T + h @ dw2.T + db2
        dh = softened(dg) @ w2 + g @ dw2
        return delta @ dw1 + (dh * active) @ w1

    rng = np.random.default_rng(seed)
    dw1, db1, dw2, db2 = (torch.from_numpy(rng.normal(size=one.shape)) for one in (w1, b1, w2, b2))
    inverse = torch.linalg.inv(delta @ delta.T)
    moved = _conjugate_gradients(lambda v: back(*forth(v)), back(dw1, db1, dw2, db2), inverse)
    return sigma * float(moved.square().mean().sqrt())


def _conjugate_gradients(operator: Callable[[Tensor], Tensor], right: Tensor, inverse: Tensor) -> Tensor:
    """The solution of ``operator(v) = right``, preconditioned by ``inverse`` from the left."""
    found, rest = torch.zeros_like(right), right.clone()
    turned = inverse @ rest
    direction, size = turned, (rest * turned).sum()
    first = float(size)
    for _ in range(_ROUNDS):
        image = operator(direction)
        step = size / (direction * image).sum()
        found, rest = found + step * direction, rest - step * image
        turned = inverse @ rest
        following = (rest * turned).sum()
        if float(following) <= _ACCURACY**2 * first:
            break
        direction, size = turned + following / size * direction, following
    return found
