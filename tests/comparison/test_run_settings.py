"""What a comparison takes from the runs that its losses come from."""

from __future__ import annotations

import shutil

import pytest

from lossevo.comparison import Comparison, cohort_of_runs, configure, contenders_from
from lossevo.comparison.contenders import Contender
from lossevo.comparison.provenance import SearchRecord
from lossevo.data import MERGED, SEPARATE
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource, Subjects, hall_of_fame
from lossevo.training import TaskSettings
from tests.comparison.conftest import SMALL, SPACING_MM


def found(name: str, cohort: CohortSource | None, **given) -> Contender:
    """A loss of a run on a cohort."""
    search = SearchRecord(subjects=Subjects((), (), (), {}), cohort=cohort, labels=MERGED, task=SMALL, **given)
    return Contender(name=name, spec={"name": "dice"}, formula="", origin="", evolved=True, search=search)


class TestCohort:
    def test_of_no_run_there_is_none(self, write_loss):
        assert cohort_of_runs(contenders_from(["dice"], loss_files=[write_loss("mine")])) is None

    @pytest.mark.parametrize("rank", [1, 2])
    def test_is_that_of_the_run(self, balls, searched_run, rank):
        """Also of a hand-crafted loss of its hall of fame."""
        cohort = balls(8)
        run = searched_run(cohort)
        assert cohort_of_runs(contenders_from(["dice"], hof=[f"{run}:{rank}"])) == CohortSource(path=cohort)

    def test_is_the_same_phantom(self):
        phantom = CohortSource(phantom_cases=7, phantom_seed=3)
        assert cohort_of_runs([found("a:1", phantom), found("b:1", phantom)]) == phantom

    def test_of_an_exported_loss(self, balls, searched_run, write_loss):
        cohort = balls(8)
        run = searched_run(cohort)
        metadata = SearchRecord.of_run(run, hall_of_fame.read(run)[0].id).to_metadata()
        contenders = contenders_from(loss_files=[write_loss("mine", **metadata)])
        assert cohort_of_runs(contenders) == CohortSource(path=cohort)
        del metadata["task"]["source"]
        with pytest.raises(LossevoError, match=r"old: the cohort that it was found on is not on record; .*--data"):
            cohort_of_runs(contenders_from(loss_files=[write_loss("old", **metadata)]))

    def test_one_place_read_in_two_ways_is_one_cohort(self, tmp_path):
        detected, named = CohortSource(path=tmp_path), CohortSource(path=tmp_path / ".", format="nnunet")
        assert cohort_of_runs([found("a:1", detected), found("b:1", named)]) == named

    @pytest.mark.parametrize("other", [CohortSource(), CohortSource(phantom_seed=1)])
    def test_runs_with_different_ones_need_a_decision(self, tmp_path, other):
        one = CohortSource(phantom_cases=9)
        with pytest.raises(
            LossevoError, match=r"different cohort \(a:1: .*9 cases.*, b:1: .*\); say which with --data"
        ):
            cohort_of_runs([found("a:1", one), found("b:1", other)])
        with pytest.raises(LossevoError, match=r"different cohort .*--data"):
            cohort_of_runs([found("a:1", CohortSource(path=tmp_path)), found("b:1", other)])

    def test_that_is_gone(self, balls, searched_run):
        cohort = balls(8)
        contenders = contenders_from(hof=[str(searched_run(cohort))])
        shutil.rmtree(cohort)
        with pytest.raises(LossevoError, match=r"myo:1 was found on .*balls, which is not there; say with --data"):
            cohort_of_runs(contenders)


class TestChanged:
    """A cohort that nobody named must be what it was."""

    @pytest.fixture
    def changed(self, balls, searched_run, configured):
        """The configuration of a comparison on the cohort of a run that has another image by now."""
        cohort = balls(8)
        config = configured(cohort, hof=[searched_run(cohort)])
        other = balls({"ball_03": 99}, name="other")
        for folder in ("imagesTr", "labelsTr"):
            for file in (other / folder).iterdir():
                shutil.copy(file, cohort / folder)
        return config

    def test_is_refused_before_anything_is_written(self, changed, tmp_path):
        message = r"balls: 1 of the 8 subjects that myo:1 was found with .*\(ball_03\).*--data"
        with pytest.raises(LossevoError, match=message):
            Comparison.create(tmp_path / "out", changed, cohort_of_runs=True)
        assert not (tmp_path / "out").exists()

    def test_may_be_named(self, changed, tmp_path):
        assert Comparison.create(tmp_path / "out", changed)

    def test_labels_count_too(self, balls, searched_run, configured, tmp_path):
        cohort = balls(8)
        config = configured(cohort, hof=[str(searched_run(cohort))])
        shutil.copy(cohort / "labelsTr" / "ball_01.nii.gz", cohort / "labelsTr" / "ball_02.nii.gz")
        with pytest.raises(LossevoError, match=r"1 of the 8 subjects .*\(ball_02\)"):
            Comparison.create(tmp_path / "out", config, cohort_of_runs=True)

    def test_new_subjects_are_welcome(self, balls, searched_run, configured, tmp_path):
        run = searched_run(balls(8))
        shutil.rmtree(tmp_path / "balls")
        config = configured(balls(10), hof=[run])
        assert len(Comparison.create(tmp_path / "out", config, cohort_of_runs=True).plan.tested) == 3 + 2


class TestDepartures:
    def test_of_the_runs_own_settings_there_are_none(self, balls, searched_run, configured):
        cohort = balls(8)
        run = searched_run(cohort)
        contenders = contenders_from(["dice"], hof=[str(run)])
        assert configure(contenders, CohortSource(path=cohort)).departures == ()
        assert configured(cohort, hof=[run]).departures == ()
        assert configured(cohort).departures == ()

    def test_what_is_given_and_differs_is_told(self, balls, searched_run, configured):
        run = searched_run(balls(8))
        copy = balls(8, name="copy")
        given = {
            "labels": SEPARATE,
            "spacing_mm": (8.0, 4.0, 4.0),
            "task": TaskSettings(**{**dict(SMALL), "batch_size": 3}),
        }
        (told,) = configured(copy, ["dice"], hof=[f"{run}:1", f"{run}:2"], **given).departures
        for part in (
            "myo:1, myo:2 were found on ",
            "copy)",
            "with labels merged (here separate)",
            "at spacing 4 × 4 × 4 mm (here 8 × 4 × 4 mm)",
            "with batch_size 2 (here 3)",
        ):
            assert part in told
        assert "budget_steps" not in told

    def test_what_does_not_apply_to_the_schedule_and_weights_is_no_difference(self, balls, searched_run, configured):
        cohort = balls(8)
        run = searched_run(cohort)
        idle = TaskSettings(**{**dict(SMALL), "warmup_steps": 3, "loss_horizon_steps": 9, "ema_decay": 0.5})
        assert configured(cohort, hof=[run], task=idle).departures == ()
        other = TaskSettings(**{**dict(idle), "weights": "ema"})
        (told,) = configured(cohort, hof=[run], task=other).departures
        assert "with weights last (here ema), with ema_decay 0.9 (here 0.5)." in told

    def test_stand_in_the_notes(self, balls, searched_run, configured, in_process, tmp_path):
        run = searched_run(balls(12))
        config = configured(balls(12, name="copy"), ["dice"], hof=[run], steps=1)
        report = Comparison.create(tmp_path / "out", config).run(in_process)
        assert config.departures[0] in report.notes
        assert "Not the setting of the search" in (tmp_path / "out" / "table.md").read_text()


def test_the_spacing_of_a_comparison_is_that_of_the_run(balls, searched_run):
    cohort = balls(8)
    config = configure(contenders_from(hof=[str(searched_run(cohort))]), CohortSource(path=cohort))
    assert (config.spacing_mm, config.labels) == (SPACING_MM, MERGED)
