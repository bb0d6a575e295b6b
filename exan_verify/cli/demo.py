"""``exan demo``: the main job on real input, with no arguments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.options import PATH, common
from exan_verify.cli.output import REAL_ARITHMETIC, ExitCode, Output, facts, titled, wall_clock

if TYPE_CHECKING:
    from exan_verify.cli.demo_run import Case


@click.command("demo")
@click.option(
    "--out", type=PATH, default="demo-report", show_default=True, metavar="DIR", help="Output folder."
)
@common(model=False)
def demo_command(out: str, as_json: bool, **options: Any) -> int:
    """Attack, audit and certify a batch of 16 real handwritten digits, and write a report.

    The gradients come from one ordinary autograd call on a 784-512-10 network: once trained on the digits,
    once freshly initialised. Everything is written into DIR, for you to try the other commands on.
    """
    from exan_verify.cli.demo_run import commands, run_demo

    output = Output(json=as_json)
    with output.working("demo") as progress, wall_clock(options["budget"]):
        cases, report = run_demo(
            Path(out), seed=options["seed"], work_limit=options["work_limit"], progress=progress
        )
    output.answer(
        {
            "schema": "exan/demo/1",
            "networks": [case_record(case) for case in cases],
            "report": str(report),
            "statement": REAL_ARITHMETIC,
        }
    )
    for case in cases:
        output.say(titled(case.title), facts(case_facts(case)), "")
    output.say("Try the other commands on the files in " + out + ":")
    output.say(*(f"  {line}" for line in commands(Path(out)).values()))
    output.say("", REAL_ARITHMETIC, titled("Report:", f" {report}"))
    undecided = any(case.audit.verdict.outcome.value == "unknown" for case in cases)
    return ExitCode.UNDECIDED if undecided else ExitCode.DONE


def case_facts(case: Case) -> dict[str, str]:
    """What was found with one network, a line each."""
    audit, found, size = case.audit, case.found, case.audit.size
    recovered = [r for r in case.recoveries if r is not None]
    right = sum(r.label == int(y) for r, y in zip(case.recoveries, case.y, strict=True) if r is not None)
    worst = f", worst RMSE {max(r.rmse for r in recovered):.1e}" if recovered else ""
    exclusivity = "not known: the budget ran out"
    if (state := audit.exclusivity) is not None:
        exclusive = sum(any(layer[m] for layer in state.counts) for m in range(size))
        published = "holds" if state.published else "does not hold"
        exclusivity = (
            f"{exclusive} of {size} images have an exclusive neuron; {sum(state.peelable)} can be "
            f"peeled; the published condition {published}"
        )
    accepted = "accepted by the independent kernel" if case.claim is not None else "none"
    verdict = audit.verdict
    return {
        "attack": f"{len(recovered)} of {size} images and {right} labels rebuilt from the gradient alone"
        f"{worst}, {found.seconds:.1f} s",
        "exclusivity": exclusivity,
        "certified": f"{verdict.outcome.value.upper()}, {verdict.determined} of {size} images determined, "
        f"{case.seconds['audit']:.1f} s",
        "reason": verdict.reason,
        "certificate": f"{accepted}, {case.seconds['check']:.1f} s",
        "files": str(case.folder),
    }


def case_record(case: Case) -> dict[str, Any]:
    """One network's results for ``--json``; certificates are in the files."""
    from exan_verify.cli.attack import attack_record

    audit = case.audit.to_record()
    audit["verdict"].pop("certificate")
    return {
        "name": case.name,
        "folder": str(case.folder),
        "attack": attack_record(case.found, None),
        "rmse": [None if r is None else r.rmse for r in case.recoveries],
        "audit": audit,
        "certificate_accepted": case.claim is not None,
        "seconds": case.seconds,
    }
