"""Exact rational matrices with one common denominator, multiplied through float64 BLAS.

A matrix is ``integers / denominator`` with the integers stored as base-2^16 digits. A product of digit
planes is a matrix of integers below ``terms * 2^32``; with at most 2^20 terms per block every partial sum
stays below 2^53, so float64 matrix multiplication is exact whatever order it sums in. Block sums are added
in int64 and carried once at the end. This is the whole argument: nothing here rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import poll
from exan_verify.core.network import Array
from exan_verify.exact.dyadic import DIGIT_BASE, DIGIT_BITS, Scaled, scaled
from exan_verify.exact.modular import PRIME, Residues, constant, inverse, multiply_mod, reduce_digits

Digits = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BLOCK_ENTRIES = 1 << 20
_MAX_TERMS = 1 << 20
_BLOCK_PRODUCTS = 1 << 32  # of digits, between two looks at the budget: a second


@dataclass(frozen=True, slots=True, eq=False)
class RationalMatrix:
    """``integers / denominator``, shape (rows, cols).

    ``digits`` (count, rows, cols) in base 2^16, least significant first; all in [0, 2^16) except the last,
    which is in [-1, 2^16) and carries the sign.
    """

    digits: Digits
    denominator: int

    @classmethod
    def of(cls, array: Array) -> RationalMatrix:
        """From an exact array (rows, cols)."""
        source = scaled(array)
        width = max(1, _BLOCK_ENTRIES // max(1, len(array)))
        columns = [array[:, start : start + width] for start in range(0, array.shape[1], width)] or [array]
        parts = [carry(source.planes(part).astype(np.int64)) for part in columns]
        return cls(side_by_side(parts), source.denominator)

    @classmethod
    def from_residues(cls, residues: Residues, prime: int = PRIME) -> RationalMatrix:
        """Least non-negative integers for residues (rows, cols) mod p."""
        count = -(-prime.bit_length() // DIGIT_BITS)
        shifts = (np.arange(count, dtype=np.uint64) * np.uint64(DIGIT_BITS)).reshape(-1, 1, 1)
        return cls(((residues >> shifts) & np.uint64(DIGIT_BASE - 1)).astype(np.int64), 1)

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, cols)``."""
        return self.digits.shape[1], self.digits.shape[2]

    @property
    def T(self) -> RationalMatrix:  # noqa: N802 - as numpy has it
        """The transpose."""
        return RationalMatrix(self.digits.transpose(0, 2, 1), self.denominator)

    def positive(self) -> Mask:
        """Where the entries are greater than zero."""
        found: Mask = (self.digits[-1] >= 0) & self.nonzero()
        return found

    def nonzero(self) -> Mask:
        """Where the entries are not zero."""
        found: Mask = np.any(self.digits != 0, axis=0)
        return found

    def masked(self, keep: Mask) -> RationalMatrix:
        """Entries where ``keep``, zero elsewhere."""
        return RationalMatrix(_trim(self.digits * keep), self.denominator)

    def times(self, factors: RationalMatrix) -> RationalMatrix:
        """Entry by entry with ``factors`` (rows, cols), or (rows, 1) for every column.

        Digits are below 2^16 in size, so a sum of products of digits stays below 2^62 for 2^29 of them.
        """
        total = np.zeros((len(self.digits) + len(factors.digits) - 1, *self.shape), dtype=np.int64)
        for k, plane in enumerate(factors.digits):
            total[k : k + len(self.digits)] += self.digits * plane
        return RationalMatrix(carry(total), self.denominator * factors.denominator)

    def plus_column(self, column: RationalMatrix) -> RationalMatrix:
        """Add ``column`` (rows, 1) to every column, or a matrix (rows, cols)."""
        common = self.denominator * column.denominator // gcd(self.denominator, column.denominator)
        left = _scale_digits(self.digits, common // self.denominator)
        right = _scale_digits(column.digits, common // column.denominator)
        count = max(len(left), len(right))
        total = np.zeros((count, *self.shape), dtype=np.int64)
        total[: len(left)] += left
        total[: len(right)] += right
        return RationalMatrix(carry(total), common)

    def over(self, divisor: int) -> RationalMatrix:
        """Entries divided by a positive integer."""
        return RationalMatrix(self.digits, self.denominator * divisor)

    def row_sums(self) -> RationalMatrix:
        """Sum over the columns, shape (rows, 1)."""
        return RationalMatrix(carry(self.digits.sum(axis=2, keepdims=True)), self.denominator)

    def integers(self) -> Array:
        """The numerators as an object array (rows, cols) of Python ints."""
        total = np.zeros(self.shape, dtype=object)
        for row, digits in enumerate(self.digits.transpose(1, 0, 2)):
            poll()
            for plane in digits[::-1]:
                total[row] = total[row] * DIGIT_BASE + plane.astype(object)
        return total

    def fractions(self) -> Array:
        """The entries as an object array (rows, cols) of Fractions."""
        out = np.empty(self.shape, dtype=object)
        for target, row in zip(out, self.integers(), strict=True):
            poll()
            target[:] = [Fraction(value, self.denominator) for value in row]
        return out

    def residues(self, prime: int = PRIME) -> Residues:
        """The entries (rows, cols) mod p, which must not divide the denominator: UnsuitablePrimeError."""
        scale = constant(inverse(self.denominator, prime), prime)
        return multiply_mod(reduce_digits(self.digits, prime), scale, prime)


def product(left: Array | RationalMatrix, right: RationalMatrix) -> RationalMatrix:
    """The exact product of (rows, k) and (k, cols); a large ``left`` array is read block by block."""
    source = left if isinstance(left, RationalMatrix) else scaled(left)
    rows, terms = source.shape
    cols = right.shape[1]
    count = source.digits.shape[0] if isinstance(source, RationalMatrix) else source.count
    if rows * cols * terms == 0:
        return RationalMatrix(np.zeros((1, rows, cols), dtype=np.int64), 1)
    # blocks of terms are looked at one by one anyway; columns are split where one such block is too much
    block = max(rows, min(rows * terms, _BLOCK_ENTRIES))
    width = max(1, _BLOCK_PRODUCTS // (count * block * len(right.digits)))
    parts = [
        _product(source, count, right.digits[:, :, start : start + width]) for start in range(0, cols, width)
    ]
    return RationalMatrix(side_by_side(parts), source.denominator * right.denominator)


def _product(source: Scaled | RationalMatrix, count: int, right: Digits) -> Digits:
    """The digits of the product with the columns ``right`` (count, k, cols), block by block over k."""
    rows, terms = source.shape
    right_count, _, cols = right.shape
    total = np.zeros((count + right_count, rows, cols), dtype=np.int64)
    step = max(1, min(_MAX_TERMS, _BLOCK_ENTRIES // max(1, rows)))
    for start in range(0, terms, step):
        poll()
        block = slice(start, min(terms, start + step))
        planes = _planes(source, block).reshape(count * rows, -1)
        stacked = right[:, block].transpose(1, 0, 2).reshape(-1, right_count * cols)
        sums = (planes @ stacked.astype(np.float64)).reshape(count, rows, right_count, cols)
        for a in range(count):
            for b in range(right_count):
                total[a + b] += sums[a, :, b].astype(np.int64)
    return carry(total)


def product_mod(left: Array, right: Residues, prime: int = PRIME) -> Residues:
    """``left @ right`` mod p for an exact array (rows, k) and residues (k, cols)."""
    return product(left, RationalMatrix.from_residues(right, prime)).residues(prime)


def residue_product(left: Residues, right: Residues) -> Residues:
    """``left @ right`` mod p for residues (rows, k) and (k, cols)."""
    return product(RationalMatrix.from_residues(left), RationalMatrix.from_residues(right)).residues()


def carry(planes: Digits) -> Digits:
    """Normalise int64 planes (any sign, below 2^62 in size) to digits: see :class:`RationalMatrix`."""
    digits, over = [], np.zeros(planes.shape[1:], dtype=np.int64)
    for plane in planes:
        poll()
        value = plane + over
        digits.append(value & (DIGIT_BASE - 1))
        over = value >> DIGIT_BITS
    while np.any((over != 0) & (over != -1)):
        digits.append(over & (DIGIT_BASE - 1))
        over = over >> DIGIT_BITS
    if np.any(over):
        digits.append(over)
    return _trim(np.stack(digits))


def side_by_side(parts: list[Digits]) -> Digits:
    """The digits of one matrix from those of its blocks of columns."""
    if len(parts) == 1:
        return parts[0]
    count = max(map(len, parts))
    return np.concatenate([_widened(part, count) for part in parts], axis=2)


def one_below_another(parts: Sequence[RationalMatrix]) -> RationalMatrix:
    """The matrix of these blocks of rows."""
    common = lcm(1, *(part.denominator for part in parts))
    own = [carry(_scale_digits(part.digits, common // part.denominator)) for part in parts]
    count = max(map(len, own))
    return RationalMatrix(np.concatenate([_widened(part, count) for part in own], axis=1), common)


def _widened(digits: Digits, count: int) -> Digits:
    """The same numbers in ``count`` digits: the sign, which the last one carries, moves up with it."""
    poll()
    if len(digits) == count:
        return digits
    sign = digits[-1:] >> DIGIT_BITS  # -1 or 0
    last, between = digits[-1:] & (DIGIT_BASE - 1), sign & (DIGIT_BASE - 1)
    return np.concatenate([digits[:-1], last, *[between] * (count - len(digits) - 1), sign])


def _trim(digits: Digits) -> Digits:
    count = len(digits)
    while count > 1 and not np.any(digits[count - 1]):
        count -= 1
    return digits[:count]


def _planes(source: Scaled | RationalMatrix, block: slice) -> npt.NDArray[np.float64]:
    if isinstance(source, RationalMatrix):
        return source.digits[:, :, block].astype(np.float64)
    return source.planes(source.array[:, block])


def _scale_digits(digits: Digits, factor: int) -> Digits:
    """Planes of ``factor`` times the number; the result is not carried."""
    parts = []
    while factor:
        parts.append(factor & (DIGIT_BASE - 1))
        factor >>= DIGIT_BITS
    total = np.zeros((len(digits) + len(parts) - 1, *digits.shape[1:]), dtype=np.int64)
    for k, part in enumerate(parts):
        if part:
            total[k : k + len(digits)] += digits * part
    return total
