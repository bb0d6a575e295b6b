"""What a run comes to: shares of its samples, by epoch and over all, and the worst steps."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from exan_verify.api.audit import GATES
from exan_verify.api.records import pretty
from exan_verify.api.runs.folder import RunFolder, digest_of
from exan_verify.api.runs.step_record import StepRecord
from exan_verify.errors import InputError, unknown

RUN_SCHEMA = "exan/run/1"
WORST = 10
"""Steps that the summary lists."""

SHARES = ("determined", "free", "unknown", "published", "peelable", "confirmed", "consistent", "candidates")
"""What is counted of samples; the last three by the attack."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """Counts over some steps: ``samples`` by :data:`SHARES`; ``of[name]``: samples of which that is known
    (those of steps that the attack was made on, for its tiers); ``outcomes`` of steps."""

    steps: int = 0
    samples: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))
    of: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SHARES, 0))
    outcomes: dict[str, int] = field(default_factory=dict)

    def add(self, record: StepRecord) -> None:
        """Count a step."""
        self.steps += 1
        self.samples += record.batch_size
        self.outcomes[record.outcome] = self.outcomes.get(record.outcome, 0) + 1
        for name in SHARES:
            count = getattr(record, name)
            if count is not None:
                self.counts[name] += count
                self.of[name] += record.batch_size

    def share(self, name: str) -> float | None:
        """The share of the samples, in [0, 1]; candidates may be more than samples. None: not known."""
        return self.counts[name] / self.of[name] if self.of[name] else None

    def to_record(self) -> dict[str, Any]:
        """Steps, samples, outcomes, and for each count its share."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "outcomes": dict(sorted(self.outcomes.items())),
            "counts": {name: self.counts[name] if self.of[name] else None for name in SHARES},
            "shares": {name: self.share(name) for name in SHARES},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run's summary; the steps themselves stay in the folder ``out``.

    ``total``: steps that the run has, None where that is not known; ``unfinished``: why there are steps
    without an answer, empty where there are none. ``all``: over all finished steps; ``epochs``: by epoch, in
    order, steps without one under None. ``gates``: the state of every gate over the finished steps.
    ``worst``: the steps of which most is recovered, else determined, else peelable. ``digest``: SHA-256 of
    all lines without their seconds: the same however many jobs and interruptions there were.
    """

    out: Path
    total: int | None
    unfinished: str
    all: Totals
    epochs: dict[int | None, Totals]
    gates: dict[str, str]
    worst: tuple[StepRecord, ...]
    digest: str
    folder: RunFolder = field(repr=False, compare=False)

    def steps(self) -> Iterator[StepRecord]:
        """The finished steps in order, read from the folder one at a time."""
        return self.folder.records()

    def gate(self, name: str) -> str:
        """``hit`` by one step, ``passed`` when every step passed it, else ``undecided``, as for a run that is
        not finished. Raises :class:`InputError` for an unknown name."""
        if name not in GATES:
            raise InputError(unknown("gate", name, GATES))
        state = self.gates[name]
        return "undecided" if state == "passed" and self.unfinished else state

    def to_record(self) -> dict[str, Any]:
        """The summary as a JSON-able dict of schema ``exan/run/1``."""
        return {
            "schema": RUN_SCHEMA,
            "out": str(self.out),
            "total": self.total,
            "unfinished": self.unfinished,
            **self.all.to_record(),
            "epochs": [{"epoch": epoch, **one.to_record()} for epoch, one in self.epochs.items()],
            "gates": {name: self.gate(name) for name in GATES},
            "worst": [msgspec.to_builtins(record) for record in self.worst],
            "digest": self.digest,
        }

    def to_json(self) -> str:
        """The record as indented JSON text."""
        return pretty(self.to_record()).decode()


def report_of(folder: RunFolder, total: int | None, unfinished: str) -> RunReport:
    """The report of the finished steps, in one pass over them."""
    whole = Totals()
    epochs: dict[int | None, Totals] = {}
    gates = dict.fromkeys(GATES, "passed" if len(folder) else "undecided")

    def counted() -> Iterator[StepRecord]:
        for record in folder.records():
            whole.add(record)
            epochs.setdefault(record.epoch, Totals()).add(record)
            for name in GATES:
                gates[name] = max(gates[name], record.gates[name], key=_WEIGHT.__getitem__)
            heapq.heappush(worst, (*_severity(record), -record.index))
            if len(worst) > WORST:
                heapq.heappop(worst)
            yield record

    worst: list[tuple[float, ...]] = []
    digest = digest_of(counted())
    order = [-int(entry[-1]) for entry in sorted(worst, reverse=True)]
    kept = {record.index: record for record in folder.records() if record.index in order}
    return RunReport(
        out=folder.path,
        total=total,
        unfinished=unfinished,
        all=whole,
        epochs=dict(sorted(epochs.items(), key=lambda one: (one[0] is None, one[0] or 0))),
        gates=gates,
        worst=tuple(kept[index] for index in order),
        digest=digest,
        folder=folder,
    )


_WEIGHT = {"passed": 0, "undecided": 1, "hit": 2}


def _severity(record: StepRecord) -> tuple[float, ...]:
    """How much of a step leaks, the worst first: shares recovered, determined, peelable, published."""
    recovered = (record.confirmed or 0) + (record.consistent or 0)
    counts = (recovered, record.determined, record.peelable or 0, record.published or 0)
    return tuple(count / record.batch_size for count in counts)
