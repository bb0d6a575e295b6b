"""The defences by name: what each lets out, what it assumes, and what it changes in training.

A name may have parameters, ``project-pca:16`` or ``clip-noise:1:2``. Which of them protect is not said here;
it is decided or measured (:mod:`exan_verify.mitigation.mitigate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from exan_verify.core.network import Batch, Linear, ReluNetwork
from exan_verify.errors import InputError, short, unknown
from exan_verify.exclusivity import exan_counts
from exan_verify.mitigation.case import Averages, Case, Floats, Mask, Released, as_classes
from exan_verify.mitigation.costs import Training
from exan_verify.mitigation.exclusive_neurons import regrouped, with_exans, without_exans
from exan_verify.mitigation.projection import Basis, cosines, principal, projected, random
from exan_verify.mitigation.steps import step_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """One defence with its parameters.

    ``release`` applies it to a case; ``training`` says what it changes in training, None where that is
    nothing that can be trained with, and then ``no_training`` says why; ``noise`` is the multiplier of noise
    that a sample's clipping norm bounds, for the accountant. ``assumes``: who the adversary may be.
    """

    name: str
    release: Callable[[Case], Released]
    assumes: str
    training: Callable[[Case], Training] | None = None
    no_training: str = ""
    multiplier: float | None = None


Parameters = tuple[Any, ...]

ALL_ROUNDS = (
    "Any adversary that sees everything the client sends, in all rounds, a malicious server that chooses the "
    "other weights included; the projection must be in the client's code, and labels are not protected."
)
ONE_ROUND = "An honest-but-curious server that sees one release."
FIXED_GROUPS = (
    "An adversary that sees everything sent in all rounds, as long as the same samples are averaged in every "
    "round; groups that change give more equations each round."
)
NOBODY = "Nothing is assumed, since nothing is claimed."


# ---- other batches -----------------------------------------------------------------------------------------


def _regroup(name: str, _: Parameters) -> Defence:
    def release(case: Case) -> Released:
        size = case.batch.size
        x, y = case.require_pool(name, size)
        candidates, labels = np.concatenate([case.x, x]), np.concatenate([case.batch.labels, y])
        chosen = regrouped(case, candidates)
        kept = sum(c < size for c in chosen)
        batch = case.with_inputs(candidates[chosen], labels[chosen])
        facts = {"pool": len(x), "samples of the batch that stay": kept}
        return _whole(case, case.network, batch, facts=facts)

    why = "every sample is trained on as before; only who shares a batch with whom changes"
    return Defence(name=name, release=release, assumes=ONE_ROUND, no_training=why)


def _perturb(name: str, _: Parameters) -> Defence:
    return _moving(name, without_exans)


def _induce(name: str, _: Parameters) -> Defence:
    return _moving(name, with_exans)


def _moving(name: str, found: Callable[[Case], Floats]) -> Defence:
    def release(case: Case) -> Released:
        moved = found(case)
        batch = case.with_inputs(moved, case.batch.labels)
        facts = {"largest change of an input": float(np.abs(moved - case.x).max())}
        return _whole(case, case.network, batch, subjects=case.x, facts=facts)

    why = "a linear program for every sample of every step; the inputs change by the distance stated"
    return Defence(name=name, release=release, assumes=ONE_ROUND, no_training=why)


def _larger_batch(name: str, parameters: Parameters) -> Defence:
    size = int(parameters[0])

    def release(case: Case) -> Released:
        more = size - case.batch.size
        if more < 1:
            raise InputError(f"{name!r} is no larger than the batch of {case.batch.size}; give a larger size")
        x, y = case.require_pool(name, more)
        chosen = case.rng(size).permutation(len(x))[:more]
        batch = case.with_inputs(
            np.concatenate([case.x, x[chosen]]), np.concatenate([case.batch.labels, y[chosen]])
        )
        return _whole(case, case.network, batch)

    return Defence(name=name, release=release, assumes=ONE_ROUND, training=lambda _: Training(batch=size))


def _average(name: str, parameters: Parameters) -> Defence:
    size = int(parameters[0])

    def release(case: Case) -> Released:
        means = _groups(case, name, size)
        first = [means.rows.index(g) for g in range(len(means.members))]
        batch = case.with_inputs(means.means, case.batch.labels[first])
        return _whole(case, case.network, batch, subjects=case.x, averages=means)

    return Defence(name=name, release=release, assumes=FIXED_GROUPS, training=lambda _: Training(groups=size))


def _groups(case: Case, name: str, size: int) -> Averages:
    """Each sample of the batch with size - 1 others of its class: of the pool, or without one of the
    batch."""
    classes, x = case.classes, case.x
    if case.pool is None:
        groups = []
        for label in np.unique(classes):
            own = np.flatnonzero(classes == label)
            if len(own) % size:
                raise InputError(
                    f"{name!r} without a pool needs a multiple of {size} samples of each class, and the "
                    f"batch has {len(own)} of class {label}; give pool=(x, y) (--pool FILE)"
                )
            groups += own.reshape(-1, size).tolist()
        places = {m: place for place, m in enumerate(m for members in groups for m in members)}
        return Averages(size=size, members=x[groups], places=tuple(places[m] for m in range(len(x))))
    pool_x, pool_y = case.pool
    drawn = case.rng(size).permutation(len(pool_x))
    free = {label: drawn[as_classes(pool_y)[drawn] == label].tolist() for label in set(classes.tolist())}
    members = []
    for m, label in enumerate(classes.tolist()):
        partners, free[label] = free[label][: size - 1], free[label][size - 1 :]
        if len(partners) < size - 1:
            raise InputError(
                f"the pool has too few samples of class {label} for {name!r}: each of the batch needs "
                f"{size - 1} partners of its own class; give a larger pool"
            )
        members.append(np.stack([x[m], *pool_x[partners]]))
    return Averages(size=size, members=np.stack(members), places=tuple(range(0, size * len(x), size)))


# ---- other models ------------------------------------------------------------------------------------------


def _project(
    basis_of: Callable[[Case, int], Basis],
) -> Callable[[str, Parameters], Defence]:
    def build(name: str, parameters: Parameters) -> Defence:
        rank = int(parameters[0])

        def release(case: Case) -> Released:
            basis = basis_of(case, rank)
            network = projected(case.network, basis)
            batch = case.with_inputs(basis.see(case.batch.inputs), case.batch.labels, network=network)
            facts = {"basis": basis.name}
            return _whole(case, network, batch, subjects=case.x, projected=basis, facts=facts)

        return Defence(
            name=name,
            release=release,
            assumes=ALL_ROUNDS,
            training=lambda case: Training(basis=basis_of(case, rank).columns),
        )

    return build


def _width(name: str, parameters: Parameters) -> Defence:
    width = int(parameters[0])

    def narrow(case: Case) -> ReluNetwork:
        first, *others = case.network.layers
        if not others or width >= first.shape[0]:
            raise InputError(
                f"{name!r} keeps {width} neurons of the first hidden layer, and it has "
                f"{first.shape[0] if others else 'none'}; give a smaller width"
            )
        bias = None if first.bias is None else first.bias[:width]
        second = replace(others[0], weight=others[0].weight[:, :width])
        return ReluNetwork(
            layers=(Linear(weight=first.weight[:width], bias=bias, name=first.name), second, *others[1:])
        )

    def release(case: Case) -> Released:
        network = narrow(case)
        return _whole(case, network, case.with_inputs(case.batch.inputs, case.batch.labels, network=network))

    def training(case: Case) -> Training:
        return Training(widths=(case.network.widths[0], width, *case.network.widths[2:]))

    return Defence(name=name, release=release, assumes=ONE_ROUND, training=training)


def _no_bias(name: str, _: Parameters) -> Defence:
    def release(case: Case) -> Released:
        if all(layer.bias is None for layer in case.network.layers):
            raise InputError(f"{name!r}: the network has no biases to leave out")
        network = ReluNetwork(layers=tuple(replace(layer, bias=None) for layer in case.network.layers))
        return _whole(case, network, case.with_inputs(case.batch.inputs, case.batch.labels, network=network))

    return Defence(name=name, release=release, assumes=ONE_ROUND, training=lambda _: Training(bias=False))


# ---- less of the gradient, or noise on it ------------------------------------------------------------------


def _mask_exan(name: str, _: Parameters) -> Defence:
    return _masking(name, 1)


def _mask_few(name: str, parameters: Parameters) -> Defence:
    return _masking(name, int(parameters[0]))


def _masking(name: str, few: int) -> Defence:
    """Rows of neurons that are active for 1 to ``few`` samples are not sent, in every hidden layer. Which
    they are depends on pre-activations only, which is what exact arguments about releases need."""

    def rows(network: ReluNetwork, patterns: Sequence[Any]) -> dict[str, Mask]:
        found = {}
        for layer, pattern in zip(network.layers[:-1], patterns, strict=True):
            counts = np.asarray(pattern).sum(axis=1)
            keep = (counts == 0) | (counts > few)
            for parameter, array in layer.parameters():
                found[parameter] = np.broadcast_to(keep.reshape(-1, *(1,) * (array.ndim - 1)), array.shape)
        return found

    def release(case: Case) -> Released:
        done = step_of(case.network, case.batch, case.question)
        kept = rows(case.network, done.patterns)
        left_out = sum(int((~mask).sum()) for n, mask in kept.items() if mask.ndim == 1)
        sent = _masked(done.gradient, kept)
        released = _whole(case, case.network, case.batch, facts={"rows that are not sent": left_out})
        return replace(released, sent=sent, kept=kept)

    def training(case: Case) -> Training:
        network = case.network
        return Training(send=lambda done, _: _masked(done.gradient, rows(network, done.patterns)))

    return Defence(name=name, release=release, assumes=ONE_ROUND, training=training)


def _topk(name: str, parameters: Parameters) -> Defence:
    share = parameters[0]

    def kept(gradient: Mapping[str, torch.Tensor]) -> dict[str, Mask]:
        """Of every tensor a mask of the same shape: its largest entries."""
        masks = {}
        for tensor, g in gradient.items():
            count = max(1, round(share * g.numel()))
            least = g.abs().flatten().kthvalue(g.numel() - count + 1).values
            masks[tensor] = (g.abs() >= least).numpy()
        return masks

    def release(case: Case) -> Released:
        gradient = step_of(case.network, case.batch, case.question).gradient
        masks = kept(gradient)
        return replace(_whole(case, case.network, case.batch), sent=_masked(gradient, masks), kept=masks)

    return Defence(
        name=name,
        release=release,
        assumes=ONE_ROUND,
        training=lambda _: Training(send=lambda done, _: _masked(done.gradient, kept(done.gradient))),
    )


def _masked(gradient: Mapping[str, torch.Tensor], kept: Mapping[str, Mask]) -> dict[str, torch.Tensor]:
    return {
        name: torch.where(torch.tensor(kept[name]), g, 0.0) if name in kept else g
        for name, g in gradient.items()
    }


def _withhold(name: str, parameters: Parameters) -> Defence:
    tensor = str(parameters[0])

    def release(case: Case) -> Released:
        names = [n for n, _ in case.network.parameters()]
        if tensor not in names:
            raise InputError(unknown("withhold", tensor, names))
        if len(names) == 1:
            raise InputError(f"{name!r} leaves nothing to send; name one of several tensors")
        released = _whole(case, case.network, case.batch)
        return replace(released, sent={n: g for n, g in released.sent.items() if n != tensor})

    def training(_: Case) -> Training:
        return Training(send=lambda done, _: {n: g for n, g in done.gradient.items() if n != tensor})

    return Defence(name=name, release=release, assumes=ONE_ROUND, training=training)


def _noise(name: str, parameters: Parameters) -> Defence:
    size = parameters[0]

    def noisy(gradient: Mapping[str, torch.Tensor], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The same shapes, with Gaussian noise of ``size`` times the root mean square of all entries."""
        whole = torch.cat([g.flatten() for g in gradient.values()])
        scale = size * float(whole.double().square().mean().sqrt())
        return {n: g + scale * torch.tensor(rng.standard_normal(g.shape)).to(g) for n, g in gradient.items()}

    def release(case: Case) -> Released:
        sent = noisy(step_of(case.network, case.batch, case.question).gradient, case.rng(1))
        return replace(_whole(case, case.network, case.batch), sent=sent, noise=True)

    return Defence(
        name=name,
        release=release,
        assumes=ONE_ROUND,
        training=lambda _: Training(send=lambda done, rng: noisy(done.gradient, rng)),
    )


def _clip_noise(name: str, parameters: Parameters) -> Defence:
    clip, sigma = parameters

    def noisy(
        gradient: Mapping[str, torch.Tensor], scale: float, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """The same shapes, with Gaussian noise of deviation ``scale``."""
        return {n: g + scale * torch.tensor(rng.standard_normal(g.shape)).to(g) for n, g in gradient.items()}

    def release(case: Case) -> Released:
        divisor = case.question.divisor(case.batch.size, case.network.classes)
        gradient = step_of(case.network, case.batch, case.question, clip=clip).gradient
        sent = noisy(gradient, sigma * clip / divisor, case.rng(1))
        return replace(_whole(case, case.network, case.batch), sent=sent, noise=True, weighted=True)

    def training(case: Case) -> Training:
        divisor = case.question.divisor(case.batch.size, case.network.classes)
        scale = sigma * clip / divisor
        return Training(clip=clip, sampled=True, send=lambda done, rng: noisy(done.gradient, scale, rng))

    return Defence(
        name=name,
        release=release,
        assumes="Any adversary, in all rounds, as far as epsilon says: each sample counts for itself.",
        training=training,
        multiplier=sigma,
    )


# ---- names -------------------------------------------------------------------------------------------------

_Build = Callable[[str, Parameters], Defence]

_KINDS: Mapping[str, tuple[_Build, tuple[str, ...], str]] = {
    "regroup": (_regroup, (), "the batch with the fewest exclusive neurons from a pool"),
    "perturb": (_perturb, (), "the smallest change of the inputs that removes all exclusive neurons"),
    "induce": (_induce, (), "its inverse, for testers: inputs that meet the published condition"),
    "mask-exan": (_mask_exan, (), "rows of exclusive neurons are not sent"),
    "mask-few": (_mask_few, ("k",), "rows of neurons that at most k samples activate are not sent"),
    "project-pca": (
        _project(principal),
        ("r",),
        "the first layer sees r principal directions of public data",
    ),
    "project-dct": (_project(cosines), ("r",), "the first layer sees the r lowest cosines"),
    "project-random": (_project(random), ("r",), "the first layer sees r random directions"),
    "average": (_average, ("k",), "inputs are averaged in fixed groups of k of one class"),
    "noise": (_noise, ("s",), "Gaussian noise, s times the root mean square of the gradient"),
    "clip-noise": (
        _clip_noise,
        ("c", "s"),
        "each sample's gradient clipped to norm c, noise of s c on their sum",
    ),
    "topk": (_topk, ("p",), "the share p of the entries of every tensor that are largest"),
    "batch-size": (_larger_batch, ("M",), "batches of M"),
    "width": (_width, ("n",), "a first layer of n neurons"),
    "no-bias": (_no_bias, (), "no biases"),
    "withhold": (_withhold, ("TENSOR",), "one tensor is not sent"),
}

NAMES: Mapping[str, str] = {
    ":".join((name, *parameters)): meaning for name, (_, parameters, meaning) in _KINDS.items()
}
"""Every defence as it is written, with its parameters' names, and what it is."""

WHOLE = frozenset({"k", "r", "M", "n"})
"""Parameters that are whole numbers from 1; an average is of two at least, c, s and p are above 0."""


def defence(name: str) -> Defence:
    """The defence that a name like ``project-pca:16`` stands for. Raises :class:`InputError` otherwise."""
    if not isinstance(name, str):
        raise InputError(f"a defence is a name such as 'project-pca:16', not {short(name)}")
    kind, *given = name.split(":")
    if kind not in _KINDS:
        raise InputError(unknown("defence", kind, NAMES))
    build, parameters, _ = _KINDS[kind]
    if kind == "withhold" and len(given) > 1:  # a parameter's own name may have colons
        given = [":".join(given)]
    if len(given) != len(parameters) or not all(given):
        form = ":".join((kind, *parameters))
        raise InputError(f"defence={short(name)} has {len(given)} parameters; write it as {form!r}")
    return build(name, tuple(_parameter(name, p, text) for p, text in zip(parameters, given, strict=True)))


def _parameter(name: str, parameter: str, text: str) -> float | str:
    if parameter == "TENSOR":
        return text
    try:
        value = float(int(text)) if parameter in WHOLE else float(text)
    except (ValueError, OverflowError):
        value = 0.0
    least = 2 if name.startswith("average") else 1 if parameter in WHOLE else 0
    most = 1 if parameter == "p" else 1e6
    if not least <= value <= most or value == 0:
        kind = f"an integer from {least}" if parameter in WHOLE else "a number above 0"
        limit = ", at most 1" if parameter == "p" else ""
        raise InputError(f"defence={short(name)}: {parameter}={text!r} cannot be used; give {kind}{limit}")
    return value


def _whole(
    case: Case,
    network: ReluNetwork,
    batch: Batch,
    *,
    subjects: Floats | None = None,
    projected: Basis | None = None,
    averages: Averages | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Released:
    """The whole gradient of this network and batch is sent."""
    gradient = step_of(network, batch, case.question).gradient
    return Released(
        network=network,
        batch=batch,
        sent=gradient,
        subjects=np.asarray(batch.inputs, dtype=np.float64) if subjects is None else subjects,
        projected=projected,
        averages=averages,
        facts=facts or {},
    )


def sent_exans(released: Released, patterns: Sequence[Mask]) -> tuple[int, ...]:
    """Exclusive neurons of each hidden layer whose row of the weight gradient is sent, at least in part."""
    found = []
    for layer, pattern in zip(released.network.layers[:-1], patterns, strict=True):
        weight = next(name for name, _ in layer.parameters())
        if weight not in released.sent:
            found.append(0)
            continue
        mask = released.kept.get(weight)
        rows = np.ones(len(pattern), dtype=bool) if mask is None else mask.any(axis=1)
        found.append(sum(exan_counts(pattern[rows])))
    return tuple(found)
