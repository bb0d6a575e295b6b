"""What a statement about the security boundary is: text, hypotheses, verdict, proofs, and checks that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from exan_verify.core.network import Batch, Network, ReluNetwork
from exan_verify.core.question import Question
from exan_verify.core.verdict import Outcome
from exan_verify.errors import InputError


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


class Direction(StrEnum):
    """What a ground or a check shows of its statement when it is right."""

    SUPPORTS = "supports"
    REFUTES = "refutes"
    NEITHER = "neither"
    """It says something beside the statement: how small a counterexample can be, or numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """One thing that a statement's standing rests on. ``says``: exactly what it establishes.

    ``bounded``: it supports the statement at stated sizes only, or is a step of an argument that does.
    Solvers, computer algebra and certificates never do more, whatever is said here.
    """

    method: Method
    where: str
    says: str
    direction: Direction = Direction.SUPPORTS
    bounded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An exact network and batch at which something is to be seen, as small as is known.

    ``second``: another batch with the same gradient. ``outcome``: the verdict that the kernel confirms
    with a certificate when the example is replayed; None when no engine certifies it, ``note`` says why.
    ``shown``: recomputes what else is to be seen at the example (hypotheses, ranks, a solver's answer).
    """

    network: Network
    batch: Batch
    question: Question
    note: str
    second: Batch | None = None
    outcome: Outcome | None = None
    shown: Callable[[Example], Result] | None = None

    @property
    def relu(self) -> ReluNetwork:
        """The network, for what is said of ReLU alone. Raises :class:`InputError` where it is another."""
        if not isinstance(self.network, ReluNetwork):
            raise InputError("the example has another activation than ReLU; give one with ReLU")
        return self.network


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """A counterexample that is no batch. ``lines``: Python to retype; the last one is true.

    ``shown``: recomputes what is to be seen at it.
    """

    lines: tuple[str, ...]
    note: str
    shown: Callable[[], Result]


Progress = Callable[[str, int, int], None]
"""Told ``(what, done, total)`` as a check goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a check found: ``holds`` is whether it came out as the check's direction says."""

    holds: bool
    detail: str
    example: Example | None = None
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A packaged check. ``run(progress, seed)`` takes at most about ten seconds on one core.

    ``what`` says what is compared with what. The result must come from a computation that would give
    ``holds=False`` if the statement's conclusion (or, for a refuted one, its negation) were wrong there.
    ``direction``: what it shows of the statement when it holds; it must agree with the standing.
    """

    name: str
    what: str
    run: Callable[[Progress, int], Result]
    direction: Direction = Direction.SUPPORTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A claim, its source, and what is known of it.

    ``name``: short, lower case, unique (``p1-published``). ``group``: the theory's label (``P1``, ``C1``).
    ``published``: what the paper's abstract or algorithm says, in our words, when the statement reads it.
    ``reading``: what we took that to mean, or the statement in words. ``hypotheses`` and ``conclusion``:
    one sentence each. ``latex``: the whole statement in mathematics. ``quantifiers``: over what it is
    claimed (``all depths, widths, M``). ``example``: the smallest known counterexample of a refuted
    statement, or an instance of a proved one. ``smallest``: why no counterexample is smaller, or what is
    known of smaller ones. ``remark``: what a reader should not take from it.
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
    example: Callable[[], Example | Exhibit] | None = None
    smallest: str = ""
    remark: str = ""
