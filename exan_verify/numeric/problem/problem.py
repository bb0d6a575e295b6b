"""What an attack is given, on one device: the network's layers beside their gradients.

Weights and weight gradients keep their own dtype; products with them run in float64, block by block, so
that a first layer of 10^8 entries is never copied as a whole. Setting: docs/theory.md section 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from exan_verify.core.network import Array, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.errors import GradientError, InputError, NonFiniteError, choice, raise_problems

BLOCK = 1 << 23
"""Entries converted to float64 at a time (64 MiB): large enough for BLAS, small beside the weights."""

_UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerGradient:
    """An affine layer beside its gradient: weights (n_out, n_in), biases (n_out,).

    A = [d_weight | d_bias] is the matrix that the attacks factor. The vectors are float64. A tensor that is
    not given (``weight_given``, ``bias_given``) holds zeros, or what was solved for; it checks nothing.
    """

    weight: Tensor
    bias: Tensor
    d_weight: Tensor
    d_bias: Tensor
    weight_given: bool = True
    bias_given: bool = True

    @property
    def whole(self) -> bool:
        """Whether both tensors are given."""
        return self.weight_given and self.bias_given

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_out, n_in)``."""
        return self.weight.shape[0], self.weight.shape[1]

    def right(self, matrix: Float[Tensor, "in1 l"]) -> Float[Tensor, "out l"]:
        """``A matrix``, for a matrix with n_in + 1 rows."""
        product = torch.cat([block @ matrix[:-1] for _, block in row_blocks(self.d_weight)])
        return product + self.d_bias[:, None] * matrix[-1]

    def left(self, matrix: Float[Tensor, "out l"]) -> Float[Tensor, "l in1"]:
        """``matrix^T A``."""
        product = torch.zeros(matrix.shape[1], self.shape[1], dtype=torch.float64, device=matrix.device)
        for rows, block in row_blocks(self.d_weight):
            product.addmm_(matrix[rows].T, block)
        return torch.cat([product, (matrix.T @ self.d_bias)[:, None]], dim=1)

    def augmented(self) -> Float[Tensor, "out in1"]:
        """A itself; for layers of moderate size."""
        return torch.cat([self.d_weight.double(), self.d_bias[:, None]], dim=1)

    def forward(self, h: Float[Tensor, "M in"]) -> Float[Tensor, "M out"]:
        """The pre-activations at ``h``."""
        return torch.cat([h @ block.T for _, block in row_blocks(self.weight)], dim=1) + self.bias

    def backward(self, delta: Float[Tensor, "... out"]) -> Float[Tensor, "... in"]:
        """``W^T delta``, for deltas in the last dimension."""
        return delta @ self.weight.double()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A validated attack: the layers, the loss, and what is known about batch and rounding.

    ``unit_roundoff`` is that of the coarsest dtype among the gradient's tensors. ``batch_size`` is the
    user's or None. ``labels``: of the loss's kind (one_hot), or real targets.
    """

    layers: tuple[LayerGradient, ...]
    loss: Loss
    reduction: Reduction
    batch_size: int | None
    unit_roundoff: float
    seed: int
    labels: Labels = Labels.ONE_HOT

    @property
    def whole(self) -> bool:
        """Whether every tensor of the gradient is given."""
        return all(layer.whole for layer in self.layers)

    @property
    def classes(self) -> int:
        """K, the number of logits."""
        return self.layers[-1].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the computation runs."""
        return self.layers[0].bias.device

    def divisor(self, samples: int) -> int:
        """What the reduction divides the summed loss by, for a batch of ``samples``."""
        return self.loss.divisor(self.reduction, samples, self.classes)

    def generator(self) -> torch.Generator:
        """A fresh random generator with the problem's seed."""
        return torch.Generator(device="cpu").manual_seed(self.seed)


def build_problem(
    network: ReluNetwork,
    gradient: Mapping[str, Any],
    *,
    loss: str,
    reduction: str,
    batch_size: int | None,
    device: Any,
    seed: int,
    labels: str = "one_hot",
    partial: bool = False,
) -> Problem:
    """Validate and bring everything to ``device``; ``partial``: tensors may be missing from the gradient.

    A layer without biases is one whose biases are zero and have no gradient.

    Raises :class:`InputError` for an unknown loss or reduction or a bad batch size; :class:`GradientError`
    (:class:`NonFiniteError`) for tensors that do not fit.
    """
    chosen_loss = choice(Loss, loss, "loss")
    chosen_reduction = choice(Reduction, reduction, "reduction")
    chosen_labels = attacked_labels(labels, chosen_loss)
    if batch_size is not None and (
        isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1
    ):
        raise InputError(f"batch_size={batch_size!r} is not a positive integer; give the number of samples")
    tensors = {str(name): as_tensor(value, f"gradient[{name!r}]") for name, value in gradient.items()}
    _check_gradient(network, tensors, partial=partial)
    target = torch.device("cpu" if device is None else device)
    tensors = {name: tensor.to(target) for name, tensor in tensors.items()}
    return Problem(
        layers=tuple(_layer(layer, tensors, target) for layer in network.layers),
        loss=chosen_loss,
        reduction=chosen_reduction,
        batch_size=None if batch_size is None else int(batch_size),
        unit_roundoff=max(_UNIT_ROUNDOFF[tensor.dtype] for tensor in tensors.values()),
        seed=int(seed),
        labels=chosen_labels,
    )


def attacked_labels(labels: str, loss: Loss) -> Labels:
    """One_hot or real, as the loss has them; raises :class:`InputError` for others."""
    chosen = choice(Labels, labels, "labels")
    if chosen is Labels.KNOWN:
        raise InputError(
            "labels='known' is a question for certify; the attack finds labels, so leave it out, or say "
            "'real' for targets of mse or bce that are any numbers"
        )
    if chosen is Labels.REAL and loss not in (Loss.MSE, Loss.BCE):
        raise InputError(
            f"labels='real' does not fit loss={loss.value!r}, whose labels are classes; leave it out"
        )
    return chosen


def row_blocks(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """``(rows, block)`` over ``matrix`` in float64; one block when no conversion is needed."""
    step = max(1, BLOCK // matrix.shape[1]) if matrix.dtype != torch.float64 else matrix.shape[0]
    for start in range(0, matrix.shape[0], step):
        rows = slice(start, start + step)
        yield rows, matrix[rows].double()


def as_tensor(value: Any, name: str) -> Tensor:
    """A real torch tensor from a tensor or array, sharing memory where possible; integers become float64."""
    if isinstance(value, Tensor):
        tensor = value.detach()
    else:
        array = np.asarray(value)
        try:
            tensor = _view(array.astype(np.float64) if array.dtype.kind in "Oiub" else array)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} is not an array of numbers ({error})") from None
    if not (tensor.is_floating_point() or tensor.is_complex()):
        tensor = tensor.double()
    if tensor.dtype not in _UNIT_ROUNDOFF:
        raise InputError(f"{name} has dtype {tensor.dtype}; give float64, float32, float16 or bfloat16")
    return tensor


def _view(array: Array) -> Tensor:
    with warnings.catch_warnings():
        # exact records are read-only and stay so: nothing here writes into a weight or a gradient
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _layer(layer: Any, tensors: Mapping[str, Tensor], device: torch.device) -> LayerGradient:
    (weight_name, weight), *biases = layer.parameters()
    # zeros that take no memory
    zero = torch.zeros((), dtype=torch.float64, device=device)
    none = zero.expand(weight.shape[:1])
    bias_name, bias = biases[0] if biases else ("", none)
    return LayerGradient(
        weight=as_tensor(weight, weight_name).to(device),
        bias=as_tensor(bias, bias_name).to(device).double(),
        d_weight=tensors.get(weight_name, zero.expand(weight.shape)),
        d_bias=tensors.get(bias_name, none).double(),
        weight_given=weight_name in tensors,
        bias_given=bias_name in tensors,
    )


def _check_gradient(network: ReluNetwork, tensors: Mapping[str, Tensor], *, partial: bool) -> None:
    expected = {name: tuple(array.shape) for name, array in network.parameters()}
    problems = [
        f"tensor {n!r} of shape {s} is missing; add it, or say partial=True (--partial) if it is not known"
        for n, s in expected.items()
        if n not in tensors and not partial
    ]
    for name, tensor in tensors.items():
        if name not in expected:
            known = ", ".join(expected)
            problems.append(f"tensor {name!r} belongs to no parameter (there are: {known}); remove it")
        elif tuple(tensor.shape) != expected[name]:
            problems.append(
                f"tensor {name!r} has shape {tuple(tensor.shape)}, the parameter has {expected[name]}; "
                "pass the gradient of this model"
            )
    raise_problems(GradientError, problems)
    if not tensors:
        raise GradientError(
            "the gradient has no tensors; pass those that are known, under the parameters' names"
        )
    bad = [name for name, tensor in tensors.items() if not _finite(tensor)]
    raise_problems(
        NonFiniteError,
        [f"gradient[{n!r}] contains NaN or an infinity; all numbers must be finite" for n in bad],
    )
    if not any(bool(tensor.any()) for tensor in tensors.values()):
        raise GradientError(
            "every entry of the gradient is zero, so it says nothing about the batch; "
            "check that it was taken after backward() and before zero_grad()"
        )


def _finite(tensor: Tensor) -> bool:
    # the extremes carry any NaN and infinity, without a mask as large as the tensor
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))
