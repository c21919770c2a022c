"""``lossevo hof`` on the run of a real search."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3

import pytest

from lossevo.cli.hof import _training_line
from lossevo.experiment import Ledger
from lossevo.expression import Expression
from lossevo.search.equivalence import same_loss


@pytest.fixture
def entries(finished) -> list[dict]:
    return json.loads((finished.folder / "hall_of_fame.json").read_text(encoding="utf-8"))


def data_lines(out: str) -> list[str]:
    return [line for line in out.splitlines() if re.match(r" *\d+ +[0-9a-f]{8} ", line)]


class TestTable:
    def test_it_lists_the_ten_best(self, cli, finished, entries):
        said = cli("hof", finished.folder)
        assert (said.status, said.err) == (0, "")
        rows = data_lines(said.out)
        assert [row.split()[1] for row in rows[:10]] == [entry["id"] for entry in entries[:10]]
        for row, entry in zip(rows, entries, strict=False):
            assert f"{entry['score']:.4f}" in row
            assert f"({entry['seeds']})" in row
            assert ("[" in row.split(")")[0]) is not entry["confirmed"]
        assert "\x1b" not in said.out

    def test_it_explains_its_signs(self, cli, finished):
        out = cli("hof", finished.folder).out
        assert "biased by selection" in " ".join(out.split())
        assert "predicted probability (softmax)" in out

    @pytest.mark.parametrize("top", [1, 3, 1000])
    def test_top(self, cli, finished, entries, top):
        rows = data_lines(cli("hof", finished.folder, "--top", top).out)
        assert [row.split()[1] for row in rows[:top]] == [entry["id"] for entry in entries[:top]]
        assert any("hand-crafted" in row for row in rows), "what evolution had to beat is always there"

    def test_a_terminal_gets_no_wider_lines_than_it_has(self, finished):
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", finished.seen)
        assert max(len(line) for line in data_lines(plain)) <= 160


class TestPareto:
    def test_none_beats_another_and_each_other_is_beaten(self, cli, finished, entries):
        said = cli("hof", finished.folder, "--pareto")
        assert (said.status, said.err) == (0, "")
        listed = [row.split()[1] for row in data_lines(said.out)]
        compared = [entry for entry in entries if entry["confirmed"]]
        assert listed
        assert set(listed) <= {entry["id"] for entry in compared}
        assert f"No other of the {len(compared)} losses" in " ".join(said.out.split())
        best = [entry for entry in compared if entry["score"] == compared[0]["score"]]
        assert set(listed) & {entry["id"] for entry in best}, "none beats the best in score"

    def test_json_has_the_time_of_a_step(self, cli, finished, entries):
        found = json.loads(cli("hof", finished.folder, "--pareto", "--json").out)
        known = {entry["id"]: entry for entry in entries}
        for entry in found:
            assert entry.pop("ms_per_step") > 0
            assert entry == known[entry["id"]]

    def test_it_lists_and_does_not_show(self, cli, finished):
        said = cli("hof", finished.folder, "--pareto", "--show", "1")
        assert said.status == 2
        assert "--pareto lists losses and --show shows one; give one of the two" in " ".join(said.err.split())


class TestMap:
    def test_it_is_drawn(self, cli, finished, tmp_path):
        """Every candidate of the search is a point."""
        file = tmp_path / "map.svg"
        said = cli("hof", finished.folder, "--map", file)
        assert (said.status, said.err) == (0, "")
        shown = int(re.search(r"Map of (\d+) losses", said.out)[1])
        with Ledger(finished.folder / "ledger.sqlite", read_only=True) as ledger:
            assert shown == len({record.candidate for record in ledger.records()})
        assert "<svg" in file.read_text()

    @pytest.mark.parametrize(
        ("options", "complains"),
        [
            (["--map", "map.txt"], "a picture is written as SVG or PNG"),
            (["--map", "map.svg", "--json"], "--map draws the whole search; give it without"),
            (["--map", "map.svg", "--show", "1"], "--map draws the whole search; give it without"),
        ],
    )
    def test_what_is_wrong_is_said(self, cli, finished, options, complains):
        said = cli("hof", finished.folder, *options)
        assert said.status == 2
        assert complains in " ".join(said.err.split())


class TestJson:
    def test_it_is_what_the_file_holds(self, cli, finished, entries):
        said = cli("hof", finished.folder, "--json")
        assert (said.status, said.err) == (0, "")
        assert json.loads(said.out) == entries

    def test_top(self, cli, finished, entries):
        assert json.loads(cli("hof", finished.folder, "--json", "--top", 2).out) == entries[:2]

    def test_one_loss_in_full(self, cli, finished, entries):
        details = json.loads(cli("hof", finished.folder, "--show", 1, "--no-simplify", "--json").out)
        assert details.items() >= entries[0].items()
        assert Expression.parse(details["formula"]) == Expression.from_json(details["loss"]["expression"])
        assert "\\" in details["latex"]
        assert details["lineage"][0]["id"] == entries[0]["id"]
        trainings = details["trainings"]
        assert sum(training["phase"] == "confirmation" for training in trainings) == entries[0]["seeds"]
        for training in trainings:
            assert training["status"] == "done"
            assert training["steps"] == 2
            assert len(training["curve"]) == 2
            assert training["validation_curve"][-1] == [2, training["means"]["dice"]]


class TestShow:
    def test_everything_known_of_it(self, cli, finished, entries):
        said = cli("hof", finished.folder, "--show", 1)
        assert (said.status, said.err) == (0, "")
        for title in ("Formula", "Text", "LaTeX", "Tree", "Coefficients", "Lineage", "Trainings"):
            assert re.search(rf"^{title}\b", said.out, re.MULTILINE), title
        first = entries[0]
        for shown in (
            first["id"],
            first["formula"],
            first["unicode"],
            f"{first['score']:.4f}",
            *first["origin"]["parents"],
        ):
            assert shown in said.out
        assert re.search(r"step 2: 0\.\d{4}\)  loss [▁▂▃▄▅▆▇█]{2}", said.out)

    def test_by_id_or_rank(self, cli, finished, entries):
        by_rank = cli("hof", finished.folder, "--show", 2, "--no-simplify").out
        assert cli("hof", finished.folder, "--show", entries[1]["id"], "--no-simplify").out == by_rank
        assert cli("hof", finished.folder, "--show", entries[1]["id"][:6], "--no-simplify").out == by_rank

    def test_the_lineage_goes_back_to_where_it_began(self, cli, finished, entries):
        tuned = next(entry for entry in entries if entry["origin"]["kind"] == "tuned")
        lineage = json.loads(cli("hof", finished.folder, "--show", tuned["id"], "--no-simplify", "--json").out)[
            "lineage"
        ]
        assert lineage[1]["id"] in tuned["origin"]["parents"]
        assert [step["generation"] for step in lineage] == sorted(step["generation"] for step in lineage)
        assert len({step["id"] for step in lineage}) == len(lineage)
        assert re.match("random|hand-crafted", lineage[-1]["origin"])

    def test_the_formula_is_simplified(self, cli, finished, entries):
        """Every entry of this run: what is shown as simplified is shorter and the same loss."""
        for entry in entries[:2]:
            details = json.loads(cli("hof", finished.folder, "--show", entry["id"], "--json").out)
            original, simple = Expression.parse(entry["formula"]), details["simplified"]
            found = Expression.parse(simple["formula"])
            assert simple["complexity"] == found.complexity <= original.complexity
            assert bool(simple["note"]) == (found == original)
            assert same_loss(original)(found)

    def test_what_is_simpler_is_shown_beside_it(self, cli, finished, entries, tmp_path):
        run = shutil.copytree(finished.folder, tmp_path / "run")
        long = Expression.parse("1 - (1 - class_mean(mean(p * y + y * p)))")
        entry = {
            **entries[0],
            "loss": {"expression": long.to_json()},
            "formula": str(long),
            "complexity": long.complexity,
        }
        (run / "hall_of_fame.json").write_text(json.dumps([entry]))
        said = cli("hof", run, "--show", 1)
        assert (said.status, said.err) == (0, "")
        assert "Simplified, complexity 13 → 7" in said.out
        assert "2 * class_mean(mean(p * y))" in said.out
        assert r"2 \cdot \mu_{c}" in said.out
        plain = cli("hof", run, "--show", 1, "--no-simplify").out
        assert "implified" not in plain
        assert r"1 - \left(1 - \mu_{c}" in plain

    @pytest.mark.parametrize(("name", "begin"), [("tree.svg", b"<?xml"), ("tree.png", b"\x89PNG")])
    def test_its_tree_is_drawn(self, cli, finished, tmp_path, name, begin):
        said = cli("hof", finished.folder, "--show", 1, "--no-simplify", "--tree", tmp_path / name)
        assert (said.status, said.err) == (0, "")
        assert f"Tree drawn to {tmp_path / name}" in said.out
        assert (tmp_path / name).read_bytes().startswith(begin)

    def test_a_picture_of_another_format_is_refused_at_once(self, cli, finished):
        said = cli("hof", finished.folder, "--show", 1, "--tree", "tree.pdf")
        assert (said.status, said.out) == (2, "")
        assert "tree.pdf" in said.err
        assert ".svg or .png" in said.err

    @pytest.mark.parametrize("option", [("--tree", "tree.svg"), ("--no-simplify",)])
    def test_options_for_one_loss_need_one(self, cli, finished, option):
        said = cli("hof", finished.folder, *option)
        assert said.status == 2
        assert "--show RANK" in said.err

    @pytest.mark.parametrize("name", ["dice", "cross_entropy", "baikal"])
    def test_a_hand_crafted_loss(self, cli, finished, entries, name):
        entry = next(entry for entry in entries if entry["origin"].get("name") == name)
        said = cli("hof", finished.folder, "--show", entry["id"], "--no-simplify")
        assert said.status == 0
        assert f"hand-crafted: {name}" in said.out
        assert re.search(r"Coefficients\n  none", said.out)


def test_false_alarms_stand_beside_the_dice(cli, finished, tmp_path):
    """On the subjects whose labels lack a class, which no Dice counts."""
    run = shutil.copytree(finished.folder, tmp_path / "run")
    best = json.loads((run / "hall_of_fame.json").read_text())[0]["id"]
    with sqlite3.connect(run / "ledger.sqlite") as ledger:
        ledger.execute(
            "UPDATE trials SET measurement = json_set(measurement, '$.false_voxels', json(?)) WHERE candidate = ?",
            (json.dumps({"ball_01": {"cyst": 7, "tumour": 0}}), best),
        )
        (trainings,) = ledger.execute("SELECT COUNT(*) FROM trials WHERE candidate = ?", (best,)).fetchone()
    said = cli("hof", run)
    assert (said.status, said.err) == (0, "")
    assert "false alarms" in said.out
    assert re.search(rf"1 +{best} .* {trainings}/{2 * trainings} ", said.out)
    assert cli("hof", run, "--show", 1, "--no-simplify").out.count("false alarms 1/2") == trainings
    assert "false alarms" not in cli("hof", finished.folder).out


def test_each_mean_of_a_training_stands_behind_its_own_name():
    """The ledger gives metrics in the order of their names, where assd is before dice."""
    training = {
        "phase": "evolution", "seed": 1, "status": "done", "means": {"assd": 41.0891, "dice": 0.1104},
        "validation_curve": [[2, 0.1104]], "curve": [[1, 0.9], [2, 0.5]],
    }  # fmt: skip
    assert "Dice 0.1104 (step 2: 0.1104), assd 41.0891" in _training_line(training)
