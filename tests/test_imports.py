"""The import rules of the house: who may see whom, and that the engines and the checker stay independent.

Parts, from below: errors < core < models, exact < exclusivity, instances < kernel, smt < decide < theorems,
api < mitigation < report < bench < cli; data beside core; numeric sees core and models only; kernel and
decide see core and exact only, but for the engines' door to the kernel's checker of second batches.
testing/strategies lie above exact, where the theorems' search may share them; plugin, laws and campaign above
api and theorems.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "exan_verify"

EXACT = {"errors", "core", "exact"}
LOGIC = EXACT | {"exclusivity", "instances", "kernel", "smt", "decide"}
ALLOWED: Mapping[str, set[str]] = {
    "errors": set(),
    "core": {"errors"},
    "data": {"errors", "core"},
    "models": {"errors", "core"},
    "exact": {"errors", "core"},
    "exclusivity": EXACT,
    "instances": EXACT,
    "numeric": {"errors", "core", "models"},
    "kernel": EXACT,
    "smt": EXACT,
    "decide": EXACT | {"exclusivity", "smt"},
    "coq": EXACT,
    "testing/strategies": EXACT | {"exclusivity", "instances", "data"},
    "theorems": LOGIC | {"testing/strategies"},
    "api": LOGIC | {"coq", "models", "numeric"},
    "testing": LOGIC | {"models", "numeric", "api", "report", "theorems", "testing/strategies"},
    "mitigation": LOGIC | {"models", "numeric", "api", "data"},
    "report": LOGIC | {"models", "numeric", "api", "mitigation"},
    "bench": LOGIC
    | {"coq", "models", "numeric", "api", "mitigation", "report", "data", "testing/strategies"},
    "cli": LOGIC
    | {"coq", "models", "numeric", "api", "mitigation", "report", "data", "bench", "theorems", "testing"},
}
"""Every part, and the other parts that its files may import anywhere in their code."""

DOOR = "decide/second_batch.py"
"""The one file of the engines that sees the kernel, and what it may see of it."""
BEHIND_THE_DOOR = (
    "exan_verify.kernel.second",
    "exan_verify.kernel.gradient.found",
    "exan_verify.kernel.given",
)


def imports(nodes: Iterable[ast.AST], path: Path) -> Iterator[str]:
    """Modules below exan_verify that these statements import; of ``from package import name`` both."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("exan_verify."))


def at_import(nodes: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported; what is for type checkers alone does not."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from at_import(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from at_import(getattr(node, part, []))


FILES = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.rglob("*.py"))]


@cache
def tree(file: str) -> ast.Module:
    """The file, read once, and only where its tests run."""
    return ast.parse((ROOT / file).read_text())


def module(name: str) -> str | None:
    """The file, relative to the package, of the module that ``name`` is or is defined in."""
    while name != "exan_verify":
        stem = "/".join(name.split(".")[1:])
        for file in (f"{stem}.py", f"{stem}/__init__.py"):
            if file in FILES:
                return file
        name = name.rpartition(".")[0]
    return "__init__.py"


def part(file: str) -> str:
    """The first folder; the strategies are a part of their own, which lies below the rest of testing."""
    if file.startswith("testing/strategies/"):
        return "testing/strategies"
    return file.split("/")[0].removesuffix(".py")


def folder(file: str) -> str:
    """The sub-folder of a file, or the file itself where it stands at the top or beside sub-folders."""
    return file.rpartition("/")[0] if file.count("/") > 1 else file.removesuffix("/__init__.py")


def test_every_part_has_its_rule():
    assert {part(file) for file in FILES} - {"__init__"} == set(ALLOWED)


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_each_part_imports_only_what_lies_below_it(name):
    found = {
        (file, part(target))
        for file in FILES
        if part(file) == name
        for target in map(module, imports(ast.walk(tree(file)), ROOT / file))
        if target not in (None, "__init__.py")
    }
    up = {(file, other) for file, other in found if other not in ALLOWED[name] | {name}}
    assert up - {(DOOR, "kernel")} == set()


def test_engines_see_only_the_checker_of_second_batches_and_from_one_file():
    seen = {
        (file, name)
        for file in FILES
        if part(file) == "decide"
        for name in imports(ast.walk(tree(file)), ROOT / file)
        if name.startswith("exan_verify.kernel")
    }
    assert seen
    assert {file for file, _ in seen} == {DOOR}
    assert all(name.startswith(BEHIND_THE_DOOR) for _, name in seen), seen


def circles(graph: Mapping[str, set[str]]) -> set[tuple[str, ...]]:
    """Sets of nodes that reach each other."""
    reach = {node: set(targets) for node, targets in graph.items()}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    return {
        tuple(sorted({other for other in reach[node] if node in reach.get(other, ())}))
        for node in graph
        if node in reach[node]
    }


def graph_of(name):
    """Who imports whom when modules are imported; ``name`` gives the node of a file."""
    found: dict[str, set[str]] = {name(file): set() for file in FILES}
    for file in FILES:
        for target in map(module, imports(at_import(tree(file).body), ROOT / file)):
            if target is not None and name(target) != name(file):
                found[name(file)].add(name(target))
    return found


def test_no_modules_import_each_other():
    assert not circles(graph_of(lambda file: file))


def test_no_folders_import_each_other():
    assert not circles(graph_of(folder))


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == {("a", "b", "c")}


def test_the_exact_path_does_not_know_torch():
    for file in FILES:
        compared = file.startswith("testing/laws/")  # with autograd, in functions
        if compared or part(file) not in LOGIC | {"theorems", "testing", "testing/strategies"}:
            continue
        for node in ast.walk(tree(file)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not any(name.split(".")[0] == "torch" for name in names), file


def loaded_after(code: str) -> set[str]:
    ask = f"import sys\n{code}\nprint(*sorted(name for name in sys.modules if '.' not in name))"
    out = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_importing_the_package_does_not_import_torch():
    assert "torch" not in loaded_after("import exan_verify as e; e.Box, e.certify, e.check")


def test_the_pytest_plugin_loads_no_engine():
    heavy = {"torch", "hypothesis", "sympy", "scipy", "z3", "cvc5", "matplotlib"}
    assert not loaded_after("import exan_verify.testing.plugin") & heavy
    assert not loaded_after("import exan_verify.testing") & (heavy | {"pytest"})


def test_a_certificate_by_lifting_needs_no_torch_sympy_or_scipy():
    code = """
import numpy as np
from exan_verify import ReluNetwork, certify, check
draw = np.random.default_rng(0).normal
network = ReluNetwork.from_arrays([draw(size=(40, 6)), draw(size=(3, 40))], [draw(size=40), draw(size=3)])
batch = draw(size=(2, 6)), [0, 1]
verdict = certify(network, batch=batch)
assert verdict.outcome == "unique", verdict.reason
check(verdict.certificate, network, batch=batch)
"""
    assert not loaded_after(code) & {"torch", "sympy", "scipy", "z3", "cvc5"}


def test_public_names_exist():
    import exan_verify

    for name in exan_verify.__all__:
        assert getattr(exan_verify, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = exan_verify.nothing
