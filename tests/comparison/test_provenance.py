"""Files of different runs in one folder: nobody knows whom the search has seen, so nothing may be compared."""

from __future__ import annotations

import json
import shutil

import pytest

from lossevo.comparison import SearchRecord, contenders_from
from lossevo.errors import LossevoError
from lossevo.experiment import Ledger, hall_of_fame
from lossevo.export.document import read_document
from tests.trials import trial_of


@pytest.fixture
def runs(balls, searched_run):
    """Two runs on one cohort whose seeds drew other subjects, as two searches that were started at once."""
    cohort = balls(12)
    return searched_run(cohort, "one", seed=3), searched_run(cohort, "two", seed=4)


@pytest.mark.parametrize("rank", [1, 2])
def test_subjects_of_another_run_are_refused(runs, rank):
    one, two = runs
    shutil.copy(two / "subjects.json", one / "subjects.json")
    with pytest.raises(LossevoError, match=r"one: by subjects\.json .*\(they differ in ball_.*files of different runs"):
        contenders_from(hof=[f"{one}:{rank}"])
    assert contenders_from(hof=[f"{two}:{rank}"])


def test_so_is_the_ledger_of_another_run(runs):
    one, two = runs
    shutil.copy(two / "ledger.sqlite", one / "ledger.sqlite")
    with pytest.raises(LossevoError, match=r"one: by subjects\.json .* files of different runs"):
        contenders_from(hof=[f"{one}:1"])


def test_so_is_one_training_among_others_on_somebody_untouched(runs):
    run, _ = runs
    untouched = json.loads((run / "subjects.json").read_text())["untouched"]
    with Ledger(run / "ledger.sqlite") as ledger:
        ledger.submit(9, "tuning", "x", trial_of("dice", untouched[:1], untouched[1:2], 3).to_payload())
    with pytest.raises(LossevoError, match=f"they differ in {', '.join(untouched[:2])}"):
        contenders_from(hof=[f"{run}:1"])


def test_so_is_a_loss_that_the_ledger_does_not_know(balls, searched_run):
    cohort = balls(8)
    one, two = searched_run(cohort, "one"), searched_run(cohort, "two", evolved="class_mean(mean(y / p))")
    shutil.copy(two / "hall_of_fame.json", one / "hall_of_fame.json")
    found = hall_of_fame.read(one)[0]
    with pytest.raises(
        LossevoError, match=rf"one: the hall of fame has the loss {found.id}, but ledger\.sqlite has no"
    ):
        contenders_from(hof=[f"{one}:1"])


def test_so_is_a_run_of_meta_learning(balls, metalearned_run, searched_run):
    cohort = balls(12)
    learned, other = metalearned_run(cohort), searched_run(cohort, "other", seed=4)
    assert contenders_from(hof=[f"{learned}:1"])
    shutil.copy(other / "subjects.json", learned / "subjects.json")
    with pytest.raises(LossevoError, match="files of different runs"):
        contenders_from(hof=[f"{learned}:1"])


def test_a_run_without_its_ledger(runs):
    run, _ = runs
    (run / "ledger.sqlite").unlink()
    with pytest.raises(LossevoError, match=r"ledger\.sqlite: no ledger there"):
        contenders_from(hof=[f"{run}:1"])


def test_an_exported_loss_takes_its_record_along(runs, write_loss):
    run, _ = runs
    record = SearchRecord.of_run(run, hall_of_fame.read(run)[0].id)
    path = write_loss("my_loss", **record.to_metadata())
    metadata = read_document(path).metadata
    assert metadata["task"]["cohort"] == str(record.cohort)
    assert SearchRecord.of_metadata(metadata, path) == record


def test_an_export_that_names_its_cohort_in_words_alone(runs, write_loss):
    """As lossevo 0.1 wrote it."""
    run, _ = runs
    record = SearchRecord.of_run(run, hall_of_fame.read(run)[0].id)
    document = record.to_metadata()
    del document["task"]["source"]
    read = SearchRecord.of_metadata(document, write_loss("my_loss"))
    assert read == record.model_copy(update={"cohort": None})
