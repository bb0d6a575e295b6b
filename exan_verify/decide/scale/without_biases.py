"""Networks without biases: every sample keeps a scale, and the loss decides which scales fit (3.5); of a
release, what dW_1 alone leaves.

Without the bias column, lifting leaves ``delta' = delta / c``, ``h' = c h`` for each sample of a group of
one, with c > 0 (a negative c would switch off every neuron with a non-zero delta). ReLU networks without
biases are positively homogeneous, so patterns stay and ``f' = c f``: the sample can be replaced by (c x, y')
when ``c g(c f, y') = g(f, y)``, and only then if the backward map from the logits is injective. A solution
other than c = 1, y' = y is a *twin*: the whole gradient is the same. See docs/theory.md, section 8.
"""

from __future__ import annotations

import time
from fractions import Fraction
from functools import reduce
from itertools import chain
from operator import or_

import numpy as np

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Scale, Twin, Twins
from exan_verify.core.facts import Facts
from exan_verify.core.verdict import Attempt, Engine, Witness
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.labels import backward_map
from exan_verify.decide.lifting.system import Plan, equations, full_feature_rank, plan
from exan_verify.decide.scale.twins import TwinSearch, twins_of
from exan_verify.decide.scale.weights_alone import of_weights_alone
from exan_verify.decide.second_batch import admitted
from exan_verify.exact.dyadic import guessed
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues, add_mod, negate_mod


def decide(context: Context, budget: Budget) -> Finding:
    """Find twins of single samples; determine samples without twins where lifting leaves only the scale."""
    released = context.question.release is not None
    if context.network.has_bias and not released:
        return Finding()
    start = time.monotonic()
    searches: tuple[TwinSearch, ...] = ()
    if not context.network.has_bias:
        searches = tuple(twins_of(context, m) for m in range(context.samples))
    found, facts = _admitted(context, searches)
    evidence: list[Scale | Twins] = [Twins(twins=found)] if found else []
    if released:
        scale, note = of_weights_alone(context, budget)
    else:
        scale, note = _lifted(context, searches, budget)
    if scale is not None:
        evidence.append(scale)
        facts |= Facts(determined=frozenset(scale.determined))
    seconds = time.monotonic() - start
    return Finding(
        attempts=(Attempt(engine=Engine.SCALE, note=f"scales: {note}", seconds=seconds),),
        facts=facts,
        evidence=tuple(evidence),
        witness=_witness(found),
        reason=_reason(found, scale, context),
    )


def _admitted(context: Context, searches: tuple[TwinSearch, ...]) -> tuple[tuple[Twin, ...], Facts]:
    """The twins that the kernel's checker admits; a scale beyond its bounds, or ours, is none."""
    twins = tuple(search.found for search in searches if search.found is not None)
    if not twins:
        return (), Facts()
    facts = admitted(context, Twins(twins=twins))
    if facts is not None:
        return twins, facts
    each = [(twin, admitted(context, Twins(twins=(twin,)))) for twin in twins]
    kept = [(twin, alone) for twin, alone in each if alone is not None]
    return tuple(twin for twin, _ in kept), reduce(or_, (alone for _, alone in kept), Facts())


def _lifted(context: Context, searches: tuple[TwinSearch, ...], budget: Budget) -> tuple[Scale | None, str]:
    """The layer whose lifting determines most samples up to scale, with those that have no twin."""
    best: Scale | None = None
    notes = []
    everyone = tuple(range(context.samples))
    depth = context.network.depth
    plans = (plan(context, layer, everyone) for layer in range(1, depth))
    for candidate in chain(plans, [_output_plan(depth)] if context.samples == 1 and depth > 1 else []):
        layer = candidate.layer
        scale, note = _at_layer(context, candidate, searches, budget)
        notes.append(f"layer {layer}: {note}")
        if scale is not None and (best is None or len(scale.determined) > len(best.determined)):
            best = scale
        if budget.exhausted:
            break
    return best, "; ".join(notes) or "the network has no hidden layer"


def _output_plan(depth: int) -> Plan:
    """One sample at the output layer: ``dW_L = g h^T`` leaves h a factor c and g its inverse, c > 0 since h
    >= 0, and ``f = W_L h`` follows. No neuron's equation is used, and g is seen itself, not through the
    layers below.
    """
    return Plan(layer=depth, members=(0,), parametrisation="single", extra=0, equations=0, groups=((0,),))


def _at_layer(
    context: Context, plan: Plan, searches: tuple[TwinSearch, ...], budget: Budget
) -> tuple[Scale | None, str]:
    samples, layer = context.samples, plan.layer
    if rank_mod(context.image.delta(layer)) < samples:
        return None, "the samples' deltas are not shown to be independent"
    if not full_feature_rank(context, layer - 1):
        return None, "what the layer is given is not shown to be independent"
    if plan.missing:
        return None, f"too few equations: {plan.missing} more are needed"
    if plan.obstacle is not None:
        return None, plan.obstacle
    budget.spend(plan.work)
    if budget.exhausted:
        return None, budget.exhausted
    rank = rank_mod(equations(context, plan))
    if rank < plan.target:
        return None, f"{rank} of the {plan.target} independent equations needed are found"
    alone = [group[0] for group in plan.groups if len(group) == 1]
    everyone = len(alone) == samples
    if layer > 1 and not everyone:
        return None, "samples share a pattern, and the layers below stay open"
    lower = tuple(rank_mod(context.image.delta(k)) for k in range(1, layer))
    if any(value < samples for value in lower):
        return None, "the deltas of a layer below are not shown to be independent"
    # at the output layer ``single`` knows the loss vector itself
    known = layer if plan.parametrisation in ("single", "row_space") else layer + 1
    told = tuple(m for m in alone if searches[m].excluded and _injective(context, known, m))
    if not told:
        return None, "no sample is without a twin"
    return Scale(
        prime=PRIME,
        point=context.image.point,
        layer=layer,
        parametrisation=plan.parametrisation,
        unknowns=plan.unknowns,
        rank=rank,
        groups=plan.groups,
        lower_ranks=lower,
        determined=told,
    ), f"{len(told)} of {samples} samples determined"


def _injective(context: Context, layer: int, m: int) -> bool:
    """Whether sample m's backward map to ``delta_layer`` is injective on the span of loss vectors."""
    back: Residues = backward_map(context.network, context.passed, layer, m)
    if context.question.loss.zero_sum:
        # loss vectors sum to zero: only differences of columns count
        back = add_mod(back[:, :-1], negate_mod(back[:, -1:]))
    width: int = back.shape[1]
    return rank_mod(back) == width


def _witness(found: tuple[Twin, ...]) -> Witness | None:
    return Witness(generators=found) if found else None


def _reason(found: tuple[Twin, ...], scale: Scale | None, context: Context) -> str | None:
    parts = []
    if found:
        first = found[0]
        near = first.low if first.low == first.high else f"about {_number(first):.6g}"
        names = ", ".join(str(twin.sample) for twin in found)
        who = f"sample {names} has a twin" if len(found) == 1 else f"samples {names} have twins"
        parts.append(f"{who}: sample {first.sample} scaled by {near} fits as well")
    if scale is not None:
        known = f"{len(scale.determined)} of {context.samples} samples"
        if context.question.release is not None:
            rows = context.question.sent_weights(context.network.layers[0])
            parts.append(
                f"{known} are determined by the gradient of the weights without that of the biases: lifting "
                f"on {int(rows.sum())} of its {len(rows)} rows leaves each a scale, and the patterns and the "
                "loss fix it"
            )
        else:
            parts.append(
                f"{known} are determined up to scale by lifting at layer {scale.layer}, and no other scale "
                "fits the loss"
            )
    return "; ".join(parts) or None


def _number(twin: Twin) -> float:
    return float(guessed(np.array([(Fraction(twin.low) + Fraction(twin.high)) / 2], dtype=object))[0])
