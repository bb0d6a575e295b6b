"""Motions that a projected first layer hides (docs/theory.md, releases: projected transcript).

Where the first layer is ``W_1 = V B^T`` for the release's input basis B, every input moves freely along the
kernel of B^T. A projector applied to stored floats does not do: fl(W P) P differs from fl(W P), and W_1 is
then no V B^T.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Projected
from exan_verify.decide.context import Context
from exan_verify.decide.families.result import Part
from exan_verify.decide.second_batch import admitted


def decide(context: Context, budget: Budget) -> Part:
    """The family ``X + A`` with ``A B = 0``."""
    release = context.question.release
    if release is None or release.input_basis is None:
        return Part(note="")
    basis, x = release.input_basis, context.batch.inputs
    budget.spend(basis.size * (basis.shape[1] + context.network.widths[1]))
    seen = basis.shape[1]
    inside = np.ones(x.shape, dtype=bool)
    if context.question.domain is not None:
        lo, hi = context.question.domain.bounds(x.shape[1])
        inside = (x > lo) & (x < hi)
    each = np.maximum(inside.sum(axis=1) - seen, 0)
    if not each.any():
        return Part(note=f"no sample can move in more features than the input basis has columns ({seen})")
    evidence = Projected(dimension=int(each.sum()))
    facts = admitted(context, evidence)
    if facts is None:
        return Part(
            note="the first layer's weight is not exactly V B^T for the release's input basis B, or B's "
            "columns are dependent (a product that was rounded is no V B^T): form V B^T exactly"
        )
    reason = (
        f"the first layer is V B^T and sees {seen} of {x.shape[1]} input dimensions: a family of dimension "
        f"{evidence.dimension} keeps all that is sent, in this round and, with the same basis, in all rounds "
        "(projected transcript)"
    )
    radii = None
    if context.question.domain is None:
        radii = tuple(None if m in facts.free else Fraction(0) for m in range(context.samples))
    return Part(
        note=reason,
        facts=facts,
        evidence=(evidence,),
        dimension=evidence.dimension,
        radii=radii,
        reason=reason,
    )
