"""The SMT path's answer to the question: cubes, portfolio, exact replay of models, verdict.

The argument (docs/smt.md): every batch with the gradient lies in one of the listed cubes (a query of its
own), so if each cube without the known batch is unsatisfiable the known batch is the only one. A model is
replayed exactly before it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction

from exan_verify.core.budget import RAN_OUT, until
from exan_verify.core.network import Batch, Gradient, Network
from exan_verify.core.question import Question
from exan_verify.core.verdict import Attempt, Engine, Outcome, SampleStatus, Trust, Verdict, Witness
from exan_verify.errors import BudgetExhausted, InputError
from exan_verify.smt.existence import BallBatch
from exan_verify.smt.portfolio import Outcome as Found
from exan_verify.smt.portfolio import Settings
from exan_verify.smt.question.difference import Known, known
from exan_verify.smt.question.posed import (
    Posed,
    batch_target,
    label_vectors,
    posed_question,
    rational_target,
)
from exan_verify.smt.question.replay import ExactBatch, Row, contains, exact_batch
from exan_verify.smt.question.transcendental import transcendental_target
from exan_verify.smt.search import SCOUT_INDEX, Search
from exan_verify.smt.size import size_of
from exan_verify.smt.solvers.run import solver_of

LONGEST_NAME = 80
"""Open cubes are named in a reason up to this length."""

STATUS_SECONDS = 15.0
"""Of one sample's status once the outcome is known, ten of them for the plain question (``search.DIRECT``);
fewer where the samples that are left would have less time."""


def decide(
    network: Network,
    question: Question,
    *,
    batch: Batch | None = None,
    gradient: Gradient | None = None,
    radius: Fraction | None = None,
    settings: Settings | None = None,
    told: frozenset[int] | None = None,
) -> Verdict:
    """Which batches have the gradient of ``batch``, or ``gradient``: decided by SMT solvers alone.

    Without a tolerance in the question the gradient is exact. With one: do all batches whose gradient differs
    by at most as much in every entry lie within ``radius`` (default 0) of the given batch, in the maximum
    norm up to order? ``told``: the batch is known to have a second one, and only samples that are not told
    are asked about; a quarter of the time goes into a second batch, which may tell some at once. The deadline
    in ``settings`` is kept whatever the question's size (one whose constraints would be too large to write is
    UNKNOWN at once).

    Raises :class:`InputError` for a question that makes no sense, and
    :class:`~exan_verify.smt.solvers.run.SolverDisagreementError` when solvers contradict one another.
    """
    settings = settings or Settings()
    question = _sized(question, batch, gradient)
    size = size_of(network, question, batch=batch, has_radius=bool(radius))
    if size.refused:
        return _not_asked(question, batch, size.refused)
    try:
        with until(settings.deadline):
            posed, truth = pose(network, question, batch=batch, gradient=gradient)
    except BudgetExhausted:
        return _not_asked(question, batch, f"{RAN_OUT} before the question was written; give a larger budget")
    return answer(posed, truth, settings, radius=radius or Fraction(0), told=told)


def pose(
    network: Network, question: Question, *, batch: Batch | None = None, gradient: Gradient | None = None
) -> tuple[Posed, Known | None]:
    """Validate the arguments of :func:`decide` and make the question's record, and the known batch's."""
    question = _sized(question, batch, gradient)
    if batch is None:
        assert gradient is not None
        return posed_question(network, question, None, rational_target(network, gradient)), None
    if question.loss.rational:
        target = batch_target(network, batch, question)
    else:
        target = transcendental_target(network, batch, question)
    posed = posed_question(network, question, batch, target)
    return posed, known(posed, exact_batch(batch, label_vectors(question.loss, batch, network.classes)))


def _sized(question: Question, batch: Batch | None, gradient: Gradient | None) -> Question:
    """The question with its batch size. Raises :class:`InputError` where it makes no sense."""
    size, tolerance = question.batch_size, question.tolerance
    if (batch is None) == (gradient is None):
        raise InputError("give either batch= or gradient=, not both and not neither")
    if batch is None and size is None:
        raise InputError("batch_size is missing; say how many samples the gradient was taken over")
    if batch is not None and size not in (None, batch.size):
        raise InputError(f"batch_size={size} but the batch has {batch.size} samples; leave it out")
    if batch is not None and question.domain is not None and not question.domain.contains(batch):
        raise InputError("the batch does not lie in the domain; widen the box")
    if size is not None and size < 1:
        raise InputError(f"batch_size={size}; give at least 1")
    if tolerance is not None and tolerance <= 0:
        raise InputError(f"tolerance={tolerance}; give a positive number, or none for an exact gradient")
    return question if batch is None else replace(question, batch_size=batch.size)


def answer(
    posed: Posed,
    truth: Known | None,
    settings: Settings,
    *,
    radius: Fraction = Fraction(0),
    told: frozenset[int] | None = None,
) -> Verdict:
    """Decide a question that :func:`pose` made."""
    search = Search(posed, settings)
    first: Found | None = None
    if truth is None:
        first = search.find("find a batch")
        if first.accepted is None:
            return _unknown(search, first, ()) if first.inconclusive else _unrealisable(search, first)
        _, _, batch = first.accepted
        assert isinstance(batch, ExactBatch)
        truth = known(posed, batch)
    skip = frozenset(() if first is None else first.refuted)
    with search.shorter(*((1.0, float("inf")) if told is None else (1 / 4, STATUS_SECONDS))):
        found = search.find("find another batch", (truth,), radius=radius, skip=skip)
    if found.accepted is not None:
        _, _, other = found.accepted
        return _ambiguous(search, truth, other, told or frozenset())
    if found.inconclusive and told is not None:
        samples, rests_on = _statuses(search, truth, None, told)
        if set(samples) != {SampleStatus.UNKNOWN}:
            trust = Grounds.of(search, rests_on).trust
            reason = "samples of a batch with a second one"
            return _verdict(search, Outcome.AMBIGUOUS, reason, samples=samples, truth=truth, trust=trust)
    if found.inconclusive:
        return _unknown(search, found, (SampleStatus.UNKNOWN,) * posed.size)
    if first is None or SCOUT_INDEX in found.refuted:
        return _unique(search, truth, radius, [found])
    # the cubes that hold no batch at all were refuted by the first search
    return _unique(search, truth, radius, [first, found])


def _unique(search: Search, truth: Known, radius: Fraction, rests_on: list[Found]) -> Verdict:
    posed = search.posed
    if posed.question.tolerance is None:
        claim = f"no other batch of {posed.size} samples has this gradient"
    else:
        claim = (
            f"every batch of {posed.size} samples whose gradient is within {posed.question.tolerance} lies "
            f"within {radius} of it, up to order"
        )
    witness = None if truth.batch.rational else Witness(generators=(truth.batch.record(),))
    grounds = Grounds.of(search, rests_on)
    return _verdict(
        search,
        Outcome.UNIQUE,
        f"{claim}: {grounds}",
        # within a radius is not "in every batch"
        samples=(SampleStatus.DETERMINED if posed.question.tolerance is None else SampleStatus.UNKNOWN,)
        * posed.size,
        truth=truth,
        witness=witness,
        trust=grounds.trust,
    )


def _ambiguous(search: Search, truth: Known, other: ExactBatch | BallBatch, told: frozenset[int]) -> Verdict:
    """A witness that is not rational is the record of an :class:`ExactBatch` of algebraic numbers, or of a
    :class:`BallBatch` proved to exist, as the witness's only generator. The outcome is nobody's word; single
    samples may be.
    """
    if isinstance(other, ExactBatch) and other.rational:
        witness, how = Witness(batch=other.batch(search.posed.question.loss)), "replayed exactly"
    else:
        witness = Witness(generators=(other.record(),))
        how = "replayed exactly" if isinstance(other, ExactBatch) else "proved to exist by ball arithmetic"
    samples, rests_on = _statuses(search, truth, other, told)
    grounds = Grounds.of(search, rests_on)
    determined = f"; a batch without a sample that is determined: {grounds}" if rests_on else ""
    return _verdict(
        search,
        Outcome.AMBIGUOUS,
        f"another batch has this gradient ({how}): {other}{determined}",
        samples=samples,
        truth=truth,
        witness=witness,
        trust=grounds.trust,
    )


def _statuses(
    search: Search, truth: Known, other: ExactBatch | BallBatch | None, told: frozenset[int]
) -> tuple[tuple[SampleStatus, ...], list[Found]]:
    """A sample that the other batch lacks is FREE; of the rest that are not told already it is asked whether
    a batch lacks them, and the searches are returned that found that none does.
    """
    posed, batch = search.posed, truth.batch
    found = [SampleStatus.UNKNOWN] * posed.size
    rests_on: list[Found] = []
    if posed.question.tolerance is not None:
        return tuple(found), rests_on
    common = []
    for n, (x, y) in enumerate(zip(batch.x, batch.y, strict=True)):
        if other is not None and _lacks(other, batch, x, y):
            found[n] = SampleStatus.FREE
        elif n not in told:
            common.append(n)
    with until(search.settings.deadline), suppress(BudgetExhausted):  # the rest then stays unknown
        for left, n in zip(range(len(common), 0, -1), common, strict=True):
            with search.shorter(1 / left, STATUS_SECONDS):
                reply = search.find(f"find a batch without sample {n}", (truth,), missing=n, cheap=True)
            if reply.accepted is not None:
                found[n] = SampleStatus.FREE
            elif not reply.inconclusive:
                found[n] = SampleStatus.DETERMINED
                rests_on.append(reply)
    return tuple(found), rests_on


def _lacks(other: ExactBatch | BallBatch, batch: ExactBatch, x: Row, y: Row) -> bool:
    if isinstance(other, BallBatch):
        return batch.rational and other.excludes(x, y)
    return not contains(other, x, y, batch.point)


def _unrealisable(search: Search, found: Found) -> Verdict:
    posed = search.posed
    grounds = Grounds.of(search, [found])
    return _verdict(
        search,
        Outcome.UNREALISABLE,
        f"no batch of {posed.size} samples with labels {posed.question.labels.value}"
        f"{' in the domain' if posed.bounds else ''} has this gradient"
        f"{f' within {posed.question.tolerance}' if posed.question.tolerance else ''}: {grounds}",
        trust=grounds.trust,
    )


def _unknown(search: Search, found: Found, samples: tuple[SampleStatus, ...]) -> Verdict:
    names = [found.tasks[k].name for k in sorted(found.open)[:5] if k in found.tasks]
    short = [name for name in names if len(name) <= LONGEST_NAME]
    listed = f" ({', '.join(short)}{', ...' if len(found.open) > len(short) else ''})" if short else ""
    cause = found.stopped or "the solvers' work limits ran out"
    total = f"{'' if search.complete else 'at least '}{len(search.cubes)} cubes"
    left = f"{len(found.open)} of {total} stay open{listed}" if found.open else f"{total}, none tried"
    return Verdict(
        outcome=Outcome.UNKNOWN,
        samples=samples,
        reason=f"{cause}: {left}; try a larger budget or another engine",
        batch_size=search.posed.size,
        engine=Engine.SMT,
        attempts=_attempts(search),
    )


def _not_asked(question: Question, batch: Batch | None, reason: str) -> Verdict:
    samples = question.batch_size or 0
    return Verdict(
        outcome=Outcome.UNKNOWN,
        samples=() if batch is None else (SampleStatus.UNKNOWN,) * samples,
        reason=reason,
        batch_size=samples,
        engine=Engine.SMT,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """Who refuted what: ``argued`` cubes by exact arguments of this package, the others by the word of the
    solvers named; ``whole``: searches that were refuted at once, without cubes; ``listed``: who says that the
    cubes are all there are, None where there were none.
    """

    argued: int = 0
    solved: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    whole: tuple[tuple[str, ...], ...] = ()
    listed: tuple[str, ...] | None = None

    @classmethod
    def of(cls, search: Search, rests_on: Sequence[Found]) -> Grounds:
        """What the searches ``rests_on`` refuted, each cube counted once per search."""
        solved, whole = Counter[tuple[str, ...]](), []
        for found in rests_on:
            words = {
                index: ()
                if reply is None
                else (solver_of(reply), *filter(None, [found.confirmed.get(index)]))
                for index, reply in found.refuted.items()
            }
            if SCOUT_INDEX in words:
                whole.append(words[SCOUT_INDEX])
            else:
                solved.update(words.values())
        argued = solved.pop((), 0)
        cubes = bool(argued or solved)
        listed = search.listers if cubes or len(rests_on) > len(whole) else None
        return cls(argued=argued, solved=solved, whole=tuple(whole), listed=listed)

    @property
    def trust(self) -> Trust:
        """ARGUED where no solver's word counts, CROSS_CHECKED where two agree on everything that one says."""
        words = [w for w in (*self.solved, *self.whole, self.listed or ()) if w]
        if not words:
            return Trust.ARGUED
        return Trust.CROSS_CHECKED if all(len(w) > 1 for w in words) else Trust.SOLVER_TRUSTED

    def __str__(self) -> str:
        parts = [f"as a whole {_by(words)}" for words in self.whole]
        total = self.argued + sum(self.solved.values())
        of = f" of {total} cubes"
        if self.argued:
            parts.append(f"{self.argued}{of} by exact arguments about their regions")
        for words, count in self.solved.items():
            parts.append(f"{count}{'' if self.argued else of} {_by(words)}")
            of = ""
        if self.listed is not None:
            parts.append(f"{'that these are all,' if total else 'no pattern fits,'} {_by(self.listed)}")
        return "refuted: " + ", ".join(parts)


def _by(words: tuple[str, ...]) -> str:
    return f"by {' and '.join(words)}" if words else "by exact arithmetic"


def _verdict(
    search: Search,
    outcome: Outcome,
    reason: str,
    *,
    samples: tuple[SampleStatus, ...] = (),
    truth: Known | None = None,
    witness: Witness | None = None,
    trust: Trust,
) -> Verdict:
    return Verdict(
        outcome=outcome,
        samples=samples,
        reason=reason,
        batch_size=search.posed.size,
        engine=Engine.SMT,
        trust=trust,
        batch=truth.batch.batch(search.posed.question.loss) if truth and truth.batch.rational else None,
        witness=witness,
        attempts=_attempts(search),
        tolerant=search.posed.question.tolerance is not None,
    )


def _attempts(search: Search) -> tuple[Attempt, ...]:
    return tuple(Attempt(engine=Engine.SMT, note=n, seconds=s) for n, s in search.notes)
