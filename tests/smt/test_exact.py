"""Exact pieces of the SMT path: algebraic numbers, exponentials, isolation balls, lemmas, replay, cache."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest

from exan_verify.core.question import Loss
from exan_verify.errors import FileError, RangeError
from exan_verify.smt.question.algebraic import Point, Root
from exan_verify.smt.question.exponentials import is_zero
from exan_verify.smt.question.isolate import EVERYWHERE, isolation
from exan_verify.smt.question.replay import (
    ExactBatch,
    distance_exceeds,
    in_domain,
    matches_target,
    same_gradient,
)
from exan_verify.smt.question.terms import Poly
from exan_verify.smt.solvers.cache import AnswerCache, query_key
from exan_verify.smt.solvers.run import Answer, Strategy
from tests.support.smt_cases import named, posed

F = Fraction
a, b, x, y = (Poly.variable(n) for n in "abxy")


def root(*coefficients: int, low: str, high: str) -> Root:
    found = Root.of([F(c) for c in coefficients], F(low), F(high))
    assert isinstance(found, Root)
    return found


SQRT2 = root(-2, 0, 1, low="1", high="2")
SQRT8 = root(-8, 0, 1, low="2", high="3")


def test_signs_and_zeros_of_algebraic_elements() -> None:
    point = Point({"a": SQRT2, "b": SQRT8})
    assert point.sign(a * b - 4) == 0
    assert point.sign(b - a * 2) == 0
    assert point.sign(b - a * 2 + F(1, 10**60)) == 1
    assert point.sign(a * a * a - F(283, 100)) == -1
    assert point.sign(Poly.constant(F(-1, 3))) == -1
    assert Point().rational
    assert not point.rational


def test_the_negative_root_is_another_number() -> None:
    other = root(-2, 0, 1, low="-2", high="-1")
    assert Point({"a": SQRT2, "b": other}).sign(a + b) == 0
    assert Point({"a": SQRT2, "b": other}).sign(a - b) == 1


def test_roots_are_reduced_to_their_minimal_polynomial() -> None:
    assert Root.of([F(0), F(-8), F(0), F(2)], F(-1), F(1)) == 0
    assert Root.of([F(-3), F(2)], F(0), F(5)) == F(3, 2)
    assert root(0, -2, 0, 1, low="1", high="2").polynomial == (-2, 0, 1)


def test_an_interval_must_isolate() -> None:
    with pytest.raises(ValueError, match="does not isolate"):
        Root.of([F(-2), F(0), F(1)], F(-2), F(2))
    with pytest.raises(ValueError, match="does not isolate"):
        Root.of([F(-2), F(0), F(1)], F(3), F(4))


def test_too_large_algebras_are_refused() -> None:
    roots = {f"r{k}": root(-2 - k, 0, 0, 0, 0, 1, low="1", high="2") for k in range(3)}
    with pytest.raises(RangeError, match="joint degree 125"):
        Point(roots).sign(tricky(roots))


def tricky(roots: dict[str, Root]) -> Poly:
    """An element that is zero and looks it in no short computation: a product of minimal polynomials."""
    out = Poly.constant(1)
    for name, one in roots.items():
        value, power = Poly({}), Poly.constant(1)
        for c in one.polynomial:
            value, power = value + power * c, power * Poly.variable(name)
        out = out * value
    return out


def test_equal_exponentials_cancel_and_others_do_not() -> None:
    logits = {"p": ((F(1), F(0)), 0), "q": ((F(3), F(2)), 0), "r": ((F(0), F(1)), 1), "s": ((F(2), F(0)), 0)}
    p, q, r, s = (Poly.variable(n) for n in "pqrs")
    assert is_zero(p - q, logits, Loss.CROSS_ENTROPY)  # a common shift of the logits
    assert is_zero(p - r, logits, Loss.CROSS_ENTROPY)  # the same softmax, other class
    assert not is_zero(p - s, logits, Loss.CROSS_ENTROPY)
    assert is_zero(p * 2 - q - r, logits, Loss.CROSS_ENTROPY)
    assert not is_zero(p - F(7310585786300049, 10**16), logits, Loss.CROSS_ENTROPY)
    two = {"p": ((F(1), F(-1)), 0), "q": ((F(1), F(-1)), 1)}
    assert is_zero(p + q - 1, two, Loss.BCE)  # sigmoid(-f) = 1 - sigmoid(f)
    assert is_zero(p + q - 1, two, Loss.CROSS_ENTROPY)
    assert not is_zero(p - q, two, Loss.BCE)


def test_isolation_of_a_parabola() -> None:
    """x^2 = 4 at 2: the other root is 4 away; the bound must not reach it."""
    reach = isolation([x * x - 4], {"x": F(2)})
    assert reach == 4
    assert isolation([x * x - 4, x - 2], {"x": F(2)}) is not None
    assert isolation([x * 2 - 4], {"x": F(2)}) == EVERYWHERE
    assert isolation([x * x], {"x": F(0)}) is None
    assert isolation([x * y - 1, x + y - 2], {"x": F(1), "y": F(1)}) is None
    with pytest.raises(ValueError, match="does not solve"):
        isolation([x * x - 4], {"x": F(1)})


def test_isolation_of_higher_degree_stays_in_the_unit_cube() -> None:
    reach = isolation([x * x * x - x], {"x": F(0)})
    assert reach is not None
    assert 0 < reach <= 1


def test_replay_knows_the_batch_and_denies_a_changed_one() -> None:
    asked, truth = posed(named("plain/mse/bias/0"))
    batch = truth.batch
    assert matches_target(asked, batch)
    assert same_gradient(asked, batch, batch)
    assert in_domain(asked, batch)
    moved = type(batch)(
        x=((batch.x[0][0] + F(1, 10**9), *batch.x[0][1:]), batch.x[1]), y=batch.y, point=Point()
    )
    assert not matches_target(asked, moved)
    assert distance_exceeds(asked, moved, batch, F(0))
    assert not distance_exceeds(asked, moved, batch, F(1, 10**8))
    swapped = ExactBatch(x=batch.x[::-1], y=batch.y[::-1], point=Point())
    assert matches_target(asked, swapped)
    assert not distance_exceeds(asked, swapped, batch, F(0))


def test_softmax_gradients_are_compared_exactly() -> None:
    asked, truth = posed(named("twin/cross_entropy/bias/4"))
    batch = truth.batch
    assert same_gradient(asked, batch, batch) is True
    tiny = type(batch)(
        x=((batch.x[0][0] + F(1, 10**40), *batch.x[0][1:]), *batch.x[1:]), y=batch.y, point=Point()
    )
    assert same_gradient(asked, tiny, batch) is False


ANSWER = Answer("unsat", "z3/smt", work=7)
KEY = query_key("(check-sat)", Strategy("z3", "smt"), rlimit=5)


def test_answers_are_stored_by_content(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "deep" / "folder")
    assert cache.answer(KEY) is None
    cache.store(KEY, ANSWER)
    assert cache.answer(KEY) == ANSWER
    assert query_key("(check-sat)", Strategy("z3", "smt"), rlimit=6) != KEY
    assert query_key("(check-sat)", Strategy("z3", "default"), rlimit=5) != KEY
    assert query_key("(check-sat) ", Strategy("z3", "smt"), rlimit=5) != KEY
    assert AnswerCache(None).answer(KEY) is None


def test_killed_answers_are_not_stored(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.store(KEY, Answer("unknown", "z3/smt", killed=True))
    assert cache.answer(KEY) is None


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.store(KEY, ANSWER)
    (file,) = tmp_path.rglob("*.json")
    file.write_text(file.read_text()[:10])
    assert cache.answer(KEY) is None
    assert not file.exists()
    cache.store(KEY, ANSWER)
    assert json.loads(next(tmp_path.rglob("*.json")).read_text())["status"] == "unsat"


def test_many_writers_leave_one_whole_record(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cache.store(KEY, ANSWER), range(64)))
    assert [p.suffix for p in tmp_path.rglob("*") if p.is_file()] == [".json"]
    assert cache.answer(KEY) == ANSWER


def test_an_unwritable_cache_names_itself(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FileError, match="choose another"):
        AnswerCache(blocked).store(KEY, ANSWER)
