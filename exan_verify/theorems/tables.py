"""Tables of statements for a paper: Markdown and LaTeX (booktabs, longtable, amsmath).

The mathematics of a statement is not in the table: it stays in words, so that the table fits on a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from exan_verify.theorems.as_text import quantified, relied_on
from exan_verify.theorems.statement import Standing, Statement

READINGS = ("P1", "P2")
"""Groups of the published claims, whose readings make the table."""

HEADINGS = ("reading", "hypotheses", "conclusion", "over", "standing", "established by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One statement as cells of plain text."""

    name: str
    title: str
    hypotheses: tuple[str, ...]
    conclusion: str
    over: str
    standing: Standing
    by: str


def readings(statements: Iterable[Statement]) -> list[Statement]:
    """The statements that read the published claims P1 and P2."""
    return [statement for statement in statements if statement.group in READINGS]


def rows(statements: Iterable[Statement]) -> list[Row]:
    """One row for each statement."""
    return [
        Row(
            name=statement.name,
            title=statement.title,
            hypotheses=statement.hypotheses,
            conclusion=statement.conclusion,
            over=quantified(statement),
            standing=statement.standing,
            by=", ".join(dict.fromkeys(f"{g.method.value}: {g.where}" for g in relied_on(statement))),
        )
        for statement in statements
    ]


def markdown(statements: Sequence[Statement]) -> str:
    """A table in Markdown; every character that would end a cell or start markup is escaped."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    for row in rows(statements):
        named = f"{_markdown(row.title)} (`{row.name}`)"
        cells = [
            named,
            "; ".join(map(_markdown, row.hypotheses)),
            _markdown(row.conclusion),
            _markdown(row.over),
        ]
        cells += [f"**{row.standing.value}**", _markdown(row.by)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def latex(statements: Sequence[Statement], *, caption: str, standalone: bool = False) -> str:
    """A longtable; ``standalone`` wraps it in a document that compiles by itself."""
    widths = (0.17, 0.24, 0.16, 0.11, 0.09, 0.15)
    columns = "".join(f">{{\\raggedright\\arraybackslash}}p{{{width}\\linewidth}}" for width in widths)
    heading = " & ".join(_latex(h) for h in HEADINGS)
    lines = [
        "% Needs \\usepackage{booktabs,longtable,array}.",
        f"\\begin{{longtable}}{{@{{}}{columns}@{{}}}}",
        f"\\caption{{{_latex(caption)}}}\\\\",
        "\\toprule",
        f"{heading} \\\\",
        "\\midrule",
        "\\endhead",
        *(_latex_row(row) for row in rows(statements)),
        "\\bottomrule",
        "\\end{longtable}",
    ]
    body = "\n".join([*lines, ""])
    return _DOCUMENT.format(body=body) if standalone else body


def _latex_row(row: Row) -> str:
    cells = [
        f"{_latex(row.title)} (\\texttt{{{_latex(row.name)}}})",
        "; ".join(map(_latex, row.hypotheses)),
        _latex(row.conclusion),
        _latex(row.over),
        f"\\textbf{{{_latex(row.standing.value)}}}",
        _breakable(row.by),
    ]
    return f"{' & '.join(cells)} \\\\"


_DOCUMENT = """\\documentclass{{article}}
\\usepackage[utf8]{{inputenc}}
\\usepackage[T1]{{fontenc}}
\\usepackage{{textcomp,booktabs,longtable,array}}
\\usepackage[margin=2cm,landscape]{{geometry}}
\\begin{{document}}
{body}\\end{{document}}
"""

_SPECIAL = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "≥": "$\\geq$",
    "≤": "$\\leq$",
    "≠": "$\\neq$",
    "×": "$\\times$",
    "→": "$\\rightarrow$",
    "∞": "$\\infty$",
    "∈": "$\\in$",
    "√": "$\\surd$",
    "δ": "$\\delta$",
    "Δ": "$\\Delta$",
    "α": "$\\alpha$",
    "Σ": "$\\Sigma$",
    "σ": "$\\sigma$",
    "…": "\\ldots{}",
    "–": "--",
    "—": "---",
    "’": "'",
    "“": "``",
    "”": "''",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def _latex(text: str) -> str:
    """Escaped for LaTeX with T1 fonts; letters that it lacks are written by their Unicode number."""
    return "".join(_SPECIAL.get(c, c if ord(c) < 256 else f"U+{ord(c):04X}") for c in text)


def _breakable(text: str) -> str:
    """File and theorem names are long words: lines may break after a slash, a colon or an underscore."""
    escaped = _latex(text)
    for mark in ("/", ":", "\\_"):
        escaped = escaped.replace(mark, f"{mark}\\allowbreak{{}}")
    return escaped


def _markdown(text: str) -> str:
    plain = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\|`*_<>[]" else c for c in plain)


FORMATS: dict[str, Callable[[Sequence[Statement], str], str]] = {
    "markdown": lambda statements, _caption: markdown(statements),
    "latex": lambda statements, caption: latex(statements, caption=caption),
    "latex-document": lambda statements, caption: latex(statements, caption=caption, standalone=True),
}
"""What a table may be written as."""
