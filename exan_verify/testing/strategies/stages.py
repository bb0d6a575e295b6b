"""Networks of convolutions below a connected head, of every kind of stage that the exact side takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import fractions, freeze
from exan_verify.core.network import Array, ReluNetwork, exact_array
from exan_verify.core.staged import Convolution, Entry, Pool, Residual, StagedNetwork
from exan_verify.errors import InputError, unknown, whole

STAGES = ("convolution", "groups", "sum", "maximum", "mean")
"""The kinds of stages that :func:`staged_networks` draws."""

Shape = tuple[int, int, int]


def staged_networks(
    *,
    stages: Sequence[str] = STAGES,
    max_stages: int = 2,
    hidden: int = 12,
    classes: int = 3,
) -> st.SearchStrategy[StagedNetwork]:
    """Networks of 1 to ``max_stages`` of the ``stages`` named, on pictures of 1 or 2 channels of 4 x 4 or
    4 x 5 pixels, below a head with one hidden layer: multiples of 1/8 between -1 and 1. Where a pool would be
    the first one, a convolution is. Some shift and scale the pictures first; kernels, strides, dilations and
    zeros around pictures differ by their sides.

    ``groups``: a convolution in groups; ``sum``: two branches, with or without a convolution on the shorter;
    ``maximum`` and ``mean``: pools. :func:`batches` draws pictures for them.

    Raises :class:`InputError` naming what cannot be used.
    """
    wrong = [kind for kind in stages if kind not in STAGES]
    if isinstance(stages, str) or wrong or not stages:
        raise InputError(unknown("stages", wrong[0] if wrong else str(stages), STAGES))
    return _staged(
        tuple(stages), whole(max_stages, "max_stages"), whole(hidden, "hidden"), whole(classes, "classes")
    )


@st.composite
def _staged(draw: st.DrawFn, kinds: tuple[str, ...], most: int, hidden: int, classes: int) -> StagedNetwork:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape: Shape = draw(st.sampled_from([(1, 4, 4), (2, 4, 4), (2, 4, 5), (1, 5, 4)]))
    start = shape
    found: list[Convolution | Pool | Residual] = []
    for number in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(kinds))
        if not found and kind in ("maximum", "mean"):
            kind = "convolution"
        stage = _stage(draw, rng, kind, shape, str(number))
        found.append(stage)
        shape = stage.output_shape
    assert found[0].input_shape == start
    features = int(np.prod(shape))
    head = ReluNetwork.from_arrays(
        [_numbers(rng, hidden, features), _numbers(rng, classes, hidden)],
        [_numbers(rng, hidden), _numbers(rng, classes)],
        names=["head.0", "head.2"],
    )
    return StagedNetwork(stages=tuple(found), head=head, entry=_entry(rng, start[0]))


def _entry(rng: np.random.Generator, channels: int) -> Entry | None:
    """A shift and scale for each channel, or none."""
    if rng.random() < 0.7:
        return None
    factor, shift = rng.choice([-4, 2, 8, 12], channels) / 8, rng.integers(-8, 9, channels) / 8
    return Entry(factor=freeze(fractions(factor)), shift=freeze(fractions(shift)))


def _stage(
    draw: st.DrawFn, rng: np.random.Generator, kind: str, shape: Shape, name: str
) -> Convolution | Pool | Residual:
    channels, height, width = shape
    if kind in ("maximum", "mean"):
        kernel = draw(st.sampled_from([(1, 2), (2, 1), (2, 2)]))
        return Pool(
            mean=kind == "mean",
            kernel=(min(kernel[0], height), min(kernel[1], width)),
            input_shape=shape,
            stride=(1, 1),
            padding=(0, 0, 0, 0),
            dilation=(1, 1),
            name=name,
        )
    if kind == "sum":
        out = draw(st.sampled_from([channels, 2 * channels]))
        between = draw(st.integers(0, 2))
        inner = tuple(
            _convolution(
                draw, rng, (channels if k == 0 else out, height, width), out, f"{name}.{k}", same=True
            )
            for k in range(between + 1)
        )
        other = out != channels or draw(st.booleans())
        shortcut = _convolution(draw, rng, shape, out, f"{name}.s", same=True) if other else None
        return Residual(inner=inner, shortcut=shortcut, input_shape=shape, name=name)
    groups = (
        draw(st.sampled_from([n for n in (2, channels) if channels % n == 0])) if channels % 2 == 0 else 1
    )
    out = 2 * channels * draw(st.integers(1, 2))
    return _convolution(draw, rng, shape, out, name, groups=groups if kind == "groups" else 1)


def _convolution(
    draw: st.DrawFn,
    rng: np.random.Generator,
    shape: Shape,
    out: int,
    name: str,
    *,
    groups: int = 1,
    same: bool = False,
) -> Convolution:
    """Of any geometry that fits; ``same``: one that keeps height and width."""
    channels, height, width = shape
    if same:
        kernel = (draw(st.sampled_from([1, 3])),) * 2
        padding, stride, dilation = (kernel[0] // 2,) * 4, (1, 1), (1, 1)
    else:
        kernel = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        reach = [draw(st.integers(1, 2)) if size > 1 else 1 for size in kernel]
        # what is wider than the picture takes zeros around it; on either side fewer than it reaches
        spans = [step * (size - 1) for step, size in zip(reach, kernel, strict=True)]
        before = [draw(st.integers(0, span)) for span in spans]
        after = [
            max(draw(st.integers(0, span)), span + 1 - size - first)
            for span, size, first in zip(spans, (height, width), before, strict=True)
        ]
        padding = before[1], after[1], before[0], after[0]
        stride = draw(st.integers(1, 2)), draw(st.integers(1, 2))
        dilation = reach[0], reach[1]
    return Convolution(
        weight=_numbers(rng, out, channels // groups, *kernel),
        bias=_numbers(rng, out) if draw(st.booleans()) else None,
        input_shape=shape,
        stride=stride,
        padding=padding,
        dilation=dilation,
        name=name,
        groups=groups,
    )


def _numbers(rng: np.random.Generator, *shape: int) -> Array:
    values: Any = rng.integers(-8, 9, shape) / 8
    return exact_array(values, "drawn")
