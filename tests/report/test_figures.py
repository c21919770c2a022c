"""Figures: every loss in its panel, told apart by its line, on axes that can be read."""

from __future__ import annotations

import matplotlib as mpl
import pytest

from lossevo import report
from lossevo.analysis import AnalysedLoss
from lossevo.errors import LossevoError
from lossevo.losses import names
from lossevo.report.files import write_pictures
from lossevo.report.style import line_styles, panels_of, rendered, shortened, styled

CATALOGUE = [AnalysedLoss.of_catalogue(name) for name in names()]


@pytest.fixture(scope="module")
def pictures(analysis):
    return {picture.name: picture for picture in report.draw(analysis)}


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_no_two_losses_of_a_family_look_alike():
    styles = line_styles(CATALOGUE)
    for family in {loss.family for loss in CATALOGUE}:
        looks = [str(styles[loss.name]) for loss in CATALOGUE if loss.family == family]
        assert len(set(looks)) == len(looks)


def test_a_loss_looks_the_same_in_every_analysis():
    alone = line_styles([AnalysedLoss.of_catalogue("tversky")])
    assert alone["tversky"] == line_styles(CATALOGUE)["tversky"]


def test_a_panel_is_one_family_and_not_crowded():
    panels = panels_of(CATALOGUE)
    assert [loss for _, losses in panels for loss in losses] == CATALOGUE
    assert all(len(losses) <= 8 and len({loss.family for loss in losses}) == 1 for _, losses in panels)
    assert len({panel for panel, _ in panels}) == len(panels)


def test_every_curve_of_a_profile_is_drawn_and_in_the_legend(pictures):
    figure = pictures["profile-distribution"].figure
    assert legend_of(figure) == ["cross_entropy", "focal"]
    for axes in figure.axes:
        assert [line.get_label() for line in axes.get_lines()[1:]] == ["cross_entropy", "focal"]


def test_cross_entropys_gradient_is_drawn_as_it_is(pictures):
    axes = pictures["profile-distribution"].figure.axes[2]
    p, gradient = axes.get_lines()[1].get_data()
    assert gradient == pytest.approx(p - 1)


def test_a_constant_loss_can_be_drawn(pictures):
    assert legend_of(pictures["profile-evolved"].figure)[1].startswith("constant")


def test_a_long_name_is_cut():
    assert shortened("short") == "short"
    assert shortened("x" * 40 + "end", 10) == "…xxxxxxend"


def test_the_users_matplotlib_is_left_alone(pictures):
    before = dict(mpl.rcParams)
    with styled():
        pass
    rendered(pictures["scenes"].figure, "png")
    assert dict(mpl.rcParams) == before


def test_files_carry_neither_date_nor_version(pictures):
    svg = rendered(pictures["scenes"].figure, "svg")
    assert b"<dc:date>" not in svg
    assert mpl.__version__.encode() not in svg


def test_pictures_are_not_written_through_a_link(tmp_path):
    """``figures`` of a run folder that comes from somebody else."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LossevoError, match="figures: a symbolic link, which nothing is written through; remove it"):
        write_pictures([], tmp_path / "figures")
