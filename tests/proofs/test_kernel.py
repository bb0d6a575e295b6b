"""docs/theory.md 6.7 has every file of the kernel and every kind of evidence, and theorems that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exan_verify.core.certificate import (
    CoverArgument,
    Forced,
    LossVectorArgument,
    QuadricArgument,
    RankBound,
    StageMotions,
    Stages,
    Tolerance,
)
from exan_verify.kernel.checker import CHECKERS

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "exan_verify" / "kernel"
THEORY = (ROOT / "docs" / "theory.md").read_text()
SECTION = THEORY.split("**6.7 What is machine-checked.**", 1)[1].split("\n## ", 1)[0]
MODULES = sorted(
    path.relative_to(KERNEL).as_posix() for path in KERNEL.rglob("*.py") if path.name != "__init__.py"
)
ELSEWHERE = (
    *(RankBound, Forced, Tolerance),
    *(QuadricArgument, LossVectorArgument, CoverArgument),
    *(Stages, StageMotions),
)
"""Evidence that ``CHECKERS`` has not: UNREALISABLE, tolerances, parts of a residual, convolutions."""
TAGS = sorted(kind.__struct_config__.tag for kind in (*CHECKERS, *ELSEWHERE))


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose head is ``heading``."""
    lines = text.split(f"\n{heading}\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| "))] for line in lines]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([\w'./]+)`", cell)


FILES = table(SECTION, "| file | evidence | machine-checked | not formalised, and where its proof is |")
STEPS = table(SECTION, "| where | what the argument uses | Coq |")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_kernel_is_in_the_table(module: str) -> None:
    rows = [cells for cells in FILES if module in quoted(cells[0])]
    assert len(rows) == 1, f"docs/theory.md 6.7 must name {module} once, and say what its acceptance rests on"
    assert all(rows[0]), "a cell is empty; write - for nothing"
    assert "(" in rows[0][3] or "Appendix" in rows[0][3], "say where the written proof is"


@pytest.mark.parametrize("tag", TAGS)
def test_every_kind_of_evidence_is_in_the_table(tag: str) -> None:
    assert any(tag in quoted(cells[1]) for cells in FILES), (
        f"docs/theory.md 6.7 does not say who checks {tag!r}"
    )


def test_the_tables_name_nothing_that_is_gone() -> None:
    assert {name for cells in FILES for name in quoted(cells[0])} == set(MODULES)
    assert {name for cells in FILES for name in quoted(cells[1])} == {*TAGS, "rebuild", "found"}


def test_its_coq_names_are_theorems_that_are_asked_what_they_rest_on() -> None:
    printed = (ROOT / "proofs" / "coq" / "assumptions.v").read_text()
    used = {name for cells in STEPS for name in quoted(cells[2])}
    used |= {name for cells in FILES for name in quoted(cells[2])} - {"lifting", "enumeration"}
    assert len(used) > 25
    for name in sorted(used):
        assert f"Print Assumptions {name}.\n" in printed, (
            f"6.7 names {name}, which assumptions.v does not ask for"
        )


def test_the_places_of_written_proofs_are_in_the_theory() -> None:
    for cells in FILES:
        for place in re.findall(r"Appendix [A-Z]\d?|section \d+|\b[A-Z]{1,2}\d+'?", cells[3]):
            heading = rf"^## {place}\b|^## {place.removeprefix('section ')}\. |\*\*{place}[ (.:]"
            assert re.search(heading, THEORY, re.M), f"docs/theory.md has no {place}"
