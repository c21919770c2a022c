from __future__ import annotations

from lossevo.comparison.speed import LearningCurve, speeds
from lossevo.report.curve_figures import curve_picture
from lossevo.report.files import write_pictures


def found(count: int):
    curves = [LearningCurve(f"loss{n}", 1, 0, ((10, 0.5 - n / 100), (20, 0.9 - n / 100))) for n in range(count)]
    return speeds(curves, {"loss0"})


def test_each_loss_has_a_line_from_the_first_step_on(tmp_path):
    picture = curve_picture(found(2))
    lines = picture.figure.axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [[0, 10, 20]] * 2
    assert list(lines[0].get_ydata()) == [0.0, 0.5, 0.9]
    write_pictures([picture], tmp_path)
    assert (tmp_path / "learning-curves.png").stat().st_size > 1000


def test_too_many_are_told():
    picture = curve_picture(found(40))
    assert len(picture.figure.axes[0].lines) < 40
    assert any("losses of smaller area are left out" in text.get_text() for text in picture.figure.texts)
