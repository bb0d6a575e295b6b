"""How close a recovered batch comes to the true one: a one-to-one match of the samples, and its errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from exan_verify.errors import ShapeError

RECALL_RMSE = 1e-3
"""A sample counts as recovered below this root-mean-square error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Per sample of the true batch; None where nothing was recovered for it.

    ``match``: its position among the recovered samples; ``rmse``; ``psnr`` in dB, with the range of the true
    batch as peak (None also where the error is zero). ``recall``: share of the batch with an RMSE below
    1e-3; ``labels_right``: how many matched samples have the right label.
    """

    match: tuple[int | None, ...]
    rmse: tuple[float | None, ...]
    psnr: tuple[float | None, ...]
    recall: float
    labels_right: int


def score(found_x: Any, found_y: Any, x: Any, y: Any) -> Score:
    """Match recovered samples (M', d) and labels with the true (M, ...) so that the total RMSE is smallest.

    Raises :class:`ShapeError` when the two have different numbers of features.
    """
    from scipy.optimize import linear_sum_assignment

    truth, rebuilt = _rows(x), _rows(found_x)
    if truth.shape[1] != rebuilt.shape[1]:
        raise ShapeError(
            f"the true x has {truth.shape[1]} features per sample, the recovered {rebuilt.shape[1]}; "
            "give the batch that the gradient belongs to"
        )
    distance = np.stack([np.sqrt(((rebuilt - row) ** 2).mean(axis=1)) for row in truth])
    rows, columns = linear_sum_assignment(distance)
    match: list[int | None] = [None] * len(truth)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        match[row] = column
    rmse = tuple(None if k is None else float(distance[m, k]) for m, k in enumerate(match))
    peak = float(truth.max() - truth.min()) or 1.0
    return Score(
        match=tuple(match),
        rmse=rmse,
        psnr=tuple(20 * math.log10(peak / error) if error else None for error in rmse),
        recall=sum(error is not None and error < RECALL_RMSE for error in rmse) / len(truth),
        labels_right=_labels_right(match, _labels(found_y), _labels(y)),
    )


def _rows(values: Any) -> npt.NDArray[np.float64]:
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    array = np.asarray(array, dtype=np.float64)
    return array.reshape(len(array), -1) if len(array) else array


def _labels(values: Any) -> npt.NDArray[np.float64]:
    """Classes (M,), or the classes of one-hot targets (M, K), so that both forms can be compared."""
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else values
    array = np.asarray(array, dtype=np.float64)
    one_hot = array.ndim == 2 and array.shape[1] > 1 and np.all((array == 0) | (array == 1))
    return array.argmax(axis=1).astype(np.float64) if one_hot else array


def _labels_right(
    match: Sequence[int | None], found: npt.NDArray[np.float64], true: npt.NDArray[np.float64]
) -> int:
    pairs = [(found[k], true[m]) for m, k in enumerate(match) if k is not None]
    return sum(np.shape(a) == np.shape(b) and np.allclose(a, b, atol=1e-6) for a, b in pairs)
