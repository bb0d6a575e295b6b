"""How a client stepped between the weights it was given and those it sends back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exan_verify.core.network import MOST_SAMPLES
from exan_verify.errors import InputError, short, whole

MOST_STEPS = 1 << 12
"""Local steps beyond which nothing is asked: a run of that many is not attacked, but simulated for hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Plain gradient steps of rate ``lr`` (None: not known), ``epochs`` times over the same mini-batches.

    ``sizes``: how many samples each mini-batch has, in the order of the steps; empty: every step sees the
    whole batch.
    """

    sizes: tuple[int, ...]
    epochs: int
    lr: float | None

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return self.epochs * max(1, len(self.sizes))

    @property
    def once(self) -> bool:
        """Whether every sample takes part in one step only."""
        return self.epochs == 1

    def batches(self, samples: int) -> tuple[int, ...]:
        """The sizes of the mini-batches of a batch of ``samples``."""
        return self.sizes or (samples,)

    @property
    def described(self) -> str:
        """In words."""
        what = f"mini-batches of {', '.join(map(str, self.sizes))}" if self.sizes else "the whole batch"
        again = f", {self.epochs} times over" if self.sizes and self.epochs > 1 else ""
        rate = "of a rate that is not known" if self.lr is None else f"of rate {self.lr:g}"
        return f"{self.steps} local steps {rate} on {what}{again}"


def schedule_of(
    local_steps: Any, local_batches: Any, lr: Any, batch_size: int | None
) -> tuple[Schedule, int | None]:
    """The schedule of a user's words, checked, and the size of the batch where they say it.

    Raises :class:`InputError` naming what cannot be used.
    """
    steps = whole(local_steps, "local_steps", most=MOST_STEPS)
    rate = _rate(lr)
    sizes: tuple[int, ...] = ()
    if local_batches is not None:
        if isinstance(local_batches, str) or not isinstance(local_batches, Sequence) or not local_batches:
            raise InputError(
                f"local_batches={short(local_batches)} cannot be used; give the sizes of the mini-batches in "
                "the order of the steps, such as (2, 2)"
            )
        sizes = tuple(whole(size, "local_batches", most=MOST_SAMPLES) for size in local_batches)
    count = max(1, len(sizes))
    if steps == 1:
        steps = count
    if steps % count:
        raise InputError(
            f"local_steps={steps} is not a multiple of the {count} mini-batches of local_batches; give the "
            "steps of whole passes over them"
        )
    if sizes and batch_size not in (None, sum(sizes)):
        raise InputError(
            f"batch_size={batch_size} is not the sum of local_batches, {sum(sizes)}; leave it out"
        )
    if len(sizes) == 1:
        batch_size, sizes = sizes[0], ()
    return Schedule(sizes=sizes, epochs=steps // count, lr=rate), sum(sizes) or batch_size


def require_plain(
    schedule: Schedule, options: Mapping[str, Any], release: object, what: str = "several local steps"
) -> None:
    """Raise :class:`InputError` where other words of a user do not go with ``what``."""
    told = "lr" if schedule.steps == 1 else what
    if isinstance(options["scale"], str) or options["scale"] != 1:
        raise InputError(
            f"scale={short(options['scale'])} does not go with {told}: the update is -lr times what the "
            "steps add up to; leave scale out"
        )
    if schedule.steps == 1:
        return
    plain = {"weights": "equal", "labels": "one_hot", "partial": False, "method": "auto"}
    for name, value in plain.items():
        if options[name] != value:
            told = short(getattr(options[name], "value", options[name]))
            raise InputError(f"{name}={told} does not go with {what}; leave it out")
    if release is not None:
        raise InputError(f"a release does not go with {what}; leave out release=")


def _rate(lr: Any) -> float | None:
    if lr is None:
        return None
    try:
        rate = float(lr)
    except (TypeError, ValueError, OverflowError):
        rate = 0.0
    if isinstance(lr, bool) or not math.isfinite(rate) or rate <= 0:
        raise InputError(
            f"lr={short(lr)} is not a positive number; give the learning rate of the local steps"
        )
    return rate
