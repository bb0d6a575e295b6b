"""Write the table of all statements into proofs/README.md, between its two markers.

python proofs/table.py            rewrite it
python proofs/table.py --check    exit 1 when it is not what the registry says
"""

from __future__ import annotations

import sys
from pathlib import Path

from exan_verify.theorems.registry import registry
from exan_verify.theorems.statement import Direction, Method, Standing, Statement

README = Path(__file__).parent / "README.md"
START, END = "<!-- table: python proofs/table.py -->", "<!-- end of the table -->"

TRUSTED = {
    Method.COQ: "Coq's kernel and the definitions",
    Method.SOLVER: "z3 (cvc5 where it decides)",
    Method.SYMBOLIC: "python-flint, sympy",
    Method.KERNEL: "the project's kernel",
    Method.WRITTEN: "a reader of docs/theory.md",
}
"""Who has to be trusted for a ground; what neither supports nor refutes is left out."""


def table() -> str:
    """The markers with one line per statement between them."""
    lines = [START, "", "| statement | | verdict | rests on | trusted |", "|---|---|---|---|---|"]
    lines += [_line(statement) for statement in registry().values()]
    return "\n".join([*lines, "", END])


def _line(statement: Statement) -> str:
    grounds = [g for g in statement.grounds if g.direction is not Direction.NEITHER]
    rests = "; ".join(_where(ground.method, ground.where) for ground in grounds) or "numbers only"
    trusted = "; ".join(dict.fromkeys(TRUSTED[ground.method] for ground in grounds)) or "-"
    verdict = {Standing.REFUTED: "**refuted**", Standing.OPEN: "*open*"}.get(
        statement.standing, statement.standing.value
    )
    return f"| `{statement.name}` | {statement.title} | {verdict} | {rests} | {trusted} |"


def _where(method: Method, where: str) -> str:
    if method is Method.COQ:
        file, names = where.split(": ")
        return ", ".join(f"`{name}`" for name in names.split(", ")) + f" ({file})"
    if where.endswith(": its example"):
        return "its exact counterexample"
    return where.replace("docs/theory.md ", "theory ").replace("|", "\\|")


def main() -> int:
    """Rewrite or check the table; 0 when all is well."""
    text = README.read_text()
    head, rest = text.split(START)
    wanted = head + table() + rest.split(END)[1]
    if "--check" in sys.argv[1:]:
        return int(text != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
