"""The campaign: counts, seeds, resuming, cases in files; and that it finds a kernel and engines that are
broken on purpose.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.cli import main
from exan_verify.core.facts import Facts
from exan_verify.decide.lifting import degree_two
from exan_verify.errors import FileError, InputError
from exan_verify.kernel import checker
from exan_verify.kernel.lifting import degree_two as kernel_lifting
from exan_verify.testing import campaign
from exan_verify.testing.laws import Disagreement, all_laws
from exan_verify.testing.laws.law import cases, from_record, mixed, to_record
from exan_verify.testing.strategies import questions
from tests.conftest import examples

CHEAP = ("segments", "stopping-sets")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "CHUNK", 8)
    monkeypatch.setattr(campaign, "SHRINKING", 1.0)


def outcomes(done: campaign.Campaign) -> dict[str, dict[str, int]]:
    return {name: dict(count.outcomes) for name, count in done.counts.items()}


def test_a_campaign_counts_what_it_tries(tmp_path):
    told: list[str] = []
    done = campaign.run(seed=3, laws=CHEAP, instances=16, out=tmp_path, tell=told.append)
    assert done.wrong == 0
    assert {count.instances for count in done.counts.values()} == {16}
    assert done.summary().startswith("32 instances of 2 laws, seed 3, ")
    assert done.summary().endswith(": 0 wrong")
    assert len(told) == 4
    record = json.loads((tmp_path / "campaign.json").read_text())
    assert record["schema"] == "exan/campaign/1"
    assert record["laws"]["segments"]["outcomes"] == {"kept": 16}
    assert record["laws"]["segments"]["open_share"] == 0


def test_seeds_decide_what_is_drawn_and_resuming_goes_on(tmp_path):
    whole = campaign.run(seed=5, laws=CHEAP, instances=16)
    alone = campaign.run(seed=5, laws=["segments"], instances=16)
    assert outcomes(alone)["segments"] == outcomes(whole)["segments"]
    campaign.run(seed=5, laws=CHEAP, instances=8, out=tmp_path)
    with pytest.raises(InputError, match="holds a campaign already"):
        campaign.run(seed=5, laws=CHEAP, instances=16, out=tmp_path)
    with pytest.raises(InputError, match="a campaign of seed 5"):
        campaign.run(seed=6, laws=CHEAP, instances=16, out=tmp_path, resume=True)
    resumed = campaign.run(seed=5, laws=CHEAP, instances=16, out=tmp_path, resume=True)
    assert outcomes(resumed) == outcomes(whole)
    more = campaign.run(seed=5, laws=CHEAP[:1], instances=24, out=tmp_path, resume=True)
    assert [more.counts[name].instances for name in CHEAP] == [24, 16]  # what was tried of others stays
    one, two = (campaign.try_chunk("stopping-sets", seed, 0) for seed in (1, 2))
    assert one.outcomes != two.outcomes


def test_more_processes_try_the_same(monkeypatch):
    monkeypatch.undo()  # other processes have chunks of the usual size
    alone = campaign.run(seed=5, laws=["segments"], instances=40)
    both = campaign.run(seed=5, laws=["segments"], instances=40, jobs=2)
    assert outcomes(both) == outcomes(alone)


def test_the_time_ends_a_campaign():
    done = campaign.run(seed=1, seconds=0.2)
    assert done.wrong == 0
    assert done.instances < 2000


# broken on purpose


def found_by(law: str, tmp_path: Path, seed: int = 1) -> dict[str, Any]:
    """The case that a campaign of one law ends with."""
    done = campaign.run(seed=seed, laws=[law], instances=40, out=tmp_path)
    assert done.wrong == 1, outcomes(done)
    (name,) = done.counts[law].wrong
    return json.loads((tmp_path / name).read_text())


def test_an_engine_that_determines_everything_is_found(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        honest = degree_two.decide

        def boastful(context: Any, budget: Any) -> Any:
            everyone = frozenset(range(context.samples))
            return replace(honest(context, budget), facts=Facts(determined=everyone))

        broken.setattr(degree_two, "decide", boastful)
        found = found_by("engines", tmp_path)
        assert found["says"]
        path = tmp_path / "case-engines.json"
        with pytest.raises(Disagreement):
            campaign.replay(path)
        assert campaign.run(seed=1, laws=["twins"], instances=16).wrong == 1
    name, seen = campaign.replay(path)
    assert name == "engines"
    assert sum(seen.values()) == 1


def test_a_kernel_that_ranks_too_high_is_found(tmp_path, monkeypatch):
    """Whatever a certificate says of a rank is believed: then wrong numbers are accepted."""
    monkeypatch.setattr(kernel_lifting, "check_null_space", lambda *_, **__: None)
    found = found_by("mutants", tmp_path, seed=6)
    assert "accepted, with another number of the evidence" in found["says"]


def test_a_kernel_that_repeats_the_claim_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(checker, "_claim", lambda record, *_: record.claim)
    found = found_by("mutants", tmp_path)
    assert "accepted, with another" in found["says"]


def test_a_gradient_with_a_sign_lost_is_found(tmp_path, monkeypatch):
    from exan_verify.exact import backprop

    monkeypatch.setattr(backprop, "_mask_balls", lambda matrix, *_: matrix)
    assert "is off by" in found_by("autograd", tmp_path)["says"]


def test_crashes_are_disagreements(tmp_path, monkeypatch):
    def crash(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("nothing left")

    monkeypatch.setattr("exan_verify.api.certify.decide", crash)
    assert found_by("same-seed", tmp_path)["says"] == "ZeroDivisionError: nothing left"


# files


@given(case=cases(mixed(), seed=st.integers(0, 9)) | cases(questions(twins=True)))
@examples(15)
def test_cases_come_back_from_json(case: Any):
    record = json.loads(json.dumps(to_record("box", case, "said")))
    name, again = from_record(record)
    assert name == "box"
    one, two = case.question, again.question
    assert (one.network, one.batch, one.twin) == (two.network, two.batch, two.twin)
    assert (repr(one.question), case.params) == (repr(two.question), again.params)
    assert [layer.weight.dtype for layer in one.network.layers] == [
        layer.weight.dtype for layer in two.network.layers
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "exan/campaign-case/1", "question": 3}', "3"]
)
def test_other_files_are_no_cases(tmp_path, content):
    path = tmp_path / "case.json"
    path.write_text(content)
    with pytest.raises(FileError):
        campaign.replay(path)


# the command


def test_the_command_lists_tries_and_replays(tmp_path, capsys):
    assert main(["campaign", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in listed] == list(all_laws())
    out = tmp_path / "out"
    asked = [
        "campaign",
        "--instances",
        "8",
        "--laws",
        "stopping-sets,segments",
        "--seed",
        "2",
        "--out",
        str(out),
    ]
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert "16 instances of 2 laws, seed 2, " in text
    assert main([*asked, "--resume", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["instances"], record["wrong"]) == (16, 0)
    law = all_laws()["segments"]
    case = to_record("segments", sample(law.cases()))
    (tmp_path / "case.json").write_text(json.dumps(case))
    assert main(["campaign", "--replay", str(tmp_path / "case.json")]) == 0
    assert "segments holds of this case: kept" in capsys.readouterr().out


def sample(strategy: Any) -> Any:
    found = []

    @given(strategy)
    @examples(1)
    def drawn(case: Any) -> None:
        found.append(case)

    drawn()
    return found[0]


def test_the_command_ends_with_1_on_a_disagreement(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(checker, "_claim", lambda record, *_: record.claim)
    out = tmp_path / "out"
    assert main(["campaign", "--instances", "40", "--laws", "mutants", "--seed", "1", "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "DISAGREEMENT with mutants: case-mutants.json" in text
    assert text.rstrip().endswith("1 wrong")
    assert main(["campaign", "--replay", str(out / "case-mutants.json"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["holds"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give --minutes or --instances"),
        (["--minutes", "1", "--laws", "gravity"], "law='gravity' is not known"),
        (["--instances", "20", "--resume"], "the state lies in the folder of --out"),
        (["--replay", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_usage_is_said(options, said, capsys):
    assert main(["campaign", *options]) == 2
    assert said in capsys.readouterr().err
