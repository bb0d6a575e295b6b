"""The SMT path's answer to the question: cubes, portfolio, exact replay of models, verdict.

The argument (docs/smt.md): every batch with the gradient lies in one of the listed cubes (a query of its
own), so if each cube without the known batch is unsatisfiable the known batch is the only one. A model is
replayed exactly before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from exan_verify.errors import InputError
from exan_verify.network import Batch, Gradient, Labels, Loss, Reduction, ReluNetwork
from exan_verify.smt.cache import AnswerCache, query_key
from exan_verify.smt.confirm import accept_model, exact_model
from exan_verify.smt.cubes import Task, all_literals, build, completeness, cube_tasks
from exan_verify.smt.encode import abstraction
from exan_verify.smt.exclude import Known, known
from exan_verify.smt.opinions import second_opinion
from exan_verify.smt.portfolio import Outcome as Run
from exan_verify.smt.portfolio import Progress, Settings, run, shared_worker
from exan_verify.smt.question import Question, batch_target, label_vectors, question_of, rational_target
from exan_verify.smt.replay import ExactBatch, contains, exact_batch
from exan_verify.smt.solvers import Strategy
from exan_verify.smt.transcendental import transcendental_target
from exan_verify.verdict import Attempt, Box, Engine, Outcome, SampleStatus, Trust, Verdict, Witness

MAX_CUBES = 200_000
"""More cubes than this are not enumerated: the question is then UNKNOWN."""


@dataclass(slots=True)
class _State:
    """What one call has found so far."""

    question: Question
    settings: Settings
    truth: Known | None
    radius: Fraction
    double_check: bool
    cubes: list[list[bool]] = field(default_factory=list)
    refuted: dict[int, bool] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    confirmed: bool = True
    stopped: str = ""


def decide(
    network: ReluNetwork,
    *,
    batch: Batch | None = None,
    gradient: Gradient | None = None,
    loss: Loss,
    reduction: Reduction = Reduction.MEAN,
    labels: Labels = Labels.ONE_HOT,
    domain: Box | None = None,
    batch_size: int | None = None,
    tolerance: Fraction | None = None,
    radius: Fraction | None = None,
    budget: float | None = None,
    work_limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress | None = None,
    double_check: bool = False,
) -> Verdict:
    """Which batches have the gradient of ``batch``, or ``gradient``: decided by SMT solvers alone.

    Without ``tolerance`` the gradient is exact. With it: do all batches whose gradient differs by at most
    ``tolerance`` in every entry lie within ``radius`` (default 0) of the given batch, in the maximum norm
    up to order? ``budget`` is wall time in seconds, ``work_limit`` counts the solvers' own units;
    ``cache`` is a directory from which an interrupted call resumes; ``double_check`` asks a second solver
    about every refuted cube.

    Raises :class:`InputError` for a question that makes no sense, and
    :class:`~exan_verify.smt.solvers.SolverDisagreementError` when solvers contradict one another.
    """
    question, truth = pose(
        network,
        batch=batch,
        gradient=gradient,
        loss=loss,
        reduction=reduction,
        labels=labels,
        domain=domain,
        batch_size=batch_size,
        tolerance=tolerance,
    )
    settings = Settings(
        seed=seed,
        jobs=jobs,
        cache=cache,
        deadline=None if budget is None else time.monotonic() + budget,
        work_limit=work_limit,
        progress=progress,
    )
    return answer(question, truth, settings, radius=radius or Fraction(0), double_check=double_check)


def pose(
    network: ReluNetwork,
    *,
    batch: Batch | None,
    gradient: Gradient | None,
    loss: Loss,
    reduction: Reduction,
    labels: Labels,
    domain: Box | None,
    batch_size: int | None,
    tolerance: Fraction | None,
) -> tuple[Question, Known | None]:
    """Validate the arguments of :func:`decide` and make the question's record."""
    if (batch is None) == (gradient is None):
        raise InputError("give either batch= or gradient=, not both and not neither")
    if batch is None and batch_size is None:
        raise InputError("batch_size is missing; say how many samples the gradient was taken over")
    if batch is not None and batch_size not in (None, batch.size):
        raise InputError(f"batch_size={batch_size} but the batch has {batch.size} samples; leave it out")
    if batch is not None and domain is not None and not domain.contains(batch):
        raise InputError("the batch does not lie in the domain; widen the box")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size}; give at least 1")
    if tolerance is not None and tolerance <= 0:
        raise InputError(f"tolerance={tolerance}; give a positive number, or none for an exact gradient")
    if batch is None:
        assert gradient is not None
        target = rational_target(network, gradient)
    elif loss.rational:
        target = batch_target(network, batch, loss, reduction)
    else:
        target = transcendental_target(network, batch, loss, reduction)
    question = question_of(
        network=network,
        loss=loss,
        reduction=reduction,
        labels=labels,
        domain=domain,
        size=batch.size if batch is not None else int(batch_size or 0),
        batch=batch,
        target=target,
        tolerance=tolerance,
    )
    if batch is None:
        return question, None
    exact = exact_batch(batch, label_vectors(loss, batch, network.classes))
    return question, known(question, exact)


def answer(
    question: Question, truth: Known | None, settings: Settings, *, radius: Fraction, double_check: bool
) -> Verdict:
    """Decide a question that :func:`pose` made."""
    state = _State(question, settings, truth, radius, double_check)
    if not _enumerate(state):
        return _unknown(state, state.stopped)
    if truth is None:
        found = _run(state, cube_tasks(question, state.cubes, ()), "find a batch")
        if found.accepted is None:
            return _nothing_found(state, found)
        state.truth = known(question, exact_model(*found.accepted))
        state.refuted = dict.fromkeys(found.refuted, True)
    assert state.truth is not None
    tasks = cube_tasks(question, state.cubes, (state.truth,), radius=radius)
    found = _run(state, [t for t in tasks if t.index not in state.refuted], "find another batch")
    if found.accepted is not None:
        return _ambiguous(state, exact_model(*found.accepted))
    if found.open:
        return _open(state, found, len(tasks))
    return _unique(state)


def _enumerate(state: _State) -> bool:
    """List the cubes; False when that did not end."""
    script = abstraction(state.question)
    if script.refuted:
        state.attempts.append(_attempt("no cube satisfies the linear constraints (by constants alone)"))
        return True
    start = time.monotonic()
    text, literals = script.text(comments=False), all_literals(state.question)
    store = AnswerCache(state.settings.cache)
    key = query_key(text, Strategy("z3", "lra-enumerate"), limit=MAX_CUBES, seed=state.settings.seed)
    record = store.get(key)
    if record is None:
        deadline = state.settings.deadline
        reply, cubes = shared_worker().states(
            text,
            literals,
            limit=MAX_CUBES,
            seconds=None if deadline is None else max(0.01, deadline - time.monotonic()),
            seed=state.settings.seed,
        )
        if reply.status != "unsat":
            state.stopped = f"the cubes could not be listed ({reply.reason})"
            return False
        record = {"cubes": sorted(cubes)}
        store.put(key, record)
    state.cubes = record["cubes"]
    note = f"{len(state.cubes)} cubes hold every batch that the linear constraints admit"
    state.attempts.append(_attempt(note, time.monotonic() - start))
    if state.double_check:
        text = completeness(state.question, state.cubes).text(comments=False)
        state.confirmed &= second_opinion("completeness of the cubes", text, "z3", state.settings)
    return True


def _run(state: _State, tasks: Sequence[Task], purpose: str) -> Run:
    start = time.monotonic()
    found = run(tasks, state.settings, accept_model)
    note = f"{purpose}: {len(found.refuted)} of {len(tasks)} cubes refuted, {len(found.open)} open"
    if found.accepted:
        note += ", a model replayed exactly"
    state.attempts.append(_attempt(note, time.monotonic() - start))
    if state.double_check and not found.accepted:
        state.confirmed &= _confirm(state, tasks, found)
    return found


def _confirm(state: _State, tasks: Sequence[Task], found: Run) -> bool:
    """Ask the other solver about every cube that one solver refuted."""
    agreed = True
    for task in tasks:
        reply = found.refuted.get(task.index)
        if reply is not None:
            text = build(task).text(comments=False)
            agreed &= second_opinion(task.name, text, reply.solver.split("/")[0], state.settings)
    return agreed


def _unique(state: _State) -> Verdict:
    assert state.truth is not None
    size = state.question.size
    within = ""
    if state.question.tolerance is not None:
        within = f" further than {state.radius} from it, up to order,"
    return _verdict(
        state,
        Outcome.UNIQUE,
        f"no other batch of {size} samples{within} has this gradient"
        f"{' within the tolerance' if within else ''}: all {len(state.cubes)} cubes are refuted",
        samples=(SampleStatus.DETERMINED,) * size,
        witness=_irrational(state.truth.batch),
    )


def _ambiguous(state: _State, other: ExactBatch) -> Verdict:
    witness = _irrational(other) or Witness(batch=other.batch(state.question.loss))
    return _verdict(
        state,
        Outcome.AMBIGUOUS,
        "another batch has this gradient (replayed exactly): " + "; ".join(other.describe()),
        samples=_statuses(state, other),
        witness=witness,
    )


def _statuses(state: _State, other: ExactBatch) -> tuple[SampleStatus, ...]:
    """A sample that the other batch lacks is FREE; of the rest it is asked whether a batch lacks them."""
    assert state.truth is not None
    truth = state.truth.batch
    if state.question.tolerance is not None:
        return (SampleStatus.UNKNOWN,) * state.question.size
    found = []
    for n, (x, y) in enumerate(zip(truth.x, truth.y, strict=True)):
        if not contains(other, x, y, truth.point):
            found.append(SampleStatus.FREE)
            continue
        tasks = cube_tasks(state.question, state.cubes, (state.truth,), missing=n)
        reply = _run(state, tasks, f"find a batch without sample {n}")
        if reply.accepted is not None:
            found.append(SampleStatus.FREE)
        else:
            found.append(SampleStatus.UNKNOWN if reply.open else SampleStatus.DETERMINED)
    return tuple(found)


def _nothing_found(state: _State, found: Run) -> Verdict:
    if found.open:
        return _open(state, found, len(state.cubes))
    question = state.question
    return _verdict(
        state,
        Outcome.UNREALISABLE,
        f"no batch of {question.size} samples with labels {question.labels.value}"
        f"{' in the domain' if question.domain else ''} has this gradient: "
        f"all {len(state.cubes)} cubes are refuted",
    )


def _open(state: _State, found: Run, total: int) -> Verdict:
    names = sorted(found.open)[:5]
    listed = ", ".join(map(str, names)) + (", ..." if len(found.open) > 5 else "")
    cause = found.stopped or "the solvers' work limits ran out"
    return _unknown(state, f"{cause}: {len(found.open)} of {total} cubes stay open ({listed})")


def _unknown(state: _State, reason: str) -> Verdict:
    return Verdict(
        outcome=Outcome.UNKNOWN,
        samples=(SampleStatus.UNKNOWN,) * (state.question.size if state.truth else 0),
        reason=f"{reason}; try a larger budget, or another engine",
        batch_size=state.question.size,
        engine=Engine.SMT,
        attempts=tuple(state.attempts),
    )


def _verdict(
    state: _State,
    outcome: Outcome,
    reason: str,
    *,
    samples: tuple[SampleStatus, ...] = (),
    witness: Witness | None = None,
) -> Verdict:
    doubled = state.double_check and state.confirmed
    given = state.truth.batch if state.truth else None
    return Verdict(
        outcome=outcome,
        samples=samples,
        reason=reason,
        batch_size=state.question.size,
        engine=Engine.SMT,
        trust=Trust.CROSS_CHECKED if doubled else Trust.SOLVER_TRUSTED,
        batch=given.batch(state.question.loss) if given and given.rational else None,
        witness=witness,
        attempts=tuple(state.attempts),
    )


def _irrational(batch: ExactBatch) -> Witness | None:
    """A record for a batch that has no rational form: its exact algebraic numbers."""
    return None if batch.rational else Witness(generators=(batch,))


def _attempt(note: str, seconds: float | None = None) -> Attempt:
    return Attempt(engine=Engine.SMT, note=note, seconds=seconds)
