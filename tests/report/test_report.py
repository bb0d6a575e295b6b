"""The report says what the audit says, in one file that loads nothing."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from exan_verify.api.attack_own_batch import Features, Recovery
from exan_verify.api.audit import audit
from exan_verify.core.network import ReluNetwork
from exan_verify.report import Section, render
from exan_verify.report.content import cards, headline, rows
from exan_verify.report.drawing import COLUMNS, MOST, draw
from exan_verify.report.html import heat

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


class Links(HTMLParser):
    """Collects what a page would load, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " if tag in ("td", "th") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Links:
    page = Links()
    page.feed(html)
    assert page.open == []
    return page


def test_one_file_that_loads_nothing_and_escapes_what_users_wrote():
    page = read(render("<script>alert(1)</script>", [section()]))
    (sheet,) = page.loaded
    assert picture(sheet).std() > 0.05
    html = render("<script>alert(1)</script>", [section()])
    assert "<script>" not in html
    assert "&lt;b&gt;my&lt;/b&gt;" in html
    assert not re.search(r"https?://|@import|url\(", html)


def test_inputs_that_are_no_pictures_give_a_report_without_pictures():
    page = read(render("t", [section(images=False)]))
    assert page.loaded == []
    assert "Originals" not in page.text
    flat = attacked(inputs=section(images=False).inputs)
    assert draw(flat) is None
    text = " ".join(read(render("t", [flat])).text.split())
    assert "1.0e-09 180.0 2.0e-08" in text
    assert "Originals" not in text


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


def test_recovered_samples_stand_below_the_originals_and_unclaimed_ones_are_marked():
    shown = attacked(attack_facts={"residual": "1e-16"})
    page = read(render("t", [shown]))
    (sheet,) = page.loaded
    text = " ".join(page.text.split())
    assert "rebuilt 2 of 3 samples" in headline(shown)
    assert "1.0e-09" in next(card.detail for card in cards(shown))
    assert "0 / 0 confirmed 1.0e-09 180.0 2.0e-08" in text
    assert "1 / - not found - - -" in text
    assert "1e-16" in text
    alone = picture(draw(section()).uri)
    assert picture(sheet).shape[0] > 1.5 * alone.shape[0]
    assert "originals above recovered" in render("t", [shown])


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
        assert "originals above recovered above candidate" in render("t", [shown])


def test_the_sheet_shows_the_recovered_values():
    plain = section(samples=3)
    dark = recovery(np.zeros(16), 0)
    one = picture(draw(attacked(recoveries=(dark, None, None))).uri)
    same = picture(draw(attacked(recoveries=(recovery(plain.inputs[0], 0), None, None))).uri)
    assert np.abs(one - same).max() > 0.3
    assert np.abs(picture(draw(attacked()).uri) - picture(draw(attacked()).uri)).max() == 0


def test_a_claim_beyond_its_bound_is_called_wrong():
    values = section().inputs[0]
    shown = attacked(recoveries=(recovery(values, 0, error=1e-3, bound=1e-6), None, None))
    assert "1 beyond their bounds" in next(card.detail for card in cards(shown))
    assert '<span class="pill wrong">wrong</span>' in render("t", [shown])


def test_large_batches_are_drawn_and_listed_in_part_and_say_so():
    html = render("t", [attacked(samples=70)])
    page = read(html)
    text = " ".join(page.text.split())
    assert "The first 48 samples are drawn; 22 more are not shown here." in text
    assert "6 more samples" in text
    assert text.count("69 4 / 69 confirmed") == 1
    assert page.text.count("hidden layer 1 (40)") == 3
    drawn = picture(page.loaded[0])
    assert drawn.shape[0] > 0.8 * drawn.shape[1] * (MOST / COLUMNS**2)
    small = render("t", [attacked()])
    assert "more are not shown" not in small
    widths = [int(re.search(r'width="(\d+)"', text).group(1)) for text in (html, small)]
    assert widths[0] > 900 > 450 > widths[1]


def test_a_model_without_exact_arguments_is_unknown_and_shows_the_attack():
    shown = attacked(
        audit=None,
        features=Features(count=3, bound=1e-9),
        estimates=(None, np.full(16, 0.5), None),
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
    assert "1 (0.5, 1) / - not found" in text
    for heading in ("Exclusivity map", "peelable", "ambiguity radius"):
        assert heading not in text
    assert "originals above recovered above estimated" in render("t", [shown])
    nothing = attacked(recoveries=(None,) * 3, estimates=(np.zeros(16),) * 3)
    assert draw(nothing).alt == "3 samples: originals above estimated"


@pytest.mark.parametrize("label", [(0.25, 0.125, 0.5, 1.0), 123456789012])
def test_labels_too_long_for_a_picture_are_left_to_the_table(label: object):
    assert draw(attacked(labels=(label,) * 3)).width == draw(attacked()).width
    assert (f"{label:g}" if isinstance(label, int) else "0.125, 0.5") in render(
        "t", [attacked(labels=(label,) * 3)]
    )


def test_shades_follow_the_counts():
    assert [heat(n) for n in (0, 1, 2, 3, 4, 7, 8, 1000)] == [0, 1, 2, 2, 3, 3, 4, 8]
