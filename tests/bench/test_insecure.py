"""Batches selected for the published condition, against an independent count of exclusive neurons, and what
the benchmark makes of its trials."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exan_verify.bench.attack import autograd_gradient
from exan_verify.bench.cases.selecting import Patterns, counts_without, margins, movable, select, short_of
from exan_verify.bench.insecure import (
    CASES,
    METHODS,
    SUITE,
    Case,
    Trial,
    digits,
    find_batch,
    measure,
    network,
    patterns,
    summarise,
)
from exan_verify.bench.suite import Options
from exan_verify.cli.bench import markdown_table
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.data import load_mnist, to_inputs
from exan_verify.errors import InputError
from exan_verify.exclusivity import exan_counts, exclusivity
from exan_verify.models.chain import to_network
from tests.support.torch_reference import perceptron


def pattern(*layers: list[list[int]]) -> Patterns:
    return tuple(np.array(layer, dtype=bool) for layer in layers)


def lacking(shown: Patterns, batch: tuple[int, ...]) -> list[int]:
    """Per sample the exclusive neurons it lacks, by sets."""
    short = [0] * len(batch)
    for depth, layer in enumerate(shown):
        active = [set(np.flatnonzero(layer[image]).tolist()) for image in batch]
        for m, own in enumerate(active):
            others = set().union(*(active[k] for k in range(len(batch)) if k != m))
            short[m] += max((2 if depth == len(shown) - 1 else 1) - len(own - others), 0)
    return short


# ---- the selection ----------------------------------------------------------------------------------------


def test_lacking_neurons_are_counted():
    shown = pattern([[1, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert short_of(shown, np.array([0, 1])).tolist() == [0, 1]
    assert short_of(shown, np.array([0, 2])).tolist() == [0, 3]


def test_margins_say_how_many_may_be_lost_in_the_scarcest_layer():
    shown = pattern([[1, 0, 0], [0, 1, 1]], [[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    # image 0: 1 of 1 and 4 of 2, so one lost in layer 1 leaves it short; image 1: 2 of 1, but 2 of 2
    assert margins(shown, np.array([0, 1])).tolist() == [1, 1]
    assert margins(shown[:1], np.array([0, 1])).tolist() == [-1, 1]
    assert margins(shown[1:], np.array([0, 1])).tolist() == [3, 1]


@given(
    shown=st.tuples(arrays(bool, (7, 9)), arrays(bool, (7, 6))),
    samples=st.integers(1, 4),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_what_is_found_has_exactly_so_many_short_samples(
    shown: Patterns, samples: int, share: float, seed: int
):
    short = round(share * samples)
    found = select(shown, np.arange(7), samples, short, np.random.default_rng(seed), steps=20)
    chosen = tuple(found.batch.tolist())
    assert len(set(chosen)) == samples
    assert short_of(shown, found.batch).tolist() == lacking(shown, chosen)
    assert found.found == (sum(count > 0 for count in lacking(shown, chosen)) == short)


@given(shown=st.tuples(arrays(bool, (5, 7)), arrays(bool, (5, 4))), short=st.integers(1, 2))
def test_of_pairs_none_is_missed(shown: Patterns, short: int):
    found = select(shown, np.arange(5), 2, short, np.random.default_rng(0))
    exists = any(
        sum(count > 0 for count in lacking(shown, pair)) == short for pair in combinations(range(5), 2)
    )
    assert found.found == exists


@pytest.mark.parametrize("short", [1, 2])
def test_pairs_are_looked_at_beyond_the_first_block(short: int):
    """700 images with three neurons each; 650 has those of 600 as well, and of its own all three or one."""
    shown = np.eye(700, dtype=bool).repeat(3, axis=1)
    shown[650, 1800:1803] = True
    if short == 2:
        shown[650, 1950:1952] = False
    found = select((shown,), np.arange(700), 2, short, np.random.default_rng(0))
    assert found.found
    assert sorted(found.batch.tolist()) == [600, 650]


@given(layer=arrays(bool, (8, 10)), member=st.integers(0, 3))
def test_counts_after_an_exchange_are_those_of_the_batch_after_it(layer: np.ndarray, member: int):
    batch, pool = np.arange(4), np.arange(4, 8)
    counts = counts_without(*movable(layer, batch, pool), member)
    for image, predicted in zip(pool, counts, strict=True):
        after = np.where(np.arange(4) == member, image, batch)
        assert predicted.tolist() == list(exan_counts(layer[after].T))


def test_a_batch_is_found_that_only_exchanges_reach():
    """Images 0..5 have neurons of their own, the other 94 share one: a random batch is never inside."""
    shown = np.zeros((100, 13), dtype=bool)
    shown[6:, 12] = True
    shown[np.arange(12) // 2, np.arange(12)] = True
    found = select((shown,), np.arange(100), 6, 0, np.random.default_rng(0))
    assert found.found
    assert sorted(found.batch.tolist()) == list(range(6))


def test_only_allowed_images_are_taken():
    shown = (np.eye(12, dtype=bool).repeat(2, axis=1),)
    found = select(shown, np.array([1, 5, 7, 11]), 3, 0, np.random.default_rng(3))
    assert found.found
    assert set(found.batch.tolist()) <= {1, 5, 7, 11}


def test_what_does_not_exist_is_not_found_and_how_far_off_is_said():
    """Three images that share all but one neuron each: every sample of every batch lacks one of two."""
    shown = pattern([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1]])
    found = select(shown, np.arange(3), 3, 0, np.random.default_rng(0))
    assert (found.found, found.off) == (False, 3)


@pytest.mark.parametrize(
    "case",
    [
        Case(hidden=1, samples=16),
        Case(hidden=2, samples=8, short=4),
        Case(hidden=3, samples=4, short=1),
        Case(hidden=1, samples=4, side=8),
    ],
    ids=lambda case: case.name,
)
def test_selected_digits_are_what_the_exact_count_says(case: Case):
    """Exact activation patterns and counts of :mod:`exan_verify.exclusivity` against the search's own."""
    model, shown = network(case, 0)
    chosen = find_batch(case, shown, 0)
    assert chosen.found
    inputs, labels = digits(case.side)[chosen.batch], load_mnist()[1][chosen.batch]
    made = to_network(model)
    batch = Batch.of(inputs, labels, network=made, loss=Loss.CROSS_ENTROPY, labels=Labels.ONE_HOT)
    state = exclusivity(made, batch)
    assert state.published == (case.short == 0)
    assert state.published_by_sample.count(False) == case.short
    assert state.published_by_sample == tuple((short_of(shown, chosen.batch) == 0).tolist())


# ---- the networks and images ------------------------------------------------------------------------------


def test_patterns_are_those_of_the_modules():
    model = perceptron(16, 6, 5, 3, seed=1)
    x = np.random.default_rng(0).random((20, 16), dtype=np.float32)
    shown = patterns(model, x)
    with torch.no_grad():
        first = model[:2](torch.from_numpy(x))
        second = model[2:4](first)
    assert np.array_equal(shown[0], (first > 0).numpy())
    assert np.array_equal(shown[1], (second > 0).numpy())


def test_digits_are_centred_blocks():
    images = load_mnist()[0]
    assert np.array_equal(digits(28), to_inputs(images))
    assert np.array_equal(digits(20)[7], to_inputs(images[7:8, 4:24, 4:24])[0])
    small = digits(8)[7].reshape(8, 8)
    assert small[2, 5] == pytest.approx(images[7, 8:11, 17:20].mean() / 255, abs=1e-6)


def test_the_masked_case_has_a_first_row_of_zeros():
    case = Case(hidden=1, samples=4, masked=True)
    model, shown = network(case, 0)
    chosen = find_batch(case, shown, 0)
    assert chosen.found
    images, labels = load_mnist()
    x, y = torch.from_numpy(to_inputs(images[chosen.batch])), torch.tensor(labels[chosen.batch])
    assert bool((y != 0).all())
    assert not bool(autograd_gradient(model, x, y, "float64")["2.weight"][0].any())


# ---- the table --------------------------------------------------------------------------------------------


def trial(recall: float | None, **changed: object) -> Trial:
    made = {"recall": recall, "meeting": recall, "short": None, "wrong": 0, "scaled": 0.0, "labels": 1.0}
    return Trial(**(made | changed))  # type: ignore[arg-type]


def test_rows_summarise_their_trials():
    trials = {
        "letter": [trial(0.0, scaled=1.0), trial(0.0, scaled=0.5)],
        "published": [trial(1.0, short=1.0), trial(0.5, meeting=0.75, short=0.0, wrong=2)],
        "peel": [trial(1.0), trial(0.25, labels=0.5, wrong=1)],
        "lift": [trial(None), trial(None)],
    }
    case = Case(hidden=1, samples=8, short=4)
    row = summarise(case, trials, [7, 3], random=0.1, seconds=2.0)
    assert (row.batches, row.missing, row.closest, row.random) == (2, 2, 3, 0.1)
    assert (row.letter, row.letter_scaled) == (0.0, 0.75)
    assert (row.published, row.published_worst) == (0.75, 0.5)
    assert (row.published_meeting, row.published_short) == (0.875, 0.5)
    assert (row.peel, row.peel_worst, row.labels, row.wrong) == (0.625, 0.25, 0.5, 3)
    assert row.lift is row.lift_worst is None


def test_a_row_without_batches_has_no_figures():
    row = summarise(Case(hidden=1, samples=2), {name: [] for name, _ in METHODS}, [4], random=0.0, seconds=0)
    assert (row.batches, row.missing, row.closest, row.wrong) == (0, 1, 4, 0)
    assert row.letter is row.published is row.published_worst is row.peel is row.lift is row.labels is None


def test_inside_the_repaired_algorithm_recovers_and_the_letter_only_up_to_scale():
    (row,) = measure(Case(hidden=1, samples=4), Options(seeds=[0]))
    assert (row.batches, row.missing, row.wrong) == (1, 0, 0)
    assert (row.letter, row.letter_scaled, row.published, row.peel, row.lift) == (0.0, 1.0, 1.0, 1.0, 1.0)
    assert row.published_short is None
    assert row.labels == 1.0


def test_outside_it_recovers_those_that_meet_the_condition():
    (row,) = measure(Case(hidden=1, samples=8, short=4), Options(seeds=[0]))
    assert (row.published_meeting, row.published_short, row.published) == (1.0, 0.0, 0.5)
    assert (row.peel, row.lift, row.wrong) == (1.0, 1.0, 0)


def test_float32_gradients_are_grouped_too():
    (row,) = measure(Case(hidden=1, samples=2, dtype="float32"), Options(seeds=[2, 3]))
    assert (row.batches, row.published_worst, row.wrong) == (2, 1.0, 0)


def test_rows_are_distinct_and_unknown_ones_refused():
    assert len({case.name for case in CASES}) == len(CASES)
    with pytest.raises(InputError, match=r"insecure has no case 'x'; [^:]*:\n  784-512-10 M=2 inside\n"):
        SUITE.run(Options(seeds=[0]), rows=["x"])


def test_the_table_as_markdown():
    row = summarise(Case(hidden=1, samples=2), {name: [] for name, _ in METHODS}, [4], random=0.25, seconds=1)
    lines = markdown_table(SUITE, [row]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(line) for line in cells}) == 1
    assert cells[0][:4] == ["case", "batches", "not found", "off"]
    assert "s" not in cells[0]
    assert set(cells[1]) == {"---", "---:"}
    assert cells[2][:6] == ["784-512-10 M=2 inside", "0", "1", "4", "0.25", "-"]


def test_the_documented_table_has_the_rows_and_columns_of_today():
    text = (Path(__file__).parents[2] / "docs" / "insecure.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[:2] == markdown_table(SUITE, []).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(SUITE.case_names)
