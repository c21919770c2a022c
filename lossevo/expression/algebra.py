"""Simplification by algebra: the same loss, written shorter.

SymPy does it, in a process of its own that is killed at a deadline: it may take minutes and gigabytes. What it gives is
taken only if the caller finds the loss unchanged, since it knows nothing of protected arithmetic.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lossevo
from lossevo.errors import LossevoError
from lossevo.expression.trees import Expression

DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Simplified:
    """The shortest form found, which is the original if there is none; ``note`` then says why in a sentence."""

    expression: Expression
    note: str = ""


def simplified(
    expression: Expression, same: Callable[[Expression], bool], *, deadline_s: float = DEADLINE_S
) -> Simplified:
    """The expression in the shortest form that is found, by algebra, and that ``same`` accepts; never a longer one.

    Never raises and never takes much longer than ``deadline_s``, but for what ``same`` does.
    """
    try:
        candidates = _candidates(expression, deadline_s)
    except LossevoError as problem:
        return Simplified(expression, str(problem))
    for candidate in candidates:
        if candidate.complexity <= expression.complexity and same(candidate):
            return Simplified(candidate)
    if candidates:
        return Simplified(expression, "what algebra makes shorter is another loss where arithmetic is protected")
    return Simplified(expression, "algebra finds no shorter form")


def _candidates(expression: Expression, deadline_s: float) -> list[Expression]:
    """Shorter forms, the shortest first.

    Raises:
        LossevoError: the process did not end well.
    """
    package_root = str(Path(lossevo.__file__).resolve().parent.parent)
    search_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    try:
        process = subprocess.run(
            [sys.executable, "-m", "lossevo.expression.algebra_worker", str(math.ceil(deadline_s))],
            # SymPy's choices follow the order of sets in places.
            env={**os.environ, "PYTHONPATH": search_path, "PYTHONHASHSEED": "0"},
            input=json.dumps(expression.to_json()),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=deadline_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LossevoError(f"SymPy did not end within {deadline_s:g} s") from None
    except OSError as problem:
        raise LossevoError(f"SymPy's process cannot be started: {problem.strerror or problem}") from None
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise LossevoError(f"SymPy's process ended with status {process.returncode}: {last:.200}")
    try:
        return [Expression.from_json(document) for document in json.loads(process.stdout)["candidates"]]
    except (ValueError, KeyError, TypeError, LossevoError) as problem:
        raise LossevoError(f"SymPy's process gave no expression: {problem}") from None
