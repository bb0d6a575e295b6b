"""Cubes: complete, disjoint, ordered; exported text is what is solved in process."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from exan_verify.errors import FileError
from exan_verify.smt import portfolio
from exan_verify.smt.confirm import accept_model
from exan_verify.smt.cubes import Task, all_literals, build, completeness, cube_tasks
from exan_verify.smt.portfolio import NLSAT, Outcome, Round, Settings
from exan_verify.smt.question.difference import placements, values_at
from exan_verify.smt.question.encode import encode
from exan_verify.smt.search import Search, own_cube
from exan_verify.smt.second_solver import second_opinion
from exan_verify.smt.smtlib import cube_files, whole_question, write_files, write_text
from exan_verify.smt.solvers.run import SAT, UNSAT, SolverDisagreementError, Strategy, Worker
from tests.support.smt_cases import named, own_literals, posed


def listed(name: str) -> tuple[Search, list[list[bool]]]:
    asked, _ = posed(named(name))
    search = Search(asked, Settings())
    return search, [bits for _, page in search.pages(Outcome()) for bits in page]


@pytest.mark.parametrize("name", ["plain/mse/nobias/3", "plain/hinge/bias/0", "plain/bce/bias/4"])
def test_the_list_is_complete_for_both_solvers(worker: Worker, name: str) -> None:
    search, cubes = listed(name)
    assert search.complete
    assert len({tuple(c) for c in cubes}) == len(cubes)
    text = completeness(search.posed, cubes).text()
    for strategy in (Strategy("z3", "smt"), Strategy("cvc5")):
        assert worker.ask(text, strategy, seconds=20).status == UNSAT
    short = completeness(search.posed, cubes[1:]).text()
    assert worker.ask(short, Strategy("z3", "smt"), seconds=20).status == SAT


def test_pages_do_not_change_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = listed("plain/mse/nobias/3")
    monkeypatch.setattr("exan_verify.smt.search.FIRST_PAGE", 2)
    _, paged = listed("plain/mse/nobias/3")
    assert sorted(whole) == sorted(paged)


@pytest.mark.parametrize("name", ["plain/mse/nobias/3", "shared/hinge/bias/1", "equal/bce/bias/0"])
def test_the_known_batch_lies_in_its_own_cube(name: str) -> None:
    asked, truth = posed(named(name))
    fixed = dict(zip(all_literals(asked), own_cube(truth), strict=True))
    assert list(placements(asked, truth, fixed))
    flipped = {k: not v for k, v in fixed.items()}
    assert not list(placements(asked, truth, flipped))


def test_without_the_excluded_ball_the_known_batch_is_the_model(worker: Worker) -> None:
    """The own cube is satisfiable, by the batch; with the ball excluded it is not."""
    asked, truth = posed(named("plain/mse/bias/0"))
    fixed = own_literals(asked, truth)
    plain = encode(asked, fixed).script.text()
    answer = worker.ask(plain, Strategy("z3", "qfnra-nlsat"), seconds=20)
    assert answer.status == SAT
    task = cube_tasks(Task(index=0, posed=asked, others=(truth,)), [own_cube(truth)])[0]
    assert task.reaches
    assert worker.ask(build(task).text(), Strategy("z3", "qfnra-nlsat"), seconds=20).status == UNSAT


def test_the_ball_is_no_wider_than_another_solution_is_away() -> None:
    """x^2-like: batches of one sample without biases have a mirror solution in real labels."""
    asked, truth = posed(named("plain/mse/nobias/2"))
    task = cube_tasks(Task(index=0, posed=asked, others=(truth,)), [own_cube(truth)])[0]
    encoding = encode(asked, task.assignment)
    for order, reach in task.reaches:
        values = values_at(encoding, truth, order)
        for name, value in values.items():
            moved = {**values, name: value + reach * Fraction(63, 64)}
            assert any(e.at(moved) for _, e in encoding.equations)


def test_a_missing_sample_is_a_question_of_its_own(worker: Worker) -> None:
    asked, truth = posed(named("plain/mse/bias/0"))
    task = Task(index=-1, posed=asked, others=(truth,), missing=0)
    assert worker.ask(build(task).text(), Strategy("z3", "smt"), seconds=20).status == UNSAT


def test_rounds_are_tried_in_turn_and_models_accepted() -> None:
    asked, truth = posed(named("plain/mse/bias/1"))
    whole = Task(index=0, posed=asked, others=(truth,))
    found = portfolio.run([whole], Settings(rounds=(Round(NLSAT, 1), Round(NLSAT, 500_000))), accept_model)
    assert found.accepted is not None
    assert not found.inconclusive
    nothing = portfolio.run([whole], Settings(rounds=(Round(NLSAT, 1),)), accept_model)
    assert nothing.inconclusive
    assert list(nothing.open) == [0]


@pytest.mark.parametrize("name", ["plain/mse/nobias/3", "plain/hinge/nobias/2", "plain/bce/bias/4"])
def test_exported_cubes_are_the_solved_ones(
    worker: Worker, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripped of comments, each file is the text that the solver was asked in process."""
    asked, truth = posed(named(name))
    files = dict(cube_files(asked, truth))
    cubes = {k: v for k, v in files.items() if k.startswith("cube")}
    asked_texts: list[str] = []
    original = portfolio.query

    def spy(text: str, *rest: object) -> object:
        asked_texts.append(text)
        return original(text, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(portfolio, "query", spy)
    search, bits = listed(name)
    tasks = cube_tasks(Task(index=-1, posed=search.posed, others=(truth,)), bits)
    for task in tasks:
        portfolio.solve(task, Round(NLSAT, 500_000), Settings())
    assert set(asked_texts) <= {without_comments(text) for text in cubes.values()}
    for text in cubes.values():
        assert worker.ask(text, Strategy("cvc5"), seconds=1).status in (UNSAT, "unknown")


def without_comments(text: str) -> str:
    return "".join(line + "\n" for line in text.splitlines() if not line.startswith(";"))


@pytest.mark.parametrize("name", ["plain/mse/bias/1", "plain/hinge/bias/1", "plain/bce/bias/2"])
def test_both_solvers_read_the_whole_question(worker: Worker, name: str) -> None:
    asked, truth = posed(named(name))
    text = whole_question(asked, truth)
    assert text.startswith("; Which batches of")
    for strategy in (Strategy("z3", "smt"), Strategy("cvc5")):
        worker.ask(text, strategy, seconds=2)


def test_the_exact_export_uses_exp_and_cvc5_refutes_with_it(worker: Worker) -> None:
    asked, truth = posed(named("plain/bce/bias/0"))
    files = dict(cube_files(asked, truth, exact=True))
    assert "QF_NRAT" in files["cube00000.smt2"]
    assert "(exp " in files["cube00000.smt2"]
    for name, text in files.items():
        if name.endswith(".smt2"):
            assert worker.ask(text, Strategy("cvc5"), seconds=20).status == UNSAT
    rational, known = posed(named("plain/mse/bias/0"))
    assert "exp" not in whole_question(rational, known, exact=True)


def test_export_writes_a_new_folder_only(tmp_path: Path) -> None:
    asked, truth = posed(named("plain/mse/bias/0"))
    files = dict(cube_files(asked, truth))
    write_files(tmp_path / "new", files)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(files)
    assert (tmp_path / "new" / "index.txt").read_text() == files["index.txt"]
    with pytest.raises(FileError, match="not empty"):
        write_files(tmp_path / "new", files)
    with pytest.raises(FileError, match="another path"):
        write_text(tmp_path / "missing" / "file.smt2", "")


def test_contradicting_solvers_are_an_error_with_the_query_saved(tmp_path: Path) -> None:
    """z3 is said to have refuted a satisfiable query; cvc5 finds a model."""
    text = "(set-logic QF_NRA)(declare-fun x () Real)(assert (= (* x x) 2.0))(check-sat)"
    with pytest.raises(SolverDisagreementError, match="says sat") as caught:
        second_opinion("a cube", text, "z3", Settings(cache=tmp_path / "answers"))
    (saved,) = (tmp_path / "answers").rglob("query.smt2")
    assert str(saved) in str(caught.value)
    assert text in saved.read_text()


def test_second_opinions_confirm_or_abstain() -> None:
    refuted = "(set-logic QF_NRA)(declare-fun x () Real)(assert (= (* x x) (- 2.0)))(check-sat)"
    assert second_opinion("a cube", refuted, "z3", Settings())
    assert second_opinion("a cube", refuted, "cvc5", Settings())
    late = Settings(deadline=0.0)
    assert not second_opinion("a cube", refuted.replace("2.0", "3.0"), "z3", late)
