"""Laws over random small layers of every supported kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from torch import Tensor, nn

from exan_verify.core.question import Loss
from exan_verify.errors import RangeError
from exan_verify.models.pictures.graph import to_convolutional
from exan_verify.models.pictures.stages import ConvolutionalNetwork
from exan_verify.numeric.convolution.attack import run
from exan_verify.numeric.convolution.confirm import convolution_gradients
from exan_verify.numeric.convolution.gradients import split_gradient
from exan_verify.numeric.convolution.oracle import stage_deficits
from exan_verify.numeric.convolution.systems import stage_matrix
from exan_verify.numeric.problem.torch_losses import BatchLoss
from tests.conftest import examples
from tests.support.torch_reference import autograd, initialised

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")


Model = tuple[nn.Sequential, Tensor]


def _norm(channels: int, rng: np.random.Generator) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    shift, spread = rng.normal(0, 0.2, (2, channels)), rng.uniform(0.5, 2, (2, channels))
    drawn = {"running_mean": shift[0], "bias": shift[1], "running_var": spread[0], "weight": spread[1]}
    norm.load_state_dict({name: torch.from_numpy(value) for name, value in drawn.items()}, strict=False)
    return norm


@st.composite
def models(draw: st.DrawFn) -> Model:
    """One or two convolutions of any geometry, norms and pools between, on either side of ReLU, and a head;
    and three pictures."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    channels = draw(st.sampled_from([1, 2, 4]))
    height, width = draw(st.integers(4, 6)), draw(st.integers(4, 6))
    layers: list[nn.Module] = []
    wide = channels
    for _ in range(draw(st.integers(1, 2))):
        groups = draw(st.sampled_from([1, wide])) if wide <= 4 else 1
        out = wide * draw(st.sampled_from([2, 6]))
        stride = draw(st.sampled_from([1, 2]))
        same = stride == 1 and draw(st.booleans())
        layers.append(
            nn.Conv2d(
                wide,
                out,
                draw(st.sampled_from([1, 2, 3, (2, 3)])),
                stride=stride,
                padding="same" if same else draw(st.sampled_from([1, (1, 0), (2, 1)])),
                dilation=draw(st.sampled_from([1, (1, 2)])),
                groups=groups,
                bias=draw(st.booleans()),
            )
        )
        layers += [_norm(out, rng)] if draw(st.booleans()) else []
        averaged = [None, None, nn.AvgPool2d(2, 1), nn.AvgPool2d((1, 2), 1)]
        before = draw(st.sampled_from(averaged))
        layers += [nn.ReLU()] if before is None else [before, nn.ReLU()]
        pools = [None, None, nn.MaxPool2d(2, 1), nn.AvgPool2d(2, 1, 1), nn.Dropout()]
        pool = draw(st.sampled_from(pools))
        layers += [] if pool is None else [pool]
        wide = out
    body = nn.Sequential(*layers).eval()
    try:
        features = body(torch.zeros(1, channels, height, width)).flatten(1).shape[1]
    except RuntimeError:  # a kernel larger than what it is given
        reject()
    head = [nn.Flatten(), nn.Linear(features, 40), nn.ReLU(), nn.Linear(40, 4)]
    model = initialised(nn.Sequential(*body, *head).eval(), int(rng.integers(2**31)))
    return model, torch.from_numpy(rng.random((3, channels, height, width)))


def built(case: Model) -> tuple[ConvolutionalNetwork, Tensor, Tensor]:
    model, x = case
    return to_convolutional(model.double(), tuple(x.shape[1:])), x, torch.tensor([0, 3, 1])


@given(models())
@examples(12)
def test_forward_and_gradients_are_those_of_torch(case: Model):
    network, x, y = built(case)
    model = case[0]
    given = autograd(model, x, y)
    with torch.no_grad():
        assert torch.allclose(network.logits(x), model(x), rtol=1e-9, atol=1e-11)
        assert network.shapes() == [tuple(value.shape[1:]) for value in network.values(x)]
    effective = split_gradient(network, given, torch.device("cpu")).body
    own = convolution_gradients(network, x, BatchLoss(loss=Loss.CROSS_ENTROPY, labels=y, divisor=3))
    for place, gradient in own.items():
        scale = float(effective[place].weight.abs().max()) + 1e-12
        assert torch.allclose(gradient, effective[place].weight, rtol=0, atol=1e-10 * scale)


@given(models())
@examples(8)
def test_linear_stages_are_their_matrices(case: Model):
    network, x, _ = built(case)
    values = network.values(x)
    for stage, shape in zip(network.body, network.shapes(), strict=False):
        if not stage.linear:
            continue
        taken = values[stage.inputs[0]]
        matrix = stage_matrix(stage, shape, taken)
        z = stage.apply(taken)
        product = (taken.flatten(1) @ matrix.T).reshape(z.shape) + stage.offset(z)
        assert torch.allclose(product, z, rtol=1e-10, atol=1e-11)


@given(models(), st.sampled_from([torch.float64, torch.float32]))
@examples(16)
def test_no_claimed_picture_is_further_off_than_its_bound(case: Model, dtype: torch.dtype):
    case[0].float()  # weights that both dtypes have
    network, x, y = built(case)
    x = x.to(dtype)
    given = autograd(case[0], x, y)
    try:
        found = run(network, given, loss="cross_entropy", reduction="mean", iterations=0)
    except RangeError:
        return
    truth = x.double()
    for rows, status, target in (
        (found.x, found.status, truth),
        (found.features, found.feature_status, network.features(truth)),
    ):
        if len(rows):
            distance = torch.cdist(rows.flatten(1), target.flatten(1), p=float("inf")).min(dim=1).values
            assert all(e <= s.error_bound for e, s in zip(distance.tolist(), status, strict=True))
    if found.complete:
        assert all(s.deficit in (0, None) for s in found.stages)


@given(models())
@examples(8)
def test_a_deficit_is_the_dimension_of_what_the_equations_allow(case: Model):
    # against a dense rank of all equations of one stage at once, forward and shared
    network, x, y = built(case)
    values = network.values(x)
    reports = stage_deficits(network, x, y, Loss.CROSS_ENTROPY)
    place, stage = next(iter(network.convolutions.items()))
    report = reports[place]
    assert report.alone is not None
    shape = network.shapes()[place]
    matrix = stage_matrix(stage, shape, x)
    z = values[place + 1].flatten(1)
    rectified = network.body[place + 1].kind == "Relu"
    rows = [matrix[(z[m] > 0) if rectified else slice(None)] for m in range(3)]
    alone = sum(matrix.shape[1] - int(torch.linalg.matrix_rank(a, rtol=1e-9)) for a in rows if len(a))
    alone += sum(matrix.shape[1] for a in rows if not len(a))
    assert report.alone == alone
    assert report.deficit is not None
    assert report.deficit <= alone
    assert report.at_least or report.deficit >= max(0, alone - report.shared)
