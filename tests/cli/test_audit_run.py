"""``exan audit --run`` end to end: what it prints, writes and ends with; findings for CI."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from exan_verify import audit_run
from exan_verify.api.runs.run_report import SHARES, RunReport
from exan_verify.api.runs.step_record import GATES, StepRecord
from exan_verify.cli.audit_run import _telling
from exan_verify.cli.terminal.output import ExitCode
from exan_verify.report import ci
from exan_verify.report.curves import BINS, curves
from exan_verify.report.runs import percent, render_run
from tests.support.commands import Run, RunJson
from tests.support.run_cases import write_run

COUNT = 6
ASKED = ("audit", "--run", "run/manifest.jsonl", "--out", "out")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run of six steps in run/."""
    monkeypatch.chdir(tmp_path)
    write_run(Path("run"), COUNT)
    return tmp_path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """The same, audited."""
    folder = tmp_path_factory.mktemp("found")
    return audit_run(write_run(folder / "run", COUNT) / "manifest.jsonl", out=folder / "out")


def test_a_run_is_audited_gated_and_written(here: Path, run: Run):
    files = ("--report", "run.html", "--junit", "junit.xml", "--sarif", "exan.sarif")
    code, out, err = run(*ASKED, *files, "--fail-on", "determined")
    assert (code, err) == (ExitCode.REFUSED, "")
    assert re.search(r"^steps +6, 12 samples$", out, re.M)
    assert "gate determined: hit" in out
    assert "real arithmetic on the stored numbers" in out
    assert all(line == line.rstrip() for line in out.splitlines())
    assert [line.split()[0] for line in out.splitlines() if re.match(r" +[01] ", line)] == ["0", "1"]
    page = Path("run.html").read_text()
    assert page.count("<svg") == 2, "against the step and the accuracy; all batches have one size"
    assert "exan audit --run run/manifest.jsonl --out out --resume" in page
    cases = ElementTree.parse("junit.xml").getroot().findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == [f"step {k} of epoch {k // 4}" for k in range(COUNT)]
    log = checked_sarif(Path("exan.sarif").read_bytes())
    places = [result["locations"][0]["physicalLocation"] for result in log["runs"][0]["results"]]
    assert {place["artifactLocation"]["uri"] for place in places} == {"run/manifest.jsonl"}
    assert {place["region"]["startLine"] for place in places} == set(range(1, COUNT + 1))


def test_it_is_one_json_object_and_resumes(here: Path, run: Run, run_json: RunJson):
    code, first = run_json(*ASKED, "--budget", "1e-9")
    assert (code, first["unfinished"], first["steps"], first["total"]) == (3, "the budget ran out", 0, COUNT)
    code, out, err = run(*ASKED, "--json")
    assert (code, out) == (ExitCode.USAGE, "")
    assert "say resume (--resume) to go on with it" in err
    code, out, _ = run(*ASKED, "--resume", "--json", "--fail-on", "peel")
    record = json.loads(out)
    assert (record["schema"], record["steps"], record["unfinished"]) == ("exan/run/1", COUNT, "")
    assert (record["fail_on"], set(record["gates"])) == (["peel"], set(GATES))
    assert code == (ExitCode.REFUSED if record["gates"]["peel"] == "hit" else ExitCode.DONE)
    kept = json.loads(Path("out/summary.json").read_text())
    assert kept == {name: record[name] for name in kept}


def test_interrupted_it_says_what_is_kept(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    from exan_verify.api.runs import step_record

    calls = []

    def interrupted(*given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step_record_audit(*given, **options)

    step_record_audit = step_record.audit
    monkeypatch.setattr(step_record, "audit", interrupted)
    code, out, err = run(*ASKED)
    assert (code, out) == (ExitCode.INTERRUPTED, "")
    said = [line for line in err.splitlines() if line]
    assert said == ["the finished steps are kept in out; go on with --resume", "error: interrupted"]
    assert len(Path("out/steps.jsonl").read_text().splitlines()) == 2


def test_what_cannot_be_written_is_one_error_and_the_steps_are_kept(here: Path, run: Run):
    Path("taken").mkdir()
    for k, wrong in enumerate((["--report", "taken"], ["--junit", "taken"], ["--sarif", "taken"], [])):
        out = Path(f"out{k}")
        if not wrong:
            (out / "summary.json").mkdir(parents=True)
        code, said, err = run(*ASKED[:-1], str(out), *wrong)
        assert (code, said) == (ExitCode.USAGE, "")
        assert re.fullmatch(r"error: \S+: cannot be written \(Is a directory\); .*\n", err)
        assert len((out / "steps.jsonl").read_text().splitlines()) == COUNT
        assert not list(Path("taken").iterdir())


def test_a_cluster_that_does_not_answer_is_one_error(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("distributed", reason="dask.distributed is an optional backend")
    monkeypatch.setattr("exan_verify.core.parallel._CONNECTING", 0.2)
    code, said, err = run(*ASKED, "--dask", "127.0.0.1:9")
    assert (code, said) == (ExitCode.USAGE, "")
    assert err.startswith("error: no dask scheduler answers at 127.0.0.1:9")
    assert err.count("\n") == 1


def test_progress_says_how_far_it_is_and_how_long_it_will_take():
    told: list[str] = []
    for step in ((0, None, None), (0, 9, None), (3, 9, 59.6), (4, 9, 3725.0)):
        _telling(told.append)(*step)
    assert told == [
        "0 steps",
        "0 of 9 steps",
        "3 of 9 steps, about 1:00 left",
        "4 of 9 steps, about 1:02:05 left",
    ]


def test_words_that_do_not_go_together(here: Path, run: Run):
    batch = ("run/model-0.safetensors", "run/batch-0.npz")
    for line, said in (
        (["audit"], "give MODEL and BATCH, or --run with --out"),
        (["audit", batch[0]], "give MODEL and BATCH, or --run with --out"),
        (["audit", *batch, "--out", "out"], "go with --run; leave them out"),
        (["audit", *batch, "--resume"], "go with --run; leave them out"),
        (["audit", "--run", "run"], "needs --out FOLDER"),
        (["audit", *batch, "--run", "run", "--out", "out"], "takes the place of MODEL and BATCH"),
        ([*ASKED, "--dask", "a:1", "--jobs", "2"], "--dask takes the place of --jobs"),
        ([*ASKED, "--weights", batch[0]], "a manifest names the weights of each step"),
        ([*ASKED, "--report", "no/where.html"], "no/where.html: its folder does not exist"),
        ([*ASKED, "--sarif", "no/where.sarif"], "no/where.sarif: its folder does not exist"),
        (["audit", *batch, "--junit", "no/where.xml"], "no/where.xml: its folder does not exist"),
    ):
        code, out, err = run(*line)
        assert (code, out) == (ExitCode.USAGE, ""), line
        assert said in err
    assert not Path("out").exists()


def test_one_batch_has_the_same_findings(here: Path, run_json: RunJson):
    files = ("--junit", "junit.xml", "--sarif", "exan.sarif")
    code, record = run_json("audit", "run/model-1.safetensors", "run/batch-1.npz", *files, "--attack")
    assert (code, record["junit"], record["sarif"]) == (ExitCode.DONE, "junit.xml", "exan.sarif")
    assert record["attack"]["found"] == 2
    (case,) = ElementTree.parse("junit.xml").getroot().findall("testsuite/testcase")
    assert "2 of 2 determined" in (case.findtext("system-out") or "")
    results = checked_sarif(Path("exan.sarif").read_bytes())["runs"][0]["results"]
    assert {"determined", "recovered"} <= {result["ruleId"] for result in results}
    assert {result["level"] for result in results} == {"warning"}


# ---- what the documents say -------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "runs.md").read_text()


def test_the_document_names_every_key(found: RunReport):
    tables = re.findall(r"\| key of .*?\n\n", DOCUMENT, re.S)
    named = [set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", t, re.M)[1:]))) for t in tables]
    line = set(json.loads((found.out / "steps.jsonl").read_text().splitlines()[0]))
    assert named == [line, set(found.to_record())]
    for name in SHARES:
        assert f"`{name}`" in tables[1]


def test_the_document_s_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.S)
    told: dict[str, Any] = {}
    exec(compile(block, "runs.md", "exec"), told)
    assert (told["found"].all.steps, told["fixed"].all.steps) == (6, 6)
    assert [record.step for record in told["found"].steps()] == [0, 2, 4, 6, 8, 10]
    (lines,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)
    assert all({"model", "batch"} <= set(json.loads(line)) for line in lines.splitlines())


def test_the_workflow_s_command_works(here: Path, run: Run):
    workflow = (ROOT / "examples" / "github_audit.yml").read_text()
    (command,) = re.findall(r"run: exan (.*)", workflow)
    Path("run").rename("audit")
    words = ["1" if word == "2" else word for word in command.split()]
    code, _, err = run(*words)
    assert (code, err) == (ExitCode.REFUSED, "")
    for name in re.findall(r"^ +(?:sarif_file: )?(\S+\.(?:sarif|xml|html|jsonl))$", workflow, re.M):
        assert Path(name).exists(), name


def test_the_workflow_is_one():
    """What GitHub reads: steps that use an action or run a command, and the right to upload what is found."""
    yaml = pytest.importorskip("yaml", reason="it comes with dask.distributed")
    read = yaml.safe_load((ROOT / "examples" / "github_audit.yml").read_text())
    assert read["permissions"] == {"contents": "read", "security-events": "write"}
    assert read[True] == ["push", "pull_request"], "YAML takes the word on for true"
    for job in read["jobs"].values():
        assert job["runs-on"]
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        uses = [step["uses"].split("@") for step in job["steps"] if "uses" in step]
        assert all(version.startswith("v") for _, version in uses)
        (upload,) = (step for step in job["steps"] if "upload-sarif" in step.get("uses", ""))
        assert upload["if"] == "always()", "a gate that is hit ends the step before"
        (audit,) = (step["run"] for step in job["steps"] if "exan audit" in step.get("run", ""))
        assert f"--sarif {upload['with']['sarif_file']}" in audit


# ---- findings ---------------------------------------------------------------------------------------------


def checked_sarif(content: bytes) -> Any:
    """What the schema of SARIF 2.1.0 requires of a log, and what code hosts require beyond it."""
    log = json.loads(content)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-2.1.0.json")
    assert set(log) <= {"$schema", "version", "runs"}
    for one in log["runs"]:
        assert set(one) <= {"tool", "invocations", "results"}
        driver = one["tool"]["driver"]
        assert isinstance(driver["name"], str)
        assert re.fullmatch(r"\d+\.\d+\.\d+\S*", driver["semanticVersion"])
        rules = [rule["id"] for rule in driver["rules"]]
        assert len(set(rules)) == len(rules)
        for said in ("shortDescription", "fullDescription", "help"):
            assert all(rule[said]["text"] for rule in driver["rules"]), "GitHub asks for all three"
        for invocation in one["invocations"]:
            assert isinstance(invocation["executionSuccessful"], bool)
            assert all(note["message"]["text"] for note in invocation["toolExecutionNotifications"])
        for result in one["results"]:
            assert rules[result["ruleIndex"]] == result["ruleId"]
            assert result["level"] in ("none", "note", "warning", "error")
            assert result["message"]["text"]
            assert all(isinstance(print_, str) for print_ in result["partialFingerprints"].values())
            (location,) = result["locations"]
            place = location["physicalLocation"]
            # RFC 3986: no spaces, no backslashes, nothing outside ASCII
            assert re.fullmatch(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", place["artifactLocation"]["uri"])
            assert place["region"]["startLine"] >= 1
    return log


def test_sarif_says_which_gate_fails_and_what_is_open(found: RunReport, tmp_path: Path):
    odd = [changed(found, source="my data/ä.npz", line=None, determined="undecided")]
    log = checked_sarif(ci.sarif([*found.steps(), *odd], ["determined"], place="here"))
    results = log["runs"][0]["results"]
    levels = {result["ruleId"]: result["level"] for result in results}
    assert levels["determined"] == "error"
    assert levels["peel"] == "warning"
    (note,) = log["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert note["message"]["text"].startswith("not decided for the gates determined: 1 of ")
    uris = [result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for result in results]
    assert "my%20data/%C3%A4.npz" in uris
    assert uris[0].startswith("file:///")
    prints = [tuple(result["partialFingerprints"].values()) for result in results]
    assert len(set(prints)) == len(prints) - len([uri for uri in uris if uri.startswith("my")])


def test_more_results_than_code_hosts_take_are_left_out_and_counted(
    found: RunReport, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ci, "MOST_RESULTS", 3)
    log = checked_sarif(ci.sarif(found.steps(), [], place="here"))["runs"][0]
    assert len(log["results"]) == 3
    assert (
        "more results are left out"
        in log["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    )


def test_junit_counts_its_cases(found: RunReport):
    records = [
        *found.steps(),
        changed(found, reason="a\x00b ]]> <&>", determined="undecided"),
        changed(found, determined="passed"),
    ]
    content = ci.junit(records, ["determined"], name="a \x01 run")
    (suite,) = ElementTree.fromstring(content)
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    for attribute, kind in kinds.items():
        assert int(suite.get(attribute, "")) == len(suite.findall(f"testcase/{kind}"))
    assert int(suite.get("tests", "")) == len(suite.findall("testcase")) == COUNT + 2
    assert (suite.get("errors"), suite.get("name")) == ("1", "a \ufffd run")
    assert all(case.get("classname") and float(case.get("time", "")) >= 0 for case in suite)
    assert suite.findtext("testcase/error", "").endswith("a\ufffdb ]]> <&>")
    if find_spec("junitparser"):
        from junitparser import JUnitXml

        assert next(iter(JUnitXml.fromstring(content))).tests == COUNT + 2


def changed(found: RunReport, determined: str, **more: Any) -> StepRecord:
    """The first step with another state of the gate determined, and other attributes."""
    first = next(found.steps())
    return replace(first, gates=first.gates | {"determined": determined}, **more)


# ---- the page ---------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags that are open, and what a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.loads += [value for name, value in attributes if name in ("src", "href") and value[:1] != "#"]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.handle_starttag(tag, attributes)
        if self.open[-1:] == [tag]:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_is_the_same_again(found: RunReport):
    text = render_run("<b>my</b> run", found, commands={"again": "exan audit"})
    page = Page(text)
    assert (page.open, page.loads) == ([], [])
    assert "&lt;b&gt;my&lt;/b&gt; run" in text
    assert text == render_run("<b>my</b> run", found, commands={"again": "exan audit"})
    whole = found.all
    assert f"{percent(whole.share('determined'))} of {whole.samples} samples" in text
    assert "not asked" in text, "no attack was made"
    assert found.digest in text


def test_a_long_run_has_no_more_points_than_a_short_one(found: RunReport):
    first = next(found.steps())
    many = (replace(first, index=k, batch_size=1 + k % 3, accuracy=k / 1000) for k in range(1000))
    drawn = curves(many, 1000)
    assert len(drawn.by_step) <= BINS
    assert sum(counts.steps for counts in drawn.by_step.values()) == 1000
    assert sorted(drawn.by_size) == [1, 2, 3]
    assert len(drawn.by_accuracy) == 40
    assert min(drawn.by_accuracy) > 0


def test_percentages_never_round_to_all_or_nothing():
    shown = [percent(share) for share in (None, 0, 1e-5, 0.5, 0.12345, 0.9999, 1)]
    assert shown == ["-", "0 %", "< 0.1 %", "50 %", "12.3 %", "> 99.9 %", "100 %"]
