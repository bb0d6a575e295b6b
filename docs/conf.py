"""The site: these pages, and references that are made of the commands and of the public names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

import exan_verify
from exan_verify.cli.program import COMMANDS, EPILOG
from exan_verify.cli.terminal.examples import EXAMPLES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "exan-verify"
author = copyright = "The exan-verify authors"
release = version = exan_verify.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"exan-verify {release}"
templates_path: list[str] = []
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
highlight_language = "none"
smartquotes = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"

GENERATED = Path(__file__).parent / "generated"


def commands_page() -> str:
    """Every command: its help, its options and its examples, as Markdown."""
    parts = [f"# Commands\n\nWhat `exan COMMAND --help` prints.\n\n{EPILOG}\n"]
    for command in COMMANDS:
        context = click.Context(command, info_name=f"exan {command.name}")
        parts.append(f"## exan {command.name}\n\n{_paragraphs(command.help or '')}\n")
        parts.append(f"```\n{command.get_usage(context).removeprefix('Usage: ').strip()}\n```\n")
        parts += _options(command, context)
        assert command.name is not None
        lines = "\n".join(EXAMPLES.get(command.name, ()))
        parts.append(f"```console\n{lines}\n```\n")
    return "\n".join(parts)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    yield "| option | meaning |\n|---|---|"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or not isinstance(parameter, click.Option):
            continue
        named, meaning = (" ".join(text.split()) for text in record)
        if isinstance(parameter.type, click.Choice):
            # a column of alternatives without a space would leave none for what they mean
            named = named.partition("[")[0].strip()
            meaning += f" One of {', '.join(f'`{choice}`' for choice in parameter.type.choices)}."
        if isinstance(parameter.type, click.IntRange):
            named, meaning = named.replace("INTEGER RANGE", "N"), re.sub(r"; 0<=x<=\d{19}\]", "]", meaning)
        cells = (cell.replace("|", "\\|") for cell in (named, meaning))
        yield "| `{}` | {} |".format(*cells)
    yield ""


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


def api_page() -> str:
    """The public names, with what their docstrings say."""
    parts = ["# Python\n\nWhat `exan_verify` exports. Options of the same name mean the same everywhere.\n"]
    for heading, names, directive in (
        ("Functions", [n for n in exan_verify.__all__ if n[0].islower()], "autofunction"),
        ("Records", [n for n in exan_verify.__all__ if n[0].isupper()], "autoclass"),
    ):
        parts.append(f"## {heading}\n")
        for name in names:
            members = "\n   :members:\n   :undoc-members:" if directive == "autoclass" else ""
            parts.append(f"```{{eval-rst}}\n.. {directive}:: exan_verify.{name}{members}\n```\n")
    parts.append(
        "## Errors\n\n```{eval-rst}\n.. automodule:: exan_verify.errors\n   :members:\n   "
        ":exclude-members: UsersCode\n```\n"
    )
    return "\n".join(parts)


def generate(_app: Sphinx) -> None:
    """Write the generated pages where they have changed."""
    GENERATED.mkdir(exist_ok=True)
    for name, text in (("commands.md", commands_page()), ("python.md", api_page())):
        path = GENERATED / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", generate)
