"""Comparisons as a consensus reads them, and those that cannot be combined."""

from __future__ import annotations

import pytest

from lossevo.comparison import consensus, read_compared
from lossevo.comparison.score_tables import claims_reloaded_csv
from lossevo.data import SEPARATE
from lossevo.errors import LossevoError
from lossevo.tuning import TuningSettings
from tests.comparison.compared_cohorts import ONE, compared, config


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "at least two comparisons"),
        ([ONE], "given twice"),
        ([compared("two", {"dice": [0.5], "focal": [0.9]}, metrics="dice,nsd@2mm")],
         r"two has other metrics than one \(dice, nsd@2mm, and dice, hd95\).*same --metrics"),
        ([compared("two", {"dice": [0.5], "focal": [0.9]}, grid="working")], "two has other grid than one"),
        ([compared("two", {"dice": [0.5], "focal": [0.9]}, labels=SEPARATE)], "two has other labels than one"),
        ([compared("two", {"dice": [0.5], "focal": [0.9]}, tuning=TuningSettings())],
         r"two tuned its losses \(--tune\), one did not"),
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
