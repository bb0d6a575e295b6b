"""Checks of P1, the published insecure side (docs/theory.md, Appendix P)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from random import Random

from exan_verify.core.network import Array
from exan_verify.core.question import Labels
from exan_verify.core.verdict import Outcome
from exan_verify.exact.backprop import forward
from exan_verify.exclusivity import exclusivity
from exan_verify.theorems.certified import kernel_outcome, verdict_on
from exan_verify.theorems.statement import Check, Example, Progress, Result
from exan_verify.theorems.support.counterexamples import (
    published_insecure,
    published_insecure_smallest,
    two_samples_at_zero,
)
from exan_verify.theorems.support.example_check import all_met, by_example
from exan_verify.theorems.support.exclusive_layers import Layered, all_apart, apart, drawn_layer, live
from exan_verify.theorems.support.laboratory import Pair, drawn, integers, same_gradient, same_samples
from exan_verify.theorems.support.one_logit import classes_of_mixings, feasible_mixings, second_batches

COUNTEREXAMPLES = (published_insecure, published_insecure_smallest, two_samples_at_zero)


def breaks_p1(
    example: Example, *, live_deltas: bool = True, strict: bool = True, biases: bool = True
) -> Result:
    """Whether ``example`` meets P1's condition and its second batch has the same gradient.

    ``live_deltas``: two or more ExANs per sample of the last hidden layer have non-zero delta; ``strict``: no
    pre-activation of either batch is zero; ``biases``: the network has some. Each must be as stated.
    """
    second = example.second
    assert second is not None
    layer = Layered(network=example.relu, batch=example.batch)
    pair = Pair(network=example.network, first=example.batch, second=second)
    zeros = [z for b in (example.batch, second) for z in forward(example.network, b).zeros]
    found = {
        "published condition": exclusivity(example.relu, example.batch, loss=example.question.loss).published,
        "same gradient": same_gradient(pair),
        "another batch": not same_samples(pair),
        "live deltas as stated": (min(map(len, live(layer))) >= 2) is live_deltas,
        "zeros as stated": (not any(bool(z.any()) for z in zeros)) is strict,
        "biases as stated": example.network.has_bias is biases,
    }
    return all_met(found)


def broken(
    name: str,
    example: Callable[[], Example],
    *,
    live_deltas: bool = True,
    strict: bool = True,
    biases: bool = True,
) -> Check:
    """A check that runs :func:`breaks_p1`."""
    judge = partial(breaks_p1, live_deltas=live_deltas, strict=strict, biases=biases)
    what = "recomputes the published condition, deltas, pre-activations and both gradients, over Q"
    return by_example(name, what, example=example, judge=judge)


def only_two_batches(example: Example) -> Result:
    """Whether the list of all second batches (one logit, 0/1 targets) is the stored one."""
    layer = Layered(network=example.relu, batch=example.batch)
    found = list(second_batches(layer))
    same = [same_samples(Pair(network=example.network, first=b, second=example.second or b)) for b in found]
    return Result(holds=same == [True], detail=f"{len(found)} second batch(es), the stored one among them")


def refuted_mixings(samples: int, *, sums: bool = True) -> Result:
    """Whether no class of 0/1 mixings of ``samples`` samples is feasible."""
    feasible = list(feasible_mixings(samples, sums=sums))
    count = len(classes_of_mixings(samples))
    detail = f"{samples} samples: {count} classes of mixings, {len(feasible)} feasible sign patterns"
    return Result(holds=not feasible, detail=detail, data={"classes": count, "feasible": len(feasible)})


def small(progress: Progress, _seed: int) -> Result:
    """One logit, up to three samples: only permutations; the bias equation is what excludes the rest."""
    found = []
    for done, samples in enumerate((1, 2, 3)):
        progress("exact linear programs", done, 3)
        found.append(refuted_mixings(samples))
    power = refuted_mixings(3, sums=False)
    detail = "; ".join(r.detail for r in found) + "; without the bias equation some patterns are feasible"
    return Result(holds=all(r.holds for r in found) and not power.holds, detail=detail)


def kernel_says_unique(layer: Layered) -> bool:
    """The engines' certificate says UNIQUE and the kernel accepts it."""
    return kernel_outcome(layer.network, layer.batch, layer.question) is Outcome.UNIQUE


def doubled(layer: Layered) -> Layered:
    """The first sample twice, the second not at all."""
    order = [0, 0, *range(2, layer.batch.size)]
    return replace(layer, batch=layer.batch.select(order))


def apart_layers(seed: int) -> Iterator[Layered]:
    """Layers in which every pair of samples meets the rank condition."""
    shapes = (((2, 2), 2, 0), ((2, 2, 2), 2, 3), ((2, 3), 3, 0), ((3, 3, 2), 3, 2))

    def draw(rng: Random) -> Layered | None:
        counts, classes, shared = rng.choice(shapes)
        layer = drawn_layer(rng, counts, classes, shared)
        return layer if layer is not None and all_apart(layer) else None

    return drawn("P1 apart", seed, draw)


def apart_and_unique(layer: Layered) -> bool:
    """The rank condition holds and the batch is UNIQUE for the kernel."""
    return all_apart(layer) and kernel_says_unique(layer)


def pairs_of_samples(seed: int) -> Iterator[Layered]:
    """Two samples with one or two live ExANs each, any number of logits, shared neurons."""

    def draw(rng: Random) -> Layered | None:
        counts = (rng.randint(1, 2), rng.randint(1, 2))
        return drawn_layer(rng, counts, rng.randint(1, 3), rng.randint(0, 2))

    return drawn("P1 two", seed, draw)


def fails_where_it_must(progress: Progress, _seed: int) -> Result:
    """The rank condition fails at every stored counterexample."""
    held = []
    for done, make in enumerate(COUNTEREXAMPLES):
        progress("counterexamples of P1", done, len(COUNTEREXAMPLES))
        example = make()
        held.append(all_apart(Layered(network=example.relu, batch=example.batch)))
    return Result(holds=not any(held), detail="no counterexample of P1 meets the rank condition")


def count_decides(progress: Progress, seed: int) -> Result:
    """At random points the rank condition holds iff the numbers of ExANs are large enough."""
    rng, done, total = Random(f"P1 generic/{seed}"), 0, 6 * 6 * 6
    for extra in range(1, 7):
        for first in range(1, 7):
            for second in range(1, 7):
                progress("(K', e_a, e_b)", done, total)
                done += 1
                if generic_pair(rng, extra, first, second) != enough(extra, first, second):
                    return Result(holds=False, detail=f"K' = {extra}, e_a = {first}, e_b = {second}")
    return Result(holds=True, detail=f"{total} sizes: the rank is what the count says")


def counted_layers(seed: int) -> Iterator[Layered]:
    """Layers with as many ExANs as the count asks for, weights from a wide range."""
    shapes = (((2, 2), 2), ((2, 2, 2), 2), ((3, 2), 3), ((3, 3, 2), 3), ((3, 3), 4))

    def draw(rng: Random) -> Layered | None:
        counts, classes = rng.choice(shapes)
        layer = drawn_layer(rng, counts, classes, top=50)
        return layer if layer is not None and counted_enough(layer) else None

    return drawn("P1 counted", seed, draw)


def counted_enough(layer: Layered) -> bool:
    """P.3's count for every pair of samples (mse: K' = K)."""
    counts = [len(own) for own in live(layer)]
    return all(enough(layer.network.classes, a, b) for a, b in combinations(counts, 2))


def enough(extra: int, first: int, second: int) -> bool:
    """P.3's count: each at least two, and together ``min(e_a, K') + min(e_b, K') >= K' + 2``."""
    return min(first, extra) + min(second, extra) >= extra + 2


def generic_pair(rng: Random, extra: int, first: int, second: int) -> bool:
    """The rank condition for random outgoing weights and next deltas."""
    one, two = integers(rng, first, extra, 50), integers(rng, second, extra, 50)
    own: Array = one @ integers(rng, extra, 1, 50)[:, 0]
    other: Array = two @ integers(rng, extra, 1, 50)[:, 0]
    return apart(one, two, own, other)


def one_logit_layers(seed: int) -> Iterator[Layered]:
    """One logit, three samples, one live ExAN each, no zero loss vector."""
    return drawn("P1 one logit", seed, lambda rng: drawn_layer(rng, (1, 1, 1), 1))


def no_second_batch(layer: Layered) -> bool:
    """None of the listed mixings is a second batch; real targets included."""
    return next(second_batches(layer, Labels.REAL), None) is None


def four_samples(seed: int) -> Iterator[Layered]:
    """One logit, four samples with one live ExAN each."""
    return drawn("P1 one logit, four", seed, lambda rng: drawn_layer(rng, (1, 1, 1, 1), 1))


def nothing_for_finite_labels(layer: Layered) -> bool:
    """No second batch with targets 0 and 1."""
    return next(second_batches(layer), None) is None


def counterexample_instead(_layer: Layered) -> Layered:
    """The stored counterexample in place of the instance."""
    example = published_insecure()
    return Layered(network=example.relu, batch=example.batch)


def lifted_layers(seed: int) -> Iterator[Layered]:
    """One logit, ExANs and enough shared neurons for C1's rank."""

    def draw(rng: Random) -> Layered | None:
        layer = drawn_layer(rng, (2, 2, 2), 1, 8)
        return layer if layer is not None and lifts(layer) else None

    return drawn("P1 lifted", seed, draw)


def lifts(layer: Layered) -> bool:
    """Lifting certifies UNIQUE."""
    return verdict_on(layer.network, layer.batch, layer.question, engine="lifting").outcome is Outcome.UNIQUE


def lifting_rank_known(layer: Layered) -> bool:
    """Lifting certifies UNIQUE, the kernel accepts, and the rank condition of P1 alone would not do."""
    return lifts(layer) and kernel_says_unique(layer) and not all_apart(layer)


def two_classes(progress: Progress, _seed: int) -> Result:
    """Loss vectors that are all multiples of (1, -1): no two samples are ever apart."""
    rng = Random("P1 two classes")
    for done in range(20):
        progress("layers with K' = 1", done, 20)
        if generic_pair(rng, 1, 1 + done % 5, 1 + done % 3):
            return Result(holds=False, detail="the rank condition holds with K' = 1")
    return Result(holds=generic_pair(rng, 2, 2, 2), detail="never with K' = 1; at once with K' = 2")
