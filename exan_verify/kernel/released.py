"""The releases that each kind of evidence is accepted for (docs/theory.md, releases).

A checker speaks of the whole gradient unless it reads the question's release. Evidence of a second batch
carries over to equal weights: the release is a function of the gradient, so a batch with the same gradient
has the same release. Evidence that samples are determined never carries over by itself: ``lifting``,
``degree_three`` and ``scale`` use only the rows that are sent, and no other kind does.
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
    Lifting,
    Projected,
    Scale,
    SecondBatch,
    Shear,
    Submersion,
    Twins,
    Unseen,
)
from exan_verify.core.network import Batch, Gradient, Network
from exan_verify.core.question import Question, Release, Weights
from exan_verify.core.verdict import Outcome
from exan_verify.errors import CertificateRejected, InputError
from exan_verify.kernel.given import require


def _equal_weights(_evidence: Any, release: Release) -> bool:
    return release.weights is Weights.EQUAL


ACCEPTED: Mapping[type, Callable[[Any, Release], bool]] = {
    Lifting: lambda _, release: release.input_basis is None,
    DegreeThree: lambda _, release: release.input_basis is None,
    Scale: lambda _, release: release.input_basis is None,
    # sum_m c_m G_m stays for all c only where the second batch changes one sample's G_m into an equal one
    SecondBatch: lambda part, release: _equal_weights(part, release) or len(part.moves) == 1,
    EnclosedBatch: _equal_weights,
    AlgebraicBatch: _equal_weights,
    # linear families: a motion a_m of sample m becomes a_m / c_m, and what is moved stays moved
    Shear: lambda *_: True,
    Counting: lambda *_: True,
    Unseen: lambda *_: True,
    # entries of rows that are sent; with weights c the Jacobian's columns are times c_m
    Submersion: lambda _, release: release.input_basis is None,
    # every twin keeps its own sample's G_m
    Twins: lambda *_: True,
}
"""For releases of the samples' own gradients. Kinds that are neither here nor in :data:`OF_MEANS_TOO` show
something of the whole gradient alone.
"""

OF_MEANS_TOO = (Projected, Averaged)
"""What the step sees stays the same, B^T x of every sample or C X: so does everything that is sent, also of
means, whatever else is held back, and whatever the weights are.
"""


def require_asked(question: Question, network: Network, given: Batch | Gradient, outcome: Outcome) -> None:
    """Refuse a release that does not fit the network and the batch, or a claim that is never made of one."""
    if question.release is None:
        return
    if not isinstance(given, Batch):
        raise CertificateRejected("a claim about a release is made for a batch")
    try:
        question.release.check_against(network)
        question.release.check_samples(given)
    except InputError as error:
        raise CertificateRejected(f"the claim's release does not fit the model and batch: {error}") from None
    require(question.tolerance is None, "a claim about a release has no tolerance")
    require(outcome is not Outcome.UNREALISABLE, "nothing is shown to have no batch by its release")


def require_made_for(evidence: Any, question: Question) -> None:
    """Refuse evidence that says nothing about what is sent."""
    release = question.release
    if release is None:
        return
    kind = type(evidence)
    # a step on means has the gradient of the means; what holds for that of the samples says nothing of it
    own = release.averages is None and kind in ACCEPTED and ACCEPTED[kind](evidence, release)
    accepted = own or kind in OF_MEANS_TOO
    require(accepted, f"{kind.__name__} is no evidence about a release of {release.described}")
