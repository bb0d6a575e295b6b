"""The pytest plugin, run by pytest on small projects: assertions, failures, marker, snapshots, JUnit."""

from __future__ import annotations

import json
import re
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from exan_verify import Box, Outcome, ReluNetwork, certify
from exan_verify.errors import FileError, InputError
from exan_verify.testing import Instance, assert_leaks, assert_protected
from exan_verify.testing.snapshots import replay, write

pytest_plugins = ("pytester",)

PLUGIN = "exan_verify.testing.plugin"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Everything that the projects' tests load: pytester forgets modules that a run has loaded, and compiled
    ones cannot be loaded twice."""
    network, batch = digits()
    with pytest.raises(AssertionError):
        assert_leaks(network, batch, by="recovered", folder=tmp_path_factory.mktemp("loaded"))
    for engine in ("families", "residual", "enumeration", "scale"):
        certify(ReluNetwork.from_arrays([[[1, 0]], [[1]]], [[1], [0]]), batch=([[1, 1]], [0]), engine=engine)


@pytest.fixture
def run(loaded: None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """pytest in this process, on the files of the folder; the plugin by its entry point where it is there."""
    installed = any(point.value == PLUGIN for point in entry_points(group="pytest11"))

    def runs(*options: str) -> pytest.RunResult:
        more = () if installed else ("-p", PLUGIN)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *more, *options)

    return runs


MODEL = """
from exan_verify import ReluNetwork

# two exclusive neurons per sample: everything is determined
leaky = ReluNetwork.from_arrays(
    [[[1, 0], [2, 0], [0, 1], [0, 2]], [[1, 0, 1, 0], [0, 1, 0, 1]]],
    [[0, 0, 0, 0], [0, 0]],
)
batch = [[1, -1], [-1, 2]], [0, 1]
# the neuron is inactive for the second sample, which can be anything
hiding = ReluNetwork.from_arrays([[[1, 0]], [[1], [2]]], [[-1], [0, 0]])
hidden = [[-8, 3]], [0]
"""

TESTS = """
import pytest
from exan_verify.testing import assert_leaks, assert_protected
from model import batch, hidden, hiding, leaky


def test_everything_leaks(exan_audit):
    found = exan_audit(leaky, batch, loss="mse")
    assert found.published


def test_leaks_are_refused(exan_audit):
    exan_audit.assert_leaks(leaky, batch, loss="mse")


def test_leaks_are_admitted():
    assert_leaks(leaky, batch, at_most=2, loss="mse")
    assert_leaks(hiding, hidden, loss="cross_entropy")


@pytest.mark.exan(work_limit=1)
def test_undecided_is_not_safe():
    assert_leaks(leaky, batch, loss="mse")


@pytest.mark.exan(work_limit=1)
def test_undecided_can_be_admitted():
    assert_leaks(leaky, batch, loss="mse", undecided="allow")


def test_protected():
    assert_protected(hiding, hidden, reach_at_least=1)


def test_not_protected():
    assert_protected(leaky, batch, loss="mse")
"""

SNAPSHOTS = """
from model import batch, hidden, hiding, leaky


def test_snapshot(exan_audit):
    claim = exan_audit.snapshot(leaky, batch, loss="mse")
    assert claim.outcome == "unique"
    exan_audit.snapshot(hiding, hidden, name="hidden one")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    """Three files."""
    files = {"model": MODEL, "test_leaks": TESTS, "test_snapshots": SNAPSHOTS}
    pytester.makepyfile(**files)
    return pytester.path


def test_assertions_fail_with_what_leaks(run, project):
    result = run("test_leaks.py", "--junit-xml=junit.xml", "-o", "junit_family=xunit1")
    result.assert_outcomes(passed=4, failed=3)
    text = result.stdout.str()
    assert "2 of 2 samples leak (determined), at most 0 may: 0, 1" in text
    assert re.search(
        r"sample 1, label 0 1: original \| rebuilt by the attack\s+E\s+\(-1, 2\) \| \(-1, 2\)", text
    )
    assert re.search(r"E\s+0\s+1 0\s+determined\s+2\s+yes\s+\w+, error [\d.e-]+", text)
    assert "undecided whether 2 of 2 samples leak (determined): 0, 1" in text
    assert "Undecided is not safe: give a larger budget or work limit" in text
    assert "2 of 2 samples are not protected:" in text
    # under CI pytest's short summary says all of it again
    images = {Path(found) for found in re.findall(r"image: (\S+\.png)", text)}
    assert len(images) == 2
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    cases = {case.get("name"): case for case in ElementTree.parse(project / "junit.xml").iter("testcase")}
    told = {p.get("name"): p.get("value") for p in cases["test_everything_leaks"].iter("property")}
    assert told == {"exan_outcome": "unique", "exan_trust": "certified", "exan_determined": "2 of 2"}
    told = {p.get("name"): p.get("value") for p in cases["test_undecided_is_not_safe"].iter("property")}
    assert told["exan_outcome"] == "unknown"


def test_snapshots_are_written_and_replayed_by_the_kernel_alone(run, project, monkeypatch):
    result = run("test_snapshots.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no snapshot *test_snapshot.json; run pytest --exan-update*"])
    result = run("test_snapshots.py", "--exan-update")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["snapshots: 2 written"])
    files = sorted((project / "__exan__" / "test_snapshots").iterdir())
    assert [file.name for file in files] == ["test_snapshot.hidden_one.json", "test_snapshot.json"]
    # another time of making is no change
    stored = json.loads(files[1].read_text())
    stored["certificate"]["created"] = "2020-01-01T00:00:00+00:00"
    files[1].write_text(json.dumps(stored))
    result = run("test_snapshots.py", "--exan-update")
    result.stdout.fnmatch_lines(["snapshots: 2 unchanged"])

    def asked(*_, **__):
        raise AssertionError("an engine was asked")

    monkeypatch.setattr("exan_verify.decide.pipeline.decide", asked)
    monkeypatch.setattr("exan_verify.api.certify.decide", asked)
    run("test_snapshots.py").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.replace('"unique"', '"ambiguous"'), "does not hold for this model and batch"),
        (lambda text: text.replace("exan/snapshot/1", "exan/snapshot/0"), "is no snapshot of schema"),
        (lambda text: text[:-20], "is no snapshot"),
    ],
)
def test_spoiled_snapshots_fail(tmp_path, spoil, said):
    case = Instance.of([[[1], [2]], [[1, -1]]], [[0, 0], [0]], [[1]], [[1]], loss="mse")
    path = tmp_path / "one.json"
    claim, fate = write(path, case)
    assert (claim.outcome, fate) == (Outcome.UNIQUE, "written")
    path.write_text(spoil(path.read_text()))
    with pytest.raises((AssertionError, FileError), match=said):
        replay(path, case)


def test_changed_models_and_other_questions_fail(tmp_path):
    case = Instance.of([[[1], [2]], [[1, -1]]], [[0, 0], [0]], [[1]], [[1]], loss="mse", labels="real")
    path = tmp_path / "one.json"
    write(path, case)
    replay(path, case, loss="mse")
    with pytest.raises(AssertionError, match="answers loss='mse', not 'bce'; run pytest --exan-update"):
        replay(path, case, loss="bce")
    other = Instance.of([[[1], [2]], [[1, -2]]], [[0, 0], [0]], [[1]], [[1]], loss="mse", labels="real")
    with pytest.raises(AssertionError, match="They have changed"):
        replay(path, other)
    assert write(path, other)[1] == "changed"


def test_nothing_certified_is_no_snapshot(tmp_path):
    case = Instance.of([[[1], [2]], [[1, -1]]], [[0, 0], [0]], [[1]], [[1]], loss="mse")
    with pytest.raises(InputError, match="nothing is certified about this batch"):
        write(tmp_path / "one.json", case, work_limit=1, engine="smt")
    assert not list(tmp_path.iterdir())


def test_wrong_markers_end_the_run(run, pytester):
    pytester.makepyfile("import pytest\n\n@pytest.mark.exan(seconds=3)\ndef test_it(): pass\n")
    result = run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "the marker exan takes budget= and work_limit= only" in result.stderr.str() + result.stdout.str()


def test_two_snapshots_need_two_names(run, pytester, project):
    pytester.makepyfile(
        test_two="""
from model import batch, leaky


def test_twice(exan_audit):
    exan_audit.snapshot(leaky, batch, loss="mse")
    exan_audit.snapshot(leaky, batch, loss="mse")
"""
    )
    result = run("test_two.py", "--exan-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*two snapshots of this test have the name ''; give another name=*"])


def digits() -> tuple[ReluNetwork, tuple[np.ndarray, list[int]]]:
    """One picture of 6 x 6 pixels and neurons enough to determine it."""
    rng = np.random.default_rng(3)
    network = ReluNetwork.from_arrays(
        [rng.normal(size=(60, 36)), rng.normal(size=(3, 60))], [rng.normal(size=60), rng.normal(size=3)]
    )
    picture = np.zeros((1, 6, 6))
    picture[0, 1:5, 2] = 1
    return network, (picture, [2])


def test_pictures_are_shown_as_pictures(tmp_path):
    network, batch = digits()
    with pytest.raises(AssertionError) as failed:
        assert_leaks(network, batch, by="recovered", folder=tmp_path)
    text = str(failed.value)
    assert text.startswith("1 of 1 samples leak (recovered), at most 0 may: 0")
    assert text.count("    @    |   @") == 4
    assert (tmp_path / "exan-leaks.png").read_bytes().startswith(b"\x89PNG")
    assert f"image: {tmp_path / 'exan-leaks.png'}" in text
    for by in ("peel", "exan"):
        with pytest.raises(AssertionError, match=rf"leak \({by}\)"):
            assert_leaks(network, batch, by=by, folder=tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_bad_arguments_are_named():
    network, batch = digits()
    for asked, said in (
        ({"by": "luck"}, "by='luck' is not known"),
        ({"at_most": -1}, "at_most=-1"),
        ({"undecided": "maybe"}, "undecided='maybe' is not known"),
    ):
        with pytest.raises(InputError, match=said):
            assert_leaks(network, batch, **asked)
    for asked, said in (
        ({"hidden_at_least": 0}, "hidden_at_least=0"),
        ({"reach_at_least": 0}, "reach_at_least=0"),
        ({"samples": [1]}, "samples=1"),
    ):
        with pytest.raises(InputError, match=said):
            assert_protected(network, batch, **asked)


def test_reach_is_a_proved_distance():
    network = ReluNetwork.from_arrays([[[1, 0]], [[1], [2]]], [[-1], [0, 0]])
    batch = [[-8, 3]], [0]
    box = Box(-10, 10)
    assert_protected(network, batch, reach_at_least=2, domain=box)
    with pytest.raises(AssertionError, match=r"sample 0 moves by [\d.]+ as is proved, not by 21"):
        assert_protected(network, batch, reach_at_least=21, domain=box)
    record = json.loads(assert_protected(network, batch).to_json())
    assert record["verdict"]["samples"] == ["free"]


def test_hidden_dimensions_are_a_proved_count():
    """The sample is dead: it moves in both of its features. Two like it move in four."""
    network = ReluNetwork.from_arrays([[[1, 0]], [[1], [2]]], [[-1], [0, 0]])
    for samples in (1, 2):
        batch = [[-8, 3], [-7, 2]][:samples], [0, 1][:samples]
        assert_protected(network, batch, hidden_at_least=2 * samples)
        said = f"{2 * samples} hidden dimensions are proved for the {samples} samples, not"
        with pytest.raises(AssertionError, match=said):
            assert_protected(network, batch, hidden_at_least=2 * samples + 1)
    twins = ReluNetwork.from_arrays([[[1]], [[1], [0]]])
    with pytest.raises(AssertionError, match="no hidden dimensions are proved"):
        assert_protected(twins, ([[1]], [0]), hidden_at_least=1)
