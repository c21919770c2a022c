"""The figure of an expression's tree, for print: nodes by kind, what occurs twice drawn once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lossevo.expression import COEFFICIENT, CONSTANT, PRIMITIVES, TERMINALS, Expression, Kind, Node, unicode
from lossevo.report.style import COLOURS, GREY, Picture, styled

# Of the tree, in inches.
_LEVEL = 0.5
_GAP = 0.14
_HEIGHT = 0.27
_CHARACTER = 0.083
_MARGIN = 0.15
_KEY = 0.38
_KEY_WIDTH = 4.1
_FONT_SIZE = 9.5

_SHARED = 4
"""A sub-expression of at least so many nodes that occurs again is not drawn again."""
_LABELS: Mapping[str, str] = MappingProxyType({"mul": "×", "div": "÷", "square": "x²", "abs": "|x|", "pow": "xʸ"})
"""Of primitives whose symbol says little without operands."""
_COLOURS: Mapping[Kind, str] = MappingProxyType(
    {Kind.VOXEL: COLOURS[0], Kind.REGION: COLOURS[2], Kind.SCALAR: COLOURS[1]}
)
_KEYS: Mapping[Kind, str] = MappingProxyType(
    {Kind.VOXEL: "per voxel", Kind.REGION: "per class", Kind.SCALAR: "one number"}
)


@dataclass(slots=True)
class _Box:
    """A node where it is drawn: ``x`` is its middle, from that of its parent; ``letter`` names what occurs again."""

    label: str
    kind: Kind
    leaf: bool
    letter: str = ""
    reference: bool = False
    children: list[_Box] = field(default_factory=list)
    x: float = 0.0

    @property
    def width(self) -> float:
        return max(_HEIGHT, _CHARACTER * len(self.label) + 0.12)


def tree_picture(expression: Expression) -> Picture:
    """The tree from top to bottom, operands from left to right; its size follows the tree."""
    with styled():
        root = _boxes(expression)
        left, right = _tidy(root)
        width = max(_KEY_WIDTH, max(right) - min(left)) + 2 * _MARGIN
        height = (len(left) - 1) * _LEVEL + _HEIGHT + _KEY + 2 * _MARGIN
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        _draw(axes, root, (width - max(right) - min(left)) / 2, height - _MARGIN - _HEIGHT / 2)
        _draw_key(axes, width / 2)
    return Picture("tree", "tree", "The tree", f"The tree of the formula {unicode(expression)}", figure)


def _boxes(expression: Expression) -> _Box:
    """The tree as it is drawn; of equal sub-expressions all but the first become references to it."""
    occurrences = _occurrences(expression.root)
    letters: dict[Node, str] = {}

    def box(node: Node) -> _Box:
        drawn = _Box(_label(node, expression.coefficients), node.kind, leaf=not node.children)
        if occurrences[node] > 1 and node.size >= _SHARED:
            if node in letters:
                return replace(drawn, label=letters[node], reference=True)
            drawn.letter = letters[node] = _name(len(letters))
        drawn.children = [box(child) for child in node.children]
        return drawn

    return box(expression.root)


def _occurrences(root: Node) -> Counter[Node]:
    """How often each sub-expression is met if what was met before is not entered again."""
    count = Counter[Node]()

    def visit(node: Node) -> None:
        count[node] += 1
        if count[node] == 1 or node.size < _SHARED:
            for child in node.children:
                visit(child)

    visit(root)
    return count


def _name(number: int) -> str:
    return ascii_uppercase[number % 26] + "′" * (number // 26)


def _label(node: Node, coefficients: Sequence[float]) -> str:
    if node.name == CONSTANT:
        return str(node.value).replace("-", "−")
    if node.name == COEFFICIENT:
        return f"{coefficients[node.value]:.4g}".replace("-", "−")
    if node.name in TERMINALS:
        return TERMINALS[node.name].symbol
    return _LABELS.get(node.name) or re.sub(r"\{\d\}|[\s,()\[\]]", "", PRIMITIVES[node.name].symbol) or node.name


def _tidy(box: _Box) -> tuple[list[float], list[float]]:
    """Place all below a box, each subtree as close to its left neighbour as their outlines allow, a parent above the
    middle of its children (Reingold & Tilford 1981). Returns the outline, from the box's middle: the least and the
    greatest x of every level.
    """
    outlines = [_tidy(child) for child in box.children]
    left: list[float] = []
    right: list[float] = []
    for child, (child_left, child_right) in zip(box.children, outlines, strict=True):
        child.x = max((a - b + _GAP for a, b in zip(right, child_left, strict=False)), default=0.0)
        left += [child.x + x for x in child_left[len(left) :]]
        right = [child.x + x for x in child_right] + right[len(child_right) :]
    middle = (box.children[0].x + box.children[-1].x) / 2 if box.children else 0.0
    for child in box.children:
        child.x -= middle
    return [-box.width / 2, *(x - middle for x in left)], [box.width / 2, *(x - middle for x in right)]


def _draw(axes: Axes, box: _Box, x: float, y: float) -> None:
    for child in box.children:
        axes.plot([x, x + child.x], [y, y - _LEVEL], color=GREY, linewidth=0.9, zorder=1, solid_capstyle="round")
        _draw(axes, child, x + child.x, y - _LEVEL)
    _draw_node(axes, box, x, y)
    if box.letter:
        side = -1 if box.x < 0 else 1  # the line to the parent leaves on the other
        axes.text(
            x + side * (box.width / 2 + 0.07),
            y + 0.09,
            box.letter,
            fontsize=8,
            fontweight="bold",
            ha="center",
            va="center",
            color=_COLOURS[box.kind],
        )


def _draw_node(axes: Axes, box: _Box, x: float, y: float) -> None:
    """Operations are filled, inputs outlined, numbers bare; a reference is dashed."""
    colour = _COLOURS[box.kind]
    bare = box.leaf and box.kind is Kind.SCALAR
    axes.add_patch(
        FancyBboxPatch(
            (x - box.width / 2 + 0.06, y - _HEIGHT / 2 + 0.06),
            box.width - 0.12,
            _HEIGHT - 0.12,
            boxstyle="round,pad=0.06",
            facecolor="white" if box.leaf or box.reference else colour,
            edgecolor="white" if bare else colour,
            linestyle=(0, (2.5, 1.5)) if box.reference else "-",
            linewidth=1.2,
            zorder=2,
        )
    )
    axes.text(
        x,
        y - 0.008,
        box.label,
        ha="center",
        va="center_baseline",
        fontsize=_FONT_SIZE,
        color="black" if box.leaf else colour if box.reference else "white",
        fontweight="bold" if box.reference or not box.leaf else "normal",
        zorder=3,
    )


def _draw_key(axes: Axes, middle: float) -> None:
    y = _MARGIN + _HEIGHT / 2 - 0.04
    for index, (kind, meaning) in enumerate(_KEYS.items()):
        x = middle - _KEY_WIDTH / 2 + 0.3 + index * 1.3
        axes.add_patch(
            FancyBboxPatch(
                (x, y - 0.05), 0.1, 0.1, boxstyle="round,pad=0.03", facecolor=_COLOURS[kind], edgecolor="none"
            )
        )
        axes.text(x + 0.22, y, meaning, va="center_baseline", fontsize=8, color=GREY)
