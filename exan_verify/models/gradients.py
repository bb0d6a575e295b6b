"""Gradients as they come, under the names of a model's parameters.

What leaves a training loop is a mapping by name, or a list or tuple in the order of ``parameters()``; with
None where a parameter got no gradient, sparse tensors, buffers beside the parameters, and names that begin
with what a wrapper (``DataParallel``, ``torch.compile``, opacus) put before them. :func:`received` undoes
this in one place for every function that takes a gradient, and says what it did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from exan_verify.core.arrays import Array, fractions
from exan_verify.core.network import Gradient, Network
from exan_verify.core.question import Release
from exan_verify.errors import GradientError, InputError, raise_problems, short

WRAPPERS = ("module", "_orig_mod", "_module", "model")
"""Under which name DataParallel and DistributedDataParallel, torch.compile, opacus, and by custom a trainer's
module (Lightning, timm's EMA) keep the model."""

FOLDED_TOLERANCE = (
    "a tolerance is a distance from the model's own gradient, and constants of the model are folded into its "
    "layers; apply them to the data instead, and remove them from the model"
)
"""Why gradients within a tolerance are not asked about where a layer has a fold."""

NORMALISED_WHOLE = (
    "of a model with BatchNorm only the whole gradient of a batch is asked: gamma / sqrt(var + eps) is "
    "rounded, so that no gradient of its parameters is meant exactly; give batch=(x, y), without a release"
)
"""Why gradients alone and releases are not asked about where a BatchNorm is folded."""

_BUFFERS = frozenset({"num_batches_tracked", "running_mean", "running_var"})
_SHOWN = 3


def received(gradient: Any, model: Any, release: Release | None = None) -> Gradient:
    """``gradient`` under the names of ``model``'s parameters, with ``notes`` that say what was done.

    ``model``: a Network or ``torch.nn.Module``. ``gradient``: a mapping from name to tensor,
    a :class:`Gradient`, or a list or tuple with one tensor or None per parameter in the order of
    ``model.parameters()``. Entries that are None are taken as missing; whether anything may be missing, and
    whether shapes fit, is for whoever uses the gradient. ``release``: what it withholds is dropped unread; of
    a tensor sent in part the rows that are sent are left.

    Raises :class:`InputError` for another type, :class:`GradientError` where a list has another length, no
    tensor is left, or two tensors stand for one parameter.
    """
    shapes, buffers = _parameters(model)
    notes: list[str] = []
    tensors = _named(gradient, list(shapes), notes)
    missing = [name for name, value in tensors.items() if value is None]
    if missing:
        notes.append(f"{_listed(missing)} given as None, so taken as missing")
    tensors = {name: value for name, value in tensors.items() if value is not None}
    tensors = _without_wrappers(tensors, shapes, notes)
    dropped = [
        name
        for name in tensors
        if name not in shapes and (bare(name) in buffers or name.rpartition(".")[2] in _BUFFERS)
    ]
    if dropped:
        notes.append(f"{_listed(dropped)} left out: buffers, which have no gradient")
    tensors = {name: value for name, value in tensors.items() if name not in dropped}
    if release is not None:
        tensors = _sent(tensors, shapes, release)
    tensors = _dense(tensors, shapes, notes)
    if not tensors and release is not None:
        raise GradientError(
            "the gradient has nothing of what the release sends; add it, or take it out of the release"
        )
    if not tensors:
        raise GradientError(
            "the gradient has no tensors; pass one per parameter, under the parameters' names, taken after "
            "backward() and before zero_grad()"
        )
    if isinstance(gradient, Gradient):
        return Gradient(tensors=tensors, rational=gradient.rational, notes=(*gradient.notes, *notes))
    return Gradient(tensors=tensors, notes=tuple(notes))


def of_folded(gradient: Gradient, network: Network, *, exact: bool) -> Gradient:
    """``gradient``, that of the model's own parameters, as that of ``network``, into which constants of the
    model are folded (:class:`exan_verify.core.network.Fold`); the same where none are.

    ``exact``: in rationals; else in float64, rounded to the dtype that each tensor came with. Raises
    :class:`GradientError` where a weight's gradient needs that of the bias, and it is missing.
    """
    tensors = dict(gradient.tensors)
    for layer in network.layers:
        fold, (weight, *rest) = layer.fold, (name for name, _ in layer.parameters())
        if fold is None or any(n in tensors and tensors[n].shape != a.shape for n, a in layer.parameters()):
            continue  # what does not fit is named by whoever uses the gradient
        db = None
        if rest and rest[0] in tensors:
            db = _in(tensors[rest[0]], exact) / _in(fold.bias_gain, exact)
        if weight in tensors:
            dv = _in(tensors[weight], exact) / _in(fold.gain, exact)[:, None]
            if fold.shifted:
                if db is None:
                    raise GradientError(
                        f"tensor {rest[0]!r} is missing, and constants of the model shift what layer "
                        f"{layer.name!r} is given: that of its weights tells nothing without it; add it"
                    )
                dv = dv - db[:, None] * _in(fold.shift, exact)[None, :]
            dw = np.empty_like(dv)
            dw[:, fold.order] = dv / _in(fold.factor, exact)[None, :]
            tensors[weight] = dw if exact else dw.astype(tensors[weight].dtype)
        if db is not None:
            tensors[rest[0]] = db if exact else db.astype(tensors[rest[0]].dtype)
    return replace(gradient, tensors=tensors)


def _in(array: Array, exact: bool) -> Array:
    return fractions(array) if exact else np.asarray(array, dtype=np.float64)


def _parameters(model: Any) -> tuple[dict[str, tuple[int, ...]], Collection[str]]:
    """Shape of every parameter by name, in the order of ``parameters()``, and the names of the buffers."""
    if isinstance(model, Network):
        return {name: array.shape for name, array in model.parameters()}, ()
    from exan_verify.models.chain import unwrap  # torch is imported only for torch models

    model, _ = unwrap(model)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return shapes, {bare(name) for name, _ in model.named_buffers()}


def _named(gradient: Any, names: list[str], notes: list[str]) -> dict[str, Any]:
    if isinstance(gradient, Gradient):
        return dict(gradient.tensors)
    if isinstance(gradient, Mapping):
        return {str(name): value for name, value in gradient.items()}
    if not isinstance(gradient, (list, tuple)):
        raise InputError(
            f"gradient is {short(gradient)}; give a mapping from parameter name to tensor, such as "
            "{name: p.grad for name, p in model.named_parameters()}, or a list in the order of "
            "model.parameters()"
        )
    if len(gradient) != len(names):
        raise GradientError(
            f"the gradient is a list of {len(gradient)} tensors, the model has {len(names)} parameters "
            f"({_listed(names)}); give one tensor, or None, for each in the order of model.parameters()"
        )
    notes.append(f"{len(names)} tensors taken in the order of the model's parameters: {_listed(names)}")
    return dict(zip(names, gradient, strict=True))


def _without_wrappers(
    tensors: Mapping[str, Any], shapes: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """The names that differ from a parameter's only by prefixes of wrappers, on either side, set right."""
    known: dict[str, list[str]] = {}
    for name in shapes:
        known.setdefault(bare(name), []).append(name)
    found: dict[str, Any] = {}
    problems, prefixes = [], {"the gradient's": set[str](), "the model's": set[str]()}
    for name, value in tensors.items():
        meant = [name] if name in shapes else known.get(bare(name), [name])
        if len(meant) > 1 or meant[0] in found:
            problems.append(
                f"tensor {name!r} stands for {_listed(meant)}, as another may; give each one once"
            )
            continue
        found[meant[0]] = value
        if meant[0] != name:
            prefixes["the gradient's"].add(_prefix(name))
            prefixes["the model's"].add(_prefix(meant[0]))
    raise_problems(GradientError, problems)
    said = [f"{_listed(sorted(p - {''}))} of {whose} names" for whose, p in prefixes.items() if p - {""}]
    if said:
        notes.append(f"prefix {' and '.join(said)} left out: a wrapper puts it there")
    return found


def bare(name: str) -> str:
    """A parameter's name without the prefixes of wrappers."""
    first, dot, rest = name.partition(".")
    return bare(rest) if dot and first in WRAPPERS else name


def _prefix(name: str) -> str:
    return name[: len(name) - len(bare(name))]


def _sent(tensors: Mapping[str, Any], shapes: Mapping[str, Any], release: Release) -> dict[str, Any]:
    found = {}
    for name, value in tensors.items():
        mask = release.sends(name, shapes[name][0]) if name in shapes else np.ones(1, dtype=bool)
        if mask.any():
            rows = getattr(value, "shape", None) or np.shape(value)
            part = not mask.all() and tuple(rows)[:1] == mask.shape
            found[name] = _rows(value, np.flatnonzero(mask).tolist()) if part else value
    return found


def _rows(value: Any, kept: list[int]) -> Any:
    if hasattr(value, "to_dense"):
        return value.to_dense()[kept]
    return (value if hasattr(value, "shape") else np.asarray(value))[kept]


def _dense(tensors: Mapping[str, Any], shapes: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Sparse torch tensors written out, once their shape is known to be a parameter's."""
    sparse = [
        name
        for name, value in tensors.items()
        if hasattr(value, "to_dense") and str(getattr(value, "layout", "torch.strided")) != "torch.strided"
    ]
    raise_problems(
        GradientError,
        [
            f"tensor {name!r} is sparse, of shape {tuple(tensors[name].shape)}, the parameter's is "
            f"{shapes.get(name, 'not known')}; pass the gradient of this model"
            for name in sparse
            if tuple(tensors[name].shape) != shapes.get(name)
        ],
    )
    if sparse:
        notes.append(f"{_listed(sparse)} given sparse, written out in full")
    return {name: value.to_dense() if name in sparse else value for name, value in tensors.items()}


def _listed(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    more = len(quoted) - _SHOWN
    return ", ".join(quoted[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
