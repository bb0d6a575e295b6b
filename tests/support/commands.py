"""The command line in this process, and processes that it started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from exan_verify.cli import main
from tests.support.schemas import require_valid

Run = Callable[..., tuple[int, str, str]]
"""The fixture of :func:`run`: the command's words in, exit code and both outputs out."""
RunJson = Callable[..., tuple[int, dict[str, Any]]]
"""The fixture of :func:`run_json`."""


def run(
    capsys: pytest.CaptureFixture[str], *arguments: str, exits: int | None = None
) -> tuple[int, str, str]:
    """Exit code, output and error output; what is printed as JSON follows its schema. ``exits``: the code."""
    code = main(arguments)
    captured = capsys.readouterr()
    assert exits in (None, code), captured.err
    if "--json" in arguments:
        errors = [line for line in captured.err.splitlines() if line.startswith("{")]
        for line in (*captured.out.splitlines(), *errors):
            require_valid(line)
    return code, captured.out, captured.err


def run_json(
    capsys: pytest.CaptureFixture[str], *arguments: str, exits: int | None = None
) -> tuple[int, dict[str, Any]]:
    """Exit code and the one object that is printed; a command that is done has no errors to say."""
    code, out, err = run(capsys, *arguments, "--json", exits=exits)
    assert out.count("\n") == 1, "one object on stdout"
    assert err == "" or code != 0
    return code, json.loads(out)


def all_end(processes: Iterable[int]) -> bool:
    """Whether all of these end within ten seconds; one that ended and was not waited for is no longer there.

    Reads /proc."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except FileNotFoundError:
            return False

    family, deadline = list(processes), time.monotonic() + 10
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, family))
