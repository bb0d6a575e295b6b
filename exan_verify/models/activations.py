"""Activations other than ReLU, from torch's modules and functions: LeakyReLU, PReLU, ReLU6, Hardtanh.

What they are depends on the layer before: its width, and the dtype of its weights, in which torch's kernels
multiply by a slope.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.network import Activation, Array, exact_array, to_fraction
from exan_verify.errors import ShapeError, UnsupportedLayerError

if TYPE_CHECKING:
    from torch.fx import Node

Make = Callable[[int, Any], Activation | None]
"""From the number of neurons and the dtype of their weights; None: it is ReLU."""


def of_module(module: Any, path: str) -> Make:
    """The activation of an ``nn.LeakyReLU``, ``nn.PReLU``, ``nn.ReLU6`` or ``nn.Hardtanh``."""
    import torch.nn as nn

    if type(module) is nn.LeakyReLU:
        return leaky(module.negative_slope)
    if type(module) is nn.PReLU:
        parameter = f"{path}.weight"
        return parametric(exact_array(module.weight, parameter), parameter, f"layer {path!r} (PReLU)")
    if type(module) is nn.ReLU6:
        return clipped(0.0, 6.0, "ReLU6")
    return clipped(module.min_val, module.max_val, "Hardtanh")


def of_function(node: Node) -> Make | None:
    """The same of a call of ``torch.nn.functional``; None for any other operation."""
    from torch.nn import functional

    from exan_verify.models.chain import arguments

    if node.target in (functional.leaky_relu, functional.leaky_relu_):
        return leaky(arguments(node, negative_slope=0.01)[0])
    if node.target is functional.relu6:
        return clipped(0.0, 6.0, "relu6")
    if node.target in (functional.hardtanh, functional.hardtanh_):
        low, high = arguments(node, min_val=-1.0, max_val=1.0)
        return clipped(low, high, "hardtanh")
    return None


def parametric(slopes: Array, parameter: str, place: str) -> Make:
    """PReLU with ``slopes`` (1,) or one for each neuron, the tensor ``parameter``; ``place``: in errors."""

    def made(neurons: int, _dtype: Any) -> Activation:
        if len(slopes) not in (1, neurons):
            raise ShapeError(f"{place} has {len(slopes)} slopes for {neurons} neurons; give 1 or {neurons}")
        said = "a trained slope" if len(slopes) == 1 else f"{neurons} trained slopes"
        return Activation(
            slope=np.repeat(slopes, neurons) if len(slopes) == 1 else slopes,
            parameter=parameter,
            shared=len(slopes) == 1,
            name=f"PReLU with {said}",
        )

    return made


def leaky(slope: float) -> Make:
    """LeakyReLU; with slope 0 it is ReLU, for any layer."""
    if not isinstance(slope, (int, float)) or not np.isfinite(slope):
        raise UnsupportedLayerError(f"a LeakyReLU has the slope {slope!r}; give a finite number")

    def made(neurons: int, dtype: Any) -> Activation | None:
        # ATen casts the slope to the type it computes in: float32 also for float16 and bfloat16
        taken = (
            float(slope) if dtype in (np.dtype(np.float64), np.dtype(object)) else float(np.float32(slope))
        )
        if taken == 0:
            return None
        rounded = "" if taken == slope else f", in float32 {taken!r}"
        return Activation(slope=np.full(neurons, taken), name=f"LeakyReLU of slope {slope}{rounded}")

    return made


def clipped(low: float, high: float, name: str) -> Make:
    """ReLU6 and Hardtanh: the value between ``low`` and ``high``, its derivative 1 strictly between them."""
    ends: list[Fraction] = []
    for end in (low, high):
        if not isinstance(end, (int, float)) or not np.isfinite(end):
            raise UnsupportedLayerError(f"a {name} ends at {end!r}; give finite numbers")
        ends.append(to_fraction(end))

    def made(neurons: int, _dtype: Any) -> Activation:
        said = name if name.lower() == "relu6" else f"{name} from {low} to {high}"
        return Activation(slope=np.zeros(neurons), low=ends[0], high=ends[1], name=said)

    return made
