from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.exact import linalg
from exan_verify.exact.modular import PRIME
from tests.conftest import examples

SMALL = st.fractions(min_value=-4, max_value=4, max_denominator=5)


def array(values):
    out = np.empty((len(values), len(values[0])), dtype=object)
    for i, row in enumerate(values):
        for k, v in enumerate(row):
            out[i, k] = Fraction(v)
    return out


@st.composite
def low_rank(draw, rows=4, cols=5):
    k = draw(st.integers(0, 3))
    left = draw(st.lists(st.lists(SMALL, min_size=k, max_size=k), min_size=rows, max_size=rows))
    right = draw(st.lists(st.lists(SMALL, min_size=cols, max_size=cols), min_size=k, max_size=k))
    return array(
        [
            [sum((a * right[t][c] for t, a in enumerate(row)), Fraction(0)) for c in range(cols)]
            for row in left
        ]
    )


@examples(100)
@given(matrix=low_rank())
def test_rank_pivots_and_null_space_agree(matrix):
    rank = linalg.rank(matrix)
    chosen = linalg.pivots(matrix)
    assert len(chosen) == rank
    assert not chosen or linalg.rank(matrix[:, chosen]) == rank
    null = linalg.nullspace(matrix)
    assert null.shape[1] == matrix.shape[1] - rank
    if null.shape[1]:
        assert not np.any(linalg.multiply(matrix, null) != 0)
        assert linalg.rank(null) == null.shape[1]


@examples(100)
@given(matrix=low_rank(rows=5, cols=3), data=st.data())
def test_solve_finds_the_unique_solution_or_says_none(matrix, data):
    x = array([[data.draw(SMALL)] for _ in range(3)])
    right = linalg.multiply(matrix, x)
    found = linalg.solve(matrix, right)
    if linalg.rank(matrix) < 3:
        assert found is None
    else:
        assert np.array_equal(found, x)
        right[4, 0] += 1
        changed = linalg.solve(matrix, right)
        assert changed is None or np.array_equal(linalg.multiply(matrix, changed), right)


def test_rank_mod_p_is_a_lower_bound():
    assert linalg.rank_mod(np.array([[1, 2], [2, 4]], dtype=np.uint64)) == 1
    assert linalg.rank_mod(np.array([[PRIME - 1, 1], [1, 1]], dtype=np.uint64)) == 2
    assert linalg.rank_mod(np.zeros((0, 3), dtype=np.uint64)) == 0


def test_eigenvalues_of_a_rational_matrix():
    matrix = array([[2, 1], [0, Fraction(1, 3)]])
    roots = linalg.rational_roots(linalg.characteristic_polynomial(matrix))
    assert sorted(roots) == [(Fraction(1, 3), 1), (Fraction(2), 1)]
    assert linalg.rational_roots([Fraction(-2), Fraction(0), Fraction(1)]) == []  # x^2 - 2
