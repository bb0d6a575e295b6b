"""``exan bench prove``: files are written and compiled, and what is missing is said."""

from __future__ import annotations

import shutil

import pytest

from exan_verify.bench import prove
from exan_verify.bench.cases.certify_cases import Case
from exan_verify.bench.suite import Options
from exan_verify.coq.compiling import is_compiled

SMALL = "4-16-3 M=2 mse, integers"


@pytest.mark.skipif(shutil.which("coqc") is None or not is_compiled(), reason="needs coqc and the library")
@pytest.mark.usefixtures("in_this_process")
def test_a_file_is_written_and_compiled():
    (row,) = prove.SUITE.run(Options(seeds=[0]), rows=[SMALL])
    assert (row.outcomes, row.files, row.accepted, row.refused) == ({"unique": 1}, 1, 1, ())
    assert 1 < row.kilobytes < 10
    assert row.coqc_seconds > 0.1
    assert row.peak_mib > 100


@pytest.mark.usefixtures("in_this_process")
def test_without_coqc_the_row_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    (row,) = prove.SUITE.run(Options(seeds=[0, 1]), rows=[SMALL])
    assert (row.seeds, row.files, row.accepted) == (2, 2, 0)
    assert (row.coqc_seconds, row.peak_mib) == (None, None)
    (reason,) = row.refused
    assert "coqc is not installed" in reason


def test_what_no_file_can_be_made_of_is_named():
    """Two samples of one region below two logits: residual systems have no file."""
    case = Case(name="t", widths=(4, 2, 3), samples=2, data="region", classes=(0, 1))
    run = prove.run_case(case, 0)
    assert (run.kilobytes, run.accepted, run.coqc_seconds) == (None, False, None)
    assert run.refused is not None
