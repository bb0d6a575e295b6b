"""Gradients of which tensors are missing: what the others say is recovered, and nothing else is claimed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exan_verify import attack
from exan_verify.errors import GradientError, NonFiniteError, RangeError
from exan_verify.models import strided_cnn
from exan_verify.numeric.missing.inputs_from_weights import inputs_below
from exan_verify.numeric.problem.problem import LayerGradient
from exan_verify.numeric.problem.records import Attack
from tests.support.attack_cases import assert_nothing
from tests.support.numeric_cases import drawn_batch
from tests.support.torch_reference import autograd, initialised, normal, perceptron, uniform

LOSSES = ("cross_entropy", "mse", "bce")


class Case:
    """A network of the given widths, a random batch, and its gradient."""

    def __init__(self, *widths: int, samples: int = 5, loss: str = "cross_entropy", seed: int = 0) -> None:
        self.model = perceptron(*widths, seed=seed).double()
        rng = np.random.default_rng([seed, 1])
        self.x, self.classes = drawn_batch("rand", samples, widths[0], widths[-1], rng)
        self.y = self.classes if loss == "cross_entropy" else nn.functional.one_hot(self.classes, widths[-1])
        self.loss = loss
        target = self.y if loss == "cross_entropy" else self.y.double()
        self.gradient = autograd(self.model, self.x, target, loss)

    def attack(self, *names: str, **options: object) -> Attack:
        """With only the tensors whose names contain one of ``names``."""
        given = {n: g for n, g in self.gradient.items() if any(part in n for part in names)}
        return attack(self.model, given, loss=self.loss, partial=True, **options)

    def hidden(self, layer: int) -> Tensor:
        """The true features of a hidden layer (from 1)."""
        return self.model[: 2 * layer](self.x).detach()


def recovered(found: Tensor, labels: Tensor, bounds: list[float], truth: Tensor, y: Tensor) -> int:
    """How many rows are claimed; each must be a true one of its own, within its bound, with its label."""
    distance = torch.cdist(found, truth, p=torch.inf)
    match = distance.argmin(dim=1).tolist()
    assert len(set(match)) == len(match)
    for row, m in enumerate(match):
        assert float(distance[row, m]) <= bounds[row] < 1e-3
        assert torch.equal(labels[row].to(y.dtype), y[m])
    return len(match)


def claimed(case: Case, found: Attack) -> int:
    return recovered(found.x, found.y, [s.error_bound for s in found.status], case.x, case.y)


def claimed_features(case: Case, found: Attack) -> int:
    hidden = found.hidden
    assert hidden is not None
    bounds = [s.error_bound for s in hidden.status]
    return recovered(hidden.values, hidden.labels, bounds, case.hidden(hidden.layer), case.y)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("names", [("0.",), ("weight",), ("0.weight", "2."), ("0.weight", "2.bias")])
def test_the_first_layer_and_little_else_give_the_batch(loss: str, names: tuple[str, ...]):
    case = Case(30, 80, 10, loss=loss)
    found = case.attack(*names)
    assert claimed(case, found) == 5
    assert found.complete
    assert found.hidden is None
    assert set(found.missing) == {n for n in case.gradient if not any(part in n for part in names)}


@pytest.mark.parametrize("loss", LOSSES)
def test_scales_come_from_the_loss_vectors(loss: str):
    # dW_1 and nothing else: each sample is known up to a number, which the label's loss vector pins down
    case = Case(30, 80, 10, loss=loss)
    assert claimed(case, case.attack("0.weight")) == 5


def test_scales_that_stay_open_are_said_and_what_would_help():
    other = Case(30, 80, 10, loss="mse").attack("0.weight", labels="real", batch_size=5)
    assert_nothing(other, "the scales of the samples stay open: with real targets")
    assert "'0.bias', '2.weight', '2.bias' would help" in other.reason


def test_a_wrong_scale_is_not_claimed():
    # the scales are read off dW_2: of another batch's, they do not fit the first layer's deltas
    case, other = Case(30, 80, 10, loss="mse"), Case(30, 80, 10, loss="mse", seed=1)
    mixed = {"0.weight": case.gradient["0.weight"], "2.weight": other.gradient["2.weight"]}
    assert not len(attack(case.model, mixed, loss="mse", partial=True).x)


def test_a_wide_layer_that_was_not_sent_hides_nothing():
    case = Case(20, 64, 48, 6, samples=4)
    found = case.attack("2.", "4.")
    assert claimed_features(case, found) == claimed(case, found) == 4
    assert found.complete
    assert found.hidden is not None
    assert found.hidden.layer == 1


def test_a_narrow_layer_that_was_not_sent_leaves_features():
    case = Case(60, 40, 48, 6, samples=4)
    found = case.attack("2.", "4.")
    assert claimed_features(case, found) == 4
    assert len(found.x) == 0
    assert not found.complete
    assert "active neurons of hidden layer 1 do not determine 60 entries of the input" in found.reason


def test_inputs_that_features_give_too_roughly_are_shown_and_not_claimed():
    case = Case(50, 160, 60, 7, samples=6)
    rng = np.random.default_rng(0)
    case.gradient = {
        name: g + 1e-5 * g.square().mean().sqrt() * torch.tensor(rng.standard_normal(g.shape))
        for name, g in case.gradient.items()
    }
    found = case.attack("2.", "4.")
    assert claimed_features(case, found) == 6
    assert claimed(case, found) + len(found.candidates) == 6
    assert found.candidates
    assert f"{len(found.candidates)} inputs follow from the features to" in found.reason
    for one in found.candidates:
        assert float((case.x - one.x).abs().amax(dim=1).min()) <= one.error_estimate


def test_deeper_starts_are_counted_from_the_bottom():
    case = Case(20, 64, 64, 48, 6, samples=4)
    found = case.attack("4.", "6.")
    assert claimed_features(case, found) == 4
    assert found.hidden is not None
    assert (found.hidden.layer, found.layer) == (2, 3)
    assert [summary.index for summary in found.layers] == [3]


@pytest.mark.parametrize(
    ("names", "said"), [(("2.",), "only up to a mixing of the 5"), (("bias",), "sums over")]
)
def test_nothing_separates_samples_without_a_hidden_layer(names: tuple[str, ...], said: str):
    case = Case(30, 80, 10)
    found = case.attack(*names)
    assert (len(found.x), found.complete) == (0, False)
    assert said in found.reason
    assert "'0.weight'" in found.reason
    assert found.x.shape == (0, 30)


def test_one_sample_needs_no_separating():
    case = Case(6, 64, 64, 6, samples=1)
    found = case.attack("4.")
    assert claimed_features(case, found) == 1
    assert found.hidden is not None
    assert found.hidden.layer == 2
    assert found.last_layer is not None
    assert found.last_layer.rank == 1
    # hidden layer 2 has fewer active neurons than hidden layer 1 has entries
    assert len(found.x) == 0
    wide = Case(6, 40, 200, 6, samples=1)
    found = wide.attack("4.")
    assert claimed(wide, found) == 1


def test_the_last_layer_alone_shows_which_classes_occur():
    case = Case(30, 80, 10, samples=3)
    found = case.attack("2.")
    assert found.last_layer is not None
    assert found.last_layer.rank == 3
    assert set(found.last_layer.present) <= set(case.classes.tolist())
    assert found.last_layer.present


def test_a_bias_gradient_below_must_agree():
    case = Case(20, 64, 48, 6, samples=4)
    assert claimed(case, case.attack("0.bias", "2.", "4.")) == 4
    case.gradient["0.bias"] = case.gradient["0.bias"] + 1e-3
    found = case.attack("0.bias", "2.", "4.")
    assert_nothing(found, "do not give the tensor '0.bias'")


def test_a_missing_tensor_is_an_error_unless_it_is_said():
    case = Case(30, 80, 10)
    del case.gradient["2.bias"]
    with pytest.raises(
        GradientError, match=r"'2.bias' of shape \(10,\) is missing; add it, or say partial=True"
    ):
        attack(case.model, case.gradient)
    assert claimed(case, attack(case.model, case.gradient, partial=True)) == 5


def test_what_is_given_is_checked_as_ever():
    case = Case(30, 80, 10)
    for change, kind, said in (
        ({"5.weight": torch.ones(2)}, GradientError, "belongs to no parameter"),
        ({"0.weight": torch.ones(2)}, GradientError, "has shape"),
        ({"0.weight": torch.full((80, 30), torch.nan)}, NonFiniteError, "NaN"),
        ({"0.weight": torch.zeros(80, 30)}, GradientError, "every entry of the gradient is zero"),
        ({}, GradientError, "has no tensors"),
    ):
        with pytest.raises(kind, match=said):
            attack(case.model, change, partial=True)


@pytest.mark.parametrize(("method", "names"), [("peel", ("0.weight", "2.")), ("published", ("0.",))])
def test_methods_that_need_more_say_so(method: str, names: tuple[str, ...]):
    case = Case(30, 80, 10)
    with pytest.raises(RangeError, match=f"method='{method}' reads"):
        case.attack(*names, method=method)


@pytest.mark.parametrize("method", ["lift", "peel", "assign", "sample"])
def test_every_other_method_can_be_asked_for(method: str):
    case = Case(30, 120, 10, samples=4)
    assert claimed(case, case.attack("0.", method=method)) == 4


def test_few_neurons_without_the_layers_above_are_not_enough():
    # 4 samples, 3 classes, 7 neurons: a stranger meets as many equations as a sample does, so that none is
    # claimed where no neuron is one sample's own
    outcomes = set()
    for seed in range(3):
        case = Case(12, 7, 3, samples=4, loss="mse", seed=seed)
        owned = bool(((case.hidden(1) > 0).sum(dim=0) == 1).any())
        found = claimed(case, case.attack("0."))
        assert owned or found == 0
        outcomes.add((owned, found))
    assert outcomes == {(True, 4), (True, 2), (False, 0)}


def test_the_whole_gradient_is_no_partial_one():
    case = Case(30, 80, 10)
    whole, partial = attack(case.model, case.gradient), case.attack("0.", "2.")
    assert partial.missing == ()
    assert torch.equal(whole.x, partial.x)


def test_inputs_below_are_refused_where_features_come_from_no_input():
    weight, bias = normal(20, 4), normal(20, seed=1)
    layer = LayerGradient(weight=weight, bias=bias, d_weight=torch.zeros(20, 4), d_bias=torch.zeros(20))
    x = normal(3, 4, seed=2)
    h = layer.forward(x).relu()
    for found, truth in zip(inputs_below([layer], h, [1e-12] * 3), x, strict=True):
        assert found.x is not None
        assert float((found.x - truth).abs().max()) <= found.error_bound < 1e-9
    bent = h.clone()
    bent[0, int(h[0].argmax())] *= 2
    bent[1, int(h[1].argmin())] = -1.0
    first, second, third = inputs_below([layer], bent, [1e-12] * 3)
    assert "no values of the input give" in first.reason
    assert "are negative" in second.reason
    assert third.x is not None


def test_convolutions_without_weight_gradients_are_inverted_by_their_outputs():
    model = initialised(strided_cnn(image_size=8, widths=(40, 480), head=(96,))).double()
    x, y = uniform(3, 3, 8, 8), torch.tensor([3, 1, 4])
    gradient = autograd(model, x, y)
    head = {n: g for n, g in gradient.items() if g.dim() <= 2 and n.startswith(tuple(_head(model)))}
    found = attack(model, head, partial=True, picture_iterations=0)
    assert found.features_complete
    assert set(found.missing) == set(gradient) - set(head)
    assert all(stage.shared == 0 for stage in found.stages)
    bounds = [s.error_bound for s in found.status]
    assert recovered(found.x.flatten(1), found.y, bounds, x.flatten(1), y) == len(found.x)
    with pytest.raises(GradientError, match="or say partial=True"):
        attack(model, head)


def _head(model: nn.Module) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]


def test_parallel_loss_vectors_seen_by_the_last_layer_alone_are_no_one_sample():
    """Two hinge samples of one label add up to what one sample between them gives: none is claimed as one."""
    seen = claims = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 2)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.3, tuple(parameter.shape))))
        for samples in (1, 2):
            x, y = torch.from_numpy(rng.normal(size=(samples, 8))), torch.ones(samples, dtype=torch.long)
            model.zero_grad()
            nn.functional.multi_margin_loss(model(x), y).backward()
            sent = {name: p.grad for name, p in model.named_parameters() if name.startswith("2.")}
            if not any(bool(tensor.any()) for tensor in sent.values()):
                continue
            found = attack(model, sent, loss="hinge", partial=True)
            assert found.hidden is None or not len(found.hidden.values)
            seen += samples == 2
            if samples == 1:
                told = attack(model, sent, loss="hinge", partial=True, batch_size=1)
                claims += told.hidden is not None and len(told.hidden.values) == 1
    assert seen > 20
    assert claims > 20
