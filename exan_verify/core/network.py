"""Immutable exact records: :class:`Network` and its kinds, :class:`Batch`, :class:`Gradient`.

Setting and notation: docs/theory.md section 1. Every stored number is an exact real number. Arrays of a
floating dtype stand for the dyadic rationals they hold; arrays of dtype ``object`` hold
:class:`fractions.Fraction`. Arrays are read-only; equality and digests go by value, not by dtype.
Constructors validate once; inside the package nothing is checked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from exan_verify.core.arrays import (
    Array,
    PerLayer,
    digest_arrays,
    exact_array,
    freeze,
    is_rational,
    memory_available,
    rationals,
    to_fraction,
)
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import (
    GradientError,
    InputError,
    LabelError,
    MemoryLimitError,
    ShapeError,
    raise_problems,
    short,
)

__all__ = [
    "MOST_SAMPLES",
    "Activation",
    "Array",
    "Batch",
    "Gradient",
    "Linear",
    "Network",
    "PiecewiseNetwork",
    "ReluNetwork",
    "exact_array",
    "to_fraction",
]


_BYTES_PER_VALUE = 160
"""Of the exact forward pass, per sample and neuron: measured, 1000 to 4000 float32 samples of 784-512-10."""

MOST_SAMPLES = 1 << 24
"""A batch size beyond which nothing is asked: more samples than any layer has neurons."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    """How constant shifts and scales beside a layer of a model became part of the layer's own numbers.

    The model computes ``gain V u + bias_gain c + offset`` with ``u = factor h[order] + shift``, where V
    (n_out, n_in) and c (n_out,) are its parameters and V alone is multiplied as a matrix. The :class:`Linear`
    has ``weight[:, order] = gain V factor`` and ``bias = bias_gain c + gain V shift + offset``, so that

        dV = gain (dW[:, order] factor + db shift^T)   and   dc = bias_gain db.

    ``gain`` and ``bias_gain`` (n_out,), ``factor`` and ``shift`` (n_in,) are exact; no factor and no gain is
    zero, so either gradient determines the other (with ``shift`` other than 0 only where db is known).
    ``order`` (n_in,): which input each column of V is for. ``norms``: the parameters of BatchNorms among the
    constants, whose own gradients are linear functions of dW and db (:mod:`exan_verify.models.normalised`).
    """

    gain: Array
    bias_gain: Array
    factor: Array
    shift: Array
    order: Array
    norms: tuple[str, ...] | None = None

    @property
    def shifted(self) -> bool:
        """Whether db is needed to tell dV from dW."""
        return bool(np.any(self.shift != 0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """One affine layer ``z = weight h + bias``; ``weight`` (n_out, n_in), ``bias`` (n_out,) or None.

    ``fold``: what constants of the model are in these numbers; None where they are the model's own.
    ``named``: the parameters' names, where they are not ``<name>.weight`` and ``<name>.bias``. Neither is a
    part of the layer's value.
    """

    weight: Array
    bias: Array | None
    name: str
    fold: Fold | None = None
    named: tuple[str, str] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_out, n_in)``."""
        return self.weight.shape[0], self.weight.shape[1]

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(name, array)`` for weight and bias, under torch's names."""
        prefix = f"{self.name}." if self.name else ""
        weight, bias = self.named or (f"{prefix}weight", f"{prefix}bias")
        yield weight, self.weight
        if self.bias is not None:
            yield bias, self.bias


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A fully connected network with exact parameters: affine layers, a piecewise linear activation between.

    Which activations it has is said by its kind, :class:`ReluNetwork` or :class:`PiecewiseNetwork`; what
    takes a ``Network`` is right for both. ``layers`` are :class:`Linear` records, first to last. Biases in
    some of them only (:attr:`mixed_biases`) are taken by ``attack``; the exact arguments are written for
    biases in all layers or in none. ``notes``: what was assumed or undone on the way from a user's model or
    file, a line each; no part of its value.

    Raises :class:`ShapeError`, :class:`NonFiniteError` or :class:`InputError` naming the parameter.
    """

    layers: tuple[Linear, ...]
    notes: tuple[str, ...] = ()

    kind: ClassVar[str] = ""
    """What the digest of this kind begins with."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise InputError("the network has no layers; give at least one Linear layer")
        cleaned, problems = [], []
        for k, layer in enumerate(self.layers):
            try:
                cleaned.append(_clean_linear(layer))
            except InputError as error:
                problems.append(str(error))
                continue
            if k and len(cleaned) == k + 1 and layer.shape[1] != cleaned[k - 1].shape[0]:
                problems.append(
                    f"layer {layer.name!r} takes {layer.shape[1]} inputs but layer "
                    f"{cleaned[k - 1].name!r} gives {cleaned[k - 1].shape[0]}; make the widths agree"
                )
        raise_problems(ShapeError, problems)
        if len({layer.name for layer in cleaned}) != len(cleaned):
            raise InputError("two layers have the same name; parameters must have distinct names")
        object.__setattr__(self, "layers", tuple(cleaned))

    @property
    def depth(self) -> int:
        """L, the number of affine layers."""
        return len(self.layers)

    def layer(self, number: int) -> Linear:
        """Affine layer ``number``, counted from 1."""
        return PerLayer(self.layers).at(number)

    @property
    def widths(self) -> tuple[int, ...]:
        """``(n_0, ..., n_L)``: input dimension, hidden widths, number of logits."""
        return (self.layers[0].shape[1], *(layer.shape[0] for layer in self.layers))

    @property
    def classes(self) -> int:
        """K, the number of logits."""
        return self.widths[-1]

    @property
    def has_bias(self) -> bool:
        """Whether the layers have biases; raises :class:`InputError` where only some have."""
        if self.mixed_biases:
            raise InputError(self.mixed_biases)
        return self.layers[0].bias is not None

    @cached_property
    def mixed_biases(self) -> str:
        """What is said where some layers have biases and others have none; empty for all others."""
        missing = [layer.name for layer in self.layers if layer.bias is None]
        biased = [layer.name for layer in self.layers if layer.bias is not None]
        if not missing or not biased:
            return ""
        return (
            f"layers {missing} have no bias while {biased} do, which no exact argument here is made for; add "
            "zero biases that are trained, drop all biases, or ask attack, which takes them as they are"
        )

    @property
    def normalised(self) -> bool:
        """Whether a BatchNorm is folded into some layer."""
        return any(layer.fold is not None and layer.fold.norms is not None for layer in self.layers)

    def activation(self, _layer: int) -> Activation | None:
        """What follows affine layer ``layer`` (1-based, a hidden one); None: ReLU."""
        return None

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Yield ``(name, array)`` for weights and biases, first layer first."""
        for layer in self.layers:
            yield from layer.parameters()

    def trained_slopes(self) -> Iterator[tuple[int, Activation]]:
        """Yield ``(layer, activation)`` for the hidden layers (1-based) whose slopes are parameters."""
        for k in range(1, self.depth):
            activation = self.activation(k)
            if activation is not None and activation.trained:
                yield k, activation

    @property
    def architecture(self) -> str:
        """What the network is, in words: its widths, what its layers are, what lies between them."""
        layers = "Linear layers with ReLU between them" if self.depth > 1 else "one Linear layer"
        return f"{'-'.join(map(str, self.widths))}, {layers}{self._folded}"

    @property
    def _folded(self) -> str:
        return ", BatchNorm folded into them" if self.normalised else ""

    @property
    def plain(self) -> Self:
        """The same network, whose gradient is that of its own numbers: nothing is folded into them."""
        if all(layer.fold is None for layer in self.layers):
            return self
        return replace(self, layers=tuple(replace(layer, fold=None) for layer in self.layers))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the shapes and exact values of the parameters (names do not enter)."""
        return digest_arrays(self.kind, self._valued())

    def _valued(self) -> Iterator[Array]:
        """All that makes the value of the network."""
        return (array for _, array in self.parameters())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        unbiased = [layer.name for layer in self.layers if layer.bias is None]
        said = f", no bias in {unbiased}" if unbiased else ""
        said = ", no biases" if len(unbiased) == self.depth else said
        return f"{type(self).__name__}({'-'.join(map(str, self.widths))}{said})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ReluNetwork(Network):
    """A fully connected ReLU network with exact parameters: affine layers with ReLU between them."""

    kind: ClassVar[str] = "relu-network"

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[Any],
        biases: Sequence[Any] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> ReluNetwork:
        """Build a network from nested sequences or arrays of ints, floats or Fractions.

        ``weights[k]`` (n_{k+1}, n_k); ``biases[k]`` (n_{k+1},), or ``biases=None`` for none. Default names
        are those of ``torch.nn.Sequential``: "0", "2", "4", ...
        """
        given = names if names is not None else [str(2 * k) for k in range(len(weights))]
        bias_list: Sequence[Any] = biases if biases is not None else [None] * len(weights)
        if len(bias_list) != len(weights) or len(given) != len(weights):
            raise InputError("weights, biases and names must have the same length")
        return cls(
            layers=tuple(
                Linear(
                    weight=exact_array(w, f"{n}.weight"),
                    bias=None if b is None else exact_array(b, f"{n}.bias"),
                    name=n,
                )
                for w, b, n in zip(weights, bias_list, given, strict=True)
            )
        )

    def sloped(self, slopes: Sequence[Sequence[Any] | None]) -> PiecewiseNetwork:
        """The same layers with LeakyReLU: a slope below zero for each neuron of each hidden layer; None for a
        layer that keeps ReLU.

        Raises :class:`InputError` where slopes do not fit.
        """
        activations = tuple(
            None
            if own is None
            else Activation(
                slope=np.array([to_fraction(s) for s in own], dtype=object),
                name=f"slopes {', '.join(sorted({str(s) for s in own}))}",
            )
            for own in slopes
        )
        return PiecewiseNetwork(layers=self.layers, activations=activations, notes=self.notes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activation:
    """What a hidden layer of n neurons applies: ``z`` where low < z < high, ``low + slope (z - low)`` from
    ``low`` down, ``high`` from ``high`` up.

    ``slope`` (n,), exact, 1 nowhere; other than 0 only where low = 0 and there is no ``high`` (None):
    LeakyReLU and PReLU; with slope 0 it is ReLU6 and Hardtanh. The derivative is 1 strictly between the ends,
    torch's convention. ``parameter``: the tensor that trained slopes are, which has a gradient of its own
    (PReLU), "" where they are constants; ``shared``: it is one number for all neurons. ``name``: in words.
    """

    slope: Array
    low: Fraction = Fraction(0)
    high: Fraction | None = None
    parameter: str = ""
    shared: bool = False
    name: str

    @property
    def trained(self) -> bool:
        """Whether the slopes are parameters."""
        return bool(self.parameter)

    @property
    def parameters(self) -> int:
        """How many numbers the trained slopes are."""
        return (1 if self.shared else len(self.slope)) if self.trained else 0

    @property
    def sloped(self) -> bool:
        """Whether some neuron has a slope other than 0 below."""
        return bool(np.any(self.slope != 0))

    @property
    def shows_pattern(self) -> bool:
        """Whether the values alone tell where the derivative is 1: a negative slope gives two z one value."""
        return bool(np.all(self.slope >= 0))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PiecewiseNetwork(Network):
    """A fully connected network whose hidden layers have other activations than ReLU, some or all of them.

    ``activations``: one for each hidden layer, None for ReLU. Only ``certify``, ``audit``, ``check`` and
    ``attack`` take such a network (docs/theory.md, PL1); whatever is written for ReLU takes a
    :class:`ReluNetwork`.

    Raises :class:`InputError` for activations that do not fit, or that are all ReLU.
    """

    activations: tuple[Activation | None, ...]

    kind: ClassVar[str] = "piecewise-network"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.activations) != self.depth - 1 or not any(self.activations):
            raise InputError(
                f"{self.depth} layers have {self.depth - 1} activations between them, at least one of them "
                "other than ReLU; give one for each, None for ReLU"
            )
        problems = []
        for layer, activation in zip(self.layers, self.activations, strict=False):
            if activation is None:
                continue
            sized = activation.slope.shape == (layer.shape[0],)
            if not sized:
                problems.append(
                    f"{activation.name} after layer {layer.name!r} has slopes of shape "
                    f"{activation.slope.shape}; give ({layer.shape[0]},)"
                )
            elif np.any(activation.slope == 1):
                problems.append(
                    f"{activation.name} after layer {layer.name!r} has the slope 1 on both sides at neuron "
                    f"{int(np.flatnonzero(activation.slope == 1)[0])}, which is no activation; choose another"
                )
            high = activation.high
            if high is not None and high <= activation.low:
                problems.append(f"{activation.name} after layer {layer.name!r} has an empty range")
            if sized and activation.sloped and (activation.low != 0 or high is not None):
                problems.append(f"{activation.name} after layer {layer.name!r} has slopes and an end")
        raise_problems(InputError, problems)

    def activation(self, layer: int) -> Activation | None:
        """What follows affine layer ``layer`` (1-based, a hidden one); None: ReLU."""
        return PerLayer(self.activations).at(layer)

    @property
    def architecture(self) -> str:
        """What the network is, in words, with the activation after each hidden layer."""
        after = ("ReLU" if activation is None else activation.name for activation in self.activations)
        return (
            f"{'-'.join(map(str, self.widths))}, Linear layers with, in turn, {'; '.join(after)} between them"
            f"{self._folded}"
        )

    def _valued(self) -> Iterator[Array]:
        yield from super()._valued()
        for activation in self.activations:
            if activation is None:
                yield np.zeros(0)
                continue
            high = activation.high
            ends = [activation.low, *([] if high is None else [high]), Fraction(int(activation.trained))]
            yield activation.slope
            yield np.array(ends, dtype=object)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Asked(Protocol):
    """What is asked of a network to take a batch for it: its widths, and the name of its first layer."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers per sample, from the inputs to the logits."""

    @property
    def classes(self) -> int:
        """K, the number of logits."""

    @property
    def layers(self) -> Sequence[_Named]:
        """The layers, first to last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """M samples with exact inputs and labels.

    ``inputs`` (M, d); ``labels``: integer classes (M,) for cross_entropy and hinge, target vectors (M, K)
    for mse and bce. Use :meth:`of` to build one from what a user has; it checks the labels.
    """

    inputs: Array
    labels: Array

    @classmethod
    def of(cls, x: Any, y: Any, *, network: Asked, loss: Loss, labels: Labels) -> Batch:
        """Validate ``x`` (M, d) or (M, ...) with d features, and ``y``, for a network, loss and label set.

        Classes (M,) are turned into one-hot targets for mse; for one logit (mse, bce) ``y`` may be (M,).

        Raises :class:`ShapeError`, :class:`NonFiniteError` or :class:`LabelError` naming x or y.
        """
        inputs = exact_array(x, "x")
        if inputs.ndim < 2 or inputs.size == 0:
            raise ShapeError(f"x has shape {inputs.shape}; give (M, {network.widths[0]}) with M >= 1 samples")
        flat = inputs.reshape(inputs.shape[0], -1)
        if flat.shape[1] != network.widths[0]:
            raise ShapeError(
                f"x has {flat.shape[1]} features per sample but layer {network.layers[0].name!r} "
                f"takes {network.widths[0]}; pass x with shape (M, {network.widths[0]})"
            )
        return cls(inputs=freeze(flat), labels=_clean_labels(y, flat.shape[0], network, loss, labels))

    @classmethod
    def given(cls, batch: Any, *, network: Asked, loss: Loss, labels: Labels) -> Batch:
        """The same for what a user passes as ``batch``: ``(x, y)``, or a :class:`Batch`.

        Raises :class:`InputError` where it is neither, :class:`MemoryLimitError` where the exact forward pass
        does not fit into memory, and what :meth:`of` raises.
        """
        if isinstance(batch, Batch):
            x, y = batch.inputs, batch.labels
        elif isinstance(batch, (tuple, list)) and len(batch) == 2:
            x, y = batch
        else:
            raise InputError(f"batch={short(batch)} cannot be used; give a pair (x, y) of inputs and labels")
        cleaned = cls.of(x, y, network=network, loss=loss, labels=labels)
        per_sample = _BYTES_PER_VALUE * sum(network.widths)
        needed, free = cleaned.size * per_sample, memory_available()
        if needed > free:
            raise MemoryLimitError(
                f"exact arithmetic on {cleaned.size} samples of a {'-'.join(map(str, network.widths))} "
                f"network takes about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; "
                f"give at most {free // per_sample} samples, such as the batch of one step"
            )
        return cleaned

    @property
    def size(self) -> int:
        """M, the number of samples."""
        return int(self.inputs.shape[0])

    @cached_property
    def x(self) -> tuple[tuple[Fraction, ...], ...]:
        """The inputs as exact rationals, one tuple of d Fractions per sample."""
        return tuple(tuple(to_fraction(v) for v in row) for row in self.inputs)

    @cached_property
    def y(self) -> tuple[tuple[Fraction, ...], ...] | tuple[int, ...]:
        """The labels: classes as ints, or one tuple of K Fractions per sample."""
        if self.labels.ndim == 1:
            return tuple(int(v) for v in self.labels)
        return tuple(tuple(to_fraction(v) for v in row) for row in self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the exact inputs and labels, in the order of the samples."""
        return digest_arrays("batch", (self.inputs, self.labels))

    @cached_property
    def distinct(self) -> bool:
        """Whether no two samples have equal inputs and equal labels."""
        return len({self.select([m]).digest for m in range(self.size)}) == self.size

    def select(self, order: Sequence[int]) -> Batch:
        """The samples at the positions ``order``, in that order."""
        index = list(order)
        return Batch(inputs=freeze(self.inputs[index]), labels=freeze(self.labels[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Batch) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Batch(size={self.size}, features={self.inputs.shape[1]})"


def batch_record(batch: Batch) -> dict[str, Any]:
    """Inputs and labels for JSON; numbers as ``"num/den"`` strings, classes as integers."""
    classes = batch.labels.ndim == 1
    return {
        "x": rationals(batch.inputs),
        "y": [int(v) for v in batch.labels] if classes else rationals(batch.labels),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Gradient:
    """Exact gradient of the loss by parameter name: a mapping from name to exact array.

    ``rational`` says that the user gave integers or Fractions, which are meant exactly; floating-point
    numbers need ``exact=True`` or ``tolerance=`` where they are used. ``notes``: what was done to the
    gradient that a user gave (:mod:`exan_verify.models.gradients`), a line each.
    """

    tensors: Mapping[str, Array]
    rational: bool = field(default=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.tensors:
            raise GradientError("the gradient has no tensors; pass one per parameter of the model")
        cleaned = {str(k): exact_array(v, f"gradient[{short(k)}]") for k, v in self.tensors.items()}
        rational = self.rational or all(is_rational(value) for value in self.tensors.values())
        object.__setattr__(self, "tensors", cleaned)
        object.__setattr__(self, "rational", rational)

    def for_network(self, network: Network, *, zero: bool = False) -> PerLayer[tuple[Array, Array | None]]:
        """``(dW_i, db_i)`` for each layer; db_i is None without biases. Trained slopes may have theirs too.

        Raises :class:`GradientError` listing every missing, extra, misshaped tensor, and refusing an
        all-zero gradient unless ``zero`` admits it.
        """
        needed = {name: array.shape for name, array in network.parameters()}
        expected = needed | {a.parameter: (a.parameters,) for _, a in network.trained_slopes()}
        problems = [
            f"tensor {name!r} of shape {shape} is missing; add it"
            for name, shape in needed.items()
            if name not in self.tensors
        ]
        problems += [
            f"tensor {name!r} belongs to no parameter (there are: {', '.join(expected)}); remove it"
            for name in self.tensors
            if name not in expected
        ]
        problems += [
            f"tensor {name!r} has shape {array.shape}, the parameter has {expected[name]}"
            for name, array in self.tensors.items()
            if name in expected and array.shape != expected[name]
        ]
        raise_problems(GradientError, problems)
        if not zero and not any(np.any(array != 0) for array in self.tensors.values()):
            raise GradientError(
                "every entry of the gradient is zero, so it says nothing about the batch; "
                "check that it was taken after backward() and before zero_grad()"
            )
        return PerLayer(
            (arrays[0], arrays[1] if len(arrays) > 1 else None)
            for arrays in ([self.tensors[name] for name, _ in layer.parameters()] for layer in network.layers)
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the exact values, in the order of the sorted names."""
        return digest_arrays("gradient", (self.tensors[name] for name in sorted(self.tensors)))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Gradient)
            and self.tensors.keys() == other.tensors.keys()
            and self.digest == other.digest
        )

    def __hash__(self) -> int:
        return hash(self.digest)


def _clean_linear(layer: Linear) -> Linear:
    prefix = f"{layer.name}." if layer.name else ""
    weight = exact_array(layer.weight, f"{prefix}weight")
    if weight.ndim != 2 or 0 in weight.shape:
        raise ShapeError(f"{prefix}weight has shape {weight.shape}; give (n_out, n_in)")
    if layer.bias is None:
        return replace(layer, weight=weight)
    bias = exact_array(layer.bias, f"{prefix}bias")
    if bias.shape != weight.shape[:1]:
        raise ShapeError(f"{prefix}bias has shape {bias.shape}; give ({weight.shape[0]},)")
    return replace(layer, weight=weight, bias=bias)


def _clean_labels(y: Any, samples: int, network: Asked, loss: Loss, labels: Labels) -> Array:
    classes = network.classes
    if labels is Labels.REAL and loss is not Loss.MSE:
        raise LabelError(f"labels='real' is for mse only, not {loss.value!r}; use 'one_hot' or 'known'")
    array = exact_array(y, "y")
    if array.shape[:1] != (samples,):
        raise ShapeError(f"y has shape {array.shape} but x has {samples} samples; give one label per sample")
    if loss.class_labels:
        return freeze(_class_labels(array, classes))
    if classes == 1 and array.ndim == 1:
        array = array.reshape(-1, 1)
    if loss is Loss.MSE and array.ndim == 1:
        array = freeze(np.eye(classes)[_class_labels(array, classes)])
    if array.shape != (samples, classes):
        raise ShapeError(f"y has shape {array.shape}; for loss={loss.value!r} give ({samples}, {classes})")
    _check_targets(array, loss, labels)
    return freeze(array)


def _class_labels(array: Array, classes: int) -> npt.NDArray[np.int64]:
    if array.ndim != 1:
        raise LabelError(f"y has shape {array.shape}; give integer classes of shape (M,)")
    whole = [to_fraction(v) for v in array]
    bad = [k for k, v in enumerate(whole) if v.denominator != 1 or not 0 <= v < classes]
    if bad:
        raise LabelError(
            f"y[{bad[0]}] = {whole[bad[0]]} is not a class of this model "
            f"({len(bad)} such labels); classes are 0 to {classes - 1}"
        )
    return np.array([int(v) for v in whole], dtype=np.int64)


def _check_targets(array: Array, loss: Loss, labels: Labels) -> None:
    if loss is Loss.MSE and labels is not Labels.ONE_HOT:
        return
    binary = (array == 0) | (array == 1)
    single_hot = loss is Loss.MSE and array.shape[1] > 1
    good = binary.all(axis=1) & ((array.sum(axis=1) == 1) if single_hot else True)
    bad = np.flatnonzero(~good)
    if len(bad):
        what = "one-hot" if single_hot else "made of zeros and ones"
        remedy = " or pass labels='known' or labels='real'" if loss is Loss.MSE else ""
        raise LabelError(f"y[{int(bad[0])}] is not {what}; correct it{remedy}")
