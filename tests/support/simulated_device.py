"""An accelerator without hardware: tensors that say ``device="meta"`` and carry their numbers on the CPU.

What goes wrong on a real accelerator goes wrong here too: an operation on tensors of two devices (zero-
dimensional CPU tensors apart), an index on the wrong device, ``numpy()`` of a device tensor, a random
generator of another device. So code that runs here has its tensors where it should.

    with simulated_device():
        attack(model, gradient, device="meta")
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from exan_verify.numeric import waiting

META = torch.device("meta")


class DeviceTensor(torch.Tensor):
    """A tensor on the simulated device; ``held`` has its numbers."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> DeviceTensor:
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=META,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.held!r})"

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class SimulatedDevice(TorchDispatchMode):
    """Sends what is made on, or copied to, the simulated device there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class MadeFromData(TorchFunctionMode):
    """``torch.tensor`` and indices in lists go to a device before a dispatch mode can look at them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device) == META:
            return func(*args, **{**kwargs, "device": "cpu"}).to(META)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            args = (args[0], _index(args[1]), *args[2:])
        return func(*args, **kwargs)


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    return torch.tensor(index, dtype=None if index else torch.long) if isinstance(index, list) else index


@contextmanager
def simulated_device() -> Iterator[None]:
    """Inside, ``"meta"`` is a device that computes, on the threads of an attack too."""
    with MadeFromData(), SimulatedDevice(), mock.patch.object(waiting, "Thread", _Thread):
        yield


class _Thread(threading.Thread):
    """A thread that has the simulated device, as torch keeps modes for every thread separately."""

    def run(self) -> None:
        with MadeFromData(), SimulatedDevice():
            super().run()


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    # indices may lie on the CPU, as in torch
    checked = (args[:1], args[2:]) if func in _INDEXING else args
    given = [value for value in tree_flatten((checked, kwargs))[0] if isinstance(value, torch.Tensor)]
    there = [value for value in given if isinstance(value, DeviceTensor)]
    moved = func in _COPIES
    asked = kwargs.get("device")
    if there and not moved:
        strangers = [t for t in given if not isinstance(t, DeviceTensor) and t.dim()]
        if strangers:
            raise RuntimeError(
                f"{func} mixes the simulated device with the CPU: CPU tensors of shapes "
                f"{[tuple(t.shape) for t in strangers]}"
            )
    target = torch.device(asked) if asked is not None else (META if there else torch.device("cpu"))
    if func is torch.ops.aten.copy_.default:
        target = META if isinstance(args[0], DeviceTensor) else torch.device("cpu")
    if isinstance(kwargs.get("generator"), torch.Generator) and target == META:
        raise RuntimeError(f"{func} draws on the simulated device with a generator of the CPU")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu") if target == META else target}
    plain_args, plain_kwargs = tree_map(_held, args), tree_map(_held, kwargs)
    result = func(*plain_args, **plain_kwargs)
    if target != META:
        return result
    known = {id(t.held): t for t in there}
    return tree_map(lambda value: _wrapped(value, known), result)


_INDEXING = frozenset(
    {
        torch.ops.aten.index.Tensor,
        torch.ops.aten.index_put.default,
        torch.ops.aten.index_put_.default,
        torch.ops.aten._index_put_impl_.default,
    }
)
_COPIES = frozenset(
    {
        torch.ops.aten._to_copy.default,
        torch.ops.aten.copy_.default,
        torch.ops.aten._local_scalar_dense.default,
    }
)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, DeviceTensor) else value


def _wrapped(value: Any, known: dict[int, DeviceTensor]) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    # an operation in place returns the tensor it was given
    return known[id(value)] if id(value) in known else DeviceTensor(value)
