"""What a statement about the security boundary is: text, hypotheses, verdict, proofs, and checks that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from exan_verify.network import Batch, Labels, Loss, Reduction, ReluNetwork
from exan_verify.verdict import Box, Outcome


class Standing(StrEnum):
    """What is known of a statement."""

    PROVED = "proved"
    """For all dimensions and depths that its hypotheses allow."""
    BOUNDED = "proved for stated sizes"
    REFUTED = "refuted"
    OPEN = "open"


class Method(StrEnum):
    """How a part of a statement is established; who has to be trusted differs."""

    COQ = "coq"
    """A machine-checked proof; ``where`` is ``file.v: name``."""
    SOLVER = "solver"
    """z3 says unsat; the SMT-LIB lies under proofs/bounded/."""
    SYMBOLIC = "symbolic"
    """Exact computer algebra (sympy, python-flint) at stated sizes."""
    KERNEL = "kernel"
    """A certificate or an exact second batch that the kernel accepts."""
    WRITTEN = "written"
    """An argument in docs/theory.md, read by people."""
    MEASURED = "measured"
    """Numbers, not a proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """One thing that a statement's standing rests on. ``says``: exactly what it establishes."""

    method: Method
    where: str
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An exact network and batch at which something is to be seen, as small as is known.

    ``second``: another batch with the same gradient. ``outcome``: the verdict that the kernel confirms
    with a certificate when the example is replayed; None when no engine certifies it, ``note`` says why.
    """

    network: ReluNetwork
    batch: Batch
    loss: Loss
    note: str
    reduction: Reduction = Reduction.MEAN
    labels: Labels = Labels.ONE_HOT
    domain: Box | None = None
    second: Batch | None = None
    outcome: Outcome | None = None


Progress = Callable[[str, int, int], None]
"""Told ``(what, done, total)`` as a check goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a check found: ``holds`` is whether it confirms the statement's standing."""

    holds: bool
    detail: str
    example: Example | None = None
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A packaged check. ``run(progress, seed)`` takes at most about ten seconds on one core.

    ``what`` says what is compared with what. The result must come from a computation that would give
    ``holds=False`` if the statement's conclusion (or, for a refuted one, its negation) were wrong there.
    """

    name: str
    what: str
    run: Callable[[Progress, int], Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A claim, its source, and what is known of it.

    ``name``: short, lower case, unique (``p1-published``). ``group``: the theory's label (``P1``, ``C1``).
    ``published``: what the paper's abstract or algorithm says, in our words, when the statement reads it.
    ``reading``: what we took that to mean, or the statement in words. ``hypotheses`` and ``conclusion``:
    one sentence each. ``latex``: the whole statement in mathematics. ``quantifiers``: over what it is
    claimed (``all depths, widths, M``). ``example``: the smallest known counterexample of a refuted
    statement, or an instance of a proved one. ``remark``: what a reader should not take from it.
    """

    name: str
    group: str
    title: str
    source: str
    reading: str
    quantifiers: str
    hypotheses: tuple[str, ...]
    conclusion: str
    latex: str
    standing: Standing
    grounds: tuple[Ground, ...]
    checks: tuple[Check, ...]
    published: str | None = None
    example: Callable[[], Example] | None = None
    remark: str = ""
