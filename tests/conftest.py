"""How Hypothesis draws in this suite, and fixtures for all of it.

The default profile draws the same examples on every machine and in every run; ``campaign`` draws anew, fifty
times as many; ``dev``, for the work on a strategy or a law, draws a few anew, with all of Hypothesis' health
checks:

    pytest --hypothesis-profile=campaign tests/properties/test_exact_gradients.py

None keeps a database of examples, so that a run depends on nothing but the code, and no example has a
deadline or is too slow, since its time is the machine's affair.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

_COUNTED = 100
"""Examples for which ``examples`` has its count as written. The default profile draws fewer, so that the
suite stays within minutes."""

settings.register_profile(
    "default",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("campaign", settings.get_profile("default"), derandomize=False, max_examples=5000)
settings.register_profile(
    "dev", settings.get_profile("default"), derandomize=False, max_examples=20, suppress_health_check=[]
)
settings.load_profile("default")

# Hypothesis also draws constants that it finds in the modules loaded so far. Those depend on what ran before
# in the same process and on the name of the folder; the same examples everywhere are worth more.
providers._get_local_constants = Constants


def examples(count: int) -> settings:
    """The profile's share of ``count`` examples: half by default, fifty times as many with ``campaign``."""
    return settings(max_examples=max(1, count * settings().max_examples // _COUNTED))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """A command in this process: ``code, out, err = run("certify", ...)``."""
    from tests.support import commands

    return partial(commands.run, capsys)


@pytest.fixture
def run_json(capsys: pytest.CaptureFixture[str]) -> Any:
    """The same with ``--json``: ``code, record = run_json("certify", ...)``."""
    from tests.support import commands

    return partial(commands.run_json, capsys)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks run their cases here: a process of its own for each costs more than the smallest cases."""
    from exan_verify.bench import compare

    def compared(job: Any, method: str, _: float) -> Any:
        return compare.METHODS[method](job())

    monkeypatch.setattr(compare, "_isolated", compared)
    for suite in ("attack", "certify", "convolution", "prove", "reach"):
        monkeypatch.setattr(f"exan_verify.bench.{suite}.isolated", lambda run, seed: run(seed))
