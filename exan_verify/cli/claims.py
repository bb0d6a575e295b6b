"""``exan theorems --file``: search a user's own claims for counterexamples, and show what was looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from exan_verify.cli.terminal.output import ExitCode, Output, table, titled, wall_clock
from exan_verify.errors import BudgetExhausted, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from exan_verify.theorems.claims.claim import Claim
    from exan_verify.theorems.claims.searching.found import Counterexample, Stage
    from exan_verify.theorems.claims.searching.search import Searched
    from exan_verify.theorems.statement import Statement

_HONEST = "No counterexample found. That is not a proof: only what is listed above was looked at."

OVERTIME = 1.0
"""Seconds beyond the budget after which a search is stopped that does not look at the clock (a predicate)."""

_REMEDY = "Weaken the hypotheses, give sizes at which they can hold, or a larger --effort."


def load(path: str, name: str | None) -> tuple[list[Claim], list[Statement]]:
    """The claims and statements of a file, or the one called ``name``."""
    from exan_verify.theorems.claims.claim import Claim
    from exan_verify.theorems.claims.loading import load_file

    found = load_file(path)
    if name is not None and name not in found:
        raise InputError(f"{path} has no claim called {name!r}; it has: {', '.join(found)}")
    chosen = list(found.values()) if name is None else [found[name]]
    claims = [part for part in chosen if isinstance(part, Claim)]
    return claims, [part for part in chosen if not isinstance(part, Claim)]


def search_all(output: Output, claims: Sequence[Claim], options: dict[str, Any], told: Any) -> list[Searched]:
    """Search each claim and, with text output, show it as soon as it is done."""
    from exan_verify.theorems.claims.searching.search import Searched, search

    budget = options["budget"]
    start, results = time.monotonic(), []
    for claim in claims:

        def progress(what: str, done: int, total: int, name: str = claim.name) -> None:
            told(f"{name}: {what}, {done} of {total}")

        left = None if budget is None else max(0.01, start + budget - time.monotonic())
        try:
            with wall_clock(None if left is None else left + OVERTIME):
                found = search(
                    claim, seed=options["seed"], budget=left, effort=options["effort"], progress=progress
                )
        except BudgetExhausted:
            found = Searched(claim=claim, seed=options["seed"], counterexample=None, stages=())
        results.append(found)
        output.say(*describe(found), "")
    return results


def searched_code(results: Sequence[Searched]) -> int:
    """1 when a claim is refuted, 3 when none is: nothing is decided then."""
    if any(result.refuted for result in results):
        return ExitCode.REFUSED
    return ExitCode.UNDECIDED if results else ExitCode.DONE


def searched_record(result: Searched) -> dict[str, Any]:
    """What a search came to, for JSON."""
    from exan_verify.theorems.as_text import example_record, replay_record

    found = result.counterexample
    return {
        "name": result.claim.name,
        "text": result.claim.text,
        "loss": result.claim.question.loss,
        "labels": result.claim.question.labels,
        "seed": result.seed,
        "refuted": result.refuted,
        "says": result.says,
        "nothing_tested": result.nothing_tested or None,
        "example": None if found is None else example_record(found.example),
        "replay": None if found is None else replay_record(found.replay),
        "stages": [
            {"name": s.name, "says": s.says, "counts": dict(s.counts), "seconds": s.seconds}
            for s in result.stages
        ],
    }


def describe(result: Searched) -> list[Any]:
    """The claim, the stages, and the counterexample if there is one."""
    parts: list[Any] = [titled(result.claim.name, f": {result.claim.text}"), _stages(result.stages)]
    if result.nothing_tested:
        return [*parts, titled("NOTHING TESTED", f": {result.nothing_tested}. {_REMEDY}", "bold yellow")]
    if result.counterexample is None:
        few = f" {result.few_tested.capitalize()}. {_REMEDY}" if result.few_tested else ""
        return [*parts, titled("NOT REFUTED", f": {_HONEST}{few}", "bold yellow")]
    refuted = f": by the stage '{result.stages[-1].name}'; verified exactly"
    return [*parts, titled("REFUTED", refuted, "bold red"), *_counterexample(result.counterexample)]


def _stages(stages: Sequence[Stage]) -> Table:
    made = table("stage", "looked at", "seconds ")
    for stage in stages:
        made.add_row(stage.name, stage.says, f"{stage.seconds:.1f}")
    return made


def _counterexample(found: Counterexample) -> list[str]:
    from exan_verify.theorems.as_text import example_lines

    replayed = [] if found.replay.confirmed is None else list(found.replay.says)
    return [*(f"  {line}" for line in (*example_lines(found.example), *replayed))]
