"""The cases of ``exan bench certify``: networks and batches from seeds that were fixed before any tuning.

Networks have PyTorch's default initialisation and random inputs are standard normal, unless a case says
otherwise. Those with convolutions are the cases of :mod:`exan_verify.bench.convolution`: He et al.'s
initialisation, digits for one channel and crops of photographs for three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from exan_verify.bench import convolution, suite
from exan_verify.bench.cases.activations import activated
from exan_verify.core.network import Array, Asked, Batch, Network, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.core.staged import StagedNetwork

Built = tuple[Network | StagedNetwork, Batch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """One row: network widths, batch size, where network and inputs come from, and what must come out.

    ``boxed``: inputs are asked about in [0, 1]. ``entrance``: ``batch``, ``gradient`` (the exact gradient
    alone) or ``changed`` (one entry of it plus 1). ``activation``: between the layers, a name of
    :data:`exan_verify.bench.cases.activations.OTHERS`. ``pictures``: the model and the pictures of a
    case with convolutions, which has no ``widths``.
    """

    widths: tuple[int, ...] = ()
    samples: int
    data: str = "normal"
    loss: Loss = Loss.CROSS_ENTROPY
    entrance: str = "batch"
    engine: str = "auto"
    expected: str = "unique"
    boxed: bool = False
    classes: tuple[int, ...] = ()
    activation: str = "ReLU"
    pictures: convolution.Case | None = None
    seeds: int | None = 10


def _pictures(
    name: str,
    model: str,
    size: int,
    samples: int,
    *,
    expected: str = "unique",
    seeds: int = 3,
    **options: object,
) -> Case:
    """A case with convolutions of 5 x 5, as ``options`` of a model of :mod:`exan_verify.models` say."""
    pictures = convolution.Case(
        name=name, model=model, size=size, samples=samples, options=tuple(options.items())
    )
    return Case(
        name=name, samples=samples, data="pictures", pictures=pictures, expected=expected, seeds=seeds
    )


_SMALL = (784, 512, 10)
_REGION = (8, 12, 3)
_EXACT = (20, 64, 5)

CASES = (
    Case(name="784-512-10 M=8", widths=_SMALL, samples=8),
    Case(name="784-512-10 M=16", widths=_SMALL, samples=16),
    Case(name="784-512-10 M=22", widths=_SMALL, samples=22),
    Case(name="784-512-10 M=20 MNIST, initialised", widths=_SMALL, samples=20, data="mnist"),
    Case(name="784-512-10 M=20 MNIST, trained", widths=_SMALL, samples=20, data="mnist-trained"),
    Case(name="784-1000-10 M=34", widths=(784, 1000, 10), samples=34),
    Case(name="784-512-512-512-10 M=12", widths=(784, 512, 512, 512, 10), samples=12),
    Case(name="3072-1024-512-512-512-512-10 M=16", widths=(3072, 1024, 512, 512, 512, 512, 10), samples=16),
    Case(name="784-1024-64-10 M=16", widths=(784, 1024, 64, 10), samples=16),
    Case(name="3072-2048-10 M=48", widths=(3072, 2048, 10), samples=48, seeds=3),
    Case(name="150528-512-512-10 M=8", widths=(150528, 512, 512, 10), samples=8, seeds=3),
    Case(name="64-48-40-10 M=5, three share layer 1", widths=(64, 48, 40, 10), samples=5, data="shared"),
    Case(name="100-100-4 M=16, degree 3", widths=(100, 100, 4), samples=16, engine="lifting"),
    Case(name="784-256-10 M=16 MNIST, degree 3", widths=(784, 256, 10), samples=16, data="mnist"),
    Case(name="784-512-10 M=28 MNIST, degree 3", widths=_SMALL, samples=28, data="mnist", seeds=3),
    Case(
        name="784-512-10 M=32 MNIST, degree 3", widths=_SMALL, samples=32, data="mnist", seeds=1, named=True
    ),
    Case(
        name="784-512-10 M=40 MNIST, degree 3", widths=_SMALL, samples=40, data="mnist", seeds=1, named=True
    ),
    Case(
        name="784-512-10 M=44 MNIST, degree 3", widths=_SMALL, samples=44, data="mnist", seeds=1, named=True
    ),
    Case(
        name="784-1000-10 M=48 MNIST, degree 3",
        widths=(784, 1000, 10),
        samples=48,
        data="mnist",
        seeds=1,
        named=True,
    ),
    Case(
        name="784-1024-10 M=128, 8 exclusive neurons each",
        widths=(784, 1024, 10),
        samples=128,
        data="exclusive",
        seeds=3,
    ),
    Case(name="784-512-10 M=12, enumeration alone", widths=_SMALL, samples=12, engine="enumeration", seeds=3),
    Case(name="784-16-10 M=32, narrow", widths=(784, 16, 10), samples=32, expected="ambiguous"),
    Case(name="784-64-10 M=96, narrow", widths=(784, 64, 10), samples=96, expected="ambiguous"),
    Case(
        name="784-16-10 M=32 MNIST in [0, 1], narrow",
        widths=(784, 16, 10),
        samples=32,
        data="mnist",
        boxed=True,
        expected="ambiguous",
    ),
    Case(
        name="784-64-10 M=96 MNIST in [0, 1], narrow",
        widths=(784, 64, 10),
        samples=96,
        data="mnist",
        boxed=True,
        expected="ambiguous",
        seeds=5,
    ),
    Case(
        name="8-12-3 mse, one region, classes (2,2)",
        widths=_REGION,
        samples=4,
        data="region",
        loss=Loss.MSE,
        classes=(0, 0, 1, 1),
        expected="ambiguous",
    ),
    Case(
        name="8-12-3 mse, one region, classes (3)",
        widths=_REGION,
        samples=3,
        data="region",
        loss=Loss.MSE,
        classes=(0, 0, 0),
        expected="ambiguous",
    ),
    Case(
        name="8-12-3 mse, one region, classes (2,1)",
        widths=_REGION,
        samples=3,
        data="region",
        loss=Loss.MSE,
        classes=(0, 0, 1),
    ),
    Case(
        name="20-64-5 M=6 mse, gradient alone",
        widths=_EXACT,
        samples=6,
        data="integers",
        loss=Loss.MSE,
        entrance="gradient",
    ),
    Case(
        name="20-64-5 M=6 mse, one entry changed",
        widths=_EXACT,
        samples=6,
        data="integers",
        loss=Loss.MSE,
        entrance="changed",
        expected="unrealisable",
    ),
    *(
        Case(
            name=f"784-512-10 LeakyReLU M={samples} MNIST",
            widths=_SMALL,
            samples=samples,
            data="mnist",
            activation="LeakyReLU",
        )
        for samples in (16, 22)
    ),
    _pictures(
        "1x28x28, 12-64 channels, M=8 MNIST",
        "strided_cnn",
        28,
        8,
        channels=1,
        widths=(12, 64),
        head=(120, 84),
        kernel=5,
    ),
    _pictures("3x32x32, 32-64-128 channels, M=4", "strided_cnn", 32, 4, widths=(32, 64, 128), kernel=5),
    _pictures(
        "1x28x28, 12 channels, M=16 MNIST",
        "strided_cnn",
        28,
        16,
        channels=1,
        widths=(12,),
        head=(128,),
        kernel=5,
    ),
    _pictures(
        "1x28x28, 6 channels, M=4 MNIST",
        "strided_cnn",
        28,
        4,
        channels=1,
        widths=(6,),
        head=(120, 84),
        kernel=5,
        expected="ambiguous",
        seeds=10,
    ),
    _pictures("LeNet 1x28x28, M=4 MNIST", "lenet", 28, 4, expected="unknown"),
    _pictures(
        "3x8x8, 16-64 channels, M=2",
        "strided_cnn",
        8,
        2,
        widths=(16, 64),
        head=(60,),
    ),
)


def build(case: Case, seed: int) -> Built:
    """Network and batch of a case at a seed."""
    if case.pictures is not None:
        return _of_pictures(case, case.pictures, seed)
    return _BUILDERS[case.data](case, np.random.default_rng([seed, *case.widths, case.samples]))


def _of_pictures(case: Case, pictures: convolution.Case, seed: int) -> Built:
    from exan_verify.models.pictures.staged import to_staged

    model, x, y = convolution.build(pictures, seed)
    network = to_staged(model, x.shape[1:])
    return network, _batch(case, network, x, y.numpy())


def _normal(case: Case, rng: np.random.Generator) -> Built:
    network = _default_network(case, rng)
    x = rng.standard_normal((case.samples, case.widths[0]), dtype=np.float32)
    return network, _batch(case, network, x, rng.integers(0, case.widths[-1], case.samples))


def _mnist(case: Case, rng: np.random.Generator) -> Built:
    from exan_verify.data import initialised_network, load_mnist, to_inputs, trained_network
    from exan_verify.models.chain import to_any_network

    make = trained_network if case.data == "mnist-trained" else initialised_network
    model = make(case.widths, seed=int(rng.integers(1 << 31)))
    network = to_any_network(activated(model, case.activation))
    images, labels = load_mnist()
    chosen = rng.choice(len(images), case.samples, replace=False)
    return network, _batch(case, network, to_inputs(images[chosen]), labels[chosen])


def _integers(case: Case, rng: np.random.Generator) -> Built:
    pairs = list(pairwise(case.widths))
    network = ReluNetwork.from_arrays(
        [rng.integers(-9, 10, (b, a)) for a, b in pairs], [rng.integers(-9, 10, b) for _, b in pairs]
    )
    raw = rng.integers(-9, 10, (case.samples, case.widths[0]))
    x = [[Fraction(int(v), 7) for v in row] for row in raw]
    return network, _batch(case, network, x, rng.integers(0, case.widths[-1], case.samples))


def _shared(case: Case, rng: np.random.Generator) -> Built:
    """Three close samples share the pattern of layer 1; hyperplanes of layer 2 pass between them."""
    base = _default_network(case, rng)
    x = rng.standard_normal((case.samples, case.widths[0]))
    x[1:3] = x[0] + 2.0**-12 * rng.standard_normal((2, case.widths[0]))
    first, second = base.layers[0], base.layers[1]
    assert first.bias is not None
    hidden = np.maximum(x @ first.weight.T.astype(np.float64) + first.bias, 0)
    weight, bias = second.weight.astype(np.float64), np.array(second.bias, dtype=np.float64)
    for j in range(3 * second.shape[0] // 4):
        middle = hidden[:3].mean(axis=0) + 2.0**-13 * rng.standard_normal(second.shape[1]) * (hidden[0] > 0)
        weight[j] = rng.standard_normal(second.shape[1])
        bias[j] = -weight[j] @ middle
    network = ReluNetwork.from_arrays(
        [first.weight, weight, base.layers[2].weight], [first.bias, bias, base.layers[2].bias]
    )
    return network, _batch(case, network, x, np.arange(case.samples))


def _exclusive(case: Case, rng: np.random.Generator) -> Built:
    """Each sample has its share of the neurons for itself: they look along its input, which is nearly
    orthogonal to the others.
    """
    base = _default_network(case, rng)
    x = rng.standard_normal((case.samples, case.widths[0]), dtype=np.float32)
    owners = np.arange(case.widths[1]) % case.samples
    weight = x[owners] + np.float32(0.1) * rng.standard_normal((case.widths[1], case.widths[0]), np.float32)
    bias = np.full(case.widths[1], -case.widths[0] / 2, dtype=np.float32)
    network = ReluNetwork.from_arrays([weight, base.layers[1].weight], [bias, base.layers[1].bias])
    return network, _batch(case, network, x, rng.integers(0, case.widths[-1], case.samples))


def _region(case: Case, rng: np.random.Generator) -> Built:
    """All samples in one region: close to one point."""
    network = _default_network(case, rng)
    centre = rng.standard_normal(case.widths[0])
    x = centre + 2.0**-12 * rng.integers(-8, 9, (case.samples, case.widths[0]))
    return network, _batch(case, network, x, np.array(case.classes))


_BUILDERS: Mapping[str, Callable[[Case, np.random.Generator], Built]] = {
    "normal": _normal,
    "mnist": _mnist,
    "mnist-trained": _mnist,
    "integers": _integers,
    "shared": _shared,
    "exclusive": _exclusive,
    "region": _region,
}


def _default_network(case: Case, rng: np.random.Generator) -> ReluNetwork:
    """PyTorch's default initialisation: uniform in +-1/sqrt(fan_in), stored in float32."""
    weights, biases = [], []
    for fan_in, fan_out in pairwise(case.widths):
        bound = np.float32(fan_in**-0.5)
        weights.append((rng.random((fan_out, fan_in), dtype=np.float32) * 2 - 1) * bound)
        biases.append((rng.random(fan_out, dtype=np.float32) * 2 - 1) * bound)
    return ReluNetwork.from_arrays(weights, biases)


def _batch(case: Case, network: Asked, x: object, y: Array) -> Batch:
    return Batch.of(x, y, network=network, loss=case.loss, labels=Labels.ONE_HOT)
