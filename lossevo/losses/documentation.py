"""What can be said of a loss, as plain data: its description, parameters and meaning, relatives, and how to use it.

The class docstring is the one source: its ``Args:`` section explains the parameters, what comes before is the text.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict, dataclass
from typing import Any

from lossevo.errors import shown
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.catalogue import create, describe, find, parameters
from lossevo.losses.expressions import expressible_names, expression_of, expression_parameters
from lossevo.losses.installed import InstalledLoss, documentation_of
from lossevo.losses.relations import Relation, relations_of

SHARED = ("batch", "include_background", "smooth", "absent", "spacing_mm")
"""Parameters that mean the same in every loss that has them."""

_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Notes?|Examples?|References?):$")
_ENTRY = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?:(?: (.*))?$")
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")

_EMPHASIS = re.compile(r"(?<!\w)\*(\S(?:[^*]*\S)?)\*(?!\w)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a loss: its default, and what it means."""

    name: str
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say of a loss.

    Attributes:
        text: the class docstring up to its ``Args:``, in paragraphs.
        expression: the loss in the loss language if it is written in it, else None.
        expression_parameters: the parameters with which the module equals the expression.
        relations: identities that tie this loss to others.
        uses_distance_map: whether it takes, or else computes, a signed distance map.
        has_schedule: whether ``step()`` changes it.
        usage: a snippet of Python.
        distribution: name and version of the package that brings it; None for a loss of the catalogue.
    """

    name: str
    family: str
    summary: str
    formula: str
    source: str
    purpose: str
    text: str
    parameters: tuple[Parameter, ...]
    expression: str | None
    expression_parameters: dict[str, Any]
    relations: tuple[Relation, ...]
    uses_distance_map: bool
    has_schedule: bool
    usage: str
    distribution: str | None = None


def explain(name: str) -> Explanation:
    """Everything there is to say of the loss called ``name``.

    Raises:
        LossevoError: Unknown loss (with the nearest known name).
    """
    if isinstance(found := find(name), InstalledLoss):
        return _of_installed(found)
    loss = create(name)
    description = describe(name)
    text, meanings = split_docstring(inspect.getdoc(type(loss)) or "")
    written = name in expressible_names()
    has_schedule = type(loss).step is not SegmentationLoss.step
    return Explanation(
        name=name,
        family=description.family,
        summary=description.summary,
        formula=description.formula,
        source=description.source,
        purpose=description.purpose,
        text=text,
        # Under `python -OO` there are no docstrings: then no meanings, but no error either.
        parameters=tuple(Parameter(key, value, meanings.get(key, "")) for key, value in parameters(name).items()),
        expression=str(expression_of(name)) if written else None,
        expression_parameters=expression_parameters(name) if written else {},
        relations=relations_of(name),
        uses_distance_map=loss.uses_distance_map,
        has_schedule=has_schedule,
        usage=_usage(name, loss.uses_distance_map, has_schedule),
    )


def _of_installed(loss: InstalledLoss) -> Explanation:
    """Of a loss that a package brings, without making it: it may have no parameters that fit everything."""
    factory, description = loss.factory(), loss.describe()
    text, meanings = split_docstring(documentation_of(factory))
    ours = factory if isinstance(factory, type) and issubclass(factory, SegmentationLoss) else SegmentationLoss
    uses_distance_map = bool(ours.uses_distance_map)
    has_schedule = ours.step is not SegmentationLoss.step
    return Explanation(
        **asdict(description),
        text=text,
        parameters=tuple(
            Parameter(key, _plain_default(value), meanings.get(key, "")) for key, value in loss.parameters().items()
        ),
        expression=None,
        expression_parameters={},
        relations=(),
        uses_distance_map=uses_distance_map,
        has_schedule=has_schedule,
        usage=_usage(loss.name, uses_distance_map, has_schedule),
        distribution=loss.distribution,
    )


def _plain_default(value: object) -> bool | int | float | str | None:
    """A default of somebody else's parameter, as JSON can hold it."""
    if value is inspect.Parameter.empty:
        return "must be given"
    return value if value is None or isinstance(value, bool | int | float | str) else shown(value)


def split_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """A docstring without indentation as the text before its first section, and the entries of its ``Args:``.

    Each paragraph and each entry becomes one line, without the marks of reStructuredText.
    """
    text: list[str] = []
    entries: dict[str, list[str]] = {}
    section, entry = "", None
    for line in docstring.splitlines():
        if header := _SECTION.match(line):
            section, entry = header[1], None
        elif not section:
            text.append(line)
        elif section == "Args":
            if start := _ENTRY.match(line):
                entry = entries.setdefault(start[1], [])
                entry.append(start[2] or "")
            elif entry is not None:
                entry.append(line.strip())
    return _plain("\n".join(text)), {name: _plain("\n".join(lines)) for name, lines in entries.items()}


def _plain(text: str) -> str:
    """Paragraphs and list items, each in one line; formulas (indented) and tables (ruled) keep their lines."""
    text = _EMPHASIS.sub(r"\1", _ROLE.sub(r"\1", text).replace("`", ""))
    lines = []
    for paragraph in re.split(r"\n\s*\n|\n(?=- )", text.strip("\n")):
        if paragraph.startswith((" ", "=")):
            lines += [line.strip() for line in paragraph.splitlines() if not set(line) <= {" ", "="}]
        else:
            lines.append(" ".join(paragraph.split()))
    return "\n".join(line for line in lines if line)


def _usage(name: str, uses_distance_map: bool, has_schedule: bool) -> str:
    known = parameters(name)
    shown = {
        key: value
        for key, value in known.items()
        if key not in SHARED and isinstance(value, int | float) and not isinstance(value, bool)
    }
    chosen = [f"{key}={value:.6g}" for key, value in shown.items()]
    if "spacing_mm" in known:
        chosen.append("spacing_mm=(4.0, 1.0, 1.0)")
    arguments = "".join(f", {choice}" for choice in chosen)
    lines = [
        "import lossevo",
        "",
        f'loss = lossevo.losses.create("{name}"{arguments})',
        "value = loss(logits, target)  # logits (B, C, *spatial), target labels (B, 1, *spatial) or one-hot",
        "value.backward()",
    ]
    if uses_distance_map:
        lines[3:3] = [
            "# A map of the whole volume, cropped with the patch, is better: loss(logits, target, distance_map)."
        ]
    if has_schedule:
        lines.append("loss.step()  # once per epoch: advances the schedule")
    return "\n".join(lines)
