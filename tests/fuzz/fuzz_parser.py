"""Coverage-guided fuzzing of what reads text from strangers: formulas, expression documents, ``loss.json``.

    python tests/fuzz/fuzz_parser.py --inputs 100000 --seed 0

An input that goes from one line to another as none before it did, or more often, is kept and mutated further. Every
input must end in a :class:`LossevoError` whose message is one line of bearable length, or in a loss that reads back
equal from all that it can be written as and, if it is an expression judged safe, compiles; within half a second.
Anything else is a finding: it is printed, and the exit status is 1. The same seed gives the same inputs.

Plain ``sys.settrace``: no tool to install, and any Python will do.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from lossevo import errors
from lossevo.errors import LossevoError
from lossevo.export import document as documents
from lossevo.export.document import LossDocument
from lossevo.expression import PRIMITIVES, TERMINALS, Expression, parser, trees
from lossevo.expression.codegen import compile_with_gradient
from lossevo.expression.dangers import is_safe
from lossevo.losses import definitions, expressible_names, expression_of, neural
from lossevo.losses.definitions import Definition
from lossevo.losses.neural import LearnedLoss, LossNetwork
from tests.networks import random_network
from tests.timing import quickest

TRACED = frozenset(module.__file__ for module in (parser, trees, documents, definitions, neural, errors))
SLOWEST_S = 0.5
LONGEST_MESSAGE = 2000
HANGS_AFTER_S = 60

Input = tuple[str, str]
"""Who reads it (a key of :data:`READERS`), and the text."""


# What reads


def read_formula(text: str) -> Expression:
    """A formula."""
    return Expression.parse(text)


def read_expression(text: str) -> Expression:
    """An expression document; what is no JSON is not its business."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise LossevoError(f"no JSON ({type(problem).__name__})") from None
    return Expression.from_json(document)


def read_document(text: str) -> Definition:
    """A ``loss.json``."""
    document = LossDocument.from_text(text, source="loss.json")
    written = document.to_text()
    written.encode()
    assert LossDocument.from_text(written, source="loss.json") == document
    return document.definition


READERS: dict[str, Callable[[str], Definition]] = {
    "formula": read_formula,
    "expression": read_expression,
    "document": read_document,
}


def outcome(reader: str, text: str) -> str:
    """``valid``, or ``refused``.

    Raises:
        Exception: whatever is neither.
    """
    try:
        found = READERS[reader](text)
    except LossevoError as problem:
        message = str(problem)
        assert message.isprintable(), "a message has control characters, line ends or surrogates"
        assert len(message) <= LONGEST_MESSAGE, f"a message of {len(message)} characters"
        return "refused"
    assert isinstance(found, LossNetwork) or Expression.parse(str(found)) == found
    assert type(found).from_json(json.loads(json.dumps(found.to_json()))) == found
    return "valid"


def compiles(reader: str, text: str) -> None:
    """What is read and judged safe can be compiled."""
    found = READERS[reader](text)
    if isinstance(found, LossNetwork):
        LearnedLoss(found)
    elif is_safe(found):
        for hard in (False, True):
            compile_with_gradient(found, hard=hard)


# Where it went


class Coverage:
    """Which lines of the traced files follow on which, and how often in one input, to a power of two."""

    def __init__(self) -> None:
        self.known: set[tuple[tuple[object, int, int], int]] = set()
        self.found_new = False
        self._seen: Counter[tuple[object, int, int]] = Counter()

    @property
    def arcs(self) -> int:
        """How many pairs of lines."""
        return len({arc for arc, _ in self.known})

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Of what happens inside the ``with`` block: whether it was new is in ``found_new``."""
        self._seen = Counter()
        outer = sys.gettrace()
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(outer)
            new = {(arc, count.bit_length()) for arc, count in self._seen.items()} - self.known
            self.found_new = bool(new)
            self.known |= new

    def _called(self, frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in TRACED:
            return None
        code, last, seen = frame.f_code, 0, self._seen

        def stepped(frame: FrameType, event: str, arg: Any) -> Callable[..., Any]:
            nonlocal last
            seen[code, last, frame.f_lineno] += 1
            last = frame.f_lineno
            return stepped

        return stepped


# What is tried


def _words(text: str) -> list[str]:
    return text.split()


NUMBERS = _words("0 1 2 -1 3 2.0 0.5 1e-5 1000 1e12 .5 5. -0.0 1e-400")
ODD_NUMBERS = _words("1001 1e13 1e999 1e 0x1 1_000 NaN Infinity -Infinity inf c0 c1 c01 c9999 c10000")
ODD_NUMBERS += ["9" * 41, "9" * 5000, "1" * 400 + ".0"]
SIGNS = [*"+-*/^(), \n.e=[];#'\"\\{}:", "**", "//", "{}", "{0}"]
STRANGE = [*"٣²½ｐр−×é𝐩ﬁİß𝟘", *"\0\x1c\x7f\x85\xa0\u200b\u2028\u202e\ufeff\ud800\udfff", "e\u0301"]
STRANGE += ["__class__", "__import__('os')", "lambda:0", "x" * 3000]
JSON = _words('"format": "structure": "coefficients": "metadata": "expression": "sha256": "": null true [ { {} 1e400')
JSON += [
    '"learned":',
    '"inputs":',
    '"layers":',
    '"activation":',
    '"margin"',
    '"lossevo.loss/1"',
    '"lossevo.loss/2"',
    '"lossevo.expression/1"',
    '"\\ud800"',
    '"\\u0000"',
    "[1, 2.5]",
]
HOSTILE: list[Any] = [None, True, 0, -1, 10**12, 10**400, 1.5, 1e308, math.nan, math.inf, "", "p", "c0", "1e999"]
HOSTILE += ["\ud800", "\n", "x" * 3000, [], [[]], {}, {"format": 1}, ["1.0"], {"": {"": {}}}, "lossevo.loss/"]
HOSTILE += [[0.0] * 2000, "9.9.9"]
KINDS = {name: (p.arity, p.source, p.target) for name, p in PRIMITIVES.items()}
WORD = re.compile(rf"\b(?:{'|'.join([*TERMINALS, *PRIMITIVES])})\b|\b[0-9.]+|[-+*/^]")


def deep(depth: int, kind: type = list) -> Any:
    """A value in ``depth`` lists or objects."""
    value: Any = 0
    for _ in range(depth):
        value = [value] if kind is list else {"metadata": value}
    return value


@dataclass
class Mutator:
    """Damages text, knowing the grammar."""

    generator: random.Random

    def __call__(self, reader: str, text: str, other: str) -> str:
        """A few changes; ``other`` is a text to take pieces from."""
        changes = self.generator.choice((1, 1, 1, 2, 4))
        if reader != "formula" and self.generator.random() < 0.5:
            text, changes = self.with_value_replaced(text), changes - 1
        for _ in range(changes):
            text = self.generator.choice(
                (
                    self.inserted,
                    self.removed,
                    self.replaced,
                    self.repeated,
                    self.nested,
                    self.spliced,
                    *[self.exchanged] * 4,
                )
            )(text, other)
        return text[:40_000]

    def word(self) -> str:
        """A piece of the language, or of what does not belong to it."""
        words = self.generator.choice(([*TERMINALS], [*PRIMITIVES], SIGNS, NUMBERS, ODD_NUMBERS, STRANGE, JSON))
        word = self.generator.choice(words)
        return f"{word}(" if word in PRIMITIVES and self.generator.random() < 0.7 else word

    def span(self, text: str) -> tuple[int, int]:
        """A part of a text, mostly a short one."""
        start = self.generator.randint(0, len(text))
        length = self.generator.choice((0, 1, 2, 5, 20, len(text)))
        return start, min(len(text), start + length)

    def inserted(self, text: str, other: str) -> str:
        start, _ = self.span(text)
        return text[:start] + self.word() + text[start:]

    def removed(self, text: str, other: str) -> str:
        start, end = self.span(text)
        return text[:start] + text[end:]

    def replaced(self, text: str, other: str) -> str:
        start, end = self.span(text)
        return text[:start] + self.word() + text[end:]

    def exchanged(self, text: str, other: str) -> str:
        """A word or number for another of its kind, so that a formula most often stays one."""
        found = list(WORD.finditer(text))
        if not found:
            return text
        place = self.generator.choice(found)
        word = place[0]
        if word in PRIMITIVES:
            new = self.generator.choice([name for name in PRIMITIVES if KINDS[name] == KINDS[word]])
        elif word in TERMINALS:
            new = self.generator.choice([*TERMINALS]) if self.generator.random() < 0.7 else self.part(other)
        else:
            new = self.generator.choice([*"+-*/^"] if word in "+-*/^" else NUMBERS)
        return text[: place.start()] + new + text[place.end() :]

    def part(self, text: str) -> str:
        """A part of a formula that closes the brackets it opens, if the text has brackets."""
        opened = [place for place, sign in enumerate(text) if sign == "("]
        if not opened:
            return self.generator.choice([*TERMINALS])
        start, depth = self.generator.choice(opened), 0
        for end in range(start, len(text)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                return text[start : end + 1]
        return text[start:]

    def repeated(self, text: str, other: str) -> str:
        start, end = self.span(text)
        return text[:end] + text[start:end] * self.generator.choice((1, 2, 10, 300)) + text[end:]

    def nested(self, text: str, other: str) -> str:
        """A part of it in many brackets, calls, signs or lists."""
        start, end = self.span(text)
        name = self.generator.choice([*PRIMITIVES])
        opening, closing = self.generator.choice(
            (("(", ")"), (f"{name}(", ")"), ("-", ""), ("[", "]"), ("1^(", ")"), ("2-", ""))
        )
        count = self.generator.choice((1, 1, 2, 30, 60, 130, 1100))
        return text[:start] + opening * count + text[start:end] + closing * count + text[end:]

    def spliced(self, text: str, other: str) -> str:
        start, end = self.span(text)
        first, last = self.span(other)
        return text[:start] + other[first:last] + text[end:]

    def with_value_replaced(self, text: str) -> str:
        """JSON with one of its values exchanged for a hostile one, as far as it is JSON."""
        try:
            document = json.loads(text)
            places = list(_places(document))
        except (ValueError, RecursionError):
            return text
        value = self.generator.choice(HOSTILE)
        if self.generator.random() < 0.2:
            value = deep(self.generator.choice((10, 90, 300, 900)), self.generator.choice((list, dict)))
        if self.generator.random() < 0.3:
            value = self.word()
        if not places:
            document = value
        else:
            container, key = self.generator.choice(places)
            container[key] = value
        try:
            return json.dumps(document, ensure_ascii=self.generator.random() < 0.5)
        except (ValueError, RecursionError):
            return text


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document that is not too deep."""
    pending = [document]
    while pending and len(pending) < 1000:
        container = pending.pop()
        items = list(
            container.items()
            if isinstance(container, dict)
            else enumerate(container)
            if isinstance(container, list)
            else ()
        )
        for key, value in items[:20]:
            yield container, key
            pending.append(value)


def first_inputs() -> list[Input]:
    """What the mutations begin with: the losses of the literature as every reader takes them, and a loss network."""
    inputs: list[Input] = [("formula", "0"), ("expression", "{}"), ("document", "[]")]
    for name in expressible_names():
        expression = expression_of(name)
        inputs.append(("formula", str(expression)))
        inputs.append(("expression", json.dumps(expression.to_json())))
    for definition in (*map(expression_of, expressible_names()), random_network(("margin", "target"), hidden=(2,))):
        document = json.loads(LossDocument(definition, {"name": "it", "score": 0.8}).to_text())
        # Nothing that is changed would have the checksum.
        inputs.append(("document", json.dumps({key: value for key, value in document.items() if key != "sha256"})))
    return inputs


# The loop


@dataclass
class Fuzzer:
    """A run of ``inputs`` inputs."""

    inputs: int
    seed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    compiled: int = 0
    corpus: list[Input] = field(default_factory=first_inputs)
    coverage: Coverage = field(default_factory=Coverage)
    seconds: float = 0.0

    def run(self, *, most_findings: int = 10, after_1000: Callable[[], None] = lambda: None) -> None:
        """Try them all, or until there are as many findings as one wants to see."""
        began = time.perf_counter()
        for number, tried in enumerate(self._generated()):
            self.attempt(*tried)
            if len(self.findings) >= most_findings:
                break
            if number % 1000 == 0:
                after_1000()
        self.seconds = time.perf_counter() - began

    def _generated(self) -> Iterator[Input]:
        generator = random.Random(self.seed)
        mutate = Mutator(generator)
        first = list(self.corpus)[: self.inputs]
        yield from first
        for _ in range(self.inputs - len(first)):
            # The newer half as often as all: what is new leads on.
            recent = generator.random() < 0.5
            reader, text = generator.choice(self.corpus[len(self.corpus) // 2 :] if recent else self.corpus)
            yield reader, mutate(reader, text, generator.choice(self.corpus)[1])

    def attempt(self, reader: str, text: str) -> None:
        """Read one input and see what comes of it."""
        began = time.thread_time()
        try:
            with self.coverage.recorded():
                found = outcome(reader, text)
            if self.coverage.found_new and len(text) < 4000:
                self.corpus.append((reader, text))
            if found == "valid" and (self.coverage.found_new or self.outcomes["valid"] % 20 == 0):
                self.compiled += 1
                compiles(reader, text)
        except Exception:
            found = "finding"
            self._report(reader, text, traceback.format_exc(limit=-4))
        self.outcomes[found] += 1
        taken = time.thread_time() - began
        self.slowest_s = max(self.slowest_s, taken)
        if taken > SLOWEST_S and found != "finding":
            # Again: a collection of garbage may have fallen into this one.
            again = quickest(lambda: outcome(reader, text) == "valid" and compiles(reader, text))
            if again > SLOWEST_S:
                self._report(reader, text, f"took {again:.2f} s")

    def _report(self, reader: str, text: str, problem: str) -> None:
        self.findings.append(f"{reader} of {len(text)} characters: {text[:400]!a}\n{problem[-2000:]}")

    def __str__(self) -> str:
        """The result in one line."""
        tried = self.outcomes.total()
        return (
            f"{tried} inputs in {self.seconds:.0f} s ({tried / max(self.seconds, 1e-9):.0f}/s): "
            f"{self.outcomes['valid']} valid ({self.compiled} compiled), {self.outcomes['refused']} refused, "
            f"{len(self.findings)} findings; {self.coverage.arcs} arcs, {len(self.corpus)} inputs kept, "
            f"slowest {self.slowest_s:.3f} s"
        )


def main() -> int:
    """Fuzz as the command line says; the exit status."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--inputs", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    fuzzer = Fuzzer(chosen.inputs, chosen.seed)
    # A hang ends in a traceback of where it hangs.
    fuzzer.run(after_1000=lambda: faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True))
    faulthandler.cancel_dump_traceback_later()
    print(*fuzzer.findings, fuzzer, sep="\n")
    return 1 if fuzzer.findings else 0


if __name__ == "__main__":
    sys.exit(main())
