"""Export of a question as readable SMT-LIB 2: one file, or one per cube beside an index.

The text is what the solvers of this package are given in process, with comments added. Every file says at its
head what ``sat`` and ``unsat`` mean: for cross_entropy and bce the constraints are an over-approximation of
which only ``unsat`` means anything, unless ``exact`` writes softmax and sigmoid with cvc5's ``exp``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

from exan_verify.core.budget import until
from exan_verify.errors import FileError, InputError
from exan_verify.smt.cubes import Task, build, completeness, cube_tasks
from exan_verify.smt.exponential import exact_script
from exan_verify.smt.narrower import Narrower
from exan_verify.smt.portfolio import Outcome, Settings
from exan_verify.smt.question.difference import Known
from exan_verify.smt.question.posed import Posed
from exan_verify.smt.search import Search
from exan_verify.smt.size import amount
from exan_verify.smt.solvers.cache import write_text

LARGE = 50_000_000
"""Bytes beyond which nothing is written unless that is insisted on."""


def whole_question(
    posed: Posed,
    truth: Known | None,
    *,
    radius: Fraction = Fraction(0),
    exact: bool = False,
    narrower: Narrower | None = None,
) -> str:
    """The question in one file: is there a (second) batch? Or a ``narrower`` one, about a known batch."""
    task = _whole(posed, truth, radius)
    if narrower is None:
        return _text(task, exact)
    assert truth is not None
    script, _ = narrower.constraints(task)
    text = exact_script(task, script) if exact else script.text()
    return _headed(text, _narrow_meaning(narrower, task, exact))


def _narrow_meaning(narrower: Narrower, task: Task, exact: bool) -> str:
    some, none = narrower.meaning()
    if task.posed.question.loss.rational:
        return f"sat: {some}; its inputs are a model's x.\nunsat: {none}."
    if exact:
        return f"sat: {some}, as far as the solver's exp is to be trusted.\nunsat: {none}."
    return (
        "sat: means NOTHING, since the constraints admit more than the batches: probabilities are unknowns\n"
        f"of which only some properties are stated (--exp writes the functions themselves).\nunsat: {none}."
    )


def cube_files(
    posed: Posed,
    truth: Known | None,
    *,
    radius: Fraction = Fraction(0),
    exact: bool = False,
    settings: Settings | None = None,
    largest: int | None = None,
) -> Iterator[tuple[str, str]]:
    """``(file name, text)`` of every cube, of ``complete.smt2`` for the list of cubes, and of ``index.txt``.

    Raises :class:`InputError` when the cubes cannot be listed within the settings' budget, or before the
    first of them where they have more than ``largest`` bytes together.
    """
    settings = settings or Settings()
    search, stopped = Search(posed, settings), Outcome()
    with until(settings.deadline):
        pages = list(search.pages(stopped))
    if stopped.stopped:
        raise InputError(f"{stopped.stopped}; export the question as one file, or give a larger budget")
    cubes = [bits for _, page in pages for bits in page]
    tasks = cube_tasks(_whole(posed, truth, radius), cubes)
    for task in tasks:
        text = _text(task, exact)
        if largest is not None and task is tasks[0]:
            require_wanted(len(text) * len(tasks), f"the {len(tasks)} files", largest)
        yield f"cube{task.index:05d}.smt2", text
    complete = completeness(posed, cubes)
    complete.title += "\nsat: a pattern of the linear over-approximation is in no listed cube."
    yield "complete.smt2", complete.text()
    lines = [posed.title, "", meaning(_whole(posed, truth, radius), exact), ""]
    lines += [
        f"{len(tasks)} cubes. There is no such batch if all of them and complete.smt2 are unsat: "
        "complete.smt2 is unsat iff the cubes hold every batch."
    ]
    lines += [f"cube{t.index:05d}.smt2  {t.name}" for t in tasks]
    yield "index.txt", "\n".join(lines) + "\n"


def require_wanted(size: int, what: str, largest: int = LARGE) -> None:
    """Raise :class:`InputError` when ``what`` would have more than ``largest`` bytes."""
    if size > largest:
        raise InputError(
            f"{what} would have about {amount(size)} bytes, more than {amount(largest)} (and writing them "
            "takes ten times as much memory); give --force to write all the same, or ask about fewer samples "
            "or a smaller network"
        )


def meaning(task: Task, exact: bool) -> str:
    """What a solver's answer says about the question, in lines."""
    posed = task.posed
    tolerance = posed.question.tolerance
    within = f" within {tolerance} in every entry" if tolerance is not None else ""
    where = " in this cube" if task.fixed else ""
    other = "another batch" if task.others else "a batch"
    if task.radius:
        other += f", further than {task.radius} from the known one,"
    none = f"unsat: there is no such batch{where}"
    if task.others:
        none += " beside the known one" if not task.radius else ""
    if posed.question.loss.rational:
        return (
            f"sat: there is {other} with this gradient{within}{where}; its inputs are a model's x.\n{none}."
        )
    functions = "softmax" if posed.question.loss.value == "cross_entropy" else "sigmoid"
    if exact:
        return (
            f"sat: there is {other} with this gradient{within}{where}, as far as the solver's exp is to be "
            f"trusted.\n{none}."
        )
    return (
        "sat: means NOTHING, since the constraints admit more than the batches: probabilities are unknowns "
        f"of which\nonly some properties of the {functions} are stated (--exp writes the {functions} itself)."
        f"\n{none}: every batch satisfies these constraints."
    )


def write_files(folder: Path, files: Mapping[str, str] | Iterator[tuple[str, str]]) -> list[str]:
    """Write texts into a new or empty folder, all of them or none; their names. Raises :class:`FileError`."""
    temporary = None
    try:
        if folder.exists() and any(folder.iterdir()):
            raise FileError(f"{folder} is not empty; give a new folder")
        temporary = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
        names = []
        for name, text in files.items() if isinstance(files, Mapping) else files:
            write_text(temporary / name, text)
            names.append(name)
        temporary.chmod(0o755)
        temporary.replace(folder)
    except OSError as error:
        raise FileError(f"cannot write to {folder}: {error}; choose another folder") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return names


def _whole(posed: Posed, truth: Known | None, radius: Fraction) -> Task:
    others = () if truth is None else (truth,)
    return Task(index=-1, posed=posed, others=others, radius=radius)


def _text(task: Task, exact: bool) -> str:
    text = exact_script(task) if exact else build(task).text()
    return _headed(text, meaning(task, exact))


def _headed(text: str, meaning: str) -> str:
    title, logic, rest = text.partition("(set-logic")
    says = "".join(f"; {line}\n" for line in meaning.splitlines())
    return title + says + logic + rest
