"""The `published` method: Algorithm B.1 of Pan et al. (USENIX Security 2022), and our reading of B.2 and B.3.

B.1: groups of last-layer neurons with one ratio g_c / g_1 are taken for exclusive neurons of one sample
each, which gives the direction of every loss vector; B.2 reads the label off its signs; the scale is fixed
by g_1 = 2/3 of the largest feasible value. B.3, as we read it: dW_L = sum_m g^m h^m, solved for the h^m,
gives the patterns of the last ReLU layer; a row of dW_i that belongs to an exclusive neuron of layer i is
proportional to its sample's h_{i-1}, whose non-zeros are the pattern below. Then dW_1 = Delta_1 X is solved.

Two repairs, named in docs/theory.md, can be switched off (``repairs=False``), to see where the text fails:

- E2: normalised columns are compared, instead of ratios to the first class, which may be 0/0. With two
  classes, or one logit, all columns are parallel either way, and nothing is grouped.
- E3: scales come from db_L = sum_m s_m u_m where the directions are independent (M <= K - 1 for
  cross_entropy and hinge, M <= K else), otherwise from a forward pass at inputs that exclusive rows of
  [dW_i | db_i] show (E1). That pass also gives the patterns that dW_L then leaves open. The linear solve
  for X is then that of the common refinement, which all methods end with.

Without repairs the scale needs |g_c| < 1, hence cross_entropy or bce; candidates are judged as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.question import Loss
from exan_verify.numeric.methods.equations import check_rectified, layer_summaries
from exan_verify.numeric.methods.exclusive_neurons.columns import (
    ALIKE,
    LossGroups,
    alike,
    equal_ratios,
    negative_entry,
    one_direction,
    parallel_columns,
    shown_inputs,
)
from exan_verify.numeric.problem.passes import backward, delta_spans, forward
from exan_verify.numeric.problem.polish import meet
from exan_verify.numeric.problem.problem import Problem
from exan_verify.numeric.problem.records import Finding
from exan_verify.numeric.problem.remainder import without
from exan_verify.numeric.problem.spectrum import ColumnSpace

_INDEPENDENT = 1e-6
"""Smallest singular value of unit loss directions that are solved for as independent."""

_SHORT = (
    "{} of {} samples have the exclusive neurons that the algorithm needs: two in the last hidden layer, one "
    "in every other"
)

_NO_GROUP = (
    "no two columns of the last layer's weight gradient are alike: no sample shows two exclusive neurons in "
    "the last hidden layer; use peel or lift"
)

_ZERO_ROW = (
    "the first row of the last layer's weight gradient, by which the published algorithm divides, is zero"
)

_SAME = 1e-3
"""Two inputs whose delta directions have a cosine within this of one show one sample."""

_AGREE = 1e-3
"""Rows of two neurons that are exclusive to one sample agree to this, relatively."""

_ROUNDINGS = 64.0
"""An activation solved for is taken for positive when it exceeds its estimated rounding by this factor."""

_HEURISTIC = 2 / 3
"""B.1's share of the largest feasible |g_1|."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The published algorithm, with or without the repairs E2 and E3."""

    repairs: bool = True

    @property
    def name(self) -> str:
        """The name under which users ask for it."""
        return "published"

    def find(self, problem: Problem, spaces: tuple[ColumnSpace, ...]) -> Finding:
        """Candidates, as many as B.1 finds groups; the reason says at which step others were lost.

        Raises :class:`RangeError` where another activation than ReLU follows a hidden layer.
        """
        check_rectified(problem)
        nothing = Finding(
            method=self.name,
            x=torch.zeros(0, problem.layers[0].shape[1], dtype=torch.float64, device=problem.device),
            rest=spaces[0].basis,
            rest_sine=1.0,
            layer=len(problem.layers) - 1,
            layers=layer_summaries(problem, spaces),
            reason="",
            literal=not self.repairs,
            guessed_rows=True,
        )
        if not spaces[0].rank:
            return replace(nothing, reason="the first layer's gradient is zero, so no input shows")
        groups, reason = _groups(problem, repairs=self.repairs)
        if not groups.neurons:
            return replace(nothing, reason=reason)
        if self.repairs:
            return _repaired(problem, spaces, groups, replace(nothing, reason=reason))
        return _to_the_letter(problem, groups, replace(nothing, reason=reason))


def _groups(problem: Problem, *, repairs: bool) -> tuple[LossGroups, str]:
    """B.1 and B.2: groups whose directions can be loss vectors, and what was lost."""
    if repairs and one_direction(problem):
        what = "one logit" if problem.classes == 1 else f"{problem.classes} classes"
        none = LossGroups(neurons=(), directions=torch.zeros(0, problem.classes))
        return none, (
            f"with {what} all columns of the last layer's weight gradient are parallel, so that grouping "
            "them separates no samples; use peel or lift"
        )
    groups = parallel_columns(problem) if repairs else equal_ratios(problem)
    if not groups.neurons:
        zero = not repairs and not bool(problem.layers[-1].d_weight[0].any())
        return groups, _ZERO_ROW if zero else _NO_GROUP
    if problem.question.loss.class_labels:
        usable = torch.nonzero(negative_entry(groups.directions) >= 0)[:, 0].tolist()
        if len(usable) < len(groups.neurons):
            lost = len(groups.neurons) - len(usable)
            return groups.select(
                usable
            ), f"{lost} groups of alike columns have no label by the published rule and are left out"
    return groups, ""


def _to_the_letter(problem: Problem, groups: LossGroups, nothing: Finding) -> Finding:
    if problem.question.loss not in (Loss.CROSS_ENTROPY, Loss.BCE):
        return replace(
            nothing,
            reason="the published algorithm scales loss vectors by |g_c| < 1, which "
            f"{problem.question.loss.value} does not satisfy; use the repairs",
        )
    size = len(groups.neurons)
    g = _heuristic_scale(problem, groups.directions) / problem.divisor(problem.question.batch_size or size)
    patterns, reason = _patterns_down(problem, g)
    if patterns is None:
        return replace(nothing, reason=reason)
    deltas = _backward(problem, patterns, g)
    x = torch.linalg.pinv(deltas.T) @ problem.layers[0].d_weight.double()
    return replace(nothing, x=x, rest=nothing.rest[:, :0], reason=nothing.reason)


def _heuristic_scale(problem: Problem, ratios: Float[Tensor, "m K"]) -> Float[Tensor, "m K"]:
    """B.1, steps 13 to 15: |g_1| is 2/3 of what the entry that must stay below 1 in size allows.

    That entry is the label's for cross_entropy, where the others sum to it, and the largest for bce.
    """
    if problem.question.loss is Loss.CROSS_ENTROPY:
        label = negative_entry(ratios)
        own = ratios.gather(1, label[:, None])
        scaled: Tensor = -_HEURISTIC * ratios / own
        return scaled
    return _HEURISTIC * ratios / ratios.abs().amax(dim=1, keepdim=True)


def _patterns_down(problem: Problem, g: Float[Tensor, "m K"]) -> tuple[list[Bool[Tensor, "m n"]] | None, str]:
    """B.3: the patterns of all hidden layers, first to last, from dW_L downwards."""
    if not _independent(problem, g):
        return None, (
            f"{len(g)} loss vectors among {problem.classes} classes are dependent, so that the last layer's "
            "weight gradient does not give the activations of the last hidden layer; use the repairs"
        )
    inverse, given = torch.linalg.pinv(g).T, problem.layers[-1].d_weight.double()
    # an inactive neuron comes back as rounding, which nearly dependent loss vectors magnify
    rounding = problem.unit_roundoff * inverse.norm(dim=1, keepdim=True) * given.norm(dim=0)
    patterns = [inverse @ given > _ROUNDINGS * rounding]
    for k in range(len(problem.layers) - 2, 0, -1):
        rows, have = _exclusive_neurons(problem, k, patterns[0])
        if not bool(have.all()):
            return (
                None,
                f"a sample has no exclusive neuron in hidden layer {k + 1}, which the algorithm needs",
            )
        h = problem.layers[k].d_weight[rows].double().abs()
        patterns.insert(0, h > alike(problem.unit_roundoff) * h.amax(dim=1, keepdim=True))
    return patterns, ""


def _exclusive_neurons(
    problem: Problem, index: int, pattern: Bool[Tensor, "m n"]
) -> tuple[Tensor, Bool[Tensor, " m"]]:
    """Per sample its exclusive neuron of layer ``index`` with the largest bias entry; who has one."""
    exclusive = pattern & (pattern.sum(dim=0) == 1)
    best = torch.where(exclusive, problem.layers[index].d_bias.abs(), -1.0).max(dim=1)
    return best.indices, best.values > 0


def _independent(problem: Problem, g: Float[Tensor, "m K"]) -> bool:
    if len(g) > problem.classes:
        return False
    unit = torch.nn.functional.normalize(g, dim=1)
    return float(torch.linalg.svdvals(unit)[-1]) > _INDEPENDENT


def _backward(problem: Problem, patterns: list[Tensor], g: Float[Tensor, "m K"]) -> Tensor:
    deltas = g
    for layer, pattern in zip(reversed(problem.layers[1:]), reversed(patterns), strict=True):
        deltas = layer.backward(deltas) * pattern
    return deltas


def _repaired(
    problem: Problem, spaces: tuple[ColumnSpace, ...], groups: LossGroups, nothing: Finding
) -> Finding:
    """E3: scales from db_L where that settles them, else from inputs that exclusive rows show."""
    space, size = spaces[0], len(groups.neurons)
    g = _bias_scale(problem, groups.directions)
    if g is not None and size == space.rank:
        patterns, _ = _patterns_down(problem, g)
        if patterns is not None:
            deltas = _backward(problem, patterns, g)
            x = torch.linalg.pinv(deltas.T) @ problem.layers[0].d_weight.double()
            # a pattern that rounding got wrong shows in the forward pass; then the rows decide
            if all(map(torch.equal, forward(problem, x).patterns, patterns)):
                return replace(nothing, x=x, rest=space.basis[:, :0])
    x, rows = _inputs_down(problem, groups)
    if not len(x):
        return replace(nothing, reason=_join(_SHORT.format(0, space.rank), nothing.reason))
    if len(x) > space.rank:
        chosen = _own_equations(problem, space, x)
        x, rows = x[chosen], [rows[k] for k in chosen]
    directions = groups.directions[[m for m, _ in rows]]
    trace = forward(problem, x)
    deltas = backward(problem, trace, directions)[0]
    neurons = torch.tensor([j for _, j in rows], device=x.device)
    own = deltas.gather(1, neurons[:, None])[:, 0]
    scales = torch.where(own != 0, problem.layers[0].d_bias[neurons] / own, torch.zeros_like(own))
    deltas = scales[:, None] * deltas
    if len(x) == space.rank:
        return replace(nothing, x=x, rest=space.basis[:, :0])
    reason = _join(_SHORT.format(len(x), space.rank), nothing.reason)
    left = without(space, deltas, x)
    sine = min(1.0, space.noise / left.noise)
    return replace(nothing, x=x, rest=left.basis, rest_sine=sine, reason=reason)


def _own_equations(problem: Problem, space: ColumnSpace, x: Tensor) -> list[int]:
    """Of more inputs than samples those whose deltas meet the column space best, one per direction there:
    columns may be parallel by accident, or those of one sample in two groups."""
    meeting = meet(delta_spans(problem, forward(problem, x)), space.basis)
    directions = torch.nn.functional.normalize(meeting.deltas[:, :, 0], dim=1)
    chosen: list[int] = []
    for k in meeting.sines[:, 0].argsort().tolist():
        if not bool(((directions[chosen] @ directions[k]).abs() > 1 - _SAME).any()):
            chosen.append(k)
    return sorted(chosen[: space.rank])


def _bias_scale(problem: Problem, directions: Float[Tensor, "m K"]) -> Tensor | None:
    """Scaled loss vectors from db_L = sum_m s_m u_m, when it has one solution, and a positive one."""
    if not _independent(problem, directions):
        return None
    bias = problem.layers[-1].d_bias
    scales = torch.linalg.pinv(directions.T) @ bias
    missed = (directions.T @ scales - bias).norm()
    if bool((scales <= 0).any()) or float(missed) > ALIKE * problem.unit_roundoff * float(scales.norm()):
        return None
    scaled: Tensor = scales[:, None] * directions
    return scaled


def _inputs_down(problem: Problem, groups: LossGroups) -> tuple[Tensor, list[tuple[int, int]]]:
    """E1 from the last hidden layer to the first: inputs, and per input its group and neuron of layer 1."""
    index = len(problem.layers) - 2
    device = problem.device
    picked = [_agreeing(problem, index, neurons) for neurons in groups.neurons]
    members = torch.tensor([m for m, j in enumerate(picked) if j >= 0], dtype=torch.long, device=device)
    chosen = torch.tensor([j for j in picked if j >= 0], dtype=torch.long, device=device)
    while True:
        h, shown = shown_inputs(problem, index, chosen)
        h, members, chosen = h[shown], members[shown], chosen[shown]
        if index == 0:
            return h, list(zip(members.tolist(), chosen.tolist(), strict=True))
        pattern = h > alike(problem.unit_roundoff) * h.abs().amax(dim=1, keepdim=True)
        index -= 1
        best, have = _exclusive_neurons(problem, index, pattern)
        members, chosen = members[have], best[have]


def _agreeing(problem: Problem, index: int, neurons: Tensor) -> int:
    """The group's neuron with the largest bias entry among those whose rows show what another one's row
    shows, as those of two exclusive neurons do; -1 where no two agree: parallel by accident."""
    h, shown = shown_inputs(problem, index, neurons)
    distance = torch.cdist(h, h, compute_mode="donot_use_mm_for_euclid_dist")
    limit = max(_AGREE, 8 * problem.unit_roundoff) * h.norm(dim=1)
    agree = (distance <= torch.minimum(limit[:, None], limit)) & shown & shown[:, None]
    votes = agree.sum(dim=1)
    if int(votes.max()) < 2:
        return -1
    best = agree[votes.argmax()]
    bias = problem.layers[index].d_bias[neurons].abs()
    return int(neurons[torch.where(best, bias, -1.0).argmax()])


def _join(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)
