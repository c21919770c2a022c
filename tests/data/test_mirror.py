"""What a left-right mirror makes of classes, whatever structures they are made of."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

from lossevo.data import CohortWarning, LabelScheme, read_cohort, relabel
from lossevo.data.checks import check
from lossevo.data.cohort import Case, Cohort
from lossevo.data.labels import classes_of, label_scheme
from lossevo.data.readers import scan
from lossevo.errors import LossevoError

SIDED = ("psoas_L", "psoas_R", "kidney_L", "kidney_R", "L1")


def mirror(structures=SIDED, **scheme):
    return classes_of(LabelScheme(**scheme), structures, source="DIR").mirror


@pytest.mark.parametrize(
    ("scheme", "classes"),
    [
        ({"classes": "separate"}, (0, 2, 1, 4, 3, 5)),
        ({"classes": "merged"}, (0, 1)),
        ({"classes": {"left": ["psoas_L", "kidney_L"], "right": ["kidney_R", "psoas_R"]}}, (0, 2, 1)),
        ({"classes": {"psoas": ["psoas_L", "psoas_R"], "bone": ["L1"]}}, (0, 1, 2)),
        ({"classes": {"psoas": ["psoas_L"]}}, None),
        ({"classes": {"organ": ["kidney_L", "psoas_L"], "other": ["kidney_R"], "muscle": ["psoas_R"]}}, None),
        ({"classes": {"a": ["psoas_L", "L1"], "b": ["psoas_R"]}}, None),
        ({"classes": "separate", "mirror_pairs": "off"}, None),
        ({"classes": "separate", "mirror_pairs": []}, (0, 1, 2, 3, 4, 5)),
        ({"classes": "separate", "mirror_pairs": [["kidney_l", "Psoas_R"]]}, (0, 1, 3, 2, 4, 5)),
        ({"classes": {"a": ["psoas_L"], "b": ["psoas_R", "kidney_R"]}, "mirror_pairs": [["a", "b"]]}, (0, 2, 1)),
        ({"classes": {"a": ["psoas_L"]}, "mirror_pairs": [["psoas_L", "psoas_R"]]}, None),
    ],
)
def test_classes_become_what_their_structures_become(scheme, classes):
    found = mirror(**scheme)
    assert found.classes == classes
    assert bool(found.why) == (classes is None)


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        ({"kidney_left": [2], "liver": [1], "kidney_right": [3]}, (0, 3, 2, 1)),
        ({"Niere links": [2, 4], "Niere rechts": [3]}, (0, 2, 1)),
        ({"kidney_left": [2], "liver": [1]}, None),
        ({"LV": [2], "RV": [1]}, None),
        ({"kidneys": [2, 3], "liver": [1]}, (0, 1, 2)),
    ],
)
def test_classes_of_numbers_have_the_sides_that_their_names_say(classes, found):
    numbered = mirror(tuple(f"label {number}" for number in range(1, 5)), classes=classes)
    assert numbered.classes == found
    assert bool(numbered.why) == (found is None)


@pytest.mark.parametrize(
    "classes",
    [
        {"right hip": ["psoas_L"], "left hip": ["psoas_R"]},
        {"one": ["psoas_L"], "two": ["psoas_R"]},
    ],
)
def test_structures_tell_before_the_names_of_their_classes_do(classes):
    assert mirror(classes=classes).classes == (0, 2, 1)


def test_classes_that_say_otherwise_than_their_structures():
    found = mirror(classes={"a_left": ["psoas_L"], "a_right": ["L1"], "b": ["psoas_R"]})
    assert found.classes is None
    assert found.why == "class 'a_right' has the counterpart 'a_left', but their structures have not"


def test_numbers_can_be_paired_and_levels_and_partial_vertebrae_have_no_side():
    assert mirror(("label 1", "label 2"), classes="separate", mirror_pairs=[[1, 2]]).classes == (0, 2, 1)
    spine = ("L5", "L4", "L5 (partial)", "disc L4-L5", "S1")
    assert mirror(spine, classes="separate", partial="merge").classes == (0, 1, 2, 3, 4)


def test_a_pair_of_nothing():
    with pytest.raises(LossevoError, match=r"nothing in DIR is called 'kidny_L' \(did you mean 'kidney_L'\?\); it has"):
        mirror(mirror_pairs=[["kidny_L", "kidney_R"]])


def test_yaml_and_back(tmp_path):
    file = tmp_path / "labels.yaml"
    for text, pairs in (("off", "off"), ("auto", "auto"), ("[[a, b], [1, 2]]", (("a", "b"), ("label 1", "label 2")))):
        file.write_text(f"classes: separate\nmirror_pairs: {text}\n")
        scheme = label_scheme(file)
        assert scheme.mirror_pairs == pairs
        assert LabelScheme.model_validate(scheme.model_dump(mode="json")) == scheme
    # As before there were such pairs: the same text for the same classes.
    assert "mirror_pairs" not in LabelScheme(levels="L1-L5").model_dump(mode="json")


def test_relabelling_knows_what_the_names_of_classes_no_longer_tell(write_nnunet_cohort):
    rng = np.random.default_rng(0)
    cases = {"a": (rng.normal(size=(4, 4, 4)), rng.integers(0, 4, (4, 4, 4), np.uint8))}
    folder = write_nnunet_cohort(cases, labels={"background": 0, "hip_L": 1, "hip_R": 2, "sacrum": 3})
    with pytest.warns(CohortWarning, match="its counterpart is background"):
        one = read_cohort(folder, labels=LabelScheme(classes={"hip": ["hip_L"]}))
    assert relabel(one, LabelScheme()).mirroring.classes is None
    both = read_cohort(folder, labels=LabelScheme(classes={"a": ["hip_L"], "b": ["hip_R"], "c": ["sacrum"]}))
    assert both.mirroring.classes == (0, 2, 1, 3)
    assert relabel(both, LabelScheme()).mirroring.classes == (0, 1)
    assert relabel(both, LabelScheme(classes={"c": ["c"], "b": ["b"], "a": ["a"]})).mirroring.classes == (0, 1, 3, 2)
    plain = Cohort("made", ("background", "x", "y"), ("T2",), (Case("a", "a", functools.partial(one.cases[0].load)),))
    assert relabel(plain, LabelScheme(classes={"hip_L": ["x"], "hip_R": ["y"]})).mirroring.classes == (0, 2, 1)
    named = Cohort("made", ("background", "hip_L"), ("T2",), (Case("a", "a", functools.partial(one.cases[0].load)),))
    assert named.mirroring.classes is None


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"kidney_L": 1, "liver": 2}, "nothing is mirrored left-right in training: 'kidney_L' has no counterpart"),
        ({"LV": 1, "RV": 2}, "may be left and right, but no mirror images of each other"),
        ({"a_left": 1, "b_left": 2, "c_left": 3, "d_left": 4}, "'c_left' has no counterpart, and 1 more"),
    ],
)
def test_what_is_not_mirrored_is_told_once(write_nnunet_cohort, labels, told):
    rng = np.random.default_rng(0)
    cases = {"a": (rng.normal(size=(4, 4, 4)), rng.integers(0, 1 + len(labels), (4, 4, 4), np.uint8))}
    folder = write_nnunet_cohort(cases, labels={"background": 0, **labels})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_cohort(folder, labels=LabelScheme(classes="separate"))
    (said,) = (str(warning.message) for warning in caught if warning.category is CohortWarning)
    assert said.startswith(f"{folder}: ")
    assert told in said
    assert "mirror_pairs: [[LEFT, RIGHT], …], or []" in said
    report = check(scan(folder))
    (problem,) = (problem for problem in report.warnings if problem.code == "unclear-sides")
    assert problem.message == said


def test_check_says_what_is_exchanged(write_nnunet_cohort):
    rng = np.random.default_rng(0)
    cases = {"a": (rng.normal(size=(4, 4, 4)), rng.integers(0, 4, (4, 4, 4), np.uint8))}
    folder = write_nnunet_cohort(cases, labels={"background": 0, "hip_L": 1, "hip_R": 2, "L1": 3})
    told = "exchanged where training mirrors left-right: hip_L and hip_R"
    assert told in check(scan(folder)).notes
    assert told in check(scan(folder), scheme=LabelScheme(classes="separate")).notes
    assert told not in check(scan(folder), scheme=LabelScheme()).notes
