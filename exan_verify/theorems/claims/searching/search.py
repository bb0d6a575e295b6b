"""``search``: look for counterexamples to a claim, cheapest way first, and say what was looked at.

1. *drawn*: Hypothesis draws small networks and batches, and shrinks what contradicts the claim.
2. *engines*: corner cases and generic cases, whose outcome the exact engines certify.
3. *near*: where few of these met the hypotheses, a random walk among and towards those that do.
4. *all inputs*: for a few networks, a solver covers every batch.
5. *all weights*: for the smallest sizes, a solver covers every network at a few batches.

A counterexample is made smaller and verified exactly before it is shown. Finding none proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.errors import InputError
from exan_verify.theorems.claims.claim import Claim
from exan_verify.theorems.claims.searching.drawn import draw_counterexample
from exan_verify.theorems.claims.searching.engine_cases import try_instances
from exan_verify.theorems.claims.searching.explore import Limits
from exan_verify.theorems.claims.searching.found import Counterexample, Records, Stage, nothing_tested
from exan_verify.theorems.claims.searching.near import walk_near
from exan_verify.theorems.claims.searching.shrinking import minimal
from exan_verify.theorems.claims.searching.solved import Solved, all_inputs, all_weights
from exan_verify.theorems.claims.searching.tally import NEAREST, Tally
from exan_verify.theorems.claims.searching.unknowns import polynomial
from exan_verify.theorems.statement import Progress

__all__ = ["Searched", "search"]

EFFORT = 200
QUESTIONS = 2
"""Questions to a solver for each unit of effort, per stage, and for making a counterexample smaller."""


FEW = 20
"""Situations that a claim should be tested by at least; the search says so where they are fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search came to. ``refuted`` is final; its absence is not a proof of anything."""

    claim: Claim
    seed: int
    counterexample: Counterexample | None
    stages: tuple[Stage, ...]

    @property
    def refuted(self) -> bool:
        """Whether a counterexample was found and verified."""
        return self.counterexample is not None

    @property
    def says(self) -> str:
        """One sentence."""
        if self.counterexample is not None:
            return f"refuted by the stage {self.stages[-1].name!r}; the counterexample is verified exactly"
        if self.nothing_tested:
            return self.nothing_tested
        few = self.few_tested
        return f"no counterexample found; this is not a proof{few and ', and '}{few}"

    @property
    def few_tested(self) -> str:
        """That only few situations tested the claim, and how many; "" when it is not so."""
        looked_at, inside, undecided = (
            sum(stage.counts.get(what, 0) for stage in self.stages)
            for what in ("situations", "within the hypotheses", "undecided")
        )
        if inside - undecided >= FEW or not looked_at:
            return ""
        open_ = f", {undecided} of them without a decided conclusion" if undecided else ""
        return f"only {inside} of {looked_at} situations met the hypotheses{open_}"

    @property
    def nothing_tested(self) -> str:
        """Why the search tested nothing of the claim, whatever it looked at; "" when it did."""
        looked_at, inside = sum(s.looked_at for s in self.stages), sum(s.inside for s in self.stages)
        return nothing_tested(looked_at, inside, sum(s.undecided for s in self.stages), "situations")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """What all stages need."""

    claim: Claim
    seed: int
    effort: int
    deadline: float | None
    progress: Progress

    def tally(self, what: str, total: int) -> Tally:
        return Tally(self.claim, what, total, self.progress, self.deadline)

    def minimal(self, tally: Tally, records: Records, second: Batch | None = None) -> Counterexample | None:
        """The smallest counterexample that is reached from this one."""
        return minimal(tally, records, second, questions=self.effort * QUESTIONS, seed=self.seed)

    @property
    def limits(self) -> Limits:
        questions = self.effort * QUESTIONS
        return Limits(runs=questions, queries=questions, deadline=self.deadline, seed=self.seed)


def search(
    claim: Claim,
    *,
    seed: int = 0,
    budget: float | None = None,
    effort: int = EFFORT,
    progress: Progress | None = None,
) -> Searched:
    """Look for a counterexample to ``claim``; the first stage that finds one is the last.

    ``effort`` bounds each stage by counts (situations drawn, questions to a solver): same seed and effort,
    same result. ``budget`` is a wall-clock limit in seconds on top of that; running stages end early.

    Raises :class:`ClaimError` when a predicate raises or returns no bool.
    """
    if effort < 1 or (budget is not None and not budget > 0):
        raise InputError(f"effort={effort}, budget={budget}; give positive numbers")
    deadline = None if budget is None else time.monotonic() + budget
    told = progress or _silent
    way = _Way(claim=claim, seed=seed, effort=effort, deadline=deadline, progress=told)
    stages: list[Stage] = []
    networks: list[ReluNetwork] = list(claim.networks)
    nearest: list[tuple[int, Records]] = []
    for name, run in (("drawn", draw_counterexample), ("engines", try_instances), ("near", walk_near)):
        if name == "near" and sum(stage.inside for stage in stages) >= effort:
            continue
        stage, found, tally = _stage_of_situations(way, name, run, nearest)
        stages.append(stage)
        nearest = tally.nearest + nearest
        networks += [network for network in tally.promising if network not in networks]
        if found is not None:
            return Searched(claim=claim, seed=seed, counterexample=found, stages=tuple(stages))
    solvers = {"all inputs": lambda: all_inputs(claim, networks, way.limits, told)}
    if not claim.networks:
        solvers["all weights"] = lambda: all_weights(claim, way.limits, told)
    left_out = polynomial(claim)
    for name, solve in solvers.items():
        if left_out:
            stages.append(Stage(name=name, says=left_out, counts={}, seconds=0.0))
            continue
        stage, found = _stage_of_solver(way, name, solve)
        stages.append(stage)
        if found is not None:
            return Searched(claim=claim, seed=seed, counterexample=found, stages=tuple(stages))
    return Searched(claim=claim, seed=seed, counterexample=None, stages=tuple(stages))


def _stage_of_situations(
    way: _Way, name: str, run: Callable[..., None], nearest: list[tuple[int, Records]]
) -> tuple[Stage, Counterexample | None, Tally]:
    """A stage that judges situations one by one; it may start from the ``nearest`` of those before it."""
    start = time.perf_counter()
    tally = way.tally(name, way.effort)
    tally.nearest += sorted(nearest, key=lambda one: -one[0])[:NEAREST]
    run(way.claim, tally, examples=way.effort, seed=way.seed)
    found = None if tally.best is None else way.minimal(tally, tally.best)
    counts = tally.numbers()
    says = f"{counts['situations']} situations, {counts['within the hypotheses']} within the hypotheses"
    says += f", {counts['undecided']} of them undecided" if counts["undecided"] else ""
    return _stage(name, says, counts, start, "situations"), found, tally


def _stage(name: str, says: str, counts: Mapping[str, int], start: float, what: str) -> Stage:
    """What a stage looked at, or that it tested nothing."""
    made = Stage(name=name, says=says, counts=counts, seconds=time.perf_counter() - start)
    nothing = nothing_tested(made.looked_at, made.inside, made.undecided, what)
    return replace(made, says=nothing) if nothing else made


def _stage_of_solver(
    way: _Way, name: str, solve: Callable[[], Solved]
) -> tuple[Stage, Counterexample | None]:
    """A stage in which a solver covers cases; what it finds is made smaller."""
    start = time.perf_counter()
    solved = solve()
    counts = solved.numbers()
    covered = (
        f"{counts['cases covered completely']} of {counts['cases']} cases covered completely (by z3's word)"
    )
    says = f"{covered}, {counts['paths']} paths, {counts['questions to z3']} questions"
    found = solved.counterexample
    if found is not None:
        example, tally = found.example, way.tally(name, way.effort)
        found = way.minimal(tally, (example.relu, example.batch), example.second) or found
    return _stage(name, says, counts, start, "paths"), found


def _silent(_what: str, _done: int, _total: int) -> None:
    return None
