"""Vectorised arithmetic in the field of p = 2^61 - 1 elements (a Mersenne prime), or of a smaller prime.

Residues are uint64 arrays with values in [0, p). A value that is non-zero mod p is non-zero; a rank mod p
is a lower bound of the rank over the reals (docs/theory.md 3.6). Nothing is ever concluded from a zero or
a rank deficit mod p.

``prime`` is 2^61 - 1 or any prime below 2^31: products of residues fit 64 bits, and so do sums of two.
Residues of different primes look alike and mean nothing to each other; who computes with another prime says
so at every step.
"""

from __future__ import annotations

from hashlib import shake_256

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import poll

PRIME_BITS = 61
PRIME = (1 << PRIME_BITS) - 1

Residues = npt.NDArray[np.uint64]

_P = np.uint64(PRIME)
_LOW31 = np.uint64((1 << 31) - 1)
_LOW30 = np.uint64((1 << 30) - 1)


class UnsuitablePrimeError(ArithmeticError):
    """A given rational number has a denominator that p divides, so it has no residue.

    Remedy: change the units of the input (float inputs are never concerned: they are dyadic).
    """


def fold(values: Residues) -> Residues:
    """Reduce uint64 values below 2^64, of any shape, to [0, p): 2^61 = 1 mod p."""
    once: Residues = (values & _P) + (values >> np.uint64(PRIME_BITS))
    reduced: Residues = once - np.where(once >= _P, _P, np.uint64(0))
    return reduced


def multiply_mod(a: Residues, b: Residues, prime: int = PRIME) -> Residues:
    """Entrywise product mod p, of any shapes that broadcast.

    For p = 2^61 - 1, with a = a1 2^31 + a0 and b = b1 2^31 + b0: the middle term m = a1 b0 + a0 b1 < 2^62
    is split as m1 2^30 + m0, and 2^62 = 2, 2^61 = 1 mod p, so a b = 2 a1 b1 + m1 + m0 2^31 + a0 b0 < 2^64.
    """
    if prime != PRIME:
        small: Residues = a * b % np.uint64(prime)
        return small
    a1, a0 = a >> np.uint64(31), a & _LOW31
    b1, b0 = b >> np.uint64(31), b & _LOW31
    middle = a1 * b0 + a0 * b1
    high, low = middle >> np.uint64(30), (middle & _LOW30) << np.uint64(31)
    total: Residues = np.uint64(2) * (a1 * b1) + high + low + a0 * b0
    return fold(total)


def add_mod(a: Residues, b: Residues, prime: int = PRIME) -> Residues:
    """Entrywise sum mod p, of any shapes that broadcast."""
    total: Residues = a + b
    return fold(total) if prime == PRIME else total % np.uint64(prime)


def negate_mod(a: Residues, prime: int = PRIME) -> Residues:
    """Entrywise negative mod p, of any shape."""
    flipped: Residues = np.where(a == 0, a, np.uint64(prime) - a)
    return flipped


def reduce_digits(digits: npt.NDArray[np.int64], prime: int = PRIME) -> Residues:
    """Residues of integers given by base-2^16 digits (count, ...), least first, the last one signed."""
    top = digits[-1]
    total: Residues = np.where(top < 0, top + prime, top).astype(np.uint64)
    if prime != PRIME:
        total %= np.uint64(prime)
        for plane in digits[-2::-1]:
            poll()
            total = ((total << np.uint64(16)) + plane.astype(np.uint64)) % np.uint64(prime)
        return total
    for plane in digits[-2::-1]:
        poll()
        # multiplication by 2^16 is a rotation of the 61 bits
        rotated = ((total << np.uint64(16)) & _P) | (total >> np.uint64(PRIME_BITS - 16))
        total = fold(rotated + plane.astype(np.uint64))
    return total


def residues(values: object, prime: int = PRIME) -> Residues:
    """Residues of (nested) Python ints or Fractions, of any shape, without p in a denominator."""
    array = np.array(values, dtype=object)
    flat = [
        int(v) % prime if isinstance(v, int) else v.numerator * inverse(v.denominator, prime) % prime
        for v in array.reshape(-1)
    ]
    return np.array(flat, dtype=np.uint64).reshape(array.shape)


def constant(value: int, prime: int = PRIME) -> Residues:
    """One residue as an array of any shape to broadcast to, 0-d."""
    return np.array(value % prime, dtype=np.uint64)


def inverse(value: int, prime: int = PRIME) -> int:
    """Inverse mod p of an integer; raises :class:`UnsuitablePrimeError` when p divides it."""
    if value % prime == 0:
        raise UnsuitablePrimeError("p divides a denominator of the given rational numbers")
    return pow(value, -1, prime)


def inverses_mod(values: Residues) -> Residues:
    """Inverses of non-zero residues (B,): three products each, by inverting products of pairs instead."""
    if len(values) < 8:
        return np.array([pow(int(v), -1, PRIME) for v in values], dtype=np.uint64)
    half = len(values) // 2
    left, right, rest = values[:half], values[half : 2 * half], values[2 * half :]
    inverted = inverses_mod(np.concatenate([multiply_mod(left, right), rest]))
    pairs = inverted[:half]
    return np.concatenate([multiply_mod(pairs, right), multiply_mod(pairs, left), inverted[half:]])


def point(seed: str, prime: int = PRIME) -> int:
    """A deterministic pseudo-random residue in [2, p), for T -> t."""
    return 2 + int.from_bytes(shake_256(f"point/{seed}".encode()).digest(16), "little") % (prime - 2)


def random_residues(seed: str, rows: int, cols: int) -> Residues:
    """A deterministic pseudo-random (rows, cols) matrix of residues."""
    raw = shake_256(f"matrix/{seed}".encode()).digest(8 * rows * cols)
    values: Residues = np.frombuffer(raw, dtype="<u8").astype(np.uint64) & _P
    return np.where(values == _P, np.uint64(0), values).reshape(rows, cols)
