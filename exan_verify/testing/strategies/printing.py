"""How Hypothesis prints drawn records: as Python that makes them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis.vendor import pretty

from exan_verify.core.network import Batch, Gradient, ReluNetwork
from exan_verify.core.question import Box, Release
from exan_verify.instances import Instance, source


def _network(network: ReluNetwork) -> str:
    weights = source([layer.weight for layer in network.layers])
    if any(layer.bias is None for layer in network.layers):
        return f"ReluNetwork.from_arrays({weights})" if not network.mixed_biases else repr(network)
    return f"ReluNetwork.from_arrays({weights}, {source([layer.bias for layer in network.layers])})"


def _batch(batch: Batch) -> str:
    x, y = source(batch.inputs), source(batch.labels)
    return f"Batch(inputs=exact_array({x}, 'x'), labels=exact_array({y}, 'y'))"


def _gradient(gradient: Gradient) -> str:
    tensors = ", ".join(f"{name!r}: {source(array)}" for name, array in gradient.tensors.items())
    return f"Gradient(tensors={{{tensors}}})"


def _release(release: Release) -> str:
    rows = {name: list(mask) for name, mask in release.rows.items()}
    basis = None if release.input_basis is None else source(release.input_basis)
    tensors = None if release.tensors is None else list(release.tensors)
    return f"Release({tensors!r}, {rows!r}, {basis}, {release.weights.value!r})"


def register() -> None:
    """Tell Hypothesis; a version of it that has no such register prints these records as ever. (The method
    ``_repr_pretty_`` would be taken by IPython as well, which would print networks of any size.)
    """
    tell = getattr(pretty, "for_type_by_name", None)
    forms: dict[type, Callable[[Any], str]] = {
        Instance: repr,
        ReluNetwork: _network,
        Batch: _batch,
        Gradient: _gradient,
        Box: source,
        Release: _release,
    }
    for kind, form in forms.items():

        def shown(value: Any, printer: Any, cycle: bool, form: Any = form) -> None:  # noqa: ARG001
            printer.text(form(value))

        if tell is not None:
            tell(kind.__module__, kind.__qualname__, shown)
