"""Search all cubes of a question: listed page by page, each page tried cheaply before the next is listed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction

from exan_verify.core.budget import RAN_OUT, until
from exan_verify.errors import BudgetExhausted
from exan_verify.smt.arguments.cubes_by_region import list_by_regions
from exan_verify.smt.confirm import accept_model, family_member
from exan_verify.smt.cubes import (
    Task,
    all_literals,
    build,
    completeness,
    cube_tasks,
    settled_later,
)
from exan_verify.smt.portfolio import (
    NLSAT,
    SCOUT,
    SMT,
    Outcome,
    Round,
    Settings,
    proceed,
    query,
    shared_worker,
)
from exan_verify.smt.question.difference import Known
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.question.replay import ExactBatch
from exan_verify.smt.second_solver import second_opinion
from exan_verify.smt.shear import shear_script
from exan_verify.smt.solvers.cache import AnswerCache, query_key
from exan_verify.smt.solvers.run import SAT, UNSAT, Answer, Strategy, solver_of

FIRST_PAGE = 64
"""Cubes of the first page, and each further page has twice as many: a second batch is often near the known
one, and is found before the rest is listed."""

MAX_CUBES = 100_000
MAX_BITS = 5_000_000
"""More cubes than this, or literals in them, are not listed: the question then stays open."""

PAGE_FIELDS = frozenset({"cubes", "complete", "work"})

SHEAR = Round(SMT, 300_000, 5.0)
"""One linear query: as much as a short round gives a cube."""

DIRECT = (Round(SMT, 10_000_000, 5.0), Round(NLSAT, 10_000_000, 5.0))
"""The plain question whether a batch lacks a sample: where cubes are many, solvers often refute it whole."""

SCOUT_INDEX = -1
"""The index of the task that is the whole question."""

CHEAP_ROUNDS = 2
"""The short rounds at the head of the portfolio: a page gets them at once, long ones wait for all pages."""


@dataclass(slots=True)
class Search:
    """The cubes of one question, listed on demand, and what has been found about them.

    ``by_regions``: the list of cubes is made of regions. ``listers`` are the solvers that found a list
    complete: two where the settings ask for a second one, none where exact arithmetic says so.
    """

    posed: Posed
    settings: Settings
    cubes: list[list[bool]] = field(default_factory=list)
    complete: bool = False
    listers: tuple[str, ...] = ()
    by_regions: bool = False
    spent: int = 0
    notes: list[tuple[str, float]] = field(default_factory=list)

    def find(
        self,
        purpose: str,
        others: tuple[Known, ...] = (),
        *,
        radius: Fraction = Fraction(0),
        missing: int | None = None,
        skip: frozenset[int] = frozenset(),
        cheap: bool = False,
    ) -> Outcome:
        """Look for a batch that differs from ``others`` (see :class:`~exan_verify.smt.cubes.Task`).

        Cubes whose index is in ``skip`` are known to be empty; ``cheap`` leaves out the long rounds.
        """
        start, outcome = time.monotonic(), Outcome(work=self.spent)
        whole = Task(index=SCOUT_INDEX, posed=self.posed, others=others, radius=radius, missing=missing)
        with until(self.settings.deadline):
            try:
                if not self.cubes and others:
                    self.cubes.append(own_cube(others[0]))
                    self._list_by_regions()
                if not self._scout(whole, outcome):
                    self._search(whole, skip, outcome, cheap)
            except BudgetExhausted:
                outcome.stopped = RAN_OUT
            self.spent = outcome.work
            self._note(purpose, outcome, time.monotonic() - start)
            if self.settings.double_check and not (outcome.accepted or outcome.inconclusive):
                with suppress(BudgetExhausted):  # what is not confirmed by then has one solver's word
                    self._confirm(outcome)
        return outcome

    def _list_by_regions(self) -> None:
        """The whole list from the regions of single inputs, where that is the better way."""
        listed = list_by_regions(self.posed)
        if listed is not None:
            own = self.cubes[0]
            others = [cube for cube in listed if cube != own]
            # a second batch is more often close to the known one than far from it
            self.cubes += sorted(others, key=lambda cube: sum(a != b for a, b in zip(cube, own, strict=True)))
            self.complete = self.by_regions = True

    @contextmanager
    def shorter(self, share: float, most: float) -> Iterator[None]:
        """Leave only a share of the remaining wall time, and ``most`` seconds, if it is limited at all."""
        kept = self.settings
        if kept.deadline is not None:
            now = time.monotonic()
            self.settings = replace(kept, deadline=now + min(most, share * max(0.0, kept.deadline - now)))
        try:
            yield
        finally:
            self.settings = kept

    def _search(self, whole: Task, skip: frozenset[int], outcome: Outcome, cheap: bool) -> None:
        hard: list[Task] = []
        first_rounds, long_rounds = self.settings.rounds[:CHEAP_ROUNDS], self.settings.rounds[CHEAP_ROUNDS:]
        for first, page in self.pages(outcome):
            tasks = cube_tasks(whole, page, first)
            fresh = [t for t in tasks if t.index not in skip]
            hard += proceed(outcome, fresh, first_rounds, self.settings, accept_model)
            if outcome.accepted or outcome.stopped:
                return
        if not (outcome.stopped or cheap):
            left = [t for t in hard if not self._settle(t, outcome)]
            proceed(outcome, left, long_rounds, self.settings, accept_model)

    def _settle(self, task: Task, outcome: Outcome) -> bool:
        """Refute a hard cube by its regions, without a solver."""
        if not settled_later(task):
            return False
        outcome.refuted[task.index] = None
        outcome.open.pop(task.index, None)
        return True

    def _scout(self, whole: Task, outcome: Outcome) -> bool:
        """Try the whole question at once; True when that decides it."""
        if not self.posed.question.loss.rational:
            return self._family(whole, outcome)
        if not self.settings.scout or (self.by_regions and whole.missing is None):
            return False
        rounds: tuple[Round, ...] = (SCOUT,) if whole.missing is None else DIRECT
        share = 1 / 4 if whole.missing is None else 1 / 3
        left = self.settings.seconds_left
        if left is not None:
            rounds = tuple(replace(r, seconds=min(r.seconds, share * left)) for r in rounds)
        waiting = [whole]
        for current in rounds:
            within = self._within(current, outcome)
            waiting = proceed(outcome, waiting, (within,), self.settings, accept_model)
        if outcome.accepted or outcome.refuted:
            return True
        outcome.open.clear()
        outcome.tasks.clear()
        return False

    def _family(self, whole: Task, outcome: Outcome) -> bool:
        """Look for a family through the known batch; True when that gives another batch."""
        if not whole.others:
            return False
        fixed = tuple(zip(all_literals(self.posed), own_cube(whole.others[0]), strict=True))
        own = replace(whole, index=0, fixed=fixed)
        within = self._within(SHEAR, outcome)
        answer = query(shear_script(own).text(comments=False), within, self.settings)
        found = accept_model(own, answer) if answer.status == SAT else None
        if not isinstance(found, ExactBatch):
            answer, found = Answer(SAT, "Newton's iteration"), family_member(own)
        if found is not None:
            outcome.accepted = (own, answer, found)
        return found is not None

    def _within(self, current: Round, outcome: Outcome) -> Round:
        """The round with what is left of a work limit that was asked for."""
        limit = self.settings.work_limit
        return current if limit is None or self.settings.unasked else current.within(limit - outcome.work)

    def pages(self, outcome: Outcome) -> Iterator[tuple[int, list[list[bool]]]]:
        """``(index of the first cube, cubes)``: those listed before, then new ones until there are none."""
        listed = list(self.cubes)
        for first in range(0, len(listed), FIRST_PAGE):
            yield first, listed[first : first + FIRST_PAGE]
        size = FIRST_PAGE
        while not self.complete:
            page = self._next_page(size, outcome)
            if page is None:
                return
            first, size = len(self.cubes), 2 * size
            self.cubes += page
            yield first, page

    def _next_page(self, size: int, outcome: Outcome) -> list[list[bool]] | None:
        """The next cubes; None when the budget has run out (noted in the outcome)."""
        script = completeness(self.posed, self.cubes)
        if script.refuted:
            self.complete = True  # folded to false: nobody's word
            return []
        text = script.text(comments=False)
        store = AnswerCache(self.settings.cache)
        key = query_key(text, ENUMERATE, limit=size, seed=self.settings.seed)
        record = store.get(key, PAGE_FIELDS)
        if record is None:
            reply, cubes = shared_worker().states(
                text,
                all_literals(self.posed),
                limit=size,
                seconds=self.settings.seconds_left,
                seed=self.settings.seed,
            )
            if reply.status not in (SAT, UNSAT):
                outcome.stopped = f"the cubes could not be listed ({reply.reason})"
                return None
            record = {"cubes": sorted(cubes), "complete": reply.status == UNSAT, "work": reply.work}
            store.put(key, record)
        outcome.work += record["work"]
        page: list[list[bool]] = record["cubes"]
        most = min(MAX_CUBES, MAX_BITS // len(all_literals(self.posed)))
        if len(self.cubes) + len(page) > most:
            outcome.stopped = f"there are more than {most} cubes"
            return None
        if record["complete"]:
            self.complete, self.listers = True, (ENUMERATE.solver,)
        return page

    def _confirm(self, outcome: Outcome) -> None:
        """Ask another solver about every cube that one solver refuted, and about the list of cubes."""
        if len(self.listers) == 1 and SCOUT_INDEX not in outcome.refuted:
            text = completeness(self.posed, self.cubes).text(comments=False)
            other = second_opinion("completeness of the cubes", text, self.listers[0], self.settings)
            self.listers += (other,) if other else ()
        for index, reply in outcome.refuted.items():
            if reply is not None:
                task = outcome.tasks[index]
                text = build(task).text(comments=False)
                other = second_opinion(task.name, text, solver_of(reply), self.settings)
                if other:
                    outcome.confirmed[index] = other

    def _note(self, purpose: str, outcome: Outcome, seconds: float) -> None:
        if SCOUT_INDEX in outcome.refuted:
            found = "the whole question is refuted at once"
        elif outcome.accepted:
            task, answer, _ = outcome.accepted
            where = "the whole question" if task.index == SCOUT_INDEX else task.name
            found = f"a model of {where} by {answer.solver}, confirmed"
        else:
            listed = f"{'all ' if self.complete else 'the first '}{len(self.cubes)} cubes"
            found = f"{listed} tried, {len(outcome.refuted)} refuted, {len(outcome.open)} open"
        self.notes.append((f"{purpose}: {found}", seconds))


def own_cube(truth: Known) -> list[bool]:
    """The cube in which the known batch lies: its samples' states in order. It is tried first."""
    return [bit for state in sorted(truth.states) for bit in state]


ENUMERATE = Strategy("z3", "lra-enumerate")
