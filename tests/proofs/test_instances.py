"""proofs/coq: every theorem that proofs/README.md lists is applied to a concrete network or matrices."""

from __future__ import annotations

import re
from pathlib import Path

from exan_verify.theorems import Method, registry

ROOT = Path(__file__).parents[2]
COQ = ROOT / "proofs" / "coq"
README = (ROOT / "proofs" / "README.md").read_text()
COMMENT = re.compile(r"\(\*(?:(?!\(\*|\*\)).)*\*\)", re.DOTALL)
STATED = re.compile(r"^(?:Theorem|Lemma|Corollary) ([\w']+)\b((?:(?!^Proof).)*^Proof\..*?Qed\.)", re.M | re.S)


def names(cell: str) -> list[str]:
    return re.findall(r"`([\w']+)`", cell)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the README, without the table's head."""
    text = README.split(f"\n### {heading}\n", 1)[1].split("\n### ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def statements(text: str) -> dict[str, str]:
    """Each theorem of a Coq file with its statement and proof, comments left out."""
    while COMMENT.search(text):
        text = COMMENT.sub(" ", text)
    return {found[1]: found[2] for found in STATED.finditer(text)}


FILES = {path.stem: statements(path.read_text()) for path in sorted(COQ.glob("instances*.v"))}
INSTANCES = {name: text for file in FILES.values() for name, text in file.items()}


def applies(instance: str, theorem: str) -> bool:
    return re.search(rf"(?<![\w'.]){re.escape(theorem)}(?![\w'])", INSTANCES.get(instance, "")) is not None


def without_instance(table: list[list[str]]) -> list[str]:
    """Theorems of the table that no instance of their row applies, and instances that apply none."""
    lost = []
    for cells in table:
        theorems, instances = names(cells[1]), names(cells[4])
        lost += [t for t in theorems if not any(applies(i, t) for i in instances)]
        lost += [i for i in instances if not any(applies(i, t) for t in theorems)]
    return lost


def test_every_listed_theorem_is_applied_by_an_instance_of_its_row() -> None:
    table = rows("Theorems")
    assert len(table) > 25
    assert without_instance(table) == []


def test_a_theorem_without_an_instance_is_noticed() -> None:
    assert without_instance([["E1", "`E1`, `E3`", "", "", "`A_E1`"]]) == ["E3"]
    assert without_instance([["E1", "`E1`", "", "", "`A_E1`, `no_such_instance`"]]) == ["no_such_instance"]
    assert without_instance([["E1", "`E1`", "", "", "`A_E1`, `S_scales`"]]) == ["S_scales"]
    assert "E1" in without_instance([["E1", "`E1`", "", "", ""]])


def test_a_name_in_a_comment_applies_nothing() -> None:
    text = "Theorem A : x.\nProof. (* by E1 (* and E2 *) alone *) by exact: E3. Qed.\n"
    assert statements(text) == {"A": " : x.\nProof.   by exact: E3. Qed."}


def test_instances_lie_where_the_readme_says_and_are_printed() -> None:
    printed = (COQ / "assumptions.v").read_text()
    listed = set()
    for cells in rows("Instances"):
        files = cells[2].split("; ")
        for name in names(cells[1]):
            assert any(name in FILES[file] for file in files), f"{name} is not in {files}"
            assert f"Print Assumptions {name}." in printed, f"{name} is not printed"
            listed.add(name)
    used = {name for cells in rows("Theorems") for name in names(cells[4])}
    assert used <= listed, f"not in the table of instances: {used - listed}"


def listed_in(heading: str) -> set[str]:
    return {name for cells in rows(heading) for name in names(cells[1])}


def test_every_theorem_of_the_readme_is_asked_what_it_rests_on() -> None:
    """``make assumptions`` answers for the theorems of the README's tables: it must ask for each."""
    asked = re.findall(r"^Print Assumptions ([\w']+)\.$", (COQ / "assumptions.v").read_text(), re.M)
    assert len(asked) == len(set(asked)), "a theorem is asked for twice"
    listed = listed_in("Theorems") | listed_in("Instances")
    assert listed <= set(asked), f"not in assumptions.v: {listed - set(asked)}"


def test_headers_of_coq_files_list_what_is_in_them() -> None:
    """Names in a header's table, of those with an underscore: others may be letters of the mathematics."""
    for path in COQ.glob("*.v"):
        text = path.read_text()
        header = text.split("\nFrom ", 1)[0]
        for name in re.findall(r"^\(\*   (\w+_\w+) .*\*\)$", header, re.M):
            assert re.search(rf"\b{name}\b", text[len(header) :]), f"{path.name} lists {name}, and has it not"


def test_what_the_registry_rests_on_in_coq_is_listed() -> None:
    listed = {name for cells in rows("Theorems") + rows("Instances") for name in names(cells[1])}
    grounds = [ground for statement in registry().values() for ground in statement.grounds]
    rests = {name for g in grounds if g.method is Method.COQ for name in g.where.split(": ")[1].split(", ")}
    assert rests
    assert rests <= listed, f"not in proofs/README.md: {rests - listed}"
