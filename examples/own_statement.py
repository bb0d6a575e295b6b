"""State a claim of one's own in one file, and let the toolkit look for counterexamples before proving it.

Run: python examples/own_statement.py
or:  exan theorems --file examples/own_statement.py
"""

from exan_verify.theorems import Claim, Sizes, ambiguous, search, unique


def two_exclusive_neurons(s):
    "every sample has two exclusive neurons in the last hidden layer"
    return all(count >= 2 for count in s.exans[-1])


def no_zero_delta(s):
    "no active neuron has a delta of zero"
    return all((s.nonzero_deltas[i] == s.patterns[i]).all() for i in range(s.depth - 1))


def rows_give_samples(s):
    "row j of dW_1, divided by db_1[j], is the sample that neuron j is exclusive to"
    known = [(j, s.exclusive(0, j)) for j in range(s.widths[1])]
    return all(
        s.dW[0][j, i] / s.db[0][j] == s.x[m, i]
        for j, m in known
        if m is not None and s.deltas[0][j, m] != 0
        for i in range(s.widths[0])
    )


def no_exclusive_neuron(s):
    "no neuron is exclusive"
    return not any(count for layer in s.exans for count in layer)


SMALL = Sizes(inputs=(1, 2), hidden=((1, 4),), logits=(1, 2), samples=(1, 2))

# false: two exclusive neurons do not help when their deltas vanish
EXCLUSIVE_IS_UNIQUE = Claim(
    "exclusive-is-unique", hypotheses=[two_exclusive_neurons], conclusion=unique, sizes=SMALL
)

# false: without a single exclusive neuron the gradient can still give the batch away
HIDDEN_IS_SAFE = Claim(
    "hidden-is-safe", hypotheses=[no_exclusive_neuron, no_zero_delta], conclusion=ambiguous, sizes=SMALL
)

# true (E1 in docs/theory.md, proved in Coq for all sizes): every attempt to refute it fails
EXCLUSIVE_ROWS = Claim("exclusive-rows", hypotheses=[], conclusion=rows_give_samples, sizes=SMALL)


def main() -> None:
    for claim in (EXCLUSIVE_IS_UNIQUE, HIDDEN_IS_SAFE, EXCLUSIVE_ROWS):
        result = search(claim, effort=20)
        print(f"{claim.name}: {claim.text}")
        for stage in result.stages:
            print(f"  {stage.name}: {stage.says}")
        print(f"  {result.says}")
        if result.counterexample is not None:
            example = result.counterexample.example
            print(f"  in a {'-'.join(map(str, example.network.widths))} network: {example.outcome.name}")


if __name__ == "__main__":
    main()
