"""The SMT path's answer to the question: cubes, portfolio, exact replay of models, verdict.

The argument (docs/smt.md): every batch with the gradient lies in one of the listed cubes (a query of its
own), so if each cube without the known batch is unsatisfiable the known batch is the only one. A model is
replayed exactly before it counts.
"""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

from exan_verify.errors import InputError
from exan_verify.network import Batch, Gradient, Labels, Loss, Reduction, ReluNetwork
from exan_verify.smt.exclude import Known, known
from exan_verify.smt.existence import BallBatch
from exan_verify.smt.portfolio import Outcome as Found
from exan_verify.smt.portfolio import Progress, Settings
from exan_verify.smt.question import Question, batch_target, label_vectors, question_of, rational_target
from exan_verify.smt.replay import ExactBatch, Row, contains, exact_batch
from exan_verify.smt.search import Search
from exan_verify.smt.transcendental import transcendental_target
from exan_verify.verdict import Attempt, Box, Engine, Outcome, SampleStatus, Trust, Verdict, Witness

STATUS_SHARE = 0.2
"""Share of the remaining time that may go into one sample's status once the outcome is known."""


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
    _check_arguments(batch, gradient, domain, batch_size, tolerance)
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


def _check_arguments(
    batch: Batch | None,
    gradient: Gradient | None,
    domain: Box | None,
    batch_size: int | None,
    tolerance: Fraction | None,
) -> None:
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


def answer(
    question: Question, truth: Known | None, settings: Settings, *, radius: Fraction, double_check: bool
) -> Verdict:
    """Decide a question that :func:`pose` made."""
    search = Search(question, settings, double_check)
    refuted: frozenset[int] = frozenset()
    if truth is None:
        found = search.find("find a batch")
        if found.accepted is None:
            return _unknown(search, found, ()) if found.inconclusive else _unrealisable(search)
        _, _, first = found.accepted
        assert isinstance(first, ExactBatch)
        truth = known(question, first)
        refuted = frozenset(found.refuted)
    found = search.find("find another batch", (truth,), radius=radius, skip=refuted)
    if found.accepted is not None:
        _, _, other = found.accepted
        return _ambiguous(search, truth, other, _statuses(search, truth, other))
    if found.inconclusive:
        return _unknown(search, found, (SampleStatus.UNKNOWN,) * question.size)
    return _unique(search, truth, radius)


def _unique(search: Search, truth: Known, radius: Fraction) -> Verdict:
    question = search.question
    if question.tolerance is None:
        claim = f"no other batch of {question.size} samples has this gradient"
    else:
        claim = (
            f"every batch of {question.size} samples whose gradient is within {question.tolerance} lies "
            f"within {radius} of it, up to order"
        )
    witness = None if truth.batch.rational else Witness(generators=(truth.batch.record(),))
    return _verdict(
        search,
        Outcome.UNIQUE,
        f"{claim}: refuted in every activation pattern by SMT solvers and exact sums over regions",
        # within a radius is not "in every batch"
        samples=(SampleStatus.DETERMINED if question.tolerance is None else SampleStatus.UNKNOWN,)
        * question.size,
        truth=truth,
        witness=witness,
    )


def _ambiguous(
    search: Search, truth: Known, other: ExactBatch | BallBatch, samples: tuple[SampleStatus, ...]
) -> Verdict:
    """A witness that is not rational is the record of an :class:`ExactBatch` of algebraic numbers, or of a
    :class:`BallBatch` proved to exist, as the witness's only generator.
    """
    if isinstance(other, ExactBatch) and other.rational:
        witness, how = Witness(batch=other.batch(search.question.loss)), "replayed exactly"
    else:
        witness = Witness(generators=(other.record(),))
        how = "replayed exactly" if isinstance(other, ExactBatch) else "proved to exist by ball arithmetic"
    return _verdict(
        search,
        Outcome.AMBIGUOUS,
        f"another batch has this gradient ({how}): {other}",
        samples=samples,
        truth=truth,
        witness=witness,
    )


def _statuses(search: Search, truth: Known, other: ExactBatch | BallBatch) -> tuple[SampleStatus, ...]:
    """A sample that the other batch lacks is FREE; of the rest it is asked whether a batch lacks them."""
    question, batch = search.question, truth.batch
    if question.tolerance is not None:
        return (SampleStatus.UNKNOWN,) * question.size
    found = []
    for n, (x, y) in enumerate(zip(batch.x, batch.y, strict=True)):
        if _lacks(other, batch, x, y):
            found.append(SampleStatus.FREE)
            continue
        with search.shorter(STATUS_SHARE):
            reply = search.find(f"find a batch without sample {n}", (truth,), missing=n, cheap=True)
        if reply.accepted is not None:
            found.append(SampleStatus.FREE)
        else:
            found.append(SampleStatus.UNKNOWN if reply.inconclusive else SampleStatus.DETERMINED)
    return tuple(found)


def _lacks(other: ExactBatch | BallBatch, batch: ExactBatch, x: Row, y: Row) -> bool:
    if isinstance(other, BallBatch):
        return batch.rational and other.excludes(x, y)
    return not contains(other, x, y, batch.point)


def _unrealisable(search: Search) -> Verdict:
    question = search.question
    return _verdict(
        search,
        Outcome.UNREALISABLE,
        f"no batch of {question.size} samples with labels {question.labels.value}"
        f"{' in the domain' if question.domain else ''} has this gradient"
        f"{f' within {question.tolerance}' if question.tolerance else ''}: "
        "refuted in every activation pattern by SMT solvers and exact sums over regions",
    )


def _unknown(search: Search, found: Found, samples: tuple[SampleStatus, ...]) -> Verdict:
    names = [found.tasks[k].name for k in sorted(found.open)[:5]]
    listed = f" ({', '.join(names)}{', ...' if len(found.open) > 5 else ''})" if names else ""
    cause = found.stopped or "the solvers' work limits ran out"
    total = f"{'' if search.complete else 'at least '}{len(search.cubes)}"
    return Verdict(
        outcome=Outcome.UNKNOWN,
        samples=samples,
        reason=f"{cause}: {len(found.open)} of {total} cubes stay open{listed}; "
        "try a larger budget or another engine",
        batch_size=search.question.size,
        engine=Engine.SMT,
        attempts=_attempts(search),
    )


def _verdict(
    search: Search,
    outcome: Outcome,
    reason: str,
    *,
    samples: tuple[SampleStatus, ...] = (),
    truth: Known | None = None,
    witness: Witness | None = None,
) -> Verdict:
    refuted = outcome in (Outcome.UNIQUE, Outcome.UNREALISABLE)  # a witness needs nobody's word
    doubled = refuted and search.double_check and search.agreed
    return Verdict(
        outcome=outcome,
        samples=samples,
        reason=reason,
        batch_size=search.question.size,
        engine=Engine.SMT,
        trust=Trust.CROSS_CHECKED if doubled else Trust.SOLVER_TRUSTED,
        batch=truth.batch.batch(search.question.loss) if truth and truth.batch.rational else None,
        witness=witness,
        attempts=_attempts(search),
        tolerant=search.question.tolerance is not None,
    )


def _attempts(search: Search) -> tuple[Attempt, ...]:
    return tuple(Attempt(engine=Engine.SMT, note=n, seconds=s) for n, s in search.notes)
