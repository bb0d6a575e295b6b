"""What ``exan audit`` says about an attack: beside the proofs in a report, or alone for convolutions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exan_verify.cli.attack import attack_record
from exan_verify.cli.output import wall_clock
from exan_verify.cli.pictures import picture_facts
from exan_verify.errors import BudgetExhausted, InputError

if TYPE_CHECKING:
    from exan_verify.api.audit import Audit
    from exan_verify.core.network import Array, ReluNetwork
    from exan_verify.report import Section
    from exan_verify.report.attack_own_batch import Rehearsal

Tell = Callable[[str], None]


def rehearse_beside(
    network: ReluNetwork, x: Array, y: Array, found: Audit, *, seed: int, left: float | None, tell: Tell
) -> Rehearsal | str:
    """The attack on an audited batch, within the ``left`` seconds of the budget; else why there is none."""
    from exan_verify.report.attack_own_batch import loss_labels, rehearse

    if left is not None and left <= 0:
        return "not tried: the audit took the whole budget"
    labels = loss_labels(network, y, loss=found.loss, labels=found.labels)
    try:
        with wall_clock(left):
            return rehearse(
                network,
                x,
                labels,
                loss=found.loss,
                reduction=found.reduction,
                labels=found.labels,
                seed=seed,
                progress=_told(tell),
            )
    except BudgetExhausted:
        return "not finished: the budget ran out"
    except InputError as error:  # an audit has more that it applies to than the attack
        return f"not possible: {error}"


def rehearse_alone(model: Any, x: Array, y: Array, options: dict[str, Any], tell: Tell) -> Rehearsal:
    """The attack on a batch of a model with convolutions; raises what it raises."""
    from exan_verify.core.question import Labels, Loss, Reduction
    from exan_verify.models.graph import to_convolutional
    from exan_verify.report.attack_own_batch import loss_labels, rehearse

    loss, reduction = Loss(options["loss"]), Reduction(options["reduction"])
    head = to_convolutional(model, x.shape[1:] if x.ndim == 4 else None).head
    kind = Labels(options["labels"])
    labels = loss_labels(head, y, loss=loss, labels=kind)
    with wall_clock(options["budget"]):
        return rehearse(
            model,
            x,
            labels,
            loss=loss,
            reduction=reduction,
            labels=kind,
            seed=options["seed"],
            progress=_told(tell),
        )


def section(
    title: str,
    x: Array,
    labels: tuple[Any, ...],
    audit: Audit | None,
    attack: Rehearsal | str,
    files: dict[str, str],
) -> Section:
    """A section of the report: the audit, where there is one, beside the attack."""
    from exan_verify.report import Section

    shown = Section(
        title=title, inputs=x, labels=labels, audit=audit, attack_facts=attack_facts(attack), files=files
    )
    if isinstance(attack, str):
        return shown
    return replace(
        shown,
        note="The attack was given the model, the float64 gradient of this batch and its size, nothing else.",
        recoveries=attack.recoveries,
        candidates=attack.candidates,
        features=attack.features,
        estimates=attack.estimates,
    )


def attack_facts(attack: Rehearsal | str) -> dict[str, str]:
    """What the attack came to, a line each."""
    if isinstance(attack, str):
        return {"attack": attack}
    found = attack.found
    claimed = sum(r is not None for r in attack.recoveries)
    errors = [r.rmse for r in attack.recoveries if r is not None]
    worst = f", largest RMSE {max(errors):.1e}" if errors else ""
    lines = {"attack": f"{claimed} of {len(attack.recoveries)} samples recovered by {found.method}{worst}, "}
    lines["attack"] += f"{found.seconds:.1f} s"
    readable = sum(one is not None and one.readable for one in attack.candidates)
    if readable:
        lines["candidates"] = f"{readable} more samples can be recognised among the candidates"
    lines |= picture_facts(found)
    reasons = {"left open": found.reason, "hint": found.hint}
    return lines | {name: text for name, text in reasons.items() if text}


def rehearsal_record(attack: Rehearsal | str | None) -> dict[str, Any] | None:
    """The attack for ``--json``; None where there was none."""
    if attack is None or isinstance(attack, str):
        return None
    return attack_record(attack.found, attack.score)


def time_left(budget: float | None, start: float) -> float | None:
    """Seconds of ``budget`` that are left since ``start`` (:func:`time.monotonic`)."""
    return None if budget is None else budget - (time.monotonic() - start)


def _told(tell: Tell) -> Callable[[str, float], None]:
    return lambda what, share: tell(f"attack: {what} ({share:.0%})")
