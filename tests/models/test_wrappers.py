"""Wrappers around a model, and models that are referred to another command."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import attack, audit, certify
from exan_verify.errors import UnsupportedLayerError
from exan_verify.models.chain import to_network
from exan_verify.models.pictures.graph import to_convolutional
from tests.support.torch_reference import autograd, perceptron


class TestWrappers:
    """Modules around a model that compute the same function are taken off, and said."""

    @staticmethod
    def wrapped() -> dict[str, tuple[nn.Module, str]]:
        class GradSampleModule(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self._module = inner

            def forward(self, *args: Any, **kwargs: Any) -> Any:
                return self._module(*args, **kwargs)

        return {
            "DataParallel": (nn.DataParallel(small()), "DataParallel"),
            "compile": (torch.compile(small(), backend="eager"), "OptimizedModule"),
            "opacus": (GradSampleModule(small()), "GradSampleModule"),
            "both": (
                torch.compile(GradSampleModule(nn.DataParallel(small())), backend="eager"),
                "DataParallel",
            ),
        }

    def test_they_are_taken_off_by_every_door(self):
        plain = to_network(small())
        x, y = np.eye(5)[:2], [0, 1]
        grads = autograd(small(), torch.as_tensor(x), torch.as_tensor(y))
        for model, name in self.wrapped().values():
            assert to_network(model) == plain
            assert f"the wrapper {name} was taken off the model" in to_network(model).notes
            prefixed = dict(zip(dict(model.named_parameters()), grads.values(), strict=True))
            for given in (grads, prefixed, list(grads.values())):
                found = attack(model, given, batch_size=2)
                assert found.complete
                assert any(name in note for note in found.notes)
            for verdict in (certify(model, batch=(x, y)), audit(model, (x, y))):
                assert any(name in note for note in verdict.notes)

    def test_distributed(self, tmp_path: Path):
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
        )
        try:
            model = nn.parallel.DistributedDataParallel(small())
            assert to_network(model) == to_network(small())
        finally:
            torch.distributed.destroy_process_group()

    def test_convolutions_in_a_wrapper(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
        assert to_convolutional(nn.DataParallel(model)).input_shape == to_convolutional(model).input_shape

    def test_a_module_that_does_more_than_hand_on_is_no_wrapper(self):
        class Doubles(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self._module = small()

            def forward(self, x: Any) -> Any:
                return self._module(2 * x)

        network = to_network(Doubles())
        assert network != to_network(small())
        assert [layer.name for layer in network.layers] == ["_module.0", "_module.2"]

    def test_scripted_modules_are_refused_with_a_remedy(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models = [torch.jit.script(small()), torch.jit.trace(small(), torch.zeros(1, 5).double())]
        for model in models:
            for ask in (
                lambda m: certify(m, batch=(np.zeros((1, 5)), [0])),
                lambda m: audit(m, (np.zeros((1, 5)), [0])),
                lambda m: attack(m, {"0.weight": np.ones((40, 5))}),
            ):
                with pytest.raises(UnsupportedLayerError, match="pass the module that it was scripted"):
                    ask(model)


def test_convolutions_are_referred_to_the_attack():
    for layer in (nn.Conv2d(1, 1, 3), nn.MaxPool2d(2), nn.BatchNorm2d(1).eval()):
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 2))
        for ask in (certify, audit):
            with pytest.raises(UnsupportedLayerError, match=r"attack and audit|exan_verify\.attack"):
                ask(model, batch=(np.zeros((1, 4)), [0]))


def small() -> nn.Sequential:
    return perceptron(5, 40, 3, seed=3).double()
