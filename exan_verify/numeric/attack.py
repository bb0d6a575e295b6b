"""The attack on a gradient: find candidates by a method, confirm them, say what is claimed and why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from exan_verify.errors import InputError, RangeError, unknown
from exan_verify.network import Loss, ReluNetwork
from exan_verify.numeric.assign import Assign
from exan_verify.numeric.confirm import Confirmed, confirm
from exan_verify.numeric.lift import Lift
from exan_verify.numeric.passes import weight_gains
from exan_verify.numeric.peel import Peel
from exan_verify.numeric.problem import LayerGradient, Problem, build_problem
from exan_verify.numeric.published import Published
from exan_verify.numeric.records import Attack, Finding, Method
from exan_verify.numeric.regroup import settled
from exan_verify.numeric.sample import Sample
from exan_verify.numeric.spectrum import ColumnSpace, column_space
from exan_verify.numeric.suspicion import hint

_PATIENCE = 2e13
"""Operations that lifting of degree three may take when asked for by name: half an hour on one core."""

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (Published(), Peel(), Lift(work=_PATIENCE), Peel(lift_rest=True), Assign(), Sample())
}
"""The methods by name."""

AUTO: tuple[Method, ...] = (Lift(work=5e9), Assign(), Lift(degrees=(3,)), Peel(lift_rest=True))
"""What ``auto`` tries, in order, until the batch is complete; who is out of range is passed over. Degree 3
comes first where it takes less than a second: it needs no guess, and finds batches of trained networks that
``assign`` does not. Beyond, ``assign`` is faster and reaches further."""

_MANY_ENTRIES = 1 << 24
"""Weights per layer from which several threads pay."""

Progress = Callable[[str, float], None]


def run(
    network: ReluNetwork,
    gradient: Mapping[str, Any],
    *,
    loss: str,
    reduction: str,
    batch_size: int | None = None,
    method: str = "auto",
    repairs: bool = True,
    device: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Attack:
    """Recover the batch behind ``gradient`` (one tensor per parameter, under the network's names).

    ``loss``: cross_entropy, bce, mse or hinge; ``reduction``: mean or sum; ``batch_size``: the batch's size,
    if known; ``method``: ``auto`` or one of :data:`METHODS`; ``repairs=False`` takes ``published`` to the
    letter; ``device``: a torch device; ``progress`` is told (what, share done). Computes in float64, whatever
    the dtypes.

    No claimed sample is further from the truth than its ``error_bound``, for gradients whose error is
    rounding and batches of the stated size. Without ``batch_size``, and with reduction mean, the smallest
    size that explains the gradient is taken: a batch with every sample twice looks like half of it.

    Raises :class:`InputError` naming what cannot be used, :class:`RangeError` when the batch has more
    unknowns than the method has equations.
    """
    start = time.perf_counter()
    methods = _methods(method, repairs=repairs)
    tell = progress or _silent
    tell("reading the gradient", 0.0)
    problem = build_problem(
        network, gradient, loss=loss, reduction=reduction, batch_size=batch_size, device=device, seed=seed
    )
    with torch.no_grad(), _threads_for(problem):
        spaces = _spaces(problem)
        gains = weight_gains(problem)
        outcome: tuple[Finding, Confirmed] | None = None
        refusal: RangeError | None = None
        for k, one in enumerate(methods):
            tell(f"{one.name}: finding candidates", 0.2 + 0.8 * k / len(methods))
            try:
                finding = one.find(problem, spaces)
            except RangeError as error:
                if method != "auto":
                    raise
                refusal = refusal or error
                continue
            tell(f"{one.name}: confirming {finding.x.shape[0]} candidates", 0.6 + 0.4 * k / len(methods))
            confirmed = _confirm(problem, spaces, finding, gains)
            if outcome is None or len(confirmed.status) > len(outcome[1].status):
                outcome = finding, confirmed
            if confirmed.complete:
                break
    if outcome is None or (refusal is not None and not len(outcome[0].x)):
        assert refusal is not None
        raise refusal
    tell("done", 1.0)
    return _with_hint(problem, _attack(*outcome, seconds=time.perf_counter() - start))


def _methods(method: str, *, repairs: bool) -> tuple[Method, ...]:
    if method != "auto" and method not in METHODS:
        raise InputError(unknown("method", method, ["auto", *METHODS]))
    if not repairs:
        if method != Published().name:
            raise InputError(f"repairs=False belongs to method='published', not to {method!r}; leave it out")
        return (Published(repairs=False),)
    return AUTO if method == "auto" else (METHODS[method],)


@contextmanager
def _threads_for(problem: Problem) -> Iterator[None]:
    """One thread for small problems: many small factorisations lose more to threads than they gain."""
    threads = torch.get_num_threads()
    if max(layer.weight.numel() for layer in problem.layers) < _MANY_ENTRIES:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _silent(_what: str, _share: float) -> None:
    pass


def _spaces(problem: Problem) -> tuple[ColumnSpace, ...]:
    """The column space of every layer, at first up to the largest rank that degree 2 could use there, or
    asked for; further while it is not exhausted, as far as the layer allows."""
    generator = problem.generator()
    return tuple(_space(problem, layer, generator) for layer in problem.layers)


def _space(problem: Problem, layer: LayerGradient, generator: torch.Generator) -> ColumnSpace:
    most = max(math.isqrt(2 * layer.shape[0]) + 1, problem.batch_size or 0)
    while True:
        space = column_space(layer, unit_roundoff=problem.unit_roundoff, most=most, generator=generator)
        if not space.saturated or len(space.values) >= min(layer.shape[0], layer.shape[1] + 1):
            return space
        most *= 2


def _confirm(
    problem: Problem, spaces: tuple[ColumnSpace, ...], finding: Finding, gains: list[tuple[float, float]]
) -> Confirmed:
    if finding.x.shape[0]:
        kept, refined, dropped = settled(problem, spaces[0], finding, gains)
        confirmed = confirm(problem, spaces, kept, refined, gains)
        return replace(confirmed, unclaimed=confirmed.unclaimed + dropped)
    rank = max((space.rank for space in spaces[:-1]), default=0)
    classes = problem.loss in (Loss.CROSS_ENTROPY, Loss.HINGE)
    labels = (
        torch.zeros(0, dtype=torch.long) if classes else torch.zeros(0, problem.classes, dtype=torch.float64)
    )
    return Confirmed(
        x=finding.x,
        y=labels.to(problem.device),
        status=(),
        unclaimed=(),
        gradient_residual=1.0,
        complete=False,
        batch_size=problem.batch_size or rank,
        batch_size_source="rank" if problem.batch_size is None else "given",
        reason=finding.reason,
    )


def _attack(finding: Finding, confirmed: Confirmed, *, seconds: float) -> Attack:
    return Attack(
        x=confirmed.x,
        y=confirmed.y,
        status=confirmed.status,
        gradient_residual=confirmed.gradient_residual,
        complete=confirmed.complete,
        batch_size=confirmed.batch_size,
        batch_size_source=confirmed.batch_size_source,
        method=finding.method,
        layer=finding.layer,
        layers=finding.layers,
        unclaimed=confirmed.unclaimed,
        reason=confirmed.reason,
        seconds=seconds,
    )


def _with_hint(problem: Problem, found: Attack) -> Attack:
    if found.status:
        return found
    return replace(found, hint=hint(problem, [one.x for one in found.unclaimed], found.batch_size))
