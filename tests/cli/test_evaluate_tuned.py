"""What is left of a comparison whose workers cannot be had, before and after its losses were tuned."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lossevo.cli.folders import workers_for
from lossevo.errors import LossevoError, ResumableError
from lossevo.experiment import Ledger
from lossevo.training import Fidelity, Split, Trial

TRIAL = Trial({"name": "dice"}, Fidelity(1, 0, Split(("a",), ("b",))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A comparison in which a tuning has been made."""
    folder = tmp_path / "cmp"
    (folder / "tuning").mkdir(parents=True)
    Ledger(folder / "tuning" / "ledger.sqlite", create=True).close()
    return folder


def no_worker(spec: object) -> None:
    raise LossevoError("no worker could be started")


def test_what_was_tuned_stays_where_no_worker_can_be_had_afterwards(folder):
    with Ledger(folder / "tuning" / "ledger.sqlite") as ledger:
        ledger.submit(0, "tuning", "dice, fold 1:0", TRIAL.to_payload())
    with pytest.raises(ResumableError, match="no worker"), workers_for(folder, no_worker, new=True) as make:
        make(SimpleNamespace())
    assert (folder / "tuning" / "ledger.sqlite").is_file()


def test_a_new_comparison_whose_tuning_could_not_begin_is_removed(folder):
    with pytest.raises(LossevoError, match="no Ray"), workers_for(folder, no_worker, new=True):
        raise LossevoError("no Ray")
    assert not folder.exists()


def test_one_that_is_gone_on_with_stays(folder):
    with pytest.raises(LossevoError, match="no Ray"), workers_for(folder, no_worker, new=False):
        raise LossevoError("no Ray")
    assert folder.exists()
