"""``exan bench run``: a short run of a small network, at once and resumed."""

from __future__ import annotations

from exan_verify.bench import run
from exan_verify.bench.run import Case
from exan_verify.bench.suite import Options


def test_a_short_run_is_resumed_to_the_same_result():
    case = Case(name="small", steps=3, widths=(784, 320, 10))
    row = run.run_case(case, seed=0)
    assert (row.name, row.steps, row.determined, row.recovered, row.resumed) == ("small", 3, 1.0, None, True)
    assert min(row.seconds, row.cpu, row.peak_mib) > 0
    models = {id(step.model): step.accuracy for step in run.training(case, seed=1)}
    assert len(models) == 1, "the loop trains one model, which the audit copies in its turn"


def test_the_rows_of_a_case_are_one_a_seed(monkeypatch):
    monkeypatch.setattr(run, "isolated", lambda asked, seed: (asked.args[0].name, seed))
    rows = run.SUITE.run(Options(seeds=range(3)), rows=["1000 steps, 2 jobs"])
    assert rows == [("1000 steps, 2 jobs", 0)]
