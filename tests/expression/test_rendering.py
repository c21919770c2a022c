"""Formulas in print: Unicode for the terminal, LaTeX for papers, the drawn tree. Text is tested with the parser."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings

from lossevo.expression import Expression, latex, structure_text, tree, unicode
from tests.expression.strategies import expressions

CROSS_ENTROPY = "-class_sum(mean(y * logp))"
DICE = "1 - foreground_mean(2 * sum(p * y) / sum(p + y))"
FOCAL_TVERSKY = "foreground_mean((1 - sum(p * y) / (sum(p * y) + 0.3 * sum(p * (1 - y)))) ^ 0.75)"
BOUNDARY = "20 * foreground_mean(mean(p * d))"

# Whole losses


@pytest.mark.parametrize(
    ("formula", "printed"),
    [
        (CROSS_ENTROPY, "−Σᶜ[μ[y · log p]]"),
        (DICE, "1 − μᶠ[2 · Σ[p · y] / Σ[p + y]]"),
        (FOCAL_TVERSKY, "μᶠ[(1 − Σ[p · y] / (Σ[p · y] + 0.3 · Σ[p · (1 − y)]))^0.75]"),
        (BOUNDARY, "20 · μᶠ[μ[p · d]]"),
        ("class_mean(batch_sum(square(p) - batch_mean(y)))", "μᶜ[Σᴮ[p² − μᴮ[y]]]"),
    ],
)
def test_unicode(formula: str, printed: str) -> None:
    assert unicode(Expression.parse(formula)) == printed


@pytest.mark.parametrize(
    ("formula", "printed"),
    [
        (CROSS_ENTROPY, r"-\sum_{c}\left[\mu_{i}\left[y \cdot \log p\right]\right]"),
        (
            DICE,
            r"1 - \mu_{c>0}\left[\frac{2 \cdot \sum_{i}\left[p \cdot y\right]}{\sum_{i}\left[p + y\right]}\right]",
        ),
        (
            FOCAL_TVERSKY,
            r"\mu_{c>0}\left[{\left(1 - \frac{\sum_{i}\left[p \cdot y\right]}{\sum_{i}\left[p \cdot y\right]"
            r" + 0.3 \cdot \sum_{i}\left[p \cdot \left(1 - y\right)\right]}\right)}^{0.75}\right]",
        ),
        (BOUNDARY, r"20 \cdot \mu_{c>0}\left[\mu_{i}\left[p \cdot d\right]\right]"),
    ],
)
def test_latex(formula: str, printed: str) -> None:
    assert latex(Expression.parse(formula)) == printed


def test_tree() -> None:
    expression = Expression.parse("2 - class_mean(0.123456789 * sum(p * y) / mean(p))")
    assert tree(expression).split("\n") == [
        "sub  (scalar)",
        "├─ 2",
        "└─ class_mean  (scalar)",
        "   └─ div  (region)",
        "      ├─ mul  (region)",
        "      │  ├─ c0 = 0.123457",
        "      │  └─ sum  (region)",
        "      │     └─ mul  (voxel)",
        "      │        ├─ p",
        "      │        └─ y",
        "      └─ mean  (region)",
        "         └─ p",
    ]


def test_structure_text_names_coefficients_by_their_slots() -> None:
    expression = Expression.parse("-1.5 ^ class_mean(mean(p)) * (-2.0) ^ 3.0 - -4.0")
    assert structure_text(expression.root) == "-c0 ^ class_mean(mean(p)) * c1 ^ c2 - c3"


# Brackets


@pytest.mark.parametrize(
    ("formula", "printed", "typeset"),
    [
        # Text needs brackets for these, and so does print.
        ("p - (y - d)", "p − (y − d)", r"p - \left(y - d\right)"),
        ("(p + y) * d", "(p + y) · d", r"\left(p + y\right) \cdot d"),
        ("p + y + d", "p + y + d", "p + y + d"),
        ("p * (y * d)", "p · (y · d)", r"p \cdot \left(y \cdot d\right)"),
        ("-(p + y)", "−(p + y)", r"-\left(p + y\right)"),
        ("-(p * y)", "−(p · y)", r"-\left(p \cdot y\right)"),
        ("-(2.0) * p", "−(2) · p", r"-\left(2\right) \cdot p"),
        # A fraction bar brackets by itself, a slash does not.
        ("p / (y * d)", "p / (y · d)", r"\frac{p}{y \cdot d}"),
        ("(p + y) / (1 - d)", "(p + y) / (1 − d)", r"\frac{p + y}{1 - d}"),
        ("p * (y / d)", "p · (y / d)", r"p \cdot \frac{y}{d}"),
        ("(p / y) ^ 2", "(p / y)^2", r"{\left(\frac{p}{y}\right)}^{2}"),
        ("-(p / y)", "−(p / y)", r"-\frac{p}{y}"),
        # Powers, and squares among them.
        ("p ^ y ^ d", "p^y^d", "{p}^{{y}^{d}}"),
        ("(p ^ y) ^ d", "(p^y)^d", r"{\left({p}^{y}\right)}^{d}"),
        ("p ^ (y + d)", "p^(y + d)", "{p}^{y + d}"),
        ("p ^ -2", "p^−2", "{p}^{-2}"),
        ("(-p) ^ 2", "(−p)^2", r"{\left(-p\right)}^{2}"),
        ("square(p)", "p²", "{p}^{2}"),
        ("square(p + y)", "(p + y)²", r"{\left(p + y\right)}^{2}"),
        ("square(-2) * p", "(−2)² · p", r"{\left(-2\right)}^{2} \cdot p"),
        ("square(square(p))", "(p²)²", r"{\left({p}^{2}\right)}^{2}"),
        ("square(p) ^ d", "(p²)^d", r"{\left({p}^{2}\right)}^{d}"),
        ("square(p ^ d)", "(p^d)²", r"{\left({p}^{d}\right)}^{2}"),
        ("square(abs(p))", "|p|²", r"{\left|p\right|}^{2}"),
        ("-square(p)", "−p²", "-{p}^{2}"),
        # Two signs never meet.
        ("p - -y", "p − (−y)", r"p - \left(-y\right)"),
        ("p + -2", "p + (−2)", r"p + \left(-2\right)"),
        ("p * -y", "p · (−y)", r"p \cdot \left(-y\right)"),
        ("p / -y", "p / (−y)", r"\frac{p}{-y}"),
        ("--p", "−(−p)", r"-\left(-p\right)"),
        ("p + -y * d", "p + (−y · d)", r"p + \left(-y \cdot d\right)"),
        ("-p + y", "−p + y", "-p + y"),
        # The logarithm ends where it ends.
        ("logp * y", "(log p) · y", r"\left(\log p\right) \cdot y"),
        ("y * logp * d", "(y · log p) · d", r"\left(y \cdot \log p\right) \cdot d"),
        ("logp / y", "(log p) / y", r"\frac{\log p}{y}"),
        ("y / logp", "y / log p", r"\frac{y}{\log p}"),
        ("logp ^ 2", "(log p)^2", r"{\left(\log p\right)}^{2}"),
        ("square(logp)", "(log p)²", r"{\left(\log p\right)}^{2}"),
        ("logp + y - logp", "log p + y − log p", r"\log p + y - \log p"),
        ("log(p) * y", "log(p) · y", r"\log\left(p\right) \cdot y"),
        # Functions bring their own.
        ("max(p + y, min(1, -d))", "max(p + y, min(1, −d))", r"\max\left(p + y, \min\left(1, -d\right)\right)"),
        ("sqrt(p + y)", "√(p + y)", r"\sqrt{p + y}"),
        ("sigmoid(tanh(p))", "σ(tanh(p))", r"\sigma\left(\tanh\left(p\right)\right)"),
        ("exp(-p)", "exp(−p)", r"\exp\left(-p\right)"),
        # Numbers, four digits of them.
        ("0.123456 * p", "0.1235 · p", r"0.1235 \cdot p"),
        ("p * 1.5e-7", "p · 1.5e−07", r"p \cdot \left(1.5 \cdot 10^{-7}\right)"),
        ("2e6 ^ p", "2e+06^p", r"{\left(2 \cdot 10^{6}\right)}^{p}"),
        ("p + 2e6", "p + 2e+06", r"p + 2 \cdot 10^{6}"),
        ("p - 1000", "p − 1000", "p - 1000"),
    ],
)
def test_brackets_stand_where_a_reader_needs_them(formula: str, printed: str, typeset: str) -> None:
    expression = Expression.parse(f"class_mean(mean({formula}))")
    assert unicode(expression) == f"μᶜ[μ[{printed}]]"
    assert latex(expression) == rf"\mu_{{c}}\left[\mu_{{i}}\left[{typeset}\right]\right]"


# Whatever the expression


@given(expressions())
def test_latex_is_balanced(expression: Expression) -> None:
    typeset = latex(expression)
    open_brackets: list[str] = []
    closed_by = {"{": "}", r"\left(": r"\right)", r"\left[": r"\right]", r"\left|": r"\right|"}
    for token in re.findall(r"\\left.|\\right.|[{}]", typeset):
        if token in closed_by:
            open_brackets.append(closed_by[token])
        else:
            assert open_brackets.pop() == token
    assert not open_brackets
    assert typeset.isascii()


@settings(max_examples=25)
@given(expressions(max_depth=4))
def test_latex_is_understood_by_matplotlib(expression: Expression) -> None:
    mathtext = pytest.importorskip("matplotlib.mathtext")
    mathtext.MathTextParser("path").parse(f"${latex(expression)}$")


@given(expressions())
def test_unicode_is_one_line_without_ascii_minus(expression: Expression) -> None:
    printed = unicode(expression)
    assert "\n" not in printed
    assert "-" not in printed
    assert "−−" not in printed


@given(expressions())
def test_the_drawn_tree_has_one_line_for_each_node(expression: Expression) -> None:
    assert len(tree(expression).split("\n")) == expression.root.size
