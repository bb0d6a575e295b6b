"""Checks of one stored example: what must be seen at it is recomputed from its numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from exan_verify.theorems.statement import Check, Direction, Example, Progress, Result


@dataclass(frozen=True, kw_only=True)
class ExampleCheck:
    """What such a check runs: ``judge`` at the example that ``example`` makes."""

    example: Callable[[], Example]
    judge: Callable[[Example], Result]

    def __call__(self, progress: Progress, _seed: int) -> Result:
        """Run it."""
        progress("one stored example", 0, 1)
        return self.judge(self.example())


def by_example(
    name: str,
    what: str,
    *,
    example: Callable[[], Example],
    judge: Callable[[Example], Result],
    direction: Direction = Direction.REFUTES,
) -> Check:
    """A check that runs a :class:`ExampleCheck`; most such examples refute."""
    return Check(name=name, what=what, run=ExampleCheck(example=example, judge=judge), direction=direction)


def all_met(found: dict[str, bool]) -> Result:
    """Holds when every condition does; those that do not are named."""
    wrong = [name for name, holds in found.items() if not holds]
    detail = f"not met: {', '.join(wrong)}" if wrong else f"met exactly: {', '.join(found)}"
    return Result(holds=not wrong, detail=detail, data=found)
