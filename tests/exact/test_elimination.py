"""Ranks on float64 BLAS: exact at the largest residues, against python-flint and against rank over Q."""

from __future__ import annotations

from itertools import combinations_with_replacement

import flint
import numpy as np
import pytest

from exan_verify.core.budget import Budget
from exan_verify.errors import BudgetExhausted
from exan_verify.exact import elimination, linalg, stacked
from exan_verify.exact.elimination import (
    PRIMES,
    TERMS,
    centre,
    floats,
    rank,
    reduced_echelon,
    subtract_product,
)
from exan_verify.exact.modular import PRIME
from exan_verify.exact.stacked import Stacked

LARGEST = (PRIMES[0] + 3) // 2
"""H: no residue is larger."""


def flint_rank(matrix, prime):
    rows = [int(v) % prime for v in np.asarray(matrix).reshape(-1)]
    return int(flint.nmod_mat(*matrix.shape, rows, prime).rank()) if rows else 0


def drawn(rng, prime, most=48):
    """Small integers or residues with a chance of a deficit, of zero rows and columns, and of repeats."""
    rows, columns, inner = (int(v) for v in rng.integers(1, most, 3))
    top = int(rng.choice([2, 50, prime]))
    left, right = rng.integers(0, top, (rows, inner)), rng.integers(0, top, (inner, columns))
    product = left.astype(object) @ right.astype(object)
    product[rng.random(rows) < 0.2] = 0
    product[:, rng.random(columns) < 0.2] = 0
    if rng.random() < 0.3:
        product[:, rng.integers(0, columns, columns // 2)] = product[:, [0]]
    if rng.random() < 0.3:  # pivots that are not among the first columns
        product = np.concatenate([np.zeros((rows, 60), dtype=object), product], axis=1)
    return product


@pytest.mark.parametrize("prime", PRIMES)
def test_the_primes_are_primes_below_the_bound_that_is_proved(prime):
    assert flint.fmpz(prime).is_prime()
    assert prime <= 2**23 - 15
    assert (prime + 3) // 2 <= 2**22 - 6
    assert TERMS * LARGEST**2 + 2 * LARGEST < 2**53


@pytest.mark.parametrize("prime", PRIMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_products_of_the_largest_residues_are_exact(prime, sign):
    """Every entry as large as it can be, all of one sign: sums of 512 products come within 2^-17 of 2^53."""
    largest = (prime + 3) // 2
    left, right = np.full((7, TERMS), float(largest)), np.full((TERMS, 9), float(sign * largest))
    values = np.full((7, 9), float(-sign * largest))
    exact = -sign * largest - TERMS * sign * largest * largest
    assert abs(exact) > 2**53 * (1 - 2**-17)
    found = subtract_product(values, left, right, prime)
    assert {(int(v) - exact) % prime for v in found.reshape(-1)} == {0}
    assert np.abs(found).max() <= largest


@pytest.mark.parametrize("terms", [1, 17, 511, 512, 513, 1024, 1300])
def test_products_are_those_of_integers(terms):
    """Against Python's integers: residues at both ends of their range and between, in any number of terms."""
    rng, p = np.random.default_rng(terms), PRIMES[0]
    ends = np.array([-LARGEST, LARGEST, LARGEST - 1, 0, 1])
    for choices in (ends, np.arange(-LARGEST, LARGEST + 1)):
        left, right, values = (rng.choice(choices, shape) for shape in ((5, terms), (terms, 4), (5, 4)))
        exact = values.astype(object) - left.astype(object) @ right.astype(object)
        found = subtract_product(values.astype(float), left.astype(float), right.astype(float), p)
        assert not np.any((found.astype(np.int64).astype(object) - exact) % p)
        assert np.abs(found).max() <= LARGEST


def test_integers_up_to_the_largest_are_centred():
    """Multiples of p, half-way points and their neighbours, up to 512 H^2 + H."""
    rng, p = np.random.default_rng(1), PRIMES[0]
    most = TERMS * LARGEST**2 + LARGEST
    near = rng.integers(0, most // p, 3000) * p
    values = np.concatenate([near + k for k in (-1, 0, 1, p // 2, p // 2 + 1)] + [[0, most, most - 1]])
    values = np.concatenate([values, -values])
    found = centre(values.astype(float), p)
    assert not np.any((found.astype(np.int64) - values) % p)
    assert np.abs(found).max() <= LARGEST
    assert np.array_equal(found == 0, values % p == 0)


def test_ranks_are_those_of_python_flint():
    rng = np.random.default_rng(2)
    for _ in range(150):
        prime = int(rng.choice([*PRIMES, 5, 101]))
        matrix = drawn(rng, prime)
        assert rank(floats((matrix % prime).astype(np.uint64), prime), prime) == flint_rank(matrix, prime)


def test_ranks_are_those_over_the_rationals_where_numbers_are_small():
    """Minors of these matrices are below p, so no rank is lost."""
    rng = np.random.default_rng(3)
    short = 0
    for _ in range(100):
        rows, columns, inner = (int(v) for v in rng.integers(1, 6, 3))
        matrix = rng.integers(-1, 2, (rows, inner)) @ rng.integers(-1, 2, (inner, columns))
        found = rank(matrix.astype(float), PRIMES[0])
        assert found == linalg.rank(matrix.astype(object))
        assert found == linalg.rank_mod((matrix % PRIME).astype(np.uint64))
        short += found < min(rows, columns)
    assert short > 20


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_empty_and_zero_matrices_have_rank_zero(shape):
    assert rank(np.zeros(shape), PRIMES[0]) == 0


def test_ranks_of_several_panels():
    """More rows than are eliminated at once, with a deficit, dependent first columns and every row twice."""
    rng, p = np.random.default_rng(4), PRIMES[0]
    left, right = rng.integers(0, p, (700, 600)), rng.integers(0, p, (600, 800))
    product = centre(np.zeros((700, 800)), p)
    subtract_product(product, floats(left.astype(np.uint64), p), floats(right.astype(np.uint64), p), p)
    product[:, :300] = product[:, [0]]
    assert rank(product, p) == 501
    assert rank(product.T.copy(), p) == 501
    assert rank(np.concatenate([product, product]), p) == 501


def test_all_residues_as_large_as_can_be():
    """p - 1 everywhere but on the diagonal, where it is 0: the determinant is (n - 1) up to its sign."""
    p = PRIMES[0]
    matrix = np.full((600, 600), p - 1, dtype=np.uint64)
    np.fill_diagonal(matrix, 0)
    assert rank(floats(matrix, p), p) == 600
    np.fill_diagonal(matrix, p - 1)
    assert rank(floats(matrix, p), p) == 1


def test_reduced_echelon_form_is_what_python_flint_finds():
    rng = np.random.default_rng(5)
    for _ in range(40):
        prime = int(rng.choice([*PRIMES, 7]))
        matrix = drawn(rng, prime, 40)
        rows = floats((matrix % prime).astype(np.uint64), prime)
        pivots = reduced_echelon(rows, matrix.shape[1], prime)
        kept = np.argsort(pivots)[np.count_nonzero(pivots < 0) :]
        reduced, found = flint.nmod_mat(
            *matrix.shape, [int(v) % prime for v in matrix.reshape(-1)], prime
        ).rref()
        theirs = np.array([[int(reduced[i, k]) for k in range(matrix.shape[1])] for i in range(found)])
        assert np.array_equal(rows[kept] % prime, theirs.reshape(found, matrix.shape[1]))


def products(rng, sizes, prime, filled=0.6, *, solved=False):
    """Equations of degree two times every variable, in an order of monomials: as lifting makes them.

    ``solved``: products of two linear forms, one of which is zero at each of the samples' unit vectors.
    """
    neurons, samples, extra = (int(v) for v in sizes)
    variables = samples + extra
    pairs = [m for m in combinations_with_replacement(range(variables), 2) if m[0] < samples]
    triples = [m for m in combinations_with_replacement(range(variables), 3) if m[0] < samples]
    pairs, triples = (sorted(found, key=lambda m: m[::-1]) for found in (pairs, triples))
    block = rng.integers(0, prime, (neurons, len(pairs))) * (rng.random((neurons, len(pairs))) < filled)
    if neurons > 3:
        block[1] = block[0]
    if solved:
        weights, following = (
            rng.integers(0, prime, (neurons, extra)),
            rng.integers(0, prime, (extra, samples)),
        )
        delta = weights.astype(object) @ following.astype(object) % prime
        delta *= rng.random((neurons, samples)) < filled
        second = np.concatenate([delta, -weights.astype(object)], axis=1)
        for k, (a, b) in enumerate(pairs):
            block[:, k] = delta[:, a] * second[:, b] * (1 if a == b or b >= samples else 2) % prime
    column = {m: k for k, m in enumerate(triples)}
    places = [[column[tuple(sorted((*m, x)))] for m in pairs] for x in range(variables)]
    block = floats(block.astype(np.uint64), prime)
    return Stacked(block=block, places=np.array(places), columns=len(triples), prime=prime)


def placed_at_random(rng, prime):
    """Copies at increasing columns of no order of monomials."""
    copies, width, rows = (int(v) for v in rng.integers(1, 7, 3))
    columns = width + int(rng.integers(0, 12))
    places = [np.sort(rng.choice(columns, width, replace=False)) for _ in range(copies)]
    block = rng.integers(0, prime, (rows, width)) * (rng.random((rows, width)) < 0.5)
    block = floats(block.astype(np.uint64), prime)
    return Stacked(block=block, places=np.array(places), columns=columns, prime=prime)


def test_ranks_of_stacked_copies_are_those_of_the_matrix():
    rng = np.random.default_rng(6)
    for k in range(120):
        prime = int(rng.choice([*PRIMES, 5]))
        sizes = rng.integers(1, 30), rng.integers(1, 6), rng.integers(0, 4)
        filled = float(rng.choice([0.15, 0.6, 1.0]))
        system = placed_at_random(rng, prime) if k % 2 else products(rng, sizes, prime, filled)
        expected = flint_rank(system.dense(), prime)
        assert system.rank() == expected
        assert system.rank(10**9) == expected
        told = []
        assert min(expected, 3) <= system.rank(3, told.append) <= expected
        assert told == sorted(told)
        assert told[0] == 0


def test_null_spaces_of_stacked_copies_are_not_lost():
    """Where solutions keep the rank below the number of columns, an entry cleared wrongly would raise it."""
    rng = np.random.default_rng(11)
    for _ in range(60):
        sizes = rng.integers(8, 40), rng.integers(2, 7), rng.integers(1, 4)
        system = products(rng, sizes, PRIMES[0], float(rng.choice([0.15, 0.3, 0.5])), solved=True)
        found = system.rank()
        assert found == flint_rank(system.dense(), PRIMES[0])
        assert found <= system.columns - sizes[1]


def test_counting_stops_where_it_is_enough(monkeypatch):
    monkeypatch.setattr(stacked, "TERMS", 10)
    system = products(np.random.default_rng(7), (40, 8, 2), PRIMES[0], 1.0)
    whole, few = [], []
    assert system.rank(None, whole.append) == flint_rank(system.dense(), PRIMES[0])
    found = system.rank(whole[-1] - 5, few.append)
    assert whole[-1] - 5 <= found <= whole[-1]
    assert len(few) < len(whole)


def test_levels_beyond_the_most_are_eliminated_as_other_rows_are(monkeypatch):
    rng = np.random.default_rng(8)
    for most in (0, 1, 2):
        monkeypatch.setattr(stacked, "_MOST_LEVELS", most)
        for _ in range(10):
            system = products(rng, (12, 4, 2), PRIMES[0], 0.3)
            assert system.rank() == flint_rank(system.dense(), PRIMES[0])


def test_copies_whose_columns_do_not_increase_are_refused():
    with pytest.raises(ValueError, match="must increase"):
        Stacked(block=np.ones((1, 2)), places=np.array([[1, 0]]), columns=2, prime=PRIMES[0])


def test_memory_is_planned_before_the_long_part(monkeypatch):
    system = products(np.random.default_rng(9), (30, 6, 2), PRIMES[0], 1.0)
    assert stacked.least_memory(system.columns) < system.memory
    monkeypatch.setattr(stacked, "memory_available", lambda: system.memory - 1)
    monkeypatch.setattr(elimination.Echelon, "add", None)
    with pytest.raises(MemoryError, match=r"would take 0\.0\d GiB of memory"):
        system.rank()


def test_the_budget_ends_it():
    matrix = np.random.default_rng(10).integers(0, 99, (600, 600)).astype(float)
    with Budget(seconds=1e-9).kept(), pytest.raises(BudgetExhausted):
        rank(matrix, PRIMES[0])
