"""The releases that each kind of evidence is accepted for (docs/theory.md, releases).

A checker speaks of the whole gradient unless it reads the question's release. Evidence of a second batch
carries over to equal weights: the release is a function of the gradient, so a batch with the same gradient
has the same release. Evidence that samples are determined never carries over by itself: ``lifting`` and
``degree_three`` use only the rows that are sent, and no other kind does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from exan_verify.core.certificate import (
    AlgebraicBatch,
    Counting,
    DegreeThree,
    EnclosedBatch,
    Lifting,
    Projected,
    SecondBatch,
    Shear,
    Twins,
    Unseen,
)
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Question, Release, Weights
from exan_verify.core.verdict import Outcome
from exan_verify.errors import CertificateRejected, InputError
from exan_verify.kernel.given import require

ACCEPTED: Mapping[type, Callable[[Any, Release], bool]] = {
    Lifting: lambda _, release: release.input_basis is None,
    DegreeThree: lambda _, release: release.input_basis is None,
    # sum_m c_m G_m stays for all c only where the second batch changes one sample's G_m into an equal one
    SecondBatch: lambda part, release: release.weights is Weights.EQUAL or len(part.moves) == 1,
    EnclosedBatch: lambda _, release: release.weights is Weights.EQUAL,
    AlgebraicBatch: lambda _, release: release.weights is Weights.EQUAL,
    # linear families: a motion a_m of sample m becomes a_m / c_m, and what is moved stays moved
    Shear: lambda *_: True,
    Counting: lambda *_: True,
    Unseen: lambda *_: True,
    Projected: lambda *_: True,
    # every twin keeps its own sample's G_m
    Twins: lambda *_: True,
}
"""Kinds that are not here show something of the whole gradient alone."""


def require_asked(question: Question, network: ReluNetwork, entrance: str, outcome: Outcome) -> None:
    """Refuse a release that does not fit the network, or a claim about one that is never made."""
    if question.release is None:
        return
    try:
        question.release.check_against(network)
    except InputError as error:
        raise CertificateRejected(f"the claim's release does not fit the model: {error}") from None
    require(entrance == "batch", "a claim about a release is made for a batch")
    require(question.tolerance is None, "a claim about a release has no tolerance")
    require(outcome is not Outcome.UNREALISABLE, "nothing is shown to have no batch by its release")


def require_made_for(evidence: Any, question: Question) -> None:
    """Refuse evidence that says nothing about what is sent."""
    release = question.release
    if release is None:
        return
    kind = type(evidence)
    accepted = kind in ACCEPTED and ACCEPTED[kind](evidence, release)
    require(accepted, f"{kind.__name__} is no evidence about a release of {release.described}")
