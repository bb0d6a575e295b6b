"""The solver process that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exan_verify.smt.solvers.run import Worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as opened:
        yield opened
