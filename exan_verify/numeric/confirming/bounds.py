"""Refine candidates on the first layer's own equations and bound their error.

Derivation. The given A~ = A + E has noise E with |E| <= eta (spectral norm; ``ColumnSpace.noise``, seen in
the singular values beyond the rank), A = sum_b delta_b y_b^T over samples b with y_b = (x_b, 1). P spans
the leading part of A~.

1. A true delta_b is A c_b with c_b the b-th column of Y^+, and (I - PP^T) A c_b = (I - PP^T)(A~ - E) c_b.
   What the cut leaves of A~ vanishes on the leading row space, which is within eta / sigma_M of A's, so that
   |(I - PP^T) delta_b| <= r_b = eta |c_b| (1 + eta / sigma_M) + |delta_b| rel_b, the last term for rounding
   in computing delta_b itself, estimated by `passes.rounding`.
2. delta_b lies in V_b = range(D_1 W_2^T ... W_L^T) of the sample's patterns, K unknown loss-vector entries,
   plus one free entry for every neuron too close to its boundary to be sure of. Let t_1 <= t_2 <= ... be the
   sines of the principal angles between V_b and range(P), d_1, d_2, ... the principal vectors in V_b, whose
   images under I - PP^T are orthogonal. Then err_b = sum_{i>1} a_i d_i with sum (t_i a_i)^2 <= r_b^2; in
   particular |err_b| <= r_b / t_2. The candidate's own sine t_1 must be as small as step 1 says, or it is no
   solution at all.
   This is the error within V_b. The delta that the gradient was made with is delta_b + rho_b, rho_b from the
   roundings of the backward pass, |rho_b| <= |delta_b| rel_b, and these keep to no V_b: the part of rho_b
   that is not in V_b is in no d_i and has to be counted on its own. With one logit V_b is a line, so that
   nothing but rho_b is left. The entries of rho_b are independent roundings: each either in proportion to
   the entry of delta_b (one product each, as with one logit) or, where products cancel, of one size, so that
   v . rho_b is about |delta_b| rel_b w_b(v) with w_b(v)^2 = max(sum_j v_j^2 delta_bj^2 / |delta_b|^2,
   |v|^2 / n). Likewise the directions, the Gram matrix P^T delta and its inverse are computed in float64: the
   backward error of the solve is a_b <= c sqrt(M) 2^-53 |delta_b| per direction, of no particular shape.
3. X comes from the left inverse V of the recovered directions, rows v_m: the unscaled row m is
   s_m y_m + v_m (sum_b (err_b + rho_b) y_b^T + E), s_m = |delta_m|. With the couplings
   k_mb = sqrt(sum_{i>1} (v_m . d_i^b / t_i^b)^2), those of rounding
   o_mb = w_b(v_m) |delta_b| rel_b + |v_m| a_b, which are independent, and division by the bias entry,

       |x^_m - x_m|_inf <= (|v_m| eta + sum_b k_mb r_b |y_b|_inf + sqrt(sum_b (o_mb |y_b|_inf)^2))
                           (1 + |x_m|_inf) / s_m.

   Samples that are not separated enter as one block with their own isolating sine (``rest_sine``).
   In L2 |v_m| eta bounds all of v_m^T E; of the division by the bias entry only one column e of E is seen,
   multiplied by |x_m|_2; and it takes x_m off every x_b that the wrong directions mix in:

       |x^_m - x_m|_2 <= (|v_m| (eta + |e| |x_m|_2) + sum_b k_mb r_b |x_b - x_m|_2
                          + sqrt(sum_b (o_mb |x_b - x_m|_2)^2)) / s_m.

   |e| is taken from what P leaves of the bias column, from an even spread of eta over the columns and from
   one rounding of the summed |delta_b|, whichever is largest. Where scales do not come from the bias entry
   nothing cancels, and no bound in L2 is given.

4. What this makes of the delta that m's label gives. On m's patterns f = J_m x + const with J_m = Q_m^T W_1,
   Q_m the map from loss vectors to first-layer deltas; with S_m the slope of the loss vector in the logits,
   T_m = Q_m S_m J_m takes an error of x_m to that of the delta, not divided by the batch size. The bound of
   step 3 in this metric, |T_m|_F eta, |T_m x_m| and |T_m (x_b - x_m)| for eta, |x_m| and |x_b - x_m|, is far
   below |T_m| times the bound in L2. A neuron whose state is open is so near zero that it moves logits by no
   more than its share of the error. The delta itself is found at the scale s_m, which the bias column gives
   to (|v_m| |e| + sum_b k_mb r_b + sqrt(sum_b o_mb^2)) / s_m, relatively. No such bound is given where logits
   move so far that the slope is another one.

The result is multiplied by a safety factor for the second-order terms left out; candidates whose first-order
terms are not small (directions off by 0.1 or more) get an infinite bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.problem.downward import solve_inputs
from exan_verify.numeric.problem.moving import MovedProblem
from exan_verify.numeric.problem.passes import Trace, backward, delta_spans, forward, rounding
from exan_verify.numeric.problem.polish import Meeting, meet
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding
from exan_verify.numeric.problem.sensitivity import loss_slope
from exan_verify.numeric.problem.spectrum import ColumnSpace
from exan_verify.numeric.waiting import proceed

_SAFETY = 4.0
"""Covers second-order terms and norms estimated rather than bounded (the rounding analysis)."""

_ROUNDING_SAFETY = 8.0
"""Between the root-mean-square rounding estimate and what a single sample may see."""

_BACKWARD_SAFETY = 3.0
"""The same for the deltas of one sample, whose many independent roundings average out."""

_ARITHMETIC = 8.0
"""c of step 2: roundings of a unit direction, an inner product of length n and an inverse, by norms."""

_COLUMN_SAFETY = 3.0
"""Between the noise of the bias column that is seen outside the column space and the whole of it."""

_LINEAR = 0.1
"""Directions off by more than this are outside the first-order analysis."""

_DOUBTFUL_SHARE = 0.1
"""Of the first layer's neurons: more free entries than this leave the sample's equations no strength."""

_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refined:
    """Candidates after refinement, with everything the confirmation needs.

    ``x`` (m, d), ``deltas`` (m, n_1) first-layer deltas, ``bound`` (m,) absolute L-infinity error on x,
    ``norm`` (m,) the same in L2,
    ``drift`` (m,) relative error of the deltas, ``sine`` and ``isolation`` (m,) t_1 and t_2,
    ``allowed`` (m,) the sine that noise explains, ``relative`` (m,) rounding of the backward pass on the
    deltas, ``sure`` per hidden layer (m, n): pattern beyond doubt; ``moved`` (m,): how far the error of x
    moves the delta of its label, L2, not divided by the batch size, ``scales`` (m,): relative error of the
    scales of ``deltas``; infinite where nothing better than ``distance`` says it.
    """

    x: Tensor
    deltas: Tensor
    bound: Tensor
    norm: Tensor
    drift: Tensor
    sine: Tensor
    isolation: Tensor
    allowed: Tensor
    relative: Tensor
    sure: tuple[Tensor, ...]
    moved: Tensor
    scales: Tensor
    trace: Trace
    unit: float

    @property
    def distance(self) -> Float[Tensor, " m"]:
        """Absolute L2 error on x: ``norm`` where that is the better one, else what ``bound`` allows."""
        return torch.minimum(self.norm, self.bound * math.sqrt(self.x.shape[1]))


def refine(
    problem: Problem, space: ColumnSpace, finding: Finding, gains: list[tuple[float, float]]
) -> Refined:
    """Alternate forward passes (patterns) and the first layer's equations (deltas); bound the error."""
    x, bound = finding.x, torch.zeros_like(finding.x[:, 0])
    distance = bound
    unit = effective_roundoff(problem, space)
    for _ in range(_ROUNDS):
        proceed()
        trace = forward(problem, x)
        sure, lost = _sure_patterns(problem, trace, gains, distance, unit)
        refined = _step(problem, space, finding, trace, sure, lost, gains, unit)
        settled = bool(((refined.x - x).abs().amax(dim=1) <= refined.bound).all()) and bool(
            (refined.bound <= 2 * bound).all()
        )
        x, bound, distance = refined.x, refined.bound, refined.distance
        if settled:
            break
    return refined


def effective_roundoff(problem: Problem, space: ColumnSpace) -> float:
    """The roundoff that the gradient shows: its dtype's, or more if the noise tail says so."""
    n_out, n_in = problem.layers[0].count, problem.layers[0].shape[1]
    per_entry = float(space.values.norm()) * (n_out**-0.5 + n_in**-0.5)
    tail = float(space.values[space.rank]) if space.rank < len(space.values) else 0.0
    return float(max(problem.unit_roundoff, tail / per_entry))


def _step(
    problem: Problem,
    space: ColumnSpace,
    finding: Finding,
    trace: Trace,
    sure: tuple[Tensor, ...],
    lost: Tensor,
    gains: list[tuple[float, float]],
    unit: float,
) -> Refined:
    """Deltas (m, n_1), inputs (m, d) and bounds, by the derivation above, at the patterns of ``trace``."""
    size = trace.logits.shape[0]
    # 2. delta_b in V_b meets range(P) at the sine t_1; t_2 isolates it from all else in V_b
    meeting = meet(delta_spans(problem, trace, sure), space.basis)
    directions, isolation = meeting.deltas[:, :, 0], _isolation(meeting)
    # 3. X from the left inverse V of the directions; scales s_m from the bias entries
    block = torch.cat([directions.T, finding.rest], dim=1)
    inputs = solve_inputs(space, block)
    x, s = inputs.values[:size], inputs.scales[:size].abs()
    inverse, lengths = inputs.inverse[:size], inputs.inverse[:size].norm(dim=1)
    # equal directions have no left inverse
    identity = torch.eye(block.shape[1], dtype=torch.float64, device=block.device)
    dependent = (inputs.inverse @ block - identity).abs().amax(dim=1)[:size] > 1e-6
    deltas = directions * inputs.scales[:size, None]
    y = torch.cat([inputs.values, torch.ones_like(inputs.scales[:, None])], dim=1)
    largest, long = y[:size].abs().amax(dim=1), y[:size].norm(dim=1)
    # 1. r_b / |delta_b| = eta |c_b| (1 + eta / sigma_M) / |delta_b| + rel_b
    eta = space.noise * (1 + min(1.0, space.noise / float(space.values[space.rank - 1])))
    relative = _relative_rounding(problem, trace, deltas, gains, unit)
    duals = _dual_norms(y, size)
    allowed = eta * duals[:size] / s + relative + 1e-14
    # 2. |err_b| <= r_b / t_2
    drift = allowed / isolation
    # 3. |v_m| eta + sum_b k_mb r_b |y_b|_inf + sqrt(sum_b (o_mb |y_b|_inf)^2)
    couplings, errors = _couplings(inverse, meeting), s * allowed
    roundings = _rounding_couplings(inverse, directions, s * relative, s, block.shape[1])
    total = lengths * eta + couplings @ (errors * largest) + (roundings * largest).norm(dim=1)
    # |v_m| (eta + |e| |x_m|_2) + sum_b k_mb r_b |x_b - x_m|_2 + sqrt(sum_b (o_mb |x_b - x_m|_2)^2)
    column = torch.clamp(_bias_noise(problem, space, deltas, unit), max=space.noise) * (eta / space.noise)
    unseparated = lengths * eta * duals[-1] / finding.rest_sine if finding.rest.shape[1] else 0 * lengths
    shares = _Shares(
        anywhere=_SAFETY * (lengths * eta + unseparated) / s,
        along=_SAFETY * (lengths * column + unseparated) / s,
        mixed=_SAFETY * (couplings * errors) / s[:, None],
        rounded=_SAFETY * roundings / s[:, None],
    )
    apart = torch.cdist(y[:size], y[:size], compute_mode="donot_use_mm_for_euclid_dist")
    norm, one = shares.measured(torch.ones_like(s), long, apart), torch.ones_like(apart)
    # divided by the bias entry, (1 + |x_m|_inf) / s_m; the last rounding is that of the division
    bound = _SAFETY * (total + unseparated) * (1 + largest) / s + (finding.scale_error + 2.0**-52) * largest
    bound = torch.where(lost | dependent, torch.inf, bound)
    # a sample's scale is the entry that its row is divided by; only if that is the bias entry, errors cancel
    from_bias = problem.layers[0].paired and finding.scale_error == 0
    in_range = (drift < _LINEAR) & (bound < _LINEAR * (1 + largest)) & torch.isfinite(x).all(dim=1)
    return Refined(
        x=x,
        deltas=deltas,
        bound=torch.where(in_range, bound, torch.inf),
        norm=torch.where(in_range & from_bias & torch.isfinite(norm), norm, torch.inf),
        drift=drift + finding.scale_error,
        sine=meeting.sines[:, 0],
        isolation=isolation,
        allowed=_SAFETY * allowed,
        relative=relative,
        sure=sure,
        # 4. the same in the metric of the label's delta, and of the scale
        moved=torch.where(in_range & from_bias, _label_moves(problem, trace, gains, shares), torch.inf),
        scales=shares.measured(0 * s, one[0], one),
        trace=trace,
        unit=unit,
    )


def _bias_noise(problem: Problem, space: ColumnSpace, deltas: Tensor, unit: float) -> Tensor:
    """Bound on the norm of the noise in the bias column of A."""
    bias = problem.layers[0].bias_column
    n_out, n_in = problem.layers[0].count, problem.layers[0].shape[1]
    seen = (bias - space.basis @ (space.basis.T @ bias)).norm() * (n_out / max(n_out - space.rank, 1)) ** 0.5
    even = space.noise / (1 + (n_in / n_out) ** 0.5)
    roundings = unit * deltas.abs().sum(dim=0).norm()
    return torch.maximum(_COLUMN_SAFETY * seen, roundings).clamp(min=even)


def _isolation(meeting: Meeting) -> Float[Tensor, " m"]:
    if meeting.sines.shape[1] == 1:
        return torch.ones_like(meeting.sines[:, 0])
    return meeting.sines[:, 1].clamp(min=torch.finfo(torch.float64).tiny, max=1.0)


def _couplings(inverse: Float[Tensor, "m n"], meeting: Meeting) -> Float[Tensor, "m b"]:
    """k_mb: how far sample b's direction, off by a unit of r_b, moves sample m's row."""
    others = torch.einsum("mn,bni->mbi", inverse, meeting.deltas[:, :, 1:])
    sines = meeting.sines[:, 1:].clamp(min=torch.finfo(torch.float64).tiny)
    couplings: Tensor = (others / sines).norm(dim=2)
    return couplings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shares:
    """What the error of x_m is made of: a length in any direction, ``anywhere`` (m,), a multiple of x_m,
    ``along`` (m,), and multiples of every x_b - x_m, (m, b), those that add up, ``mixed``, and independent
    ones, ``rounded``."""

    anywhere: Tensor
    along: Tensor
    mixed: Tensor
    rounded: Tensor

    def measured(
        self, anywhere: Float[Tensor, " m"], along: Float[Tensor, " m"], others: Float[Tensor, "m b"]
    ) -> Float[Tensor, " m"]:
        """The error in a metric in which unit vectors, x_m and x_b - x_m have these lengths at most."""
        known = self.anywhere * anywhere + self.along * along + (self.mixed * others).sum(dim=1)
        total: Tensor = known + (self.rounded * others).norm(dim=1)
        return total


def _label_moves(
    problem: Problem, trace: Trace, gains: list[tuple[float, float]], shares: _Shares
) -> Float[Tensor, " m"]:
    """How far the errors of x move the deltas of the labels, not divided by the batch size; infinite where
    that is not linear."""
    if not problem.whole or isinstance(problem, MovedProblem):
        return torch.full_like(shares.anywhere, torch.inf)
    # Q_m, S_m, and with G = Q_m^T Q_m the Gram matrix S_m G S_m of Q_m S_m
    spans = delta_spans(problem, trace)
    identity = torch.eye(problem.classes).to(spans).expand(len(spans), -1, -1)
    slopes = loss_slope(problem.question.loss, trace.logits, identity)
    inner = spans.mT @ spans
    gram, turned = slopes @ inner @ slopes, slopes @ inner
    # J_m x_b from what the first layer makes of x_b
    first = trace.pre[0] - problem.layers[0].bias
    logits = (first @ spans.transpose(0, 1).flatten(1)).view(-1, *identity.shape[:2]).transpose(0, 1)
    own = logits.diagonal().T
    others = logits - own[:, None]

    def moved(squared: Tensor, metric: Tensor) -> Tensor:
        weight = gains[0][0] * math.sqrt(problem.layers[0].shape[1])
        along = torch.einsum("mk,mkl,ml->m", own, metric, own).clamp(min=0).sqrt()
        apart = (others @ metric * others).sum(dim=2).clamp(min=0).sqrt()
        anywhere = squared.diagonal(dim1=1, dim2=2).sum(dim=1).clamp(min=0).sqrt() * weight
        return shares.measured(anywhere, along, apart)

    # |J_m|_F <= |Q_m|_F |W_1|_F, and the same for T_m = Q_m S_m Q_m^T W_1
    linear = moved(inner, identity) < _LINEAR
    return torch.where(linear, moved(turned @ turned, gram), torch.inf)


def _rounding_couplings(
    inverse: Float[Tensor, "m n"],
    directions: Float[Tensor, "b n"],
    rounded: Float[Tensor, " b"],
    sizes: Float[Tensor, " b"],
    count: int,
) -> Float[Tensor, "m b"]:
    """o_mb: how far the roundings of sample b's delta, ``rounded`` of its ``sizes`` in norm, and of solving
    for ``count`` directions move sample m's row."""
    even = inverse.norm(dim=1, keepdim=True)
    weights = (inverse.square() @ directions.T.square()).sqrt().clamp(min=even / inverse.shape[1] ** 0.5)
    couplings: Tensor = weights * rounded + even * (_ARITHMETIC * count**0.5 * 2.0**-53 * sizes)
    return couplings


def _dual_norms(rows: Float[Tensor, "M d1"], size: int) -> Float[Tensor, " m1"]:
    """|c_b| for each single sample, then the norm of the projector onto the block of the rest."""
    norms = rows.norm(dim=1)
    inverse = torch.linalg.pinv(rows / norms[:, None])
    single: Tensor = inverse[:, :size].norm(dim=0) / norms[:size]
    if rows.shape[0] == size:
        return single
    rest = torch.linalg.matrix_norm(inverse[:, size:], 2) * math.sqrt(rows.shape[0] - size)
    return torch.cat([single, rest[None]])


def _relative_rounding(
    problem: Problem, trace: Trace, deltas: Tensor, gains: list[tuple[float, float]], unit: float
) -> Float[Tensor, " m"]:
    """Rounding in the backward pass below the loss vector, relative to the first-layer delta."""
    spans = delta_spans(problem, trace)
    g = (torch.linalg.pinv(spans, rtol=1e-10) @ deltas[:, :, None])[:, :, 0]
    passed = backward(problem, trace, g)
    error = torch.zeros_like(g[:, 0])
    for k in range(len(problem.layers) - 1, 0, -1):
        own = (
            unit * gains[k][1] * passed[k].norm(dim=1) * math.sqrt(math.log2(problem.layers[k].shape[0] + 1))
        )
        error = problem.layers[k - 1].activation.steepest * torch.hypot(gains[k][1] * error, own)
    relative: Tensor = _BACKWARD_SAFETY * error / deltas.norm(dim=1)
    return relative


def _sure_patterns(
    problem: Problem, trace: Trace, gains: list[tuple[float, float]], distance: Tensor, unit: float
) -> tuple[tuple[Bool[Tensor, "m n"], ...], Bool[Tensor, " m"]]:
    """Neurons whose pre-activation is further from where their slope changes than the error of x, L2
    ``distance`` (m,), and rounding can move it.

    Samples with more doubtful neurons than the equations can bear are lost: returned in the second value,
    with no doubts in the first.
    """
    error = torch.where(torch.isfinite(distance), distance, 0.0)
    zeros = tuple(torch.zeros_like(h) for h in (*trace.hidden[1:], trace.logits))
    moved = rounding(problem, trace, zeros, gains=gains, input_error=error, unit=unit, divisor=1).pre
    # e is an error of the whole layer in norm; three times its mean per neuron covers unequal rows
    sure = [
        phi.clearance(z)
        > 3 * e[:, None] / math.sqrt(z.shape[1]) + _ROUNDING_SAFETY * unit * z.abs().amax(dim=1, keepdim=True)
        for phi, z, e in zip(trace.activations, trace.pre, moved, strict=True)
    ]
    doubtful = torch.stack([(~s).sum(dim=1) for s in sure]).sum(dim=0)
    lost = ~torch.isfinite(distance) | (doubtful > trace.pre[0].shape[1] * _DOUBTFUL_SHARE)
    return tuple(s | lost[:, None] for s in sure), lost
