"""Estimates of pictures from their known features and deltas, where the stages leave them open.

Per sample the features are known, so samples do not mix: minimise, over pictures in the box [0, 1],

    mean_m |phi(x_m) - h_m|^2 / |h_m|^2  +  gradients * mean_l |dW_l(X) - dW_l|^2 / |dW_l|^2  +  tv * TV(X)

with phi the body and dW_l(X) the convolutions' gradients at the known deltas of the features: these need no
head, no labels and no softmax. Projected Adam, first on the features alone (one backward pass a step), then
on both (two). Nothing is proved about what comes out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exan_verify.models.pictures.stages import Convolution, ConvolutionalNetwork
from exan_verify.numeric.convolution.gradients import ConvolutionGradient
from exan_verify.numeric.convolution.known import Known

_STEP = 0.05
"""Adam's first step, in units of the box; it falls to zero along half a cosine."""

_FIRST_SHARE = 0.4
"""Of the iterations, on the features alone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inversion:
    """``pictures`` (m, C, H, W) in the box, relative feature misfits (m,), iterations and seconds."""

    pictures: Tensor
    misfit: Tensor
    iterations: int
    seconds: float


def invert_features(
    network: ConvolutionalNetwork,
    known: Known,
    body: Mapping[int, ConvolutionGradient],
    *,
    iterations: int,
    seed: int = 0,
    seconds: float | None = None,
    tv: float = 0.1,
    gradients: float = 0.1,
    box: tuple[float, float] = (0.0, 1.0),
    dtype: torch.dtype = torch.float32,
    progress: Callable[[float], None] | None = None,
) -> Inversion:
    """Fit pictures to the features (and deltas) in ``known``.

    ``body``: the convolutions' gradients of the whole batch, or empty where some samples are missing.
    ``seconds``: stop after that much time, with the step's decay stretched over it.
    """
    start = time.perf_counter()
    like = known.value.to(dtype)
    fitted = _Fit(network, known, body if gradients else {}, like)
    generator = torch.Generator().manual_seed(seed)
    low, high = box
    shape = (len(like), *network.input_shape)
    x = low + (high - low) * (0.5 + 0.1 * torch.randn(shape, generator=generator).to(like))
    x = x.requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=_STEP * (high - low))
    done = 0
    with torch.enable_grad():
        while done < iterations and (share := _share(done, iterations, start, seconds)) < 1:
            optimiser.param_groups[0]["lr"] = _STEP * (high - low) * 0.5 * (1 + math.cos(math.pi * share))
            total = fitted.features(x) + tv * total_variation(x) / (high - low)
            if share > _FIRST_SHARE and fitted.targets:
                total = total + gradients * fitted.gradients(x)
            (x.grad,) = torch.autograd.grad(total, x)
            optimiser.step()
            with torch.no_grad():
                x.clamp_(low, high)
            done += 1
            if progress is not None:
                progress(share)
    pictures = x.detach().to(known.value)
    misfit = (network.features(pictures) - known.value.flatten(1)).norm(dim=1) / known.value.flatten(1).norm(
        dim=1
    )
    return Inversion(pictures=pictures, misfit=misfit, iterations=done, seconds=time.perf_counter() - start)


def _share(done: int, iterations: int, start: float, seconds: float | None) -> float:
    if seconds is None:
        return done / iterations
    return max(done / iterations, (time.perf_counter() - start) / seconds)


class _Fit:
    """The two misfits, with weights that autograd may differentiate by."""

    def __init__(
        self,
        network: ConvolutionalNetwork,
        known: Known,
        body: Mapping[int, ConvolutionGradient],
        like: Tensor,
    ) -> None:
        self.weights: dict[int, Tensor] = {}
        self.targets: dict[int, Tensor] = {}
        stages = list(network.body)
        for k, stage in network.convolutions.items():
            weight = stage.weight.to(like)
            if k in body and bool(body[k].weight.any()):
                weight.requires_grad_(True)
                self.weights[k] = weight
                self.targets[k] = body[k].weight.to(like)
            assert isinstance(stage, Convolution)
            stages[k] = replace(stage, weight=weight)
        self.network = replace(network, body=tuple(stages))
        self.known = known.value.flatten(1).to(like)
        self.norms = self.known.square().sum(dim=1).clamp(min=1e-12)
        self.delta = known.delta.flatten(1).to(like)

    def features(self, x: Tensor) -> Tensor:
        """Mean relative squared distance of the features of pictures ``x`` (M, C, H, W)."""
        found: Tensor = ((self.network.features(x) - self.known).square().sum(dim=1) / self.norms).mean()
        return found

    def gradients(self, x: Tensor) -> Tensor:
        """The same of the convolutions' gradients, for ``x`` (M, C, H, W) at the known deltas."""
        total = (self.network.features(x) * self.delta).sum()
        found = torch.autograd.grad(total, list(self.weights.values()), create_graph=True)
        misfits = [
            (g - target).square().sum() / target.square().sum()
            for g, target in zip(found, self.targets.values(), strict=True)
        ]
        return torch.stack(misfits).mean()


def total_variation(x: Tensor) -> Tensor:
    """Anisotropic total variation per pixel of pictures (M, C, H, W); zero for other inputs."""
    if x.dim() != 4:
        return x.new_zeros(())
    vertical = (x[:, :, 1:] - x[:, :, :-1]).abs().mean() if x.shape[2] > 1 else x.new_zeros(())
    horizontal = (x[..., 1:] - x[..., :-1]).abs().mean() if x.shape[3] > 1 else x.new_zeros(())
    return vertical + horizontal
