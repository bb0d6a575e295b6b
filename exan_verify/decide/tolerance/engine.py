"""``certify`` with a tolerance: a batch, a proved radius around it, and its certificate (Appendix T)."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Claim, QuestionRecord, RankBound, Tolerance, issue
from exan_verify.core.network import Batch, Gradient, to_fraction
from exan_verify.core.question import Labels
from exan_verify.core.verdict import Attempt, Engine, Outcome, SampleStatus, Trust, Verdict, Witness
from exan_verify.decide.context import Setting
from exan_verify.decide.tolerance.bounds import Shown, batch_of, show
from exan_verify.decide.tolerance.centre import find, numerical_rank
from exan_verify.decide.tolerance.existence import none_in_radius, rank_bound, replayed
from exan_verify.decide.tolerance.problem import NotShownError, Problem
from exan_verify.exact.apart import apart
from exan_verify.exact.balls import working_precision

_MARGIN = 1.015
"""Stated over proved radius, before it is rounded to three digits (by half a percent at most): a checker's
pseudo-inverses are rounded otherwise, here and on another machine.
"""

_GUESSES = 2.0**-46
"""What the rounding of the guesses adds to a radius, relative to the largest input: 2^-48 was seen, where the
tolerance is near the precision of floats and radii are no larger than some hundred units in the last place.
"""

_LONG = 1 << 30
"""Multiplications of floats that this process does in one step: a second, about."""

_BALLS = 8
"""What a multiplication of balls costs."""

LARGEST_LAYER = 8_000_000
"""Entries of one layer's gradient beyond which balls would need more than about 4 GiB."""


def decide(setting: Setting, gradient: Gradient, limits: Budget) -> Verdict:
    """As :func:`decide_here`; long questions in a process of their own, because single steps of them are."""
    if not _long(setting):
        return decide_here(setting, gradient, limits)
    alone = replace(setting, progress=None)  # a caller's function stays here
    verdict, spent = apart(_measured, alone, gradient, limits)
    limits.spend(spent - limits.spent)
    return verdict


def _measured(setting: Setting, gradient: Gradient, limits: Budget) -> tuple[Verdict, int]:
    return decide_here(setting, gradient, limits), limits.spent


def _long(setting: Setting) -> bool:
    """Whether decompositions of the layers, or the lifted equations, take more than a second or two."""
    shapes = [layer.shape for layer in setting.network.layers]
    if max(rows * cols * min(rows, cols) for rows, cols in shapes) > _LONG:
        return True
    samples, neurons = setting.question.batch_size or min(shapes[0]), shapes[0][0]
    equations = min(
        neurons, samples * (samples + 1) // 2 + samples * min(samples, setting.network.widths[-1])
    )
    return max(neurons * equations**2 * _BALLS, samples * sum(a * b for a, b in shapes) * _BALLS) > _LONG


def decide_here(setting: Setting, gradient: Gradient, limits: Budget) -> Verdict:
    """UNIQUE up to a radius around a batch that is proved to be near, or UNREALISABLE, with a certificate;
    else UNKNOWN with the step that failed, and how far the nearest batch that was found is from being near.

    Asks which batches of the question's size (where it is not said: the numerical rank, a guess that the
    reason names) have a gradient within the tolerance of ``gradient`` in every entry.
    """
    start = time.monotonic()
    samples = setting.question.batch_size
    problem = Problem(setting=setting, gradient=gradient, samples=samples or 0, budget=limits)
    nearest: float | None = None
    try:
        _check_layers(problem)
        with working_precision():
            # a guess is the numerical rank, which no rank is above
            if samples is not None and (bound := rank_bound(problem)) is not None:
                reason = (
                    f"every gradient within {float(problem.tolerance):g} has rank {bound.rank} at least in "
                    f"layer {bound.layer}, so {samples} samples are too few"
                )
                return _unrealisable(problem, bound, reason, time.monotonic() - start)
            _check_scope(problem)
            if samples is None:
                problem = _guessed(problem)
            _check_count(problem)
            failed: NotShownError | None = None
            for centre in find(problem):
                batch = batch_of(problem, centre)
                realised, distance = replayed(problem, batch)
                domain = setting.question.domain
                if domain is None or domain.contains(batch):
                    nearest = distance if nearest is None else min(nearest, distance)
                try:
                    radius = _stated(show(problem, centre, batch), batch)
                except NotShownError as error:
                    failed = failed or error
                    continue
                if realised:
                    return _unique(problem, batch, radius, distance, time.monotonic() - start)
                if none_in_radius(problem, batch, radius):
                    return _none_around(problem, batch, radius, distance, time.monotonic() - start)
                failed = NotShownError(
                    f"all near batches would lie within {max(radius):.3g} of the batch found, but whether "
                    "there is one is not shown; give a larger tolerance, or the gradient more exactly"
                )
            assert failed is not None
            raise failed
    except NotShownError as error:
        return _unknown(problem, str(error), nearest, time.monotonic() - start)
    except OverflowError:
        reason = "numbers beyond the range of float64 are not taken on with a tolerance"
        return _unknown(problem, reason, nearest, time.monotonic() - start)


def _check_layers(problem: Problem) -> None:
    largest = max(array.size for array in problem.layers)
    if largest > LARGEST_LAYER:
        raise NotShownError(f"a layer has {largest} parameters; up to {LARGEST_LAYER} are taken on")


def _check_scope(problem: Problem) -> None:
    network, labels = problem.network, problem.setting.question.labels
    if labels is not Labels.ONE_HOT:
        raise NotShownError(f"labels={labels.value!r} leave loss vectors without a bound; use 'one_hot'")
    if not network.has_bias:
        raise NotShownError("the network has no biases, so every sample keeps a scale")
    if network.depth < 2:
        raise NotShownError("the network has no hidden layer, which lifting needs")


def _check_count(problem: Problem) -> None:
    """T2 has an equation per neuron: whether that is enough is known before anything is computed."""
    samples, width = problem.samples, problem.following
    unknowns, neurons = samples * (samples - 1) // 2 + samples * width, problem.network.widths[1]
    if samples > 1 and unknowns > neurons:
        raise NotShownError(
            f"{unknowns} equations are needed for {samples} samples and {neurons} neurons give one each; "
            "ask about fewer samples"
        )


def _guessed(problem: Problem) -> Problem:
    samples = numerical_rank(problem)
    if samples == 0:
        raise NotShownError("the gradient of layer 1 shows no sample above the tolerance; give a smaller one")
    return replace(problem, samples=samples)


def _asked(problem: Problem) -> str:
    said = problem.setting.question.batch_size is not None
    how = "" if said else " (the numerical rank of the first layer's gradient, a guess)"
    return f"among batches of {problem.samples} samples{how}"


def _stated(shown: Shown, batch: Batch) -> tuple[float, ...]:
    largest = float(np.abs(batch.inputs.astype(np.float64)).max())
    return tuple(stated_radius(value, largest) for value in shown.radius)


def _unique(
    problem: Problem, batch: Batch, radius: tuple[float, ...], distance: float, seconds: float
) -> Verdict:
    reason = (
        f"{_asked(problem)}, all whose gradient is within {float(problem.tolerance):g} have the labels of "
        "the batch found, whose own gradient is within the tolerance, and inputs within "
        f"{max(radius):.3g} of it in every entry, up to order; lifting at hidden layer 1 with every bound "
        "proved"
    )
    claim = Claim(
        question=_record(problem),
        outcome=Outcome.UNIQUE,
        samples=(SampleStatus.UNKNOWN,) * problem.samples,
        radius=radius,
        realised=True,
    )
    return Verdict(
        outcome=claim.outcome,
        samples=claim.samples,
        reason=reason,
        batch_size=problem.samples,
        engine=Engine.LIFTING,
        layer=1,
        trust=Trust.CERTIFIED,
        batch=batch,
        witness=Witness(radius=radius),
        certificate=_issued(problem, claim, _evidence(problem, batch)),
        attempts=(Attempt(engine=Engine.LIFTING, note="radius proved", layer=1, seconds=seconds),),
        tolerant=True,
        distance=distance,
    )


def _unknown(problem: Problem, reason: str, nearest: float | None, seconds: float) -> Verdict:
    """``nearest``: how far the gradient of the nearest batch found is from the given one, if one was."""
    tolerance = float(problem.tolerance)
    found = (
        "no batch was found whose gradient could be compared"
        if nearest is None
        else f"the gradient of the nearest batch found differs by up to {nearest:.3g}, the tolerance is "
        f"{tolerance:g}"
    )
    note = f"tolerance {tolerance:g}: {reason}"
    return Verdict(
        outcome=Outcome.UNKNOWN,
        samples=(),
        reason=f"{_asked(problem)}, no radius is proved: {reason}; {found}",
        batch_size=problem.samples,
        attempts=(Attempt(engine=Engine.LIFTING, note=note, layer=1, seconds=seconds),),
        tolerant=True,
        distance=nearest,
    )


def _none_around(
    problem: Problem, batch: Batch, radius: tuple[float, ...], distance: float, seconds: float
) -> Verdict:
    reason = (
        f"{_asked(problem)}, all whose gradient is within {float(problem.tolerance):g} would have inputs "
        f"within {max(radius):.3g} of a batch that was found, and its labels; but no batch there has such a "
        "gradient"
    )
    verdict = _unrealisable(problem, _evidence(problem, batch), reason, seconds)
    return replace(verdict, distance=distance)


def _unrealisable(problem: Problem, evidence: Tolerance | RankBound, reason: str, seconds: float) -> Verdict:
    claim = Claim(question=_record(problem), outcome=Outcome.UNREALISABLE, samples=())
    engine, layer = (
        (Engine.DIRECT, evidence.layer) if isinstance(evidence, RankBound) else (Engine.LIFTING, 1)
    )
    return Verdict(
        outcome=claim.outcome,
        samples=(),
        reason=reason,
        batch_size=problem.samples,
        engine=engine,
        layer=layer,
        trust=Trust.CERTIFIED,
        certificate=_issued(problem, claim, evidence),
        attempts=(Attempt(engine=engine, note="refuted", layer=layer, seconds=seconds),),
        tolerant=True,
    )


def _record(problem: Problem) -> QuestionRecord:
    features = problem.network.widths[0]
    return QuestionRecord.of(problem.setting.question, "gradient", samples=problem.samples, features=features)


def _issued(problem: Problem, claim: Claim, evidence: Tolerance | RankBound) -> dict[str, Any]:
    return issue(
        claim=claim,
        evidence=(evidence,),
        model_sha256=problem.network.digest,
        gradient_sha256=problem.gradient.digest,
    )


def _evidence(problem: Problem, batch: Batch) -> Tolerance:
    classes = range(problem.network.classes)
    return Tolerance(
        inputs=tuple(tuple(row) for row in batch.inputs.tolist()),
        labels=tuple(
            tuple(int(c == int(y)) for c in classes)
            if batch.labels.ndim == 1
            else tuple(int(to_fraction(v)) for v in y)
            for y in batch.labels
        ),
        parametrisation=problem.parametrisation,
    )


def stated_radius(proved: float, largest: float) -> float:
    """A short decimal a little above the proved bound, for inputs of at most ``largest``."""
    stated = float(f"{proved * _MARGIN + largest * _GUESSES:.3g}")
    return stated if stated >= proved else math.nextafter(proved, math.inf)
