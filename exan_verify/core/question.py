"""What is asked: the loss and its traits, the reduction, the admitted labels and inputs, the size, what of
the gradient leaves the device: one record.

Setting and notation: docs/theory.md section 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exan_verify.core.arrays import Array, exact_array, freeze, to_fraction
from exan_verify.errors import InputError, choice, raise_problems, short

if TYPE_CHECKING:
    from exan_verify.core.network import Batch, Linear, Network


class Loss(StrEnum):
    """Loss functions, named as in ``torch.nn.functional`` (docs/theory.md section 1)."""

    CROSS_ENTROPY = "cross_entropy"
    BCE = "bce"
    MSE = "mse"
    HINGE = "hinge"

    @property
    def rational(self) -> bool:
        """Whether the loss vector is a rational function of rational logits."""
        return self in (Loss.MSE, Loss.HINGE)

    @property
    def class_labels(self) -> bool:
        """Whether a label is a class (an integer) and not a vector of K targets."""
        return self in (Loss.CROSS_ENTROPY, Loss.HINGE)

    @property
    def zero_sum(self) -> bool:
        """Whether the entries of every loss vector sum to zero, whatever the logits and the label."""
        return self in (Loss.CROSS_ENTROPY, Loss.HINGE)

    def divisor(self, reduction: Reduction, samples: int, classes: int) -> int:
        """What the sum over samples is divided by, as torch does for this loss and ``reduction``."""
        if reduction is Reduction.SUM:
            return 1
        return samples * classes if self in (Loss.MSE, Loss.BCE) else samples


class Reduction(StrEnum):
    """How torch reduces the loss over the batch."""

    MEAN = "mean"
    SUM = "sum"


class Labels(StrEnum):
    """Which labels the question admits (docs/theory.md section 1).

    ``one_hot``: unknown labels of the loss's kind (a class; for bce a 0/1 vector; for mse a one-hot target,
    and 0 or 1 when there is a single logit). ``known``: the batch's own labels in unknown order.
    ``real``: arbitrary real targets (mse only).
    """

    ONE_HOT = "one_hot"
    KNOWN = "known"
    REAL = "real"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Box:
    """A domain of inputs: ``lo <= x <= hi``, each a scalar or one value per feature (d,).

    Raises :class:`InputError` when a bound is not finite or ``lo > hi`` somewhere.
    """

    lo: Any
    hi: Any

    def __init__(self, lo: Any, hi: Any) -> None:
        low, high = (exact_array(v, n) for v, n in ((lo, "Box.lo"), (hi, "Box.hi")))
        low, high = (freeze(np.atleast_1d(v)) for v in (low, high))
        if not (low.ndim == high.ndim == 1 and (low.size == 1 or high.size in (1, low.size))):
            raise InputError(
                f"Box: lo has shape {low.shape} and hi {high.shape}; give scalars, or one value per feature"
            )
        if np.any(low > high):
            raise InputError("Box: lo is greater than hi; swap the bounds")
        object.__setattr__(self, "lo", low)
        object.__setattr__(self, "hi", high)

    def bounds(self, features: int) -> tuple[Array, Array]:
        """``(lo, hi)``, each of shape (features,). Raises :class:`InputError` on another length."""
        for name, value in (("lo", self.lo), ("hi", self.hi)):
            if value.shape not in ((1,), (features,)):
                raise InputError(f"Box.{name} has shape {value.shape}; give a scalar or ({features},) values")
        return np.broadcast_to(self.lo, (features,)), np.broadcast_to(self.hi, (features,))

    def contains(self, batch: Batch) -> bool:
        """Whether every input of ``batch`` lies in the box, exactly."""
        lo, hi = self.bounds(batch.inputs.shape[1])
        return bool(np.all(batch.inputs >= lo) and np.all(batch.inputs <= hi))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return tuple(map(to_fraction, self.lo)), tuple(map(to_fraction, self.hi))


class Weights(StrEnum):
    """How the samples of a batch are weighted in what is sent (docs/theory.md, releases).

    ``equal``: as the reduction says. ``positive``: every sample has an unknown positive factor of its own, as
    after per-sample clipping, with class weights or with unequal accumulation.
    """

    EQUAL = "equal"
    POSITIVE = "positive"


MOST_BASIS_BITS = 1024
"""Of a numerator or denominator of an input basis: float32 has up to 150, a usual double some 60."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Release:
    """What leaves the device in the place of the whole gradient (docs/theory.md, releases).

    ``tensors``: the names of the parameters whose gradients are sent; None: all. ``rows``: for some of them a
    boolean mask (n,) of the rows that are sent, of a bias the entries. ``input_basis``: a public matrix B
    (d, r); the first layer is stored as V with ``W_1 = V B^T`` and sees ``B^T x``, so that ``dV = dW_1 B`` is
    sent in the place of dW_1. ``averages``: groups of samples, as lists of indices; the step is made on the
    mean of each group, with its members' common label, and on nothing else. Every sample is in a group, a
    group of one is a sample by itself, and groups may share samples, as those of several rounds do.
    ``weights``: whether every sample (every mean) has an unknown positive factor.

    Which rows are sent, and who is averaged, must not depend on the inputs. Raises :class:`InputError` naming
    the argument.
    """

    tensors: tuple[str, ...] | None
    rows: Mapping[str, tuple[bool, ...]]
    input_basis: Array | None
    averages: tuple[tuple[int, ...], ...] | None
    weights: Weights

    def __init__(
        self,
        tensors: Sequence[str] | None = None,
        rows: Mapping[str, Any] | None = None,
        input_basis: Any = None,
        weights: str = "equal",
        averages: Sequence[Sequence[int]] | None = None,
    ) -> None:
        object.__setattr__(self, "tensors", _names(tensors))
        object.__setattr__(self, "rows", _masks(rows))
        object.__setattr__(self, "input_basis", None if input_basis is None else _basis(input_basis))
        object.__setattr__(self, "averages", None if averages is None else _groups(averages))
        object.__setattr__(self, "weights", choice(Weights, weights, "release.weights"))

    def check_against(self, network: Network) -> None:
        """Raise :class:`InputError` listing every name, mask and basis that does not fit ``network``."""
        arrays = dict(network.parameters())
        known = f"(there are: {', '.join(arrays)})"
        problems = [
            f"release.tensors: {short(name)} is no parameter {known}; remove it"
            for name in self.tensors or ()
            if name not in arrays
        ]
        for name, mask in self.rows.items():
            if name not in arrays:
                problems.append(f"release.rows: {short(name)} is no parameter {known}; remove it")
            elif self.tensors is not None and name not in self.tensors:
                problems.append(
                    f"release.rows: {name!r} is not among the tensors that are sent; add it there, or leave "
                    "out its rows"
                )
            elif len(mask) != len(arrays[name]):
                problems.append(
                    f"release.rows: the mask of {name!r} has {len(mask)} entries; give one for each of its "
                    f"{len(arrays[name])} rows"
                )
        problems += [
            f"release: constants of the model are folded into layer {layer.name!r}, and {what}; apply them "
            "to the data instead, and remove them from the model"
            for layer in network.layers
            if layer.fold is not None
            for what in self._not_of_the_folded(layer)
        ]
        features = network.widths[0]
        if self.input_basis is not None and len(self.input_basis) != features:
            problems.append(
                f"release.input_basis has {len(self.input_basis)} rows; give one for each of the model's "
                f"{features} inputs"
            )
        raise_problems(InputError, problems)

    def _not_of_the_folded(self, layer: Linear) -> Iterator[str]:
        """Why what is sent of the model's gradient is not told by the same tensors and rows of the folded."""
        if self.input_basis is not None:
            yield "an input basis speaks of the model's own inputs to it"
        weight, *bias = (self.sends(name, len(array)) for name, array in layer.parameters())
        if layer.fold is not None and layer.fold.shifted and np.any(weight & ~bias[0]):
            yield "a shift tells its weights' gradient only together with that of its biases"

    def check_samples(self, batch: Batch) -> None:
        """Raise :class:`InputError` where the groups that are averaged are none of the samples of ``batch``:
        one is not there or in no group, or the members of a group have different labels.
        """
        if self.averages is None:
            return
        named = {m for group in self.averages for m in group}
        problems = []
        if (last := max(named)) >= batch.size:
            problems.append(
                f"release.averages: there is no sample {last}; the batch has {batch.size}, counted from 0"
            )
        if lacking := set(range(batch.size)) - named:
            problems.append(
                f"release.averages: sample {min(lacking)} is in no group ({len(lacking)} such samples); add "
                f"[{min(lacking)}] where it enters the step by itself"
            )
        labels = batch.y
        for group in self.averages:
            if max(group) < batch.size and len({labels[m] for m in group}) > 1:
                other = next(m for m in group if labels[m] != labels[group[0]])
                problems.append(
                    f"release.averages: samples {group[0]} and {other} are in one group and have different "
                    "labels; a mean has the label that its members share"
                )
                break
        raise_problems(InputError, problems)

    def sends(self, name: str, size: int) -> npt.NDArray[np.bool_]:
        """Which of the ``size`` rows of parameter ``name`` are sent, (size,)."""
        if self.tensors is not None and name not in self.tensors:
            return np.zeros(size, dtype=bool)
        return np.array(self.rows.get(name, (True,) * size), dtype=bool)

    def is_whole(self, network: Network) -> bool:
        """Whether nothing of the gradient of ``network`` is held back."""
        everything = all(self.sends(name, len(array)).all() for name, array in network.parameters())
        plain = self.input_basis is None and self.averages is None and self.weights is Weights.EQUAL
        return everything and plain

    @property
    def described(self) -> str:
        """The release in words."""
        parts = []
        if self.tensors is not None:
            parts.append(f"only the tensors {', '.join(self.tensors)}")
        parts += [f"{sum(mask)} of {len(mask)} rows of {name}" for name, mask in self.rows.items()]
        if self.input_basis is not None:
            parts.append(f"the first layer through an input basis of {self.input_basis.shape[1]} columns")
        if self.averages is not None:
            parts.append(f"of the means of {len(self.averages)} groups of samples")
        if self.weights is Weights.POSITIVE:
            of = "sample" if self.averages is None else "mean"
            parts.append(f"an unknown positive weight for every {of}")
        return "; ".join(parts) or "everything"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Release) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        basis = self.input_basis
        rows = tuple(sorted(self.rows.items()))
        exact = None if basis is None else (basis.shape, *map(to_fraction, basis.reshape(-1)))
        return self.tensors, rows, exact, self.averages, self.weights


def _names(tensors: Any) -> tuple[str, ...] | None:
    if tensors is None:
        return None
    if isinstance(tensors, str) or not isinstance(tensors, Sequence):
        raise InputError(f"release.tensors={short(tensors)} is no list of names; give ['0.weight', ...]")
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise InputError(f"release.tensors={short(tensors)}: give the names of parameters, at least one")
    if len(set(tensors)) < len(tensors):
        raise InputError("release.tensors names a parameter twice; name each once")
    return tuple(tensors)


def _masks(rows: Any) -> dict[str, tuple[bool, ...]]:
    if rows is None:
        return {}
    if not isinstance(rows, Mapping):
        raise InputError(f"release.rows={short(rows)} is no mapping; give {{name: boolean mask}}")
    found = {}
    for name, mask in rows.items():
        values = mask.tolist() if hasattr(mask, "tolist") else mask
        if not isinstance(values, (list, tuple)) or not all(isinstance(v, bool) for v in values):
            raise InputError(
                f"release.rows[{short(name)}] is no boolean mask; give True or False for every row"
            )
        found[str(name)] = tuple(values)
    return found


def _groups(averages: Any) -> tuple[tuple[int, ...], ...]:
    groups = averages.tolist() if hasattr(averages, "tolist") else averages
    if not isinstance(groups, (list, tuple)) or not groups:
        raise InputError(
            f"release.averages={short(averages)} is no list of groups; give lists of sample indices, such as "
            "[[0, 1], [2, 3]]"
        )
    found = []
    for group in groups:
        members = group.tolist() if hasattr(group, "tolist") else group
        if not isinstance(members, (list, tuple)) or not members:
            raise InputError(
                f"release.averages has {short(group)} where a group belongs; give sample indices"
            )
        if not all(isinstance(m, int) and not isinstance(m, bool) and m >= 0 for m in members):
            raise InputError("release.averages: a group has an entry that is no sample's index; count from 0")
        if len(set(members)) < len(members):
            raise InputError("release.averages: a group names a sample twice; name each once")
        found.append(tuple(members))
    if all(len(group) == 1 for group in found):
        raise InputError(
            "release.averages has groups of one sample alone, so nothing is averaged; leave it out"
        )
    return tuple(found)


def _basis(values: Any) -> Array:
    basis = exact_array(values, "release.input_basis")
    if basis.ndim != 2 or not 1 <= basis.shape[1] <= len(basis):
        raise InputError(
            f"release.input_basis has shape {basis.shape}; give (d, r), one row for each of the d inputs and "
            "at most d columns"
        )
    exact = map(to_fraction, basis.reshape(-1))
    longest = max(max(v.numerator.bit_length(), v.denominator.bit_length()) for v in exact)
    if longest > MOST_BASIS_BITS:
        raise InputError(
            f"release.input_basis has a number of {longest} bits; round the basis, for example to float32"
        )
    return basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which batches are asked about, apart from the network and the gradient (docs/theory.md section 1).

    ``domain``: a box that contains every input, or None for R^d. ``batch_size``: M, or None where it is not
    said. ``tolerance``: gradients count whose entries differ by at most this much; None: only the gradient
    itself. ``release``: what of the gradient is sent; batches count with which that is the same. None: all.
    """

    loss: Loss
    reduction: Reduction = Reduction.MEAN
    labels: Labels = Labels.ONE_HOT
    domain: Box | None = None
    batch_size: int | None = None
    tolerance: Fraction | None = None
    release: Release | None = None

    @classmethod
    def of(
        cls,
        loss: str,
        reduction: str,
        labels: str,
        *,
        domain: Box | None = None,
        batch_size: int | None = None,
        tolerance: Fraction | None = None,
        release: Release | None = None,
    ) -> Question:
        """The question in a user's words. Raises :class:`InputError` naming the argument and its options."""
        return cls(
            loss=choice(Loss, loss, "loss"),
            reduction=choice(Reduction, reduction, "reduction"),
            labels=choice(Labels, labels, "labels"),
            domain=domain,
            batch_size=batch_size,
            tolerance=tolerance,
            release=release,
        )

    @property
    def samples(self) -> int:
        """M, where it is said; asking for it where it is not is a defect of the caller."""
        assert self.batch_size is not None
        return self.batch_size

    def divisor(self, samples: int, classes: int) -> int:
        """What the sum over ``samples`` is divided by."""
        return self.loss.divisor(self.reduction, samples, classes)

    @property
    def weighted(self) -> bool:
        """Whether every sample has an unknown positive weight."""
        return self.release is not None and self.release.weights is Weights.POSITIVE

    def sent_weights(self, layer: Linear) -> npt.NDArray[np.bool_]:
        """The rows of dW of ``layer`` that are sent, (n_out,)."""
        return self._sent(layer)[0]

    def sent_biases(self, layer: Linear) -> npt.NDArray[np.bool_]:
        """The entries of db of ``layer``, which has biases, that are sent, (n_out,)."""
        return self._sent(layer)[-1]

    def sent_neurons(self, layer: Linear) -> npt.NDArray[np.bool_]:
        """The neurons of ``layer`` whose row [dW | db] is sent, (n_out,); of dW alone without biases."""
        found: npt.NDArray[np.bool_] = np.all(self._sent(layer), axis=0)
        return found

    def _sent(self, layer: Linear) -> list[npt.NDArray[np.bool_]]:
        release = self.release
        if release is None:
            return [np.ones(layer.shape[0], dtype=bool)]
        return [release.sends(name, len(array)) for name, array in layer.parameters()]
