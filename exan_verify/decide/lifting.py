"""Quadratic lifting (docs/theory.md 3.2, C1 and C2): uniqueness from one rank over F_p.

At hidden layer i, any other batch with the same gradient has ``Delta' = Delta Q^-1``. For a column q of
Q^-1 and that sample's next delta u, every neuron j satisfies ``(Delta_j . q)(Delta_j . q - w_j . u) = 0``:
linear in the products ``q_a q_b`` and ``q_a u_k``. R is the matrix of these equations in U unknowns. Samples
that share the pattern of layer i form groups of sizes s_k; null(R) always contains a space of dimension
sum s_k^2. When rank(R) over F_p, a lower bound of the real rank, reaches U - sum s_k^2, every column of Q^-1
lies in the span of one group (C2); groups of one are true samples with factor 1, by the bias column. With
groups of one only, this is C1.

Hypotheses, each checked here: biases; rank(A) = M (from rank Delta_i = M and rank [H_{i-1} 1] = M); the
parametrisation of u; full column rank of every lower Delta (3.4); labels told apart (3.4).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from exan_verify.certificate import LabelArgument, LayerArgument, Lifting, Parametrisation
from exan_verify.decide.context import Context, Finding
from exan_verify.decide.labels import (
    backward_map,
    told_by_backward_map,
    told_by_loss_vectors,
)
from exan_verify.errors import SoundnessError
from exan_verify.exact.linalg import rank_mod
from exan_verify.exact.modular import (
    PRIME,
    Residues,
    add_mod,
    multiply_mod,
    negate_mod,
    random_residues,
)
from exan_verify.exact.rational import RationalMatrix, product_mod, residue_product
from exan_verify.exclusivity import Groups, pattern_groups
from exan_verify.facts import Facts
from exan_verify.network import Array, Linear, Loss
from exan_verify.verdict import Attempt, Budget, Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Lifting at one layer before any rank is taken: its counts decide the order and whether it can work."""

    layer: int
    parametrisation: Parametrisation
    unknowns: int
    equations: int
    groups: Groups

    @property
    def target(self) -> int:
        """The rank that C2 asks for: U - sum s_k^2."""
        return self.unknowns - sum(len(group) ** 2 for group in self.groups)

    @property
    def missing(self) -> int:
        """How many equations are missing (0: enough)."""
        return max(0, self.target - self.equations)

    @property
    def work(self) -> int:
        """Modular multiplications of the rank computation, roughly."""
        return self.equations * self.unknowns * min(self.equations, self.unknowns)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """What lifting at one layer gave: an attempt for the record and, when it proved something, evidence."""

    attempt: Attempt
    argument: LayerArgument | None = None


def decide(context: Context, budget: Budget) -> Finding:
    """Try lifting layer by layer until every sample is determined or the budget is spent."""
    arguments: list[LayerArgument] = []
    attempts: list[Attempt] = []
    determined: frozenset[int] = frozenset()
    for plan in plans(context):
        result = lift(context, plan, budget)
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
    found = [_plan(context, layer) for layer in range(1, context.network.depth)]
    return sorted(
        found,
        key=lambda p: (p.missing > 0, p.layer > 1, p.target - p.equations if not p.missing else p.missing),
    )


def lift(context: Context, plan: Plan, budget: Budget) -> LayerResult:
    """Try C1 / C2 at ``plan.layer``."""
    start = time.monotonic()
    obstacle = _hypotheses(context, plan)
    if obstacle is None:
        budget.spend(plan.work)
        obstacle = budget.exhausted
    if obstacle is not None:
        return LayerResult(attempt=_attempt(plan, obstacle, start))
    rank = rank_mod(equations(context, plan))
    if rank < plan.target:
        note = f"rank {rank} mod p of the {plan.target} needed"
        return LayerResult(attempt=_attempt(plan, note, start, rank))
    if rank > plan.target:
        raise SoundnessError(f"rank {rank} exceeds the bound {plan.target} of C2 at layer {plan.layer}")
    argument, note = _conclude(context, plan, rank)
    return LayerResult(attempt=_attempt(plan, note, start, rank), argument=argument)


def equations(context: Context, plan: Plan) -> Residues:
    """R mod p: one row per neuron with a non-zero delta row; columns q_a^2 and 2 q_a q_b (a < b), then
    q_a u_k (a factor of an unknown changes no rank).
    """
    delta = context.image.delta(plan.layer)
    keep = np.flatnonzero(delta.any(axis=1))
    delta = delta[keep]
    outgoing = _outgoing(context, plan, keep)
    upper = np.triu_indices(context.samples)
    squares = multiply_mod(delta[:, upper[0]], delta[:, upper[1]])
    mixed = negate_mod(multiply_mod(delta[:, :, None], outgoing[:, None, :]))
    return np.concatenate([squares, mixed.reshape(len(keep), -1)], axis=1)


def has_full_bias_rank(features: RationalMatrix, samples: int, seed: str) -> bool:
    """Whether rank [H 1] = M is proved, for features H^T (n, M): by a random projection mod p."""
    return samples == rank_mod(_with_ones_projected(features, samples, seed))


def _plan(context: Context, layer: int) -> Plan:
    parametrisation, extra = _parametrisation(context, layer)
    samples = context.samples
    return Plan(
        layer=layer,
        parametrisation=parametrisation,
        unknowns=samples * (samples + 1) // 2 + samples * extra,
        equations=int(context.image.delta(layer).any(axis=1).sum()),
        groups=pattern_groups(context.passed.patterns[layer - 1]),
    )


def _parametrisation(context: Context, layer: int) -> tuple[Parametrisation, int]:
    """How u = delta'_{layer+1} is parametrised, and by how many unknowns (3.1)."""
    network, samples = context.network, context.samples
    options: list[tuple[int, Parametrisation]] = [(network.widths[layer + 1], "full")]
    if layer == network.depth - 1 and context.setting.loss in (Loss.CROSS_ENTROPY, Loss.HINGE):
        options.append((network.classes - 1, "zero_sum"))
    if min(options)[0] > samples and _column_space_usable(context, layer):
        options.append((samples, "column_space"))
    unknowns, name = min(options)
    return name, unknowns


def _column_space_usable(context: Context, layer: int) -> bool:
    """rank [dW_{layer+1} | db_{layer+1}] = M."""
    features = context.passed.hidden[layer]
    return rank_mod(context.image.delta(layer + 1)) == context.samples and has_full_bias_rank(
        features, context.samples, f"columns/{layer}"
    )


def _outgoing(context: Context, plan: Plan, keep: Array) -> Residues:
    """Row j: w_j expressed in the parametrisation of u."""
    following: Linear = context.network.layers[plan.layer]
    columns = following.weight[:, keep].T
    if plan.parametrisation == "column_space":
        return product_mod(columns, context.image.delta(plan.layer + 1))
    weights = product_mod(columns, np.eye(following.shape[0], dtype=np.uint64))
    if plan.parametrisation == "full":
        return weights
    # u = (v, -sum v): w . u = sum_k (w_k - w_K) v_k
    return add_mod(weights[:, :-1], negate_mod(weights[:, -1:]))


def _hypotheses(context: Context, plan: Plan) -> str | None:
    """The first hypothesis of 3.1 that is not proved at this layer, or None."""
    samples, layer = context.samples, plan.layer
    if not context.network.has_bias:
        return "the network has no biases, so every sample keeps a scale"
    if plan.missing:
        return f"too few equations: {plan.missing} more neurons with a non-zero delta are needed"
    found = rank_mod(context.image.delta(layer))
    if found < samples:
        return f"rank(Delta_{layer}) is {found} mod p, not the {samples} needed for rank(A) = M"
    if not has_full_bias_rank(context.passed.features(layer), samples, f"features/{layer}"):
        return f"rank [H_{layer - 1} 1] is below {samples} mod p, so rank(A) = M is not proved"
    return None


def _conclude(context: Context, plan: Plan, rank: int) -> tuple[LayerArgument | None, str]:
    """From the rank to determined samples: the layers below, then the labels (3.4)."""
    samples = context.samples
    singletons = [group[0] for group in plan.groups if len(group) == 1]
    everyone = len(singletons) == samples
    if not everyone and plan.layer > 1:
        return None, f"groups of sizes {_sizes(plan)} share the pattern; the layers below stay open"
    lower = tuple(rank_mod(context.image.delta(k)) for k in range(1, plan.layer)) if everyone else ()
    short = [k + 1 for k, value in enumerate(lower) if value < samples]
    if short:
        return None, f"features of layer {plan.layer} are determined, but rank(Delta_{short[-1]}) < M below"
    argument, told = _labels(context, plan, singletons, everyone)
    note = f"rank {rank} reached U - {_squares(plan)}: {len(told)} of {samples} samples determined"
    if len(told) < len(singletons):
        note += f"; {len(singletons) - len(told)} inputs known with labels that may be confused"
    if not everyone:
        note += f"; groups of sizes {_sizes(plan)} share the pattern of layer {plan.layer}"
    if not told:
        return None, note
    return LayerArgument(
        layer=plan.layer,
        parametrisation=plan.parametrisation,
        unknowns=plan.unknowns,
        rank=rank,
        groups=plan.groups,
        lower_ranks=lower,
        determined=tuple(told),
        labels=argument,
    ), note


def _labels(
    context: Context, plan: Plan, members: list[int], everyone: bool
) -> tuple[LabelArgument, list[int]]:
    passed = context.passed
    depth = context.network.depth
    if plan.layer == depth - 1:
        argument: LabelArgument = "loss_vectors"
    elif everyone and has_full_bias_rank(passed.hidden[depth - 1], context.samples, "output"):
        argument = "output_rank"
    else:
        return "backward_map", [m for m in members if _told_below(context, plan, m)]
    return argument, [m for m in members if told_by_loss_vectors(context, m)]


def _told_below(context: Context, plan: Plan, m: int) -> bool:
    back = backward_map(context.network, context.passed, plan.layer + 1, m)
    return told_by_backward_map(context, back, m)


def _with_ones_projected(features: RationalMatrix, samples: int, seed: str) -> Residues:
    rows = features.shape[0]
    residues = features.residues()
    with_ones = np.concatenate([residues, np.ones((1, samples), dtype=np.uint64)])
    if rows < 4 * samples:
        return with_ones
    return residue_product(random_residues(seed, samples + 2, rows + 1), with_ones)


def _squares(plan: Plan) -> int:
    return plan.unknowns - plan.target


def _sizes(plan: Plan) -> tuple[int, ...]:
    return tuple(len(group) for group in plan.groups if len(group) > 1)


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


def _reason(context: Context, arguments: list[LayerArgument], determined: frozenset[int]) -> str:
    used, samples = arguments[0], context.samples
    if len(determined) < samples:
        names = ", ".join(str(m) for m in sorted(determined))
        return f"samples {names} are in every batch with this gradient (lifting, C2)"
    if len(arguments) == 1:
        return (
            f"lifting at hidden layer {used.layer}: rank(R) = {used.rank} = U - {samples} with "
            f"U = {used.unknowns}, proved over F_p; inputs and labels follow (C1, 3.4)"
        )
    layers = ", ".join(str(a.layer) for a in arguments)
    return f"lifting at hidden layers {layers} together determines every sample (C2, 3.4)"
