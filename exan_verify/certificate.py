"""Certificates: what a claim says and all that a checker needs besides model and batch or gradient.

A certificate is plain JSON. The records here are shared by the engines, which write them, and the kernel,
which reads them; they contain no mathematics. A given batch is never embedded: certificates travel, private
data does not. (A batch found from a rounded gradient is: the claim is about it.)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal

import msgspec

import exan_verify
from exan_verify.errors import CertificateRejected
from exan_verify.network import Labels, Loss, Reduction, to_fraction
from exan_verify.verdict import Box, Outcome, SampleStatus

SCHEMA: Literal["exan/certificate/1"] = "exan/certificate/1"

Parametrisation = Literal["zero_sum", "full", "column_space", "row_space", "single"]
LabelArgument = Literal["loss_vectors", "output_rank", "backward_map"]


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Among which batches the claim speaks (docs/theory.md section 1).

    ``tolerance``: gradients count that differ by at most this (a rational in text) in every entry.
    """

    entrance: Literal["batch", "gradient"]
    loss: Loss
    reduction: Reduction
    labels: Labels
    batch_size: int
    domain: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    tolerance: str | None = None


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is claimed: the outcome, and per sample of the batch whether it is determined.

    With a tolerance: ``radius`` has, for each sample of the evidence's batch, how far (L-infinity, at most)
    its counterpart in any batch asked about is; ``realised`` says whether that batch is one of them.
    """

    question: Question
    outcome: Outcome
    samples: tuple[SampleStatus, ...]
    radius: tuple[float, ...] | None = None
    realised: bool | None = None


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group that shares the pattern of the layer below, split at ``layer`` (C2, 6.4).

    ``unknowns`` and ``rank`` are those of the system restricted to ``members``; ``groups`` are the members
    that share the pattern of ``layer``.
    """

    layer: int
    members: tuple[int, ...]
    parametrisation: Parametrisation
    unknowns: int
    rank: int
    groups: tuple[tuple[int, ...], ...]


class Conclusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What follows once every candidate (q, u) at hidden layer ``layer`` is in the span of one group.

    ``layer`` is 1-based; ``groups`` partition the samples; ``splits`` how groups were split at the layers
    above, from below upwards; ``determined`` the samples (x_m, y_m) that this layer settles; ``labels`` the
    argument used for their labels (3.4).
    """

    layer: int
    parametrisation: Parametrisation
    groups: tuple[tuple[int, ...], ...]
    splits: tuple[Split, ...] = ()
    lower_ranks: tuple[int, ...]
    determined: tuple[int, ...]
    labels: LabelArgument


class LayerArgument(Conclusion, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lifting at one hidden layer (C1, C2): ``unknowns`` is U, ``rank`` the rank of R over F_p."""

    unknowns: int
    rank: int


class Mixing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gradient given: how to rebuild the batch. ``Delta_layer = A[:, columns] @ matrix`` (3.5)."""

    layer: int
    columns: tuple[int, ...]
    matrix: tuple[tuple[str, ...], ...]


class Lifting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="lifting"):
    """Evidence of the lifting engine: the field and point of 3.6, and one argument per layer used."""

    prime: int
    point: int
    layers: tuple[LayerArgument, ...]


class DegreeThree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="degree_three"):
    """Evidence of lifting of degree three: ``argument.unknowns`` is V, ``argument.rank`` that of R3.

    ``neurons``: how many of the layer's neurons with a non-zero delta were used, in their order.
    """

    prime: int
    point: int
    neurons: int
    argument: LayerArgument


class RankBound(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="rank_bound"):
    """Evidence for UNREALISABLE: rank [dW_layer | db_layer] >= ``rank``, more than the batch size (3.1).

    ``point`` is t of 3.6 when a batch was given (another size is asked about), else 0.
    """

    prime: int
    layer: int
    rank: int
    point: int = 0


class Forced(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="forced"):
    """Evidence for UNREALISABLE: lifting at ``layer`` forces a batch, and a step contradicts it (3.5).

    Row m of ``following`` is u_m and column m of ``matrix`` is p_m: with ``C = A[:, columns]`` every batch
    has ``Delta = C P`` with the p_m as the columns of P up to order and scale. Both are empty when null(R)
    has fewer than M dimensions.
    """

    layer: int
    columns: tuple[int, ...]
    matrix: tuple[tuple[str, ...], ...]
    following: tuple[tuple[str, ...], ...]


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="scale"):
    """No biases: lifting at ``layer`` leaves each group of one a positive scale, and no other scale fits.

    Fields as in :class:`LayerArgument` and :class:`Lifting`; ``determined`` samples have no twin (3.5).
    """

    prime: int
    point: int
    layer: int
    parametrisation: Parametrisation
    unknowns: int
    rank: int
    groups: tuple[tuple[int, ...], ...]
    lower_ranks: tuple[int, ...]
    determined: tuple[int, ...]


class Twin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sample ``sample`` scaled by a c in [``low``, ``high``] has the same gradient contributions (no biases).

    ``target``: the twin's label where it differs (mse).
    """

    sample: int
    low: str
    high: str
    target: tuple[str, ...] | None = None


class Twins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="twins"):
    """Evidence for AMBIGUOUS without biases: each twin alone gives a second batch."""

    twins: tuple[Twin, ...]


class Enumeration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="enumeration"):
    """Evidence of the enumeration engine: the order in which the layer's neurons are taken.

    The subspaces are not recorded: the kernel searches again. ``conclusion.groups``: leaves of the search
    that share samples, joined.
    """

    prime: int
    point: int
    order: tuple[int, ...]
    conclusion: Conclusion


class ExtraRays(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="extra_rays"):
    """Solutions of a layer's equations that are no true samples give no other batch (Appendix E, E7 to E10).

    Neither the solutions nor their choices are recorded: the kernel searches again, over Q when ``exact``
    (mse, hinge), else mod p.
    """

    prime: int
    point: int
    exact: bool
    conclusion: Conclusion


SparseVector = tuple[tuple[int, str], ...]
"""``(index, rational)`` pairs; entries that are not named are zero."""


class Move(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sample of a second batch, relative to the given one.

    ``x'_sample = sum_k mix[k] x_k + sum_i steps[i] directions[i]``. ``label`` is another class
    (cross_entropy, hinge); ``target`` is added to the sample's target vector (mse, bce).
    """

    sample: int
    mix: SparseVector
    steps: SparseVector = ()
    label: int | None = None
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

    degree: int
    others: tuple[tuple[tuple[str, ...], ...], ...] = ()


class QuadricArgument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="quadrics"):
    """mse: one case per label multiset that the linear equations allow, in the order of the multisets."""

    cases: tuple[LabelCase, ...]


class LossVectorArgument(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="loss_vectors"
):
    """hinge: loss vectors are finitely many; ``selections`` of them have the rest's sum and span."""

    selections: int


class CoverArgument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="cover"):
    """cross_entropy, bce: Q-space covered by boxes, a tree per label (membership) or label multiset (joint).

    ``bounds``: per coordinate, the constraints that prove its lower and upper bound. A tree in preorder: a
    digit cuts that axis in the middle, ``x`` is a box without a zero, ``k`` one with a single known zero.
    """

    kind: Literal["membership", "joint"]
    bounds: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    trees: tuple[str, ...]


class Residual(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="residual"):
    """Evidence that the samples ``members``, all that is not settled, have no other solution (S5)."""

    prime: int
    point: int
    members: tuple[int, ...]
    argument: QuadricArgument | LossVectorArgument | CoverArgument


class Shear(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="shear"):
    """Evidence for AMBIGUOUS: a segment of batches ``x_m + t alpha_m direction`` over samples of one region
    (S2). The real coefficients alpha exist by counting; ``prime`` and ``point`` are the field and the point
    of 3.6 at which it is shown which of them are not always zero.
    """

    samples: tuple[int, ...]
    direction: SparseVector
    prime: int
    point: int


class Counting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="counting"):
    """Evidence for AMBIGUOUS: more dimensions of motion of ``samples`` than equations on them (S4).

    ``common``: only motions that the first layer does not see; else each sample's own. ``prime`` and
    ``point`` as for :class:`Shear`.
    """

    samples: tuple[int, ...]
    common: bool
    prime: int
    point: int


class Tolerance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="tolerance"):
    """Evidence for UNIQUE up to a radius, under a tolerance (Appendix T): the batch that the claim is about.

    ``inputs`` (M, d) are exact: JSON carries the shortest decimal that names each float64. ``labels`` (M, K)
    are target vectors, one-hot for classes. ``parametrisation``: which next deltas are considered.
    """

    inputs: tuple[tuple[float, ...], ...]
    labels: tuple[tuple[int, ...], ...]
    parametrisation: Parametrisation


class EnclosedBatch(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="enclosed_batch"
):
    """Evidence for AMBIGUOUS: a second batch that is proved to exist inside a box (appendix C).

    ``inputs``: the middle of the box, d rationals per sample; the coordinates ``free`` (sample, feature)
    vary by ``radius``, the others are exact. ``labels``: per sample its target vector, or its class alone.
    """

    inputs: tuple[tuple[str, ...], ...]
    free: tuple[tuple[int, int], ...]
    radius: str
    labels: tuple[tuple[str, ...], ...]


class AlgebraicRoot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A root of an integer polynomial, constant term first, between two rationals where its sign changes."""

    polynomial: tuple[int, ...]
    low: str
    high: str


AlgebraicNumber = tuple[tuple[str, tuple[int, ...]], ...]
"""A sum of terms: a rational coefficient with the powers of the roots."""


class AlgebraicBatch(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="algebraic_batch"
):
    """Evidence for AMBIGUOUS (mse, hinge): a second batch of real algebraic numbers (appendix C).

    ``labels``: per sample its target vector, or its class alone.
    """

    roots: tuple[AlgebraicRoot, ...]
    inputs: tuple[tuple[AlgebraicNumber, ...], ...]
    labels: tuple[tuple[AlgebraicNumber, ...], ...]


Evidence = (
    Tolerance
    | Scale
    | Twins
    | RankBound
    | Forced
    | Lifting
    | DegreeThree
    | Enumeration
    | ExtraRays
    | SecondBatch
    | EnclosedBatch
    | AlgebraicBatch
    | Residual
    | Shear
    | Counting
)
"""Tagged records, one kind per argument; the kernel has one checker for each."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A claim with its evidence and the SHA-256 digests of what it was made for.

    ``evidence`` has one part per argument used; together they show the claim. ``rebuild`` is there when a
    gradient was given: how the batch is rebuilt from it.
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
) -> dict[str, Any]:
    """A certificate as a JSON-able dict, dated now."""
    record = Certificate(
        schema=SCHEMA,
        producer=f"exan_verify {exan_verify.__version__}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model_sha256=model_sha256,
        batch_sha256=batch_sha256,
        gradient_sha256=gradient_sha256,
        claim=claim,
        evidence=evidence,
        rebuild=rebuild,
        statement=STATEMENT,
    )
    builtins: dict[str, Any] = msgspec.to_builtins(record)
    return builtins


def parse(certificate: Mapping[str, Any] | str | bytes) -> Certificate:
    """Read a certificate from JSON or a dict; raises :class:`CertificateRejected` when it is not one."""
    try:
        if isinstance(certificate, (str, bytes)):
            return msgspec.json.decode(certificate, type=Certificate)
        if not isinstance(certificate, Mapping):
            raise CertificateRejected(
                f"a {type(certificate).__name__} is no certificate; give JSON or a dict"
            )
        return msgspec.convert(dict(certificate), type=Certificate)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CertificateRejected(f"this is not a certificate of schema {SCHEMA}: {error}") from None


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
    """A rational from certificate text; raises :class:`CertificateRejected` when it is not one."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise CertificateRejected(f"the certificate has {text!r} where a rational number belongs") from None
