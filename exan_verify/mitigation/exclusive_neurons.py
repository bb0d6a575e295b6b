"""Fewer exclusive neurons, or more: grouping samples anew, and the smallest perturbation of the inputs.

The perturbation is asked for a *target pattern*: of every neuron and sample, on or off. Each exclusive neuron
is switched where that is cheapest (off for its sample, or on for another one), all other neurons stay as they
are. For a given target the conditions are linear in each sample alone, and the least L-infinity perturbation
that meets them is a linear program. Floating point finds it; the exclusivity of the result is then counted in
exact arithmetic. Another target might need a still smaller perturbation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import poll
from exan_verify.core.network import Batch
from exan_verify.errors import InputError
from exan_verify.exact.backprop import forward
from exan_verify.exact.lp import guessed_optimum
from exan_verify.exclusivity import exan_counts, exclusivity
from exan_verify.mitigation.case import Case, Floats, Mask

Counts = npt.NDArray[np.int64]
"""Exclusive neurons, one row per hidden layer and one column per sample."""

Switch = Callable[[Mask, Floats, bool], Mask]
"""From a layer's pattern (n, M), the price of switching each entry, and whether the layer is the last hidden
one, to its target (n, M)."""

_MARGIN = 1e-7
"""Least distance from zero of a pre-activation, over the L1 norm of its weights: far above float64's rounding
of sums of a thousand terms, far below the perturbations it is added to."""

_WIDER = (1.0, 10.0, 100.0)
"""Margins are tried in turn: what the solver tolerates may exceed the first."""


def regrouped(case: Case, candidates: Floats) -> list[int]:
    """Positions in ``candidates`` (P, d), of which the first M are the batch, of M samples with few exclusive
    neurons: from the batch, the best exchange of one sample for another, until none is better.
    """
    size = case.batch.size
    patterns = _float_patterns(case, candidates)
    chosen = list(range(size))
    best = _exclusive_neurons(patterns[chosen])
    while True:
        poll()
        found: tuple[int, int, int] | None = None
        for place in range(size):
            rest = patterns[[c for k, c in enumerate(chosen) if k != place]].sum(axis=0)
            # after adding p a neuron is exclusive if p alone has it, or one of the rest and not p
            counts = patterns @ (rest == 0).astype(np.int64) + (~patterns) @ (rest == 1).astype(np.int64)
            counts[chosen] = np.iinfo(np.int64).max
            least = int(counts.argmin())
            if counts[least] < (best if found is None else found[0]):
                found = int(counts[least]), place, least
        if found is None:
            return chosen
        best, place, newcomer = found
        chosen[place] = newcomer


def without_exans(case: Case) -> Floats:
    """Inputs (M, d) near the batch's, inside its domain, of which no neuron is exclusive.

    Raises :class:`InputError` where none is found.
    """
    return _perturbed(case, _switch_off, lambda counts: not counts.any(), "without an exclusive neuron")


def with_exans(case: Case) -> Floats:
    """Inputs (M, d) near the batch's that meet the published condition: two exclusive neurons per sample in
    the last hidden layer and one in every other.

    Raises :class:`InputError` where none are found.
    """

    def enough(counts: Counts) -> bool:
        return bool((counts[:-1] >= 1).all() and (counts[-1] >= 2).all())

    return _perturbed(case, _switch_on, enough, "that meet the published condition")


def exan_totals(case: Case, batch: Batch) -> tuple[int, ...]:
    """Exclusive neurons of each hidden layer, exactly."""
    return tuple(sum(layer) for layer in exclusivity(case.network, batch, loss=case.question.loss).counts)


def _exclusive_neurons(patterns: Mask) -> int:
    return int((patterns.sum(axis=0) == 1).sum())


def _float_patterns(case: Case, x: Floats) -> Mask:
    """Which neurons of all hidden layers each row of ``x`` activates (P, n_1 + n_2 + ...), to rounding."""
    h, found = x, []
    for layer in case.network.layers[:-1]:
        z = h @ np.asarray(layer.weight, dtype=np.float64).T
        z = z if layer.bias is None else z + np.asarray(layer.bias, dtype=np.float64)
        found.append(z > 0)
        h = np.maximum(z, 0)
    return np.concatenate(found, axis=1) if found else np.zeros((len(x), 0), dtype=bool)


def _perturbed(case: Case, switch: Switch, met: Callable[[Counts], bool], what: str) -> Floats:
    """The nearest inputs for the target that ``switch`` chooses; ``met`` is asked of their exact counts."""
    if not case.network.layers[:-1]:
        raise InputError(
            f"inputs {what} need a hidden layer, and the network has none; leave this defence out"
        )
    for wider in _WIDER:
        rows, targets = _affine_under_target(case, switch)
        moved = np.stack(
            [
                _least_change(case, case.x[m], rows[m], targets[m], _MARGIN * wider)
                for m in range(case.batch.size)
            ]
        )
        passed = forward(case.network, case.with_inputs(moved, case.batch.labels))
        if met(np.array([exan_counts(pattern) for pattern in passed.patterns])):
            return moved
    raise InputError(f"no inputs {what} were found near this batch; its neurons are too close to each other")


def _affine_under_target(case: Case, switch: Switch) -> tuple[list[tuple[Floats, Floats]], list[Mask]]:
    """Per sample the affine maps ``A x + c`` of all its pre-activations once its pattern is the target, and
    that target; hidden layer by hidden layer, since a layer's map depends on the targets below it.
    """
    size, features = case.x.shape
    maps = [np.eye(features) for _ in range(size)]
    shifts = [np.zeros(features) for _ in range(size)]
    rows: list[list[Floats]] = [[] for _ in range(size)]
    constants: list[list[Floats]] = [[] for _ in range(size)]
    targets: list[list[Mask]] = [[] for _ in range(size)]
    hidden = case.network.layers[:-1]
    for number, layer in enumerate(hidden):
        weight = np.asarray(layer.weight, dtype=np.float64)
        bias = 0.0 if layer.bias is None else np.asarray(layer.bias, dtype=np.float64)
        first = number == 0
        maps = [weight if first else weight @ a for a in maps]
        shifts = [weight @ c + bias for c in shifts]
        z = np.stack([a @ x + c for a, c, x in zip(maps, shifts, case.x, strict=True)], axis=1)
        norms = np.stack([np.abs(a).sum(axis=1) for a in maps], axis=1)
        cost = np.abs(z) / np.maximum(norms, np.finfo(np.float64).tiny)
        target = switch(z > 0, cost, number + 1 == len(hidden))
        for m in range(size):
            rows[m].append(maps[m])
            constants[m].append(shifts[m])
            targets[m].append(target[:, m])
        maps = [a * target[:, m][:, None] for m, a in enumerate(maps)]
        shifts = [c * target[:, m] for m, c in enumerate(shifts)]
    return (
        [(np.concatenate(a), np.concatenate(c)) for a, c in zip(rows, constants, strict=True)],
        [np.concatenate(t) for t in targets],
    )


def _switch_off(pattern: Mask, cost: Floats, _last: bool) -> Mask:
    """Every exclusive neuron loses its sample or gains the one that costs least; (n, M)."""
    target = pattern.copy()
    for j in np.flatnonzero(pattern.sum(axis=1) == 1):
        cheapest = int(cost[j].argmin())
        target[j, cheapest] = ~target[j, cheapest]
    return target


def _switch_on(pattern: Mask, cost: Floats, last: bool) -> Mask:
    """Each sample gets the exclusive neurons that it lacks, the cheapest first, none from another sample."""
    target, needed = pattern.copy(), 2 if last else 1
    exclusive = pattern.sum(axis=1) == 1
    price = np.empty(pattern.shape)
    for m in range(pattern.shape[1]):
        alone = np.zeros(pattern.shape[1], dtype=bool)
        alone[m] = True
        price[:, m] = np.where(pattern != alone, cost, 0.0).max(axis=1)
    taken = np.zeros(len(pattern), dtype=bool)
    for m in np.argsort((exclusive[:, None] & pattern).sum(axis=0), kind="stable"):
        own = np.flatnonzero(exclusive & pattern[:, m] & ~taken)[:needed]
        taken[own] = True
        for _ in range(needed - len(own)):
            free = np.flatnonzero(~taken & ~exclusive)
            if not len(free):
                raise InputError(
                    f"induce: {pattern.shape[1]} samples need {needed} exclusive neurons each, and a layer "
                    f"has {len(pattern)}; use a smaller batch"
                )
            j = int(free[price[free, m].argmin()])
            taken[j] = True
            target[j] = False
            target[j, m] = True
    return target


def _least_change(
    case: Case, x: Floats, affine: tuple[Floats, Floats], target: Mask, margin: float
) -> Floats:
    """The point nearest to ``x`` in L-infinity inside the domain at which ``A x + c`` has the target's signs.

    Few of the conditions matter: those that fail at the last answer are added until none does.
    """
    from scipy.sparse import csr_matrix, eye, hstack, vstack

    rows, constants = affine
    sign = np.where(target, 1.0, -1.0)
    norms = np.abs(rows).sum(axis=1)
    here = (rows @ x + constants) * sign
    least = margin * norms
    box = box_of(case)
    room = [(None, None)] * len(x) if box is None else list(zip(box[0] - x, box[1] - x, strict=True))
    watched = np.flatnonzero(here < least)
    moved, step = x, np.zeros_like(x)
    while True:
        poll()
        values = (rows @ moved + constants) * sign
        failing = np.flatnonzero(values < 0.5 * least)
        fresh = np.setdiff1d(failing, watched)
        if not len(failing) or (len(step) and step.any() and not len(fresh)):
            return moved
        watched = np.union1d(watched, failing)
        # variables: the step a (d,) and its size e; minimise e with |a_k| <= e and sign (A a + z) >= margin
        d = len(x)
        conditions = np.hstack([-(rows[watched] * sign[watched, None]), np.zeros((len(watched), 1))])
        e = csr_matrix(np.ones((d, 1)))
        size = vstack([hstack([eye(d), -e]), hstack([-eye(d), -e])])
        answer = guessed_optimum(
            np.append(np.zeros(d), 1.0),
            A_ub=vstack([csr_matrix(conditions), size]),
            b_ub=np.append(here[watched] - least[watched], np.zeros(2 * d)),
            bounds=[*room, (0, None)],
            method="highs",
        )
        if answer.status != 0:
            raise InputError(
                "no perturbation inside the domain gives the neurons the pattern that was asked for; give a "
                "wider domain, or another batch"
            )
        step = answer.x[:d]
        # the solver's tolerance may leave a face of the domain by 1e-9
        moved = x + step if box is None else np.clip(x + step, *box)


def box_of(case: Case) -> tuple[Floats, Floats] | None:
    """The domain's faces (d,), or those of [0, 1] where none was given and all inputs lie in it."""
    x = case.x
    if case.question.domain is not None:
        low, high = case.question.domain.bounds(x.shape[1])
        return np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if x.min() >= 0 and x.max() <= 1:
        return np.zeros(x.shape[1]), np.ones(x.shape[1])
    return None
