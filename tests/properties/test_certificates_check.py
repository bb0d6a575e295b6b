"""Law: every certificate that is issued is accepted, and the claim that comes back is the verdict's."""

import json
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from exan_verify.api import certify as door
from exan_verify.api.check import check
from exan_verify.core.question import Labels, Loss
from exan_verify.core.verdict import SampleStatus
from exan_verify.testing.strategies import LOSSES, REDUCTIONS, batches, networks
from tests.conftest import examples

certify = partial(door.certify, engine="exact")


@examples(40)
@given(data=st.data(), loss=LOSSES, reduction=REDUCTIONS, labels=st.sampled_from(list(Labels)))
def test_issued_certificates_are_accepted(data, loss, reduction, labels):
    labels = Labels.ONE_HOT if labels is Labels.REAL and loss is not Loss.MSE else labels
    generic = data.draw(st.booleans())
    # ranks of long rationals take minutes in wide and deep networks
    width, depth = (10, 3) if generic else (14, 4)
    network = data.draw(networks(max_width=width, max_depth=depth, generic=generic, biases=None))
    batch = data.draw(batches(network, loss, generic=generic, labels=labels))
    verdict = certify(network, batch=batch, loss=loss.value, reduction=reduction.value, labels=labels.value)
    if verdict.certificate is None:
        assert SampleStatus.DETERMINED not in verdict.samples
        return
    claim = check(json.dumps(verdict.certificate), network, batch=batch)
    assert claim.outcome is verdict.outcome
    assert claim.samples == verdict.samples
