"""The import rules of the house: who may see whom, and that the two paths stay independent."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "exan_verify"

EVERYONE = {"errors", "arrays", "network", "verdict", "gradients"}
ALLOWED = {
    "errors": set(),
    "arrays": {"errors"},
    "network": {"errors", "arrays"},
    "verdict": {"errors", "arrays", "network"},
    "gradients": {"errors", "network", "convert"},
    "exact": EVERYONE,
    "exclusivity": EVERYONE | {"exact"},
    "certificate": EVERYONE,
    "smt": EVERYONE | {"exact"},
    "facts": EVERYONE,
    "kernel": EVERYONE | {"exact", "certificate", "facts", "convert"},
    "decide": EVERYONE | {"exact", "certificate", "facts", "exclusivity", "smt", "convert"},
    "theorems": EVERYONE
    | {"exact", "exclusivity", "facts", "certificate", "records", "smt", "kernel", "decide", "testing"}
    | {"users_code"},
    "numeric": {"errors", "arrays", "network"},
}


def modules(part: str) -> list[Path]:
    folder = ROOT / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{part}.py"]


def imported(path: Path) -> set[str]:
    """First components below exan_verify of everything that a file imports, at any depth of the code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"relative import in {path}"
            names = (
                [node.module]
                if node.module != "exan_verify"
                else [f"exan_verify.{a.name}" for a in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("exan_verify.")}
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_each_part_imports_only_what_lies_below_it(part):
    for path in modules(part):
        extra = imported(path) - ALLOWED[part] - {part}
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"


def test_the_exact_path_does_not_know_torch():
    for part in (
        "network",
        "verdict",
        "exact",
        "exclusivity",
        "certificate",
        "kernel",
        "decide",
        "smt",
        "theorems",
    ):
        for path in modules(part):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                    assert not any(n.split(".")[0] == "torch" for n in names), path


def test_importing_the_package_does_not_import_torch():
    code = "import exan_verify as e, sys; e.Box, e.certify, e.check; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_public_names_exist():
    import exan_verify

    for name in exan_verify.__all__:
        assert getattr(exan_verify, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = exan_verify.nothing
