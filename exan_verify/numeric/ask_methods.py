"""Ask methods in turn for candidates and confirm them, until a batch is complete."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import BudgetExhausted, RangeError
from exan_verify.numeric.confirming.adding_up import added_up
from exan_verify.numeric.confirming.closed_rows import judge_own_rows
from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT, Confirmed, confirm
from exan_verify.numeric.confirming.drop_failing import settled
from exan_verify.numeric.confirming.whole_batch import whole_batch
from exan_verify.numeric.joint.judge import in_reach, judge_jointly, rank_of
from exan_verify.numeric.problem.losses import told_apart
from exan_verify.numeric.problem.passes import forward, weight_gains
from exan_verify.numeric.problem.problem import LayerGradient, Problem
from exan_verify.numeric.problem.records import Attack, Candidate, Evidence, Finding, Method, Tier
from exan_verify.numeric.problem.spectrum import ColumnSpace, column_space
from exan_verify.numeric.waiting import Telling, proceed

_WHOLE = 1e-6
"""How near, relatively, a number of samples has to come to a whole number."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """A finding with the problem and the column spaces that it is to be confirmed with.

    ``final``: no other method can find more.
    """

    problem: Problem
    spaces: tuple[ColumnSpace, ...]
    finding: Finding
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pursuit:
    """What all methods asked have found together, and the candidates of the one that found most.

    ``cut``: what ended it before all methods were asked, empty where nothing did; ``notes``: what was done
    to make the gradient fit.
    """

    candidates: Candidates
    confirmed: Confirmed
    cut: str = ""
    notes: tuple[str, ...] = ()

    @property
    def inputs_known(self) -> bool:
        """Whether every sample that the gradient shows is separated and its input known, so that no other
        method can add to it; what is open then are labels, the factor or the size."""
        return (
            self.candidates.finding.whole
            and _known_inputs(self.confirmed, self.candidates.spaces[0].rank) is not None
        )

    def cut_short(self, error: BudgetExhausted) -> Pursuit:
        """As an outcome that ``error`` ended, which goes into its reason."""
        if self.cut:
            return self
        reason = f"{error}; {self.confirmed.reason}".removesuffix("; ")
        return replace(self, cut=str(error), confirmed=replace(self.confirmed, reason=reason))

    def attack(self) -> Attack:
        """As the outcome of an attack."""
        finding, confirmed = self.candidates.finding, self.confirmed
        fewer = self._of_fewer()
        if fewer is not None:
            return replace(self, confirmed=fewer, notes=()).attack()
        presumed = dict.fromkeys(one.presumes for one in confirmed.status if one.presumes)
        return Attack(
            x=confirmed.x,
            y=confirmed.y,
            status=confirmed.status,
            gradient_residual=confirmed.gradient_residual,
            complete=confirmed.complete,
            batch_size=confirmed.batch_size,
            batch_size_source=confirmed.batch_size_source,
            method=finding.method,
            layer=finding.layer,
            layers=finding.layers,
            candidates=confirmed.candidates,
            reason=confirmed.reason,
            seconds=0.0,
            unfinished=bool(self.cut),
            scale=confirmed.scale,
            notes=(*self.notes, *(f"confirmed for noise that is {what}" for what in presumed)),
        )

    def _of_fewer(self) -> Confirmed | None:
        """What is found, as of the smaller batch that it fits at the factor one; None where there is none.

        The mean's size and the factor are one number to the loss vectors. Where noise or wrong signs fill the
        rank, which is taken for the size, a factor makes up for it.
        """
        problem, found = self.candidates.problem, self.confirmed
        told = problem.question.batch_size is not None or problem.scale != 1
        if told or found.scale == 1 or problem.question.reduction is not Reduction.MEAN:
            return None
        if any(one.tier is Tier.CONFIRMED for one in found.status):
            # other batches of the larger size are excluded, which says nothing of the smaller one
            return None
        size = round(found.batch_size / found.scale)
        whole = size > 0 and abs(found.batch_size / found.scale - size) < _WHOLE * size
        if not (whole and len(found.status) <= size < found.batch_size):
            return None
        reason = (
            f"the loss vectors of the samples found are those of a batch of {size}, and layer 1 shows rank "
            f"{found.batch_size}: noise, wrong signs or compression fill it"
        )
        return replace(found, scale=1.0, batch_size=size, batch_size_source="loss scale", reason=reason)

    def with_more(self, other: Pursuit, gains: list[tuple[float, float]]) -> Pursuit:
        """What this and ``other`` found, added up; as one batch where they make it whole."""
        more, less = (
            (self, other) if len(self.confirmed.status) >= len(other.confirmed.status) else (other, self)
        )
        problem, spaces = more.candidates.problem, more.candidates.spaces
        added = added_up(problem, spaces[0], more.confirmed, less.confirmed)
        if len(added.x) > len(more.confirmed.x) and len(added.x) == spaces[0].rank:
            finding = replace(
                more.candidates.finding,
                method=f"{more.candidates.finding.method} and {less.candidates.finding.method}",
                x=added.x,
                rest=more.candidates.finding.rest[:, :0],
                reason="",
                guessed_rows=False,
            )
            known = replace(problem, scale=added.scale)
            joint = replace(more.candidates, problem=known, finding=finding)
            confirmed = _confirm(joint, gains)
            if len(confirmed.status) >= len(added.status):
                candidates = added.candidates if confirmed.candidates else ()
                return replace(
                    more,
                    candidates=joint,
                    confirmed=replace(confirmed, candidates=confirmed.candidates + candidates),
                )
        return replace(more, confirmed=added)


Find = Callable[[Method], Candidates]


def pursue(methods: Sequence[Method], find: Find, *, named: bool, tell: Telling) -> Pursuit:
    """Add up what ``find`` makes of each method, until the batch is whole; one out of range is passed over.

    Where the user named no method and no label explains any loss vector, a factor of the gradient is
    looked for.

    Raises the :class:`RangeError` of a method ``named`` by the user, or the first one when none is in range.
    Where none finds a candidate, the reason has what the first method said if that was out of range. Where
    ``find`` or ``tell`` raises :class:`BudgetExhausted`, what was confirmed before is the outcome; where that
    is nothing, it is raised.
    """
    outcome: Pursuit | None = None
    refusal: RangeError | None = None
    gains: list[tuple[float, float]] = []
    for k, one in enumerate(methods):
        try:
            tell(f"{one.name}: finding candidates", 0.2 + 0.8 * k / len(methods))
            candidates = tell.during(partial(find, one))
        except RangeError as error:
            if named:
                raise
            # once a method was in range, that another is not says nothing about the gradient
            refusal = refusal or (error if outcome is None else None)
            continue
        except BudgetExhausted as error:
            return _confirmed_before(error, outcome)
        try:
            tell(
                f"{one.name}: confirming {candidates.finding.x.shape[0]} candidates",
                0.6 + 0.4 * k / len(methods),
            )
            gains = gains or weight_gains(candidates.problem)
            pursuit = tell.during(partial(_judged, candidates, gains, any_scale=not named))
            if outcome is not None and not pursuit.confirmed.complete:
                pursuit = tell.during(partial(outcome.with_more, pursuit, gains))
        except BudgetExhausted as error:
            return _confirmed_before(error, outcome)
        outcome = pursuit
        final = candidates.final or candidates.finding.final or pursuit.confirmed.final
        if outcome.confirmed.complete or final or outcome.inputs_known:
            break
    if outcome is None:
        assert refusal is not None
        raise refusal
    return _with_refusal(outcome, refusal)


def _confirmed_before(error: BudgetExhausted, outcome: Pursuit | None) -> Pursuit:
    """What earlier methods confirmed before ``error``, which is raised where that is nothing."""
    if outcome is None or not outcome.confirmed.status:
        raise error
    return outcome.cut_short(error)


def _with_refusal(outcome: Pursuit, refusal: RangeError | None) -> Pursuit:
    """The outcome, with the first method's refusal among its reasons where nothing was found."""
    if refusal is None or len(outcome.candidates.finding.x) or outcome.confirmed.reason == str(refusal):
        return outcome
    reason = f"{refusal}; {outcome.confirmed.reason}"
    return replace(outcome, confirmed=replace(outcome.confirmed, reason=reason))


def column_spaces(problem: Problem) -> tuple[ColumnSpace, ...]:
    """The column space of every layer, at first up to the largest rank that degree 2 could use there, or
    asked for; further while it is not exhausted, as far as the layer allows."""
    generator = problem.generator()
    return tuple(column_space_of(problem, layer, generator) for layer in problem.layers)


def column_space_of(problem: Problem, layer: LayerGradient, generator: torch.Generator) -> ColumnSpace:
    """The column space of one layer, as far as it goes."""
    most = max(math.isqrt(2 * layer.shape[0]) + 1, problem.question.batch_size or 0)
    while True:
        proceed()
        space = column_space(layer, unit_roundoff=problem.unit_roundoff, most=most, generator=generator)
        if not space.saturated or len(space.values) >= min(layer.shape[0], layer.shape[1] + 1):
            return space
        most *= 2


def as_whole(
    problem: Problem, finding: Finding, confirmed: Confirmed, gains: list[tuple[float, float]]
) -> Confirmed:
    """What is confirmed, or more where the candidates are the whole batch and reproduce the gradient."""
    size = len(finding.x)
    if problem.question.batch_size is None and (
        problem.question.loss is Loss.HINGE or problem.question.labels is Labels.REAL
    ):
        # such loss vectors add up to one another, so that several samples of one region look like one
        return confirmed
    if (problem.question.batch_size or size) != size or finding.rest.shape[1]:
        return confirmed
    # real targets are moved as well as the inputs
    moved = finding.y is not None or problem.question.labels is Labels.REAL
    known = None if moved else _known_inputs(confirmed, size)
    if known is None:
        found = whole_batch(problem, finding.x, finding.y, gains)
    else:
        found = whole_batch(problem, known[0], None, gains, errors=known[1])
    if found is None:
        return confirmed
    vectors = problem.loss_vectors(forward(problem, found.x).logits, found.y)
    if problem.question.batch_size is None and not bool(told_apart(problem.question.loss, vectors).all()):
        return confirmed
    good = found.errors <= CLAIM_LIMIT * found.x.abs().amax(dim=1).clamp(min=1.0)
    if int(good.sum()) <= len(confirmed.status):
        return confirmed
    open_ones = torch.nonzero(~good)[:, 0].tolist()
    reason = "its input could change without changing the gradient of the batch"
    return Confirmed(
        x=found.x[good],
        y=found.y[good],
        status=tuple(
            Evidence(
                method=finding.method,
                layer=finding.layer,
                error_bound=error,
                residual=found.residual,
                isolation=0.0,
                label_residual=found.residual,
                label_margin=1.0,
                unconfirmed="the whole batch reproduces the gradient; no other batch is excluded",
            )
            for error in found.errors[good].tolist()
        ),
        candidates=tuple(
            Candidate(x=found.x[m], label=found.y[m], error_estimate=float(found.errors[m]), reason=reason)
            for m in open_ones
        ),
        gradient_residual=found.residual,
        complete=not open_ones,
        batch_size=size,
        batch_size_source="rank" if problem.question.batch_size is None else "given",
        reason=f"{len(open_ones)} of {size} samples are not determined: {reason}" if open_ones else "",
        scale=problem.scale or 1.0,
    )


def _known_inputs(confirmed: Confirmed, size: int) -> tuple[Tensor, Tensor] | None:
    """The inputs (M, d) of all ``size`` samples, found or candidates, and their errors (M,); None where one
    is not separated, or its error is not small."""
    open_ones = confirmed.candidates
    if len(confirmed.x) + len(open_ones) != size:
        return None
    x = torch.cat([confirmed.x, *(one.x[None] for one in open_ones)])
    bounds = [one.error_bound for one in confirmed.status] + [one.error_estimate for one in open_ones]
    errors = x.new_tensor(bounds)
    return (x, errors) if bool((errors <= CLAIM_LIMIT * x.abs().amax(dim=1).clamp(min=1.0)).all()) else None


def _judged(candidates: Candidates, gains: list[tuple[float, float]], *, any_scale: bool) -> Pursuit:
    """What is found among the candidates; where nothing is and ``any_scale``, at another factor."""
    confirmed, problem = _confirm(candidates, gains), candidates.problem
    as_told = problem.scale == 1 and not problem.weighted and problem.question.labels is not Labels.REAL
    # one row whose own scale was fitted has a factor with which a mixture is explained as well as a sample
    one = len(candidates.finding.x) == 1 and problem.question.batch_size is None
    fitted = one and candidates.finding.scale_error > 0
    if any_scale and as_told and not fitted and confirmed.candidates and not confirmed.status:
        scaled = _confirm(replace(candidates, problem=replace(problem, scale=None)), gains)
        # where samples have weights of their own, a few may agree by sharing their class
        if len(scaled.status) > len(scaled.candidates):
            note = (
                f"the gradient is {scaled.scale:.6g} times that of a batch of {scaled.batch_size} "
                f"({problem.question.reduction})"
            )
            seen, size = len(scaled.x) + len(scaled.candidates), scaled.batch_size / scaled.scale
            if problem.question.reduction is Reduction.MEAN and size > 0 and abs(seen - size) < _WHOLE * size:
                note += f"; a batch of {seen} has it as it is: give batch_size={seen}"
            if (
                problem.question.reduction is Reduction.SUM
                and abs(scaled.scale * scaled.batch_size - 1) < _WHOLE
            ):
                note += ", as reduction='mean' makes it"
            return Pursuit(candidates=candidates, confirmed=scaled, notes=(note,))
    return Pursuit(candidates=candidates, confirmed=confirmed)


def _confirm(candidates: Candidates, gains: list[tuple[float, float]]) -> Confirmed:
    problem, spaces, finding = candidates.problem, candidates.spaces, candidates.finding
    if finding.y is not None:
        size = finding.size or problem.question.batch_size or len(finding.x) + finding.rest.shape[1]
        if finding.errors is None:
            # without rows that show samples one by one there is the batch as a whole only
            none = _nothing(problem, finding, size, "together the samples miss the gradient")
            return as_whole(problem, finding, none, gains)
        own = judge_own_rows(problem, finding, size, gains)
        pairs = len(own.x) * (len(own.x) - 1) // 2
        if own.complete and len(own.x) == spaces[0].rank and pairs < problem.layers[0].shape[0]:
            # the column space may exclude other batches, where neurons suffice for that
            unlabelled = replace(finding, x=own.x, y=None, errors=None, rest=finding.rest[:, :0])
            also = _confirm(replace(candidates, finding=unlabelled), gains)
            return also if also.complete else own
        return own if own.complete else as_whole(problem, finding, own, gains)
    if finding.x.shape[0]:
        kept, refined, dropped = settled(problem, spaces[0], finding, gains)
        confirmed = confirm(problem, spaces, kept, refined, gains)
        confirmed = replace(confirmed, candidates=confirmed.candidates + dropped)
        if rank_of(confirmed)[0] < len(finding.x) and in_reach(problem, finding, spaces[0]):
            # not for want of equations, but of precision: again with each weighted by its own noise
            jointly = judge_jointly(problem, spaces[0], finding, gains)
            if jointly is not None and rank_of(jointly) >= rank_of(confirmed):
                confirmed = jointly
        return (
            confirmed
            if confirmed.complete or finding.literal
            else as_whole(problem, finding, confirmed, gains)
        )
    rank = max((space.rank for space in spaces[:-1]), default=0)
    return _nothing(problem, finding, problem.question.batch_size or rank, finding.reason)


def _nothing(problem: Problem, finding: Finding, size: int, reason: str) -> Confirmed:
    """No sample, in a batch of ``size``."""
    labels = (
        torch.zeros(0, dtype=torch.long)
        if problem.classified
        else torch.zeros(0, problem.classes, dtype=torch.float64)
    )
    return Confirmed(
        x=finding.x[:0],
        y=labels.to(problem.device),
        status=(),
        candidates=(),
        gradient_residual=1.0,
        complete=False,
        batch_size=size,
        batch_size_source="rank" if problem.question.batch_size is None else "given",
        reason=reason,
        scale=problem.scale or 1.0,
    )
