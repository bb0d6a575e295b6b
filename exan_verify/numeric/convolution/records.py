"""What an attack on a network with convolutions returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from exan_verify.numeric.convolution.known import Known
from exan_verify.numeric.problem.records import Attack, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """One stage of the body, as an inverse problem from above: is what it takes determined by what it gives?

    ``unknowns``: entries of the values it takes, over all samples. ``equations``: its known output entries;
    ``shared``: equations of its weight gradient, which all samples share. ``alone``: rank deficit without the
    shared ones; ``deficit``: with them, the dimension that stays open; None where it was not computed, then
    ``note`` says why. ``at_least`` marks a deficit known from counting only.
    """

    path: str
    kind: str
    unknowns: int
    equations: int = 0
    shared: int = 0
    alone: int | None = None
    deficit: int | None = None
    at_least: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageAttack(Attack):
    """An attack on pictures. ``x`` (M', C, H, W) are those it stands behind; ``complete``: the whole batch.

    ``features`` (m, n) with ``feature_labels`` and ``feature_status``: what the head was given, sample by
    sample, with error bounds; ``features_complete``: of the whole batch; ``known``: with their deltas.
    ``stages``: every stage of the body, first to last. ``estimates`` (m, C, H, W): pictures fitted to the
    features where the equations leave them open; nothing is claimed about them.
    """

    features: Tensor
    feature_labels: Tensor
    feature_status: tuple[Evidence, ...]
    features_complete: bool
    stages: tuple[StageReport, ...]
    known: Known | None = field(default=None, repr=False)
    estimates: Tensor | None = field(default=None)
