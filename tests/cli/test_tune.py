"""``lossevo tune`` on the command line; what it trains is tested in tests/tuning."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from lossevo.experiment import Ledger

FEW = ("--trials", "4", "--window", "2", "--finalists", "1", "--seeds", "1", "--steps", "8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("",), "no loss to tune; name some of 'lossevo losses'"),
        (("tverski",), "unknown loss 'tverski' (did you mean 'tversky'?)"),
        (("dice,dice",), "dice is given twice; leave one out"),
        (("dice", "--tune", "parameters"), "dice has no bounded parameter to tune; tune its learning rate: --tune lr"),
        (("dice", "--tune", "rate"), "expected lr, parameters, or both"),
        (("dice", "--tune", "lr,lr"), "--tune lr,lr: something is given twice"),
        (("tversky", "--bounds", "w_fp"), "--bounds w_fp: expected NAME=LOW:HIGH, as in gamma=0.5:3"),
        (("tversky", "--bounds", "w_fp=0:2"), "--bounds: w_fp of tversky from 0 to 2; expected"),
        (("tversky", "--bounds", "gamma=0.5:2"), "--bounds: gamma is not tuned; tuned are learning_rate, w_fp"),
        (("tversky", "--bounds", "w_fp=0.1:0.5", "--bounds", "w_fp=0.1:0.6"), "w_fp is given twice"),
        (("dice", "--objective", "dicee"), "unknown metric 'dicee'"),
        (("dice", "--trials", "100000"), "--trials"),
        (("--resume", "nowhere"), "nowhere: not a tuning folder (it has no tuning.json); give one that 'lossevo tune"),
        (("dice", "--resume", "nowhere"), "LOSSES cannot be given with --resume"),
        (("dice", "--retry-failed"), "--retry-failed goes on with a folder; name it with --resume"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(cli, cohort, arguments, said):
    data = () if "--resume" in arguments else ("--data", cohort, "--out", "tuned")
    found = cli("tune", *arguments, *data)
    assert found.status == 2
    assert said in " ".join(found.err.split())
    assert len(found.err.splitlines()) == 1 or "Usage" in found.err
    assert not Path("tuned").exists()


def test_a_search_is_not_gone_on_with_as_a_tuning(cli, finished):
    found = cli("tune", "--resume", finished.folder)
    assert found.status == 2
    assert "not a tuning folder" in found.err or "no tuning, but a search" in found.err


@pytest.mark.parametrize("given", [("--trials", "4"), ("--bounds", "w_fp=0.1:0.5")])
def test_evaluate_wants_to_be_told_that_losses_are_tuned(cli, cohort, given):
    found = cli("evaluate", "--losses", "dice,tversky", "--data", cohort, "--out", "cmp", *given)
    assert (found.status, given[0] in found.err, "add --tune" in found.err) == (2, True, True)


def test_evaluate_does_not_tune_in_process(cli, cohort):
    found = cli("evaluate", "--losses", "dice", "--data", cohort, "--out", "cmp", "--tune", "lr", "--in-process")
    assert found.status == 2
    assert "--tune trains on Ray; leave --in-process out" in found.err
    assert not Path("cmp").exists()


@pytest.mark.chaos
def test_it_is_stopped_by_ctrl_c_goes_on_and_ends_with_a_loss_to_compare(start, cli, cohort, tmp_path):
    out = tmp_path / "tuned"
    program = start("tune", "tversky", "--data", cohort, *FEW, "--workers", "2", "--out", out)
    program.lines_until(": dice ", times=2)
    program.signal(signal.SIGINT)
    said = program.rest()
    assert program.process.returncode == 130
    assert said.splitlines()[-1].endswith(f"Go on with:  lossevo tune --resume {out}")
    assert program.errors() == ""
    assert program.descendants_after(60) == []
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        before = [record.ticket for record in ledger.records()]
    again = start("tune", "--resume", out, "--workers", "2")
    said = again.rest(240)
    assert again.process.returncode == 0, again.errors()
    assert "trainings taken from the ledger" in said
    assert "Next, on the subjects never touched:" in said
    assert "--steps 8" in said
    with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
        assert [record.ticket for record in ledger.records()][: len(before)] == before
    (name,) = yaml.safe_load((out / "tversky.yaml").read_text())
    assert name == "tversky_tuned"
    finished = cli("tune", "--resume", out)
    assert finished.status == 0
    assert "tversky" in finished.out
