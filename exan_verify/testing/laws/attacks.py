"""What the attack confirms is there; it proves nothing, and claims nothing that a proof denies."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import fractions
from exan_verify.core.network import Gradient
from exan_verify.core.verdict import Outcome
from exan_verify.errors import GradientError, RangeError
from exan_verify.exact.backprop import gradient as gradient_of
from exan_verify.exclusivity import exclusivity
from exan_verify.testing.laws.law import Case, cases, certified, law, mixed, require
from exan_verify.testing.strategies import questions

SEEN = 1e-3
"""Relative: a saturated sample's share of a gradient is below what rounding leaves of the others."""

ONE_HOT: Mapping[str, Any] = {"labels": "one_hot", "biases": True}

NEAR = 1e-6
"""Relative: how near a sample that was peeled is, whatever rounding the samples before it left."""


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


@law(
    "peelable",
    "What is in the peeling closure is found by peeling, as a sample or as a candidate that is shown",
    lambda: cases(
        st.one_of(
            questions(widths=(6, 40, 3), generic=True, samples=(1, 4), **ONE_HOT),
            questions(widths=(5, 24, 16, 3), generic=True, samples=(1, 3), **ONE_HOT),
            questions(widths=(4, 30, 2), generic=True, samples=(2, 5), **ONE_HOT),
        )
    ),
)
def peelable_is_peeled(case: Case) -> str:
    """From autograd's gradient, where no sample's share is out of sight beside the others' rounding."""
    from exan_verify.api.attack import attack
    from exan_verify.api.attack_own_batch import batch_gradient

    question = case.question
    state = exclusivity(question.network, question.batch, loss=question.loss)
    peelable = [m for m, one in enumerate(state.peelable) if one]
    if not peelable:
        return "none peelable"
    x, y = question.batch.inputs.astype(np.float64), question.batch.labels
    gradient = batch_gradient(question.network, x, y, question.question)
    shares = [
        batch_gradient(question.network, x[[m]], y[[m]], question.question)
        for m in range(question.batch.size)
    ]
    sizes = [max(float(t.abs().max()) for t in one.values()) for one in shares]
    if min(sizes) < SEEN * max(1.0, *sizes):
        return "out of sight"
    try:
        found = attack(question, gradient, batch_size=question.batch.size, method="peel")
    except (RangeError, GradientError):
        return "refused"
    shown = [*found.x.double().numpy(), *(one.x.double().numpy() for one in found.candidates)]
    for m in peelable:
        off = min((float(np.abs(x[m] - row).max()) for row in shown), default=np.inf)
        near = NEAR * (1 + float(np.abs(x[m]).max()))
        require(off < near, f"sample {m} is peelable, and not shown: {off:.1e}")
    return "all peelable" if len(peelable) == len(x) else "some peelable"


@law(
    "unrealisable",
    "A gradient that is proved to belong to no batch of a size: the attack confirms none",
    lambda: cases(
        st.one_of(
            questions(widths=(4, 40, 3), generic=True, samples=(1, 3), loss="mse", **ONE_HOT),
            questions(samples=(1, 3), loss="mse", **ONE_HOT),
            questions(samples=(1, 3), loss="hinge", **ONE_HOT),
        ),
        place=st.integers(0, 10**6),
        fewer=st.booleans(),
    ),
)
def no_attack_finds_what_is_refuted(case: Case) -> str:
    """One entry of the gradient is moved by a half, or it is asked about one sample less."""
    from exan_verify.api.attack import attack

    question, size = case.question, case.question.batch.size
    exact = gradient_of(question.network, question.batch, question.loss, question.reduction)
    tensors = {name: fractions(array) for name, array in exact.tensors.items()}
    if case.params["fewer"] and size > 1:
        size -= 1
    else:
        name = sorted(tensors)[case.params["place"] % len(tensors)]
        moved = tensors[name].copy()
        moved.reshape(-1)[case.params["place"] % moved.size] += Fraction(1, 2)
        tensors[name] = moved
    if not any(np.any(array != 0) for array in tensors.values()):
        return "nothing to ask"
    verdict = certified(question, gradient=Gradient(tensors=tensors), batch_size=size)
    if verdict.outcome is not Outcome.UNREALISABLE:
        return verdict.outcome.value
    rounded = {name: array.astype(np.float64) for name, array in tensors.items()}
    try:
        found = attack(question, rounded, batch_size=size)
    except (RangeError, GradientError):
        return "unrealisable, the attack refused"
    confirmed = [status for status in found.status if status.tier.value == "confirmed"]
    require(
        not (found.complete and len(confirmed) == size),
        f"a batch of {size} samples is confirmed for a gradient that is refuted: {verdict.reason}",
    )
    return "unrealisable, no batch found"
