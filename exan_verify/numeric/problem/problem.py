"""What an attack is given, on one device: the network's layers beside their gradients.

Weights and weight gradients keep their own dtype; products with them run in float64, block by block, so
that a first layer of 10^8 entries is never copied as a whole. Setting: docs/theory.md section 1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from exan_verify.core.network import Array, Network
from exan_verify.core.question import Labels, Loss, Question, Release, Weights
from exan_verify.errors import GradientError, InputError, NonFiniteError, raise_problems, short
from exan_verify.numeric.problem.activations import RELU, Piecewise
from exan_verify.numeric.problem.losses import REACH, LabelFit, fit_labels, loss_vectors

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
    """An affine layer beside its gradient: weights (n_out, n_in), biases (n_out,), and what follows it where
    it is a hidden one, ``activation``.

    A = [d_weight | d_bias] is the matrix that the attacks factor. The vectors are float64. A tensor that is
    not given (``weight_given``, ``bias_given``) holds zeros, or what was solved for; it checks nothing.
    ``weight_rows``, ``bias_rows`` (n_out,): of a tensor given in part the rows that are; None: all. The
    others hold zeros, and A has zero rows where not all of [d_weight | d_bias] is given: its columns are
    the deltas of the neurons that are left, and whatever is concluded from A is concluded from these.
    """

    weight: Tensor
    bias: Tensor
    d_weight: Tensor
    d_bias: Tensor
    weight_given: bool = True
    bias_given: bool = True
    weight_rows: Tensor | None = None
    bias_rows: Tensor | None = None
    activation: Piecewise = RELU

    @property
    def weight_whole(self) -> bool:
        """Whether every row of d_weight is given."""
        return self.weight_given and self.weight_rows is None

    @property
    def bias_whole(self) -> bool:
        """Whether every entry of d_bias is given."""
        return self.bias_given and self.bias_rows is None

    @property
    def whole(self) -> bool:
        """Whether both tensors are given, all of them."""
        return self.weight_whole and self.bias_whole

    @property
    def paired(self) -> bool:
        """Whether A includes the biases: they are given for half of the rows of d_weight at least. With fewer
        the other rows say more than the biases, and A is d_weight alone."""
        if not self.bias_given or self.bias_rows is None or not self.weight_given:
            return self.bias_given
        both = self.bias_rows if self.weight_rows is None else self.bias_rows & self.weight_rows
        given = len(both) if self.weight_rows is None else int(self.weight_rows.sum())
        return 2 * int(both.sum()) >= given

    @property
    def rows(self) -> Bool[Tensor, " out"] | None:
        """The rows of A, None: all."""
        if not self.weight_given:
            return self.bias_rows
        if self.bias_rows is None or not self.paired:
            return self.weight_rows
        return self.bias_rows if self.weight_rows is None else self.bias_rows & self.weight_rows

    @property
    def count(self) -> int:
        """How many rows A has."""
        return self.shape[0] if self.rows is None else int(self.rows.sum())

    @property
    def bias_column(self) -> Float[Tensor, " out"]:
        """The last column of A."""
        if self.bias_given and not self.paired:
            return torch.zeros_like(self.d_bias)
        return self.sent(self.d_bias)

    def sent(self, values: Float[Tensor, "... out"]) -> Float[Tensor, "... out"]:
        """``values`` (M, out) or (out,), zero at the neurons that A has no row of."""
        return values if self.rows is None else values * self.rows

    def without_bias(self) -> LayerGradient:
        """The layer without its bias gradient."""
        none = torch.zeros_like(self.d_bias)
        return replace(self, d_bias=none, bias_given=False, bias_rows=None)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_out, n_in)``."""
        return self.weight.shape[0], self.weight.shape[1]

    def right(self, matrix: Float[Tensor, "in1 l"]) -> Float[Tensor, "out l"]:
        """``A matrix``, for a matrix with n_in + 1 rows."""
        product = torch.cat([block @ matrix[:-1] for _, block in row_blocks(self.d_weight)])
        return self.sent(product.T).T + self.bias_column[:, None] * matrix[-1]

    def left(self, matrix: Float[Tensor, "out l"]) -> Float[Tensor, "l in1"]:
        """``matrix^T A``."""
        matrix = self.sent(matrix.T).T
        product = torch.zeros(matrix.shape[1], self.shape[1], dtype=torch.float64, device=matrix.device)
        for rows, block in row_blocks(self.d_weight):
            product.addmm_(matrix[rows].T, block)
        return torch.cat([product, (matrix.T @ self.bias_column)[:, None]], dim=1)

    def augmented(self) -> Float[Tensor, "out in1"]:
        """A itself; for layers of moderate size."""
        return torch.cat([self.sent(self.d_weight.double().T).T, self.bias_column[:, None]], dim=1)

    def forward(self, h: Float[Tensor, "M in"]) -> Float[Tensor, "M out"]:
        """The pre-activations at ``h``."""
        return torch.cat([h @ block.T for _, block in row_blocks(self.weight)], dim=1) + self.bias

    def backward(self, delta: Float[Tensor, "... out"]) -> Float[Tensor, "... in"]:
        """``W^T delta``, for deltas in the last dimension: (M, out) to (M, in)."""
        return delta @ self.weight.double()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A validated attack: the layers, the loss, and what is known about batch and rounding.

    ``question``: its ``labels`` are of the loss's kind (one_hot), or real targets; its ``batch_size`` is the
    user's or None. ``unit_roundoff`` is that of the coarsest dtype among the gradient's tensors.
    ``smoothing`` of the labels of cross_entropy. ``scale``: the gradient is so many times the batch's, None
    where it is not known, and ``scale_found``: it was read off this gradient. ``weighted``: every sample has
    an unknown positive factor.
    """

    layers: tuple[LayerGradient, ...]
    question: Question
    unit_roundoff: float
    seed: int
    smoothing: float = 0.0
    scale: float | None = 1.0
    scale_found: bool = False
    weighted: bool = False

    @property
    def whole(self) -> bool:
        """Whether every tensor of the gradient is given, all of it."""
        return all(layer.whole for layer in self.layers)

    @property
    def rectified(self) -> bool:
        """Whether ReLU follows every hidden layer."""
        return all(layer.activation.relu for layer in self.layers[:-1])

    @property
    def classes(self) -> int:
        """K, the number of logits."""
        return self.layers[-1].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the computation runs."""
        return self.layers[0].bias.device

    @property
    def classified(self) -> bool:
        """Whether a label is a class, and not a vector of targets."""
        return self.question.loss.class_labels and self.question.labels is not Labels.REAL

    @property
    def alternatives(self) -> str:
        """What else loss vectors may be that no label explains, apart from what was said; a list that every
        reason ends with, so that a hint, which goes by evidence, names one of it."""
        as_is = self.scale == 1 and not self.weighted
        options = (
            (self.question.labels is not Labels.REAL and as_is, "a scaled gradient (scale='unknown')"),
            (self.question.labels is not Labels.REAL and as_is, "factors per sample (weights='positive')"),
            (
                self.question.labels is not Labels.REAL
                and self.question.loss is not Loss.HINGE
                and not self.weighted,
                "soft or real targets (labels='real')",
            ),
            (True, "another loss or batch size"),
            (True, "several samples of one region"),
        )
        *some, last = [text for holds, text in options if holds]
        return f"{', '.join(some)} or {last}"

    def divisor(self, samples: int) -> float:
        """What the summed loss is divided by, for a batch of ``samples``: by the reduction, and by the factor
        that the gradient was multiplied with (1 where that is not known yet)."""
        return self.question.divisor(samples, self.classes) / (self.scale or 1.0)

    def loss_vectors(self, logits: Float[Tensor, "m K"], labels: Tensor) -> Float[Tensor, "m K"]:
        """Undivided loss vectors of ``labels``, classes (m,) or targets (m, K)."""
        return loss_vectors(self.question.loss, logits, labels, self.smoothing)

    def fit_labels(
        self,
        logits: Float[Tensor, "m K"],
        spans: Float[Tensor, "m n K"],
        deltas: Float[Tensor, "m n"],
        *,
        samples: int,
        loss_vector_hint: Float[Tensor, "m K"] | None = None,
        reach: float = REACH,
    ) -> LabelFit:
        """:func:`exan_verify.numeric.problem.losses.fit_labels` for a batch of ``samples``.

        While the factor is unknown so is its sign, and ``counts`` is negative where the labels fit that way.
        """
        fits = [
            fit_labels(
                self.question.loss,
                logits,
                spans,
                deltas,
                divisor=sign * self.divisor(samples),
                loss_vector_hint=loss_vector_hint,
                reach=reach,
                smoothing=self.smoothing,
                soft=self.question.loss.class_labels and not self.classified,
                weighted=self.weighted,
            )
            for sign in ((1, -1) if self.scale is None else (1,))
        ]
        if len(fits) == 1:
            return fits[0]
        return fits[0].or_else(replace(fits[1], counts=-fits[1].counts), fits[1].loose < fits[0].loose)

    def generator(self) -> torch.Generator:
        """A fresh random generator with the problem's seed."""
        return torch.Generator(device="cpu").manual_seed(self.seed)


def build_problem(
    network: Network,
    gradient: Mapping[str, Any],
    *,
    loss: str,
    reduction: str,
    batch_size: int | None = None,
    device: Any = None,
    seed: int = 0,
    labels: str = "one_hot",
    partial: bool = False,
    scale: float | str = 1.0,
    weights: str = "equal",
    smoothing: float = 0.0,
    release: Release | None = None,
) -> Problem:
    """Validate and bring everything to ``device``; ``partial``: tensors may be missing from the gradient.

    A layer without biases is one whose biases are zero and have no gradient. ``release``: what is sent of the
    gradient, as far as tensors, rows and weights go; what it withholds may be missing, and is not read where
    it is there: a tensor sent in part has all rows, or those that are sent.

    Raises :class:`InputError` for an unknown loss or reduction or a bad batch size; :class:`GradientError`
    (:class:`NonFiniteError`) for tensors that do not fit.
    """
    question = Question.of(loss, reduction, labels)
    _check_attacked_labels(question)
    factor, weighted = _given_scale(scale), _positive_weights(weights)
    weighted = weighted or (release is not None and release.weights is Weights.POSITIVE)
    if (factor is None or weighted) and question.labels is Labels.REAL:
        raise InputError(
            "labels='real' explain a loss vector of any size, so that they cannot be asked for together with "
            "scale='unknown' or weights='positive'; give the scale, or leave labels out"
        )
    _check_smoothing(smoothing, question)
    if batch_size is not None and (
        isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1
    ):
        raise InputError(f"batch_size={batch_size!r} is not a positive integer; give the number of samples")
    sent, rows = _sent_rows(network, release)
    tensors = {
        str(name): as_tensor(value, f"gradient[{name!r}]")
        for name, value in gradient.items()
        if str(name) not in sent or sent[str(name)]
    }
    tensors = {
        name: _spread(tensor, rows[name]) if name in rows else tensor for name, tensor in tensors.items()
    }
    _check_gradient(network, tensors, sent, rows, partial=partial)
    target = torch.device("cpu" if device is None else device)
    tensors = {name: tensor.to(target) for name, tensor in tensors.items()}
    return Problem(
        layers=tuple(
            replace(
                _layer(layer, tensors, rows, target),
                activation=RELU
                if number == network.depth
                else Piecewise.of(network.activation(number), target),
            )
            for number, layer in enumerate(network.layers, 1)
        ),
        question=replace(question, batch_size=None if batch_size is None else int(batch_size)),
        unit_roundoff=max(_UNIT_ROUNDOFF[tensor.dtype] for tensor in tensors.values()),
        seed=int(seed),
        smoothing=float(smoothing),
        scale=factor,
        weighted=weighted,
    )


def _given_scale(scale: Any) -> float | None:
    """The factor, None for ``unknown``."""
    if scale == "unknown":
        return None
    try:
        factor = float(scale)
    except (TypeError, ValueError, OverflowError):
        factor = 0.0
    if isinstance(scale, bool) or not math.isfinite(factor) or factor == 0:
        raise InputError(
            f"scale={short(scale)} is not a factor; give the number that the batch's gradient was multiplied "
            "with (-lr for a plain update), or 'unknown'"
        )
    return factor


def _positive_weights(weights: Any) -> bool:
    if weights not in ("equal", "positive"):
        raise InputError(f"weights={short(weights)} cannot be used; give 'equal' or 'positive'")
    return bool(weights == "positive")


def _check_smoothing(smoothing: Any, question: Question) -> None:
    """Raise :class:`InputError` unless ``smoothing`` is one of cross_entropy's class labels, in [0, 1)."""
    if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float)) or not 0 <= smoothing < 1:
        raise InputError(f"smoothing={short(smoothing)} is not in [0, 1); give the label smoothing")
    if smoothing and (question.loss is not Loss.CROSS_ENTROPY or question.labels is Labels.REAL):
        raise InputError(f"smoothing={smoothing} belongs to the class labels of cross_entropy; leave it out")


def _check_attacked_labels(question: Question) -> None:
    """Raise :class:`InputError` unless the labels are one_hot or real, as the loss has them."""
    if question.labels is Labels.KNOWN:
        raise InputError(
            "labels='known' is a question for certify; the attack finds labels, so leave it out, or say "
            "'real' for targets of mse, bce or cross_entropy that are any numbers"
        )
    if question.labels is Labels.REAL and question.loss is Loss.HINGE:
        raise InputError(
            f"labels='real' does not fit loss={question.loss.value!r}, whose labels are classes; leave it out"
        )


def row_blocks(matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """``(rows, block)`` over ``matrix`` in float64; one block when no conversion is needed."""
    step = max(1, BLOCK // matrix.shape[1]) if matrix.dtype != torch.float64 else matrix.shape[0]
    for start in range(0, matrix.shape[0], step):
        rows = slice(start, start + step)
        yield rows, matrix[rows].double()


def as_tensor(value: Any, name: str) -> Tensor:
    """A real torch tensor of the same shape, sharing memory where possible; integers become float64."""
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


def _sent_rows(
    network: Network, release: Release | None
) -> tuple[dict[str, bool], dict[str, Bool[Tensor, " n"]]]:
    """Of which parameters anything is sent, and of those that are sent in part the rows."""
    masks = {
        name: np.ones(len(array), dtype=bool) if release is None else release.sends(name, len(array))
        for name, array in network.parameters()
    }
    sent = {name: bool(mask.any()) for name, mask in masks.items()}
    return sent, {name: torch.tensor(mask) for name, mask in masks.items() if sent[name] and not mask.all()}


def _spread(tensor: Tensor, rows: Bool[Tensor, " n"]) -> Tensor:
    """A tensor of which ``rows`` are sent, zero elsewhere, from all of its rows or from these."""
    rows, count = rows.to(tensor.device), int(rows.sum())
    if not tensor.dim() or tensor.shape[0] not in (len(rows), count):
        return tensor
    spread = tensor.new_zeros(len(rows), *tensor.shape[1:])
    spread[rows] = tensor if tensor.shape[0] == count else tensor[rows]
    return spread


def _layer(
    layer: Any, tensors: Mapping[str, Tensor], rows: Mapping[str, Tensor], device: torch.device
) -> LayerGradient:
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
        weight_rows=rows[weight_name].to(device) if weight_name in tensors and weight_name in rows else None,
        bias_rows=rows[bias_name].to(device) if bias_name in tensors and bias_name in rows else None,
    )


def _check_gradient(
    network: Network,
    tensors: Mapping[str, Tensor],
    sent: Mapping[str, bool],
    rows: Mapping[str, Tensor],
    *,
    partial: bool,
) -> None:
    expected = {name: tuple(array.shape) for name, array in network.parameters()}
    remedy = "is missing; add it, or say partial=True (--partial) if it is not known"
    if rows or not all(sent.values()):
        remedy = "is missing, and the release sends it; add it, or take it out of the release"
    problems = [
        f"tensor {n!r} of shape {s} {remedy}"
        for n, s in expected.items()
        if n not in tensors and sent[n] and not partial
    ]
    for name, tensor in tensors.items():
        if name not in expected:
            known = ", ".join(expected)
            problems.append(f"tensor {name!r} belongs to no parameter (there are: {known}); remove it")
        elif tuple(tensor.shape) != expected[name]:
            problems.append(
                f"tensor {name!r} has shape {tuple(tensor.shape)}, the parameter has {expected[name]}; "
                "pass the gradient of this model"
                + (f", all rows or the {int(rows[name].sum())} that are sent" if name in rows else "")
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
            if all(sent.values())
            else "every entry of the gradient that is sent is zero, so it says nothing about the batch"
        )


def _finite(tensor: Tensor) -> bool:
    # the extremes carry any NaN and infinity, without a mask as large as the tensor
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low)) and bool(torch.isfinite(high))
