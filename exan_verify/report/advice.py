"""The four questions of a reader who knows neither theory nor attack: what, to whom, how bad, what now.

What is said of defences is what docs/mitigation.md measures and docs/theory.md proves; nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.report.content import Section, estimates, leaks, of, shown_of
from exan_verify.report.samples import RESEMBLES

_PROJECTION = (
    "Let the first layer see a fixed public projection of the inputs only (project_inputs in Python). Proved "
    "to hide directions of every sample in all rounds, also from a server that chooses the other weights. It "
    "is the cheapest here. How much of a sample is left depends on the number of directions: choose it by "
    "what the report of the defences shows."
)
_PROJECTION_ELSEWHERE = (
    "Give the network a fixed public projection of the inputs in place of the inputs. What is projected away "
    "cannot be in a gradient; how much of a picture is left depends on the number of directions. It is "
    "measured and proved for fully connected models (exan mitigate)."
)
_AVERAGE = (
    "Train on means of samples of one class, in groups that never change. What the network never sees cannot "
    "be in a gradient; it costs more accuracy."
)
_NOISE = (
    "Clip each sample's gradient and add noise (differential privacy). It bounds what anyone can learn of "
    "one sample, whatever they know; on little data it costs the most accuracy."
)
_USELESS = (
    "Do not count on fewer exclusive neurons, masked or withheld rows, sparsified gradients, small noise or "
    "networks without biases: with each of these whole batches came back."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to do, and the command that tries it on this batch; empty where there is none."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The answers to the four questions. ``severity``: ``all``, ``some`` or ``unknown``, for the colour."""

    what: str
    whom: str
    how_bad: str
    severity: str
    steps: tuple[Step, ...]


def advice(section: Section) -> Advice:
    """The four answers for one model and batch."""
    leaked = _leaked(section)
    return Advice(
        what=_what(section, leaked),
        whom=_whom(section),
        how_bad=_how_bad(section, leaked),
        severity="all" if leaked == section.size else "some" if leaked or _labels(section) else "unknown",
        steps=tuple(_steps(section)),
    )


def _leaked(section: Section) -> int:
    """Samples that are proved determined, recovered, or shown recognisably."""
    proved = () if section.audit is None else section.audit.verdict.samples
    count = 0
    for m in range(section.size):
        if leaks(section, m) or (proved and proved[m] is SampleStatus.DETERMINED):
            count += 1
    return count


def _labels(section: Section) -> int:
    """Labels that the attack found, of samples that it shows at all or knows the features of, or that are
    proved to be known with the features.
    """
    shown = (shown_of(section, m) for m in range(section.size))
    known = sum(1 for one in shown if one is not None and one.label != "-")
    proved = () if section.audit is None else section.audit.verdict.samples
    found = 0 if section.features is None else section.features.count
    return max(known, found, proved.count(SampleStatus.FEATURES))


def _what(section: Section, leaked: int) -> str:
    labels = _labels(section)
    if leaked:
        more = f", and {of(labels, section.size, 'label')}" if labels else ""
        some = of(leaked, section.size)
        return f"{some[0].upper()}{some[1:]}{more}, from one gradient: the inputs themselves, no statistics."
    if labels:
        pictures = sum(one.psnr >= RESEMBLES for one in estimates(section))
        more = (
            f" Estimated pictures have the main shapes of {of(pictures, section.size)}." if pictures else ""
        )
        return (
            f"{of(labels, section.size, 'label').capitalize()}, and what the connected layers were given "
            f"of the samples.{more}"
        )
    if section.audit is not None and section.audit.verdict.outcome is Outcome.AMBIGUOUS:
        return (
            "Part of the batch. Other batches have the same gradient, so it does not fix every sample; what "
            "all of these batches have in common is still given away."
        )
    return "Not known. Nothing was rebuilt and nothing is proved, which is no sign that nothing leaks."


def _whom(section: Section) -> str:
    release = None if section.audit is None else section.audit.release
    what = "this gradient" if release is None else f"what is sent of it ({release.described})"
    return (
        f"Everyone who sees {what} and the model: the server in federated learning, whoever reads its logs "
        "or traffic, and other participants where updates are shared. No access to the device is needed. If "
        "updates of several clients are added before anyone sees one, audit the sum, as one larger batch."
    )


def _how_bad(section: Section, leaked: int) -> str:
    size = section.size
    found = [r for r in section.recoveries or () if r is not None]
    if leaked == size:
        text = "As bad as it gets: every sample."
    elif leaked:
        text = f"Serious: {of(leaked, size)}; of the others nothing says that they are safe."
    else:
        text = "Not settled: no sample was rebuilt or shown in every detail."
        if _labels(section):
            text = "Serious: labels leak. No sample was rebuilt or shown in every detail."
    if found and not section.projected:
        worst = max(r.largest for r in found)
        text += f" Rebuilt inputs are off by at most {worst:.1e} in any entry."
    if section.audit is not None:
        bounds = [r for r in section.audit.radius if r is not None and r > 0]
        if bounds:
            least = min(bounds)
            far = "without limit" if least == float("inf") else f"by at least {least:.2g}"
            text += f" {of(len(bounds), size)} can move {far} in some entry; the cards show where."
    return text


def _steps(section: Section) -> Iterator[Step]:
    command = section.remedy
    if command:
        yield Step(
            text="See what each defence does to this batch: what is proved, what an attack gets, the cost.",
            command=f"{command} --report defences.html",
        )
    # those with convolutions have features that an attack is asked for, and no first layer to project before
    connected = section.audit is not None and section.features is None
    projection = _PROJECTION if connected else _PROJECTION_ELSEWHERE
    yield Step(text=projection, command=f"{command} --defence project-pca:8" if command else "")
    yield Step(text=_AVERAGE, command=f"{command} --defence average:4" if command else "")
    yield Step(text=_NOISE, command=f"{command} --defence clip-noise:1:1" if command else "")
    yield Step(text=_USELESS)
    yield Step(text="Audit other batches and later rounds too: this is one gradient of one model.")
