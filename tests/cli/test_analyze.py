"""``lossevo analyze``."""

from __future__ import annotations

import json

import pytest

from lossevo.export.document import LossDocument
from lossevo.expression import Expression
from lossevo.losses import names


@pytest.fixture
def loss_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(LossDocument(Expression.parse("-class_sum(mean(y * logp))"), {}).to_text())
    return path


def test_page_figures_and_tables(cli, tmp_path, loss_file):
    said = cli("analyze", "--losses", "boundary", "--loss-file", loss_file, "--out", tmp_path / "out")
    assert (said.status, said.err) == (0, "")
    for step, name in enumerate(("boundary", "mine"), start=1):
        assert f"[{step}/2] {name}" in said.out
    assert "Written to" in said.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("index.html", "analysis.json", "figures", "summary.csv"),
        *("profiles.csv", "distances.csv", "shares.csv", "responses.csv", "costs.csv"),
    }
    assert {path.suffix for path in (tmp_path / "out" / "figures").iterdir()} == {".png", ".svg"}


def test_json_is_the_document_and_nothing_else(cli, tmp_path):
    said = cli("analyze", "--losses", "dice", "--out", tmp_path / "out", "--json")
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out) == json.loads((tmp_path / "out" / "analysis.json").read_text())


def test_an_evolved_loss_of_a_run(cli, finished, tmp_path, monkeypatch):
    monkeypatch.setattr("lossevo.report.write", lambda analysis, folder: None)
    entries = json.loads((finished.folder / "hall_of_fame.json").read_text())
    rank = next(entry["rank"] for entry in entries if entry["origin"]["kind"] != "hand-crafted")
    said = cli("analyze", "--losses", "", "--hof", f"{finished.folder}:{rank}", "--out", tmp_path / "out", "--json")
    assert (said.status, said.err) == (0, "")
    (loss,) = json.loads(said.out)["losses"]
    assert (loss["name"], loss["family"]) == (f"run:{rank}", "evolved")
    assert f"rank {rank}" in loss["source"]


def test_a_hand_crafted_loss_of_a_run_keeps_its_family(cli, finished, tmp_path, monkeypatch):
    monkeypatch.setattr("lossevo.report.write", lambda analysis, folder: None)
    entries = json.loads((finished.folder / "hall_of_fame.json").read_text())
    rank = next(entry["rank"] for entry in entries if entry["origin"].get("name") == "dice")
    said = cli("analyze", "--losses", "", "--hof", f"{finished.folder}:{rank}", "--out", tmp_path / "out", "--json")
    assert (said.status, said.err) == (0, "")
    (loss,) = json.loads(said.out)["losses"]
    assert (loss["name"], loss["family"]) == (f"run:{rank}", "region")


def test_without_a_choice_it_is_the_whole_catalogue(cli, tmp_path, monkeypatch):
    asked = []

    def stop(losses, *, progress):
        asked.extend(loss.name for loss in losses)
        raise SystemExit(0)

    monkeypatch.setattr("lossevo.analysis.analyze", stop)
    cli("analyze", "--out", tmp_path / "out")
    assert asked == list(names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--losses", "dise", "--out", "new"], "did you mean 'dice'"),
        (["--losses", "dice,dice", "--out", "new"], "the same loss twice"),
        (["--losses", "dice"], "--out is missing"),
        (["--hof", "nowhere:1", "--out", "new"], "nowhere"),
        (["--loss-file", "nowhere", "--out", "new"], "nowhere"),
        (["--losses", "", "--out", "new"], "no loss"),
        (["--losses", "dice", "--out", "."], "nothing is overwritten"),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(cli, tmp_path, arguments, message):
    (tmp_path / "here" / "mine.txt").write_text("mine")
    said = cli("analyze", *arguments)
    assert said.status == 2
    assert said.err.startswith("lossevo: ")
    assert said.err.count("\n") == 1
    assert message in said.err
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["mine.txt"]
