"""``attack``: rebuild a batch from a gradient in floating point, for any supported model.

The work is done in :mod:`exan_verify.numeric`, which shares nothing with the exact engines: agreement between
the two means something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exan_verify.api.instances import taking_instances
from exan_verify.api.releases import as_released
from exan_verify.core.network import MOST_SAMPLES, Gradient, Network, PiecewiseNetwork, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction, Release
from exan_verify.errors import InputError, choice, fitting_into_memory, flag, short, whole
from exan_verify.models.chain import to_any_network, to_network, unwrap
from exan_verify.models.gradients import of_folded, received
from exan_verify.numeric.local_steps.schedule import Schedule, require_plain, schedule_of

if TYPE_CHECKING:
    from exan_verify.numeric.problem.records import Attack

_SAID = 80
"""Characters of what torch says of a device that are passed on."""


@taking_instances
@fitting_into_memory("the attack")
def attack(
    model: Any,
    gradient: Mapping[str, Any] | Sequence[Any] | Gradient | None = None,
    *,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    batch_size: int | None = None,
    method: str = "auto",
    repairs: bool = True,
    partial: bool = False,
    release: Release | None = None,
    scale: float | str = 1.0,
    weights: str = "equal",
    smoothing: float = 0.0,
    local_steps: int = 1,
    local_batches: Sequence[int] | None = None,
    lr: float | None = None,
    buffers: Mapping[str, Any] | None = None,
    buffers_after: Mapping[str, Any] | None = None,
    device: str | None = None,
    seed: int = 0,
    input_shape: Sequence[int] | None = None,
    picture_iterations: int = 200,
    budget: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Attack:
    """Rebuild the samples behind ``gradient``, inputs and labels, and say how much is known of each.

    ``model``: a ``torch.nn.Module`` of Linear layers with ReLU, LeakyReLU, PReLU, ReLU6 or Hardtanh between
    them (other than ReLU: with the biases of the lowest layer that is sent), one with convolutions below a
    fully connected head, a
    :class:`Network`, or an :class:`~exan_verify.instances.Instance`, which brings its words and its
    gradient in float64. ``gradient``: one tensor per parameter, by name or in a list in the order of
    ``parameters()``; wrappers, their prefixes, buffers, sparse tensors and None (a missing tensor) are dealt
    with, and the result's ``notes`` say how (:mod:`exan_verify.models.gradients`). ``labels``: ``one_hot``,
    the loss's own kind (for bce 0/1 vectors), or ``real`` for targets of mse, bce and cross_entropy (soft
    labels) that are any numbers, which count as found only for a given batch size. ``smoothing``: the label
    smoothing of cross_entropy. ``scale``: the gradient is so many times the batch's (-lr for the update of a
    plain step), or ``unknown`` (clipped, loss-scaled, several means added), and is then found from the loss
    vectors; ``auto`` tries that by itself where no label explains them. ``weights="positive"``: every
    sample's loss has an unknown positive factor (per-sample clipping, class weights, unequal accumulation).
    ``batch_size``: how many samples were averaged, default the rank found. ``method``: ``lift`` (no exclusive
    neurons needed), ``peel`` (one exclusive neuron after the other), ``peel+lift`` (what peeling leaves is
    lifted), ``assign`` (a search for large batches), ``sample`` (drawn rows, after Dimitrov et al. 2024),
    ``descend`` (descent to a batch with this gradient: small networks, four samples at most), ``published``
    (Pan et al. 2022; ``repairs=False`` takes it to the letter), or ``auto``: lift, assign, lifting of degree
    three, peel and lift, until the batch is whole. ``partial``: tensors may be missing from ``gradient``
    (only some layers are known); without it a missing one is an error. ``device``: a torch device, default
    the CPU. ``budget``: a limit in seconds. What was confirmed until then is returned, ``unfinished``, and
    where that is nothing, ``BudgetExhausted`` (:mod:`exan_verify.errors`) is raised. ``progress`` is told
    (what, share done), a few times a second; what it raises ends the attack, ``BudgetExhausted`` as a budget
    does. A factorisation that is under way then runs to its end on a thread of its own, for which the
    interpreter waits before it exits, and its result is dropped.

    The result has ``x`` (M', d) and ``y`` (M',) of the samples found and ``status`` per sample: its error
    bound, how it was found, and its ``tier``, ``confirmed`` (with every other batch of this size excluded, as
    far as floating point can) or ``consistent`` (it fits all its equations, but no other batch is excluded).
    What fits less is in ``candidates``, with what does not fit. Further ``gradient_residual``, ``complete``,
    and ``scale``, the factor used or found; where nothing is found, ``hint`` says which other loss, reduction
    or batch size the gradient fits; with ``partial``, ``missing`` names what was not given, and ``hidden``
    has the features of a hidden layer where the gradients of the layers before it are missing. Floating point
    finds samples; it proves nothing about others: see ``certify`` for that.

    ``release``: what of the gradient is sent (:class:`~exan_verify.core.question.Release`). Everything rests
    on that: what it withholds may be missing from ``gradient``, a tensor sent in part may have all its rows
    or those that are sent, and what is there beyond is not read. With an ``input_basis`` B (d, r), ``x`` are
    the samples' B^T x (M', r); the model is the one on inputs x, with W_1 = V B^T, whose gradient of the
    first layer may be dW_1 or what is sent, dV; or the one on B^T x, with V for its first layer. With
    ``averages`` ``x`` are the means, and ``batch_size`` is how many there are.

    ``local_steps``: ``gradient`` is an update, the weights after so many plain steps of rate ``lr`` minus
    those before, which are the model's. ``local_batches``: the sizes of the mini-batches in the order of the
    steps, gone through once, or as often as ``local_steps`` says; without it every step sees the whole batch.
    Which sample was in which comes back in ``local_batch``. Samples that took part in one step each can be
    confirmed; others are consistent where their own run has the whole update. Inputs do not need the rate;
    without it (None) they stay candidates, and so they do where rate or steps are not the true ones. For
    fully connected models with biases, their whole update, and labels of the loss's own kind; ``method`` is
    ``auto``. A single step with an ``lr`` is a gradient with ``scale=-lr``.

    ``buffers_after``: the step was one in training mode of an ``nn.Sequential`` of Linear, BatchNorm1d, ReLU
    and further Linear layers, which left these running statistics (as ``named_buffers()`` has them, by name);
    ``buffers`` are those before it, default the model's own. ``centred`` then has the samples less the mean
    of their batch, which is all that such a gradient can say, and ``x`` the samples where the running mean
    and a first layer of full column rank give the mean; they are consistent. With ``buffers`` alone it is
    said what the gradient tells without the statistics of the batch.

    With convolutions the result is an ``ImageAttack``: besides pictures in ``x`` (M', C, H, W) it has the
    ``features`` that the head was given, per sample with bounds, what every stage leaves open, and
    ``estimates`` of pictures that are not determined (``picture_iterations`` of an optimisation; 0: none).
    ``input_shape`` (C, H, W) is needed where the head fits several picture sizes.

    Raises :class:`InputError` or a subclass naming what cannot be used.
    """
    _check_call(gradient, method, progress)
    assert gradient is not None
    from exan_verify.numeric.waiting import Telling, limited

    tell = Telling(limited(progress, budget))
    check_device(device)
    options: dict[str, Any] = {
        "loss": choice(Loss, loss, "loss"),
        "reduction": choice(Reduction, reduction, "reduction"),
        "labels": choice(Labels, labels, "labels"),
        "batch_size": None if batch_size is None else whole(batch_size, "batch_size", most=MOST_SAMPLES),
        "method": method,
        "repairs": flag(repairs, "repairs"),
        "partial": flag(partial, "partial"),
        "scale": scale,
        "weights": weights,
        "smoothing": smoothing,
        "device": device,
        "seed": whole(seed, "seed", least=0),
        "progress": tell,
    }
    picture_iterations = whole(picture_iterations, "picture_iterations", least=0)
    schedule = _schedule(local_steps, local_batches, lr, options, release)
    tell("reading the model", 0.0)
    # on this thread: torch's tracing changes modules for as long as it lasts
    model, notes = unwrapped(model)
    in_training = _in_training(model, gradient, schedule, (buffers, buffers_after), options, release)
    if in_training is not None:
        return replace(in_training, notes=(*notes, *in_training.notes))
    if with_convolutions(model):
        found = _of_pictures(model, gradient, options, release, input_shape, picture_iterations)
    else:
        found = _of_layers(model, gradient, options, release)
    return replace(found, notes=(*notes, *found.notes))


def _of_pictures(
    model: Any,
    gradient: Any,
    options: Mapping[str, Any],
    release: Release | None,
    input_shape: Sequence[int] | None,
    iterations: int,
) -> Attack:
    """The attack on one step of an unwrapped model with convolutions."""
    if release is not None:
        raise InputError("a release is asked of a fully connected model; leave out release=")
    from exan_verify.models.pictures.graph import to_convolutional
    from exan_verify.numeric.convolution.attack import run

    pictures = to_convolutional(model, input_shape)
    given = received(gradient, model)
    found: Attack = run(pictures, given.tensors, iterations=iterations, **options)
    return replace(found, architecture=pictures.architecture, notes=(*given.notes, *found.notes))


def _of_layers(model: Any, gradient: Any, options: Mapping[str, Any], release: Release | None) -> Attack:
    """The attack on one step of an unwrapped fully connected model."""
    from exan_verify.numeric.attack import run

    network = attacked_network(model, gradient)
    asked = None if release is None else as_released(network, release, model)
    sent = None if asked is None else asked.release
    if sent is not None and sent.rows and network.plain is not network:
        raise InputError(
            "release.rows: constants of the model are folded into its layers, whose gradient is read "
            "from whole tensors; apply the constants to the data instead, and remove them from the model"
        )
    if sent is not None and sent.averages is not None:
        options = {**options, "batch_size": _means(len(sent.averages), options["batch_size"])}
    # a list is in the order of the module's parameters, which need not be that of its forward pass
    given = of_folded(_without_slopes(received(gradient, model, sent), network), network, exact=False)
    notes = network.notes
    if asked is None:
        found = run(network, given.tensors, **options)
    else:
        notes += asked.notes
        found = run(asked.network, asked.of(given.tensors), release=asked.rows, **options)
        found = replace(found, release=sent)
    return replace(found, architecture=network.architecture, notes=(*notes, *given.notes, *found.notes))


def _check_call(gradient: Any, method: Any, progress: Any) -> None:
    if gradient is None:
        raise InputError("gradient is missing; give one tensor per parameter, by name")
    if not isinstance(method, str):
        raise InputError(f"method={short(method)} cannot be used; give its name, or 'auto'")
    if progress is not None and not callable(progress):
        raise InputError(f"progress={short(progress)} cannot be used; give a function of (what, share done)")


def _schedule(
    local_steps: Any, local_batches: Any, lr: Any, options: dict[str, Any], release: Release | None
) -> Schedule:
    """The local steps of a user's words, with the size and the scale that they say put into ``options``."""
    schedule, options["batch_size"] = schedule_of(local_steps, local_batches, lr, options["batch_size"])
    if schedule.steps > 1 or schedule.lr is not None:
        require_plain(schedule, options, release)
    if schedule.steps == 1 and schedule.lr is not None:
        options["scale"] = -schedule.lr
    return schedule


def _in_training(
    model: Any,
    gradient: Any,
    schedule: Schedule,
    statistics: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
    options: Mapping[str, Any],
    release: Release | None,
) -> Attack | None:
    """The attack on an update of several local steps, or on a step in training mode; None for neither."""
    if statistics == (None, None):
        return _of_local_steps(model, gradient, schedule, options) if schedule.steps > 1 else None
    if schedule.steps > 1:
        raise InputError("buffers are those of one step and its gradient; leave local steps out")
    plain = {**options, "scale": 1.0}
    require_plain(replace(schedule, epochs=2), plain, release, "the statistics of a batch")
    for name, one in zip(("buffers", "buffers_after"), statistics, strict=True):
        if one is not None and not isinstance(one, Mapping):
            raise InputError(f"{name}={short(one)} cannot be used; give dict(model.named_buffers())")
    from exan_verify.models.batch_statistics import to_normalised
    from exan_verify.numeric.batch_statistics.attack import run

    network, given = to_normalised(model), received(gradient, model)
    names = ("loss", "reduction", "batch_size", "smoothing", "scale", "device", "seed", "progress")
    found = run(network, given.tensors, *statistics, **{name: options[name] for name in names})
    return replace(found, notes=(*given.notes, *found.notes))


def _of_local_steps(model: Any, update: Any, schedule: Schedule, options: Mapping[str, Any]) -> Attack:
    """The attack on an update of several local steps of an unwrapped model."""
    from exan_verify.numeric.local_steps.attack import run

    if with_convolutions(model):
        raise InputError(
            "several local steps are attacked of a fully connected model; give one step's gradient"
        )
    network = to_network(model)
    if network.plain is not network:
        raise InputError(
            "constants of the model are folded into its layers, and local steps move the model's own weights"
            "; apply the constants to the data instead, and remove them from the model"
        )
    given = received(update, model)
    names = ("loss", "reduction", "batch_size", "smoothing", "device", "seed", "progress")
    found = run(network, given.tensors, schedule, **{name: options[name] for name in names})
    notes = (*network.notes, *given.notes, *found.notes)
    return replace(found, architecture=network.architecture, notes=notes)


def _means(count: int, told: int | None) -> int:
    """The size of a batch of ``count`` means. Raises :class:`InputError` where another one was ``told``."""
    if told not in (None, count):
        raise InputError(
            f"batch_size={told} is not the number of means that release.averages has, {count}; leave it out"
        )
    return count


def attacked_network(model: Any, gradient: Any) -> ReluNetwork | PiecewiseNetwork:
    """The network of ``model`` with the slopes that made ``gradient``: those of a pass in float64 where every
    tensor is in float64, whatever dtype the weights are stored in."""
    tensors = gradient.tensors if isinstance(gradient, Gradient) else gradient
    values = list(tensors.values()) if isinstance(tensors, Mapping) else tensors
    if not isinstance(values, (list, tuple)):
        return to_any_network(model)  # what it is instead is said where it is read
    dtypes = {
        str(getattr(value, "dtype", None)).removeprefix("torch.") for value in values if value is not None
    }
    return to_any_network(model, in_double=dtypes == {"float64"})


def _without_slopes(gradient: Gradient, network: Network) -> Gradient:
    """``gradient`` without that of trained slopes (PReLU), which is not used; its notes say so."""
    slopes = [activation.parameter for _, activation in network.trained_slopes()]
    if not slopes:
        return gradient
    kept = {name: tensor for name, tensor in gradient.tensors.items() if name not in slopes}
    note = f"{', '.join(slopes)}: trained slopes, whose own gradient is not used"
    return replace(gradient, tensors=kept or gradient.tensors, notes=(*gradient.notes, note))


def unwrapped(model: Any) -> tuple[Any, tuple[str, ...]]:
    """``model`` without wrappers, and what was taken off; a Network as it is."""
    return (model, ()) if isinstance(model, Network) else unwrap(model)


def with_convolutions(model: Any) -> bool:
    """Whether ``model`` is attacked layer by layer below a fully connected head."""
    if isinstance(model, Network):
        return False
    from exan_verify.models.pictures.graph import is_convolutional

    return is_convolutional(model)


def check_device(device: str | None) -> None:
    """Raise :class:`InputError` where torch has no such device."""
    import torch

    try:
        torch.zeros(1, device=device).tolist()  # the meta device has no numbers to give back
    # a torch built without that kind of device asserts; a missing or misspelt one is a RuntimeError
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        # torch lists all kinds of devices that there are, or explains how it is built
        reason = said if len(said) <= _SAID else "torch has no such device here"
        raise InputError(
            f"device={short(device)} cannot be used ({reason}); use 'cpu', or 'cuda' where torch finds a GPU"
        ) from None
