"""Which other batches have a gradient that differs from the given one by noise of the size and kind seen.

docs/theory.md, Appendix W: Appendix T's steps with noise that is not a ball. Where T asks of every other
batch's A' that |A - A'| be small as a matrix, here A - A' has to be *typical*: its product with each of some
10^5 vectors that the batch found gives is at most ``KAPPA`` times what independent entries of deviation e_j
f_i have there. The noise that was added is typical but for a probability of about 1e-8, if its entries are
independent and no heavier in the tails than roundings; and a vector of 512 comparable errors adds up to 22
times as much in the worst case as it does in this sense.

Notation and steps as in uniqueness.py, on rows divided by their noise.

1. B = A P; |<w, B'_a - B_a>| <= KAPPA |w m_a| for the deviations m_ja^2 = sum_i (f_i P_ia)^2 + r_ja^2, r_ja
   what the backward pass rounds.
2. Loss vectors are any K numbers (E = I): the label's entry has a rounding of its own.
3. Y and tau by these deviations, neuron by neuron.
4. Order and scale.
   Only the label's entry of a loss vector is negative: two entries that are positive say s > 0, the negative
   one then is the label.
5. Radii, for pre-activations as for inputs. A neuron whose pre-activation they leave positive or negative, or
   whose share in the delta is more than what is open there, is *held*: it is in the same state in every other
   batch.
6. On the rows of neurons that every sample holds the equations are those of refine.py, whose left inverse
   bounds the inputs' moves by KAPPA times their deviations. With these, more neurons are held, and again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.confirming.uniqueness import (
    column_ratios,
    dominating,
    pair_equations,
    unfolded,
)
from exan_verify.numeric.joint.refine import JointFit, Moves
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.waiting import proceed

KAPPA = 8.0
"""Deviations that typical noise stays within: 2 exp(-32) for each of 10^5 to 10^6 products of one batch."""

_SECOND_ORDER = 1.25

_MIXING = 0.25
"""Largest share of other samples in a column that is read as one sample's (uniqueness.py)."""

BENT = 0.5
"""Largest change of a logit over which loss vectors count as linear: they bend by half of it, relatively, of
what _SECOND_ORDER covers a quarter and KAPPA the rest."""

_HOLDS = 4

_MOST_UNKNOWNS = 2048

_SUMS = 12
"""Of a series whose terms fall by half at least: beyond, they are within what _SECOND_ORDER covers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Excluded:
    """Each other batch has, in some order, the labels found and inputs within ``radius`` (M, d), with the
    gradient's noise typical; ``reason`` why this is not known, empty where it is."""

    radius: Tensor
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Mixing:
    """Step 3 and 4: T^-1 = I + Z with |Z| <= ``z`` (M, M), zero diagonal; next deltas off by ``eta`` (M, K)
    from ``points`` (M, K) of unit columns of ``sizes`` (M,); ``held`` (n, M) neurons whose share shows their
    state; ``inverse`` (M, n) = B^+, ``p`` (d + 1, M)."""

    z: Tensor
    eta: Tensor
    points: Tensor
    sizes: Tensor
    held: Tensor
    inverse: Tensor
    p: Tensor


def others_excluded_typically(problem: Problem, fit: JointFit, divisor: float) -> Excluded:
    """Whether every batch of as many samples whose gradient is the given one but for typical noise lies near
    ``fit``, the batch found, which must be all that the gradient shows.

    Of one hidden layer with ReLU, the whole gradient, cross_entropy with class labels.
    """
    mixing = _mixing(problem, fit, divisor)
    if isinstance(mixing, str):
        return _open(fit, mixing)
    pre = _first_radii(problem, fit, mixing)
    if isinstance(pre, str):
        return _open(fit, pre)
    held = mixing.held | (fit.linear.trace.pre[0].abs() > pre).T
    radius: Tensor | None = None
    for _ in range(_HOLDS):
        proceed()
        found = _linear_radius(fit, held)
        if isinstance(found, str):
            return _open(fit, found)
        radius = found if radius is None else torch.minimum(radius, found)
        moved = radius @ problem.layers[0].weight.double().abs().T
        renewed = held | (fit.linear.trace.pre[0].abs() > moved).T
        if bool((renewed == held).all()):
            break
        held = renewed
    assert radius is not None
    return Excluded(radius=radius)


def _open(fit: JointFit, reason: str) -> Excluded:
    return Excluded(radius=torch.full_like(fit.x, torch.inf), reason=reason)


def _mixing(problem: Problem, fit: JointFit, divisor: float) -> _Mixing | str:
    """Steps 1 to 4."""
    at, layer, size = fit.linear, problem.layers[0], len(fit.x)
    c = at.inputs
    a = layer.augmented() / at.rows[:, None]
    # 1. P with C P = I and P 1 = e
    inverse = torch.linalg.pinv(c)
    missing = -inverse.sum(dim=1, keepdim=True)
    missing[-1] += 1
    p = inverse + missing / size
    if not bool(((c @ p) - torch.eye(size).to(c)).abs().max() < 1e-6):
        return "the samples found are affinely dependent, to rounding"
    b = a @ p
    m = ((fit.columns[:, None] * p).square().sum(dim=0) + at.delta_noise.square()).sqrt()
    sizes = b.norm(dim=0).clamp(min=torch.finfo(b.dtype).tiny)
    b, m = b / sizes, m / sizes
    left_b = torch.linalg.pinv(b)
    turned = float(KAPPA * (left_b.square() @ m.square()).sqrt().sum(dim=1).max())
    if not turned < 0.5:
        return (
            "the smallest singular value of layer 1's gradient is not above its noise with margin "
            f"(noise {turned:.1e} of it, in coordinates of the samples found)"
        )
    # 2. the equations, with E = I
    o = layer.sent(problem.layers[1].weight.double()).T / at.rows[:, None]
    first, second = torch.triu_indices(size, size, 1, device=b.device)
    free = o.shape[1]
    unknowns, live = len(first) + size * free, int((b.abs().amax(dim=1) > 0).sum())
    if unknowns > min(live, _MOST_UNKNOWNS):
        return f"layer 1 shows {live} neurons for {unknowns} unknowns, too few to exclude other batches"
    spans = at.trace.slopes[0].double()[:, :, None] * o
    points = (torch.linalg.pinv(spans, rtol=1e-10) @ b.T[:, :, None])[:, :, 0]
    carried = o @ points.T
    r, t = pair_equations(b, o, carried, None)
    # 3. L = R^+, Y >= |L R' - I|, tau_a >= |L t'_a|
    lengths = r.norm(dim=0).clamp(min=torch.finfo(r.dtype).tiny)
    q, triangle = torch.linalg.qr(r / lengths)
    several = "the equations of layer 1 have more solutions than the samples found, or nearly"
    if not float(triangle.diagonal().abs().min()) > 1e-12:
        return several
    left = torch.linalg.solve_triangular(triangle, q.T, upper=True) / lengths[:, None]
    squared, noise = left.square(), m.square()
    # |L_k B_b m_a|, [k, b, a]
    crossed = (squared @ (b.square()[:, :, None] * noise[:, None, :]).flatten(1)).sqrt()
    crossed = crossed.unflatten(1, (size, size))
    pairs = 2 * torch.hypot(crossed[:, second, first], crossed[:, first, second])
    single = (squared @ (noise[:, :, None] * o.square()[:, None, :]).flatten(1)).sqrt()
    y = KAPPA * torch.cat([pairs, single], dim=1)
    tau = (left @ t).abs() + KAPPA * (squared @ ((2 * b - carried) * m).square()).sqrt()
    tau = tau.clamp(min=torch.finfo(tau.dtype).tiny)
    lost = float((left @ r - torch.eye(unknowns).to(r)).abs().sum(dim=1).max())

    def by_noise(s: Float[Tensor, "U M"]) -> Float[Tensor, "U M"]:
        total: Tensor = _SECOND_ORDER * (tau + y @ s + lost * s.amax(dim=0))
        return total

    s = dominating(by_noise, torch.zeros_like(tau))
    if s is None:
        return several
    between, to_next = unfolded(by_noise(s), first, second, size, free)
    shares, ratios = column_ratios(between)
    eta = torch.einsum("am,akm->ak", ratios.square(), to_next)
    # 4. in units of the samples: q_b / q_a = rho_ab |B_a| / |B_b|
    rho = shares * sizes[:, None] / sizes
    shown = -points if divisor < 0 else points
    if not bool(((shown > eta).sum(dim=1) >= 2).all() and _every_sample_once(rho)):
        return "the bounds on loss vectors leave room for a batch that lacks one of the samples"
    own = torch.arange(size, device=b.device), at.y
    if not bool((shown[own] < -eta[own]).all()):
        return "the label of a sample found may be another one"
    if not float(rho.sum(dim=0).max()) < _MIXING:
        return f"another batch may mix the samples found by {float(rho.sum(dim=0).max()):.1e}"
    z = rho.T / (1 - rho.sum(dim=0).max())
    # a neuron's share is what a delta changes by with its state; it is seen where more than what is open
    mixed = (z + torch.diag(z.sum(dim=1))) * sizes[:, None] / sizes
    open_ = b.abs() @ mixed + KAPPA * m + o.abs() @ eta.T
    held = torch.maximum(b.abs(), carried.abs()) > 2 * open_
    return _Mixing(z=z, eta=eta, points=points, sizes=sizes, held=held, inverse=left_b / sizes[:, None], p=p)


def _every_sample_once(rho: Float[Tensor, "M M"]) -> bool:
    """Whether no e_b can be without a column near it, where every s_k > 0 (T4).

    T^-1 1 = 1: the s_k of the columns near e_a sum up to t_a <= 1 + sum_b rho_ba t_b, and in all to at most
    M / (1 - max_a sum_b rho_ab). An e_b without a column needs sum_a rho_ab t_a >= 1.
    """
    size, spread = len(rho), float(rho.sum(dim=1).max())
    if not spread < 1:
        return False
    total = torch.full_like(rho[0], size / (1 - spread))
    for _ in range(_SUMS):
        total = torch.minimum(total, 1 + rho.T @ total)
    return bool((rho.T @ total < 1).all())


def _first_radii(problem: Problem, fit: JointFit, mixing: _Mixing) -> Float[Tensor, "M n"] | str:
    """Step 5: how far pre-activations may be from those found; or why samples are not apart."""
    at, z = fit.linear, mixing.z
    c, layer = at.inputs, problem.layers[0]
    a = layer.augmented() / at.rows[:, None]
    seen = mixing.inverse @ a - c
    noise = mixing.inverse.norm(dim=1)[:, None]
    columns = fit.columns.square()
    weighted = mixing.p.T * columns
    gram = weighted @ mixing.p

    def off(functionals: Float[Tensor, "f d1"]) -> Float[Tensor, "M f"]:
        """|f . (x' - x)| by V, Z and themselves: D_m = V_m - sum_a Z_ma (C_a - C_m + D_a - D_m)."""
        pushed = c @ functionals.T
        # |F (I - P C) f|^2 for independent columns
        spread = (functionals.square() * columns).sum(dim=1) - 2 * (pushed * (weighted @ functionals.T)).sum(
            dim=0
        )
        spread = (spread + (pushed * (gram @ pushed)).sum(dim=0)).clamp(min=0).sqrt()
        base = (seen @ functionals.T).abs() + KAPPA * noise * spread
        base = base + torch.einsum("ma,maf->mf", z, (pushed[None] - pushed[:, None]).abs())
        total = base
        for _ in range(_SUMS):
            total = base + z @ total + z.sum(dim=1)[:, None] * total
        bounded: Tensor = _SECOND_ORDER * total
        return bounded

    inputs = torch.eye(c.shape[1], dtype=c.dtype, device=c.device)[:-1]
    radius = off(inputs).amax(dim=1)
    distances = torch.cdist(at.x, at.x, p=math.inf).fill_diagonal_(math.inf).amin(dim=1)
    if not bool((radius < distances / 2).all()):
        worst = int((radius / distances).argmax())
        return (
            f"another batch may be {float(radius[worst]):.1e} away from a sample that is "
            f"{float(distances[worst]):.1e} away from the next one"
        )
    return off(torch.cat([layer.weight.double(), torch.zeros_like(layer.bias[:, None])], dim=1))


def _linear_radius(fit: JointFit, held: Bool[Tensor, "n M"]) -> Float[Tensor, "M d"] | str:
    """Step 6: on the rows that every sample holds."""
    at, size = fit.linear, len(fit.x)
    rows = held.all(dim=1)
    live = (at.whitened[:, :size] * rows[:, None]).norm(dim=0) > 0
    if int(rows.sum()) <= size or not bool(live.all()):
        return (
            f"{int((~rows).sum())} of {len(rows)} neurons may be in another state, too many to bound inputs"
        )
    left, _ = at.left_inverse(fit.level, kept=rows)
    missed = (left @ at.whitened[:, :size] - torch.eye(size).to(left)).abs().max()
    if not float(missed) < 1e-6:
        return "the deltas of the samples are dependent on the rows whose state is known"
    moves = Moves.of(at, left)
    z = left @ at.left
    shift = moves.inputs(z[:, :-1] - z[:, -1:] * at.x)
    bent = KAPPA * moves.logit_deviations(fit.columns).amax()
    bent = bent + (at.logits @ shift[:, :, None]).abs().amax()
    if not float(bent) < BENT:
        return f"logits may be {float(bent):.1e} off, over which loss vectors are not linear"
    radius: Tensor = _SECOND_ORDER * (shift.abs() + KAPPA * moves.deviations(fit.columns))
    return radius
