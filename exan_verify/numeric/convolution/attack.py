"""The attack on a network with convolutions: head, then layer by layer, then estimates of what stays open."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.errors import BudgetExhausted, InputError
from exan_verify.models.pictures.stages import AveragePool, ConvolutionalNetwork, Flatten, MaxPool, Relu
from exan_verify.numeric.attack import run as run_head
from exan_verify.numeric.confirming.missing_tensor_doubts import last_layer_vectors
from exan_verify.numeric.convolution.confirm import (
    expected_rounding,
    feature_misfit,
    feature_slack,
    gradient_misfit,
    gradient_slack,
    seen_rounding,
)
from exan_verify.numeric.convolution.descend import Descent, descend_stages, nothing_known
from exan_verify.numeric.convolution.gradients import ConvolutionGradient, SplitGradient, split_gradient
from exan_verify.numeric.convolution.inversion import invert_features
from exan_verify.numeric.convolution.known import Known, at_features
from exan_verify.numeric.convolution.records import ImageAttack
from exan_verify.numeric.problem.passes import forward
from exan_verify.numeric.problem.problem import Problem, build_problem
from exan_verify.numeric.problem.records import Attack, Candidate, Evidence
from exan_verify.numeric.problem.torch_losses import BatchLoss
from exan_verify.numeric.waiting import Progress, Telling, awaited, proceed
from exan_verify.numeric.wrong_question_hint import BATCH_STATISTICS, batch_statistics

PICTURE_LIMIT = 1e-3
"""Largest error bound of a claimed picture, relative to its largest entry (at least 1)."""


def run(
    network: ConvolutionalNetwork,
    gradient: Mapping[str, Any],
    *,
    loss: str,
    reduction: str,
    labels: str = "one_hot",
    batch_size: int | None = None,
    method: str = "auto",
    repairs: bool = True,
    device: Any = None,
    seed: int = 0,
    partial: bool = False,
    scale: float | str = 1.0,
    weights: str = "equal",
    smoothing: float = 0.0,
    iterations: int = 200,
    progress: Progress | None = None,
) -> ImageAttack:
    """Recover features, labels and, where the stages determine them, pictures.

    Arguments as for :func:`exan_verify.numeric.attack.run`, which the head is attacked with; ``method``
    and ``repairs`` are the head's. ``partial``: tensors may be missing; a convolution without its weight
    gradient is inverted by its outputs alone. ``iterations``: of the optimisation that estimates pictures
    left open; 0: none.

    Raises :class:`InputError` and :class:`GradientError` naming what cannot be used.
    """
    start = time.perf_counter()
    tell = Telling(progress)
    if iterations < 0:
        raise InputError(f"iterations={iterations} is negative; give 0 to leave pictures open")
    target = torch.device("cpu" if device is None else device)
    split = split_gradient(network, gradient, target, partial=partial)
    tell("the fully connected head", 0.0)
    asked: dict[str, Any] = {
        "loss": loss,
        "reduction": reduction,
        "labels": labels,
        "batch_size": batch_size,
        "device": device,
        "seed": seed,
        "partial": partial,
        "scale": scale,
        "weights": weights,
        "smoothing": smoothing,
    }
    problem = build_problem(network.head, split.head, **asked)
    head = run_head(
        network.head,
        split.head,
        **asked,
        method=method,
        repairs=repairs,
        rectified=_rectified(network),
        progress=lambda what, share: tell(f"the fully connected head: {what}", 0.2 * share),
    )
    with torch.no_grad():
        estimates = None
        unfinished = head.unfinished
        found = _left_open(network, head)
        try:
            if not unfinished:
                tell("layer by layer", 0.2)
                found = tell.during(lambda: _pictures(network, split, head, problem))
            if iterations and found.reason and len(head.x) and found.known is not None:
                body = split.body if head.complete else {}
                estimates = _estimates(network, found.known, body, iterations, seed, tell)
        except BudgetExhausted as error:
            if not len(head.x):
                raise
            unfinished = True
            found = replace(found, reason=f"{error}; {found.reason}".removesuffix("; "))
    with suppress(BudgetExhausted):
        tell("done", 1.0)
    attack = _result(network, head, found, split.body, estimates, time.perf_counter() - start)
    return replace(attack, missing=split.missing, unfinished=unfinished)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """Claimed pictures by place among the features, or the reason why there is none."""

    good: Tensor
    descent: Descent
    known: Known | None
    candidates: tuple[Candidate, ...]
    residual: float | None
    reason: str


def _left_open(network: ConvolutionalNetwork, head: Attack) -> _Found:
    """No picture looked at, whatever features the head gave."""
    return _Found(
        good=torch.zeros(len(head.x), dtype=torch.bool, device=head.x.device),
        descent=nothing_known(network, head.batch_size),
        known=None,
        candidates=(),
        residual=None,
        reason=head.reason,
    )


def _estimates(
    network: ConvolutionalNetwork,
    known: Known,
    body: Mapping[int, ConvolutionGradient],
    iterations: int,
    seed: int,
    tell: Telling,
) -> Tensor:
    done = [0.0]

    def step(share: float) -> None:
        proceed()
        done[0] = share

    def beat() -> None:
        tell("estimating pictures", 0.3 + 0.7 * done[0])

    beat()
    inversion = awaited(
        lambda: invert_features(network, known, body, iterations=iterations, seed=seed, progress=step), beat
    )
    return inversion.pictures


def _rectified(network: ConvolutionalNetwork) -> bool:
    """Whether the features cannot be negative: a ReLU, then only pools and Flatten."""
    for stage in reversed(network.body):
        if isinstance(stage, Relu):
            return True
        if not isinstance(stage, (AveragePool, MaxPool, Flatten)):
            return False
    return False


def _pictures(
    network: ConvolutionalNetwork,
    split: SplitGradient,
    head: Attack,
    problem: Problem,
) -> _Found:
    size = len(head.x)
    loss = _batch_loss(problem, head)
    unit = _unit_roundoff(split)
    error = _feature_norms(head, split)

    def descend(passed: Tensor) -> tuple[Known, Descent]:
        """From errors (M,) of the features that are passed on."""
        at = at_features(network, head.x, error + passed, loss)
        if not size:
            return at, nothing_known(network, head.batch_size)
        return at, descend_stages(network, at, split.body, whole=head.complete, unit_roundoff=unit)

    passed = expected_rounding(network, head.x, unit)
    known, descent = descend(passed)
    if descent.pictures is not None:
        seen = seen_rounding(network, descent.pictures, unit)
        if not bool((seen <= passed).all()):
            known, descent = descend(torch.maximum(passed, seen))
    nothing = torch.zeros(size, dtype=torch.bool, device=head.x.device)
    if size == 0 or descent.pictures is None or descent.error is None:
        reason = head.reason if size == 0 else descent.reason
        return _Found(
            good=nothing,
            descent=descent,
            known=known if size else None,
            candidates=(),
            residual=None,
            reason=reason,
        )
    pictures, bound = descent.pictures, descent.error
    reasons, residual = _judge(network, split, head, descent, loss)
    good = torch.tensor([not r for r in reasons], dtype=torch.bool, device=head.x.device)
    return _Found(
        good=good,
        descent=descent,
        known=known,
        candidates=tuple(
            Candidate(x=pictures[m], label=head.y[m], error_estimate=float(bound[m]), reason=r)
            for m, r in enumerate(reasons)
            if r
        ),
        residual=residual,
        reason=next((r for r in reasons if r), ""),
    )


def _batch_loss(problem: Problem, head: Attack) -> BatchLoss | None:
    """The loss of the samples found by the head, at the factors found; None where these stay open."""
    loss, weights = problem.question.loss, None
    divisor = replace(problem, scale=head.scale).divisor(head.batch_size)
    if problem.weighted and loss is Loss.BCE and problem.classes > 1:
        # every entry has a factor of its own, which the last layer's gradient has with the whole batch
        trace = forward(problem, head.x)
        g = last_layer_vectors(problem, trace) if head.complete else None
        if g is None:
            return None
        weights = g * divisor / problem.loss_vectors(trace.logits, head.y)
    elif problem.weighted:
        weights = head.x.new_tensor([one.weight for one in head.status])[:, None]
    return BatchLoss(loss=loss, labels=head.y, divisor=divisor, smoothing=problem.smoothing, weights=weights)


def _unit_roundoff(split: SplitGradient) -> float:
    """Of the coarsest dtype in the gradient."""
    return max([split.unit_roundoff, *(torch.finfo(t.dtype).eps / 2 for t in split.head.values())])


def _feature_norms(head: Attack, split: SplitGradient) -> Tensor:
    """L2 errors of the features; the bounds of single entries say it where tensors are missing."""
    wide = head.x.shape[1] ** 0.5
    norms = [
        s.error_bound * wide if split.missing else min(s.error_norm, s.error_bound * wide)
        for s in head.status
    ]
    return torch.tensor(norms, dtype=torch.float64, device=head.x.device)


def _judge(
    network: ConvolutionalNetwork,
    split: SplitGradient,
    head: Attack,
    descent: Descent,
    loss: BatchLoss | None,
) -> tuple[list[str], float | None]:
    """Per picture why it is not claimed, and the largest relative misfit of a convolution's gradient."""
    pictures, bound, norm = descent.pictures, descent.error, descent.norm
    assert pictures is not None
    assert bound is not None
    assert norm is not None
    reasons = [""] * len(pictures)
    error = torch.tensor([s.error_bound for s in head.status]).to(bound)
    misfit = feature_misfit(network, pictures, head.x)
    slack = feature_slack(network, pictures, norm, error)
    for m in range(len(pictures)):
        limit = PICTURE_LIMIT * max(1.0, float(pictures[m].abs().max()))
        if not float(bound[m]) <= limit:
            reasons[m] = (
                f"its error bound {float(bound[m]):.1e} exceeds {limit:.1e} "
                f"({PICTURE_LIMIT:.0e} of its largest entry, or of 1)"
            )
        elif not float(misfit[m]) <= float(slack[m]):
            reasons[m] = (
                f"its own features miss the known ones by {float(misfit[m]):.1e}, errors explain "
                f"{float(slack[m]):.1e}"
            )
    if not head.complete or not split.body or loss is None:
        return reasons, None
    gradient = gradient_misfit(network, pictures, loss, split.body)
    explained = gradient_slack(network, pictures, loss, norm, unit_roundoff=split.unit_roundoff)
    for k, value in gradient.items():
        if not value <= explained[k]:
            text = (
                f"the pictures miss the gradient of {network.body[k].path!r} by {value:.1e} (relative), "
                f"errors explain {explained[k]:.1e}"
            )
            reasons = [r or text for r in reasons]
    return reasons, max(gradient.values(), default=None)


def _result(
    network: ConvolutionalNetwork,
    head: Attack,
    found: _Found,
    body: Mapping[int, ConvolutionGradient],
    estimates: Tensor | None,
    seconds: float,
) -> ImageAttack:
    good = found.good
    pictures = found.descent.pictures
    empty = head.x.new_zeros(0, *network.input_shape)
    status = [
        _picture_evidence(evidence, found.descent.error, m)
        for m, evidence in enumerate(head.status)
        if bool(good[m])
    ]
    complete = head.complete and len(head.x) > 0 and bool(good.all())
    residual = found.residual if found.residual is not None else (head.gradient_residual if complete else 1.0)
    return ImageAttack(
        x=empty if pictures is None else pictures[good],
        y=head.y[good],
        status=tuple(status),
        gradient_residual=residual,
        complete=complete,
        batch_size=head.batch_size,
        batch_size_source=head.batch_size_source,
        method=head.method,
        layer=head.layer,
        layers=head.layers,
        candidates=found.candidates,
        reason="" if complete else found.reason or head.reason,
        seconds=seconds,
        features=head.x,
        feature_labels=head.y,
        feature_status=head.status,
        features_complete=head.complete,
        stages=found.descent.stages,
        known=found.known,
        estimates=estimates,
        last_layer=head.last_layer,
        scale=head.scale,
        notes=head.notes,
        hidden=head.hidden,
        hint="" if complete else _body_hint(network, body) or head.hint,
    )


def _body_hint(network: ConvolutionalNetwork, body: Mapping[int, ConvolutionGradient]) -> str:
    """Whether a convolution's BatchNorm used the statistics of the batch."""
    for k, given in body.items():
        stage = network.convolutions[k]
        weight = stage.weight.to(given.weight.device)
        if stage.fold is not None and batch_statistics(weight.flatten(1), given.weight.flatten(1)):
            return BATCH_STATISTICS.format(layer=f"{stage.path!r}")
    return ""


def _picture_evidence(evidence: Evidence, error: Tensor | None, m: int) -> Evidence:
    assert error is not None
    return replace(evidence, error_bound=float(error[m]))
