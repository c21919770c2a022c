"""The note on predictions that the border cuts off."""

from __future__ import annotations

import json
import re

from lossevo.cluster import Status
from lossevo.comparison import Comparison
from lossevo.comparison.borders import borders_told
from lossevo.comparison.scores import CaseScore
from lossevo.experiment import Ledger


def score(loss: str, case: str, *, cut_off: bool = True, class_name: str = "L1", seed: int = 0) -> CaseScore:
    values = {"dice": 0.5}
    return CaseScore(loss, 1, seed, 0, case, case, class_name, values, Status.DONE, leakage=False, cut_off=cut_off)


def test_nothing_is_said_where_nothing_is_cut_off():
    assert borders_told([score("dice", "a", cut_off=False)]) == []


def test_cases_count_once_whatever_the_classes_and_seeds():
    scores = [
        *(score("dice", case, class_name=name, seed=seed) for case in "ab" for name in ("L1", "L2") for seed in (0, 1)),
        *(score("focal", case, cut_off=case == "c") for case in "abcd"),
    ]
    (told,) = borders_told(scores)
    assert told.startswith(
        "At the border: in 3 of 4 tested cases (a, b, c) a prediction of L1, L2 reaches the border of the image, or of "
        "the box that it was cropped to, and the label does not (dice in 2, focal in 1). "
    )


def test_its_length_is_bounded():
    scores = [score(f"loss {number}", f"case {case:03}") for number in range(30) for case in range(number + 1)]
    (told,) = borders_told(scores)
    assert "case 004 and 25 more)" in told
    assert "(loss 29 in 30, loss 28 in 29, loss 27 in 28, loss 26 in 27, loss 25 in 26, and 25 more losses)" in told
    assert len(told) < 700


def test_a_comparison_keeps_it_and_says_it(balls, configured, in_process, tmp_path):
    """After one step a network predicts balls everywhere, up to the border; no label reaches it."""
    folder = tmp_path / "out"
    report = Comparison.create(folder, configured(balls(4), ["dice"], steps=1)).run(in_process)
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        measured = [record.outcome.value for record in ledger.records()]
    cut_off = {case: names for value in measured for case, names in value.get("cut_off", {}).items()}
    assert cut_off
    assert all(names == ["vertebra"] for names in cut_off.values())
    (note,) = [note for note in report.notes if note.startswith("At the border: ")]
    assert re.match(rf"At the border: in {len(cut_off)} of 4 tested cases \({', '.join(sorted(cut_off))}\)", note)
    assert f"(dice in {len(cut_off)})" in note
    assert f"- At the border: in {len(cut_off)} of 4 tested cases (" in (folder / "table.md").read_text()
    assert note in json.loads((folder / "summary.json").read_text())["notes"]
    again = Comparison.open(folder).run(in_process)
    assert again.notes == report.notes
