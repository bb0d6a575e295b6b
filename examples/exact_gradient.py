"""From an exact rational gradient alone to the exact batch: nothing is rounded on the way.

Run: python examples/exact_gradient.py
"""

import random
from fractions import Fraction

from exan_verify import Gradient, Outcome, ReluNetwork, certify

SAMPLES, INPUTS, HIDDEN, LOGITS = 3, 4, 24, 2


def numbers(rng: random.Random, *shape: int) -> list:
    """Nested lists of small rationals."""
    if not shape:
        return Fraction(rng.randint(-9, 9), rng.randint(1, 4))
    return [numbers(rng, *shape[1:]) for _ in range(shape[0])]


def gradient_of(weights: list, biases: list, x: list, y: list) -> dict[str, list]:
    """The mse gradient, mean reduction, of a network with one hidden layer (docs/theory.md section 1)."""
    (W1, W2), (b1, b2) = weights, biases
    total = {
        "0.weight": [[Fraction(0)] * INPUTS for _ in range(HIDDEN)],
        "0.bias": [Fraction(0)] * HIDDEN,
        "2.weight": [[Fraction(0)] * HIDDEN for _ in range(LOGITS)],
        "2.bias": [Fraction(0)] * LOGITS,
    }
    for inputs, label in zip(x, y, strict=True):
        z = [sum(w * v for w, v in zip(row, inputs, strict=True)) + b for row, b in zip(W1, b1, strict=True)]
        h = [max(v, Fraction(0)) for v in z]
        f = [sum(w * v for w, v in zip(row, h, strict=True)) + b for row, b in zip(W2, b2, strict=True)]
        g = [2 * (f[k] - (k == label)) / (len(x) * LOGITS) for k in range(LOGITS)]
        delta = [
            sum(W2[k][j] * g[k] for k in range(LOGITS)) if z[j] > 0 else Fraction(0) for j in range(HIDDEN)
        ]
        for name, left, right in (("0", delta, inputs), ("2", g, h)):
            for i, value in enumerate(left):
                total[f"{name}.bias"][i] += value
                for j, entry in enumerate(right):
                    total[f"{name}.weight"][i][j] += value * entry
    return total


def main() -> None:
    rng = random.Random(2)
    weights = [numbers(rng, HIDDEN, INPUTS), numbers(rng, LOGITS, HIDDEN)]
    biases = [numbers(rng, HIDDEN), numbers(rng, LOGITS)]
    x, y = numbers(rng, SAMPLES, INPUTS), [rng.randrange(LOGITS) for _ in range(SAMPLES)]
    network = ReluNetwork.from_arrays(weights, biases)

    verdict = certify(network, gradient=Gradient(tensors=gradient_of(weights, biases, x, y)), loss="mse")
    print(f"{verdict.outcome.name}: {verdict.reason}")
    if verdict.outcome is Outcome.UNIQUE:
        rebuilt = {tuple(sample) for sample in verdict.batch.x}
        print(f"rebuilt exactly: {rebuilt == {tuple(sample) for sample in x}}")
        print("first sample:", ", ".join(str(v) for v in verdict.batch.x[0]))


if __name__ == "__main__":
    main()
