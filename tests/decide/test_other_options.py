"""What is undecided and would be decided under another option is said so: the reason names that option."""

from __future__ import annotations

from collections import Counter

import numpy as np

from exan_verify import Box, certify
from exan_verify.core.verdict import Outcome
from exan_verify.models.chain import to_network
from tests.support.numeric_cases import drawn_batch, drawn_network

WORK = 20_000

OPTIONS = {
    "labels='known'": {"labels": "known"},
    "a domain": {"domain": Box(0, 1)},
    "engine='auto'": {"engine": "exact"},
}
"""What a reason may name, and the option; of ``auto`` the engines that ask no solver."""


def decided_otherwise(seed: int) -> tuple[str, list[str]] | None:
    """The reason of a question that is undecided, and the names of the options that decide it."""
    rng = np.random.default_rng([seed, 12])
    loss = ("cross_entropy", "mse", "bce", "hinge")[seed % 4]
    features, classes = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    widths = (features, *(int(n) for n in rng.integers(2, 7, int(rng.integers(3)))), classes)
    x, y = drawn_batch("rand", int(rng.integers(1, 4)), features, classes, rng, loss)
    network = to_network(drawn_network(widths, rng))
    engine = ("exact", "lifting", "residual", "enumeration")[int(rng.integers(4))]
    asked = {"loss": loss, "engine": engine, "work_limit": WORK}
    verdict = certify(network, batch=(x.numpy(), y.numpy()), **asked)  # type: ignore[arg-type]
    if verdict.outcome is not Outcome.UNKNOWN:
        return None
    deciding = []
    for name, option in OPTIONS.items():
        if engine == option.get("engine"):
            continue
        other = certify(network, batch=(x.numpy(), y.numpy()), **{**asked, **option})  # type: ignore[arg-type]
        deciding += [name] if other.outcome is not Outcome.UNKNOWN else []
    return verdict.reason, deciding


def test_an_option_that_decides_is_named():
    named: Counter[str] = Counter()
    for seed in (*range(40), 104):
        undecided = decided_otherwise(seed)
        for name in undecided[1] if undecided else ():
            assert "other options may decide" in undecided[0], (seed, name)
            assert name in undecided[0].split("other options may decide")[1], (seed, undecided[0])
            named[name] += 1
    assert all(named[name] for name in OPTIONS), named
