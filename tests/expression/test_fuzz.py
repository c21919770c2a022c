"""Whatever text comes from strangers, it ends in an expression or in a :class:`LossevoError`, and soon.

``tests/fuzz`` has the long runs of the same; here are short ones, and what hypothesis thinks of.
"""

from __future__ import annotations

import json
import random
import time
from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lossevo.errors import LossevoError, shown
from lossevo.expression import Expression
from lossevo.expression.codegen import generate_with_gradient
from tests.expression.strategies import expressions
from tests.fuzz.fuzz_compiler import CompilerFuzzer, random_trees
from tests.fuzz.fuzz_parser import READERS, Fuzzer, Mutator, deep, first_inputs, outcome

SEEDS = first_inputs()
SOON_S = 0.5


def assert_decent(reader: str, text: str) -> str:
    began = time.thread_time()
    found = outcome(reader, text)
    assert time.thread_time() - began < SOON_S
    return found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


# What hypothesis thinks of


@settings(max_examples=300)
@given(seed=st.sampled_from(SEEDS), other=st.sampled_from(SEEDS), chance=st.randoms(use_true_random=False))
def test_what_was_valid_and_is_damaged(seed: tuple[str, str], other: tuple[str, str], chance: random.Random) -> None:
    reader, text = seed
    assert_decent(reader, Mutator(chance)(reader, text, other[1]))


@given(expressions(), st.sampled_from(["format", "structure", "coefficients"]), json_values)
def test_an_expression_document_with_any_value_in_it(expression: Expression, key: str, value: Any) -> None:
    assert_decent("expression", json.dumps({**expression.to_json(), key: value}))


@given(st.sampled_from(["format", "expression", "metadata", "formula", "sha256"]), json_values)
def test_a_loss_document_with_any_value_in_it(key: str, value: Any) -> None:
    document = json.loads(next(text for reader, text in SEEDS if reader == "document" and "metadata" in text))
    assert_decent("document", json.dumps({**document, key: value}))


@given(st.sampled_from(list(READERS)), json_values.map(json.dumps) | st.text())
def test_anything(reader: str, text: str) -> None:
    assert_decent(reader, text)


class Odd:
    """No value of JSON."""

    def __repr__(self) -> str:
        return "two\nlines"


ODDITIES = [10**5000, deep(900), deep(900, dict), [10**5000], b"p", Odd(), {1: 2}, ...]


@pytest.mark.parametrize("value", ["\ud800", "x" * 10**6, *ODDITIES], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("key", ["format", "structure", "coefficients", ""])
def test_a_document_that_is_no_json_at_all(key: str, value: Any) -> None:
    """Who calls ``from_json`` may have got the document from anywhere."""
    document = {**Expression.parse("class_mean(mean(p * y))").to_json(), key: value} if key else value
    with pytest.raises(LossevoError) as raised:
        Expression.from_json(document)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


# Documents


def document(**changes: object) -> str:
    written = json.loads(next(text for reader, text in SEEDS if reader == "document" and "metadata" in text))
    return json.dumps({**written, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (document(metadata={"score": float("nan")}), "cannot be written again"),
        (document(metadata={"score": "LARGE"}).replace('"LARGE"', "1e999"), "cannot be written again"),
        (document(metadata={"name": "\ud800"}), "cannot be written again"),
        (document(metadata=deep(60, dict)), "nested more than 50 deep"),
        ("[" * 100_000, "not readable JSON"),
        (document(metadata=[0.0] * 10_000), "expected an object"),
        (document(format="x" * 10_000), "is not a lossevo loss"),
        (document(format="lossevo.loss/" + "9" * 10_000), "update lossevo"),
        (document(expression=deep(40)), "not an expression"),
        (document(metadata={}).removesuffix("}") + ', "metadata": {"name": "second"}}', "given twice"),
        (document(metadata={"score": "LARGE"}).replace('"LARGE"', "9" * 5000), "not readable JSON"),
    ],
)
def test_a_hostile_document_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(LossevoError, match=message) as raised:
        READERS["document"](text)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("value", ["x" * 100, "\u2028\ud800", *ODDITIES], ids=lambda value: type(value).__name__)
def test_any_value_can_be_shown(value: object) -> None:
    assert shown(value, 40).isprintable()
    assert len(shown(value, 40)) <= 40


# The fuzzers


def test_a_short_run_guided_by_coverage() -> None:
    fuzzer = Fuzzer(1500, seed=1)
    fuzzer.run()
    assert not fuzzer.findings, fuzzer.findings[0]
    assert fuzzer.outcomes["valid"] > 100
    assert fuzzer.coverage.arcs > 200
    assert len(fuzzer.corpus) > len(SEEDS) + 50


@pytest.mark.parametrize(
    "harm", [ValueError("no LossevoError"), RecursionError(), LossevoError("two\nlines"), LossevoError("x" * 10_000)]
)
def test_the_fuzzer_finds_what_is_wrong(harm: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def harmful(text: str) -> Expression:
        if "sum" in text:
            raise harm
        return Expression.parse(text)

    monkeypatch.setitem(READERS, "formula", harmful)
    fuzzer = Fuzzer(50)
    fuzzer.run(most_findings=1)
    assert len(fuzzer.findings) == 1
    assert "sum" in fuzzer.findings[0]


def test_the_fuzzer_finds_what_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(text: str) -> Expression:
        began = time.thread_time()
        while time.thread_time() - began < 0.3:
            pass
        return Expression.parse(text)

    monkeypatch.setitem(READERS, "formula", slow)
    fuzzer = Fuzzer(10)
    fuzzer.run(most_findings=1)
    assert "took " in fuzzer.findings[0]


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [Fuzzer(200, seed=3) for _ in range(2)]
    for fuzzer in runs:
        fuzzer.run()
    assert runs[0].corpus == runs[1].corpus
    assert runs[0].outcomes == runs[1].outcomes


def test_large_and_shared_trees_compile_in_bounded_time() -> None:
    fuzzer = CompilerFuzzer(islice(random_trees(random.Random(1)), 6))
    fuzzer.run()
    assert not fuzzer.findings, fuzzer.findings[0]
    assert fuzzer.nodes > 6 * 100


def test_a_chain_as_deep_as_trees_may_be_compiles() -> None:
    """What is computed at the true class is looked for all the way down, without Python's stack."""
    inner = "logp"
    for _ in range(58):
        inner = f"greater({inner}, p)"
    expression = Expression.parse(f"class_mean(mean(y * {inner}))")
    for hard in (False, True):
        assert generate_with_gradient(expression.root, hard=hard).lines
