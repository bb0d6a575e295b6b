"""Contact sheets: scores beside pictures, and the command that draws them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from exan_verify.api.files import save_batch, save_gradient
from exan_verify.cli import main
from exan_verify.errors import InputError, ShapeError
from exan_verify.report.sheets import contact_sheet, likeness, picture_shape, sample_labels
from tests.support.cnn_cases import pictures
from tests.support.torch_reference import autograd


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(matplotlib.image.imread(io.BytesIO(png), format="png"))[..., :3]


def test_likeness_is_that_of_the_literature():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 12, 12)), rng.random((3, 12, 12))
    assert likeness(a, b).psnr == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0))
    same = likeness(a, a)
    assert (same.psnr, same.ssim) == (math.inf, pytest.approx(1.0))
    assert likeness(a, a + 0.001).ssim > 0.99 > likeness(a, b).ssim
    assert likeness(a[0, :4, :4], b[0, :4, :4]).ssim < 1
    tiny = likeness(a[0, :2, :2], b[0, :2, :2])
    assert math.isnan(tiny.ssim)
    assert tiny.rmse == pytest.approx(np.sqrt(np.square(a[0, :2, :2] - b[0, :2, :2]).mean()))
    with pytest.raises(ShapeError, match="cannot be compared"):
        likeness(a, b[0])


def test_a_sheet_has_a_row_for_every_kind_and_a_band_for_every_sixteen():
    x = pictures((3, 8, 8), 3).numpy()
    one = pixels(contact_sheet(x, {"recovered": [x[0], None, x[2]]}, labels=["3", "1", "4"], title="t"))
    two = pixels(contact_sheet(x, {"recovered": list(x), "estimated": [None] * 3}))
    many = pixels(contact_sheet(np.concatenate([x] * 6), {"recovered": [None] * 18}))
    assert two.shape[0] > one.shape[0]
    assert many.shape[1] > one.shape[1]
    assert one.std() > 0.05


def test_scores_stand_below_every_picture():
    a = np.full((3, 4, 4), 0.5)
    assert likeness(a, a + 0.01).lines() == ("RMSE 1.0e-02", "PSNR 40.0 dB", "SSIM 1.00")
    assert likeness(a, a).lines()[1] == "exact"
    assert likeness(a[0, :2, :2], a[0, :2, :2]).lines() == ("RMSE 0.0e+00", "exact")


def test_what_is_claimed_and_what_is_not_look_different():
    x = pictures((1, 6, 6), 2).numpy()
    both = pixels(contact_sheet(x, {"recovered": [x[0], x[1]]}))
    one = pixels(contact_sheet(x, {"recovered": [x[0], None]}))
    assert both.shape == one.shape
    width = one.shape[1]
    assert np.abs(both - one)[:, : width // 2].max() < 0.02
    assert np.abs(both - one)[:, width // 2 :].max() > 0.3
    panel = np.isclose(one, [0xF1 / 255, 0xF0 / 255, 0xEC / 255], atol=0.01).all(axis=-1)
    assert panel[:, width // 2 :].mean() > 0.15 > 0.01 > panel[:, : width // 2].mean()


def test_a_large_batch_is_cut_with_a_line_that_says_so():
    x = pictures((1, 4, 4), 20).numpy()
    whole, cut = (pixels(contact_sheet(x[:6], {})), pixels(contact_sheet(x, {}, most=6)))
    assert whole.shape[1] == cut.shape[1]
    assert whole.shape[0] < cut.shape[0] < 1.5 * whole.shape[0]
    assert cut[whole.shape[0] :].min() < 0.5  # the line below the pictures
    assert np.abs(cut[: whole.shape[0] - 8] - whole[: whole.shape[0] - 8]).max() < 0.02


def test_labels_name_samples_and_their_classes():
    assert sample_labels(np.array([3.0, 1.0])) == ["0: label 3", "1: label 1"]
    assert sample_labels(np.eye(3)) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [
        ((2, 5, 7), (5, 7)),
        ((2, 1, 5, 7), (5, 7)),
        ((2, 3, 5, 7), (3, 5, 7)),
        ((2, 35), None),
        ((2, 1, 9), None),
        ((2, 4, 3, 3), None),
        ((2, 2, 2, 2, 2), None),
    ],
)
def test_which_batches_are_pictures(shape: tuple[int, ...], drawn: tuple[int, ...] | None):
    assert picture_shape(shape) == drawn


def test_colours_and_values_outside_the_unit_range():
    red = np.zeros((1, 3, 6, 6))
    red[:, 0] = 1
    drawn = pixels(contact_sheet(red, {}))
    assert (np.abs(drawn - [1, 0, 0]).max(axis=-1) < 0.02).mean() > 0.2
    gray = contact_sheet(np.linspace(-3, 3, 36).reshape(1, 6, 6), {"r": [np.full((6, 6), 9.0)]})
    assert pixels(gray).min() < 0.05


def test_what_is_no_sheet_is_refused():
    with pytest.raises(ShapeError, match=r"x has shape \(2, 5\), which is no batch of pictures"):
        contact_sheet(np.ones((2, 5)), {})
    with pytest.raises(InputError, match="row 'r' has 1 pictures for 2 originals"):
        contact_sheet(np.ones((2, 5, 5)), {"r": [None]})
    with pytest.raises(InputError, match="1 labels for 2 originals"):
        contact_sheet(np.ones((2, 5, 5)), {}, labels=["a"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnn_factory.py").write_text(
        "from exan_verify.models import strided_cnn, lenet\n"
        "def exact():\n    return strided_cnn(image_size=8, widths=(40, 480), head=(96,)).double()\n"
        "def pooled():\n    model = lenet(image_size=16).double()\n    del model.input_shape\n"
        "    return model\n"
    )
    return tmp_path


def _files(here: Path, name: str, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    import importlib
    import sys

    sys.modules.pop("cnn_factory", None)
    sys.path.insert(0, str(here))
    model = getattr(importlib.import_module("cnn_factory"), name)()
    x, y = pictures(shape, 3), torch.tensor([3, 1, 4])
    save_gradient("gradient.safetensors", autograd(model, x, y))
    save_batch("batch.npz", x, y)
    return x, y


def test_the_command_attacks_a_factory_s_model_and_draws_a_sheet(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    x, _ = _files(here, "exact", (3, 8, 8))
    command = ["attack", "cnn_factory:exact", "gradient.safetensors", "--out", "found.npz"]
    assert main([*command, "--truth", "batch.npz", "--sheet", "sheet.png", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["found"], record["complete"], record["features"]) == (3, True, 3)
    assert [s["deficit"] for s in record["stages"] if s["kind"] == "Convolution"] == [0, 0]
    assert record["score"]["recall"] == 1.0
    assert pixels(Path("sheet.png").read_bytes()).std() > 0.05
    with np.load("found.npz") as found:
        assert found["x"].shape == x.shape
        assert found["features"].shape == (3, 1920)


def test_the_command_says_what_stays_open(here: Path, capsys: pytest.CaptureFixture[str]):
    _files(here, "pooled", (1, 16, 16))
    command = ["attack", "cnn_factory:pooled", "gradient.safetensors", "--out", "found.npz"]
    assert main([*command, "--picture-iterations", "3"]) == 2
    assert "pass input_shape=(1, height, width)" in capsys.readouterr().err
    shaped = [*command, "--picture-iterations", "3", "--input-shape", "1,16,16"]
    assert main([*shaped, "--truth", "batch.npz", "--sheet", "sheet.png"]) == 3
    told = " ".join(capsys.readouterr().out.split())
    assert "features 3 of 3 samples, within" in told
    assert "feature labels" in told
    assert "MaxPool '5'" in told
    assert "3 pictures fitted to their features, nothing claimed" in told
    assert "contact sheet written to sheet.png" in told


def test_a_sheet_needs_the_truth_and_a_shape_three_numbers(here: Path, capsys: pytest.CaptureFixture[str]):
    _files(here, "exact", (3, 8, 8))
    command = ["attack", "cnn_factory:exact", "gradient.safetensors", "--out", "found.npz"]
    assert main([*command, "--sheet", "sheet.png"]) == 2
    assert "give them with --truth" in capsys.readouterr().err
    assert main([*command, "--input-shape", "3x8"]) == 2
    assert "'3x8' is not C,H,W" in capsys.readouterr().err


def test_what_cannot_be_drawn_or_scored_is_refused_before_the_attack(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    x, y = _files(here, "exact", (3, 8, 8))
    monkeypatch.setattr("exan_verify.attack", lambda *_, **__: pytest.fail("the attack was begun"))
    command = ["attack", "cnn_factory:exact", "gradient.safetensors", "--out", "found.npz"]
    for inputs, labels, sheet, message in (
        (x[:, :2], y, True, "bad.npz: x has shape (3, 2, 8, 8), which is no batch of pictures"),
        (x.flatten(1), y, True, "bad.npz: x has shape (3, 192), which is no batch of pictures"),
        (x.flatten(1)[:, :190], y, False, "bad.npz: x has 190 features per sample, the model takes 192"),
        (x, torch.ones(3, 4), True, "bad.npz: y has shape (3, 4); give classes (3,), or targets (3, 10)"),
    ):
        save_batch("bad.npz", inputs, labels)
        assert main([*command, "--truth", "bad.npz", *(["--sheet", "sheet.png"] if sheet else [])]) == 2
        assert message in capsys.readouterr().err
    (here / "bad.npz").write_text("no batch")
    assert main([*command, "--truth", "bad.npz"]) == 2
    assert "bad.npz: not a whole .npz file" in capsys.readouterr().err
    assert not (here / "found.npz").exists()


def test_what_was_found_is_written_before_anything_is_drawn(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    _files(here, "exact", (3, 8, 8))

    def fail(*_: object) -> None:
        raise ShapeError("no sheet")

    monkeypatch.setattr("exan_verify.cli.attack.draw_sheet", fail)
    command = ["attack", "cnn_factory:exact", "gradient.safetensors", "--out", "found.npz"]
    assert main([*command, "--truth", "batch.npz", "--sheet", "sheet.png"]) == 2
    assert "no sheet" in capsys.readouterr().err
    with np.load("found.npz") as found:
        assert found["x"].shape == (3, 3, 8, 8)


@pytest.mark.parametrize("truth", ["classes", "one-hot"])
def test_labels_are_scored_against_classes_and_targets(
    here: Path, capsys: pytest.CaptureFixture[str], truth: str
):
    x, y = _files(here, "exact", (3, 8, 8))
    save_batch("batch.npz", x, y if truth == "classes" else torch.nn.functional.one_hot(y, 10))
    command = ["attack", "cnn_factory:exact", "gradient.safetensors", "--out", "found.npz"]
    assert main([*command, "--truth", "batch.npz", "--sheet", "sheet.png"]) == 0
    assert "3 labels right" in capsys.readouterr().out
