"""dW_1 alone, without db_1: lifting leaves every sample a scale, which the loss and the patterns fix
(docs/theory.md, releases: weights alone).

Any batch with this release has ``x' = c x`` and ``g' = g / c`` for a sample that shares its pattern with
nobody. Neurons whose row is sent, and that the loss vector reaches (w_j . g != 0), are active at c x iff they
are at x; so c lies in an interval around 1, which is short where there are many neurons with biases, and on
which the logits are affine. There ``g(f(c x), y') = g(f(x), y) / c`` is one equation in c.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from fractions import Fraction

import flint
import numpy as np

from exan_verify.core.arrays import fractions, to_fraction
from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Scale
from exan_verify.core.network import Array
from exan_verify.core.question import Labels, Loss, Release
from exan_verify.decide.context import Context
from exan_verify.decide.labels import admitted
from exan_verify.decide.lifting.system import Plan, equations, plan
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues, add_mod, negate_mod, random_residues
from exan_verify.exact.rational import Mask, RationalMatrix, product, product_mod, residue_product
from exan_verify.exact.softmax import to_ball

_BITS = 256
"""Of the balls that compare two values of one function; values that agree to so many bits are left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """All c at which the neurons that are held keep their states lie in it; None: no end on this side."""

    low: Fraction | None
    high: Fraction | None

    def has(self, c: Fraction) -> bool:
        """Whether c lies in it, ends included."""
        return (self.low is None or self.low <= c) and (self.high is None or c <= self.high)


def of_weights_alone(context: Context, budget: Budget) -> tuple[Scale | None, str]:
    """Evidence from the rows of dW_1 that are sent, and a note for the record."""
    release = context.question.release
    if release is None or release.input_basis is not None:
        return None, "no weight gradient of layer 1 is sent"
    if context.network.depth != 2:
        return None, "weight gradients without bias gradients are decided for one hidden layer only"
    alone = _without_biases(context, release)
    samples = context.samples
    if rank_mod(alone.sent_delta(1)) < samples:
        return None, "the samples' deltas on the rows that are sent are not shown to be independent"
    if not _full_rank(context, 0):
        return None, "the inputs are not shown to be independent"
    system = plan(alone, 1, tuple(range(samples)))
    note = _obstacle(context, system)
    if note is not None:
        return None, note
    budget.spend(system.work)
    if budget.exhausted:
        return None, budget.exhausted
    rank = rank_mod(equations(alone, system))
    if rank < system.target:
        return None, f"{rank} of the {system.target} independent equations needed are found"
    single = [group[0] for group in system.groups if len(group) == 1]
    first, inputs = context.network.layers[0], context.passed.hidden[0]
    rates = product(first.weight, inputs).fractions()  # of the pre-activations along c x, (n, M)
    told = tuple(m for m in single if _scale_is_one(context, m, rates[:, m]))
    if not told:
        return None, "another scale is not excluded of any sample"
    return Scale(
        prime=PRIME,
        point=context.image.point,
        layer=1,
        parametrisation=system.parametrisation,
        unknowns=max(1, system.unknowns),
        rank=rank,
        groups=system.groups,
        lower_ranks=(),
        determined=told,
    ), f"{len(told)} of {samples} samples determined by the weight gradient alone"


def _without_biases(context: Context, release: Release) -> Context:
    """The context in which a neuron counts whose row of dW is sent, whether or not its bias is.

    The system of lifting has no equation of a bias, so it is that of a release with the biases of these rows.
    """
    rows = dict(release.rows)
    names = None if release.tensors is None else list(release.tensors)
    for layer in context.network.layers:
        (weight, array), *biases = layer.parameters()
        sent = tuple(bool(v) for v in release.sends(weight, len(array)))
        for name, _ in biases:
            rows[name] = sent
            if names is not None and weight in names and name not in names:
                names.append(name)
    if names is not None:
        rows = {name: mask for name, mask in rows.items() if name in names}
    wider = Release(tensors=names, rows=rows, weights=release.weights.value)
    found = copy.copy(context)
    question = replace(context.question, release=wider)
    object.__setattr__(found, "setting", replace(context.setting, question=question))
    return found


def _full_rank(context: Context, layer: int) -> bool:
    """Whether rank H_layer = M is proved, without a column of ones."""
    features = context.passed.hidden[layer].residues()
    if len(features) > 4 * context.samples:
        mixer = random_residues(f"weights alone/{layer}", context.samples + 2, len(features))
        features = residue_product(mixer, features)
    return rank_mod(features) == context.samples


def _obstacle(context: Context, system: Plan) -> str | None:
    """Why the rank of the system would show nothing."""
    if system.parametrisation == "row_space":
        return "the outgoing weights do not show all of the loss vectors"
    if system.parametrisation == "column_space" and not _full_rank(context, 1):
        return "the features of layer 1 are not shown to be independent"
    if system.parametrisation == "single" and not _loss_vector_told(context):
        return "the rows that are sent do not tell the sample's loss vector"
    return system.obstacle


def _loss_vector_told(context: Context) -> bool:
    """One sample: whether delta_1 on the rows that are sent leaves one loss vector."""
    sent = context.question.sent_weights(context.network.layers[0])
    seen = sent & context.image.delta(1).any(axis=1)
    back: Residues = product_mod(
        context.network.layers[1].weight.T, np.eye(context.network.classes, dtype=np.uint64)
    )[seen]
    if context.question.loss.zero_sum:
        back = add_mod(back[:, :-1], negate_mod(back[:, -1:]))
    return bool(rank_mod(back) == back.shape[1])


def _scale_is_one(context: Context, m: int, rates: Array) -> bool:
    """Whether c = 1 is shown for sample m, whose pre-activations have the ``rates`` (n,) along c x_m."""
    found = _along(context, m, rates)
    if found is None:
        return False
    slopes, where = found
    loss, question, y = context.question.loss, context.question, context.batch.labels[m]
    logits = fractions(context.passed.logits[:, m])
    if loss is Loss.CROSS_ENTROPY:
        label = int(y)
        others = [k for k in range(len(slopes)) if k != label]
        if len({slopes[k] for k in others}) > 1:
            return True
        if question.weighted or not others or (len(others) == 1 and not _above_zero(where)):
            return False
        # c p_k stays for one k: with gaps of the logits to it, 1 / p_k = sum of e^gap
        gaps = logits - logits[others[0]]
        return _keeps_one_value(slopes[label] - slopes[others[0]], gaps[label], list(gaps[others]), where)
    if question.weighted:
        return False
    if loss is Loss.HINGE:
        violated = sum(f > logits[int(y)] - 1 for k, f in enumerate(logits) if k != int(y))
        return violated > 1 or not where.has(Fraction(-1))
    if loss is Loss.BCE:
        sides = [1 if v else -1 for v in y]
        return _above_zero(where) and any(
            _keeps_one_value(side * s, side * f, [Fraction(0)], where)
            for side, s, f in zip(sides, slopes, logits, strict=True)
        )
    return question.labels is not Labels.REAL and all(
        _squares_leave_one(slopes, logits, fractions(y), fractions(np.atleast_1d(other)), where)
        for other in admitted(question, context.batch.labels, context.network.classes)
    )


def _along(context: Context, m: int, rates: Array) -> tuple[Array, Interval] | None:
    """The slopes (K,) of the logits along c x_m, and the interval of c; None where a neuron that is not held
    may switch in it."""
    first, last = context.network.layers
    active: Mask = context.passed.pattern(1)[:, m]
    reached = product_mod(last.weight.T, context.image.delta(2)[:, [m]])[:, 0] != 0
    held = reached & context.question.sent_weights(first)
    low: Fraction | None = None
    high: Fraction | None = None
    loose = []
    for j in np.flatnonzero(rates):
        bias = Fraction(0) if first.bias is None else to_fraction(first.bias[j])
        switch = -bias / rates[j]
        if not held[j]:
            loose += [switch] if last.weight[:, j].any() else []
        elif bool(active[j]) is (rates[j] > 0):
            low = switch if low is None else max(low, switch)
        else:
            high = switch if high is None else min(high, switch)
    where = Interval(low=low, high=high)
    if any(where.has(switch) and switch not in (low, high) for switch in loose):
        return None
    moving = RationalMatrix.of((rates * active.astype(int))[:, None])
    return product(last.weight, moving).fractions()[:, 0], where


def _above_zero(where: Interval) -> bool:
    return where.low is not None and where.low >= 0


def _keeps_one_value(slope: Fraction, gap: Fraction, others: list[Fraction], where: Interval) -> bool:
    """Whether ``c = (e^(gap + (c - 1) slope) + W) / (e^gap + W)``, c > 0 in ``where``, leaves c = 1.

    The right side is convex for slope > 0, and so meets the line c twice at most. The other solution is above
    1 where the line is steeper at 1, and beyond the end of the interval where the line is still above there.
    """
    if slope <= 0:
        return True
    with flint.ctx.workprec(_BITS):
        rest = sum((to_ball(v).exp() for v in others), flint.arb(0))
        top = to_ball(gap).exp()
        steeper = top + rest - to_ball(slope) * top
        end = where.high if steeper > 0 else where.low if steeper < 0 else None
        if end is None or end <= 0:
            return False
        curve = (to_ball(gap + (end - 1) * slope).exp() + rest) / (top + rest)
        return bool(end == 1 or to_ball(end) > curve)


def _squares_leave_one(slopes: Array, logits: Array, own: Array, other: Array, where: Interval) -> bool:
    """mse: whether ``c (f + (c - 1) s - y') = f - y`` for all logits leaves c = 1 with y' = y alone."""
    common = flint.fmpq_poly([])
    for s, f, y, z in zip(slopes, logits, own, other, strict=True):
        terms = (y - f, f - s - z, s)
        common = common.gcd(flint.fmpq_poly([flint.fmpq(v.numerator, v.denominator) for v in terms]))
    if common == 0:
        return False
    if bool(np.all(own == other)):
        while common.degree() > 0 and common(1) == 0:
            common = common // flint.fmpq_poly([-1, 1])
    if common.degree() < 1:
        return True
    if common.degree() == 1:
        root = -common[0] / common[1]
        return not where.has(Fraction(int(root.p), int(root.q)))
    return bool(common[1] ** 2 < 4 * common[0] * common[2])
