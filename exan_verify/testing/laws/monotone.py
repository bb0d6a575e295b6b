"""What is asked among fewer batches is never answered against what is true among more."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from exan_verify.core.arrays import fractions
from exan_verify.core.question import Box, Labels, Release
from exan_verify.core.verdict import Outcome, SampleStatus, Verdict
from exan_verify.testing.laws.law import Case, cases, certified, law, mixed, require
from exan_verify.testing.strategies import releases


def require_monotone(many: Verdict, few: Verdict, what: str) -> None:
    """``few`` is asked among a part of the batches of ``many``, the given one among them."""
    require(
        (many.outcome, few.outcome) != (Outcome.UNIQUE, Outcome.AMBIGUOUS),
        f"{what}: unique among more batches, ambiguous among fewer",
    )
    for m, (wide, narrow) in enumerate(zip(many.samples, few.samples, strict=True)):
        require(
            (wide, narrow) != (SampleStatus.DETERMINED, SampleStatus.FREE),
            f"{what}: sample {m} is determined among more batches, free among fewer",
        )


@law(
    "box",
    "A box around the batch never frees what is determined in all of R^d",
    lambda: cases(mixed(), margin=st.sampled_from(["0", "1/64", "4"])),
)
def boxes_are_monotone(case: Case) -> str:
    """Tight, near and wide boxes."""
    question, margin = case.question, Fraction(case.params["margin"])
    exact = fractions(question.batch.inputs)
    box = Box(list(exact.min(axis=0) - margin), list(exact.max(axis=0) + margin))
    many, few = (
        certified(question),
        certified(replace(question, question=replace(question.question, domain=box))),
    )
    require_monotone(many, few, f"a box with a margin of {margin}")
    return _both(many, few)


@law("labels", "Known labels never free what is determined among all labels", lambda: cases(mixed()))
def labels_are_monotone(case: Case) -> str:
    """Real labels against one-hot ones where both are admitted, and these against known ones."""
    wider, narrower = Labels.ONE_HOT, Labels.KNOWN
    question = case.question
    y = np.asarray(question.batch.labels)
    if not question.loss.class_labels and question.labels is Labels.REAL:
        wider = Labels.REAL
    elif question.labels is Labels.KNOWN and not question.loss.class_labels and not np.isin(y, (0, 1)).all():
        wider = Labels.KNOWN

    def asked(labels: Labels) -> Any:
        return certified(replace(question, question=replace(question.question, labels=labels)))

    many, few = asked(wider), asked(narrower)
    require_monotone(many, few, f"{wider.value} and {narrower.value} labels")
    return _both(many, few)


@law(
    "releases",
    "What the whole gradient leaves free is never determined by a part of it",
    lambda: mixed(samples=(1, 2)).flatmap(
        lambda question: st.builds(
            lambda release: Case(question=question, params=_words(release)), releases(question.network)
        )
    ),
)
def releases_are_monotone(case: Case) -> str:
    """More batches have the release than have the whole gradient, the given one among them."""
    release = Release(**case.params)
    many, few = certified(case.question, release=release), certified(case.question)
    require_monotone(many, few, f"{release.described} and everything")
    return _both(many, few)


def _words(release: Release) -> dict[str, Any]:
    """The arguments of a release without a basis, as JSON has them."""
    return {
        "tensors": None if release.tensors is None else list(release.tensors),
        "rows": {name: list(mask) for name, mask in release.rows.items()},
        "weights": release.weights.value,
    }


def _both(many: Verdict, few: Verdict) -> str:
    return f"{many.outcome.value}, then {few.outcome.value}"
