"""The steps of a training run: from files, or from what a training loop has in memory.

A run on disk is a folder of ``model*.safetensors`` and ``batch*.npz``, or JSON lines. In a folder what
follows ``model`` and ``batch`` in the names belongs together: ``model-0010.safetensors`` goes with
``batch-0010.npz``; a single model goes with every batch. A line of a manifest is an object ``{"model": ...,
"batch": ..., "step": ..., "epoch": ..., "accuracy": ...}``; ``model`` and ``batch`` are needed, and are
relative to the manifest's folder; ``"weights"`` is what ``--weights`` is where the model is a factory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import msgspec

from exan_verify.api.files import about, load_any_model, load_batch
from exan_verify.core.network import exact_array
from exan_verify.errors import FileError, InputError, short, whole

_MODELS = (".safetensors", ".onnx")
_BATCHES = (".npz", ".safetensors")
_SHOWN = 3
"""Files that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One step of a training run: the ``model`` as it was when the gradient was taken, and its ``batch``
    (x, y). ``step`` and ``epoch``: as the run counts them, from 0, default: the position, none; ``accuracy``
    in [0, 1], where it is known. ``source`` and ``line``: the file, and its line, that an error or a finding
    points to.

    Raises :class:`InputError` naming what cannot be used; what is in ``batch`` is looked at in its turn.
    """

    model: Any
    batch: tuple[Any, Any]
    step: int | None = None
    epoch: int | None = None
    accuracy: float | None = None
    source: str = ""
    line: int | None = None

    def __post_init__(self) -> None:
        batch: Any = self.batch
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(f"batch={short(batch)} cannot be used; give a pair (x, y)")
        for name in ("step", "epoch", "line"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, whole(value, name, least=0, most=2**53))
        accuracy: Any = self.accuracy
        if accuracy is not None:
            number: Any = -1 if isinstance(accuracy, bool) or not isinstance(accuracy, Real) else accuracy
            if not 0 <= number <= 1:
                raise InputError(
                    f"accuracy={short(accuracy)} cannot be used; give a number in [0, 1], or None"
                )
            object.__setattr__(self, "accuracy", float(accuracy))
        source: Any = self.source
        if not isinstance(source, str):
            raise InputError(f"source={short(source)} cannot be used; give the name of a file")

    def exact(self) -> Step:
        """The step with exact arrays. Raises :class:`InputError` naming x or y."""
        x, y = (exact_array(part, name) for part, name in zip(self.batch, ("x", "y"), strict=True))
        return replace(self, batch=(x, y))


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of a manifest."""

    model: str
    batch: str
    step: int | None = None
    epoch: int | None = None
    accuracy: float | None = None
    weights: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Where a step lies."""

    model: str
    batch: Path
    weights: Path | None
    line: _Line
    source: str
    number: int | None


class StoredSteps:
    """The steps of a run on disk, in order; each is read when it is its turn. ``len`` counts them.

    Raises :class:`FileError` for what is no run: empty, a line that is none, files that are missing.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        try:
            self._files = _of_folder(self._path) if self._path.is_dir() else _of_manifest(self._path)
        except ValueError as error:
            raise FileError(f"{str(path)!r} is not a path ({error})") from None
        self._last: tuple[Any, Any] = (None, None)

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Step]:
        for one in self._files:
            yield Step(
                model=self._model(one),
                batch=load_batch(one.batch),
                step=one.line.step,
                epoch=one.line.epoch,
                accuracy=one.line.accuracy,
                source=one.source,
                line=one.number,
            )

    def _model(self, one: _Files) -> Any:
        """The model of a step; one that serves many steps in a row is read once."""
        key = (one.model, one.weights)
        if self._last[0] != key:
            self._last = key, load_any_model(one.model, one.weights)
        return self._last[1]


def steps_of(steps: Any, model: Any = None) -> Iterable[Step]:
    """The steps that a user gives: a path, or an iterable of :class:`Step` or of pairs ``(model, batch)``;
    with ``model``, of batches ``(x, y)`` alone, as a DataLoader gives them.

    Raises :class:`InputError` where it is none of these, :class:`FileError` as :class:`StoredSteps` does.
    """
    if isinstance(steps, (str, Path)):
        if model is not None:
            raise InputError("a run on disk has its own models; leave out model=")
        return StoredSteps(steps)
    try:
        usable = not isinstance(steps, (bytes, dict)) and iter(steps) is not None
    except TypeError:  # also tensors and arrays without dimensions
        usable = False
    if not usable:
        raise InputError(
            f"steps={short(steps)} cannot be used; give a folder, a manifest, or an iterable of "
            "(model, batch)"
        )
    return _InMemory(steps, model)


class _InMemory:
    """Steps as a training loop has them; it counts them where ``steps`` does."""

    def __init__(self, steps: Iterable[Any], model: Any) -> None:
        self._steps, self._model = steps, model

    def __len__(self) -> int:
        return len(self._steps)  # type: ignore[arg-type]  # TypeError where nobody knows, as of any iterator

    def __iter__(self) -> Iterator[Step]:
        for index, given in enumerate(self._steps):
            if isinstance(given, Step):
                yield given
                continue
            if not isinstance(given, (tuple, list)) or len(given) != 2:
                wanted = "(model, batch)" if self._model is None else "(x, y)"
                raise InputError(
                    f"step {index}: {short(given)} cannot be used; give a pair {wanted}, or a Step"
                )
            model, batch = given if self._model is None else (self._model, tuple(given))
            with about(f"step {index}"):
                step = Step(model=model, batch=batch)
            yield step


def total(steps: Iterable[Step]) -> int | None:
    """How many there are, None where that is not known beforehand."""
    try:
        return len(steps)  # type: ignore[arg-type]
    except TypeError:
        return None


def _of_folder(folder: Path) -> list[_Files]:
    try:
        names = sorted(one.name for one in folder.iterdir())
    except OSError as error:
        raise FileError(f"{folder}: cannot be read ({error.strerror}); check the path") from None
    models, batches = _by_key(folder, names, "model", _MODELS), _by_key(folder, names, "batch", _BATCHES)
    for what, found, kinds in (("model", models, _MODELS), ("batch", batches, _BATCHES)):
        if not found:
            raise FileError(
                f"{folder}: there is no {what}*{kinds[0]} in it; a run is a folder of model*.safetensors and "
                "batch*.npz, or a manifest of JSON lines"
            )
    if len(models) > 1 and models.keys() != batches.keys():
        alone = sorted({**models, **batches}[key] for key in models.keys() ^ batches.keys())
        more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
        raise FileError(
            f"{folder}: {', '.join(alone[:_SHOWN])}{more} have no partner; a model and its batch have the "
            "same name but for model and batch, or write a manifest of JSON lines"
        )
    only = next(iter(models.values()))
    steps = []
    for key in sorted(batches, key=_natural):
        digits = re.findall(r"\d+", key)
        line = _Line(
            model=models.get(key, only), batch=batches[key], step=int(digits[-1]) if digits else None
        )
        steps.append(
            _Files(
                model=str(folder / line.model),
                batch=folder / line.batch,
                weights=None,
                line=line,
                source=str(folder / line.batch),
                number=None,
            )
        )
    return steps


def _by_key(folder: Path, names: Iterable[str], start: str, kinds: tuple[str, ...]) -> dict[str, str]:
    """File names by what stands between ``start`` and the suffix."""
    found: dict[str, str] = {}
    for name in names:
        path = Path(name)
        if not name.startswith(start) or path.suffix.lower() not in kinds:
            continue
        key = path.stem[len(start) :]
        if key in found:
            raise FileError(f"{folder}: {found[key]} and {name} are both {start}{key}; keep one of them")
        found[key] = name
    return found


def _natural(key: str) -> list[tuple[int, str]]:
    """Numbers in a name count as numbers: 9 is before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", key)]


def _of_manifest(path: Path) -> list[_Files]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    found = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = msgspec.json.decode(text, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FileError(
                f"{path}, line {number}: is no step ({error}); write an object with model, batch and, where "
                "known, step, epoch, accuracy"
            ) from None
        with about(f"{path}, line {number}"):
            found.append(_files(path, line, number))
    if not found:
        raise FileError(f"{path}: has no steps; write one JSON object per line, with model and batch")
    return found


def _files(path: Path, line: _Line, number: int) -> _Files:
    folder = path.parent
    is_factory = ":" in line.model and not (folder / line.model).exists()
    batch, weights = folder / line.batch, None if line.weights is None else folder / line.weights
    needed = [batch, *([] if weights is None else [weights]), *([] if is_factory else [folder / line.model])]
    missing = [str(one) for one in needed if not one.is_file()]
    if missing:
        raise FileError(f"there is no file {' and no file '.join(missing)}; correct the path")
    return _Files(
        model=line.model if is_factory else str(folder / line.model),
        batch=batch,
        weights=weights,
        line=line,
        source=str(path),
        number=number,
    )
