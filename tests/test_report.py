"""The report says what the audit says, in one file that loads nothing."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from exan_verify.auditing import audit
from exan_verify.network import ReluNetwork
from exan_verify.report import Recovery, Section, render
from exan_verify.report.content import cards, headline, rows
from exan_verify.report.html import heat
from exan_verify.report.png import Canvas, encode

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
    return Section(title="<b>my</b> model", audit=audit(NETWORK, (shown, y)), inputs=shown)


def decode(png: bytes) -> np.ndarray:
    """A small reader for the PNGs made here: eight bits, filter type 0."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (length,), kind = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        content = png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + content)
        chunks[kind] = content
        at += 12 + length
    width, height, _, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    values = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not values[:, 0].any()
    return values[:, 1:] if colour == 0 else values[:, 1:].reshape(height, width, 3)


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3)])
def test_pictures_come_back_from_their_files(shape: tuple[int, ...]):
    pixels = RNG.integers(0, 256, size=shape, dtype=np.uint8)
    assert np.array_equal(decode(encode(pixels)), pixels)


def test_which_batches_are_pictures_and_how_they_are_drawn():
    for shape in [(2, 9), (2, 1, 9), (2, 4, 3, 3), (2, 2, 2, 2, 2)]:
        assert Canvas.of(np.zeros(shape)) is None
    gray = Canvas.of(np.array([[[0.0, 0.2], [1.0, 0.4]]]))
    assert decode(base64.b64decode(gray.draw([[-1, 0.2], [2, 1]]).split(",")[1])).tolist() == [
        [0, 51],
        [255, 255],
    ]
    shifted = Canvas.of(np.array([[[[-2.0, 0.0], [2.0, 1.0]]]]))
    assert decode(base64.b64decode(shifted.draw([[-2, 0], [2, 1]]).split(",")[1])).tolist() == [
        [0, 128],
        [255, 191],
    ]
    assert Canvas.of(np.full((1, 2, 2), 7.0)).draw(np.full(4, 7.0))
    colour = Canvas.of(np.zeros((1, 3, 2, 2)))
    red = np.stack([np.ones((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))])
    assert decode(base64.b64decode(colour.draw(red).split(",")[1]))[0, 0].tolist() == [255, 0, 0]


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

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> Links:
    page = Links()
    page.feed(html)
    assert page.open == []
    return page


def test_one_file_that_loads_nothing_and_escapes_what_users_wrote():
    page = read(render("<script>alert(1)</script>", [section()]))
    assert len(page.loaded) == 3
    assert all(link.startswith("data:image/png;base64,") for link in page.loaded)
    html = render("<script>alert(1)</script>", [section()])
    assert "<script>" not in html
    assert "&lt;b&gt;my&lt;/b&gt;" in html
    assert not re.search(r"https?://|@import|url\(", html)


def test_inputs_that_are_no_pictures_give_a_report_without_pictures():
    page = read(render("t", [section(images=False)]))
    assert page.loaded == []
    assert "original" not in page.text


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
    free = [row.radius for row in rows(twins)][:2]
    assert all(radius == "not decided" or float(radius) > 0 for radius in free)


def test_recovered_samples_stand_beside_the_originals_and_unclaimed_ones_are_marked():
    plain = section()
    recoveries = (
        Recovery(values=plain.inputs[0].reshape(-1), label=0, rmse=1e-9, bound=2e-8, how="lifting"),
        None,
        Recovery(values=plain.inputs[2].reshape(-1), label=2, rmse=3e-4, bound=1e-3, how="lifting"),
    )
    attacked = Section(
        title="t",
        audit=plain.audit,
        inputs=plain.inputs,
        recoveries=recoveries,
        attack_facts={"residual": "1e-16"},
    )
    page = read(render("t", [attacked]))
    assert len(page.loaded) == 5
    assert "rebuilt 2 of 3 samples" in headline(attacked)
    assert "3.0e-04" in next(card.detail for card in cards(attacked))
    assert "1 / not claimed" in page.text
    assert "1e-16" in page.text


def test_shades_follow_the_counts():
    assert [heat(n) for n in (0, 1, 2, 3, 4, 7, 8, 1000)] == [0, 1, 2, 2, 3, 3, 4, 8]
