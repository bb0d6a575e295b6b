"""The attack on convolutional networks: what is exact, what stays open, and that nothing wrong is claimed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from exan_verify import attack
from exan_verify.core.question import Loss
from exan_verify.errors import GradientError, InputError, NonFiniteError, ShapeError
from exan_verify.models import lenet, resnet, strided_cnn, vgg13
from exan_verify.models.pictures.graph import to_convolutional
from exan_verify.numeric.convolution.attack import run
from exan_verify.numeric.convolution.confirm import expected_rounding, seen_rounding
from exan_verify.numeric.convolution.oracle import stage_deficits
from exan_verify.numeric.convolution.records import ImageAttack
from tests.support.attack_cases import assert_nothing
from tests.support.cnn_cases import largest_error, pictures
from tests.support.torch_reference import autograd, he, uniform


def strided(
    widths: tuple[int, ...] = (40, 480), head: tuple[int, ...] = (96,), seed: int = 0
) -> nn.Sequential:
    return he(strided_cnn(image_size=8, widths=widths, head=head), seed)


def attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    **more: object,
) -> ImageAttack:
    found = attack(
        model,
        autograd(model, x, y, loss, reduction),
        loss=loss,
        reduction=reduction,
        **{"picture_iterations": 0, **more},  # type: ignore[arg-type]
    )
    assert isinstance(found, ImageAttack)
    check_claims(model, found, x, y)
    return found


def check_claims(model: nn.Module, found: ImageAttack, x: Tensor, y: Tensor) -> None:
    """No claimed picture or feature is further from the truth than its bound, no claimed label is wrong."""
    truth = to_convolutional(model, x.shape[1:]).features(x.double())
    for rows, labels, status, target in (
        (found.x, found.y, found.status, x.double()),
        (found.features, found.feature_labels, found.feature_status, truth),
    ):
        assert len(rows) == len(labels) == len(status)
        if not len(rows):
            continue
        distances = torch.cdist(rows.flatten(1), target.flatten(1), p=float("inf"))
        for m, evidence in enumerate(status):
            assert float(distances[m].min()) <= evidence.error_bound
            if y.dim() == 1:
                assert int(labels[m]) == int(y[distances[m].argmin()])


@pytest.mark.parametrize(
    ("size", "samples", "head"),
    [(32, 4, 128), pytest.param(64, 8, 4096, marks=pytest.mark.campaign)],
)
def test_vgg13_gives_features_and_labels_to_1e_8(size: int, samples: int, head: int):
    model = he(vgg13(image_size=size, head=head))
    x, y = pictures((3, size, size), samples), torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])[:samples]
    found = attacked(model, x, y)
    assert found.features_complete
    assert len(found.features) == samples
    assert max(s.error_bound for s in found.feature_status) < 1e-8
    assert sorted(found.feature_labels.tolist()) == sorted(y.tolist())
    assert not found.complete
    assert_nothing(found, "MaxPool '24' leaves", "which of 4 entries has it")


@pytest.mark.parametrize(
    ("loss", "reduction"), [("cross_entropy", "mean"), ("mse", "sum"), ("bce", "mean"), ("hinge", "sum")]
)
def test_strided_networks_give_the_pictures_themselves(loss: str, reduction: str):
    model = strided()
    x, y = pictures((3, 8, 8), 3), torch.tensor([3, 1, 4])
    labels = nn.functional.one_hot(y, 10).double() if loss in ("mse", "bce") else y
    found = attacked(model, x, labels, loss=loss, reduction=reduction, batch_size=3)
    assert found.complete, found.reason
    assert found.x.shape == (3, 3, 8, 8)
    assert float(largest_error(found.x, x).max()) < 1e-10
    assert max(s.error_bound for s in found.status) < 1e-6
    assert found.gradient_residual < 1e-10
    assert [s.deficit for s in found.stages if s.kind == "Convolution"] == [0, 0]


def test_shared_weight_gradients_close_what_samples_leave_open():
    model = strided((12, 60), (64,))
    found = attacked(model, x := pictures((3, 8, 8), 2), torch.tensor([3, 1]))
    first, second = (s for s in found.stages if s.kind == "Convolution")
    assert found.complete, found.reason
    assert first.alone is not None
    assert first.alone > 0
    assert (first.deficit, second.deficit) == (0, 0)
    assert float(largest_error(found.x, x).max()) < 1e-6


def test_a_positive_deficit_is_counted_and_stops_the_descent():
    model = strided((4, 24), (64,))
    x = pictures((3, 8, 8), 2)
    found = attacked(model, x, torch.tensor([3, 1]), picture_iterations=30)
    first = found.stages[0]
    assert not found.complete
    assert first.deficit
    assert f"Convolution '0' leaves at least {first.deficit} of 384 entries open" in found.reason
    assert first.at_least
    assert first.equations + first.shared >= 384 - first.deficit
    assert found.estimates is not None
    assert found.estimates.shape == x.shape
    assert float(found.estimates.min()) >= 0
    assert float(found.estimates.max()) <= 1


def norms_and_groups() -> nn.Sequential:
    model = nn.Sequential(
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 40, 3, padding="same", dilation=2, groups=2, bias=False),
        nn.BatchNorm2d(40),
        nn.ReLU(),
        nn.Dropout2d(),
        nn.Flatten(),
        nn.Linear(640, 48, bias=False),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        nn.Linear(48, 5),
    )
    return he(model, 3)


def test_batch_norms_groups_dilation_and_dropout():
    model = norms_and_groups()
    found = attacked(model, x := pictures((4, 4, 4), 3), torch.tensor([3, 1, 4]), input_shape=(4, 4, 4))
    assert found.complete, found.reason
    assert float(largest_error(found.x, x).max()) < 1e-9


def test_frozen_norms_and_missing_tensors():
    model = norms_and_groups()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    x, y = pictures((4, 4, 4), 3), torch.tensor([3, 1, 4])
    assert attacked(model, x, y, input_shape=(4, 4, 4)).complete
    head_norm = model[7]
    head_norm.bias.requires_grad_(False)
    with pytest.raises(GradientError, match="BatchNorm's bias is frozen"):
        attacked(model, x, y, input_shape=(4, 4, 4))


def test_a_head_alone_gives_its_inputs():
    layers = nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 4)
    model = he(nn.Sequential(*layers))
    found = attacked(model, x := pictures((12,), 3), torch.tensor([3, 1, 2]))
    assert found.complete
    assert float(largest_error(found.x, x).max()) < 1e-10


@pytest.mark.parametrize("pool", ["max", "average"])
def test_pools_stop_the_descent_and_say_what_is_open(pool: str):
    found = attacked(he(lenet(pool=pool)), pictures((1, 28, 28), 2), torch.tensor([3, 1]))
    last = found.stages[5]
    assert found.features_complete
    assert last.deficit == last.unknowns - last.equations
    assert all(s.note.startswith("not reached") and s.deficit is None for s in found.stages[:5])


def test_deficits_of_every_stage_for_the_defender():
    model = he(lenet(pool="average"))
    network = to_convolutional(model)
    reports = stage_deficits(network, pictures((1, 28, 28), 2), torch.tensor([3, 1]), Loss.CROSS_ENTROPY)
    by_path = {r.path: r for r in reports}
    assert len(reports) == len(network.body)
    # 784 pixels a sample against 6 channels of the same size; half of them active is far more than enough
    assert by_path["0"].deficit == 0
    assert by_path["2"].deficit == 2 * (6 * 28 * 28 - 6 * 14 * 14)
    assert by_path["3"].alone is not None
    assert by_path["3"].deficit is not None
    assert by_path["3"].deficit <= by_path["3"].alone


def test_one_sample_through_a_single_linear_layer():
    model = he(resnet())
    found = attacked(model, pictures((3, 32, 32), 1), torch.tensor([7]))
    assert found.features_complete
    assert found.feature_labels.tolist() == [7]
    assert "AveragePool '5' leaves 8160 of 8192 entries open" in found.reason
    assert found.last_layer is not None
    assert (found.last_layer.rank, found.last_layer.present) == (1, (7,))


def test_a_single_linear_layer_mixes_samples_and_says_so():
    """Five: the mixing of up to four is looked for by descent."""
    model, y = he(resnet()), torch.tensor([7, 7, 2, 2, 7])
    x = pictures((3, 32, 32), 5)
    found = attacked(model, x, y, picture_iterations=5)
    last = found.last_layer
    assert last is not None
    assert (len(found.features), found.complete, found.estimates) == (0, False, None)
    assert "only up to a mixing of the 5 samples" in found.reason
    assert last.rank == 5
    assert set(last.present) <= {2, 7}
    truth = torch.cat([to_convolutional(model).features(x), torch.ones(5, 1)], dim=1)
    outside = truth - truth @ last.feature_span.T @ last.feature_span
    assert float(outside.abs().max()) < 1e-9


def test_two_classes_hide_the_number_of_samples_behind_a_single_layer():
    # softmax over two classes: all loss vectors are parallel, so two samples look like one of rank 1
    found = attacked(he(resnet(classes=2)), pictures((3, 32, 32), 2), torch.tensor([0, 0]))
    assert len(found.features) == 0
    assert "no label explains the loss vector" in found.reason
    told = attacked(he(resnet(classes=2)), pictures((3, 32, 32), 2), torch.tensor([0, 1]), batch_size=2)
    assert len(told.features) == 0


@pytest.mark.parametrize("seed", range(3))
def test_float32_gradients_give_pictures_within_bounds_below_a_thousandth(seed: int):
    model, x = strided(seed=seed), uniform(3, 3, 8, 8, seed=seed).float()
    found = attacked(model, x, torch.tensor([3, 1, 4]))
    assert len(found.features) == 3
    assert max(s.error_bound for s in found.feature_status) > 1e-8
    assert found.complete, found.reason
    assert max(s.error_bound for s in found.status) < 1e-3
    assert float(largest_error(found.x, x.double()).max()) < 1e-5


def test_features_known_in_l2_no_worse_than_entry_by_entry():
    model = strided()
    found = attacked(model, pictures((3, 8, 8), 3), torch.tensor([3, 1, 4]))
    wide = found.features.shape[1] ** 0.5
    assert all(s.error_norm < 0.5 * wide * s.error_bound for s in found.feature_status)


def test_rounding_of_the_forward_pass_counts_as_an_error_of_the_features():
    network = to_convolutional(strided())
    x = pictures((3, 8, 8), 3)
    seen = seen_rounding(network, x, 2.0**-24)
    assert 1e-7 < float(seen.min()) <= float(seen.max()) < 1e-3
    assert float(seen_rounding(network, x, 2.0**-53).max()) == 0
    assert float(expected_rounding(network, network.features(x), 2.0**-24).max()) < 1e-3


def test_a_batch_with_a_doubtful_neuron_is_refitted_with_its_value_free():
    # a hidden neuron at zero to rounding: the refit must hold whether it is active or not
    model = strided()
    x = pictures((3, 8, 8), 3).float()
    with torch.no_grad():
        z = model[0](x.to(model[0].weight.dtype))
        model[0].bias -= z[0, :, 1, 1]
    attacked(model, x, torch.tensor([3, 1, 4]))


def test_twins_are_not_claimed():
    model = strided()
    x = pictures((3, 8, 8), 3)
    x[1] = x[0]
    found = attacked(model, x, torch.tensor([3, 3, 4]))
    assert not found.complete


def test_a_gradient_of_something_else_claims_no_picture():
    model = strided()
    x, y = pictures((3, 8, 8), 3), torch.tensor([3, 1, 4])
    given = autograd(model, x, y)
    given["2.weight"] = given["2.weight"] * 1.001
    found = attack(model, given, picture_iterations=0)
    assert isinstance(found, ImageAttack)
    assert_nothing(found, "miss the gradient of '2'")


def _without(given: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {n: g for n, g in given.items() if n != name}


BAD: list[tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], type[Exception], str]] = [
    (lambda g: _without(g, "0.weight"), GradientError, r"'0.weight' of shape \(40, 3, 4, 4\) is missing"),
    (lambda g: {**g, "9.bias": torch.ones(2)}, GradientError, "'9.bias' belongs to no parameter"),
    (lambda g: {**g, "0.bias": torch.ones(2)}, GradientError, r"'0.bias' has shape \(2,\), the parameter"),
    (
        lambda g: {**g, "0.bias": g["0.bias"] / 0},
        NonFiniteError,
        "gradient.'0.bias'. contains NaN",
    ),
    (lambda g: {n: 0 * t for n, t in g.items()}, GradientError, "every entry of the gradient is zero"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD)
def test_bad_gradients_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], kind: type[Exception], message: str
):
    model = strided((40, 80), (20,))
    given = autograd(model, pictures((3, 8, 8), 2), torch.tensor([3, 1]))
    with pytest.raises(kind, match=message):
        attack(model, change(given), picture_iterations=0)


def test_bad_options_are_refused():
    model = strided((40, 80), (20,))
    given = autograd(model, pictures((3, 8, 8), 2), torch.tensor([3, 1]))
    with pytest.raises(InputError, match="picture_iterations=-1 cannot be used"):
        attack(model, given, picture_iterations=-1)
    with pytest.raises(ShapeError, match="correct input_shape"):
        attack(model, given, input_shape=(3, 16, 16))
    with pytest.raises(InputError, match="loss='nll' is not known; use one of"):
        run(to_convolutional(he(resnet())), _resnet_gradient(), loss="nll", reduction="mean")
    with pytest.raises(InputError, match="batch_size=0 is not a positive integer"):
        run(to_convolutional(he(resnet())), _resnet_gradient(), loss="mse", reduction="mean", batch_size=0)


def _resnet_gradient() -> dict[str, Tensor]:
    return autograd(he(resnet()), pictures((3, 32, 32), 1), torch.tensor([1]))


def test_shared_equations_count_by_their_rank_not_their_number():
    # 2 of 32 channels are alive: 18 equations for 36 entries, and at most 8 of the 128 of dW are not 0 = 0
    layers = nn.Conv2d(4, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(288, 8), nn.ReLU(), nn.Linear(8, 3)
    model = he(nn.Sequential(*layers))
    with torch.no_grad():
        model[0].bias[:2], model[0].bias[2:] = 10.0, -10.0
    network = to_convolutional(model.double(), (4, 3, 3))
    report = stage_deficits(network, pictures((4, 3, 3), 1), torch.tensor([1]), Loss.CROSS_ENTROPY)[0]
    assert (report.alone, report.shared, report.at_least) == (18, 128, False)
    assert report.deficit is not None
    assert 18 - 8 <= report.deficit < 18
