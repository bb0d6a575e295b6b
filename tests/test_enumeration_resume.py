"""Ctrl-C on ``exan certify --engine enumeration --jobs 2``: finished parts stay, and the next run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from exan_verify.cli.output import ExitCode
from exan_verify.io import save_batch
from tests.cases import default_network, random_batch

PATIENCE = 120.0
MARK = 1_000_000_000
"""Subspaces that a stored part is made to claim: far more than the whole search has."""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A search of some seconds in eight parts."""
    network = default_network([20, 60, 9], seed=1)
    batch = random_batch(network, 11)
    tensors = {}
    for k, layer in enumerate(network.layers):
        tensors[f"{2 * k}.weight"] = np.ascontiguousarray(layer.weight, dtype=np.float32)
        tensors[f"{2 * k}.bias"] = np.ascontiguousarray(layer.bias, dtype=np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    save_batch(tmp_path / "batch.npz", batch.inputs, batch.labels)
    program = [sys.executable, "-c", "import sys; from exan_verify.cli import main; sys.exit(main())"]
    files = [str(tmp_path / "model.safetensors"), "--batch", str(tmp_path / "batch.npz")]
    return [*program, "certify", *files, "--engine", "enumeration", "--jobs", "2", "--json"]


def test_an_interrupted_command_goes_on_where_it_stopped(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    store = tmp_path / "cache" / "exan_verify" / "enumeration"
    # a session of its own: the signal goes to the whole group, as a terminal sends it
    running = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until = time.monotonic() + PATIENCE
    while not list(store.glob("*.json")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    _interrupt(running)
    assert running.returncode == ExitCode.INTERRUPTED
    finished = sorted(store.glob("*.json"))
    assert 1 <= len(finished) < 8
    # a part that is not searched again keeps the number that it claims
    marked = json.loads(finished[0].read_text())
    finished[0].write_text(json.dumps(marked | {"visited": MARK}))
    again = subprocess.run(command, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    assert again.returncode == 0, again.stderr.decode()
    verdict = json.loads(again.stdout)
    assert verdict["outcome"] == "unique"
    (attempt,) = verdict["attempts"]
    visited = int(attempt["note"].split("layer 1: ")[1].split(" subspaces")[0])
    assert MARK < visited < 2 * MARK
    assert not list(store.glob("*.json"))


def _interrupt(running: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, and again where nothing happens: Python drops one that comes while a finaliser runs."""
    for _ in range(5):
        os.killpg(running.pid, signal.SIGINT)
        try:
            running.communicate(timeout=2)
            return
        except subprocess.TimeoutExpired:
            continue
    running.communicate(timeout=PATIENCE)
