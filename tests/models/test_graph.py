"""The walker over convolutional models: what it computes is what the model computes; the rest is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exan_verify.errors import InputError, NonFiniteError, ShapeError, UnsupportedLayerError
from exan_verify.models import lenet, resnet, strided_cnn, vgg13
from exan_verify.models.pictures.graph import is_convolutional, to_convolutional
from tests.support.torch_reference import he, normal


class Functional(nn.Module):
    """A forward that uses functions and methods for everything but the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, bias=False)
        self.three = nn.Linear(16, 12)
        self.four = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.one(x)), 2)
        x = x + self.two(x).relu()
        x = functional.dropout(functional.avg_pool2d(x, (2, 2)), training=self.training)
        x = functional.adaptive_avg_pool2d(x, 2)
        x = x.view(x.size(0), -1)
        return self.four(torch.relu(self.three(x)))


class Averaged(nn.Module):
    """Global pooling by a mean, an addition in place, and ReLU after Flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.two(x)
        y += x
        return self.fc(y.mean((2, 3)).relu())


class Shifted(nn.Module):
    """Pictures are normalised as they enter, and zeros stand around them more at one side."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=(1, 0)), nn.Conv2d(4, 4, 2)
        self.around = nn.ZeroPad2d((0, 1, 2, 0))
        self.fc = nn.Linear(48, 3)
        self.register_buffer("mean", torch.tensor([0.2, 0.3, 0.6]).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * ((x - self.mean) / 0.25)
        x = self.one(functional.pad(self.around(x), (0, 1, 0, 0))).relu()
        return self.fc(self.two(functional.pad(x, (1, 0, 0, 0))).relu().flatten(1))


def with_norms() -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 2, stride=2),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.BatchNorm1d(36),
        nn.Linear(36, 10),
        nn.BatchNorm1d(10),
        nn.ReLU(),
        nn.BatchNorm1d(10),
        nn.Linear(10, 4),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vgg13": (lambda: vgg13(image_size=32, head=20), (3, 32, 32)),
    "vgg13 with BatchNorm": (lambda: vgg13(image_size=32, head=20, batch_norm=True), (3, 32, 32)),
    "lenet": (lenet, (1, 28, 28)),
    "lenet, average": (lambda: lenet(pool="average"), (1, 28, 28)),
    "strided": (strided_cnn, (3, 16, 16)),
    "resnet": (resnet, (3, 32, 32)),
    "functions": (lambda: Functional().eval(), (2, 16, 16)),
    "means": (lambda: Averaged().eval(), (3, 9, 7)),
    "norms": (with_norms, (3, 9, 9)),
    "shifts and zeros": (Shifted, (3, 3, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_stages_compute_what_the_model_computes(name: str):
    make, shape = MODELS[name]
    model = he(make())
    assert is_convolutional(model)
    network = to_convolutional(model, shape)
    x = normal(3, *shape)
    with torch.no_grad():
        expected = model.double()(x)
        found = network.logits(x)
    assert network.input_shape == shape
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert network.shapes() == [tuple(value.shape[1:]) for value in network.values(x)]
    assert network.shapes()[-1] == (network.head.widths[0],)


def test_shapes_are_found_where_clear():
    network = to_convolutional(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)))
    assert network.input_shape == (3, 4, 4)
    assert network.shapes() == [(3, 4, 4), (4, 2, 2), (4, 2, 2), (16,)]
    assert to_convolutional(lenet()).input_shape == (1, 28, 28)


def test_a_head_alone_is_a_body_without_stages():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)
    ).eval()
    network = to_convolutional(model)
    assert (network.body, network.input_shape) == ((), (12,))


def small(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), *layers, nn.Flatten(), nn.Linear(8, 2)).eval()


class _Second(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _Sum(nn.Module):
    def __init__(self, act: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.fc, self.act = nn.Conv2d(1, 2, 3), nn.Linear(8, 2), act

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.act(self.conv, x).flatten(1))


def _in_place(conv: nn.Module, x: Tensor) -> Tensor:
    z = conv(x)
    return z.relu_() + z


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "type": (lambda: small(nn.Sigmoid()), r"layer '1' \(Sigmoid\) is not supported"),
    "nested": (lambda: small(nn.Sequential(nn.ReLU(), nn.GELU())), r"layer '1\.1' \(GELU\)"),
    "training norm": (lambda: small(nn.BatchNorm2d(2)).train(), r"'1' \(BatchNorm2d\).*call model.eval"),
    "no statistics": (
        lambda: small(nn.BatchNorm2d(2, track_running_stats=False)),
        r"'1' \(BatchNorm2d\).*mixes its samples",
    ),
    "dropout": (lambda: small(nn.Dropout()).train(), r"'1' \(Dropout\) is in training mode.*model.eval"),
    "padding mode": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding_mode="circular"), nn.Flatten(), nn.Linear(8, 2)),
        r"'0' \(Conv2d\) has padding_mode='circular'",
    ),
    "ceil": (lambda: small(nn.MaxPool2d(1, ceil_mode=True)), r"'1' \(MaxPool2d\) has ceil_mode"),
    "pool ceil": (lambda: small(nn.AvgPool2d(1, ceil_mode=True)), r"'1' \(AvgPool2d\) has ceil_mode"),
    "flatten": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.Linear(4, 2)),
        r"'1' \(Flatten\) must flatten everything",
    ),
    "linear on pictures": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2), nn.Flatten()),
        r"'1' \(Linear\) acts on pictures.*Flatten before it",
    ),
    "convolution after flatten": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Conv2d(1, 2, 3), nn.Linear(8, 2)),
        r"'2' \(Conv2d\) follows the point where pictures are flattened",
    ),
    "operation": (lambda: _Sum(lambda conv, x: conv(x) * 2), r"operation 'mul'.*_Sum"),
    "shift of one pixel": (
        lambda: _Sum(lambda conv, x: conv(x - torch.ones(4))),
        r"operation 'sub'.*one number or one for each channel",
    ),
    "padded sum": (
        lambda: _Sum(lambda conv, x: (functional.pad(conv(x), (1, 1, 1, 1)) + 1).relu()),
        r"operation 'add'.*takes padded values",
    ),
    "padded with ones": (
        lambda: _Sum(lambda conv, x: conv(functional.pad(x, (1, 1, 1, 1), value=1.0))),
        r"operation 'pad'.*zeros around pictures",
    ),
    "cut": (
        lambda: _Sum(lambda conv, x: conv(functional.pad(x, (-1, 0, 0, 0)))),
        r"operation 'pad'.*cuts values off",
    ),
    "scaled by zero": (lambda: _Sum(lambda conv, x: conv(0 * x)), r"operation 'mul'.*multiplies by zero"),
    "in place": (lambda: _Sum(_in_place), r"operation 'relu_'.*works in place"),
    "twice": (lambda: _Sum(lambda conv, x: conv(x) + conv(x)), r"'conv' \(Conv2d\) is used more than once"),
    "input": (lambda: nn.Sequential(_Second(), nn.Conv2d(1, 2, 3)), "cannot be traced"),
    "scaled sum": (
        lambda: _Sum(lambda conv, x: torch.add(conv(x), conv(x), alpha=2)),
        "is used more than once|must add the values",
    ),
    "mean": (lambda: _Sum(lambda conv, x: conv(x).mean(1)), r"operation 'mean'.*\(2, 3\)"),
    "reshape": (lambda: _Sum(lambda conv, x: conv(x).view(-1)), r"operation 'view'.*one row per sample"),
    "norm last": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.BatchNorm1d(4)
        ).eval(),
        "BatchNorm1d ends the model without a Linear beside it; after flattening use",
    ),
    "norm without linear": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.Flatten(), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)
        ).eval(),
        r"ReLU '3' follows a BatchNorm1d that follows no Linear; after flattening use",
    ),
    "two linear": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 2)),
        "without a ReLU between them",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_by_type_and_path(name: str):
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedLayerError, match=message):
        to_convolutional(make(), (1, 4, 4))


def test_bad_parameters_are_named():
    model = small(nn.ReLU())
    model[0].weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"\['0.weight'\] are frozen"):
        to_convolutional(model, (1, 4, 4))
    spare = small(nn.ReLU())
    spare.register_parameter("spare", nn.Parameter(torch.ones(1)))
    with pytest.raises(InputError, match=r"\['spare'\] do not enter"):
        to_convolutional(spare, (1, 4, 4))
    broken = small(nn.ReLU())
    broken[0].bias.data[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"0\.bias contains NaN"):
        to_convolutional(broken, (1, 4, 4))
    with pytest.raises(InputError, match=r"0\.weight is on the meta device"):
        to_convolutional(small(nn.ReLU()).to("meta"), (1, 4, 4))
    shared = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(8, 2))
    shared[1].weight = shared[0].weight
    with pytest.raises(UnsupportedLayerError, match="one and the same tensor"):
        to_convolutional(shared, (2, 2, 2))
    with pytest.raises(InputError, match=r"pass a torch\.nn\.Module"):
        to_convolutional({"0.weight": torch.ones(2)})


def test_sizes_that_do_not_fit_are_refused_with_the_shape():
    model = small(nn.ReLU())
    with pytest.raises(ShapeError, match=r"pictures of shape \(1, 5, 5\) give the head 18 features"):
        to_convolutional(model, (1, 5, 5))
    with pytest.raises(ShapeError, match=r"Convolution '0' cannot take values of shape \(3, 4, 4\)"):
        to_convolutional(model, (3, 4, 4))
    with pytest.raises(ShapeError, match=r"give \(channels, height, width\)"):
        to_convolutional(model, (4, 4))
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ShapeError, match=r"'1' pools 3 x 3 to 2 x 2 with windows of different sizes"):
        to_convolutional(pooled, (1, 5, 5))
    with pytest.raises(ShapeError, match=r"sizes 4 to \d+ fit.*\(1, height, width\) \(--input-shape 1,H,W\)"):
        to_convolutional(pooled)
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(ShapeError, match="no square size fits"):
        to_convolutional(plain)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vgg13(image_size=48), "image_size=48"),
        (lambda: lenet(image_size=15), "image_size=15"),
        (lambda: lenet(pool="min"), "pool='min'"),
        (lambda: strided_cnn(image_size=6), "image_size=6"),
    ],
)
def test_models_refuse_sizes_they_cannot_have(make: Callable[[], nn.Module], message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_models_are_those_of_the_literature():
    with torch.device("meta"):
        model = vgg13()
    convolutions = [m.out_channels for m in model if isinstance(m, nn.Conv2d)]
    assert convolutions == [64, 64, 128, 128, 256, 256, 512, 512, 512, 512]
    assert [m.in_features for m in model if isinstance(m, nn.Linear)] == [2048, 4096, 4096]
    assert sum(isinstance(m, nn.MaxPool2d) for m in model) == 5
    before = torch.get_rng_state()
    assert torch.equal(lenet()[0].weight, lenet()[0].weight)
    assert torch.equal(before, torch.get_rng_state())
