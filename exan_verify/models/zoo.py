"""Convolutional networks as the literature defines them, built without torchvision, in eval mode.

Every model carries ``input_shape``, the (C, H, W) that its head fits. Convolutions and Linear layers are
initialised after He et al. (2015) with the seed given; torch's global random state stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from exan_verify.errors import InputError, unknown

_VGG13 = ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))


def vgg13(
    classes: int = 10,
    image_size: int = 64,
    head: int = 4096,
    *,
    channels: int = 3,
    batch_norm: bool = False,
    seed: int = 0,
) -> nn.Sequential:
    """VGG-13 (configuration B of Simonyan and Zisserman, ICLR 2015) with its fully connected head.

    Ten 3 x 3 convolutions 64 64 M 128 128 M 256 256 M 512 512 M 512 512 M, then two Linear layers of ``head``
    neurons (4096 in the paper) with Dropout, and the classes. ``image_size`` must be a multiple of 32.
    """
    if image_size % 32 or image_size < 32:
        raise InputError(f"image_size={image_size}; VGG-13 halves it five times, give a multiple of 32")

    def build() -> nn.Sequential:
        layers: list[nn.Module] = []
        wide = channels
        for block in _VGG13:
            for out in block:
                layers.append(nn.Conv2d(wide, out, 3, padding=1))
                layers += [nn.BatchNorm2d(out)] if batch_norm else []
                layers.append(nn.ReLU())
                wide = out
            layers.append(nn.MaxPool2d(2))
        features = wide * (image_size // 32) ** 2
        layers += [nn.Flatten(), nn.Linear(features, head), nn.ReLU(), nn.Dropout()]
        layers += [nn.Linear(head, head), nn.ReLU(), nn.Dropout(), nn.Linear(head, classes)]
        return nn.Sequential(*layers)

    return _finish(build, (channels, image_size, image_size), seed)


def lenet(
    classes: int = 10, image_size: int = 28, *, channels: int = 1, pool: str = "max", seed: int = 0
) -> nn.Sequential:
    """LeNet-5 after LeCun et al. (1998) with ReLU: convolutions 6 and 16 of 5 x 5, head 120-84-classes.

    ``pool``: ``max``, or ``average`` as in the original. ``image_size`` must be a multiple of 4, at least 16.
    """
    if pool not in ("max", "average"):
        raise InputError(unknown("pool", pool, ["max", "average"]))
    if image_size % 4 or image_size < 16:
        raise InputError(f"image_size={image_size}; give a multiple of 4, at least 16")

    def build() -> nn.Sequential:
        made: Callable[[int], nn.Module] = nn.MaxPool2d if pool == "max" else nn.AvgPool2d
        side = (image_size // 2 - 4) // 2
        return nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(),
            made(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            made(2),
            nn.Flatten(),
            nn.Linear(16 * side * side, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )

    return _finish(build, (channels, image_size, image_size), seed)


def strided_cnn(
    classes: int = 10,
    image_size: int = 16,
    *,
    channels: int = 3,
    widths: Sequence[int] = (36, 420),
    head: Sequence[int] = (256,),
    kernel: int = 4,
    seed: int = 0,
) -> nn.Sequential:
    """All-convolutional, after Springenberg et al. (2015): strides in place of pooling.

    With the default ``widths`` every layer gives more than twice as many values as it takes. So the active
    half determines what it takes, and pictures follow exactly from the head's features.
    """
    if image_size % 2 ** len(widths) or image_size < 1:
        raise InputError(f"image_size={image_size} must be a multiple of {2 ** len(widths)}, once per stride")

    def build() -> nn.Sequential:
        layers: list[nn.Module] = []
        for wide, out in pairwise((channels, *widths)):
            layers += [nn.Conv2d(wide, out, kernel, stride=2, padding=(kernel - 1) // 2), nn.ReLU()]
        side = image_size // 2 ** len(widths)
        layers.append(nn.Flatten())
        sizes = (widths[-1] * side * side, *head, classes)
        for wide, out in pairwise(sizes):
            layers += [nn.Linear(wide, out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    return _finish(build, (channels, image_size, image_size), seed)


def resnet(
    classes: int = 10, image_size: int = 32, *, channels: int = 3, width: int = 16, seed: int = 0
) -> nn.Module:
    """A small residual network (He et al. 2016): two blocks, global average pooling, one Linear layer."""

    def build() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ResidualBlock(width, width, 1),
            ResidualBlock(width, 2 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, classes),
        )

    return _finish(build, (channels, image_size, image_size), seed)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm beside a shortcut, a 1 x 1 convolution where sizes change."""

    def __init__(self, wide: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        same = wide == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(wide, out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum of both branches at ``x`` (M, C, H, W)."""
        z: Tensor = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        y: Tensor = z + self.shortcut(x)
        return y.relu()


def _finish(build: Callable[[], nn.Sequential], shape: tuple[int, int, int], seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build()
        for module in model.modules():
            _initialise(module)
    model.input_shape = shape  # type: ignore[assignment]
    return model.eval()


def _initialise(module: torch.nn.Module) -> None:
    """He et al. 2015: normal weights of variance 2 / fan_in; small biases, as trained networks have."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.normal_(module.bias, std=0.05)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight, 0.8, 1.2)
        nn.init.normal_(module.bias, std=0.1)
        assert module.running_mean is not None
        assert module.running_var is not None
        nn.init.normal_(module.running_mean, std=0.1)
        nn.init.uniform_(module.running_var, 0.8, 1.2)
