"""Configuration that users write: YAML files checked against pydantic models, with errors that say what is right."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lossevo.documents import MAX_BITS, MAX_NESTING, read_text, require_plain
from lossevo.errors import LossevoError, nearest, shown

Model = TypeVar("Model", bound=BaseModel)

MAX_BYTES = 200_000
"""A configuration file has at most this size; those of lossevo have 1 to 10 kB."""

_YAML_MISTAKES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What PyYAML raises for a value that does not fit its tag: a date of month 13, an integer of 5,000 digits, …"""

# libyaml reads 200 kB in half a second, PyYAML's own parser takes fifteen.
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Safe):  # type: ignore[misc]
    """Refuses a key that is given twice, of which YAML would keep the last; names the line of every mistake."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value.__hash__ and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key.value)} is given twice", key.start_mark
                )
            if key.value.__hash__:
                seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            found = super().construct_object(node, deep)
            if isinstance(found, int) and found.bit_length() > MAX_BITS:
                raise ValueError
        except _YAML_MISTAKES as problem:
            kind = {"int": f"whole number of up to {MAX_BITS} bits"}.get(node.tag.rpartition(":")[2], node.tag)
            reason = f" ({problem})" if isinstance(problem, ValueError) and kind == node.tag else ""
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown(node.value)} is no {kind}{reason}", node.start_mark
            ) from None
        return found


def read(model: type[Model], path: Path, *, expects: str) -> Model:
    """The YAML file ``path`` as a ``model``; ``expects`` lists some of its keys, for the message.

    Raises:
        LossevoError: no such file, not YAML, or a wrong key or value: names the file, the key and the nearest right
        word.
    """
    if not _exists(path):
        raise LossevoError(f"{path}: no such file; expected YAML with {expects}")
    document = _parsed(read_text(path, kind="YAML", most_bytes=MAX_BYTES), path)
    if not isinstance(document, dict):
        empty = ", an empty file" if document is None else ""
        raise LossevoError(f"{path}: expected keys and values ({expects}), found {type(document).__name__}{empty}")
    return checked(model, document, str(path))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, …: read_text says what is wrong with it
        return True


def _parsed(text: str, path: Path) -> object:
    """The document in a YAML text. Its depth is looked at before anything is made of it."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Safe):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_NESTING:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise LossevoError(f"{path}: line {line}: nested more than {MAX_NESTING} deep; is it the right file?")
        document = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as problem:
        raise LossevoError(f"{path}: cannot be read as YAML: {' '.join(str(problem).split())}") from None
    # An alias may stand for a list of aliases, and so on: nine lines can be a billion values.
    require_plain(document, source=str(path), most_values=MAX_BYTES)
    return document


def checked(model: type[Model], document: dict[str, Any], source: str) -> Model:
    """Plain data as a ``model``; ``source`` names the file in messages.

    Raises:
        LossevoError: as :func:`read`.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise LossevoError(f"{source}: {_explain(error.errors(include_url=False)[0], model)}{more}") from None


def updated(model: Model, source: str, **changes: Any) -> Model:
    """``model`` with other values, checked like the first; None is no change. ``source`` names the option in messages.

    Raises:
        LossevoError: as :func:`read`.
    """
    chosen = {key: value for key, value in changes.items() if value is not None}
    return checked(type(model), {**model.model_dump(), **chosen}, source)


def _explain(problem: Any, model: type[BaseModel]) -> str:
    location, found_in = _placed(problem["loc"], model)
    where = shown(".".join(location), 120).strip("'")
    if problem["type"] == "extra_forbidden":
        known = list(found_in.model_fields) if found_in else []
        hint = f"{nearest(str(problem['loc'][-1]), known)}; known here: {', '.join(known)}" if known else ""
        return f"unknown key '{where}'{hint}"
    if problem["type"] == "missing":
        return f"key '{where}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("literal_error", "union_tag_invalid"):
        tagged = problem["type"] == "union_tag_invalid"
        choices = str(problem["ctx"]["expected_tags" if tagged else "expected"])
        value = problem["ctx"]["tag"] if tagged else problem["input"]
        where += f".{problem['ctx']['discriminator']}".replace("'", "") if tagged else ""
        options = choices.replace("'", "").replace(" or ", ", ").split(", ")
        close = difflib.get_close_matches(str(value)[:100], options, n=1)
        return f"{where}: found {shown(value)}, expected {choices}" + (
            f" (did you mean '{close[0]}'?)" if close else ""
        )
    return f"{where}: {message}" if where else message


def _placed(location: tuple[Any, ...], model: type[BaseModel]) -> tuple[list[str], type[BaseModel] | None]:
    """The keys that lead to a place in the document, and the model whose keys stand there, if it can be told.

    Pydantic names the chosen model of a union between two keys; the document does not.
    """
    keys: list[str] = []
    inside: type[BaseModel] | None = model
    options: list[type[BaseModel]] = []
    for place, part in enumerate(location):
        chosen = [option for option in options if part in _tags(option)]
        if chosen and len(options) > 1:
            inside, options = chosen[0], []
            continue
        keys.append(str(part))
        field = inside.model_fields.get(str(part)) if inside else None
        if place == len(location) - 1:
            break
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        options = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        inside = options[0] if options else None
    return keys, inside


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    """The values of ``kind`` that choose this model of a union."""
    return getattr(model.model_fields["kind"].annotation, "__args__", ()) if "kind" in model.model_fields else ()
