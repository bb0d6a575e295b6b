"""Files: models, gradients and batches, in formats that cannot run code; outputs appear whole or not at all.

MODEL: ``.onnx``, ``.safetensors`` (``<layer>.weight`` and ``<layer>.bias``, ReLU between the layers) or a
factory ``package.module:name``. GRADIENT: ``.safetensors`` or ``.npz`` under the parameters' names, or exact
JSON. BATCH: arrays ``x`` and ``y`` in ``.npz`` or ``.safetensors``. Importing this module leaves torch alone.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import os
import re
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from exan_verify.core.arrays import memory_available
from exan_verify.core.network import Array, Gradient, ReluNetwork, exact_array, to_fraction
from exan_verify.errors import (
    ExanError,
    FileError,
    GradientError,
    InexactError,
    InputError,
    LabelError,
    MemoryLimitError,
    NonFiniteError,
    PickleRefusedError,
    ShapeError,
    fitting_into_memory,
    short,
)

ABOUT_DATA = (ShapeError, LabelError, NonFiniteError, GradientError, InexactError)
"""Errors that speak of what a batch or gradient file holds, not of how it is used."""

GRADIENT_SCHEMA = "exan/gradient/1"
_DEPTH = 8
_DIGITS = 100_000
"""Digits of one number in a file: far above what exact gradients of deep networks have, and soon read."""
_RATIONAL = re.compile(r"-?\d+(/\d+)?")
_PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt"})


@fitting_into_memory("reading the file")
def load_model(spec: str | Path, weights: str | Path | None = None) -> ReluNetwork:
    """The exact network of a file, or of a factory ``package.module:name`` importable from here.

    ``weights`` is a ``.safetensors`` state dict that is loaded into the module a factory returns.

    Raises :class:`FileError`, :class:`PickleRefusedError`, or what ``to_network`` raises, naming ``spec``.
    """
    from exan_verify.models.files import load_factory, network_of_tensors

    suffix = Path(spec).suffix.lower()
    if _is_factory(spec):
        with about(spec):
            return load_factory(str(spec), None if weights is None else load_tensors(weights))
    if weights is not None:
        raise InputError(
            f"--weights goes with a factory package.module:name, but the model is the file {spec}"
        )
    if suffix == ".onnx":
        from exan_verify.models.onnx_files.read import load_onnx

        with about(spec):
            return load_onnx(spec)
    tensors = load_tensors(spec, allowed=(".safetensors",), also=", .onnx, or a factory package.module:name")
    with about(spec):
        return network_of_tensors(tensors)


@fitting_into_memory("reading the file")
def load_any_model(spec: str | Path, weights: str | Path | None = None) -> Any:
    """As :func:`load_model`, but what a factory returns is left as it is, and may have convolutions; an ONNX
    file with convolutions becomes a torch module, and one with other activations a network with these."""
    from exan_verify.models.files import make_model

    if _is_factory(spec):
        with about(spec):
            return make_model(str(spec), None if weights is None else load_tensors(weights))
    if weights is not None or Path(spec).suffix.lower() != ".onnx":
        return load_model(spec, weights)
    from exan_verify.models.onnx_files.read import has_pictures, load_any_onnx

    with about(spec):
        if not has_pictures(spec):
            return load_any_onnx(spec)
        from exan_verify.models.onnx_files.pictures import load_onnx_pictures

        return load_onnx_pictures(spec)


@fitting_into_memory("reading the file")
def load_gradient(path: str | Path) -> Gradient:
    """The gradient stored in ``path``: ``.safetensors``, ``.npz``, or exact JSON.

    JSON holds nested lists of integers and ``"num/den"`` strings under the parameters' names, either at the
    top or under ``"tensors"`` beside ``"schema": "exan/gradient/1"``.
    """
    with about(path):
        return Gradient(tensors=read_gradient(path))


@fitting_into_memory("reading the file")
def read_gradient(path: str | Path) -> Mapping[str, Any]:
    """The tensors of :func:`load_gradient` as they are: no number of what a release may withhold is looked
    at."""
    with about(path):
        if Path(path).suffix.lower() == ".json":
            return _exact_json(Path(path))
        return load_tensors(path, also=", or exact .json")


@fitting_into_memory("reading the file")
def load_batch(path: str | Path) -> tuple[Array, Array]:
    """``(x, y)``: inputs (M, ...) and labels (M,) or (M, K), from ``.npz`` or ``.safetensors``.

    Raises :class:`FileError` when one is missing, :class:`NonFiniteError` and :class:`ShapeError`, naming the
    file and the array.
    """
    tensors = load_tensors(path)
    missing = [name for name in ("x", "y") if name not in tensors]
    if missing:
        raise FileError(
            f"{path}: there is no array {' and no array '.join(repr(m) for m in missing)} "
            f"(there are: {', '.join(tensors) or 'none'}); store inputs as 'x' and labels as 'y'"
        )
    with about(path):
        x, y = (exact_array(tensors[name], name) for name in ("x", "y"))
        if x.ndim < 2 or 0 in x.shape:
            raise ShapeError(f"x has shape {x.shape}; give (M, ...) with at least one sample and one feature")
        if y.shape[:1] != x.shape[:1]:
            raise ShapeError(
                f"y has shape {y.shape} but x has {x.shape[0]} samples; give one label per sample"
            )
    return x, y


def load_tensors(
    path: str | Path, *, allowed: tuple[str, ...] = (".safetensors", ".npz"), also: str = ""
) -> dict[str, Array]:
    """All arrays of a ``.safetensors`` or ``.npz`` file by name; pickles are refused whatever their name."""
    path = Path(path)
    _refuse_pickle(path)
    suffix = path.suffix.lower()
    if suffix not in allowed:
        raise FileError(
            f"{path}: the format {suffix or 'without suffix'} is not known; use {' or '.join(allowed)}{also}"
        )
    return _read_npz(path) if suffix == ".npz" else _read_safetensors(path)


def save_batch(path: str | Path, x: Any, y: Any, **more: Any) -> None:
    """Write ``x`` and ``y`` (and ``more`` arrays) to ``.npz`` or ``.safetensors``, whole or not at all."""
    save_tensors(path, {"x": x, "y": y, **more})


def save_gradient(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write a gradient by parameter name to ``.safetensors`` or ``.npz``, or exactly to ``.json``.

    Fractions that are not dyadic need ``.json``. Raises :class:`FileError` on another suffix.
    """
    if Path(path).suffix.lower() != ".json":
        save_tensors(path, tensors)
        return
    exact = {name: _nested(exact_array(value, name)) for name, value in tensors.items()}
    text = json.dumps({"schema": GRADIENT_SCHEMA, "tensors": exact})
    write_atomically(path, text.encode())


def save_tensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write arrays by name to ``.safetensors`` or ``.npz``, whole or not at all.

    Raises :class:`InputError` naming what the format cannot hold: Fractions, and bfloat16 in ``.npz``.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".safetensors" and any(_is_bfloat16(value) for value in tensors.values()):
        write_atomically(path, _safetensors_by_torch(tensors, path))
        return
    arrays = {name: _storable(value, name, path) for name, value in tensors.items()}
    if suffix == ".npz":
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        write_atomically(path, stream.getvalue())
    elif suffix == ".safetensors":
        from safetensors.numpy import save

        write_atomically(path, save(arrays))
    else:
        raise FileError(
            f"{path}: cannot write the format {suffix or 'without suffix'}; use .npz or .safetensors"
        )


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write ``content`` under a temporary name in the same folder, flush it to disk, then rename it.

    After an error or an interruption ``path`` is what it was before. Raises :class:`FileError`.
    """
    target = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _default_mode())
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(
            f"{target}: cannot be written ({error.strerror}); check the folder and its rights"
        ) from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


@contextmanager
def about(path: str | Path, *kinds: type[ExanError]) -> Iterator[None]:
    """Put the file's name in front of errors of these kinds (default: any) on the way up."""
    try:
        yield
    except ExanError as error:
        if str(error).startswith(f"{path}:") or (kinds and not isinstance(error, kinds)):
            raise
        raise type(error)(f"{path}: {error}") from None


def _is_factory(spec: str | Path) -> bool:
    known = Path(spec).suffix.lower() in (".onnx", ".safetensors")
    return not known and not Path(spec).exists() and ":" in str(spec)


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _read_safetensors(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as stream:
            dtypes = {name: stream.get_slice(name).get_dtype() for name in stream.keys()}  # noqa: SIM118
            if "BF16" not in dtypes.values():
                return {name: stream.get_tensor(name) for name in dtypes}
        return _read_bfloat16(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except SafetensorError as error:
        raise FileError(
            f"{path}: not a whole .safetensors file ({error}); it may be truncated or of another format"
        ) from None
    # numpy or torch lacks the dtype
    except (TypeError, AttributeError, KeyError, ValueError, RuntimeError) as error:
        raise FileError(
            f"{path}: holds a dtype that cannot be read ({_first_line(error)}); store float32 or float64"
        ) from None


def _read_bfloat16(path: Path) -> dict[str, Array]:
    """Numpy has no bfloat16; torch reads it, and float32 holds its values exactly."""
    import torch
    from safetensors.torch import load_file

    loaded = load_file(str(path))
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in loaded.items()}


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size, free = sum(member.file_size for member in members), memory_available()
            if size > free:
                raise MemoryLimitError(
                    f"{path}: holds arrays of {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are "
                    "free; store fewer samples"
                )
            names = [member.filename.removesuffix(".npy") for member in members]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise FileError(f"{path}: holds the array {twice[0]!r} more than once; store each once")
            return {
                name: _read_npy(archive, member, path) for name, member in zip(names, members, strict=True)
            }
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    # RuntimeError: encrypted; NotImplementedError: an unknown compression; SyntaxError: in a header
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, KeyError),
        *(RuntimeError, TypeError, SyntaxError, tokenize.TokenError, OverflowError),
    ) as error:
        raise FileError(
            f"{path}: not a whole .npz file ({_first_line(error)}); it may be truncated, damaged or of "
            "another format"
        ) from None


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Array:
    """One array of an .npz. Its header is believed only as far as the member is long."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the .npy format is not known")
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise PickleRefusedError(
            f"{path}: holds Python objects, that is a pickle; store plain numbers, for example "
            "numpy.savez(path, x=numpy.asarray(x, dtype='float32'), y=numpy.asarray(y))"
        )
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"the header of {member.filename!r} promises more than there is")
    with archive.open(member) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
        torch_archive = head.startswith(b"PK") and _holds_pickle(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except ValueError as error:
        raise FileError(f"{str(path)!r} is not a path ({error})") from None
    # a pickle begins with 0x80 and its protocol; a .safetensors with a length that may look alike, then "{"
    pickled = head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") and head[8:] != b"{"
    if torch_archive or pickled or path.suffix.lower() in _PICKLE_SUFFIXES:
        converted = path.with_suffix(".safetensors")
        name = str(converted if converted != path else path.with_name(f"{path.stem}-converted.safetensors"))
        raise PickleRefusedError(
            f"{path}: is a pickle, which can run code when loaded; convert it once where you trust it:\n"
            f'  python -c "import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in '
            f"torch.load('{path}', weights_only=True).items()}}, '{name}')\""
        )


def _holds_pickle(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
        return False


def _exact_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(), parse_int=_whole_number)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except ValueError as error:  # also JSONDecodeError, UnicodeDecodeError, too many digits, a strange path
        raise FileError(f"{path}: not JSON that holds a gradient ({_first_line(error)})") from None
    except RecursionError:
        raise FileError(f"{path}: its lists are nested too deep; give one nested list per tensor") from None
    if not isinstance(data, dict):
        raise FileError(f"{path}: must be an object with one nested list per parameter name")
    schema = data.get("schema", GRADIENT_SCHEMA)
    if schema != GRADIENT_SCHEMA:
        raise FileError(f"{path}: has schema {short(schema)}; this version reads {GRADIENT_SCHEMA!r}")
    if "schema" not in data and isinstance(data.get("tensors"), dict):
        raise FileError(f'{path}: has no "schema"; write "schema": "{GRADIENT_SCHEMA}" beside "tensors"')
    tensors = data.get("tensors") if "schema" in data else data
    if not isinstance(tensors, dict):
        raise FileError(f"{path}: 'tensors' must be an object with one nested list per parameter name")
    return {name: _rational_tensor(value, name) for name, value in tensors.items()}


def _rational_tensor(value: Any, name: str) -> Any:
    """An object array of Fractions from nested lists of integers and "num/den" strings."""

    def convert(entry: Any, depth: int) -> Any:
        if isinstance(entry, list):
            if depth == _DEPTH:
                raise ShapeError(f"{name} is nested more than {_DEPTH} deep; give the parameter's shape")
            return [convert(e, depth + 1) for e in entry]
        if isinstance(entry, int) and not isinstance(entry, bool):
            return Fraction(entry)
        if (
            isinstance(entry, str)
            and len(entry) <= 2 * _DIGITS
            and _RATIONAL.fullmatch(entry)
            and not re.search(r"/0+$", entry)
        ):
            return Fraction(entry)
        raise InputError(
            f'{name} contains {short(entry)}; write exact numbers as integers or "num/den" strings '
            "(floating-point gradients go into .safetensors or .npz)"
        )

    try:
        array = np.array(convert(value, 0), dtype=object)
    except InputError:
        raise
    except ValueError as error:
        raise ShapeError(f"{name} is not a rectangular nested list ({error})") from None
    if any(isinstance(v, list) for v in array.reshape(-1)):
        raise ShapeError(f"{name} is not a rectangular nested list; give every row the same length")
    return array


def _whole_number(digits: str) -> int:
    """An integer of a JSON file; of so many digits that reading it would take seconds it is none."""
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _nested(array: Array) -> Any:
    if array.ndim == 0:
        return str(to_fraction(array.item()))
    return [_nested(np.asarray(row)) for row in array]


def _is_bfloat16(value: Any) -> bool:
    return hasattr(value, "detach") and str(value.dtype) == "torch.bfloat16"


def _safetensors_by_torch(tensors: Mapping[str, Any], path: str | Path) -> bytes:
    """The content of a file with bfloat16 tensors, which numpy does not have."""
    import torch
    from safetensors.torch import save

    written: bytes = save(
        {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            if _is_bfloat16(value)
            else torch.from_numpy(_storable(value, name, path))
            for name, value in tensors.items()
        }
    )
    return written


def _storable(value: Any, name: str, path: str | Path) -> Array:
    if _is_bfloat16(value):
        raise InputError(
            f"{path}: {name} is bfloat16, which this format cannot store; write to .safetensors, or pass "
            "it as float32 (.float()), which holds the same values"
        )
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    if array.dtype == object:
        raise InputError(
            f"{path}: {name} holds Fractions, which this format cannot store; write exact gradients to .json"
        )
    return np.ascontiguousarray(array)
