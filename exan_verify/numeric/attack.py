"""The attack on a gradient: find candidates by a method, confirm them, say what is claimed and why."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch

from exan_verify.core.network import Network
from exan_verify.core.question import Labels, Release
from exan_verify.errors import BudgetExhausted, InputError, RangeError, unknown
from exan_verify.numeric.ask_methods import Candidates, column_spaces, pursue
from exan_verify.numeric.confirming.adding_up import distinct
from exan_verify.numeric.methods.equations import too_many
from exan_verify.numeric.methods.exclusive_neurons.peel import Peel
from exan_verify.numeric.methods.exclusive_neurons.published import Published
from exan_verify.numeric.methods.lifting.lift import Lift
from exan_verify.numeric.methods.one_sample import one_sample
from exan_verify.numeric.methods.searching.assign import Assign
from exan_verify.numeric.methods.searching.descend import Descend
from exan_verify.numeric.methods.searching.sample import Sample
from exan_verify.numeric.missing.completion import attack_sparsified, sparsified
from exan_verify.numeric.missing.partial import Partial
from exan_verify.numeric.missing.single_layer import attack_single_layer
from exan_verify.numeric.problem.problem import Problem, build_problem
from exan_verify.numeric.problem.records import Attack, Method
from exan_verify.numeric.waiting import Progress, Telling
from exan_verify.numeric.wrong_question_hint import (
    BATCH_STATISTICS,
    batch_statistics,
    hint,
    looks_altered,
    quantised,
)

_PATIENCE = 2e13
"""Operations that lifting of degree three may take when asked for by name: half an hour on one core."""

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Published(),
        Peel(),
        Lift(work=_PATIENCE),
        Peel(lift_rest=True),
        Assign(),
        Sample(),
        Descend(),
    )
}
"""The methods by name."""

AUTO: tuple[Method, ...] = (
    Lift(work=5e9),
    Assign(),
    Lift(degrees=(3,)),
    Peel(lift_rest=True),
    Descend(),
)
"""What ``auto`` tries, in order, until the batch is complete; who is out of range is passed over. Degree 3
comes first where it takes less than a second: it needs no guess, and finds batches of trained networks that
``assign`` does not. Beyond, ``assign`` is faster and reaches further; peeling first would double its time at
64 samples and 1000 neurons."""

_NO_GRADIENT = "no batch explains these numbers: their own distribution is not that of a gradient"

_MANY_ENTRIES = 1 << 24
"""Weights per layer from which several threads pay."""


def run(
    network: Network,
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
    rectified: bool = False,
    release: Release | None = None,
    progress: Progress | None = None,
) -> Attack:
    """Recover the batch behind ``gradient`` (one tensor per parameter, under the network's names).

    ``loss``: cross_entropy, bce, mse or hinge; ``reduction``: mean or sum; ``labels``: one_hot (the loss's
    own kind; for bce 0/1 vectors) or real (targets of mse, bce and cross_entropy that are any numbers);
    ``smoothing`` of cross_entropy's labels; ``scale``: the gradient is so many times the batch's, or
    ``unknown``, which ``auto`` tries by itself where no label explains the loss vectors; ``weights``: equal,
    or positive, an unknown factor on the loss of every sample; ``batch_size``: the batch's size, if known;
    ``method``: ``auto`` or one of :data:`METHODS`; ``repairs=False`` takes ``published`` to the letter;
    ``device``: a torch device; ``partial``: tensors may be missing from the gradient, and what the others say
    is recovered, down to features of a hidden layer; ``release``: so is what it withholds, which is not read
    where ``gradient`` has it (its input basis is none of this function's: ``network`` is the one on B^T x);
    ``rectified``: no input has a negative entry;
    ``progress`` is told (what, share done), at least once a second. Computes in float64, whatever the dtypes.

    No confirmed sample is further from the truth than its ``error_bound``, for gradients whose error is
    rounding and batches of the stated size; a consistent one belongs to a batch that may be another. Without
    ``batch_size``, and with reduction mean, the smallest size that explains the gradient is taken: a batch
    with every sample twice looks like half of it.

    Raises :class:`InputError` naming what cannot be used, :class:`RangeError` when the batch has more
    unknowns than the method has equations.
    """
    start = time.perf_counter()
    methods = _methods(method, repairs=repairs)
    tell = Telling(progress)
    tell("reading the gradient", 0.0)
    problem = tell.during(
        lambda: build_problem(
            network,
            gradient,
            loss=loss,
            reduction=reduction,
            batch_size=batch_size,
            device=device,
            seed=seed,
            labels=labels,
            partial=partial,
            scale=scale,
            weights=weights,
            smoothing=smoothing,
            release=release,
        )
    )
    with torch.no_grad(), _threads_for(problem), _said_of_altered(problem):
        found = _found(problem, network, methods, method, tell, rectified=rectified)
        found = replace(found, candidates=distinct(found.x, found.status, found.candidates))
        found = _with_hint(problem, found, tell)
    with suppress(BudgetExhausted):
        tell("done", 1.0)
    return replace(found, seconds=time.perf_counter() - start)


def _found(
    problem: Problem,
    network: Network,
    methods: tuple[Method, ...],
    method: str,
    tell: Telling,
    *,
    rectified: bool,
) -> Attack:
    """What one sample explains, and else what the layers that are sent say of several."""
    # without a hidden layer that one sample is asked for as well
    alone = method == Published().name or len(problem.layers) < 2
    single = None if alone else tell.during(lambda: one_sample(problem))
    # where only the size is open that the gradient is a batch's of, no method can say more
    sized = problem.scale is not None and not problem.weighted
    if single is not None and (single.complete or (sized and single.hint)):
        return single
    if len(problem.layers) < 2:
        name = "the gradient of a single Linear layer"
        return tell.during(lambda: attack_single_layer(problem, name=name, rectified=rectified))
    try:
        found = _of_several(problem, network, methods, method, tell)
    except RangeError:
        if single is None or not problem.whole:
            raise
        return single
    # what one sample lacks to be all is said better than why several are not found
    return found if single is None or found.status else single


def _of_several(
    problem: Problem, network: Network, methods: tuple[Method, ...], method: str, tell: Telling
) -> Attack:
    """What ``methods`` find, of a gradient as it was made, sparsified, or sent in part."""
    completed = _completed(problem, method, tell)
    if completed is not None:
        return completed
    named = method != "auto"
    if not problem.whole:
        names = tuple(_pair(*(name for name, _ in layer.parameters())) for layer in network.layers)
        return Partial(problem=problem, names=names, methods=methods, named=named, tell=tell).run()
    spaces = tell.during(lambda: column_spaces(problem))

    def candidates(one: Method) -> Candidates:
        return Candidates(problem=problem, spaces=spaces, finding=one.find(problem, spaces))

    return pursue(methods, candidates, named=named, tell=tell).attack()


def _completed(problem: Problem, method: str, tell: Telling) -> Attack | None:
    """What the kept entries of a sparsified gradient say, where they complete it."""
    in_reach = method == "auto" and len(problem.layers) == 2 and problem.whole and problem.rectified
    asked = problem.scale == 1 and not problem.weighted and problem.question.labels is not Labels.REAL
    # quantised entries are zero where they are less than half a step
    if not (in_reach and asked and sparsified(problem)) or quantised(problem):
        return None
    return tell.during(lambda: attack_sparsified(problem, tell))


def _pair(weight: str, bias: str = "") -> tuple[str, str]:
    """The names of a layer's two parameters, the second one empty where it has no biases."""
    return weight, bias


@contextmanager
def _said_of_altered(problem: Problem) -> Iterator[None]:
    """Of numbers that are no gradient's, sizes and ranks say nothing: a refusal names what they look like."""
    try:
        yield
    except RangeError as error:
        altered = quantised(problem) or looks_altered(problem)
        raise (RangeError(altered) if altered else error) from error


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


def _with_hint(problem: Problem, found: Attack, tell: Telling) -> Attack:
    if found.status or found.hint or found.hidden is not None or found.method == "completion":
        return found
    said = quantised(problem)
    if said:
        return replace(found, hint=said)
    altered = looks_altered(problem)
    if altered:
        candidates = tuple(replace(one, reason=_NO_GRADIENT) for one in found.candidates)
        return replace(found, hint=altered, reason=_NO_GRADIENT, candidates=candidates)
    for k, layer in enumerate(problem.layers):
        if layer.weight_given and batch_statistics(layer.weight, layer.d_weight):
            return replace(found, hint=BATCH_STATISTICS.format(layer=f"layer {k + 1}"))
    if not problem.layers[-1].whole:
        return found
    if not found.candidates and too_many(problem, max((one.rank for one in found.layers), default=0)):
        # what fills the rank fills the sums over the logits too, which would name a loss
        return found
    with suppress(BudgetExhausted):
        text = tell.during(lambda: hint(problem, [one.x for one in found.candidates], found.batch_size))
        return replace(found, hint=text)
    return found
