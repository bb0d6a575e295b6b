"""Exact linear programs: every answer's own proof, and the same answer as an independent solver."""

import ctypes
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from exan_verify.errors import InputError
from exan_verify.exact import lp
from exan_verify.exact.lp import (
    Program,
    Solution,
    Status,
    feasible,
    guessed_optimum,
    proved,
    solve,
    vanishing,
)
from tests.conftest import examples


def test_an_optimum_at_a_vertex():
    program = Program.of([1, 1], rows=[[1, 2], [3, 1], [-1, 0], [0, -1]], bounds=[4, 6, 0, 0])
    solution = solve(program)
    assert solution.status is Status.OPTIMAL
    assert solution.point == (Fraction(8, 5), Fraction(6, 5))
    assert solution.value == Fraction(14, 5)
    assert proved(program, solution)


def test_equalities_and_signs():
    program = Program.of([1, 0, -1], equalities=[[1, 1, 1]], targets=[Fraction(1, 3)], signs=[1, 1, -1])
    solution = solve(program)
    assert solution.status is Status.UNBOUNDED
    assert proved(program, solution)
    bounded = Program.of([1, 0, 1], equalities=[[1, 1, 1]], targets=[Fraction(1, 3)], signs=[1, 1, -1])
    assert solve(bounded).value == Fraction(1, 3)


def test_infeasible_for_reasons_of_every_kind():
    for program in (
        Program.of([0], rows=[[1], [-1]], bounds=[0, -1]),
        Program.of([0, 0], equalities=[[1, 1], [2, 2]], targets=[1, 3]),
        Program.of([0, 0], equalities=[[1, 1], [2, 2]], targets=[1, 1]),
        Program.of([1], rows=[[1]], bounds=[-1], signs=[1]),
        Program.of([1], equalities=[[1]], targets=[1], signs=[-1]),
        Program.of([0], rows=[[0]], bounds=[-1]),
    ):
        solution = solve(program)
        assert solution.status is Status.INFEASIBLE
        assert proved(program, solution)


def test_no_constraints():
    assert solve(Program.of([0, 0])).point == (0, 0)
    assert solve(Program.of([0, -1])).ray == (0, -1)
    assert solve(Program.of([0, -1], signs=[0, 1])).value == 0


def test_beales_cycling_example_ends():
    program = Program.of(
        [Fraction(3, 4), -150, Fraction(1, 50), -6],
        rows=[
            [Fraction(1, 4), -60, -Fraction(1, 25), 9],
            [Fraction(1, 2), -90, -Fraction(1, 50), 3],
            [0, 0, 1, 0],
        ],
        bounds=[0, 0, 1],
        signs=[1, 1, 1, 1],
    )
    solution = solve(program)
    assert solution.value == Fraction(1, 20)
    assert proved(program, solution)


def test_the_least_index_rule_alone(monkeypatch):
    monkeypatch.setattr(lp, "_PATIENCE", 0)
    test_beales_cycling_example_ends()
    test_infeasible_for_reasons_of_every_kind()
    rng = np.random.default_rng(0)
    for _ in range(30):
        program = Program.of(
            rng.integers(-3, 4, 4).tolist(),
            rows=rng.integers(-3, 4, (6, 4)).tolist(),
            bounds=rng.integers(-2, 6, 6).tolist(),
            signs=rng.integers(-1, 2, 4).tolist(),
        )
        assert proved(program, solve(program))


def test_a_forged_proof_is_not_a_proof():
    program = Program.of([1], rows=[[1]], bounds=[2])
    true = solve(program)
    assert proved(program, true)
    for forged in (
        Solution(
            status=Status.OPTIMAL, point=(Fraction(1),), value=Fraction(1), multipliers=true.multipliers
        ),
        Solution(
            status=Status.OPTIMAL, point=(Fraction(3),), value=Fraction(3), multipliers=true.multipliers
        ),
        Solution(status=Status.OPTIMAL, point=true.point, value=true.value, multipliers=(Fraction(-1),)),
        Solution(status=Status.OPTIMAL, point=true.point, value=true.value),
        Solution(status=Status.UNBOUNDED, point=true.point, ray=(Fraction(1),)),
        Solution(status=Status.INFEASIBLE, multipliers=(Fraction(1),)),
    ):
        assert not proved(program, forged)


def test_malformed_programs_are_named():
    with pytest.raises(InputError, match="row 0 has 1 entries"):
        Program.of([1, 2], rows=[[1]], bounds=[0])
    with pytest.raises(InputError, match="right-hand side"):
        Program.of([1], rows=[[1]])
    with pytest.raises(InputError, match="signs"):
        Program.of([1], signs=[2])


@st.composite
def programs(draw):
    n = draw(st.integers(1, 5))
    numbers = st.integers(-3, 3)
    vector = st.lists(numbers, min_size=n, max_size=n)
    rows = draw(st.lists(vector, max_size=7))
    equalities = draw(st.lists(vector, max_size=3))
    return Program.of(
        draw(vector),
        rows=rows,
        bounds=draw(st.lists(st.integers(-2, 5), min_size=len(rows), max_size=len(rows))),
        equalities=equalities,
        targets=draw(st.lists(numbers, min_size=len(equalities), max_size=len(equalities))),
        signs=draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=n, max_size=n)),
    )


@examples(400)
@given(programs())
def test_every_answer_is_proved_and_agrees_with_highs(program):
    solution = solve(program)
    assert proved(program, solution)
    ranges = {0: (None, None), 1: (0, None), -1: (None, 0)}
    rows = np.array(program.rows, dtype=float).reshape(-1, len(program.objective))
    equal = np.array(program.equalities, dtype=float).reshape(-1, len(program.objective))
    other = linprog(
        -np.array(program.objective, dtype=float),
        A_ub=rows,
        b_ub=np.array(program.bounds, dtype=float),
        A_eq=equal,
        b_eq=np.array(program.targets, dtype=float),
        bounds=[ranges[s] for s in program.signs],
    )
    # HiGHS presolve may answer "infeasible or unbounded" (4)
    expected = {Status.OPTIMAL: {0}, Status.INFEASIBLE: {2, 4}, Status.UNBOUNDED: {3, 4}}
    assert other.status in expected[solution.status]
    if solution.status is Status.OPTIMAL:
        assert float(solution.value) == pytest.approx(-other.fun, abs=1e-7)
    if solution.point is not None:
        assert feasible(program, solution.point)


def test_what_a_solver_prints_does_not_reach_stdout(monkeypatch, capfd):
    """HiGHS prints with C's printf; the reader of a command's JSON must not see it."""

    def printing(*_: object, **__: object) -> str:
        ctypes.CDLL(None).printf(b"Highs::returnFromOptimizeModel\n")
        return "answer"

    monkeypatch.setattr("scipy.optimize.linprog", printing)
    assert guessed_optimum([1.0]) == "answer"
    print("json")
    out, err = capfd.readouterr()
    assert out == "json\n"
    assert "returnFromOptimizeModel" in err


def test_a_combination_that_vanishes_is_found_where_it_is_the_only_one():
    """``y rows + z equalities = 0`` with y > 0; None where a sign is wrong or there are several."""

    def exact(rows):
        return np.array([[Fraction(v) for v in row] for row in rows], dtype=object).reshape(-1, 2)

    y, z = vanishing(exact([[1, 0], [-2, 3]]), exact([[0, 1]]))
    assert [y[1] / y[0], z[0] / y[0]] == [Fraction(1, 2), Fraction(-3, 2)]
    assert vanishing(exact([[1, 0], [2, 0]]), exact([])) is None
    assert vanishing(exact([[1, 0], [-1, 0], [-1, 0]]), exact([])) is None
    assert vanishing(exact([[1, 0]]), exact([[0, 1]])) is None
    assert vanishing(exact([[-1, 0], [1, 0]]), exact([])) is not None
