"""Which arguments are made for a release, where less than the whole gradient is sent (docs/theory.md,
releases).

A second batch with the same whole gradient has the same release, since the release is a function of the
gradient. With unknown positive weights it must have it whatever the weights are: families whose motions scale
with them do, and a batch in which one sample alone has changed, whose own contribution is then the same.
UNIQUE follows only from arguments that were made for the release. Whatever is not named here is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exan_verify.core.certificate import (
    AlgebraicBatch,
    Averaged,
    Counting,
    DegreeThree,
    EnclosedBatch,
    Evidence,
    Lifting,
    Projected,
    Scale,
    SecondBatch,
    Shear,
    Submersion,
    Twins,
    Unseen,
)
from exan_verify.core.question import Question, Release, Weights
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Finding


def _any(_evidence: Any, _release: Release) -> bool:
    return True


def _own_gradients(_evidence: Any, release: Release) -> bool:
    """The step is made on the samples; of means it has no sample's gradient."""
    return release.averages is None


def _equal_weights(_evidence: Any, release: Release) -> bool:
    return release.averages is None and release.weights is Weights.EQUAL


def _own_contribution(evidence: SecondBatch, release: Release) -> bool:
    one = release.weights is Weights.EQUAL or len(evidence.moves) == 1
    return release.averages is None and one


def _rows(_evidence: Any, release: Release) -> bool:
    """Whole rows of the gradient, of some layers; dW_1 B has no rows of dW_1."""
    return release.averages is None and release.input_basis is None


HANDLED: Mapping[type[Evidence], Callable[[Any, Release], bool]] = {
    Lifting: _rows,
    DegreeThree: _rows,
    Scale: _rows,
    SecondBatch: _own_contribution,
    EnclosedBatch: _equal_weights,
    AlgebraicBatch: _equal_weights,
    Shear: _own_gradients,
    Counting: _own_gradients,
    Unseen: _own_gradients,
    Projected: _any,
    Averaged: _any,
    Submersion: _rows,
    Twins: _own_gradients,
}
"""For each kind of evidence the releases that it is proved for; the kinds that are not here: the whole
gradient.
"""

ENGINES: Mapping[Engine, Callable[[Any, Release], bool]] = {
    Engine.LIFTING: _rows,
    Engine.SCALE: _own_gradients,
    Engine.FAMILIES: _any,
}
"""The engines that may issue such evidence."""


def handles(evidence: Evidence, question: Question) -> bool:
    """Whether the evidence is proved for what is sent."""
    if question.release is None:
        return True
    kind = type(evidence)
    return kind in HANDLED and HANDLED[kind](evidence, question.release)


def only_handled(engine: Engine, finding: Finding, question: Question) -> Finding:
    """The finding, or where a part of its evidence is not proved for what is sent nothing but the word."""
    refused = [type(part).__name__ for part in finding.evidence if not handles(part, question)]
    if not refused:
        return finding
    note = f"{', '.join(sorted(set(refused)))} is proved for the whole gradient, not for this release"
    return Finding(attempts=(*finding.attempts, Attempt(engine=engine, note=note)))


def not_asked(engine: Engine, question: Question) -> Finding | None:
    """The empty finding of an engine that has nothing to say of a release; None where it is to be asked."""
    release = question.release
    if release is None or (engine in ENGINES and ENGINES[engine](None, release)):
        return None
    return Finding()
