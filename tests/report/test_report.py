"""The report says what the audit says, in one file that loads nothing."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from exan_verify.api.attack_own_batch import Features, Recovery
from exan_verify.api.audit import audit
from exan_verify.core.network import ReluNetwork
from exan_verify.core.verdict import Outcome, SampleStatus
from exan_verify.report import Section, render
from exan_verify.report.advice import advice
from exan_verify.report.content import cards, headline, rows
from exan_verify.report.drawing import LONGEST, MAP_COLUMNS, Drawer, neuron_map
from exan_verify.report.html import heat, sharing
from exan_verify.report.samples import MOST, sample_cards

RNG = np.random.default_rng(3)
NETWORK = ReluNetwork.from_arrays(
    [RNG.normal(size=(40, 16)), RNG.normal(size=(5, 40))], [RNG.normal(size=40), RNG.normal(size=5)]
)


def section(images: bool = True, samples: int = 3, twin: bool = False) -> Section:
    x = np.random.default_rng(5).random((samples, 4, 4))
    if twin:
        x[1] = x[0]
    y = np.arange(samples) % 5
    y[1] = y[0] if twin else y[1]
    shown = x if images else x.reshape(samples, 16)
    found = audit(NETWORK, (shown, y), work_limit=None if samples < 9 else 1)
    return Section(title="<b>my</b> model", inputs=shown, labels=found.classes, audit=found)


def recovery(values: np.ndarray, label: int, error: float = 1e-9, bound: float = 2e-8) -> Recovery:
    return Recovery(
        values=values, label=label, rmse=error, largest=error, psnr=180.0, bound=bound, how="lifting"
    )


def attacked(samples: int = 3, **more: object) -> Section:
    plain = section(samples=samples)
    made = [recovery(plain.inputs[m].reshape(-1), m) for m in range(samples)]
    made[1] = None
    return Section(
        **{
            "title": "t",
            "inputs": plain.inputs,
            "labels": plain.labels,
            "audit": plain.audit,
            "recoveries": tuple(made),
            **more,
        }
    )


def picture(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(matplotlib.image.imread(io.BytesIO(base64.b64decode(content)), format="png"))[..., :3]


class Page(HTMLParser):
    """A page's text, what it would load, and whether it is well formed: tags closed in order, one title and
    main heading, headings without gaps, names of pictures, scopes of headings of tables, no name twice."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.names: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href") and tag != "link"]
        assert tag != "link" or (given["rel"], given["href"]) == ("icon", "data:,")
        assert tag != "img" or given["alt"]
        assert tag != "th" or given["scope"] in ("row", "col")
        self.names += [given["id"]] if "id" in given else []
        if "aria-labelledby" in given:
            self.names.append("->" + given["aria-labelledby"])
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def check(self) -> None:
        assert self.open == []
        assert [self.tags.count(tag) for tag in ("title", "h1", "main", "footer")] == [1] * 4
        levels = [int(tag[1]) for tag in self.tags if tag in ("h1", "h2", "h3", "h4")]
        assert all(after <= before + 1 for before, after in pairwise(levels))
        ids = [name for name in self.names if not name.startswith("->")]
        assert len(ids) == len(set(ids))
        assert {name[2:] for name in self.names if name.startswith("->")} <= set(ids)


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.check()
    return page


def drawn(shown: Section) -> list[tuple[str, list[str]]]:
    """Of every sample's card the tag and the captions of its pictures."""
    made = sample_cards(shown, Drawer(shown.inputs))
    return [(card.tag, [one.caption for one in card.pictures]) for card in made]


def test_one_file_that_loads_nothing_and_escapes_what_users_wrote():
    html = render("<script>alert(1)</script>", [section()])
    *originals, neurons = read(html).loaded
    assert [picture(uri).shape for uri in originals] == [(4, 4, 3)] * 3
    assert picture(neurons).shape == (1, 40, 3)
    assert "<script>" not in html
    assert "&lt;b&gt;my&lt;/b&gt;" in html
    assert not re.search(r"https?://|@import|url\(", html)


def test_pictures_are_the_samples_pixel_by_pixel_and_flat_squares_are_guessed():
    x = np.random.default_rng(2).random((2, 64))
    for inputs, shape, guessed in (
        (x.reshape(2, 8, 8), (8, 8), False),
        (x, (8, 8), True),
        (x[:, :63], None, False),
        (np.concatenate([x, x, x], axis=1), (3, 8, 8), True),
        (x[:, :16], None, False),
    ):
        drawer = Drawer(inputs)
        assert (drawer.shape, drawer.guessed) == (shape, guessed)
        if shape is None:
            assert drawer.draw(inputs[0]) is None
            continue
        seen = picture(drawer.draw(inputs[0]))
        wanted = np.moveaxis(np.broadcast_to(inputs[0].reshape(shape), (3, 8, 8)), 0, -1)
        assert np.abs(seen - wanted).max() < 2 / 255
    told = " ".join(read(render("t", [attacked(inputs=np.ones((3, 784)), recoveries=None)])).text.split())
    assert "pictures of 28 × 28, guessed from 784 entries" in told


def test_large_pictures_are_averaged_down():
    wide = np.zeros((1, 3, 2 * LONGEST, LONGEST))
    wide[:, :, ::2] = 1
    small = picture(Drawer(wide).draw(wide[0]))
    assert small.shape == (LONGEST, LONGEST // 2, 3)
    assert np.abs(small - 0.5).max() < 2 / 255


def test_features_that_are_proved_are_in_the_headline():
    plain = section(samples=3)
    statuses = (SampleStatus.FEATURES, SampleStatus.FEATURES, SampleStatus.UNKNOWN)
    verdict = replace(plain.audit.verdict, outcome=Outcome.UNKNOWN, samples=statuses)
    said = headline(replace(plain, audit=replace(plain.audit, verdict=verdict)))
    assert "features and labels of 2 of 3 samples are proved to be in every batch that has it." in said
    assert "no sample" not in said


def test_inputs_that_are_no_pictures_give_a_report_without_pictures_of_them():
    page = read(render("t", [section(images=False)]))
    assert [picture(uri).shape for uri in page.loaded] == [(1, 40, 3)]
    flat = attacked(inputs=section(images=False).inputs)
    text = " ".join(read(render("t", [flat])).text.split())
    assert "1.0e-09 180.0 2.0e-08" in text
    assert "no entry off by more than 1.0e-\u206009" in text, "a narrow page does not break the number"


def test_the_report_says_what_was_decided_and_what_it_does_not_mean():
    text = " ".join(read(render("t", [section()])).text.split())
    for sentence in (
        "This gradient fits one batch only, and that is proved.",
        "real arithmetic on the stored numbers",
        "Non-unique is not private.",
        "Undecided is not safe.",
        "hidden layer 1 (40)",
    ):
        assert sentence in text


def test_equal_samples_are_free_and_never_said_not_to_move():
    twins = section(twin=True)
    by_name = {card.name: card for card in cards(twins)}
    assert by_name["Certified verdict"].value == "AMBIGUOUS"
    assert "0 of 3 samples cannot move" in by_name["Ambiguity radius"].detail
    free = [row.exact.radius for row in rows(twins)][:2]
    assert all(radius == "not decided" or float(radius) > 0 for radius in free)


def test_every_sample_has_a_card_with_its_verdict_and_what_was_rebuilt():
    shown = attacked(attack_facts={"residual": "1e-16"})
    assert drawn(shown) == [
        ("leaked", ["original", "rebuilt"]),
        ("determined", ["original"]),
        ("leaked", ["original", "rebuilt"]),
    ]
    page = read(render("t", [shown]))
    text = " ".join(page.text.split())
    assert "rebuilt 2 of 3 samples" in headline(shown)
    assert "1.0e-09" in next(card.detail for card in cards(shown))
    assert "0 / 0 confirmed 1.0e-09 180.0 2.0e-08" in text
    assert "1 / - not found - - -" in text
    assert "1e-16" in text
    assert text.count("The attack rebuilt it from the gradient alone") == 2
    assert text.count("The attack did not find it, which does not make it safe.") == 1
    assert text.count("It cannot move") == 3


def test_what_leaks_to_whom_how_bad_and_what_to_do():
    said = advice(attacked(remedy="exan mitigate model batch"))
    assert said.what.startswith("All 3 samples, and 2 of 3 labels")
    assert (said.severity, "every sample" in said.how_bad) == ("all", True)
    assert said.whom.startswith("Everyone who sees this gradient and the model")
    named = [step.command.split()[-1] for step in said.steps if step.command]
    assert named == ["defences.html", "project-pca:8", "average:4", "clip-noise:1:1"]
    assert not any(step.command for step in advice(attacked()).steps)
    nothing = attacked(audit=None, recoveries=(None,) * 3)
    assert advice(nothing).severity == "unknown"
    assert "no sign that nothing leaks" in advice(nothing).what
    labels = attacked(audit=None, recoveries=(None,) * 3, features=Features(count=3, bound=1e-9))
    assert (advice(labels).severity, advice(labels).what[:12]) == ("some", "All 3 labels")
    pictures = attacked(features=Features(count=3, bound=1e-9))  # proved too
    for shown, offered in ((attacked(), True), (labels, False), (pictures, False)):
        assert any("project_inputs" in step.text for step in advice(shown).steps) is offered


def test_a_free_sample_is_shown_as_another_batch_has_it_and_how_far_it_moves():
    twins = section(twin=True)
    moved = np.array(twins.inputs, dtype=np.float64).reshape(3, 16)
    moved[0, 5] += 0.25
    inputs = moved.astype(object)
    witness = SimpleNamespace(batch=SimpleNamespace(inputs=inputs), generators=(), radius=None)
    verdict = SimpleNamespace(
        samples=(SampleStatus.FREE, SampleStatus.FREE, SampleStatus.DETERMINED), witness=witness
    )
    span = float(twins.inputs.max() - twins.inputs.min())
    found = SimpleNamespace(verdict=verdict, radius=(0.25, 1e-6, 0.0))
    first, second, third = sample_cards(replace(twins, audit=found), Drawer(twins.inputs))
    assert [one.caption for one in first.pictures] == ["original", "another batch"]
    assert f"by 0.25 in some entry, {0.25 / span:.1%} of the range" in first.moves
    assert "1 of its 16 entries differ, by up to 0.25" in first.moves
    assert len(second.pictures) == 1
    assert "too little to hide anything" in second.moves
    assert third.moves.startswith("It cannot move")
    step = np.zeros((3, 16), dtype=object)
    step[0, 3:5] = 10**400
    witness.batch, witness.generators = None, (step, (np.arange(16), (1,)))
    found.radius = (math.inf, None, 0.0)
    first, second, _ = sample_cards(replace(twins, audit=found), Drawer(twins.inputs))
    assert first.moves.startswith("It can move without limit")
    assert "change 2 of its 16 entries" in first.moves
    assert "no bound for how far was proved. The motions listed change 15 of" in second.moves
    assert [one.caption for one in first.pictures] == ["original", "where it may move"]


def test_the_exclusivity_map_has_a_square_for_every_neuron_and_says_how_many_share():
    active_for = [0, 1, 1, 2, 3, 4, 5, 9] * 64
    assert sharing(active_for, 9) == [
        ("no sample", 64),
        ("one sample only", 128),
        ("2 samples", 64),
        ("3 to 4 samples", 128),
        ("5 to 8 samples", 64),
        ("9 samples", 64),
    ]
    assert sharing([0, 1, 1], 1) == [("no sample", 1), ("one sample only", 2)]
    pixels = picture(neuron_map(active_for, 9)).reshape(-1, 3)
    assert len(pixels) == 512
    assert MAP_COLUMNS == 64
    exclusive = pixels[:, 0] > 1.5 * pixels[:, 2]
    assert exclusive.tolist() == [n == 1 for n in active_for]
    counts = section().audit.exclusivity
    assert [sum(n == 1 for n in layer) for layer in counts.active_for] == [sum(row) for row in counts.counts]
    assert picture(neuron_map([1] * 70, 3)).shape == (2, 64, 3)


def test_readable_candidates_are_leaks_and_others_are_not():
    values = section().inputs[0]
    near = replace(recovery(values, 0, error=1e-2, bound=np.inf), psnr=40.0, tier="candidate")
    far = replace(near, psnr=5.0)
    for candidate, counted in ((near, 1), (far, 0)):
        shown = attacked(recoveries=(None,) * 3, candidates=(None, candidate, None))
        card = next(iter(cards(shown)))
        assert (card.value, card.tone) == (f"{counted} of 3", "bad" if counted else "plain")
        assert ("can be recognised" in headline(shown)) == bool(counted)
        assert '<span class="pill candidate">candidate</span>' in render("t", [shown])
        assert drawn(shown)[1] == ("leaked" if counted else "determined", ["original", "candidate"])


def test_of_a_projection_only_what_can_be_recognised_has_leaked():
    values = section().inputs[0]
    far, near = replace(recovery(values, 0, error=0.3), psnr=9.0), replace(recovery(values, 0), psnr=25.0)
    shown = attacked(audit=None, recoveries=(far, near, far), projected=True)
    assert [tag for tag, _ in drawn(shown)] == ["undecided", "leaked", "undecided"]
    assert (next(cards(shown)).value, advice(shown).severity) == ("1 of 3", "some")
    assert "rebuilt what is sent of all 3 samples" in headline(shown)


def test_the_recovered_values_are_drawn():
    shown = attacked(recoveries=(recovery(np.zeros(16), 0), None, None))
    first, *_ = sample_cards(shown, Drawer(shown.inputs))
    original, rebuilt = (picture(one.uri) for one in first.pictures)
    assert rebuilt.max() == 0 < original.max()


def test_a_claim_beyond_its_bound_is_called_wrong():
    values = section().inputs[0]
    shown = attacked(recoveries=(recovery(values, 0, error=1e-3, bound=1e-6), None, None))
    assert "1 beyond their bounds" in next(card.detail for card in cards(shown))
    assert '<span class="pill wrong">wrong</span>' in render("t", [shown])


def test_large_batches_are_drawn_and_listed_in_part_and_say_so():
    page = read(render("t", [attacked(samples=70)]))
    text = " ".join(page.text.split())
    assert f"The first {MOST} samples are shown; {70 - MOST} more are in the table only." in text
    assert "6 more samples" in text
    assert text.count("69 4 / 69 confirmed") == 1
    assert page.text.count("hidden layer 1 (40)") == 3
    assert page.tags.count("article") == MOST
    assert "in the table only" not in render("t", [attacked()])


def test_a_model_without_exact_arguments_is_unknown_and_shows_the_attack():
    guess = replace(recovery(np.full(16, 0.5), 1, 0.2, math.inf), psnr=14.0, tier="estimate")
    shown = attacked(
        audit=None,
        features=Features(count=3, bound=1e-9),
        estimates=(None, guess, None),
        labels=(0, (0.5, 1.0), 2),
    )
    assert [card.name for card in cards(shown)] == ["Attack", "Features and labels"]
    assert "Nothing is proved" in headline(shown)
    assert "rebuilt 2 of 3 samples, and features and labels of all 3 samples" in headline(shown)
    assert [row.exact for row in rows(shown)] == [None] * 3
    page = read(render("t", [shown]))
    text = " ".join(page.text.split())
    assert "UNKNOWN: exact arguments are for fully connected networks" in text
    assert "Nothing is claimed about estimates." in text
    assert "1 (0.5, 1) / 1 estimate 2.0e-01 14.0 -" in text
    assert "with its main shapes" in text
    assert "Exclusivity map" not in text
    assert '<th scope="col">peelable</th>' not in render("t", [shown])
    assert drawn(shown)[1] == ("label leaked", ["original", "estimated"])
    nothing = attacked(
        audit=None, recoveries=(None,) * 3, estimates=(guess,) * 3, features=Features(count=3, bound=1e-9)
    )
    assert next(cards(nothing)).value == "3 estimated"
    assert "and estimated 3 pictures from them" in headline(nothing)
    assert "main shapes of all 3 samples" in advice(nothing).what
    told = "The attack rebuilt its features and label, not the picture"
    whole = attacked(recoveries=(None,) * 3, features=Features(count=3, bound=1e-9))
    assert render("t", [whole]).count(told) == 3
    some = replace(whole, features=Features(count=2, bound=1e-9))
    assert told not in render("t", [some])
    clear = attacked(audit=None, recoveries=(None,) * 3, estimates=(replace(guess, psnr=30.0),) * 3)
    assert (next(cards(clear)).value, drawn(clear)[0][0]) == ("3 of 3", "leaked")


def test_thirty_two_digits_take_less_than_three_megabytes():
    x = np.random.default_rng(1).random((32, 784))
    made = tuple(recovery(row, 0) for row in x)
    shown = Section(
        title="t",
        inputs=x,
        labels=(0,) * 32,
        audit=None,
        recoveries=made,
        estimates=made,
        files={"model": "m"},
    )
    assert len(render("t", [shown])) < 3 << 20


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="the report is opened in Chromium, which is not installed")
def test_a_browser_opens_the_report_without_a_complaint_or_a_request(tmp_path: Path):
    (tmp_path / "report.html").write_text(render("t", [attacked(remedy="exan mitigate " + "model " * 30)]))
    # asks a browser at a phone's width whether the page is wider than that
    probe = "<iframe src='report.html' width=400 height=900 onload='said()'></iframe><p></p>"
    probe += "<script>function said(){"
    probe += "const d = document.querySelector('iframe').contentDocument.documentElement;"
    probe += (
        "document.querySelector('p').textContent = `wide ${d.scrollWidth} of ${d.clientWidth}`;}</script>"
    )
    (tmp_path / "probe.html").write_text(probe)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"]
    shown = subprocess.run(
        [*command, f"file://{tmp_path / 'probe.html'}"], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        pytest.skip("Chromium does not start here")
    assert "CONSOLE" not in shown.stderr
    found = re.search(r"<p>wide (\d+) of (\d+)</p>", shown.stdout)
    assert found is not None, shown.stderr[-2000:]
    assert int(found[1]) <= int(found[2]) <= 400


def test_inputs_that_are_no_pictures_are_shown_as_numbers():
    drawn = attacked()
    flat = replace(drawn, inputs=np.asarray(drawn.inputs).reshape(3, 16)[:, :15])
    flat = replace(flat, recoveries=tuple(r and replace(r, values=r.values[:15]) for r in flat.recoveries))
    cards = list(sample_cards(flat, Drawer(flat.inputs)))
    for m, card in enumerate(cards):
        numbers = ", ".join(f"{value:.3g}" for value in flat.inputs[m][:6])
        assert all(picture.uri is None for picture in card.pictures)
        assert card.pictures[0].lines[0] == f"{numbers}, ..."
        assert "visible" not in str(card.pictures)
        assert "pixel" not in card.verdict
    page = render("t", [flat])
    assert f"<br>{cards[0].pictures[1].lines[0]}<br>" in page
    assert all(
        "..." not in line
        for card in sample_cards(drawn, Drawer(drawn.inputs))
        for line in card.pictures[0].lines
    )


def test_shades_follow_the_counts():
    assert [heat(n) for n in (0, 1, 2, 3, 4, 7, 8, 1000)] == [0, 1, 2, 2, 3, 3, 4, 8]
