"""Findings for continuous integration: JUnit XML, and SARIF 2.1.0, which code hosts show beside the code.

A finding is about a step of a run, or about the only batch of an audit. ``asked``: the gates that fail a
build.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import exan_verify
from exan_verify.api.runs.step_record import StepRecord

GATE_MEANING = {
    "determined": "A sample is in every batch that has this gradient, which is proved",
    "recovered": "An attack rebuilds a sample from the gradient, and nothing that it checks contradicts it",
    "candidates": "An attack rebuilds a sample, or shows a candidate for one",
    "peel": "A sample can be peeled off: it has an exclusive neuron, or gets one when others are subtracted",
    "exan": "A sample meets the published exclusivity condition",
}
"""What it says that a gate is hit."""

WHAT_TO_DO = (
    "What the gradient gives away, whoever receives it has. See the report of exan audit for the samples, "
    "and exan mitigate for what to do."
)

MOST_RESULTS = 25_000
"""GitHub refuses a SARIF run with more."""

_UNSAFE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold."""


def junit(records: Iterable[StepRecord], asked: Sequence[str], *, name: str) -> bytes:
    """JUnit XML: a test case for each step; a gate of ``asked`` that is hit fails it, and one that is
    undecided is an error of it, as the exit code 3 is none of a passed build.
    """
    suite = ElementTree.Element("testsuite", name=_clean(name))
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    seconds = 0.0
    for record in records:
        case = ElementTree.SubElement(
            suite, "testcase", classname="exan.audit", name=record.name, time=f"{record.seconds:.3f}"
        )
        counts["tests"] += 1
        seconds += record.seconds
        hit = [gate for gate in asked if record.gates[gate] == "hit"]
        undecided = [gate for gate in asked if record.gates[gate] == "undecided"]
        said = _clean(f"{summary(record)}\n{record.reason}")
        if hit:
            counts["failures"] += 1
            message = "; ".join(GATE_MEANING[gate] for gate in hit)
            part = ElementTree.SubElement(case, "failure", type=", ".join(hit), message=message)
        elif undecided:
            counts["errors"] += 1
            message = f"not decided: {', '.join(undecided)}"
            part = ElementTree.SubElement(case, "error", type="undecided", message=message)
        else:
            part = ElementTree.SubElement(case, "system-out")
        part.text = said
    suite.attrib |= {key: str(value) for key, value in counts.items()} | {"time": f"{seconds:.3f}"}
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    content: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def sarif(records: Iterable[StepRecord], asked: Sequence[str], *, place: str) -> bytes:
    """SARIF 2.1.0: a result for each step and gate that is hit, an error for the gates ``asked`` for, else a
    warning. ``place``: the file that steps from memory are said to be in; paths are relative to the working
    directory where they lie below it.
    """
    results: list[dict[str, Any]] = []
    steps = open_steps = left_out = 0
    for record in records:
        steps += 1
        open_steps += any(record.gates[gate] == "undecided" for gate in asked)
        for gate in GATE_MEANING:
            # what is recovered is shown as well: one result is enough, unless both were asked for
            doubled = gate == "candidates" and gate not in asked and record.gates["recovered"] == "hit"
            if record.gates[gate] != "hit" or doubled:
                continue
            if len(results) == MOST_RESULTS:
                left_out += 1
                continue
            results.append(_result(record, gate, "error" if gate in asked else "warning", place))
    notes = []
    if open_steps:
        notes.append(
            f"not decided for the gates {', '.join(asked)}: {open_steps} of {steps} steps; that is not safe"
        )
    if left_out:
        notes.append(f"{left_out} more results are left out; this is the most that code hosts take")
    run = {
        "tool": {
            "driver": {
                "name": "exan-verify",
                "semanticVersion": exan_verify.__version__,
                "rules": [
                    {
                        "id": gate,
                        "shortDescription": {"text": f"{meaning}."},
                        "fullDescription": {"text": f"{meaning}. {WHAT_TO_DO}"},
                        "help": {"text": WHAT_TO_DO},
                    }
                    for gate, meaning in GATE_MEANING.items()
                ],
            }
        },
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": note}} for note in notes
                ],
            }
        ],
        "results": results,
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1).encode() + b"\n"


def summary(record: StepRecord) -> str:
    """A step in a line."""
    said = f"{record.name}: {record.outcome.upper()}, {record.determined} of {record.batch_size} determined"
    if record.peelable is not None:
        said += f", {record.peelable} can be peeled"
    if record.confirmed is not None and record.consistent is not None:
        said += f", {record.confirmed + record.consistent} recovered"
    return said


def _result(record: StepRecord, gate: str, level: str, place: str) -> dict[str, Any]:
    rule = list(GATE_MEANING).index(gate)
    print_ = hashlib.sha256(f"{gate}|{record.model_sha256}|{record.batch_sha256}".encode()).hexdigest()
    return {
        "ruleId": gate,
        "ruleIndex": rule,
        "level": level,
        "message": {"text": f"{GATE_MEANING[gate]}. {summary(record)}."},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(record.source or place)},
                    "region": {"startLine": record.line or 1},
                }
            }
        ],
        "partialFingerprints": {"exanGradient/v1": print_},
    }


def _uri(path: str) -> str:
    absolute = Path(path).absolute()
    here = Path.cwd()
    if absolute.is_relative_to(here):
        return quote(absolute.relative_to(here).as_posix())
    return absolute.as_uri()


def _clean(text: str) -> str:
    return _UNSAFE.sub("\ufffd", text)
