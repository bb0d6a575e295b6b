"""A question with a tolerance: lifting with bounds first, then, for small networks, SMT solvers."""

from __future__ import annotations

from dataclasses import replace

from exan_verify.core.budget import Budget
from exan_verify.core.network import Gradient
from exan_verify.core.verdict import Outcome, Verdict
from exan_verify.decide.context import Setting
from exan_verify.decide.solvers import ask_smt
from exan_verify.decide.tolerance import engine

_OURS = ("auto", "exact", "lifting")


def within_tolerance(setting: Setting, gradient: Gradient, limits: Budget) -> Verdict:
    """Which batches have a gradient within the question's tolerance of ``gradient``, up to a radius that is
    proved.

    The solvers are asked when the bounds do not suffice, the loss is mse or hinge, the batch size is said
    and the network is small (or ``engine="smt"``).
    """
    verdict, batch_size = None, setting.question.batch_size
    if setting.engine in _OURS:
        verdict = engine.decide(setting, gradient, limits)
        if verdict.outcome is not Outcome.UNKNOWN:
            return verdict
    unasked = _unasked(setting)
    if unasked is not None:
        if verdict is not None:
            return verdict
        return Verdict(
            outcome=Outcome.UNKNOWN,
            samples=(),
            reason=f"engine={setting.engine!r} does not decide questions with a tolerance here: {unasked}",
            batch_size=batch_size or 0,
            tolerant=True,
        )
    asked = ask_smt.ask_about_tolerance(setting, gradient, limits)
    if verdict is None:
        return asked
    attempts = verdict.attempts + asked.attempts
    if asked.outcome is Outcome.UNKNOWN:
        return replace(verdict, reason=f"{verdict.reason}; SMT: {asked.reason}", attempts=attempts)
    return replace(asked, attempts=attempts)


def _unasked(setting: Setting) -> str | None:
    """Why the solvers are not asked, or None."""
    batch_size = setting.question.batch_size
    if setting.engine not in ("auto", "smt"):
        return "lifting does, and the solvers for small networks (engine='lifting', 'smt' or 'auto')"
    if not setting.question.loss.rational:
        return "solvers take mse and hinge only"
    if batch_size is None:
        return "solvers need batch_size="
    if setting.engine == "auto" and not ask_smt.is_small(setting, batch_size):
        return "solvers are asked about small networks only"
    return None
