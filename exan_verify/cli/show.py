"""``exan show``: what models are taken for, or why they cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH
from exan_verify.cli.terminal.output import ExitCode, Output, facts, noted, titled
from exan_verify.cli.terminal.pictures import INPUT_SHAPE, input_shape
from exan_verify.errors import ExanError, UnsupportedLayerError


@click.command("show")
@click.argument("models", type=PATH, nargs=-1, required=True, metavar="MODEL...")
@click.option("--weights", type=PATH, metavar="FILE", help="State dict for a factory, as .safetensors.")
@INPUT_SHAPE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def show_command(models: tuple[str, ...], weights: str | None, as_json: bool, **options: str | None) -> int:
    """Say what each MODEL is taken for: its architecture, its parameters, what was assumed or folded.

    MODEL is as for the other commands. Exit code 2: one of them could not be read; its reason is shown.
    """
    output = Output(json=as_json)
    shape = input_shape(options["input_shape"])
    found = []
    for path in models:
        with output.working(f"reading {path}"):
            found.append(_shown(path, weights, shape))
    read = sum(one["error"] is None for one in found)
    output.answer({"schema": "exan/show/1", "models": found, "read": read})
    for one in found:
        if one["error"] is None:
            output.say(titled(one["path"], f": {one['architecture']}"))
            rows = {name: "x".join(map(str, shape)) for name, shape in one["parameters"].items()}
            output.say(facts(rows), *noted(one["notes"]))
        else:
            output.say(titled("NOT READ", f": {one['error']}", "bold red"))
    if len(found) > 1:
        output.say(f"{read} of {len(found)} models read")
    return ExitCode.DONE if read == len(found) else ExitCode.USAGE


def _shown(path: str, weights: str | None, shape: tuple[int, ...] | None) -> dict[str, Any]:
    """The record of one model; ``shape`` (channels, height, width) is for those with convolutions."""
    from exan_verify.api.files import about, load_any_model

    record: dict[str, Any] = {
        "path": path,
        "architecture": None,
        "parameters": {},
        "notes": [],
        "error": None,
    }
    try:
        model = load_any_model(path, weights)
        with about(path):
            return record | _understood(model, shape)
    except ExanError as error:
        return record | {"error": str(error)}


def _understood(model: Any, shape: tuple[int, ...] | None) -> dict[str, Any]:
    """The exact network of a model, or what the attack alone takes it for, and why."""
    from exan_verify.api.attack import unwrapped, with_convolutions
    from exan_verify.core.network import ReluNetwork

    if isinstance(model, ReluNetwork):
        return _record(model, model.parameters(), model.notes)
    from exan_verify.models.chain import to_any_network
    from exan_verify.models.pictures.staged import has_convolutions, to_staged

    module, notes = unwrapped(model)
    try:
        exact = to_staged(model, shape) if has_convolutions(model) else to_any_network(model)
        return _record(exact, module.named_parameters(), exact.notes)
    except UnsupportedLayerError as error:
        if not with_convolutions(model):
            raise
        from exan_verify.models.pictures.graph import to_convolutional

        pictures = to_convolutional(model, shape)
        return _record(pictures, module.named_parameters(), (*notes, f"only attacked: {error}"))


def _record(network: Any, parameters: Any, notes: Sequence[str]) -> dict[str, Any]:
    return {
        "architecture": network.architecture,
        "parameters": {name: list(value.shape) for name, value in parameters},
        "notes": list(notes),
    }
