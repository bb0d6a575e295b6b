"""Ctrl-C on ``exan certify --engine enumeration --jobs 2``: finished parts stay, and the next run goes on.

Also two searches on one store, and a disk that is full: nothing is lost, half-written or left behind.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from exan_verify.api.files import save_batch
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.core.budget import Budget
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.enumeration import engine, search, tasks
from exan_verify.decide.lifting.system import plan
from tests.support.cases import default_network, random_batch, random_case

PATIENCE = 120.0
MARK = 1_000_000_000
"""Subspaces that a stored part is made to claim: far more than the whole search has."""

PROGRAM = """
import os, signal, sys
from exan_verify.cli import main
from exan_verify.decide.enumeration import tasks

tasks._rule = lambda _: (64, 8)
finished, save, stop = [], tasks.Store.save, int(sys.argv.pop(1))
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background

def counted(self, part, tally):
    save(self, part, tally)
    finished.append(part)
    if len(finished) == stop:
        os.killpg(0, signal.SIGINT)  # as a terminal sends it: to every process of the group

tasks.Store.save = counted
if __name__ == "__main__":
    sys.exit(main())
"""
"""A search in eight parts; Ctrl-C as soon as so many of them are stored."""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    network, batch = random_case([20, 40, 6], 6, seeds=(1, 1))
    tensors = {}
    for k, layer in enumerate(network.layers):
        tensors[f"{2 * k}.weight"] = np.ascontiguousarray(layer.weight, dtype=np.float32)
        tensors[f"{2 * k}.bias"] = np.ascontiguousarray(layer.bias, dtype=np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    save_batch(tmp_path / "batch.npz", batch.inputs, batch.labels)
    files = [str(tmp_path / "model.safetensors"), "--batch", str(tmp_path / "batch.npz")]
    return ["certify", *files, "--engine", "enumeration", "--jobs", "2", "--json"]


def test_an_interrupted_command_goes_on_where_it_stopped(command: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    store = tmp_path / "cache" / "exan_verify" / "enumeration"

    def run(stop: int) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, str(program), str(stop), *command],
            env=environment,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
            start_new_session=True,
        )

    interrupted = run(2)
    assert interrupted.returncode == ExitCode.INTERRUPTED, interrupted.stderr.decode()
    assert not interrupted.stdout
    finished = sorted(store.iterdir())
    assert [path.suffix for path in finished] == [".json"] * 2
    # a part that is not searched again keeps the number that it claims
    marked = json.loads(finished[0].read_text())
    finished[0].write_text(json.dumps(marked | {"visited": MARK}))
    again = run(0)
    assert again.returncode == 0, again.stderr.decode()
    verdict = json.loads(again.stdout)
    assert verdict["outcome"] == "unique"
    (attempt,) = verdict["attempts"]
    visited = int(attempt["note"].split("layer 1: ")[1].split(" subspaces")[0])
    assert MARK < visited < 2 * MARK
    assert not list(store.iterdir())


@pytest.fixture
def equations(monkeypatch: pytest.MonkeyPatch) -> search.Equations:
    monkeypatch.setattr(tasks, "_rule", lambda _: (64, 8))
    network = default_network([20, 40, 6], seed=1)
    setting = Setting(
        network=network,
        question=Question(loss=Loss.CROSS_ENTROPY, reduction=Reduction.MEAN, labels=Labels.ONE_HOT),
    )
    context = Context(setting=setting, batch=random_batch(network, 6))
    return engine.layer_equations(context, plan(context, 1, tuple(range(6)))).equations


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "no space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 3, 8])
def test_a_fault_while_a_part_is_written_leaves_no_half_of_it(
    equations: search.Equations,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: BaseException,
    at: int,
) -> None:
    expected = tasks.search_in_parts(equations, Budget(), 1, tmp_path)
    written, dump = [], json.dump

    def failing(record: Any, file: Any) -> None:
        written.append(record)
        if len(written) == at:
            file.write(json.dumps(record)[:20])
            raise fault
        dump(record, file)

    monkeypatch.setattr(tasks.json, "dump", failing)
    if isinstance(fault, OSError):
        assert tasks.search_in_parts(equations, Budget(), 1, tmp_path) == expected
    else:
        with pytest.raises(KeyboardInterrupt):
            tasks.search_in_parts(equations, Budget(), 1, tmp_path)
        kept = list(tmp_path.iterdir())
        assert [path.suffix for path in kept] == [".json"] * (at - 1)
        assert all(json.loads(path.read_text())["visited"] for path in kept)
        assert tasks.search_in_parts(equations, Budget(), 1, tmp_path) == expected
    assert not list(tmp_path.iterdir())


def test_two_searches_on_one_store_find_the_same(
    equations: search.Equations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process runs the whole search between any two parts of this one, and clears the store."""
    expected = tasks.search_in_parts(equations, Budget(), 1, tmp_path)
    honest, inside = tasks.search, [False]

    def beside(*arguments: Any) -> search.Tally:
        if not inside[0]:
            inside[0] = True
            assert tasks.search_in_parts(equations, Budget(), 1, tmp_path) == expected
            inside[0] = False
        return honest(*arguments)

    monkeypatch.setattr(tasks, "search", beside)
    assert tasks.search_in_parts(equations, Budget(), 1, tmp_path) == expected
    assert not list(tmp_path.iterdir())
