"""Releases at the doors: fitted to a user's model, and on disk as JSON of schema ``exan/release/1``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from exan_verify.api.files import about, write_atomically
from exan_verify.api.records import pretty, release_record
from exan_verify.core.certificate import ReleaseRecord
from exan_verify.core.network import ReluNetwork
from exan_verify.core.question import Release
from exan_verify.errors import CertificateRejected, FileError, InputError, fitting_into_memory, short
from exan_verify.exact.rational import RationalMatrix, product

RELEASE_SCHEMA = "exan/release/1"


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


def network_seen_through(network: ReluNetwork, release: Any, model: Any) -> ReluNetwork:
    """The network of ``model`` on the inputs x: where its first layer V has as many inputs as the release's
    basis B (d, r) has columns, it stands for the layer on B^T x, and becomes ``W_1 = V B^T``, exactly; else
    it stays. Raises :class:`InputError` where the model has a basis of its own, and another one.
    """
    basis = release.input_basis if isinstance(release, Release) else None
    first = network.layers[0]
    if basis is None or basis.shape[0] == basis.shape[1] or basis.shape[1] != first.shape[1]:
        return network
    own = None if isinstance(model, ReluNetwork) else _basis_of(model)
    if own is not None and not (own.shape == basis.shape and bool(np.all(own == basis))):
        raise InputError("release.input_basis is another one than the model's own; leave it out")
    weight = product(first.weight, RationalMatrix.of(basis).T).fractions()
    note = (
        f"asked about inputs x with {len(basis)} features, of which the first layer {first.name!r} sees B^T x"
    )
    layers = (replace(first, weight=weight), *network.layers[1:])
    return ReluNetwork(layers=layers, notes=(*network.notes, f"{note} (release.input_basis)"))


def projection_release(model: Any, batch: Any) -> Release | None:
    """What a model of :func:`exan_verify.project_inputs` sends of a batch of the inputs themselves, x with d
    features; None for other models, and where the batch has the r numbers that the first layer sees.
    """
    if isinstance(model, ReluNetwork) or not isinstance(batch, (tuple, list)) or len(batch) != 2:
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


def of_network(release: Any, network: ReluNetwork) -> Release | None:
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
