"""Activation patterns with a prescribed exclusivity, and weights that realise them exactly.

A *region* here is one point of the batch, or several that will share every pattern with it. The patterns
(n, G) of a hidden layer over the G regions are drawn first; then pre-activations Z (n, G) of these signs;
then weights with W H + b = Z, where H (n', G) are the layer's inputs. That has a solution for every Z iff
[H; 1] has rank G (without biases: H). It is made so: G - 1 rows of H, the *pivots*, differ from region 0 by
unit vectors, up to triangular elimination, so that the matrix of pivots and ones is unimodular and integer Z
have integer weights. Every neuron but the pivots has free outgoing weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.network import Array
from exan_verify.errors import InputError
from exan_verify.exact.linalg import solve

Pattern = tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is asked of one hidden layer over G regions, the first of which is alive.

    ``sizes``: samples per region. ``dead``: the region in which every neuron is inactive, if any; the last.
    ``counts``: exclusive neurons per region, exactly. ``stopping``: regions no sample of which may ever
    become exclusive among them. ``triangular``: neuron k is exclusive to region k once 0 to k - 1 are gone.
    ``pivots``: whether the next weights are prescribed as well. ``apart``: regions must have different
    patterns in this layer.
    """

    sizes: tuple[int, ...]
    biased: bool
    dead: int | None = None
    counts: tuple[int, ...] | None = None
    stopping: frozenset[int] = frozenset()
    triangular: bool = False
    pivots: bool = False
    apart: bool = False

    @property
    def regions(self) -> int:
        """G."""
        return len(self.sizes)

    @property
    def alive(self) -> int:
        """How many regions are not dead."""
        return self.regions - (self.dead is not None)

    def admits(self, active: Pattern) -> bool:
        """Whether one more neuron of this pattern changes nothing that is asked."""
        samples = [self.sizes[g] for g in range(self.regions) if active[g]]
        if self.counts is not None and samples == [1]:
            return False
        return sum(self.sizes[g] for g in self.stopping if active[g]) != 1


@dataclass(frozen=True, slots=True)
class Neuron:
    """A pattern over the regions, and the pre-activations that are prescribed where it is active."""

    active: Pattern
    values: tuple[int, ...] | None = None

    @property
    def pivot(self) -> bool:
        """Whether it is one."""
        return self.values is not None


def required(draw: st.DrawFn, layer: Layer) -> list[Neuron]:
    """The neurons without which the layer is not what is asked: pivots, exclusive ones, the triangle."""
    alive = range(layer.alive)
    everywhere = tuple(g != layer.dead for g in range(layer.regions))
    own = _own_neurons(draw, layer)
    if not layer.pivots:
        return [Neuron(pattern) for patterns in own.values() for pattern in patterns]
    rest = {g: list(patterns) for g, patterns in own.items()}
    spread = not all(rest[g] for g in alive[1:])
    neurons = []
    for g in alive[1:]:
        pattern = rest[g].pop(0) if rest[g] else everywhere
        values = [int(v) + (pattern is everywhere and k == g) for k, v in enumerate(pattern)]
        neurons.append(Neuron(pattern, tuple(values)))
    # region 0 has to differ from the point without features as well: from the dead one, or, without biases,
    # from zero itself
    if layer.dead is not None or not layer.biased:
        base = rest[0].pop(0) if rest[0] and not spread else everywhere
        if not layer.admits(base) and base is everywhere:
            raise InputError(
                "a dead sample and a single other one without exclusive neurons have the same features; ask "
                "for one sample more, or for one hidden layer"
            )
        neurons.append(Neuron(base, tuple(int(v) for v in base)))
    return neurons + [Neuron(pattern) for patterns in rest.values() for pattern in patterns]


def _own_neurons(draw: st.DrawFn, layer: Layer) -> dict[int, list[Pattern]]:
    """Per living region, patterns that it can be told by: exclusive, perhaps once earlier ones are gone."""

    def alone(g: int) -> Pattern:
        return tuple(k == g for k in range(layer.regions))

    alive = range(layer.alive)
    if layer.counts is not None:
        found = {g: [alone(g)] * layer.counts[g] for g in alive}
    elif layer.triangular:
        also = {g: draw(st.lists(st.booleans(), min_size=g, max_size=g)) for g in alive}
        # not active for region 0, of which the others' features differ by the pivots
        found = {
            g: [tuple(k == g or (0 < k < g and also[g][k]) for k in range(layer.regions))] for g in alive
        }
    elif layer.stopping:
        found = {g: [] if g in layer.stopping else [alone(g)] for g in alive}
    else:
        told = draw(st.lists(st.booleans(), min_size=layer.alive, max_size=layer.alive))
        found = {g: [alone(g)] if (told[g] and layer.pivots) or (layer.apart and g) else [] for g in alive}
    if layer.apart:
        for g in alive[1:]:
            others = tuple(k not in (g, layer.dead) for k in range(layer.regions))
            if not found[g] and not layer.admits(others):
                raise InputError(
                    "shared_region=: so few samples cannot be in different regions without an exclusive "
                    "neuron; ask for more samples"
                )
            if not found[g]:
                found[0].append(others)
    return found


def further(draw: st.DrawFn, layer: Layer, count: int) -> list[Neuron]:
    """``count`` more neurons, of any patterns that change nothing that is asked."""
    found = []
    bits = draw(st.lists(st.booleans(), min_size=count * layer.regions, max_size=count * layer.regions))
    for k in range(count):
        drawn = bits[k * layer.regions : (k + 1) * layer.regions]
        active = tuple(bit and g != layer.dead for g, bit in enumerate(drawn))
        if not layer.admits(active):
            # one region more makes an exclusive neuron a shared one; where there is none it is inactive
            everywhere = tuple(g != layer.dead for g in range(layer.regions))
            active = everywhere if layer.admits(everywhere) else (False,) * layer.regions
        found.append(Neuron(active))
    return found


def pre_activations(draw: st.DrawFn, neurons: Sequence[Neuron]) -> Array:
    """Z (n, G) of the neurons' signs, as integers: the pivots' own values, 1 to 3 and -1 to -3 elsewhere."""
    regions = len(neurons[0].active)
    sizes = draw(
        st.lists(st.integers(1, 3), min_size=len(neurons) * regions, max_size=len(neurons) * regions)
    )
    z = np.empty((len(neurons), regions), dtype=object)
    for j, neuron in enumerate(neurons):
        for g, active in enumerate(neuron.active):
            size = sizes[j * regions + g]
            z[j, g] = (neuron.values[g] if neuron.values is not None else size) if active else -size
    return z


@dataclass(slots=True)
class Features:
    """Inputs H (n', G) of an affine layer, over the regions, and which rows are pivots; ``zero``: the region
    where they vanish and, without biases, every pre-activation with them.
    """

    values: Array
    pivots: list[int]
    biased: bool
    zero: int | None = None
    kept_zero: dict[int, set[int]] = field(default_factory=dict)
    """Inputs that the neurons which are active in a region do not see: {region: inputs}."""

    def prescribed(self, draw: st.DrawFn, z: Array) -> tuple[Array, Array | None]:
        """Weights (n, n') and biases (n,) with W H + b = Z exactly: the pivots' weights and the bias are
        solved for, all others drawn.
        """
        columns = [g for g in range(z.shape[1]) if self.biased or g != self.zero]
        ones = [np.ones(len(columns), dtype=object)] if self.biased else []
        square = np.array([self.values[p][columns] for p in self.pivots] + ones, dtype=object)
        weight = free_weights(draw, z.shape[0], self.values.shape[0])
        weight[:, self.pivots] = 0
        for region, unseen in self.kept_zero.items():
            seeing = [j for j in range(z.shape[0]) if z[j, region] > 0]
            weight[np.ix_(seeing, sorted(unseen))] = 0
        rest = (z - weight @ self.values)[:, columns]
        solved = solve(square.T, rest.T)
        assert solved is not None, "the pivots are independent"
        weight[:, self.pivots] = solved.T[:, : len(self.pivots)]
        return weight, solved.T[:, -1] if self.biased else None


def free_weights(draw: st.DrawFn, rows: int, cols: int) -> Array:
    """Integers between -2 and 2, (rows, cols)."""
    values = draw(st.lists(st.integers(-2, 2), min_size=rows * cols, max_size=rows * cols))
    out = np.empty(rows * cols, dtype=object)
    out[:] = values
    return out.reshape(rows, cols)


def inputs(draw: st.DrawFn, features: int, regions: int, *, biased: bool) -> Features:
    """Points (features, G), affinely independent (without biases: independent): a unit triangle in the first
    features, any integers in the others.
    """
    least = regions - biased
    drawn = draw(st.lists(st.integers(-3, 3), min_size=features * regions, max_size=features * regions))
    x: Array = np.array(drawn, dtype=object).reshape(features, regions)
    for k in range(least):
        for g in range(regions):
            place = g - biased
            if place == k:
                x[k, g] = 1
            elif place < k:
                x[k, g] = 0
    if biased:
        for k in range(least):
            x[k] += drawn[k]  # the whole row: region 0 stands anywhere
    return Features(values=x, pivots=list(range(least)), biased=biased)
