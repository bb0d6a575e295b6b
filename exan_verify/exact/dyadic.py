"""The only door between floating-point arrays and exact integers.

An exact array (see :mod:`exan_verify.core.network`) is read as ``integers / denominator`` with one common
denominator: a power of two for floating dtypes, the least common multiple for Fractions. The integers come
out as *digit planes* in base 2^16, each digit carrying the sign of its number, so that products of planes
are exact in float64 (docs/theory.md 3.6).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import poll
from exan_verify.core.network import Array

DIGIT_BITS = 16
DIGIT_BASE = 1 << DIGIT_BITS

# ldexp(w, s - 16 (count - 1)) must not fall below float64's smallest normal number 2^-1022
_MAX_FLOAT_PLANES = 63


@dataclass(frozen=True, slots=True)
class Scaled:
    """An exact array with its common denominator: ``values = integers / denominator``.

    ``planes(part)`` gives the integers of a 2-d slice as float64 digit planes (count, rows, cols).
    """

    array: Array
    denominator: int
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.array.shape

    def planes(self, part: Array) -> npt.NDArray[np.float64]:
        """Signed digit planes (count, rows, cols) of ``part``, a slice of ``array``, least first."""
        if part.dtype == object or self.count > _MAX_FLOAT_PLANES:
            return _object_planes(_integers(part, self.denominator), self.count)
        return _float_planes(part, self.denominator.bit_length() - 1, self.count)


def scaled(array: Array) -> Scaled:
    """Read an exact array of any shape as integers over one common denominator."""
    if array.dtype == object:
        denominator = lcm(1, *(value.denominator for value in array.reshape(-1)))
        poll()
        numerators = (abs(v.numerator) * (denominator // v.denominator) for v in array.reshape(-1))
        largest = max(numerators, default=0)
        return Scaled(array, denominator, _digit_count(largest.bit_length()))
    low, high = _exponent_range(array)
    shift = max(0, _mantissa_bits(array) - low)
    return Scaled(array, 1 << shift, _digit_count(high + shift))


def guessed(array: Array) -> npt.NDArray[np.float64]:
    """The nearest float64 numbers, of the same shape, for guesses only: beyond their range the largest."""
    try:
        return array.astype(np.float64)
    except OverflowError:
        rounded = [_saturated(value) for value in array.reshape(-1)]
        return np.array(rounded, dtype=np.float64).reshape(array.shape)


def _saturated(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max


def _digit_count(bits: int) -> int:
    return max(1, -(-bits // DIGIT_BITS))


def _mantissa_bits(array: Array) -> int:
    return 24 if array.dtype == np.float32 else 53


def _exponent_range(array: Array) -> tuple[int, int]:
    """Least and greatest e with |value| = m 2^e, 1/2 <= m < 1, over the non-zero entries."""
    low, high = 0, 0
    flat = array.reshape(-1)
    for start in range(0, flat.size, 1 << 20):
        poll()
        part = flat[start : start + (1 << 20)].astype(np.float64)
        exponents = np.frexp(part)[1][part != 0]
        if exponents.size:
            low, high = min(low, int(exponents.min())), max(high, int(exponents.max()))
    return low, high


def _float_planes(part: Array, shift: int, count: int) -> npt.NDArray[np.float64]:
    """Digits of ``part * 2^shift``. Every step is exact: scaling by powers of two, floor, and subtraction
    of the leading bits of a float.
    """
    rest = np.ldexp(part.astype(np.float64), shift - DIGIT_BITS * (count - 1))
    planes = np.empty((count, *part.shape))
    for k in range(count - 1, -1, -1):
        np.trunc(rest, out=planes[k])
        rest -= planes[k]
        rest *= DIGIT_BASE
    return planes


def _integers(part: Array, denominator: int) -> Array:
    if part.dtype == object:
        ints = np.empty(part.shape, dtype=object)
        for target, row in zip(ints, part, strict=True):
            poll()
            target[:] = [value.numerator * (denominator // value.denominator) for value in row]
        return ints
    ints = np.empty(part.shape, dtype=object)
    for target, row in zip(ints, part, strict=True):
        poll()
        ratios = (value.as_integer_ratio() for value in row.astype(np.float64).tolist())
        target[:] = [numerator * (denominator // power) for numerator, power in ratios]
    return ints


def _object_planes(ints: Array, count: int) -> npt.NDArray[np.float64]:
    planes = np.empty((count, *ints.shape))
    for row, values in enumerate(ints):
        poll()
        # a number's bytes, least first and two at a time, are its digits in base 2^16
        written = b"".join([abs(value).to_bytes(2 * count, "little") for value in values])
        digits = np.frombuffer(written, dtype="<u2").reshape(len(values), count)
        planes[:, row] = np.where(values < 0, -1.0, 1.0) * digits.T
    return planes
