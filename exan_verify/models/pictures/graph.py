"""From a ``torch.nn.Module`` with convolutions to a :class:`ConvolutionalNetwork`.

The forward is traced (``torch.fx``) and every step must be on the list: Conv2d, BatchNorm in eval mode,
ReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d with windows of one size, sums of two branches, Flatten,
constant shifts and scales of the pictures as they enter, zeros around what a Conv2d takes, and what changes
nothing; then a head of Linear layers with ReLU between them. The rest is refused by its path.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn import functional

from exan_verify.errors import InputError, UnsupportedLayerError, short, whole
from exan_verify.models.arithmetic import affine_of
from exan_verify.models.chain import (
    arguments,
    check_hooks,
    describe,
    is_size,
    keeps_samples,
    name_of,
    path_of,
    trace,
    unwrap,
)
from exan_verify.models.folding import Affine
from exan_verify.models.normalised import check_numbers
from exan_verify.models.pictures.head import (
    HeadStep,
    assemble_head,
    check_parameters,
    normalisation,
    trained_shift,
)
from exan_verify.models.pictures.shapes import resolve
from exan_verify.models.pictures.stages import (
    AdaptivePool,
    Add,
    AveragePool,
    Convolution,
    ConvolutionalNetwork,
    Flatten,
    Fold,
    MaxPool,
    Relu,
    Scale,
    Stage,
)

_SUPPORTED = (
    "use Conv2d (with ZeroPad2d before it), BatchNorm in eval mode, ReLU, MaxPool2d, AvgPool2d, "
    "AdaptiveAvgPool2d, Dropout in eval mode, sums of two branches, constant shifts and scales of the "
    "pictures as they enter, and Flatten, then Linear layers with ReLU between them"
)
_SPATIAL = (nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def is_convolutional(model: Any) -> bool:
    """Whether ``model`` has layers that only this walker knows."""
    model, _ = unwrap(model)
    return isinstance(model, nn.Module) and any(type(m) in _SPATIAL for m in model.modules())


def to_convolutional(model: Any, input_shape: Sequence[int] | None = None) -> ConvolutionalNetwork:
    """The stages and the head of ``model``, in float64.

    ``input_shape`` (C, H, W) is needed where the head fits several picture sizes; without it, the model's
    attribute ``input_shape`` is used if it has one, then the only square size that fits.

    Raises :class:`UnsupportedLayerError` naming type and path of what cannot be expressed,
    :class:`ShapeError` for a size that does not fit, :class:`InputError` for frozen, shared, unused or
    missing parameters.
    """
    model, _ = unwrap(model)
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; pass a torch.nn.Module (not its state_dict)")
    check_hooks(model)
    walker = _Walker(model)
    walker.follow(trace(model, _SUPPORTED))
    head, sources = assemble_head(walker.head)
    check_parameters(model, walker.used)
    network = ConvolutionalNetwork(
        body=tuple(walker.body),
        input_shape=(),
        head=head,
        head_sources=tuple(sources),
        parameters={name: tuple(p.shape) for name, p in model.named_parameters()},
    )
    wanted = input_shape if input_shape is not None else getattr(model, "input_shape", None)
    if wanted is None:
        return resolve(network, None)
    if not isinstance(wanted, (tuple, list)):
        raise InputError(f"input_shape={short(wanted)} cannot be used; give (C, H, W)")
    return resolve(network, tuple(whole(n, "input_shape", most=1 << 20) for n in wanted))


class _Walker:
    """Collects body and head while following the graph."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.body: list[Stage] = []
        self.head: list[HeadStep] = []
        self.used: dict[str, bool] = {}
        self._places: dict[Node, int] = {}
        self._made: dict[int, Node] = {}
        self._stored: dict[Node, str] = {}
        self._padded: dict[Node, tuple[int, int, int, int]] = {}
        self._last: Node | None = None
        self._flat = not any(type(m) in _SPATIAL and type(m) is not nn.BatchNorm1d for m in model.modules())

    def follow(self, nodes: list[Node]) -> None:
        for node in nodes:
            if node.op == "placeholder":
                if self._places and node.users:
                    raise UnsupportedLayerError(
                        f"forward takes a second input {node.target!r}; give it one input"
                    )
                self._places.setdefault(node, 0)
                self._last = self._last or node
            elif is_size(node):
                continue
            elif node.op == "get_attr":
                self._stored[node] = str(node.target)
            elif node.op == "output":
                if node.args != (self._last,):
                    raise UnsupportedLayerError(
                        "forward must return the logits and nothing else, in one tensor"
                    )
            else:
                self._check_in_place(node)
                self._step(node)

    def _check_in_place(self, node: Node) -> None:
        """What is changed in place must have no other reader: the graph does not show the change to it."""
        module = self.model.get_submodule(str(node.target)) if node.op == "call_module" else None
        name = getattr(node.target, "__name__", str(node.target))
        in_place = getattr(module, "inplace", False) or (module is None and name.endswith("_"))
        in_place = in_place or node.target is operator.iadd or node.kwargs.get("inplace") is True
        source = node.args[0] if node.args else None
        if not node.users or (in_place and isinstance(source, Node) and len(source.users) > 1):
            raise UnsupportedLayerError(
                f"{name_of(self.model, node)} works in place on a value that is used elsewhere, "
                "or its own value is not used; use its result, and not in place"
            )

    def _step(self, node: Node) -> None:
        operands = (*node.args, *node.kwargs.values())
        inputs = tuple(
            a for a in operands if isinstance(a, Node) and not is_size(a) and a not in self._stored
        )
        if not inputs or any(a not in self._places for a in inputs):
            raise UnsupportedLayerError(
                f"{name_of(self.model, node)} does not take the outputs of steps before it; "
                "the forward must be a graph of supported steps from one input"
            )
        if self._flat and inputs != (self._last,):
            raise UnsupportedLayerError(
                f"{name_of(self.model, node)} branches in the fully connected head; "
                "the head must be one chain"
            )
        place = name_of(self.model, node)
        affine = None
        takes_padding = node.target is functional.pad or (
            node.op == "call_module"
            and isinstance(self.model.get_submodule(str(node.target)), nn.Conv2d | nn.ZeroPad2d)
        )
        if any(a in self._padded for a in inputs) and not takes_padding:
            raise UnsupportedLayerError(
                f"{place} takes padded values; zeros around them go to a Conv2d alone"
            )
        if len(inputs) == 1:
            affine = affine_of(self.model, node, inputs[0], self._stored, place)
        if affine is not None:
            self._constant(node, affine, place, inputs)
        elif node.op == "call_module":
            self._module(node, inputs)
        else:
            self._function(node, inputs)
        self._last = node

    def _constant(self, node: Node, affine: Affine, place: str, inputs: tuple[Node, ...]) -> None:
        """A constant shift and scale of the pictures as they enter, one number or one for each channel."""
        enters = all(isinstance(stage, Scale) and stage.exact is not None for stage in self.body)
        plain = affine.per_channel or not (affine.factor.ndim or affine.shift.ndim)
        if not enters or not plain or self._flat:
            raise UnsupportedLayerError(
                f"{place} shifts or scales values of a network with convolutions, other than the pictures as "
                "they enter with one number or one for each channel; apply it to the data instead, and "
                "remove it from the model"
            )
        if np.any(affine.factor == 0):
            raise UnsupportedLayerError(f"{place} multiplies by zero, which hides pixels; remove it")
        factor, shift = (
            torch.from_numpy(np.atleast_1d(part).astype(np.float64)) for part in (affine.factor, affine.shift)
        )
        path = f"{path_of(self.model, node)}.{node.name}"
        stage = Scale(path=path, inputs=self.places(inputs), factor=factor, shift=shift, exact=affine)
        self.add(node, stage)

    def _module(self, node: Node, inputs: tuple[Node, ...]) -> None:
        path = str(node.target)
        module = self.model.get_submodule(path)
        make = _MODULES.get(type(module))
        if make is None:
            raise UnsupportedLayerError(f"{describe(module, path)} is not supported; {_SUPPORTED}")
        self._claim(module, path)
        make(self, node, module, path, inputs)

    def _claim(self, module: nn.Module, path: str) -> None:
        """Every parameter once: a layer that is used twice adds two gradients into one tensor."""
        for name, _ in module.named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            if full in self.used:
                raise UnsupportedLayerError(
                    f"{describe(module, path)} is used more than once; give every place a layer of its own"
                )
            self.used[full] = True

    def add(self, node: Node, stage: Stage) -> None:
        """Append a stage whose value is that of ``node``; only pictures may get here."""
        if self._flat:
            raise UnsupportedLayerError(
                f"{name_of(self.model, node)} follows the point where pictures are flattened; {_SUPPORTED}"
            )
        self.body.append(stage)
        self._places[node] = len(self.body)
        self._made[len(self.body)] = node
        self._flat = isinstance(stage, Flatten)

    def places(self, inputs: tuple[Node, ...]) -> tuple[int, ...]:
        """The places of the values that a stage takes."""
        return tuple(self._places[a] for a in inputs)

    def sole_reader(self, node: Node) -> bool:
        """Whether the stage that made the value of ``node`` made it for one reader only."""
        return self._made.get(self._places[node]) is node and len(node.users) == 1

    def pad(self, node: Node, inputs: tuple[Node, ...], zeros: Sequence[int]) -> None:
        """Zeros (left, right, top, bottom) that the Conv2d after this step takes besides its own."""
        if min(zeros) < 0 or self._flat:
            raise UnsupportedLayerError(
                f"{name_of(self.model, node)} cuts values off, or pads what is no picture; {_SUPPORTED}"
            )
        before = self.padding(inputs[0])
        self._padded[node] = (
            before[0] + zeros[0],
            before[1] + zeros[1],
            before[2] + zeros[2],
            before[3] + zeros[3],
        )
        self._places[node] = self._places[inputs[0]]

    def padding(self, node: Node) -> tuple[int, int, int, int]:
        """The zeros around a value that its reader is to add."""
        return self._padded.get(node, (0, 0, 0, 0))

    def pass_on(self, node: Node, inputs: tuple[Node, ...]) -> None:
        """A step that changes nothing."""
        self._places[node] = self._places[inputs[0]]

    def add_head(self, node: Node, step: HeadStep) -> None:
        """Append a step of the head."""
        if not self._flat:
            raise UnsupportedLayerError(
                f"{name_of(self.model, node)} acts on pictures of shape (M, C, H, W); put a Flatten before it"
            )
        self.head.append(step)
        self._places[node] = len(self.body)

    def relu(self, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
        """ReLU in the body or the head."""
        if self._flat and not (self.body and not self.head):
            self.add_head(node, HeadStep(path=path))
        elif self._flat:
            # ReLU after Flatten and before any Linear: the features' own, the same on either side of Flatten
            flatten = self.body.pop()
            place = len(self.body)
            self.body.append(Relu(path=path, inputs=flatten.inputs))
            self.body.append(Flatten(path=flatten.path, inputs=(place + 1,)))
            self._places[node] = len(self.body)
        else:
            self.add(node, Relu(path=path, inputs=self.places(inputs)))

    def flatten(self, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
        """Flatten, unless it is flat already."""
        if self._flat:
            self.pass_on(node, inputs)
        else:
            self.add(node, Flatten(path=path, inputs=self.places(inputs)))

    def _function(self, node: Node, inputs: tuple[Node, ...]) -> None:
        path = path_of(self.model, node)
        target = getattr(Tensor, str(node.target), None) if node.op == "call_method" else node.target
        make = _FUNCTIONS.get(target)
        if make is None:
            raise UnsupportedLayerError(f"{name_of(self.model, node)} is not supported; {_SUPPORTED}")
        make(self, node, path, inputs)


# ---- modules ----------------------------------------------------------------------------------------------


def _convolution(w: _Walker, node: Node, module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    if module.padding_mode != "zeros":
        raise UnsupportedLayerError(
            f"{describe(module, path)} has padding_mode={module.padding_mode!r}; use zero padding"
        )
    check_numbers(module, path)
    around, own = w.padding(inputs[0]), _padding(module)
    w.add(
        node,
        Convolution(
            path=path,
            inputs=w.places(inputs),
            weight=module.weight.detach().double(),
            bias=None if module.bias is None else module.bias.detach().double(),
            stride=module.stride,
            padding=(own[0] + around[0], own[1] + around[1], own[2] + around[2], own[3] + around[3]),
            dilation=module.dilation,
            groups=module.groups,
            names=(f"{path}.weight", None if module.bias is None else f"{path}.bias"),
        ),
    )


def _padding(module: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom); 'same' puts the odd one to the right and the bottom, as torch does."""
    if module.padding == "valid":
        return (0, 0, 0, 0)
    if module.padding == "same":
        totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in totals)
        return (left, right, top, bottom)
    assert not isinstance(module.padding, str)
    vertical, horizontal = module.padding
    return (horizontal, horizontal, vertical, vertical)


def _zero_pad(w: _Walker, node: Node, module: Any, _path: str, inputs: tuple[Node, ...]) -> None:
    w.pad(node, inputs, module.padding)


def _batch_norm(w: _Walker, node: Node, module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    factor, shift = normalisation(module, path)
    (place,) = w.places(inputs)
    before = w.body[place - 1] if place else None
    # a factor of zero would hide the gradient of its channel; then, and where others use the value, keep it
    if (
        isinstance(before, Convolution)
        and before.fold is None
        and w.sole_reader(inputs[0])
        and bool(factor.all())
    ):
        bias = shift if before.bias is None else factor * before.bias + shift
        w.body[place - 1] = replace(
            before,
            weight=before.weight * factor[:, None, None, None],
            bias=bias,
            fold=Fold(path=path, scale=factor, shift=trained_shift(module, path)),
        )
        w.pass_on(node, inputs)
    else:
        w.add(node, Scale(path=path, inputs=(place,), factor=factor, shift=shift))


def _max_pool(w: _Walker, node: Node, module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    if module.ceil_mode or module.return_indices:
        raise UnsupportedLayerError(
            f"{describe(module, path)} has ceil_mode or return_indices set; leave both False"
        )
    w.add(node, _max_stage(path, w.places(inputs), module))


def _max_stage(path: str, inputs: tuple[int, ...], m: Any) -> MaxPool:
    kernel = _pair(m.kernel_size)
    stride = _pair(m.stride) if m.stride not in (None, (), []) else kernel
    return MaxPool(
        path=path,
        inputs=inputs,
        kernel=kernel,
        stride=stride,
        padding=_pair(m.padding),
        dilation=_pair(m.dilation),
    )


def _average_pool(w: _Walker, node: Node, module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    if module.ceil_mode:
        raise UnsupportedLayerError(f"{describe(module, path)} has ceil_mode set; leave it False")
    kernel = _pair(module.kernel_size)
    w.add(
        node,
        AveragePool(
            path=path,
            inputs=w.places(inputs),
            kernel=kernel,
            stride=_pair(module.stride) if module.stride not in (None, (), []) else kernel,
            padding=_pair(module.padding),
            count_padding=module.count_include_pad,
            divisor=module.divisor_override,
        ),
    )


def _adaptive_pool(w: _Walker, node: Node, module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    w.add(node, AdaptivePool(path=path, inputs=w.places(inputs), output=_output(module.output_size)))


def _output(size: Any) -> tuple[int | None, int | None]:
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


def _flatten_module(w: _Walker, node: Node, module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    if (module.start_dim, module.end_dim) not in ((1, -1), (1, 3)):
        raise UnsupportedLayerError(f"{describe(module, path)} must flatten everything but the samples")
    w.flatten(node, path, inputs)


def _dropout(w: _Walker, node: Node, module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    if module.training and module.p > 0:
        raise UnsupportedLayerError(
            f"{describe(module, path)} is in training mode, so the gradient is random: every sample passes "
            "through a network with other neurons switched off, which the gradient does not name; "
            "call model.eval() first"
        )
    w.pass_on(node, inputs)


def _head_module(w: _Walker, node: Node, module: Any, path: str, _inputs: tuple[Node, ...]) -> None:
    check_numbers(module, path)
    w.add_head(node, HeadStep(path=path, module=module))


def _nothing(w: _Walker, node: Node, _module: Any, _path: str, inputs: tuple[Node, ...]) -> None:
    w.pass_on(node, inputs)


def _relu_module(w: _Walker, node: Node, _module: Any, path: str, inputs: tuple[Node, ...]) -> None:
    w.relu(node, path, inputs)


_MODULES: Mapping[type, Callable[[_Walker, Node, Any, str, tuple[Node, ...]], None]] = {
    nn.Conv2d: _convolution,
    nn.ZeroPad2d: _zero_pad,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm1d: _head_module,
    nn.Linear: _head_module,
    nn.ReLU: _relu_module,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.Flatten: _flatten_module,
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
    nn.Identity: _nothing,
}


# ---- functions and methods --------------------------------------------------------------------------------


def _f_max_pool(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    kernel, stride, padding, dilation, ceil, indices = arguments(
        node, kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
    )
    pool = nn.MaxPool2d(kernel, stride or None, padding, dilation, indices, ceil)
    _max_pool(w, node, pool, f"{path}.{node.name}", inputs)


def _f_average_pool(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    given = arguments(
        node,
        kernel_size=None,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    pool = nn.AvgPool2d(given[0], given[1] or None, *given[2:])
    _average_pool(w, node, pool, f"{path}.{node.name}", inputs)


def _f_adaptive_pool(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    (size,) = arguments(node, output_size=None)
    w.add(node, AdaptivePool(path=f"{path}.{node.name}", inputs=w.places(inputs), output=_output(size)))


def _f_flatten(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    if arguments(node, start_dim=0, end_dim=-1) not in ((1, -1), (1, 3)):
        raise UnsupportedLayerError(f"{name_of(w.model, node)} must flatten everything but the samples")
    w.flatten(node, path, inputs)


def _f_reshape(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    if not keeps_samples(node):
        raise UnsupportedLayerError(f"{name_of(w.model, node)} must be to (M, n), one row per sample")
    w.flatten(node, path, inputs)


def _f_mean(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    """``x.mean((2, 3))``: global average pooling."""
    dims, keep = arguments(node, dim=None, keepdim=False)
    if not isinstance(dims, (tuple, list)) or sorted(d % 4 for d in dims) != [2, 3]:
        raise UnsupportedLayerError(
            f"{name_of(w.model, node)} must be over height and width, the dimensions (2, 3)"
        )
    w.add(node, AdaptivePool(path=f"{path}.{node.name}", inputs=w.places(inputs), output=(1, 1)))
    if not keep:
        w.add(node, Flatten(path=path, inputs=(len(w.body),)))


def _f_add(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    if len(inputs) != 2 or arguments(node, other=None, alpha=1)[1] != 1:
        raise UnsupportedLayerError(f"{name_of(w.model, node)} must add the values of two branches")
    w.add(node, Add(path=f"{path}.{node.name}", inputs=w.places(inputs)))


def _f_pad(w: _Walker, node: Node, _path: str, inputs: tuple[Node, ...]) -> None:
    pad, mode, value = arguments(node, pad=None, mode="constant", value=None)
    if mode != "constant" or value not in (None, 0) or not isinstance(pad, (tuple, list)) or len(pad) != 4:
        raise UnsupportedLayerError(
            f"{name_of(w.model, node)} must put zeros around pictures: (left, right, top, bottom) and 0"
        )
    w.pad(node, inputs, [int(n) for n in pad])


def _f_dropout(w: _Walker, node: Node, path: str, inputs: tuple[Node, ...]) -> None:
    probability, training = arguments(node, p=0.5, training=True)
    if training and probability:
        raise UnsupportedLayerError(
            f"dropout in {path!r} is switched on, so the gradient is random: every sample has a mask of its "
            "own; call model.eval() first and pass training=self.training"
        )
    w.pass_on(node, inputs)


def _f_nothing(w: _Walker, node: Node, _path: str, inputs: tuple[Node, ...]) -> None:
    w.pass_on(node, inputs)


_FUNCTIONS: Mapping[Any, Callable[[_Walker, Node, str, tuple[Node, ...]], None]] = {
    **dict.fromkeys((functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _Walker.relu),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), _f_max_pool),
    functional.avg_pool2d: _f_average_pool,
    functional.adaptive_avg_pool2d: _f_adaptive_pool,
    **dict.fromkeys((torch.flatten, Tensor.flatten), _f_flatten),
    **dict.fromkeys((torch.reshape, Tensor.reshape, Tensor.view), _f_reshape),
    **dict.fromkeys((torch.mean, Tensor.mean), _f_mean),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_), _f_add),
    functional.dropout: _f_dropout,
    functional.pad: _f_pad,
    Tensor.contiguous: _f_nothing,
}


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        one, two = value if len(value) == 2 else (value[0], value[0])
        return int(one), int(two)
    return int(value), int(value)
