"""Samples with labels that explain rows of the first layer's gradient alone are consistent, whole batch or
not.

What is asked of a sample (own_rows.py has the equations): its input follows from rows that it and other
samples found explain to rounding, with its label, and with a small error; and either it is seen in two of
these rows, of which it could have been fitted to one, or its input lies outside the row space of what all of
them leave of the gradient. A mixture y of samples that are not found, which passed for a sample by
coincidence, fails both. Its delta pollutes every other row of its pattern; and it stays in the row space: y
is in that of A'', the rest with it, of which it is a row, and A'' - delta y^T has the rank of A'' unless
y A''^+ delta is 1 as well, hence the same row space. No other label may explain those rows. Loss
vectors that add up (hinge's, saturated ones) would fit several samples of one region as well. Other batches
are not excluded by any of this.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT, Confirmed
from exan_verify.numeric.problem.losses import told_apart
from exan_verify.numeric.problem.own_rows import OwnRows, admitted_labels, delta_change, solve_own_rows
from exan_verify.numeric.problem.passes import backward, gradient_error, gradient_norms, rounding
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Candidate, Evidence, Finding

_TOLERANCE = 16.0
"""Between the estimate of rounding and the largest deviation that is accepted as rounding."""

_APART = 0.1
"""Of its size: how far from an input samples are that must not be seen as one."""

_OUTSIDE = 1e-2
"""Share of an input that lies outside the rest: of digits .1 and more does, of mixtures what noise moves."""


def judge_own_rows(
    problem: Problem, finding: Finding, size: int, gains: list[tuple[float, float]]
) -> Confirmed:
    """What the rows that the samples of ``finding`` (with labels ``y``) close say of each, in a batch of
    ``size``."""
    assert finding.y is not None
    assert finding.errors is not None
    y, divisor = finding.y, problem.divisor(size)
    error = finding.errors * (1 + finding.x.norm(dim=1))
    own = solve_own_rows(problem, finding.x, y, error, divisor, gains)
    reasons = _reasons(problem, own, y, divisor)
    good = torch.tensor([not reason for reason in reasons], dtype=torch.bool, device=problem.device)
    deltas = backward(problem, own.trace, problem.loss_vectors(own.trace.logits, y) / divisor)
    errors, norms = gradient_error(problem, own.trace, deltas), gradient_norms(problem)
    missed = _missed(problem, own, deltas, errors, norms, divisor, gains)
    complete = len(y) == size and bool(good.all()) and not missed
    what = "rows of layer 1 that it and others explain alone" if len(y) < size else "the rows of layer 1"
    said = f"{what} and its label fit each other; no other batch is excluded"
    residual = (own.left / own.rounding.clamp(min=1e-300) * problem.unit_roundoff)[own.closed]
    largest = float(residual.max()) if len(residual) else 1.0
    failed = [reason for reason in reasons if reason]
    return Confirmed(
        x=own.x[good],
        y=y[good],
        status=tuple(
            Evidence(
                method=finding.method,
                layer=1,
                error_bound=float(own.error[m]),
                error_norm=float(own.error[m]),
                residual=largest,
                isolation=0.0,
                label_residual=largest,
                label_margin=1.0,
                unconfirmed=said,
            )
            for m in torch.nonzero(good)[:, 0].tolist()
        ),
        candidates=tuple(
            Candidate(
                x=own.x[m], label=y[m], error_estimate=max(float(own.error[m]), float(error[m])), reason=r
            )
            for m, r in enumerate(reasons)
            if r
        ),
        gradient_residual=math.hypot(*errors) / max(math.hypot(*norms), 1e-300),
        complete=complete,
        batch_size=size,
        batch_size_source="loss scale" if problem.question.batch_size is None else "given",
        reason=""
        if complete
        else finding.reason
        or missed
        or f"{len(failed)} of {len(y)} samples are candidates only: {failed[0]}",
        scale=problem.scale or 1.0,
    )


def _reasons(problem: Problem, own: OwnRows, y: Tensor, divisor: float) -> list[str]:
    """Per sample what keeps it a candidate, empty where nothing does."""
    shown = own.shown()
    seen = shown.sum(dim=1)
    outside = _outside_the_rest(problem, own)
    limit = CLAIM_LIMIT * own.x.abs().amax(dim=1).clamp(min=1.0)
    vectors = problem.loss_vectors(own.trace.logits, y)
    apart = told_apart(problem.question.loss, vectors) & _exposes_several(problem, own, shown, divisor)
    labelled = _one_label(problem, own, y, divisor, shown)
    reasons = []
    for m in range(len(y)):
        if not float(own.error[m]) <= float(limit[m]):
            reason = "the rows of layer 1 that the samples found explain alone do not determine its input"
        elif not int(seen[m]):
            reason = "it shows in no row of layer 1 that the samples found explain alone"
        elif int(seen[m]) < 2 and not bool(outside[m]):
            reason = "one row of layer 1 and its label fit each other, and nothing else tests them"
        elif not bool(labelled[m]):
            reason = "another label explains the rows of layer 1 that show it as well"
        elif not bool(apart[m]):
            reason = "its loss vector would fit several samples of one region as well"
        else:
            reason = ""
        reasons.append(reason)
    return reasons


def _outside_the_rest(problem: Problem, own: OwnRows) -> Bool[Tensor, " p"]:
    """Whose input is no mixture of what the samples leave of [dW_1 | db_1]."""
    h = torch.cat([own.x, torch.ones_like(own.x[:, :1])], dim=1)
    left = (problem.layers[0].augmented() - own.deltas.T @ h)[~own.closed]
    values, rows = torch.linalg.svd(left, full_matrices=False)[1:]
    # rounding alone, without what errors of the inputs carry: too many directions only refuse more
    rows = rows[values > own.rounding.norm()]
    outside: Tensor = (h - (h @ rows.T) @ rows).norm(dim=1) > _OUTSIDE * h.norm(dim=1)
    return outside


def _exposes_several(
    problem: Problem, own: OwnRows, shown: Bool[Tensor, "p n1"], divisor: float
) -> Bool[Tensor, " p"]:
    """Whose loss vector bends enough between samples of one region to expose them as several.

    A batch of half the size explains samples that are seen as one in pairs, and loss vectors known to
    ``slack`` differ from their mean's by the square of how far they change.
    """
    if problem.question.batch_size is not None or problem.divisor(2) == problem.divisor(1):
        return torch.ones_like(own.error, dtype=torch.bool)
    share = own.deltas.abs() * (1 + own.x.norm(dim=1))[:, None]
    slack = _TOLERANCE * torch.hypot(own.rounding, own.carried) / share.clamp(min=1e-300)
    slack = torch.where(shown, slack, torch.inf).amin(dim=1)
    turned = delta_change(problem, own.trace, _APART * own.x, divisor).norm(dim=1)
    exposes: Tensor = (turned / own.deltas.norm(dim=1).clamp(min=1e-300)).square() > slack
    return exposes


def _one_label(
    problem: Problem, own: OwnRows, y: Tensor, divisor: float, shown: Bool[Tensor, "p n1"]
) -> Bool[Tensor, " p"]:
    """Whose label no other one replaces: each would change some row that shows the sample."""
    labels = admitted_labels(problem)
    only = torch.full_like(own.error, labels is not None).bool()
    slack = _TOLERANCE * torch.hypot(own.rounding, own.carried)
    for label in labels if labels is not None else ():
        other = label.expand(len(y)) if problem.classified else label.expand_as(own.trace.logits)
        same = other == y if problem.classified else (other == y).all(dim=1)
        deltas = backward(problem, own.trace, problem.loss_vectors(own.trace.logits, other) / divisor)[0]
        moved = (deltas - own.deltas).abs() * (1 + own.x.norm(dim=1))[:, None]
        only &= same | ((moved > slack) & shown).any(dim=1)
    return only


def _missed(
    problem: Problem,
    own: OwnRows,
    deltas: tuple[Tensor, ...],
    errors: list[float],
    norms: list[float],
    divisor: float,
    gains: list[tuple[float, float]],
) -> str:
    """A reason where the samples together miss some layer's gradient by more than rounding explains."""
    known = torch.where(torch.isfinite(own.error), own.error, torch.zeros_like(own.error))
    unit = problem.unit_roundoff
    expected = rounding(
        problem, own.trace, deltas, gains=gains, input_error=known, unit=unit, divisor=divisor
    ).gradients
    for k, (error, level, norm) in enumerate(zip(errors, expected, norms, strict=True)):
        if not error <= _TOLERANCE * (level + unit * norm):
            return f"together the samples found miss the gradient of layer {k + 1} by {error / norm:.1e}"
    return ""
