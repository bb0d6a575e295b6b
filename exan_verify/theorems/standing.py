"""Whether a statement has the standing that its grounds and checks show, no more and no less."""

from __future__ import annotations

from collections.abc import Mapping

from exan_verify.theorems.statement import Check, Direction, Ground, Method, Standing, Statement

CARRIED_BY: Mapping[Standing, frozenset[Method]] = {
    Standing.PROVED: frozenset({Method.COQ, Method.WRITTEN}),
    Standing.BOUNDED: frozenset(Method) - {Method.MEASURED},
    Standing.REFUTED: frozenset(Method) - {Method.MEASURED},
}
"""A standing needs a ground by one of these methods. Sizes that were checked never prove all sizes."""

SHOWN_BY: Mapping[Standing, Direction] = {
    Standing.PROVED: Direction.SUPPORTS,
    Standing.BOUNDED: Direction.SUPPORTS,
    Standing.REFUTED: Direction.REFUTES,
}
"""What a statement of this standing has a check for."""

OPPOSITE = {Direction.SUPPORTS: Direction.REFUTES, Direction.REFUTES: Direction.SUPPORTS}


def objections_to(statement: Statement) -> tuple[str, ...]:
    """What speaks against the standing before anything runs: what it lacks, and what shows another one."""
    found = [*_of_grounds(statement), *_of_checks(statement.checks, statement.standing)]
    if statement.standing is Standing.REFUTED and statement.example is None:
        found.append("'refuted' needs a counterexample")
    return tuple(found)


def shown(ground: Ground) -> Standing | None:
    """The standing that a ground gives by itself; None when it settles nothing."""
    if ground.direction is Direction.REFUTES:
        return Standing.REFUTED if ground.method in CARRIED_BY[Standing.REFUTED] else None
    if ground.direction is Direction.NEITHER or ground.method not in CARRIED_BY[Standing.BOUNDED]:
        return None
    whole = ground.method in CARRIED_BY[Standing.PROVED] and not ground.bounded
    return Standing.PROVED if whole else Standing.BOUNDED


def _of_grounds(statement: Statement) -> list[str]:
    """The grounds must show the standing; a proof shows what holds at stated sizes as well."""
    standing, seen = statement.standing, {shown(ground) for ground in statement.grounds} - {None}
    found = []
    if standing is not Standing.OPEN and standing not in seen:
        methods = ", ".join(sorted(method.value for method in CARRIED_BY[standing]))
        verb = "refutes" if standing is Standing.REFUTED else "supports"
        found.append(f"{standing.value!r} needs a ground that {verb} it, by one of: {methods}")
    admitted = {standing, Standing.BOUNDED} if standing is Standing.PROVED else {standing}
    found += [
        f"a ground shows {other.value!r}, not {standing.value!r}"
        for other in Standing
        if other in seen - admitted
    ]
    return found


def _of_checks(checks: tuple[Check, ...], standing: Standing) -> list[str]:
    """A check that shows the standing, and none that shows the opposite."""
    wanted = SHOWN_BY.get(standing)
    if not checks:
        return ["it has no check"]
    found = []
    if wanted is not None and wanted not in {check.direction for check in checks}:
        found.append(f"{standing.value!r} needs a check that {wanted.value} it")
    wrong = Direction.REFUTES if wanted is None else OPPOSITE[wanted]
    found += [
        f"the check {c.name!r} {wrong.value} a statement that is {standing.value!r}"
        for c in checks
        if c.direction is wrong
    ]
    return found
