from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from lossevo.comparison import Comparison, parse_test_on
from lossevo.comparison.external import plan_external_test
from lossevo.comparison.leakage import Copy, copies
from lossevo.data import prepare, read_cohort
from lossevo.data.patches import StoredPatchBank
from lossevo.errors import LossevoError
from lossevo.experiment import CohortSource
from lossevo.training import Fidelity, Split, Trial, make_training_data
from lossevo.training.trainer import Trainer
from tests.comparison.conftest import SMALL, SPACING_MM, ball
from tests.comparison.test_crossvalidation import OUTPUTS, Stopped, change, rows_of, stop_after
from tests.comparison.test_leakage import ELSEWHERE, HERE, hashes_of, loss, record


class TestParse:
    def test_a_word_or_a_place(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "all").mkdir()
        assert parse_test_on(None, None) == ("untouched", None)
        assert parse_test_on("all", None) == ("all", None)
        assert parse_test_on("./all", "nnunet") == ("untouched", CohortSource(path=tmp_path / "all", format="nnunet"))

    @pytest.mark.parametrize(
        ("text", "format", "message"),
        [
            (
                "data/vb3",
                None,
                "--test-on is 'data/vb3'; give untouched, all, or the path of a second cohort, and there",
            ),
            ("untuched", None, r"--test-on is 'untuched' \(did you mean 'untouched'\?\); give"),
            ("", None, "--test-on is ''; give"),
            ("all", "bids", "--test-format is bids, but --test-on names no cohort whose format that is"),
            (None, "bids", "--test-format is bids, but --test-on names no cohort"),
        ],
    )
    def test_neither(self, text, format, message):
        with pytest.raises(LossevoError, match=message):
            parse_test_on(text, format)


class TestCopies:
    def test_by_any_image(self):
        trained = {"a": "t1 of a,t2 of a,label:a", "b": "t1 of b,label:b"}
        tested = {"x": "t2 of a,label:x", "y": "t1 of y,label:y", "z": "t1 of b"}
        assert copies(trained, tested) == [Copy("x", "a", "image"), Copy("z", "b", "image")]

    def test_by_a_label_under_other_images(self):
        trained = {"a": "image of a,label:a", "b": "image of b,label:b"}
        assert copies(trained, {"x": "rescaled,label:a", "b": "other,label:other"}) == [Copy("x", "a", "label")]

    def test_a_template_tells_nothing(self):
        template = {name: f"image of {name},label:template" for name in "abc"}
        assert copies(template, {"x": "image of x,label:template"}) == []
        assert copies({"a": "image of a,label:template"}, {**template, "a": "x,label:template"}) == []


class TestPlan:
    @staticmethod
    def plan(contenders, tested, trained="abc", **given):
        trained = hashes_of(trained)
        given = {"prefix": "one/", "source": HERE, "test_source": ELSEWHERE, **given}
        return plan_external_test(contenders, trained, tested, **given)

    def test_all_of_one_are_trained_on_and_all_of_the_other_tested(self):
        plan = self.plan([loss()], hashes_of("stuv"))
        assert (plan.test, plan.train(0)) == ((tuple("stuv"),), ("one/a", "one/b", "one/c"))
        assert (plan.leaked, plan.left_out) == ({}, ())

    def test_who_was_seen_by_a_search_is_neither_tested_nor_trained_on(self):
        evolved = [loss("one", record("as", "", "tuv")), loss("two", record("", "t", "uv"))]
        plan = self.plan(evolved, hashes_of("stuv"))
        assert (plan.tested, plan.left_out, plan.leaked) == (("u", "v"), ("s", "t"), {})
        assert plan.train(0) == ("one/a", "one/b", "one/c")

    def test_in_a_renamed_copy_too(self):
        plan = self.plan([loss("one", record("s", "t", "uv"))], hashes_of("stuv", prefix="copy_"))
        assert plan.tested == ("copy_u", "copy_v")

    def test_names_that_only_the_trained_ones_have_in_common_do_not_deceive(self):
        """A search on the cohort that is trained on has seen nobody of the other, whatever they are called."""
        plan = self.plan([loss("one", record("ab", "c", cohort=HERE))], {"a": "content of x", "b": "content of y"})
        assert plan.tested == ("a", "b")

    def test_nobody_left(self):
        evolved = loss("one", record("s", "t"))
        with pytest.raises(
            LossevoError, match="no subject of elsewhere is left to test: of 2 subjects, the search of one"
        ):
            self.plan([loss(), evolved], hashes_of("st"))
        plan = self.plan([loss(), evolved], hashes_of("st"), allow_leakage=True)
        assert (plan.tested, plan.leaked, plan.left_out) == (("s", "t"), {"one": ("s", "t")}, ())

    def test_a_copy_of_who_is_trained_on(self):
        with pytest.raises(
            LossevoError, match=r"elsewhere: subject x has the same image as subject b of cohort, which is"
        ):
            self.plan([loss()], {"x": "content of b", "y": "content of y"})
        with pytest.raises(LossevoError, match=r"has the same image as subject a of .* trained on \(and 1 more\)"):
            self.plan([loss()], {"x": "content of a", "y": "content of b"})


@pytest.fixture
def cohorts(balls) -> tuple[Path, Path]:
    """Six balls to train on and four others to test, of the same names."""
    return balls(6), balls({f"ball_{number:02d}": 20 + number for number in range(4)}, name="others")


class TestComparison:
    def test_names_are_kept_apart(self, cohorts, balls, configured, tmp_path):
        trained, tested = cohorts
        config = configured(trained, test_cohort=CohortSource(path=tested), folds=None, seeds=2)
        with pytest.warns(UserWarning, match=r"4 subjects of .*balls and of .*others have one name \(ball_00, ball_01"):
            comparison = Comparison.create(tmp_path / "out", config)
        assert comparison.plan.tested == tuple(f"ball_{number:02d}" for number in range(4))
        assert comparison.plan.train(0) == tuple(f"balls/ball_{number:02d}" for number in range(6))
        assert len(comparison.schedule) == 2 * 2
        assert str(comparison.schedule[2]) == "cross_entropy, external test, seed 1"
        for planned in comparison.schedule:
            assert planned.trial.fidelity.split == Split(comparison.plan.train(0), comparison.plan.tested)
        assert {*comparison.data.bank.subject} == {*comparison.plan.train(0)}
        both = {*comparison.plan.tested, *comparison.plan.train(0)}
        assert {case.subject for case in comparison.cases} == both
        assert {volume.case_id for volume in comparison.data.volumes} == {*comparison.data.originals} == both

        other = balls({"x": 30, "y": 31}, name="other_names")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            free = Comparison.create(
                tmp_path / "free", configured(trained, test_cohort=CohortSource(path=other), folds=None)
            )
        assert free.plan.train(0) == tuple(f"ball_{number:02d}" for number in range(6))

    def test_values_are_those_of_a_training_in_one_cohort_of_both(
        self, cohorts, balls, configured, in_process, tmp_path, write_nnunet_cohort
    ):
        """Same patches, batches and predictions as if the tested ones were more subjects of the cohort."""
        trained, tested = cohorts
        config = configured(trained, ["dice"], test_cohort=CohortSource(path=tested), folds=None, steps=8)
        with pytest.warns(UserWarning, match="have one name"):
            comparison = Comparison.create(tmp_path / "out", config)
        report = comparison.run(in_process)
        both = balls({**{f"ball_{n:02d}": n for n in range(6)}, **{f"z_{n}": 20 + n for n in range(4)}}, name="both")
        data = make_training_data(
            prepare(read_cohort(both, labels=config.labels), spacing_mm=SPACING_MM), config.task, on_original_grid=True
        )
        (planned,) = comparison.schedule
        split = Split(tuple(f"ball_{n:02d}" for n in range(6)), tuple(f"z_{n}" for n in range(4)))
        fidelity = Fidelity(8, planned.trial.fidelity.seed, split)
        expected = (
            Trainer(data).train(Trial(planned.trial.loss, fidelity, metrics=config.metrics, grid=config.grid)).values
        )
        rows = {row["case"]: row for row in rows_of(tmp_path / "out")}
        for metric in config.metrics:
            found = {case: float(row[metric]) for case, row in rows.items()}
            assert found == pytest.approx(
                {f"ball_{n:02d}": expected[metric][f"z_{n}"]["vertebra"] for n in range(4)}, abs=1e-6
            )
        assert max(float(row["dice"]) for row in rows.values()) > 0.1
        assert "trained on balls (6 subjects), tested on others (4 subjects), 8 steps, 1 seed" in report.title

    @pytest.mark.filterwarnings("ignore:.*have one name")
    def test_on_disk_it_is_the_same(self, cohorts, configured, in_process, tmp_path):
        trained, tested = cohorts
        config = configured(trained, ["dice"], test_cohort=CohortSource(path=tested), folds=None)
        Comparison.create(tmp_path / "held", config).run(in_process)
        on_disk = Comparison.create(tmp_path / "disk", config, patch_cache_bytes=0)
        assert isinstance(on_disk.data.bank, StoredPatchBank)
        on_disk.run(in_process)
        assert rows_of(tmp_path / "disk") == rows_of(tmp_path / "held")

    @pytest.mark.filterwarnings("ignore:.*have one name")
    def test_after_a_stop_the_outputs_are_the_same(self, cohorts, configured, in_process, tmp_path):
        trained, tested = cohorts
        config = configured(
            trained, test_cohort=CohortSource(path=tested), folds=None, seeds=2, train_fraction="0.5", metrics="dice"
        )
        Comparison.create(tmp_path / "through", config).run(in_process)
        with pytest.raises(Stopped):
            Comparison.create(tmp_path / "stopped", config).run(in_process, listener=stop_after(5))
        files = (*OUTPUTS, "fractions.csv", "fraction_cases.csv")
        expected = {name: (tmp_path / "through" / name).read_text(encoding="utf-8") for name in files}
        Comparison.open(tmp_path / "stopped").run(in_process)
        assert {name: (tmp_path / "stopped" / name).read_text(encoding="utf-8") for name in files} == expected

    @pytest.mark.parametrize("which", ["balls", "others"])
    def test_a_cohort_that_changed(self, cohorts, balls, configured, tmp_path, which):
        trained, tested = cohorts
        config = configured(trained, test_cohort=CohortSource(path=tested), folds=None)
        with pytest.warns(UserWarning, match="have one name"):
            Comparison.create(tmp_path / "out", config)
        changed = balls({"ball_00": 40}, name="changed")
        for folder in ("imagesTr", "labelsTr"):
            for file in (changed / folder).iterdir():
                (tmp_path / which / folder / file.name).write_bytes(file.read_bytes())
        with pytest.raises(LossevoError, match=rf"the cohort \({tmp_path / which}\) or lossevo's training recipe has"):
            Comparison.open(tmp_path / "out")

    def test_a_run_on_the_tested_cohort(self, balls, searched_run, configured, tmp_path):
        """Whom its search has seen is left out; the cohort that is trained on is another than the run's, and told."""
        searched = balls({f"other_{number}": 20 + number for number in range(9)}, name="others")
        run = searched_run(searched)
        config = configured(balls(5), hof=[f"{run}:1"], test_cohort=CohortSource(path=searched), folds=None)
        comparison = Comparison.create(tmp_path / "out", config)
        subjects = json.loads((run / "subjects.json").read_text())
        assert list(comparison.plan.tested) == subjects["untouched"]
        assert list(comparison.plan.left_out) == sorted(subjects["train"] + subjects["validation"])
        assert {*comparison.plan.train(0)} == {f"ball_{number:02d}" for number in range(5)}
        assert any("was found on" in departure for departure in config.departures)

    def test_the_same_subjects_were_looked_at_by_a_cross_validation(self, cohorts, configured, in_process, tmp_path):
        trained, tested = cohorts
        Comparison.create(tmp_path / "first", configured(tested, ["dice"])).run(in_process)
        config = configured(trained, ["dice"], test_cohort=CohortSource(path=tested), folds=None)
        with pytest.warns(UserWarning, match="have one name"):
            Comparison.create(tmp_path / "second", config)
        (look,) = json.loads((tmp_path / "second" / "earlier.json").read_text())["earlier"]
        assert look["subjects"] == [f"ball_{number:02d}" for number in range(4)]
        Comparison.create(tmp_path / "third", configured(trained, ["dice"]))
        assert json.loads((tmp_path / "third" / "earlier.json").read_text())["earlier"] == []

    def test_one_subject_has_no_interval_and_no_p(self, balls, configured, in_process, tmp_path):
        config = configured(balls(3), test_cohort=CohortSource(path=balls({"x": 20}, name="others")), folds=None)
        report = Comparison.create(tmp_path / "out", config).run(in_process)
        assert "tested on others (1 subject)" in report.title
        assert {found.score.ci_low for found in report.main.losses} == {None}


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"folds": 3}, r"--folds is 3, but --test-on .*others trains once on the whole of .*balls, without folds"),
            ({"folds": None, "splits": Path("x.json")}, r"--splits is x.json, but --test-on .*others trains once"),
            ({"folds": None, "seeds": 0}, "--seeds is 0; give at least 1"),
        ],
    )
    def test_folds(self, cohorts, configured, given, message):
        trained, tested = cohorts
        with pytest.raises(LossevoError, match=message):
            configured(trained, test_cohort=CohortSource(path=tested), **given)

    def test_the_cohort_itself(self, balls, configured):
        cohort = balls(4)
        with pytest.raises(LossevoError, match=r"--test-on .*balls is the cohort that is trained on; name another"):
            configured(cohort, test_cohort=CohortSource(path=cohort / ".." / "balls"), folds=None)

    def refused(self, config, folder: Path) -> str:
        with pytest.raises(LossevoError) as refused:
            Comparison.create(folder, config)
        assert not folder.exists()
        return str(refused.value)

    def test_a_copy(self, balls, configured, tmp_path):
        copy = balls({"mine": 40, "theirs": 3}, name="others")
        config = configured(balls(5), test_cohort=CohortSource(path=copy), folds=None)
        assert self.refused(config, tmp_path / "out") == (
            f"{copy}: subject theirs has the same image as subject ball_03 of {tmp_path / 'balls'}, which is trained "
            "on; nobody can be trained on and tested, so remove the copies from one of the two cohorts"
        )

    def test_other_classes(self, cohorts, configured, tmp_path):
        trained, tested = cohorts
        change(tested / "dataset.json", labels={"background": 0, "disc": 1})
        for labels, merged in (
            ("separate", "vertebra of .*, but disc of .*, or merged"),
            ("merged", "vertebra .*foregr"),
        ):
            config = configured(trained, test_cohort=CohortSource(path=tested), folds=None, labels=labels)
            with pytest.raises(LossevoError, match=f"labels {labels} make other classes of the two cohorts: {merged}"):
                Comparison.create(tmp_path / "out", config)
        both = json.loads(json.dumps({"classes": {"structure": ["vertebra", "disc"]}}))
        config = configured(trained, test_cohort=CohortSource(path=tested), folds=None, labels=both)
        assert "matches 'disc'" in self.refused(config, tmp_path / "out")

    def test_other_channels(self, balls, write_nnunet_cohort, configured, tmp_path):
        trained = balls(3)
        image, label = ball(20)
        two = write_nnunet_cohort({"x": ([image, image], label)}, spacing_mm=SPACING_MM, name="two")
        config = configured(trained, test_cohort=CohortSource(path=two), folds=None)
        assert "have another number of channels" in self.refused(config, tmp_path / "out")
        fat = write_nnunet_cohort({"x": ball(20)}, spacing_mm=SPACING_MM, name="fat", channel_names={"0": "PDFF"})
        config = configured(trained, test_cohort=CohortSource(path=fat), folds=None)
        told = self.refused(config, tmp_path / "out")
        assert "scaled otherwise" in told
        assert f"{trained} has 1 (channel 0), {fat} has 1 (PDFF)" in told
        swapped = [
            write_nnunet_cohort(
                {"x": ([ball(n)[0], ball(n)[0] + 1], ball(n)[1])},
                **{"spacing_mm": SPACING_MM, "name": f"swapped{n}", "channel_names": names},
            )
            for n, names in enumerate(({"0": "T1", "1": "T2"}, {"0": "T2", "1": "T1"}))
        ]
        config = configured(swapped[0], test_cohort=CohortSource(path=swapped[1]), folds=None)
        assert "have their channels in another order" in self.refused(config, tmp_path / "out")

    def test_no_label(self, cohorts, write_nnunet_cohort, configured, tmp_path):
        trained, _ = cohorts
        image, label = ball(20)
        empty = write_nnunet_cohort({"x": (image, 0 * label)}, spacing_mm=SPACING_MM, name="empty")
        config = configured(trained, test_cohort=CohortSource(path=empty), folds=None)
        assert self.refused(config, tmp_path / "out") == "cohort empty: no label has any foreground at 4×4×4 mm"


def test_the_spacing_is_that_of_the_cohort_trained_on(balls, write_nnunet_cohort, configured, tmp_path):
    fine = write_nnunet_cohort({"x": ball(20), "y": ball(21)}, spacing_mm=(2.0, 2.0, 2.0), name="fine")
    config = configured(
        balls(3), ["dice"], test_cohort=CohortSource(path=fine), folds=None, spacing_mm=None, task=SMALL
    )
    comparison = Comparison.create(tmp_path / "out", config)
    assert {volume.spacing_mm for volume in comparison.data.volumes} == {(4.0, 4.0, 4.0)}
    views = {case.view.spacing_mm for case in comparison.cases if case.subject in comparison.plan.tested}
    assert views == {(2.0, 2.0, 2.0)}  # metrics: the image's own grid
