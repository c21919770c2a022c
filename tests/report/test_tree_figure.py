"""The picture of a tree: every node where it can be read, what occurs twice drawn once."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from matplotlib.patches import FancyBboxPatch

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import expressible_names, expression_of
from lossevo.report.files import write_picture
from lossevo.report.style import rendered
from lossevo.report.tree_figure import _label, tree_picture
from tests.expression.strategies import expressions
from tests.expression.test_algebra import of_every_primitive

TVERSKY = "1 - foreground_mean(sum(p * y) / (sum(p * y) + 0.25 * sum(p - y) - 1e-7 * sum(p * y)))"


def texts(expression: Expression) -> list[str]:
    """What is written in the picture, without the key."""
    (axes,) = tree_picture(expression).figure.axes
    return [text.get_text() for text in axes.texts][:-3]


def boxes(expression: Expression) -> list[tuple[float, float, float, float]]:
    """Left, bottom, right and top of every node, in inches."""
    (axes,) = tree_picture(expression).figure.axes
    found = []
    for patch in axes.patches[:-3]:
        assert isinstance(patch, FancyBboxPatch)
        box = patch.get_path().get_extents()
        found.append((box.x0, box.y0, box.x1, box.y1))
    return found


def test_labels_are_symbols_and_values():
    written = texts(Expression.parse("-2 * class_mean(mean(square(p - 0.123456) / logp ^ d)) * 1e-9"))
    assert sorted(written) == sorted(
        ["×", "×", "−2", "μᶜ", "μ", "÷", "x²", "−", "p", "0.1235", "xʸ", "log p", "d", "1e−09"]
    )


def test_every_primitive_and_terminal_has_a_short_label():
    for loss in of_every_primitive():
        for node in loss.root.walk():
            assert 0 < len(_label(node, loss.coefficients)) <= 20


def test_what_occurs_again_is_drawn_once():
    written = texts(Expression.parse(TVERSKY))
    assert written.count("A") == 3, "beside what it names, and in the place of the two others"
    assert written.count("p") == 2
    assert "B" not in written


def test_a_tree_without_repetition_is_whole():
    dice = expression_of("dice")
    assert len(texts(dice)) == dice.root.size


@settings(max_examples=30)
@given(expressions(max_depth=5))
def test_no_node_touches_another_or_the_edge(expression):
    width, height = tree_picture(expression).figure.get_size_inches()
    found = boxes(expression)
    for left, bottom, right, top in found:
        assert left > 0.05
        assert bottom > 0.05
        assert right < width - 0.05
        assert top < height - 0.05
    for a, b in combinations(found, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


@pytest.mark.parametrize("name", expressible_names())
def test_the_literatures_losses_fit_a_page(name):
    width, height = tree_picture(expression_of(name)).figure.get_size_inches()
    assert width <= 11
    assert height <= 8


def test_it_can_be_told_without_seeing_it():
    assert "μᶠ" in tree_picture(expression_of("dice")).alt


class TestFile:
    @pytest.mark.parametrize(("name", "begin"), [("tree.svg", b"<?xml"), ("TREE.PNG", b"\x89PNG")])
    def test_the_ending_decides(self, tmp_path, name, begin):
        write_picture(tree_picture(expression_of("dice")), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)
        assert [file.name for file in tmp_path.iterdir()] == [name]

    def test_same_expression_same_bytes(self):
        first, second = (rendered(tree_picture(expression_of("dice")).figure, "svg") for _ in range(2))
        assert first == second

    @pytest.mark.parametrize("name", ["tree.pdf", "tree", "tree.svg.gz"])
    def test_other_endings(self, tmp_path, name):
        with pytest.raises(LossevoError, match=r"\.svg or \.png"):
            write_picture(tree_picture(expression_of("dice")), tmp_path / name)

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(LossevoError, match="cannot be written"):
            write_picture(tree_picture(expression_of("dice")), tmp_path / "none" / "tree.svg")
