from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.core.network import exact_array, to_fraction
from exan_verify.exact import modular
from exan_verify.exact.dyadic import scaled
from exan_verify.exact.elimination import PRIMES
from exan_verify.exact.modular import PRIME
from exan_verify.exact.rational import (
    RationalMatrix,
    carry,
    one_below_another,
    product,
    product_mod,
    residue_product,
    side_by_side,
)
from tests.conftest import examples

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e30, max_value=1e30)
NUMBERS = st.one_of(FLOATS, st.fractions(max_denominator=50), st.integers(-(2**70), 2**70))


def matrices(rows, cols, numbers=NUMBERS):
    return st.lists(st.lists(numbers, min_size=cols, max_size=cols), min_size=rows, max_size=rows)


def fractions(values):
    return [[to_fraction(v) for v in row] for row in values]


@examples(150)
@given(values=matrices(2, 3))
def test_matrices_hold_their_values_exactly(values):
    held = RationalMatrix.of(exact_array(values, "v"))
    assert held.fractions().tolist() == fractions(exact_array(values, "v"))
    assert held.positive().tolist() == [[v > 0 for v in row] for row in held.fractions()]
    assert held.nonzero().tolist() == [[v != 0 for v in row] for row in held.fractions()]


@examples(150)
@given(a=matrices(2, 4), b=matrices(4, 3))
def test_products_are_exact(a, b):
    left, right = exact_array(a, "a"), exact_array(b, "b")
    got = product(left, RationalMatrix.of(right)).fractions().tolist()
    want = [
        [
            sum((x * y for x, y in zip(row, col, strict=True)), Fraction(0))
            for col in zip(*fractions(right), strict=True)
        ]
        for row in fractions(left)
    ]
    assert got == want
    assert product(RationalMatrix.of(left), RationalMatrix.of(right)).fractions().tolist() == want


@examples(80)
@given(a=matrices(2, 3), b=matrices(3, 2))
def test_residues_mod_a_small_prime(a, b):
    """Residues of values, of products with residues, and entrywise arithmetic, against Python's integers."""
    p = PRIMES[0]

    def reduced(values):
        return [[v.numerator * pow(v.denominator, -1, p) % p for v in row] for row in values]

    left, right = exact_array(a, "a"), exact_array(b, "b")
    held = RationalMatrix.of(right).residues(p)
    assert held.tolist() == reduced(fractions(right)) == modular.residues(fractions(right), p).tolist()
    want = RationalMatrix.of(left), RationalMatrix.of(right)
    assert product_mod(left, held, p).tolist() == reduced(product(*want).fractions().tolist())
    one, two = held[:2], held[1:]
    for found, exact in (
        (modular.multiply_mod(one, two, p), one.astype(object) * two.astype(object)),
        (modular.add_mod(one, two, p), one.astype(object) + two.astype(object)),
        (modular.negate_mod(one, p), -one.astype(object)),
    ):
        assert (found == (exact % p).astype(np.uint64)).all()
        assert found.dtype == np.uint64


def test_the_largest_residues_of_a_small_prime():
    p = PRIMES[0]
    most = np.array([[p - 1, p - 1]], dtype=np.uint64)
    assert modular.multiply_mod(most, most, p).tolist() == [[1, 1]]
    assert modular.add_mod(most, most, p).tolist() == [[p - 2, p - 2]]
    assert product_mod(np.full((1, 1), -1.0), most, p).tolist() == [[1, 1]]
    with pytest.raises(modular.UnsuitablePrimeError):
        modular.inverse(3 * p, p)


@examples(80)
@given(a=matrices(3, 2), c=matrices(3, 1))
def test_adding_a_column(a, c):
    left, column = RationalMatrix.of(exact_array(a, "a")), RationalMatrix.of(exact_array(c, "c"))
    got = left.plus_column(column).fractions()
    assert got.tolist() == [
        [v + w[0] for v in row] for row, w in zip(left.fractions(), column.fractions(), strict=True)
    ]
    assert left.row_sums().fractions()[:, 0].tolist() == [sum(row) for row in left.fractions()]


def test_extreme_exponents_are_exact():
    array = exact_array([[5e-324, 1.5e308], [-3.0, 2.0**-1000]], "v")
    assert RationalMatrix.of(array).fractions().tolist() == [[Fraction(v) for v in row] for row in array]
    assert scaled(array).count > 63  # the branch for ranges that float planes cannot hold


def test_blocks_are_joined_exactly(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 50)), rng.normal(size=(50, 4))
    whole = product(a, RationalMatrix.of(b)).fractions()
    monkeypatch.setattr("exan_verify.exact.rational._BLOCK_ENTRIES", 21)
    assert np.array_equal(product(a, RationalMatrix.of(b)).fractions(), whole)


def test_blocks_of_different_lengths_keep_their_signs():
    """A block's last digit carries the sign of its numbers, and need not be the last of all."""
    long, short = (
        RationalMatrix.of(np.vectorize(Fraction, otypes=[object])(rows))
        for rows in ([[1 << 60, 5], [-3, 0]], [[-1], [-(1 << 20)]])
    )
    assert len(long.digits) > len(short.digits)
    joined = RationalMatrix(side_by_side([long.digits, short.digits]), 1)
    expected = np.concatenate([long.fractions(), short.fractions()], axis=1)
    assert (joined.fractions() == expected).all()
    assert (joined.positive() == (expected > 0)).all()
    below = one_below_another([short, RationalMatrix(long.digits[:, :, :1], 3)])
    assert (below.fractions() == np.concatenate([short.fractions(), long.fractions()[:, :1] / 3])).all()
    assert (below.positive() == (below.fractions() > 0)).all()


def test_long_sums_of_the_largest_digits_stay_exact():
    terms = 300_000
    a = np.full((1, terms), 2.0**32 - 1)
    total = product(a, RationalMatrix.of(a.T)).fractions()[0, 0]
    assert total == terms * (2**32 - 1) ** 2


def test_masks_drop_values():
    held = RationalMatrix.of(np.array([[-(2.0**40), 3.0]]))
    assert held.masked(np.array([[False, True]])).fractions().tolist() == [[0, 3]]


@examples(200)
@given(a=st.integers(0, PRIME - 1), b=st.integers(0, PRIME - 1))
def test_modular_arithmetic_is_pythons(a, b):
    x, y = modular.constant(a), modular.constant(b)
    assert int(modular.multiply_mod(x, y)) == a * b % PRIME
    assert int(modular.add_mod(x, y)) == (a + b) % PRIME
    assert int(modular.negate_mod(x)) == -a % PRIME


@pytest.mark.parametrize("value", [0, 1, PRIME - 1, PRIME - 2, 1 << 60])
def test_modular_edges(value):
    edge = modular.constant(value)
    assert int(modular.multiply_mod(edge, edge)) == value * value % PRIME
    assert int(modular.fold(np.array(2**64 - 1, dtype=np.uint64))) == (2**64 - 1) % PRIME


@examples(60)
@given(a=matrices(2, 3), data=st.data())
def test_residues_of_products(a, data):
    left = exact_array(a, "a")
    right = np.array(data.draw(matrices(3, 2, st.integers(0, PRIME - 1))), dtype=np.uint64)
    want = [
        [
            sum(_residue(x) * int(y) for x, y in zip(row, col, strict=True)) % PRIME
            for col in zip(*right.tolist(), strict=True)
        ]
        for row in fractions(left)
    ]
    assert product_mod(left, right).tolist() == want
    as_residues = np.array([[_residue(v) for v in row] for row in fractions(left)], dtype=np.uint64)
    assert residue_product(as_residues, right).tolist() == want
    assert RationalMatrix.of(left).residues().tolist() == as_residues.tolist()


def test_p_in_a_denominator_is_an_error():
    with pytest.raises(modular.UnsuitablePrimeError):
        RationalMatrix.of(exact_array([[Fraction(1, PRIME)]], "v")).residues()


def test_carry_handles_negative_planes():
    planes = np.array([[[-1, 70000]], [[0, -2]]], dtype=np.int64)
    held = RationalMatrix(carry(planes), 1)
    assert held.integers().tolist() == [[-1, 70000 - 2 * 65536]]


def test_points_and_matrices_are_deterministic_and_in_range():
    assert modular.point("a") == modular.point("a") != modular.point("b")
    drawn = modular.random_residues("a", 50, 40)
    assert np.array_equal(drawn, modular.random_residues("a", 50, 40))
    assert drawn.max() < PRIME
    assert len(np.unique(drawn)) == drawn.size


def _residue(value: Fraction) -> int:
    return value.numerator * pow(value.denominator, -1, PRIME) % PRIME
