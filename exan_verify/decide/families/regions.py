"""Samples that share a region: equal patterns in every hidden layer (docs/theory.md section 4)."""

from __future__ import annotations

import numpy as np

from exan_verify.decide.context import Context
from exan_verify.exclusivity import Groups, pattern_groups


def shared_regions(context: Context) -> Groups:
    """Groups of at least two samples that share their patterns in all hidden layers."""
    patterns = context.passed.patterns
    if not patterns:
        everyone = tuple(range(context.samples))
        return (everyone,) if len(everyone) > 1 else ()
    return tuple(group for group in pattern_groups(np.concatenate(patterns)) if len(group) > 1)
