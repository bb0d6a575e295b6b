"""All mutants of a module: one change of its syntax tree each, in the order of the source.

Left out is what no verdict depends on: arguments of decorators, type annotations, values of Enum members, and
the texts of errors and of checks.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult}


@dataclass(frozen=True)
class Mutant:
    """``key`` names the change and survives edits elsewhere; ``original`` is the module's source."""

    module: str
    key: str
    line: int
    original: str
    index: int
    what: str

    @property
    def source(self) -> str:
        """The changed module."""
        tree = ast.parse(self.original)
        _apply(next(islice(ast.walk(tree), self.index, None)), self.what)
        return ast.unparse(tree)


def mutants(module: str, source: str) -> list[Mutant]:
    """Every mutant of ``source``; ``module`` is its path, for the keys."""
    tree = ast.parse(source)
    names, silent = _functions(tree), _silent(tree)
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for index, node in enumerate(ast.walk(tree)):
        for what in _changes(node):
            before = " ".join(ast.unparse(node).split())
            key = f"{module}::{names[id(node)]}::{what}::{before[:90]}"
            seen[key] = seen.get(key, 0) + 1
            if id(node) in silent:
                continue
            suffix = f"#{seen[key]}" if seen[key] > 1 else ""
            line = getattr(node, "lineno", 0)
            found.append(Mutant(module, key + suffix, line, source, index, what))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.key))


def _functions(tree: ast.Module) -> dict[int, str]:
    names: dict[int, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        names[id(node)] = name
        for child in ast.iter_child_nodes(node):
            visit(child, name)

    visit(tree, "module")
    return names


def _silent(tree: ast.Module) -> set[int]:
    """Ids of the nodes that no verdict depends on."""
    return {id(node) for root in _silent_roots(tree) for node in ast.walk(root)}


def _silent_roots(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef():
                yield from node.decorator_list
                yield from filter(None, [node.returns])
            case ast.ClassDef():
                yield from node.decorator_list
                if any(isinstance(base, ast.Name) and base.id.endswith("Enum") for base in node.bases):
                    yield from node.body
            case ast.arg(annotation=ast.expr() as annotation) | ast.AnnAssign(annotation=annotation):
                yield annotation
            case ast.Raise(exc=ast.expr() as error):
                yield error
            case ast.Call() if _checks(node):
                yield from node.args[1:]
            case _:
                pass


def _changes(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield "comparison"
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_text(node):
        yield "arithmetic"
    elif isinstance(node, ast.BoolOp):
        yield "and-or"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "no-not"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "no-minus"
    elif isinstance(node, ast.If) and any(isinstance(part, ast.Raise) for part in node.body):
        yield "never-raise"
    elif isinstance(node, ast.Call) and _checks(node):
        yield "no-check"
    elif isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= 3:
        yield "constant"
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield "boolean"


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(part, ast.JoinedStr | ast.Constant) and not _number(part)
        for part in (node.left, node.right)
    )


def _number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _checks(node: ast.Call) -> bool:
    """A call of the kernel's ``demand(condition, message)`` and the like."""
    return (
        isinstance(node.func, ast.Name)
        and node.func.id in ("demand", "require", "reject_unless")
        and bool(node.args)
    )


def _apply(node: ast.AST, what: str) -> None:
    match node, what:
        case ast.Compare(), "comparison":
            node.ops = [COMPARISONS[type(node.ops[0])]()]
        case ast.BinOp(), "arithmetic":
            node.op = ARITHMETIC[type(node.op)]()
        case ast.BoolOp(), "and-or":
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.UnaryOp(), "no-not":
            node.op, node.operand = ast.Not(), ast.UnaryOp(op=ast.Not(), operand=node.operand)
        case ast.UnaryOp(), "no-minus":
            node.op = ast.UAdd()
        case ast.If(), "never-raise":
            node.test = ast.Constant(value=False)
        case ast.Call(), "no-check":
            node.args[0] = ast.Constant(value=True)
        case ast.Constant(), "constant":
            node.value = node.value + 1 if isinstance(node.value, int) else node.value
        case ast.Constant(), "boolean":
            node.value = not node.value
        case _:
            raise ValueError(f"{what} does not apply to {ast.dump(node)}")
