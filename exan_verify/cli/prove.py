"""``exan prove``: a certificate's claim as a theorem for Coq, and coqc's answer."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common
from exan_verify.cli.terminal.output import ExitCode, Output, require_folder, titled, wall_clock
from exan_verify.core.budget import Budget


@click.command("prove")
@click.argument("certificate", type=PATH)
@click.argument("model", type=PATH)
@click.option("--batch", type=PATH, metavar="FILE", required=True, help="The batch it was made for.")
@click.option("--out", type=PATH, metavar="FILE.v", required=True, help="Write the Coq file here.")
@click.option("--run", is_flag=True, help="Compile it with coqc, and say what the theorem rests on.")
@common(work_limit=False)
def prove_command(
    certificate: str, model: str, batch: str, out: str, run: bool, as_json: bool, **options: object
) -> int:
    """Write the claim of CERTIFICATE as a theorem that Coq checks by itself.

    The theorem is about the numbers of MODEL and of the batch, and holds for every real batch. What no file
    can be made of yet is refused with its reason. Exit code 1: the certificate or the file is rejected.
    """
    if not out.endswith(".v") or not Path(out).stem.isidentifier():
        raise click.UsageError(f"--out {out}: coqc takes files whose names are identifiers and end in .v")
    require_folder(out)
    limit = Budget(seconds=_seconds(options["budget"]))
    output = Output(json=as_json)
    from exan_verify.api.files import ABOUT_DATA, about, load_batch, load_model, write_atomically
    from exan_verify.api.prove import prove
    from exan_verify.coq.compiling import LIBRARY, compiled
    from exan_verify.coq.document import hypotheses
    from exan_verify.errors import FileError

    network, arrays = load_model(model, _text(options["weights"])), load_batch(batch)
    try:
        content = Path(certificate).read_bytes()
    except OSError as error:
        raise FileError(f"{certificate}: cannot be read ({error.strerror}); check the path") from None
    with output.working("writing the Coq file"), about(batch, *ABOUT_DATA), wall_clock(limit.seconds):
        text = prove(content, network, batch=arrays)
    write_atomically(out, text.encode())
    output.say(f"written to {out}; check it with: coqc -Q {LIBRARY} Exan {out}")
    axioms: tuple[str, ...] | None = None
    if run:
        with output.working("compiling"):
            axioms = compiled(Path(out), limit=limit)
        output.say(titled("PROVED", f": coqc accepts {out}", "bold green"))
        output.say(
            "the theorem rests on Coq's machine integers and arrays and nothing else: " + ", ".join(axioms)
        )
        for hypothesis in hypotheses(text):
            output.say(f"its statement has a hypothesis beside the data: {hypothesis}")
    output.answer(
        {
            "schema": "exan/prove/1",
            "path": out,
            "accepted": True if run else None,
            "axioms": axioms,
            "hypotheses": hypotheses(text),
        }
    )
    return ExitCode.DONE


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
