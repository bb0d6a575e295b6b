"""The mutation operators on small sources, and fixed mutants that the tests must notice."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import __main__ as command
from tests.mutants.operators import mutants
from tests.mutants.targets import TARGETS


def changes(source: str) -> list[tuple[str, str]]:
    """Kind of change and the changed source, of every mutant of a module without functions."""
    return [(m.key.split("::")[2], m.source) for m in mutants("m", source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", [("comparison", "a <= b")]),
        ("a == b", [("comparison", "a != b")]),
        ("a is b", [("comparison", "a is not b")]),
        ("a + b", [("arithmetic", "a - b")]),
        ("a // b", [("arithmetic", "a * b")]),
        ("'a' + b", []),
        ("a and b", [("and-or", "a or b")]),
        ("not a", [("no-not", "not not a")]),
        ("-a", [("no-minus", "+a")]),
        ("f(0, 7)", [("constant", "f(1, 7)")]),
        ("f(True)", [("boolean", "f(False)")]),
        ("require(a, 'b')", [("no-check", "require(True, 'b')")]),
        ("if a:\n    raise b", [("never-raise", "if False:\n    raise b")]),
    ],
)
def test_each_operator_changes_one_place(source: str, expected: list[tuple[str, str]]) -> None:
    assert changes(source) == expected


SILENT = """
@dataclass(slots=True, eq=False)
class Record:
    entries: Literal[1, 2]

class Kind(StrEnum):
    ONE = 1

def run(value: Literal[0], *rest: Literal[1]) -> Literal[2]:
    require(checked, f"{value + 1} is too large")
    raise ValueError(f"{value - 1}")
"""


def test_what_no_verdict_depends_on_is_left_alone() -> None:
    assert [m.key for m in mutants("m", SILENT)] == [
        "m::run::no-check::require(checked, f'{value + 1} is too large')"
    ]


def test_keys_name_the_change_whatever_stands_above_it() -> None:
    source = "def f(a):\n    return a + 1 + 1\n"
    first, later = mutants("m", source), mutants("m", "import os\n\n" + source)
    assert [m.key for m in first] == [m.key for m in later]
    assert len({m.key for m in first}) == len(first) == 4
    assert all(m.source != ast.unparse(ast.parse(source)) for m in first)


def test_targets_and_explanations_name_what_exists() -> None:
    for target, tests in TARGETS.items():
        assert (command.ROOT / "exan_verify" / f"{target}.py").is_file()
        assert all((command.ROOT / "tests" / f"{name}.py").is_file() for name in tests)
    keys = {mutant.key for _, mutant in command.everything()}
    explained = json.loads(command.EXPLAINED.read_text())
    assert set(explained) <= keys
    assert all(len(reason) > 20 for reason in explained.values())


def test_a_choice_is_the_same_for_the_same_seed() -> None:
    once, again, other = (command.choose(50, seed, "exact/") for seed in (0, 0, 1))
    assert [m.key for _, m in once] == [m.key for _, m in again] != [m.key for _, m in other]
    assert {name for name, _ in once} == {name for name in TARGETS if name.startswith("exact/")}


FIXED = (
    "exact/modular::add_mod::arithmetic::a + b",
    "kernel/lifting/scale::_variations::comparison::v != 0",
)


@pytest.mark.parametrize("key", FIXED)
def test_fixed_mutants_are_killed(key: str, tmp_path: Path) -> None:
    ((target, mutant),) = command.choose(0, 0, keys=(key,))
    folder = command.workplace(tmp_path)
    path = folder / "exan_verify" / f"{target}.py"
    original = path.read_text()
    assert command.noticed(folder, target, mutant, 300)
    assert path.read_text() == original


def test_the_command_exits_with_an_error_for_an_unknown_part() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.mutants", "--part", "3/2"],
        cwd=command.ROOT,
        capture_output=True,
        check=False,
    )
    assert run.returncode == 2
    assert b"--part" in run.stderr
