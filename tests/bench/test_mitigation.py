"""The table of defences: a row each, the first without any."""

from __future__ import annotations

from dataclasses import replace

from exan_verify.bench.mitigation import CASES, SUITE, measure
from exan_verify.bench.suite import Options
from exan_verify.mitigation.mitigate import DEFAULTS


def test_a_row_for_every_defence():
    names = ("regroup", "average:2", "project-pca:4", "clip-noise:1:1")
    case = replace(CASES[0], widths=(784, 30, 10), samples=3, pool=80, defences=names, accuracies=False)
    rows = list(measure(case, Options(seeds=[0])))
    assert [row.name for row in rows] == ["none", *names]
    assert rows[0].hidden in (0, None)
    assert [row.proved for row in rows[2:]] == ["AMBIGUOUS", "AMBIGUOUS", "random"]
    assert rows[3].hidden == 3 * 780
    assert abs(rows[4].epsilon - 4.3772) < 1e-4
    assert all(getattr(row, attribute) != [] for row in rows for _, attribute in SUITE.columns)


def test_the_table_is_of_ten_defences():
    assert len(DEFAULTS) == 10
    assert all(case.defences == DEFAULTS for case in CASES)
