"""Rankings of several comparisons together."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lossevo.comparison import ComparisonConfig, configure, consensus, contenders_from, read_compared, write_consensus
from lossevo.comparison.consensus import Compared, consensus_document
from lossevo.comparison.score_tables import claims_reloaded_csv
from lossevo.data import SEPARATE
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource
from lossevo.training import TaskSettings

LOSSES = ("dice", "focal", "cross_entropy", "tversky")


def config(cohort: str = "one", losses=LOSSES, **given) -> ComparisonConfig:
    return configure(
        contenders_from(losses), CohortSource(path=Path(cohort)), task=TaskSettings(),
        **{"steps": 3, "metrics": "dice,hd95", **given},
    )  # fmt: skip


def compared(cohort: str, dice: dict[str, list[float]], **given) -> Compared:
    """A comparison with these values of Dice; those of HD95 are 100 (1 − Dice)."""
    by_loss = {loss: {f"s{number}": value for number, value in enumerate(values)} for loss, values in dice.items()}
    hd95 = {loss: {name: 100 * (1 - value) for name, value in of.items()} for loss, of in by_loss.items()}
    return Compared(Path(cohort), config(cohort, tuple(dice), **given), {"dice": by_loss, "hd95": hd95})


ONE = compared("one", {"dice": [0.9, 0.8], "focal": [0.8, 0.7], "cross_entropy": [0.7, 0.6], "tversky": [0.7, 0.6]})
TWO = compared("two", {"dice": [0.5], "focal": [0.9], "cross_entropy": [0.4], "tversky": [0.3]})


def test_by_hand():
    found = consensus([ONE, TWO])
    main, distance = found.metrics
    assert {rank.loss: rank.ranks for rank in main.losses} == {
        "dice": (1, 2), "focal": (2, 1), "cross_entropy": (3.5, 3), "tversky": (3.5, 4),
    }  # fmt: skip
    assert [rank.mean_rank for rank in main.losses] == [1.5, 1.5, 3.25, 3.75]
    assert main.losses[0].means == (pytest.approx(0.85), 0.5)
    # lower is better there, and so everything is the same
    assert [(rank.loss, rank.ranks) for rank in distance.losses] == [(rank.loss, rank.ranks) for rank in main.losses]
    expected = stats.kendalltau([1, 2, 3.5, 3.5], [2, 1, 3, 4]).statistic
    assert main.agreement[0].tau == main.mean_tau == pytest.approx(expected)
    assert (main.agreement[0].first, main.agreement[0].second) == ("one", "two")
    assert found.finding.startswith("By Dice, dice and focal have the best mean rank, 1.5 of 4 (from 1 to 2).")


def test_an_external_test_is_no_second_look_at_the_cohort_that_it_trains_on():
    values = {"dice": [0.9, 0.8], "focal": [0.8, 0.7]}
    config = compared("one", values, test_cohort=CohortSource(path=Path("two"))).config
    external = replace(compared("external", values), config=config)
    assert consensus([compared("one", values), external]).cohorts == ("one", "one → two")


def test_the_interval_is_a_bootstrap_over_subjects_within_each_cohort():
    rng = np.random.default_rng(0)
    clear = {loss: list(0.9 - 0.1 * number + rng.normal(0, 0.01, 20)) for number, loss in enumerate(LOSSES)}
    noisy = {loss: list(0.5 + rng.normal(0, 0.2, 20)) for loss in LOSSES}
    sure = consensus([compared("a", clear), compared("b", clear)]).metrics[0].losses
    assert all((rank.ci_low, rank.ci_high) == (rank.mean_rank, rank.mean_rank) for rank in sure)
    assert sure[0].ranks == (1, 1)
    unsure = consensus([compared("a", noisy), compared("b", noisy)]).metrics[0].losses
    assert all(rank.ci_low < rank.mean_rank < rank.ci_high for rank in unsure[1:3])
    assert consensus([compared("a", noisy), compared("b", clear)]) == consensus(
        [compared("a", noisy), compared("b", clear)]
    )


def test_a_winner_everywhere_is_told():
    found = consensus([ONE, compared("two", {"dice": [0.9], "focal": [0.1], "cross_entropy": [0.2], "tversky": [0.1]})])
    assert "dice has the best mean rank, 1 of 4, and is first everywhere." in found.finding


def test_losses_that_tie_everywhere_in_a_cohort_have_no_tau():
    found = consensus([ONE, compared("two", {loss: [0.5] for loss in LOSSES})])
    assert found.metrics[0].agreement[0].tau is None
    assert "Kendall" not in found.finding
    assert json.dumps(consensus_document(found), allow_nan=False)


def test_losses_that_are_not_the_same_everywhere_are_left_out():
    fewer = compared("two", {"dice": [0.5], "focal": [0.9], "boundary": [0.4]})
    found = consensus([ONE, fewer])
    assert {rank.loss for rank in found.metrics[0].losses} == {"dice", "focal"}
    assert found.left_out == ("cross_entropy", "tversky", "boundary")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "at least two comparisons"),
        ([ONE], "given twice"),
        ([compared("two", {"dice": [0.5], "focal": [0.9]}, metrics="dice,nsd@2mm")],
         r"two has other metrics than one \(dice, nsd@2mm, and dice, hd95\).*same --metrics"),
        ([compared("two", {"dice": [0.5], "focal": [0.9]}, grid="working")], "two has other grid than one"),
        ([compared("two", {"dice": [0.5], "focal": [0.9]}, labels=SEPARATE)], "two has other labels than one"),
        ([compared("two", {"dice": [0.5], "boundary": [0.9]})], r"share 1 loss\(es\), a consensus needs 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_combined(others, message):
    with pytest.raises(LossevoError, match=message):
        consensus([ONE, *others])


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        """A comparison as it is left, as far as a consensus looks."""
        folder = tmp_path / "cmp"
        folder.mkdir()
        (folder / "comparison.json").write_text(config().model_dump_json(), encoding="utf-8")
        rows = ["metric,case,dice,focal,cross_entropy,tversky", "dice,a,0.9,0.8,0.7,0.6", "hd95,a,1,2,3,4"]
        (folder / "claims_reloaded.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        return folder

    def test_values_are_read(self, folder):
        found = read_compared(folder)
        assert found.values["hd95"]["focal"] == {"a": 2.0}
        assert claims_reloaded_csv([], found.config.measured).startswith("metric,case")

    def test_one_that_has_not_ended(self, folder):
        (folder / "claims_reloaded.csv").unlink()
        with pytest.raises(LossevoError, match=r"has not ended .* go on with 'lossevo evaluate --resume"):
            read_compared(folder)

    @pytest.mark.parametrize(
        ("old", "new"),
        [("0.8", "nan"), ("0.8", "x"), (",0.6", ""), ("focal", "boundary"), ("hd95", "hd"), ("hd95,a,1,2,3,4\n", "")],
    )
    def test_a_damaged_one(self, folder, old, new):
        path = folder / "claims_reloaded.csv"
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        with pytest.raises(LossevoError, match=r"claims_reloaded\.csv: damaged \(.*writes it anew"):
            read_compared(folder)

    def test_what_is_written(self, tmp_path):
        write_consensus(consensus([ONE, TWO]), tmp_path / "out")
        rows = list(csv.DictReader((tmp_path / "out" / "consensus.csv").open()))
        assert rows[0]["loss"] == "dice"
        assert (rows[0]["rank one"], rows[0]["rank two"], float(rows[0]["mean one"])) == (
            "1.0",
            "2.0",
            pytest.approx(0.85),
        )
        taus = list(csv.DictReader((tmp_path / "out" / "agreement.csv").open()))
        assert [(row["metric"], row["first"], row["second"]) for row in taus] == [
            ("dice", "one", "two"), ("hd95", "one", "two"),
        ]  # fmt: skip
        text = (tmp_path / "out" / "consensus.md").read_text(encoding="utf-8")
        assert "| dice | 1.5 |" in text
        with pytest.raises(LossevoError, match="exists already"):
            write_consensus(consensus([ONE, TWO]), tmp_path / "out")
