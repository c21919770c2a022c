from __future__ import annotations

import pytest

from lossevo.comparison.data_use import data_use
from lossevo.metrics import parse_metrics
from lossevo.report.files import write_pictures
from lossevo.report.fraction_figures import fraction_picture
from tests.comparison.test_data_use import scores

(DICE,) = parse_metrics("dice")


def found(count: int):
    whole = scores({f"loss{n}": [0.8 - n / 100, 0.9 - n / 100] for n in range(count)})
    half = scores({f"loss{n}": [0.5 - n / 100, 0.6 - n / 100] for n in range(count)})
    return data_use({1.0: whole, 0.5: half}, [DICE], {1.0: (4, 6), 0.5: (2, 3)})


def test_each_loss_has_a_line_over_the_number_of_subjects(tmp_path):
    picture = fraction_picture(found(2), DICE)
    axes = picture.figure.axes[0]
    lines = [container.lines[0] for container in axes.containers]
    assert [list(line.get_ydata()) for line in lines] == [pytest.approx([0.55, 0.85]), pytest.approx([0.54, 0.84])]
    assert list(lines[0].get_xdata()) == pytest.approx([2.5, 5], rel=0.02)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2.5\n0.5", "5\n1"]
    write_pictures([picture], tmp_path)
    assert (tmp_path / "data-fractions.png").stat().st_size > 1000


def test_too_many_are_told():
    picture = fraction_picture(found(20), DICE)
    assert len(picture.figure.axes[0].containers) < 20
    assert any("losses that rank lower are left out" in text.get_text() for text in picture.figure.texts)
