"""What an end user reads has no labels of the theory in it; those are for ``--long`` and for statements."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import exan_verify
from exan_verify import audit
from exan_verify.cli import audit as audit_cli
from exan_verify.cli import certify as certify_cli
from exan_verify.cli.terminal.output import Output
from exan_verify.core.certificate import THEORY, Evidence
from exan_verify.core.question import Loss
from exan_verify.core.verdict import Outcome, SampleStatus, Trust, Verdict
from exan_verify.numeric.attack import METHODS
from exan_verify.report import render
from tests.support.cases import random_case
from tests.support.certificate_cases import every_kind
from tests.support.commands import Run

LABEL = re.compile(
    r"\b(?:[CELMPST]\d{1,2}|(?:CB|CV|PL)\d{1,2}|F\d'?|R\d)\b|\b[BP]\.\d|\([1-9]\.\d[,)]"
    r"|Appendix|theory\.md|section \d"
)
"""C1, CB4, P.2a, (3.4), Appendix T: names of places in docs/theory.md."""

ARITHMETIC = re.compile(
    r"\b[Mm]od p\b|\bmodulo\b|\bresidues?\b|\bF_p\b|\bover Q\b|\bQ-space|Macaulay|[Nn]ull\("
    r"|\brank ?[(\[]|\brank [A-Z]\b|\[H_|\|[A-Z][^|]*\||= M\b|< M\b"
    r"|\b(?:[Dd]elta|d?[WbXHzfgG])_(?:$|[\d{(]|[Llk]\b)|\bd[Wb]\b"
)
"""Notation of the exact arithmetic, and names of its matrices: mod p, rank(A), Delta_2, [dW | db]."""

THEORY_PAGE = (Path(__file__).parents[2] / "docs" / "theory.md").read_text()
SAID_BY = ("api", "decide", "exact", "mitigation", "models", "numeric", "report", "smt", "testing")
PACKAGE = Path(exan_verify.__file__).parent


@cache
def literals(path: Path) -> tuple[tuple[int, str], ...]:
    """The texts of a module that are no documentation, with their lines."""
    tree = ast.parse(path.read_text())
    documentation = {
        id(part.value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        for part in node.body
        if isinstance(part, ast.Expr)
    }
    return tuple(
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    )


def test_no_reason_or_note_is_written_with_a_label():
    files = [path for part in SAID_BY for path in sorted((PACKAGE / part).rglob("*.py"))]
    files += [
        path for path in sorted((PACKAGE / "cli").glob("*.py")) if path.stem not in ("theorems", "examples")
    ]
    assert len(files) > 150
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in files
        for line, text in literals(path)
        if LABEL.search(text)
    ]
    assert not found


def test_no_reason_of_an_engine_is_written_in_the_notation_of_its_arithmetic():
    files = [path for part in ("api", "decide", "numeric") for path in sorted((PACKAGE / part).rglob("*.py"))]
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in files
        for line, text in literals(path)
        if ARITHMETIC.search(text)
    ]
    assert not found
    for text in ("rank 3 mod p of", "rank(Delta_", "rank [H_", "Delta_", "dim null(R) is ", "by dW_1 alone"):
        assert ARITHMETIC.search(text), text


def printed(capsys: pytest.CaptureFixture[str], *parts: object) -> str:
    Output(json=False, width=100).say(*parts)
    return capsys.readouterr().out


def test_a_verdict_names_places_of_the_theory_only_where_it_is_asked(capsys: pytest.CaptureFixture[str]):
    for case in every_kind():
        claim = case.certificate["claim"]
        verdict = Verdict(
            outcome=Outcome(claim["outcome"]),
            samples=tuple(map(SampleStatus, claim["samples"])),
            reason="as proved",
            batch_size=claim["question"]["batch_size"],
            trust=Trust.CERTIFIED,
            certificate=case.certificate,
        )
        assert not LABEL.search(printed(capsys, *certify_cli.describe(verdict)))
        long = " ".join(printed(capsys, *certify_cli.describe(verdict, long=True)).split())
        for part in case.certificate["evidence"]:
            (place,) = (at for kind, at in THEORY.items() if kind.__struct_config__.tag == part["type"])
            assert f"{part['type']} " in long
            assert all(word in long for word in place.split())


@pytest.mark.parametrize("loss", Loss)
def test_audits_and_their_reports_are_without_labels(loss: Loss, capsys: pytest.CaptureFixture[str]):
    for widths, samples in (((6, 40, 3), 3), ((6, 2, 3), 3), ((4, 5, 4, 2), 4)):
        network, batch = random_case(list(widths), samples, loss=loss)
        found = audit(network, (batch.inputs, batch.labels), loss=loss.value, attack=True, work_limit=10**5)
        shown = audit_cli.section("A batch", batch.inputs, found.classes, found, found.attack or "", {})
        assert not LABEL.search(printed(capsys, *audit_cli.describe(found)))
        page = re.sub(r"<style.*?</style>|data:[^\"']*", "", render("A report", [shown]), flags=re.S)
        assert not LABEL.search(re.sub(r"<[^>]*>", " ", page))


def test_attacks_and_the_list_of_theorems_are_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
):
    from exan_verify.api.attack_own_batch import batch_gradient
    from exan_verify.api.files import save_batch, save_gradient, save_tensors
    from exan_verify.core.question import Question
    from tests.support.torch_reference import module

    monkeypatch.chdir(tmp_path)
    network, batch = random_case([6, 12, 8, 3], 4)
    model = module(network)
    save_tensors(Path("m.safetensors"), model.state_dict())
    save_batch(Path("b.npz"), batch.inputs, batch.labels)
    question = Question(loss=Loss.CROSS_ENTROPY)
    save_gradient(Path("g.safetensors"), batch_gradient(model, batch.inputs, batch.labels, question))
    for method in METHODS:
        arguments = ("attack", "m.safetensors", "g.safetensors", "--out", "f.npz", "--method", method)
        for more in ((), ("--no-repairs",)) if method == "published" else ((),):
            _, out, err = run(*arguments, "--budget", "20", *more)
            assert not LABEL.search(out + err), out
    _, out, _ = run("theorems", exits=0)
    assert not LABEL.search(out.replace("Algorithm B.1", ""))
    assert LABEL.search(run("theorems", "--long")[1])


def test_every_kind_of_evidence_has_its_place_in_the_theory():
    assert set(THEORY) == set(Evidence.__args__)
    for place in THEORY.values():
        for label in re.findall(r"Appendix [A-Z]\d?|\bP\.\d[a-z]?|\b[A-Z]{1,2}\d+'?|\b\d\.\d[a-z]?", place):
            assert re.search(rf"(\*\*|## ){re.escape(label)}[ .:*(]", THEORY_PAGE), label


def test_what_is_looked_for_is_found():
    for text in ("(C1, 3.4)", "(P2)", "CB4", "by S5", "Appendix T", "B.1 divides", "pairs (P.2)", "(3.3)"):
        assert LABEL.search(text), text
    rng = np.random.default_rng(0)
    for number in islice(rng.normal(size=50), 50):
        assert not LABEL.search(f"an error of {number:.1e} (relative {number:g}) in W_1 and dW_2, rank(R)")
