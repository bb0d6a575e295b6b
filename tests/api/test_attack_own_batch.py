"""The attack that a report shows: on the batch's own gradient, and scored against the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify.api.attack_own_batch import aligned, attack_own_batch, batch_gradient, scores
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.errors import LabelError
from exan_verify.models import strided_cnn
from exan_verify.models.chain import to_network
from tests.support.cnn_cases import pictures
from tests.support.torch_reference import autograd, initialised, perceptron, uniform

CROSS_ENTROPY = Question(loss=Loss.CROSS_ENTROPY)


def model(classes: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), *perceptron(12, 60, classes))


def batch(loss: Loss, samples: int = 3, classes: int = 4) -> tuple[Tensor, Tensor]:
    x, y = uniform(samples, 3, 4, seed=1), torch.arange(samples) % classes
    one_hot = nn.functional.one_hot(y, classes).double()
    return x, one_hot if loss in (Loss.MSE, Loss.BCE) else y


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == torch.float64
        assert torch.allclose(found[name], value, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", Reduction)
@pytest.mark.parametrize("loss", Loss)
def test_the_gradient_is_that_of_autograd(loss: Loss, reduction: Reduction):
    net, (x, y) = model(), batch(loss)
    expected = autograd(model().double(), x, y, loss.value, reduction.value)
    question = Question(loss=loss, reduction=reduction)
    same(batch_gradient(net, x.numpy(), y.numpy(), question), expected)
    assert next(net.parameters()).dtype == torch.float32  # the user's model is left as it was
    network = to_network(net)
    same(batch_gradient(network, x.flatten(1).numpy(), y.numpy(), question), expected)


def test_the_gradient_of_a_model_with_convolutions_and_frozen_statistics():
    convolution = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()]
    net = initialised(nn.Sequential(*convolution, nn.Flatten(), *perceptron(8, 9, 3)))
    net[1].running_mean[:] = torch.tensor([0.1, -0.2])
    net.eval()
    x, y = pictures((1, 4, 4), 2), torch.tensor([2, 0])
    found = batch_gradient(net, x.numpy(), y.numpy(), CROSS_ENTROPY)
    same(found, autograd(net.double(), x, y))


def test_what_is_recovered_is_scored_where_it_belongs():
    x, y = batch(Loss.CROSS_ENTROPY)
    attack = attack_own_batch(model(), x.numpy(), y.numpy(), CROSS_ENTROPY)
    assert (attack.found.complete, attack.features, attack.estimates) == (True, None, None)
    for m, one in enumerate(attack.recoveries):
        assert one is not None
        assert (one.status, one.label) == ("confirmed", int(y[m]))
        assert np.abs(one.values - x[m].flatten().numpy()).max() == pytest.approx(one.largest)
        assert one.rmse <= one.largest <= one.bound
        assert one.psnr == pytest.approx(-20 * np.log10(one.rmse))


def test_targets_are_tuples_and_equal_samples_are_not_claimed():
    x, y = batch(Loss.MSE)
    attack = attack_own_batch(model(), x.numpy(), y.numpy(), Question(loss=Loss.MSE))
    assert [r.label for r in attack.recoveries if r] == [tuple(row) for row in y.tolist()]
    x, y = x[[0, 0, 1]], torch.tensor([0, 1, 2])
    attack = attack_own_batch(model(), x.numpy(), y.numpy(), CROSS_ENTROPY)
    claimed = [r for r in attack.recoveries if r is not None]
    assert len(claimed) < 3
    assert all(r.status == "consistent" for r in claimed)
    shown = [r for r in attack.candidates if r is not None]
    assert shown
    assert all(r.status == "candidate" for r in shown)


def test_pictures_of_a_model_with_convolutions():
    net = strided_cnn(image_size=8, widths=(40, 480), head=(96,)).double()
    x, y = pictures((3, 8, 8), 3).numpy(), np.array([3, 1, 4])
    attack = attack_own_batch(net, x, y, CROSS_ENTROPY)
    assert attack.features is not None
    assert (attack.features.count, attack.estimates) == (3, None)
    assert [r.label for r in attack.recoveries if r] == [3, 1, 4]
    assert all(r.values.shape == (3, 8, 8) and r.status == "confirmed" for r in attack.recoveries if r)


def test_scores_are_on_the_scale_of_the_inputs():
    x = np.array([[-2.0, 2.0], [0.0, 1.0]])
    y = np.array([0.0, 1.0])
    moved = torch.tensor(x[::-1] + 0.04)
    scored = scores(moved, torch.tensor([1, 0]), x, y)
    assert [(s.index, s.truth, s.label) for s in scored.samples] == [(0, 1, True), (1, 0, True)]
    assert scored.samples[0].psnr == pytest.approx(40.0)
    inside = scores(torch.tensor(x[1:] + 0.1), torch.tensor([1]), x[1:], y[1:])
    assert inside.samples[0].psnr == pytest.approx(20.0)
    placed = aligned(moved[:1], torch.tensor([1]), x, y)
    assert placed[0] is None
    assert np.allclose(placed[1], x[1] + 0.04)
    halves = scores(torch.tensor(x), torch.tensor([0.5, 0.25]), x, np.array([0.5, 0.75]))
    assert [s.label for s in halves.samples] == [True, False]


def test_classes_become_the_labels_of_the_loss_and_others_are_refused():
    x = batch(Loss.MSE, samples=2)[0].numpy()
    attack = attack_own_batch(model(), x, np.array([1.0, 3.0]), Question(loss=Loss.MSE))
    assert [r.label for r in attack.recoveries if r] == [tuple(row) for row in np.eye(4)[[1, 3]].tolist()]
    with pytest.raises(LabelError, match=r"y\[1\] = 9"):
        attack_own_batch(model(), x, np.array([1, 9]), CROSS_ENTROPY)


def test_real_targets_are_told_to_the_attack():
    x = batch(Loss.MSE, samples=2)[0].numpy()
    y = np.random.default_rng(3).integers(-8, 9, (2, 4)) / 8
    attack = attack_own_batch(model(), x, y, Question(loss=Loss.MSE, labels=Labels.REAL))
    assert attack.score.recall == 1.0
    assert [r.status in ("confirmed", "consistent") for r in attack.recoveries if r] == [True] * 2


def test_networks_without_biases_are_attacked():
    net = perceptron(12, 60, 4, bias=False)
    x, y = batch(Loss.CROSS_ENTROPY)
    attack = attack_own_batch(net, x.flatten(1).numpy(), y.numpy(), CROSS_ENTROPY)
    assert attack.score.recall == 1.0
