"""``attack``: rebuild a batch from a gradient in floating point, for any supported model.

The work is done in :mod:`exan_verify.numeric`, which shares nothing with the exact engines: agreement between
the two means something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from exan_verify.convert import to_network
from exan_verify.errors import InputError, choice
from exan_verify.network import Gradient, Labels, Loss, Reduction, ReluNetwork

if TYPE_CHECKING:
    from exan_verify.numeric.records import Attack


def attack(
    model: Any,
    gradient: Mapping[str, Any] | Gradient,
    *,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    batch_size: int | None = None,
    method: str = "auto",
    repairs: bool = True,
    partial: bool = False,
    device: str | None = None,
    seed: int = 0,
    input_shape: Sequence[int] | None = None,
    picture_iterations: int = 200,
    budget: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Attack:
    """Rebuild the samples behind ``gradient``: the inputs and labels that it stands behind, and no others.

    ``model``: a ``torch.nn.Module`` of Linear and ReLU layers, one with convolutions below a fully connected
    head, or a ReluNetwork. ``gradient``: one tensor per parameter, by name. ``labels``: ``one_hot``, the
    loss's own kind (for bce 0/1 vectors), or ``real`` for targets of mse and bce that are any numbers, which
    are claimed only for a given batch size. ``batch_size``: how many samples were averaged, default the rank
    found. ``method``: ``lift`` (no exclusive neurons needed), ``peel`` (one
    exclusive neuron after the other), ``peel+lift`` (what peeling leaves is lifted), ``assign`` (a search
    for large batches), ``sample`` (drawn rows, after Dimitrov et al. 2024), ``published`` (Pan et
    al. 2022; ``repairs=False`` takes it to the letter), or ``auto``: lift, assign, lifting of degree three,
    peel and lift, until the batch is whole. ``partial``: tensors may be missing from ``gradient`` (only some
    layers are known); without it a missing one is an error. ``device``: a torch device, default the CPU.
    ``budget``: a limit in seconds. What was confirmed until then is returned, ``unfinished``, and where that
    is nothing, ``BudgetExhausted`` (:mod:`exan_verify.errors`) is raised. ``progress`` is told (what, share
    done), a few times a second; what it raises ends the attack, ``BudgetExhausted`` as a budget does. A
    factorisation that is under way then runs to its end on a thread of its own, for which the interpreter
    waits before it exits, and its result is dropped.

    The result has ``x`` (M', d) and ``y`` (M',) of the samples found, ``status`` per sample (how it was
    found, its error bound), ``gradient_residual`` and ``complete``; where nothing is found, ``hint`` says
    which other loss, reduction or batch size the gradient fits; with ``partial``, ``missing`` names what was
    not given, and ``hidden`` has the features of a hidden layer where the gradients of the layers before
    it are missing. Floating point finds samples; it proves nothing about others: see ``certify`` for that.

    With convolutions the result is an ``ImageAttack``: besides pictures in ``x`` (M', C, H, W) it has the
    ``features`` that the head was given, per sample with bounds, what every stage leaves open, and
    ``estimates`` of pictures that are not determined (``picture_iterations`` of an optimisation; 0: none).
    ``input_shape`` (C, H, W) is needed where the head fits several picture sizes.

    Raises :class:`InputError` or a subclass naming what cannot be used.
    """
    from exan_verify.numeric.waiting import Telling, limited

    tell = Telling(limited(progress, budget))
    given = _given(gradient)
    check_device(device)
    options: dict[str, Any] = {
        "loss": choice(Loss, loss, "loss"),
        "reduction": choice(Reduction, reduction, "reduction"),
        "labels": choice(Labels, labels, "labels"),
        "batch_size": batch_size,
        "method": method,
        "repairs": repairs,
        "partial": partial,
        "device": device,
        "seed": seed,
        "progress": tell,
    }
    tell("reading the model", 0.0)
    # on this thread: torch's tracing changes modules for as long as it lasts
    if with_convolutions(model):
        return _attack_pictures(model, given, input_shape, picture_iterations, options)
    from exan_verify.numeric.attack import run

    return run(to_network(model), given.tensors, **options)


def _attack_pictures(
    model: Any, given: Gradient, input_shape: Sequence[int] | None, iterations: int, options: dict[str, Any]
) -> Attack:
    from exan_verify.convert_graph import to_convolutional
    from exan_verify.numeric.convolution.attack import run

    return run(to_convolutional(model, input_shape), given.tensors, iterations=iterations, **options)


def _given(gradient: Any) -> Gradient:
    if isinstance(gradient, Gradient):
        return gradient
    if not isinstance(gradient, Mapping):
        raise InputError(
            f"gradient is a {type(gradient).__name__}; give a mapping from parameter name to tensor, such as "
            "{name: p.grad for name, p in model.named_parameters()}"
        )
    return Gradient(tensors=gradient)


def with_convolutions(model: Any) -> bool:
    """Whether ``model`` is attacked layer by layer below a fully connected head."""
    if isinstance(model, ReluNetwork):
        return False
    from exan_verify.convert_graph import is_convolutional

    return is_convolutional(model)


def check_device(device: str | None) -> None:
    """Raise :class:`InputError` where torch has no such device."""
    import torch

    try:
        torch.empty(0, device=device)
    # a torch built without that kind of device asserts; a missing or misspelt one is a RuntimeError
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"device={device!r} cannot be used ({first_line}); use 'cpu'") from None
