"""Certificates: what a claim says and all that a checker needs besides model and batch or gradient.

A certificate is plain JSON. The records here are shared by the engines, which write them, and the kernel,
which reads them; they contain no mathematics. A given batch is never embedded: certificates travel, private
data does not. (A batch found from a rounded gradient is: the claim is about it.)

Whoever reads one need not trust who wrote it: text is limited before it is parsed, numbers before they are
made. What the numbers say is the checkers' to bound (docs/theory.md, 6.1a).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from math import isfinite
from typing import Annotated, Any, Literal

import msgspec

from exan_verify.core import __version__
from exan_verify.core.arrays import rationals
from exan_verify.core.network import to_fraction
from exan_verify.core.question import Box, Labels, Loss, Question, Reduction, Release, Weights
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import CertificateRejected, InputError

SCHEMA: Literal["exan/certificate/1"] = "exan/certificate/1"

Natural = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
"""Indices, counts, ranks and degrees."""

Element = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""Primes, and elements of a prime field."""

Parametrisation = Literal["zero_sum", "full", "column_space", "row_space", "single"]
LabelArgument = Literal["loss_vectors", "output_rank", "backward_map"]


class ReleaseRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A :class:`~exan_verify.core.question.Release` as JSON: masks as booleans, the basis as rationals in
    text; ``averages`` is there only where samples are averaged.
    """

    tensors: tuple[str, ...] | None = None
    rows: dict[str, tuple[bool, ...]] = {}
    input_basis: tuple[tuple[str, ...], ...] | None = None
    averages: tuple[tuple[Natural, ...], ...] | msgspec.UnsetType = msgspec.UNSET
    weights: Weights = Weights.EQUAL

    @classmethod
    def of(cls, release: Release) -> ReleaseRecord:
        """The record of ``release``."""
        basis = release.input_basis
        return cls(
            tensors=release.tensors,
            rows=dict(release.rows),
            input_basis=None if basis is None else tuple(map(tuple, rationals(basis))),
            averages=msgspec.UNSET if release.averages is None else release.averages,
            weights=release.weights,
        )

    def asked(self) -> Release:
        """The release itself. Raises :class:`InputError` where it is none."""
        basis = self.input_basis
        return Release(
            tensors=self.tensors,
            rows=self.rows,
            input_basis=None if basis is None else [[rational(v) for v in row] for row in basis],
            averages=None if self.averages is msgspec.UNSET else self.averages,
            weights=self.weights,
        )


class QuestionRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The :class:`~exan_verify.core.question.Question` that a claim answers, as JSON, and its entrance.

    ``tolerance``: gradients count that differ by at most this (a rational in text) in every entry.
    ``release``: there only where less than the whole gradient is sent.
    """

    entrance: Literal["batch", "gradient"]
    loss: Loss
    reduction: Reduction
    labels: Labels
    batch_size: Natural
    domain: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    tolerance: str | None = None
    release: ReleaseRecord | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(
        cls, question: Question, entrance: Literal["batch", "gradient"], *, samples: int, features: int
    ) -> QuestionRecord:
        """The record of ``question`` about batches of ``samples`` samples of ``features`` inputs."""
        return cls(
            entrance=entrance,
            loss=question.loss,
            reduction=question.reduction,
            labels=question.labels,
            batch_size=samples,
            domain=domain_record(question.domain, features),
            tolerance=None if question.tolerance is None else str(question.tolerance),
            release=msgspec.UNSET if question.release is None else ReleaseRecord.of(question.release),
        )

    def asked(self) -> Question:
        """The question itself. Raises :class:`CertificateRejected` where a number or the box is none."""
        try:
            domain = domain_box(self.domain)
        except InputError as error:
            raise CertificateRejected(f"the claim's domain is not a box: {error}") from None
        try:
            release = None if self.release is msgspec.UNSET else self.release.asked()
        except InputError as error:
            raise CertificateRejected(f"the claim's release is none: {error}") from None
        return Question(
            loss=self.loss,
            reduction=self.reduction,
            labels=self.labels,
            domain=domain,
            batch_size=self.batch_size,
            tolerance=None if self.tolerance is None else rational(self.tolerance),
            release=release,
        )


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is claimed: the outcome, and per sample of the batch whether it is determined.

    With a tolerance: ``radius`` has, for each sample of the evidence's batch, how far (L-infinity, at most)
    its counterpart in any batch asked about is; ``realised`` says that that batch is one of them, without
    which nothing is unique.
    """

    question: QuestionRecord
    outcome: Outcome
    samples: tuple[SampleStatus, ...]
    radius: tuple[float, ...] | None = None
    realised: bool | None = None


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group that shares the pattern of the layer below, split at ``layer`` (C2, 6.4).

    ``unknowns`` and ``rank`` are those of the system restricted to ``members``; ``groups`` are the members
    that share the pattern of ``layer``.
    """

    layer: Natural
    members: tuple[Natural, ...]
    parametrisation: Parametrisation
    unknowns: Natural
    rank: Natural
    groups: tuple[tuple[Natural, ...], ...]


class Conclusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows once every candidate (q, u) at hidden layer ``layer`` is in the span of one group.

    ``layer`` is 1-based; ``groups`` partition the samples; ``splits`` how groups were split at the layers
    above, from below upwards; ``determined`` the samples (x_m, y_m) that this layer settles; ``labels`` the
    argument used for their labels (3.4).
    """

    layer: Natural
    parametrisation: Parametrisation
    groups: tuple[tuple[Natural, ...], ...]
    splits: tuple[Split, ...] = ()
    lower_ranks: tuple[Natural, ...]
    determined: tuple[Natural, ...]
    labels: LabelArgument


class LayerArgument(Conclusion, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lifting at one hidden layer (C1, C2): ``unknowns`` is U, ``rank`` the rank of R over F_p."""

    unknowns: Natural
    rank: Natural


class Mixing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gradient given: how to rebuild the batch. ``Delta_layer = A[:, columns] @ matrix`` (3.5)."""

    layer: Natural
    columns: tuple[Natural, ...]
    matrix: tuple[tuple[str, ...], ...]


class Lifting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="lifting"):
    """Evidence of the lifting engine: the field and point of 3.6, and one argument per layer used."""

    prime: Element
    point: Element
    layers: tuple[LayerArgument, ...]


class DegreeThree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="degree_three"):
    """Evidence of lifting of degree three: ``argument.unknowns`` is V, ``argument.rank`` that of R3.

    ``neurons``: how many of the layer's neurons with a non-zero delta were used, in their order.
    """

    prime: Element
    point: Element
    neurons: Natural
    argument: LayerArgument


class Apart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="apart"):
    """Evidence by exclusive neurons at hidden layer ``layer``, 1-based (docs/theory.md P.2).

    ``isolated``: samples in an order in which each is apart from all that are not yet isolated, by neurons
    that are active for one of these alone. ``rest``: lifting in the span of the others, at the same layer.
    """

    prime: Element
    point: Element
    layer: Natural
    parametrisation: Parametrisation
    isolated: tuple[Natural, ...]
    rest: Split | None = None
    determined: tuple[Natural, ...]


class RankBound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="rank_bound"):
    """Evidence for UNREALISABLE: rank [dW_layer | db_layer] >= ``rank``, more than the batch size (3.1).

    ``point`` is t of 3.6 when a batch was given (another size is asked about), else 0. ``prime`` is 0 with a
    tolerance: the rank is then that of every gradient within it, shown with balls (T9 of Appendix T).
    """

    prime: Element
    layer: Natural
    rank: Natural
    point: Element = 0


class Forced(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="forced"):
    """Evidence for UNREALISABLE: lifting at ``layer`` forces a batch, and a step contradicts it (3.5).

    Row m of ``following`` is u_m and column m of ``matrix`` is p_m: with ``C = A[:, columns]`` every batch
    has ``Delta = C P`` with the p_m as the columns of P up to order and scale. Both are empty when null(R)
    has fewer than M dimensions.
    """

    layer: Natural
    columns: tuple[Natural, ...]
    matrix: tuple[tuple[str, ...], ...]
    following: tuple[tuple[str, ...], ...]


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="scale"):
    """No biases: lifting at ``layer`` leaves each group of one a positive scale, and no other scale fits. Of
    a release with rows of dW_1 the same of dW_1 alone, without db_1 (docs/theory.md, releases).

    Fields as in :class:`LayerArgument` and :class:`Lifting`; ``determined`` samples have no twin (3.5).
    """

    prime: Element
    point: Element
    layer: Natural
    parametrisation: Parametrisation
    unknowns: Natural
    rank: Natural
    groups: tuple[tuple[Natural, ...], ...]
    lower_ranks: tuple[Natural, ...]
    determined: tuple[Natural, ...]


class Twin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sample ``sample`` scaled by a c in [``low``, ``high``] has the same gradient contributions (no biases).

    ``target``: the twin's label where it differs (mse).
    """

    sample: Natural
    low: str
    high: str
    target: tuple[str, ...] | None = None


class Twins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="twins"):
    """Evidence for AMBIGUOUS without biases: each twin alone gives a second batch."""

    twins: tuple[Twin, ...]


class Enumeration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="enumeration"):
    """Evidence of the enumeration engine: the order in which the layer's neurons are taken.

    The subspaces are not recorded: the kernel searches again, and gives up after a few times as many as
    ``subspaces``, which the engine looked at. ``conclusion.groups``: leaves of the search that share samples,
    joined.
    """

    prime: Element
    point: Element
    order: tuple[Natural, ...]
    subspaces: Natural = 0
    conclusion: Conclusion


class ExtraRays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="extra_rays"):
    """Solutions of a layer's equations that are no true samples give no other batch (Appendix E, E7 to E10).

    Neither the solutions nor their choices are recorded: the kernel searches again, over Q when ``exact``
    (mse, hinge), else mod p.
    """

    prime: Element
    point: Element
    exact: bool
    conclusion: Conclusion


SparseVector = tuple[tuple[Natural, str], ...]
"""``(index, rational)`` pairs; entries that are not named are zero."""


class Move(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sample of a second batch, relative to the given one.

    ``x'_sample = sum_k mix[k] x_k + sum_i steps[i] directions[i]``. ``label`` is another class
    (cross_entropy, hinge); ``target`` is added to the sample's target vector (mse, bce).
    """

    sample: Natural
    mix: SparseVector
    steps: SparseVector = ()
    label: Natural | None = None
    target: SparseVector = ()


class SecondBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="second_batch"):
    """Evidence for AMBIGUOUS: a second batch with exactly the same gradient, as differences from the first.

    ``directions`` are vectors of the input space; samples without a move stay. ``solved``: the targets are
    real, and follow from ``vectors' = vectors Q^-1`` with Q the matrix of the mixes (S1). The given batch is
    not embedded; but a mix and a step do say how the two batches differ.
    """

    directions: tuple[SparseVector, ...] = ()
    moves: tuple[Move, ...]
    solved: bool = False


class LabelCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """C4 for one label multiset: the degree, and solutions Q that are no permutation and no batch."""

    degree: Natural
    others: tuple[tuple[tuple[str, ...], ...], ...] = ()


class QuadricArgument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="quadrics"):
    """mse: one case per label multiset that the linear equations allow, in the order of the multisets."""

    cases: tuple[LabelCase, ...]


class LossVectorArgument(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="loss_vectors"
):
    """hinge: loss vectors are finitely many; ``selections`` of them have the rest's sum and span."""

    selections: Natural


class CoverArgument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cover"):
    """cross_entropy, bce: Q-space covered by boxes, a tree per label (membership) or label multiset (joint).

    ``bounds``: per coordinate, the constraints that prove its lower and upper bound. A tree in preorder: a
    digit cuts that axis in the middle, ``x`` is a box without a zero, ``k`` one with a single known zero.
    """

    kind: Literal["membership", "joint"]
    bounds: tuple[tuple[tuple[Natural, ...], tuple[Natural, ...]], ...]
    trees: tuple[str, ...]


class Residual(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="residual"):
    """Evidence that the samples ``members``, all that is not settled, have no other solution (S5)."""

    prime: Element
    point: Element
    members: tuple[Natural, ...]
    argument: QuadricArgument | LossVectorArgument | CoverArgument


class InputCover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="input_cover"):
    """Evidence that the samples that are not settled have no other place: (R^d)^r covered by boxes (R8).

    A tree per label multiset, in preorder: a digit cuts that axis; over an ``x`` some entry of the gradient
    is never what it has to be, over an ``m`` by a mean value form; a ``k`` holds one known order of the
    batch alone.
    """

    trees: tuple[str, ...]


Row = tuple[Natural, Natural, Natural]
"""An inequality of a cube: its sample, and two numbers that say which (docs/theory.md, CB14)."""


class Absurd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="absurd"):
    """A leaf: a positive combination of the inequalities ``rows`` and of the gradient's entries is absurd."""

    rows: tuple[Row, ...]


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="cut"):
    """Two parts: coordinate ``axis`` (sample times features plus feature) at most, and at least ``at``."""

    axis: Natural
    at: str


class EachLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="label"):
    """As many parts as the next sample without a label may have labels."""


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="told"):
    """The gradient tells the sum over the region of ``sample``, and that the samples there are the batch's
    own, or without biases a multiple of it (CB5).
    """

    sample: Natural


class Alone(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="alone"):
    """A leaf: one order of the batch lies in the box, and no other solution."""


class Definite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True, tag="definite"):
    """A leaf (mse): ``weights`` of the gradient's entries, one each, make a form of the displacement from the
    batch that is nowhere negative and has no linear part (CB7).
    """

    weights: tuple[str, ...]


class Cubes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cubes"):
    """Evidence that the samples that are not settled have no other place: all joint patterns that they can
    have are listed, and all their cubes refuted (docs/theory.md, CB14).

    ``patterns``: in preorder over the states of the neurons one after the other, off before on: the
    inequalities that contradict each other there, or None. ``cubes``: for every multiset of these patterns
    whose sums over regions reach the gradient, in order, a tree in preorder. ``spanned``: of the features
    only those are looked at that the others are affine functions of (CB11).
    """

    patterns: tuple[tuple[Natural, ...] | None, ...]
    cubes: tuple[tuple[Absurd | Cut | EachLabel | Told | Alone | Definite, ...], ...]
    spanned: bool = False


class Shear(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="shear"):
    """Evidence for AMBIGUOUS: a segment of batches ``x_m + t alpha_m direction`` over samples of one region
    (S2). The real coefficients alpha exist by counting; ``prime`` and ``point`` are the field and the point
    of 3.6 at which it is shown which of them are not always zero.
    """

    samples: tuple[Natural, ...]
    direction: SparseVector
    prime: Element
    point: Element


class Counting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="counting"):
    """Evidence for AMBIGUOUS: more dimensions of motion of ``samples`` than equations on them (S4).

    ``common``: only motions that the first layer does not see; else each sample's own. ``prime`` and
    ``point`` as for :class:`Shear`.
    """

    samples: tuple[Natural, ...]
    common: bool
    prime: Element
    point: Element


Step = Annotated[int, msgspec.Meta(ge=-(1 << 24), le=1 << 24)]
"""An entry of a motion, in a unit of its own."""


class Inwards(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A motion near which there is an exact one that leaves faces of the box inwards.

    ``motion`` has a row for each sample that moves and a number for each of ``features``; entries on a face
    that stay there are 0. ``layer``: whether the motions leave the values of the first layer alone or, of a
    narrow second one, only its values and its gradient.
    """

    layer: Literal[1, 2]
    features: tuple[Natural, ...]
    motion: tuple[tuple[Step, ...], ...]


class Unseen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="unseen"):
    """Evidence for AMBIGUOUS: motions of ``samples`` that the first layer does not see (narrow first layer).

    They form a set of ``dimension`` at least, without ``inwards`` a linear space of motions to both sides;
    ``prime`` and ``point`` as for :class:`Shear`.
    """

    samples: tuple[Natural, ...]
    dimension: Natural
    prime: Element
    point: Element
    inwards: Inwards | msgspec.UnsetType = msgspec.UNSET


class Projected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="projected"):
    """Evidence for AMBIGUOUS of a release with an input basis B: the first layer is ``V B^T``, so that inputs
    move along the kernel of B^T. The motions form a linear space of ``dimension`` at least.
    """

    dimension: Natural


class Averaged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="averaged"):
    """Evidence for AMBIGUOUS of a release of averages: members of a group move against one another. The
    batches with the same means form a set of ``dimension`` at least.
    """

    dimension: Natural


class Submersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="submersion"):
    """Evidence for AMBIGUOUS: what is sent has independent derivatives by the inputs of ``samples``, fewer
    than there are coordinates, so that batches with the same release are a manifold around the given one;
    ``prime`` and ``point`` as for :class:`Shear`.
    """

    samples: tuple[Natural, ...]
    prime: Element
    point: Element


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="tolerance"):
    """Evidence for UNIQUE up to a radius, under a tolerance (Appendix T): the batch that the claim is about.
    For UNREALISABLE the batch around which every other would lie, where none can be (T8).

    ``inputs`` (M, d) are exact: JSON carries the shortest decimal that names each float64. ``labels`` (M, K)
    are target vectors, one-hot for classes. ``parametrisation``: which next deltas are considered.
    """

    inputs: tuple[tuple[float, ...], ...]
    labels: tuple[tuple[Natural, ...], ...]
    parametrisation: Parametrisation


class EnclosedBatch(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="enclosed_batch"
):
    """Evidence for AMBIGUOUS: a second batch that is proved to exist inside a box (appendix C).

    ``inputs``: the middle of the box, d rationals per sample; the coordinates ``free`` (sample, feature)
    vary by ``radius``, the others are exact. ``labels``: per sample its target vector, or its class alone.
    """

    inputs: tuple[tuple[str, ...], ...]
    free: tuple[tuple[Natural, Natural], ...]
    radius: str
    labels: tuple[tuple[str, ...], ...]


class AlgebraicRoot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A root of an integer polynomial, constant term first, between two rationals where its sign changes."""

    polynomial: tuple[int, ...]
    low: str
    high: str


AlgebraicNumber = tuple[tuple[str, tuple[Natural, ...]], ...]
"""A sum of terms: a rational coefficient with the powers of the roots."""


class AlgebraicBatch(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="algebraic_batch"
):
    """A batch of real algebraic numbers (mse, hinge; appendix C): evidence for AMBIGUOUS where it is a second
    one; of a gradient alone the batch that it is the gradient of.

    ``labels``: per sample its target vector, or its class alone.
    """

    roots: tuple[AlgebraicRoot, ...]
    inputs: tuple[tuple[AlgebraicNumber, ...], ...]
    labels: tuple[tuple[AlgebraicNumber, ...], ...]


class Stages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stages"):
    """Evidence about a network of convolutions and a head (docs/theory.md, CV1): ``head`` shows that the
    features and labels of every sample are in every batch; the linear system of each stage, of so many
    ``unknowns``, first stage first, has no solution but zero. Without ``unknowns`` the claim ends at the
    features.
    """

    head: tuple[Lifting | DegreeThree | Apart, ...]
    unknowns: tuple[Natural, ...]


class StageMotions(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stage_motions"
):
    """Evidence for AMBIGUOUS of a network of convolutions: motions of the pictures that keep the values of
    stage ``stage`` (from 1) and the weight gradients up to it; a linear space of ``dimension`` at least
    (CV3). ``moving``: for each sample the pixels that move, where others are held still; none: all of them.
    """

    stage: Natural
    dimension: Natural
    moving: tuple[tuple[Natural, ...], ...] = ()


Evidence = (
    Tolerance
    | Scale
    | Twins
    | RankBound
    | Forced
    | Lifting
    | DegreeThree
    | Apart
    | Enumeration
    | ExtraRays
    | SecondBatch
    | EnclosedBatch
    | AlgebraicBatch
    | Residual
    | InputCover
    | Cubes
    | Shear
    | Counting
    | Unseen
    | Projected
    | Averaged
    | Submersion
    | Stages
    | StageMotions
)
"""Tagged records, one kind per argument; the kernel has one checker for each."""

THEORY: Mapping[type[Evidence], str] = {
    Tolerance: "Appendix T",
    Scale: "section 8; of a release M6",
    Twins: "section 8",
    RankBound: "6.5a; with a tolerance T9",
    Forced: "6.5a",
    Lifting: "C1, C2; labels 3.4",
    DegreeThree: "Appendix L3; labels 3.4",
    Apart: "P.2a",
    Enumeration: "3.3, Appendix E",
    ExtraRays: "E7 to E10",
    SecondBatch: "F1",
    EnclosedBatch: "CB9",
    AlgebraicBatch: "CB10",
    Residual: "S5, C4, Appendix R",
    InputCover: "R8",
    Cubes: "CB14",
    Shear: "S2, F3",
    Counting: "S4, F3'",
    Unseen: "section 4, narrow first layer",
    Projected: "M1",
    Averaged: "M4",
    Submersion: "M7",
    Stages: "CV1",
    StageMotions: "CV3",
}
"""Where docs/theory.md has the argument of each kind of evidence. Reasons do not name it: they are for people
who have not read it.
"""


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim with its evidence and the SHA-256 digests of what it was made for.

    ``evidence`` has one part per argument used; together they show the claim. When a gradient was given one
    of two is there: ``rebuild``, how the batch is rebuilt from it, or ``found``, the batch itself.
    """

    schema: Literal["exan/certificate/1"]
    producer: str
    created: str
    model_sha256: str
    batch_sha256: str | None = None
    gradient_sha256: str | None = None
    claim: Claim
    evidence: tuple[Evidence, ...]
    rebuild: Mixing | None = None
    found: AlgebraicBatch | msgspec.UnsetType = msgspec.UNSET
    statement: str


STATEMENT = (
    "The claim is about real arithmetic on the stored weights and inputs, "
    "not about an accelerator's rounded arithmetic."
)


def issue(
    *,
    claim: Claim,
    evidence: tuple[Evidence, ...],
    model_sha256: str,
    batch_sha256: str | None = None,
    gradient_sha256: str | None = None,
    rebuild: Mixing | None = None,
    found: AlgebraicBatch | None = None,
) -> dict[str, Any]:
    """A certificate as a JSON-able dict, dated now."""
    record = Certificate(
        schema=SCHEMA,
        producer=f"exan_verify {__version__}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model_sha256=model_sha256,
        batch_sha256=batch_sha256,
        gradient_sha256=gradient_sha256,
        claim=claim,
        evidence=evidence,
        rebuild=rebuild,
        found=msgspec.UNSET if found is None else found,
        statement=STATEMENT,
    )
    builtins: dict[str, Any] = msgspec.to_builtins(record)
    return builtins


MAX_DIGITS = 10_000
"""Decimal digits of an integer, a numerator or a denominator (the longest issued in the tests has 700)."""

_RATIONAL = re.compile(f"-?[0-9]{{1,{MAX_DIGITS}}}(/[0-9]{{1,{MAX_DIGITS}}})?")
_SHOWN = 300


def most_bytes(numbers: int) -> int:
    """The longest certificate that is read about a model and a batch or gradient of so many ``numbers``.

    Evidence is solutions of linear systems in these numbers, never more than a few for each of them: 64
    bytes for each is ample, and the mebibyte is for small networks, whose covers and algebraic numbers
    are long for their size (the longest issued in the tests has 130 kB). Memory and time of reading are in
    proportion to this, and so is every list that a checker goes through.
    """
    return (1 << 20) + 64 * numbers


def parse(certificate: Mapping[str, Any] | str | bytes, *, longest: int | None = None) -> Certificate:
    """Read a certificate from JSON or a dict; raises :class:`CertificateRejected` when it is not one.

    ``longest``: in bytes. No key may occur twice, no number may be NaN, infinite or of more than
    ``MAX_DIGITS`` digits.
    """
    try:
        if not isinstance(certificate, (str, bytes, Mapping)):
            raise CertificateRejected(
                f"a {type(certificate).__name__} is not a certificate; give JSON or a dict"
            )
        text = certificate if isinstance(certificate, (str, bytes)) else json.dumps(dict(certificate))
        if longest is not None and len(text) > longest:
            raise CertificateRejected(
                f"the certificate has {len(text)} bytes; one about these inputs has at most {longest}"
            )
        content = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
        record = msgspec.convert(content, type=Certificate)
    except RecursionError:
        raise CertificateRejected("this is not a certificate: it is nested too deeply") from None
    except (ValueError, TypeError) as error:  # msgspec's and json's errors, and bytes that are no text
        reason = str(error) if len(str(error)) <= _SHOWN else f"{str(error)[:_SHOWN]}..."
        raise CertificateRejected(f"this is not a certificate of schema {SCHEMA}: {reason}") from None
    if record.statement != STATEMENT:
        raise CertificateRejected("the certificate's statement is not the one that every certificate makes")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different: two readers must not read two claims."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    found = float(text)
    return found if isfinite(found) else _constant(text[:_SHOWN])


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no finite number")


def domain_record(domain: Box | None, features: int) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The box's bounds as exact rationals in text; scalars stay single entries."""
    if domain is None:
        return None
    domain.bounds(features)
    return (
        tuple(str(to_fraction(v)) for v in domain.lo),
        tuple(str(to_fraction(v)) for v in domain.hi),
    )


def domain_box(record: tuple[tuple[str, ...], tuple[str, ...]] | None) -> Box | None:
    """The box of :func:`domain_record`."""
    if record is None:
        return None
    lo, hi = ([rational(v) for v in bound] for bound in record)
    return Box(lo, hi)


def rational(text: str) -> Fraction:
    """A rational from certificate text, ``"7"`` or ``"-7/3"`` (no decimals, no exponents), of at most
    ``MAX_DIGITS`` digits above and below; raises :class:`CertificateRejected` when it is not one.
    """
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    if not _RATIONAL.fullmatch(text):
        raise CertificateRejected(f"the certificate has {shown!r} where a rational number belongs")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise CertificateRejected(f"the certificate has {shown!r} where a rational number belongs") from None
