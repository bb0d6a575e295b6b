"""What is installed: wheel and source distribution have what messages name, and work by themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import exan_verify
from exan_verify.theorems.registry import registry

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BUILD = """
import sys
from hatchling import build
build.build_wheel(sys.argv[1])
build.build_sdist(sys.argv[1])
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built without a network."""
    pytest.importorskip("hatchling", reason="pip install 'exan-verify[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    """The wheel's files."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_the_wheel_has_what_the_package_opens_and_nothing_else(wheel: dict[str, bytes]):
    needed = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "exan_verify").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"exan_verify/py.typed", "exan_verify/data/mnist_5k.npz"} <= needed
    assert "exan_verify/report/templates/style.css" in needed
    needed |= {f"exan_verify/docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    needed |= {f"exan_verify/docs/schemas/{path.name}" for path in (ROOT / "docs/schemas").glob("*.json")}
    proofs = {name for name in wheel if name.startswith("exan_verify/proofs/")}
    assert {f"exan_verify/proofs/coq/{path.name}" for path in (ROOT / "proofs/coq").glob("*.v")} <= proofs
    assert not [name for name in proofs if re.search(r"\.(vo|vok|vos|glob|aux)$|/build/", name)]
    assert {name for name in wheel if ".dist-info/" not in name} == needed | proofs


def test_the_wheel_has_every_file_that_messages_name(wheel: dict[str, bytes]):
    named = set()
    for name, content in wheel.items():
        if name.startswith("exan_verify/") and name.endswith(".py"):
            named |= set(
                re.findall(r"\b((?:docs|proofs)/[\w/.-]*\w\.(?:md|v|py|smt2|sh))\b", content.decode())
            )
    for statement in registry().values():
        for ground in statement.grounds:
            named |= set(re.findall(r"\b((?:docs|proofs)/[\w/.-]*\w\.\w+)\b", ground.where))
    assert {"docs/theory.md", "proofs/coq/certificates.v"} <= named
    assert not [name for name in sorted(named) if f"exan_verify/{name}" not in wheel]


def metadata(wheel: dict[str, bytes]) -> Message:
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel[name])


def test_its_metadata(wheel: dict[str, bytes]):
    said = metadata(wheel)
    assert said["Version"] == exan_verify.__version__
    extras = {"onnx", "cvc5", "dask", "flower", "docs", "testing", "dev"}
    assert set(said.get_all("Provides-Extra", [])) == extras
    classifiers = said.get_all("Classifier", [])
    assert [c.rsplit(" ", 1)[1] for c in classifiers if ":: 3." in c] == ["3.11", "3.12", "3.13", "3.14"]
    assert said["Requires-Python"] == ">=3.11"
    assert said.get_all("Project-URL")
    (points,) = (content.decode() for name, content in wheel.items() if name.endswith("entry_points.txt"))
    assert "exan = exan_verify.cli:main" in points
    assert "exan = exan_verify.testing.plugin" in points


def test_the_version_is_the_same_everywhere():
    version = exan_verify.__version__
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.M)
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert version in [heading.split()[0] for heading in headings[:2]]


def test_every_dependency_has_its_pin():
    """What make setup installs is what constraints.txt says; flower has a file of its own."""
    pins = (ROOT / "constraints.txt").read_text().lower()
    for extra, needed in (("", PROJECT["dependencies"]), *PROJECT["optional-dependencies"].items()):
        for one in needed:
            name = re.split(r"[\[<>=;]", one)[0].lower()
            own = extra == "flower" or name == "exan-verify"
            assert own or re.search(rf"^{re.escape(name)}==", pins, re.M), one


def test_the_source_distribution_has_all_that_its_tests_need(built: Path):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames()}
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "CHANGELOG.md",
        "Makefile",
        "examples/github_audit.yml",
    ):
        assert name in names
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")} <= names


PLUGIN = """
from exan_verify.testing import questions
from hypothesis import given, settings

@settings(max_examples=5, deadline=None)
@given(questions())
def test_a_question_is_drawn(question):
    assert question.batch.size

def test_the_fixture_is_there(exan_audit):
    assert exan_audit is not None
"""


@pytest.mark.campaign
def test_the_wheel_works_in_an_empty_environment(built: Path, tmp_path: Path):
    """Installed with what it needs, from wherever pip finds that; then the demo, and the pytest plugin."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    (path,) = built.glob("*.whl")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def ran(*command: str) -> str:
        done = subprocess.run(
            [str(home / "bin" / command[0]), *command[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    constraints = str(ROOT / "constraints.txt")
    ran("pip", "install", "--quiet", "-c", constraints, f"{path}[testing]")
    assert exan_verify.__version__ in ran("exan", "--version")
    assert str(home) in ran("python", "-c", "import exan_verify; print(exan_verify.__file__)")
    assert "Report: demo-report/report.html" in ran("exan", "demo")
    assert "UNIQUE" in ran(
        "exan", "certify", "demo-report/model.safetensors", "--batch", "demo-report/batch.npz"
    )
    assert "docs/theory.md" in ran("exan", "theorems")
    (tmp_path / "test_mine.py").write_text(PLUGIN)
    assert "2 passed" in ran("python", "-m", "pytest", "-q", "test_mine.py")
