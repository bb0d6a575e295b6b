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

_PURE = 1e-4
"""Largest share of other candidates in an input that is refined as one sample's; mixtures have shares near
1."""


def settled(
    problem: Problem, space: ColumnSpace, finding: Finding, gains: list[tuple[float, float]]
) -> tuple[Finding, Refined, tuple[Candidate, ...]]:
    """The finding without candidates that fail their own equations or have no bound, refined, and those left
    out.

    Where some fail even so, or among candidates taken to the letter, no bound is left finite.
    """
    finding, mixed = _with_a_rest(problem, space, finding, gains)
    smaller, refined, dropped = _solved(problem, space, finding, gains)
    dropped += mixed
    # real targets are claimed only where all directions are samples', which a rest would leave open
    if problem.question.labels is Labels.REAL:
        return smaller, refined, dropped
    reason = "its activation pattern is not certain, so that no error bound holds"
    while True:
        bounded = torch.isfinite(refined.bound)
        if bool(bounded.all()) or not bool(bounded.any()):
            return smaller, refined, dropped
        if finding.literal:
            return smaller, _unbounded(refined), dropped
        dropped += _dropped(refined, ~bounded, lambda _: reason)
        directions = torch.nn.functional.normalize(refined.deltas, dim=1)
        smaller = _kept(space, replace(smaller, x=refined.x), directions, bounded, "have no error bound")
        # what was dropped is in the rest now, and the others are judged anew: each round keeps fewer
        refined = refine(problem, space, smaller, gains)
        if not bool((refined.sine <= refined.allowed).all()):
            return smaller, _unbounded(refined), dropped


def _with_a_rest(
    problem: Problem, space: ColumnSpace, finding: Finding, gains: list[tuple[float, float]]
) -> tuple[Finding, tuple[Candidate, ...]]:
    """A finding whose method could not tell what its candidates leave of A, with the rest that those leave
    whose inputs mix no other candidate's, and the others.

    With A = sum_b delta_b y_b^T and A^+, y_m A^+ delta_l is 1 for l = m and 0 for others. A row that is a
    mixture of samples has the pattern of one of them often enough, so that its own equations hold, but shows
    the others here.
    """
    size = len(finding.x)
    if finding.literal or not size or size + finding.rest.shape[1] <= space.rank:
        return finding, ()
    meeting = meet(delta_spans(problem, forward(problem, finding.x)), space.basis)
    directions = meeting.deltas[:, :, 0]
    h = torch.cat([finding.x, torch.ones_like(finding.x[:, :1])], dim=1)
    shares = (h @ torch.linalg.pinv(space.rows)) @ (space.basis.T @ directions.T)
    own = shares.diagonal()
    others = (shares / torch.where(own == 0, torch.inf, own)).fill_diagonal_(0).abs().sum(dim=1)
    pure = (others < _PURE) & (own != 0) & (meeting.sines[:, 0] < _PURE)
    if not bool(pure.any()) or int(pure.sum()) >= space.rank:
        return finding, ()
    kept = _kept(space, finding, directions, pure, "mix other samples")
    refined = refine(problem, space, kept, gains)
    if bool((refined.sine <= refined.allowed).all()):
        # what is left is known as well as the inputs are: again, with better ones
        directions = torch.nn.functional.normalize(refined.deltas, dim=1)
        kept = _kept(space, replace(kept, x=refined.x), directions, torch.ones_like(pure[pure]), "")
    dropped = tuple(
        Candidate(
            x=finding.x[m],
            label=None,
            error_estimate=torch.inf,
            reason=f"its input shows {float(others[m]):.1e} of other candidates' as well",
        )
        for m in torch.nonzero(~pure)[:, 0].tolist()
    )
    return kept, dropped


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
