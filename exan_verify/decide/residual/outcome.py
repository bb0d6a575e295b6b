"""What a method of this package reports about a rest."""

from __future__ import annotations

from dataclasses import dataclass

from exan_verify.core.certificate import CoverArgument, LossVectorArgument, QuadricArgument
from exan_verify.decide.second_batch import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A proof that nothing else solves the output system, or a second rest, or a reason why neither."""

    note: str
    argument: QuadricArgument | LossVectorArgument | CoverArgument | None = None
    second: Candidate | None = None
