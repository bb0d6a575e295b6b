"""Releases at the doors: fitted to a user's model, and on disk as JSON of schema ``exan/release/1``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from exan_verify.api.files import about, write_atomically
from exan_verify.api.records import pretty, release_record
from exan_verify.core.certificate import ReleaseRecord
from exan_verify.core.network import Array, Network, ReluNetwork
from exan_verify.core.question import Release
from exan_verify.errors import CertificateRejected, FileError, InputError, fitting_into_memory, short
from exan_verify.exact.rational import RationalMatrix, product

RELEASE_SCHEMA = "exan/release/1"

_EXACT = 1e-12
"""Relative distance of W_1 from V B^T that float64's rounding explains."""


@fitting_into_memory("reading the file")
def load_release(path: str | Path) -> Release:
    """The release stored in ``path``: an object with ``"schema": "exan/release/1"`` and, as needed,
    ``tensors`` (names), ``rows`` (booleans by name), ``input_basis`` (d rows of r numbers, integers or
    ``"num/den"``), ``averages`` (groups of samples, as lists of indices) and ``weights`` (``"equal"`` or
    ``"positive"``).

    Raises :class:`FileError` where it cannot be read, :class:`InputError` where it is no release; both name
    the file.
    """
    try:
        content = json.loads(Path(path).read_text(), object_pairs_hook=_object)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not JSON that holds a release ({short(str(error))})") from None
    with about(path):
        if not isinstance(content, dict) or content.get("schema") != RELEASE_SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else content
            raise InputError(f'has schema {short(found)}; a release has "schema": "{RELEASE_SCHEMA}"')
        fields = {name: value for name, value in content.items() if name != "schema"}
        if isinstance(fields.get("input_basis"), list):
            fields["input_basis"] = [_texts(row) for row in fields["input_basis"]]
        try:
            return msgspec.convert(fields, type=ReleaseRecord).asked()
        except msgspec.ValidationError as error:
            raise InputError(
                f"is no release: {error}; it has tensors (names), rows (true or false for each row, by "
                'name), input_basis (rows of integers or "num/den"), averages (groups of sample indices) and '
                'weights ("equal" or "positive")'
            ) from None
        except CertificateRejected as error:
            raise InputError(f"input_basis: {error}") from None


def save_release(path: str | Path, release: Release) -> None:
    """Write a release that :func:`load_release` reads, whole or not at all."""
    write_atomically(path, pretty({"schema": RELEASE_SCHEMA} | release_record(release)))


def network_seen_through(network: Network, release: Any, model: Any) -> Network:
    """The network of ``model`` on the inputs x: where its first layer V has as many inputs as the release's
    basis B (d, r) has columns, it stands for the layer on B^T x, and becomes ``W_1 = V B^T``, exactly; else
    it stays. Raises :class:`InputError` where the model has a basis of its own, and another one.
    """
    if not isinstance(network, ReluNetwork):
        return network  # of which no release is asked: said where it is decided
    if not _sees_projections(network, release, model):
        return network
    basis, first = release.input_basis, network.layers[0]
    weight = product(first.weight, RationalMatrix.of(basis).T).fractions()
    note = (
        f"asked about inputs x with {len(basis)} features, of which the first layer {first.name!r} sees B^T x"
    )
    layers = (replace(first, weight=weight), *network.layers[1:])
    return ReluNetwork(layers=layers, notes=(*network.notes, f"{note} (release.input_basis)"))


def _sees_projections(network: Network, release: Any, model: Any) -> bool:
    """Whether the first layer of ``network``, that of ``model``, takes the B^T x of the release's basis B."""
    basis = release.input_basis if isinstance(release, Release) else None
    if basis is None or basis.shape[0] == basis.shape[1] or basis.shape[1] != network.widths[0]:
        return False
    own = None if isinstance(model, Network) else _basis_of(model)
    if own is not None and not (own.shape == basis.shape and bool(np.all(own == basis))):
        raise InputError("release.input_basis is another one than the model's own; leave it out")
    return True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attacked:
    """A release as an attack is given it: the ``network`` that the samples enter (with a basis V and not
    V B^T), the ``release``, and ``rows``, the same without its basis and groups; both None where nothing is
    held back. ``notes``: what was done, a line each."""

    network: Network
    rows: Release | None
    release: Release | None
    notes: tuple[str, ...]

    def of(self, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """A gradient as that of the network on B^T x: dV = dW_1 B, where dW_1 is what is given."""
        from exan_verify.numeric.problem.problem import as_tensor

        name, _ = next(self.network.parameters())
        basis = None if self.release is None else self.release.input_basis
        if basis is None or name not in tensors:
            return tensors
        import torch

        given = as_tensor(tensors[name], f"gradient[{name!r}]")
        if given.dim() != 2 or given.shape[1] != len(basis):
            return tensors
        columns = torch.tensor(np.asarray(basis, dtype=np.float64), device=given.device)
        return {**tensors, name: (given.double() @ columns).to(given.dtype)}


def as_released(network: Network, release: Any, model: Any) -> Attacked:
    """``network``, that of ``model``, as a ``release`` shows it to an attack.

    Raises :class:`InputError` where the release does not fit, or the first layer is not V B^T for its basis.
    """
    if _sees_projections(network, release, model):
        _without_basis(release).check_against(network)
        asked, narrow = release, network
    else:
        asked, narrow = of_network(release, network), network
        if asked is not None and asked.input_basis is not None:
            narrow = _narrow(network, asked.input_basis)
    if asked is None:
        return Attacked(network=network, rows=None, release=None, notes=())
    if not any(asked.sends(name, len(array)).any() for name, array in network.parameters()):
        raise InputError("the release sends no row of any tensor, so there is nothing to attack")
    notes = [f"attacked is what is sent: {asked.described}; nothing else of the gradient was read"]
    if asked.input_basis is not None:
        notes.append(
            f"x are the {narrow.widths[0]} numbers B^T x of every sample: of its {len(asked.input_basis)} "
            "inputs what is sent has no more"
        )
    if asked.averages is not None:
        notes.append(
            f"x are the means of {len(asked.averages)} groups: what is sent has no more of the members"
        )
    rows = _without_basis(asked)
    return Attacked(
        network=narrow,
        rows=None if rows.is_whole(narrow) else rows,
        release=asked,
        notes=tuple(notes),
    )


def _without_basis(release: Release) -> Release:
    """What of the step's own gradient is sent, whatever its inputs are made of."""
    return Release(tensors=release.tensors, rows=release.rows, weights=release.weights)


def _narrow(network: Network, basis: Array) -> Network:
    """The network on B^T x: V from W_1 = V B^T by least squares."""
    first = network.layers[0]
    weight, columns = np.asarray(first.weight, dtype=np.float64), np.asarray(basis, dtype=np.float64)
    narrow = np.linalg.lstsq(columns, weight.T, rcond=None)[0].T
    if not np.linalg.norm(narrow @ columns.T - weight) <= _EXACT * np.linalg.norm(weight):
        raise InputError(
            "the model's first layer is not V B^T for release.input_basis B, so that no client that sees "
            "B^T x has its gradient; give the model of project_inputs(model, B), or one with V as first layer"
        )
    return replace(network, layers=(replace(first, weight=narrow), *network.layers[1:]))


def projection_release(model: Any, batch: Any) -> Release | None:
    """What a model of :func:`exan_verify.project_inputs` sends of a batch of the inputs themselves, x with d
    features; None for other models, and where the batch has the r numbers that the first layer sees.
    """
    if isinstance(model, Network) or not isinstance(batch, (tuple, list)) or len(batch) != 2:
        return None
    basis = _basis_of(model)
    if basis is None:
        return None
    try:
        shape = getattr(batch[0], "shape", None) or np.shape(batch[0])
    except ValueError:  # rows of several lengths, which whoever reads the batch names
        return None
    return None if math.prod(shape[1:]) != len(basis) else Release(input_basis=basis)


def _basis_of(model: Any) -> Any:
    from exan_verify.models.projected import basis_of  # torch is imported only for torch models

    return basis_of(model)


def of_network(release: Any, network: Network) -> Release | None:
    """A user's release, or None where it holds nothing back. Raises :class:`InputError` where it does not
    fit.
    """
    if not isinstance(release, Release):
        raise InputError(
            f"release={short(release)} cannot be used; give Release(...), or None for everything"
        )
    release.check_against(network)
    return None if release.is_whole(network) else release


def _texts(row: Any) -> Any:
    if not isinstance(row, list):
        return row
    return [str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in row]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    return found
