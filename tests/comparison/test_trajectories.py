"""What moved in a loss is kept with its training and written beside the report."""

from __future__ import annotations

import csv

from lossevo.comparison import Comparison, LossTrajectory
from lossevo.comparison.trajectories import trajectories_csv
from lossevo.losses import create


def test_a_comparison_writes_those_of_losses_that_adapt(balls, configured, in_process, tmp_path):
    comparison = Comparison.create(tmp_path / "out", configured(balls(6), losses=("dice", "softadapt"), seeds=2))
    report = comparison.run(in_process)
    assert [(one.loss, one.fold, one.seed) for one in report.trajectories] == [
        ("softadapt", fold, seed) for seed in (0, 1) for fold in (1, 2)
    ]
    with (comparison.folder / "trajectories.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [*rows[0].values()] == ["softadapt", "1", "0", "0", "w_dice", "1"]
    assert len(rows) == 4 * 3 * 2
    again = Comparison.open(tmp_path / "out").run(in_process)
    assert again.trajectories == report.trajectories


def test_without_any_there_is_no_file(balls, configured, in_process, tmp_path):
    comparison = Comparison.create(tmp_path / "out", configured(balls(6), losses=("dice",)))
    assert comparison.run(in_process).trajectories == ()
    assert not (comparison.folder / "trajectories.csv").exists()


def test_rows_are_steps_and_quantities():
    one = LossTrajectory("mine", 1, 0, tuple(create("adaptive", loss="tversky").trajectory()))
    assert (one.steps, one.quantities) == ([0], {"w_fp": [0.3], "w_fn": [0.7]})
    expected = "loss,fold,seed,step,quantity,value\nmine,1,0,0,w_fp,0.3\nmine,1,0,0,w_fn,0.7\n"
    assert trajectories_csv([one]) == expected
