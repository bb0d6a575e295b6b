"""The batch that ``exan attack`` is scored against: read, and held against the model, before the attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.network import Array
from exan_verify.errors import InputError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

    from exan_verify.core.question import Release
    from exan_verify.numeric.problem.metrics import Score
    from exan_verify.numeric.problem.records import Attack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The true batch: its file, inputs (M, ...) and labels (M,) or (M, K); ``basis`` B (d, r) where the
    attack finds B^T x only."""

    path: str
    x: Array
    y: Array
    basis: Array | None = None

    @property
    def seen(self) -> Array:
        """The inputs as the attack finds them, (M, ...); the batch may have the B^T x already."""
        flat = self.x.reshape(len(self.x), -1)
        if self.basis is None or flat.shape[1] != len(self.basis):
            return self.x
        return np.asarray(flat, dtype=np.float64) @ self.basis

    def shown(self, found: Tensor) -> Tensor:
        """Samples that were found, (M, d) or (M, r), as pictures (M, d): of B^T x the shortest input."""
        if self.seen is self.x or self.basis is None:
            return found
        return found @ found.new_tensor(np.linalg.pinv(self.basis))

    def check_drawable(self) -> None:
        """Raise :class:`ShapeError` naming the file when it holds no pictures that a sheet can show."""
        from exan_verify.api.files import about
        from exan_verify.report.sheets import require_pictures

        with about(self.path):
            require_pictures(self.x.shape)

    def check_fits(self, model: Any, input_shape: tuple[int, ...] | None) -> None:
        """Raise :class:`ShapeError` naming the file when samples or labels are not the model's."""
        features, classes = _sizes(model, input_shape)
        given = math.prod(self.x.shape[1:])
        if given != features and (self.basis is None or given != len(self.basis)):
            raise ShapeError(
                f"{self.path}: x has {given} features per sample, the model takes {features}; pass its batch"
            )
        if self.y.ndim > 1 and self.y.shape[1:] != (classes,):
            raise ShapeError(
                f"{self.path}: y has shape {self.y.shape}; give classes ({len(self.y)},), or targets "
                f"({len(self.y)}, {classes}) for the model's {classes} outputs"
            )

    def score(self, found: Attack) -> Score:
        """The samples found against the true ones."""
        from exan_verify.api.attack_own_batch import scores
        from exan_verify.api.files import ABOUT_DATA, about

        with about(self.path, *ABOUT_DATA):
            return scores(found.x, found.y, self.seen, self.y)

    def score_candidates(self, found: Attack) -> Score:
        """The candidates against the true samples."""
        from exan_verify.api.attack_own_batch import scores
        from exan_verify.api.files import ABOUT_DATA, about

        x, y, _ = found.stacked_candidates()
        with about(self.path, *ABOUT_DATA):
            return scores(x, y, self.seen, self.y)


def load_truth(path: str, release: Release | None = None) -> Truth:
    """The batch in a file, which the attack finds as a ``release`` shows it: of averages the means. Raises
    what :func:`exan_verify.api.files.load_batch` raises, and :class:`InputError` for groups that do not fit.
    """
    from exan_verify.api.files import load_batch

    x, y = load_batch(path)
    if release is not None and release.averages is not None:
        last = max(m for group in release.averages for m in group)
        if last >= len(x):
            raise InputError(f"{path}: has {len(x)} samples, and release.averages names sample {last}")
        x = np.stack([x[list(group)].mean(axis=0) for group in release.averages])
        y = y[[group[0] for group in release.averages]]
    basis = None if release is None else release.input_basis
    return Truth(path=path, x=x, y=y, basis=None if basis is None else np.asarray(basis, dtype=np.float64))


def _sizes(model: Any, input_shape: tuple[int, ...] | None) -> tuple[int, int]:
    """How many numbers a sample has, and how many outputs the model."""
    from exan_verify.api.attack import with_convolutions
    from exan_verify.models.chain import to_any_network

    if with_convolutions(model):
        from exan_verify.models.pictures.graph import to_convolutional

        network = to_convolutional(model, input_shape)
        return math.prod(network.input_shape), network.head.classes
    widths = to_any_network(model).widths
    return widths[0], widths[-1]
