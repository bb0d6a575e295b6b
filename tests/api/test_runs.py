"""The audit of a run: the same result whatever jobs, interruptions and forms of the steps there were."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exan_verify import Box, Release, RunAuditor, Step, audit, audit_run
from exan_verify.api.runs import audit_run as running
from exan_verify.api.runs.folder import RunFolder
from exan_verify.api.runs.run_report import SHARES, RunReport
from exan_verify.api.runs.step_record import Asked, audit_step, prepare
from exan_verify.api.runs.steps import StoredSteps
from exan_verify.core.parallel import cluster, each
from exan_verify.core.question import Question
from exan_verify.errors import ExanError, FileError, InputError, LabelError, WorkerError
from tests.support.run_cases import steps, write_run

COUNT = 9


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """The run of the others, at once and here."""
    return audit_run(steps(COUNT), out=tmp_path_factory.mktemp("runs") / "undisturbed")


def kept(out: Path) -> list[int]:
    """Indices of the finished steps, in the order in which they came."""
    return [json.loads(line)["index"] for line in (out / "steps.jsonl").read_text().splitlines()]


def test_each_step_says_what_its_audit_says(undisturbed: RunReport):
    for record, (network, batch) in zip(undisturbed.steps(), steps(COUNT), strict=True):
        alone = audit(network, batch)
        assert record.outcome == alone.verdict.outcome.value
        assert record.determined == alone.verdict.determined
        assert record.peelable == sum(map(bool, alone.peelable))
        assert record.gates["determined"] == alone.gate("determined")
        assert record.network == "3-16-3"
        assert (record.confirmed, record.no_attack) == (None, "")
    whole = undisturbed.all
    assert (whole.steps, whole.samples, undisturbed.total) == (COUNT, 2 * COUNT, COUNT)
    for name in SHARES[:5]:
        assert whole.counts[name] == sum(getattr(record, name) for record in undisturbed.steps())
    assert whole.share("confirmed") is None
    assert json.loads((undisturbed.out / "summary.json").read_text()) == json.loads(undisturbed.to_json())


def test_an_attack_is_counted_by_tier(tmp_path: Path):
    found = audit_run(steps(2), out=tmp_path / "out", attack=True)
    assert found.all.share("confirmed") + found.all.share("consistent") == 1
    assert found.gate("recovered") == "hit"
    assert all(record.confirmed + record.consistent == 2 for record in found.steps())


KILLED = """
import os, signal, sys
from exan_verify import audit_run
from tests.support.run_cases import steps
def until_killed(last):
    for k, step in enumerate(steps({count})):
        if k == last:
            os.kill(os.getpid(), signal.SIGKILL)
        yield step
audit_run(until_killed({last}), out=sys.argv[1])
"""


def test_a_run_that_is_killed_is_resumed_to_the_same_result(undisturbed: RunReport, tmp_path: Path):
    last = int(np.random.default_rng(time.time_ns()).integers(1, COUNT))
    code = KILLED.format(count=COUNT, last=last)
    folder = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "out"], cwd=folder, check=False)
    assert run.returncode == -signal.SIGKILL
    assert kept(tmp_path / "out") == list(range(last))
    found = audit_run(steps(COUNT), out=tmp_path / "out")
    assert found.digest == undisturbed.digest
    assert kept(tmp_path / "out") == list(range(COUNT))


def test_the_beginning_of_a_line_is_dropped_wherever_it_was_cut(undisturbed: RunReport, tmp_path: Path):
    whole = (undisturbed.out / "steps.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    rng = np.random.default_rng(4)
    for k in range(4):
        out = tmp_path / str(k)
        shutil.copytree(undisturbed.out, out)
        left = sum(map(len, lines[:-2])) + int(rng.integers(0, sum(map(len, lines[-2:]))))
        (out / "steps.jsonl").write_bytes(whole[:left])
        assert audit_run(steps(COUNT), out=out).digest == undisturbed.digest
        assert sorted(kept(out)) == list(range(COUNT))


def test_two_processes_give_the_same(undisturbed: RunReport, tmp_path: Path):
    told: list[tuple[int, int | None, float | None]] = []
    found = audit_run(steps(COUNT), out=tmp_path / "out", jobs=2, progress=lambda *step: told.append(step))
    assert found.digest == undisturbed.digest
    assert replace(found, out=undisturbed.out, total=None, folder=None, worst=()) == replace(
        undisturbed, total=None, folder=None, worst=()
    )
    assert [record.lasting() for record in found.worst] == [record.lasting() for record in undisturbed.worst]
    assert [done for done, _, _ in told] == list(range(COUNT + 1))


def test_two_dask_workers_of_which_one_is_killed_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is an optional backend")
    monkeypatch.setattr("exan_verify.core.parallel._CONNECTING", 2.0)
    count = 20
    expected = audit_run(steps(count, samples=1), out=tmp_path / "here").digest

    def then(what: Callable[[], None]) -> Iterator[Any]:
        """The steps; ``what`` is done when the answers to the first 16, a part for two workers, are there."""
        for k, step in enumerate(steps(count, samples=1)):
            if k == 16:
                what()
            yield step

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        address = local.scheduler_address
        with pytest.raises(KeyError), cluster(address):  # the user's own errors are not the cluster's
            list(each(str, map({}.__getitem__, [0])))
        victim = next(iter(local.workers.values())).pid
        # as late as the next part is being handed out: what the dead worker is given, another one does
        kill = threading.Timer(0.02, os.kill, (victim, signal.SIGKILL))
        assert audit_run(then(kill.start), out=tmp_path / "there", dask=address).digest == expected
        kill.join()
        with pytest.raises(WorkerError, match="the dask cluster"):
            audit_run(then(local.close), out=tmp_path / "gone", dask=address)
    assert len(kept(tmp_path / "gone")) == 16
    assert audit_run(steps(count, samples=1), out=tmp_path / "gone").digest == expected


# ---- forms of the steps -----------------------------------------------------------------------------------


def test_a_folder_a_manifest_and_memory_hold_the_same_steps(undisturbed: RunReport, tmp_path: Path):
    write_run(tmp_path / "run", COUNT)
    folder = audit_run(tmp_path / "run", out=tmp_path / "a")
    named = (Step(model=m, batch=b, step=k) for k, (m, b) in enumerate(steps(COUNT)))
    assert folder.digest == audit_run(named, out=tmp_path / "b").digest == undisturbed.digest
    manifest = audit_run(str(tmp_path / "run" / "manifest.jsonl"), out=tmp_path / "c")
    assert [record.epoch for record in manifest.steps()] == [k // 4 for k in range(COUNT)]
    assert list(manifest.epochs) == [0, 1, 2]
    assert sum(one.samples for one in manifest.epochs.values()) == manifest.all.samples
    assert manifest.all == undisturbed.all
    last = list(manifest.steps())[-1]
    assert (last.accuracy, last.line) == ((COUNT - 1) / COUNT, COUNT)
    assert last.source.endswith("manifest.jsonl")
    assert [Path(record.source).name for record in folder.steps()] == [f"batch-{k}.npz" for k in range(COUNT)]


def test_numbers_in_names_count_as_numbers_and_one_model_serves_all(tmp_path: Path):
    folder = write_run(tmp_path / "run", 11)
    assert [step.step for step in StoredSteps(folder)] == list(range(11))
    for k in range(1, 11):
        (folder / f"model-{k}.safetensors").unlink()
    models = [step.model for step in StoredSteps(folder)]
    assert all(model == next(steps(1))[0] for model in models)


def test_the_batches_of_a_loader_with_a_model_that_is_trained(tmp_path: Path):
    """The model of each step is the model as it was then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    rng = np.random.default_rng(3)
    data = torch.utils.data.TensorDataset(
        torch.tensor(rng.normal(size=(6, 3))), torch.tensor(rng.integers(0, 3, 6))
    )
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def trained() -> Iterator[Any]:
        for x, y in loader:
            yield model, (x, y)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.125

    seen = audit_run(trained(), out=tmp_path / "a")
    assert len({record.model_sha256 for record in seen.steps()}) == 3
    model.load_state_dict(start)
    with RunAuditor(out=tmp_path / "b") as auditor:
        for _, batch in trained():
            auditor(model, batch)
    assert auditor.report().digest == seen.digest
    model.load_state_dict(start)
    with RunAuditor(out=tmp_path / "c", every=2) as auditor:
        for epoch, (_, batch) in enumerate(trained()):
            auditor(model, batch, epoch=epoch, accuracy=0.5)
    assert [(r.index, r.step, r.epoch) for r in auditor.report().steps()] == [(0, 0, 0), (1, 2, 2)]
    fixed = audit_run(loader, model=model, out=tmp_path / "d")
    assert (fixed.total, len({record.model_sha256 for record in fixed.steps()})) == (3, 1)


def test_a_model_with_convolutions_can_only_be_attacked(tmp_path: Path):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 40), nn.ReLU()).double()
    model.append(nn.Linear(40, 5).double())
    x = np.random.default_rng(2).random((2, 1, 4, 4))
    found = audit_run([(model, (x, [3, 1]))], out=tmp_path / "out", step_budget=1e-4)
    (record,) = found.steps()
    assert record.no_attack.startswith(("not finished: the budget ran out", "not tried: the audit took"))
    assert (record.outcome, record.determined, record.peelable) == ("unknown", 0, None)
    assert found.all.share("peelable") is None
    assert found.gate("peel") == "undecided"


def test_a_release_and_a_domain_are_asked_of_every_step(tmp_path: Path):
    release = Release(rows={"0.weight": [True] * 2 + [False] * 14, "0.bias": [True] * 2 + [False] * 14})
    some = audit_run(steps(2), out=tmp_path / "a", release=release, work_limit=10**6)
    assert some.all.counts["determined"] < 4
    asked = json.loads((tmp_path / "a" / "run.json").read_text())
    assert asked["release"]["rows"]["0.weight"][:3] == [True, True, False]
    with pytest.raises(InputError, match="release was "):
        audit_run(steps(2), out=tmp_path / "a", work_limit=10**6)
    audit_run(steps(1), out=tmp_path / "b", domain=Box(-9, 9))


# ---- what cannot be used ----------------------------------------------------------------------------------


def test_bad_steps_are_one_error_before_anything_is_audited(tmp_path: Path):
    folder = write_run(tmp_path / "run", 3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.jsonl").write_text("\n\n")
    (folder / "broken.jsonl").write_text('{"model": "model-0.safetensors"}\n')
    (folder / "odd.jsonl").write_text(
        '{"model": "model-0.safetensors", "batch": "batch-0.npz", "speed": 3}\n'
    )
    (folder / "missing.jsonl").write_text(
        '{"model": "model-0.safetensors", "batch": "batch-0.npz"}\n'
        '{"model": "no.safetensors", "batch": "none.npz"}\n'
    )
    for path, said in (
        ("empty", r"there is no model\*.safetensors in it; a run is a folder"),
        ("nothing.jsonl", "has no steps"),
        ("absent", "cannot be read"),
        ("\x00", "is not a path"),
        ("run/broken.jsonl", "line 1: is no step .*batch"),
        ("run/odd.jsonl", "line 1: is no step .*speed"),
        ("run/missing.jsonl", "line 2: there is no file .*none.npz and no file .*no.safetensors; correct"),
    ):
        with pytest.raises(FileError, match=said):
            audit_run(tmp_path / path, out=tmp_path / "out")
    (folder / "model-1.safetensors").rename(folder / "model-7.safetensors")
    with pytest.raises(FileError, match=r"batch-1.npz, model-7.safetensors have no partner"):
        audit_run(folder, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "steps=3 cannot be used"),
        ([], "the run has no steps"),
        ([7], r"step 0: 7 cannot be used; give a pair \(model, batch\)"),
        ([(next(steps(1))[0], 7)], "step 0: batch=7 cannot be used"),
        ([Step(model=None, batch=([[1.0]], [0]))], "step 0: model is a NoneType"),
        ([Step(model=next(steps(1))[0], batch=([[1.0, 2.0]], [0]), step=7)], "step 7: x has 2 features"),
    ],
)
def test_what_is_no_step_is_named(given: Any, said: str, tmp_path: Path):
    with pytest.raises(InputError, match=said):
        audit_run(given, out=tmp_path / "out")


def test_what_a_step_cannot_be_is_said_where_it_is_made():
    for wrong in (
        {"batch": 3},
        {"step": -1},
        {"epoch": 0.5},
        {"accuracy": 7},
        {"accuracy": True},
        {"line": "x"},
    ):
        ((name, value),) = wrong.items()
        with pytest.raises(InputError, match=f"{name}={value!r} cannot be used"):
            Step(**({"model": None, "batch": ([[1.0]], [0])} | wrong))
    made = Step(model=None, batch=([[1.0]], [0]), step=np.int64(3), accuracy=np.float32(0.5))
    assert (type(made.step), type(made.accuracy)) == (int, float)


def test_what_comes_before_a_bad_step_is_kept(tmp_path: Path):
    good = list(steps(4, samples=1))
    bad_label = (good[2][0], (good[2][1][0], [5]))
    for jobs in (1, 2):
        out = tmp_path / str(jobs)
        with pytest.raises(LabelError, match=r"step 2: y\[0\] = 5 is not a class"):
            audit_run([*good[:2], bad_label, good[3]], out=out, jobs=jobs)
        assert set(kept(out)) >= {0, 1}
        assert not {2} & set(kept(out))
        assert audit_run(good, out=out).all.steps == 4
    smaller = next(iter(steps(1)))[0]
    other = type(smaller).from_arrays([np.eye(3), np.eye(3)], [np.zeros(3), np.zeros(3)])
    with pytest.raises(
        InputError, match=r"step 1: its model is a 3-3-3 network, and those before it are 3-16-3"
    ):
        audit_run([good[0], (other, good[1][1])], out=tmp_path / "mixed")
    assert kept(tmp_path / "mixed") == [0]


def test_the_folder_of_another_run_is_refused_and_left_as_it_is(undisturbed: RunReport, tmp_path: Path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed.out, out)
    before = (out / "steps.jsonl").read_bytes()
    other = [(m, (x + 1, y)) for m, (x, y) in steps(COUNT)]
    for given, options, said in (
        (steps(COUNT), {"resume": False}, r"has the steps of a run; say resume"),
        (steps(COUNT), {"loss": "hinge"}, r'loss was "cross_entropy", now "hinge"'),
        (steps(COUNT), {"attack": True, "seed": 3}, r"attack was false, now true; seed was 0, now 3"),
        (other, {}, r"step 0: .* has an answer for another model, batch"),
        (steps(COUNT - 1), {}, r"has 9 steps, and this run has 8"),
    ):
        with pytest.raises(InputError, match=said):
            audit_run(given, out=out, **options)
    assert (out / "steps.jsonl").read_bytes() == before


def test_a_folder_that_cannot_be_used(
    undisturbed: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("x")
    shutil.copytree(undisturbed.out, tmp_path / "changed")
    (tmp_path / "changed" / "steps.jsonl").write_text("{}\n")
    shutil.copytree(undisturbed.out, tmp_path / "headless")
    (tmp_path / "headless" / "run.json").unlink()
    for name, said in (
        ("file", "is a file; give a folder"),
        ("no/where", "its folder does not exist; create"),
        ("changed", "line 1: is no step"),
        ("headless", "has steps.jsonl but no run.json"),
    ):
        with pytest.raises(FileError, match=said):
            audit_run(steps(1), out=tmp_path / name)
    asked = Asked(question=Question.of("cross_entropy", "mean", "one_hot")).to_record()
    first = RunFolder(tmp_path / "busy", asked, resume=True)
    with pytest.raises(FileError, match="another process writes this run"):
        RunFolder(tmp_path / "busy", asked, resume=True)
    first.close()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("exan_verify.api.runs.folder.os.fsync", full)
    with pytest.raises(FileError, match=r"No space left on device\); 0 finished steps are kept"):
        audit_run(steps(1, samples=1), out=tmp_path / "busy")
    assert (tmp_path / "busy" / "steps.jsonl").read_bytes() == b""


# ---- budgets and memory -----------------------------------------------------------------------------------


def test_what_the_budget_of_a_run_cuts_stays_open(undisturbed: RunReport, tmp_path: Path):
    cut = audit_run(steps(COUNT), out=tmp_path / "out", budget=1e-9)
    assert (cut.all.steps, cut.unfinished) == (0, "the budget ran out")
    assert {cut.gate(name) for name in cut.gates} == {"undecided"}
    asked = Asked(question=Question.of("cross_entropy", "mean", "one_hot"))
    model, batch = next(steps(1))
    for end, finished in ((time.time() + 1e6, True), (time.time() - 1, False)):
        found = audit_step(prepare(0, Step(model=model, batch=batch), asked, end))
        assert (found is not None) == finished
    assert audit_run(steps(COUNT), out=tmp_path / "out").digest == undisturbed.digest


def test_a_step_that_the_budget_of_the_run_may_have_cut_has_no_answer(monkeypatch: pytest.MonkeyPatch):
    from exan_verify.api.runs import step_record

    model, batch = next(steps(1))
    asked = Asked(question=Question.of("cross_entropy", "mean", "one_hot"))

    def late(*given: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return audit(*given, **options | {"budget": None})

    monkeypatch.setattr(step_record, "audit", late)
    assert audit_step(prepare(0, Step(model=model, batch=batch), asked, time.time() + 0.2)) is None


def test_a_gate_is_passed_by_all_steps_and_by_no_part_of_them(tmp_path: Path):
    """Twins share every neuron, so that none of them can be peeled."""
    network, (x, y) = next(steps(1))
    twins = (network, (x[[0, 0]], y[[0, 0]]))
    found = audit_run([twins], out=tmp_path / "twins", work_limit=10**6)
    assert found.gate("peel") == "passed"
    assert replace(found, unfinished="the budget ran out").gate("peel") == "undecided"
    both = audit_run([twins, next(steps(1))], out=tmp_path / "both", work_limit=10**6)
    assert both.gate("peel") == "hit"
    assert both.worst[0].index == 1


def test_a_work_limit_is_each_step_s_and_undecided_is_no_error(tmp_path: Path):
    found = audit_run(steps(3), out=tmp_path / "out", work_limit=1)
    assert found.all.outcomes == {"unknown": 3}
    assert (found.unfinished, found.gate("determined")) == ("", "undecided")
    with pytest.raises(InputError, match="gate='nothing' is not known"):
        found.gate("nothing")


def test_memory_does_not_grow_with_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten times the steps, each with a batch of half a megabyte: what is kept of a step is small."""
    model, batch = next(steps(1))
    asked = Asked(question=Question.of("cross_entropy", "mean", "one_hot"))
    sample = audit_step(prepare(0, Step(model=model, batch=batch), asked, None))
    assert not isinstance(sample, ExanError)

    def answered(one: Any) -> Any:
        digests = {"model_sha256": one.model_sha256, "batch_sha256": one.batch_sha256}
        return replace(sample, index=one.index, step=one.index, **digests)

    monkeypatch.setattr(running, "audit_step", answered)
    monkeypatch.setattr("exan_verify.api.runs.folder.os.fsync", lambda _: None)

    def peak(count: int) -> int:
        inputs = (np.full((20_000, 3), k, dtype=np.float64) for k in range(count))
        tracemalloc.start()
        found = audit_run(((model, (x, x[:, 0])) for x in inputs), out=tmp_path / str(count))
        assert found.all.steps == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)  # what the first call loads
    assert peak(1000) < 1.2 * peak(100)


PEAK = """
import resource, sys, tracemalloc
from exan_verify import audit_run
from tests.support.run_cases import steps
audit_run(steps(2), out=sys.argv[1] + "-first")  # what the first steps load
tracemalloc.start()
found = audit_run(steps(int(sys.argv[2])), out=sys.argv[1])
print(found.all.steps, tracemalloc.get_traced_memory()[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.campaign
def test_memory_does_not_grow_with_the_steps_that_are_audited(tmp_path: Path):
    """The same without a step left out: of Python's objects, and of the process."""

    def peak(count: int) -> tuple[int, int]:
        command = [sys.executable, "-c", PEAK, str(tmp_path / str(count)), str(count)]
        folder = Path(__file__).parents[2]
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        done, objects, process = map(int, said.split())
        assert done == count
        return objects, process

    few, many = peak(100), peak(1000)
    assert many[0] < 1.2 * few[0]
    assert many[1] < 1.2 * few[1]
