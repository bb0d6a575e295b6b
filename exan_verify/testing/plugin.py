"""A pytest plugin: the fixture ``exan_audit``, the marker ``exan``, snapshots, and properties for JUnit.

It is found by its entry point; loading it imports neither torch nor an engine, which the first audit does.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from exan_verify.api.audit import Audit
    from exan_verify.core.certificate import Claim

_FOLDER = "__exan__"
"""Beside a test file: its snapshots."""

_LIMITS = ("budget", "work_limit")
_WRITTEN = pytest.StashKey[Counter[str]]()


class ExanAudit:
    """What the fixture ``exan_audit`` is: call it to audit a batch, as :func:`exan_verify.audit` does, within
    the limits of the test's marker; its methods assert.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request
        self._names: set[str] = set()

    def __call__(self, model: Any, batch: Any = None, **options: Any) -> Audit:
        """The audit of ``batch``; outcome, trust and counts become properties of the test."""
        from exan_verify.testing.asserting import audited

        return audited(model, batch, **options)

    def assert_leaks(self, model: Any, batch: Any = None, **options: Any) -> Audit:
        """:func:`exan_verify.testing.assert_leaks`."""
        from exan_verify.testing.asserting import assert_leaks

        return assert_leaks(model, batch, **options)

    def assert_protected(self, model: Any, batch: Any = None, **options: Any) -> Audit:
        """:func:`exan_verify.testing.assert_protected`."""
        from exan_verify.testing.asserting import assert_protected

        return assert_protected(model, batch, **options)

    def snapshot(self, model: Any, batch: Any = None, *, name: str = "", **options: Any) -> Claim:
        """Compare what is certified of ``batch`` with the snapshot of this test, and return the claim.

        The kernel derives the stored claim again; no engine runs. With ``--exan-update`` the engines do, and
        the file is written. ``name`` tells several snapshots of a test apart; ``options`` as ``certify``'s.
        """
        from exan_verify.testing import snapshots

        item = self._request.node
        path = Path(item.path).parent / _FOLDER / Path(item.path).stem / f"{_file_name(item.name, name)}.json"
        if path.name in self._names:
            pytest.fail(
                f"two snapshots of this test have the name {name!r}; give another name=", pytrace=False
            )
        self._names.add(path.name)
        if not item.config.getoption("exan_update"):
            return snapshots.replay(path, model, batch, **options)
        claim, fate = snapshots.write(path, model, batch, **{**_limits(item), **options})
        item.config.stash[_WRITTEN][fate] += 1
        return claim


def _file_name(test: str, name: str) -> str:
    return re.sub(r"[^\w.\-\[\]=]", "_", f"{test}.{name}" if name else test)


@pytest.fixture
def exan_audit(request: pytest.FixtureRequest) -> ExanAudit:
    """Audits within the limits of the marker ``exan``, assertions about leaks, and snapshots."""
    return ExanAudit(request)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--exan-update``."""
    parser.getgroup("exan").addoption(
        "--exan-update",
        action="store_true",
        dest="exan_update",
        help="certify anew and write the snapshots of exan_audit.snapshot",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker ``exan``."""
    config.stash[_WRITTEN] = Counter()
    config.addinivalue_line(
        "markers", "exan(budget=None, work_limit=None): limits of the audits of exan_verify in this test"
    )


def _limits(item: pytest.Item) -> dict[str, Any]:
    """The limits of the nearest marker. Raises :class:`pytest.UsageError` for anything else in it."""
    marker = item.get_closest_marker("exan")
    if marker is None:
        return {}
    if marker.args or set(marker.kwargs) - set(_LIMITS):
        raise pytest.UsageError(
            f"{item.nodeid}: the marker exan takes budget= and work_limit= only, by name; correct it"
        )
    return dict(marker.kwargs)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Wrong markers end the run before any test."""
    for item in items:
        _limits(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What assertions outside the fixture know of the test that runs."""
    limits = _limits(item)
    # loading the assertions of a test that makes none would cost every other test suite its time
    if not limits and not _may_assert(item):
        return (yield)
    from exan_verify.testing.asserting import RUNNING, Running

    def folder() -> Path:
        factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
        return factory.mktemp(re.sub(r"\W", "_", item.name)[:30])

    running = Running(limits, folder, lambda name, value: item.user_properties.append((name, value)))
    token = RUNNING.set(running)
    try:
        return (yield)
    finally:
        RUNNING.reset(token)


def _may_assert(item: pytest.Item) -> bool:
    """Whether the test has the fixture, or its process has loaded the assertions."""
    return "exan_audit" in getattr(item, "fixturenames", ()) or "exan_verify.testing.asserting" in sys.modules


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """How many snapshots were written."""
    counts = config.stash[_WRITTEN]
    if counts:
        said = ", ".join(
            f"{counts[fate]} {fate}" for fate in ("written", "changed", "unchanged") if counts[fate]
        )
        terminalreporter.section("exan")
        terminalreporter.write_line(f"snapshots: {said}")
