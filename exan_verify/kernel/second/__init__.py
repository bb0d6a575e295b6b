"""Evidence of a second batch: exact, algebraic, enclosed, along a family, by counting, unseen, projected,
averaged, along a fibre, scaled.

The one part of the kernel that the engines ask themselves: they find candidates by means of their own, and
issue what :func:`facts` accepts (docs/theory.md section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exan_verify.core.certificate import (
    AlgebraicBatch,
    Averaged,
    Counting,
    EnclosedBatch,
    Projected,
    SecondBatch,
    Shear,
    Submersion,
    Twins,
    Unseen,
)
from exan_verify.core.facts import Facts
from exan_verify.kernel.given import Subject
from exan_verify.kernel.second import (
    algebraic_batch,
    averaged,
    counting,
    enclosed_batch,
    projected,
    second_batch,
    shear,
    submersion,
    twins,
    unseen,
)
from exan_verify.kernel.second.counting import Count
from exan_verify.kernel.second.second_batch import rebuilt
from exan_verify.kernel.second.unseen import Family, family

__all__ = ["CHECKERS", "Count", "Existential", "Family", "count", "facts", "family", "rebuilt"]

Existential = (
    SecondBatch
    | EnclosedBatch
    | AlgebraicBatch
    | Shear
    | Counting
    | Unseen
    | Projected
    | Averaged
    | Submersion
    | Twins
)
"""Evidence that a second batch, or a family of them, exists."""

CHECKERS: Mapping[type, Callable[[Any, Subject], Facts]] = {
    SecondBatch: second_batch.facts,
    EnclosedBatch: enclosed_batch.facts,
    AlgebraicBatch: algebraic_batch.facts,
    Shear: shear.facts,
    Counting: counting.facts,
    Unseen: unseen.facts,
    Projected: projected.facts,
    Averaged: averaged.facts,
    Submersion: submersion.facts,
    Twins: twins.facts,
}
"""One checker for each kind."""


def facts(evidence: Existential, subject: Subject) -> Facts:
    """AMBIGUOUS, and FREE for the samples that the evidence moves.

    Raises :class:`exan_verify.errors.CertificateRejected` at the first step that does not hold.
    """
    return CHECKERS[type(evidence)](evidence, subject)


def count(evidence: Counting | Submersion, subject: Subject) -> Count:
    """The dimensions behind :func:`facts`; raises as it does."""
    if isinstance(evidence, Counting):
        return counting.count(evidence, subject)
    return submersion.count(evidence, subject)
