"""Situations drawn by Hypothesis: small numbers, so that coincidences are frequent, shrunk to a minimal one.

First numbers of the claim's sizes without conditions, then questions in the states of
:func:`exan_verify.testing.questions` (published, peelable or not, shared regions, dead and silent samples,
second batches), which numbers without conditions seldom have.

Needs the ``testing`` extra.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from exan_verify.core.network import Array, Batch, ReluNetwork
from exan_verify.core.question import Labels, Loss
from exan_verify.errors import InputError
from exan_verify.theorems.claims.claim import Claim, Judgement
from exan_verify.theorems.claims.searching.tally import Tally

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

GRIDS = ((2, 1), (4, 2), (12, 4))
"""Largest numerator and denominator of drawn numbers: integers up to 2, halves up to 2, quarters up to 3."""


SHRUNK = 300
"""Situations of more numbers are not shrunk by Hypothesis, which does not look at the time while it considers
candidates that it knows; what follows every stage (:mod:`.shrinking`) does."""


def draw_counterexample(claim: Claim, tally: Tally, *, examples: int, seed: int) -> None:
    """Draw at most ``examples`` situations from each grid, and as many in states, until one contradicts the
    claim, and shrink it.

    The findings go to ``tally``. Deterministic in ``seed``.
    """
    try:
        from hypothesis import Phase, find, settings
        from hypothesis.errors import Flaky, NoSuchExample
    except ImportError:
        raise InputError("drawing situations needs Hypothesis; pip install 'exan-verify[testing]'") from None
    drawn = [_situations(claim, grid, tally) for grid in GRIDS]
    for strategy in (*drawn, *([] if claim.networks else [_in_states(claim, drawn[0], tally)])):
        chosen = settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.target, *([Phase.shrink] if _largest(claim) <= SHRUNK else [])),
        )
        try:
            find(
                strategy,
                lambda drawn: tally.judge(*drawn) is Judgement.FAILS,
                settings=chosen,
                random=Random(seed),
            )
        except NoSuchExample:
            continue
        except (_LateError, Flaky):
            if not tally.late():  # a drawing that ends early is flaky in Hypothesis's eyes
                raise
        return


def _in_states(claim: Claim, otherwise: Any, tally: Tally) -> Any:
    """Questions of the claim's sizes in a state of the strategies; where these exclude it, ``otherwise``."""
    from hypothesis import strategies as st

    from exan_verify.testing.strategies import STATES, questions

    sizes, question = claim.sizes, claim.question

    @st.composite
    def situations(draw: DrawFn) -> tuple[ReluNetwork, Batch]:
        if tally.late():
            raise _LateError
        state = draw(st.sampled_from(STATES))
        # the upper half of the claim's widths: states need neurons
        widths = [
            draw(st.integers((a + b + 1) // 2, b)) for a, b in (sizes.inputs, *sizes.hidden, sizes.logits)
        ]
        try:
            drawn = draw(
                questions(
                    loss=question.loss.value,
                    labels=question.labels.value,
                    widths=tuple(widths),
                    biases=draw(st.booleans()) if sizes.biases is None else sizes.biases,
                    samples=None if "shared_region" in state else sizes.samples,
                    **state,
                )
            )
        except InputError:
            drawn = None
        if drawn is None or not sizes.admit(drawn.network, drawn.batch.size):
            plain: tuple[ReluNetwork, Batch] = draw(otherwise)
            return plain
        return drawn.network, drawn.batch

    return situations()


def _largest(claim: Claim) -> int:
    """The numbers of the claim's largest situation."""
    sizes = claim.sizes
    widths = [found[1] for found in (sizes.inputs, *sizes.hidden, sizes.logits)]
    return sum(b * (a + 1) for a, b in pairwise(widths)) + sizes.samples[1] * widths[0]


class _LateError(BaseException):
    """The time is over. No Exception: Hypothesis would take it for a finding, and try to shrink it.

    Remedy: none is needed; it does not leave this module.
    """


def _situations(claim: Claim, grid: tuple[int, int], tally: Tally) -> Any:
    from hypothesis import strategies as st

    @st.composite
    def situations(draw: DrawFn) -> tuple[ReluNetwork, Batch]:
        network = draw(st.sampled_from(claim.networks)) if claim.networks else draw_network(draw)
        samples = draw(st.integers(*claim.sizes.samples))
        x = draw(numbers(samples, network.widths[0]))
        y = draw_labels(draw, network.classes, samples)
        question = claim.question
        return network, Batch.of(x, y, network=network, loss=question.loss, labels=question.labels)

    def draw_network(draw: DrawFn) -> ReluNetwork:
        sizes = claim.sizes
        widths = [draw(st.integers(*found)) for found in (sizes.inputs, *sizes.hidden, sizes.logits)]
        with_bias = draw(st.booleans()) if sizes.biases is None else sizes.biases
        weights = [draw(numbers(b, a)) for a, b in pairwise(widths)]
        offsets = [draw(numbers(b, 1))[:, 0] for b in widths[1:]]
        return ReluNetwork.from_arrays(weights, offsets if with_bias else None)

    def draw_labels(draw: DrawFn, logits: int, samples: int) -> Array:
        """Classes (M,), or vectors (M, K) for losses that take them."""
        loss = claim.question.loss
        if claim.question.labels is Labels.REAL:
            return draw(numbers(samples, logits))
        if loss is Loss.BCE or (loss is Loss.MSE and logits == 1):
            bits = st.lists(st.integers(0, 1), min_size=samples * logits, max_size=samples * logits)
            return np.array(draw(bits)).reshape(samples, logits)
        return np.array(draw(st.lists(st.integers(0, logits - 1), min_size=samples, max_size=samples)))

    def numbers(rows: int, columns: int) -> Any:
        if tally.late():
            raise _LateError
        largest, denominator = grid
        entries = st.lists(st.integers(-largest, largest), min_size=rows * columns, max_size=rows * columns)
        return entries.map(lambda found: np.array(found, dtype=float).reshape(rows, columns) / denominator)

    return situations()
