"""The tables for a paper: cells stay cells, and the LaTeX compiles."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exan_verify.cli import main
from exan_verify.theorems import Ground, Method, Standing
from exan_verify.theorems.tables import HEADINGS, latex, markdown, readings, rows
from tests.support.theorem_cases import AWKWARD, Install, install, statement

__all__ = ["install"]

AWKWARD_STATEMENT = statement(
    "awkward_name",
    title=AWKWARD,
    hypotheses=(AWKWARD, AWKWARD),
    conclusion=AWKWARD,
    quantifiers=AWKWARD,
    grounds=(
        Ground(method=Method.COQ, where="exact.v: C1, confined_plain", says="x"),
        Ground(method=Method.COQ, where="exact.v: C1, confined_plain", says="y"),
    ),
)


def test_a_row_names_each_ground_once():
    (row,) = rows([AWKWARD_STATEMENT])
    assert row.by == "coq: exact.v: C1, confined_plain"
    assert row.standing is Standing.REFUTED


def test_only_p1_and_p2_are_readings():
    chosen = [statement("a"), statement("b", group="C1"), statement("c", group="P2")]
    assert [s.name for s in readings(chosen)] == ["a", "c"]


def test_markdown_keeps_its_columns():
    lines = markdown([statement(), AWKWARD_STATEMENT]).splitlines()
    assert lines[0].split(" | ")[0] == f"| {HEADINGS[0]}"
    assert len(lines) == 4
    for line in lines:
        bars = re.sub(r"\\.", "", line).count("|")
        assert bars == len(HEADINGS) + 1, "an escaped bar ends no cell"
    assert "**refuted**" in lines[3]
    assert r"\<tag\> \`code\` \*star\* \[link\]" in lines[3]


def test_latex_escapes_and_keeps_its_columns():
    text = latex([statement(), AWKWARD_STATEMENT], caption="50 % of & all")
    assert r"\caption{50 \% of \& all}" in text
    body = text[text.index(r"\endhead") : text.index(r"\bottomrule")]
    row = next(line for line in body.splitlines() if "awkward" in line)
    bare = re.sub(r"\\[&%$#_{}]", "", row)
    assert bare.count("&") == len(HEADINGS) - 1
    assert r"\texttt{awkward\_name}" in row
    assert "U+1D53D" in row, "a letter that the fonts lack is named, not dropped"
    assert "%" not in bare
    for opened, closed in ("{}",):
        assert bare.count(opened) == bare.count(closed)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed here")
def test_latex_compiles(tmp_path: Path):
    text = latex([statement(), AWKWARD_STATEMENT], caption=AWKWARD, standalone=True)
    (tmp_path / "table.tex").write_text(text)
    result = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000


def test_the_command_writes_the_tables(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    install(statement(), statement("elsewhere", group="C1"))
    assert main(["theorems", "--table", "markdown"]) == 0
    out = capsys.readouterr().out
    assert out == markdown([statement()])
    assert main(["theorems", "--table", "latex", "--every", "--out", "table.tex"]) == 0
    assert capsys.readouterr().out == "2 statements written to table.tex\n"
    text = Path("table.tex").read_text()
    assert text.startswith("% Needs")
    assert "elsewhere" in text
    assert main(["theorems", "--table", "latex-document", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["statements"]) == ("exan/theorems-table/1", ["made-up"])
    assert record["table"].startswith("\\documentclass")
