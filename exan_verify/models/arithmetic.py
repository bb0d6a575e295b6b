"""Constant shifts and scales in a traced forward, such as ``(x - self.mean) / self.std`` or ``2 * x - 1``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.arrays import Array, exact_array, fractions
from exan_verify.errors import InputError, UnsupportedLayerError
from exan_verify.models.folding import Affine

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

Stored = Mapping["Node", str]
"""The nodes of a graph that stand for something the module holds, and under which name."""

_OPERATIONS = {
    **dict.fromkeys(("add", "add_", "iadd"), "+"),
    **dict.fromkeys(("sub", "sub_", "subtract", "subtract_", "isub"), "-"),
    "rsub": "-",
    **dict.fromkeys(("mul", "mul_", "multiply", "multiply_", "imul"), "*"),
    **dict.fromkeys(("truediv", "itruediv", "div", "div_", "divide", "divide_", "true_divide"), "/"),
    **dict.fromkeys(("neg", "neg_", "negative", "negative_"), "neg"),
}
"""Names of operators, functions and methods that shift and scale, and what they do."""

_NO_OPTION = ("alpha=1", "out=None", "rounding_mode=None")


def affine_of(model: torch.nn.Module, node: Node, current: Node, stored: Stored, place: str) -> Affine | None:
    """Arithmetic between the value ``current`` and a constant, as an affine map; None of anything else.

    ``place``: what the node is called in errors. Raises :class:`UnsupportedLayerError` for arithmetic that is
    no shift or scale by numbers that are not trained, :class:`NonFiniteError` for NaN and infinities.
    """
    import torch.fx

    name = str(getattr(node.target, "__name__", node.target))
    operation = _OPERATIONS.get(name)
    if node.op not in ("call_function", "call_method") or operation is None:
        return None
    operands = [*node.args, *(node.kwargs[k] for k in ("other",) if k in node.kwargs)]
    if name == "rsub":
        operands.reverse()
    constants = [one for one in operands if one is not current]
    values = [one for one in constants if isinstance(one, torch.fx.Node) and one not in stored]
    if len(operands) - len(constants) != 1 or values:
        return None  # two values of the forward: a branch
    options = [f"{k}={v}" for k, v in node.kwargs.items() if k != "other"]
    options = [text for text in options if text not in _NO_OPTION]
    if options or len(constants) != (0 if operation == "neg" else 1):
        said = ", ".join(options) or "other operands than a value and one constant"
        raise UnsupportedLayerError(f"{place} has {said}; write it with + - * / and one constant")
    if operation == "neg":
        return Affine.of(-1)
    value, per_channel = _constant(model, constants[0], stored, place)
    factor, shift = _parts(operation, value, operands[0] is current, place)
    return Affine.of(factor, shift, per_channel=per_channel)


def _parts(operation: str, value: Array, first: bool, place: str) -> tuple[Any, Any]:
    """Factor and shift of ``h operation value``, or of ``value operation h`` where h is not ``first``."""
    if operation == "+":
        return 1, value
    if operation == "-":
        return (1, -value) if first else (-1, value)
    if operation == "*":
        return value, 0
    if not first:
        raise UnsupportedLayerError(f"{place} divides by the value of the step before it; only by constants")
    if np.any(value == 0):
        raise UnsupportedLayerError(f"{place} divides by zero; remove the features that it divides")
    return 1 / value, 0


def _constant(model: torch.nn.Module, given: Any, stored: Stored, place: str) -> tuple[Array, bool]:
    """The constant in Fractions, () or (n,), and whether it has one number per channel.

    A number in the code is the double that it is; what a module holds has its own exact value.
    """
    import torch

    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return fractions(exact_array(np.array(given), f"the constant of {place}")), False
    name = stored.get(given) if isinstance(given, torch.fx.Node) else None
    value: Any = model
    for part in () if name is None else name.split("."):
        value = getattr(value, part)
    if not isinstance(value, torch.Tensor):
        raise UnsupportedLayerError(f"{place} takes {given!r}; use a number, or a buffer of the module")
    if isinstance(value, torch.nn.Parameter) and value.requires_grad:
        raise UnsupportedLayerError(
            f"{place} takes the parameter {name!r}, which is trained, so that its gradient is shared too; "
            "make it a buffer, or part of a Linear layer"
        )
    if value.is_meta:
        raise InputError(f"{name} is on the meta device and has no numbers; load the weights first")
    array = fractions(exact_array(value, str(name)))
    found = _flat(array)
    if found is None:
        raise UnsupportedLayerError(
            f"{place} takes {name!r} of shape {array.shape}; give one number, one for each feature (d,) or "
            "(1, ...), or one for each channel (1, C, 1, 1)"
        )
    return found


def _flat(array: Array) -> tuple[Array, bool] | None:
    """The constant as () or (n,), and whether it is one number per channel; None where its shape does not
    say which numbers it is for.
    """
    sizes = [n for n in array.shape if n != 1]
    if not sizes:
        return array.reshape(()), False
    if array.shape[-3:] == (sizes[0], 1, 1) and len(sizes) == 1:
        return array.reshape(-1), True
    # (d,), (1, d), (1, C, H, W): one for each feature; whether they are as many is told by the layer's width
    return (array.reshape(-1), False) if array.shape[-1] != 1 else None
