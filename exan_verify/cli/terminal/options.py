"""Options that commands share, and the values they stand for."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import rich_click as click

from exan_verify.core.question import Box
from exan_verify.errors import InputError

_Command = TypeVar("_Command", bound=Callable[..., Any])

LOSSES = ("cross_entropy", "bce", "mse", "hinge")


class PathType(click.Path):
    """A path as it is typed; what the system takes for none is a usage error."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path."""
        try:
            return super().convert(value, param, ctx)
        except ValueError as error:
            self.fail(f"{value!r} is not a path ({error})", param, ctx)


PATH = PathType(path_type=str)

_LONG = 1000


def exact_number(text: str) -> Fraction:
    """A number read exactly as written: 0.01 is one hundredth, 1/3 one third.

    Raises :class:`ValueError`, also where it has thousands of digits: 1e300000000 written out fills the
    memory.
    """
    _, _, exponent = text.lower().partition("e")
    if len(text) > _LONG or (exponent and abs(int(exponent)) > _LONG):
        raise ValueError(f"more than {_LONG} digits")
    try:
        return Fraction(text)
    except ZeroDivisionError:
        raise ValueError("a denominator of zero") from None


class BoxType(click.ParamType[Box]):
    """``box:LO,HI``: every input between two numbers, read exactly as written (0.1 is one tenth)."""

    name = "box:LO,HI"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Box:
        """Parse the text; anything else is a usage error."""
        if isinstance(value, Box):
            return value
        kind, _, bounds = str(value).partition(":")
        try:
            low, high = (exact_number(text) for text in bounds.split(","))
        except ValueError:
            self.fail(f"{value!r} is not a domain; write box:LO,HI, for example box:0,1", param, ctx)
        if kind != "box":
            self.fail(f"{value!r} is not a domain; write box:LO,HI, for example box:0,1", param, ctx)
        try:
            return Box([low], [high])
        except InputError as error:
            self.fail(str(error), param, ctx)


def common(*, work_limit: bool = True, model: bool = True) -> Callable[[_Command], _Command]:
    """``--json --seed --budget --jobs``, ``--work-limit`` where work is counted, ``--weights`` with MODEL."""
    options = [
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text."),
        click.option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=0,
            show_default=True,
            help="Seed of all random choices.",
        ),
        click.option(
            "--budget",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Wall-clock limit.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(1, 1024),
            default=1,
            show_default=True,
            help="Parallel workers at most.",
        ),
    ]
    if model:
        options.append(
            click.option(
                "--weights",
                type=PATH,
                metavar="FILE.safetensors",
                help="State dict to load where MODEL is a factory package.module:name.",
            )
        )
    if work_limit:
        options.append(
            click.option(
                "--work-limit",
                type=click.IntRange(min=1),
                metavar="N",
                help="Limit in counted work instead of time: same limit, same verdict, everywhere.",
            )
        )
    return _all(options)


def question(*, labels: bool = True) -> Callable[[_Command], _Command]:
    """``--loss --reduction``, and ``--labels --domain`` where the question is asked exactly."""
    options = [
        click.option(
            "--loss",
            type=click.Choice(LOSSES),
            default="cross_entropy",
            show_default=True,
            help="Training loss.",
        ),
        click.option(
            "--reduction",
            type=click.Choice(["mean", "sum"]),
            default="mean",
            show_default=True,
            help="How the loss is reduced over the batch, as in torch.",
        ),
    ]
    if labels:
        options += [
            click.option(
                "--labels",
                type=click.Choice(["one_hot", "known", "real"]),
                default="one_hot",
                show_default=True,
                help="Labels that other batches may have: any classes, the given ones, any real targets.",
            ),
            click.option(
                "--domain",
                type=BoxType(),
                metavar="box:LO,HI",
                help="Inputs that other batches may have: all entries between two numbers; default any.",
            ),
        ]
    return _all(options)


def release() -> Callable[[_Command], _Command]:
    """``--release``: what of the gradient leaves the device."""
    return click.option(
        "--release",
        type=PATH,
        metavar="FILE.json",
        help="What of the gradient is sent (schema exan/release/1); default: all of it.",
    )


def _all(options: list[Callable[[Any], Any]]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
