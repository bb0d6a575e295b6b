"""A hint that names an option names one with which the attack succeeds, and no reason points elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from exan_verify import attack
from exan_verify.errors import RangeError
from exan_verify.numeric.problem.records import Attack
from tests.support.numeric_cases import drawn_batch, drawn_network

Gradient = dict[str, Tensor]
LOSSES = ("cross_entropy", "bce", "mse", "hinge")
OPTIONS = ("scale", "weights", "labels", "batch_size", "loss", "reduction")

EACH: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda f, y: functional.cross_entropy(f, y, reduction="none"),
    "bce": lambda f, y: functional.binary_cross_entropy_with_logits(f, y, reduction="none").mean(1),
    "mse": lambda f, y: functional.mse_loss(f, y, reduction="none").mean(1),
    "hinge": lambda f, y: functional.multi_margin_loss(f, y, reduction="none"),
}


def taken(model: torch.nn.Module, loss: Tensor) -> Gradient:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def spoiled(
    kind: str, loss: str, model: torch.nn.Module, x: Tensor, y: Tensor, rng: np.random.Generator
) -> Gradient | None:
    """The gradient of a batch after what ``kind`` says, None where the loss has no such thing."""
    logits, classes = model(x), model(x).shape[1]
    target = (
        y
        if loss in ("cross_entropy", "hinge")
        else functional.one_hot(y, max(classes, 2))[:, :classes].double()
    )
    if kind == "soft labels":
        if loss == "hinge":
            return None
        drawn = (
            rng.dirichlet(np.ones(classes), len(x))
            if loss == "cross_entropy"
            else rng.random((len(x), classes))
        )
        return taken(model, EACH[loss](logits, torch.tensor(drawn)).mean())
    losses = EACH[loss](logits, target)
    if kind == "clipped per sample":
        losses = losses * torch.tensor(rng.uniform(0.1, 1, len(x)))
    elif kind == "scaled":
        losses = losses * 10 ** rng.uniform(-2, 2)
    elif kind == "negative":
        losses = -losses * float(rng.uniform(0.01, 1))
    elif kind == "class weights" and loss == "bce":
        weight = torch.tensor(rng.uniform(0.3, 3, classes))
        losses = functional.binary_cross_entropy_with_logits(
            logits, target, pos_weight=weight, reduction="none"
        ).mean(1)
    elif kind == "class weights":
        losses = losses * torch.tensor(rng.uniform(0.3, 3, max(classes, 2)))[y]
    given = taken(model, losses.mean())
    if kind == "sign":
        given = {name: g.sign() for name, g in given.items()}
    elif kind == "top-k":
        least = torch.cat([g.flatten().abs() for g in given.values()]).quantile(0.9)
        given = {name: torch.where(g.abs() >= least, g, 0.0) for name, g in given.items()}
    return given


KINDS = ("scaled", "negative", "clipped per sample", "class weights", "soft labels", "sign", "top-k")
SLOW = ("clipped per sample", "class weights", "sign")


def named(hint: str) -> list[dict[str, object]]:
    """The questions that a hint names, each as options of the attack."""
    losses = re.search(r"try loss (.*)$", hint)
    if losses:
        return [{"loss": one} for one in losses[1].split(" or ")]
    found = []
    for part in hint.split(" or loss="):
        text = part if part == hint or part.startswith("the ") else f"loss={part}"
        options = {
            name: value for name in OPTIONS for value in re.findall(rf"\b{name}=('[^']*'|[-\d.e]+)", text)
        }
        found.append(
            {name: value.strip("'") if "'" in value else int(value) for name, value in options.items()}
        )
    return [one for one in found if one]


def succeeds(found: Attack, x: Tensor) -> bool:
    return len(found.x) == len(x) and all(float((row - x).abs().amax(1).min()) < 1e-6 for row in found.x)


def draws(seeds: int, kind: str, loss: str) -> tuple[int, int]:
    """How many hints named something, and how many attacks found the batch without one."""
    hinted = done = 0
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 61])
        classes = (
            int(rng.choice([2, 3, 5])) if loss in ("cross_entropy", "hinge") else int(rng.choice([1, 2, 4]))
        )
        samples = int(rng.integers(1, 5))
        model = drawn_network((12, 60, classes), rng)
        x, y = drawn_batch("rand", samples, 12, max(classes, 2), rng)
        given = spoiled(kind, loss, model, x, y, rng)
        if given is None:
            continue
        options: dict[str, object] = {"loss": loss, "batch_size": samples if seed % 2 else None}
        method = "lift" if seed % 3 else "auto"
        with suppress(RangeError):
            found = attack(model, given, method=method, **options)  # type: ignore[arg-type]
            if found.status:
                done += succeeds(found, x)
                assert not found.hint
                continue
            questions = named(found.hint)
            if not questions:
                continue
            hinted += 1
            assert kind not in ("sign", "top-k"), found.hint
            again = [attack(model, given, **{"method": method, **options, **one}) for one in questions]  # type: ignore[arg-type]
            assert any(succeeds(one, x) for one in again), (seed, found.hint, [one.reason for one in again])
            for reason in (found.reason, *(one.reason for one in found.candidates)):
                lists = named(reason)
                assert not lists or any(set(one) & set(lists[0]) for one in questions), (found.hint, reason)
    return hinted, done


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        # hinge needs many draws until a hint is given
        pytest.param(kind, loss, marks=[pytest.mark.campaign] if loss == "hinge" and kind in SLOW else [])
        for kind in KINDS
        for loss in LOSSES
    ],
)
def test_what_a_hint_names_makes_the_attack_succeed(kind: str, loss: str):
    hinted, done = draws(5 if kind in ("sign", "top-k") else 20 if loss == "hinge" else 12, kind, loss)
    helped = (kind, loss) != ("soft labels", "hinge") and kind not in ("sign", "top-k")
    assert (hinted + done > 5) == helped
