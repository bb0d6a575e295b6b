"""Releases on disk, and audits and commands that are asked about one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from exan_verify import Release, audit, certify, check, project_inputs
from exan_verify.api.files import save_batch, save_tensors
from exan_verify.api.releases import load_release, save_release
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss, Reduction
from exan_verify.core.verdict import Outcome
from exan_verify.errors import FileError, InputError
from tests.support.cases import default_network
from tests.support.certificate_cases import assert_rejected
from tests.support.torch_reference import gradient


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with model.safetensors and batch.npz of four samples."""
    monkeypatch.chdir(tmp_path)
    network = default_network([12, 60, 4], seed=1)
    save_file({name: np.array(array) for name, array in network.parameters()}, "model.safetensors")
    x = np.random.default_rng(1).normal(size=(4, 12)).astype(np.float32)
    save_batch("batch.npz", x, np.arange(4))
    return network, (x, np.arange(4))


def test_a_release_is_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    for release in (
        Release(),
        Release(tensors=["0.weight", "0.bias"], rows={"0.weight": rng.random(9) < 0.5}),
        Release(input_basis=rng.normal(size=(5, 2)), weights="positive"),
        Release(averages=[[0, 1], [2]], tensors=["0.weight"]),
    ):
        save_release(tmp_path / "release.json", release)
        assert load_release(tmp_path / "release.json") == release
        assert hash(load_release(tmp_path / "release.json")) == hash(release)


def test_numbers_of_a_basis_are_exact(tmp_path):
    (tmp_path / "r.json").write_text('{"schema": "exan/release/1", "input_basis": [[1, "1/3"], ["-2", 0]]}')
    assert load_release(tmp_path / "r.json").input_basis.tolist()[0][1].denominator == 3


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("{", FileError, "not JSON"),
        ("[" * 10**5, FileError, "not JSON"),
        ("[]", InputError, "exan/release/1"),
        ('{"tensors": ["0.weight"]}', InputError, "exan/release/1"),
        ('{"schema": "exan/release/2"}', InputError, "exan/release/2"),
        ('{"schema": "exan/release/1", "schema": "exan/release/1"}', FileError, "twice"),
        ('{"schema": "exan/release/1", "layers": []}', InputError, "layers"),
        ('{"schema": "exan/release/1", "tensors": "0.weight"}', InputError, "tensors"),
        ('{"schema": "exan/release/1", "tensors": []}', InputError, "at least one"),
        ('{"schema": "exan/release/1", "tensors": ["a", "a"]}', InputError, "twice"),
        ('{"schema": "exan/release/1", "rows": {"0.weight": [1, 0]}}', InputError, "rows"),
        ('{"schema": "exan/release/1", "input_basis": [[0.5]]}', InputError, "input_basis"),
        ('{"schema": "exan/release/1", "input_basis": [["1e9"]]}', InputError, "rational"),
        ('{"schema": "exan/release/1", "input_basis": [["1/0"]]}', InputError, "rational"),
        ('{"schema": "exan/release/1", "input_basis": [[1], [1, 2]]}', InputError, "input_basis"),
        ('{"schema": "exan/release/1", "input_basis": [[1, 2]]}', InputError, "at most d columns"),
        ('{"schema": "exan/release/1", "weights": "negative"}', InputError, "weights"),
        ('{"schema": "exan/release/1", "averages": [[0, "1"]]}', InputError, "averages"),
        ('{"schema": "exan/release/1", "averages": [[0]]}', InputError, "averages"),
    ],
)
def test_what_is_no_release_is_named(tmp_path, text, kind, named):
    path = tmp_path / "release.json"
    path.write_text(text)
    with pytest.raises(kind, match=named) as raised:
        load_release(path)
    assert str(raised.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"tensors": "0.weight"}, "no list of names"),
        ({"tensors": [3]}, "names of parameters"),
        ({"rows": [True]}, "no mapping"),
        ({"rows": {"0.weight": np.ones(3)}}, "no boolean mask"),
        ({"rows": {"0.weight": True}}, "no boolean mask"),
        ({"input_basis": [1, 2]}, "shape"),
        ({"input_basis": [[2.0**-1060], [1.0]]}, "round the basis"),
        ({"input_basis": [[float("nan")], [1.0]]}, "NaN"),
        ({"weights": "unequal"}, "release.weights"),
    ],
)
def test_arguments_that_make_no_release(given, named):
    with pytest.raises(InputError, match=named):
        Release(**given)


def test_an_audit_of_a_release(here):
    network, batch = here
    rows = np.zeros(60, dtype=bool)
    rows[:2] = True
    release = Release(rows={"0.weight": rows}, tensors=["0.weight", "0.bias"])
    whole, found = audit(network, batch), audit(network, batch, release=release)
    assert all(whole.peelable)
    assert not all(found.peelable)
    assert found.gate("recovered") == "undecided"
    assert list(found.to_record()["release"]["rows"]["0.weight"]) == rows.tolist()
    assert "release" not in whole.to_record()
    assert found.verdict.outcome is certify(network, batch=batch, release=release).outcome
    hidden = audit(network, batch, release=Release(input_basis=np.eye(12)[:, :3]))
    assert not any(hidden.peelable)


def test_a_projected_module_is_asked_about_its_pictures():
    rng = np.random.default_rng(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3)
    )
    basis = rng.integers(-8, 8, (16, 5)) / 8 + np.eye(16, 5)
    batch = rng.random((3, 4, 4)), [0, 1, 2]
    client = project_inputs(model, basis)
    verdict = certify(client, batch=batch, release=Release(input_basis=basis))
    assert (verdict.outcome, verdict.witness.dimension) == (Outcome.AMBIGUOUS, 3 * (16 - 5))
    assert check(verdict.certificate, client, batch=batch).outcome is Outcome.AMBIGUOUS
    assert_rejected(verdict.certificate, project_inputs(model, 2 * basis), "another input basis", batch=batch)
    other = project_inputs(model, basis)
    with torch.no_grad():
        other[1].basis[0, 0] += 1
    assert_rejected(verdict.certificate, other, "another input basis", batch=batch)
    with pytest.raises(InputError, match="the model's own"):
        certify(other, batch=batch, release=Release(input_basis=basis))
    # without the release the question is about the five numbers that the first layer takes
    assert certify(client, batch=(batch[0].reshape(3, 16) @ basis, [0, 1, 2])).release is None


def test_commands_take_a_release(here, run):
    save_release("release.json", Release(tensors=["0.weight", "0.bias"]))
    ask = ("model.safetensors", "--batch", "batch.npz", "--release", "release.json")
    _, out, _ = run("certify", *ask, "--certificate", "c.json", exits=0)
    assert "only the tensors 0.weight, 0.bias" in " ".join(out.split())
    _, out, _ = run("check", "c.json", "model.safetensors", "--batch", "batch.npz", exits=0)
    assert "what is sent: only the tensors 0.weight, 0.bias" in " ".join(out.split())
    record = json.loads(run("certify", *ask, "--json")[1])
    assert record["release"]["tensors"] == ["0.weight", "0.bias"]
    ask = ("model.safetensors", "batch.npz", "--release", "release.json", "--report", "r.html")
    _, out, _ = run("audit", *ask)
    assert "only the tensors" in " ".join(out.split())
    assert "--release release.json" in Path("r.html").read_text()


def test_an_attack_beside_the_proof_is_given_what_is_sent(here):
    network, (x, y) = here
    rows = np.random.default_rng(0).random(60) < 0.8
    release = Release(rows={"0.weight": rows, "0.bias": rows})
    found = audit(network, (x, y), release=release, attack=True)
    assert found.gate("recovered") == "hit"
    assert found.attack.found.complete
    assert found.verdict.outcome is Outcome.UNIQUE
    assert list(found.to_record()["attack"]["release"]["rows"]["0.weight"]) == rows.tolist()
    none = audit(
        network,
        (x, y),
        release=Release(rows={n: np.zeros(len(a), bool) for n, a in network.parameters()}),
        attack=True,
    )
    assert "nothing to attack" in none.no_attack
    assert none.gate("recovered") == "undecided"


def test_what_an_attack_finds_through_a_basis_is_no_picture_yet():
    rng = np.random.default_rng(2)
    model = torch.nn.Sequential(torch.nn.Linear(20, 90), torch.nn.ReLU(), torch.nn.Linear(90, 4))
    basis, x, y = rng.integers(-8, 9, (20, 6)) / 8, rng.random((4, 20)), [0, 1, 2, 3]
    client = project_inputs(model, basis)
    found = audit(client, (x, y), attack=True)
    assert found.attack.found.complete
    assert found.attack.found.x.shape == (4, 6)
    assert max(one.largest for one in found.attack.score.samples) < 1e-6
    assert found.beyond_proof == ""
    back = (x @ basis) @ np.linalg.pinv(basis)
    for one, truth, shown in zip(found.attack.recoveries, x, back, strict=True):
        assert np.allclose(one.values, shown)
        assert np.isclose(one.rmse, np.sqrt(np.square(shown - truth).mean()))
    assert found.gate("recovered") == "passed"
    # where the basis sees what there is of the inputs, their pictures are readable
    assert audit(client, (back, y), attack=True).gate("recovered") == "hit"


def test_what_an_attack_finds_of_averages_are_means(here, run):
    network, (x, _) = here
    release = Release(averages=[[0, 1], [2, 3]])
    found = audit(network, (x, [0, 0, 1, 1]), release=release, attack=True)
    means = x.reshape(2, 2, 12).astype(float).mean(axis=1)
    assert found.attack.found.complete
    assert found.attack.entered == "means"
    assert found.beyond_proof == ""
    shown = np.stack([one.values for one in found.attack.recoveries])
    assert np.abs(shown - np.repeat(means, 2, axis=0)).max() < 1e-9
    batch = Batch.of(means, [0, 1], network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    save_tensors("g.npz", gradient(network, batch, Loss.CROSS_ENTROPY, Reduction.MEAN))
    save_batch("pairs.npz", x, np.array([0, 0, 1, 1]))
    save_release("r.json", release)
    ask = ("attack", "model.safetensors", "g.npz", "--release", "r.json", "--out", "o.npz", "--truth")
    code, out, _ = run(*ask, "pairs.npz", "--json")
    assert (code, json.loads(out)["score"]["recall"]) == (0, 1.0)
    _, _, error = run(*ask, "pairs.npz", "--batch-size", "4", exits=2)
    assert "number of means" in error
    save_batch("pair.npz", x[:2], np.array([0, 0]))
    _, _, error = run(*ask, "pair.npz", exits=2)
    assert "names sample 3" in error


def test_commands_attack_what_is_sent(here, run, tmp_path):
    network, (x, y) = here
    rows = np.random.default_rng(0).random(60) < 0.8
    save_release("release.json", Release(rows={"0.weight": rows, "0.bias": rows}))
    given = gradient(
        network,
        Batch.of(x, y, network=network, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT),
        Loss.CROSS_ENTROPY,
        Reduction.MEAN,
    )
    whole = {
        n: np.where(rows.reshape(-1, *(1,) * (g.ndim - 1)), g, np.nan) if len(g) == 60 else g
        for n, g in given.items()
    }
    sent = {n: g[rows] if len(g) == 60 else g for n, g in given.items()}
    ask = ("--release", "release.json", "--truth", "batch.npz", "--json")
    for tensors in (whole, sent):
        save_tensors("g.npz", tensors)
        code, out, _ = run("attack", "model.safetensors", "g.npz", "--out", "o.npz", *ask)
        record = json.loads(out)
        assert (code, record["complete"], record["score"]["recall"]) == (0, True, 1.0)
        assert record["release"]["rows"]["0.bias"] == rows.tolist()
    code, out, _ = run("attack", "model.safetensors", "g.npz", "--out", "o.npz", *ask[:2])
    assert f"{rows.sum()} of 60 rows of 0.weight" in " ".join(out.split())
    del sent["2.bias"]
    save_tensors("g.npz", sent)
    _, _, error = run("attack", "model.safetensors", "g.npz", "--out", "p.npz", *ask[:2], exits=2)
    assert "2.bias" in error
    assert not Path("p.npz").exists()
    gate = ("--fail-on", "recovered", "--json")
    code, out, _ = run("audit", "model.safetensors", "batch.npz", *ask[:2], *gate)
    assert (code, json.loads(out)["gates"]) == (1, {"recovered": "hit"})


def test_commands_score_what_a_basis_shows(here, run):
    rng = np.random.default_rng(3)
    basis, wide = rng.integers(-8, 9, (16, 5)) / 8, rng.random((3, 16))
    network = default_network([5, 60, 3], seed=2)
    seen = ReluNetwork.from_arrays(
        [network.layers[0].weight @ basis.T, network.layers[1].weight],
        [layer.bias for layer in network.layers],
    )
    save_file({name: np.array(array) for name, array in seen.parameters()}, "model.safetensors")
    save_release("release.json", Release(input_basis=basis))
    save_batch("batch.npz", wide.reshape(3, 4, 4), np.arange(3))
    question = Loss.CROSS_ENTROPY, Reduction.MEAN
    batch = Batch.of(wide @ basis, np.arange(3), network=network, loss=question[0], labels=Labels.ONE_HOT)
    save_tensors("g.npz", gradient(network, batch, *question))
    ask = ("--release", "release.json", "--truth", "batch.npz", "--sheet", "s.png", "--json")
    code, out, _ = run("attack", "model.safetensors", "g.npz", "--out", "o.npz", *ask)
    record = json.loads(out)
    assert (code, record["score"]["recall"]) == (0, 1.0)
    assert "5 numbers B^T x" in " ".join(record["notes"])
    assert Path("s.png").exists()
    _, out, _ = run("audit", "model.safetensors", "batch.npz", *ask[:2], "--report", "r.html")
    assert "3 of 3 samples known by their B^T x" in " ".join(out.split())
    assert "what is sent of the float64 gradient" in Path("r.html").read_text()


def test_commands_take_averages(here, run, run_json):
    network, (x, _) = here
    save_batch("pairs.npz", x, np.array([0, 0, 1, 1]))
    Path("r.json").write_text('{"schema": "exan/release/1", "averages": [[0, 1], [2, 3]]}')
    ask = ("model.safetensors", "--batch", "pairs.npz", "--release", "r.json", "--certificate", "c.json")
    _, record = run_json("certify", *ask, exits=0)
    assert (record["outcome"], record["witness"]["dimension"]) == ("ambiguous", 24)
    assert record["witness"]["generators"][0] == [[0, 0, "1"], [1, 0, "-1"]]
    assert record["release"]["averages"] == [[0, 1], [2, 3]]
    _, out, _ = run("check", "c.json", "model.safetensors", "--batch", "pairs.npz", exits=0)
    assert "means of 2 groups" in " ".join(out.split())
    assert not any(audit(network, (x, [0, 0, 1, 1]), release=load_release("r.json")).peelable)


def test_commands_refuse_a_release_that_does_not_fit(here, run):
    save_release("release.json", Release(tensors=["fc.weight"]))
    for command in (("certify", "model.safetensors", "--batch"), ("audit", "model.safetensors")):
        _, _, error = run(*command, "batch.npz", "--release", "release.json", exits=2)
        assert "fc.weight" in error
    ask = ("model.safetensors", "--gradient", "batch.npz", "--release", "release.json")
    _, _, error = run("certify", *ask, exits=2)
    assert "--batch" in error
