"""What a method hands over, and what an attack returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Loss, Release
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.spectrum import ColumnSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSummary:
    """How a hidden layer looked to the method: ``index`` counts from 1.

    ``rank`` of [dW | db] and its singular-value gap; ``equations`` (live neurons), ``unknowns`` U;
    ``null_dimension`` and ``null_gap`` = sigma_{U-D} / sigma_{U-D+1} of the lifted equations, with
    ``null_smallest`` = sigma_{U-D} / sigma_1; the last three are None where the layer was not lifted.
    """

    index: int
    rank: int
    rank_gap: float
    equations: int
    unknowns: int
    null_dimension: int | None = None
    null_gap: float | None = None
    null_smallest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finding:
    """Candidates of one method, not yet confirmed.

    ``x`` (m, d). ``rest`` (n_1, r): unit first-layer delta directions that span what is not separated into
    samples, with the sine ``rest_sine`` that isolates their span. ``layer``: hidden layer used (from 1).
    ``reason`` says what kept the method from the whole batch, empty when nothing did. ``literal``: the
    candidates are judged as handed over, and none is claimed that refinement has to move. ``guessed_rows``:
    ``rest`` was computed with inputs from rows that were taken for exclusive. ``scale_error``: relative error
    of the samples' scales where these do not come from the layer's own bias gradient. ``y``: the labels
    that the method found the candidates with, where it had to know them, ``errors`` (m,) the relative
    rounding of their x, and ``size`` the batch size that goes with the labels. ``final``: what other methods
    search does not hold the samples that are missing.
    """

    method: str
    x: Tensor
    rest: Tensor
    rest_sine: float
    layer: int | None
    layers: tuple[LayerSummary, ...]
    reason: str
    literal: bool = False
    guessed_rows: bool = False
    scale_error: float = 0.0
    y: Tensor | None = None
    errors: Tensor | None = None
    size: int | None = None
    final: bool = False

    @property
    def whole(self) -> bool:
        """Whether every sample that the first layer's gradient shows is separated."""
        return self.rest.shape[1] == 0 and self.x.shape[0] > 0


class Method(Protocol):
    """A way to find candidates; confirming them is the same for all methods."""

    @property
    def name(self) -> str:
        """The name under which users ask for it."""
        ...

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """Candidates from the problem and the column spaces of its layers."""
        ...


class Tier(StrEnum):
    """How much is known of a sample that was found.

    ``confirmed``: every batch of the stated size whose gradient is as near to the given one as its noise
    allows has this sample within its bound, shown in floating point with margins; where ``Evidence.presumes``
    says so, as noise that is independent from entry to entry allows. ``consistent``: every
    equation of its own neurons holds to the gradient's accuracy, with an error estimate; no other batch is
    excluded. What fits less is a :class:`Candidate`.
    """

    CONFIRMED = "confirmed"
    CONSISTENT = "consistent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why a sample that was found counts as found.

    ``tier``, and for a consistent sample in ``unconfirmed`` what keeps it from being confirmed.
    ``error_bound``: absolute, L-infinity, on its row of x; of a consistent sample an estimate, which presumes
    that the batch is the one it was found in. ``residual``: sine between its first-layer delta
    and the column space of the gradient; ``isolation``: the second such sine, which keeps it apart from every
    other solution. ``label_residual``: relative distance between the delta that the label and the forward
    pass give and the recovered one; ``label_margin``: how many times worse the next label is.
    ``error_norm``: the row's error in L2, infinite where nothing better than ``error_bound`` is known.
    ``weight``: the factor of its loss, where samples have unknown ones. ``presumes``: what the tier takes for
    granted of the gradient's noise, beside its size.
    """

    method: str
    layer: int | None
    error_bound: float
    residual: float
    isolation: float
    label_residual: float
    label_margin: float
    error_norm: float = math.inf
    weight: float = 1.0
    tier: Tier = Tier.CONSISTENT
    unconfirmed: str = ""
    presumes: str = field(default="", metadata={"since": "0.2.0"})


def divided_loss_vectors(
    problem: Problem,
    logits: Float[Tensor, "m K"],
    labels: Tensor,
    status: Sequence[Evidence],
    *,
    scale: float,
    batch_size: int,
) -> Float[Tensor, "m K"] | None:
    """What samples found with ``labels`` add to the last layer's bias gradient, each at its own weight.

    None for weighted bce of several logits, whose entries have factors that no label gives.
    """
    if problem.weighted and problem.question.loss is Loss.BCE and problem.classes > 1:
        return None
    weights = logits.new_tensor([one.weight for one in status])[:, None]
    divisor = replace(problem, scale=scale).divisor(batch_size)
    return problem.loss_vectors(logits, labels) * weights / divisor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """What explains part of its equations only.

    ``x`` (d,); ``label`` (a class, or targets (K,)) or None where none fits, or none is told from the others;
    ``error_estimate``, L-infinity, may be infinite; ``reason``: what does not fit.
    """

    x: Tensor
    label: Tensor | None
    error_estimate: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HiddenFeatures:
    """What hidden layer ``layer`` (from 1) gave for some samples, where the gradient shows no more.

    ``values`` (m, n) with ``labels`` and one :class:`Evidence` each in ``status``, whose ``error_bound`` is
    on the row of ``values``; ``candidates``: rows (n,) that fit less.
    """

    layer: int
    values: Tensor
    labels: Tensor
    status: tuple[Evidence, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Centred:
    """Samples less the mean of their batch, where BatchNorm used the statistics of the batch.

    ``values`` (m, d) with ``labels`` and one :class:`Evidence` each in ``status``, whose ``error_bound`` is
    on the row of ``values``; ``mean`` (d,): that of the batch in the row space of W_1, whose dimension is
    ``mean_rank``; what is hidden from W_1 is zero in it.
    """

    values: Tensor
    labels: Tensor
    status: tuple[Evidence, ...]
    mean: Tensor
    mean_rank: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LastLayer:
    """What the gradient of the last Linear layer determines on its own: dW = Delta H.

    ``rank``: that of [dW | db], a lower bound on the samples; ``loss_span`` (K, rank) an orthonormal basis of
    the space of the loss vectors, ``feature_span`` (rank, n + 1) one of the features with 1 appended, both
    known only up to one invertible mixing of the samples. ``present``: classes that certainly occur
    (cross_entropy with features that are not negative); absence of others is not claimed.
    """

    rank: int
    loss_span: Tensor
    feature_span: Tensor
    present: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attack:
    """The outcome of an attack.

    ``x`` (M', d) and ``y``, classes (M',) for cross_entropy and hinge or targets (M', K) for mse and bce: the
    samples that are confirmed or consistent, ``status`` one :class:`Evidence` each, with its tier.
    ``candidates``: what fits less, with what does not fit. ``gradient_residual``: relative Frobenius distance
    between the gradient of all samples found and the given one (1.0: none). ``complete``: all samples
    of the batch are confirmed or consistent, and together they reproduce the whole gradient. ``batch_size``
    used and its source (``given``, ``rank`` of the gradient, or ``loss scale``). ``scale``: the gradient is
    so many times the batch's, as told or as found. ``reason``: one sentence, empty when complete. ``layer``
    (from 1) and ``layers``: the ranks and gaps it rests on. ``hint``: where nothing is found, which other
    loss, reduction or batch size to try, or what the gradient looks like; a guess.
    ``missing``: names of the gradient's tensors that were not given; samples are compared with the
    others, and ``gradient_residual`` speaks of these. ``hidden``: where the first layers' gradients are
    missing, the features that were found; of these samples only those in ``x`` have a determined input.
    ``last_layer``: where only the last layer's gradient could be used. ``unfinished``: a budget ended it
    before all methods were done; what was found until then is here. ``architecture``: what the model was
    taken for, in words. ``notes``: what was done to the model and the gradient, before they were used or to
    make them fit, a line each. ``local_batch`` (M',): which mini-batch, from 0, each sample of ``x`` was in,
    where an update of local steps over several was attacked. ``release``: what of the gradient was used;
    None: all of it. With an input basis B, ``x`` are the samples' B^T x. ``centred``: where BatchNorm used
    the statistics of the batch, what its gradient says whatever the mean is.
    """

    x: Tensor
    y: Tensor
    status: tuple[Evidence, ...]
    gradient_residual: float
    complete: bool
    batch_size: int
    batch_size_source: str
    method: str
    layer: int | None
    layers: tuple[LayerSummary, ...]
    candidates: tuple[Candidate, ...]
    reason: str
    seconds: float
    hint: str = ""
    missing: tuple[str, ...] = ()
    hidden: HiddenFeatures | None = None
    last_layer: LastLayer | None = None
    unfinished: bool = False
    architecture: str = ""
    notes: tuple[str, ...] = ()
    scale: float = 1.0
    release: Release | None = None
    local_batch: tuple[int, ...] = ()
    centred: Centred | None = None

    def count(self, tier: Tier | str) -> int:
        """How many of the samples found are of ``tier``, by name."""
        return sum(one.tier == tier for one in self.status)

    def stacked_candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates' inputs (c, ...), labels like ``y`` with -1 (NaN in targets) where none fits, and
        error estimates (c,)."""
        nowhere = self.y.new_full(self.y.shape[1:], -1 if self.y.dim() == 1 else torch.nan)
        labels = [nowhere if one.label is None else one.label.to(self.y) for one in self.candidates]
        return (
            torch.stack([one.x for one in self.candidates]) if self.candidates else self.x[:0],
            torch.stack(labels) if labels else self.y[:0],
            torch.tensor([one.error_estimate for one in self.candidates], dtype=torch.float64),
        )
