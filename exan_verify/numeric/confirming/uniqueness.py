"""Whether another batch could have this gradient: the floating-point version of docs/theory.md, Appendix T.

A gradient that fits does not say that nothing else does: P.5 there, made wide, has two batches far apart with
one gradient. Before a sample is called confirmed, every other batch of the same size whose [dW_1 | db_1] is
as near to the given one as its noise allows (spectral norm; where roundings of the backward pass keep the
rank, per sample) has to be excluded, with margins larger than the errors. The steps are those of Appendix T,
with first-order errors in the Euclidean norm in place of balls. Primes belong to the other batch, its deltas
Delta' as the pass that made the gradient had them: at rounded loss vectors. C = [X 1], M x (d + 1), is the
batch found.

1. *Factor* (T1). P = C^+ + (e - C^+ 1) 1^T / M, so that C P = I and P 1 = e, the bias column. B = A P has the
   deltas as columns, in coordinates of the samples found. For the other batch B' = A' P = Delta' T with
   T = [X' 1] P and T 1 = 1. |B'_a - B_a| <= e_a = noise |P_a| + what roundings below the loss vector make of
   delta_a; and those of the loss vector as far as E below does not hold them (``out_of_sum``). With N = B^+
   and |N_m| sum_a e_a below 1 / 2, B' has rank M: T is invertible and T^-1 [X' 1] = C + V.
2. *Equations* (T2). A column q of T^-1 and its next delta u = E p satisfy (B'_j . q)(B'_j . q - O_j . p) = 0,
   O_j = w_j E, at every neuron. This is linear in w_ab = q_a q_b (a < b) and w_ak = q_a (p_k - q_a p_ak) up
   to sum_a q_a^2 t_ja with t_ja = B_ja (B_ja - O_j . p_a), p_a fitted to the neurons active for a. E: what
   confines loss vectors, or the column space of the next layer's gradient where its rank is M with margin.
   Where samples meet different weights (Appendix U), O has the row space of that gradient as further columns,
   since W_2 moves within it.
   With a slope s_j where neuron j is not active (PL1) it is (B'_j . q - s_j O_j . p)(B'_j . q - O_j . p) = 0:
   the terms in w_ak have the factor 1 + s_j, w_kl = p_k p_l - sum_a q_a^2 p_ak p_al (k <= l) come in with
   s_j O_jk O_jl, and t_ja = (B_ja - s_j O_j . p_a)(B_ja - O_j . p_a). The count of unknowns is U - M as in
   PL1, and the steps below bound w_ab and w_ak as before; of w_kl nothing more is needed.
3. *Columns* (T3). L = R^+. Noise changes R and t by what it changes B and O; Cauchy and Schwarz over the
   neurons give Y >= |L R' - I| and tau_a >= |L t'_a|. Where s_a > 0 with Y s_a + tau_a <= s_a exist, |w| is
   at most sum_a q_a^2 s_a, and every column is q = s (e_a + xi) with |xi_b| <= rho_ab.
4. *Order and scale* (T4). Loss vectors are bounded, so |s| <= S_a. For cross_entropy and hinge with two
   positive entries in the loss vector s > 0, because only the label's entry may be negative, and then T^-1 1
   = 1 gives sum |s| <= M / (1 - max_a sum_b rho_ab) without that bound. If no column were near e_b, row b of
   T^-1 1 = 1 would be too small. So every e_b has one column, T^-1 = I + Z with |Z_ba| <= |s_a| rho_ab.
5. *Radius* (T5). |x'_m - x_m|_inf <= r_m, which has to stay below half the distance to the next sample: then
   the other batch has one sample beside each one found. Where no neuron that matters to sample m can change
   its state within Z, its equations are linear and the refined bound (bounds.py) holds for the other batch as
   well; elsewhere r_m is the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Labels, Loss
from exan_verify.numeric.confirming.bounds import Refined
from exan_verify.numeric.problem.moving import MovedLayer
from exan_verify.numeric.problem.passes import delta_spans
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.spectrum import MINIMAL_GAP, ColumnSpace, row_space
from exan_verify.numeric.waiting import proceed

_MOST_UNKNOWNS = 2048
"""Columns of R: beyond, its factorisation takes tens of seconds."""

_SECOND_ORDER = 1.25
"""On first-order errors that step 1 keeps below a half and the later steps below a quarter."""

_ROUNDS = 60
"""Of the iterations towards s_a and rho; contractions below .8 have settled by then."""

_MIXING = 0.25
"""Largest share of other samples in a column that is read as one sample's: the radius needs below a half."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exclusion:
    """What is known of all other batches of the same size with this gradient.

    ``radius`` (m,), L-infinity: each has a sample that near, and ``pinned`` (m,): with the same pattern
    wherever it matters. ``reason``: why other batches are not excluded; empty where they are.
    """

    radius: Tensor
    pinned: Tensor
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Coordinates:
    """Step 1: the deltas ``b`` (n, M) found, as unit columns of ``sizes`` (M,), each off by ``moved`` (M,) in
    another batch, ``inverse`` (M, n) of B itself; ``c`` (M, d + 1), ``p`` its right inverse, ``noise`` of A
    and ``turned`` = |N_m| sum_a e_a at most."""

    b: Tensor
    sizes: Tensor
    moved: Tensor
    inverse: Tensor
    c: Tensor
    p: Tensor
    noise: float
    turned: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Columns:
    """Step 3, for unit columns: ``rho`` (M, M) and ``eta`` (M, K'), relative to the fitted ``points`` (M, K')
    of next deltas; ``carried`` (n, M) = O p, and ``o`` (n, K')."""

    rho: Tensor
    eta: Tensor
    points: Tensor
    carried: Tensor
    o: Tensor


def others_excluded(
    problem: Problem, spaces: tuple[ColumnSpace, ...], refined: Refined, divisor: float
) -> Exclusion:
    """Whether every batch of as many samples with this gradient lies near the candidates ``refined``, which
    must be all that the gradient shows."""
    if spaces[1].rank > len(refined.x) and not spaces[1].saturated:
        more = f"layer 2 shows {spaces[1].rank} samples, more than the {len(refined.x)} found"
        return _open(refined, more)
    found = _open(refined, "the weights move between the steps, where layer 2 does not confine them")
    for k, confined in enumerate(_confining(problem, spaces, refined, divisor)):
        other = _excluded_within(problem, spaces[0], refined, divisor, confined)
        found = found if k and other.reason else other
        if not found.reason:
            break
    return found


def _excluded_within(
    problem: Problem, space: ColumnSpace, refined: Refined, divisor: float, confined: _Confined
) -> Exclusion:
    """The same with next deltas confined so."""
    at = _coordinates(problem, space, refined, confined.beside)
    if isinstance(at, str):
        return _open(refined, at)
    columns = _columns(at, refined.trace.slopes[0], confined, problem.layers[0].activation.slope)
    if isinstance(columns, str):
        return _open(refined, columns)
    # in units of the samples: q_b / q_a = rho_ab |B_a| / |B_b|
    rho = columns.rho * at.sizes[:, None] / at.sizes
    if not _every_sample_once(problem, at, columns, confined.e, rho, divisor):
        return _open(
            refined, "the bounds on loss vectors leave room for a batch that lacks one of the samples"
        )
    shares = rho.sum(dim=0)
    if not float(shares.max()) < _MIXING:
        return _open(refined, f"another batch may mix the samples found by {float(shares.max()):.1e}")
    z = rho.T / (1 - shares.max())
    radius, apart = _radius(at, z, space)
    if not bool((radius < apart / 2).all()):
        worst = int((radius / apart).argmax())
        return _open(
            refined,
            f"another batch may be {float(radius[worst]):.1e} away from a sample that is "
            f"{float(apart[worst]):.1e} "
            "away from the next one",
        )
    slope = problem.layers[0].activation.slope
    return Exclusion(radius=radius, pinned=_pinned(at, columns, z, slope))


def _open(refined: Refined, reason: str) -> Exclusion:
    far = torch.full_like(refined.bound, torch.inf)
    return Exclusion(radius=far, pinned=torch.zeros_like(far, dtype=torch.bool), reason=reason)


def _coordinates(
    problem: Problem, space: ColumnSpace, refined: Refined, beside: Float[Tensor, " M"]
) -> _Coordinates | str:
    """Step 1, deltas off by ``beside`` more than by noise and their own rounding."""
    if not problem.layers[0].paired:
        return "the bias gradient of layer 1, which fixes the scale of the samples, is not given"
    c = torch.cat([refined.x, torch.ones_like(refined.x[:, :1])], dim=1)
    inverse = torch.linalg.pinv(c)
    missing = -inverse.sum(dim=1, keepdim=True)
    missing[-1] += 1
    p = inverse + missing / len(c)
    b = space.basis @ (space.rows @ p)
    sizes = b.norm(dim=0)
    if not float(sizes.min()) > 0 or not bool(((c @ p) - torch.eye(len(c)).to(c)).abs().max() < 1e-6):
        return "the samples found are affinely dependent, to rounding"
    tail = float(space.values[space.rank]) if space.rank < len(space.values) else 0.0
    noise = space.noise + tail
    moved = noise * p.norm(dim=0) + refined.relative * refined.deltas.norm(dim=1) + beside
    left = torch.linalg.pinv(b / sizes) / sizes[:, None]
    turned = float(left.norm(dim=1).max() * moved.sum())
    if not turned < 0.5:
        return (
            "the smallest singular value of layer 1's gradient is not above its error with margin "
            f"(error {turned:.1e} of it, in coordinates of the samples found)"
        )
    return _Coordinates(
        b=b / sizes, sizes=sizes, moved=moved / sizes, inverse=left, c=c, p=p, noise=noise, turned=turned
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Confined:
    """Step 2: ``e`` (n_2, K), orthonormal, ``o`` (n, K'), whose first K columns are W_2^T E, ``moved``: how
    far another batch's O may be off (spectral norm), and ``beside`` (M,): how far rounding takes deltas out
    of W_2^T E, which is no noise that the singular values show."""

    e: Tensor
    o: Tensor
    moved: float
    beside: Tensor


def _confining(
    problem: Problem, spaces: tuple[ColumnSpace, ...], refined: Refined, divisor: float
) -> Iterator[_Confined]:
    """What confines the next deltas; what is known exactly first, if equations suffice for it, and the
    narrowest first of what is."""
    space, weight, size = spaces[1], problem.layers[1], len(refined.x)
    every = torch.eye(weight.shape[0], dtype=torch.float64, device=problem.device)
    summed = len(problem.layers) == 2 and problem.question.loss.zero_sum
    basis = torch.linalg.svd(torch.ones_like(every[:1]))[2][1:].T if summed else every
    none = torch.zeros_like(refined.bound)
    beside = out_of_sum(problem, refined, divisor) if summed else none
    shown = space.rank == size and not space.saturated
    own = shown and size < basis.shape[1]
    least = float(space.values[size - 1]) if shown else 0.0
    norm = float(torch.linalg.matrix_norm(weight.weight.double(), 2))
    if isinstance(weight, MovedLayer):
        # another run's weights move within the span of its features, the row space of the sum: both are known
        # as well as the least singular value exceeds the noise
        rows, firm = row_space(space)
        told = len(problem.layers) == 2 and problem.question.loss.zero_sum and problem.classified
        if told and shown and rows.shape[1] == size and min(least, firm) > MINIMAL_GAP * space.noise:
            o = torch.cat([_carried(problem, space.basis), problem.layers[0].sent(rows.T).T], dim=1)
            moved = math.hypot(norm * space.noise / least, space.noise / firm)
            yield _Confined(e=space.basis, o=o, moved=_SECOND_ORDER * moved, beside=none)
        return
    if not own or size * (size - 1) // 2 + size * basis.shape[1] <= problem.layers[0].shape[0]:
        yield _Confined(e=basis, o=_carried(problem, basis), moved=0.0, beside=beside)
    if own and least > MINIMAL_GAP * space.noise:
        o = _carried(problem, space.basis)
        yield _Confined(e=space.basis, o=o, moved=norm * space.noise / least, beside=none)
    if summed:
        # any loss vectors, rounded ones included
        yield _Confined(e=every, o=_carried(problem, every), moved=0.0, beside=none)


def out_of_sum(problem: Problem, refined: Refined, divisor: float) -> Float[Tensor, " M"]:
    """How far rounding takes first-layer deltas off those of loss vectors that sum to zero (one hidden layer,
    class labels): a pass computes p = exp(f - max - log(sum)) and p_y - 1, whose errors are in proportion to
    p, a unit of rounding for each of its steps and |log p|, and so absolute at the label, however little of
    p_y - 1 is left. Their sum is within 4 + log K units, as sum p |log p| is at most log K (numpy and torch
    draws, two to a hundred classes: up to 2.5, 5.8 and 6.8)."""
    spans = delta_spans(problem, refined.trace)
    off = refined.unit * (4 + math.log(problem.classes)) / abs(divisor)
    rounded: Tensor = off * spans.norm(dim=1).amax(dim=1)
    return rounded


def _carried(problem: Problem, e: Float[Tensor, "n2 k"]) -> Float[Tensor, "n k"]:
    """W_2^T E, at the weights before any step."""
    return problem.layers[0].sent(e.T @ problem.layers[1].weight.double()).T


def _columns(at: _Coordinates, passed: Tensor, confined: _Confined, slope: Tensor | None) -> _Columns | str:
    """Steps 2 and 3; or why they do not go through."""
    b, moved, size = at.b, at.moved, len(at.c)
    # 2. O_j = w_j E; the points p_a fitted to what the neurons pass on for a, and O p
    o, o_moved = confined.o, confined.moved
    first, second = torch.triu_indices(size, size, 1, device=b.device)
    free = o.shape[1]
    unknowns = len(first) + size * free + (0 if slope is None else free * (free + 1) // 2)
    live = int((b.abs().amax(dim=1) > 0).sum())
    if unknowns > live:
        return f"layer 1 shows {live} neurons for {unknowns} unknowns, too few to exclude other batches"
    if unknowns > _MOST_UNKNOWNS:
        return f"{unknowns} unknowns are more than other batches are excluded with"
    proceed()
    spans = passed.double()[:, :, None] * o
    points = (torch.linalg.pinv(spans, rtol=1e-10) @ b.T[:, :, None])[:, :, 0]
    carried = o @ points.T
    r, t = pair_equations(b, o, carried, slope)
    # 3. L = R^+
    lengths = r.norm(dim=0).clamp(min=torch.finfo(r.dtype).tiny)
    q, triangle = torch.linalg.qr(r / lengths)
    diagonal = triangle.diagonal().abs()
    several = "the equations of layer 1 have more solutions than the samples found, or nearly"
    if not float(diagonal.min()) > 1e-12:
        return several
    left = torch.linalg.solve_triangular(triangle, q.T, upper=True) / lengths[:, None]
    lost = float((left @ r - torch.eye(unknowns).to(r)).abs().sum(dim=1).max())
    squared = left.square()

    def weighted(factors: Float[Tensor, "n k"]) -> Float[Tensor, "U k"]:
        """What unit errors of the neurons, times these factors, come to in L, by Cauchy and Schwarz."""
        total: Tensor = (squared @ factors.square()).sqrt()
        return total

    s_j = torch.zeros_like(b[:, :1]) if slope is None else slope[:, None]
    by_b, by_sb, by_so = weighted(b), weighted((1 + s_j) * b), weighted((1 + s_j) * o)
    by_below = weighted(s_j * o)
    # tau_a >= |L t'_a|, with dt = (2 B - (1 + s) O p) dB - ((1 + s) B - 2 s O p) dO p
    tau = (left @ t).abs()
    tau = tau + weighted((1 + s_j) * b - 2 * s_j * carried) * (points.norm(dim=1) * o_moved)
    tau = tau + weighted(2 * b - (1 + s_j) * carried) * moved
    tau = tau.clamp(min=torch.finfo(tau.dtype).tiny)

    def by_noise(s: Float[Tensor, "U M"]) -> Float[Tensor, "U M"]:
        """tau + Y s: dR changes 2 B_a B_b by 2 (dB_a B_b + B_a dB_b), and B_a O_k and O_k O_l likewise."""
        pairs, single = unfolded(s, first, second, size, free)
        changed = 2 * by_b @ torch.einsum("abm,a->bm", pairs, moved)
        changed = changed + by_so @ torch.einsum("akm,a->km", single, moved)
        changed = changed + by_sb @ single.sum(dim=1) * o_moved
        if slope is not None:
            below = s.new_zeros(free, free, size)
            one, other = torch.triu_indices(free, free, device=s.device)
            below[one, other] = below[other, one] = s[len(s) - len(one) :]
            changed = changed + 2 * by_below @ below.sum(dim=0) * o_moved
        total: Tensor = _SECOND_ORDER * (tau + changed + lost * s.amax(dim=0))
        return total

    s = dominating(by_noise, torch.zeros_like(tau))
    if s is None:
        return f"{several} (errors of up to {float(moved.max()):.1e} in their coefficients)"
    pairs, single = unfolded(by_noise(s), first, second, size, free)
    rho, ratios = column_ratios(pairs)
    eta = torch.einsum("am,akm->ak", ratios.square(), single)
    return _Columns(rho=rho, eta=eta, points=points, carried=carried, o=o)


def pair_equations(
    b: Float[Tensor, "n M"], o: Float[Tensor, "n K"], carried: Float[Tensor, "n M"], slope: Tensor | None
) -> tuple[Float[Tensor, "n U"], Float[Tensor, "n M"]]:
    """R and t of step 2: (B q - s O p)(B q - O p) = R w + t q^2 for any q and p, neuron by neuron, with w of
    the columns 2 B_a B_b of w_ab, -(1 + s) B_a O_k of w_ak, and s O_k O_l, twice for k < l, of w_kl."""
    first, second = torch.triu_indices(b.shape[1], b.shape[1], 1, device=b.device)
    s = torch.zeros_like(b[:, :1]) if slope is None else slope[:, None]
    mixed = -((1 + s)[:, :, None] * b[:, :, None] * o[:, None, :]).flatten(1)
    r = torch.cat([2 * b[:, first] * b[:, second], mixed], dim=1)
    if slope is not None:
        one, other = torch.triu_indices(o.shape[1], o.shape[1], device=b.device)
        r = torch.cat([r, s * o[:, one] * o[:, other] * torch.where(one == other, 1.0, 2.0)], dim=1)
    return r, (b - s * carried) * (b - carried)


def dominating(bound: Callable[[Tensor], Tensor], start: Tensor) -> Tensor | None:
    """Some s of ``start``'s shape with ``bound(s) <= s``, or None where the iteration does not settle."""
    s = bound(start)
    for _ in range(_ROUNDS):
        proceed()
        renewed = bound(s)
        if bool((renewed <= s).all()):
            return s
        s = 1.02 * renewed
    return None


def column_ratios(pairs: Float[Tensor, "M M M"]) -> tuple[Float[Tensor, "M M"], Float[Tensor, "M M"]]:
    """rho_ab = sum_m (q_m / q_a)^2 s_abm, for the largest entry q_a of a column, and what bounds the ratios
    in it: at most 1, then at most their own rho."""
    ratios = torch.ones_like(pairs[:, :, 0])
    for _ in range(_ROUNDS):
        rho = torch.einsum("am,abm->ab", ratios.square(), pairs)
        bounded = torch.minimum(ratios, rho)
        bounded.fill_diagonal_(1)
        if bool((bounded >= 0.99 * ratios).all()):
            break
        ratios = bounded
    return rho, ratios


def unfolded(
    s: Float[Tensor, "U M"], first: Tensor, second: Tensor, size: int, free: int
) -> tuple[Float[Tensor, "M M M"], Float[Tensor, "M k M"]]:
    """``s`` by pairs (a, b), symmetric with a zero diagonal, and by (a, k)."""
    pairs = s.new_zeros(size, size, s.shape[1])
    pairs[first, second] = pairs[second, first] = s[: len(first)]
    return pairs, s[len(first) : len(first) + size * free].reshape(size, free, s.shape[1])


def _every_sample_once(
    problem: Problem, at: _Coordinates, columns: _Columns, e: Tensor, rho: Tensor, divisor: float
) -> bool:
    """Step 4: whether no e_b can be without a column near it."""
    size, free = len(rho), e.shape[1]
    points, eta = columns.points[:, :free], columns.eta[:, :free]
    if problem.question.loss.zero_sum and problem.classified and len(problem.layers) == 2:
        shown = points @ e.T
        shown = -shown if divisor < 0 else shown
        positive = shown > eta @ e.abs().T
        spread = float(rho.sum(dim=1).max())
        if bool((positive.sum(dim=1) >= 2).all()) and spread < 1:
            return bool(float(rho.max()) * size / (1 - spread) < 1)
    largest = largest_loss_vector(problem, divisor, size)
    if not math.isfinite(largest):
        return False
    ceiling = torch.full((problem.classes,), largest, dtype=torch.float64, device=problem.device)
    for below, layer in reversed(list(zip(problem.layers[1:], problem.layers[2:], strict=False))):
        ceiling = below.activation.steepest * (ceiling @ layer.weight.double().abs())
    least = (points @ e.T).abs() - eta @ e.abs().T
    scales = 1 / (at.sizes * (least / ceiling.clamp(min=1e-300)).amax(dim=1)).clamp(min=1e-300)
    return bool((size * (scales[:, None] * rho).amax(dim=0) < 1).all())


def largest_loss_vector(problem: Problem, divisor: float, size: int) -> float:
    """Bound on the entries of the divided loss vectors of any batch; infinite where there is none."""
    if (
        problem.scale_found
        or problem.weighted
        or (problem.question.labels is Labels.REAL and problem.question.loss is Loss.MSE)
    ):
        return math.inf
    divisor = abs(divisor)
    if problem.question.loss is not Loss.MSE:
        return 1 / divisor
    last = problem.layers[-1]
    if not last.whole:
        return math.inf
    # g . f summed over the samples; f = (N / 2) g + y with |y| <= 1
    trace = float((last.d_weight.double() * last.weight.double()).sum() + (last.d_bias * last.bias).sum())
    return 1 / divisor + math.sqrt(max(0.0, 2 / divisor * (trace + size / (2 * divisor))))


def _radius(at: _Coordinates, z: Tensor, space: ColumnSpace) -> tuple[Tensor, Tensor]:
    """Step 5: r_m, and the distance of sample m to the next one (L-infinity both)."""
    left_out = (at.inverse @ space.basis) @ space.rows - at.c
    # |(I - P C) e_c|: P C is a projector, oblique because of P 1 = e
    gram = at.p.T @ at.p
    outside = 1 - 2 * (at.p.T * at.c).sum(dim=0) + (at.c * (gram @ at.c)).sum(dim=0)
    noise = at.inverse.norm(dim=1)[:, None] * at.noise * outside.clamp(min=0).sqrt()
    v = (left_out.abs() + noise).amax(dim=1) / (1 - at.turned)
    distances = torch.cdist(at.c, at.c, p=math.inf)
    share = z.sum(dim=1)
    base = v + (z * distances).sum(dim=1)
    radius = _SECOND_ORDER * (base + 2 * share * base.max() / (1 - 2 * share.max()))
    return radius, distances.fill_diagonal_(math.inf).amin(dim=1)


def _pinned(
    at: _Coordinates, columns: _Columns, z: Tensor, slope: Float[Tensor, " n"] | None
) -> Bool[Tensor, " M"]:
    """Whose pattern no other batch changes, but at neurons whose share is below the noise that the refined
    bound counts anyway. The share of a neuron is what its delta changes by with its state: of O p, 1 - s."""
    mixing = (z + torch.diag(z.sum(dim=1))) * at.sizes[:, None] / at.sizes
    shaken = columns.o.abs() @ columns.eta.T
    strongest = torch.maximum(at.b.abs(), columns.carried.abs())
    if slope is not None:
        strongest = (1 - slope).abs()[:, None] * columns.carried.abs()
        shaken = slope.abs().clamp(min=1)[:, None] * shaken
    shaken = at.b.abs() @ mixing + at.moved + shaken
    open_share = torch.where(strongest > 2 * shaken, torch.zeros_like(strongest), strongest).norm(dim=0)
    pinned: Tensor = open_share <= at.moved
    return pinned
