"""``lossevo evaluate --train-fraction``: trainings with a part of the training subjects."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

ARGUMENTS = ("--losses", "dice,cross_entropy", "--metrics", "dice,hd95", "--folds", 2, "--steps", 2, "--seeds", 2)
SAME = ("cases.csv", "summary.csv", "comparisons.csv", "pairs.csv", "ranks.csv", "challenger.csv", "folds.json")


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def evaluate(cli, cohort, *more):
    return cli("evaluate", "--data", cohort, *ARGUMENTS, "--in-process", *more)


def test_the_main_result_is_the_same_and_fractions_come_on_top(cli, cohort):
    assert evaluate(cli, cohort, "--out", "plain").status == 0
    said = evaluate(cli, cohort, "--out", "cmp", "--train-fraction", "0.2,0.6,1")
    assert (said.status, said.err) == (0, "")
    words = " ".join(said.out.split())
    assert "24 trainings of 2 steps, 16 of them with 0.6, 0.2 of the training subjects." in words
    assert "[9/24] dice, fold 1, seed 0, fraction 0.6: dice 0." in words
    assert "Data utilisation: Dice by the share of the training subjects" in words
    assert "With 0.2 of the training subjects (1 subject) losses reach" in words
    assert "fractions.csv, fraction_cases.csv, figures/data-fractions.png" in words
    for name in SAME:
        assert Path("cmp", name).read_text() == Path("plain", name).read_text()
    assert Path("cmp/figures/data-fractions.svg").is_file()
    assert "## Data utilisation" in Path("cmp/table.md").read_text(encoding="utf-8")

    cases = rows_of("cmp/fraction_cases.csv")
    assert list(cases[0]) == ["fraction", *rows_of("cmp/cases.csv")[0]]
    assert [row["fraction"] for row in cases] == ["0.6"] * 36 + ["0.2"] * 36  # 9 subjects, 2 losses, 2 seeds
    summary = rows_of("cmp/fractions.csv")
    assert len(summary) == 2 * 2 * 3
    for row in summary:
        of_whole = rows_of("cmp/cases.csv") if row["fraction"] == "1" else cases
        values = [
            float(one[row["metric"]])
            for one in of_whole
            if one["loss"] == row["loss"] and float(one.get("fraction", 1)) == float(row["fraction"])
        ]
        assert float(row["mean"]) == pytest.approx(sum(values) / len(values), abs=1e-6)
    sizes = {(row["fraction"], row["fewest_training_subjects"], row["most_training_subjects"]) for row in summary}
    assert sizes == {("0.2", "1", "1"), ("0.6", "2", "3"), ("1", "4", "5")}
    document = json.loads(Path("cmp/summary.json").read_text())
    assert document["protocol"]["fractions"] == [0.6, 0.2]
    assert len(document["data_utilisation"]["agreement"]) == 2 * 3
    assert document["data_utilisation"]["finding"] in words
    assert json.loads(Path("plain/summary.json").read_text())["data_utilisation"] is None


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ("0", "--train-fraction has '0'; give shares of the training subjects above 0 and up to 1, by commas"),
        ("0.5,much", "--train-fraction has 'much'; give shares"),
        ("0.5,0.5", "--train-fraction names 0.5 twice; name each fraction once"),
        ("1", "--train-fraction names 1 alone, which is always trained with; name smaller ones"),
        ("0.1,0.2", "--train-fraction: 0.1 and 0.2 of the 4 training subjects of fold 1 are the same 1 subject; leave"),
    ],
)
def test_refused(cli, cohort, fractions, message):
    said = evaluate(cli, cohort, "--out", "cmp", "--train-fraction", fractions)
    assert (said.status, said.err.count("\n"), message in said.err) == (2, 1, True), said.err
    assert not Path("cmp").exists()


def test_it_is_fixed_when_the_folder_is_made(cli, cohort):
    said = evaluate(cli, cohort, "--out", "cmp", "--train-fraction", "0.5", "--json")
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out)["data_utilisation"]["fractions"] == [0.5, 1.0]
    refused = cli("evaluate", "--resume", "cmp", "--train-fraction", "0.1")
    assert (refused.status, "--train-fraction cannot be given with --resume" in refused.err) == (2, True)
