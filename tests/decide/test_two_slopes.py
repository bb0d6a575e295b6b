"""certify, audit and check on networks with other activations than ReLU (PL1), and who refuses them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Outcome, Release, attack, audit, certify, check
from exan_verify.api.prove import prove
from exan_verify.core.network import Activation, Batch, PiecewiseNetwork, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import SampleStatus
from exan_verify.decide.lifting import degree_two
from exan_verify.errors import CertificateRejected, InputError, UnsupportedLayerError
from exan_verify.exact.backprop import backward, forward, gradient
from exan_verify.exact.linalg import nullspace
from exan_verify.exact.rational import RationalMatrix
from exan_verify.models.chain import to_any_network, to_network
from tests.support.activation_cases import ACTIVATIONS, inputs, network
from tests.support.certificate_cases import assert_rejected, certify_as, every_kind, plain


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_unique_with_a_certificate_that_the_kernel_accepts(kind: str):
    model, x, y = network((8, 70, 3), ACTIVATIONS[kind], 1, spread=2), inputs(4, 8, 1), [0, 2, 1, 0]
    verdict = certify_as(Outcome.UNIQUE, model, batch=(x, y))
    assert any("after layer '0'" in note for note in verdict.notes)
    claim = check(json.dumps(verdict.certificate), model, batch=(x, y))
    assert claim.outcome is Outcome.UNIQUE


def test_layers_below_follow_where_values_show_their_pattern():
    """The first layer has too few neurons for its own equations."""
    x, y = inputs(3, 4, 2), [0, 1, 2]
    for kind in ("leaky", "steep", "per neuron", "six"):
        model = network((4, 6, 40, 3), ACTIVATIONS[kind], 3, spread=2)
        if kind == "per neuron":
            model[1].weight.data.abs_()
        verdict = certify(model, batch=(x, y), engine="lifting")
        assert (verdict.outcome, verdict.layer) == (Outcome.UNIQUE, 2), (kind, verdict.reason)
        assert check(verdict.certificate, model, batch=(x, y)).outcome is Outcome.UNIQUE


def folded() -> tuple[PiecewiseNetwork, Batch, Batch]:
    """1-1-30-1 with slope -1/2 at the first layer: x = 1, -4 and x = -2, 2 have the features 1, 2. Targets
    for which both samples have the same delta before the first layer's derivative make all gradients equal.
    """
    rng = np.random.default_rng(5)
    outputs = rng.integers(1, 4, (1, 30))
    hidden = rng.integers(1, 6, (30, 1)), rng.integers(-5, 6, 30)
    layers = ReluNetwork.from_arrays([[[1]], hidden[0], outputs], [[0], hidden[1], [0]]).layers
    one = Activation(slope=np.array([Fraction(-1, 2)], dtype=object), name="LeakyReLU of slope -1/2")
    network = PiecewiseNetwork(layers=layers, activations=(one, None))

    def batch(x: list[list[int]], y: object) -> Batch:
        return Batch.of(x, y, network=network, loss=Loss.MSE, labels=Labels.REAL)

    passed = forward(network, batch([[1], [-4]], [[0], [0]]))
    back = [Fraction(int((outputs[0] * hidden[0][:, 0])[passed.pattern(2)[:, m]].sum())) for m in (0, 1)]
    targets = [[f - 1 / (2 * b)] for f, b in zip(passed.logits[0], back, strict=True)]
    return network, batch([[1], [-4]], targets), batch([[-2], [2]], targets)


def test_a_negative_slope_below_leaves_the_inputs_open():
    network, first, second = folded()
    one, other = (gradient(network, batch, Loss.MSE, Reduction.SUM) for batch in (first, second))
    assert one.digest == other.digest
    verdict = certify_as(Outcome.UNKNOWN, network, batch=first, loss="mse", labels="real", reduction="sum")
    assert SampleStatus.DETERMINED not in verdict.samples


def test_the_kernel_minds_a_negative_slope_itself(monkeypatch: pytest.MonkeyPatch):
    model, batch = network((4, 6, 40, 3), ACTIVATIONS["negative"], 3, spread=2), (inputs(3, 4, 2), [0, 1, 2])
    verdict = certify_as(Outcome.UNKNOWN, model, batch=batch)
    assert "hides the pattern of layer 1" in str(verdict.attempts)
    monkeypatch.setattr(degree_two, "shows_pattern", lambda *_: True)
    forged = certify_as(Outcome.UNIQUE, model, batch=batch)
    assert_rejected(forged.certificate, model, "do not show its pattern", batch=batch)


def test_what_a_certificate_says_is_compared():
    model, x, y = network((8, 70, 3), ACTIVATIONS["leaky"], 1, spread=2), inputs(4, 8, 1), [0, 2, 1, 0]
    certificate = plain(certify(model, batch=(x, y)).certificate)

    def rejected(model: object, **changes: int) -> str:
        forged = copy.deepcopy(certificate)
        forged["evidence"][0]["layers"][0] |= changes
        with pytest.raises(CertificateRejected) as caught:
            check(forged, model, batch=(x, y))
        return str(caught.value)

    argument = certificate["evidence"][0]["layers"][0]
    unknowns, rank = argument["unknowns"], argument["rank"]
    assert rank == unknowns - 4
    # what it would be without the products of u by u, and ranks around the right one
    assert "U is" in rejected(model, unknowns=unknowns - 3, rank=rank - 3)
    assert "is needed" in rejected(model, rank=rank - 1)
    assert "is needed" in rejected(model, rank=rank + 1)
    other = copy.deepcopy(model)
    other[1] = nn.LeakyReLU(0.02)
    assert "another model" in rejected(other)
    other[1] = nn.ReLU()
    assert "another model" in rejected(other)


def leaky_of(network: ReluNetwork) -> PiecewiseNetwork:
    """The same layers with a slope of 1/8 below zero."""
    activations = tuple(
        Activation(slope=np.full(width, 0.125), name="LeakyReLU of slope 1/8")
        for width in network.widths[1:-1]
    )
    return PiecewiseNetwork(layers=network.layers, activations=activations)


def test_no_other_evidence_is_accepted_about_other_activations():
    """Every kind of evidence, put before the kernel with the digest of a network with slopes."""
    seen = set()
    for issued in every_kind():
        if (
            not isinstance(issued.network, ReluNetwork)
            or issued.network.depth == 1
            or issued.network.mixed_biases
        ):
            continue
        other = leaky_of(issued.network)
        forged = issued.certificate | {"model_sha256": other.digest}
        kinds = set(issued.kinds)
        seen |= kinds
        if kinds <= {"lifting", "second_batch", "unseen"}:
            continue  # of which the kernel derives everything again, with the slopes
        with pytest.raises(CertificateRejected) as caught:
            check(forged, other, **issued.given)
        if not kinds & {"lifting", "second_batch", "unseen"}:
            said = str(caught.value)
            assert "ReLU alone" in said or "only the whole gradient" in said, (issued.name, said)
    assert len(seen) > 15


def test_every_other_door_refuses():
    model, x, y = network((6, 40, 3), ACTIVATIONS["leaky"], 1), inputs(3, 6, 1), [0, 1, 2]
    with pytest.raises(UnsupportedLayerError, match="certify, audit, check and attack take it"):
        to_network(model)
    exact = to_any_network(model)
    zero = {name: np.ones(array.shape) for name, array in exact.parameters()}
    for refused in (
        lambda: attack(model, {"0.weight": zero["0.weight"]}, partial=True),
        lambda: prove(certify(model, batch=(x, y)).certificate, model, batch=(x, y)),
        lambda: certify(model, batch=(x, y), release=Release(averages=[[0, 1], [2]])),
        lambda: certify(model, batch=(x, y), release=Release(input_basis=np.eye(6)[:, :3])),
    ):
        with pytest.raises(InputError):
            refused()
    for asked in ({"gradient": zero, "exact": True}, {"gradient": zero, "tolerance": 0.1}):
        verdict = certify_as(Outcome.UNKNOWN, model, loss="mse", batch_size=3, **asked)
        assert "whole gradient of a batch" in verdict.reason
    assert certify(model, batch=(x, y), batch_size=2).outcome is Outcome.UNKNOWN


def test_rows_of_the_gradient_determine_the_samples():
    """PL1 on the neurons that are sent, equal or unknown positive weights."""
    x, y = inputs(4, 8, 1), [0, 2, 1, 0]
    for kind in ("per neuron", "six"):
        model = network((8, 70, 3), ACTIVATIONS[kind], 1, spread=2)
        mask = [j % 3 > 0 for j in range(70)]
        for weights in ("equal", "positive"):
            release = Release(rows={"0.weight": mask, "0.bias": mask}, weights=weights)
            verdict = certify(model, batch=(x, y), release=release)
            assert verdict.outcome is Outcome.UNIQUE, (kind, verdict.reason)
            certificate = json.loads(json.dumps(verdict.certificate))
            claim = check(certificate, model, batch=(x, y))
            assert claim.outcome is Outcome.UNIQUE
            # of fewer rows it says nothing
            few = [j < 12 for j in range(70)]
            certificate["claim"]["question"]["release"]["rows"] = {"0.weight": few, "0.bias": few}
            with pytest.raises(CertificateRejected):
                check(certificate, model, batch=(x, y))
            assert audit(model, (x, y), release=release).gate("determined") == "hit"
        few = [j < 12 for j in range(70)]
        verdict = certify(model, batch=(x, y), release=Release(rows={"0.weight": few, "0.bias": few}))
        assert verdict.outcome is not Outcome.UNIQUE
        # what is sent of the last layer alone speaks of values, not of inputs
        verdict = certify(model, batch=(x, y), release=Release(tensors=["2.weight", "2.bias"]))
        assert verdict.outcome is not Outcome.UNIQUE


def test_what_a_narrow_first_layer_hides_it_hides_of_rows_too():
    model, x, y = network((9, 3, 2), ACTIVATIONS["leaky"], 4), inputs(5, 9, 4), [0, 1, 0, 1, 1]
    for release in (Release(tensors=["0.weight"]), Release(weights="positive")):
        verdict = certify(model, batch=(x, y), release=release)
        assert verdict.outcome is Outcome.AMBIGUOUS, verdict.reason
        claim = check(verdict.certificate, model, batch=(x, y))
        assert claim.outcome is Outcome.AMBIGUOUS


def test_no_engine_but_those_made_for_it_is_asked():
    """Where ReLU networks are decided by other engines: tiny ones, duplicates, one region, no biases."""
    x, y = inputs(2, 2, 3), [0, 1]
    for engine in ("scale", "residual", "enumeration", "auto", "exact"):
        model = network((2, 3, 2), ACTIVATIONS["steep"], 2)
        for batch in ((x, y), (x[[0, 0]], [1, 1])):
            verdict = certify(model, batch=batch, engine=engine, budget=10)
            assert verdict.outcome is Outcome.UNKNOWN, engine
            assert verdict.certificate is None
    model = nn.Sequential(nn.Linear(2, 30, bias=False), nn.LeakyReLU(), nn.Linear(30, 2, bias=False))
    assert certify(model, batch=(x, y)).outcome is Outcome.UNKNOWN


def test_narrow_first_layers_are_ambiguous():
    for kind in ("leaky", "negative", "parametric", "six"):
        model = network((9, 3, 2), ACTIVATIONS[kind], 4)
        x, y = inputs(5, 9, 4), [0, 1, 0, 1, 1]
        verdict = certify(model, batch=(x, y))
        assert verdict.outcome is Outcome.AMBIGUOUS, (kind, verdict.reason)
        assert verdict.witness is not None
        assert verdict.witness.dimension >= (5 - 3) * (9 - 3)
        claim = check(verdict.certificate, model, batch=(x, y))
        assert claim.outcome is Outcome.AMBIGUOUS
        # a step along the family has the same gradient
        exact = to_any_network(model)
        first = Batch.of(x, y, network=exact, loss=Loss.MSE, labels=Labels.ONE_HOT)
        passed = forward(exact, first)
        hidden = nullspace(np.vectorize(Fraction)(exact.layers[0].weight))[:, 0]
        vectors = RationalMatrix.of(2 * (passed.logits - np.vectorize(Fraction)(first.labels.T)))
        alpha = nullspace(backward(exact, passed, vectors.fractions()).at(1).fractions())[:, 0]
        moved = np.vectorize(Fraction)(first.inputs) + alpha[:, None] * hidden
        second = Batch.of(moved, first.labels, network=exact, loss=Loss.MSE, labels=Labels.ONE_HOT)
        one, other = (gradient(exact, b, Loss.MSE, Reduction.SUM) for b in (first, second))
        assert one.digest == other.digest


def test_planted_shears_are_never_unique():
    """Two samples of one region, one logit: x + t alpha v has the same gradient (S2), whatever the slopes."""
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        slopes = rng.choice([-2.0, -0.5, 0.25, 3.0], 6)
        layers = ReluNetwork.from_arrays(
            [rng.integers(-4, 5, (6, 3)), rng.integers(-4, 5, (1, 6))], [rng.integers(-4, 5, 6), [1]]
        ).layers
        exact = PiecewiseNetwork(layers=layers, activations=(Activation(slope=slopes, name="slopes"),))
        x = rng.integers(-8, 9, (1, 3)) / 8 + np.array([[0, 0, 0], [1, 0, 1]]) / 64
        first = Batch.of(x, [[0], [1]], network=exact, loss=Loss.MSE, labels=Labels.ONE_HOT)
        passed = forward(exact, first)
        if (passed.pattern(1)[:, 0] != passed.pattern(1)[:, 1]).any():
            continue
        active = np.where(passed.pattern(1)[:, 0], 1, slopes)
        map_ = np.vectorize(Fraction)(layers[1].weight * active).dot(np.vectorize(Fraction)(layers[0].weight))
        direction = nullspace(map_)
        vectors = 2 * (passed.logits[0] - np.array([0, 1]))
        if direction.shape[1] == 0 or not vectors.all():
            continue
        steps = np.array([vectors[1], -vectors[0]])[:, None] * direction[:, 0] * Fraction(1, 4096)
        moved = np.vectorize(Fraction)(first.inputs) + steps
        second = Batch.of(moved, [[0], [1]], network=exact, loss=Loss.MSE, labels=Labels.ONE_HOT)
        one, other = (gradient(exact, b, Loss.MSE, Reduction.SUM) for b in (first, second))
        if one.digest != other.digest:
            continue  # the step left the region
        found += 1
        verdict = certify(exact, batch=first, loss="mse", reduction="sum")
        assert verdict.outcome is not Outcome.UNIQUE
        assert SampleStatus.DETERMINED not in verdict.samples
    assert found >= 8


def test_audit_shows_the_answer_and_why_nothing_is_exclusive():
    model, x, y = network((8, 70, 3), ACTIVATIONS["leaky"], 1, spread=2), inputs(4, 8, 1), [0, 2, 1, 0]
    found = audit(model, (x, y), attack=True)
    assert found.verdict.outcome is Outcome.UNIQUE
    assert found.gate("determined") == "hit"
    assert (found.gate("exan"), found.gate("recovered")) == ("undecided", "hit")
    assert "exclusive neurons" in found.no_exclusivity
    assert found.attack is not None
    assert [one.status for one in found.attack.recoveries if one is not None] == ["confirmed"] * 4
    assert found.to_record()["no_exclusivity"] == found.no_exclusivity


def test_functions_are_taken_as_modules_are():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.how(self.a(x)))

    functional = nn.functional
    for how, module in (
        (lambda h: functional.leaky_relu(h, 0.2), nn.LeakyReLU(0.2)),
        (lambda h: functional.leaky_relu(h), nn.LeakyReLU()),
        (lambda h: functional.relu6(h), nn.ReLU6()),
        (lambda h: functional.hardtanh(h, -2.0, 3.0), nn.Hardtanh(-2, 3)),
    ):
        one = Functional()
        one.how = how
        other = nn.Sequential(one.a, module, one.b)
        assert to_any_network(one).digest == to_any_network(other).digest
    doubled = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(), nn.LeakyReLU(), nn.Linear(4, 2))
    with pytest.raises(UnsupportedLayerError, match="follow one another"):
        to_any_network(doubled)


def test_the_slope_is_the_number_that_kernels_multiply_by():
    for dtype, wanted in ((torch.float64, 0.01), (torch.float32, float(np.float32(0.01)))):
        model = nn.Sequential(nn.Linear(1, 1), nn.LeakyReLU(0.01), nn.Linear(1, 1)).to(dtype)
        exact = to_any_network(model)
        assert isinstance(exact, PiecewiseNetwork)
        assert exact.activations[0].slope.tolist() == [wanted]
        value = model[1](torch.tensor([-1.0], dtype=dtype))
        assert value.item() == -wanted
    assert replace(exact, notes=()).digest == exact.digest
