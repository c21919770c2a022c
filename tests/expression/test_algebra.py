"""Simplification by algebra: shorter, never another loss, never longer than the deadline."""

from __future__ import annotations

import sys
import time
import uuid

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lossevo.expression import PRIMITIVES, Expression, Kind, Node
from lossevo.expression.algebra import Simplified, simplified
from lossevo.expression.algebra_worker import Algebra, candidates, measure
from lossevo.search.equivalence import same_loss
from tests.expression.interpreter import NearJump, gradients, interpret, random_inputs
from tests.expression.strategies import expressions, signatures, tame_coefficient
from tests.processes import marked_after

VOXEL = "foreground_mean(mean({}))"
INPUTS = {dtype: random_inputs((2, 3, 4, 3), seed=2, dtype=dtype) for dtype in (torch.float64, torch.float32)}


def measured(expression: Expression, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Value and gradients on random inputs, as one vector."""
    inputs = INPUTS[dtype]
    value = interpret(expression, inputs, torch.tensor(expression.coefficients, dtype=dtype))
    parts = [value, *gradients(value, [inputs["p"], inputs["logp"]])]
    return torch.cat([part.detach().double().flatten() for part in parts])


def assert_equal(found: Expression, expected: Expression) -> None:
    wanted = measured(expected)
    torch.testing.assert_close(measured(found), wanted, rtol=0, atol=1e-8 * max(1.0, float(wanted.abs().max())))


def shortest(text: str) -> Expression:
    """What is taken of a loss, or of something per voxel, without a process of its own."""
    expression = Expression.parse(text)
    same = same_loss(expression)
    return next((candidate for candidate in candidates(expression) if same(candidate)), expression)


def round_trip(expression: Expression, *, bold: bool) -> Expression:
    """To SymPy and back, where SymPy does what it does unasked."""
    algebra = Algebra(bold=bold)
    return algebra.expression(algebra.tree(algebra.translated(algebra.read(expression))))


def of_every_primitive() -> list[Expression]:
    """Every primitive on operands of all kinds it takes, as a loss."""
    operands = {
        Kind.VOXEL: [Node("p"), Node("y")],
        Kind.REGION: [Node("mean", (Node("y"),)), Node("batch_sum", (Node("p"),))],
        Kind.SCALAR: [Node("coefficient", value=0), Node("constant", value=2)],
    }
    losses = []
    for primitive in PRIMITIVES.values():
        for kinds, _ in signatures(primitive):
            root = Node(primitive.name, tuple(operands[kind][place % 2] for place, kind in enumerate(kinds)))
            for reduction, source in (("mean", Kind.VOXEL), ("class_mean", Kind.REGION)):
                root = Node(reduction, (root,)) if root.kind is source else root
            losses.append(Expression.of(root, [1.25]))
    return losses


class TestRoundTrip:
    @pytest.mark.parametrize("bold", [True, False])
    @pytest.mark.parametrize("loss", of_every_primitive(), ids=str)
    def test_every_primitive_comes_back(self, loss, bold):
        assert_equal(round_trip(loss, bold=bold), loss)

    def test_numbers_keep_their_precision(self):
        loss = Expression.parse(VOXEL.format("0.1234567890123456 * p + 123456.789e-9 * y"))
        assert set(round_trip(loss, bold=True).coefficients) == {0.1234567890123456, 123456.789e-9}

    def test_large_integers_become_coefficients(self):
        assert str(shortest(VOXEL.format("1000 * (1000 * p)"))) == f"1000000.0 * {VOXEL.format('p')}"


class TestKnownCases:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("p + p", "2 * p"),
            ("p * 2.5 / 2.5", "p"),
            ("1 - (1 - p)", "p"),
            ("log(exp(p))", "p"),
            ("-(-p)", "p"),
            ("p * y + y * p", "2 * p * y"),
            ("2.0 * (3.0 * p)", "6 * p"),
            ("2.5 * (3.0 * p)", "7.5 * p"),
            ("0.5 * (2.0 * p)", "p"),
            ("0.3 * p + 0.7 * p", "p"),
            ("0.3 * p + 0.2 * y - 0.3 * p", "0.2 * y"),
            ("1.5 - p - 1.5", "-p"),
            ("(1.5 - p) * (1.5 - p) ^ 0.5", "(1.5 - p) ^ 1.5"),
            ("mean(p) * y / mean(p)", "y"),
            ("tanh(p * y + y * p)", "tanh(2 * p * y)"),
            ("max(p + p + p, y)", "max(3 * p, y)"),
        ],
    )
    def test_per_voxel(self, text, expected):
        found = shortest(VOXEL.format(text))
        assert found.complexity <= Expression.parse(VOXEL.format(expected)).complexity
        assert_equal(found, Expression.parse(VOXEL.format(expected)))

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("class_mean(sum(2.0 * p * y)) - class_mean(sum(y * p))", "class_mean(sum(p * y))"),
            ("class_sum(sum(p) + sum(y))", "class_sum(sum(p + y))"),
            ("1 - class_mean(1 - mean(p * y))", "class_mean(mean(p * y))"),
            (
                "1 - foreground_mean(sum(p * y) / (sum(p * y) + 0.3 * sum(p * (1 - y)) + 0.7 * sum((1 - p) * y)))",
                "1 - foreground_mean(sum(p * y) / sum(0.3 * p + 0.7 * y))",
            ),
            (
                "0.5 - foreground_mean(2 * sum(p * y) / sum(p + y)) - 0.5 * foreground_mean(sum(p * y) / sum(p + y))",
                "0.5 - 2.5 * foreground_mean(sum(p * y) / sum(p + y))",
            ),
        ],
    )
    def test_reductions_are_linear(self, text, expected):
        assert str(shortest(text)) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "foreground_mean(sum(p * y) / sum(p + y))",
            VOXEL.format("p / p"),  # below 1e-4 it is p * 10,000, and its gradient pulls p up
            VOXEL.format("(1 - p) ^ 1"),
            VOXEL.format("square(sqrt(y)) * p"),
            VOXEL.format("sqrt(square(p * d))"),
            "class_mean(batch_sum(sum(y) * p))",  # the sum is another in each image
            "class_mean(max(mean(p), mean(y)))",
        ],
    )
    def test_what_is_short_or_protected_stays(self, text):
        assert str(shortest(text)) == text

    def test_what_does_not_vary_is_not_summed(self):
        """The language has no sum of a number."""
        loss = Expression.parse("class_sum(sum(p - p + 2)) + class_sum(sum(y))")
        assert str(candidates(loss)[0]) == "class_sum(sum(2 + y))"
        assert candidates(Expression.parse("class_sum(sum(p - p + 2))")) == []


class TestAnyExpression:
    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(expressions(max_depth=4, coefficients=tame_coefficient, constants=st.integers(-2, 3)))
    def test_cautious_algebra_changes_no_loss(self, expression):
        assume(expression.root.size <= 40)
        try:
            exact, rounded = measured(expression), measured(expression, torch.float32)
        except NearJump:
            assume(False)
        scale = float(exact.abs().max())
        assume(scale < 1e6 and torch.allclose(exact, rounded, rtol=0, atol=1e-2 * max(scale, 1e-30)))
        algebra = Algebra(bold=False, split=True)
        root = algebra.simplest(algebra.read(expression))
        assert measure(root) <= measure(expression.root)
        assert_equal(algebra.expression(root), expression)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(expressions(max_depth=4, coefficients=tame_coefficient, constants=st.integers(-2, 3)))
    def test_what_is_accepted_is_shorter_and_the_same_loss(self, expression):
        assume(expression.root.size <= 40 and expression.terminals & {"p", "logp"})
        same = same_loss(expression)
        assume(same(expression))
        found = next((candidate for candidate in candidates(expression) if same(candidate)), expression)
        assert measure(found.root) <= measure(expression.root)
        assert Expression.parse(str(found)) == found
        assert Expression.from_json(found.to_json()) == found


class TestProcess:
    LOSS = Expression.parse("1 - (1 - class_mean(mean(p * y + y * p)))")

    def test_the_shortest_that_is_the_same(self):
        found = simplified(self.LOSS, same_loss(self.LOSS))
        assert found == Simplified(Expression.parse("2 * class_mean(mean(p * y))"))

    def test_a_refusal_is_told(self):
        found = simplified(self.LOSS, same=lambda candidate: False)
        assert found.expression is self.LOSS
        assert "another loss" in found.note

    def test_nothing_shorter_is_told(self):
        loss = Expression.parse("class_mean(mean(p))")
        assert simplified(loss, same_loss(loss)) == Simplified(loss, "algebra finds no shorter form")

    def test_the_deadline_holds_and_no_process_is_left(self, monkeypatch):
        mark = uuid.uuid4().hex
        monkeypatch.setenv("LOSSEVO_TEST_MARK", mark)
        began = time.monotonic()
        found = simplified(self.LOSS, same_loss(self.LOSS), deadline_s=0.01)
        assert found == Simplified(self.LOSS, "SymPy did not end within 0.01 s")
        assert time.monotonic() - began < 30
        assert not marked_after(mark, 60)

    @pytest.mark.parametrize(
        ("program", "note"), [("/bin/false", "ended with status 1"), ("/nowhere/python", "cannot be started")]
    )
    def test_a_process_that_fails_is_told(self, monkeypatch, program, note):
        monkeypatch.setattr(sys, "executable", program)
        found = simplified(self.LOSS, same_loss(self.LOSS))
        assert found.expression is self.LOSS
        assert note in found.note
