"""``lossevo hof``, ``export``, ``evaluate`` and ``analyze`` on a run whose best loss is a network."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import lossevo
from lossevo.experiment import Ledger, Subjects, hall_of_fame
from lossevo.experiment.origin import Distilled, MetaLearned
from lossevo.losses.neural import LearnedLoss
from tests.networks import CROSS_ENTROPY

ID = CROSS_ENTROPY.hash[:8]


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """The folder of a search, its best loss a network and the second what that was distilled to."""
    folder = shutil.copytree(finished.folder, tmp_path / "learned")
    first, second, *others = hall_of_fame.read(folder)
    network = replace(
        first,
        id=ID,
        formula=str(CROSS_ENTROPY),
        unicode=str(CROSS_ENTROPY),
        complexity=float(CROSS_ENTROPY.weight_count),
        origin=MetaLearned(40),
        loss={"learned": CROSS_ENTROPY.to_json()},
    )
    with Ledger(folder / "ledger.sqlite") as ledger:
        records = ledger.records()
        ledger.submit(len(records), "evaluation", ID, {**records[0].trial, "loss": network.loss})
    hall_of_fame.write([network, replace(second, origin=Distilled((ID,), 0.98)), *others], folder)
    config = json.loads((folder / "run.json").read_text())
    del config["space"]
    (folder / "run.json").write_text(json.dumps({**config, "format": "lossevo.metalearning/3", "settings": {}}))
    return folder


def test_the_list(cli, run):
    said = cli("hof", run)
    assert (said.status, said.err) == (0, "")
    assert f"1 {ID}" in " ".join(said.out.split())
    assert "metalearned: 40" in said.out
    assert json.loads(cli("hof", run, "--json", "--top", 1).out)[0]["loss"] == {"learned": CROSS_ENTROPY.to_json()}


def test_a_network_in_full(cli, run):
    said = cli("hof", run, "--show", 1)
    assert (said.status, said.err) == (0, "")
    out = " ".join(said.out.split())
    for text in (
        f"{ID} rank 1, metalearned: 40 outer steps",
        "complexity 12",
        "mean(softplus(network(margin, target))), 2-4-1 relu without biases",
        "margin x_c - log Σ_{k≠c} exp x_k",
        "2 → 4 → 1, relu, no biases",
        "p value, target 1 gradient, target 1 value, target 0 gradient, target 0",
        # Cross-entropy: -log p + log 0.99, and p - 1; for the background -log(1 - p) + log 0.99, and p.
        "0.1 2.2925 -0.9000 0.0953 0.1000",
        f"Readable form {hall_of_fame.read(run)[1].id}, which was distilled from it",
        "Trainings",
    ):
        assert text in out
    assert "LaTeX" not in out


def test_a_network_in_full_as_json(cli, run):
    details = json.loads(cli("hof", run, "--show", ID, "--json").out)
    assert details.items() >= json.loads((run / "hall_of_fame.json").read_text())[0].items()
    assert details["sizes"] == [2, 4, 1]
    assert details["distilled"] == hall_of_fame.read(run)[1].id
    for point in details["profile"]:
        assert point["gradient"] == pytest.approx(point["p"] - point["target"], abs=1e-6)


def test_its_readable_form_is_an_expression_like_any_other(cli, run):
    said = cli("hof", run, "--show", 2, "--no-simplify")
    assert (said.status, said.err) == (0, "")
    assert "LaTeX" in said.out


def test_without_a_distilled_form_it_says_so(cli, run):
    hall_of_fame.write(hall_of_fame.read(run)[:1], run)
    assert "Readable form none in this run" in " ".join(cli("hof", run, "--show", 1).out.split())


def test_it_has_no_tree(cli, run):
    said = cli("hof", run, "--show", 1, "--tree", "tree.svg")
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        f"lossevo: {ID} is a loss network and has no formula; a 'distilled' loss of the same run is its readable form\n"
    )
    assert not Path("tree.svg").exists()


def test_export(cli, run):
    said = cli("export", run, 1, "--out", "my_loss")
    assert (said.status, said.err) == (0, "")
    assert said.out.count("deviation in a fresh process: value 0.0e+00, gradient 0.0e+00") == 3
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(2, 3, 6, 5, 4, generator=generator), torch.randint(0, 3, (2, 1, 6, 5, 4))
    expected = LearnedLoss(CROSS_ENTROPY)(logits, labels)
    for name in ("loss.json", "loss.pt2", "loss.py", ""):
        torch.testing.assert_close(lossevo.load(Path("my_loss") / name)(logits, labels), expected)
    metadata = json.loads(Path("my_loss/loss.json").read_text())["metadata"]
    assert tuple(metadata["subjects"]["train"]) == Subjects.read(run).train
    assert metadata["task"]["settings"]["budget_steps"] == 2
    refused = cli("evaluate", "--loss-file", "my_loss", "--hof", f"{run}:1", "--out", "cmp")
    assert "the same loss twice" in refused.err


def test_evaluate(cli, run, cohort):
    arguments = ("--hof", f"{run}:1", "--losses", "cross_entropy", "--data", cohort, "--out", "cmp", "--in-process")
    said = cli("evaluate", *arguments, "--folds", 2, "--steps", 1, "--test-on", "all", "--allow-leakage")
    assert (said.status, said.err) == (0, "")
    summary = json.loads(Path("cmp/summary.json").read_text())
    assert {loss["loss"]: loss["evolved"] for loss in summary["losses"]} == {"learned:1": True, "cross_entropy": False}
    dice = {loss["loss"]: loss["mean"] for loss in summary["metrics"][0]["losses"]}
    assert dice["learned:1"] == pytest.approx(dice["cross_entropy"], abs=1e-3)


def test_whom_its_meta_learning_has_seen_is_not_tested_on(cli, run, cohort):
    said = cli("evaluate", "--hof", f"{run}:1", "--data", cohort, "--out", "cmp", "--test-on", "all", "--steps", 1)
    assert said.status == 2
    assert "learned:1" in said.err
    assert "--allow-leakage" in said.err


def test_analyze(cli, run, monkeypatch):
    monkeypatch.setattr("lossevo.report.write", lambda analysis, folder: None)
    said = cli("analyze", "--losses", "cross_entropy", "--hof", f"{run}:1", "--out", "out", "--json")
    assert (said.status, said.err) == (0, "")
    document = json.loads(said.out)
    assert [(loss["name"], loss["family"]) for loss in document["losses"]] == [
        ("cross_entropy", "distribution"),
        ("learned:1", "meta-learned"),
    ]
