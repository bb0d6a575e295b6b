"""The convolution benchmark, its rivals by optimisation, and feature inversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from exan_verify.bench import convolution as bench
from exan_verify.bench.convolution import Case, build, photographs, run_case
from exan_verify.bench.rivals.baselines import Baseline, Effort, dlg, inverting_gradients
from exan_verify.bench.suite import Options
from exan_verify.core.question import Loss, Question
from exan_verify.errors import InputError
from exan_verify.models import strided_cnn
from exan_verify.models.pictures.graph import to_convolutional
from exan_verify.numeric.convolution import attack as convolution_attack
from exan_verify.numeric.convolution.inversion import invert_features
from exan_verify.numeric.convolution.known import at_features
from exan_verify.numeric.convolution.records import ImageAttack
from exan_verify.numeric.problem.records import LastLayer
from exan_verify.numeric.problem.torch_losses import BatchLoss
from tests.support.cnn_cases import largest_error, pictures
from tests.support.torch_reference import autograd, initialised


def small() -> nn.Sequential:
    return initialised(nn.Sequential(nn.Flatten(), nn.Linear(9, 12), nn.Sigmoid(), nn.Linear(12, 4)))


def test_deep_leakage_finds_one_small_sample_and_its_label():
    model, x = small(), pictures((1, 3, 3), 1)
    given = autograd(model, x, torch.tensor([2]))
    effort = Effort(iterations=60, dtype=torch.float64)
    found = dlg(model, given, samples=1, shape=(1, 3, 3), classes=4, effort=effort)
    assert found.y.tolist() == [2]
    assert float(largest_error(found.x, x).max()) < 1e-3
    assert found.distance < 1e-8


def test_inverting_gradients_comes_nearer_with_steps_and_stays_in_the_box():
    model, x, y = small(), pictures((1, 3, 3), 1), torch.tensor([2])
    given = autograd(model, x, y)

    def inverted(**effort: float) -> Baseline:
        return inverting_gradients(model, given, labels=y, shape=(1, 3, 3), effort=Effort(**effort))

    few, many = inverted(iterations=2), inverted(iterations=300)
    assert (few.iterations, many.iterations) == (2, 300)
    assert many.distance < 0.1 * few.distance
    assert 0 <= float(many.x.min()) <= float(many.x.max()) <= 1
    assert float((many.x.double() - x).square().mean()) < 0.02
    again = inverted(iterations=2, restarts=2)
    assert again.iterations == 4
    assert again.distance <= few.distance
    assert inverted(iterations=24_000, seconds=0.05).iterations < 24_000


def test_what_baselines_cannot_use_is_refused():
    model = small()
    given = autograd(model, pictures((1, 3, 3), 1), torch.tensor([2]))
    none = Effort(iterations=0)
    with pytest.raises(InputError, match="iterations=0 is not a positive integer"):
        inverting_gradients(model, given, labels=torch.tensor([2]), shape=(1, 3, 3), effort=none)
    with pytest.raises(InputError, match="hinge' cannot be optimised for"):
        dlg(model, given, samples=1, shape=(1, 3, 3), classes=4, question=Question(loss=Loss.HINGE))
    with pytest.raises(InputError, match="no tensor of this model"):
        dlg(model, {"x": torch.ones(1)}, samples=1, shape=(1, 3, 3), classes=4)


def test_feature_inversion_lowers_the_misfit_on_the_device_asked_for():
    network = to_convolutional(strided_cnn(image_size=8, widths=(24, 96), head=(20,)))
    x, y = pictures((3, 8, 8), 2), torch.tensor([3, 1])
    loss = BatchLoss(loss=Loss.CROSS_ENTROPY, labels=y, divisor=2)
    known = at_features(network, network.features(x), torch.zeros(2), loss)
    few, many = (invert_features(network, known, {}, iterations=n, tv=0.0) for n in (1, 150))
    assert float(many.misfit.max()) < 0.2 * float(few.misfit.max())
    assert many.pictures.device == torch.device("cpu")
    assert float((many.pictures - x).square().mean()) < float((few.pictures - x).square().mean())


def test_a_row_compares_estimates_with_inverting_gradients():
    case = Case(name="t", model="lenet", size=16, samples=2, options=(("channels", 3),), seconds=0.5)
    row = run_case(case, 0)
    assert (row.features, row.wrong, row.labels_right, row.pictures) == (2, 0, 1.0, 0)
    assert row.stopped.startswith("MaxPool 5: ")
    assert row.psnr is not None
    assert row.rival_psnr is not None
    assert row.gain == pytest.approx(row.psnr - row.rival_psnr)
    assert run_case(case, 0, iterations=3).rival_steps == 3
    assert run_case(case, 0, seconds=0).psnr is None
    assert row.peak_mib > 50
    assert (row.rank, row.present, row.occurring) == (None, None, 2)


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (lambda found: found, 0),
        (lambda found: replace(found, feature_labels=(found.feature_labels + 1) % 10), 2),
        (lambda found: replace(found, features=found.features + 1), 2),
        (lambda found: replace(found, last_layer=last_layer(found, rank=2, present=(1, 3))), 1),
        (lambda found: replace(found, last_layer=last_layer(found, rank=3, present=(1,))), 1),
        (lambda found: replace(found, last_layer=last_layer(found, rank=2, present=(1, 5))), 0),
    ],
)
def test_every_kind_of_wrong_claim_is_counted(
    spoil: Callable[[ImageAttack], ImageAttack], wrong: int, monkeypatch: pytest.MonkeyPatch
):
    case = Case(name="t", model="lenet", size=16, samples=2, options=(("channels", 3),))
    truth = build(case, 0)
    monkeypatch.setattr(bench, "build", lambda *_: (*truth[:2], torch.tensor([1, 5])))
    attack = convolution_attack.run
    monkeypatch.setattr(convolution_attack, "run", lambda *given, **options: spoil(attack(*given, **options)))
    assert run_case(case, 0).wrong == wrong


def last_layer(found: ImageAttack, *, rank: int, present: tuple[int, ...]) -> LastLayer:
    return LastLayer(rank=rank, loss_span=found.x, feature_span=found.x, present=present)


def test_a_float32_row_claims_pictures():
    (row,) = bench.SUITE.run(Options(seeds=[0]), rows=["strided 3x8x8 M=3, float32"])
    assert (row.pictures, row.wrong, row.stopped) == (3, 0, "nowhere")
    assert row.picture_error is not None
    assert row.picture_bound is not None
    assert row.picture_error < row.picture_bound < 1e-3


@pytest.mark.usefixtures("in_this_process")
def test_rows_by_name():
    (row,) = bench.SUITE.run(Options(seeds=[0, 1]), rows=["ResNet 3x32x32 M=4"])
    assert (row.seeds, row.wrong, row.pictures) == (2, 0, 0)
    # where descent finds what the head was given, the pool before it leaves the pictures open
    assert row.stopped == "head" or row.stopped.startswith("AveragePool 5")
    # below a single Linear layer this much is certain
    assert (row.rank, row.present, row.occurring) == (4, 4, 4)
    with pytest.raises(
        InputError, match=r"convolution has no case 'none'; its cases(.|\n)*strided 3x16x16 M=8"
    ):
        bench.SUITE.run(Options(seeds=[0]), rows=["none"])
    crops = photographs(5, 16, 0)
    assert crops.shape == (5, 3, 16, 16)
    assert float(crops.std()) > 0.1
