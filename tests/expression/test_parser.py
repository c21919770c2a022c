"""The text form: what a formula means, that writing and reading are inverse, and that no text does any harm."""

from __future__ import annotations

import inspect
import random
import re
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossevo.expression import PRIMITIVES, TERMINALS, Expression, ExpressionError, Kind, Node
from lossevo.expression.parser import MAX_LENGTH, parse
from lossevo.expression.trees import MAX_DEPTH, MAX_NODES
from tests.expression.strategies import expressions
from tests.timing import quickest

# What a formula means


@pytest.mark.parametrize(
    ("formula", "meaning"),
    [
        ("p + y * d", "add(p, mul(y, d))"),
        ("p * y + d", "add(mul(p, y), d)"),
        ("p - y - d", "sub(sub(p, y), d)"),
        ("p - (y - d)", "sub(p, sub(y, d))"),
        ("p / y / d", "div(div(p, y), d)"),
        ("p / y * d", "mul(div(p, y), d)"),
        ("p - y + d", "add(sub(p, y), d)"),
        ("p ^ y ^ d", "pow(p, pow(y, d))"),
        ("p * y ^ d", "mul(p, pow(y, d))"),
        ("-p ^ y", "neg(pow(p, y))"),
        ("(-p) ^ y", "pow(neg(p), y)"),
        ("p ^ -y", "pow(p, neg(y))"),
        ("p ^ -y ^ d", "pow(p, neg(pow(y, d)))"),
        ("p ^ -y * d", "mul(pow(p, neg(y)), d)"),
        ("-p * y", "mul(neg(p), y)"),
        ("p * -y", "mul(p, neg(y))"),
        ("-p + y", "add(neg(p), y)"),
        ("p - -y", "sub(p, neg(y))"),
        ("--p", "neg(neg(p))"),
        ("-(p + y)", "neg(add(p, y))"),
        ("((p))", "p"),
        (" p\n+\ty ", "add(p,y)"),
        ("p\u00a0+ y\u2003", "add(p, y)"),
        ("max(p, y) - min(p, 1)", "sub(max(p, y), min(p, 1))"),
    ],
)
def test_operators_bind_as_in_mathematics(formula: str, meaning: str) -> None:
    assert parse(formula) == parse(meaning)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_can_be_called_by_its_name(name: str) -> None:
    primitive = PRIMITIVES[name]
    operand = "sum(p)" if primitive.source is Kind.REGION else "p"
    operands = [operand] * (primitive.arity - primitive.parameters) + ["2"] * primitive.parameters
    root, _ = parse(f"{name}({', '.join(operands)})")
    assert root.name == name
    assert root == parse(primitive.text.format(*operands))[0]


def test_what_a_curve_looks_like_is_a_scalar() -> None:
    assert parse("curve2(p, t, class_mean(f))")[0].kind is Kind.VOXEL
    with pytest.raises(ExpressionError, match=r"curve1 takes scalar values after its first operand, .* a voxel one"):
        parse("curve1(p, y)")
    with pytest.raises(ExpressionError, match="max_pool works on a voxel value, but is given a region one"):
        parse("max_pool(mean(p))")


@pytest.mark.parametrize("number", ["2.0", "2.", "2e0", "2E+0", "0.02e2", "20e-1", "0000000002.0"])
def test_a_number_with_point_or_exponent_is_a_coefficient(number: str) -> None:
    assert parse(f"p * {number}") == (Node("mul", (Node("p"), Node("coefficient", value=0))), (2.0,))


def test_an_integer_is_a_constant() -> None:
    assert parse("p * 2") == (Node("mul", (Node("p"), Node("constant", value=2))), ())
    assert parse("-2")[0] == Node("constant", value=-2)
    assert parse("p - 2")[0] == parse("sub(p, 2)")[0]
    assert parse("-0")[0] == parse("0")[0]


def test_a_minus_belongs_to_the_number_after_it_unless_a_power_follows() -> None:
    assert parse("-2.5") == (Node("coefficient", value=0), (-2.5,))
    assert parse("-2.5 * p")[1] == (-2.5,)
    assert parse("p ^ -2.5")[1] == (-2.5,)
    assert parse("-2.5 ^ p") == parse("-(2.5 ^ p)")
    assert parse("-(2.5)") == (Node("neg", (Node("coefficient", value=0),)), (2.5,))
    assert parse("--2")[0] == parse("-(-2)")[0] == Node("neg", (Node("constant", value=-2),))


def test_coefficients_are_numbered_as_they_are_written() -> None:
    root, values = parse("1.5 * p + 2 * max(-0.5, 3e2)")
    assert values == (1.5, -0.5, 300.0)
    assert [node.value for node in root.walk() if node.name == "coefficient"] == [0, 1, 2]


def test_slots_name_coefficients_kept_elsewhere() -> None:
    root, written = parse("c1 * p - c0", slots=2)
    assert [node.value for node in root.walk() if node.name == "coefficient"] == [1, 0]
    assert written == ()
    for formula in ("c2 * p", "c01", "c", "c-1", "c99999"):
        with pytest.raises(ExpressionError, match="position"):
            parse(formula, slots=2)
    with pytest.raises(ExpressionError, match="unknown name 'c0'"):
        parse("c0 * p")


# Writing and reading are inverse


@given(expressions())
def test_text_is_read_back_exactly(expression: Expression) -> None:
    assert Expression.parse(str(expression)) == expression


@given(expressions(max_depth=10))
def test_deep_text_is_read_back_exactly(expression: Expression) -> None:
    assert Expression.parse(str(expression)) == expression


@pytest.mark.parametrize(
    "formula",
    [
        "p - y - (d - 1)",
        "(p + y) * d / (1 - p)",
        "p * (y * d)",
        "p ^ y ^ d",
        "(p ^ y) ^ d",
        "p ^ (y + d)",
        "p ^ -y",
        "(-p) ^ y",
        "-p ^ y",
        "(-2.0) ^ y",
        "-2.0 ^ y",
        "--p",
        "-(p * y)",
        "-p * y",
        "p - -y",
        "p * -2",
        "-(2.0)",
        "-(-2)",
        "max(p + y, -1)",
    ],
)
def test_text_has_the_brackets_it_needs_and_no_others(formula: str) -> None:
    formula = f"class_mean(mean({formula} + p))" if formula.startswith("-(") else f"class_mean(mean({formula}))"
    assert str(Expression.parse(formula)) == formula


def _full(depth: int, leaf: Callable[[], Node], name: str) -> Node:
    if depth == 1:
        return leaf()
    return Node(name, (_full(depth - 1, leaf, name), _full(depth - 1, leaf, name)))


@pytest.mark.parametrize("name", ["max", "pow", "sub"])
def test_the_longest_text_of_a_tree_is_not_too_long_to_read(name: str) -> None:
    slots = iter(range(MAX_NODES))
    root = _full(10, lambda: Node("coefficient", value=next(slots)), name)
    expression = Expression(root, (-1.2345678901234567e-100,) * 512)
    assert root.size == MAX_NODES - 1
    assert Expression.parse(str(expression)) == expression


@pytest.mark.parametrize("link", ["-{}", "abs({})", "1 - ({})", "-(p + {})", "p ^ (p + {})", "p + p * p ^ ({})"])
def test_the_deepest_tree_can_be_written_and_read(link: str) -> None:
    step = parse(link.format("p"))[0].depth - 1
    formula = "p"
    for _ in range((MAX_DEPTH - 3) // step):
        formula = link.format(formula)
    expression = Expression.parse(f"class_mean(mean({formula}))")
    assert Expression.parse(str(expression)) == expression


# Errors say where and what


@pytest.mark.parametrize(
    ("formula", "position", "message"),
    [
        ("", 1, "expected a number, a name or '(', found the end"),
        ("p +", 4, "expected a number, a name or '(', found the end"),
        ("p + * y", 5, "expected a number, a name or '(', found '*'"),
        ("(p + y", 7, "expected ')', found the end"),
        ("p + y)", 6, "expected an operator or the end, found ')'"),
        ("p y", 3, "expected an operator or the end, found 'y'"),
        ("2 p", 3, "expected an operator or the end, found 'p'"),
        ("1.2.3", 4, "expected an operator or the end, found '.3'"),
        ("sum p", 5, "expected '(', found 'p'"),
        ("sum()", 5, "expected a number, a name or '(', found ')'"),
        ("max(p)", 1, "max takes 2 operand(s), not 1"),
        ("1 + max(p, y, d)", 5, "max takes 2 operand(s), not 3"),
        ("p(1)", 2, "expected an operator or the end, found '('"),
        ("1 + sum(sum(p))", 5, "sum reduces a voxel value, but is given a region one"),
        ("1 + mean(2)", 5, "mean reduces a voxel value, but is given a scalar one"),
        ("class_mean(p)", 1, "class_mean reduces a region value, but is given a voxel one"),
        ("p @ y", 3, "cannot read '@ y'"),
        ("p − y", 3, "cannot read '− y'"),
        ("p\0", 2, r"cannot read '\x00'"),
        ("p + ²", 5, "cannot read '²'"),
        ("p + ٣", 5, "cannot read '٣'"),
        ("ｐ", 1, "cannot read 'ｐ'"),
        ("p + 1001", 5, "integer 1001 is too large: at most ±1000 (write 1001.0"),
        ("p + 1e13", 5, "1e13 is too large: at most 1e+12"),
        ("p + 1e999", 5, "1e999 is too large"),
        ("p + " + "9" * 41, 5, "a number of 41 characters; at most 40"),
        ("p.__class__", 2, "cannot read"),
        ("__import__('os')", 1, "unknown name '__import__'"),
        ("p = 1", 3, "cannot read '= 1'"),
        ("nan", 1, "unknown name 'nan'"),
        ("1 + infinity", 5, "unknown name 'infinity'"),
    ],
)
def test_an_error_has_position_and_reason(formula: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(f"formula, position {position}: {message}")):
        parse(formula)


@pytest.mark.parametrize(
    ("word", "near"),
    [("summ(p)", "sum"), ("forground_mean(sum(p))", "foreground_mean"), ("sigmoyd(p)", "sigmoid"), ("log_p", "logp")],
)
def test_an_unknown_name_is_answered_with_the_nearest(word: str, near: str) -> None:
    with pytest.raises(
        ExpressionError, match=rf"position 5: unknown name .*did you mean '{near}'\?.*loss-language.md lists all"
    ):
        parse(f"1 - {word}")


def test_the_error_of_a_long_formula_shows_the_place_only() -> None:
    formula = "p + " * 30 + "q" + " + p" * 30
    with pytest.raises(ExpressionError, match="position 121: unknown name 'q'") as raised:
        parse(formula)
    assert len(str(raised.value)) < 400


def test_a_loss_must_be_one_number() -> None:
    for formula in ("p", "sum(p)", "p + 1", "log(mean(p))"):
        with pytest.raises(ExpressionError, match="must be one number"):
            Expression.parse(formula)


@pytest.mark.parametrize("formula", [None, 1, b"p", ["p"]])
def test_a_formula_must_be_text(formula: object) -> None:
    with pytest.raises(ExpressionError, match="must be text"):
        parse(formula)  # type: ignore[arg-type]


# No text does any harm

_HOSTILE = {
    "brackets": "(" * MAX_LENGTH,
    "closed brackets": "(" * 9000 + "p" + ")" * 9000,
    "minuses": "-" * (MAX_LENGTH - 1) + "p",
    "minus and bracket": "-(" * 9999,
    "powers": "p^" * 9999 + "p",
    "powers of minus": "p^-" * 6000 + "p",
    "number powers": "-1^" * 6000 + "p",
    "sums": "p+" * 9999 + "p",
    "climbing": "p+p*p^(" * 2000,
    "calls": "abs(" * 5000,
    "closed calls": "abs(" * 3000 + "p" + ")" * 3000,
    "operands": "max(" + "p," * 9000 + "p)",
    "digits": "1" * MAX_LENGTH,
    "decimals": "0." + "1" * (MAX_LENGTH - 2),
    "exponent": "1e" + "9" * (MAX_LENGTH - 2),
    "zeros": "0" * MAX_LENGTH,
    "points": "." * MAX_LENGTH,
    "name": "a" * MAX_LENGTH,
    "spaces": " " * MAX_LENGTH,
    "spaces and a sign": " " * (MAX_LENGTH - 1) + "@",
    "nulls": "\0" * MAX_LENGTH,
    "too long": "p" * (MAX_LENGTH + 1),
    "surrogates": "\ud800" * MAX_LENGTH,
    "right to left": "\u202e" * MAX_LENGTH,
}


@pytest.mark.parametrize("formula", _HOSTILE.values(), ids=_HOSTILE)
def test_hostile_text_is_refused_at_once(formula: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        parse(formula)
    assert quickest(lambda: _check_outcome(formula)) < 0.5
    assert len(str(raised.value)) < 1000 or "unknown name" in str(raised.value)


def test_the_deepest_nesting_needs_few_of_pythons_stack_frames() -> None:
    """Whoever calls the parser may be deep in a stack: of 1000 frames it takes at most 450."""

    def below(frames: int) -> None:
        if frames > 0:
            below(frames - 1)
            return
        for name in ("brackets", "minuses", "minus and bracket", "number powers", "climbing", "calls"):
            with pytest.raises(ExpressionError, match="nested more than"):
                parse(_HOSTILE[name])

    below(sys.getrecursionlimit() - len(inspect.stack(0)) - 450)


def _check_outcome(text: str) -> bool:
    """Parse; whatever comes is an expression that can be written and read again, or an error in one line."""
    try:
        expression = Expression.parse(text)
    except ExpressionError as error:
        message = str(error)
        assert "\n" not in message
        assert re.match(r"formula, position \d+: |formula of |a loss must be one number", message), message
        return False
    assert Expression.parse(str(expression)) == expression
    return True


@given(st.text())
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    _check_outcome(text)


_WORDS = [*TERMINALS, *PRIMITIVES, *"+-*/^(),. 0123456789eEc_@\0−²\u00a0", "1.5", "-2.0", "1000", "1e13", "sum(", "c0"]


@given(st.lists(st.sampled_from(_WORDS)).map("".join))
def test_any_words_of_the_language_are_an_expression_or_an_error(text: str) -> None:
    _check_outcome(text)


def _mutated(text: str, random: random.Random) -> str:
    """``text`` with a few pieces removed, repeated, exchanged or replaced."""
    for _ in range(random.randint(1, 4)):
        i, j = sorted((random.randint(0, len(text)), random.randint(0, len(text))))
        match random.randrange(5):
            case 0:
                text = text[:i] + text[i + 1 :]
            case 1:
                text = text[:i] + random.choice(_WORDS) + text[i:]
            case 2:
                text = text[:i] + random.choice(_WORDS) + text[i + 1 :]
            case 3:
                text = text[:j] + text[i:j] * random.randint(1, 3) + text[j:]
            case _:
                text = text[:i] + chr(random.randrange(0x110000)) + text[j:]
    return text


@given(expressions(max_depth=4), st.randoms(use_true_random=False))
def test_a_damaged_formula_is_an_expression_or_an_error(expression: Expression, random: random.Random) -> None:
    _check_outcome(_mutated(str(expression), random))


@pytest.mark.parametrize(("count", "expected"), [(20_000, 400), pytest.param(100_000, 3_000, marks=pytest.mark.chaos)])
def test_formulas_damaged_at_random_are_expressions_or_errors(count: int, expected: int) -> None:
    generator = random.Random(4)
    pool = [
        "1 - foreground_mean(2 * sum(p * y) / sum(p + y))",
        "-class_sum(mean((1 - p) ^ 2.0 * y * logp))",
        "20 * foreground_mean(batch_mean(p * d)) - -0.5 ^ class_mean(max(sum(p), 1e-3))",
        "class_mean(mean(sqrt(abs(p - y)) + tanh(-d) - sigmoid(exp(log(square(p))))))",
    ]
    valid = 0
    for _ in range(count):
        text = _mutated(generator.choice(pool), generator)
        start = time.thread_time()
        accepted = _check_outcome(text)
        if time.thread_time() - start > 1.0:
            assert quickest(lambda text=text: _check_outcome(text)) < 1.0
        valid += accepted
        if accepted and len(text) < 1000:
            # What was accepted is damaged further, so that the formulas drift away from the first ones.
            pool.append(text)
            if len(pool) > 500:
                pool.pop(generator.randrange(len(pool)))
    assert valid > expected
