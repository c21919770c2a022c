"""Structures made classes: the same names in every data set, chosen by scheme, level and label file."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from lossevo.data import MERGED, SEPARATE, Case, Cohort, LabelScheme, Volume, label_scheme, relabel
from lossevo.data.labels import classes_of, is_vertebra, level_of
from lossevo.errors import LossevoError

LUMBAR = ("T12", "L1", "L2", "L3", "L4", "L5", "sacrum")
SPIDER = ("L5", "L4", "L3", "canal", "L5 (partial)", "L3 (partial)", "disc L5-S1", "disc L4-L5", "disc L3-L4")


def classes(scheme: LabelScheme, structures=LUMBAR):
    """Class name -> its structures."""
    found = classes_of(scheme, structures, source="cohort")
    assert found.names[0] == "background"
    assert set(found.of_structure) == set(structures)
    return {
        name: [structure for structure, index in found.of_structure.items() if index == number]
        for number, name in enumerate(found.names)
        if number
    }


def of(**entries) -> LabelScheme:
    return LabelScheme(classes=entries)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("L1", "L1"), ("l5 body", "L5"), ("Th12", "T12"), ("T13", "T13"), ("vertebrae_C3", "C3"), ("S1", "S1"),
        ("sacrum", "S1"), ("L1 vertebra", "L1"), ("L7", None), ("C8", None), ("canal", None), ("disc L4-L5", None),
        ("L1 (partial)", None), ("T1w", None),
    ],
)  # fmt: skip
def test_levels_are_recognised_in_names(name: str, level: str | None):
    assert level_of(name) == level


def test_vertebrae_are_recognised():
    assert all(map(is_vertebra, ("L1", "vertebra", "vertebral body", "L5 (partial)", "vertebra 25")))
    assert not any(map(is_vertebra, ("disc", "disc L4-L5", "canal", "psoas left")))


class TestPlainSchemes:
    def test_separate_keeps_every_structure(self):
        assert classes(SEPARATE) == {name: [name] for name in LUMBAR}

    def test_merged_vertebrae_are_the_class_vertebra(self):
        assert classes(MERGED) == {"vertebra": [*LUMBAR]}

    def test_anything_else_merged_is_foreground(self):
        assert [*classes(MERGED, ("L1", "disc L1-L2"))] == ["foreground"]

    def test_values_of_one_name_are_one_structure(self):
        assert classes(SEPARATE, ("psoas", "L1", "psoas")) == {"psoas": ["psoas"], "L1": ["L1"]}

    @pytest.mark.parametrize("scheme", [MERGED, SEPARATE])
    def test_partial_vertebrae_are_background(self, scheme):
        assert not any("(partial)" in member for members in classes(scheme, SPIDER).values() for member in members)

    def test_unless_they_are_merged_into_the_vertebra(self):
        found = classes(LabelScheme(classes="separate", partial="merge"), SPIDER)
        assert found["L5"] == ["L5", "L5 (partial)"]
        assert found["L4"] == ["L4"]
        assert [*found] == ["L5", "L4", "L3", "canal", "disc L5-S1", "disc L4-L5", "disc L3-L4"]

    def test_too_many_classes(self):
        with pytest.raises(LossevoError, match="256 classes of structures; expected 1 to 255"):
            classes_of(SEPARATE, [f"label {value}" for value in range(256)], source="cohort")


class TestLevels:
    @pytest.mark.parametrize(
        ("levels", "chosen"),
        [
            ("L1-L5", ["L1", "L2", "L3", "L4", "L5"]),
            ("l2 - l3", ["L2", "L3"]),
            ("L4,L1-L2", ["L1", "L2", "L4"]),
            ("Th12-L1", ["T12", "L1"]),
            ("L5-S1", ["L5", "sacrum"]),
            ("C1-T12", ["T12"]),
        ],
    )
    def test_ranges_and_lists(self, levels, chosen):
        assert [*classes(LabelScheme(classes="separate", levels=levels))] == chosen

    def test_all_but_these_vertebrae_is_background(self):
        assert classes(LabelScheme(levels="L4-L5"), SPIDER) == {"vertebra": ["L5", "L4"]}

    def test_levels_that_the_cohort_does_not_have(self):
        with pytest.raises(
            LossevoError, match="nothing in DIR matches 'C3-C7'; it has T12, L1, L2, L3, L4, L5, sacrum"
        ):
            classes_of(LabelScheme(levels="C3-C7"), LUMBAR, source="DIR")

    def test_a_cohort_without_levels(self):
        with pytest.raises(LossevoError, match="nothing in DIR matches 'L1-L5'; it has vertebral body, disc"):
            classes_of(LabelScheme(levels="L1-L5"), ("vertebral body", "disc"), source="DIR")

    @pytest.mark.parametrize(
        ("levels", "message"),
        [
            ("L9", "'L9' is no vertebral level or range; expected such as L1-L5"),
            ("L5-L1", "L5-L1 runs upwards; give the upper level first, L1-L5"),
            ("lumbar", "'lumbar' is no vertebral level"),
            (",", "expected vertebral levels"),
        ],
    )
    def test_what_is_no_level(self, levels, message):
        with pytest.raises(LossevoError, match=message) as caught:
            label_scheme("merged", levels)
        assert str(caught.value).startswith(f"--levels {levels}: levels: ")


class TestClasses:
    def test_ranges_groups_and_names(self):
        scheme = of(vertebra=["L3-L4", "L5"], disc=["discs"], canal=["Canal"])
        discs = ["disc L5-S1", "disc L4-L5", "disc L3-L4"]
        assert classes(scheme, SPIDER) == {"vertebra": ["L5", "L4", "L3"], "disc": discs, "canal": ["canal"]}
        assert classes(of(all=["vertebrae"]), SPIDER) == {"all": ["L5", "L4", "L3"]}

    @pytest.mark.parametrize(
        ("item", "chosen"),
        [
            ("disc L3-L4", ["disc L3-L4"]),
            ("disc L3-L5", ["disc L4-L5", "disc L3-L4"]),
            ("disc L1-S1", ["disc L5-S1", "disc L4-L5", "disc L3-L4"]),
        ],
    )
    def test_discs_between_levels(self, item, chosen):
        assert classes(of(disc=[item]), SPIDER) == {"disc": chosen}

    def test_the_disc_below_t12_is_found_whatever_comes_next(self):
        names = ("disc T11-T12", "disc T12-L1", "disc T12-T13", "disc T13-L1", "disc L1-L2")
        assert classes(of(disc=["disc T12-L1"]), names)["disc"] == ["disc T12-L1"]
        assert len(classes(of(disc=["disc T12-L2"]), names)["disc"]) == 4

    def test_the_order_of_the_classes_is_the_files(self):
        assert [*classes(of(lower=["L4-L5"], upper=["L1-L2"]))] == ["lower", "upper"]

    def test_levels_restrict_the_vertebrae_of_all_classes(self):
        assert classes(LabelScheme(classes={"spine": ["T12-L5"]}, levels="L1-L2")) == {"spine": ["L1", "L2"]}

    def test_numbers_where_a_data_set_has_no_names(self):
        assert classes(of(body=[49, 41]), ("label 41", "label 49", "label 60")) == {"body": ["label 41", "label 49"]}

    def test_a_structure_in_two_classes(self):
        with pytest.raises(LossevoError, match="'L3' is in two classes, 'upper' and 'lower'"):
            classes(of(upper=["L1-L3"], lower=["L3-L5"]))

    def test_what_matches_nothing(self):
        with pytest.raises(
            LossevoError, match=r"class 'c': nothing in cohort matches 'canl' \(did you mean 'canal'\?\)"
        ):
            classes(of(c=["canl"]), SPIDER)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("classes: both", "classes: found 'both', expected merged, separate, or class names with lists"),
            ("classes: {}", "expected merged, separate, or class names"),
            ("classes: {background: [L1]}", "expected a name other than background"),
            ("classes: {vertebra: []}", r"expected a list of structures such as \[L1-L5\]"),
            ("classes: {vertebra: {L1: 1}}", "expected a list of structures"),
            ("classes: {vertebra: [L5-L1]}", "L5-L1 runs upwards"),
            ("classes: {d: [disc S1-L5]}", "S1-L5 runs upwards"),
            (
                "clases: merged",
                r"unknown key 'clases' \(did you mean 'classes'\?\); known here: classes, levels, partial",
            ),
            ("partial: keep", "partial: found 'keep', expected 'background' or 'merge'"),
            ("[merged]", r"expected keys and values \(classes, levels, partial, mirror_pairs\)"),
            ("classes: {", "cannot be read as YAML"),
            ("mirror_pairs: yes", r"mirror_pairs: found True, expected auto, off or pairs such as"),
            ("mirror_pairs: [[a, b, c]]", "expected auto, off or pairs"),
            ("mirror_pairs: [[a, b], [A, c]]", "'a' is given twice; a structure has one counterpart"),
        ],
    )
    def test_what_is_wrong_with_a_file(self, tmp_path, content, message):
        file = tmp_path / "labels.yaml"
        file.write_text(content)
        with pytest.raises(LossevoError, match=message) as caught:
            label_scheme(file)
        assert str(caught.value).startswith(f"{file}: ")

    def test_a_file(self, tmp_path):
        file = tmp_path / "labels.yaml"
        file.write_text("classes:\n  vertebra: [L1-L5]\n  canal: canal\npartial: merge\n")
        expected = LabelScheme(classes={"vertebra": ["L1-L5"], "canal": ["canal"]}, partial="merge")
        assert label_scheme(file) == expected
        assert label_scheme(str(file), "L1-L3").levels == "L1-L3"
        assert str(expected) == "vertebra: L1-L5; canal: canal, partial vertebrae merged"
        file.write_text("levels: L1-L5")
        assert label_scheme(file) == LabelScheme(levels="L1-L5")
        with pytest.raises(LossevoError, match="has levels L1-L5 already; leave out --levels L1"):
            label_scheme(file, "L1")

    def test_what_is_no_scheme(self):
        with pytest.raises(LossevoError, match=r"--labels is 'mergd' \(did you mean 'merged'\?\); expected merged"):
            label_scheme("mergd")
        with pytest.raises(LossevoError, match=r"absent\.yaml: no such file"):
            label_scheme("absent.yaml")


class TestRecords:
    @pytest.mark.parametrize("scheme", [MERGED, SEPARATE])
    def test_plain_schemes_are_recorded_as_they_always_were(self, scheme):
        assert scheme.model_dump_json() == json.dumps(scheme.classes)
        assert LabelScheme.model_validate(scheme.classes) == scheme

    def test_every_scheme_is_read_again(self):
        for scheme in (of(a=["L1-L2", 3]), LabelScheme(levels="L1"), LabelScheme(classes="separate", partial="merge")):
            assert LabelScheme.model_validate(json.loads(scheme.model_dump_json())) == scheme

    def test_what_a_record_cannot_hold(self):
        with pytest.raises(ValidationError):
            LabelScheme.model_validate("both")


def cohort() -> Cohort:
    label = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    volume = Volume("a", "a", np.zeros((1, 1, 2, 2), np.float32), label, (1.0, 1.0, 1.0))
    return Cohort("c", ("background", "L1", "canal", "L2"), ("T2",), (Case("a", "a", volume.read),))


def test_a_cohort_is_relabelled():
    found = relabel(cohort(), of(canal=["canal"], vertebra=["vertebrae"]))
    assert found.class_names == ("background", "canal", "vertebra")
    case = pickle.loads(pickle.dumps(found)).cases[0]
    np.testing.assert_array_equal(case.load().label, [[[0, 2], [1, 2]]])
    assert case.load().label.dtype == np.uint8
    np.testing.assert_array_equal(relabel(cohort(), SEPARATE).cases[0].load().label, cohort().cases[0].load().label)
    merged = relabel(cohort(), LabelScheme(levels="L1-L5"))
    assert merged.class_names == ("background", "vertebra")
    np.testing.assert_array_equal(merged.cases[0].load().label, [[[0, 1], [0, 1]]])


def test_what_a_cached_volume_is_known_by_changes_with_the_classes():
    (case,) = cohort().cases
    known = Cohort("c", ("background", "L1", "canal", "L2"), ("T2",), (Case("a", "a", case.load, reading="how"),))
    readings = {relabel(known, scheme).cases[0].reading for scheme in (MERGED, SEPARATE, LabelScheme(levels="L1"))}
    assert len(readings) == 3
    assert relabel(cohort(), MERGED).cases[0].reading == ""
