"""Exact networks and batches as text to retype; statements and reports as JSON-able dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from exan_verify.core.arrays import rationals
from exan_verify.core.certificate import ReleaseRecord, domain_record
from exan_verify.core.network import Array, Batch, Network, batch_record, to_fraction
from exan_verify.theorems.certified import in_words
from exan_verify.theorems.replay import Replay
from exan_verify.theorems.running import CheckReport, Report
from exan_verify.theorems.statement import Direction, Example, Exhibit, Ground, Standing, Statement


def quantified(statement: Statement) -> str:
    """Over what a statement is claimed; of a refuted one, over what it does not hold.

    Its quantifiers may be written as the claim has them ("all networks") or as the refutation has them ("some
    network (refuted)").
    """
    over = statement.quantifiers.removesuffix(" (refuted)")
    if statement.standing is not Standing.REFUTED:
        return over
    if over.startswith("some "):
        over = "all " + re.sub(r"\b(network|batch|sample)\b", _plural, over.removeprefix("some "))
    return f"not for {over}: there is a counterexample"


def _plural(found: re.Match[str]) -> str:
    return f"{found[1]}{'es' if found[1].endswith('ch') else 's'}"


def relied_on(statement: Statement) -> tuple[Ground, ...]:
    """The grounds that support or refute a statement; where none does (an open one), all of them."""
    found = tuple(g for g in statement.grounds if g.direction is not Direction.NEITHER)
    return found or statement.grounds


def network_lines(network: Network) -> list[str]:
    """``W1 = [[1, F(-1, 2)], [0, 3]]``, one line per parameter, first layer first; exact."""
    lines = []
    for k, layer in enumerate(network.layers, 1):
        lines.append(f"W{k} = {numbers(layer.weight)}")
        if layer.bias is not None:
            lines.append(f"b{k} = {numbers(layer.bias)}")
    return lines


def batch_lines(batch: Batch, mark: str = "") -> list[str]:
    """``x = [[1, 0]]``, ``y = [1]``; ``mark`` is put behind the names."""
    classes = batch.labels.ndim == 1
    single = not classes and batch.labels.shape[1] == 1
    labels = batch.labels.reshape(-1) if single else batch.labels
    shown = str([int(v) for v in labels]) if classes else numbers(labels)
    return [f"x{mark} = {numbers(batch.inputs)}", f"y{mark} = {shown}"]


def example_lines(example: Example | Exhibit) -> list[str]:
    """The whole example as Python to retype; the last line asks for a verdict.

    A second batch is ``x2``, ``y2``. What is no batch has lines of its own, the last of which is true.
    """
    if isinstance(example, Exhibit):
        return list(example.lines)
    network = example.network
    lines = [*network_lines(network), *batch_lines(example.batch)]
    if example.second is not None:
        lines += batch_lines(example.second, "2")
    layers = range(1, network.depth + 1)
    weights, biases = (", ".join(f"{letter}{k}" for k in layers) for letter in "Wb")
    arrays = f"[{weights}], [{biases}]" if network.has_bias else f"[{weights}]"
    slopes = slopes_of(network)
    sloped = f".sloped([{', '.join('None' if s is None else numbers(s) for s in slopes)}])" if slopes else ""
    lines.append(f"network = ReluNetwork.from_arrays({arrays}){sloped}")
    asked = example.question
    words = [f'{name}="{value}"' for name, value in in_words(asked).items()]
    if asked.domain is not None:
        words.append(f"domain=Box({numbers(asked.domain.lo)}, {numbers(asked.domain.hi)})")
    if asked.release is not None:
        sent = {name: list(mask) for name, mask in asked.release.rows.items()}
        words.append(f"release=Release(rows={sent})")
    lines.append(f"certify(network, batch=(x, y), {', '.join(words)})")
    called = " ".join(lines[-2:])
    used = [name for name in ("Box", "Release", "ReluNetwork", "certify") if name in called]
    fractions = ["from fractions import Fraction as F"] if any("F(" in line for line in lines) else []
    return [*fractions, f"from exan_verify import {', '.join(used)}", *lines]


def slopes_of(network: Network) -> list[Array | None]:
    """The slopes of every hidden layer, None for ReLU; empty where all of them have ReLU."""
    found = [network.activation(k) for k in range(1, network.depth)]
    return [None if phi is None else phi.slope for phi in found] if any(found) else []


def numbers(array: Array) -> str:
    """Nested brackets of integers and ``F(numerator, denominator)``."""
    if array.ndim == 0:
        value = to_fraction(array.item())
        return str(value) if value.denominator == 1 else f"F({value.numerator}, {value.denominator})"
    return f"[{', '.join(numbers(np.asarray(row)) for row in array)}]"


def statement_record(statement: Statement) -> dict[str, Any]:
    """A statement's attributes; of its checks, names and what they compare."""
    return {
        "name": statement.name,
        "group": statement.group,
        "title": statement.title,
        "source": statement.source,
        "published": statement.published,
        "reading": statement.reading,
        "quantifiers": statement.quantifiers,
        "hypotheses": list(statement.hypotheses),
        "conclusion": statement.conclusion,
        "latex": statement.latex,
        "standing": statement.standing,
        "grounds": [_ground_record(ground) for ground in statement.grounds],
        "checks": [{"name": c.name, "what": c.what, "direction": c.direction} for c in statement.checks],
        "has_example": statement.example is not None,
        "smallest": statement.smallest,
        "remark": statement.remark,
    }


def _ground_record(ground: Ground) -> dict[str, Any]:
    return {
        "method": ground.method,
        "where": ground.where,
        "says": ground.says,
        "direction": ground.direction,
        "bounded": ground.bounded,
    }


def example_record(example: Example | Exhibit) -> dict[str, Any]:
    """An example, every number as ``"num/den"`` text; of what is no batch, its lines."""
    if isinstance(example, Exhibit):
        return {"lines": list(example.lines), "note": example.note}
    released, slopes = example.question.release, slopes_of(example.network)
    return {
        "widths": list(example.network.widths),
        "parameters": {name: rationals(array) for name, array in example.network.parameters()},
        **({"slopes": [None if s is None else rationals(s) for s in slopes]} if slopes else {}),
        **in_words(example.question),
        "domain": domain_record(example.question.domain, example.network.widths[0]),
        "release": None if released is None else msgspec.to_builtins(ReleaseRecord.of(released)),
        "batch": batch_record(example.batch),
        "second": None if example.second is None else batch_record(example.second),
        "outcome": example.outcome,
        "note": example.note,
    }


def replay_record(replay: Replay) -> dict[str, Any]:
    """A replay's attributes."""
    return {
        "confirmed": replay.confirmed,
        "says": list(replay.says),
        "equal_gradients": replay.equal_gradients,
        "outcome": replay.outcome,
        "samples": list(replay.samples),
        "certificate": replay.certificate,
    }


def report_record(report: Report) -> dict[str, Any]:
    """A statement with its example and what its checks found."""
    return {
        **statement_record(report.statement),
        "example": None if report.example is None else example_record(report.example),
        "replay": None if report.replay is None else replay_record(report.replay),
        "ran": report.ran,
        "holds": report.holds if report.ran else None,
        "objections": list(report.objections),
        "results": [_check_record(check) for check in report.checks],
    }


def _check_record(report: CheckReport) -> dict[str, Any]:
    result = report.result
    return {
        "name": report.check.name,
        "what": report.check.what,
        "holds": report.holds,
        "detail": result.detail,
        "seconds": report.seconds,
        "data": None if result.data is None else _builtin(result.data),
        "example": None if result.example is None else example_record(result.example),
        "replay": None if report.replay is None else replay_record(report.replay),
    }


def _builtin(value: Any) -> Any:
    """Keys as text, containers as lists and dicts: whatever a check measured has a JSON form."""
    if isinstance(value, Mapping):
        return {str(key): _builtin(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_builtin(part) for part in value]
    return value
