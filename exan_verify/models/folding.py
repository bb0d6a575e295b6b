"""Constant shifts and scales of a model, folded into its layers in exact arithmetic.

What exporters and hand-written forwards put beside Linear layers, such as ``(x - mean) / std``, is an affine
map of each number by itself. It goes into the weights and biases of the layer before it, or, where none is,
of the layer after it, and every product is computed in rationals: a verdict then speaks of the same real
function, and the layer's :class:`Fold` says how the gradient of the model's own parameters follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.arrays import fractions, freeze, memory_available
from exan_verify.core.network import Array, Fold, Linear, exact_array
from exan_verify.errors import MemoryLimitError, UnsupportedLayerError

if TYPE_CHECKING:
    from exan_verify.models.chain import Step

_REMEDY = "apply it to the data instead, and remove it from the model"
_BYTES = 240
"""Of one rational entry with its numerator and denominator, as folded weights have them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Affine:
    """``factor h + shift``, each (n,) in Fractions, or () where it is the same number everywhere; with
    ``per_channel`` (C,), one for all the pixels of a channel."""

    factor: Array
    shift: Array
    per_channel: bool = False

    @classmethod
    def of(cls, factor: Any = 1, shift: Any = 0, *, per_channel: bool = False) -> Affine:
        """From exact arrays or numbers."""
        parts = fractions(np.asarray(factor)), fractions(np.asarray(shift))
        return cls(factor=parts[0], shift=parts[1], per_channel=per_channel)

    def after(self, first: Affine) -> Affine:
        """This map of what ``first`` gives; neither is per channel."""
        return Affine(
            factor=np.asarray(self.factor * first.factor),
            shift=np.asarray(self.factor * first.shift + self.shift),
        )

    def spread(self, size: int) -> Affine:
        """The same with ``size`` entries each. Raises :class:`ValueError` where it has another number."""
        return Affine(factor=self._spread(self.factor, size), shift=self._spread(self.shift, size))

    def _spread(self, part: Array, size: int) -> Array:
        # once pictures are flat, the pixels of a channel follow one another
        if self.per_channel and part.ndim and len(part) and size % len(part) == 0:
            part = np.repeat(part, size // len(part))
        return _spread(part, size)

    @property
    def changes_nothing(self) -> bool:
        """Whether it is the identity."""
        return bool(np.all(self.factor == 1) and np.all(self.shift == 0))


def fold_constants(steps: Sequence[Step]) -> tuple[list[Step], tuple[str, ...]]:
    """``steps`` without those of kind CONSTANT, which are now in the Linear steps beside them; and a note for
    each layer that changed.

    Raises :class:`UnsupportedLayerError` naming the constant that cannot be folded: one with a factor of
    zero, a shift beside a layer without biases, one that stands between two ReLUs, and one whose size does
    not fit; :class:`MemoryLimitError` where the rationals would not fit into memory.
    """
    from exan_verify.models.chain import Kind

    found: list[Step] = []
    waiting: list[Step] = []
    folded: dict[str, list[str]] = {}
    for step in steps:
        last = found[-1] if found else None
        if step.kind is Kind.CONSTANT:
            if (acts := _acts(step)) and last is not None and last.layer is not None:
                found[-1] = replace(last, layer=_after(last.layer, step))
                folded.setdefault(last.layer.name, []).append(step.path)
            elif acts:
                waiting.append(step)
        elif step.kind is Kind.LINEAR and waiting:
            assert step.layer is not None
            found.append(replace(step, layer=_before(step.layer, waiting)))
            folded[step.layer.name] = [one.path for one in waiting]
            waiting = []
        elif step.kind is not Kind.NOTHING:
            _require_none(waiting)
            found.append(step)
    _require_none(waiting)
    notes = [
        f"constants beside layer {name!r} are folded into its weights and biases, exactly, and a given "
        f"gradient is read as that of the model's own parameters: {'; '.join(places)}"
        for name, places in folded.items()
    ]
    return found, (*notes, *([NORM_NOTE] if any(step.norm is not None for step in steps) else []))


NORM_NOTE = (
    "answers are about the network whose BatchNorm multiplies by gamma / sqrt(var + eps) rounded to the "
    "precision that torch multiplies in; there the gradient of all parameters, gamma and beta included, and "
    "that of the folded weights and biases determine one another"
)
"""Of which network answers speak where a BatchNorm is folded."""


def _acts(step: Step) -> bool:
    assert step.affine is not None
    if np.any(step.affine.factor == 0):
        raise UnsupportedLayerError(
            f"{step.path} multiplies by zero, which hides what it multiplies and its gradient; remove what "
            "it switches off"
        )
    return step.norm is not None or not step.affine.changes_nothing


def _require_none(waiting: Sequence[Step]) -> None:
    if waiting:
        raise UnsupportedLayerError(f"{waiting[0].path} stands beside no Linear layer; {_REMEDY}")


def permuted(layer: Linear, order: Array) -> Linear:
    """``layer`` on inputs h of which it is given ``h[order]``; ``order`` (n_in,) is a permutation."""
    fold = layer.fold or _nothing_folded(layer)
    columns = np.empty_like(order)
    columns[order] = np.arange(len(order))
    weight = freeze(layer.weight[:, columns])
    return replace(layer, weight=weight, fold=replace(fold, order=freeze(np.asarray(order))))


def scaled(layer: Linear, weights: Fraction, biases: Fraction) -> Linear:
    """``layer`` with its weights and biases times a number each, neither of them zero."""
    one = Affine.of()
    fold = layer.fold or _nothing_folded(layer)
    gain, bias_gain = fold.gain * weights, fold.bias_gain * biases
    bias = None if layer.bias is None else exact_array(fractions(layer.bias) * biases, layer.name)
    weight = _times(layer.weight, _spread(one.factor * weights, layer.shape[0]), None, layer.name)
    return replace(layer, weight=weight, bias=bias, fold=replace(fold, gain=gain, bias_gain=bias_gain))


def _before(layer: Linear, waiting: Sequence[Step]) -> Linear:
    """The layer on what the constants before it are given: W = V diag(factor), b = c + V shift."""
    wide = Affine.of()
    for step in waiting:
        wide = _fitting(step, layer.shape[1]).after(wide)
    fold = layer.fold or _nothing_folded(layer)
    bias = layer.bias
    for step in waiting:
        if step.norm is not None and bias is None:
            # dbeta = V^T db, and dgamma where the mean is not zero, tell of db, which dW does not
            raise UnsupportedLayerError(
                f"{step.path} stands before layer {layer.name!r}, which has no biases: the BatchNorm's own "
                "gradient says more than the layer's; give the layer biases"
            )
    if np.any(wide.shift != 0):
        if layer.bias is None:
            raise UnsupportedLayerError(
                f"{waiting[-1].path} shifts what layer {layer.name!r} is given, which has no biases that "
                f"could take it up; {_REMEDY}"
            )
        moved = _product(layer.weight, wide.shift)
        bias = exact_array(fractions(layer.bias) + moved, layer.name)
    weight = _times(layer.weight, None, wide.factor, layer.name)
    # layer.order says which input each column of V is for; these constants act on the inputs themselves
    factor, shift = freeze(wide.factor[fold.order]), freeze(wide.shift[fold.order])
    fold = replace(fold, factor=factor, shift=shift, norms=_norms(fold, waiting))
    return replace(layer, weight=weight, bias=bias, fold=fold)


def _norms(fold: Fold, steps: Sequence[Step]) -> tuple[str, ...] | None:
    """The parameters of BatchNorms that are folded once ``steps`` are; None where there is no BatchNorm."""
    found = [step.norm for step in steps if step.norm is not None]
    if not found:
        return fold.norms
    return (*(fold.norms or ()), *(name for names in found for name in names))


def _after(layer: Linear | None, step: Step) -> Linear:
    """The layer followed by the constants: W = diag(factor) V, b = factor c + shift."""
    assert layer is not None
    affine = _fitting(step, layer.shape[0])
    fold = layer.fold or _nothing_folded(layer)
    fold = replace(fold, norms=_norms(fold, [step]))
    gain, bias_gain, bias, named = freeze(fold.gain * affine.factor), fold.bias_gain, layer.bias, layer.named
    if bias is not None:
        bias = exact_array(fractions(bias) * affine.factor + affine.shift, layer.name)
        bias_gain = freeze(bias_gain * affine.factor)
    elif step.norm:
        # b = 1 beta - factor mean: the layer's biases are the BatchNorm's, whose gradient is db
        bias = exact_array(affine.shift, layer.name)
        named = next(layer.parameters())[0], step.norm[1]
    elif np.any(affine.shift != 0):
        raise UnsupportedLayerError(
            f"{step.path} adds constants that are not trained to what layer {layer.name!r} gives, which has "
            "no biases; give the layer biases instead"
        )
    weight = _times(layer.weight, affine.factor, None, layer.name)
    fold = replace(fold, gain=gain, bias_gain=bias_gain)
    return replace(layer, weight=weight, bias=bias, named=named, fold=fold)


def _fitting(step: Step, size: int) -> Affine:
    assert step.affine is not None
    try:
        return step.affine.spread(size)
    except ValueError:
        given = max(step.affine.factor.size, step.affine.shift.size)
        raise UnsupportedLayerError(
            f"{step.path} has {given} constants where there are {size} numbers; give one for each, one for "
            "all, or one per channel (C, 1, 1)"
        ) from None


def _nothing_folded(layer: Linear) -> Fold:
    rows, columns = layer.shape
    one, zero = Affine.of().factor, Affine.of().shift
    return Fold(
        gain=_spread(one, rows),
        bias_gain=_spread(one, rows),
        factor=_spread(one, columns),
        shift=_spread(zero, columns),
        order=freeze(np.arange(columns)),
    )


def _spread(values: Array, size: int) -> Array:
    return freeze(np.array(np.broadcast_to(values, (size,))))


def _product(weight: Array, vector: Array) -> Array:
    """``weight @ vector`` (n_out,) in Fractions: over common denominators, so in integers."""
    integers, denominator = _integers(weight)
    entries, below = _integers(vector)
    total = np.dot(integers, entries)
    return np.array([Fraction(int(t), denominator * below) for t in total], dtype=object)


def _integers(array: Array) -> tuple[Array, int]:
    """``(integers, denominator)`` of an exact array, whose quotient it is."""
    if array.dtype != object:
        # a double is an integer below 2^53 times a power of two; the least of those is taken out
        mantissas, exponents = np.frexp(array.astype(np.float64))
        whole = np.ldexp(mantissas, 53).astype(np.int64)
        least = min(0, int(exponents[whole != 0].min(initial=53)) - 53)
        shifts = np.where(whole == 0, 0, exponents - 53 - least)
        return whole.astype(object) << shifts.astype(object), 1 << -least
    denominator = 1
    for value in array.flat:
        if denominator % value.denominator:  # most divide it already
            denominator = lcm(denominator, value.denominator)
    found = np.empty(array.shape, dtype=object)
    for index, value in np.ndenumerate(array):
        found[index] = value.numerator * (denominator // value.denominator)
    return found, denominator


def _times(weight: Array, rows: Array | None, columns: Array | None, name: str) -> Array:
    """``diag(rows) weight diag(columns)``, exactly."""
    factors = (None if rows is None else rows[:, None], None if columns is None else columns[None, :])
    given = [f for f in factors if f is not None]
    if weight.dtype != object and (held := _held(weight, given)) is not None:
        return exact_array(held, name)
    needed, free = _BYTES * weight.size, memory_available()
    if needed > free:
        raise MemoryLimitError(
            f"folding constants into layer {name!r} takes about {needed / 1e9:.1f} GB of memory for exact "
            f"rationals, and {free / 1e9:.1f} GB are free; {_REMEDY}"
        )
    product, denominator = _integers(weight)
    for factor in given:
        integers, below = _integers(factor)
        product, denominator = product * integers, denominator * below
    return freeze(np.frompyfunc(lambda n: Fraction(n, denominator), 1, 1)(product))


def _held(weight: Array, factors: Sequence[Array]) -> Array | None:
    """``weight`` times arrays of Fractions, where float64 holds every product; else None."""
    bits, product = _significand(weight), weight.astype(np.float64)
    for factor in factors:
        try:
            as_float = factor.astype(np.float64)
        except OverflowError:
            return None
        if any(Fraction(f) != v for f, v in zip(as_float.flat, factor.flat, strict=True)):
            return None
        # a product of numbers with a and b binary digits has a + b at most, and 2^k adds none
        own = _significand(as_float)
        bits += own if own > 1 else 0
        with np.errstate(all="ignore"):
            product = product * as_float
        normal = (product == 0) == (weight == 0)
        normal &= (product == 0) | (np.abs(product) >= np.finfo(np.float64).tiny)
        if bits > 53 or not np.isfinite(product).all() or not normal.all():
            return None
    return product


def _significand(array: Array) -> int:
    """Binary digits from the first to the last that is 1, the most of any entry; 1 for powers of two."""
    mantissas, _ = np.frexp(array.astype(np.float64))
    whole = np.abs(np.ldexp(mantissas, 53).astype(np.int64))
    whole = whole[whole != 0]
    last = whole & -whole  # a power of two, the last digit that is 1
    return int((54 - np.frexp(last.astype(np.float64))[1]).max(initial=1))
