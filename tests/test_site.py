"""The pages of the site: what they show runs, what they name exists, and the references are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
import torch

import exan_verify
from exan_verify.cli.program import COMMANDS
from exan_verify.theorems.registry import registry
from tests.support.commands import Run

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUN = ("start", "audit", "verdict", "smt", "theorems")
"""Pages that are run, in this order, in one folder: the later ones take the files of the first."""


def shown(expected: str, printed: str) -> None:
    """The lines of an example are among those printed, in their order; an ellipsis stands for anything."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    start = 0
    for line in (" ".join(line.split()) for line in expected.splitlines()):
        wanted = re.compile(".*".join(map(re.escape, line.split("..."))))
        found = [k for k in range(start, len(lines)) if wanted.fullmatch(lines[k])]
        assert found or line == "...", f"{line!r} is not among\n{printed}"
        start = found[0] + 1 if line != "..." else start


def test_the_examples_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run):
    monkeypatch.chdir(tmp_path)
    for page in RUN:
        names: dict[str, Any] = {}
        for kind, block in re.findall(
            r"```(python|console)\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S
        ):
            if kind == "python":
                exec(compile(block, f"{page}.md", "exec"), names)
                continue
            for command, expected in re.findall(r"^\$ exan (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
                code, out, err = run(*shlex.split(command))
                assert code in (0, 1), err
                shown(expected, out)


def test_the_pages_that_take_a_model_run_on_one():
    """Some speak of the reader's own model and batch: small ones here."""
    rng = np.random.default_rng(3)
    model = torch.nn.Sequential(torch.nn.Linear(16, 40), torch.nn.ReLU(), torch.nn.Linear(40, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.tensor(rng.normal(size=parameter.shape)))
    mine = {
        "x": rng.random((4, 16)),
        "y": np.array([0, 0, 1, 2]),
        "more_x": rng.random((24, 16)),
        "more_y": np.arange(24) % 4,
        "public_x": rng.random((60, 16)),
        "public_directions": np.linalg.qr(rng.normal(size=(16, 3)))[0],
    }
    assert pages_run("mitigation", model=model, **mine)["found"].recommendation
    assert pages_run("theorems")["HIDDEN_IS_SAFE"].name == "hidden-is-safe"
    names = pages_run("python", "certify")
    assert names["rebuilt"].complete
    reason = pages_run("python")["verdict"].reason
    assert "51 independent equations in 57 unknowns" in reason, "the comment beside it says so"
    assert len(pages_run("convolution")["found"].x) == 3
    assert max(names["verdict"].witness.radius) < 1.4e-3, "the comment beside it says so"
    assert pages_run("releases", **names)["rows"].shape == (128,)


def pages_run(*pages: str, **names: Any) -> dict[str, Any]:
    """The names that the Python of these pages leaves, run one after the other on those given."""
    names |= {"__name__": "docs"}
    for page in pages:
        for block in re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.S):
            exec(compile(block, f"{page}.md", "exec"), names)
    return names


def test_every_schema_is_documented():
    used = {
        name
        for path in Path(exan_verify.__file__).parent.rglob("*.py")
        for name in re.findall(r'"(exan/[a-z-]+/\d+)"', path.read_text())
    }
    documented = set(re.findall(r"`(exan/[a-z-]+/\d+)`", (DOCS / "files.md").read_text()))
    assert used == documented


def test_what_the_claims_came_to_is_what_the_registry_says():
    text = (DOCS / "reproducing.md").read_text()
    rows = re.findall(r"\| `exan theorems ([a-z0-9-]+)` \| (proved|refuted)(.*)\|", text)
    assert len(rows) > 20
    for name, standing, more in rows:
        statement = registry()[name]
        assert statement.standing.value == standing, name
        in_coq = any(ground.method.value == "coq" for ground in statement.grounds)
        assert in_coq or "in Coq" not in more, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere_and_no_page_is_left_out(page: Path):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        assert target.startswith(("https:", "generated/")) or (DOCS / target).exists(), target
        assert not re.match(r"\.\./.*\.md", target), f"{target} is no page of the site"
    index = (DOCS / "index.md").read_text()
    assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.M), "not in the index"


def test_the_readme_is_a_page_that_leads_to_every_other():
    text = (DOCS.parent / "README.md").read_text()
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    assert all((DOCS.parent / target).exists() for target in targets)
    linked = {Path(target).stem for target in targets if target.startswith("docs/")}
    assert {page.stem for page in PAGES} - {"index", "proofs"} <= linked
    assert len(text.splitlines()) <= 110


def test_statements_that_pages_name_exist():
    assert f"lists all {len(registry())};" in (DOCS / "terminal.md").read_text()
    for page in ("boundary", "reproducing"):
        text = (DOCS / f"{page}.md").read_text()
        for name in re.findall(r"`((?:[a-z]+[0-9]?)(?:-[a-z0-9]+)+|[cesp][0-9])`", text):
            assert name in registry(), name


def test_the_references_have_every_command_option_and_public_name():
    made = run_path(str(DOCS / "conf.py"))
    commands, python = made["commands_page"](), made["api_page"]()
    table = (DOCS / "terminal.md").read_text()
    for command in COMMANDS:
        assert re.search(rf"^\|.*`exan {command.name}`.*\|.*\|$", table, re.M), command.name
        section = commands.split(f"## exan {command.name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            options = [name for name in parameter.opts if name.startswith("--")]
            assert all(re.search(rf"`[^`]*{name}\b", section) for name in options)
    public = set(exan_verify.__all__) - {"__version__"}
    assert public == set(re.findall(r":: exan_verify\.(\w+)\n", python)) - {"errors"}
