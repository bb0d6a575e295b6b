"""Published attacks by optimisation, for comparison: own implementations after the papers.

- :func:`inverting_gradients`: Geiping, Bauermeister, Droege, Moeller, *Inverting Gradients*, NeurIPS 2020
  (arXiv 2003.14053): cosine distance of gradients plus total variation, Adam on the signs, box constraint,
  24,000 steps of 0.1 that falls tenfold after 3/8, 5/8 and 7/8 of them. The labels are given to it, as there.
- :func:`dlg`: Zhu, Liu, Han, *Deep Leakage from Gradients*, NeurIPS 2019 (arXiv 1906.08935): squared distance
  of gradients, L-BFGS with step 1 over pictures and soft labels, 300 steps.

Neither claims anything about what it returns. Both take any model that autograd can differentiate twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exan_verify.core.question import Loss, Question
from exan_verify.errors import InputError
from exan_verify.numeric.convolution.inversion import total_variation
from exan_verify.numeric.problem.problem import as_tensor
from exan_verify.numeric.problem.torch_losses import summed_loss

PUBLISHED_ITERATIONS = 24_000
"""Steps of Inverting Gradients in the paper."""

DLG_ITERATIONS = 300
"""Steps of DLG in the paper."""

_DECAY = (3 / 8, 5 / 8, 7 / 8)
_STEP = 0.1
_TOTAL_VARIATION = 1e-4
"""Its weight beside the cosine distance, which is at most 2."""

_CROSS_ENTROPY = Question(loss=Loss.CROSS_ENTROPY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long an optimisation goes on: at most ``iterations`` steps for each of ``restarts``, and
    ``seconds`` of wall time for all of them together; the seed of their starts, the dtype it works in."""

    iterations: int
    restarts: int = 1
    seconds: float | None = None
    seed: int = 0
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Baseline:
    """``x`` (M, *shape) and ``y``, classes (M,) or targets (M, K); its last distance of gradients, steps over
    all restarts, and seconds."""

    x: Tensor
    y: Tensor
    distance: float
    iterations: int
    seconds: float


def inverting_gradients(
    model: nn.Module,
    gradient: Mapping[str, Any],
    *,
    labels: Tensor,
    shape: tuple[int, ...],
    question: Question = _CROSS_ENTROPY,
    effort: Effort = Effort(iterations=PUBLISHED_ITERATIONS),
    box: tuple[float, float] | None = (0.0, 1.0),
) -> Baseline:
    """Inverting Gradients for a batch with the given ``labels`` (M,) or (M, K) and inputs of ``shape``.

    With a limit in seconds the step's decay is stretched over it. The total variation acts on pictures
    (C, H, W) only. ``box``: where inputs lie.

    Raises :class:`InputError` for values that cannot be used, and for hinge.
    """
    _check_loss(question)
    _load_optimisers()
    matching = _Matching(model, gradient, question, len(labels), effort.dtype)
    _check_positive(iterations=effort.iterations, restarts=effort.restarts)
    seconds, restarts = effort.seconds, effort.restarts
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(effort.seed)
    best: tuple[float, Tensor] | None = None
    steps = 0
    for trial in range(restarts):
        x = torch.randn((len(labels), *shape), generator=generator).to(matching.like)
        steps += _signed_adam(matching, x.requires_grad_(True), labels, _Clock(effort), box)
        distance = float(matching.cosine(x, labels).detach())
        if best is None or distance < best[0]:
            best = distance, x.detach()
        if seconds is not None and time.perf_counter() - start > seconds * (trial + 1.5) / restarts:
            break
    assert best is not None
    return Baseline(
        x=best[1],
        y=labels,
        distance=best[0],
        iterations=steps,
        seconds=time.perf_counter() - start,
    )


def dlg(
    model: nn.Module,
    gradient: Mapping[str, Any],
    *,
    samples: int,
    shape: tuple[int, ...],
    classes: int,
    question: Question = _CROSS_ENTROPY,
    effort: Effort = Effort(iterations=DLG_ITERATIONS),
) -> Baseline:
    """Deep Leakage from Gradients: inputs and labels together.

    For cross_entropy the labels are soft (a softmax of free logits) and reported as classes; for mse and bce
    free targets.

    Raises :class:`InputError` for values that cannot be used, and for hinge.
    """
    _check_loss(question)
    _load_optimisers()
    _check_positive(samples=samples, classes=classes, iterations=effort.iterations, restarts=effort.restarts)
    matching = _Matching(model, gradient, question, samples, effort.dtype)
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(effort.seed)
    best: tuple[float, Tensor, Tensor] | None = None
    steps = 0
    for _ in range(effort.restarts):
        x = torch.randn((samples, *shape), generator=generator).to(matching.like).requires_grad_(True)
        y = torch.randn((samples, classes), generator=generator).to(matching.like).requires_grad_(True)
        distance, done = _lbfgs(matching, x, y, _Clock(effort))
        steps += done
        if best is None or not distance >= best[0]:
            best = distance, x.detach(), y.detach()
    assert best is not None
    return Baseline(
        x=best[1],
        y=best[2].argmax(dim=1) if question.loss.class_labels else best[2],
        distance=best[0],
        iterations=steps,
        seconds=time.perf_counter() - start,
    )


def _load_optimisers() -> None:
    """With its first optimiser torch loads a compiler, for seconds; that must not count as optimising."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])


class _Clock:
    """The steps of one restart, by number or by time, whichever ends first."""

    def __init__(self, effort: Effort) -> None:
        self._iterations = effort.iterations
        self._seconds = None if effort.seconds is None else effort.seconds / effort.restarts
        self._start = time.perf_counter()
        self.done = 0

    @property
    def share(self) -> float:
        spent = 0.0 if self._seconds is None else (time.perf_counter() - self._start) / self._seconds
        return max(self.done / self._iterations, spent)


class _Matching:
    """The gradient of candidates beside the given one."""

    def __init__(
        self,
        model: nn.Module,
        gradient: Mapping[str, Any],
        question: Question,
        samples: int,
        dtype: torch.dtype,
    ) -> None:
        self._question, self._samples = question, samples
        self._model = model
        named = {name: p for name, p in model.named_parameters() if name in gradient}
        if not named:
            raise InputError(
                "the gradient has no tensor of this model; name tensors as named_parameters() does"
            )
        self._parameters = {n: p.detach().to(dtype).requires_grad_(True) for n, p in named.items()}
        self._buffers = {n: b.to(dtype) if b.is_floating_point() else b for n, b in model.named_buffers()}
        self.like = next(iter(self._parameters.values())).detach()
        self._target = [as_tensor(gradient[n], n).to(self.like) for n in self._parameters]
        self._norm = torch.stack([g.square().sum() for g in self._target]).sum().sqrt()

    def _gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        state = {**self._parameters, **self._buffers}
        logits = torch.func.functional_call(self._model, state, (x,))
        divisor = self._question.divisor(self._samples, logits.shape[1])
        total = summed_loss(self._question.loss, logits, y) / divisor
        return torch.autograd.grad(total, list(self._parameters.values()), create_graph=True)

    def cosine(self, x: Tensor, labels: Tensor) -> Tensor:
        """1 - cosine of the two gradients at ``x`` (M, ...), all tensors taken as one vector."""
        found = self._gradient(x, labels)
        dot = torch.stack([(a * b).sum() for a, b in zip(found, self._target, strict=True)]).sum()
        norm = torch.stack([a.square().sum() for a in found]).sum().sqrt()
        distance: Tensor = 1 - dot / (norm * self._norm).clamp(min=1e-30)
        return distance

    def squared(self, x: Tensor, soft: Tensor) -> Tensor:
        """Squared distance at ``x`` (M, ...), with ``soft`` labels (M, K)."""
        y = soft.softmax(dim=1) if self._question.loss.class_labels else soft
        found = self._gradient(x, y)
        return torch.stack([(a - b).square().sum() for a, b in zip(found, self._target, strict=True)]).sum()


def _signed_adam(
    matching: _Matching,
    x: Tensor,
    labels: Tensor,
    clock: _Clock,
    box: tuple[float, float] | None,
) -> int:
    optimiser = torch.optim.Adam([x], lr=_STEP)
    while (share := clock.share) < 1:
        optimiser.param_groups[0]["lr"] = _STEP * 0.1 ** sum(share >= bound for bound in _DECAY)
        cost = matching.cosine(x, labels) + _TOTAL_VARIATION * total_variation(x)
        (slope,) = torch.autograd.grad(cost, x)
        x.grad = slope.sign()
        optimiser.step()
        if box is not None:
            with torch.no_grad():
                x.clamp_(*box)
        clock.done += 1
    return clock.done


def _lbfgs(matching: _Matching, x: Tensor, y: Tensor, clock: _Clock) -> tuple[float, int]:
    optimiser = torch.optim.LBFGS([x, y], lr=1.0)
    latest = float("inf")

    def closure() -> Tensor:
        """The cost (), its derivatives left at ``x`` (M, d) and ``y`` (M, K)."""
        optimiser.zero_grad()
        cost = matching.squared(x, y)
        x.grad, y.grad = torch.autograd.grad(cost, (x, y))
        return cost

    step: Callable[[Callable[[], Tensor]], Any] = optimiser.step
    while clock.share < 1:
        latest = float(step(closure).detach())
        clock.done += 1
        if not latest < float("inf"):
            break
    return latest, clock.done


def _check_loss(question: Question) -> None:
    """Raise :class:`InputError` for hinge: its gradient is constant between kinks, and has no soft labels."""
    if question.loss is Loss.HINGE:
        raise InputError("loss='hinge' cannot be optimised for; use attack, or another loss")


def _check_positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or value < 1:
            raise InputError(f"{name}={value!r} is not a positive integer; give at least 1")
