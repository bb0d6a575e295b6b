"""Exact arrays: what a user's numbers become at the door, their exact values and their digests."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from exan_verify.errors import InputError, NonFiniteError, short

_DIGITS = 1_000_000
if 0 < sys.get_int_max_str_digits() < _DIGITS:
    # Exact rationals of deep networks have more digits than Python's default limit of 4300 for text.
    sys.set_int_max_str_digits(_DIGITS)

Array = npt.NDArray[Any]
"""A read-only float64/float32 array (dyadic values) or an object array of Fractions."""


T = TypeVar("T")


class PerLayer(tuple[T, ...]):
    """One thing for each layer, first layer first; :meth:`at` counts from 1, as docs/theory.md does.

    An index that starts at 0 would take the last layer for layer 0, and say nothing.
    """

    __slots__ = ()

    def at(self, layer: int) -> T:
        """That of ``layer``, from 1 to the number of layers; raises ``IndexError`` for any other."""
        if layer < 1:
            raise IndexError(f"layers count from 1, not {layer}")
        return self[layer - 1]


def to_fraction(value: Any) -> Fraction:
    """The exact rational value of a finite float, int or Fraction."""
    if isinstance(value, Fraction):
        return value
    return Fraction(value.item() if isinstance(value, np.generic) else value)


def fractions(array: Array) -> Array:
    """The entries of an exact array as Fractions, in an array of the same shape."""
    out = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        out[index] = to_fraction(value)
    return out


def exact_array(values: Any, name: str) -> Array:
    """A read-only exact array, of any shape, from nested sequences, numpy arrays or torch tensors.

    Floating dtypes keep their values (float16 and bfloat16 widened to float32); integers become float64
    where that is exact; Fractions and large integers become an object array of Fractions.

    Raises :class:`NonFiniteError` or :class:`InputError` naming ``name``.
    """
    array = _as_numpy(values, name)
    if array.dtype == object:
        return freeze(_rational_array(array, name))
    if array.dtype == bool or np.issubdtype(array.dtype, np.integer):
        if array.size and max(-int(array.min()), int(array.max())) > 2**53:
            return freeze(_rational_array(array.astype(object), name))
        array = array.astype(np.float64)
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{name} has dtype {array.dtype}; give float32, float64, integers or Fractions")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise NonFiniteError(
            f"{name} contains NaN or an infinity ({len(bad)} of {array.size} entries, "
            f"the first at index {tuple(int(i) for i in bad[0])}); all numbers must be finite"
        )
    return freeze(array)


def rationals(array: Array) -> Any:
    """Nested lists of ``"num/den"`` strings, of the same shape as ``array``: its exact form in JSON."""
    if array.ndim == 0:
        return str(to_fraction(array.item()))
    return [rationals(np.asarray(row)) for row in array]


def digest_arrays(kind: str, arrays: Iterable[Array]) -> str:
    """SHA-256 of the exact values and shapes of ``arrays``; independent of the dtypes that hold them."""
    state = hashlib.sha256(f"exan_verify/{kind}/1".encode())
    for array in arrays:
        state.update(f"|{array.shape}|".encode())
        _digest_values(state, array)
    return state.hexdigest()


def memory_available() -> int:
    """Bytes that this process may still allocate: what the system has left, or its control group allows."""
    limits = [1 << 33]  # where nothing can be read: a small machine of today
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits = [1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        limits.append(max(0, int((group / "memory.max").read_text()) - used))
    return min(limits)


_DIGEST_CHUNK = 1 << 20


def _digest_values(state: Any, array: Array) -> None:
    flat = array.reshape(-1)
    for start in range(0, flat.size, _DIGEST_CHUNK):
        part = flat[start : start + _DIGEST_CHUNK]
        if part.dtype == object:
            state.update(";".join(str(to_fraction(v)) for v in part).encode())
        else:
            # adding 0.0 turns -0.0 into 0.0: both are the real number zero
            state.update((part.astype("<f8") + 0.0).tobytes())


def _as_numpy(values: Any, name: str) -> Array:
    try:
        if hasattr(values, "detach"):  # a torch tensor, without importing torch
            values = values.detach().cpu()
            if str(values.layout) != "torch.strided":
                values = values.to_dense()
            # numpy has neither bfloat16 nor torch's flags for values that are still to be negated
            values = values.float() if str(values.dtype) == "torch.bfloat16" else values.resolve_neg()
            return np.asarray(values.numpy())
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
            raise InputError(f"{name} is a masked array with hidden entries; fill them in first")
        return np.asarray(values) if isinstance(values, (np.ndarray, np.generic)) else _from_nested(values)
    # whatever torch and numpy say of a tensor without numbers (meta, quantized) or of a ragged list
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} is not an array of numbers ({first_line})") from None


def _from_nested(values: Any) -> Array:
    """An object array, or float64 where entries are floats and integers that float64 holds exactly."""
    array = np.array(values, dtype=object)
    floats = [isinstance(v, (float, np.floating)) for v in array.flat]
    if any(floats) and all(
        is_float or (isinstance(v, (int, np.integer)) and abs(int(v)) <= 2**53)
        for v, is_float in zip(array.flat, floats, strict=True)
    ):
        return array.astype(np.float64)
    return array


def _rational_array(array: Array, name: str) -> Array:
    """Fractions, or float64 where every entry is exactly a float64 (so that equal values look equal)."""
    flat = np.empty(array.size, dtype=object)
    for k, value in enumerate(array.reshape(-1)):
        value = value.item() if hasattr(value, "detach") and not value.ndim else value
        # text and decimals are no numbers here: "1e300000000" would be expanded digit by digit
        if not isinstance(value, (int, float, Fraction, np.integer, np.floating, np.bool_)):
            raise InputError(f"{name} contains {short(value)}, which is not a number")
        try:
            flat[k] = to_fraction(value)
        except (OverflowError, ValueError, TypeError) as error:
            raise NonFiniteError(
                f"{name} contains {short(value)} ({error}); all numbers must be finite"
            ) from None
    as_float = np.array([_float_or_nan(v) for v in flat], dtype=np.float64)
    exact = all(Fraction(f) == v for f, v in zip(as_float.tolist(), flat, strict=True) if f == f)
    if exact and not np.isnan(as_float).any():
        return as_float.reshape(array.shape)
    return flat.reshape(array.shape)


def _float_or_nan(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("nan")


def is_rational(values: Any) -> bool:
    """Whether the user wrote integers or Fractions (as opposed to floating-point numbers).

    ``values`` is what :func:`exact_array` accepted.
    """
    if hasattr(values, "dtype") and values.dtype != object:
        return "int" in str(values.dtype)
    return all(isinstance(v, (int, Fraction, np.integer)) for v in np.array(values, dtype=object).flat)


def freeze(array: Array) -> Array:
    """The array, of any shape, itself when it is read-only and contiguous, else a copy that is."""
    if array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy(order="C")  # ascontiguousarray would make a vector of a single number
        array.setflags(write=False)
    return array
