"""Statements about the security boundary: stated, proved or refuted by machine (docs/theory.md).

``registry()`` has the project's own; :class:`Claim` and ``search`` are for one's own.
"""

from exan_verify.theorems.claims.claim import Claim, ClaimError, Sizes, all_determined, ambiguous, unique
from exan_verify.theorems.claims.loading import load_file
from exan_verify.theorems.claims.searching.found import Counterexample, Stage
from exan_verify.theorems.claims.searching.search import Searched, search
from exan_verify.theorems.claims.situation import Situation, Undecided
from exan_verify.theorems.registry import registry, statement
from exan_verify.theorems.replay import Replay, replay
from exan_verify.theorems.running import CheckReport, Report, run_statement
from exan_verify.theorems.statement import (
    Check,
    Direction,
    Example,
    Exhibit,
    Ground,
    Method,
    Progress,
    Result,
    Standing,
    Statement,
)

__all__ = [
    "Check",
    "CheckReport",
    "Claim",
    "ClaimError",
    "Counterexample",
    "Direction",
    "Example",
    "Exhibit",
    "Ground",
    "Method",
    "Progress",
    "Replay",
    "Report",
    "Result",
    "Searched",
    "Situation",
    "Sizes",
    "Stage",
    "Standing",
    "Statement",
    "Undecided",
    "all_determined",
    "ambiguous",
    "load_file",
    "registry",
    "replay",
    "run_statement",
    "search",
    "statement",
    "unique",
]
