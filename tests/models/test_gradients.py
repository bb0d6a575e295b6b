"""Gradients as they come: one normalisation for every door, with a line that says what was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Box, Gradient, Outcome, ReluNetwork, attack, audit, certify, check
from exan_verify.errors import GradientError, InputError, MemoryLimitError, ShapeError
from exan_verify.models.chain import to_network
from exan_verify.models.gradients import received
from tests.support.torch_reference import autograd, perceptron, uniform

pytestmark = pytest.mark.filterwarnings("ignore:Sparse", "ignore:The (sparse|given)")


def network(seed: int = 0) -> nn.Sequential:
    return perceptron(6, 40, 3, seed=seed).double()


def gradient(model: nn.Module, samples: int = 3, seed: int = 1) -> dict[str, torch.Tensor]:
    y = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, samples))
    return autograd(model, uniform(samples, 6, seed=seed), y)


BUFFERS = {
    "1.num_batches_tracked": torch.tensor(7),
    "1.running_mean": torch.zeros(40),
    "1.running_var": torch.ones(40),
}

FORMS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "list": (lambda g: list(g.values()), "in the order of the model's parameters"),
    "tuple": (lambda g: tuple(g.values()), "in the order of the model's parameters"),
    "sparse": (lambda g: g | {"0.weight": g["0.weight"].to_sparse()}, "'0.weight' given sparse"),
    "sparse rows": (lambda g: g | {"2.weight": g["2.weight"].to_sparse_csr()}, "'2.weight' given sparse"),
    "buffers": (lambda g: BUFFERS | g, "left out: buffers"),
    "module.": (lambda g: {f"module.{k}": v for k, v in g.items()}, "'module.' of the gradient's names"),
    "_orig_mod.": (lambda g: {f"_orig_mod.{k}": v for k, v in g.items()}, "'_orig_mod.' of the gradient's"),
    "_module.": (lambda g: {f"_module.{k}": v for k, v in g.items()}, "'_module.' of the gradient's"),
    "two wrappers": (
        lambda g: {f"module._orig_mod.{k}": v for k, v in (BUFFERS | g).items()},
        "'module._orig_mod.' of the gradient's",
    ),
    "needs a gradient": (lambda g: {k: v.clone().requires_grad_() for k, v in g.items()}, ""),
    "numpy": (lambda g: {k: v.numpy() for k, v in g.items()}, ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_taken_by_every_door(form: str):
    model = network()
    plain = gradient(model)
    make, says = FORMS[form]
    given = make(plain)
    found = attack(model, given, batch_size=3)
    assert found.complete
    assert torch.equal(found.x, attack(model, plain, batch_size=3).x)
    options = {"tolerance": 1e-9, "batch_size": 3, "engine": "exact"}
    verdict = certify(model, gradient=given, **options)
    assert verdict.outcome is certify(model, gradient=plain, **options).outcome
    if verdict.certificate is not None:
        check(verdict.certificate, model, gradient=given)
        check(verdict.certificate, model, gradient=plain)
    for notes in (found.notes, verdict.notes):
        assert sum(says in note for note in notes) == 1 if says else notes == ()


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_of_forms_is_the_same_gradient(seed: int):
    rng = np.random.default_rng(seed)
    model = network(seed)
    plain = gradient(model)
    prefix = "".join(rng.choice(["module.", "_orig_mod.", "_module."], rng.integers(0, 4)))
    given: dict[str, Any] = {
        f"{prefix}{name}": value.to_sparse() if rng.random() < 0.4 else value for name, value in plain.items()
    }
    if rng.random() < 0.5:
        given |= {f"{prefix}{name}": value for name, value in BUFFERS.items()}
    order = rng.permutation(list(given))
    taken = received({name: given[name] for name in order}, model)
    assert taken == Gradient(tensors=plain)
    assert len(taken.notes) <= 3


def test_the_model_may_have_the_prefix():
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = network()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.module(x)

    plain = gradient(network())
    taken = received(plain, Wrapped())
    assert list(taken.tensors) == [f"module.{name}" for name in plain]
    assert taken.notes == ("prefix 'module.' of the model's names left out: a wrapper puts it there",)
    inner = to_network(network())
    renamed = ReluNetwork.from_arrays(
        [layer.weight for layer in inner.layers],
        [layer.bias for layer in inner.layers],
        names=["_orig_mod.0", "_orig_mod.2"],
    )
    assert attack(renamed, plain, batch_size=3).complete


def test_a_list_is_in_the_order_of_the_module_not_of_its_forward():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(40, 3).double()
            self.first = nn.Linear(6, 40).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.first(x)))

    model, inner = Backwards(), network()
    model.first.load_state_dict(inner[0].state_dict())
    model.last.load_state_dict(inner[2].state_dict())
    grads = list(gradient(model).values())
    found = attack(model, grads, batch_size=3)
    assert found.complete
    verdict = certify(model, gradient=grads, tolerance=1e-9, batch_size=3, engine="exact")
    assert any("'last.weight', 'last.bias', 'first.weight'" in note for note in verdict.notes)


def test_none_is_a_missing_tensor():
    model = network()
    given = gradient(model) | {"2.bias": None}
    with pytest.raises(GradientError, match=r"'2.bias' of shape \(3,\) is missing.*partial=True"):
        attack(model, given, batch_size=3)
    found = attack(model, given, batch_size=3, partial=True)
    assert found.missing == ("2.bias",)
    assert any("'2.bias' given as None" in note for note in found.notes)
    with pytest.raises(GradientError, match="missing"):
        certify(model, gradient=given, tolerance=1e-9)
    with pytest.raises(GradientError, match="no tensors"):
        attack(model, dict.fromkeys(given), partial=True)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([torch.zeros(1)], "a list of 1 tensors, the model has 4 parameters"),
        (iter([]), "a list_iterator"),
        ("0.weight", "'0.weight'"),
        (3, "gradient is 3"),
        (None, "give either batch|gradient is missing"),
        ({}, "no tensors"),
        ({"0.weight": torch.zeros(40, 6), "module.0.weight": torch.zeros(40, 6)}, "give each one once"),
        (
            {"0.weight": torch.sparse_coo_tensor(size=(10**6, 10**6), check_invariants=True)},
            "is sparse, of shape",
        ),
        ({"0.weight": torch.zeros(40, 6, device="meta")}, "not an array of numbers"),
        ({"0.weight": torch.zeros(40, 6, dtype=torch.complex128)}, "complex128"),
        ({"0.weight": np.full((40, 6), "1")}, "dtype <U1"),
        ({"0.weight": [["1"] * 6] * 40}, "not a number"),
        ({"0.weight": np.array([object()] * 240).reshape(40, 6)}, "not a number"),
        ({"0.weight": [[1.0], [1.0, 2.0]]}, "contains a list"),
        ({"0.weight": torch.full((40, 6), float("nan"))}, "NaN"),
    ],
)
def test_what_is_no_gradient_is_refused(given: Any, says: str):
    for ask in (
        lambda: attack(network(), given, partial=True),
        lambda: certify(network(), gradient=given, tolerance=1e-9),
    ):
        with pytest.raises(InputError, match=says):
            ask()


def test_an_integer_scalar_beside_the_tensors():
    with pytest.raises(GradientError, match="'count' belongs to no parameter"):
        attack(network(), gradient(network()) | {"count": torch.tensor(3)})


def test_exact_entries_keep_their_values():
    taken = received({"0.weight": [[2**60 + 1, 0.5]]}, ReluNetwork.from_arrays([[[1, 1]]]))
    assert int(taken.tensors["0.weight"][0, 0]) == 2**60 + 1
    assert not Gradient(tensors={"0.weight": np.array([[0.5]], dtype=object)}).rational
    assert Gradient(tensors={"0.weight": np.array([[1, 2]], dtype=np.int8)}).rational
    least = Gradient(tensors={"0.weight": np.array([[-128]], dtype=np.int8)})
    assert float(least.tensors["0.weight"][0, 0]) == -128


BAD_OPTIONS: list[tuple[str, list[Any]]] = [
    ("batch_size", [0, -1, 2.0, True, "3", 10**30, np.array([3]), 1e300]),
    ("seed", [-1, 0.5, "0", True, 2**64, None]),
    ("loss", ["l2", 3, None, ["mse"], np.zeros(2)]),
    ("reduction", ["none", 3, None, {}]),
    ("labels", ["soft", 3, None, []]),
]
BAD_OF_CERTIFY = [
    ("budget", [0, -1, float("nan"), float("inf"), "3", True, 1j]),
    ("work_limit", [0, -1, 1.5, "3", True]),
    ("jobs", [0, -1, 1.5, "3", True, 10**9]),
    ("domain", ["categorical", (0, 1), 3, Box]),
    ("engine", ["guess", 3, None, ["auto"], np.zeros(2)]),
    ("tolerance", [float("inf"), float("nan"), -1, 0, "1e-6", True, 1j]),
    ("exact", ["yes", 1, None]),
]
BAD_OF_ATTACK = [
    ("method", ["guess", 3, None, []]),
    ("partial", ["yes", 1, None]),
    ("repairs", ["no", 0]),
    ("device", ["gpu", "cuda", 7, 1.5, "meta", "", object()]),
    ("progress", [3, "told"]),
    ("picture_iterations", [-1, 1.5, "3"]),
]


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in (*BAD_OPTIONS, *BAD_OF_CERTIFY) for v in values]
)
def test_certify_refuses_options_by_name(name: str, value: Any):
    options = {"tolerance": 1e-9} | {name: value}
    if name == "exact":
        del options["tolerance"]
    with pytest.raises(InputError, match=name):
        certify(network(), gradient=gradient(network()), **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (n, v)
        for n, values in (*BAD_OPTIONS, *BAD_OF_ATTACK)
        for v in values
        if not (n == "device" and v in ("cuda", 7) and torch.cuda.is_available())
    ],
)
def test_attack_refuses_options_by_name(name: str, value: Any):
    with pytest.raises(InputError, match=name):
        attack(network(), gradient(network()), **{name: value})


BAD_INPUTS: list[Any] = [
    np.zeros(6),
    np.zeros((2, 7)),
    np.zeros((0, 6)),
    np.zeros((2, 0)),
    np.zeros((2, 6), dtype=complex),
    np.full((2, 6), "1"),
    np.array([[object()] * 6] * 2),
    [["1e300000000"] * 6] * 2,
    np.full((2, 6), np.inf),
    np.ma.masked_equal(np.eye(6)[:2], 1),
    torch.zeros(2, 6, device="meta"),
    torch.zeros(2, 6, dtype=torch.complex64),
    3.0,
    "x",
    None,
    [[0.0] * 6, [0.0] * 5],
    [[10**400] * 5 + [0.5], [float("nan")] * 6],
]
GOOD_INPUTS: list[Any] = [
    np.zeros((2, 6), dtype=np.int8),
    np.full((2, 6), -128, dtype=np.int8),
    np.full((2, 6), 2**64 - 1, dtype=np.uint64),
    np.zeros((2, 6), dtype=bool),
    torch.zeros(2, 6, requires_grad=True),
    torch.zeros(2, 6, dtype=torch.bfloat16),
    torch.zeros(2, 6).to_sparse(),
    torch.zeros(2, 2, 3),
    [[0, 1, 2, 3, 4, 0.5]] * 2,
]
BAD_LABELS: list[Any] = [
    torch.tensor(1),
    1,
    None,
    [0, 3],
    [0, -1],
    [0.0, 0.5],
    [0.0, float("nan")],
    ["0", "1"],
    [[0], [1]],
    [0, 1, 2],
    np.zeros(2, dtype=complex),
    torch.zeros(2, device="meta"),
]


@pytest.mark.parametrize("ask", [certify, audit])
def test_batches_that_are_none(ask: Any):
    pairs = [(x, [0, 1]) for x in BAD_INPUTS] + [(np.eye(6)[:2], y) for y in BAD_LABELS]
    whole = [
        None,
        3,
        "xy",
        (np.eye(6)[:2],),
        (np.eye(6)[:2], [0, 1], [2]),
        {"x": 0, "y": 1},
        np.zeros((2, 6)),
    ]
    for batch in [*pairs, *whole]:
        with pytest.raises(InputError):
            ask(network(), batch=batch)


def test_a_single_sample_with_a_label_without_a_dimension():
    for y in (torch.tensor(1), np.int64(1), 1):
        with pytest.raises(ShapeError, match="one label per sample"):
            certify(network(), batch=(np.ones((1, 6)), y))


def test_batches_of_every_kind_of_number():
    for x in GOOD_INPUTS:
        for y in ([0, 1], [0.0, 1.0], np.array([0, 1], dtype=np.uint8), torch.tensor([0, 1]).to_sparse()):
            assert certify(network(), batch=(x, y), engine="lifting").samples


def test_boxes_that_are_none():
    for low, high in [(1, 0), (0, "1"), ([0, 0], [1, 1, 1]), ([[0]], 1), (0, None), (float("nan"), 1)]:
        with pytest.raises(InputError, match="Box"):
            Box(low, high)
    with pytest.raises(InputError, match="Box"):
        certify(network(), batch=(np.zeros((1, 6)), [0]), domain=Box([0, 0], [1, 1]))


def test_what_does_not_fit_into_memory_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("exan_verify.core.network.memory_available", lambda: 10_000_000)
    for ask in (certify, audit):
        with pytest.raises(MemoryLimitError, match=r"2000 samples of a 6-40-3 .*at most 1275 samples"):
            ask(network(), batch=(np.zeros((2000, 6)), np.zeros(2000)))


def test_an_allocation_that_fails_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch):
    def numpy_fails(*_: Any, **__: Any) -> Any:
        np.zeros((1 << 50,))

    def torch_fails(*_: Any, **__: Any) -> Any:
        torch.zeros(1 << 50)

    def asked() -> Any:
        return certify(network(), batch=(np.zeros((1, 6)), [0]))

    def audited() -> Any:
        return audit(network(), (np.zeros((1, 6)), [0]))

    def attacked() -> Any:
        return attack(network(), gradient(network()))

    for fails in (numpy_fails, torch_fails):
        monkeypatch.setattr("exan_verify.decide.pipeline._given_batch", fails)
        monkeypatch.setattr("exan_verify.numeric.attack.run", fails)
        for ask in (attacked,) if fails is numpy_fails else (asked, audited, attacked):
            with pytest.raises(MemoryLimitError, match=r"needs more memory than there is .*smaller batch"):
                ask()
    # where an engine runs out of it, the question is undecided
    monkeypatch.setattr("exan_verify.decide.pipeline._given_batch", numpy_fails)
    for verdict in (asked(), audited().verdict):
        assert verdict.outcome is Outcome.UNKNOWN
        assert "memory" in verdict.reason
