"""proofs/bounded: the files are up to date; a wrong or missing one, or a false Coq script, is an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exan_verify.smt.solvers.run import available
from exan_verify.theorems.bounded import generic_counts, recheck
from exan_verify.theorems.bounded.generic_counts import Case
from exan_verify.theorems.bounded.obligation import emptied, verdict

ROOT = Path(__file__).parents[2]
BOUNDED = ROOT / "proofs" / "bounded"
COQ = ROOT / "proofs" / "coq"

QUICK = "s3-single-point"


def checked(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BOUNDED / "check.py"), "--folder", str(folder), *names]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for path in BOUNDED.glob("*.smt2"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_the_stored_files_are_what_their_python_generates() -> None:
    assert recheck.stale(BOUNDED) == []


def test_every_unsat_file_has_a_sat_companion_or_several_share_one() -> None:
    found = recheck.all_obligations()
    companions = {one.name.removesuffix("-hypotheses") for one in found if one.name.endswith("-hypotheses")}
    for one in found:
        if one.expected == "unsat":
            assert any(one.name.startswith(name) for name in companions), one.name


def test_one_obligation_rechecks(copied: Path) -> None:
    said: list[str] = []
    assert recheck.deviations(copied, said.append, names=(QUICK,)) == []
    assert len(said) == 1
    assert said[0].startswith(f"{QUICK}: unsat")
    assert ("cvc5: not installed" in said[0]) is not available("cvc5")


def test_a_mutated_file_fails_twice(copied: Path) -> None:
    """It differs from its Python, and z3 says something else."""
    path = copied / f"{QUICK}.smt2"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("(assert")) + "\n")
    done = checked(copied, QUICK)
    assert done.returncode == 1
    assert f"{QUICK}.smt2: differs from what its Python generates" in done.stderr
    assert "z3 says sat, expected unsat" in done.stderr
    assert done.stdout.splitlines()[-1] == "bounded: 0 of 1 files as expected; 2 deviations"


def test_missing_and_unknown_files_fail(copied: Path) -> None:
    (copied / f"{QUICK}.smt2").unlink()
    (copied / "stranger.smt2").write_text("(check-sat)\n")
    found = recheck.stale(copied)
    assert len(found) == 2
    assert found[0].startswith(f"{QUICK}.smt2: missing")
    assert found[1].startswith("stranger.smt2: belongs to no obligation")
    count = len(recheck.all_obligations())
    assert recheck.tally(copied, found) == (count, count - 1)


def test_writing_restores_the_files(copied: Path) -> None:
    (copied / "stranger.smt2").write_text("(check-sat)\n")
    (copied / f"{QUICK}.smt2").write_text("(assert false)\n")
    recheck.write_all(copied)
    assert recheck.stale(copied) == []


@pytest.mark.parametrize("name", ["p1-two-samples-one-logit", "p2-two-samples-one-logit-11"])
def test_obligations_fail_without_their_assertions(name: str) -> None:
    one = next(found for found in recheck.all_obligations() if found.name == name)
    assert verdict(one) == one.expected
    assert verdict(emptied(one)) != one.expected


def test_the_exception_of_s5_is_not_settled_by_ranks() -> None:
    """An antisymmetric head has a second solution, so C4's rank cannot be reached."""
    generic = Case(classes=(0, 1), logits=2, others=(0, 1))
    assert generic_counts.settled(generic) is not None
    assert generic_counts.settled(Case(classes=(0, 1), logits=2, others=(0, 1), antisymmetric=True)) is None


def test_the_known_permutations_solve_the_output_system() -> None:
    from exan_verify.theorems.support.macaulay import value

    for classes, logits in generic_counts.STATED:
        case = Case(classes=classes, logits=logits, others=classes)
        system = generic_counts.output_system(
            case, [[7 * a + k * k for k in range(logits)] for a in range(3)]
        )
        assert case.known
        for point in case.known:
            assert all(sum(v * value(m, point) for m, v in p.items()) == 0 for p in system)


def test_make_proofs_runs_both_parts() -> None:
    text = (ROOT / "Makefile").read_text()
    recipe = text.split("\nproofs:")[1].split("\n\n")[0]
    assert "proofs/coq assumptions" in recipe
    assert recipe.count("proofs/bounded/check.py") == 1
    assert recipe.splitlines()[-1].strip() == "@cat proofs/coq/build/summary", "it ends with what was proved"


needs_coq = pytest.mark.skipif(
    shutil.which("coqc") is None, reason="Coq is not installed here; make proofs installs it where it may"
)


def coq_copy(folder: Path, old: str, new: str) -> subprocess.CompletedProcess[str]:
    """The Coq part cut to its first file, with one change, made as ``make proofs`` makes it."""
    text = (COQ / "linalg.v").read_text()
    assert old in text
    (folder / "linalg.v").write_text(text.replace(old, new))
    makefile = (COQ / "Makefile").read_text()
    head, rest = makefile.split("FILES = ", 1)
    tail = rest.split("\nSOURCES", 1)[1]
    (folder / "Makefile").write_text(f"{head}FILES = linalg\nSOURCES{tail}")
    (folder / "assumptions.v").write_text(
        "From Exan Require Import linalg.\nPrint Assumptions two_factorisations.\n"
    )
    return subprocess.run(
        ["make", "-C", str(folder), "assumptions"], capture_output=True, text=True, check=False
    )


STATEMENT = "Q *m P = 1%:M, D' = D *m P"
FALSE_STATEMENT = "Q *m P = 0, D' = D *m P"
PROOF_END = "by rewrite -[LHS]mulmx1 -HB' mulmxA E {1}HP -!mulmxA HB' !mulmx1.\nQed."


@needs_coq
def test_a_true_proof_script_passes_and_a_false_one_fails(tmp_path: Path) -> None:
    for name, old, new, passes in (
        ("true", "Proof.", "Proof.", True),
        ("false", STATEMENT, FALSE_STATEMENT, False),
        ("admitted", PROOF_END, "Admitted.", False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        done = coq_copy(folder, old, new)
        assert (done.returncode == 0) is passes, f"{name}: {done.stdout}{done.stderr}"
        lines = done.stdout.splitlines()
        assert ("two_factorisations: Closed under the global context" in lines) is passes
        assert ("coq: 1 of 1 theorems closed under the global context" in lines) is passes
        assert ("two_factorisations:" in lines) is (name == "admitted"), "what is not closed is named"


def test_the_table_of_the_readme_has_every_statement_with_its_verdict() -> None:
    """``python proofs/table.py`` writes it."""
    from exan_verify.theorems.registry import registry

    lines = (ROOT / "proofs" / "README.md").read_text().splitlines()
    stated = dict(line.strip("| ").split("` | ", 1) for line in lines if line.startswith("| `"))
    for name, statement in registry().items():
        assert f"`{name}" in stated, f"{name} is missing; run python proofs/table.py"
        verdict_cell = stated[f"`{name}"].split(" | ")[1].strip("*")
        assert verdict_cell == statement.standing.value, f"{name}: run python proofs/table.py"


def test_make_rechecks_every_coq_file() -> None:
    recipe = (COQ / "Makefile").read_text().split("FILES = ", 1)[1].split("\nSOURCES", 1)[0]
    listed = set(recipe.replace("\\", " ").split())
    assert {path.stem for path in COQ.glob("*.v")} - {"assumptions"} <= listed
