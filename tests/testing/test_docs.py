"""The examples of docs/testing.md run as they stand; without the extra there is one error that says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "testing.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
FILES = {
    found.group(1): block for block in BLOCKS if (found := re.match(r"# (test_\w+\.py)\n", block)) is not None
}


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    root = str(DOCS.parents[1])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": root, "PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_examples_run_as_they_stand(tmp_path):
    """In a folder of their own, by a pytest that knows nothing of this suite's settings."""
    for name, block in FILES.items():
        (tmp_path / name).write_text(block)
    plugin = ("-p", "exan_verify.testing.plugin", "-p", "no:cacheprovider", "-p", "no:exan")
    ran = python("-m", "pytest", "-q", *plugin, "--exan-update", folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 passed, 1 xfailed" in ran.stdout
    assert (tmp_path / "__exan__" / "test_snapshots" / "test_what_is_certified.json").exists()


def test_code_that_is_no_test_file_runs():
    (block,) = (block for block in BLOCKS if block not in FILES.values())
    exec(compile(block, str(DOCS), "exec"), {"__name__": "docs"})


def test_every_option_and_law_is_documented():
    text = DOCS.read_text()
    from inspect import signature

    from exan_verify.testing import __all__, questions

    assert all(f"`{name}" in text or name in text for name in signature(questions).parameters)
    assert all(name in text for name in set(__all__) - {"digit_question"})


@pytest.mark.parametrize(
    "code",
    [
        "from exan_verify.testing import questions",
        "import exan_verify.testing as t; t.networks()",
        "from exan_verify.cli import main; import sys; sys.exit(main(['campaign', '--minutes', '1']))",
    ],
)
def test_without_the_extra_there_is_one_error(code, tmp_path):
    ran = python("-c", f"import sys; sys.modules['hypothesis'] = None\n{code}", folder=tmp_path)
    assert ran.returncode != 0
    last = ran.stderr.strip().splitlines()[-1]
    assert "needs hypothesis; pip install 'exan-verify[testing]'" in last
