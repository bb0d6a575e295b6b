"""Recheck everything under proofs/bounded/: stored texts against their Python, solvers, computer algebra."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from exan_verify.smt.solvers.cache import write_text
from exan_verify.smt.solvers.run import UNKNOWN, Worker, available, worker
from exan_verify.theorems.bounded import (
    generic_counts,
    second_batches,
    three_samples,
    twins,
    two_equal_patterns,
    two_exclusive,
    two_samples,
)
from exan_verify.theorems.bounded.obligation import Obligation, second_opinion, settled
from exan_verify.theorems.support.counterexamples import (
    dead_at_a_point,
    one_input,
    single_point,
    zero_pre_activation,
)

Say = Callable[[str], None]


def all_obligations() -> tuple[Obligation, ...]:
    """Every obligation, in the order of the files' names."""
    found = [
        *two_samples.obligations(),
        *three_samples.obligations(),
        *two_equal_patterns.obligations(),
        *two_exclusive.obligations(),
        *second_batches.obligation_pair("s3-single-point", "S3", single_point()),
        *second_batches.obligation_pair("p2-zero-pre-activation", "P2", zero_pre_activation()),
        *second_batches.obligation_pair("p2-dead-at-a-point", "P2", dead_at_a_point()),
        *second_batches.obligation_pair("narrow-first-layer-alone", "narrow", one_input()),
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def write_all(folder: Path) -> None:
    """Write every obligation's file; files of obligations that are gone are removed."""
    kept = {f"{one.name}.smt2" for one in all_obligations()}
    for path in folder.glob("*.smt2"):
        if path.name not in kept:
            path.unlink()
    for one in all_obligations():
        write_text(folder / f"{one.name}.smt2", one.text)


def stale(folder: Path) -> list[str]:
    """How the files differ from what their Python generates: one line each."""
    wanted = {f"{one.name}.smt2": one.text for one in all_obligations()}
    stored = {path.name: path.read_text(encoding="ascii") for path in sorted(folder.glob("*.smt2"))}
    found = [
        f"{name}: missing; run proofs/bounded/check.py --write" for name in sorted(wanted.keys() - stored)
    ]
    found += [f"{name}: belongs to no obligation; remove it" for name in sorted(stored.keys() - wanted)]
    return found + [
        f"{name}: differs from what its Python generates; run proofs/bounded/check.py --write"
        for name in sorted(wanted.keys() & stored)
        if wanted[name] != stored[name]
    ]


def deviations(
    folder: Path, say: Say, *, names: tuple[str, ...] = (), opinion_seconds: float = 2
) -> list[str]:
    """Ask z3 about every stored text and cvc5 for a second opinion, and redo the computer algebra.

    ``names``: only these obligations (and then no computer algebra). Returns one line per deviation.
    """
    found = stale(folder)
    with worker() as opened:
        for one in all_obligations():
            path = folder / f"{one.name}.smt2"
            if path.is_file() and (not names or one.name in names):
                found += _deviation(opened, one, path.read_text(encoding="ascii"), say, opinion_seconds)
    return found if names else [*found, *_algebra(say)]


def tally(folder: Path, found: Sequence[str], *, names: tuple[str, ...] = ()) -> tuple[int, int]:
    """How many files there should be, and how many are there without one of the deviations in ``found``."""
    asked = [one.name for one in all_obligations() if not names or one.name in names]
    fine = [name for name in asked if (folder / f"{name}.smt2").is_file()]
    wrong = {line.split(":")[0].removesuffix(".smt2") for line in found}
    return len(asked), len([name for name in fine if name not in wrong])


def _deviation(opened: Worker, one: Obligation, text: str, say: Say, seconds: float) -> Iterator[str]:
    answer = settled(opened, text, one.tactic)
    other = second_opinion(opened, text, seconds).status if available("cvc5") else "not installed"
    said = {UNKNOWN: "undecided"}.get(other, other)
    say(f"{one.name}: {answer.status} ({answer.solver}); cvc5: {said}")
    if answer.status != one.expected:
        yield f"{one.name}: z3 says {answer.status}, expected {one.expected} {answer.reason}"
    if other in ("sat", "unsat") and other != one.expected:
        yield f"{one.name}: cvc5 says {other}, expected {one.expected}"


def _algebra(say: Say) -> Iterator[str]:
    for step in twins.steps():
        say(f"twins: {step.says}: {'confirmed' if step.holds else 'FAILS'}")
        if not step.holds:
            yield f"twins: sympy does not confirm {step.says}"
    for classes, logits in generic_counts.STATED:
        degrees = [generic_counts.settled(case) for case in generic_counts.cases(classes, logits)]
        name = f"generic counts {classes}, K = {logits}"
        say(f"{name}: {len(degrees)} label multisets, settled at degrees {sorted({d or 0 for d in degrees})}")
        if None in degrees:
            yield f"{name}: C4 does not settle every label multiset"
