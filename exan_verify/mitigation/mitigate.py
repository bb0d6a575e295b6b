"""``mitigate``: each defence applied to one's own batch, and what is then proved, found, hidden and lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exan_verify.api.certify import certify
from exan_verify.core.budget import until
from exan_verify.core.network import Batch, ReluNetwork
from exan_verify.core.question import Box, Question, Release
from exan_verify.core.verdict import SampleStatus, Verdict
from exan_verify.data import MNIST_WIDTHS, load_mnist, to_inputs
from exan_verify.errors import (
    BudgetExhausted,
    InputError,
    fitting_into_memory,
    flag,
    positive,
    short,
    whole,
)
from exan_verify.exact.backprop import forward
from exan_verify.exclusivity import exclusivity
from exan_verify.mitigation.accountant import ACCOUNTANT, one_release, training_run
from exan_verify.mitigation.attacked import attack_release
from exan_verify.mitigation.case import Averages, Case, Floats, Released, equal_rows, labelled
from exan_verify.mitigation.costs import (
    Data,
    Training,
    accuracy,
    distortion,
    split,
    steps_of,
)
from exan_verify.mitigation.defences import Defence, defence, sent_exans
from exan_verify.mitigation.exclusive_neurons import box_of
from exan_verify.mitigation.protection import (
    Protection,
    estimate_psnr,
    estimates,
    hidden_by_projection,
    prior_of,
    public_samples,
    reach_of_means,
    reach_of_narrow,
    reach_of_projection,
)
from exan_verify.mitigation.report import Cost, Finding, MitigationReport, State
from exan_verify.mitigation.steps import step_of
from exan_verify.models.chain import to_network

DEFAULTS = (
    "regroup",
    "perturb",
    "mask-exan",
    "mask-few:2",
    "topk:0.5",
    "noise:0.01",
    "clip-noise:1:1",
    "average:4",
    "project-pca:16",
    "project-pca:8",
)
"""What is tried where no defence is named; those that need what was not given are left out, with the
reason."""

DELTA = 1e-5
"""The delta of every epsilon: below one over the number of samples that are trained on here."""

ATTACK_SECONDS = 60.0
"""The longest that one defence's attack may take."""

_PUBLIC, _OWN = slice(0, 1000), slice(1000, None)
"""The embedded digits, in the order of one fixed shuffle: what is public, and what is trained on."""


@fitting_into_memory("the defences")
def mitigate(
    model: Any,
    batch: tuple[Any, Any] | Batch,
    defences: Sequence[str] | None = None,
    *,
    pool: tuple[Any, Any] | None = None,
    prior: Any = None,
    train: tuple[Any, Any] | None = None,
    loss: str = "cross_entropy",
    reduction: str = "mean",
    labels: str = "one_hot",
    domain: Box | None = None,
    accuracies: bool = True,
    pixels: int | None = 32,
    budget: float | None = None,
    work_limit: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    progress: Callable[[str], None] | None = None,
) -> MitigationReport:
    """Apply each of ``defences`` to ``batch`` and say what it does, what is proved of it, and what it costs.

    ``model``: Linear layers with ReLU between them; ``batch = (x, y)``: x (M, d) or (M, ...). ``defences``:
    names, default :data:`DEFAULTS` as far as they apply. ``pool = (x, y)``: more samples of the same client,
    for regrouping, larger batches and partners of averages; those of the batch are left out. ``prior``:
    public samples (P, ...), which the batch must not be among; default 1000 of the embedded digits where the
    shape fits. ``train = (x, y)``: what the cost in accuracy is measured on; default the other embedded
    digits; ``accuracies=False``: no training. ``pixels``: per sample, whose reach is computed, None: all.
    ``budget`` in seconds, for all of it: a defence that it cuts says so. The rest as for ``certify``.

    Raises :class:`InputError` or a subclass naming what cannot be used, and a defence that does not apply
    where it was named.
    """
    start = time.monotonic()
    if budget is not None:
        positive(budget, "budget")
    if progress is not None and not callable(progress):
        raise InputError(f"progress={short(progress)} cannot be used; give a function of what is being done")
    flag(accuracies, "accuracies")
    question = Question.of(loss, reduction, labels, domain=domain)
    network = to_network(model)
    if network.plain is not network:
        raise InputError(
            "constants of the model are folded into its layers, and defences change the layers themselves; "
            "apply the constants to the data instead, and remove them from the model"
        )
    exact = Batch.given(batch, network=network, loss=question.loss, labels=question.labels)
    question = replace(question, batch_size=exact.size)
    if domain is not None and not (isinstance(domain, Box) and domain.contains(exact)):
        raise InputError(
            f"domain={short(domain)} does not hold the batch; give a Box that contains every input"
        )
    if pixels is not None:
        pixels = whole(pixels, "pixels")
    case = _case(network, exact, question, pool=pool, prior=prior, seed=whole(seed, "seed", least=0))
    chosen = [defence(name) for name in _names(defences)]
    data = None
    if accuracies and train is not None:
        data = split(*_training_data(train, network, question))
    elif accuracies and _fits_digits(network):
        own, classes = _digits(_OWN)
        data = split(own, classes)
    run = _Run(
        case=case,
        shape=given_shape(batch),
        data=data,
        pixels=pixels,
        work_limit=work_limit,
        jobs=jobs,
        end=None if budget is None else start + budget,
        tell=progress or (lambda _: None),
    )
    return run.report(chosen, strict=defences is not None)


def given_shape(batch: Any) -> tuple[int, ...]:
    """The shape of one sample as the user gave it."""
    x = batch.inputs if isinstance(batch, Batch) else batch[0]
    return tuple(int(n) for n in np.shape(x)[1:])


def _names(defences: Sequence[str] | None) -> Sequence[str]:
    if defences is None:
        return DEFAULTS
    if isinstance(defences, str) or not isinstance(defences, (list, tuple)) or not defences:
        raise InputError(f"defences={short(defences)} cannot be used; give a list of names, or None")
    return defences


def _case(
    network: ReluNetwork, batch: Batch, question: Question, *, pool: Any, prior: Any, seed: int
) -> Case:
    x = np.asarray(batch.inputs, dtype=np.float64)
    more = None
    if pool is not None:
        others, y = labelled(pool, "pool", x.shape[1])
        y = Batch.of(others, y, network=network, loss=question.loss, labels=question.labels).labels
        new = ~equal_rows(others, x)
        more = others[new], y[new]
    public = None
    if prior is not None:
        public = public_samples(prior, x)
    elif x.shape[1] == MNIST_WIDTHS[0]:
        digits, _ = _digits(_PUBLIC)
        private = x if more is None else np.concatenate([x, more[0]])
        public = digits[~equal_rows(digits, private)]
    return Case(network=network, batch=batch, question=question, pool=more, public=public, seed=seed)


def _digits(part: slice) -> tuple[Floats, Any]:
    images, classes = load_mnist()
    order = np.random.default_rng(0).permutation(len(images))[part]
    return to_inputs(images[order]).astype(np.float64), classes[order]


def _fits_digits(network: ReluNetwork) -> bool:
    return (network.widths[0], network.classes) == (MNIST_WIDTHS[0], MNIST_WIDTHS[-1])


def _training_data(train: Any, network: ReluNetwork, question: Question) -> tuple[Floats, Any]:
    x, y = labelled(train, "train", network.widths[0])
    return x, Batch.of(x, y, network=network, loss=question.loss, labels=question.labels).labels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One call: the case, what it is trained on, and when it must end."""

    case: Case
    shape: tuple[int, ...]
    data: Data | None
    pixels: int | None
    work_limit: int | None
    jobs: int
    end: float | None
    tell: Callable[[str], None]

    def report(self, chosen: Sequence[Defence], *, strict: bool) -> MitigationReport:
        """All defences; where they were not named, what does not apply is left out."""
        plain = Defence(
            name="none",
            release=_undefended,
            assumes="",
            training=lambda _: Training(),
        )
        before = self._finding(plain)
        found, left_out = [], {}
        for one in chosen:
            try:
                found.append(self._finding(one, before))
            except BudgetExhausted:
                left_out[one.name] = "the budget ran out"
            except InputError as error:
                if strict:
                    raise
                left_out[one.name] = str(error)
        return MitigationReport(
            widths=self.case.network.widths,
            question=self.case.question,
            inputs=self.case.x,
            shape=self.shape,
            classes=tuple(int(v) for v in self.case.classes),
            before=before,
            defences=tuple(found),
            left_out=left_out,
            delta=DELTA,
            accountant=ACCOUNTANT,
            notes=self.case.network.notes,
            seed=self.case.seed,
        )

    def _finding(self, one: Defence, before: Finding | None = None) -> Finding:
        case = self.case
        with until(self.end):
            self.tell(f"{one.name}: applying it")
            released = one.release(case)
            state = _state(case, released)
            self.tell(f"{one.name}: deciding")
            verdict, means = self._verdict(released), None
            if released.averages is not None:
                verdict, means = self._verdict_on_members(released, released.averages), verdict
            protection, statuses = self._protection(released, verdict)
            self.tell(f"{one.name}: attacking")
            gained = attack_release(released, case.question, seed=case.seed, budget=self._attack_budget())
            cost = self._cost(one, released, before)
        return Finding(
            name=one.name,
            assumes=one.assumes,
            exclusivity=state,
            verdict=verdict,
            means=means,
            samples=statuses,
            attack=gained,
            protection=protection,
            cost=cost,
            subjects=released.subjects,
            facts=released.facts,
            asked_of="members"
            if released.averages is not None
            else "changed inputs"
            if released.moved
            else "samples",
            random=released.noise,
        )

    def _attack_budget(self) -> float:
        left = ATTACK_SECONDS if self.end is None else self.end - time.monotonic()
        if left <= 0:
            raise BudgetExhausted("the budget ran out; give a larger --budget")
        return min(ATTACK_SECONDS, left)

    def _verdict(self, released: Released) -> Verdict | None:
        """The exact answer about what is sent; None where no exact question can be asked of it.

        This is the one place where a release becomes a question. For means it is about the means.
        """
        if released.release is None:
            return None
        batch = released.batch
        if released.projected is not None:  # asked of the samples, of which the step saw B^T x
            batch = self.case.batch
        return self._certified(released, batch, released.release)

    def _verdict_on_members(self, released: Released, averages: Averages) -> Verdict:
        """The exact answer about the samples that were averaged, group by group."""
        members = averages.members.reshape(-1, averages.members.shape[2])
        labels = np.repeat(released.batch.labels, averages.size, axis=0)
        batch = self.case.with_inputs(members, labels)
        return self._certified(released, batch, Release(averages=averages.groups))

    def _certified(self, released: Released, batch: Batch, release: Release) -> Verdict:
        question = self.case.question
        return certify(
            released.network,
            batch=(batch.inputs, batch.labels),
            release=release,
            loss=question.loss,
            reduction=question.reduction,
            labels=question.labels,
            domain=question.domain,
            budget=None if self.end is None else max(1e-3, self.end - time.monotonic()),
            work_limit=self.work_limit,
            seed=self.case.seed,
            jobs=self.jobs,
        )

    def _protection(
        self, released: Released, verdict: Verdict | None
    ) -> tuple[Protection, tuple[SampleStatus, ...]]:
        """The three numbers, and what is proved of each subject."""
        case, subjects = self.case, released.subjects
        of, box = subjects.size, box_of(case)
        unknown = (SampleStatus.UNKNOWN,) * len(subjects)
        reach, note = None, ""
        if released.projected is not None:
            basis = released.projected
            hidden = hidden_by_projection(case, released, basis)
            counted = [SampleStatus.FREE if h else SampleStatus.UNKNOWN for h in hidden]
            decided = unknown if verdict is None else verdict.samples
            statuses = tuple(
                c if d is SampleStatus.UNKNOWN else d for c, d in zip(counted, decided, strict=True)
            )
            if box is not None:
                self.tell("reach: two linear programs per pixel")
                reach = reach_of_projection(
                    subjects, basis, box, case.rng(self.pixels or 0), pixels=self.pixels
                )
            found = Protection(hidden=sum(hidden), of=of, reach=reach)
        elif released.averages is not None:
            assert verdict is not None
            means = released.averages
            statuses = tuple(verdict.samples[place] for place in means.places) if verdict.samples else unknown
            reach = None if box is None else reach_of_means(released, box)
            dimension = None if verdict.witness is None else verdict.witness.dimension
            found = Protection(hidden=dimension, of=int(means.members.size), reach=reach)
        elif verdict is not None:
            statuses = verdict.samples if len(verdict.samples) == len(subjects) else unknown
            dimension = 0 if verdict.witness is None else verdict.witness.dimension or 0
            if not statuses or SampleStatus.UNKNOWN in statuses:
                note = "not decided" if not dimension else ""
            known = dimension or (0 if set(statuses) == {SampleStatus.DETERMINED} else None)
            if box is not None and _by_the_first_layer(verdict) and not released.moved:
                self.tell("reach: two linear programs per pixel")
                drawn = case.rng(self.pixels or 0)
                reach = reach_of_narrow(released, case.question, box, drawn, pixels=self.pixels)
            found = Protection(hidden=known, of=of, reach=reach, note=note)
        else:
            statuses = unknown
            why = "noise hides nothing exactly" if released.noise else "no exact question can be asked of it"
            found = Protection(hidden=None, of=of, note=why)
        return self._estimated(found, released, statuses), statuses

    def _estimated(
        self, found: Protection, released: Released, statuses: tuple[SampleStatus, ...]
    ) -> Protection:
        if statuses and set(statuses) == {SampleStatus.DETERMINED}:
            # what is determined is known; it is not the sample itself where inputs were changed
            inputs = np.asarray(released.batch.inputs, dtype=np.float64)
            return replace(found, estimate=estimate_psnr(inputs, released.subjects))
        public = self.case.public
        if public is None:
            return found
        estimate = estimates(released, prior_of(public))
        if estimate is None:
            return found
        return replace(
            found, estimate=estimate_psnr(estimate, released.subjects), public=len(public), pictures=estimate
        )

    def _cost(self, one: Defence, released: Released, before: Finding | None) -> Cost:
        case = self.case
        original = _undefended(case).sent
        same = released.subjects.shape == case.x.shape and bool((released.subjects == case.x).all())
        changed = distortion(released.sent, original) if same else None
        cost = Cost(distortion=changed, note=one.no_training)
        if one.multiplier is not None:
            cost = replace(cost, epsilon=one_release(one.multiplier, DELTA))
        if self.data is None or one.training is None:
            return cost if self.data is not None else replace(cost, note="there was nothing to train on")
        training = one.training(case)
        if one.multiplier is not None:
            size = training.batch or case.batch.size
            cost = replace(
                cost,
                epsilon_run=training_run(
                    one.multiplier,
                    min(1.0, size / len(self.data.x)),
                    steps_of(training, self.data, case.batch.size),
                    DELTA,
                ),
            )
        trained = accuracy(
            training,
            self.data,
            case.network,
            case.question,
            batch=case.batch.size,
            told=lambda seed: self.tell(f"{one.name}: training, seed {seed}"),
        )
        baseline = None if before is None else before.cost.accuracy
        return replace(cost, accuracy=trained.median, by_seed=trained.by_seed, baseline=baseline)


def _undefended(case: Case) -> Released:
    gradient = step_of(case.network, case.batch, case.question).gradient
    return Released(network=case.network, batch=case.batch, sent=gradient, subjects=case.x)


def _state(case: Case, released: Released) -> State:
    """Exclusive neurons whose rows are sent, and the samples that can be peeled with them."""
    state = exclusivity(released.network, released.batch, loss=case.question.loss)
    patterns = forward(released.network, released.batch).patterns
    totals = sent_exans(released, patterns)
    first = [name for name, _ in released.network.layers[0].parameters()]
    peelable = sum(state.peelable)
    # without exclusive rows of layer 1, or without its bias gradient, peeling has nothing to begin with
    if (totals and totals[0] == 0) or any(name not in released.sent for name in first):
        peelable = 0
    return State(exans=totals, peelable=peelable, samples=released.batch.size)


def _by_the_first_layer(verdict: Verdict) -> bool:
    """Whether it is proved that the first layer does not see some motions, for equal weights."""
    if verdict.certificate is None or (verdict.release is not None and verdict.release.weights != "equal"):
        return False
    return any(part["type"] == "unseen" for part in verdict.certificate["evidence"])
