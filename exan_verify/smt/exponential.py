"""Softmax and sigmoid written with ``exp``, for solvers of QF_NRAT (cvc5): equivalent, not approximate.

The unknown probabilities and those of the known batch are tied to their logits by ``exp``; everything else
is the encoding of :mod:`exan_verify.smt.question.encode`.
"""

from __future__ import annotations

from exan_verify.core.question import Loss
from exan_verify.smt.cubes import Task, build
from exan_verify.smt.linearise import pairs
from exan_verify.smt.question.encode import encode
from exan_verify.smt.question.refine import Pair, odds
from exan_verify.smt.question.terms import Poly, Script, show_poly


def exact_script(task: Task, script: Script | None = None) -> str:
    """SMT-LIB text of a task, or of other constraints about its samples, with ``exp``; for rational losses
    the same as without.
    """
    script = build(task) if script is None else script
    text = script.text()
    if task.posed.question.loss.rational:
        return text
    lines = text.replace("(set-logic QF_NRA)", "(set-logic QF_NRAT)").splitlines()
    declared = {line.split()[1] for line in lines if line.startswith("(declare-fun")}
    extra = ["; softmax and sigmoid: the odds of two probabilities are exp of the difference of logits"]
    samples = encode(task.posed, task.assignment).samples
    for pair in [*_adjacent(task), *_known(task)]:
        a, b, t = odds(task.posed, samples, pair)
        missing = sorted((a.variables() | b.variables() | t.variables()) - declared)
        extra += [f"(declare-fun {name} () Real)" for name in missing]
        declared |= set(missing)
        extra.append(f"(assert (= {show_poly(a)} (* {show_poly(b)} {_exp(t)})))")
    return "\n".join([*lines[:-1], *extra, lines[-1], ""])


def _exp(t: Poly) -> str:
    return f"(exp {show_poly(t)})"


def _adjacent(task: Task) -> list[Pair]:
    """The pairs that tie all probabilities of a sample: neighbouring classes."""
    return [p for p in pairs(task) if p[2] in (-1, p[1] + 1)]


def _known(task: Task) -> list[Pair]:
    posed = task.posed
    classes = range(posed.network.classes)
    found: list[Pair] = []
    for n in range(len(posed.target.reference)):
        m = posed.size + n
        if posed.question.loss is Loss.BCE:
            found += [(m, k, -1) for k in classes]
        else:
            found += [(m, k, k + 1) for k in classes[:-1]]
    return found
