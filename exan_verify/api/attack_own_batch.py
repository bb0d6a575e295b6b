"""An attack on the gradient of one's own batch, scored by sample: what a report shows beside proofs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.api.attack import attack, with_convolutions
from exan_verify.core.network import Array, Batch, Network
from exan_verify.core.question import Labels, Question
from exan_verify.models.chain import to_any_network

if TYPE_CHECKING:
    from torch import Tensor

    from exan_verify.numeric.convolution.records import ImageAttack
    from exan_verify.numeric.problem.metrics import Score
    from exan_verify.numeric.problem.records import Attack

READABLE_PSNR = 20.0
"""In dB: an error of a tenth of the range of the inputs, at which digits and faces are still recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the attack made of one sample of the batch: values, their error, and the bound it states.

    ``rmse`` and ``largest`` (L-infinity) errors, ``psnr`` in dB on the scale of the inputs; ``bound`` on
    ``largest``, ``how`` it was found; ``tier``: confirmed, consistent, candidate, or estimate, a picture
    fitted to its features, of which nothing is claimed.
    """

    values: Array
    label: Any
    rmse: float
    largest: float
    psnr: float
    bound: float
    how: str
    tier: str = "confirmed"

    @property
    def status(self) -> str:
        """The tier, or ``wrong`` where the error of a confirmed sample exceeds its bound: a defect."""
        return "wrong" if self.tier == "confirmed" and not self.largest <= self.bound else self.tier

    @property
    def readable(self) -> bool:
        """Whether a viewer would recognise it: as a leak it counts, whatever its tier."""
        return self.psnr >= READABLE_PSNR


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the attack knows below a fully connected head: features and labels of ``count`` samples, within
    ``bound`` (L-infinity)."""

    count: int
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnBatchAttack:
    """What the attack made of a batch's own gradient: its result, and what it claims of each sample.

    ``candidates``: what else it shows of the samples that are not recovered. ``features`` and ``estimates``
    (pictures that stay open, by sample, with the labels of their features): None for other models. Of a
    release with an input basis ``found`` and ``score`` speak of the samples' B^T x, of one with averages of
    the means, and the others of the pictures that these give.
    """

    found: Attack
    score: Score
    recoveries: tuple[Recovery | None, ...]
    candidates: tuple[Recovery | None, ...] = ()
    features: Features | None = None
    estimates: tuple[Recovery | None, ...] | None = None

    @property
    def projected(self) -> bool:
        """Whether what was attacked shows the samples through an input basis, or in means, only."""
        return bool(self.entered)

    @property
    def entered(self) -> str:
        """What of the samples the attack finds, where it is not they themselves."""
        release = self.found.release
        basis = release is not None and release.input_basis is not None
        means = release is not None and release.averages is not None
        return " of ".join(part for part, is_so in (("B^T x", basis), ("means", means)) if is_so)

    def gate(self, *, candidates: bool) -> str:
        """``hit`` by one sample recovered, or with ``candidates`` also by one candidate or estimate; else
        ``passed`` if the attack ran to its end, ``undecided`` if a budget cut it. Of B^T x and of means those
        count that give a picture of a sample which a viewer would recognise."""
        if self.projected:
            shown = sum(one is not None and one.readable for one in self.recoveries)
            if candidates:
                shown += sum(one is not None and one.readable for one in self.candidates)
        else:
            shown = len(self.found.status)
            if candidates:
                shown += len(self.found.candidates) + sum(one is not None for one in self.estimates or ())
        return "hit" if shown else "undecided" if self.found.unfinished else "passed"


def attack_own_batch(
    model: Any,
    x: Array,
    y: Array,
    question: Question,
    *,
    seed: int = 0,
    budget: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> OwnBatchAttack:
    """Attack the float64 gradient of ``x`` (M, ...) with labels ``y``: classes (M,), or targets (M, K).

    The attacker is told the loss, the reduction and the batch size of the ``question``, and given what its
    release sends, of the means where it averages; its domain is not used. With an input basis B the model may
    be the one on x or the one on B^T x; ``x`` are the samples themselves. ``budget`` in seconds. Raises what
    ``attack`` raises where it does not apply, and :class:`LabelError` for labels that the loss does not have.
    """
    shape = x.shape[1:] if x.ndim == 4 else None
    network: Network
    if with_convolutions(model):
        from exan_verify.models.pictures.graph import to_convolutional

        network = to_convolutional(model, shape).head
    else:
        chain = to_any_network(model, in_double=True)
        if chain.plain is not chain:  # the gradient below is that of the folded numbers
            model = chain.plain
        network = chain.plain
    nowhere = np.zeros((len(y), network.widths[0]))
    labels = Batch.of(nowhere, y, network=network, loss=question.loss, labels=question.labels).labels
    release = question.release
    basis = None if release is None or release.input_basis is None else release.input_basis.astype(np.float64)
    groups = None if release is None else release.averages
    enters = x
    if groups is not None:
        enters = np.stack([x[list(group)].mean(axis=0) for group in groups])
        labels = labels[[group[0] for group in groups]]
    seen = enters if basis is None else enters.reshape(len(enters), -1) @ basis
    if basis is not None and len(basis) != network.widths[0]:
        enters = seen
    gradient = batch_gradient(model, enters, labels, question)
    found = attack(
        model,
        gradient,
        release=release,
        loss=question.loss,
        reduction=question.reduction,
        labels=Labels.REAL if question.labels is Labels.REAL else Labels.ONE_HOT,
        batch_size=len(enters),
        seed=seed,
        input_shape=shape,
        budget=budget,
        progress=progress,
    )
    attacked = scored(found, seen, labels)
    return attacked if basis is None and groups is None else _as_pictures(attacked, x, basis, groups)


def _as_pictures(
    attacked: OwnBatchAttack, x: Array, basis: Array | None, groups: tuple[tuple[int, ...], ...] | None
) -> OwnBatchAttack:
    """What was recovered of B^T x, or of means, as pictures of the ``x`` (M, ...) themselves: of B^T x the
    shortest input with these numbers, B (B^T B)^-1 B^T x; of a sample the mean of the first group with it
    that was recovered. With their errors; no bound is known for them."""
    back, span = None if basis is None else np.linalg.pinv(basis), value_range(x)

    def shown(m: int, found: tuple[Recovery | None, ...]) -> Recovery | None:
        places = [m] if groups is None else [g for g, group in enumerate(groups) if m in group]
        one = next((found[g] for g in places if g < len(found) and found[g] is not None), None)
        if one is None:
            return None
        values = one.values if back is None else one.values.reshape(-1) @ back
        return compared(replace(one, how=f"{one.how}, of {attacked.entered}"), values, x[m], span)

    recoveries = tuple(shown(m, attacked.recoveries) for m in range(len(x)))
    candidates = tuple(shown(m, attacked.candidates) for m in range(len(x)))
    rest = (None if one is not None else c for one, c in zip(recoveries, candidates, strict=True))
    return replace(attacked, recoveries=recoveries, candidates=tuple(rest))


def compared(one: Recovery, values: Array, truth: Array, span: float) -> Recovery:
    """``one`` with other ``values``, as a picture of ``truth`` (both (d,), or in the shape of a picture), of
    data with that ``span``: its bound spoke of something else."""
    off = np.asarray(values, dtype=np.float64).reshape(-1) - np.asarray(truth, dtype=np.float64).reshape(-1)
    rmse = float(np.sqrt(np.square(off).mean()))
    return replace(
        one,
        values=values.reshape(np.shape(truth)),
        bound=math.inf,
        rmse=rmse,
        largest=float(np.abs(off).max()),
        psnr=psnr(rmse, span),
    )


def psnr(rmse: float, span: float) -> float:
    """Peak signal to noise ratio in dB of an error on data of this ``span``; infinite without an error."""
    return math.inf if rmse == 0 else 20 * math.log10(span / rmse)


def value_range(x: Array) -> float:
    """The range of the data, 1 where it lies in [0, 1]."""
    inside = x.min() >= 0 and x.max() <= 1
    return 1.0 if inside else float(x.max() - x.min()) or 1.0


def scored(found: Attack, x: Array, y: Array) -> OwnBatchAttack:
    """An attack's result beside the true batch, ``x`` (M, ...) and ``y`` (M,) or (M, K)."""
    from exan_verify.numeric.convolution.records import ImageAttack

    score = scores(found.x, found.y, x, y)
    made = _recoveries(found, score, len(y))
    attacked = OwnBatchAttack(
        found=found, score=score, recoveries=made, candidates=_candidates(found, made, x, y)
    )
    if not isinstance(found, ImageAttack):
        return attacked
    bound = max((status.error_bound for status in found.feature_status), default=0.0)
    return replace(
        attacked,
        features=Features(count=len(found.features), bound=bound),
        estimates=None if found.estimates is None else _estimates(found, x, y),
    )


def _estimates(found: ImageAttack, x: Array, y: Array) -> tuple[Recovery | None, ...]:
    """For each true sample the estimated picture that is matched to it."""
    assert found.estimates is not None
    shown: list[Recovery | None] = [None] * len(x)
    for one in scores(found.estimates, found.feature_labels, x, y).samples:
        label = found.feature_labels[one.index]
        shown[one.truth] = Recovery(
            values=found.estimates[one.index].detach().cpu().numpy(),
            label=int(label) if label.dim() == 0 else tuple(label.tolist()),
            rmse=one.rmse,
            largest=one.largest,
            psnr=one.psnr,
            bound=math.inf,
            how="fitted to its features",
            tier="estimate",
        )
    return tuple(shown)


def _recoveries(found: Attack, scored: Score, size: int) -> tuple[Recovery | None, ...]:
    """For each of ``size`` true samples what the attack claims of it."""
    made: list[Recovery | None] = [None] * size
    for one in scored.samples:
        label = found.y[one.index]
        made[one.truth] = Recovery(
            values=found.x[one.index].cpu().numpy(),
            label=int(label) if label.dim() == 0 else tuple(label.tolist()),
            rmse=one.rmse,
            largest=one.largest,
            psnr=one.psnr,
            bound=found.status[one.index].error_bound,
            how=found.status[one.index].method,
            tier=found.status[one.index].tier.value,
        )
    return tuple(made)


def _candidates(
    found: Attack, made: tuple[Recovery | None, ...], x: Array, y: Array
) -> tuple[Recovery | None, ...]:
    """For each true sample that is not among those ``made``, the candidate that is matched to it."""
    rest = [m for m, one in enumerate(made) if one is None]
    shown: list[Recovery | None] = [None] * len(made)
    values, labels, errors = found.stacked_candidates()
    if not rest or not len(values):
        return tuple(shown)
    for one in scores(values, labels, x[rest], y[rest]).samples:
        label = found.candidates[one.index].label
        shown[rest[one.truth]] = Recovery(
            values=values[one.index].cpu().numpy(),
            label="-" if label is None else int(label) if label.dim() == 0 else tuple(label.tolist()),
            rmse=one.rmse,
            largest=one.largest,
            psnr=one.psnr,
            bound=float(errors[one.index]),
            how=found.method,
            tier="candidate",
        )
    return tuple(shown)


def aligned(rows: Tensor, labels: Tensor, x: Array, y: Array) -> tuple[Any, ...]:
    """``rows`` (m, ...) as arrays, in the order of the true samples ``x`` (M, ...) that they are nearest to;
    None for the others.
    """
    placed: list[Any] = [None] * len(x)
    for one in scores(rows, labels, x, y).samples:
        placed[one.truth] = rows[one.index].detach().cpu().numpy()
    return tuple(placed)


def scores(found: Tensor, labels: Tensor, x: Array, y: Array) -> Score:
    """Recovered samples against the true ones; PSNR on the scale of ``x``, 1 where it lies in [0, 1]."""
    import torch

    from exan_verify.numeric.problem.metrics import score

    truth = torch.tensor(np.asarray(x, dtype=np.float64))
    return score(found, labels, truth, torch.tensor(_numbers(y)), data_range=value_range(x))


def batch_gradient(model: Any, x: Array, y: Array, question: Question) -> dict[str, Tensor]:
    """The gradient of a batch by parameter name, from one autograd call in float64 on the stored weights;
    that of trained slopes (PReLU) is left out.

    ``x`` (M, ...); ``y``: classes (M,), or targets (M, K) for mse and bce.
    """
    import torch

    from exan_verify.numeric.problem.torch_losses import summed_loss

    inputs = torch.tensor(np.asarray(x, dtype=np.float64))
    parameters, logits = _module(model, inputs) if with_convolutions(model) else _chain(model, inputs)
    total = summed_loss(question.loss, logits, torch.tensor(_numbers(y)))
    value = total / question.divisor(*logits.shape)
    return dict(zip(parameters, torch.autograd.grad(value, list(parameters.values())), strict=True))


def _module(model: Any, inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    import torch

    parameters = {n: p.detach().double().requires_grad_(True) for n, p in model.named_parameters()}
    buffers = {n: b.double() if b.is_floating_point() else b for n, b in model.named_buffers()}
    return parameters, torch.func.functional_call(model, parameters | buffers, inputs)


def _chain(model: Any, inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    import torch

    from exan_verify.numeric.problem.activations import Piecewise

    network = to_any_network(model, in_double=True)
    parameters = {
        name: torch.tensor(np.asarray(value, dtype=np.float64)).requires_grad_(True)
        for name, value in network.parameters()
    }
    h = inputs.flatten(1)
    for k, layer in enumerate(network.layers):
        weight, *bias = (parameters[name] for name, _ in layer.parameters())
        if k:
            h = Piecewise.of(network.activation(k), inputs.device).values(h)
        h = torch.nn.functional.linear(h, weight, *bias)
    return parameters, h


def _numbers(y: Array) -> Array:
    """Classes (M,) as int64, other labels as float64."""
    values = np.asarray(y, dtype=np.float64)
    return values.astype(np.int64) if y.ndim == 1 and bool((values % 1 == 0).all()) else values
