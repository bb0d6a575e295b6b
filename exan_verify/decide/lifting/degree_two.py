"""Quadratic lifting (docs/theory.md 3.2, C1 and C2): uniqueness from ranks over F_p.

At hidden layer i, any other batch with the same gradient has ``Delta' = Delta Q^-1``. For a column q of Q^-1
and that sample's next delta u, (q q^T, q u^T) lies in the null space of R (see
:mod:`exan_verify.decide.lifting.system`). Samples that share the pattern of layer i form groups of sizes s_k;
null(R) always contains a space of dimension sum s_k^2. When rank(R) over F_p, a lower bound of the real rank,
reaches U - sum s_k^2, every column of Q^-1 lies in the span of one group (C2); groups of one are true samples
with factor 1, by the bias column. With groups of one only, this is C1. One sample needs no system. A larger
group has u = U_group q, which is its Delta at the next layer: the same argument with q in the group's span
splits it where its patterns differ (6.4, splits).

With slopes on both sides of zero the same holds with products of u by u in R (PL1).

Hypotheses, each checked here: biases; rank(A) = M (from rank Delta_i = M and rank [H_{i-1} 1] = M); the
parametrisation of u; full column rank of every lower Delta (3.4); labels told apart (3.4). Of a release,
ranks are those of the rows that are sent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from msgspec.structs import asdict

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import (
    Conclusion,
    LabelArgument,
    LayerArgument,
    Lifting,
    Parametrisation,
    Split,
)
from exan_verify.core.facts import Facts
from exan_verify.core.network import Network
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.labels import backward_map, told_by_backward_map, told_by_loss_vectors
from exan_verify.decide.lifting.system import Plan, equations, full_feature_rank, plan
from exan_verify.errors import BudgetExhausted, SoundnessError
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME
from exan_verify.exact.rational import product_mod
from exan_verify.exclusivity import Groups


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """What lifting at one layer gave: an attempt for the record and, when it proved something, evidence."""

    attempt: Attempt
    argument: LayerArgument | None = None


def decide(context: Context, budget: Budget) -> Finding:
    """Try lifting layer by layer until every sample is determined or the budget is spent."""
    start = time.monotonic()
    arguments: list[LayerArgument] = []
    attempts: list[Attempt] = []
    determined: frozenset[int] = frozenset()
    for candidate in plans(context):
        try:
            result = lift(context, candidate, budget)
        except BudgetExhausted as error:  # what other layers proved stays
            attempts.append(_attempt(candidate, str(error), start))
            break
        attempts.append(result.attempt)
        if result.argument is not None and not determined.issuperset(result.argument.determined):
            arguments.append(result.argument)
            determined |= frozenset(result.argument.determined)
        if len(determined) == context.samples or budget.exhausted:
            break
    if not arguments:
        return Finding(attempts=tuple(attempts))
    return Finding(
        attempts=tuple(attempts),
        facts=Facts(determined=determined),
        evidence=(Lifting(prime=PRIME, point=context.image.point, layers=tuple(arguments)),),
        reason=_reason(context, arguments, determined),
    )


def plans(context: Context) -> list[Plan]:
    """One plan per hidden layer, the most promising first: layer 1 when it has enough equations (nothing
    below it needs to be determined), then by the surplus of equations.
    """
    everyone = tuple(range(context.samples))
    found = [plan(context, layer, everyone) for layer in range(1, context.model.depth)]
    return sorted(
        found,
        key=lambda p: (p.missing > 0, p.layer > 1, p.target - p.equations if not p.missing else p.missing),
    )


def lift(context: Context, plan: Plan, budget: Budget) -> LayerResult:
    """Try C1 / C2 at ``plan.layer``, for the whole batch."""
    start = time.monotonic()
    obstacle = hypotheses(context, plan.layer)
    if obstacle is not None:
        return LayerResult(attempt=_attempt(plan, obstacle, start))
    rank, obstacle = reach(context, plan, budget)
    if obstacle is not None:
        return LayerResult(attempt=_attempt(plan, obstacle, start, rank))
    conclusion, note = conclude(context, plan.layer, plan.parametrisation, plan.groups, budget)
    attempt = _attempt(plan, f"as many independent equations as there can be: {note}", start, rank)
    if conclusion is None:
        return LayerResult(attempt=attempt)
    argument = LayerArgument(unknowns=plan.unknowns, rank=plan.target, **asdict(conclusion))
    return LayerResult(attempt=attempt, argument=argument)


def reach(context: Context, plan: Plan, budget: Budget) -> tuple[int | None, str | None]:
    """The rank of R and None when it reaches its target; else the rank, if taken, and what is in the way."""
    if plan.obstacle is not None:
        return None, plan.obstacle
    budget.spend(plan.work)
    if budget.exhausted:
        return None, budget.exhausted
    rank = rank_mod(equations(context, plan))
    if rank > plan.target:
        raise SoundnessError(f"rank {rank} exceeds the bound {plan.target} at layer {plan.layer}")
    if rank < plan.target:
        return rank, f"{rank} of the {plan.target} independent equations needed are found"
    return rank, None


def split(
    context: Context, layer: int, parametrisation: Parametrisation, group: tuple[int, ...], budget: Budget
) -> tuple[list[Split], Groups]:
    """Split ``group``, which shares the pattern of ``layer``, at the layers above; the records and what is
    left of it. A layer whose rank is short ends the way up: above it u is no longer known to be U_group q.
    So does a ``row_space``: W^T u = W^T U_group q is all that it shows.
    """
    if len(group) == 1 or parametrisation == "row_space" or layer + 1 >= context.model.depth:
        return [], (group,)
    if rank_mod(context.sent_delta(layer + 1)[:, list(group)]) < len(group):
        return [], (group,)
    above = plan(context, layer + 1, group)
    rank, obstacle = reach(context, above, budget)
    if rank is None or obstacle is not None:
        return [], (group,)
    record = Split(
        layer=above.layer,
        members=group,
        parametrisation=above.parametrisation,
        unknowns=above.unknowns,
        rank=rank,
        groups=above.groups,
    )
    records: list[Split] = [record]
    left: list[tuple[int, ...]] = []
    for part in above.groups:
        more, rest = split(context, above.layer, above.parametrisation, part, budget)
        records += more
        left += rest
    return records, tuple(left)


def hypotheses(context: Context, layer: int) -> str | None:
    """The first hypothesis of 3.1 that is not proved at this layer, or None."""
    samples = context.samples
    if not context.model.has_bias:
        return "the network has no biases, so every sample keeps a scale"
    found = rank_mod(context.sent_delta(layer))
    if found < samples:
        return f"the {samples} samples' deltas there are shown to have rank {found} only"
    if not full_feature_rank(context, layer - 1):
        given = "inputs" if layer == 1 else f"features of layer {layer - 1}"
        return f"the {given} of the {samples} samples are not shown to be independent"
    return None


def conclude(
    context: Context, layer: int, parametrisation: Parametrisation, partition: Groups, budget: Budget
) -> tuple[Conclusion | None, str]:
    """From "every candidate (q, u) at ``layer`` lies in the span of one group of ``partition``" to determined
    samples: groups split above, the layers below, the labels (3.4). Also a note for the record.
    """
    samples = context.samples
    hiding = [k for k in range(1, layer) if not shows_pattern(context.model, k)]
    if hiding:
        return None, f"a negative slope hides the pattern of layer {hiding[-1]} from its values"
    splits: list[Split] = []
    groups: list[tuple[int, ...]] = []
    for group in partition:
        records, rest = split(context, layer, parametrisation, group, budget)
        splits += records
        groups += rest
    singletons = sorted(group[0] for group in groups if len(group) == 1)
    sizes = tuple(len(group) for group in groups if len(group) > 1)
    if sizes and layer > 1:
        return None, f"groups of sizes {sizes} share the pattern; the layers below stay open"
    lower = () if sizes else tuple(_lower_rank(context, k) for k in range(1, layer))
    short = [k + 1 for k, value in enumerate(lower) if value < samples]
    if short:
        return None, (
            f"what layer {layer} is given is determined, but the deltas at layer {short[-1]} are not shown "
            "to be independent"
        )
    argument, told = _labels(context, layer, parametrisation, singletons, everyone=not sizes)
    note = f"{len(told)} of {samples} samples determined"
    if splits:
        note += f"; groups split at layers {sorted({record.layer for record in splits})}"
    if len(told) < len(singletons):
        note += f"; {len(singletons) - len(told)} inputs known with labels that may be confused"
    if sizes:
        note += f"; groups of sizes {sizes} share the pattern of layer {layer}"
    if not told:
        return None, note
    return Conclusion(
        layer=layer,
        parametrisation=parametrisation,
        groups=partition,
        splits=tuple(splits),
        lower_ranks=lower,
        determined=tuple(told),
        labels=argument,
    ), note


def shows_pattern(network: Network, layer: int) -> bool:
    """Whether the values of hidden layer ``layer`` tell its pattern, as going down from them needs (3.4)."""
    activation = network.activation(layer)
    return activation is None or activation.shows_pattern


def _labels(
    context: Context, layer: int, parametrisation: Parametrisation, members: list[int], *, everyone: bool
) -> tuple[LabelArgument, list[int]]:
    depth = context.model.depth
    if layer == depth - 1 and parametrisation not in ("row_space", "single"):
        argument: LabelArgument = "loss_vectors"
    elif everyone and context.sent_neurons(depth).all() and full_feature_rank(context, depth - 1):
        argument = "output_rank"
    else:
        return "backward_map", [m for m in members if _told_below(context, layer, parametrisation, m)]
    return argument, [m for m in members if told_by_loss_vectors(context, m)]


def _told_below(context: Context, layer: int, parametrisation: Parametrisation, m: int) -> bool:
    """By what is known of the next delta: with ``row_space`` what the layer's neurons see of it, W^T delta;
    with one sample (``single``) nothing, but the layer's own delta where it is sent.
    """
    if parametrisation == "single":
        back = backward_map(context.model, context.passed, layer, m)
        return told_by_backward_map(context, back[context.sent_neurons(layer)], m)
    back = backward_map(context.model, context.passed, layer + 1, m)
    if parametrisation == "row_space":
        back = product_mod(context.model.layers[layer].weight.T, back)
    return told_by_backward_map(context, back, m)


def _lower_rank(context: Context, layer: int) -> int:
    """rank Delta_layer on the rows of dW_layer that are sent: they give the features below (3.4)."""
    sent = context.question.sent_weights(context.model.layer(layer))
    return rank_mod(context.image.delta(layer)[sent])


def _reason(context: Context, arguments: list[LayerArgument], determined: frozenset[int]) -> str:
    used, samples = arguments[0], context.samples
    if context.question.release is not None:
        return _reason_of_release(context, arguments, determined)
    if len(determined) < samples:
        names = ", ".join(str(m) for m in sorted(determined))
        return f"samples {names} are in every batch with this gradient (lifting)"
    if len(arguments) > 1:
        layers = ", ".join(str(a.layer) for a in arguments)
        return f"lifting at hidden layers {layers} together determines every sample"
    if used.parametrisation == "single":
        return f"one sample: layer {used.layer} gives its input by division and the output layer its label"
    text = (
        f"lifting at hidden layer {used.layer}: {used.rank} independent equations in {used.unknowns} "
        f"unknowns, the most that {samples} samples allow; inputs and labels follow"
    )
    if not used.splits:
        return text
    layers = ", ".join(str(k) for k in sorted({record.layer for record in used.splits}))
    return f"{text} after groups are split at layer {layers}"


def _reason_of_release(context: Context, arguments: list[LayerArgument], determined: frozenset[int]) -> str:
    """The same where not everything is sent: which rows the rank is that of."""
    layer = arguments[0].layer
    sent = context.sent_neurons(layer)
    who = "every sample"
    if len(determined) < context.samples:
        who = f"samples {', '.join(map(str, sorted(determined)))}"
    weights = ", whatever the samples' positive weights are" if context.question.weighted else ""
    return (
        f"lifting at hidden layer {layer} on the {int(sent.sum())} of its {len(sent)} neurons whose rows are "
        f"sent determines {who}{weights}: {arguments[0].rank} independent equations in "
        f"{arguments[0].unknowns} unknowns, the most that the samples allow"
    )


def _attempt(plan: Plan, note: str, start: float, rank: int | None = None) -> Attempt:
    return Attempt(
        engine=Engine.LIFTING,
        note=f"layer {plan.layer}: {note}",
        layer=plan.layer,
        equations=plan.equations,
        unknowns=plan.unknowns,
        rank=rank,
        seconds=time.monotonic() - start,
    )
