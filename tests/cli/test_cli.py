"""The command line, end to end: in process for speed, as the installed command where that matters."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exan_verify.api.files import load_batch, load_gradient, save_batch, save_gradient
from exan_verify.bench import attack as bench_attack
from exan_verify.bench.attack import Case
from exan_verify.cli.program import COMMANDS
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.errors import BudgetExhausted, InputError
from tests.support.cnn_cases import pictures
from tests.support.commands import Run, RunJson
from tests.support.torch_reference import autograd, perceptron, uniform

EXAN = shutil.which("exan", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

CERTIFY = ("certify", "model.safetensors", "--batch", "batch.npz")
CHECK = ("check", "certificate.json", "model.safetensors", "--batch", "batch.npz")
AUDIT = ("audit", "model.safetensors", "batch.npz")
ATTACK = ("attack", "model.safetensors", "gradient.safetensors", "--out", "found.npz")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with model.safetensors, batch.npz, twins.npz (two equal samples) and gradient.safetensors."""
    monkeypatch.chdir(tmp_path)
    model = perceptron(12, 40, 4)
    save_file(model.state_dict(), "model.safetensors")
    x, y = uniform(3, 12, seed=9).float(), torch.tensor([0, 1, 2])
    save_batch("batch.npz", x, y)
    save_batch("twins.npz", x[[0, 0, 1]], y[[0, 0, 1]])
    save_gradient("gradient.safetensors", autograd(model, x.double(), y))
    return tmp_path


# ---- certify and check ------------------------------------------------------------------------------------


def test_certify_then_check(here: Path, run: Run):
    _, out, err = run(*CERTIFY, "--certificate", "certificate.json", exits=ExitCode.DONE)
    assert err == ""
    assert out.startswith("UNIQUE: exactly one batch")
    assert "real arithmetic on the stored numbers" in out
    assert "3 determined" in out
    assert all(line == line.rstrip() for line in out.splitlines())
    code, out, err = run(*CHECK)
    assert (code, err) == (ExitCode.DONE, "")
    assert out.startswith("ACCEPTED: UNIQUE, 3 determined")


def test_json_has_the_attributes_of_the_verdict(here: Path, run_json: RunJson):
    _, record = run_json(*CERTIFY, exits=0)
    assert record["schema"] == "exan/certify/1"
    assert record["outcome"] == "unique"
    assert record["samples"] == ["determined"] * 3
    assert record["trust"] == "certified"
    assert record["certificate"]["claim"]["outcome"] == "unique"
    assert record["attempts"][0]["rank"] == record["attempts"][0]["unknowns"] - 3


def test_a_rejected_certificate_is_exit_code_one(here: Path, run: Run, run_json: RunJson):
    run(*CERTIFY, "--certificate", "c.json")
    certificate = json.loads(Path("c.json").read_text())
    certificate["claim"]["question"]["batch_size"] += 1
    Path("tampered.json").write_text(json.dumps(certificate))
    code, out, err = run("check", "tampered.json", "model.safetensors", "--batch", "batch.npz")
    assert code == ExitCode.REFUSED
    assert out.startswith("REJECTED")
    assert err.startswith("error: ")
    for inputs in (("c.json", "--batch", "twins.npz"), ("c.json", "--gradient", "gradient.safetensors")):
        _, record = run_json("check", inputs[0], "model.safetensors", *inputs[1:], exits=ExitCode.REFUSED)
        assert record["accepted"] is False
        assert record["reason"]


def test_undecided_is_exit_code_three_and_never_unique(here: Path, run: Run, run_json: RunJson):
    question = (*CERTIFY, "--work-limit", "1")
    _, out, _ = run(*question, "--certificate", "none.json", exits=ExitCode.UNDECIDED)
    assert out.startswith("UNKNOWN")
    assert "not a statement that the batch is safe" in out
    assert not Path("none.json").exists()
    _, record = run_json(*question, exits=ExitCode.UNDECIDED)
    assert "work limit of 1" in record["reason"]


def test_an_exact_gradient_gives_the_exact_batch(here: Path, run: Run, run_json: RunJson):
    # one sample, one neuron: z = x + 1, f = z, mse target 1: dW = 2 (f - y) x etc., all by hand at x = 1/3
    save_file(
        {
            "0.weight": torch.eye(2).repeat(3, 1) + torch.arange(12).reshape(6, 2) / 8,
            "0.bias": torch.ones(6),
            "2.weight": torch.arange(12).reshape(2, 6) / 4 - 1,
            "2.bias": torch.zeros(2),
        },
        "small.safetensors",
    )
    x = [Fraction(1, 3), Fraction(2, 5)]
    from exan_verify.api.files import load_model
    from exan_verify.core.network import Batch
    from exan_verify.core.question import Labels, Loss, Reduction
    from exan_verify.exact.backprop import gradient

    small = load_model("small.safetensors")
    batch = Batch.of([x], [1], network=small, loss=Loss.MSE, labels=Labels.ONE_HOT)
    save_gradient("g.json", gradient(small, batch, Loss.MSE, Reduction.MEAN).tensors)
    arguments = ("certify", "small.safetensors", "--gradient", "g.json", "--loss", "mse")
    _, record = run_json(*arguments, "--certificate", "c.json", exits=0)
    assert record["batch"] == {"x": [["1/3", "2/5"]], "y": [["0", "1"]]}
    assert record["certificate_path"] == "c.json"
    code, out, _ = run("check", "c.json", "small.safetensors", "--gradient", "g.json")
    assert (code, out.split(":")[0]) == (0, "ACCEPTED")


def test_a_rounded_gradient_is_refused_with_both_ways_out(here: Path, run: Run):
    code, out, err = run("certify", "model.safetensors", "--gradient", "gradient.safetensors")
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith("error: gradient.safetensors: ")
    assert "--exact or --tolerance" in err


def test_domains_are_read_exactly(here: Path, run: Run, run_json: RunJson):
    arguments = (*CERTIFY, "--domain")
    _, record = run_json(*arguments, "box:0,11/10", exits=0)
    assert record["certificate"]["claim"]["question"]["domain"] == [["0"], ["11/10"]]
    _, _, err = run(*arguments, "box:0,0.1", exits=ExitCode.USAGE)
    assert "outside the domain" in err
    for wrong in ("0,1", "ball:0,1", "box:0", "box:a,b", "box:0,1/0"):
        _, _, err = run(*arguments, wrong, exits=ExitCode.USAGE)
        assert "write box:LO,HI" in err


# ---- audit ------------------------------------------------------------------------------------------------


def test_audit_reports_four_answers(here: Path, run: Run, run_json: RunJson):
    code, out, err = run(*AUDIT, "--report", "report.html")
    assert (code, err) == (0, "")
    for answer in ("published ExAN condition", "peeling closure", "certified verdict", "ambiguity radius"):
        assert answer in out
    assert Path("report.html").read_text().startswith("<!doctype html>")
    _, record = run_json(*AUDIT, exits=0)
    assert record["schema"] == "exan/audit/1"
    assert record["radius"] == [0, 0, 0]


def test_the_report_shows_what_an_attack_makes_of_the_batch(here: Path, run: Run, run_json: RunJson):
    x, y = load_batch("batch.npz")
    save_batch("pictures.npz", x.reshape(3, 3, 4), y)
    arguments = ("audit", "model.safetensors", "pictures.npz", "--report", "report.html")
    _, out, _ = run(*arguments, exits=0)
    assert "3 of 3 samples recovered by lift, largest RMSE" in out
    html = Path("report.html").read_text()
    assert html.count("data:image/png") == 2 * 3 + 1, "originals, rebuilt samples and the neurons of a layer"
    assert html.count('<span class="pill confirmed">') == 3
    assert "exan mitigate model.safetensors pictures.npz --report defences.html" in html
    _, record = run_json(*arguments)
    assert (record["attack"]["found"], record["attack"]["score"]["recall"]) == (3, 1)
    assert run_json(*arguments[:3])[1]["attack"] is None


def test_flat_inputs_are_pictures_of_the_shape_that_is_given(here: Path, run: Run):
    arguments = (*AUDIT, "--report", "report.html", "--input-shape")
    assert run(*arguments, "1,3,4")[0] == ExitCode.DONE
    assert Path("report.html").read_text().count("data:image/png") == 7
    code, _, err = run(*arguments, "1,3,5")
    assert (code, "has 15 entries, and a sample of batch.npz has 12" in err) == (ExitCode.USAGE, True)
    code, _, err = run(*arguments, "3,4")
    assert (code, "'3,4' is not C,H,W" in err) == (ExitCode.USAGE, True)


def test_a_report_says_why_there_is_no_attack(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    options = ("batch.npz", "--report", "report.html", "--work-limit", "1000")

    def impossible(*_: object, **__: object) -> None:
        raise InputError("it cannot be")

    def too_long(*_: object, budget: float, **__: object) -> None:
        assert 0 < budget < 2
        raise BudgetExhausted("it is over")

    monkeypatch.setattr("exan_verify.api.attack_own_batch.attack", impossible)
    run("audit", "model.safetensors", *options)
    assert "not possible: it cannot be" in Path("report.html").read_text()
    monkeypatch.setattr("exan_verify.api.attack_own_batch.attack", too_long)
    _, out, _ = run("audit", "model.safetensors", *options, "--budget", "2")
    assert "not finished: the budget ran out" in out
    assert "not finished" in Path("report.html").read_text()
    monkeypatch.setattr("exan_verify.api.audit.time_left", lambda budget, _: budget - 3.0)
    _, out, _ = run("audit", "model.safetensors", *options, "--budget", "2")
    assert "not tried: the audit took the whole budget" in out


def test_a_model_with_convolutions_is_attacked_and_nothing_is_proved(here: Path, run: Run, run_json: RunJson):
    (here / "audited_cnn.py").write_text(
        "from torch import nn\n"
        "from exan_verify.models import strided_cnn\n"
        "def proved():\n    return strided_cnn(image_size=8, widths=(40, 480), head=(96,)).double()\n"
        "def exact():\n    first, *rest = proved()\n"
        "    return nn.Sequential(nn.AvgPool2d(1), first, *rest)\n"
    )
    save_batch("cnn.npz", pictures((3, 8, 8), 3), torch.tensor([3, 1, 4]))
    code, record = run_json("audit", "audited_cnn:proved", "cnn.npz", "--fail-on", "determined")
    assert code == ExitCode.REFUSED
    assert (record["schema"], record["verdict"]["outcome"]) == ("exan/audit/1", "unique")
    _, out, _ = run("audit", "audited_cnn:proved", "cnn.npz", "--report", "proved.html", exits=ExitCode.DONE)
    assert "UNIQUE, 3 of 3 samples determined" in out
    assert "3 of 3 samples recovered" in out
    assert "<pre>exan mitigate" not in Path("proved.html").read_text()
    arguments = ("audit", "audited_cnn:exact", "cnn.npz", "--report", "report.html")
    _, out, _ = run(*arguments, "--fail-on", "determined", exits=ExitCode.UNDECIDED)
    assert "3 of 3 samples recovered" in out
    assert "UNKNOWN: exact arguments are for fully connected networks" in out
    assert "gate determined: undecided" in out
    _, out, _ = run(*arguments[:3], "--fail-on", "recovered", "--fail-on", "peel", exits=ExitCode.REFUSED)
    assert "gate recovered: hit; 3 recovered" in out
    assert "gate peel: undecided" in out
    html = Path("report.html").read_text()
    assert html.count("data:image/png") == 2 * 3
    assert "features and labels" in html.lower()
    _, record = run_json(*arguments[:3], exits=ExitCode.UNDECIDED)
    assert (record["schema"], record["outcome"]) == ("exan/audit-attack/1", "unknown")
    assert (record["attack"]["features"], record["attack"]["score"]["recall"]) == (3, 1)
    save_batch("bad.npz", pictures((3, 8, 8), 3), torch.tensor([3, 1, 40]))
    code, _, err = run("audit", "audited_cnn:exact", "bad.npz")
    assert (code, err.split("\n")[0][:31]) == (ExitCode.USAGE, "error: bad.npz: y[2] = 40 is no")


@pytest.mark.parametrize(
    ("batch", "gates", "code"),
    [
        ("batch.npz", ["determined"], ExitCode.REFUSED),
        ("batch.npz", ["peel"], ExitCode.REFUSED),
        ("batch.npz", ["exan"], ExitCode.REFUSED),
        ("pair.npz", ["peel"], ExitCode.DONE),
        ("pair.npz", ["exan"], ExitCode.DONE),
        ("pair.npz", ["determined"], ExitCode.DONE),
        ("pair.npz", ["peel", "determined"], ExitCode.DONE),
        ("pair.npz", [], ExitCode.DONE),
        ("twins.npz", ["peel", "determined"], ExitCode.REFUSED),
        ("batch.npz", ["recovered"], ExitCode.REFUSED),
        ("batch.npz", ["candidates"], ExitCode.REFUSED),
    ],
)
def test_gates(here: Path, run: Run, batch: str, gates: list[str], code: int):
    x, y = load_batch("batch.npz")
    save_batch("pair.npz", x[[0, 0]], y[[0, 0]])
    options = [part for gate in gates for part in ("--fail-on", gate)]
    assert run("audit", "model.safetensors", batch, *options)[0] == code


@pytest.mark.parametrize("gates", [[], ["determined"], ["peel", "determined"]])
def test_a_gate_that_cannot_be_decided(here: Path, run: Run, gates: list[str]):
    x, y = load_batch("batch.npz")
    save_batch("pair.npz", x[[0, 0]], y[[0, 0]])
    options = [part for gate in gates for part in ("--fail-on", gate)]
    limited = run("audit", "model.safetensors", "pair.npz", "--work-limit", "1", *options)
    assert limited[0] == ExitCode.UNDECIDED


def test_a_leak_that_is_not_proved_hits_a_gate_and_is_named(here: Path, run: Run, run_json: RunJson):
    arguments = (*AUDIT, "--work-limit", "1", "--report", "report.html")
    _, out, _ = run(*arguments, "--fail-on", "recovered", "--fail-on", "determined", exits=ExitCode.REFUSED)
    assert "gate recovered: hit; 3 recovered" in out
    assert "gate determined: undecided" in out
    said = "the attack recovers samples 0, 1, 2, which are not proved determined"
    assert said in " ".join(out.split())
    assert said in Path("report.html").read_text()
    _, record = run_json(*arguments[:5], "--fail-on", "candidates")
    assert record["gates"] == {"candidates": "hit"}
    assert record["beyond_proof"].startswith(said)
    assert record["attack"]["found"] == 3


def test_gates_of_an_attack_that_finds_nothing(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    import exan_verify.api.attack_own_batch as module

    real = module.attack

    def nothing(*arguments: Any, unfinished: bool, **options: Any) -> Any:
        found = real(*arguments, **options)
        return replace(found, x=found.x[:0], y=found.y[:0], status=(), candidates=(), unfinished=unfinished)

    arguments = (*AUDIT, "--fail-on", "recovered", "--fail-on", "candidates")
    monkeypatch.setattr(module, "attack", partial(nothing, unfinished=False))
    _, out, _ = run(*arguments, exits=ExitCode.DONE)
    assert "gate recovered: passed; the attack found none, which is no promise" in out
    monkeypatch.setattr(module, "attack", partial(nothing, unfinished=True))
    _, out, _ = run(*arguments, exits=ExitCode.UNDECIDED)
    assert "gate candidates: undecided; the attack found neither samples nor candidates before its" in out


def test_the_gates_on_the_command_line_are_those_of_an_audit():
    from exan_verify.api import audit
    from exan_verify.cli import audit as command

    assert (command.GATES, command._ATTACK_GATES) == (audit.GATES, audit.ATTACK_GATES)


# ---- attack -----------------------------------------------------------------------------------------------


def test_attack_writes_the_batch_and_scores_it(here: Path, run: Run, run_json: RunJson):
    code, out, err = run(*ATTACK, "--truth", "batch.npz")
    assert (code, err) == (ExitCode.DONE, "")
    assert "3 of 3 samples, the whole batch" in out
    assert "3 labels right" in out
    x, y = load_batch("found.npz")
    truth, labels = load_batch("batch.npz")
    order = np.argsort(y)
    assert y[order].tolist() == labels.tolist()
    assert np.abs(x[order] - truth).max() < 1e-6
    _, record = run_json(*ATTACK[:-1], "found.safetensors", "--truth", "batch.npz", exits=0)
    assert record["schema"] == "exan/attack/1"
    assert record["complete"] is True
    assert record["score"]["recall"] == 1
    assert len(record["status"]) == record["found"] == 3
    assert load_batch("found.safetensors")[0].shape == (3, 12)


def test_an_attack_that_does_not_recover_everything_is_exit_code_three(here: Path, run_json: RunJson):
    model = perceptron(12, 40, 4).double()
    x, y = (torch.tensor(a) for a in load_batch("batch.npz"))
    x, y = x[[0, 0, 1]].double(), y[[0, 0, 1]].long()
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradient = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)
    save_gradient("twins.safetensors", dict(zip(names, gradient, strict=True)))
    asked = ("attack", "model.safetensors", "twins.safetensors", "--batch-size", "3", "--out", "found.npz")
    _, record = run_json(*asked, exits=ExitCode.UNDECIDED)
    assert record["complete"] is False
    assert record["found"] < 3
    assert record["reason"]


def only(*names: str) -> dict[str, torch.Tensor]:
    whole = load_gradient("gradient.safetensors").tensors
    return {name: torch.tensor(whole[name]) for name in names}


def test_a_gradient_with_missing_tensors_is_attacked_when_that_is_said(
    here: Path, run: Run, run_json: RunJson
):
    save_gradient("first.safetensors", only("0.weight", "0.bias"))
    arguments = ("attack", "model.safetensors", "first.safetensors", "--out", "found.npz")
    _, _, err = run(*arguments, exits=ExitCode.USAGE)
    assert "or say partial=True (--partial) if it is not known" in err
    code, record = run_json(*arguments, "--partial", "--truth", "batch.npz")
    assert (code, record["score"]["recall"], record["hidden"]) == (ExitCode.DONE, 1, None)
    assert record["missing"] == ["2.weight", "2.bias"]
    save_gradient("last.safetensors", only("2.weight", "2.bias"))
    code, out, _ = run("attack", "model.safetensors", "last.safetensors", *arguments[3:], "--partial")
    assert code == ExitCode.DONE
    flat = " ".join(out.split())
    assert "not given 0.weight, 0.bias" in flat
    assert "last layer rank 3, classes present: " in flat
    # three samples are found from the last layer alone; what is written are their inputs
    with np.load("found.npz") as written:
        truth = np.load("batch.npz")["x"]
        assert np.abs(np.sort(written["x"], axis=0) - np.sort(truth, axis=0)).max() < 1e-5


def test_claimed_features_of_a_hidden_layer_are_written(here: Path, run: Run, run_json: RunJson):
    model, x, y = perceptron(40, 30, 40, 5, seed=3), uniform(3, 40, seed=3), torch.tensor([4, 0, 2])
    gradient = autograd(model, x, y)
    save_gradient("upper.safetensors", {n: g for n, g in gradient.items() if not n.startswith("0.")})
    save_file({n: p.detach() for n, p in model.named_parameters()}, "deep.safetensors")
    arguments = ("attack", "deep.safetensors", "upper.safetensors", "--partial", "--out", "found.npz")
    code, record = run_json(*arguments)
    assert (code, record["found"]) == (ExitCode.UNDECIDED, 0)
    assert (record["hidden"]["layer"], sorted(record["hidden"]["labels"])) == (1, [0, 2, 4])
    with np.load("found.npz") as written:
        features, labels = written["hidden_features"], written["hidden_labels"]
    truth = model[:2](x).detach()[torch.tensor([y.tolist().index(label) for label in labels])]
    bounds = np.array([s["error_bound"] for s in record["hidden"]["status"]])
    assert (np.abs(features - truth.numpy()).max(axis=1) <= bounds).all()
    code, out, _ = run(*arguments)
    assert "hidden layer 1     3 of 3 samples, within" in out


def test_a_wrong_loss_or_reduction_is_named_in_a_hint(here: Path, run: Run, run_json: RunJson):
    _, out, _ = run(*ATTACK, "--reduction", "sum", "--method", "lift", exits=ExitCode.UNDECIDED)
    assert "0 of 3 samples" in out
    assert "hint" in out
    assert "reduction='mean', batch_size=3" in " ".join(out.split())
    _, out, _ = run(*ATTACK, "--reduction", "sum", exits=ExitCode.DONE)
    text = " ".join(out.split())
    assert "0.333333 times that of a batch of 3 (sum), as reduction='mean' makes it" in text
    code, record = run_json(*ATTACK, "--loss", "mse")
    assert (code, record["found"]) == (ExitCode.UNDECIDED, 0)
    assert "loss='cross_entropy', reduction='mean', batch_size=3" in record["hint"]
    assert run_json(*ATTACK)[1]["hint"] == ""


def test_published_to_the_letter_claims_nothing_and_says_why(here: Path, run: Run, run_json: RunJson):
    _, record = run_json(*ATTACK, "--method", "published", "--no-repairs", exits=ExitCode.UNDECIDED)
    assert (record["method"], record["found"], record["complete"]) == ("published", 0, False)
    assert record["reason"]
    _, record = run_json(*ATTACK, "--method", "peel")
    assert record["method"] == "peel"
    _, _, err = run(*ATTACK, "--no-repairs", exits=ExitCode.USAGE)
    assert "repairs=False belongs to method='published'" in err


# ---- demo and bench ---------------------------------------------------------------------------------------


@pytest.fixture
def one_thread():
    """Torch's threads wait for one another in loops, which is slow where tests share the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_demo_does_the_main_job_and_its_commands_work(here: Path, run: Run, run_json: RunJson):
    _, record = run_json("demo", "--out", "report", "--seed", "5", exits=ExitCode.DONE)
    assert [one["name"] for one in record["networks"]] == ["trained", "initialised"]
    for one in record["networks"]:
        assert one["certificate_accepted"] is True
        assert one["audit"]["verdict"]["outcome"] == "unique"
        assert one["attack"]["complete"] is True
        assert max(one["rmse"]) < 1e-5
        for name in (
            "model.safetensors",
            "gradient.safetensors",
            "batch.npz",
            "recovered.npz",
            "certificate.json",
        ):
            assert (Path(one["folder"]) / name).is_file()
    assert Path(record["report"]).read_text().count("data:image/png") == 2 * (2 * 16 + 1)
    from exan_verify.cli.demo import commands

    for line in commands(Path("report")).values():
        program, *arguments = line.split()
        assert program == "exan"
        assert run(*arguments)[0] == ExitCode.DONE


@pytest.mark.usefixtures("in_this_process")
def test_bench_measures_a_case(here: Path, run_json: RunJson, monkeypatch: pytest.MonkeyPatch):
    case = "8-12-3 mse, one region, classes (2,1)"
    _, record = run_json("bench", "certify", "--case", case, "--repeat", "1", "--out", "b.json", exits=0)
    (row,) = record["suites"]["certify"]
    assert (row["name"], row["outcomes"], row["seeds"]) == (case, {"unique": 1}, 1)
    assert json.loads(Path("b.json").read_text())["suites"] == record["suites"]
    small = Case(name="small", widths=(12, 60, 4), samples=3)
    monkeypatch.setattr(bench_attack, "SUITE", replace(bench_attack.SUITE, cases=(small,)))
    _, record = run_json("bench", "attack", "--alone", "--case", "small", "--repeat", "1", exits=0)
    assert list(record["suites"]) == ["attack"]
    assert (record["suites"]["attack"][0]["recall"], record["suites"]["attack"][0]["wrong"]) == (1, 0)


def test_bench_searches_batches(run: Run, run_json: RunJson):
    search = ("--case", "784-512-2 M=4 inside", "--batches", "1")
    _, record = run_json("bench", "insecure", *search, exits=0)
    (row,) = record["suites"]["insecure"]
    assert (row["batches"], row["letter"], row["published"], row["peel"], row["lift"]) == (1, 0, 0, 1, 1)
    _, _, err = run("bench", "certify", "--case", "none", exits=ExitCode.USAGE)
    assert "784-512-10 M=8" in err


# ---- bad input: one error, exit code 2, nothing written ---------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["certify", "none.safetensors", "--batch", "batch.npz"], "none.safetensors: cannot be read"),
        (["certify", "model.safetensors", "--batch", "none.npz"], "none.npz: cannot be read"),
        (["certify", "model.safetensors", "--batch", "nan.npz"], "nan.npz: x contains NaN"),
        (["certify", "model.safetensors", "--batch", "wide.npz"], "wide.npz: x has 13 features"),
        (["certify", "model.safetensors", "--batch", "label.npz"], "label.npz: y[0] = 9 is not a class"),
        (["certify", "model.safetensors", "--batch", "cut.npz"], "cut.npz: not a whole .npz file"),
        (["certify", "model.pt", "--batch", "batch.npz"], "model.pt: is a pickle"),
        (["certify", "model.safetensors"], "give either --batch FILE or --gradient FILE"),
        ([*CERTIFY, "--exact"], "--exact and --tolerance go with"),
        ([*CERTIFY, "--engine", "magic"], "error: engine='magic'"),
        ([*CERTIFY, "--batch-size", "0"], "batch_size=0"),
        ([*CERTIFY, "--loss", "nll"], "'nll' is not one of"),
        ([*CERTIFY, "--budget", "0"], "--budget"),
        ([*CERTIFY, "--weights", "w"], "--weights goes with"),
        (["certify", "no_module:f", "--batch", "batch.npz"], "no_module:f: the module 'no_module'"),
        (
            ["certify", "model.safetensors", "--gradient", "zero.npz", "--exact"],
            "every entry of the gradient is zero",
        ),
        (["certify", "model.safetensors", "--gradient", "batch.npz", "--exact"], "batch.npz: "),
        ([*AUDIT, "--report", "no/where.html"], "no/where.html: its folder"),
        (["check", "none.json", "model.safetensors", "--batch", "batch.npz"], "none.json: cannot be read"),
        (["check", "none.json", "model.safetensors"], "give the --batch FILE or --gradient FILE"),
        (["attack", "model.safetensors", "zero.npz", "--out", "found.csv"], "neither .npz nor .safetensors"),
        (
            ["attack", "model.safetensors", "zero.npz", "--out", "found.npz"],
            "every entry of the gradient is zero",
        ),
        (["attack", "model.safetensors", "zero.npz", "--out", "no/found.npz"], "no/found.npz: its folder"),
        (
            ["attack", "model.safetensors", "gradient.safetensors", "--out", "f.npz", "--method", "magic"],
            "method='magic'",
        ),
        (["attack", "model.safetensors", "cut.npz", "--out", "found.npz"], "cut.npz: not a whole .npz"),
        (["frobnicate"], "No such command"),
        (["audit", "model.safetensors"], "give MODEL and BATCH"),
    ],
)
def test_bad_input(here: Path, run: Run, arguments: list[str], message: str):
    x, y = load_batch("batch.npz")
    save_batch("nan.npz", np.full_like(x, np.nan), y)
    save_batch("wide.npz", np.ones((3, 13)), y)
    save_batch("label.npz", x, y + 9)
    save_gradient(
        "zero.npz", {name: torch.zeros_like(p) for name, p in perceptron(12, 40, 4).named_parameters()}
    )
    Path("cut.npz").write_bytes(Path("batch.npz").read_bytes()[:-9])
    torch.save(perceptron(12, 40, 4).state_dict(), "model.pt")
    before = set(os.listdir())
    code, out, err = run(*arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert set(os.listdir()) == before


def test_a_budget_ends_commands_that_have_no_verdict_to_say_it_in(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    import time

    run(*CERTIFY, "--certificate", "c.json")
    monkeypatch.setattr("exan_verify.api.check.check", lambda *_, **__: time.sleep(30))
    code, out, err = run("check", "c.json", "model.safetensors", "--batch", "batch.npz", "--budget", "0.1")
    assert (code, out) == (ExitCode.UNDECIDED, "")
    assert "budget of 0.1 s ran out" in err


# ---- the installed command --------------------------------------------------------------------------------


def exan(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    assert EXAN is not None, "the console script exan is not installed: pip install -e ."
    return subprocess.run([EXAN, *arguments], capture_output=True, text=True, check=False, **settings)


def test_the_installed_command_works_without_a_terminal(here: Path):
    result = exan(*CERTIFY, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["outcome"] == "unique"
    assert exan("--version").stdout.startswith("exan")
    result = exan("certify", "model.safetensors", "--batch", "none.npz")
    assert result.returncode == 2
    assert result.stderr == "error: none.npz: cannot be read (No such file or directory); check the path\n"


def test_help_is_there_for_every_command_and_does_not_load_torch():
    code = (
        "import sys; from exan_verify.cli import main; from exan_verify.cli.program import exan\n"
        "for name in exan.commands: assert main([name, '--help']) == 0\n"
        "assert main(['--help']) == 0 and 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Usage") == len(COMMANDS) + 1
    assert result.stdout.count("--json") == len(COMMANDS)


def test_the_work_limit_is_where_work_is_counted_as_the_docs_say():
    having = {command.name for command in COMMANDS if any(p.name == "work_limit" for p in command.params)}
    page = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text()
    sentence = page[page.index("`--work-limit N` on") :].split(":")[0]
    named = re.findall(r"`(\w+)(?: certify)?`", sentence)
    assert (
        sorted(named) == sorted(having) == ["audit", "bench", "certify", "demo", "mitigate", "smt", "sweep"]
    )


@pytest.mark.parametrize(("library", "command"), [("rich_click", ["--version"]), ("torch", ["certify"])])
def test_ctrl_c_while_libraries_load_is_no_traceback(tmp_path: Path, library: str, command: list[str]):
    # stands for the library, and is interrupted while it loads
    (tmp_path / f"{library}.py").write_text("raise KeyboardInterrupt")
    (tmp_path / "factory.py").write_text("import torch")
    arguments = command if command != ["certify"] else ["certify", "factory:model", "--batch", "batch.npz"]
    result = exan(*arguments, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stdout) == (ExitCode.INTERRUPTED, "")
    assert result.stderr.strip() == "error: interrupted"


def test_a_demo_that_cannot_write_says_so_before_it_works(here: Path, run: Run):
    Path("taken").write_text("a file")
    code, out, err = run("demo", "--out", "taken")
    assert (code, out) == (ExitCode.USAGE, "")
    assert err.startswith("error: taken: cannot be created")
    assert Path("taken").read_text() == "a file"
