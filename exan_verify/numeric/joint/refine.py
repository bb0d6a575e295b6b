"""Refine all samples of a batch together on the first layer's gradient, equations weighted by their noise.

The rows of A = [dW_1 | db_1] have noise of very different size where it is rounding: a neuron that no sample
with a large loss vector activates is rounded a thousand times more finely. With labels told, the deltas
follow from the inputs, so that A = Delta(X) [X 1] are equations for X alone. docs/theory.md, Appendix W has
the derivation; the notation is its.

*Noise.* What the samples leave, R = A - Delta [X 1], has entries of standard deviation e_j f_i: e_j^2 is a
constant plus a multiple of the squares that are summed up in row j (rounding, even noise, or both); f_i is
seen in column i, whose n entries determine it to a few per cent.

*What keeps the rank.* The pass that made the gradient was rounded, too, and is another one than the exact
pass at X: its logits are off by nu_m, a few roundings of their terms, which Psi_m turns into a delta (below).
And softmax minus one is rounded to the unit roundoff of 1, whatever is left of it: a fitted sample's loss
vector is off by eps_m at its label, up to a unit; phi_m = D_1 W_2^T ... e_y is what that makes of its delta.
These are unknowns beside x_m, of known size.

*Step* (W1). Delta D + dDelta [X 1] = R with dDelta_m = Psi_m (u_m + nu_m) + phi_m eps_m, u_m = J_m D_m the
change of the logits. With V the left inverse of Delta on whitened rows that is least in V V^T plus what nu
and eps of their sizes come to, z = V R, D^0_m = z_m - z_m,bias x_m,

    D_m = D^0_m - sum_b (V_m . Psi_b) u_b (x_b - x_m),     u_b = J_b D_b:  M K linear equations for u.

A sample that the noise hides, |V_m| > 1 / noise, would move freely: inputs have a standard deviation of
``_PRIOR`` around where they start. This keeps hidden samples what they are, bounded noise in the equations of
the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.problem.passes import Trace, backward, delta_spans, forward
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.sensitivity import loss_slope
from exan_verify.numeric.waiting import proceed

_PRIOR = 1.0
"""Standard deviation of an input's entries around where they start, in units of the largest input (at least
1): wide enough to leave every sample alone that the gradient shows at all."""

NOISE_KINDS = (1e-4, 1.0, 1e6)
"""Even noise, as a share of the mean square of the rows, beside what is in proportion to them: rounding,
rounding of rows whose sums cancel, and noise that was added. e_j follows from one of them; which is tried,
not guessed, since a batch that is not settled yet leaves rests of its own kind."""

_COLUMN_SAFETY = 1.25
"""On f_i, which n - c entries tell to 1 / sqrt(2 (n - c)): 4 % at 512 neurons and 20 samples."""

_LOGITS = 2.0
"""Deviation of a logit's rounding, in roundings of its terms taken as independent: those of its features
too."""

_ROUNDED = 2.0
"""Roundings of a product and of the sum behind it, in units of one."""

_STRANGE = 4.0
"""Deviations that a row's root mean square may have and still be noise of its kind: of 785 entries it varies
by 3 %, and with what the model of e_j leaves out by a factor of two. A neuron in another state than the
samples found have it in is beyond; its row then counts with what it shows."""

_SIFTED = 4
"""Times that rows are looked through for strangers."""

_ROUNDS = 12

_SETTLED = (0.01, 0.3)
"""Steps, in deviations of the inputs, that end the rounds: at once, and in their second half, where a neuron
near its boundary may flip to and fro."""

_LEFT_OVER = 0.1
"""Share of the variances' sum that they leave of each other at least."""

_SMALLEST = 1e-3
"""Of the mean f_i that the noise of a column is at least: one of zeros has none to measure."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """A batch with what is linear around it, on rows divided by their noise ``rows`` (n,).

    ``deltas`` (M, n), not divided; ``whitened`` (n, c) = [Delta, Psi, Phi] / rows, the columns after the
    first M of ``sizes`` (c - M,), those of nu and eps, each times [x 1] of its sample ``owner`` (c - M,);
    ``slopes`` (M, K, n) = Psi / rows; ``logits`` (M, K, d) = J; ``left`` (n, d + 1) what the samples leave of
    A / rows; ``rounded`` (M, n): deviations of what the deltas' own sums are rounded by, per unit roundoff,
    not divided.
    """

    x: Tensor
    y: Tensor
    trace: Trace
    deltas: Tensor
    rows: Tensor
    whitened: Tensor
    sizes: Tensor
    owner: Tensor
    slopes: Tensor
    logits: Tensor
    left: Tensor
    rounded: Tensor
    unit: float

    @property
    def inputs(self) -> Float[Tensor, "M d1"]:
        """[X 1]."""
        return torch.cat([self.x, torch.ones_like(self.x[:, :1])], dim=1)

    @property
    def row_terms(self) -> Float[Tensor, " n"]:
        """What is summed up in the rows of A, in norm."""
        terms: Tensor = torch.hypot(self.rounded, self.deltas).norm(dim=0)
        return terms

    @property
    def delta_noise(self) -> Float[Tensor, "n M"]:
        """Deviations of the deltas from rounding below the loss vector, on rows divided by their noise."""
        noise: Tensor = (_ROUNDED * self.unit * self.rounded / self.rows).T
        return noise

    def on_rows(self, rows: Float[Tensor, " n"]) -> Linear:
        """The same on rows of noise ``rows``."""
        factor = self.rows / rows
        return replace(
            self,
            rows=rows,
            whitened=self.whitened * factor[:, None],
            slopes=self.slopes * factor,
            left=self.left * factor[:, None],
        )

    def left_inverse(
        self, noise: float, *, spread: float = math.inf, kept: Bool[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, "M n"], Float[Tensor, "M M"]]:
        """V, zero on rows that are not ``kept``, for noise of deviation ``noise`` in a row, where nu and eps
        are of their sizes; and what it leaves to a prior that holds inputs within ``spread``."""
        size, n = len(self.x), len(self.rows)
        whitened = self.whitened if kept is None else self.whitened * kept[:, None]
        stiffness = self._stiffness(noise, spread)
        inverse = _stacked_inverse(whitened, stiffness)
        return inverse[:size, :n], inverse[:size, n : n + size] * stiffness[:size]

    def rest(self, noise: float) -> tuple[Float[Tensor, "n d1"], Float[Tensor, " n"]]:
        """What nu and eps of their sizes and inputs of any kind leave of A / rows, and which share of a row's
        noise that is; ``noise``: its deviation."""
        inverse = _stacked_inverse(self.whitened, self._stiffness(noise, math.inf))[:, : len(self.rows)]
        # of taken = whitened @ inverse
        taken = (self.whitened * inverse.T).sum(dim=1)
        return self.left - self.whitened @ (inverse @ self.left), (1 - taken).clamp(min=1e-2)

    def outside(self, noise: float, deltas: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """What :meth:`rest` leaves of ``deltas`` on rows divided by their noise."""
        inverse = _stacked_inverse(self.whitened, self._stiffness(noise, math.inf))[:, : len(self.rows)]
        return deltas - self.whitened @ (inverse @ deltas)

    def _stiffness(self, noise: float, spread: float) -> Float[Tensor, " c"]:
        """noise / size of every column's unknown, in units of an entry of [x 1]."""
        own = torch.full_like(self.whitened[0, : len(self.x)], noise / spread)
        entry = self.inputs.square().mean(dim=1).sqrt()[self.owner]
        return torch.cat([own, noise / (self.sizes * entry).clamp(min=1e-300)])


def _stacked_inverse(whitened: Float[Tensor, "n c"], stiffness: Float[Tensor, " c"]) -> Float[Tensor, "c nc"]:
    """The left inverse of ``whitened`` on top of diag(stiffness)."""
    stacked = torch.cat([whitened, torch.diag(stiffness)])
    norms = stacked.norm(dim=0).clamp(min=1e-300)
    q, r = torch.linalg.qr(stacked / norms)
    inverse: Tensor = torch.linalg.solve_triangular(r, q.T, upper=True) / norms[:, None]
    return inverse


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointFit:
    """A batch refined: ``linear`` around it, and the standard deviations ``columns`` (d + 1,) of what it
    leaves in a column of A, rows divided by their noise. ``deviations`` (M, d): of the inputs, to first
    order, hidden ones held by the prior. ``strange`` (n,): rows that show more than noise of the kind of the
    others'."""

    linear: Linear
    columns: Tensor
    deviations: Tensor
    strange: Tensor

    @property
    def x(self) -> Tensor:
        """The inputs (M, d)."""
        return self.linear.x

    @property
    def level(self) -> float:
        """The deviation of an entry of A / rows, over all columns."""
        return float(self.columns.square().mean().sqrt())


def refine_jointly(
    problem: Problem,
    x: Float[Tensor, "M d"],
    y: Tensor,
    divisor: float,
    kind: float,
) -> JointFit | None:
    """The batch near ``x`` with classes or targets ``y`` that explains the first layer's gradient best.

    ``divisor`` of the summed loss; ``kind`` of noise, one of ``NOISE_KINDS``. None where a sample activates
    no neuron, or the steps run away.
    """
    start = x
    spread = _PRIOR * max(1.0, float(x.abs().max()))
    best: JointFit | None = None
    level, rows = problem.unit_roundoff, None
    for k in range(_ROUNDS):
        proceed()
        at = linearised(problem, x, y, divisor)
        if not bool((at.deltas != 0).any(dim=1).all()) or not bool(torch.isfinite(at.left).all()):
            return best
        at = at if rows is None else at.on_rows(rows)
        # nu and eps, of their sizes, hide nothing only where the noise beside them is known
        for _ in range(1 if k else 3):
            at, columns, strange = _with_noise(at, level, kind)
            level = float(columns.square().mean().sqrt())
        level, rows = float(columns.square().mean().sqrt()), at.rows
        left, held = at.left_inverse(level, spread=spread)
        pulled = torch.zeros_like(at.inputs)
        pulled[:, :-1] = start - x
        z = left @ at.left + held @ pulled
        moves = Moves.of(at, left)
        step = moves.inputs(z[:, :-1] - z[:, -1:] * at.x)
        if not bool(torch.isfinite(step).all()):
            return best
        deviations = moves.deviations(columns) + spread * held.diagonal().abs()[:, None]
        deviations = deviations + step.abs()
        best = JointFit(linear=at, columns=columns, deviations=deviations, strange=strange)
        least = _SETTLED[2 * k >= _ROUNDS] * (deviations - step.abs())
        if bool((step.abs() <= least + 1e-14 * at.x.abs().max()).all()):
            return best
        # beyond the range of inputs nothing is linear
        x = x + step * min(1.0, spread / max(float(step.abs().max()), 1e-300))
    return best


def linearised(problem: Problem, x: Float[Tensor, "M d"], y: Tensor, divisor: float) -> Linear:
    """The batch with what is linear around it, rows divided by what is rounded in them."""
    layer, size, unit = problem.layers[0], len(x), problem.unit_roundoff
    trace = forward(problem, x)
    g = problem.loss_vectors(trace.logits, y) / divisor
    deltas, spans = layer.sent(backward(problem, trace, g)[0]), delta_spans(problem, trace)
    # the terms that a delta is summed up of, where it is one of an active neuron
    terms = (spans.square() @ g.square()[:, :, None])[:, :, 0]
    rounded = terms.sqrt()
    rows = torch.hypot(rounded, deltas).norm(dim=0)
    live = rows > 0
    rows = rows.clamp(min=float(rows[live].min())) if bool(live.any()) else torch.ones_like(rows)
    identity = torch.eye(problem.classes, dtype=x.dtype, device=x.device).expand(size, -1, -1)
    slopes = (loss_slope(problem.question.loss, trace.logits, identity) / divisor) @ spans.mT
    sample = torch.arange(size, device=x.device)
    columns, owner = [slopes.flatten(0, 1)], [sample.repeat_interleave(problem.classes)]
    sizes = [(_LOGITS * unit * _logit_terms(problem, trace)).flatten()]
    if problem.classified and problem.question.loss is Loss.CROSS_ENTROPY:
        columns.append(spans[sample, :, y])
        sizes.append(torch.full_like(x[:, 0], unit / abs(divisor)))
        owner.append(sample)
    inputs = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    return Linear(
        x=x,
        y=y,
        trace=trace,
        deltas=deltas,
        rows=rows,
        whitened=torch.cat([deltas, *columns]).T / rows[:, None],
        sizes=torch.cat(sizes),
        owner=torch.cat(owner),
        slopes=slopes / rows,
        logits=_logit_slopes(problem, trace),
        left=(layer.augmented() - deltas.T @ inputs) / rows[:, None],
        rounded=rounded,
        unit=unit,
    )


def _logit_slopes(problem: Problem, trace: Trace) -> Float[Tensor, "M K d"]:
    """J: how the logits change with the inputs."""
    rows = torch.eye(problem.classes, dtype=torch.float64, device=problem.device)
    rows = rows.expand(len(trace.logits), -1, -1)
    for layer, slopes in zip(reversed(problem.layers[1:]), reversed(trace.slopes), strict=True):
        rows = layer.backward(rows) * slopes[:, None, :]
    return problem.layers[0].backward(rows)


def _logit_terms(problem: Problem, trace: Trace) -> Float[Tensor, "M K"]:
    """What a unit roundoff of 1 would come to in the logits: the terms of all sums that lead to them, and the
    logarithms whose exponentials a loss takes."""
    squares = torch.zeros_like(trace.hidden[0])
    values = [*trace.pre, trace.logits]
    for k, (layer, h, z) in enumerate(zip(problem.layers, trace.hidden, values, strict=True)):
        if k:
            squares = squares * trace.slopes.at(k).square()
        squares = (squares + h.square()) @ layer.weight.double().square().T + z.square()
    if problem.question.loss is Loss.CROSS_ENTROPY:
        squares = squares + trace.logits.log_softmax(dim=1).square()
    return squares.sqrt()


def _with_noise(
    at: Linear, level: float, kind: float
) -> tuple[Linear, Float[Tensor, " d1"], Bool[Tensor, " n"]]:
    """On rows of the ``kind`` of noise, its deviations f_i (d + 1,) in the columns of A / rows, and the rows
    that show more; ``level``: its size before."""
    shape = at.row_terms.square()
    live = shape > 0
    shape = shape + kind * shape.mean()
    strange, excess = torch.zeros_like(live), torch.ones_like(shape)
    # rows that count less no longer bend the fit to themselves, and others show
    for _ in range(_SIFTED):
        rest, free = at.rest(level)
        seen = (rest * at.rows[:, None]).square().mean(dim=1) / free
        usual = float((seen[live & ~strange] / shape[live & ~strange]).median())
        if not usual > 0:
            break
        excess = torch.maximum(excess, seen / (usual * shape).clamp(min=torch.finfo(shape.dtype).tiny))
        # a neuron that no sample found activates may have been active, too
        renewed = excess > _STRANGE**2
        at = at.on_rows((shape * torch.where(renewed, excess, 1.0)).sqrt())
        if bool((renewed == strange).all()) or int(renewed.sum()) * 2 > int(live.sum()):
            break
        strange = renewed
    rest, free = at.rest(level)
    columns = _COLUMN_SAFETY * (rest[live].square().sum(dim=0) / free[live].sum()).sqrt()
    # products of this size are rounded here as well
    own = 2.0**-53 * float((at.row_terms / at.rows).square().mean().sqrt()) * float(at.inputs.abs().max())
    least = max(_SMALLEST * float(columns.mean()), own, torch.finfo(columns.dtype).tiny)
    return at, columns.clamp(min=least), strange


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moves:
    """How inputs move, with what they make of the deltas, by the left inverse ``left`` (M, n): ``coupled``
    (M, M, K) = V_m . Psi_b, ``apart`` (M, M, d) = x_b - x_m, ``solve`` (M K, M K) the inverse of the
    equations for u."""

    at: Linear
    left: Tensor
    coupled: Tensor
    apart: Tensor
    solve: Tensor

    @classmethod
    def of(cls, at: Linear, left: Float[Tensor, "M n"]) -> Moves:
        """With the left inverse ``left``."""
        coupled = torch.einsum("mn,bkn->mbk", left, at.slopes)
        apart = at.x[None] - at.x[:, None]
        passed = torch.einsum("mld,mbd->mbl", at.logits, apart)
        unknowns = at.slopes.shape[0] * at.slopes.shape[1]
        system = torch.einsum("mbk,mbl->mlbk", coupled, passed).reshape(unknowns, unknowns)
        identity = torch.eye(unknowns, dtype=at.x.dtype, device=at.x.device)
        solve = torch.linalg.inv(identity + system)
        return cls(at=at, left=left, coupled=coupled, apart=apart, solve=solve)

    def inputs(self, start: Float[Tensor, "M d"]) -> Float[Tensor, "M d"]:
        """The inputs' moves where they would be ``start`` if the deltas stayed."""
        asked = torch.einsum("mld,md->ml", self.at.logits, start).flatten()
        u = (self.solve @ asked).view(len(start), -1)
        return start - torch.einsum("mbk,bk,mbd->md", self.coupled, u, self.apart)

    def logit_deviations(self, columns: Float[Tensor, " d1"]) -> Float[Tensor, " Mk"]:
        """What independent noise of deviation ``columns``, nu and eps make of the logits, flat (M K,)."""
        deviations: Tensor = self._logit_covariance(columns).diagonal().clamp(min=0).sqrt()
        return deviations

    def deviations(self, columns: Float[Tensor, " d1"]) -> Float[Tensor, "M d"]:
        """What independent noise of deviation ``columns``, nu, eps and rounded deltas make of the inputs.

        D_m = D^0_m - T_m a with a_b = J_b D^0_b and T_m a = sum_b (V_m . Psi_b) (S a)_b (x_b - x_m): the
        variance is that of D^0_m, less twice T_m cov(a, D^0_m), plus T_m cov(a) T_m.
        """
        at, size = self.at, len(self.at.x)
        spread = self._logit_covariance(columns).view(size, -1, size, at.logits.shape[1])
        solve = self.solve.view(size, -1, len(self.solve))
        slopes = (at.logits * columns[:-1].square()).flatten(0, 1)
        bias = (at.logits @ at.x[:, :, None]).flatten() * columns[-1].square()
        gram, passed = self.left @ self.left.T, self._passed()
        own = columns[:-1].square() + (columns[-1] * at.x).square()
        found = torch.empty_like(at.x)
        for m in range(size):
            # sample b's delta, off by what V_m sees as t, moves input m by t (x_b - x_m)
            apart, moving = self.apart[m], self._shared(m)
            direct = gram[m, m] * own[m] + moving[m] @ apart.square()
            mixed = torch.einsum("bk,bkcl,cl->bc", self.coupled[m], spread, self.coupled[m])
            through = (apart * (mixed @ apart)).sum(dim=0).clamp(min=0)
            turned = torch.einsum("bk,bkq->bq", self.coupled[m], solve)
            noise = turned * gram[m].repeat_interleave(at.logits.shape[1])
            both = noise @ slopes + (noise @ bias)[:, None] * at.x[m]
            moved = (moving[:, :, None] * passed).transpose(1, 2).flatten(0, 1)
            both = (apart * (both + (turned @ moved) @ apart)).sum(dim=0)
            # what is of second order is small beside the parts, not beside what they leave of each other
            found[m] = torch.maximum(direct + through - 2 * both, _LEFT_OVER * (direct + through))
        return found.sqrt()

    def _shared(self, m: int) -> Float[Tensor, "M M"]:
        """The covariance of what V_m and V_k see of sample b's rounded delta, nu and eps, [k, b]."""
        shown = self._shown()
        shared: Tensor = (self.left * self.left[m]) @ self.at.delta_noise.square()
        return shared.index_add(1, self.at.owner, shown * shown[m])

    def scales(self, columns: Float[Tensor, " d1"]) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"]]:
        """How far the bias column takes the samples' scales from one, and the deviation that noise makes."""
        at = self.at
        shown = self.left.square() @ at.delta_noise.square()
        variance = shown.sum(dim=1) + self._shown().square().sum(dim=1)
        variance = variance + (self.left.norm(dim=1) * columns[-1]).square()
        return (self.left @ at.left[:, -1]).abs(), variance.sqrt()

    def _passed(self) -> Float[Tensor, "M M K"]:
        """J_m (x_b - x_m)."""
        passed: Tensor = torch.einsum("mld,mbd->mbl", self.at.logits, self.apart)
        return passed

    def _shown(self) -> Float[Tensor, "M c"]:
        """V_m times the columns of nu and eps, of their sizes."""
        shown: Tensor = (self.left @ self.at.whitened[:, len(self.at.x) :]) * self.at.sizes
        return shown

    def _logit_covariance(self, columns: Tensor) -> Float[Tensor, "Mk Mk"]:
        # z_m = V_m R, D^0_m = z_m - z_m,bias x_m, u^0 = J D^0
        at = self.at
        bias = -torch.einsum("mld,md->ml", at.logits, at.x)[:, :, None]
        flat = (torch.cat([at.logits, bias], dim=2) * columns).flatten(0, 1)
        spread = (flat @ flat.T).view(*at.logits.shape[:2], *at.logits.shape[:2])
        spread = (self.left @ self.left.T)[:, None, :, None] * spread
        passed = self._passed()
        turned = self.left[:, None] * at.delta_noise.T
        gram = torch.einsum("mbn,kbn->mkb", turned, turned)
        spread = spread + torch.einsum("mkb,mbl,kbj->mlkj", gram, passed, passed)
        moved = (self._shown()[:, :, None] * passed[:, at.owner]).transpose(1, 2).flatten(0, 1)
        spread = spread.reshape(self.solve.shape) + moved @ moved.T
        return self.solve @ spread @ self.solve.T
