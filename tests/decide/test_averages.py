"""Releases of means: how much the members can move, exactly, and what is not claimed of them."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from exan_verify import Release
from exan_verify.api.certify import certify
from exan_verify.core.arrays import fractions
from exan_verify.core.network import Batch
from exan_verify.core.question import Box, Labels, Loss
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.errors import InputError
from exan_verify.exact.linalg import multiply, nullspace, rank
from exan_verify.testing.laws.monotone import require_monotone
from tests.support.certificate_cases import accepted, assert_rejected, plain
from tests.support.release_cases import batch_of, network_of, release_of, same_sent, sent

BOX = Box(-3, 3)


def labelled_alike(rng, network, groups, loss, *, box=False):
    """A batch whose samples have the label of the others that groups connect them with."""
    size = 1 + max(m for group in groups for m in group)
    drawn = batch_of(rng, network, size, loss)
    labels, parent = drawn.labels.copy(), list(range(size))
    for _ in range(size):  # the least index of a connected part is its name
        for group in groups:
            for a, b in pairwise(group):
                parent[a] = parent[b] = min(parent[a], parent[b])
    x = rng.integers(-3, 4, drawn.inputs.shape) if box else drawn.inputs
    return Batch.of(x, labels[parent], network=network, loss=loss, labels=Labels.ONE_HOT)


def sums_of(groups, size):
    return np.array([[int(m in group) for m in range(size)] for group in groups], dtype=object)


def means_of(batch, groups, network, loss):
    """The batch that enters the step."""
    x = [fractions(batch.inputs)[list(g)].sum(axis=0) / Fraction(len(g)) for g in groups]
    return Batch.of(
        np.array(x), batch.labels[[g[0] for g in groups]], network=network, loss=loss, labels=Labels.ONE_HOT
    )


def drawn_groups(rng, *, overlapping):
    order = rng.permutation(6).tolist()
    cuts = [0, *sorted(rng.choice(np.arange(1, 6), 2, replace=False).tolist()), 6]
    groups = [order[a:b] for a, b in pairwise(cuts)]
    if overlapping:
        groups.append(rng.permutation(6)[: rng.integers(2, 4)].tolist())
    return groups


def motion_of(rng, x, groups, domain):
    """A motion (M, d) that keeps the means, and the dimension of all that are found this way."""
    sums, motion, dimension = sums_of(groups, len(x)), np.full(x.shape, Fraction(0), dtype=object), 0
    apart = sum(map(len, groups)) == len(x)
    for k in range(x.shape[1]):
        if domain is not None and apart:
            # all members at their mean is in the box, and its neighbours with this mean are
            for group in groups:
                mean = sum(x[group, k]) / Fraction(len(group))
                if -3 < mean < 3:
                    dimension += len(group) - 1
                    motion[group, k] += (mean - x[group, k]) * Fraction(int(rng.integers(1, 4)), 5)
            continue
        inside = np.array([domain is None or -3 < v < 3 for v in x[:, k]])
        space = nullspace(sums[:, inside]) if inside.any() else np.zeros((0, 0))
        dimension += space.shape[1]
        if space.shape[1]:
            step = multiply(space, rng.integers(1, 99, (space.shape[1], 1)))[:, 0]
            motion[inside, k] += step * (Fraction(1) if domain is None else Fraction(1, 10**4))
    return motion, dimension


def asked_of_means(seed, *, overlapping, domain):
    rng = np.random.default_rng([seed, overlapping])
    network = network_of(rng, [3, 4, 2] if seed % 2 else [3, 5, 3, 2])
    loss = (Loss.MSE, Loss.HINGE)[rng.integers(2)]
    groups = drawn_groups(rng, overlapping=overlapping)
    batch = labelled_alike(rng, network, groups, loss, box=domain is not None)
    more = release_of(rng, network, 0.7, weights=str(rng.choice(["equal", "positive"])))
    release = Release(tensors=more.tensors, rows=more.rows, weights=more.weights.value, averages=groups)
    return rng, network, loss, batch, release


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("domain", [None, BOX])
def test_members_of_the_family_send_the_same(overlapping, domain):
    free = 0
    for seed in range(12):
        rng, network, loss, batch, release = asked_of_means(seed, overlapping=overlapping, domain=domain)
        groups, x = list(map(list, release.averages)), fractions(batch.inputs)
        verdict = certify(network, batch=batch, loss=loss.value, release=release, domain=domain)
        motion, dimension = motion_of(rng, x, groups, domain)
        if not dimension:
            continue
        assert verdict.outcome is Outcome.AMBIGUOUS
        # in a box a group that shares nobody also moves inwards, which this does not count beside others
        slack = domain is not None and overlapping
        assert verdict.witness.dimension == dimension or (slack and verdict.witness.dimension > dimension)
        accepted(verdict, network, batch)
        other = Batch.of(x + motion, batch.labels, network=network, loss=loss, labels=Labels.ONE_HOT)
        assert domain is None or domain.contains(other)
        first, second = (means_of(b, groups, network, loss) for b in (batch, other))
        weights = [Fraction(int(v)) for v in rng.integers(1, 5, len(groups))]
        assert same_sent(
            sent(network, first, loss, release, weights), sent(network, second, loss, release, weights)
        )
        for m, status in enumerate(verdict.samples):
            assert status is not SampleStatus.DETERMINED
            free += status is SampleStatus.FREE
            assert (status is SampleStatus.FREE) >= bool(motion[m].any() and batch.x.count(batch.x[m]) == 1)
    assert free > 20


def test_generators_keep_the_means_and_who_does_not_move_follows_from_them():
    for seed in range(8):
        _, network, loss, batch, release = asked_of_means(seed, overlapping=seed % 2 == 1, domain=None)
        verdict, sums = (
            certify(network, batch=batch, loss=loss.value, release=release),
            sums_of(release.averages, batch.size),
        )
        for generator in verdict.witness.generators:
            direction = np.full(batch.inputs.shape, Fraction(0), dtype=object)
            for m, k, distance in generator:
                direction[m, k] = distance
            assert direction.any()
            assert not multiply(sums, direction).any()
        for m, status in enumerate(verdict.samples):
            if batch.x.count(batch.x[m]) == 1:
                follows = rank(np.delete(sums, m, axis=1)) < rank(sums)
                assert (status is SampleStatus.FREE) is not follows


def test_a_sample_by_itself_is_left_undecided_and_so_are_pairs_around_an_odd_circle():
    rng = np.random.default_rng(0)
    network = network_of(rng, [3, 4, 2])
    groups = [[0, 1], [1, 2], [2, 0], [3], [4, 5]]  # of three pairs the members follow
    batch = labelled_alike(rng, network, groups, Loss.HINGE)
    verdict = certify(network, batch=batch, loss="hinge", release=Release(averages=groups))
    assert [status.value for status in verdict.samples] == ["unknown"] * 4 + ["free"] * 2
    assert verdict.witness.radius == (0, 0, 0, 0, np.inf, np.inf)
    small = batch.select([0, 1, 2])
    nothing = certify(network, batch=small, loss="hinge", release=Release(averages=groups[:3]))
    assert nothing.outcome is Outcome.UNKNOWN
    assert "means of the groups" in nothing.reason
    assert "other options" not in nothing.reason


def test_more_means_never_free_what_fewer_leave():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        network = network_of(rng, [2, 4, 2])
        groups = drawn_groups(rng, overlapping=True)
        batch = labelled_alike(rng, network, groups, Loss.MSE, box=True)
        few, many = (
            certify(network, batch=batch, loss="mse", release=Release(averages=g), domain=BOX)
            for g in (groups[:3], groups)
        )
        require_monotone(few, many, "fewer and more means")
        dimensions = [0 if v.witness is None else v.witness.dimension for v in (few, many)]
        assert dimensions[0] >= dimensions[1]


def test_equal_samples_are_free_together_only():
    """x_0 = x_2, and sample 2 stays: the batch always has (x_0, y)."""
    network = network_of(np.random.default_rng(3), [2, 4, 2])
    x, y = np.array([[1, 2], [3, -1], [1, 2]]), [0, 0, 0]
    verdict = certify(network, batch=(x, y), loss="hinge", release=Release(averages=[[0, 1], [2]]))
    assert [status.value for status in verdict.samples] == ["unknown", "free", "unknown"]


def test_means_of_projected_inputs():
    """Both hide: what each leaves open alone is claimed."""
    rng = np.random.default_rng(1)
    plain = network_of(rng, [2, 5, 3])
    basis = np.array([[1, 0], [0, 1], [2, 1], [1, 1]])
    x, y = rng.integers(-3, 4, (4, 4)), [0, 0, 1, 1]
    release = Release(input_basis=basis, averages=[[0, 1], [2, 3]])
    verdict = certify(plain, batch=(x, y), release=release)
    assert (verdict.outcome, verdict.witness.dimension) == (Outcome.AMBIGUOUS, 8)
    accepted(verdict, plain, (x, y))


def test_tampering_is_rejected():
    rng = np.random.default_rng(2)
    network = network_of(rng, [3, 6, 2])
    x, y = rng.integers(-2, 3, (5, 3)), [0, 0, 1, 1, 0]
    groups = [[0, 1], [2, 3], [4]]
    verdict = certify(network, batch=(x, y), release=Release(averages=groups))
    certificate = accepted(verdict, network, (x, y))

    def rejected(match, **changed):
        forged = plain(certificate)
        forged["claim"]["question"]["release"] |= {k: v for k, v in changed.items() if k == "averages"}
        forged["evidence"][0] |= {k: v for k, v in changed.items() if k == "dimension"}
        forged["claim"] |= {k: v for k, v in changed.items() if k == "samples"}
        assert_rejected(forged, network, match, batch=(x, y))

    rejected("6 dimensions", dimension=7)
    rejected("3 dimensions", averages=[[0, 1], [2], [3], [4]])
    rejected("different labels", averages=[[0, 1, 2, 3], [4]])
    rejected("no sample 5", averages=[[0, 1], [2, 3], [4, 5]])
    rejected("in no group", averages=[[0, 1], [2, 3]])
    rejected("nothing is averaged", averages=[[0], [1], [2], [3], [4]])
    rejected("the evidence shows", samples=["free"] * 5)
    del certificate["claim"]["question"]["release"]["averages"]
    assert_rejected(certificate, network, "no averages", batch=(x, y))


@pytest.mark.parametrize(
    ("averages", "named"),
    [
        (3, "list of groups"),
        ([], "list of groups"),
        ([0, 1], "a group belongs"),
        ([[0, 1], []], "a group belongs"),
        ([[0, 1.0]], "no sample's index"),
        ([[0, True]], "no sample's index"),
        ([[1, -1]], "no sample's index"),
        ([[0, 1, 0]], "twice"),
        ([[0], [1]], "nothing is averaged"),
        ([[0, 1]], "sample 2 is in no group"),
        ([[0, 1], [2, 3]], "no sample 3"),
        ([[0, 1, 2]], "samples 0 and 2 are in one group"),
    ],
)
def test_groups_that_are_none(averages, named):
    network = network_of(np.random.default_rng(1), [2, 3, 2])
    with pytest.raises(InputError, match=named):
        certify(network, batch=([[1, 2], [2, 1], [0, 1]], [0, 0, 1]), release=Release(averages=averages))
