"""The kernel's own search for extra rays, part by part: strict parts refuse truths, lax ones believe lies."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from exan_verify.core.certificate import Conclusion
from exan_verify.core.network import Batch
from exan_verify.core.question import Labels, Loss
from exan_verify.exact.backprop import backward
from exan_verify.exact.linalg import multiply, nullspace, rank
from exan_verify.exact.rational import RationalMatrix
from exan_verify.exact.softmax import loss_vectors
from exan_verify.kernel.given import Subject
from exan_verify.kernel.lifting import extra_rays, extra_rays_mod, ray_candidates
from tests.support.contexts import subject
from tests.support.family_cases import integers, labels_for, random_network


def drawn(seed: int, widths: list[int], samples: int, loss: Loss) -> Subject:
    """A batch of small integers under random small integer weights."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, widths)
    y = labels_for(loss, widths[-1], rng.integers(0, widths[-1], samples))
    batch = Batch.of(integers(rng, samples, widths[0]), y, network=network, loss=loss, labels=Labels.ONE_HOT)
    return subject(network, batch, loss)


def conclusion(of: Subject, parametrisation: str) -> Conclusion:
    everyone = tuple(range(of.samples))
    return Conclusion(
        layer=1,
        parametrisation=parametrisation,
        groups=(everyone,),
        lower_ranks=(),
        determined=everyone,
        labels="loss_vectors",
    )


@pytest.mark.parametrize(
    ("loss", "parametrisation"),
    [(Loss.MSE, "full"), (Loss.MSE, "column_space"), (Loss.HINGE, "zero_sum"), (Loss.HINGE, "column_space")],
)
def test_true_samples_solve_the_kernel_s_equations(loss, parametrisation):
    """Whatever stands for u, (e_m, u_m) fulfils the equation of every neuron's state."""
    for seed in range(10):
        of = drawn(seed, [3, 6, 4], 3, loss)
        system, _ = extra_rays._system(of, conclusion(of, parametrisation))
        unknowns = system.truth[of.samples :]
        assert len(unknowns) == system.outgoing.shape[1]
        expected = np.where(of.passed.pattern(1), multiply(system.outgoing, unknowns), 0)
        assert np.array_equal(expected, system.delta)


def test_subspaces_hold_every_state_of_every_neuron():
    """None that some other holds, and none is dropped only for being smaller than others."""
    uneven = 0
    for seed in range(60):
        of = drawn(seed, [2, 5, 2], 2, Loss.MSE)
        system, _ = extra_rays._system(of, conclusion(of, "full"))
        found = [extra_rays._basis(cuts, len(system.truth)) for cuts in extra_rays._cover(system)]
        uneven += len({basis.shape[1] for basis in found}) > 1
        used = [j for j, row in enumerate(system.delta) if row.any()]
        for states in product((0, 1), repeat=len(used)):
            rows = [[*system.delta[j], *(-s * system.outgoing[j])] for j, s in zip(used, states, strict=True)]
            space = nullspace(np.array(rows, dtype=object)) if rows else np.eye(len(system.truth), dtype=int)
            if np.any(space[: of.samples]):
                assert any(within(space, basis) for basis in found)
        assert not any(a is not b and within(a, b) for a in found for b in found)
    assert uneven > 5


def within(space: np.ndarray, basis: np.ndarray) -> bool:
    return rank(np.concatenate([basis, space], axis=1)) == basis.shape[1]


def test_what_leaves_have_in_common_is_counted_once():
    """Two planes in five dimensions that share a sample."""
    unit = np.eye(5, dtype=np.uint64)
    system = extra_rays_mod.System(
        inactive=unit,
        active=unit,
        inactive_for=np.zeros((5, 2), dtype=bool),
        active_for=np.zeros((5, 2), dtype=bool),
        groups=((0,), (1,)),
        truth=unit[:, :2],
        exact=False,
    )

    def plane(k: int, known: tuple[int, int]) -> extra_rays_mod._Leaf:
        return extra_rays_mod._Leaf(basis=unit[[0, k]], cuts=((k, True),), known=known)

    shared = [plane(k, (1, 0)) for k in (1, 2)]
    assert extra_rays_mod._at_most(system, shared) == 3
    assert extra_rays_mod._at_most(system, [shared[0], plane(2, (0, 0))]) == 4
    # one sample alone on a line: whatever else a leaf holds could be no sample
    assert not extra_rays_mod._in_one_group(shared[0])
    assert not extra_rays_mod._in_one_group(plane(1, (1, 1)))
    assert extra_rays_mod._in_one_group(plane(1, (2, 0)))


def test_a_true_batch_is_followed_down_to_its_own_inputs():
    """Through features that are zero for some sample, as most are."""
    followed = 0
    for seed in range(60):
        of = drawn(seed, [2, 5, 4, 3], 2, Loss.MSE)
        network, batch = of.network, of.batch
        deltas = backward(
            network, of.passed, loss_vectors(Loss.MSE, of.passed.logits, batch.labels, of.divisor)
        )
        delta = deltas[1].fractions()
        if rank(delta) < 2 or rank(deltas[0].fractions()) < 2:
            continue
        outgoing = RationalMatrix.of(network.layer(3).weight.T).fractions()
        unknowns = deltas[2].fractions()
        columns = np.concatenate([np.eye(2, dtype=int).astype(object), unknowns])
        candidate = ray_candidates.Candidate(layer=2, columns=columns, outgoing=outgoing, deltas=deltas)
        features = of.passed.features(2).fractions()
        found = ray_candidates._inputs(candidate, of, features, delta)
        assert found is not None
        assert np.array_equal(found, batch.inputs.T)
        followed += not np.all(of.passed.features(2).fractions())
    assert followed > 5
