"""The whole analysis: tables, summary, document."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from lossevo.analysis import DEFINITIONS, AnalysedLoss, analyze, summary, to_document
from lossevo.errors import LossevoError
from lossevo.losses import from_spec, names, parameters


@pytest.fixture(scope="module")
def losses():
    return [AnalysedLoss.of_catalogue(name) for name in ("cross_entropy", "dice", "boundary")]


@pytest.fixture(scope="module")
def analysis(losses):
    return analyze(losses)


def test_the_same_numbers_every_time_but_for_the_cost(losses, analysis):
    again = analyze(losses)
    for name, table in analysis.tables.items():
        columns = [column for column in table if column != "milliseconds"]
        pd.testing.assert_frame_equal(table[columns], again.tables[name][columns], check_exact=True)


def test_every_table_has_every_loss_in_order(analysis):
    for table in analysis.tables.values():
        assert list(dict.fromkeys(table["loss"])) == ["cross_entropy", "dice", "boundary"]


def test_progress_names_what_comes_next(losses):
    told = []
    analyze(losses[:1], progress=lambda *step: told.append(step))
    assert told == [(0, 1, "cross_entropy")]


def test_summary_is_one_row_per_loss(analysis):
    table = summary(analysis).set_index("loss")
    assert table.loc["dice", ["family", "best_p"]].tolist() == ["region", 0.99]
    shares = analysis.shares.set_index(["loss", "stage", "foreground"])["share"]
    assert table.loc["dice", "trained_20"] == shares["dice", "trained", 0.20]
    assert table.loc["cross_entropy", "missing"] == pytest.approx(0.5)
    assert table["milliseconds"].gt(0).all()


def test_the_document_is_json_and_complete(analysis, evolved):
    document = json.loads(json.dumps(to_document(analysis), allow_nan=False))
    assert document["made_by"] == "lossevo analyze"
    assert document["definitions"] == dict(DEFINITIONS)
    dice = document["losses"][1]
    assert from_spec(dice["spec"]).description.name == dice["name"] == "dice"
    assert dice["formula"]
    assert dice["profiles"]["gradient"] == analysis.profiles.query("loss == 'dice'")["gradient"].tolist()
    assert dice["costs"]["milliseconds"] == [analysis.costs["milliseconds"][1]]


def test_what_is_no_number_is_null(evolved):
    analysis = analyze([evolved("foreground_mean(mean(y))")])
    (loss,) = json.loads(json.dumps(to_document(analysis), allow_nan=False))["losses"]
    assert loss["shares"]["share"] == [None] * 6
    assert loss["responses"]["response"] == [None] * 3


def test_losses_that_measure_the_prediction_know_the_spacing():
    measuring = [name for name in names() if "spacing_mm" in parameters(name)]
    assert "boundary" in measuring
    for name in measuring:
        assert tuple(AnalysedLoss.of_catalogue(name).module((4.0, 1.0, 2.0)).spacing_mm) == (4.0, 1.0, 2.0)


def test_a_loss_that_adapts_does_not_adapt_to_an_analysis():
    assert not AnalysedLoss.of_catalogue("cov_weighting").module((1.0, 1.0, 1.0)).training


def test_an_unknown_loss_is_named_with_the_nearest():
    with pytest.raises(LossevoError, match="did you mean 'dice'"):
        AnalysedLoss.of_catalogue("dise")
