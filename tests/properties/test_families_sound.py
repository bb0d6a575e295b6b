"""Law: the families engine says nothing false, also at zero pre-activations, ties, copies and box faces."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exan_verify.core.budget import Budget
from exan_verify.core.question import Box, Labels, Loss
from exan_verify.decide.lifting import degree_two as lifting
from exan_verify.testing.strategies import LOSSES, REDUCTIONS, batches, networks
from tests.conftest import examples
from tests.support.contexts import context_of
from tests.support.family_cases import found_by_engine, replay, shown_to_kernel


@examples(90)
@given(
    data=st.data(),
    loss=LOSSES,
    reduction=REDUCTIONS,
    domain=st.sampled_from(["none", "tight", "loose"]),
    biases=st.booleans(),
)
def test_kernel_and_replay_agree_with_the_engine(data, loss, reduction, domain, biases):
    network = data.draw(networks(max_width=5, biases=biases))
    allowed = list(Labels) if loss is Loss.MSE else [Labels.ONE_HOT, Labels.KNOWN]
    labels = data.draw(st.sampled_from(allowed))
    batch = data.draw(batches(network, loss, labels=labels))
    context = context_of(
        network, batch, loss, labels=labels, reduction=reduction, domain=box_of(batch, domain)
    )
    finding = found_by_engine(context)
    assert shown_to_kernel(context, finding) == finding.facts
    assert not finding.facts.determined
    assert not finding.facts.unique
    if finding.witness is not None and finding.witness.batch is not None:
        replay(context, finding.witness.batch)


@examples(30)
@given(data=st.data(), loss=LOSSES)
def test_samples_that_lifting_determines_are_never_free(data, loss):
    """``|`` of the two engines' facts raises SoundnessError on a contradiction."""
    network = data.draw(networks(max_width=14, generic=True))
    batch = data.draw(batches(network, loss, generic=True))
    context = context_of(network, batch, loss)
    both = found_by_engine(context).facts | lifting.decide(context, Budget()).facts
    assert not both.free & both.determined


@examples(25)
@given(data=st.data(), loss=LOSSES, seed=st.integers(0, 99))
def test_the_order_of_the_samples_does_not_matter(data, loss, seed):
    network = data.draw(networks(max_width=5))
    batch = data.draw(batches(network, loss))
    order = np.random.default_rng(seed).permutation(batch.size)
    first = found_by_engine(context_of(network, batch, loss)).facts
    second = found_by_engine(context_of(network, batch.select(list(order)), loss)).facts
    assert first.is_ambiguous == second.is_ambiguous
    assert first.free == {int(order[m]) for m in second.free}


def box_of(batch, kind):
    """``tight``: every extreme pixel stands on a face."""
    if kind == "none":
        return None
    margin = 0.0 if kind == "tight" else 1.0
    return Box(batch.inputs.min(axis=0) - margin, batch.inputs.max(axis=0) + margin)
