"""Networks from named tensors and from factories, for :func:`exan_verify.api.files.load_model`."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exan_verify.core.network import Array, Linear, ReluNetwork
from exan_verify.errors import (
    BudgetExhausted,
    FileError,
    InputError,
    ShapeError,
    UnsupportedLayerError,
    UsersCode,
    raise_problems,
    short,
)
from exan_verify.models.chain import to_network
from exan_verify.models.gradients import WRAPPERS, bare


def network_of_tensors(tensors: Mapping[str, Array]) -> ReluNetwork:
    """The network whose Linear layers are ``<layer>.weight``, ``<layer>.bias``, with ReLU between them.

    The network's ``notes`` say that this is assumed: a state dict does not name its activations. A prefix
    that wrappers put before every name (``module.``, ``_orig_mod.``, ``model.``) is left out, and said.

    The order is that of the only number in which the names differ (``0, 2, 4``; ``fc1, fc2``); other names
    are ordered by their widths when these fit together in one way only.

    Raises :class:`UnsupportedLayerError` for tensors of other layers, :class:`ShapeError` when the order is
    not clear.
    """
    tensors, prefix = without_wrappers(tensors)
    layers: dict[str, Linear] = {}
    problems = []
    for name, value in tensors.items():
        layer, _, parameter = name.rpartition(".")
        if parameter == "weight" and value.ndim == 2:
            layers[layer] = Linear(
                weight=value, bias=tensors.get(f"{layer}.bias" if layer else "bias"), name=layer
            )
        elif parameter != "bias" or f"{layer}.weight".lstrip(".") not in tensors:
            problems.append(
                f"tensor {name!r} of shape {value.shape} is not the weight (n_out, n_in) or bias of a Linear "
                "layer; use a factory package.module:name for other models"
            )
    raise_problems(UnsupportedLayerError, problems)
    if not layers:
        raise UnsupportedLayerError("there are no tensors; save the state dict of a model with Linear layers")
    network = ReluNetwork(layers=tuple(layers[name] for name in _order(layers)))
    widths = "-".join(map(str, network.widths))
    between = "Linear layers with ReLU between them" if network.depth > 1 else "one Linear layer"
    assumed = f"{widths}, {between} (assumed: the file names no activation)"
    left_out = (f"prefix {prefix!r} of the file's names left out: a wrapper puts it there",) if prefix else ()
    return replace(network, notes=(assumed, *left_out))


def without_wrappers(tensors: Mapping[str, Array]) -> tuple[Mapping[str, Array], str]:
    """``tensors`` without what wrappers put before all their names, and that prefix; empty where none is."""
    prefix, first = "", next(iter(tensors), "").partition(".")[0]
    while first in WRAPPERS and all(name.startswith(f"{prefix}{first}.") for name in tensors):
        prefix = f"{prefix}{first}."
        first = next(iter(tensors))[len(prefix) :].partition(".")[0]
    return {name[len(prefix) :]: value for name, value in tensors.items()}, prefix


def load_factory(spec: str, weights: Mapping[str, Array] | None) -> ReluNetwork:
    """Call ``package.module:name`` without arguments, load ``weights`` into what it returns, convert that."""
    return to_network(make_model(spec, weights))


def make_model(spec: str, weights: Mapping[str, Array] | None, *arguments: int) -> Any:
    """What the factory ``package.module:name`` returns, with ``weights`` loaded into it; ``arguments``: what
    it is called with, none but for families of networks."""
    module_name, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # a console script does not look into the current folder
        sys.path.insert(0, here)
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise InputError(f"{short(spec)} is not a factory; write package.module:name")
    try:
        with UsersCode(f"{module_name} cannot be imported:", passing=(BudgetExhausted, ImportError)):
            factory: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            factory = getattr(factory, part)
    except ImportError as error:
        raise FileError(f"the module {module_name!r} cannot be imported ({error}); check the name") from None
    except AttributeError as error:
        raise FileError(f"{error}; check the part after the colon") from None
    if not callable(factory):
        raise InputError(
            f"{attribute!r} is a {type(factory).__name__}; name a function that returns the model"
        )
    given = f"with {', '.join(map(str, arguments))}" if arguments else "without arguments"
    with UsersCode(f"calling it {given} raised"):
        model = factory(*arguments)
    if weights is not None:
        _load_weights(model, weights)
    return model


def _load_weights(model: Any, weights: Mapping[str, Array]) -> None:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise InputError(f"--weights needs a factory of a torch.nn.Module, not of a {type(model).__name__}")
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    # as gradients are taken: names that differ by a wrapper's prefix, on either side, mean the same
    known = {bare(name): name for name in expected}
    if len(known) == len(expected) and len({bare(name) for name in weights}) == len(weights):
        weights = {
            name if name in expected else known.get(bare(name), name): v for name, v in weights.items()
        }
    problems = [f"weights: tensor {n!r} is missing" for n in expected if n not in weights]
    problems += [f"weights: tensor {n!r} belongs to no parameter" for n in weights if n not in expected]
    problems += [
        f"weights: tensor {n!r} has shape {value.shape}, the model's has {expected[n]}"
        for n, value in weights.items()
        if n in expected and value.shape != expected[n]
    ]
    raise_problems(ShapeError, problems)
    # assign=True keeps the stored dtype: no rounding to the dtype that the factory happens to use
    try:
        loaded = {n: torch.tensor(value) for n, value in weights.items()}
    except TypeError as error:
        raise InputError(f"weights: {error}; store float32 or float64") from None
    with UsersCode("loading the weights raised"):
        model.load_state_dict(loaded, assign=True)
    model.requires_grad_(True)


def _order(layers: Mapping[str, Linear]) -> list[str]:
    numbers = {name: [int(n) for n in re.findall(r"\d+", name)] for name in layers}
    if len({re.sub(r"\d+", "#", name) for name in layers}) == 1:
        differing = [
            k for k, column in enumerate(zip(*numbers.values(), strict=True)) if len(set(column)) > 1
        ]
        if len(differing) <= 1:
            return sorted(layers, key=lambda name: numbers[name])
    chains = _chains(layers)
    if len(chains) == 1:
        return chains[0]
    how_many = "more than one order" if chains else "no order"
    raise ShapeError(
        f"the order of the layers {list(layers)} is not clear from their names, and their widths fit "
        f"together in {how_many}; name them 0, 2, 4, ... as torch.nn.Sequential does"
    )


def _chains(layers: Mapping[str, Linear]) -> list[list[str]]:
    """At most two orders in which every layer takes as many inputs as the one before gives.

    A layer leads from one width to another, so an order is a trail over all of them (Euler's); one that can
    no longer be finished is left at once, and the search never goes back far. Of more than a hundred layers
    none is tried.
    """
    if len(layers) > 100:
        return []
    found: list[list[str]] = []
    trail: list[str] = []
    widths = {name: (layer.shape[1], layer.shape[0]) for name, layer in layers.items()}

    def extend(left: frozenset[str]) -> None:
        if not left:
            found.append(list(trail))
        for name in layers:
            fits = not trail or widths[name][0] == widths[trail[-1]][1]
            rest = left - {name}
            if name in left and fits and len(found) < 2 and _has_trail(rest, widths, widths[name][1]):
                trail.append(name)
                extend(rest)
                trail.pop()

    extend(frozenset(layers))
    return found


def _has_trail(names: frozenset[str], widths: Mapping[str, tuple[int, int]], start: int) -> bool:
    """Whether the layers can follow one another, beginning at the width ``start`` (Euler's criterion)."""
    surplus = Counter[int]()
    beside: dict[int, set[int]] = {}
    for name in names:
        a, b = widths[name]
        surplus[a] += 1
        surplus[b] -= 1
        beside.setdefault(a, set()).add(b)
        beside.setdefault(b, set()).add(a)
    open_ends = {width: s for width, s in surplus.items() if s}
    if open_ends and not (open_ends.get(start) == 1 and sorted(open_ends.values()) == [-1, 1]):
        return False
    reached, todo = {start}, [start]
    while todo:
        more = beside.get(todo.pop(), set()) - reached
        reached |= more
        todo += more
    return not names or set(beside) <= reached
