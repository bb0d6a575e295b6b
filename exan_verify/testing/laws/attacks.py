"""What the attack confirms is there; it proves nothing, and claims nothing that a proof denies."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.verdict import Outcome
from exan_verify.errors import GradientError, RangeError
from exan_verify.testing.laws.law import Case, cases, certified, law, mixed, require
from exan_verify.testing.strategies import questions


@law(
    "attack",
    "Every sample that the attack confirms is one of the batch, within its bound, where the batch is UNIQUE",
    lambda: cases(
        st.one_of(
            mixed(labels="one_hot", numbers="float64"),
            questions(widths=(6, 40, 3), generic=True, samples=(1, 3), labels="one_hot", biases=True),
        ),
        told=st.booleans(),
    ),
)
def confirmed_samples_are_there(case: Case) -> str:
    """Of a UNIQUE batch; elsewhere, another batch with the gradient may rightly be found."""
    from exan_verify.api.attack import attack

    question = case.question
    size = question.batch.size if case.params["told"] else None
    try:
        found = attack(question, batch_size=size)
    except (RangeError, GradientError):
        return "refused"
    verdict = certified(question)
    true = question.batch.inputs.astype(np.float64)
    confirmed = 0
    for row, status in zip(found.x.double().numpy(), found.status, strict=True):
        if status.tier.value != "confirmed":
            continue
        confirmed += 1
        off = float(np.abs(true - row).max(axis=1).min())
        require(
            off <= status.error_bound or verdict.outcome is not Outcome.UNIQUE,
            f"a confirmed sample is off by {off:.1e}, its bound is {status.error_bound:.1e}",
        )
    share = "all" if confirmed == len(true) else "some" if confirmed else "none"
    return f"{verdict.outcome.value}, {share} confirmed"
