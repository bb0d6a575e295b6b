"""``certify`` with a tolerance: a batch, a proved radius around it, and its certificate (Appendix T)."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np

from exan_verify.core.certificate import Claim, QuestionRecord, Tolerance, issue
from exan_verify.core.network import Gradient, to_fraction
from exan_verify.core.question import Labels
from exan_verify.core.verdict import Attempt, Budget, Engine, Outcome, SampleStatus, Trust, Verdict, Witness
from exan_verify.decide.context import Setting
from exan_verify.decide.tolerance.bounds import Shown, show
from exan_verify.decide.tolerance.centre import find, numerical_rank
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


def decide(
    setting: Setting, gradient: Gradient, batch_size: int | None, tolerance: Fraction, limits: Budget
) -> Verdict:
    """As :func:`decide_here`; long questions in a process of their own, because single steps of them are."""
    if not _long(setting, batch_size):
        return decide_here(setting, gradient, batch_size, tolerance, limits)
    alone = replace(setting, progress=None)  # a caller's function stays here
    verdict, spent = apart(_measured, alone, gradient, batch_size, tolerance, limits)
    limits.spend(spent - limits.spent)
    return verdict


def _measured(
    setting: Setting, gradient: Gradient, batch_size: int | None, tolerance: Fraction, limits: Budget
) -> tuple[Verdict, int]:
    return decide_here(setting, gradient, batch_size, tolerance, limits), limits.spent


def _long(setting: Setting, batch_size: int | None) -> bool:
    """Whether decompositions of the layers, or the lifted equations, take more than a second or two."""
    shapes = [layer.shape for layer in setting.network.layers]
    if max(rows * cols * min(rows, cols) for rows, cols in shapes) > _LONG:
        return True
    samples, neurons = batch_size or min(shapes[0]), shapes[0][0]
    equations = min(
        neurons, samples * (samples + 1) // 2 + samples * min(samples, setting.network.widths[-1])
    )
    return max(neurons * equations**2 * _BALLS, samples * sum(a * b for a, b in shapes) * _BALLS) > _LONG


def decide_here(
    setting: Setting, gradient: Gradient, batch_size: int | None, tolerance: Fraction, limits: Budget
) -> Verdict:
    """UNIQUE up to a radius, with a certificate, or UNKNOWN with the step that failed.

    Asks which batches of ``batch_size`` samples (default: the numerical rank, a guess that the reason names)
    have a gradient within ``tolerance`` of ``gradient`` in every entry.
    """
    start = time.monotonic()
    problem = Problem(
        setting=setting, gradient=gradient, samples=batch_size or 0, tolerance=tolerance, budget=limits
    )
    try:
        _check_scope(problem)
        if batch_size is None:
            problem = _guessed(problem)
        _check_count(problem)
        with working_precision():
            shown = show(problem, find(problem))
    except (NotShownError, OverflowError) as error:
        if isinstance(error, OverflowError):
            error = NotShownError("numbers beyond the range of float64 are not taken on with a tolerance")
        note = f"tolerance {float(tolerance):g}: {error}"
        attempt = Attempt(engine=Engine.LIFTING, note=note, layer=1, seconds=time.monotonic() - start)
        return Verdict(
            outcome=Outcome.UNKNOWN,
            samples=(),
            reason=f"{_asked(problem, batch_size)}, no radius is proved: {error}",
            batch_size=problem.samples,
            attempts=(attempt,),
            tolerant=True,
        )
    return _verdict(problem, shown, batch_size, time.monotonic() - start)


def _check_scope(problem: Problem) -> None:
    network, labels = problem.network, problem.setting.question.labels
    if labels is not Labels.ONE_HOT:
        raise NotShownError(f"labels={labels.value!r} leave loss vectors without a bound (T4); use 'one_hot'")
    if not network.has_bias:
        raise NotShownError("the network has no biases, so every sample keeps a scale")
    if network.depth < 2:
        raise NotShownError("the network has no hidden layer, which lifting needs")
    largest = max(array.size for array in problem.layers)
    if largest > LARGEST_LAYER:
        raise NotShownError(f"a layer has {largest} parameters; up to {LARGEST_LAYER} are taken on")


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
        raise NotShownError("no singular value of [dW_1 | db_1] is above the tolerance; give a smaller one")
    return Problem(
        setting=problem.setting,
        gradient=problem.gradient,
        samples=samples,
        tolerance=problem.tolerance,
        budget=problem.budget,
    )


def _asked(problem: Problem, batch_size: int | None) -> str:
    how = "" if batch_size is not None else " (the numerical rank of the first layer's gradient, a guess)"
    return f"among batches of {problem.samples} samples{how}"


def _verdict(problem: Problem, shown: Shown, batch_size: int | None, seconds: float) -> Verdict:
    largest = float(np.abs(shown.batch.inputs.astype(np.float64)).max())
    radius = tuple(stated_radius(value, largest) for value in shown.radius)
    asked = _asked(problem, batch_size)
    there = (
        "whose own gradient is within the tolerance"
        if shown.realised
        else "whose own gradient is not shown to be within the tolerance, so that none may exist"
    )
    reason = (
        f"{asked}, all whose gradient is within {float(problem.tolerance):g} have the labels of the batch "
        f"found, {there}, and inputs within {max(radius):.3g} of it in every entry, up to order; "
        "lifting at hidden layer 1 with every bound proved (Appendix T)"
    )
    claim = Claim(
        question=QuestionRecord.of(
            replace(problem.setting.question, tolerance=problem.tolerance),
            "gradient",
            samples=problem.samples,
            features=problem.network.widths[0],
        ),
        outcome=Outcome.UNIQUE,
        samples=(SampleStatus.UNKNOWN,) * problem.samples,
        radius=radius,
        realised=shown.realised,
    )
    evidence = Tolerance(
        inputs=tuple(tuple(row) for row in shown.batch.inputs.tolist()),
        labels=_labels(problem, shown),
        parametrisation=problem.parametrisation,
    )
    return Verdict(
        outcome=claim.outcome,
        samples=claim.samples,
        reason=reason,
        batch_size=problem.samples,
        engine=Engine.LIFTING,
        layer=1,
        trust=Trust.CERTIFIED,
        batch=shown.batch,
        witness=Witness(radius=radius),
        certificate=issue(
            claim=claim,
            evidence=(evidence,),
            model_sha256=problem.network.digest,
            gradient_sha256=problem.gradient.digest,
        ),
        attempts=(Attempt(engine=Engine.LIFTING, note="radius proved", layer=1, seconds=seconds),),
        tolerant=True,
    )


def stated_radius(proved: float, largest: float) -> float:
    """A short decimal a little above the proved bound, for inputs of at most ``largest``."""
    stated = float(f"{proved * _MARGIN + largest * _GUESSES:.3g}")
    return stated if stated >= proved else math.nextafter(proved, math.inf)


def _labels(problem: Problem, shown: Shown) -> tuple[tuple[int, ...], ...]:
    labels = shown.batch.labels
    if labels.ndim == 1:
        return tuple(tuple(int(c == int(y)) for c in range(problem.network.classes)) for y in labels)
    return tuple(tuple(int(to_fraction(v)) for v in row) for row in labels)
