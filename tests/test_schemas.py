"""The published JSON schemas: what is printed and written follows them, and so does what ever was."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

import exan_verify
from exan_verify.api.audit import GATES, Audit
from exan_verify.api.runs.run_report import RunReport, Totals
from exan_verify.api.runs.step_record import StepRecord
from exan_verify.api.runs.sweep import Point, SweepReport, sweep
from exan_verify.cli.program import COMMANDS
from exan_verify.core.question import Labels, Loss, Question, Reduction
from exan_verify.core.verdict import Verdict, Witness
from exan_verify.exclusivity import ExclusivityState
from exan_verify.mitigation.attacked import Gained
from exan_verify.mitigation.protection import Protection, Reach
from exan_verify.mitigation.report import Cost, Finding, MitigationReport, State
from exan_verify.numeric.convolution.records import ImageAttack
from exan_verify.numeric.problem.records import Candidate, HiddenFeatures, LastLayer
from exan_verify.theorems.replay import Replay
from exan_verify.theorems.running import Report
from exan_verify.theorems.statement import Statement
from tests.stored import CERTIFICATES, OUTPUTS, VERDICTS, load
from tests.support.output_cases import QUICK, SLOW, printed
from tests.support.schemas import FOLDER, faults, stored

NAMES = sorted(f"exan/{path.stem.replace('-1', '/1')}" for path in FOLDER.glob("*.json"))


@pytest.fixture(scope="module", autouse=True)
def validator() -> Any:
    return pytest.importorskip("jsonschema", reason="pip install 'exan-verify[dev]'").Draft202012Validator


@pytest.fixture(scope="module")
def outputs() -> list[dict[str, Any]]:
    """What commands printed and wrote when the file was made."""
    return list(load(OUTPUTS))


def test_the_files_are_schemas_as_the_types_say(validator: Any):
    made = run_path(str(FOLDER / "make.py"))
    assert sorted(made["SCHEMAS"]) == NAMES
    for name, schema in made["SCHEMAS"].items():
        assert made["file_of"](name).read_text(encoding="utf-8") == made["text_of"](schema), (
            "python docs/schemas/make.py writes them anew"
        )
        validator.check_schema(schema)


def test_the_page_names_every_schema_with_its_file():
    text = (FOLDER.parent / "files.md").read_text()
    listed = re.findall(r"\[`(exan/[a-z-]+/\d+)`\]\(schemas/([a-z-]+-\d+)\.json\)", text)
    assert sorted(name for name, _ in listed) == NAMES
    assert all(name == f"exan/{file.replace('-1', '/1')}" for name, file in listed)


# ---- what is printed and written --------------------------------------------------------------------------


def test_what_is_printed_and_written_follows_its_schema(tmp_path: Path):
    assert not [(what, found) for what, record in printed(tmp_path, QUICK) if (found := faults(record))]


@pytest.mark.campaign
def test_so_does_what_takes_longer(tmp_path: Path):
    assert not [(what, found) for what, record in printed(tmp_path, SLOW) if (found := faults(record))]


def test_what_was_printed_and_written_once_still_does(outputs: list[dict[str, Any]]):
    """A schema that some stored object does not follow has another meaning, and needs another number."""
    assert {one["record"]["schema"] for one in outputs} == set(NAMES)
    assert not [(one["of"], found) for one in outputs if (found := faults(one["record"], strict=False))]


def test_stored_certificates_and_verdicts_do():
    for one in list(load(CERTIFICATES))[::25]:
        assert not faults(one["certificate"], strict=False)
    for one in load(VERDICTS):
        for key, schema, more in (
            ("verdict", "exan/certify/1", {"certificate_path": None, "statement": ""}),
            ("audit", "exan/audit/1", {}),
        ):
            if key in one:
                assert not faults(_timed(one[key]) | more | {"schema": schema}, strict=False)


def _timed(record: Any) -> Any:
    """Stored verdicts are without times and producers."""
    if isinstance(record, list):
        return [_timed(part) for part in record]
    if not isinstance(record, dict):
        return record
    more = {"seconds": 0.0} if {"engine", "note"} <= record.keys() else {}
    more |= {"created": "", "producer": ""} if record.get("schema") == "exan/certificate/1" else {}
    return {key: _timed(value) for key, value in record.items()} | more


def test_what_does_not_follow_is_found(outputs: list[dict[str, Any]]):
    """Without a key that is always there, with a key that is never there, with a value of another kind."""
    for record in {one["record"]["schema"]: one["record"] for one in outputs}.values():
        schema = stored(record["schema"])
        for key in schema["required"]:
            if key != "schema":
                assert faults({name: value for name, value in record.items() if name != key}, strict=False)
                assert faults(record | {key: {"no": ["such", "thing"]}}) or faults(record | {key: 0.5})
        assert faults(record | {"speed": 3})
    changed = copy.deepcopy(
        next(one["record"] for one in outputs if one["record"]["schema"] == "exan/audit/1")
    )
    changed["verdict"]["samples"][0] = "safe"
    assert faults(changed, strict=False)


# ---- the same words in Python, on the command line, and in JSON -------------------------------------------

PRINTED = {"schema", "statement"}
"""Keys of what is printed that speak of no attribute."""

WORDS: tuple[tuple[str, str | None, tuple[type, ...], set[str]], ...] = (
    # gates: Audit.gate(name); the rest are options of the command
    ("exan/audit/1", None, (Audit,), {"gates", "report", "junit", "sarif"}),
    ("exan/audit/1", "Verdict", (Verdict,), set()),
    ("exan/audit/1", "Witness", (Witness,), set()),
    ("exan/audit/1", "Exclusivity", (ExclusivityState,), set()),
    # shares: Totals.share(name)
    ("exan/run/1", None, (RunReport, Totals), {"shares", "fail_on", "report", "junit", "sarif"}),
    ("exan/run-step/1", None, (StepRecord,), set()),
    ("exan/sweep/1", None, (SweepReport,), {"figure", "csv", "out"}),
    ("exan/sweep/1", "Point", (Point, Totals), {"shares"}),
    # found and labels: of Attack.x and Attack.y, which are in the file of --out; tiers: Attack.count(tier);
    # the scores are of --truth
    (
        "exan/attack/1",
        None,
        (ImageAttack,),
        {"found", "labels", "tiers", "score", "candidate_score", "out"},
    ),
    ("exan/attack/1", "Hidden", (HiddenFeatures,), {"found"}),
    ("exan/attack/1", "LastLayer", (LastLayer,), set()),
    ("exan/attack/1", "Candidate", (Candidate,), set()),
    ("exan/mitigation/1", None, (MitigationReport, Question), {"report"}),
    ("exan/mitigation/1", "Defence", (Finding,), set()),
    ("exan/mitigation/1", "DefenceExclusivity", (State,), set()),
    ("exan/mitigation/1", "DefenceAttack", (Gained,), set()),
    ("exan/mitigation/1", "Protection", (Protection,), set()),
    ("exan/mitigation/1", "Reach", (Reach,), set()),
    ("exan/mitigation/1", "Cost", (Cost,), set()),
    ("exan/theorem/1", None, (Statement, Report), {"has_example", "results"}),
    ("exan/theorem/1", "Replay", (Replay,), set()),
    ("exan/certificate/1", "QuestionRecord", (Question,), {"entrance"}),
)


@pytest.mark.parametrize(("schema", "part", "kinds", "more"), WORDS)
def test_keys_are_attributes(schema: str, part: str | None, kinds: tuple[type, ...], more: set[str]):
    whole = stored(schema)
    keys = set(whole["properties"] if part is None else whole["$defs"][part]["properties"])
    attributes = {
        name for kind in kinds for name in (*dir(kind), *(f.name for f in dataclasses.fields(kind)))
    }
    assert keys - PRINTED - attributes == more


FUNCTIONS = {
    "certify": (exan_verify.certify,),
    "check": (exan_verify.check,),
    "prove": (exan_verify.prove,),
    "audit": (exan_verify.audit, exan_verify.audit_run),
    "attack": (exan_verify.attack,),
    "mitigate": (exan_verify.mitigate,),
    "sweep": (sweep, exan_verify.audit_run),
}
OTHERWISE = {
    # one word of a command line for what Python has several of
    ("mitigate", "defence"): "defences",
    ("mitigate", "no_accuracy"): "accuracies",
    ("attack", "no_repairs"): "repairs",
    # --weights is the model's file, everywhere
    ("attack", "sample_weights"): "weights",
    # the first argument
    ("audit", "run"): "steps",
}
"""Options that have another name in Python, and why."""

FILES = {"certificate", "weights", "out", "truth", "sheet", "report", "junit", "sarif", "figure", "csv"}
"""Options that name a file which the function takes or returns as an object. Besides these a command line
says what is on its screen (``long``), what ends it (``fail_on``) and how a file is to be read
(``input_shape``)."""

COMMON = {"json", "seed", "budget", "jobs"}
"""What every command takes, whether it has a use for it or not."""

NOT_ASKED = {"progress", "steps", "make", "step_budget", "attack", "release"}
"""Arguments of Python that a command line has no word for: ``progress`` is on the terminal; a sweep always
attacks, whole gradients."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_arguments(name: str):
    (command,) = (one for one in COMMANDS if one.name == name)
    options = {text.lstrip("-").replace("-", "_") for one in command.params for text in one.opts}
    renamed = {OTHERWISE.get((name, option), option) for option in options}
    arguments: set[str] = set()
    for function in FUNCTIONS[name]:
        found = inspect.signature(inspect.unwrap(function)).parameters
        arguments |= {key for key, one in found.items() if one.kind is not one.VAR_KEYWORD}
    assert renamed - arguments <= FILES | COMMON | {"fail_on", "input_shape", "long", "run"}
    assert arguments - renamed <= NOT_ASKED


def test_choices_are_the_words_of_the_records():
    words = {"loss": set(Loss), "reduction": set(Reduction), "labels": set(Labels), "fail_on": set(GATES)}
    for command in COMMANDS:
        for one in command.params:
            choices = set(getattr(one.type, "choices", ()))
            if one.name in words and choices:
                assert choices <= words[one.name], (command.name, one.name)
                assert choices == words[one.name] or (command.name, one.name) == ("attack", "labels")
