"""``exan bench mitigation``: ten defences on one batch of digits, the table of docs/mitigation.md.

784-512-10, at PyTorch's default initialisation or trained to 97 %, and 16 MNIST digits; 500 other digits are
the client's pool. Public samples, training data and everything else are what ``exan mitigate`` takes for
digits. Cross-entropy, reduction mean, whole gradients in float64, no domain in the exact questions and [0, 1]
for the reach. One seed is one network, batch and pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exan_verify.bench import suite
from exan_verify.bench.suite import Options, Suite
from exan_verify.data import initialised_network, mnist_batch, trained_network
from exan_verify.mitigation.mitigate import DEFAULTS, mitigate
from exan_verify.mitigation.report import Finding

SAMPLES, POOL = 16, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(suite.Case):
    """A network, ``trained`` or not; ``widths``, batch size and pool are smaller in tests."""

    seeds: int | None = 1
    trained: bool = False
    widths: tuple[int, ...] = (784, 512, 10)
    samples: int = SAMPLES
    pool: int = POOL
    defences: tuple[str, ...] = DEFAULTS
    accuracies: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(suite.Row):
    """One defence: ``exans`` and ``peelable`` of what is sent, what is ``proved``, samples that the attack
    recovers (``found``) or shows recognisably (``readable``), PSNR, the three numbers of protection, and the
    cost. Numbers as in :mod:`exan_verify.mitigation.report`; PSNR infinite: null.
    """

    exans: int
    peelable: int
    proved: str
    found: str
    readable: str
    psnr: str
    hidden: int | None
    of: int
    interval: float | None
    distance: float | None
    estimate: str
    accuracy: float | None
    distortion: float | None
    epsilon: float | None


CASES = (Case(name="initialised"), Case(name="trained", trained=True, named=True))


def measure(case: Case, options: Options) -> Iterator[Row]:
    """A row per defence, the first without any, and for every seed."""
    for done, seed in enumerate(options.seeds):
        options.tell(case.name, done, len(options.seeds))
        model = (trained_network if case.trained else initialised_network)(case.widths, seed)
        x, y = mnist_batch(case.samples + case.pool, seed)
        found = mitigate(
            model,
            (x[: case.samples], y[: case.samples]),
            list(case.defences),
            pool=(x[case.samples :], y[case.samples :]),
            accuracies=case.accuracies,
            seed=seed,
            progress=lambda what: options.tell(what, 0, 1),
        )
        yield from (_row(one) for one in (found.before, *found.defences))


def _row(one: Finding) -> Row:
    gained, protection, size = one.attack, one.protection, len(one.samples)
    reach = protection.reach
    what = f" {gained.enters}" if gained.enters else ""
    return Row(
        name=one.name,
        exans=one.exclusivity.total,
        peelable=one.exclusivity.peelable,
        proved=one.outcome,
        found=f"{gained.recovered}{what}",
        readable=f"{gained.readable} of {size}",
        psnr=_decibels(gained.psnr),
        hidden=protection.hidden,
        of=protection.of,
        interval=None if reach is None else reach.interval[0],
        distance=None if reach is None else reach.farthest[0],
        estimate=_decibels(protection.psnr),
        accuracy=one.cost.accuracy,
        distortion=one.cost.distortion,
        epsilon=one.cost.epsilon_run if one.cost.epsilon_run is not None else one.cost.epsilon,
    )


def _decibels(value: float | None) -> str:
    return "-" if value is None else "exact" if value > 100 else f"{value:.1f}"


SUITE = Suite(
    name="mitigation",
    title="mitigation: ten defences on 16 digits, what is proved, what comes back, what it costs",
    columns=(
        ("defence", "name"),
        ("ExANs ", "exans"),
        ("peelable ", "peelable"),
        ("proved", "proved"),
        ("recovered ", "found"),
        ("recognisable ", "readable"),
        ("dB ", "psnr"),
        ("hidden ", "hidden"),
        ("of ", "of"),
        ("interval ", "interval"),
        ("distance ", "distance"),
        ("LMMSE dB ", "estimate"),
        ("accuracy ", "accuracy"),
        ("distortion ", "distortion"),
        ("epsilon ", "epsilon"),
    ),
    cases=CASES,
    measure=measure,
)
