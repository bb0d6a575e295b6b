"""The command line in this process."""

from __future__ import annotations

import pytest

from exan_verify.cli import main
from tests.support.schemas import require_valid


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and error output; what is printed as JSON follows its schema."""
    code = main(arguments)
    captured = capsys.readouterr()
    if "--json" in arguments:
        errors = [line for line in captured.err.splitlines() if line.startswith("{")]
        for line in (*captured.out.splitlines(), *errors):
            require_valid(line)
    return code, captured.out, captured.err
