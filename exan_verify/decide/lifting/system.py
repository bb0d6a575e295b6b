"""The lifted linear system R of quadratic lifting, for the whole batch or one group (docs/theory.md 3.2).

For a column q of Q^-1 that is known to lie in the span of the samples ``members`` and that sample's next
delta u, every neuron j satisfies ``(Delta_j . q)(Delta_j . q - w_j . u) = 0``: linear in the products q_a q_b
and q_a u_k. R is the matrix of these equations in U unknowns. With a slope s below zero
an inactive neuron has ``Delta_j . q = s w_j . u``, so products u_k u_l come in (PL1). Of a release only
neurons count whose row [dW | db] is sent (docs/theory.md, releases): for the others Delta' = Delta Q^-1 is
not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exan_verify.core.budget import poll
from exan_verify.core.certificate import Parametrisation
from exan_verify.core.network import Array, Linear, Network
from exan_verify.decide.context import Context, Image
from exan_verify.exact.linalg import multiply, pivots, rank_mod, solve
from exan_verify.exact.modular import Residues, add_mod, multiply_mod, negate_mod, random_residues
from exan_verify.exact.rational import RationalMatrix, product_mod, residue_product
from exan_verify.exclusivity import Groups, pattern_groups

_MAX_EXACT = 1 << 16
"""Most outgoing weights whose rank over Q is taken: a second for 256 x 256 single-precision numbers."""


MAX_ENTRIES = 1 << 27
"""Of R: a gibibyte of residues, and twice that while it is built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Lifting at one layer before any rank is taken: its counts decide the order and whether it can work.

    ``extra``: K', the unknowns of u; ``sloped``: some neuron of the layer has a slope below.
    ``groups``: the members that share the pattern of ``layer`` on its neurons that are sent, as sample
    indices. ``equations``: of these the neurons with a non-zero delta for some member.
    """

    layer: int
    members: tuple[int, ...]
    parametrisation: Parametrisation
    extra: int
    sloped: bool = False
    equations: int
    groups: Groups

    @property
    def unknowns(self) -> int:
        """U, with the products of u by u where the layer is sloped."""
        size, extra = len(self.members), self.extra
        above = extra * (extra + 1) // 2 if self.sloped else 0
        return size * (size + 1) // 2 + size * extra + above

    @property
    def squares(self) -> int:
        """sum s_k^2: what null(R) cannot be smaller than (C2)."""
        return sum(len(group) ** 2 for group in self.groups)

    @property
    def target(self) -> int:
        """The rank that C2 asks for: U - sum s_k^2."""
        return self.unknowns - self.squares

    @property
    def missing(self) -> int:
        """How many equations are missing (0: enough)."""
        return max(0, self.target - self.equations)

    @property
    def obstacle(self) -> str | None:
        """Why the rank is not taken: it cannot reach its target, or the matrix is too large; None: it may."""
        if self.missing:
            return f"too few equations: {self.missing} more neurons with a non-zero delta are needed"
        if self.target <= 0 and self.parametrisation != "single":
            # U > sum s_k^2 wherever s_k <= K', and the next deltas of a group are independent only then
            return "more samples share a pattern than their next deltas have dimensions"
        if self.equations * self.unknowns > MAX_ENTRIES:
            return (
                f"a matrix of {self.equations} x {self.unknowns} would be needed, above the {MAX_ENTRIES} "
                "entries that memory is planned for"
            )
        return None

    @property
    def work(self) -> int:
        """Modular multiplications of the rank computation, roughly."""
        return self.equations * self.unknowns * min(self.equations, self.unknowns)


def plan(context: Context, layer: int, members: tuple[int, ...]) -> Plan:
    """The system of ``members`` at hidden layer ``layer`` (1-based).

    With one sample Q is a number: q alone is unknown, no equation is needed and u is not used (``single``).
    """
    parametrisation, extra = _parametrisation(context, layer)
    activation = context.model.activation(layer)
    pattern = context.passed.pattern(layer)[context.sent_neurons(layer)][:, list(members)]
    return Plan(
        layer=layer,
        members=members,
        parametrisation=parametrisation,
        extra=extra,
        sloped=parametrisation != "single" and activation is not None and activation.sloped,
        equations=int(context.sent_delta(layer)[:, list(members)].any(axis=1).sum()),
        groups=tuple(tuple(members[k] for k in group) for group in pattern_groups(pattern)),
    )


def equations(context: Context, plan: Plan, image: Image | None = None) -> Residues:
    """R mod p, (equations, U): a row per neuron with a non-zero delta row; columns q_a^2, 2 q_a q_b (a < b),
    then q_a u_k, and u_k u_l (k <= l) where the layer is sloped (a factor of an unknown changes no rank).
    ``image``: by default the context's, mod 2^61 - 1.
    """
    if plan.parametrisation == "single":
        return np.zeros((0, plan.unknowns), dtype=np.uint64)
    image = image or context.image
    p = image.prime
    delta = image.delta(plan.layer)[:, list(plan.members)]
    keep = np.flatnonzero(delta.any(axis=1) & context.sent_neurons(plan.layer))
    delta = delta[keep]
    outgoing = outgoing_weights(context, plan, keep, image)
    upper = np.triu_indices(len(plan.members))
    squares = multiply_mod(delta[:, upper[0]], delta[:, upper[1]], p)
    poll()
    mixed = negate_mod(multiply_mod(delta[:, :, None], outgoing[:, None, :], p), p)
    mixed = mixed.reshape(len(keep), delta.shape[1] * outgoing.shape[1])
    activation = context.model.activation(plan.layer)
    if activation is None or not plan.sloped:
        return np.concatenate([squares, mixed], axis=1)
    # (Delta q - w u)(Delta q - s w u) = (Delta q)^2 - (1 + s)(Delta q)(w u) + s (w u)^2, PL1
    slope = RationalMatrix.of(activation.slope[keep].reshape(-1, 1)).residues(p)
    mixed = multiply_mod(mixed, add_mod(slope, np.ones_like(slope), p), p)
    above = np.triu_indices(plan.extra)
    own = multiply_mod(multiply_mod(outgoing[:, above[0]], outgoing[:, above[1]], p), slope, p)
    return np.concatenate([squares, mixed, own], axis=1)


def full_feature_rank(context: Context, layer: int) -> bool:
    """Whether rank [H_layer 1] = M is proved (rank H_layer = M without biases), by a projection mod p."""
    features, samples = context.passed.hidden[layer].residues(), context.samples
    if context.model.has_bias:
        features = np.concatenate([features, np.ones((1, samples), dtype=np.uint64)])
    if len(features) > 4 * samples:
        mixer = random_residues(f"features/{layer}", samples + 2, len(features))
        features = residue_product(mixer, features)
    return rank_mod(features) == samples


def _parametrisation(context: Context, layer: int) -> tuple[Parametrisation, int]:
    """How u = delta'_{layer+1} is parametrised, and by how many unknowns (3.1)."""
    if context.samples == 1:
        return "single", 0
    network, samples = context.model, context.samples
    options: list[tuple[int, Parametrisation]] = [(network.widths[layer + 1], "full")]
    if _sums_to_zero(context, layer):
        options.append((network.classes - 1, "zero_sum"))
    if min(options)[0] > samples and _column_space_usable(context, layer):
        options.append((samples, "column_space"))
    rank = _row_rank(context, layer, min(options)[0])
    if rank is not None:
        options.append((rank, "row_space"))
    unknowns, name = min(options)
    return name, unknowns


def _sums_to_zero(context: Context, layer: int) -> bool:
    """Whether u is a loss vector whose entries sum to zero."""
    return layer == context.model.depth - 1 and context.question.loss.zero_sum


def _row_rank(context: Context, layer: int, unknowns: int) -> int | None:
    """The rank over Q of the outgoing weights when it is below ``unknowns``, else None.

    That a part of them reaches ``unknowns`` mod p settles the usual case.
    """
    base = base_weights(context.model, layer, zero_sum=_sums_to_zero(context, layer))
    for part in (base[: 4 * unknowns, : 4 * unknowns], base):
        if rank_mod(product_mod(part, np.eye(part.shape[1], dtype=np.uint64))) >= unknowns:
            return None
    if base.size > _MAX_EXACT:
        return None
    rank = len(pivots(base))
    return rank if rank < unknowns else None


def _column_space_usable(context: Context, layer: int) -> bool:
    """rank [dW_{layer+1} | db_{layer+1}] = M, all of which is sent."""
    if not context.sent_neurons(layer + 1).all():
        return False
    following = context.image.delta(layer + 1)
    return rank_mod(following) == context.samples and full_feature_rank(context, layer)


def outgoing_weights(context: Context, plan: Plan, keep: Array, image: Image | None = None) -> Residues:
    """Row j: w_j of neuron ``keep[j]`` expressed in the parametrisation of u, mod p."""
    image = image or context.image
    p = image.prime
    if plan.parametrisation == "row_space":
        return RationalMatrix.of(rational_weights(context, plan)[keep]).residues(p)
    following: Linear = context.model.layers[plan.layer]
    columns = following.weight[:, keep].T
    if plan.parametrisation == "column_space":
        return product_mod(columns, image.delta(plan.layer + 1), p)
    weights = product_mod(columns, np.eye(following.shape[0], dtype=np.uint64), p)
    if plan.parametrisation == "full":
        return weights
    # u = (v, -sum v): w . u = sum_k (w_k - w_K) v_k
    return add_mod(weights[:, :-1], negate_mod(weights[:, -1:], p), p)


def exact_outgoing(context: Context, plan: Plan, following: Array) -> tuple[Array, Array]:
    """Row j: w_j (n, K') on the unknowns of u, and the unknowns (K', M) of the true samples, as Fractions.

    ``following``: Delta_{layer+1} (n_{layer+1}, M).
    """
    if plan.parametrisation == "column_space":
        weights = multiply(base_weights(context.model, plan.layer, zero_sum=False), following)
        return weights, RationalMatrix.of(np.eye(context.samples)).fractions()
    zero_sum = _sums_to_zero(context, plan.layer) and plan.parametrisation != "full"
    weights = RationalMatrix.of(rational_weights(context, plan)).fractions()
    coordinates = following[:-1] if zero_sum else following
    if plan.parametrisation != "row_space":
        return weights, coordinates
    base = base_weights(context.model, plan.layer, zero_sum=zero_sum)
    known = solve(weights, multiply(base, coordinates))
    assert known is not None
    return weights, known


def unknowns_mod(context: Context, plan: Plan) -> Residues:
    """The unknowns of u (K', M) of the true samples mod p."""
    following = context.image.delta(plan.layer + 1)
    if plan.parametrisation == "column_space":
        return np.eye(context.samples, dtype=np.uint64)
    if plan.parametrisation == "full":
        return following
    known = following[:-1] if _sums_to_zero(context, plan.layer) else following
    if plan.parametrisation == "zero_sum":
        return known
    base = base_weights(context.model, plan.layer, zero_sum=_sums_to_zero(context, plan.layer))
    seen = solve(rational_weights(context, plan), base)
    assert seen is not None
    return product_mod(seen, known)


def base_weights(network: Network, layer: int, *, zero_sum: bool) -> Array:
    """Row j of (n, K'): w_j, on all entries of u, or on all but the last where they sum to zero."""
    columns: Array = network.layers[layer].weight.T
    if not zero_sum:
        return columns
    exact = RationalMatrix.of(columns).fractions()
    difference: Array = exact[:, :-1] - exact[:, -1:]
    return difference


def rational_weights(context: Context, plan: Plan) -> Array:
    """Row j of (n, K'): w_j on the unknowns of u, exact, for every parametrisation but ``column_space``.

    ``row_space``: a maximal set of independent columns of the outgoing weights. The others are combinations
    of them, W = W_I T, so w_j . u = (w_j)_I . (T u): T u is all that the neurons see of u.
    """
    zero_sum = _sums_to_zero(context, plan.layer) and plan.parametrisation != "full"
    base = base_weights(context.model, plan.layer, zero_sum=zero_sum)
    found: Array = base[:, pivots(base)] if plan.parametrisation == "row_space" else base
    return found
