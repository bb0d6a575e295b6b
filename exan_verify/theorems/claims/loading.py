"""A user's own statements, from a Python file: its module-level claims and, if any, ``STATEMENTS``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from exan_verify.errors import FileError, UsersCode
from exan_verify.theorems.claims.claim import Claim, ClaimError
from exan_verify.theorems.statement import Statement

MODULE = "exan_own_statements"


def load_file(path: str | Path) -> Mapping[str, Claim | Statement]:
    """Every :class:`Claim` and :class:`Statement` that the file defines, by name, in its order.

    The file is run; imports from its own folder work. Claims may be module-level names or members of a
    module-level list or tuple.

    Raises :class:`FileError` when it cannot be read, :class:`ClaimError` when running it fails, when it
    defines nothing, or two things of one name.
    """
    found: dict[str, Claim | Statement] = {}
    for value in vars(_run(Path(path))).values():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if not isinstance(part, (Claim, Statement)) or found.get(part.name) is part:
                continue
            if part.name in found:
                raise ClaimError(f"{path}: two claims are called {part.name!r}; rename one")
            found[part.name] = part
    if not found:
        raise ClaimError(f"{path} defines no claim; add NAME = exan_verify.theorems.Claim(...) to it")
    return found


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileError(f"{path} is not a file; give a Python file with claims in it")
    spec = spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise FileError(f"{path} is not a Python file; its name must end with .py")
    module = module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses and pickling look their module up
    code = UsersCode(f"{path} cannot be run:", file=spec.origin or str(path), error=ClaimError)
    with code, _importing_from(path.resolve().parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Puts a folder on the path while a file of it runs."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the file may have changed the path
            sys.path.remove(str(folder))
