"""Candidates that fail their own equations are taken out before the others are judged.

The input of a candidate comes from a left inverse of *all* directions that are taken to span the column space
(bounds.py, step 3), and its bound presumes that the others are samples. One that is not spoils the inputs of
the others, without a trace in their own equations. So only those that satisfy theirs, before refinement or
after it, are kept, with the inputs that the method handed over, and the rest is what they leave of A. The
same goes for one that has no error bound, since its pattern is not certain: how far its direction is off is
not known, so that nothing would bound what it does to the inputs of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Labels
from exan_verify.numeric.confirming.bounds import Refined, refine
from exan_verify.numeric.problem.downward import solve_inputs
from exan_verify.numeric.problem.passes import delta_spans, forward
from exan_verify.numeric.problem.polish import meet
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Candidate, Finding
from exan_verify.numeric.problem.remainder import without
from exan_verify.numeric.problem.spectrum import ColumnSpace


def settled(
    problem: Problem, space: ColumnSpace, finding: Finding, gains: list[tuple[float, float]]
) -> tuple[Finding, Refined, tuple[Candidate, ...]]:
    """The finding without candidates that fail their own equations or have no bound, refined, and those left
    out.

    Where some fail even so, or among candidates taken to the letter, no bound is left finite.
    """
    smaller, refined, dropped = _solved(problem, space, finding, gains)
    bounded = torch.isfinite(refined.bound)
    # real targets are claimed only where all directions are samples', which a rest would leave open
    if bool(bounded.all()) or not bool(bounded.any()) or problem.labels is Labels.REAL:
        return smaller, refined, dropped
    if finding.literal:
        return smaller, _unbounded(refined), dropped
    directions = torch.nn.functional.normalize(refined.deltas, dim=1)
    kept = _kept(space, replace(smaller, x=refined.x), directions, bounded, "have no error bound")
    again = refine(problem, space, kept, gains)
    if not bool(((again.sine <= again.allowed) & torch.isfinite(again.bound)).all()):
        again = _unbounded(again)
    reason = "its activation pattern is not certain, so that no error bound holds"
    return kept, again, dropped + _dropped(refined, ~bounded, lambda _: reason)


def _solved(
    problem: Problem, space: ColumnSpace, finding: Finding, gains: list[tuple[float, float]]
) -> tuple[Finding, Refined, tuple[Candidate, ...]]:
    """The finding without candidates that fail their own equations."""
    refined = refine(problem, space, finding, gains)
    solved = refined.sine <= refined.allowed
    if bool(solved.all()):
        return finding, refined, ()
    meeting = meet(delta_spans(problem, forward(problem, finding.x)), space.basis)
    at_once = meeting.sines[:, 0] <= refined.allowed
    kept = solved | at_once
    if finding.literal or not bool(kept.any()):
        return finding, _unbounded(refined), ()
    directions = torch.where(at_once[:, None], meeting.deltas[:, :, 0], refined.deltas)
    if bool(kept.all()):
        # every direction is one of a sample, before or after: then so are the inputs that they give together
        inputs = solve_inputs(space, torch.cat([directions.T, finding.rest], dim=1))
        smaller = replace(finding, x=inputs.values[: len(kept)])
    else:
        smaller = _kept(space, finding, directions, kept, "fail their own equations")
    again = refine(problem, space, smaller, gains)
    if not bool((again.sine <= again.allowed).all()):
        again = _unbounded(again)
    return smaller, again, _dropped(refined, ~kept, partial(_failed, refined))


def _unbounded(refined: Refined) -> Refined:
    return replace(refined, bound=torch.full_like(refined.bound, torch.inf))


def _dropped(
    refined: Refined, failed: Bool[Tensor, " m"], reason: Callable[[int], str]
) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(x=refined.x[m], label=None, error_estimate=torch.inf, reason=reason(m))
        for m in torch.nonzero(failed)[:, 0].tolist()
    )


def _failed(refined: Refined, m: int) -> str:
    return (
        f"its own equations fail: residual {float(refined.sine[m]):.1e}, rounding explains "
        f"{float(refined.allowed[m]):.1e}"
    )


def _kept(
    space: ColumnSpace,
    finding: Finding,
    directions: Float[Tensor, "m n"],
    kept: Bool[Tensor, " m"],
    others: str,
) -> Finding:
    """The candidates that are ``kept``, at the scale at which they lower the rank of A.

    A - s d y^T has a lower rank than A for 1 / s = y^T A^+ d only (Wedderburn).
    """
    x = finding.x[kept]
    directions = torch.nn.functional.normalize(directions[kept], dim=1)
    h = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    inverse = ((h @ torch.linalg.pinv(space.rows)) * (directions @ space.basis)).sum(dim=1)
    scales = torch.where(inverse != 0, 1 / inverse, torch.zeros_like(inverse))
    left = without(space, scales[:, None] * directions, x)
    failed = int((~kept).sum())
    return replace(
        finding,
        x=x,
        rest=left.basis,
        rest_sine=min(1.0, space.noise / left.noise),
        guessed_rows=True,
        reason=finding.reason or f"{failed} of {len(kept)} candidates {others}",
    )
