"""Law: the engines, each asked alone about the same batch, never contradict one another.

Facts of different arguments are joined; a sample that one calls determined and another free, or a batch that
is unique here and ambiguous there, raises :class:`SoundnessError`. Weights and inputs are small dyadic
numbers, which provoke equal patterns, zero pre-activations, duplicates and rank deficits.
"""

from hypothesis import given
from hypothesis import strategies as st

from exan_verify.core.budget import Budget
from exan_verify.core.facts import Facts
from exan_verify.core.question import Box, Labels, Loss, Question
from exan_verify.decide.context import Context, Setting
from exan_verify.decide.pipeline import ENGINE_ORDER
from exan_verify.testing.strategies import LOSSES, REDUCTIONS, batches, networks
from tests.conftest import examples


@st.composite
def contexts(draw):
    loss = draw(LOSSES)
    labels = draw(st.sampled_from(list(Labels)))
    if labels is Labels.REAL and loss is not Loss.MSE:
        labels = Labels.ONE_HOT
    generic = draw(st.booleans())
    network = draw(networks(max_depth=3, max_width=8, max_classes=3, biases=None, generic=generic))
    batch = draw(batches(network, loss, max_samples=3, generic=generic, labels=labels))
    domain = draw(st.sampled_from([None, Box(-4, 4)])) if not generic else None
    setting = Setting(
        network=network,
        question=Question(loss=loss, reduction=draw(REDUCTIONS), labels=labels, domain=domain),
    )
    return Context(setting=setting, batch=batch)


def joined(context):
    facts = Facts()
    for _, ask in ENGINE_ORDER:
        facts |= ask(context, Budget(work=20_000_000)).facts
    return facts.outcome(context.samples, distinct=context.batch.distinct)


@examples(60)
@given(context=contexts())
def test_no_two_engines_contradict_each_other(context):
    joined(context)
