"""The scales of samples where a layer's bias gradient is missing (docs/theory.md, Appendix G).

Derivation. Without db_1 the factors of dW_1 = Delta_1 X are known up to one number per sample: directions
d_m and rows y_m with delta_m = s_m d_m and x_m = y_m / s_m, and the delta above is s_m u_m, where d_m = D_m
W_2^T u_m. On the active neurons h_m = D_m (W_1 x_m + b_1), so that a sample's share of the next layer is

    s_m u_m h_m^T = u_m (D_m W_1 y_m)^T + s_m u_m (D_m b_1)^T,        db_2 = sum_m s_m u_m:

linear in the s_m, n_2 n_1 and n_2 equations for M unknowns. Then db_1 = sum_m s_m d_m is what was missing,
and entries of it that are given are equations for the s_m as well.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.numeric.ask_methods import Candidates
from exan_verify.numeric.methods.equations import next_directions
from exan_verify.numeric.missing.logit_scales import Directions, logit_scales
from exan_verify.numeric.problem.problem import LayerGradient, Problem
from exan_verify.numeric.problem.records import Finding
from exan_verify.numeric.problem.spectrum import ColumnSpace, column_space

_SAFETY = 4.0
"""Between an error estimated from residuals and the bound that is used."""

_DOUBT = 100.0
"""Times its noise that an entry of a direction must have to be active beyond doubt."""

_INDEPENDENT = 1e-10
"""Least eigenvalue of the normalised normal equations: below, the scales are not determined."""

_SPARE = 4
"""Equations beyond the unknowns without which a residual says nothing."""

_REFINEMENTS = 3


def gauged(problem: Problem) -> Problem:
    """The problem with ``dW_1 r`` in place of the missing db_1, r drawn at random.

    It is the bias gradient of the samples x_m / (r . x_m), so that methods find these.
    """
    layer = problem.layers[0].without_bias()
    r = torch.randn(layer.shape[1] + 1, 1, dtype=torch.float64, generator=problem.generator())
    r = r.to(problem.device) / math.sqrt(layer.shape[1])
    r[-1] = 0
    first = replace(layer, d_bias=layer.right(r)[:, 0])
    return replace(problem, layers=(first, *problem.layers[1:]))


def completed(
    problem: Problem, spaces: tuple[ColumnSpace, ...], finding: Finding, given: LayerGradient
) -> Candidates:
    """The finding at its true scales, with the bias gradient that these give; ``problem`` and ``spaces`` are
    the :func:`gauged` ones it was found in, ``given`` is the first layer before. Without candidates, and a
    reason, where the scales stay open."""
    if not finding.whole:
        said = finding.reason or "not every sample is separated"
        return _nothing(
            problem, spaces, finding, f"{said}; without the bias gradient that leaves all scales open"
        )
    found = _directions(problem, spaces, finding.x)
    if found is None:
        said = "the deltas of layer 1 do not determine those of layer 2, which scales need"
        return _nothing(problem, spaces, finding, said, final=True)
    solved = _scales(problem, found, given) or logit_scales(problem, found)
    if isinstance(solved, str):
        return _nothing(
            problem, spaces, finding, f"the scales of the samples stay open: {solved}", final=True
        )
    scales, error = solved
    first = replace(problem.layers[0], d_bias=found.d @ scales)
    whole = replace(problem, layers=(first, *problem.layers[1:]))
    most = finding.x.shape[0] + 1
    space = column_space(first, unit_roundoff=problem.unit_roundoff, most=most, generator=problem.generator())
    return Candidates(
        problem=whole,
        spaces=(space, *spaces[1:]),
        finding=replace(
            finding, x=found.y / scales[:, None], scale_error=float((error / scales.abs()).max())
        ),
    )


def _nothing(
    problem: Problem, spaces: tuple[ColumnSpace, ...], finding: Finding, reason: str, *, final: bool = False
) -> Candidates:
    return Candidates(
        final=final,
        problem=problem,
        spaces=spaces,
        finding=replace(finding, x=finding.x[:0], rest=spaces[0].basis, reason=reason),
    )


def _directions(
    problem: Problem, spaces: tuple[ColumnSpace, ...], y: Float[Tensor, "M d"]
) -> Directions | None:
    layer, above = problem.layers[0], problem.layers[1]
    inverse = torch.linalg.pinv(torch.cat([y, torch.ones_like(y[:, :1])], dim=1))
    d = layer.right(inverse)
    noise = spaces[0].noise * inverse.norm(dim=0)
    basis = next_directions(problem, spaces, 0, len(y))
    forward = above.backward(basis.T).T
    pattern = d.abs() > _DOUBT * noise
    # of a neuron without a row nothing says whether it is active
    sure = layer.sent(torch.ones_like(layer.bias)).bool()
    u, error = [], []
    for m in range(len(y)):
        span = forward * pattern[:, m, None]
        values = torch.linalg.svdvals(span)
        if len(values) < basis.shape[1] or float(values[-1]) <= _INDEPENDENT**0.5 * float(values[0]):
            return None
        p = torch.linalg.pinv(span) @ d[:, m]
        missed = float((span @ p - d[:, m]).norm())
        u.append(basis @ p)
        error.append(math.hypot(missed, float(noise[m])) / float(values[-1]))
        # what an inactive neuron would carry must stand out, or it may as well be active
        sure &= pattern[:, m] | ((forward @ p).abs() > _DOUBT * noise[m])
    return Directions(
        d=d, y=y, u=torch.stack(u, dim=1), u_error=torch.tensor(error).to(d), pattern=pattern, sure=sure
    )


def _scales(problem: Problem, found: Directions, given: LayerGradient) -> tuple[Tensor, Tensor] | None:
    """Least squares for the scales (M,) and their errors, or None where they are open."""
    layer, above = problem.layers[0], problem.layers[1]
    sure = found.sure & above.weight_given
    active = found.pattern[sure].double()
    fixed = active * (layer.weight.double()[sure] @ found.y.T)
    slope = active * layer.bias[sure, None]
    shown = found.u if above.weight_rows is None else found.u[above.weight_rows]
    # db_2 = U s, and what there is of db_1 = D s
    sums, of_sums = _bias_equations(above, found.u)
    own, of_own = _bias_equations(given, found.d)
    sums, of_sums = torch.cat([sums, own]), torch.cat([of_sums, of_own])
    gram = (shown.T @ shown) * (slope.T @ slope) + sums.T @ sums
    size = gram.diagonal().clamp(min=torch.finfo(torch.float64).tiny).sqrt()
    values, vectors = torch.linalg.eigh(gram / size[:, None] / size)
    equations = len(shown) * int(sure.sum()) + len(sums)
    if float(values[0]) <= _INDEPENDENT:
        return None
    inverse = (vectors / values) @ vectors.T / size[:, None] / size
    given_weight = above.d_weight if above.weight_rows is None else above.d_weight[above.weight_rows]
    weight_rest = given_weight[:, sure].double() - shown @ fixed.T
    scales = torch.zeros_like(size)
    for _ in range(_REFINEMENTS):
        change = inverse @ (((shown.T @ weight_rest) * slope.T).sum(dim=1) + sums.T @ of_sums)
        of_sums = of_sums - sums @ change
        weight_rest = weight_rest - (shown * change) @ slope.T
        scales = scales + change
    spare = equations - len(scales)
    rest = math.hypot(float(weight_rest.norm()), float(of_sums.norm()))
    seen = rest * math.sqrt(equations / spare) if spare >= _SPARE else rest
    level = _level(problem, found, fixed, slope, scales, sure)
    if len(own):
        # an error of u moves d by |W_2| times as much at most
        gain = float(torch.linalg.matrix_norm(above.weight.double(), 2))
        moved = gain * float((scales * found.u_error).norm())
        level = math.hypot(level, moved, problem.unit_roundoff * float(given.d_bias.norm()))
    error = _SAFETY * inverse.diagonal().clamp(min=0).sqrt() * math.hypot(seen, level)
    if bool((scales == 0).any()):
        return None
    return scales, error


def _bias_equations(
    layer: LayerGradient, deltas: Float[Tensor, "n M"]
) -> tuple[Float[Tensor, "r M"], Float[Tensor, " r"]]:
    """``deltas`` times the scales are the bias gradient: its rows that are given, and what they give."""
    rows = torch.full_like(layer.d_bias, layer.bias_given, dtype=torch.bool)
    for sent in (layer.bias_rows, layer.weight_rows):
        rows = rows if sent is None else rows & sent
    return deltas[rows], layer.d_bias[rows]


def _level(
    problem: Problem,
    found: Directions,
    fixed: Float[Tensor, "n M"],
    slope: Float[Tensor, "n M"],
    scales: Float[Tensor, " M"],
    sure: Bool[Tensor, " n"],
) -> float:
    """What rounding and the errors of the next directions leave in the equations, by norms."""
    above = problem.layers[1]
    carried = (fixed.norm(dim=0) + scales.abs() * (slope.norm(dim=0) + float(above.bias_given))).square()
    moved = float((found.u_error.square() * carried).sum())
    terms = float((found.u.square().sum(dim=0) * carried).sum())
    given = float(above.d_weight[:, sure].double().square().sum()) + float(above.d_bias.square().sum())
    return math.sqrt(moved + problem.unit_roundoff**2 * (terms + given))
