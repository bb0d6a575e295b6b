"""The benchmark measures what it says; nothing here looks at a time."""

import pytest

from exan_verify.bench.cases.certify_cases import CASES, build
from exan_verify.bench.certify import SUITE, run_case
from exan_verify.bench.suite import Options
from exan_verify.errors import InputError

BY_NAME = {case.name: case for case in CASES}
QUICK = [
    "784-512-10 M=8",
    "64-48-40-10 M=5, three share layer 1",
    "8-12-3 mse, one region, classes (3)",
    "8-12-3 mse, one region, classes (2,1)",
    "20-64-5 M=6 mse, gradient alone",
    "20-64-5 M=6 mse, one entry changed",
    "784-512-10 LeakyReLU M=16 MNIST",
    "3x8x8, 16-64 channels, M=2",
    "1x28x28, 6 channels, M=4 MNIST",
    "LeNet 1x28x28, M=4 MNIST",
]


@pytest.mark.parametrize("name", QUICK)
def test_cases_come_out_as_expected(name):
    run = run_case(BY_NAME[name], 0)
    assert run.outcome == BY_NAME[name].expected
    assert run.certify_seconds > 0
    assert run.check_seconds > 0
    assert run.certificate_kib > 0
    assert run.peak_mib > 10
    assert run.recovered is (True if name.endswith("gradient alone") else None)


def test_what_other_activations_and_convolutions_come_to():
    leaky, strided, narrow, pooled = (run_case(BY_NAME[name], 1) for name in QUICK[-4:])
    assert (leaky.equations, leaky.unknowns, leaky.rank) == (512, 325, 309)
    assert (leaky.determined, leaky.without_exan) == (16, None)
    assert (strided.determined, strided.features) == (2, 0)
    # 4 x 784 pixels, 150 weights, at most 4 x 1176 active features
    assert 4 * 784 - 150 - 4 * 1176 < narrow.dimension <= 4 * 784
    assert (pooled.determined, pooled.features) == (0, 4)


def test_the_system_that_decided_is_shown():
    run = run_case(BY_NAME["100-100-4 M=16, degree 3"], 0)
    assert (run.equations, run.unknowns, run.rank) == (1311, 1320, 1304)


def test_seeds_make_the_case():
    case = BY_NAME["784-512-10 M=8"]
    (one, first), (two, second), (other, third) = build(case, 0), build(case, 0), build(case, 1)
    assert (one, first) == (two, second)
    assert one != other
    assert first != third


def test_names_are_unique_and_unknown_ones_are_refused():
    assert len(BY_NAME) == len(CASES)
    with pytest.raises(InputError, match="certify has no case 'nothing'"):
        SUITE.run(Options(seeds=[0]), rows=["nothing"])


def test_a_row_runs_in_its_own_process():
    seen = []
    options = Options(seeds=[0, 1], progress=lambda *told: seen.append(told[1:]))
    rows = SUITE.run(options, rows=["20-64-5 M=6 mse, gradient alone"])
    assert rows[0].outcomes == {"unique": 2}
    assert rows[0].checked == 2
    assert rows[0].peak_mib > 10
    assert seen == [(0, 2), (1, 2)]
