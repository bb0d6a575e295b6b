"""The measures of the code: they run, and count what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.measures import PACKAGE, comments, functions, main, measures

MODULE = '''
"""Of a module."""

# a comment line
X = 1  # none

def scaled(x: Array) -> Array:
    """Twice x."""
    return _twice(x)

def moved(x: Array) -> Array:
    """Rows (M, d),

    moved."""
    return _twice(_once(x))

def _twice(x: Array) -> Array:
    return 2 * x

def _once(x: Array) -> Array:
    return x
'''


def test_they_run_and_are_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    part = PACKAGE / "exact"
    monkeypatch.setattr("sys.argv", ["measures", str(part)])
    main()
    printed = capsys.readouterr().out.splitlines()
    assert [line[:34].rstrip() for line in printed] == list(measures(part))
    assert all(line[34:] for line in printed)


def test_what_is_counted(tmp_path: Path):
    scaled, moved, twice, once = functions(MODULE)
    assert (scaled.shape_stated, moved.shape_stated, twice.shape_stated) == (False, True, None)
    assert [f.used_once for f in (scaled, moved, twice, once)] == [False, False, False, True]
    assert (scaled.lines, moved.lines, scaled.docstring) == (3, 5, "Twice x.")
    assert comments(MODULE) == 1
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "module.py").write_text(MODULE)
    found = measures(tmp_path)
    assert (found["files"], found["fullest folder"]) == ("2", "1")
    assert found["private helpers used once"] == "1 of 4 functions, 25%"
    assert found["array functions without a shape"] == "1 of 2"
