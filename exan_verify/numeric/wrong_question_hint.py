"""Where nothing is recovered: is it a gradient at all, and of the loss, reduction and batch size that were
said?

Cheap tests, none of them a proof; what they say is a hint and no claim rests on it. (1) A gradient's entries
have many magnitudes, and in the last layer none is zero whose row and column are not: one magnitude is
what signs and Adam's first step leave, many zeros what sparsification leaves. (2) Candidates that were found
have a forward pass, so [dW_L | db_L] = Delta_L [H 1] gives their loss vectors, and these are tried on every
loss and divisor, at one common factor, and at a factor for each. (3) The loss vectors of cross_entropy and
hinge sum to zero over the logits, those of bce and mse do not (docs/theory.md section 1): 1^T [dW_L | db_L]
tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.numeric.problem.losses import (
    admissible,
    class_vectors,
    fit_labels,
    fit_scale,
    target_vectors,
)
from exan_verify.numeric.problem.passes import forward
from exan_verify.numeric.problem.problem import Problem

_OPTIONS = (
    "nothing fits where the weights are not those at which the gradient was taken (give the model before the "
    "step, not after it), where it is the update of several local steps (give local_steps or local_batches, "
    "and lr), or where the loss, the reduction or the batch size is another: "
    f"loss is one of {', '.join(Loss)}; reduction is {' or '.join(Reduction)}"
)
_ZERO, _NOT_ZERO = 1e-6, 1e-2
"""Relative size of the sum over the logits below which it counts as zero, and above which it does not."""

_NEARLY = 0.1
"""Share of the last layer's gradient that right samples may leave: noise of a hundredth leaves as much, and
strangers nearly all."""

_OF_WEIGHTS, _ABOVE_ROUNDING = 0.1, 100.0
"""Share of what samples leave that is not the weights', below which it is weight decay; times rounding that
it is at least."""

_LEVELS, _SEVERAL, _WHOLE, _QUANTISED = 1 << 12, 2.5, 1e-3, 0.95
"""Multiples of one step that a quantised layer has at most, and some of them at least; how near to whole they
are, and the share of the entries that are. Of entries that are not quantised one in hundreds is that near."""

_MULTIPLES = (
    "the entries of {layer} are whole multiples of one number, or of one for each row, as in a quantised "
    "gradient (int8): candidates may be right to about its step; ask for the gradient before it was quantised"
)

_FIT = 1e-4
"""Distance at which a loss vector counts as that of a label; those of another loss are off by order 1."""

_ONE_SIZE, _ALIKE = 0.5, 0.01
"""Share of a layer's entries within a hundredth of their median magnitude that no gradient has: normal
entries have
a share of .005; Adam's first step keeps all but those as small as its epsilon."""

_ZEROS = 0.05
"""Share of exact zeros in live rows and columns of the last layer that no gradient has: they would be
sums that
cancel."""

_LEAST = 0.25
"""Of the median magnitude, below which 64 entries that are not zero have one: about 13 in 100 of them do."""

_ROWS, _ORTHOGONAL = 8, 1e-3
"""Rows that are all orthogonal to their weights to this cosine, which by chance one in hundreds is."""

_OFF = 0.02
"""Share of active neurons without a delta that no forward pass leaves."""

_FEW = 64
"""Entries from which shares are counted."""

_LOOKED_AT = 1 << 22
"""Entries of a layer that are looked at."""


def hint(problem: Problem, candidates: Sequence[Tensor], batch_size: int) -> str:
    """What to try where no sample is found; ``candidates`` (d,) each, ``batch_size`` that was assumed."""
    # where the layers below are missing, candidates are features of a hidden layer
    candidates = [one for one in candidates if len(one) == problem.layers[0].weight.shape[1]]
    fits = list(other_fits(problem, torch.stack(candidates))) if candidates else []
    if any(_as_said(problem, fit, batch_size) for fit in fits):
        return (
            ""
            if problem.question.batch_size
            else f"the candidates fit a batch of {batch_size}: give batch_size"
        )
    if fits:
        return f"the candidates fit {' or '.join(map(_in_words, fits))}: attack again with that"
    if candidates:
        x = torch.stack(candidates)
        off = _switched_off(problem, x)
        if off:
            return off
        other = _own_factors(problem, x, batch_size) or _real_labels(problem, x)
        other = other or _weight_decay(problem, len(x)) or _noise(problem, x)
        if other:
            return other
    named = likely_losses(problem)
    if named and problem.question.loss not in named:
        sums, theirs = ("sums", "does not") if Loss.CROSS_ENTROPY in named else ("does not sum", "does")
        return (
            f"the last layer's gradient {sums} to zero over the logits, and that of "
            f"{problem.question.loss.value} {theirs}: try loss {' or '.join(named)}"
        )
    return _OPTIONS


def looks_altered(problem: Problem) -> str:
    """What was done to the numbers of a gradient, as far as they show it; empty where they show nothing."""
    looked_at = [
        (k, layer.d_weight[: max(1, _LOOKED_AT // layer.shape[1])].double().abs())
        for k, layer in enumerate(problem.layers)
        if layer.weight_given and layer.d_weight.numel() >= _FEW
    ]
    kept = torch.cat([given[given > 0] for _, given in looked_at]) if looked_at else torch.zeros(0)
    none_small = len(kept) >= _FEW and float(kept.min()) > _LEAST * float(kept.median())
    for k, given in looked_at:
        nonzero = given[given > 0]
        share = (
            float(((nonzero / nonzero.median() - 1).abs() < _ALIKE).double().mean()) if len(nonzero) else 0
        )
        if len(nonzero) >= _FEW and share > _ONE_SIZE:
            return (
                f"{share:.0%} of the entries of layer {k + 1} have one magnitude, as signs or a first step "
                "of Adam do: what tells samples apart is gone from it; ask for the gradient before the "
                "optimiser"
            )
        live = given[given.amax(dim=1) > 0][:, given.amax(dim=0) > 0]
        zeros = float((live == 0).double().mean())
        # a hidden neuron, and a logit of hinge, has no part in a sample that does not reach it; where entries
        # are zero for that, others are nearly so
        sums = k == len(problem.layers) - 1 and problem.question.loss is not Loss.HINGE
        if live.numel() >= _FEW and zeros > _ZEROS and (sums or none_small):
            return (
                f"{zeros:.0%} of the entries of layer {k + 1} are exactly zero beside others in their rows "
                "and columns, as in a gradient of which only the largest entries were kept (top-k): the rest "
                "was not sent, so that its rank says nothing; ask for the whole gradient"
            )
    return ""


def quantised(problem: Problem) -> str:
    """Whether a layer's entries are whole multiples of one number, or of one per row; empty where none are.

    Ranks and zeros of such a gradient say nothing exactly, but its samples may be known to the step."""
    for k, layer in enumerate(problem.layers):
        given = layer.d_weight[: max(1, _LOOKED_AT // layer.shape[1])].double().abs()
        if not layer.weight_given or int((given > 0).sum()) < _FEW:
            continue
        kept = given > 0
        live, smallest = kept.any(dim=1), torch.where(kept, given, torch.inf)
        for least in (smallest.min().expand(len(given), 1), smallest.amin(dim=1, keepdim=True)):
            times = torch.where(kept, given / least, 0.0)
            # the smallest entry of a row need not be one step
            whole = torch.stack([_share_whole(times * part, kept) for part in (1, 2, 3)]).amax(dim=0)
            # one magnitude, or two, is less than quantisation leaves
            several = int((times > _SEVERAL).sum()) > 0
            if several and float(times.max()) < _LEVELS and float(whole[live].mean()) > _QUANTISED:
                return _MULTIPLES.format(layer=f"layer {k + 1}")
    return ""


def _share_whole(times: Float[Tensor, "n d"], kept: Tensor) -> Float[Tensor, " n"]:
    """Per row, the share of the entries ``kept`` that are whole numbers."""
    near = ((times - times.round()).abs() < _WHOLE) & kept
    share: Tensor = near.sum(dim=1) / kept.sum(dim=1).clamp(min=1)
    return share


def batch_statistics(weight: Float[Tensor, "n d"], d_weight: Float[Tensor, "n d"]) -> bool:
    """Whether every row of a gradient is orthogonal to that of its weights, as where BatchNorm uses the
    statistics of the batch: its output does not change when a row is multiplied by a number."""
    live = (d_weight.abs().amax(dim=1) > 0) & (weight.abs().amax(dim=1) > 0)
    w, g = weight[live].double(), d_weight[live].double()
    if len(w) < _ROWS or w.shape[1] < 2:
        return False
    cosines = (w * g).sum(dim=1) / w.norm(dim=1) / g.norm(dim=1)
    return bool((cosines.abs() <= _ORTHOGONAL).all())


BATCH_STATISTICS = (
    "the gradient of the weights of {layer} is orthogonal to them, row by row, as where BatchNorm uses the "
    "statistics of the batch (training mode): no sample has a gradient of its own then; take the gradient in "
    "eval mode, where the running statistics are used"
)
"""What :func:`batch_statistics` says of a ``layer``."""


def _switched_off(problem: Problem, x: Float[Tensor, "m d"]) -> str:
    """Whether neurons that are active at the candidates have no part in their deltas: with Dropout on, the
    deltas satisfy the equations of a layer, but not the patterns of a forward pass."""
    trace = forward(problem, x)
    for k, (layer, z, passed) in enumerate(zip(problem.layers, trace.pre, trace.slopes, strict=False)):
        if not layer.whole:
            return ""
        h = torch.nn.functional.pad(trace.hidden[k], (0, 1), value=1.0)
        deltas = layer.right(torch.linalg.pinv(h))
        given = layer.augmented()
        if not bool((given - deltas @ h).norm() <= _FIT * given.norm()):
            return ""
        part = deltas.T.abs() > _FIT * deltas.abs().amax(dim=0)[:, None]
        clear = layer.activation.clearance(z) > _FIT * z.abs().amax(dim=1, keepdim=True)
        if bool((part & clear & (passed == 0)).any()):
            return ""
        active = clear & (passed != 0)
        share = float((active & ~part).sum()) / max(1, int(active.sum()))
        if share > _OFF:
            return (
                f"{share:.0%} of the neurons of layer {k + 1} that are active at the candidates have no part "
                "in the gradient, as where Dropout is on (training mode): the candidates may be right, but "
                "no forward pass gives their labels; take the gradient in eval mode"
            )
    return ""


def _own_factors(problem: Problem, x: Float[Tensor, "m d"], batch_size: int) -> str:
    """Whether labels fit all candidates at one factor, or each at its own positive one."""
    trace = forward(problem, x)
    g = _loss_vectors(problem, trace.hidden[-1])
    loss = problem.question.loss
    # a factor of one is no news
    if g is None or problem.scale != 1 or problem.question.labels is Labels.REAL or problem.weighted:
        return ""
    identity = torch.eye(problem.classes, dtype=torch.float64, device=problem.device).expand(len(g), -1, -1)
    within = torch.full_like(g[:, 0], _FIT)
    divisor = problem.divisor(batch_size)
    found = fit_scale(
        loss, trace.logits, identity, g, divisor=divisor, within=within, smoothing=problem.smoothing
    )
    # loss vectors that are constants of the label, or have a factor each per logit, hide how many samples
    # they are of
    hiding = loss is Loss.HINGE
    if found is not None and found[1] == len(g) and abs(found[0] - 1) > _FIT:
        size = _size(problem, len(g), needed=hiding)
        return (
            f"the candidates fit a gradient that is {found[0]:.6g} times a batch's: "
            f"give scale='unknown'{size}"
        )
    if loss is Loss.BCE and problem.classes > 1:
        fits = _factors_per_logit(g * divisor, trace.logits)
        hiding = True
    else:
        fit = fit_labels(
            loss,
            trace.logits,
            identity,
            g,
            divisor=divisor,
            smoothing=problem.smoothing,
            weighted=True,
        )
        # two entries that sum to zero, or one, fit any label whose sign is right
        fits = problem.classes > 1 + int(loss.zero_sum) and bool((fit.loose <= _FIT).all())
    size = _size(problem, len(g), needed=hiding)
    return (
        f"every candidate fits a label at a factor of its own: give weights='positive'{size}" if fits else ""
    )


def _weight_decay(problem: Problem, samples: int) -> str:
    """Whether what ``samples`` leave of the first layer's gradient is a multiple of its weights.

    With U and V the first singular vectors, (I - U U^T) (Delta Y + c W) (I - V V^T) is c times the same of W
    but for terms of second order in c.
    """
    first = problem.layers[0]
    if not first.whole or not 0 < samples < min(first.shape) or first.weight.numel() > _LOOKED_AT:
        return ""
    given, weights = first.d_weight.double(), first.weight.double()
    u, values, vt = torch.linalg.svd(given, full_matrices=False)
    u, vt = u[:, :samples], vt[:samples]

    def beside(matrix: Tensor) -> Tensor:
        across = matrix - u @ (u.T @ matrix)
        rest: Tensor = across - (across @ vt.T) @ vt
        return rest

    left, decayed = beside(given), beside(weights)
    factor = float((left * decayed).sum()) / max(float(decayed.square().sum()), 1e-300)
    seen = float(left.norm()) > _ABOVE_ROUNDING * problem.unit_roundoff * float(values.square().sum().sqrt())
    if not (seen and float((left - factor * decayed).norm()) < _OF_WEIGHTS * float(left.norm())):
        return ""
    return (
        f"the first layer's gradient has {factor:.3g} times its weights in it, as weight decay puts it "
        "there: subtract that multiple of the weights (and of the biases, where they decay too) from every "
        "layer's gradient and attack again"
    )


def _noise(problem: Problem, x: Float[Tensor, "m d"]) -> str:
    """Whether the candidates explain the last layer's gradient but for a small part, as noise leaves it, or a
    narrow number format."""
    last = problem.layers[-1]
    if not last.whole:
        return ""
    h = torch.nn.functional.pad(forward(problem, x).hidden[-1], (0, 1), value=1.0)
    given = last.augmented()
    left = given - given @ torch.linalg.pinv(h) @ h
    share = float(left.norm()) / max(float(given.norm()), 1e-300)
    if not _FIT < share < _NEARLY:
        return ""
    given_all = [layer.d_weight for layer in problem.layers if layer.weight_given]
    formats = (
        name
        for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16))
        if all(torch.equal(one.double(), one.to(dtype).double()) for one in given_all)
    )
    rounded = next(formats, "")
    what = f"its entries are rounded to {rounded}" if rounded else "noise, or wrong or rounded entries"
    return (
        f"the candidates explain the last layer's gradient but for {share:.0e} of it ({what}): they may "
        "be right to about that; ask for the gradient as it was computed"
    )


def _factors_per_logit(g: Float[Tensor, "m K"], logits: Float[Tensor, "m K"]) -> bool:
    """Whether the factors of the entries of bce's loss vectors, at the labels that signs give, are one per
    sample, or one per logit and label (class weights, pos_weight); soft labels have none that repeat."""
    targets = (g < 0).double()
    factors = g / target_vectors(Loss.BCE, logits, targets)

    def repeat(groups: Tensor) -> bool:
        """Whether the factors of each of the ``groups`` (m,) are one number."""
        kinds, counts = torch.unique(groups, return_counts=True)
        alike = [factors[groups == kind] for kind in kinds.tolist()]
        same = all(bool(((one / one[0] - 1).abs() <= _FIT).all()) for one in alike)
        # of one member, nothing repeats
        return same and 2 * len(counts) <= factors.numel()

    rows, columns = torch.meshgrid(*(torch.arange(n, device=g.device) for n in g.shape), indexing="ij")
    ordinary = bool((targets == 0).any()) and bool(((factors - 1).abs() <= _FIT)[targets == 0].all())
    return (
        repeat(rows)
        or repeat(2 * columns + targets.long())
        or (ordinary and bool((targets == 0).any(1).all()))
    )


def _size(problem: Problem, size: int, *, needed: bool) -> str:
    """The batch size, where it has to be said as well and was not."""
    return f" and batch_size={size}" if needed and problem.question.batch_size is None else ""


def _real_labels(problem: Problem, x: Float[Tensor, "m d"]) -> str:
    """Whether the candidates explain the last layer, so that labels that are any numbers explain the rest."""
    loss = problem.question.loss
    if loss is Loss.HINGE or problem.weighted or problem.scale is None or problem.smoothing:
        return ""
    trace = forward(problem, x)
    g = _loss_vectors(problem, trace.hidden[-1])
    if g is None or problem.question.batch_size not in (None, len(g)):
        return ""
    named = likely_losses(problem)
    if named and loss not in named:
        return ""
    identity = torch.eye(problem.classes, dtype=torch.float64, device=problem.device).expand(len(g), -1, -1)
    fit = fit_labels(loss, trace.logits, identity, g, divisor=problem.divisor(len(g)), reach=0.0, soft=True)
    if not bool(admissible(loss, fit.labels).all()):
        return ""
    if problem.question.labels is Labels.REAL:
        # every size has targets of its own
        size = f"give batch_size, {len(g)} if these are all"
        return "" if problem.question.batch_size else f"real targets fit a batch of any size: {size}"
    return (
        "the candidates explain the last layer's gradient, but no label of the loss's own kind does: where "
        f"targets are any numbers, or labels soft, give labels='real' and batch_size={len(g)}"
    )


def likely_losses(problem: Problem) -> tuple[Loss, ...]:
    """The losses whose vectors sum to zero, or the others, as the last layer's gradient does; () if open."""
    layer = problem.layers[-1]
    ones = torch.ones(problem.classes, 1, dtype=torch.float64, device=problem.device)
    total = float(layer.left(ones).norm())
    size = (float(layer.d_weight.double().norm()) ** 2 + float(layer.d_bias.norm()) ** 2) ** 0.5
    share = total / (size * problem.classes**0.5) if size else 0.5
    if size and share <= max(_ZERO, 8 * problem.unit_roundoff):
        return tuple(loss for loss in Loss if loss.zero_sum)
    if share >= max(_NOT_ZERO, 64 * problem.unit_roundoff):
        return tuple(loss for loss in Loss if not loss.zero_sum)
    return ()


def other_fits(problem: Problem, x: Float[Tensor, "m d"]) -> Iterator[Question]:
    """The questions (loss, reduction, batch size; None: any) under which all of ``x`` (m, d)
    have labels; none where ``x`` are not the gradient's samples."""
    trace = forward(problem, x)
    g = _loss_vectors(problem, trace.hidden[-1])
    if g is None:
        return
    for loss in Loss:
        for divisor in _divisors(problem, loss, trace.logits, g):
            yield _with_divisor(loss, divisor, problem.classes)


def _loss_vectors(problem: Problem, h: Float[Tensor, "m n"]) -> Float[Tensor, "m K"] | None:
    """The divided loss vectors from A_L = Delta_L [H 1]; None where that does not hold."""
    last = problem.layers[-1]
    given, features = last.augmented(), torch.cat([h, h.new_ones(len(h), 1)], dim=1)
    deltas = given @ torch.linalg.pinv(features)
    if not bool((given - deltas @ features).norm() <= _FIT * given.norm()):
        return None
    vectors: Tensor = deltas.T
    return vectors


def _divisors(problem: Problem, loss: Loss, logits: Tensor, g: Tensor) -> Iterator[int]:
    sizes = sorted({*range(len(g), 4 * len(g) + 1), problem.question.batch_size or len(g)})
    if loss.zero_sum:
        divisor = _class_divisor(loss, logits, g)
        if divisor is not None and divisor in (1, *sizes):
            yield divisor
        return
    for divisor in dict.fromkeys((1, *(size * problem.classes for size in sizes))):
        scaled = g * divisor
        targets = logits - scaled / 2 if loss is Loss.MSE else logits.sigmoid() - scaled
        if _are_labels(loss, targets):
            yield divisor


def _class_divisor(loss: Loss, logits: Float[Tensor, "m K"], g: Float[Tensor, "m K"]) -> int | None:
    """The whole number c with g = v / c for one class vector v per sample; None where there is none."""
    vectors = class_vectors(loss, logits)
    tiny = torch.finfo(torch.float64).tiny
    scale = (vectors @ g[:, :, None])[:, :, 0] / vectors.square().sum(dim=2).clamp(min=tiny)
    misfit = (g[:, None, :] - scale[:, :, None] * vectors).norm(dim=2) / g.norm(dim=1, keepdim=True)
    misfit = torch.where(scale > 0, misfit, torch.full_like(misfit, torch.inf))
    best = misfit.argmin(dim=1, keepdim=True)
    counts = 1 / scale.gather(1, best)[:, 0]
    whole = float(counts.median().round())
    fits = bool((misfit.gather(1, best) <= _FIT).all()) and bool(
        ((counts - whole).abs() <= _FIT * whole).all()
    )
    return int(whole) if fits and whole >= 1 else None


def _are_labels(loss: Loss, targets: Float[Tensor, "m K"]) -> bool:
    rounded = targets.round()
    binary = ((rounded == 0) | (rounded == 1)).all()
    one_hot = loss is not Loss.MSE or targets.shape[1] == 1 or bool((rounded.sum(dim=1) == 1).all())
    return bool(binary) and one_hot and bool(((targets - rounded).abs() <= _FIT).all())


def _with_divisor(loss: Loss, divisor: int, classes: int) -> Question:
    """The question whose batches have their loss divided by ``divisor``."""
    if divisor == 1:
        return Question(loss=loss, reduction=Reduction.SUM)
    per_sample = loss.divisor(Reduction.MEAN, 1, classes)
    return Question(loss=loss, reduction=Reduction.MEAN, batch_size=divisor // per_sample)


def _in_words(fit: Question) -> str:
    size = "" if fit.batch_size is None else f", batch_size={fit.batch_size}"
    return f"loss={fit.loss.value!r}, reduction={fit.reduction.value!r}{size}"


def _as_said(problem: Problem, fit: Question, batch_size: int) -> bool:
    same = (fit.loss, fit.reduction) == (problem.question.loss, problem.question.reduction)
    return same and fit.batch_size in (None, batch_size)
