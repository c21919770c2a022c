"""Overlays: the right slice the right way round, in true proportions, labels where the voxels are."""

from __future__ import annotations

import dataclasses
import functools
import io
import json

import matplotlib.image
import numpy as np
import pytest

from lossevo.data import Case, Cohort, Volume
from lossevo.errors import LossevoError
from lossevo.report.overlay_folder import write_overlays
from lossevo.report.overlays import COLOURS, case_figure, colour_of, contact_sheet, cut, outline
from lossevo.report.style import rendered, styled

SPACING_MM = (4.0, 1.0, 2.0)
CLASSES = ("background", "L1", "L2")


@pytest.fixture
def volume() -> Volume:
    """Brightness says where one is: 100 x + 10 y + z. L1 lies on sagittal slices 1 to 2, L2 on 2 alone."""
    image = np.sum(np.meshgrid(np.arange(5) * 100, np.arange(8) * 10, np.arange(7), indexing="ij"), axis=0)
    label = np.zeros(image.shape, np.uint8)
    label[1:3, 2:4, 1:3] = 1
    label[2, 2:4, 4:6] = 2
    return Volume("case_1", "anna", image[None].astype(np.float32), label, SPACING_MM)


class TestPlanes:
    def test_the_slice_shows_most_of_all_classes(self, volume):
        np.testing.assert_array_equal(np.unique(cut(volume, "sagittal").label), [0, 1, 2])
        label = np.where(volume.label == 2, 0, volume.label)
        label[0, :, 0] = 1  # many voxels of one class are not worth a class
        assert 2 not in cut(dataclasses.replace(volume, label=label), "sagittal").label

    def test_without_a_label_it_is_the_middle(self, volume):
        empty = dataclasses.replace(volume, label=np.zeros_like(volume.label))
        grey = cut(empty, "axial").grey
        assert grey.shape == (8, 5)
        assert grey[0, 0] > grey[0, -1]

    @pytest.mark.parametrize(
        ("plane", "size_mm", "columns", "rows"),
        [("sagittal", (8, 14), -1, +1), ("coronal", (20, 14), -1, +1), ("axial", (20, 8), -1, +1)],
    )
    def test_front_and_right_lie_to_the_left_head_is_up_proportions_are_true(
        self, volume, plane, size_mm, columns, rows
    ):
        part = cut(volume, plane)
        assert part.size_mm == size_mm
        inner = part.grey[1:-1, 1:-1]
        assert (np.sign(np.diff(inner, axis=1)) * columns >= 0).all()
        assert (np.sign(np.diff(inner, axis=0)) * rows >= 0).all()

    def test_voxels_that_are_not_finite_are_black(self, volume):
        image = volume.image.copy()
        image[0, 2] = np.nan
        assert np.isfinite(cut(dataclasses.replace(volume, image=image), "sagittal").grey).all()

    def test_contrast_is_that_around_the_label(self, volume):
        image = volume.image.copy()
        image[0, :, 7] = 1e6  # fat at the coil
        part = cut(dataclasses.replace(volume, image=image), "sagittal")
        labelled = part.grey[part.label > 0]
        assert labelled.max() - labelled.min() > 0.05


def test_an_outline_runs_along_the_sides_of_pixels():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2] = True
    segments = outline(mask, (2.0, 1.0))
    assert len(segments) == 6
    points = {point for segment in segments for point in segment}
    assert points == {(x, y) for x in (2.0, 3.0) for y in (2.0, 4.0, 6.0)}


def test_neighbouring_classes_differ_in_colour():
    assert colour_of(1) == COLOURS[0]
    assert all(colour_of(value) != colour_of(value + 1) for value in range(1, 40))


def picture(figure) -> np.ndarray:
    return matplotlib.image.imread(io.BytesIO(rendered(figure, "png")))


class TestCaseFigure:
    def test_three_planes_at_one_scale_with_names_and_volumes(self, volume):
        with styled():
            figure = case_figure(volume, CLASSES, ("T2",))
        assert len(figure.axes) == 3
        width, height = figure.get_size_inches()
        scales = set()
        for axes in figure.axes:
            box = axes.get_position()
            scales.add(round(box.width * width / axes.get_xlim()[1], 6))
            scales.add(round(box.height * height / axes.get_ylim()[1], 6))
        assert len(scales) == 1
        entries = [text.get_text() for text in figure.legends[0].get_texts()]
        assert entries == ["L1  0.064 cm³", "L2  0.032 cm³"]
        words = " ".join(text.get_text() for text in figure.texts)
        assert "case_1" in words
        assert "subject anna, 5×8×7 voxels of 4×1×2 mm" in words
        letters = [[text.get_text() for text in axes.texts] for axes in figure.axes]
        assert letters[0] == ["L1", "L2", "A", "P", "S", "I", "10 mm"]
        assert letters[1] == ["R", "L", "S", "I"]
        assert letters[2] == ["R", "L", "A", "P"]

    def test_every_channel_has_a_row(self, volume):
        two = dataclasses.replace(volume, image=np.concatenate([volume.image, -volume.image]))
        with styled():
            figure = case_figure(two, CLASSES, ("water", "fat"))
        assert len(figure.axes) == 6
        words = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert {"water", "fat"} <= {*words}

    def test_a_case_without_label_says_so(self, volume):
        empty = dataclasses.replace(volume, label=np.zeros_like(volume.label))
        with styled():
            figure = case_figure(empty, CLASSES, ("T2",))
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["no label"]

    def test_the_same_case_gives_the_same_bytes(self, volume):
        with styled():
            first, second = (rendered(case_figure(volume, CLASSES, ("T2",)), "png") for _ in range(2))
        assert first == second


def test_a_contact_sheet_has_a_place_for_every_case(volume):
    thumbnails = [("case_1", cut(volume, "sagittal")), ("broken", None), ("a-name-that-is-too-long-for-it", None)]
    with styled():
        figure = contact_sheet(thumbnails, "cohort")
    assert [axes.get_title() for axes in figure.axes] == ["case_1", "broken", "…at-is-too-long-for-it"]
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["cannot be read"] * 2
    assert picture(figure).shape[2] == 4


class TestNames:
    """What a class or case is called is written as it is, though matplotlib would read some of it otherwise."""

    @pytest.mark.parametrize("name", ["$x^2$", "cost $5", "$\\frac{$", "_hidden", "$a_b$ $", "\\$", "a\\b"])
    def test_dollars_and_underscores(self, volume, name):
        with styled():
            figure = case_figure(dataclasses.replace(volume, case_id=name), ("background", name, "L2"), ("T2",))
            sheet = contact_sheet([(name, None)], name)
            rendered(figure, "png")  # a formula that is none would be an error
            rendered(sheet, "png")
        (legend,) = figure.legends
        assert legend.get_texts()[0].get_text().startswith(f"{name}  ")
        for text in (*legend.get_texts(), *figure.texts, *figure.axes[0].texts, *sheet.axes[0].texts):
            assert not text.get_parse_math()


class TestFolder:
    @pytest.fixture
    def cohort(self, volume) -> Cohort:
        def broken() -> Volume:
            raise LossevoError("case_2.nii.gz: truncated")

        def case(name: str, load) -> Case:
            return Case(name, name, load)

        return Cohort("balls", CLASSES, ("T2",), (case("case/1", lambda: volume), case("case_2", broken)))

    def test_pictures_of_what_can_be_read(self, cohort, tmp_path):
        told = []
        mistakes = write_overlays(cohort, tmp_path / "out", progress=lambda *step: told.append(step))
        assert [str(mistake) for mistake in mistakes] == ["case_2.nii.gz: truncated"]
        assert told == [(1, 2, "case/1"), (2, 2, "case_2")]
        names = sorted(file.name for file in (tmp_path / "out").iterdir())
        assert names == ["case_1.png", "contact_sheet.png", "overlays.json"]
        assert json.loads((tmp_path / "out" / "overlays.json").read_text())["cases"] == ["case/1"]

    def test_every_case_has_a_picture_of_its_own(self, volume, tmp_path):
        names = ["a b", "a_b", "a:b", "A_b", "contact_sheet", "contact_sheet_2", "c d", "x" * 300, "x" * 299, "a_b-2"]
        bright = {name: number for number, name in enumerate(names)}

        def load(name: str) -> Volume:
            return dataclasses.replace(volume, case_id=name, image=volume.image + 1000 * bright[name])

        cases = tuple(Case(name, name, functools.partial(load, name)) for name in names)
        write_overlays(Cohort("names", CLASSES, ("T2",), cases), tmp_path / "out")
        document = json.loads((tmp_path / "out" / "overlays.json").read_text())
        assert list(document["pictures"]) == names
        assert len({picture.lower() for picture in document["pictures"].values()}) == len(names)
        assert {file.name for file in (tmp_path / "out").glob("*.png")} == {
            *document["pictures"].values(),
            "contact_sheet.png",
        }
        assert (document["pictures"]["a_b"], document["pictures"]["c d"]) == ("a_b.png", "c_d.png")
        for name in ("a b", "a_b", "contact_sheet"):  # each shows its own name
            alone = tmp_path / f"alone-{bright[name]}"
            write_overlays(Cohort("names", CLASSES, ("T2",), (cases[bright[name]],)), alone)
            (own,) = json.loads((alone / "overlays.json").read_text())["pictures"].values()
            assert (alone / own).read_bytes() == (tmp_path / "out" / document["pictures"][name]).read_bytes()

    def test_an_earlier_folder_is_drawn_anew_another_is_not_touched(self, cohort, tmp_path):
        (tmp_path / "out").mkdir()
        write_overlays(cohort, tmp_path / "out", cases=1)
        (tmp_path / "out" / "old.png").touch()
        write_overlays(cohort, tmp_path / "out")
        assert not (tmp_path / "out" / "old.png").exists()
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "figure.png").touch()
        with pytest.raises(LossevoError, match="thesis: exists already and holds no overlays"):
            write_overlays(cohort, tmp_path / "thesis")
        assert (tmp_path / "thesis" / "figure.png").exists()
        with pytest.raises(LossevoError, match=r"n{300}: cannot be written \(File name too long\)"):
            write_overlays(cohort, tmp_path / ("n" * 300))

    def test_nothing_to_draw(self, cohort, tmp_path):
        with pytest.raises(LossevoError, match="truncated"):
            write_overlays(dataclasses.replace(cohort, cases=cohort.cases[1:]), tmp_path / "out")
        with pytest.raises(LossevoError, match="it has no cases"):
            write_overlays(dataclasses.replace(cohort, cases=()), tmp_path / "empty")

    def test_many_cases_have_several_sheets(self, volume, tmp_path):
        cases = tuple(Case(f"c{number}", "anna", lambda: volume) for number in range(5))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lossevo.report.overlay_folder._PER_SHEET", 2)
            write_overlays(Cohort("many", CLASSES, ("T2",), cases), tmp_path / "out")
        sheets = sorted(file.name for file in (tmp_path / "out").glob("contact_sheet*"))
        assert sheets == ["contact_sheet.png", "contact_sheet_2.png", "contact_sheet_3.png"]
