"""``exan campaign``: the project's own laws, for as long as one likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from exan_verify.cli.terminal.options import PATH, common
from exan_verify.cli.terminal.output import ExitCode, Output, table
from exan_verify.errors import InputError

if TYPE_CHECKING:
    from exan_verify.testing.campaign import Campaign


@click.command("campaign")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long to try.")
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    metavar="N",
    help="End once every law was tried on N cases, in twenties.",
)
@click.option("--laws", metavar="NAME,...", default="", help="These laws only, of those that --list names.")
@click.option("--list", "listing", is_flag=True, help="Print the laws and try none.")
@click.option(
    "--out", type=PATH, metavar="FOLDER", help="Keep the state here, and a JSON file for every disagreement."
)
@click.option("--resume", is_flag=True, help="Go on from the state in the folder of --out.")
@click.option("--replay", type=PATH, metavar="CASE.json", help="Judge the case of a disagreement again.")
@common(work_limit=False, model=False)
def campaign_command(
    minutes: float | None,
    instances: int | None,
    laws: str,
    listing: bool,
    out: str | None,
    resume: bool,
    replay: str | None,
    as_json: bool,
    seed: int,
    budget: float | None,
    jobs: int,
) -> int:
    """Try laws of exan_verify on random questions: engines, solvers, kernel and attack against one another.

    Every disagreement is one file that --replay judges again; it is a defect of exan_verify. Exit code 1
    where there is one. The state in the folder of --out is written after every chunk.
    """
    campaign = _campaign_module()
    output = Output(json=as_json)
    if replay is not None:
        return _replayed(output, campaign, replay)
    names = [name.strip() for name in laws.split(",") if name.strip()]
    if listing:
        chosen = campaign.chosen_laws(names)
        output.answer({"schema": "exan/laws/1", "laws": {n: one.says for n, one in chosen.items()}})
        output.say(*(f"{name}: {one.says}" for name, one in chosen.items()))
        return ExitCode.DONE
    limits = [s for s in (None if minutes is None else 60 * minutes, budget) if s is not None]
    if not limits and instances is None:
        raise click.UsageError("give --minutes or --instances")
    with output.working("trying laws") as tell:
        done: Campaign = campaign.run(
            seed=seed,
            laws=names,
            seconds=min(limits, default=None),
            instances=instances,
            jobs=jobs,
            out=out,
            resume=resume,
            tell=tell,
        )
    output.answer(done.to_record())
    output.say(_table(done), "")
    for name, count in done.counts.items():
        output.say(*(f"DISAGREEMENT with {name}: {one}" for one in count.wrong))
    output.say(done.summary())
    return ExitCode.REFUSED if done.wrong else ExitCode.DONE


def _campaign_module() -> Any:
    try:
        from exan_verify.testing import campaign
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "hypothesis":
            raise
        raise InputError("exan campaign needs hypothesis; pip install 'exan-verify[testing]'") from None
    return campaign


def _replayed(output: Output, campaign: Any, path: str) -> int:
    from exan_verify.testing.laws import Disagreement

    try:
        name, found = campaign.replay(path)
    except Disagreement as error:
        output.answer({"schema": "exan/replay/1", "case": path, "holds": False, "says": str(error)})
        output.say(f"DISAGREEMENT: {error}")
        return ExitCode.REFUSED
    output.answer({"schema": "exan/replay/1", "case": path, "holds": True, "law": name, "outcomes": found})
    output.say(f"{name} holds of this case: {', '.join(found)}")
    return ExitCode.DONE


def _table(done: Campaign) -> Any:
    made = table("law", "instances ", "unknown ", "wrong ", "outcomes")
    for name, count in done.counts.items():
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in count.outcomes.most_common(4))
        more = len(count.outcomes) - 4
        made.add_row(
            name,
            str(count.instances),
            f"{100 * count.open_share:.1f} %",
            str(len(count.wrong)),
            outcomes + (f" and {more} more" if more > 0 else ""),
        )
    return made
