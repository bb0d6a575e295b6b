"""P1's counterexample cannot be made as small as 1-2-1: two samples, one exclusive neuron each, one logit.

mse with real targets, so that the loss vectors g, g' are free; the inputs are normalised to x_1 = 0, x_2 = 1,
which an affine change of the input does. The outgoing weights are not zero and cancel from every equation.
"""

from __future__ import annotations

from exan_verify.theorems.bounded.obligation import (
    Obligation,
    add,
    all_of,
    any_of,
    equal,
    mul,
    negation,
    script,
)

_REALS = ["w1", "b1", "w2", "b2", "g1", "g2", "x1", "x2", "h1", "h2"]


def obligations() -> list[Obligation]:
    """No second batch, in any pattern; and the batch itself."""
    name = "p1-two-samples-one-logit"
    return [
        Obligation(
            name=name,
            label="P1",
            says="1-2-1, mse, real targets, all weights: if neuron 1 is active for sample 1 only and neuron "
            "2 for sample 2 only, pre-activations and loss vectors not zero, there is no second batch (x1, "
            "x2, with loss vectors h1, h2), whatever its patterns.",
            expected="unsat",
            body=lambda: script(_REALS, [*_system(), negation(any_of(_first()))]),
        ),
        Obligation(
            name=f"{name}-hypotheses",
            label="P1",
            says=f"Companion of {name}: the batch itself is a solution.",
            expected="sat",
            body=lambda: script(_REALS, _system()),
        ),
    ]


def _system() -> list[str]:
    signs = ["(> b1 0.0)", "(< (+ w1 b1) 0.0)", "(< b2 0.0)", "(> (+ w2 b2) 0.0)"]
    signs += [negation(equal("g1")), negation(equal("g2")), equal(add("g1", "g2"), add("h1", "h2"))]
    for j, (own, at) in enumerate((("g1", "0.0"), ("g2", "1.0")), 1):
        masks = [f"(ite (> {_pre(j, x)} 0.0) {h} 0.0)" for x, h in (("x1", "h1"), ("x2", "h2"))]
        signs.append(equal(add(*masks), own))
        seen = [mul(mask, x) for mask, x in zip(masks, ("x1", "x2"), strict=True)]
        signs.append(equal(add(*seen), mul(own, at)))
    return signs


def _first() -> list[str]:
    """The second batch is the first one, in either order."""
    return [_same(("0.0", "1.0"), ("g1", "g2")), _same(("1.0", "0.0"), ("g2", "g1"))]


def _pre(j: int, x: str) -> str:
    return add(mul(f"w{j}", x), f"b{j}")


def _same(inputs: tuple[str, str], vectors: tuple[str, str]) -> str:
    return all_of(
        [equal("x1", inputs[0]), equal("x2", inputs[1]), equal("h1", vectors[0]), equal("h2", vectors[1])]
    )
