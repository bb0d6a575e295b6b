"""Arithmetic on the constants of an ONNX file: shapes to reshape to, weights that are transposed, cast,
dequantised or scaled. Floating-point results are exact, in Fractions where float64 does not hold them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from exan_verify.core.arrays import Array, exact_array, fractions
from exan_verify.errors import UnsupportedLayerError

MOST_ENTRIES = 1 << 26
"""Of an array that is made from others: more than any layer here has, and still a fraction of memory."""

Attributes = Mapping[str, Any]


def fold(kind: str, inputs: Sequence[Array | None], attributes: Attributes, place: str) -> Array | None:
    """What the node of this ``kind`` gives for constant ``inputs`` of any shapes; None of a kind that is not
    known here.

    Raises :class:`UnsupportedLayerError` naming ``place``, and what numpy raises where operands do not fit.
    """
    if kind in _ARITHMETIC and len(inputs) == 2:
        return _arithmetic(kind, _given(inputs, 0), _given(inputs, 1), place)
    make = _KINDS.get(kind)
    if make is None:
        return None
    found = make(inputs, attributes, place)
    _require_few(found.size, place)
    return found


def stored(attributes: Attributes, place: str) -> Array:
    """The value of a node of kind Constant, of any shape."""
    from onnx import numpy_helper

    for name, value in attributes.items():
        if name == "value":
            return plain(numpy_helper.to_array(value), place)
        if name in ("value_float", "value_floats"):
            return np.array(value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, dtype=np.int64)
    raise UnsupportedLayerError(f"{place} holds {', '.join(attributes) or 'nothing'}; store a dense tensor")


def plain(array: Array, place: str) -> Array:
    """A tensor of the file, of the same shape, in a dtype of numpy that holds its values: integers, float32
    or float64."""
    if np.issubdtype(array.dtype, np.integer) or array.dtype in (bool, np.float32, np.float64):
        return array
    if array.dtype.kind in "OSUc":
        raise UnsupportedLayerError(f"{place} holds {array.dtype}, which are no real numbers; store float32")
    try:  # float16, and what numpy has no dtype of its own for: bfloat16, float8, four-bit numbers
        return array.astype(np.float32)
    except (TypeError, ValueError):
        raise UnsupportedLayerError(f"{place} holds {array.dtype}; store float32 or float64") from None


def shape_for(current: Sequence[int], wanted: Array, attributes: Attributes) -> tuple[int, ...]:
    """The shape that a Reshape to ``wanted`` gives values of shape ``current``."""
    sizes = [int(n) for n in wanted.reshape(-1)]
    if not attributes.get("allowzero", 0):
        sizes = [current[k] if n == 0 else n for k, n in enumerate(sizes)]
    rest = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and rest:
        sizes[sizes.index(-1)] = math.prod(current) // rest
    if min(sizes, default=1) < 0 or math.prod(sizes) != math.prod(current):
        raise ValueError(f"{tuple(current)} cannot be reshaped to {[int(n) for n in wanted.reshape(-1)]}")
    return tuple(sizes)


def axes_of(inputs: Sequence[Array | None], attributes: Attributes) -> tuple[int, ...] | None:
    """The axes of a Squeeze, Unsqueeze or ReduceMean: an attribute, or in later opsets an input (axes,)."""
    given = attributes.get("axes")
    if given is None and len(inputs) > 1 and inputs[1] is not None:
        given = inputs[1].reshape(-1)
    return None if given is None else tuple(int(a) for a in given)


def flat_shape(shape: Sequence[int], axis: int) -> tuple[int, int]:
    """The two sizes that a Flatten at ``axis`` gives."""
    if not -len(shape) <= axis <= len(shape):
        raise ValueError(f"{tuple(shape)} has no axis {axis}")
    at = axis + len(shape) if axis < 0 else axis
    return math.prod(shape[:at]), math.prod(shape[at:])


def expanded(shape: Sequence[int], axes: Sequence[int] | None) -> tuple[int, ...]:
    """The shape that an Unsqueeze at ``axes`` gives."""
    if axes is None:
        raise ValueError("no axes are given")
    whole = len(shape) + len(axes)
    at = {a + whole if a < 0 else a for a in axes}
    if len(at) != len(axes) or not all(0 <= a < whole for a in at):
        raise ValueError(f"axes {list(axes)} do not fit {tuple(shape)}")
    sizes = iter(shape)
    return tuple(1 if k in at else next(sizes) for k in range(whole))


def squeezed(shape: Sequence[int], axes: Sequence[int] | None) -> tuple[int, ...]:
    """The shape that a Squeeze at ``axes``, or without any, gives."""
    if axes is None:
        return tuple(n for n in shape if n != 1)
    at = {a + len(shape) if a < 0 else a for a in axes}
    if any(not 0 <= a < len(shape) or shape[a] != 1 for a in at):
        raise ValueError(f"axes {list(axes)} of {tuple(shape)} are not all of size 1")
    return tuple(n for k, n in enumerate(shape) if k not in at)


# ---- arithmetic -------------------------------------------------------------------------------------------

_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
}


def _arithmetic(kind: str, a: Array, b: Array, place: str) -> Array:
    _require_few(math.prod(np.broadcast_shapes(a.shape, b.shape)), place)
    whole = all(x.dtype != object and not np.issubdtype(x.dtype, np.floating) for x in (a, b))
    if kind == "Div" and np.any(b == 0):
        raise UnsupportedLayerError(f"{place} divides by zero; export finite numbers")
    if whole:  # integers are divided towards zero; those here are sizes, and int64 holds them
        quotient = np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)) if kind == "Div" else None
        return np.asarray(_ARITHMETIC[kind](a, b) if quotient is None else quotient)
    # two float32 have a product that float64 holds, and so have float32 and a small integer
    short = all(x.dtype.itemsize <= 4 for x in (a, b) if x.dtype != object)
    if kind == "Mul" and short and object not in (a.dtype, b.dtype):
        product = np.asarray(a.astype(np.float64) * b.astype(np.float64))
        smallest = float(np.abs(product[product != 0]).min(initial=1.0))
        if np.isfinite(product).all() and smallest > 1e-290:
            return product
    exact = np.asarray(_ARITHMETIC[kind](fractions(exact_array(a, place)), fractions(exact_array(b, place))))
    return exact_array(exact, place)


def _require_few(entries: int, place: str) -> None:
    if entries > MOST_ENTRIES:
        raise UnsupportedLayerError(f"{place} makes {entries} numbers; at most {MOST_ENTRIES} are folded")


# ---- one function for each kind of node -------------------------------------------------------------------


def _given(inputs: Sequence[Array | None], position: int) -> Array:
    found = inputs[position] if position < len(inputs) else None
    if found is None:
        raise ValueError(f"its input {position} is missing")
    return found


def _cast(inputs: Sequence[Array | None], attributes: Attributes, place: str) -> Array:
    from onnx import TensorProto

    value, to = _given(inputs, 0), attributes.get("to")
    narrow = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}
    if to in (TensorProto.INT64, TensorProto.INT32) and value.dtype.kind in "iub":
        return value.astype(np.int64)
    if to not in narrow or value.dtype == object:
        raise UnsupportedLayerError(f"{place} casts constants in a way that is not known; store float32")
    # what the file's own cast rounds to is the number that the network has
    with np.errstate(over="ignore"):
        return plain(value.astype(narrow[to]), place)


def _dequantized(inputs: Sequence[Array | None], attributes: Attributes, place: str) -> Array:
    value, scale = _given(inputs, 0), _given(inputs, 1)
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros((), dtype=np.int64)
    if attributes.get("block_size", 0):
        raise UnsupportedLayerError(f"{place} dequantises in blocks; store float32 weights")
    if scale.ndim == 1 and scale.size > 1:
        axis = int(attributes.get("axis", 1))
        wide = [1] * value.ndim
        wide[axis] = scale.size
        scale, zero = scale.reshape(wide), zero.reshape(wide) if zero.size > 1 else zero.reshape(())
    elif scale.size == 1:
        scale, zero = scale.reshape(()), zero.reshape(())
    if value.dtype.kind == "f" or zero.dtype.kind == "f":  # float8 and four-bit numbers, as float32
        return _arithmetic("Mul", _arithmetic("Sub", value.astype(np.float32), zero, place), scale, place)
    moved = value.astype(np.int64) - zero.astype(np.int64)
    small = np.abs(moved).max(initial=0) < 1 << 24
    return _arithmetic("Mul", moved.astype(np.float32) if small else moved, scale, place)


def _sliced(inputs: Sequence[Array | None], attributes: Attributes, _place: str) -> Array:
    value = _given(inputs, 0)
    names = ("starts", "ends", "axes", "steps")

    def listed(position: int, name: str) -> list[int] | None:
        given = inputs[position] if position < len(inputs) else attributes.get(name)
        return None if given is None else [int(n) for n in np.asarray(given).reshape(-1)]

    starts, ends, axes, steps = (listed(k + 1, name) for k, name in enumerate(names))
    if starts is None or ends is None:
        raise ValueError("its starts or ends are missing")
    index: list[slice] = [slice(None)] * value.ndim
    for k, axis in enumerate(axes or range(len(starts))):
        index[axis] = slice(starts[k], ends[k], None if steps is None else steps[k])
    return value[tuple(index)]


def _gathered(inputs: Sequence[Array | None], attributes: Attributes, place: str) -> Array:
    value, at, axis = _given(inputs, 0), _given(inputs, 1), int(attributes.get("axis", 0))
    _require_few(at.size * max(1, value.size // max(1, value.shape[axis])), place)
    return np.take(value, at.astype(np.int64), axis=axis)


def _joined(inputs: Sequence[Array | None], attributes: Attributes, place: str) -> Array:
    parts = [_given(inputs, k) for k in range(len(inputs))]
    _require_few(sum(part.size for part in parts), place)
    return np.concatenate(parts, axis=int(attributes["axis"]))


def _filled(inputs: Sequence[Array | None], attributes: Attributes, place: str) -> Array:
    shape = tuple(int(n) for n in _given(inputs, 0).reshape(-1))
    _require_few(math.prod(max(n, 0) for n in shape), place)
    value = stored(attributes, place) if "value" in attributes else np.zeros(1, dtype=np.float32)
    return np.full(shape, value.reshape(-1)[0])


_Make = Callable[[Sequence[Array | None], Attributes, str], Array]

_KINDS: Mapping[str, _Make] = {
    "Identity": lambda i, _a, _p: _given(i, 0),
    "Neg": lambda i, _a, _p: -_given(i, 0),
    "Transpose": lambda i, a, _p: np.transpose(_given(i, 0), a.get("perm")),
    "Reshape": lambda i, a, _p: _given(i, 0).reshape(shape_for(_given(i, 0).shape, _given(i, 1), a)),
    "Flatten": lambda i, a, _p: _given(i, 0).reshape(flat_shape(_given(i, 0).shape, a.get("axis", 1))),
    "Squeeze": lambda i, a, _p: _given(i, 0).reshape(squeezed(_given(i, 0).shape, axes_of(i, a))),
    "Unsqueeze": lambda i, a, _p: _given(i, 0).reshape(expanded(_given(i, 0).shape, axes_of(i, a))),
    "Shape": lambda i, a, _p: np.array(_given(i, 0).shape, dtype=np.int64)[a.get("start", 0) : a.get("end")],
    "Cast": _cast,
    "DequantizeLinear": _dequantized,
    "Slice": _sliced,
    "Gather": _gathered,
    "Concat": _joined,
    "ConstantOfShape": _filled,
}
