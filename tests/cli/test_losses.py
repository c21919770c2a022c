"""``lossevo losses``: the catalogue as a table, one loss in full, and both as JSON."""

from __future__ import annotations

import io
import json
import re

import pytest
from rich.console import Console

from lossevo.cli import losses as command
from lossevo.losses import describe, explain, names, parameters

FAMILIES = ["distribution", "region", "distance", "compound", "adaptive", "learned"]


def squeezed(text: str) -> str:
    """Without line breaks and other runs of blanks."""
    return " ".join(text.split())


class TestTable:
    def test_every_loss_is_there_once_in_the_order_of_the_catalogue(self, cli):
        said = cli("losses")
        assert (said.status, said.err) == (0, "")
        listed = [line.split()[0] for line in said.out.splitlines() if re.match(r" {3}\w", line)]
        assert listed == list(names())
        assert "lossevo losses show NAME" in said.out

    def test_families_are_headings(self, cli):
        headings = [line.strip() for line in cli("losses").out.splitlines() if re.match(r" \w+ *$", line)]
        assert headings == FAMILIES

    @pytest.mark.parametrize("family", FAMILIES)
    def test_one_family(self, cli, family):
        out = cli("losses", "--family", family).out
        listed = [line.split()[0] for line in out.splitlines() if re.match(r" {3}\w", line)]
        assert listed == [name for name in names() if describe(name).family == family]

    def test_an_unknown_family(self, cli):
        said = cli("losses", "--family", "regions")
        assert said.status == 2
        assert "'region'" in said.err

    @pytest.mark.parametrize("width", [100, 150])
    def test_nothing_is_cut_off(self, width):
        """Cells may be wrapped, but what they say is all there and no line is wider than the terminal."""
        out = io.StringIO()
        Console(file=out, width=width).print(command._table([explain(name) for name in names()]))
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        start = lines[1].index("formula"), lines[1].index("parameters")
        cells = {
            side: squeezed(" ".join(line[slice(*side)] for line in lines))
            for side in ((start[0], start[1]), (start[1], None))
        }
        for name in names():
            description = describe(name)
            left, right = cells.values()
            assert squeezed(description.formula) in left
            assert squeezed(description.purpose) in left
            assert squeezed(description.source) in right
            assert all(f"{parameter}=" in right for parameter in parameters(name))


class TestShow:
    @pytest.mark.parametrize("name", names())
    def test_everything_known_of_it(self, cli, name):
        said = cli("losses", "show", name)
        assert (said.status, said.err) == (0, "")
        explanation = explain(name)
        out = squeezed(said.out)
        for text in (explanation.summary, explanation.formula, explanation.purpose, explanation.source):
            assert squeezed(text) in out
        for text in explanation.text.splitlines():
            assert squeezed(text) in out
        for parameter in explanation.parameters:
            assert re.search(rf"^  {parameter.name} = ", said.out, re.MULTILINE)
        for line in explanation.usage.splitlines():
            assert line in said.out
        for relation in explanation.relations:
            assert str(relation) in out
        assert (explanation.expression is None) is ("loss language" not in said.out)
        assert "\x1b" not in said.out

    def test_an_unknown_loss_gives_the_nearest(self, cli):
        said = cli("losses", "show", "tverski")
        assert said.status == 2
        assert said.err.startswith("lossevo: unknown loss 'tverski' (did you mean 'tversky'?); known: ")
        assert said.err.count("\n") == 1

    def test_it_has_help(self, cli):
        said = cli("losses", "show", "--help")
        assert said.status == 0
        assert "lossevo losses show tversky" in said.out


class TestJson:
    def test_one_loss(self, cli):
        document = json.loads(cli("losses", "show", "tversky", "--json").out)
        assert document["name"] == "tversky"
        assert document["family"] == "region"
        assert document["parameters"][0] == {"name": "w_fp", "default": 0.3, "meaning": "weight of false positives."}
        assert "foreground_mean" in document["expression"]
        assert "dice(smooth=0) = tversky(w_fp=0.5, w_fn=0.5, smooth=0)" in document["relations"]

    def test_the_list_holds_what_show_tells(self, cli):
        documents = json.loads(cli("losses", "--json").out)
        assert [document["name"] for document in documents] == list(names())
        for document in documents[:3]:
            assert document == json.loads(cli("losses", "show", document["name"], "--json").out)

    def test_one_family(self, cli):
        documents = json.loads(cli("losses", "--json", "--family", "learned").out)
        assert [document["name"] for document in documents] == ["baikal", "baikal_cma"]

    def test_before_show_it_is_refused(self, cli):
        said = cli("losses", "--json", "show", "dice")
        assert said.status == 2
        assert "lossevo losses show NAME --json" in said.err


def test_the_name_of_a_loss_alone_is_told_how_to_ask(cli):
    said = cli("losses", "tversky")
    assert (said.status, said.out) == (2, "")
    assert said.err == "lossevo: 'lossevo losses tversky' is no command; write: lossevo losses show tversky\n"
