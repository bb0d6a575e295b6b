"""The exact examples that the package's statements and these tests share."""

from __future__ import annotations

from exan_verify.theorems.support.counterexamples import (
    antisymmetric_head,
    dead_at_a_point,
    parallel_logits,
    published_insecure,
)
from exan_verify.theorems.support.counterexamples import (
    zero_pre_activation_three_neurons as zero_pre_activation,
)

__all__ = [
    "antisymmetric_head",
    "dead_at_a_point",
    "parallel_logits",
    "published_insecure",
    "zero_pre_activation",
]
