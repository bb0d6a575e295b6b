"""Candidates that fail their own equations are taken out before the others are judged.

The input of a candidate comes from a left inverse of *all* directions that are taken to span the column space
(bounds.py, step 3), and its bound presumes that the others are samples. One that is not spoils the inputs of
the others, without a trace in their own equations. So only those that satisfy theirs are kept, with the
inputs that the method handed over, and the rest is what they leave of A.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from exan_verify.numeric.bounds import Refined, refine
from exan_verify.numeric.problem import Problem
from exan_verify.numeric.records import Finding, Unclaimed
from exan_verify.numeric.remainder import without
from exan_verify.numeric.spectrum import ColumnSpace


def settled(
    problem: Problem, space: ColumnSpace, finding: Finding, gains: list[tuple[float, float]]
) -> tuple[Finding, Refined, tuple[Unclaimed, ...]]:
    """The finding without candidates that fail their own equations, refined, and those left out."""
    refined = refine(problem, space, finding, gains)
    dropped: list[Unclaimed] = []
    while True:
        solved = refined.sine <= refined.allowed
        if bool(solved.all()) or not bool(solved.any()):
            return finding, refined, tuple(dropped)
        if finding.literal:
            return finding, replace(refined, bound=torch.full_like(refined.bound, torch.inf)), ()
        dropped += [
            Unclaimed(
                x=refined.x[m],
                error_bound=torch.inf,
                reason=f"its own equations fail: residual {float(refined.sine[m]):.1e}, rounding explains "
                f"{float(refined.allowed[m]):.1e}",
            )
            for m in torch.nonzero(~solved)[:, 0].tolist()
        ]
        finding = _kept(space, finding, refined, solved)
        refined = refine(problem, space, finding, gains)


def _kept(space: ColumnSpace, finding: Finding, refined: Refined, solved: Tensor) -> Finding:
    """The candidates that are ``solved``, at the scale at which they lower the rank of A.

    A - s d y^T has a lower rank than A for 1 / s = y^T A^+ d only (Wedderburn).
    """
    x = finding.x[solved]
    directions = torch.nn.functional.normalize(refined.deltas[solved], dim=1)
    h = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    inverse = ((h @ torch.linalg.pinv(space.rows)) * (directions @ space.basis)).sum(dim=1)
    scales = torch.where(inverse != 0, 1 / inverse, torch.zeros_like(inverse))
    left = without(space, scales[:, None] * directions, x)
    failed = int((~solved).sum())
    return replace(
        finding,
        x=x,
        rest=left.basis,
        rest_sine=min(1.0, space.noise / left.noise),
        guessed_rows=True,
        reason=finding.reason or f"{failed} of {len(solved)} candidates fail their own equations",
    )
