"""Attack a gradient of which tensors are missing (docs/theory.md, Appendix G).

The layers from any hidden layer up are a network of their own, whose inputs are that layer's features. So the
attack starts at the lowest hidden layer whose weight gradient is given, and confirms samples by what it says
of them, with the patterns of a forward pass above; gradients given further up are used where they help and
must agree. Below the start, weights alone lead to the inputs, where they can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.errors import BudgetExhausted, RangeError
from exan_verify.numeric.ask_methods import Candidates, Pursuit, column_space_of, pursue
from exan_verify.numeric.confirming.confirm import CLAIM_LIMIT
from exan_verify.numeric.methods.equations import layer_equations
from exan_verify.numeric.methods.exclusive_neurons.published import Published
from exan_verify.numeric.methods.searching.sample import Sample
from exan_verify.numeric.missing.bias_sums import missed_bias
from exan_verify.numeric.missing.inputs_from_weights import Below, inputs_below
from exan_verify.numeric.missing.scales import completed, gauged
from exan_verify.numeric.missing.single_layer import attack_single_layer
from exan_verify.numeric.problem.passes import backward, forward
from exan_verify.numeric.problem.problem import LayerGradient, Problem
from exan_verify.numeric.problem.records import (
    Attack,
    Candidate,
    HiddenFeatures,
    Method,
    divided_loss_vectors,
)
from exan_verify.numeric.problem.spectrum import ColumnSpace
from exan_verify.numeric.waiting import Telling

_DRAWN = 20
"""Most samples for which null directions are drawn without being asked: one good draw in half a million."""

_PATIENCE = 256
"""Times the draws that one good draw takes, when they are not asked for."""

_EXPLAINED = 1 << 24
"""Most numbers that a draw's explanation may take: n K'^2 for n neurons and K' unknowns above."""

_INDEPENDENT = 1e-8
"""Least singular value of unit deltas that are used as a basis."""

_NEEDS_BIAS = ("peel", "peel+lift")
"""Methods that read inputs off rows of [dW | db] and need both."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partial:
    """An attack on ``problem``, whose parameters are called ``names`` (weight, bias), layer by layer; a layer
    without biases has none to name: the second is empty."""

    problem: Problem
    names: tuple[tuple[str, str], ...]
    methods: tuple[Method, ...]
    named: bool
    tell: Telling
    pursuits: dict[int, Pursuit | RangeError] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the tensors that are not given."""
        return tuple(
            name
            for layer, pair in zip(self.problem.layers, self.names, strict=True)
            for name, given in zip(pair, (layer.weight_given, layer.bias_given), strict=True)
            if name and not given
        )

    @property
    def starts(self) -> tuple[int, ...]:
        """Hidden layers (from 0) whose weight gradient is given."""
        return tuple(k for k, layer in enumerate(self.problem.layers[:-1]) if layer.weight_given)

    def run(self) -> Attack:
        """The outcome at the lowest start that shows samples; without a start, what the last layer says.

        Raises :class:`RangeError` where no start is in range.
        """
        if not self.starts:
            return self._last_layer_alone()
        best: tuple[int, Pursuit] | None = None
        for start in self.starts:
            try:
                pursuit = self._pursuit(start)
            except BudgetExhausted as error:
                best = self._confirmed_before(error)
                break
            if isinstance(pursuit, RangeError):
                continue
            if best is None or not best[1].confirmed.status:
                best = start, pursuit
            if pursuit.confirmed.status:
                break
        if best is None:
            raise self._refusal()
        return self._outcome(*best)

    def _confirmed_before(self, error: BudgetExhausted) -> tuple[int, Pursuit]:
        """The lowest start that showed samples before ``error``, which is raised where none did."""
        for start, pursuit in sorted(self.pursuits.items()):
            if isinstance(pursuit, Pursuit) and pursuit.confirmed.status:
                return start, pursuit.cut_short(error)
        raise error

    def _last_layer_alone(self) -> Attack:
        """Without a hidden layer's weight gradient nothing separates samples, but one needs no separating."""
        problem, start = self.problem, len(self.names) - 1
        rectified = problem.layers[-2].activation.nonnegative
        name = "the gradient of the last layer alone"
        found = self.tell.during(lambda: attack_single_layer(problem, name=name, rectified=rectified))
        found = replace(found, missing=self.missing)
        if found.status:
            return self._with_inputs(start, found)
        if not problem.layers[-1].weight_given:
            reason = "bias gradients are sums over the batch, which separate no samples"
        else:
            reason = found.reason
        wanted = " or ".join(repr(hidden) for hidden, _ in self.names[:-1])
        # what is not found are features as well
        features = HiddenFeatures(
            layer=start, values=found.x, labels=found.y, status=(), candidates=found.candidates
        )
        return replace(
            found,
            x=found.x.new_zeros(0, problem.layers[0].shape[1]),
            candidates=(),
            hidden=features if found.candidates else None,
            reason=f"{reason}; samples show in the weight gradient of a hidden layer: {wanted}",
        )

    def _refusal(self) -> RangeError:
        first = self._pursuit(self.starts[0])
        return RangeError(f"{first}{self._remedy(self.starts[0])}")

    def _remedy(self, start: int) -> str:
        """Which missing tensors would help to separate samples at ``start``, or with their scales there."""
        last = start if self.problem.layers[start].paired else start + 1
        useful = [
            name
            for k, (layer, (weight, bias)) in enumerate(zip(self.problem.layers, self.names, strict=True))
            for name, given in ((weight, layer.weight_whole), (bias, layer.bias_whole or k > last))
            if k >= start and name and not given
        ]
        return f"; what is missing of {', '.join(map(repr, useful))} would help" if useful else ""

    def _pursuit(self, start: int) -> Pursuit | RangeError:
        if start not in self.pursuits:
            try:
                self.pursuits[start] = self._pursue(start)
            except RangeError as error:
                self.pursuits[start] = error
        return self.pursuits[start]

    def _pursue(self, start: int) -> Pursuit:
        problem = replace(self.problem, layers=self.problem.layers[start:])
        shown = self._shown(start + 1)
        first = problem.layers[0]
        if not first.paired:
            if not problem.rectified:
                name = self.names[start][1]
                lacks = f"{name!r} is missing" if name else f"layer {start + 1} has no biases"
                raise RangeError(
                    f"{lacks}, and without its gradient the scale of each sample is solved for with ReLU in "
                    "every hidden layer only"
                )
            problem = gauged(problem)
        spaces = self.tell.during(lambda: _spaces(problem, shown))
        wide = layer_equations(problem, spaces, 0).forward
        drawn = spaces[0].rank <= _DRAWN and wide.shape[0] * wide.shape[1] ** 2 <= _EXPLAINED

        def find(method: Method) -> Candidates:
            finding = method.find(problem, spaces)
            if not first.paired:
                return completed(problem, spaces, finding, first)
            return Candidates(problem=problem, spaces=spaces, finding=finding)

        methods = self._methods(problem, self.names[start][1], drawn=drawn)
        return pursue(methods, find, named=self.named, tell=self.tell)

    def _methods(self, problem: Problem, name: str, *, drawn: bool) -> tuple[Method, ...]:
        """The methods that can do without what is missing; ``name``: the first layer's bias."""
        first = self.methods[0].name
        if first == Published().name and not problem.whole:
            raise RangeError(f"method={first!r} reads the gradient of every layer; use another one, or auto")
        methods = (*self.methods, Sample(_PATIENCE)) if drawn and not self.named else self.methods
        if problem.layers[0].paired:
            return methods
        usable = tuple(method for method in methods if method.name not in _NEEDS_BIAS)
        if not usable:
            raise RangeError(
                f"method={first!r} reads inputs off weight and bias gradients together, and "
                f"{repr(name) + ' is missing' if name else 'there are no biases'}; use lift, assign or sample"
            )
        return usable

    def _shown(self, index: int) -> ColumnSpace | None:
        """Where the deltas of a layer without a weight gradient lie, by samples recovered right above it."""
        layers = self.problem.layers
        if layers[index].weight_whole or index + 1 not in self.starts:
            return None
        pursuit = self._pursuit(index + 1)
        if isinstance(pursuit, Pursuit) and pursuit.cut:
            raise BudgetExhausted(pursuit.cut)
        if isinstance(pursuit, RangeError) or not pursuit.confirmed.complete:
            return None
        above = replace(self.problem, layers=layers[index + 1 :])
        deltas = _deltas(above, pursuit)
        if deltas is None:
            return None
        h = pursuit.confirmed.x
        bounds = torch.tensor([one.error_bound for one in pursuit.confirmed.status]).to(h)
        activation = layers[index].activation
        active = activation.active_by_value(h, bounds[:, None])
        if active is None:
            return None
        return _span(layers[index + 1].backward(deltas[0]) * activation.passed(active), layers[index])

    def _outcome(self, start: int, pursuit: Pursuit) -> Attack:
        found = replace(pursuit.attack(), missing=self.missing)
        if not found.status:
            found = replace(found, reason=found.reason + self._remedy(start))
        if start == 0:
            return found
        shifted = tuple(replace(one, index=one.index + start) for one in found.layers)
        layer = None if found.layer is None else found.layer + start
        found = replace(
            found,
            layers=shifted,
            layer=layer,
            status=tuple(
                replace(one, layer=None if one.layer is None else one.layer + start) for one in found.status
            ),
        )
        return self._with_inputs(start, found)

    def _with_inputs(self, start: int, found: Attack) -> Attack:
        """The attack on features from ``start`` up, as one on inputs as far as features determine them."""
        layers = self.problem.layers
        bounds = [one.error_bound for one in found.status]
        h, error = found.x, torch.tensor(bounds, dtype=torch.float64, device=found.x.device)
        lost = self._lost(start, found)
        if found.complete and missed_bias(self.problem, start, found, error):
            name = self.names[start - 1][1]
            return _without_claims(
                found, layers[0].shape[1], f"{lost}; the features found do not give the tensor {name!r}"
            )
        unfinished = found.unfinished
        try:
            below = self.tell.during(lambda: inputs_below(layers[:start], h, bounds))
        except BudgetExhausted as error:
            below = [Below(x=None, error_bound=math.inf, reason=str(error)) for _ in bounds]
            unfinished = True
        limits = [0.0 if b.x is None else CLAIM_LIMIT * max(1.0, float(b.x.abs().max())) for b in below]
        good = [m for m, b in enumerate(below) if b.x is not None and b.error_bound <= limits[m]]
        reasons = [b.reason for b in below if b.reason]
        if len(reasons) > 1:
            reasons = [f"{reasons[0]}, and the like for {len(reasons) - 1} more"]
        wide = [m for m, b in enumerate(below) if b.x is not None and m not in good]
        if wide:
            worst = max(below[m].error_bound for m in wide)
            reasons.append(f"{len(wide)} inputs follow from the features to {worst:.1e} only")
        said = "; ".join((lost, *([f"counted from there: {found.reason}"] if found.reason else []), *reasons))
        return replace(
            found,
            x=_rows([b.x for m, b in enumerate(below) if m in good], layers[0], h),
            y=found.y[good],
            status=tuple(replace(found.status[m], error_bound=below[m].error_bound) for m in good),
            complete=found.complete and len(good) == len(below),
            candidates=tuple(_too_wide(below[m], found.y[m]) for m in wide),
            reason="" if found.complete and len(good) == len(below) else said,
            hidden=HiddenFeatures(
                layer=start,
                values=h,
                labels=found.y,
                status=found.status,
                candidates=found.candidates,
            ),
            unfinished=unfinished,
        )

    def _lost(self, start: int, found: Attack) -> str:
        names = [pair[0] for pair in self.names[:start]]
        return (
            f"without {', '.join(map(repr, names))} the gradient shows features of hidden layer {start} "
            f"({len(found.x)} of {found.batch_size} claimed), the inputs of the layers from {start + 1} up"
        )


def _spaces(problem: Problem, shown: ColumnSpace | None) -> tuple[ColumnSpace, ...]:
    """The column spaces of all layers; a layer without db serves as parametrisation only, one without all of
    dW not at all unless its deltas are ``shown`` from above (the second one's)."""
    generator = problem.generator()
    spaces = []
    for k, layer in enumerate(problem.layers):
        if not layer.weight_given or (k > 0 and not layer.weight_whole):
            spaces.append(shown if k == 1 and shown is not None else _nothing_shown(layer))
        elif k == 0 or layer.bias_whole:
            spaces.append(column_space_of(problem, layer, generator))
        else:
            spaces.append(replace(column_space_of(problem, layer.without_bias(), generator), saturated=True))
    return tuple(spaces)


def _nothing_shown(layer: LayerGradient) -> ColumnSpace:
    empty = torch.zeros(layer.shape[0], 0, dtype=torch.float64, device=layer.bias.device)
    return _known_span(empty, layer)


def _known_span(basis: Tensor, layer: LayerGradient) -> ColumnSpace:
    rank = basis.shape[1]
    return ColumnSpace(
        basis=basis,
        rows=basis.new_zeros(rank, layer.shape[1] + 1),
        values=basis.new_ones(max(1, rank)),
        gap=math.inf,
        noise=0.0,
        saturated=True,
    )


def _span(deltas: Float[Tensor, "M n"], layer: LayerGradient) -> ColumnSpace | None:
    """An orthonormal basis of independent deltas; None of dependent ones, which show less."""
    norms = deltas.norm(dim=1)
    if not bool((norms > 0).all()):
        return None
    u, values, _ = torch.linalg.svd((deltas / norms[:, None]).T, full_matrices=False)
    if len(values) < len(deltas) or float(values[-1]) < _INDEPENDENT:
        return None
    return _known_span(u, layer)


def _deltas(problem: Problem, pursuit: Pursuit) -> tuple[Tensor, ...] | None:
    """The deltas of confirmed samples, layer by layer; None where labels do not give them."""
    confirmed = pursuit.confirmed
    trace = forward(problem, confirmed.x)
    g = divided_loss_vectors(
        problem,
        trace.logits,
        confirmed.y,
        confirmed.status,
        scale=confirmed.scale,
        batch_size=confirmed.batch_size,
    )
    return None if g is None else backward(problem, trace, g)


def _rows(found: Sequence[Tensor | None], layer: LayerGradient, like: Tensor) -> Tensor:
    rows = [row for row in found if row is not None]
    return torch.stack(rows) if rows else like.new_zeros(0, layer.shape[1])


def _too_wide(below: Below, label: Tensor) -> Candidate:
    assert below.x is not None
    return Candidate(
        x=below.x,
        label=label,
        error_estimate=below.error_bound,
        reason=f"its features are known, its input to {below.error_bound:.1e} only",
    )


def _without_claims(found: Attack, features: int, reason: str) -> Attack:
    return replace(
        found,
        x=found.x.new_zeros(0, features),
        y=found.y[:0],
        status=(),
        complete=False,
        candidates=(),
        reason=reason,
    )
