"""What is defended, and what leaves the device under a defence: the two records that everything here
shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exan_verify.core.arrays import exact_array, fractions
from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Question, Release
from exan_verify.errors import InputError, NonFiniteError, ShapeError, short

if TYPE_CHECKING:
    from torch import Tensor

    from exan_verify.mitigation.projection import Basis

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A network, the batch of M samples whose gradient leaks, and what a defence may use.

    ``pool``: more samples of the same client, inputs (P, d) and labels, without those of the batch; None
    where none are given. ``public``: samples (P', d) that everyone may have, never the batch; None where
    there are none. ``seed`` of everything that is drawn.
    """

    network: ReluNetwork
    batch: Batch
    question: Question
    pool: tuple[Floats, Array] | None = None
    public: Floats | None = None
    seed: int = 0

    @property
    def x(self) -> Floats:
        """The inputs (M, d) in floating point."""
        return np.asarray(self.batch.inputs, dtype=np.float64)

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """One class per sample (M,), of target vectors the largest entry."""
        return as_classes(self.batch.labels)

    def with_inputs(self, x: Any, y: Any, *, network: ReluNetwork | None = None) -> Batch:
        """A batch of other samples under the same question, in this network or another."""
        asked = self.question
        return Batch.of(x, y, network=network or self.network, loss=asked.loss, labels=asked.labels)

    def rng(self, purpose: int) -> np.random.Generator:
        """A generator of its own for each purpose, so that one defence's draws move no other's."""
        return np.random.default_rng((self.seed, purpose))

    def require_pool(self, defence: str, least: int) -> tuple[Floats, Array]:
        """The pool, inputs (P, d) and labels. Raises :class:`InputError` below ``least`` samples."""
        if self.pool is None:
            raise InputError(
                f"defence {defence!r} needs more samples of the same client; give pool=(x, y) (--pool FILE)"
            )
        if len(self.pool[0]) < least:
            raise InputError(
                f"the pool has {len(self.pool[0])} samples besides the batch, and {defence!r} needs {least}; "
                "give a larger pool"
            )
        return self.pool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Averages:
    """Inputs enter as means of ``size`` samples: row g of the step's batch is the mean of ``members[g]``,
    inputs (size, d). ``places[m]``: which of all members, counted group by group, sample m of the subjects
    is."""

    size: int
    members: Floats
    places: tuple[int, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """The row of the step's batch that each subject went into."""
        return tuple(place // self.size for place in self.places)

    @property
    def groups(self) -> list[list[int]]:
        """The members of each mean, counted group by group: what a release of means names."""
        return np.arange(len(self.members) * self.size).reshape(-1, self.size).tolist()

    @property
    def means(self) -> Array:
        """What enters the step (G, d), exactly: float64 where that holds the values, else Fractions."""
        return exact_array(fractions(self.members).sum(axis=1) / self.size, "the means")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Released:
    """What a defence lets out, and of whom.

    ``network`` and ``batch`` are those of the training step: its gradient is what a release is made of.
    ``sent``: tensors by parameter name, float64, entries that are not sent zero; ``kept``: masks of the sent
    entries, for tensors that are sent in part; a tensor that is missing in ``sent`` is not sent.
    ``subjects`` (M, d): the samples to protect. ``projected``: the step sees B^T x only; ``averages``: means
    only. ``noise``: random numbers were added, so that no exact question can be asked; ``weighted``: each
    sample's loss has a positive factor that is not sent. ``facts``: what the defence did, in words by name.
    """

    network: ReluNetwork
    batch: Batch
    sent: Mapping[str, Tensor]
    subjects: Floats
    kept: Mapping[str, Mask] = field(default_factory=dict)
    projected: Basis | None = None
    averages: Averages | None = None
    noise: bool = False
    weighted: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def release(self) -> Release | None:
        """What is sent of the step's gradient, as a release that exact arguments know; None for noise, and
        for single entries.

        Which rows are kept may depend on the patterns: another batch that keeps other rows sends something
        else, and the families that leave a release as it is keep every pattern.
        """
        rows = {name: mask.reshape(len(mask), -1) for name, mask in self.kept.items()}
        if self.noise or any((mask != mask[:, :1]).any() for mask in rows.values()):
            return None
        return Release(
            tensors=list(self.sent) if self.missing else None,
            rows={name: mask[:, 0] for name, mask in rows.items()},
            input_basis=None if self.projected is None else self.projected.columns,
            weights="positive" if self.weighted else "equal",
        )

    @property
    def moved(self) -> bool:
        """Whether the step saw other inputs than the subjects, near them."""
        if self.projected is not None or self.averages is not None:
            return False
        return bool((np.asarray(self.batch.inputs, dtype=np.float64) != self.subjects).any())

    @property
    def missing(self) -> tuple[str, ...]:
        """Parameters of which nothing is sent."""
        return tuple(name for name, _ in self.network.parameters() if name not in self.sent)


def as_classes(labels: Array) -> npt.NDArray[np.int64]:
    """Classes (M,) of labels: themselves, or the largest entry of target vectors (one logit: its sign)."""
    values = np.asarray(labels, dtype=np.float64)
    if values.ndim == 1:
        return values.astype(np.int64)
    found: npt.NDArray[np.int64] = (
        (values[:, 0] > 0.5).astype(np.int64) if values.shape[1] == 1 else values.argmax(axis=1)
    )
    return found


def samples_of(given: Any, name: str, features: int) -> Floats:
    """Inputs (P, d) in float64 from what a user passes as ``name``.

    Raises :class:`ShapeError` and :class:`NonFiniteError` naming it.
    """
    x = np.asarray(exact_array(given, name), dtype=np.float64)
    if x.ndim < 2 or len(x) == 0 or x[0].size != features:
        raise ShapeError(
            f"{name} has shape {x.shape}; give (P, {features}) or (P, ...) with that many features"
        )
    if not np.isfinite(x).all():
        raise NonFiniteError(f"{name} has numbers beyond the range of float64; rescale it")
    return x.reshape(len(x), -1)


def labelled(given: Any, name: str, features: int) -> tuple[Floats, Array]:
    """``(x, y)`` as :func:`samples_of` has x, with one label each. Raises :class:`InputError` otherwise."""
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise InputError(f"{name}={short(given)} cannot be used; give a pair (x, y) of inputs and labels")
    x, y = samples_of(given[0], f"{name}: x", features), exact_array(given[1], f"{name}: y")
    if y.shape[:1] != (len(x),):
        raise ShapeError(f"{name}: y has shape {y.shape} but x has {len(x)} samples; give one label each")
    return x, y


def equal_rows(x: Floats, others: Floats) -> Mask:
    """Which rows of ``x`` (P, d) are equal to a row of ``others``, entry by entry."""
    known = {row.tobytes() for row in others + 0.0}
    return np.array([row.tobytes() in known for row in x + 0.0], dtype=bool)
