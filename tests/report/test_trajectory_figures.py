"""The figures of trajectories: a panel per kind of quantity, a line per training and their mean."""

from __future__ import annotations

import numpy as np
import pytest

from lossevo.comparison import LossTrajectory
from lossevo.errors import LossevoError
from lossevo.report.files import write_pictures
from lossevo.report.style import rendered
from lossevo.report.trajectory_figures import trajectory_pictures


def trajectory(loss: str = "mine", fold: int = 1, **quantities: list[float]) -> LossTrajectory:
    count = len(next(iter(quantities.values())))
    rows = ({"step": 5.0 * k, **{name: values[k] for name, values in quantities.items()}} for k in range(count))
    return LossTrajectory(loss, fold, 0, tuple(rows))


def axes_of(*trajectories: LossTrajectory):
    (picture,) = trajectory_pictures(trajectories)
    return picture.figure.axes


def test_weights_share_a_panel_and_every_other_quantity_has_its_own():
    panels = axes_of(trajectory(w_dice=[1.0, 1.2], w_focal=[1.0, 0.8], gamma=[2.0, 2.5]))
    assert [axes.get_title() for axes in panels] == ["weights", "gamma"]
    assert {text.get_text() for text in panels[0].texts} == {"w_dice", "w_focal"}
    assert [axes.get_xlim() for axes in panels] == [(0, 5), (0, 5)]


def test_a_line_for_every_training_and_a_thick_one_for_their_mean():
    (axes,) = axes_of(trajectory(gamma=[2.0, 3.0]), trajectory(fold=2, gamma=[2.0, 2.0]))
    *thin, mean = axes.lines
    assert [list(line.get_ydata()) for line in thin] == [[2.0, 3.0], [2.0, 2.0]]
    assert list(mean.get_ydata()) == [2.0, 2.5]
    assert mean.get_linewidth() > thin[0].get_linewidth()


@pytest.mark.parametrize(("values", "scale"), [([1.0, 30.0], "log"), ([1.0, 3.0], "linear"), ([-1.0, 30.0], "linear")])
def test_the_axis_is_logarithmic_where_weights_differ_by_orders_of_magnitude(values, scale):
    (axes,) = axes_of(trajectory(w_dice=values))
    assert axes.get_yscale() == scale


def test_what_hardly_moves_looks_so():
    (axes,) = axes_of(trajectory(w_dice=[1.0, 1.001]))
    assert np.ptp(axes.get_ylim()) > 0.15


def test_names_at_the_ends_of_lines_do_not_meet():
    (axes,) = axes_of(trajectory(w_a=[1.0, 1.0], w_b=[1.0, 1.0001], w_c=[1.0, 1.0002], w_d=[1.0, 2.0]))
    heights = sorted(text.xy[1] for text in axes.texts)
    assert min(np.diff(heights)) > 0.05


def test_a_loss_is_a_picture_and_the_same_one_the_same_bytes(tmp_path):
    given = [trajectory("b/c:1", gamma=[1.0, 2.0]), trajectory("a", gamma=[1.0])]
    first, second = trajectory_pictures(given)
    assert (first.name, second.name) == ("trajectory-a", "trajectory-b_c_1-1f30ae")
    assert write_pictures([first, second], tmp_path / "figures") == [
        tmp_path / "figures" / f"{picture.name}.png" for picture in (first, second)
    ]
    assert sorted(path.suffix for path in (tmp_path / "figures").iterdir()) == [".png", ".png", ".svg", ".svg"]
    again = trajectory_pictures(given)[0]
    assert rendered(again.figure, "svg") == (tmp_path / "figures" / "trajectory-a.svg").read_bytes()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "figures").write_text("")
    with pytest.raises(LossevoError, match=r"figures.*cannot be written"):
        write_pictures(trajectory_pictures([trajectory(gamma=[1.0])]), tmp_path / "figures")
