"""The attack on a sparsified gradient: the largest entries of every tensor were kept, the others are zero.

A = [dW_1 | db_1] has rank M, so that its kept entries complete it where every row and column keeps more than
M: alternating least squares over the kept entries, with the others bounded by the smallest one that was kept
(Jain, Netrapalli and Sanghavi 2013; the ridge is that of the nuclear norm, Mazumder, Hastie and Tibshirani
2010). From more columns than samples the ridge leaves those that are not needed small, in a few rounds: the
widest gaps of the singular values are guesses at the rank, of which the least that reproduces the entries is
taken. On the rows and columns whose kept entries determine them, the completion then is exact.

Lifting takes these rows, with what the columns say of the inputs. Pixels whose columns keep too little follow
from what these keep, and from what the last layer keeps: dW_2 = G^T H is linear in them, as loss vectors and
states of neurons are known by then. Few of them are not zero, so that basis pursuit finds them. The batch has
to reproduce every kept entry, and no other entry may exceed the smallest one kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.errors import RangeError
from exan_verify.numeric.methods.lifting.lift import Lift
from exan_verify.numeric.missing.basis_pursuit import few_entries
from exan_verify.numeric.problem.losses import LabelFit
from exan_verify.numeric.problem.passes import backward, delta_spans, forward
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Attack, Candidate, Evidence
from exan_verify.numeric.problem.spectrum import column_space
from exan_verify.numeric.waiting import Telling, proceed

_LEFT_OUT = 0.05
"""Share of zeros, among rows and columns that are used, from which entries are taken to be left out."""

_SMALL = 1e-3
"""Share of the root mean square of the entries kept, below which the smallest of them would be were nothing
left out: of a gradient 1e-7 and less, of the largest 99 % 3e-3."""

_RIDGE = 1e-3
"""Of the nuclear norm, where the largest entry is one."""

_ROUNDS, _AGAIN, _EXACT_ROUNDS, _NARROWING = 40, 10, 120, 12

_GAP, _LEAST_GAP, _RANKS = 1e3, 1.5, 4
"""Between the singular values that are needed and those that the ridge leaves: the rounds end where it is
clear. The widest gaps, from the least, are guesses at the rank."""

_SHARP = 1e-3
"""Of the unknowns of a row or column that is determined: how much less of them its kept entries show."""

_SPARE = 4
"""Entries more than M that a row or column has to keep to be completed exactly."""

_EQUATIONS, _ENTRIES = 1200, 1 << 27
"""Equations, and entries of their matrix, that missing pixels are solved from: at 10 % there are 1000."""

_NEGATIVE = 1e-6
"""Share of the largest pixel up to which a negative one is rounding."""

_FITS = 1e-9
"""Relative distance at which entries kept are reproduced; roundings are 1e-13, other batches beyond 1e-4."""

_SAFETY = 16.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completed:
    """A matrix on the ``rows`` (n,) and ``columns`` (c,) that its kept entries determine: ``values`` (n, c),
    zero elsewhere, of ``rank``; ``residual``: relative, on the entries kept there."""

    values: Tensor
    rows: Tensor
    columns: Tensor
    rank: int
    residual: float


def sparsified(problem: Problem) -> bool:
    """Whether small entries of a gradient were left out, of dW_1 or of the last dW."""
    first, last = problem.layers[0], problem.layers[-1]
    if not (first.whole and last.whole):
        return False
    kept = first.d_weight != 0
    rows, columns = kept.any(dim=1), kept.any(dim=0)
    if _cut(first.d_weight[rows][:, columns], _LEFT_OUT):
        return True
    # of a neuron that is active somewhere every entry is a sum over loss vectors, whose entries are not zero
    dense = len(problem.layers) == 2 and problem.question.loss is not Loss.HINGE
    return dense and _cut(last.d_weight[:, rows], 0.0)


def _cut(entries: Tensor, natural: float) -> bool:
    """Whether more than a share ``natural`` of the entries are zero, and none of the others is small."""
    kept = entries[entries != 0].double().abs()
    if not len(kept) or len(kept) >= (1 - natural) * entries.numel():
        return False
    return float(kept.min()) > _SMALL * float(kept.square().mean().sqrt())


def complete(kept: Float[Tensor, "n c"], limit: Float[Tensor, "n c"], most: int) -> Completed | None:
    """The matrix of lowest rank, at most ``most``, with the entries ``kept`` where these are not zero, and
    within ``limit`` elsewhere; None where no rank below ``most`` is told."""
    scale = float(kept.abs().max())
    mask, given, bound = kept != 0, kept / scale, limit / scale
    u, values, vt = torch.linalg.svd(given, full_matrices=False)
    left, right = u[:, :most] * values[:most].sqrt(), vt[:most].T * values[:most].sqrt()
    for _ in range(_ROUNDS):
        proceed()
        left, right, values = _balanced(*_bounded(mask, given, bound, left, right, _RIDGE))
        gaps = values[:-1] / values[1:].clamp(min=1e-300)
        if float(gaps.max()) > _GAP:
            break
    # the least rank that reproduces the entries; of noisy ones the rank of the widest gap
    widest = gaps.argsort(descending=True)[:_RANKS]
    ranks = [int(k) + 1 for k in widest if float(gaps[k]) > _LEAST_GAP]
    best = None
    for rank in sorted(ranks):
        near, far = left[:, :rank], right[:, :rank]
        for _ in range(_AGAIN):
            proceed()
            near, far = _bounded(mask, given, bound, near, far, 0.1 * _RIDGE)
        done = _exactly(mask, given, near, far, scale)
        if done is not None and done.residual < _FITS:
            return done
        best = done if rank == ranks[0] else best
    return best


def _exactly(mask: Tensor, given: Tensor, left: Tensor, right: Tensor, scale: float) -> Completed | None:
    """The completion by its kept entries alone, on the rows and columns that these determine."""
    rank = left.shape[1]
    weights = mask.double()
    rows, columns = torch.ones_like(mask[:, 0]), torch.ones_like(mask[0])
    for _ in range(_NARROWING):
        rows = weights[:, columns].sum(dim=1) >= rank + _SPARE
        columns = weights[rows].sum(dim=0) >= rank + _SPARE
    residual = math.inf
    while True:
        if int(rows.sum()) <= rank or int(columns.sum()) <= rank:
            return None
        kept, target = weights[rows][:, columns], given[rows][:, columns]
        near, far, before = left[rows], right[columns], math.inf
        for k in range(_EXACT_ROUNDS):
            proceed()
            near = _solved(kept, target, far, 0.0)
            far = _solved(kept.T, target.T, near, 0.0)
            near, far, _ = _balanced(near, far)
            residual = float((kept * (near @ far.T - target)).norm() / target.norm())
            if residual < 1e-14 or (k % 10 == 9 and not residual < 0.5 * before):
                break
            before = residual if k % 10 == 9 else before
        left[rows], right[columns] = near, far
        sure = _sharpness(kept, far) > _SHARP, _sharpness(kept.T, near) > _SHARP
        if bool(sure[0].all()) and bool(sure[1].all()):
            break
        rows[rows.clone()], columns[columns.clone()] = sure
    values = torch.zeros_like(given)
    values[rows.nonzero(), columns.nonzero().T] = scale * (near @ far.T)
    return Completed(values=values, rows=rows, columns=columns, rank=rank, residual=residual)


def _sharpness(weights: Float[Tensor, "n c"], factor: Float[Tensor, "c r"]) -> Float[Tensor, " n"]:
    """Per row, the smallest singular value of the orthonormalised factor on the entries it keeps."""
    q, _ = torch.linalg.qr(factor)
    smallest: Tensor = torch.linalg.eigvalsh(_grams(weights, q))[:, 0]
    return smallest.clamp(min=0).sqrt()


def _grams(weights: Float[Tensor, "n c"], factor: Float[Tensor, "c r"]) -> Float[Tensor, "n r r"]:
    """Per row, the Gram matrix of the factor on entries of weight one."""
    size = factor.shape[1]
    return (weights @ (factor[:, :, None] * factor[:, None, :]).flatten(1)).view(-1, size, size)


def _bounded(
    mask: Tensor, given: Tensor, bound: Tensor, left: Tensor, right: Tensor, ridge: float
) -> tuple[Tensor, Tensor]:
    """One round of alternating least squares on the entries kept, and on others beyond their bounds."""
    left = _solved(*_with_bounds(mask, given, bound, left @ right.T), right, ridge)
    weights, targets = _with_bounds(mask, given, bound, left @ right.T)
    return left, _solved(weights.T, targets.T, left, ridge)


def _with_bounds(mask: Tensor, given: Tensor, bound: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and targets: kept entries, and the others where they exceed their bound."""
    over = ~mask & (current.abs() > bound)
    return (mask | over).double(), torch.where(mask, given, torch.where(over, current.sign() * bound, 0.0))


def _solved(weights: Tensor, targets: Tensor, factor: Tensor, ridge: float) -> Tensor:
    """The other factor, row by row, by least squares on the entries of weight one."""
    gram = _grams(weights, factor)
    gram.diagonal(dim1=1, dim2=2).add_(max(ridge, 1e-15))
    solved: Tensor = torch.linalg.solve(gram, (targets @ factor)[:, :, None])[:, :, 0]
    return solved


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The factors with orthogonal columns of equal norm, and the singular values of their product."""
    q, r = torch.linalg.qr(left)
    p, s = torch.linalg.qr(right)
    u, values, vt = torch.linalg.svd(r @ s.T)
    return q @ u * values.sqrt(), p @ vt.T * values.sqrt(), values


def attack_sparsified(problem: Problem, tell: Telling) -> Attack | None:
    """The batch behind the entries kept; None where they do not complete the first layer's gradient.

    One hidden layer of ReLU, the whole gradient at its own scale, and labels of the loss's own kind.
    """
    first, last = problem.layers
    kept = first.augmented()
    limit = torch.full_like(kept, float(first.d_weight[first.d_weight != 0].abs().min()))
    limit[:, -1] = float(first.d_bias[first.d_bias != 0].abs().min()) if bool(first.d_bias.any()) else 0.0
    most = min(
        math.isqrt(2 * len(kept)) + 1, min(kept.shape) - 1, 2 * (problem.question.batch_size or 1 << 30)
    )
    tell("completing the gradient of layer 1", 0.1)
    done = complete(kept, limit, most)
    if done is None or not bool(done.columns[-1]):
        return None
    whole = replace(
        first,
        d_weight=done.values[:, :-1],
        d_bias=done.values[:, -1],
        weight_rows=done.rows,
        bias_rows=done.rows,
    )
    nothing = replace(
        last,
        d_weight=torch.zeros_like(last.d_weight),
        d_bias=torch.zeros_like(last.d_bias),
        weight_given=False,
        bias_given=False,
    )
    completed = replace(problem, layers=(whole, nothing))
    generator = problem.generator()
    spaces = tuple(
        column_space(
            layer, unit_roundoff=max(problem.unit_roundoff, done.residual), most=most, generator=generator
        )
        for layer in completed.layers
    )
    try:
        found = Lift().find(completed, spaces)
    except RangeError:
        return None
    if len(found.x) != done.rank:
        return None
    return _judged(problem, done, *_inputs(problem, done, found.x))


def _inputs(problem: Problem, done: Completed, x: Float[Tensor, "M d"]) -> tuple[Tensor, Tensor, LabelFit]:
    """The whole inputs, their estimated errors (M,) and labels, from inputs that lack pixels."""
    last = problem.layers[1]
    c = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    # deltas, states and loss vectors on the rows completed: exact, whatever the missing pixels are
    delta = (done.values @ torch.linalg.pinv(c)) * done.rows[:, None]
    active = (delta.abs() > 1e-7 * delta.abs().amax(dim=0)).double()
    spans = active.T[:, :, None] * last.weight.double().T
    g = (torch.linalg.pinv(spans, rtol=1e-10) @ delta.T[:, :, None])[:, :, 0]
    missing = torch.nonzero(~done.columns[:-1])[:, 0]
    unit = max(problem.unit_roundoff, done.residual)
    errors = _SAFETY * unit * torch.linalg.pinv(delta).norm(dim=1) * float(delta.norm()) * x.abs().amax(dim=1)
    if len(missing):
        x = x.clone()
        solved, spread = _missing_pixels(problem, done, x, delta, active, g, missing)
        x[:, missing] = solved
        errors = torch.maximum(errors, spread)
    trace = forward(problem, x)
    fit = problem.fit_labels(
        trace.logits, delta_spans(problem, trace) * done.rows[:, None], delta.T, samples=len(x)
    )
    return x, errors, fit


def _missing_pixels(
    problem: Problem,
    done: Completed,
    x: Float[Tensor, "M d"],
    delta: Float[Tensor, "n M"],
    active: Float[Tensor, "n M"],
    g: Float[Tensor, "M K"],
    missing: Tensor,
) -> tuple[Float[Tensor, "M q"], Float[Tensor, " M"]]:
    """Pixels of columns that keep too little for themselves, and how far roundings move them."""
    first, last = problem.layers
    size, count = len(x), len(missing)
    weight = first.weight.double()
    # enough of them, at random; the batch has to reproduce all
    most = min(_EQUATIONS, _ENTRIES // (size * count))
    generator = problem.generator()
    # sum_m delta_jm x_mi = A_ji where kept
    j, i = _some((first.d_weight[:, missing] != 0) & done.rows[:, None], most, generator)
    own = torch.zeros(len(j), size, count, dtype=x.dtype, device=x.device)
    own[torch.arange(len(j), device=x.device), :, i] = delta[j]
    right = first.d_weight[:, missing].double()[j, i]
    # sum_m g_mk a_jm (w_j x_m + b_j) = dW_2,kj where kept
    k, h = _some((last.d_weight != 0) & done.rows, most - len(j), generator)
    factor = g[:, k].T * active[h]
    below = factor[:, :, None] * weight[h][:, None, missing]
    pre = x @ weight.T + first.bias
    rest = last.d_weight.double()[k, h] - (factor * pre.T[h]).sum(dim=1)
    # each kind in units of its own entries
    scales = (right.norm() / max(len(j), 1) ** 0.5, last.d_weight.double().norm() / max(len(k), 1) ** 0.5)
    matrix = torch.cat([own.flatten(1) / scales[0].clamp(min=1e-300), below.flatten(1) / scales[1]])
    target = torch.cat([right / scales[0].clamp(min=1e-300), rest / scales[1]])
    # faint pixels at the rim are few; where no pixel is negative among those known, none is there
    signed = bool((x < -_NEGATIVE * x.abs().max()).any())
    noise = max(_FITS, 1e2 * problem.unit_roundoff)
    solved, spread, fits = few_entries(matrix, target, signed=signed, tolerance=noise)
    if not fits and not signed:
        solved, spread, _ = few_entries(matrix, target, signed=True, tolerance=noise)
    return solved.view(size, count), _SAFETY * spread.view(size, count).amax(dim=1)


def _some(mask: Bool[Tensor, "n c"], most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows and columns of the entries of a mask, of at most so many of them."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    if len(rows) > most:
        chosen = torch.randperm(len(rows), generator=generator)[:most].to(rows.device)
        return rows[chosen], columns[chosen]
    return rows, columns


def _judged(problem: Problem, done: Completed, x: Tensor, errors: Tensor, fit: LabelFit) -> Attack:
    """Consistent where labels are of the loss's own kind, and the batch has every entry that was kept, and no
    larger one elsewhere."""
    size, y = problem.question.batch_size or len(x), fit.labels
    trace = forward(problem, x)
    deltas = backward(problem, trace, problem.loss_vectors(trace.logits, y) / problem.divisor(size))
    worst = missed = total = 0.0
    for layer, h, delta in zip(problem.layers, trace.hidden, deltas, strict=True):
        for given, made in ((layer.d_weight.double(), delta.T @ h), (layer.d_bias, delta.sum(dim=0))):
            kept = given != 0
            largest = float(given.abs().max()) or 1.0
            least = float(given[kept].abs().min()) if bool(kept.any()) else 0.0
            off = torch.where(kept, (made - given).abs(), (made.abs() - least).clamp(min=0))
            worst = max(worst, float(off.max()) / largest)
            missed, total = missed + float(off.square().sum()), total + float(given.square().sum())
    residual = math.sqrt(missed / max(total, 1e-300))
    limit = 1e-3 * x.abs().amax(dim=1).clamp(min=1.0)
    good = (
        (errors <= limit)
        & fit.checked
        & (worst <= max(_FITS, 1e2 * problem.unit_roundoff))
        & (size == len(x))
    )
    share = float((problem.layers[0].d_weight != 0).double().mean())
    told = f"layer 1's gradient was completed at rank {done.rank} from the {share:.0%} of its entries kept"
    reason = f"entries that were kept are missed by {worst:.1e} of the largest"
    if not bool((errors <= limit).all()):
        reason = f"faint pixels are not determined by the entries kept; {reason}"
    elif not bool(fit.checked.all()):
        reason = f"loss vectors are those of no labels, as of a gradient with a factor; {reason}"
    left = torch.nonzero(~good)[:, 0].tolist()
    return Attack(
        x=x[good],
        y=y[good],
        status=tuple(
            Evidence(
                method="completion",
                layer=1,
                error_bound=float(errors[m]),
                residual=worst,
                isolation=0.0,
                label_residual=worst,
                label_margin=1.0,
                unconfirmed=f"{told}; no other batch is excluded",
            )
            for m in torch.nonzero(good)[:, 0].tolist()
        ),
        gradient_residual=residual,
        complete=not left,
        batch_size=size,
        batch_size_source="rank" if problem.question.batch_size is None else "given",
        method="completion",
        layer=1,
        layers=(),
        candidates=tuple(
            Candidate(
                x=x[m],
                label=y[m] if bool(fit.checked[m]) else None,
                error_estimate=float(errors[m]),
                reason=reason,
            )
            for m in left
        ),
        reason=reason if left else "",
        seconds=0.0,
        notes=(told,),
    )
