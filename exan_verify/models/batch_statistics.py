"""Linear, BatchNorm1d and ReLU before fully connected layers, as a step in training mode sees them.

In training mode BatchNorm normalises by the mean and variance of the batch itself, which mixes its samples.
What such a layer says of them is another question than that of a network that takes each sample by itself
(docs/theory.md, Appendix N), so it is read as what it is, and not folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from exan_verify.core.network import ReluNetwork
from exan_verify.errors import InputError, UnsupportedLayerError, raise_problems
from exan_verify.models.chain import describe, to_network

_SUPPORTED = (
    "in training mode an nn.Sequential of Linear, BatchNorm1d (with weights and running statistics), ReLU "
    "and then Linear layers with ReLU between them is attacked"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchStatistics:
    """``mean`` and (unbiased) ``variance`` (n,) of a batch, from running statistics whose unit roundoff is
    ``unit``, and how many times that the entries of both may be off, ``lost`` (n,)."""

    mean: Tensor
    variance: Tensor
    lost: Tensor
    unit: float

    def to(self, device: torch.device) -> BatchStatistics:
        """The same numbers on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("mean", "variance", "lost")}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormalisedFirstLayer:
    """``gamma zhat + beta`` of ``z = weight x + bias``, zhat the z normalised over the batch, and ``upper``.

    ``weight`` (n, d), ``gamma`` and ``beta`` (n,), ``eps``; ``momentum``: what a step moves the running
    statistics by, None: by their mean; ``norm`` and ``names``: the paths of the BatchNorm and of the Linear.
    ``buffers``: the model's own. ``bias`` (n,) or None.
    """

    weight: Tensor
    bias: Tensor | None
    gamma: Tensor
    beta: Tensor
    eps: float
    momentum: float | None
    norm: str
    linear: str
    upper: ReluNetwork
    buffers: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        """In words."""
        n, d = self.weight.shape
        widths = "-".join(map(str, (d, *self.upper.widths)))
        return f"{widths}, BatchNorm of {n} neurons in training mode, Linear layers with ReLU between them"

    def statistics(self, after: Mapping[str, Any], before: Mapping[str, Any] | None) -> BatchStatistics:
        """The statistics of the batch of the one step between two sets of running ones.

        Raises :class:`InputError` naming a buffer that is missing or does not fit.
        """
        names = ("running_mean", "running_var")
        read = [
            [self._buffer(given, name) for name in names]
            for given in (self.buffers if before is None else before, after)
        ]
        share = self.momentum
        if share is None:
            tracked = float(self._buffer(after, "num_batches_tracked", size=1))
            share = 1 / tracked if tracked >= 1 else 0.0
        if not share > 0:
            raise InputError(
                f"the momentum of {self.norm!r} is {share}, or no batch is counted, so that its running "
                "statistics do not move; they say nothing of the batch"
            )
        if all(bool((a == b).all()) for a, b in zip(*read, strict=True)):
            raise InputError(
                "the running statistics after the step are those before it"
                + (
                    ", which are the model's own; give those before the step as buffers"
                    if before is None
                    else ""
                )
            )
        unit = max(float(torch.finfo(one.dtype).eps) / 2 for part in read for one in part)
        old, new = ([one.double() for one in part] for part in read)
        mean, variance = ((b - (1 - share) * a) / share for a, b in zip(old, new, strict=True))
        lost = sum((abs(a) + abs(b) for a, b in zip(old, new, strict=True)), torch.zeros_like(mean)) / share
        return BatchStatistics(mean=mean, variance=variance, lost=lost, unit=unit)

    def _buffer(self, given: Mapping[str, Any], name: str, size: int | None = None) -> Tensor:
        full = f"{self.norm}.{name}" if self.norm else name
        if full not in given:
            raise InputError(
                f"the buffers have no {full!r} (there are: {', '.join(given) or 'none'}); give the model's "
                "buffers by name, as named_buffers() has them"
            )
        value = torch.as_tensor(given[full]).detach().flatten()
        value = value if value.is_floating_point() else value.double()
        expected = len(self.gamma) if size is None else size
        if len(value) != expected or not bool(torch.isfinite(value).all()):
            raise InputError(f"buffer {full!r} is not {expected} finite numbers; give that of this model")
        return value


def to_normalised(model: Any) -> NormalisedFirstLayer:
    """``model``, an ``nn.Sequential`` whose first Linear is followed by BatchNorm1d and ReLU.

    Raises :class:`UnsupportedLayerError` for anything else, naming what is in the way.
    """
    if not isinstance(model, nn.Sequential):
        raise UnsupportedLayerError(f"a {type(model).__name__} is none of these: {_SUPPORTED}")
    steps = [
        (path, one)
        for path, one in _leaves(model, "")
        if not isinstance(one, (nn.Flatten, nn.Identity))
        and not (isinstance(one, nn.Dropout) and not (one.training and one.p > 0))
    ]
    kinds = [type(one) for _, one in steps]
    expected = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    expected += [nn.ReLU, nn.Linear] * max(0, (len(kinds) - 3) // 2)
    for (path, one), wanted in zip(steps, expected, strict=False):
        if type(one) is not wanted:
            raise UnsupportedLayerError(f"{describe(one, path)} is in the way: {_SUPPORTED}")
    if len(kinds) < 4 or len(kinds) % 2:
        raise UnsupportedLayerError(f"the model ends too early: {_SUPPORTED}")
    (linear, first), (path, norm) = steps[:2]
    if not norm.affine or norm.running_mean is None:
        raise UnsupportedLayerError(
            f"{describe(norm, path)} has no weights or no running statistics: {_SUPPORTED}"
        )
    network = to_network(nn.Sequential(*(one for _, one in steps[3:])))
    upper = ReluNetwork.from_arrays(
        [layer.weight for layer in network.layers],
        [layer.bias for layer in network.layers] if network.has_bias else None,
        names=[path for path, one in steps[3:] if isinstance(one, nn.Linear)],
    )
    tensors = {f"{linear}.weight": first.weight, f"{path}.weight": norm.weight, f"{path}.bias": norm.bias}
    raise_problems(
        InputError,
        [f"{n} contains NaN or an infinity" for n, t in tensors.items() if not bool(torch.isfinite(t).all())],
    )
    return NormalisedFirstLayer(
        weight=first.weight.detach(),
        bias=None if first.bias is None else first.bias.detach().double(),
        gamma=norm.weight.detach().double(),
        beta=norm.bias.detach().double(),
        eps=float(norm.eps),
        momentum=norm.momentum,
        norm=path,
        linear=linear,
        upper=upper,
        buffers=dict(model.named_buffers()),
    )


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(module, nn.Sequential):
        for name, child in module.named_children():
            yield from _leaves(child, f"{path}.{name}" if path else name)
    else:
        yield path, module
