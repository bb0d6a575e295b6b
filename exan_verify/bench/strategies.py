"""``exan bench strategies``: how fast the Hypothesis strategies draw, and how much they throw away.

Each state of :func:`exan_verify.testing.questions`, and the other strategies, drawn as a test draws them,
with Hypothesis' health checks on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from exan_verify.bench import suite
from exan_verify.bench.suite import Case, Options, Suite
from exan_verify.errors import InputError

DRAWS = 100
"""Examples per seed."""

STATES: Mapping[str, Mapping[str, Any]] = {
    "any": {},
    "generic": {"generic": True},
    "published": {"published": True},
    "peelable": {"peelable": "all"},
    "unpeelable": {"peelable": "none"},
    "stopping set": {"stopping_set": True},
    "exclusive neurons": {"exans": {1: (2, 0, 1), 2: (1, 1, 0)}},
    "shared regions": {"shared_region": (2, 1)},
    "dead": {"dead": 1},
    "silent": {"silent": 1},
    "twins": {"twins": True},
    "near a boundary": {"near_boundary": True},
    "unique": {"outcome": "unique"},
    "digits": {"images": True},
}
OTHERS = ("networks", "batches", "gradients", "releases", "exclusivity states")
CASES = tuple(Case(name=name, seeds=1) for name in (*STATES, *OTHERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """One strategy. ``rejected``: of all draws, those that were thrown away; ``overruns``: draws that did not
    fit the size that Hypothesis tried, which it cuts short.
    """

    draws: int
    per_second: float
    rejected: float
    overruns: int


def measure(case: Case, options: Options) -> Iterator[Row]:
    """One row for :data:`DRAWS` examples per seed. Raises Hypothesis' FailedHealthCheck where one fails."""
    try:
        from hypothesis import Phase, given, seed, settings
        from hypothesis.statistics import collector
    except ModuleNotFoundError:
        raise InputError(
            "exan bench strategies needs hypothesis; pip install 'exan-verify[testing]'"
        ) from None
    strategy = _strategy(case.name)
    statuses: Counter[str] = Counter()
    seconds = 0.0
    for done, number in enumerate(options.seeds):
        options.tell(case.name, done, len(options.seeds))

        @seed(number)
        @settings(max_examples=DRAWS, phases=[Phase.generate], deadline=None, database=None)
        @given(strategy)
        def drawn(_: Any) -> None:
            pass

        told: list[Any] = []
        heard: Any = collector
        start = time.perf_counter()
        with heard.with_value(told.append):
            drawn()
        seconds += time.perf_counter() - start
        statuses.update(one["status"] for one in told[0]["generate-phase"]["test-cases"])
    kept = statuses["valid"] + statuses["invalid"]
    yield Row(
        name=case.name,
        draws=statuses["valid"],
        per_second=statuses["valid"] / max(seconds, 1e-9),
        rejected=statuses["invalid"] / max(1, kept),
        overruns=statuses["overrun"],
    )


def _strategy(name: str) -> Any:
    from exan_verify.core.question import Loss
    from exan_verify.testing import strategies as made

    if name in STATES:
        return made.questions(**STATES[name])
    networks = made.networks()
    others: dict[str, Callable[[], Any]] = {
        "networks": lambda: networks,
        "batches": lambda: networks.flatmap(lambda network: made.batches(network, Loss.MSE)),
        "gradients": lambda: made.questions().flatmap(made.gradients),
        "releases": lambda: networks.flatmap(made.releases),
        "exclusivity states": made.exclusivity_states,
    }
    return others[name]()


SUITE = Suite(
    name="strategies",
    title="strategies: draws per second and health",
    columns=(
        ("strategy", "name"),
        ("draws ", "draws"),
        ("per second ", "per_second"),
        ("rejected ", "rejected"),
        ("overruns ", "overruns"),
    ),
    cases=CASES,
    measure=measure,
    measured=("per_second",),
)
