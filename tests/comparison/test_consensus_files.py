"""What is written of a consensus."""

from __future__ import annotations

import csv
import json

import pytest

from lossevo.comparison import consensus, write_consensus
from lossevo.comparison.consensus_files import consensus_document
from lossevo.errors import LossevoError
from tests.comparison.compared_cohorts import LOSSES, ONE, TWO, compared


def test_what_is_written(tmp_path):
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


def test_a_tau_that_is_not_defined_is_null():
    found = consensus([ONE, compared("two", {loss: [0.5] for loss in LOSSES})])
    document = json.loads(json.dumps(consensus_document(found), allow_nan=False))
    assert document["metrics"][0]["agreement"][0]["tau"] is None
