"""Which T the regions of a cube can have, together: ranks and signs (docs/theory.md, CB3 and CB4).

The gradient is ``sum L_r(T_r)`` over the cube's regions, so their T are ``T_0 + N z``: one solution, and N a
basis of the kernel of the joint map. In the known batch's own cube T_0 is the known one, and it is asked
whether z = 0 alone fits the ranks; elsewhere, whether no z fits ranks or signs.
"""

from __future__ import annotations

import flint
import numpy as np

from exan_verify.core.network import Array
from exan_verify.exact import linalg
from exan_verify.exact.linalg import identity
from exan_verify.exact.regions import Pattern
from exan_verify.smt.arguments.cube import Cube
from exan_verify.smt.arguments.minors import combination, left_by_ranks, low_rank_contradicts
from exan_verify.smt.arguments.signs import signs_contradict
from exan_verify.smt.question.transcendental import PRECISION


def jointly_injective(cube: Cube) -> bool:
    """Whether the gradient determines every T of the regions of cube and known batch."""
    key = ("injective", tuple(cube.patterns))
    memory = cube.regions.memory
    if key not in memory:
        system = cube.regions.joint(cube.patterns)
        memory[key] = linalg.rank(system) == system.shape[1]
    return bool(memory[key])


def other_totals(cube: Cube) -> Array:
    """How the T of the known batch's regions can differ from the known ones, in a cube with as many samples
    in each of them, whatever their labels: a basis (entries, dimension) of all that the gradient and the
    ranks leave, with the entries of all T in the order of ``cube.patterns``.
    """
    patterns, counts = _regions(cube)
    memory, key = cube.regions.memory, ("others", tuple(patterns), tuple(counts), cube.known)
    if key not in memory:  # the same for all labels of the samples
        kernel = linalg.nullspace(cube.regions.joint(patterns))
        memory[key] = left_by_ranks([cube.total(p) for p in patterns], kernel, counts)
    found: Array = memory[key]
    return found


def nothing_to_see(cube: Cube) -> bool:
    """cross_entropy and bce: whether some active neuron of a region that the known batch has no sample in
    would have to show nothing of it, or the region's samples no loss (docs/theory.md, CB4).
    """
    if cube.loss.rational:
        return False
    patterns = cube.patterns
    memory, key = cube.regions.memory, ("unseen", tuple(p.pattern for p in cube.samples), cube.known)
    if key not in memory:  # the same for all labels of the samples
        one = [len(cube.samples_in(p)) == len(cube.known_in(p)) == 1 for p in patterns]
        kernel = linalg.nullspace(cube.regions.joint(patterns))
        memory[key] = left_by_ranks([cube.total(p) for p in patterns], kernel, [2 - single for single in one])
    blocks = np.split(memory[key], len(patterns))
    for pattern, block in zip(patterns, blocks, strict=True):
        here = cube.samples_in(pattern)
        if not here or cube.known_in(pattern):
            continue
        region, width = cube.region(pattern), len(cube.known[0].x) + cube.has_bias
        seen = [row[:width] for row, on in zip(region.states, region.active, strict=True) if on]
        if cube.has_bias:
            seen.append(linalg.identity(width)[-1])
        for place, c in enumerate(cube.free_classes):
            row = block[place * width : (place + 1) * width]
            if len({p.y[c] for p in here}) == 1 and any(not (a @ row).any() for a in seen):
                return True
    return False


def no_totals(cube: Cube) -> bool:
    """Whether no T fit ranks and, for cross_entropy and bce, signs, in a cube without the known batch."""
    if nothing_to_see(cube):
        return True
    patterns, counts = _regions(cube)
    memory, key = cube.regions.memory, (tuple(patterns), tuple(counts), cube.known)
    if key not in memory:  # the same for all labels of the samples
        system = cube.regions.joint(patterns)
        kernel, totals = linalg.nullspace(system), particular_totals(cube, patterns)
        memory[key] = kernel, totals, low_rank_contradicts(totals, kernel, counts)
    kernel, totals, refuted = memory[key]
    if refuted or cube.loss.rational:
        return bool(refuted)
    regions = [cube.region(p) for p in patterns]
    labels = [[p.y for p in cube.samples_in(q)] for q in patterns]
    return signs_contradict(regions, kernel, totals, labels, cube.posed.bounds, has_bias=cube.has_bias)


def particular_totals(cube: Cube, patterns: list[Pattern]) -> list[Array]:
    """One solution T of the equations of these regions, as balls; the others are zero off the pivots."""
    system = cube.regions.joint(patterns)
    columns = linalg.pivots(system)
    rows = linalg.pivots(system[:, columns].T)
    inverse = linalg.solve(system[np.ix_(rows, columns)], identity(len(rows)))
    assert inverse is not None
    everyone, entries = cube.regions.joint(cube.patterns), cube.totals()
    with flint.ctx.workprec(PRECISION):
        goal = [combination(everyone[r], entries) for r in rows]  # the gradient, at the known batch
        values = np.full(system.shape[1], flint.arb(0), dtype=object)
        for place, weights in zip(columns, inverse, strict=True):
            values[place] = combination(weights, goal)
    shape = (len(patterns), len(cube.free_classes), len(cube.known[0].x) + cube.has_bias)
    return list(values.reshape(shape))


def _regions(cube: Cube) -> tuple[list[Pattern], list[int]]:
    """The cube's regions, and how many samples it has in each."""
    patterns = list(dict.fromkeys(p.pattern for p in cube.samples))
    return patterns, [len(cube.samples_in(p)) for p in patterns]
