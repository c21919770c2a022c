from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest

from lossevo.comparison import Comparison
from lossevo.comparison.earlier import EarlierComparison, find_looks, looks_told, read_earlier, read_registry
from lossevo.errors import LossevoError

EVOLVED = ("class_mean(mean(y / p))", "class_mean(mean(y / p - 2.0 * logp))")


@pytest.fixture
def compare(configured, in_process):
    """Makes a comparison of losses on a cohort and runs it."""

    def run(folder: Path, cohort: Path, **given) -> Comparison:
        comparison = Comparison.create(folder, configured(cohort, **given))
        comparison.run(in_process)
        return comparison

    return run


def notes_of(folder: Path) -> str:
    return "\n".join(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["notes"])


class TestBeside:
    def test_who_tested_the_same_subjects_is_counted(self, balls, compare, write_loss, tmp_path):
        cohort = balls(6)
        files = [write_loss(f"loss{number}", text) for number, text in enumerate(EVOLVED)]
        compare(tmp_path / "first", cohort, losses=["dice"], loss_files=files[:1])
        compare(tmp_path / "second", cohort, losses=[], loss_files=files)
        compare(tmp_path / "third", cohort)
        told = notes_of(tmp_path / "third")
        assert "The same subjects were looked at by 2 earlier comparisons of 2 evolved losses (first, second)." in told
        (first, second) = json.loads((tmp_path / "third" / "earlier.json").read_text())["earlier"]
        assert [loss["name"] for loss in first["evolved"]] == ["loss0"]
        assert first["evolved"][0]["hash"] == second["evolved"][0]["hash"]
        assert len(first["subjects"]) == 6
        assert json.loads((tmp_path / "third" / "summary.json").read_text())["protocol"]["earlier"] == [first, second]
        assert "looked at" not in notes_of(tmp_path / "first")

    def test_what_comes_later_does_not_change_the_record(self, balls, compare, in_process, tmp_path):
        cohort = balls(6)
        compare(tmp_path / "first", cohort)
        before = (tmp_path / "first" / "summary.json").read_text()
        compare(tmp_path / "second", cohort, losses=["dice"])
        Comparison.open(tmp_path / "first").run(in_process)
        assert (tmp_path / "first" / "summary.json").read_text() == before

    def test_a_renamed_copy_of_the_cohort_is_recognised_by_content(self, balls, compare, tmp_path):
        compare(tmp_path / "first", balls(6))
        renamed = balls({f"other_{number}": number for number in range(3)} | {"new": 77, "newer": 78}, name="renamed")
        compare(tmp_path / "second", renamed)
        assert "3 of the 5 tested subjects were looked at by 1 earlier comparison" in notes_of(tmp_path / "second")

    def test_other_subjects_are_not(self, balls, compare, tmp_path):
        compare(tmp_path / "first", balls(6))
        compare(tmp_path / "second", balls({f"b{number}": 50 + number for number in range(6)}, name="others"))
        assert "looked at" not in notes_of(tmp_path / "second")

    def test_other_content_under_the_same_names_elsewhere_is_not(self, balls, compare, tmp_path):
        compare(tmp_path / "first", balls(6))
        same_names = {f"ball_{number:02d}": 60 + number for number in range(6)}
        compare(tmp_path / "second", balls(same_names, name="others"))
        assert "looked at" not in notes_of(tmp_path / "second")

    def test_a_comparison_without_results_is_no_look(self, balls, configured, tmp_path):
        Comparison.create(tmp_path / "first", configured(balls(6)))
        assert find_looks(tmp_path / "second", None) == ()

    def test_the_same_comparison_made_again_or_copied_is_one(self, balls, compare, tmp_path):
        cohort = balls(6)
        compare(tmp_path / "first", cohort)
        shutil.copytree(tmp_path / "first", tmp_path / "copy")
        assert len(find_looks(tmp_path / "second", None)) == 1
        shutil.rmtree(tmp_path / "copy")
        compare(tmp_path / "again", cohort)
        assert read_earlier(tmp_path / "again") == ()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "comparison.json").write_text("{"),
            lambda folder: (folder / "comparison.json").write_text("[]"),
            lambda folder: (folder / "comparison.json").write_text('{"contenders": 3}'),
            lambda folder: (folder / "folds.json").unlink(),
            lambda folder: (folder / "folds.json").write_text('{"test": {"a": 1}}'),
            lambda folder: (folder / "folds.json").write_bytes(b"\xff\xfe\x00"),
        ],
    )
    def test_bad_files_are_skipped_with_one_warning(self, balls, compare, damage, tmp_path):
        compare(tmp_path / "bad", balls(6))
        compare(tmp_path / "good", balls(5, name="five"))
        damage(tmp_path / "bad")
        with pytest.warns(UserWarning, match="1 folder looks like a comparison but cannot be read") as warned:
            (look,) = find_looks(tmp_path / "new", None)
        assert len(warned) == 1
        assert "\n" not in str(warned[0].message)
        assert look.comparison.endswith("good")

    def test_links_and_pipes_are_not_followed(self, balls, compare, tmp_path):
        place = tmp_path / "place"
        place.mkdir()
        compare(tmp_path / "elsewhere" / "first", balls(6))
        (place / "linked").symlink_to(tmp_path / "elsewhere" / "first")
        files = place / "files"
        files.mkdir()
        (files / "cases.csv").touch()
        for name in ("comparison.json", "folds.json"):
            (files / name).symlink_to(tmp_path / "elsewhere" / "first" / name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert find_looks(place / "new", None) == ()
        (files / "comparison.json").unlink()
        os.mkfifo(files / "comparison.json")
        (files / "folds.json").unlink()
        (files / "folds.json").touch()
        with pytest.warns(UserWarning, match="pipe"):
            assert find_looks(place / "new", None) == ()


class TestRegistry:
    def test_finds_comparisons_elsewhere_and_gets_a_line_of_each(self, balls, compare, write_loss, tmp_path):
        cohort, registry = balls(6), tmp_path / "registry.jsonl"
        compare(tmp_path / "here" / "a", cohort, loss_files=[write_loss("mine")], registry=registry)
        assert "No earlier comparison of these subjects is known, here or in registry.jsonl" in notes_of(
            tmp_path / "here" / "a"
        )
        compare(tmp_path / "there" / "b", cohort, registry=registry)
        assert "looked at by 1 earlier comparison of 1 evolved loss (a)" in notes_of(tmp_path / "there" / "b")
        looks = read_registry(registry)
        assert [Path(look.comparison).name for look in looks] == ["a", "b"]
        assert looks[0].tested == tuple(f"ball_{number:02d}" for number in range(6))
        assert set(looks[0].hashes) == set(looks[0].tested)
        assert looks[0].began.endswith("+00:00")

    def test_a_comparison_in_both_places_is_one(self, balls, compare, tmp_path):
        registry = tmp_path / "registry.jsonl"
        compare(tmp_path / "a", balls(6), registry=registry)
        assert len(find_looks(tmp_path / "b", registry)) == 1

    def test_resuming_adds_no_line(self, balls, compare, in_process, tmp_path):
        registry = tmp_path / "registry.jsonl"
        compare(tmp_path / "a", balls(6), registry=registry)
        Comparison.open(tmp_path / "a").run(in_process)
        assert len(registry.read_text().splitlines()) == 1

    def test_bad_lines_are_skipped_with_one_warning_and_kept(self, balls, compare, tmp_path):
        registry = tmp_path / "registry.jsonl"
        cohort = balls(6)
        compare(tmp_path / "a", cohort, registry=registry)
        good = registry.read_text()
        bad = [
            "{",
            "[1]",
            '{"format": "lossevo.registry/9"}',
            good.strip().replace('"ball_00"', '"\\ud800"'),
            "9" * 400,
        ]
        registry.write_text(good + "\n".join(bad) + "\n\n")
        with pytest.warns(UserWarning, match="5 of 6 lines cannot be read and are skipped") as warned:
            (look,) = read_registry(registry)
        assert len(warned) == 1
        assert "\n" not in str(warned[0].message)
        assert look.tested[0] == "ball_00"
        with pytest.warns(UserWarning, match="5 of 6 lines"):
            compare(tmp_path / "elsewhere" / "b", cohort, losses=["dice"], registry=registry)
        assert registry.read_text().startswith(good + "\n".join(bad))
        assert registry.read_text().splitlines()[-1].startswith('{"format":"lossevo.registry/1"')

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: path.write_text("loss,fold\ndice,1\n"), "not a registry of comparisons .line 1"),
            (lambda path: path.mkdir(), "it is a folder"),
            (lambda path: path.write_bytes(b"\xff\xff"), "no text in UTF-8"),
            (lambda path: path.symlink_to(path.parent / "else"), "symbolic link is not followed"),
        ],
    )
    def test_what_is_no_registry_is_refused_and_nothing_is_left(self, balls, configured, make, message, tmp_path):
        make(tmp_path / "registry")
        with pytest.raises(LossevoError, match=message):
            Comparison.create(tmp_path / "out", configured(balls(6), registry=tmp_path / "registry"))
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "else").exists()

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(LossevoError, match="there is no folder"):
            read_registry(tmp_path / "nowhere" / "registry")


def test_whatever_a_registry_calls_a_comparison_is_told_in_one_line():
    look = EarlierComparison(comparison="/x/evil\n# title", began="", evolved=(), subjects=("a",))
    (note,) = looks_told([look], ["a", "b"], None)
    assert note.startswith("1 of the 2 tested subjects were looked at by 1 earlier comparison of hand-crafted losses")
    assert "(evil?# title)" in note


def test_a_damaged_record_is_one_line(tmp_path):
    (tmp_path / "earlier.json").write_text('{"earlier": 1}')
    with pytest.raises(LossevoError, match=r"earlier\.json: damaged"):
        read_earlier(tmp_path)
