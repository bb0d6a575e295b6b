"""One step of a run: what is asked, and the line that is kept of the answer."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from exan_verify.api.attack import unwrapped, with_convolutions
from exan_verify.api.audit import GATES, Audit, audit
from exan_verify.api.files import about
from exan_verify.api.records import release_record, tiers
from exan_verify.api.releases import network_seen_through, projection_release
from exan_verify.api.runs.steps import Step
from exan_verify.core.arrays import digest_arrays, exact_array
from exan_verify.core.certificate import domain_record
from exan_verify.core.network import Network, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.core.verdict import SampleStatus
from exan_verify.errors import ExanError, fitting_into_memory
from exan_verify.models.chain import to_any_network, to_network

STEP_SCHEMA = "exan/run-step/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What is kept of a step, a line of JSON: never the batch's inputs.

    ``index``: its position in the run, from 0; ``step``, ``epoch``, ``accuracy``, ``source``, ``line`` as
    given. ``network``: the widths; ``model_sha256`` and ``batch_sha256`` of exact values. ``outcome`` to
    ``reason``: of the verdict. Of ``batch_size`` samples, ``determined``, ``free`` and ``unknown``;
    ``published`` and ``peelable`` (None: the budget ended before); ``confirmed``, ``consistent`` and
    ``candidates`` of the attack, None where none was made or came to an end: then ``no_attack`` says why.
    ``gates``: the state of every gate.
    """

    index: int
    step: int
    epoch: int | None
    accuracy: float | None
    source: str
    line: int | None
    network: str
    model_sha256: str
    batch_sha256: str
    batch_size: int
    outcome: str
    trust: str | None
    engine: str | None
    reason: str
    determined: int
    free: int
    unknown: int
    published: int | None
    peelable: int | None
    confirmed: int | None
    consistent: int | None
    candidates: int | None
    no_attack: str
    gates: dict[str, str]
    seconds: float
    schema: str = STEP_SCHEMA

    @property
    def name(self) -> str:
        """What messages and reports call it."""
        return f"step {self.step}" if self.epoch is None else f"step {self.step} of epoch {self.epoch}"

    def lasting(self) -> dict[str, Any]:
        """The record without ``seconds`` and ``source``: how long it took, and from where it was read."""
        record: dict[str, Any] = msgspec.to_builtins(self)
        del record["seconds"], record["source"]
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of every step of a run; options as ``audit``'s, ``step_budget`` in seconds for each."""

    question: Question
    attack: bool = False
    step_budget: float | None = None
    work_limit: int | None = None
    seed: int = 0

    def to_record(self) -> dict[str, Any]:
        """What a resumed run must have in common with the first part."""
        asked = self.question
        domain = asked.domain
        return {
            "loss": asked.loss,
            "reduction": asked.reduction,
            "labels": asked.labels,
            "domain": None if domain is None else domain_record(domain, len(domain.lo)),
            "release": None if asked.release is None else release_record(asked.release),
            "attack": self.attack,
            "step_budget": self.step_budget,
            "work_limit": self.work_limit,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A step as a worker gets it: a copy of the model that training goes on without. ``end``: when the budget
    of the run ends, as :func:`time.time` counts, which other processes share.

    It has slots, and so no weak references: dask would keep what has them on one worker, and lose the step
    when that worker dies.
    """

    index: int
    name: str
    step: Step
    network: str
    model_sha256: str
    batch_sha256: str
    asked: Asked
    end: float | None


def prepare(index: int, given: Step, asked: Asked, end: float | None) -> Prepared:
    """Check a step and copy its model. Raises an error that names the step."""
    name = _name(index, given)
    with about(name):
        step = given.exact()
        model, _ = unwrapped(step.model)
        if not isinstance(model, ReluNetwork) and with_convolutions(model):
            model = copy.deepcopy(model)
            numbers = [exact_array(value, name) for name, value in model.state_dict().items()]
            network = f"{type(model).__name__} of {sum(array.size for array in numbers)} numbers"
            digest = digest_arrays("module", numbers)
        else:
            release = asked.question.release or projection_release(model, step.batch)
            if release is not None:
                asked = replace(asked, question=replace(asked.question, release=release))
            exact: Network = to_any_network(model) if release is None else to_network(model)
            if isinstance(exact, ReluNetwork):
                exact = network_seen_through(exact, release, model)
            model, network, digest = exact, "-".join(map(str, exact.widths)), exact.digest
        return Prepared(
            index=index,
            name=name,
            step=replace(step, model=model),
            network=network,
            model_sha256=digest,
            batch_sha256=digest_arrays("batch", step.batch),
            asked=asked,
            end=end,
        )


def audit_step(one: Prepared) -> StepRecord | ExanError | None:
    """The record of a step; an error that names it; None where the budget of the run cut it.

    Errors are returned: those of other steps that are under way are then still kept.
    """
    start, asked, question = time.time(), one.asked, one.asked.question
    budget = asked.step_budget
    if one.end is not None:
        left = one.end - start
        if left <= 0:
            return None
        budget = left if budget is None else min(budget, left)
    try:
        with about(one.name), fitting_into_memory("this step"):
            found = audit(
                one.step.model,
                one.step.batch,
                loss=question.loss,
                reduction=question.reduction,
                labels=question.labels,
                domain=question.domain,
                release=question.release,
                attack=asked.attack or with_convolutions(one.step.model),
                budget=budget,
                work_limit=asked.work_limit,
                seed=asked.seed,
            )
    except ExanError as error:
        return error
    now = time.time()
    # what the run's budget has cut is not the step's answer; a resumed run asks again
    return None if one.end is not None and now >= one.end else record_of(one, found, now - start)


def record_of(one: Prepared, found: Audit, seconds: float) -> StepRecord:
    """The line that is kept of an audit."""
    verdict, state, statuses = found.verdict, found.exclusivity, found.verdict.samples
    gained = None if found.attack is None else tiers(found.attack.found)
    return StepRecord(
        index=one.index,
        step=one.index if one.step.step is None else one.step.step,
        epoch=one.step.epoch,
        accuracy=one.step.accuracy,
        source=one.step.source,
        line=one.step.line,
        network=one.network,
        model_sha256=one.model_sha256,
        batch_sha256=one.batch_sha256,
        batch_size=found.batch_size,
        outcome=verdict.outcome.value,
        trust=None if verdict.trust is None else verdict.trust.value,
        engine=None if verdict.engine is None else verdict.engine.value,
        reason=verdict.reason,
        determined=statuses.count(SampleStatus.DETERMINED),
        free=statuses.count(SampleStatus.FREE),
        unknown=statuses.count(SampleStatus.UNKNOWN) + statuses.count(SampleStatus.FEATURES),
        published=None if state is None else sum(state.published_by_sample),
        peelable=None if state is None else sum(state.peelable),
        confirmed=None if gained is None else gained["confirmed"],
        consistent=None if gained is None else gained["consistent"],
        candidates=None if gained is None else gained["candidates"],
        no_attack=found.no_attack,
        gates={gate: found.gate(gate) for gate in GATES},
        seconds=seconds,
    )


def _name(index: int, step: Step) -> str:
    """What an error calls a step."""
    number = index if step.step is None else step.step
    where = step.source if step.line is None else f"{step.source}, line {step.line}"
    return f"step {number} ({where})" if where else f"step {number}"
