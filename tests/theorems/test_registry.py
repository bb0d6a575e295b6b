"""Every statement of the registry: its grounds exist, its checks confirm it, its counterexample replays."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from exan_verify.theorems import (
    Example,
    Exhibit,
    Ground,
    Method,
    Result,
    Standing,
    Statement,
    registry,
    run_statement,
)
from exan_verify.theorems import replay as replay_example
from exan_verify.theorems.running import run_checks
from exan_verify.theorems.standing import objections_to
from exan_verify.theorems.tables import latex, markdown

ROOT = Path(__file__).parents[2]
THEORY = (ROOT / "docs" / "theory.md").read_text()
COQ = {path.name: path.read_text() for path in (ROOT / "proofs" / "coq").glob("*.v")}
STATED = r"\b(?:Theorem|Lemma|Corollary|Proposition|Fact|Example|Remark)\s+{}\b"

STATEMENTS = registry()
CHECKS = [(name, check.name) for name, statement in STATEMENTS.items() for check in statement.checks]
GROUNDS = [(name, ground) for name, statement in STATEMENTS.items() for ground in statement.grounds]
EXAMPLES = [name for name, statement in STATEMENTS.items() if statement.example is not None]


def grounds(method: Method) -> list[tuple[str, str]]:
    return [(name, ground.where) for name, ground in GROUNDS if ground.method is method]


# ---- what every statement must have -----------------------------------------------------------------------


@pytest.mark.parametrize("name", STATEMENTS)
def test_nothing_that_its_standing_needs_is_objections_to(name: str):
    assert objections_to(STATEMENTS[name]) == ()


@pytest.mark.parametrize("name", STATEMENTS)
def test_its_texts_are_there(name: str):
    statement = STATEMENTS[name]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", statement.name)
    texts = (
        statement.title,
        statement.source,
        statement.reading,
        statement.quantifiers,
        statement.conclusion,
    )
    assert all(text.strip() for text in texts)
    assert statement.latex.count("{") == statement.latex.count("}")
    assert statement.hypotheses or statement.standing is Standing.PROVED
    assert statement.grounds or statement.standing is Standing.OPEN
    names = [check.name for check in statement.checks]
    assert len(set(names)) == len(names)


def test_two_statements_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch):
    from exan_verify.theorems.statements.ambiguous import s0

    monkeypatch.setattr(s0, "STATEMENTS", (*s0.STATEMENTS, s0.STATEMENTS[0]))
    with pytest.raises(ValueError, match="two statements are called"):
        sys.modules["exan_verify.theorems.registry"].registry.__wrapped__()


# ---- grounds lie where they say ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "where"), grounds(Method.COQ))
def test_coq_names_are_theorems_that_make_proofs_prints(name: str, where: str):
    found = re.fullmatch(r"(\w+\.v): ([\w', ]+)", where)
    assert found is not None, f"write file.v: names, not {where!r}"
    file, names = found.groups()
    for theorem in names.split(", "):
        assert re.search(STATED.format(re.escape(theorem)), COQ[file]), f"{file} states no {theorem}"
        printed = rf"Print Assumptions {re.escape(theorem)}\."
        assert any(re.search(printed, COQ[f]) for f in ("assumptions.v", file)), f"{theorem} is not printed"


@pytest.mark.parametrize(("name", "where"), grounds(Method.WRITTEN))
def test_labels_are_in_the_theory(name: str, where: str):
    assert where.startswith("docs/theory.md ")
    for label in re.split(r"[;,] ?", where.removeprefix("docs/theory.md ")):
        assert has_label(label), f"docs/theory.md has no {label!r}"


def has_label(label: str) -> bool:
    """A section, an appendix, a bold label, or words that the text has."""
    section = re.fullmatch(r"section (\d+)", label)
    if section:
        return re.search(rf"^## {section[1]}\. ", THEORY, re.MULTILINE) is not None
    label = label.removeprefix("Appendix ")
    if re.fullmatch(r"\d\.\d", label):
        return re.search(rf"^### {re.escape(label)} ", THEORY, re.MULTILINE) is not None
    if re.fullmatch(r"[A-Z]\d?'?", label):
        return re.search(rf"(\*\*|^## Appendix ){label}\b", THEORY, re.MULTILINE) is not None
    return label.lower() in THEORY.lower()


def test_labels_that_are_not_there_are_noticed():
    for label in ("section 77", "Appendix Z", "Q7", "9.9", "words that no theory has"):
        assert not has_label(label)


@pytest.mark.parametrize(("name", "where"), grounds(Method.SOLVER))
def test_solver_texts_are_stored(name: str, where: str):
    for pattern in where.split(", ") if not where.startswith("this check") else []:
        assert list((ROOT / "proofs" / "bounded").glob(pattern.removeprefix("proofs/bounded/"))), pattern


@pytest.mark.parametrize(("name", "where"), grounds(Method.KERNEL) + grounds(Method.SYMBOLIC))
def test_examples_and_files_that_grounds_name_exist(name: str, where: str):
    if where.endswith(": its example"):
        assert STATEMENTS[where.removesuffix(": its example")].example is not None
    named = re.fullmatch(r"([\w/]+\.py)(?:: ([\w, ]+))?.*", where)
    if named is not None:
        texts = [path.read_text() for path in files_called(named[1])]
        assert texts, f"no file {named[1]}"
        for function in named[2].split(", ") if named[2] else ():
            assert any(f"def {function}(" in text for text in texts), f"{named[1]} has no {function}"


def files_called(name: str) -> list[Path]:
    """The file of that path from the root; a bare name is one of the tests or theorems, in any folder."""
    homes = [ROOT / name, ROOT / "tests" / name, *(ROOT / "exan_verify" / "theorems").rglob(name)]
    return [path for path in homes if path.is_file()]


# ---- checks confirm, examples replay ----------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_replays(name: str):
    statement = STATEMENTS[name]
    assert statement.example is not None
    example = statement.example()
    result = replay_example(example)
    assert result.confirmed is True, result.says
    assert example.note


LONG = {
    ("reduction", "one-matrix"),
    ("c1", "against-solvers"),
    ("c2", "second-batches"),
    ("s3", "dead"),
    ("s5-two-samples", "solver"),
    ("p1-generic-one-logit", "four samples"),
    ("p1-one-logit", "three samples"),
    ("p1-published", "all second batches"),
    ("p1-two-samples", "two samples"),
    ("p2-zero-pre-activation", "2-3-1"),
}
"""Checks of more than two seconds: in the campaign, and in ``exan theorems --all``."""


@pytest.mark.parametrize(
    ("name", "check"),
    [pytest.param(*pair, marks=pytest.mark.campaign if pair in LONG else ()) for pair in CHECKS],
)
def test_the_check_confirms_the_standing(name: str, check: str):
    (chosen,) = (found for found in STATEMENTS[name].checks if found.name == check)
    told: list[tuple[int, int]] = []
    (report,) = run_checks([chosen], progress=lambda _, done, total: told.append((done, total)))
    assert report.holds, report.result.detail
    assert report.result.detail
    assert all(0 <= done <= total for done, total in told)


@pytest.mark.parametrize("name", [n for n, s in STATEMENTS.items() if s.standing is Standing.REFUTED])
def test_a_counterexample_that_is_spoiled_no_longer_refutes(name: str):
    """The stored example with its outcome negated, or its second batch moved, does not replay."""
    statement = STATEMENTS[name]
    if statement.example is None:
        pytest.fail("a refuted statement without a counterexample")
    example = statement.example()
    spoiled: Example | Exhibit
    if isinstance(example, Exhibit):
        spoiled = replace(example, shown=lambda: Result(holds=False, detail="no"))
    elif example.second is not None:
        spoiled = replace(example, second=example.batch)
    elif example.outcome is not None:
        spoiled = replace(example, outcome=negated_outcome(example.outcome))
    else:
        spoiled = replace(example, shown=lambda _example: Result(holds=False, detail="no"))
    assert replay_example(spoiled).confirmed is False


def negated_outcome(outcome: str) -> object:
    from exan_verify import Outcome

    return Outcome.AMBIGUOUS if outcome == Outcome.UNIQUE else Outcome.UNIQUE


# ---- the registry as a whole ------------------------------------------------------------------------------


def test_the_statements_that_must_be_there_are():
    groups = {statement.group for statement in STATEMENTS.values()}
    wanted = {"E1", "E2", "E3", "E4", "P1", "P2", "B1", "3.1", "C1", "C2", "C4", "3.4", "3.6"}
    wanted |= {"S0", "S1", "S2", "S3", "S4", "S5"}
    assert wanted <= groups, wanted - groups


@pytest.mark.parametrize("group", ["P1", "P2"])
def test_readings_of_a_published_claim_say_what_was_published(group: str):
    refuted = [s for s in STATEMENTS.values() if s.group == group and s.standing is Standing.REFUTED]
    assert refuted
    assert all(statement.published for statement in refuted), "told from what we read into it"


def test_checks_of_the_campaign_exist():
    assert set(CHECKS) >= LONG


def test_tables_of_all_statements_can_be_written():
    everything = list(STATEMENTS.values())
    assert markdown(everything).count("\n") == len(everything) + 2
    assert latex(everything, caption="all").count("\\\\") >= len(everything)


def test_a_ground_that_nothing_carries_is_noticed():
    statement: Statement = next(iter(STATEMENTS.values()))
    measured = (Ground(method=Method.MEASURED, where="x", says="y"),)
    assert objections_to(replace(statement, standing=Standing.PROVED, grounds=measured))
    assert not run_statement(replace(statement, checks=())).holds
