"""Narrower questions about the same constraints: one sample, one entry of it, or a part of the gradient.

The encoding of the whole question stays as it is. Of a release the equations of what is not sent are left
out (with an input basis B those of dW_1 become those of dW_1 B); about a sample another formula takes the
place of "not the known batch".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from exan_verify.core.network import Network, to_fraction
from exan_verify.core.question import Release, Weights
from exan_verify.errors import InputError
from exan_verify.smt.cubes import Task, exclusions
from exan_verify.smt.question.encode import Encoding, encode
from exan_verify.smt.question.encoder import Sample
from exan_verify.smt.question.terms import Formula, Script, conj, disj, equal, less, negate, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrower:
    """What is asked in the place of "is there another batch?".

    ``sample``: whether a batch lacks this sample of the known one; with ``feature`` and ``between`` (low,
    high): whether a batch has no sample of its label whose feature lies between them. ``release``: which
    entries of the gradient the batch shares with the known one; of trained slopes, which no release names,
    the tensors ``slopes``.
    """

    sample: int | None = None
    feature: int | None = None
    between: tuple[Fraction, Fraction] | None = None
    release: Release | None = None
    slopes: tuple[str, ...] = ()

    def check(self, network: Network, samples: int | None) -> None:
        """Raise :class:`InputError` where it does not fit the network and a batch of so many ``samples``."""
        if samples is None:
            raise InputError("samples, entries and releases are asked about with a batch; pass --batch")
        if self.sample is not None and not 0 <= self.sample < samples:
            raise InputError(f"sample {self.sample}: the batch has samples 0 to {samples - 1}")
        if (self.feature is None) != (self.between is None):
            raise InputError("an entry needs both its feature and the two numbers that it lies between")
        features = network.widths[0]
        if self.feature is not None and not 0 <= self.feature < features:
            raise InputError(f"feature {self.feature}: the inputs have features 0 to {features - 1}")
        if self.between is not None and self.between[0] > self.between[1]:
            low, high = self.between
            raise InputError(f"no number lies between {low} and {high}; give the smaller one first")
        if self.release is None:
            return
        self.release.check_against(network)
        if self.release.averages is not None:
            raise InputError("a step on means has the gradient of the batch of means; ask about that batch")
        if self.release.weights is not Weights.EQUAL:
            raise InputError("unknown weights are not written as constraints; ask exan certify --release")

    def constraints(self, task: Task) -> tuple[Script, Encoding]:
        """The constraints of a task without cubes, about this question."""
        encoding = encode(task.posed)
        script = encoding.script
        if self.release is not None:
            self._keep_sent(task, encoding, self.release)
        known = task.others[0]
        script.reals.extend(known.batch.point.roots)
        for fact in known.facts:
            script.require(fact, "irrational coordinates of the known batch")
        if self.between is not None:
            assert self.sample is not None
            for sample in encoding.samples:
                script.require(self._outside(task, sample), self._entry)
            return script, encoding
        asked = task if self.sample is None else replace(task, missing=self.sample)
        comment = (
            "not the known batch, in any order of its samples"
            if self.sample is None
            else f"sample {self.sample} of the known batch is not in the batch"
        )
        for formula in exclusions(asked, encoding):
            script.require(formula, comment)
        return script, encoding

    @property
    def _entry(self) -> str:
        assert self.between is not None
        low, high = self.between
        return (
            f"no sample with the label of sample {self.sample} has its feature {self.feature} between {low} "
            f"and {high}"
        )

    def _outside(self, task: Task, sample: Sample) -> Formula:
        """The sample's feature lies outside, or its label is not that of the known one."""
        assert self.sample is not None
        assert self.feature is not None
        assert self.between is not None
        x, (low, high) = sample.x[self.feature], self.between
        parts = [less(x, low), less(-x, -high)]
        if sample.labels is not None:
            assert task.posed.alphabet is not None
            letter = tuple(v.value for v in task.others[0].batch.y[self.sample])
            own = [f for f, u in zip(sample.labels, task.posed.alphabet, strict=True) if u == letter]
            parts += [conj(negate(f) for f in own)]
        return disj(parts)

    def _keep_sent(self, task: Task, encoding: Encoding, release: Release) -> None:
        """Leave out the equations of what is not sent."""
        network = task.posed.network
        sent = set()
        for name, array in network.parameters():
            for j in range(len(array)):
                if release.sends(name, len(array))[j]:
                    columns = range(array.shape[1]) if array.ndim > 1 else [None]
                    sent |= {f"{name}[{j}]" if k is None else f"{name}[{j},{k}]" for k in columns}
        for _, activation in network.trained_slopes():
            if activation.parameter in self.slopes:
                sent |= {f"{activation.parameter}[{j}]" for j in range(activation.parameters)}
        basis, first = release.input_basis, network.layers[0]
        (projected, _), *_ = first.parameters()
        kept = {f"gradient: {name}" for name in sent if basis is None or not name.startswith(f"{projected}[")}
        script = encoding.script
        script.assertions = [
            (comment, formula)
            for comment, formula in script.assertions
            if not comment.startswith("gradient: ") or comment in kept
        ]
        if basis is None:
            return
        differences = dict(encoding.equations)
        for j in range(first.shape[0]):
            if f"{projected}[{j},0]" not in sent:
                continue
            for r, column in enumerate(basis.T):
                entry = total(
                    differences[f"{projected}[{j},{k}]"] * to_fraction(b) for k, b in enumerate(column)
                )
                script.require(equal(entry, 0), f"gradient: {projected} times the input basis [{j},{r}]")

    def meaning(self) -> tuple[str, str]:
        """What ``sat`` and ``unsat`` say, for constraints that admit the batches alone."""
        what = "this gradient"
        if self.release is not None:
            with_slopes = f", and the gradient of {', '.join(self.slopes)}" if self.slopes else ""
            what = f"this release ({self.release.described}{with_slopes})"
        if self.between is not None:
            low, high = self.between
            where = (
                f"a sample with the label of sample {self.sample} whose feature {self.feature} is between "
                f"{low} and {high}"
            )
            return (
                f"there is a batch with {what} that has no such entry",
                f"every batch with {what} has {where}",
            )
        if self.sample is not None:
            return (
                f"there is a batch with {what} that lacks sample {self.sample}: it is not determined",
                f"sample {self.sample} is in every batch with {what}: it is determined",
            )
        return f"there is another batch with {what}", f"no other batch has {what}"
