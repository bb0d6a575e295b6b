"""Export of a question as readable SMT-LIB 2: one file, or one per cube beside an index.

The text is what the solvers of this package are given in process, with comments added. A satisfiable file
means a second batch (or, without a known batch, a batch); ``unsat`` in every file of a folder, together with
its ``complete.smt2``, means that there is none. For cross_entropy and bce the constraints are an
over-approximation of which only ``unsat`` means anything; ``exact`` writes softmax and sigmoid with cvc5's
``exp`` instead.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from exan_verify.errors import FileError, InputError
from exan_verify.smt.cubes import Task, build, completeness, cube_tasks
from exan_verify.smt.exclude import Known
from exan_verify.smt.exponential import exact_script
from exan_verify.smt.portfolio import Outcome, Settings
from exan_verify.smt.question import Question
from exan_verify.smt.search import Search


def whole_question(
    question: Question, truth: Known | None, *, radius: Fraction = Fraction(0), exact: bool = False
) -> str:
    """The question in one file: is there a (second) batch?"""
    return _text(_whole(question, truth, radius), exact)


def cube_files(
    question: Question,
    truth: Known | None,
    *,
    radius: Fraction = Fraction(0),
    exact: bool = False,
    settings: Settings | None = None,
) -> Mapping[str, str]:
    """One text per cube, ``complete.smt2`` for the list of cubes, and ``index.txt``, by file name.

    Raises :class:`InputError` when the cubes cannot be listed within the settings' budget.
    """
    search, stopped = Search(question, settings or Settings()), Outcome()
    pages = list(search.pages(stopped))
    if stopped.stopped:
        raise InputError(f"{stopped.stopped}; export the question as one file, or give a larger budget")
    cubes = [bits for _, page in pages for bits in page]
    tasks = cube_tasks(_whole(question, truth, radius), cubes)
    files = {f"cube{t.index:05d}.smt2": _text(t, exact) for t in tasks}
    files["complete.smt2"] = completeness(question, cubes).text()
    lines = [question.title, "", f"{len(tasks)} cubes; complete.smt2 is unsat iff they hold every batch."]
    lines += [f"cube{t.index:05d}.smt2  {t.name}" for t in tasks]
    files["index.txt"] = "\n".join(lines) + "\n"
    return files


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts into a new or empty folder. Raises :class:`FileError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileError(f"{folder} is not empty; give a new folder")
        for name, text in files.items():
            write_text(folder / name, text)
    except OSError as error:
        raise FileError(f"cannot write to {folder}: {error}; choose another folder") from None


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it. Raises :class:`FileError`."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error}; choose another path") from None


def _whole(question: Question, truth: Known | None, radius: Fraction) -> Task:
    others = () if truth is None else (truth,)
    return Task(index=-1, question=question, others=others, radius=radius)


def _text(task: Task, exact: bool) -> str:
    return exact_script(task) if exact else build(task).text()
