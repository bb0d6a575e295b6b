"""The command line in this process."""

from __future__ import annotations

import pytest

from exan_verify.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and error output."""
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
