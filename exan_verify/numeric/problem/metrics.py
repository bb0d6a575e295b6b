"""How good a recovery is, when the truth is known: matching, RMSE, PSNR, labels, recall, wrong claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from exan_verify.errors import InputError, ShapeError

RECOVERED_RMSE = 1e-3
"""A true sample counts as recovered when its match has a root-mean-square error below this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleScore:
    """Recovered sample ``index`` against the true sample ``truth`` that it is matched to.

    ``rmse`` root-mean-square error, ``largest`` L-infinity error, ``psnr`` in dB (infinite when exact),
    ``label`` whether the label agrees (targets to 1e-3).
    """

    index: int
    truth: int
    rmse: float
    largest: float
    psnr: float
    label: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Scores of a whole recovery: per matched sample, the share of the true batch recovered (RMSE below
    :data:`RECOVERED_RMSE`) and the share of matched samples with the right label (1.0 when none)."""

    samples: tuple[SampleScore, ...]
    recall: float
    label_accuracy: float


def score(x: Tensor, y: Tensor, true_x: Tensor, true_y: Tensor, *, data_range: float = 1.0) -> Score:
    """Match recovered samples ``x`` (m, ...), ``y`` to the true ones (M, ...) and score them.

    The matching minimises the sum of RMSEs; each true sample is matched at most once. ``data_range`` is the
    span of the data for the PSNR (1.0 for pixels in [0, 1]). Classes may be compared with one-hot targets,
    on either side.

    Raises :class:`ShapeError` when the samples have different numbers of features, :class:`InputError` for a
    ``data_range`` that is not positive.
    """
    if not data_range > 0:
        raise InputError(
            f"data_range={data_range} is not positive; give the span of the data, 1.0 for pixels in [0, 1]"
        )
    found, truth = x.double().flatten(1).cpu(), true_x.double().flatten(1).cpu()
    if found.shape[1] != truth.shape[1]:
        raise ShapeError(
            f"recovered samples have {found.shape[1]} features, true ones {truth.shape[1]}; pass the same"
        )
    cost = (
        torch.stack([(row - truth).square().mean(dim=1).sqrt() for row in found])
        if len(found)
        else found[:, :0]
    )
    rows, columns = linear_sum_assignment(cost.numpy()) if len(found) else ((), ())
    samples = tuple(
        SampleScore(
            index=int(i),
            truth=int(j),
            rmse=float(cost[i, j]),
            largest=float((found[i] - truth[j]).abs().max()),
            psnr=_psnr(float(cost[i, j]), data_range),
            label=_same_label(y[i], true_y[j]),
        )
        for i, j in zip(rows, columns, strict=True)
    )
    return Score(
        samples=samples,
        recall=sum(s.rmse < RECOVERED_RMSE for s in samples) / max(len(truth), 1),
        label_accuracy=sum(s.label for s in samples) / len(samples) if samples else 1.0,
    )


def wrong_claims(x: Tensor, y: Tensor, bounds: Sequence[float] | None, true_x: Tensor, true_y: Tensor) -> int:
    """How many claimed samples ``x`` (m, ...), ``y`` are not the ones of the batch that they are matched to.

    Wrong is what is further off (L-infinity) than its bound in ``bounds``, what has the wrong label, and what
    is claimed beyond the samples there are. Without ``bounds`` an RMSE of :data:`RECOVERED_RMSE` is wrong.
    """
    matched = score(x, y, true_x, true_y).samples
    if bounds is None:
        right = [s for s in matched if s.label and s.rmse < RECOVERED_RMSE]
    else:
        right = [s for s in matched if s.label and s.largest <= bounds[s.index]]
    return len(x) - len(right)


def _psnr(rmse: float, data_range: float) -> float:
    if rmse == 0:
        return float("inf")
    return float(20 * torch.log10(torch.tensor(data_range / rmse, dtype=torch.float64)))


def _same_label(found: Tensor, truth: Tensor) -> bool:
    found, truth = found.detach().cpu().double(), truth.detach().cpu().double()
    classes = max(found.numel(), truth.numel())
    if found.dim() != truth.dim() and classes > 1:
        found, truth = _target(found, classes), _target(truth, classes)
    if found.numel() != truth.numel():
        return False
    return bool(torch.allclose(found.flatten(), truth.flatten(), rtol=0, atol=1e-3))


def _target(label: Tensor, classes: int) -> Tensor:
    """A class as its one-hot target of ``classes`` entries; targets as they are."""
    return label if label.dim() else (torch.arange(classes) == label).double()
