"""Files come in exactly, or are refused with their name, culprit and remedy; outputs are never half."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch
from torch import nn

from exan_verify.api.files import (
    load_batch,
    load_gradient,
    load_model,
    save_batch,
    save_gradient,
    write_atomically,
)
from exan_verify.core.network import Gradient
from exan_verify.errors import (
    ExanError,
    FileError,
    InputError,
    NonFiniteError,
    PickleRefusedError,
    ShapeError,
    UnsupportedLayerError,
)
from tests.support.torch_reference import initialised


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# ---- models -----------------------------------------------------------------------------------------------


def test_a_sequential_state_dict_comes_back_in_the_order_of_its_numbers(tmp_path: Path):
    model = mlp(3, *[4] * 6, 2)  # layers 0, 2, ..., 12: as text, "10" sorts before "2"
    save_torch(model.state_dict(), tmp_path / "m.safetensors")
    network = load_model(tmp_path / "m.safetensors")
    assert [layer.name for layer in network.layers] == ["0", "2", "4", "6", "8", "10", "12"]
    for (_, stored), parameter in zip(network.parameters(), model.parameters(), strict=True):
        assert np.array_equal(stored, parameter.detach().numpy())


def test_other_names_are_ordered_by_number_or_by_width(tmp_path: Path):
    def saved(**layers: tuple[int, int]) -> Path:
        save_file(
            {f"{n}.weight": np.ones(s, np.float32) for n, s in layers.items()}, tmp_path / "m.safetensors"
        )
        return tmp_path / "m.safetensors"

    names = lambda network: [layer.name for layer in network.layers]  # noqa: E731
    assert names(load_model(saved(fc10=(2, 2), fc9=(2, 2)))) == ["fc9", "fc10"]
    assert names(load_model(saved(head=(2, 5), body=(5, 3)))) == ["body", "head"]
    assert not load_model(saved(head=(2, 5), body=(5, 3))).has_bias
    with pytest.raises(
        ShapeError, match=r"m\.safetensors: the order .* more than one order; name them 0, 2, 4"
    ):
        load_model(saved(a=(4, 4), b=(4, 4)))
    with pytest.raises(ShapeError, match="no order"):
        load_model(saved(a=(4, 3), b=(2, 7)))
    with pytest.raises(ShapeError, match="layer '2' takes 7 inputs but layer '0' gives 4"):
        load_model(saved(**{"0": (4, 3), "2": (2, 7)}))


def test_bfloat16_and_float16_models_keep_their_values(tmp_path: Path):
    model = mlp(3, 4, 2).to(torch.bfloat16)
    save_torch(model.state_dict(), tmp_path / "m.safetensors")
    for (_, stored), parameter in zip(
        load_model(tmp_path / "m.safetensors").parameters(), model.parameters(), strict=True
    ):
        assert np.array_equal(stored, parameter.detach().float().numpy())


def test_tensors_of_other_layers_are_refused_together(tmp_path: Path):
    save_file(
        {
            "0.weight": np.ones((2, 3, 1, 1), np.float32),
            "1.running_mean": np.ones(3, np.float32),
            "4.bias": np.ones(1),
        },
        tmp_path / "m.safetensors",
    )
    with pytest.raises(UnsupportedLayerError, match="3 problems") as caught:
        load_model(tmp_path / "m.safetensors")
    for culprit in ("'0.weight'", "'1.running_mean'", "'4.bias'", "m.safetensors:"):
        assert culprit in str(caught.value)


FACTORY = """
import torch
def make():
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
value = 3
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield "some_models"
    sys.modules.pop("some_models", None)


def test_a_factory_with_weights_keeps_the_stored_dtype(factory: str, tmp_path: Path):
    assert load_model(f"{factory}:make").widths == (3, 4, 2)
    model = initialised(mlp(3, 4, 2).double())  # not representable in the factory's float32
    save_torch(model.state_dict(), tmp_path / "w.safetensors")
    network = load_model(f"{factory}:make", tmp_path / "w.safetensors")
    for (_, stored), parameter in zip(network.parameters(), model.parameters(), strict=True):
        assert np.array_equal(stored, parameter.detach().numpy())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:make", "no_such_module:make: the module 'no_such_module' cannot be imported"),
        ("some_models:other", "no attribute 'other'"),
        ("some_models:value", "'value' is a int; name a function"),
    ],
)
def test_factories_that_are_none_are_refused(factory: str, name: str, message: str):
    with pytest.raises(ExanError, match=message):
        load_model(name)


def test_weights_that_do_not_fit_are_all_listed(factory: str, tmp_path: Path):
    save_file({"0.weight": np.ones((4, 9), np.float32), "x": np.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ShapeError) as caught:
        load_model(f"{factory}:make", tmp_path / "w.safetensors")
    for culprit in ("'0.bias' is missing", "'x' belongs to no", "shape (4, 9), the model's has (4, 3)"):
        assert culprit in str(caught.value)
    with pytest.raises(InputError, match="--weights goes with a factory"):
        load_model(tmp_path / "w.safetensors", tmp_path / "w.safetensors")


# ---- gradients --------------------------------------------------------------------------------------------


def test_exact_gradients_survive_a_round_trip(tmp_path: Path):
    tensors = {"0.weight": [[Fraction(1, 3), Fraction(-2)]], "0.bias": [Fraction(10**40, 7)]}
    save_gradient(tmp_path / "g.json", tensors)
    loaded = load_gradient(tmp_path / "g.json")
    assert loaded == Gradient(tensors=tensors)
    assert loaded.rational


def test_the_json_format_is_as_documented(tmp_path: Path):
    (tmp_path / "g.json").write_text('{"0.weight": [["1/3", 2], ["-5", "-7/2"]]}')
    gradient = load_gradient(tmp_path / "g.json")
    assert gradient == Gradient(tensors={"0.weight": [[Fraction(1, 3), 2], [-5, Fraction(-7, 2)]]})
    save_gradient(tmp_path / "h.json", gradient.tensors)
    text = json.loads((tmp_path / "h.json").read_text())
    assert text == {"schema": "exan/gradient/1", "tensors": {"0.weight": [["1/3", "2"], ["-5", "-7/2"]]}}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_floating_point_gradients_keep_their_values_and_say_so(tmp_path: Path, suffix: str):
    value = np.array([[0.1, 2.0**-60]])
    save_gradient(tmp_path / f"g{suffix}", {"0.weight": value})
    loaded = load_gradient(tmp_path / f"g{suffix}")
    assert np.array_equal(loaded.tensors["0.weight"], value)
    assert not loaded.rational
    with pytest.raises(InputError, match=r"Fractions.*\.json"):
        save_gradient(tmp_path / f"h{suffix}", {"a": np.array([Fraction(1, 3)], dtype=object)})


def test_bfloat16_keeps_its_dtype_in_safetensors_and_is_refused_elsewhere(tmp_path: Path):
    half = torch.tensor([[0.1, -(2.0**-40)], [3.0, 1e30]]).bfloat16()
    shared = {
        "0.weight": half.T.requires_grad_(),
        "0.bias": half[0],
        "same": half[0],
        "1.weight": np.array([0.1, 2.0**-60]),
    }
    save_gradient(tmp_path / "g.safetensors", shared)
    stored = load_torch(tmp_path / "g.safetensors")
    assert stored["0.weight"].dtype == stored["0.bias"].dtype == torch.bfloat16
    assert stored["1.weight"].dtype == torch.float64
    loaded = load_gradient(tmp_path / "g.safetensors")
    for name, value in shared.items():
        assert np.array_equal(loaded.tensors[name], torch.as_tensor(value).detach().double().numpy())
    with pytest.raises(InputError, match=r"g\.npz: 0\.weight is bfloat16.*write to \.safetensors, or pass"):
        save_gradient(tmp_path / "g.npz", shared)
    with pytest.raises(InputError, match=r"Fractions.*\.json"):
        save_gradient(tmp_path / "h.safetensors", shared | {"a": np.array([Fraction(1, 3)], dtype=object)})
    assert os.listdir(tmp_path) == ["g.safetensors"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "must be an object"),
        ('{"a": [0.5]}', r'a contains 0\.5; write exact numbers as integers or "num/den"'),
        ('{"a": ["0.5"]}', "a contains '0.5'"),
        ('{"a": ["1/0"]}', "a contains '1/0'"),
        ('{"a": [true]}', "a contains True"),
        ('{"a": [[1], [1, 2]]}', "a is not a rectangular"),
        ('{"schema": "exan/gradient/9", "tensors": {}}', "'exan/gradient/9'; this version reads"),
        ('{"schema": "exan/gradient/1", "tensors": {}}', "no tensors"),
    ],
)
def test_json_that_is_no_exact_gradient_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "g.json").write_text(text)
    with pytest.raises(ExanError, match=message) as caught:
        load_gradient(tmp_path / "g.json")
    assert str(caught.value).startswith(f"{tmp_path / 'g.json'}: ")


# ---- batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_batches_survive_a_round_trip(tmp_path: Path, suffix: str):
    x, y = np.random.default_rng(0).random((3, 1, 2, 2), dtype=np.float32), np.array([2, 0, 1])
    save_batch(tmp_path / f"b{suffix}", torch.tensor(x), y)
    loaded = load_batch(tmp_path / f"b{suffix}")
    assert np.array_equal(loaded[0], x)
    assert np.array_equal(loaded[1], y)


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ({"x": np.ones((2, 3))}, FileError, r"no array 'y' \(there are: x\)"),
        ({"images": np.ones((2, 3))}, FileError, "no array 'x' and no array 'y'"),
        ({"x": np.array([[1, np.nan]]), "y": np.zeros(1)}, NonFiniteError, r"x contains NaN .*\(0, 1\)"),
        ({"x": np.ones((2, 3)), "y": np.array([0, np.inf])}, NonFiniteError, "y contains NaN"),
        ({"x": np.ones((2, 3)), "y": np.zeros(3)}, ShapeError, r"y has shape \(3,\) but x has 2 samples"),
        ({"x": np.ones(3), "y": np.zeros(3)}, ShapeError, r"x has shape \(3,\)"),
        ({"x": np.ones((0, 3)), "y": np.zeros(0)}, ShapeError, "at least one sample"),
        ({"x": np.ones((1, 2), complex), "y": np.zeros(1)}, InputError, "complex128"),
    ],
)
def test_batches_that_are_none_are_refused(tmp_path: Path, arrays: dict, kind: type[ExanError], message: str):
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(kind, match=message) as caught:
        load_batch(tmp_path / "b.npz")
    assert str(caught.value).startswith(f"{tmp_path / 'b.npz'}: ")


# ---- damaged files and pickles ----------------------------------------------------------------------------


def test_truncated_and_foreign_files_are_refused(tmp_path: Path):
    save_batch(tmp_path / "good.safetensors", np.ones((4, 5)), np.zeros(4))
    save_batch(tmp_path / "good.npz", np.random.default_rng(0).random((40, 50)), np.zeros(40))
    for suffix in ("safetensors", "npz"):
        content = (tmp_path / f"good.{suffix}").read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 255
        damaged = [b"", b"hello, I am text", content[: len(content) // 2], content[:-1]]
        for bad in damaged + ([bytes(flipped)] if suffix == "npz" else []):
            (tmp_path / f"bad.{suffix}").write_bytes(bad)
            with pytest.raises(FileError, match=rf"bad\.{suffix}: not a whole \.{suffix} file"):
                load_batch(tmp_path / f"bad.{suffix}")
    np.save(tmp_path / "bare.npy", np.ones(3))
    (tmp_path / "bare.npy").rename(tmp_path / "bare.npz")
    with pytest.raises(FileError, match="not a whole"):
        load_batch(tmp_path / "bare.npz")


def test_missing_files_and_unknown_formats_are_refused(tmp_path: Path):
    for load in (load_batch, load_gradient, load_model):
        for suffix in ("npz", "safetensors"):
            with pytest.raises(FileError, match=rf"none\.{suffix}: cannot be read \(No such file"):
                load(tmp_path / f"none.{suffix}")
    (tmp_path / "b.csv").write_text("1,2")
    with pytest.raises(FileError, match=r"b\.csv: the format \.csv is not known; use \.safetensors or \.npz"):
        load_batch(tmp_path / "b.csv")
    save_batch(tmp_path / "m.npz", np.ones((1, 1)), np.ones(1))
    with pytest.raises(FileError, match=r"use \.safetensors, \.onnx, or a factory"):
        load_model(tmp_path / "m.npz")
    with pytest.raises(FileError, match="cannot be read"):
        load_gradient(tmp_path / "none.json")


def test_pickles_are_refused_whatever_their_name_and_never_run(tmp_path: Path):
    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "ran"),))

    state = {"0.weight": torch.ones(2, 2)}
    for name in ("m.pt", "m.pth", "m.safetensors", "m.npz"):
        torch.save(state, tmp_path / name)
        with pytest.raises(PickleRefusedError, match=r"is a pickle.*\n  python -c"):
            load_model(tmp_path / name)
    for protocol in (2, 5):
        (tmp_path / "g.npz").write_bytes(pickle.dumps(Evil(), protocol))
        with pytest.raises(PickleRefusedError, match="is a pickle"):
            load_gradient(tmp_path / "g.npz")
    np.savez(tmp_path / "b.npz", x=np.array([Evil()], dtype=object), y=np.zeros(1))
    with pytest.raises(PickleRefusedError, match="store plain numbers"):
        load_batch(tmp_path / "b.npz")
    assert not (tmp_path / "ran").exists()


def test_the_line_that_converts_a_pickle_works(tmp_path: Path):
    model = mlp(3, 4, 2)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    with pytest.raises(PickleRefusedError) as caught:
        load_model(tmp_path / "m.pt")
    command = str(caught.value).splitlines()[1].strip().replace("python ", f"{sys.executable} ", 1)
    subprocess.run(command, shell=True, check=True)
    assert load_model(tmp_path / "m.safetensors").widths == (3, 4, 2)


def test_a_header_length_that_looks_like_a_pickle_is_none(tmp_path: Path):
    for padding in range(200):  # header lengths 640, 896, ... begin with the bytes 0x80 2, 0x80 3, ...
        save_file({"x" * (500 + padding): np.ones(1)}, tmp_path / "h.safetensors")
        if (tmp_path / "h.safetensors").read_bytes()[:2] == b"\x80\x02":
            break
    else:
        pytest.fail("no header of length 640 was made")
    with pytest.raises(FileError, match="there is no array 'x'"):
        load_batch(tmp_path / "h.safetensors")


# ---- writing ----------------------------------------------------------------------------------------------


def test_outputs_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "out.bin"
    write_atomically(target, b"first")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FileError, match=r"out\.bin: cannot be written \(No space left"):
        write_atomically(target, b"second")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b"third")
    assert target.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["out.bin"]


def test_outputs_have_ordinary_rights_and_unwritable_places_are_named(tmp_path: Path):
    previous = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    with pytest.raises(FileError, match=r"nowhere/a: cannot be written"):
        write_atomically(tmp_path / "nowhere" / "a", b"")
    with pytest.raises(FileError, match=r"a\.csv: cannot write the format \.csv"):
        save_batch(tmp_path / "a.csv", np.ones((1, 1)), np.ones(1))
    with pytest.raises(FileError, match="cannot be written"):
        write_atomically(tmp_path, b"")


def test_reading_a_model_does_not_import_torch(tmp_path: Path):
    save_torch(mlp(3, 4, 2).state_dict(), tmp_path / "m.safetensors")
    code = (
        "import sys, exan_verify.api.files as e; e.load_model(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.safetensors")], check=True)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "_module.model."])
def test_prefixes_of_wrappers_are_left_out_of_a_state_dict(prefix: str, factory: str, tmp_path: Path):
    state = initialised(mlp(3, 4, 2)).state_dict()
    save_torch({f"{prefix}{name}": value for name, value in state.items()}, tmp_path / "m.safetensors")
    network = load_model(tmp_path / "m.safetensors")
    assert [layer.name for layer in network.layers] == ["0", "2"]
    assert network.notes[1] == f"prefix {prefix!r} of the file's names left out: a wrapper puts it there"
    assert load_model(f"{factory}:make", tmp_path / "m.safetensors") == network
    save_file({f"{prefix}a.weight": np.ones((4, 3)), "b.weight": np.ones((2, 4))}, tmp_path / "m.safetensors")
    assert [layer.name for layer in load_model(tmp_path / "m.safetensors").layers] == [f"{prefix}a", "b"]
