"""The page: complete, and readable without anything else."""

from __future__ import annotations

import io
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from lossevo.cli.tables import rows_table
from lossevo.losses import names
from lossevo.report.page import number, percent, terminal_rows


class Page(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_nothing_is_fetched_from_elsewhere(page):
    sources = [value for _, attributes in page.elements for name, value in attributes.items() if name == "src"]
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert all(link["href"].startswith("#") for link in page.all("a"))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not re.search(r"url\(|@import", page.text)


def test_every_figure_is_inside_with_a_text_for_who_cannot_see_it(page, folder):
    images = page.all("img")
    assert len(images) == len(list((folder / "figures").glob("*.svg")))
    assert all(len(image["alt"]) > 60 for image in images)


def test_every_link_leads_somewhere(page):
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= targets


def test_every_loss_has_formula_source_and_row(page, analysis):
    for loss in analysis.losses:
        assert page.text.count(loss.name) >= 2
        assert loss.formula in page.text
        assert loss.source in page.text
    assert not page.all("b") or "<b>with &" in page.text  # a name is text, whatever it is


def test_a_constant_loss_is_shown_with_dashes(page):
    section = page.text[page.text.rindex("constant") :]
    assert "– of it falls on the foreground" in section


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.50"),
        (27.08, "27.1"),
        (383.4, "383"),
        (2e7, "2.0e+07"),
        (1e-5, "1.0e-05"),
        (0.0, "0.00"),
        (math.nan, "–"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_percentages():
    assert (percent(0.523), percent(math.nan)) == ("52 %", "–")


def test_the_terminal_gets_one_row_per_loss(analysis):
    rows = terminal_rows(analysis)
    assert [row["loss"] for row in rows] == [loss.name for loss in analysis.losses]
    assert (rows[0]["start"], rows[0]["miss"]) == ("5 %", "0.50")


def test_the_table_of_the_catalogue_fits_in_80_columns():
    widest = {"loss": max(names(), key=len), "start": "68 %", "late": "80 %", "shift": "0.50", "miss": "12.4"}
    stream = io.StringIO()
    Console(file=stream, width=80).print(rows_table([{**widest, "false": "27.1", "ms": "1000", "saved": "30.0"}]))
    assert "…" not in stream.getvalue()
