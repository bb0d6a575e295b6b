"""What ``exan attack`` says and writes besides when tensors of the gradient are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exan_verify.numeric.problem.records import Attack


def hidden_arrays(found: Attack) -> dict[str, Any]:
    """The claimed features of a hidden layer, with their labels, where inputs alone do not say all."""
    if found.hidden is None:
        return {}
    return {"hidden_features": found.hidden.values, "hidden_labels": found.hidden.labels}


def hidden_facts(found: Attack) -> dict[str, str]:
    """The lines that missing tensors, and statistics of a batch, add to the text."""
    rows = {}
    if found.centred is not None:
        centred = found.centred
        bound = max((one.error_bound for one in centred.status), default=0.0)
        rows["less their mean"] = f"{len(centred.values)} of {found.batch_size} samples, within {bound:.1e}"
        rows["mean known on"] = f"{centred.mean_rank} of {len(centred.mean)} dimensions"
    if found.missing:
        rows["not given"] = ", ".join(found.missing)
    if found.hidden is not None:
        hidden = found.hidden
        bound = max((s.error_bound for s in hidden.status), default=0.0)
        known = f"{len(hidden.values)} of {found.batch_size} samples"
        rows[f"hidden layer {hidden.layer}"] = f"{known}, within {bound:.1e}" if len(hidden.values) else known
        if len(hidden.values):
            rows["their labels"] = ", ".join(str(v) for v in hidden.labels.tolist())
    if found.last_layer is not None:
        present = ", ".join(map(str, found.last_layer.present)) or "none certain"
        rows["last layer"] = f"rank {found.last_layer.rank}, classes present: {present}"
    return rows
