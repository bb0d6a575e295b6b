"""Training runs of small networks: in memory, and on disk as a folder or a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exan_verify.api.files import save_batch, save_tensors
from exan_verify.core.network import ReluNetwork

WIDTHS = (3, 16, 3)


def steps(count: int, *, samples: int = 2, start: int = 0) -> Iterator[tuple[ReluNetwork, Any]]:
    """Steps ``start`` to ``count`` - 1: each a network of its own and a batch, from their number alone.

    Lifting settles the first eleven at once.
    """
    inputs, hidden, classes = WIDTHS
    for k in range(start, count):
        rng = np.random.default_rng([k, 2])
        weights = [rng.normal(size=(hidden, inputs)), rng.normal(size=(classes, hidden))]
        network = ReluNetwork.from_arrays(weights, [rng.normal(size=hidden), rng.normal(size=classes)])
        yield network, (rng.normal(size=(samples, inputs)), rng.integers(0, classes, samples))


def write_run(folder: Path, count: int, *, samples: int = 2) -> Path:
    """The same on disk: model-K.safetensors and batch-K.npz; epochs of four, an accuracy that grows."""
    folder.mkdir()
    lines = []
    for k, (network, (x, y)) in enumerate(steps(count, samples=samples)):
        save_tensors(folder / f"model-{k}.safetensors", dict(network.parameters()))
        save_batch(folder / f"batch-{k}.npz", x, y)
        names = {"model": f"model-{k}.safetensors", "batch": f"batch-{k}.npz"}
        lines.append(json.dumps(names | {"step": k, "epoch": k // 4, "accuracy": k / count}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return folder
