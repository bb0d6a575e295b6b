"""The shape of the code in a few figures: ``python -m tests.measures [FOLDER]``.

Files and the fullest folder; private helpers that their file uses once, of all functions; functions over 40
lines, and the median; comment lines; docstrings of one line; public functions with array arguments or results
whose docstring states no shape. Reviews compare them before and after a change; no figure is a target.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "exan_verify"

_ARRAYS = re.compile(r"\b(Array|Tensor|Float|Residues|NDArray|ndarray|Bool|Int)\b")
# (M, d), (n_i, n_{i-1}), a shape string of jaxtyping: ["m d"], or that it is the argument's, or any
_SHAPE = re.compile(r"\([\w' +*|.~/{}-]+,[\w' +*|.,~/{}-]*\)|\[[\w', ]+\]|\b(?:same|any) shapes?\b")
_LONG = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function or method: its length in lines, its docstring, whether it is a private helper that its file
    uses once, and whether it takes or returns arrays in public and says their shape (None: it does not)."""

    lines: int
    docstring: str
    used_once: bool
    shape_stated: bool | None


def functions(text: str) -> Iterator[Function]:
    """Those of a module, nested ones too."""
    tree = ast.parse(text)
    used = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    used.update(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        private = node.name.startswith("_")
        docstring = ast.get_docstring(node) or ""
        signature = f"{ast.unparse(node.args)} -> {ast.unparse(node.returns) if node.returns else ''}"
        stated = docstring + signature.replace("dict[", "").replace("tuple[", "")
        arrays = not private and _ARRAYS.search(signature) is not None
        yield Function(
            lines=(node.end_lineno or node.lineno) - node.lineno + 1,
            docstring=docstring,
            used_once=private and not node.name.startswith("__") and used[node.name] == 1,
            shape_stated=_SHAPE.search(stated) is not None if arrays else None,
        )


def comments(text: str) -> int:
    """Lines that are a comment and nothing else."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.COMMENT and token.line.lstrip().startswith("#") for token in tokens)


def measures(root: Path) -> dict[str, str]:
    """The figures of the package at ``root``, each as it is printed."""
    files = sorted(root.rglob("*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    folders = Counter(file.parent for file in files if file.name != "__init__.py")
    written = sum(bool(line.strip()) for text in texts for line in text.splitlines())
    found = [function for text in texts for function in functions(text)]
    once, long = sum(f.used_once for f in found), sum(f.lines > _LONG for f in found)
    docstrings = [f.docstring.splitlines() for f in found if f.docstring]
    short = sum(len(docstring) == 1 for docstring in docstrings)
    arrays = [f for f in found if f.shape_stated is not None]
    return {
        "files": str(len(files)),
        "fullest folder": str(max(folders.values())),
        "lines that are not blank": str(written),
        "private helpers used once": f"{once} of {len(found)} functions, {once / len(found):.0%}",
        f"functions over {_LONG} lines": f"{long}, {long / len(found):.1%}",
        "median function": f"{statistics.median(f.lines for f in found):g} lines",
        "comment lines": f"{sum(map(comments, texts)) / written:.1%}",
        "docstrings of one line": f"{short / len(docstrings):.0%}",
        "array functions without a shape": f"{sum(not f.shape_stated for f in arrays)} of {len(arrays)}",
    }


def main() -> None:
    """Print the figures of the folder that is named, else of the package."""
    for name, value in measures(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE).items():
        print(f"{name:34}{value}")


if __name__ == "__main__":
    main()
