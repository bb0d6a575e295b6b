"""Whatever bytes a file has, its reader returns or raises an error of ours: nothing else, and soon."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from exan_verify.api.files import load_batch, load_gradient, load_model
from exan_verify.errors import ExanError

pytestmark = pytest.mark.filterwarnings("ignore")

SHARE, CAMPAIGN = 60, 20_000
TOKENS = (
    *(b"", b"\x00", b"\xff" * 8, b"\x80\x04", b"PK\x03\x04", b"{", b"[" * 2000, b'"', b"\\ud800", b"NaN"),
    *(b"1e300000000", b"9" * 5000, b"1/0", b"-", b"null", b"(99999999999, 99999999)", b"|O8", b"<c16"),
    *(b"F8_E4M3", b"BF16", b"I64", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"descr", b"'shape': (-1,)"),
)


def tensors(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "0.weight": rng.normal(size=(4, 3)).astype(np.float32),
        "0.bias": rng.normal(size=4).astype(np.float32),
        "2.weight": rng.normal(size=(2, 4)).astype(np.float32),
        "2.bias": rng.normal(size=2).astype(np.float32),
    }


def npz(rng: np.random.Generator, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    (np.savez if rng.random() < 0.5 else np.savez_compressed)(stream, **arrays)
    return stream.getvalue()


def exact_json(rng: np.random.Generator) -> bytes:
    exact = {name: [str(v) for v in value.ravel()] for name, value in tensors(rng).items()}
    values = {name: [f"{int(1e6 * float(v))}/7" for v in entries] for name, entries in exact.items()}
    return json.dumps({"schema": "exan/gradient/1", "tensors": values}).encode()


def onnx(rng: np.random.Generator) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    given = tensors(rng)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["a"], transB=1),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Gemm", ["b", "2.weight", "2.bias"], ["y"], transB=1),
        ],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 2])],
        [numpy_helper.from_array(value, name) for name, value in given.items()],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def batch(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": rng.normal(size=(3, 3)), "y": rng.integers(0, 2, 3)}


FORMATS: dict[str, tuple[Callable[[np.random.Generator], bytes], Callable[[Path], Any]]] = {
    "model.safetensors": (lambda rng: save(tensors(rng)), load_model),
    "model.onnx": (onnx, load_model),
    "gradient.safetensors": (lambda rng: save(tensors(rng)), load_gradient),
    "gradient.npz": (lambda rng: npz(rng, **tensors(rng)), load_gradient),
    "gradient.json": (exact_json, load_gradient),
    "batch.npz": (lambda rng: npz(rng, **batch(rng)), load_batch),
    "batch.safetensors": (lambda rng: save(batch(rng)), load_batch),
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, a part cut out, doubled or replaced by what means something in some format."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        at, kind = int(rng.integers(len(data))), rng.integers(6)
        end = min(len(data), at + int(rng.integers(1, 40)))
        if kind == 0:
            data[at] = rng.integers(256)
        elif kind == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end]
        elif kind == 4:
            data[at:end] = TOKENS[rng.integers(len(TOKENS))]
        else:
            del data[at:]
    return bytes(data)


def read(name: str, content: bytes, folder: Path) -> str:
    """What became of a file: ``read``, or the kind of error; anything but an error of ours goes up."""
    path = folder / name
    path.write_bytes(content)
    try:
        FORMATS[name][1](path)
    except ExanError as error:
        return type(error).__name__ if str(error) else "an error without a word"
    return "read"


def fuzz(name: str, draws: range, folder: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in draws:
        rng = np.random.default_rng(seed)
        counts[read(name, mutated(FORMATS[name][0](rng), rng), folder)] += 1
    return counts


@pytest.mark.parametrize("name", FORMATS)
def test_changed_files(name: str, tmp_path: Path):
    assert read(name, FORMATS[name][0](np.random.default_rng(0)), tmp_path) == "read"
    counts = fuzz(name, range(SHARE), tmp_path)
    assert len(counts) > 1, "some are still whole enough, or broken in several ways"


@pytest.mark.campaign
@pytest.mark.parametrize("name", FORMATS)
def test_many_changed_files(name: str, tmp_path: Path):
    print(name, dict(fuzz(name, range(SHARE, SHARE + CAMPAIGN), tmp_path)))


def one_npz(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str, shape: list[int], end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


def header(descr: str = "'<f8'", shape: str = "(1,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


CROOKED: dict[str, list[bytes]] = {
    "gradient.json": [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"0.weight": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"0.weight": ' + b"[" * 70 + b"1" + b"]" * 70 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"schema": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"0.weight": [{"a": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"0.weight": [' + b"9" * 3_000_000 + b"]}",
        b'{"0.weight": ["' + b"9" * 3_000_000 + b'"]}',
        b'{"0.weight": ["1e300000000"]}',
        b'{"0.weight": [1e300000000]}',
        b'{"0.weight": ["1/0000"]}',
        b'{"0.weight": [true]}',
        b'{"0.weight": NaN}',
        b'{"0.weight": [[1], [1, 2]]}',
        b'{"0.weight": []}',
        b'{"tensors": {"0.weight": [1]}}',
        b'{"schema": "exan/gradient/1", "tensors": [1]}',
        b"\xff\xfe",
        b"",
        b"3",
    ],
    "gradient.npz": [
        one_npz(("0.weight.npy", npy(header(shape="(1099511627776,)")))),
        one_npz(("0.weight.npy", npy(header(shape="(-1,)")))),
        one_npz(("0.weight.npy", npy(header("'|O'"), b"cos\nsystem"))),
        one_npz(("0.weight.npy", npy("{'descr': '<f8', 'shape': (1,)}"))),
        one_npz(("0.weight.npy", npy("(" * 9000))),
        one_npz(("0.weight.npy", npy(header("'<U9'"), b"a" * 36))),
        one_npz(("0.weight.npy", npy(header("'V9'"), b"a" * 9))),
        one_npz(
            (
                "0.weight.npy",
                npy(header("[('a', '<f8')]"), b"a" * 8),
            )
        ),
        one_npz(("0.weight.npy", b"\x93NUMPY\x03\x00")),
        one_npz(("0.weight.npy", b"hello")),
        one_npz(("0.weight", b"")),
        one_npz(),
        b"PK\x05\x06" + b"\x00" * 18,
    ],
    "model.safetensors": [
        safetensors({}, length=1 << 62),
        safetensors({}, length=1 << 20),
        safetensors({"0.weight": tensor("F32", [1 << 40, 1 << 20], 8)}, b"\x00" * 8),
        safetensors({"0.weight": tensor("F32", [2, 1], 1 << 40)}, b"\x00" * 8),
        safetensors({"0.weight": tensor("F8_E4M3", [2, 4], 8)}, b"\x00" * 8),
        safetensors({"0.weight": tensor("BF16", [2, 2], 8)}, b"\xff" * 8),
        safetensors({"0.weight": tensor("BOOL", [2, 4], 8)}, b"\x07" * 8),
        safetensors({"0.weight": tensor("F32", [0, 4], 0)}),
        safetensors({"0.weight": tensor("F32", [-1, 4], 8)}, b"\x00" * 8),
        safetensors("[" * 100_000),
        safetensors('{"a": ' * 100_000),
        safetensors({f"layer{'9' * 5000}.weight": tensor("F32", [2, 1], 8)}, b"\x00" * 8),
        safetensors({}),
        b"",
        b"\x80\x04\x95",
    ],
    "model.onnx": [b"", b"\x08", b"\x00" * 100, b"\x0a" * 5000, b"{}", b"\x3a\xff\xff\xff\xff\x0f"],
}
CROOKED["batch.npz"] = CROOKED["gradient.npz"]
CROOKED["gradient.safetensors"] = CROOKED["batch.safetensors"] = CROOKED["model.safetensors"]


@pytest.mark.parametrize("name", CROOKED)
def test_files_made_to_break_their_reader(name: str, tmp_path: Path):
    for content in CROOKED[name]:
        found = read(name, content, tmp_path)
        assert found != "read" or content in (CROOKED["gradient.json"][14], *CROOKED["model.safetensors"]), (
            content[:80]
        )


def test_two_arrays_of_one_name(tmp_path: Path):
    array = io.BytesIO()
    np.save(array, np.ones(3))
    with pytest.warns(UserWarning, match="Duplicate"):
        content = one_npz(
            ("x.npy", array.getvalue()), ("x.npy", array.getvalue()), ("y.npy", array.getvalue())
        )
    assert read("batch.npz", content, tmp_path) == "FileError"


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros((1000, 1000)), y=np.zeros(1000, dtype=int))
    monkeypatch.setattr("exan_verify.api.files.memory_available", lambda: 1_000_000)
    with pytest.raises(ExanError, match=r"holds arrays of 0\.0 GB.*store fewer samples"):
        load_batch(path)


def test_layers_that_fit_together_in_no_order(tmp_path: Path):
    """Thirty layers of one width, and one that does not fit: the orders of the others are not tried."""
    names = [*(chr(ord("a") + k % 26) * (1 + k // 26) for k in range(30)), "odd"]
    layers = {f"{name}.weight": np.ones((5, 5), dtype=np.float32) for name in names}
    layers["odd.weight"] = np.ones((7, 9), dtype=np.float32)
    assert read("model.safetensors", save(layers), tmp_path) == "ShapeError"
