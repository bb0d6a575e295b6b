"""Samples that their exclusive neurons keep apart (docs/theory.md P.2): ranks of small matrices, at any size.

A neuron j that is active for a alone gives ``q_a Delta_ja = w_j . u`` wherever q_a != 0. Where those of a and
b allow no (u, q_a, q_b) but zero, no column of Q^-1 mixes a with b. A sample that mixes with no other is
*isolated*: one column is its unit vector, and all others are zero there. Neurons that are active for it and
one other sample are then exclusive for that one, so samples are isolated in turn. What is left at the end is
lifted in its own span.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exan_verify.core.budget import Budget
from exan_verify.core.certificate import Apart, Split
from exan_verify.core.facts import Facts
from exan_verify.core.verdict import Attempt, Engine
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.labels import backward_map, told_by_backward_map, told_by_loss_vectors
from exan_verify.decide.lifting.degree_two import hypotheses, reach
from exan_verify.decide.lifting.system import full_feature_rank, outgoing_weights, plan
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import PRIME, Residues, negate_mod

_Neurons = npt.NDArray[np.intp]


def decide(context: Context, budget: Budget) -> Finding:
    """Every hidden layer in turn, until all samples are determined; of a release nothing is said."""
    found = Finding()
    if context.samples == 1 or context.question.release is not None or not context.network.has_bias:
        return found
    for layer in range(1, context.network.depth):
        start = time.monotonic()
        evidence = _at(context, layer, budget)
        if evidence is None or len(evidence.determined) <= len(found.facts.determined):
            continue
        many, samples = len(evidence.determined), context.samples
        note = f"layer {layer}: {len(evidence.isolated)} of {samples} samples kept apart, {many} determined"
        spent = time.monotonic() - start
        found = Finding(
            attempts=(Attempt(engine=Engine.LIFTING, note=note, layer=layer, seconds=spent),),
            facts=Facts(determined=frozenset(evidence.determined)),
            evidence=(evidence,),
            reason=_reason(evidence, samples),
        )
        if many == samples:
            break
    return found


@dataclass(slots=True, kw_only=True)
class _Left:
    """The samples that are not isolated, with the layer's ``pattern`` (n, M), ``delta`` (n, M) and
    ``outgoing`` weights (n, K').
    """

    pattern: npt.NDArray[np.bool_]
    delta: Residues
    outgoing: Residues
    samples: list[int]

    def live(self) -> dict[int, _Neurons]:
        """For each of the samples the neurons with a non-zero delta that are active for it alone."""
        exclusive = self.pattern[:, self.samples].sum(axis=1) == 1
        usable = self.pattern & (self.delta != 0) & exclusive[:, None]
        return {m: np.flatnonzero(usable[:, m]) for m in self.samples}

    def apart_from_all(self, a: int, live: dict[int, _Neurons], budget: Budget) -> bool:
        """Whether a is apart from every other of the samples; who has the fewest neurons is asked first."""
        most = self.outgoing.shape[1]
        unknowns = most + 2
        for b in sorted(set(self.samples) - {a}, key=lambda b: len(live[b])):
            rows = np.concatenate([live[a], live[b]])
            # Delta_ja = w_j . u_a: the rows of one sample have at most rank K'
            if min(len(live[a]), most) + min(len(live[b]), most) < unknowns:
                return False
            budget.spend(len(rows) * unknowns**2)
            if budget.exhausted:
                return False
            system = np.zeros((len(rows), unknowns), dtype=np.uint64)
            system[:, :-2] = self.outgoing[rows]
            system[: len(live[a]), -2] = negate_mod(self.delta[live[a], a])
            system[len(live[a]) :, -1] = negate_mod(self.delta[live[b], b])
            if rank_mod(system) < unknowns:
                return False
        return True

    def isolate(self, budget: Budget) -> list[int]:
        """Samples in the order in which they are isolated, which are taken out."""
        found: list[int] = []
        while self.samples:
            live = self.live()
            order = sorted(self.samples, key=lambda m: -len(live[m]))
            # who is apart from all stays so when others are taken out: exclusive neurons stay exclusive
            now = [a for a in order if self.apart_from_all(a, live, budget)]
            if not now:
                break
            found += now
            self.samples = [m for m in self.samples if m not in now]
        return found


def _at(context: Context, layer: int, budget: Budget) -> Apart | None:
    """What hidden layer ``layer`` shows, if it shows anything."""
    if budget.exhausted:
        return None
    whole = plan(context, layer, tuple(range(context.samples)))
    left = _Left(
        pattern=context.passed.pattern(layer),
        delta=context.image.delta(layer),
        outgoing=outgoing_weights(context, whole, np.arange(context.network.widths[layer])),
        samples=list(whole.members),
    )
    isolated = left.isolate(budget)
    if not isolated or hypotheses(context, layer) is not None:
        return None
    rest = _lifted(context, layer, tuple(left.samples), budget)
    alone = {*isolated, *(group[0] for group in (rest.groups if rest else ()) if len(group) == 1)}
    below = (rank_mod(context.image.delta(k)) for k in range(1, layer))
    if layer > 1 and (len(alone) < context.samples or any(rank < context.samples for rank in below)):
        return None
    # all inputs with rank [H_{L-1} 1] = M give the loss vectors, else they are known by the layer's deltas
    depth = context.network.depth
    outputs = len(alone) == context.samples and full_feature_rank(context, depth - 1)

    def told(m: int) -> bool:
        if outputs:
            return told_by_loss_vectors(context, m)
        return told_by_backward_map(context, backward_map(context.network, context.passed, layer, m), m)

    return Apart(
        prime=PRIME,
        point=context.image.point,
        layer=layer,
        parametrisation=whole.parametrisation,
        isolated=tuple(isolated),
        rest=rest,
        determined=tuple(m for m in sorted(alone) if told(m)),
    )


def _lifted(context: Context, layer: int, members: tuple[int, ...], budget: Budget) -> Split | None:
    """Lifting in the span of the samples left, where it reaches its rank."""
    if not members:
        return None
    system = plan(context, layer, members)
    rank, obstacle = reach(context, system, budget)
    if rank is None or obstacle is not None:
        return None
    return Split(
        layer=layer,
        members=members,
        parametrisation=system.parametrisation,
        unknowns=system.unknowns,
        rank=rank,
        groups=system.groups,
    )


def _reason(evidence: Apart, samples: int) -> str:
    text = f"exclusive neurons of hidden layer {evidence.layer} keep {len(evidence.isolated)} of {samples} "
    text += "samples apart from all others, by the rank of every pair"
    if evidence.rest is not None:
        text += f"; lifting separates the other {len(evidence.rest.members)} in their own span"
    if len(evidence.determined) == samples:
        return f"{text}: every sample is determined"
    return f"{text}: samples {', '.join(map(str, evidence.determined))} are determined"
