"""``exan mitigate``: its table in 80 columns, its record, and errors that name the culprit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exan_verify.api.files import save_batch, save_tensors
from exan_verify.cli.terminal.output import ExitCode
from tests.support.mitigation_cases import drawn_case

HEADINGS = ["defence", "ExANs", "proved", "attack", "dB", "hidden", "reach", "LMMSE", "acc."]
ASKED = ("mitigate", "model.safetensors", "batch.npz", "--pool", "pool.npz", "--prior", "prior.npz")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.safetensors, batch.npz, pool.npz, prior.npz and spoiled.npz (it has a sample of the
    batch)."""
    monkeypatch.chdir(tmp_path)
    case = drawn_case((16, 60, 3), pool=24, public=30)
    save_tensors("model.safetensors", dict(case.network.parameters()))
    save_batch("batch.npz", case.x, case.batch.labels)
    save_batch("pool.npz", *case.pool)
    save_tensors("prior.npz", {"x": case.public})
    save_tensors("spoiled.npz", {"x": np.concatenate([case.public, case.x[:1]])})
    save_tensors("nothing.npz", {"z": case.public})
    return tmp_path


def test_the_table_fits_into_80_columns_and_says_what_it_means(here, run):
    names = ("regroup", "project-pca:4", "average:2", "clip-noise:1:1")
    code, out, err = run(*ASKED, *(f"--defence={name}" for name in names), "--report", "r.html")
    page = Path("r.html").read_text()
    assert all(f"<code>{name}</code>" in page for name in names)
    assert page.count("data:image/png;base64,") == 1, "16 features are drawn as pictures of 4 x 4"
    assert "exan mitigate model.safetensors batch.npz" in page
    assert (code, err) == (ExitCode.DONE, "")
    lines = out.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("note: "))
    assert all(line == line.rstrip() for line in lines)
    assert lines[0].split() == HEADINGS
    assert [line.split()[0] for line in lines[1:6]] == ["none", *names]
    rows = {line.split()[0]: line.split() for line in lines[1:6]}
    assert rows["none"][2:5] == ["UNIQUE", "4/4", "exact"]
    assert rows["project-pca:4"][2] == rows["average:2"][2] == "AMBIGUOUS"
    assert rows["project-pca:4"][5] == str(4 * 12)
    assert "epsilon 4.38 for one release" in out
    assert "Recommendation" in lines


def test_the_record_is_one_object(here, run_json):
    _, record = run_json(*ASKED, "--defence", "project-dct:4", "--pixels", "3", exits=ExitCode.DONE)
    assert record["schema"] == "exan/mitigation/1"
    (one,) = record["defences"]
    assert one["samples"] == ["free"] * 4
    assert [len(pixels) for pixels in one["protection"]["reach"]["pixels"]] == [3] * 4
    assert "real arithmetic" in record["statement"]


def test_defences_are_listed(here, run):
    _, out, _ = run(*ASKED, "--defence", "help", exits=ExitCode.DONE)
    assert "clip-noise:c:s" in out
    assert all(len(line) <= 90 for line in out.splitlines())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (("--defence", "magic"), "defence='magic'"),
        (("--defence", "project-pca"), "project-pca:r"),
        (("--defence", "project-pca:4", "--prior", "spoiled.npz"), "prior[30] is a sample of the batch"),
        (("--defence", "project-pca:4", "--prior", "nothing.npz"), "nothing.npz: there is no array 'x'"),
        (("--defence", "regroup", "--pool", "batch.npz"), "the pool has 0 samples"),
        (("--defence", "no-bias", "--train", "missing.npz"), "missing.npz"),
        (("--pixels", "0"), "--pixels"),
        (("--defence", "no-bias", "--report", "absent/r.html"), "absent/r.html"),
    ],
)
def test_errors_name_what_is_wrong(here, run, line, says):
    _, out, err = run(*ASKED, *line, exits=ExitCode.USAGE)
    assert says in err
    assert out == ""
    assert not list(here.glob("*.html"))
