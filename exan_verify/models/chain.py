"""From a ``torch.nn.Module`` to an exact :class:`Network`.

The module's forward is traced symbolically (``torch.fx``) and must be one chain: Linear layers with ReLU, or
another piecewise linear activation, between them, layers around them that change nothing (Flatten, Identity,
Dropout that is off), and constants beside a Linear layer that shift and scale each number by itself
(:mod:`exan_verify.models.folding`). Whatever else it does is refused with its type and path: a verdict about
another function would be worthless.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.network import Activation, Linear, Network, PiecewiseNetwork, ReluNetwork, exact_array
from exan_verify.errors import InputError, UnsupportedLayerError
from exan_verify.models.activations import Make, of_function, of_module
from exan_verify.models.arithmetic import Stored, affine_of
from exan_verify.models.folding import Affine, fold_constants

if TYPE_CHECKING:
    from types import FrameType

    import torch
    from torch.fx import Node

_SUPPORTED = (
    "use Linear layers with ReLU between them (and Flatten, Identity, Dropout in eval mode, constant shifts "
    "and scales)"
)


class Kind(Enum):
    """What one step of a forward pass does."""

    LINEAR = "Linear"
    RELU = "ReLU"
    CONSTANT = "constant"
    OTHER = "other"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a forward pass: its kind, the path it is known by, the layer of a Linear step, and the
    shift and scale of a CONSTANT one.

    ``activation``: of a RELU step that is another activation, what it is for so many neurons, whose layer
    has numbers of the given dtype. ``norm``: of a CONSTANT that is a BatchNorm in eval mode, the names of its
    weight and bias, or none where it has none.
    """

    kind: Kind
    path: str
    layer: Linear | None = None
    activation: Make | None = None
    affine: Affine | None = None
    norm: tuple[str, ...] | None = None


def to_network(model: Any) -> ReluNetwork:
    """The exact network that ``model`` computes, with ReLU between its layers; a :class:`ReluNetwork` is
    returned as it is.

    Parameters keep their names (``"0.weight"``, ``"fc1.bias"``) and their exact values, whatever their
    dtype (float16, bfloat16, float32, float64). The input is flattened to (M, d). Wrappers are taken off
    (:func:`unwrap`); the network's ``notes`` say which.

    Raises :class:`UnsupportedLayerError` naming the type and path of what cannot be expressed, and
    :class:`InputError` for what is not a model, or has frozen, shared or non-finite parameters.
    """
    network = to_any_network(model)
    if network is not model and network.normalised:
        beside = next(x.name for x in network.layers if x.fold is not None and x.fold.norms is not None)
        raise UnsupportedLayerError(
            f"the BatchNorm beside layer {beside!r} is not supported here: only certify, audit, check and "
            f"attack take it. For anything else {_SUPPORTED}"
        )
    if not isinstance(network, ReluNetwork):
        layer, activation = next(
            (layer, a) for layer, a in zip(network.layers, network.activations, strict=False) if a is not None
        )
        raise UnsupportedLayerError(
            f"{activation.name} after layer {layer.name!r} is not supported here, where ReLU alone is; "
            f"certify, audit, check and attack take it. For anything else {_SUPPORTED}"
        )
    return network


def to_any_network(model: Any, *, in_double: bool = False) -> ReluNetwork | PiecewiseNetwork:
    """As :func:`to_network`, with LeakyReLU, PReLU, ReLU6 and Hardtanh admitted; a :class:`Network` is
    returned as it is.

    The slope of a LeakyReLU is the number that torch's kernels multiply by: rounded to float32 unless the
    layer before it has float64 weights, or the pass is made ``in_double``. The network's ``notes`` say what
    was taken.
    """
    if isinstance(model, (ReluNetwork, PiecewiseNetwork)):
        return model
    import torch

    model, notes = unwrap(model)
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"model is a {type(model).__name__}; pass a torch.nn.Module (not its state_dict) or a ReluNetwork"
        )
    check_hooks(model)
    from exan_verify.models.projected import ProjectedLinear

    if type(model) is torch.nn.Linear or type(model) is ProjectedLinear:
        steps = [Step(kind=Kind.LINEAR, path="model", layer=_linear(model, ""))]
    else:
        steps = _follow(model, trace(model))
    notes += _projections(model, steps)
    network = assemble_any(steps, in_double=in_double)
    _check_parameters(model, network)
    notes += tuple(
        f"after layer {layer.name!r}: {activation.name}"
        for k, layer in enumerate(network.layers[:-1], 1)
        if (activation := network.activation(k)) is not None
    )
    return replace(network, notes=(*notes, *network.notes)) if notes else network


def unwrap(model: Any) -> tuple[Any, tuple[str, ...]]:
    """``model`` without wrappers that compute the same function, and a line for each that was taken off.

    These are torch.compile, DataParallel, DistributedDataParallel, and any module whose forward hands its
    input on to a member ``_module`` and returns what that returns, as opacus' does. What is not a module is
    returned as it is.

    Raises :class:`UnsupportedLayerError` for a scripted or traced module, whose code cannot be read.
    """
    import torch

    notes: list[str] = []
    while isinstance(model, torch.nn.Module):
        kind = type(model)
        if isinstance(model, torch.jit.ScriptModule):
            raise UnsupportedLayerError(
                f"the model is a {kind.__name__} of torch.jit, whose forward cannot be read; "
                "pass the module that it was scripted or traced from"
            )
        if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            inner = model.module
        elif kind.__name__ == "OptimizedModule" and kind.__module__.startswith("torch._dynamo"):
            inner = model._orig_mod
        elif _hands_on(model):
            inner = model._module
        else:
            break
        notes.append(f"the wrapper {kind.__name__} was taken off the model")
        model = inner
    read = getattr(model, "notes", ()) if type(model).__name__ == "FromOnnx" else ()
    return model, (*notes, *read)


def _hands_on(model: torch.nn.Module) -> bool:
    """Whether the forward is that of the member ``_module`` and nothing else, by tracing it."""
    import torch.fx

    inner = dict(model.named_children()).get("_module")
    if inner is None or any(True for _ in model.parameters(recurse=False)):
        return False

    class OneInput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrapper = model

        def forward(self, x: Any) -> Any:
            return self.wrapper(x)

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
            return m is inner

    try:
        nodes = list(Tracer().trace(OneInput()).nodes)
    except (torch.fx.proxy.TraceError, TypeError, AttributeError, ValueError, LookupError, RuntimeError):
        return False
    if [node.op for node in nodes] != ["placeholder", "call_module", "output"]:
        return False
    return nodes[1].args == (nodes[0],) and not nodes[1].kwargs and nodes[2].args == (nodes[1],)


def assemble(steps: Sequence[Step]) -> ReluNetwork:
    """The network of a chain of steps with ReLU for every activation; its ``notes`` say which constants were
    folded into it.

    Raises :class:`UnsupportedLayerError` where Linear and ReLU do not alternate, from Linear to Linear, and
    what :func:`exan_verify.models.folding.fold_constants` raises.
    """
    network = assemble_any(steps)
    if not isinstance(network, ReluNetwork):
        raise UnsupportedLayerError(f"an activation other than ReLU is not supported here; {_SUPPORTED}")
    return network


def assemble_any(steps: Sequence[Step], *, in_double: bool = False) -> ReluNetwork | PiecewiseNetwork:
    """The network of a chain of steps, whatever its activations, whose slopes are those of a pass in the
    dtype of the layers' weights, or ``in_double``; raises as :func:`assemble`."""
    layers, notes = _layers(steps)
    # of the layers as they are stored: where constants are folded in, they become rationals
    dtypes = [
        np.dtype(np.float64) if in_double else step.layer.weight.dtype
        for step in steps
        if step.layer is not None
    ]
    between: list[list[Step]] = []
    for step in steps:
        if step.kind is Kind.LINEAR:
            between.append([])
        elif step.kind is Kind.RELU:
            between[-1].append(step)
    activations = tuple(
        _activation(layer, dtype, those)
        for layer, dtype, those in zip(layers, dtypes, between[:-1], strict=False)
    )
    if not any(activations):
        return ReluNetwork(layers=layers, notes=notes)
    return PiecewiseNetwork(layers=layers, activations=activations, notes=notes)


def _activation(layer: Linear, dtype: Any, steps: Sequence[Step]) -> Activation | None:
    """What the activations after ``layer`` come to: ReLU once or more often, or one other."""
    made = [None if step.activation is None else step.activation(layer.shape[0], dtype) for step in steps]
    if len(made) > 1 and any(made):
        raise UnsupportedLayerError(
            f"{', '.join(step.path for step in steps)} follow one another after layer {layer.name!r}; "
            "keep one activation between two Linear layers"
        )
    return made[0]


def _layers(steps: Sequence[Step]) -> tuple[tuple[Linear, ...], tuple[str, ...]]:
    active, notes = fold_constants(steps)
    before: Step | None = None
    for step in active:
        if step.kind is Kind.LINEAR and before is not None and before.kind is Kind.LINEAR:
            raise UnsupportedLayerError(
                f"Linear {step.path!r} follows Linear {before.path!r} without a ReLU between them; "
                "put a ReLU between, or merge the two into one layer"
            )
        if step.kind is Kind.RELU and before is None:
            raise UnsupportedLayerError(
                f"ReLU {step.path!r} acts on the input, before any Linear layer; "
                "apply it to the data instead and remove it from the model"
            )
        before = step
    if before is not None and before.kind is Kind.RELU:
        raise UnsupportedLayerError(
            f"ReLU {before.path!r} acts on the output; the losses take logits, so end with a Linear layer"
        )
    layers = tuple(step.layer for step in active if step.layer is not None)
    if not layers:
        raise UnsupportedLayerError(f"the model has no Linear layer; {_SUPPORTED}")
    return layers, notes


def check_hooks(model: torch.nn.Module) -> None:
    """Refuse hooks, which may change values or gradients behind the graph's back."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    for path, module in model.named_modules():
        if any(getattr(module, name, None) for name in hooks):
            raise UnsupportedLayerError(
                f"{describe(module, path)} has hooks, which may change its values or gradients; remove them"
            )


def trace(model: torch.nn.Module, supported: str = _SUPPORTED) -> list[Node]:
    """The nodes of the model's forward, in the order of execution.

    Raises :class:`UnsupportedLayerError` where it cannot be traced, ending in what is ``supported``.
    """
    import torch.fx

    try:
        return list(_tracer().trace(model).nodes)
    # whatever a user's forward does with symbolic values ends in one of these
    except (
        torch.fx.proxy.TraceError,
        TypeError,
        AttributeError,
        ValueError,
        LookupError,
        RuntimeError,
    ) as error:
        raise UnsupportedLayerError(
            f"the forward of {type(model).__name__} cannot be traced ({error}); {supported}"
        ) from None


def _tracer() -> torch.fx.Tracer:
    """A tracer that takes a projected layer as one step, as it does torch's own layers."""
    import torch.fx

    from exan_verify.models.projected import ProjectedLinear

    class Tracer(torch.fx.Tracer):
        def create_node(self, *args: Any, **kwargs: Any) -> Node:
            node = super().create_node(*args, **kwargs)
            frame: FrameType | None = sys._getframe()
            # torch's own record of the stack takes seconds for the first node
            while frame is not None and _of_torch(frame.f_code.co_filename):
                frame = frame.f_back
            if frame is not None:
                node.meta["written"] = (os.path.basename(frame.f_code.co_filename), frame.f_lineno)
            return node

        def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
            return type(m) is ProjectedLinear or super().is_leaf_module(m, module_qualified_name)

    return Tracer()


def _follow(model: torch.nn.Module, nodes: list[Node]) -> list[Step]:
    """The steps along the only chain from the placeholder to the output."""
    steps: list[Step] = []
    current: Node | None = None
    stored = {node: str(node.target) for node in nodes if node.op == "get_attr"}
    for node in nodes:
        if node.op == "placeholder":
            if current is not None and node.users:
                raise UnsupportedLayerError(
                    f"forward takes a second input {node.target!r}; give it one input"
                )
            current = current or node
        elif node in stored or (current is not None and is_size(node)):
            continue
        elif node.op == "output":
            if node.args != (current,):
                raise UnsupportedLayerError("forward must return the logits and nothing else, in one tensor")
        else:
            steps.append(_next_step(model, node, current, steps, stored))
            current = node
    return steps


def _next_step(
    model: torch.nn.Module, node: Node, current: Node | None, steps: Sequence[Step], stored: Stored
) -> Step:
    place = name_of(model, node)
    constant = None if current is None else affine_of(model, node, current, stored, place)
    if constant is not None:
        if constant.per_channel and any(step.kind is not Kind.CONSTANT for step in steps):
            raise UnsupportedLayerError(
                f"{place} has a constant per channel (C, 1, 1) for values that are flat by then; apply it to "
                "the pictures, before they are flattened"
            )
        return Step(kind=Kind.CONSTANT, path=place, affine=constant)
    if node.args[:1] != (current,):
        raise UnsupportedLayerError(
            f"{place} does not take the output of the step before it; the model must be one chain without "
            "branches"
        )
    return _step(model, node, {step.path for step in steps if step.kind is Kind.LINEAR}, stored)


def is_size(node: Node) -> bool:
    """Whether the node only reads a batch size: ``x.size(0)``, ``x.shape``, ``x.shape[0]``."""
    if node.op == "call_method":
        return node.target == "size" and node.args[1:] in ((), (0,))
    if node.op != "call_function" or getattr(node.target, "__name__", "") not in ("getattr", "getitem"):
        return False
    return node.args[1:] in (("shape",), (0,))


def _step(model: torch.nn.Module, node: Node, linear_paths: set[str], stored: Stored) -> Step:
    from torch.nn import functional

    name = str(node.target)
    if node.op == "call_module":
        if name in linear_paths:
            raise UnsupportedLayerError(
                f"Linear {name!r} is used more than once; give every place a layer of its own"
            )
        return _module_step(model.get_submodule(name), name)
    if node.target is functional.linear:
        return _functional_linear(model, node, stored)
    return _function_step(model, node)


def _functional_linear(model: torch.nn.Module, node: Node, stored: Stored) -> Step:
    """``F.linear(x, weight, bias)`` on parameters of the model."""
    import torch

    place = name_of(model, node)
    weight, bias = (
        stored.get(one) if isinstance(one, torch.fx.Node) else one
        for one in arguments(node, weight=None, bias=None)
    )
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if weight not in parameters or not (bias is None or bias in parameters):
        raise UnsupportedLayerError(
            f"{place} takes a weight or bias that is no parameter of the model as it is; pass parameters"
        )
    prefix = weight.removesuffix(".weight") if weight.endswith(".weight") else weight
    usual = (f"{prefix}.weight", f"{prefix}.bias")
    layer = Linear(
        weight=_numbers(parameters[weight], weight),
        bias=None if bias is None else _numbers(parameters[bias], bias),
        name=prefix,
        named=None if (weight, bias or usual[1]) == usual else (weight, bias or usual[1]),
    )
    return Step(kind=Kind.LINEAR, path=prefix, layer=layer)


def _module_step(module: torch.nn.Module, path: str) -> Step:
    import torch.nn as nn

    from exan_verify.models.projected import ProjectedLinear

    # exact types: a subclass or a parametrised layer may compute something else
    if type(module) is nn.Linear or type(module) is ProjectedLinear:
        return Step(kind=Kind.LINEAR, path=path, layer=_linear(module, path))
    if type(module) is nn.ReLU:
        return Step(kind=Kind.RELU, path=path)
    if type(module) in (nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.Hardtanh):
        return Step(kind=Kind.RELU, path=path, activation=of_module(module, path))
    if type(module) is nn.BatchNorm1d:
        from exan_verify.models.normalised import exact_norm

        affine, names = exact_norm(module, path)
        return Step(kind=Kind.CONSTANT, path=describe(module, path), affine=affine, norm=names)
    if type(module) is nn.Flatten and _keeps_batch(module.start_dim, module.end_dim):
        return Step(kind=Kind.NOTHING, path=path)
    if type(module) is nn.Identity:
        return Step(kind=Kind.NOTHING, path=path)
    if type(module) is nn.Dropout:
        if module.training and module.p > 0:
            raise UnsupportedLayerError(
                f"Dropout {path!r} is in training mode, so the gradient is random: every sample passes "
                "through a network with other neurons switched off, which the gradient does not name; "
                "call model.eval() first, in a factory before it returns the model"
            )
        return Step(kind=Kind.NOTHING, path=path)
    raise UnsupportedLayerError(
        f"{describe(module, path)} is not supported; {_remedy(type(module).__name__)}"
    )


def _function_step(model: torch.nn.Module, node: Node) -> Step:
    import torch
    from torch.nn import functional

    path = path_of(model, node)
    target = getattr(torch.Tensor, str(node.target), None) if node.op == "call_method" else node.target
    if target in (functional.relu, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_):
        return Step(kind=Kind.RELU, path=path)
    if (activation := of_function(node)) is not None:
        return Step(kind=Kind.RELU, path=path, activation=activation)
    if target in _clamps() and arguments(node, min=None, max=None) == (0, None):
        return Step(kind=Kind.RELU, path=path)
    if target in (torch.flatten, torch.Tensor.flatten) and _keeps_batch(
        *arguments(node, start_dim=0, end_dim=-1)
    ):
        return Step(kind=Kind.NOTHING, path=path)
    if target in (torch.reshape, torch.Tensor.reshape, torch.Tensor.view) and keeps_samples(node):
        return Step(kind=Kind.NOTHING, path=path)
    # a dimension of size 1 is no number more or less: the one logit of a binary classifier, above all
    if target in (torch.squeeze, torch.Tensor.squeeze) and arguments(node, dim=None)[0] in (1, -1):
        return Step(kind=Kind.NOTHING, path=path)
    # over the real numbers a change of precision changes nothing
    if target in (torch.Tensor.contiguous, torch.Tensor.float, torch.Tensor.double):
        return Step(kind=Kind.NOTHING, path=path)
    if target is functional.dropout:
        probability, training = arguments(node, p=0.5, training=True)
        if not training or probability == 0:
            return Step(kind=Kind.NOTHING, path=path)
        raise UnsupportedLayerError(
            f"dropout in {path!r} is switched on, so the gradient is random: every sample has a mask of its "
            "own; call model.eval() first and pass training=self.training"
        )
    raise UnsupportedLayerError(f"{name_of(model, node)} is not supported; {_remedy(str(node.target))}")


def _clamps() -> tuple[Any, ...]:
    import torch

    names = ("clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_min_")
    return tuple(getattr(owner, name) for owner in (torch, torch.Tensor) for name in names)


def _keeps_batch(start: Any, end: Any) -> bool:
    """Whether a Flatten leaves the first dimension and makes one of others; how many there were is told by
    the number of features."""
    return isinstance(end, int) and start == 1 and (end == -1 or end > 1)


def arguments(node: Node, **defaults: Any) -> tuple[Any, ...]:
    """The values of the parameters after the first, by position or keyword, in the order of ``defaults``."""
    given = dict(zip(defaults, node.args[1:], strict=False)) | dict(node.kwargs)
    return tuple(given.get(name, default) for name, default in defaults.items())


def keeps_samples(node: Node) -> bool:
    """Whether a view or reshape is to (M, d): ``(-1, d)``, ``(x.size(0), -1)``, ``(x.shape[0], d)``."""
    sizes = node.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    if len(sizes) != 2:
        return False
    rows, columns = sizes
    if not isinstance(columns, int):
        return False
    return columns > 0 if isinstance(rows, int) and rows == -1 else not isinstance(rows, int)


def _projections(model: torch.nn.Module, steps: Sequence[Step]) -> tuple[str, ...]:
    """A note where the first layer sees a projection of the inputs only; elsewhere there can be none."""
    from exan_verify.models.projected import ProjectedLinear

    projected = {path: m for path, m in model.named_modules() if type(m) is ProjectedLinear}
    first = next((step.layer.name for step in steps if step.layer is not None), "")
    for path in projected:
        if path != first:
            raise UnsupportedLayerError(
                f"the projected layer {path!r} is not the first; project the inputs of the first layer only"
            )
        if steps[0].kind is Kind.CONSTANT:
            raise UnsupportedLayerError(
                f"{steps[0].path} stands before the projected layer {path!r}, which takes projections of the "
                "inputs; apply it to the data instead, and remove it from the model"
            )
    return tuple(
        f"the first layer sees a projection of inputs with {len(m.basis)} features, and inputs here are "
        f"these {m.basis.shape[1]} numbers"
        for m in projected.values()
    )


def _linear(module: Any, path: str) -> Linear:
    prefix = f"{path}." if path else ""
    return Linear(
        weight=_numbers(module.weight, f"{prefix}weight"),
        bias=None if module.bias is None else _numbers(module.bias, f"{prefix}bias"),
        name=path,
    )


def _numbers(parameter: torch.Tensor, name: str) -> Any:
    if parameter.is_meta:
        raise InputError(f"{name} is on the meta device and has no numbers; load the weights first")
    return exact_array(parameter, name)


def _check_parameters(model: torch.nn.Module, network: Network) -> None:
    """Every trained parameter must be one of the network's, once: the shared gradient has them all."""
    import torch

    named = dict(model.named_parameters(remove_duplicate=False))
    names = [name for name, _ in network.parameters()]
    used = set(names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnsupportedLayerError(
            f"parameters {twice} are used more than once; give every place parameters of its own"
        )
    used |= {f"{path}.weight" for path, module in model.named_modules() if type(module) is torch.nn.PReLU}
    # their gradients follow from the others', but for a bias that is the layer's, which is among the names
    norms = {name for layer in network.layers if layer.fold is not None for name in layer.fold.norms or ()}
    free = norms - used
    used |= norms
    shared = [name for name in used if sum(named[name] is other for other in named.values()) > 1]
    if shared:
        raise UnsupportedLayerError(
            f"parameters {sorted(shared)} are one and the same tensor; give every layer its own parameters"
        )
    unused = sorted({name for name, p in named.items() if name not in used and p.requires_grad})
    if unused:
        raise InputError(f"parameters {unused} do not enter the forward pass; remove them from the model")
    frozen = sorted(name for name in used - free if not named[name].requires_grad)
    if 0 < len(frozen) < len(used - free):
        raise InputError(
            f"parameters {frozen} are frozen, so their gradient is never shared, but verdicts speak of the "
            "gradient of all parameters; set requires_grad=True for all of them or for none"
        )


def path_of(model: torch.nn.Module, node: Node) -> str:
    """The path of the module in whose forward the node stands."""
    stack = node.meta.get("nn_module_stack")
    return list(stack)[-1] if stack else type(model).__name__


def name_of(model: torch.nn.Module, node: Node) -> str:
    """A node in words: the layer with its path and type, or the operation and where it stands."""
    if node.op == "call_module":
        return describe(model.get_submodule(str(node.target)), str(node.target))
    name = getattr(node.target, "__name__", str(node.target))
    return (
        f"the operation {name!r} ({node.name!r}) in the forward of {path_of(model, node)!r}{_line_of(node)}"
    )


def _of_torch(path: str) -> bool:
    return path == __file__ or "torch" in path.split(os.sep)


def _line_of(node: Node) -> str:
    """Where in the user's code an operation is written, in words; empty where the tracer does not know."""
    if "written" not in node.meta:
        return ""
    name, line = node.meta["written"]
    return f", line {line} of {name}"


def describe(module: torch.nn.Module, path: str) -> str:
    """A layer in words: its path and type."""
    return f"layer {path!r} ({type(module).__name__})" if path else f"the model ({type(module).__name__})"


def _remedy(name: str) -> str:
    if "softmax" in name.lower():
        return "remove it: cross_entropy takes logits and applies the softmax itself"
    if "sigmoid" in name.lower():
        return "remove it where it ends the model: bce takes logits and applies the sigmoid itself"
    if any(part in name.lower() for part in ("conv", "pool", "batchnorm")):
        return (
            "this is for fully connected models; certify and audit also take Conv2d with a ReLU after each, "
            f"and attack and audit most networks that end in Linear layers. Here {_SUPPORTED}"
        )
    return _SUPPORTED
