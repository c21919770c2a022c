"""Configuration that users write: YAML files checked against pydantic models, with errors that say what is right."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lossevo.errors import LossevoError, nearest

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value.__hash__ and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            if key.value.__hash__:
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(model: type[Model], path: Path, *, expects: str) -> Model:
    """The YAML file ``path`` as a ``model``; ``expects`` lists some of its keys, for the message.

    Raises:
        LossevoError: no such file, not YAML, or a wrong key or value: names the file, the key and the nearest right
        word.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise LossevoError(f"{path}: no such file; expected YAML with {expects}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as problem:
        raise LossevoError(f"{path}: cannot be read as YAML: {' '.join(str(problem).split())}") from None
    if not isinstance(document, dict):
        raise LossevoError(f"{path}: expected keys and values ({expects}), found {type(document).__name__}")
    return checked(model, document, str(path))


def checked(model: type[Model], document: dict[str, Any], source: str) -> Model:
    """Plain data as a ``model``; ``source`` names the file in messages.

    Raises:
        LossevoError: as :func:`read`.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = [_explain(problem, model) for problem in error.errors()]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise LossevoError(f"{source}: {problems[0]}{more}") from None


def updated(model: Model, source: str, **changes: Any) -> Model:
    """``model`` with other values, checked like the first; None is no change. ``source`` names the option in messages.

    Raises:
        LossevoError: as :func:`read`.
    """
    chosen = {key: value for key, value in changes.items() if value is not None}
    return checked(type(model), {**model.model_dump(), **chosen}, source)


def _explain(problem: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _keys(problem["loc"][:-1], model)
        return f"unknown key '{where}'{nearest(str(problem['loc'][-1]), known)}; known here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"key '{where}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "literal_error":
        choices = str(problem["ctx"]["expected"])
        close = difflib.get_close_matches(
            str(problem["input"]), choices.replace("'", "").replace(" or ", ", ").split(", "), n=1
        )
        return f"{where}: found '{problem['input']}', expected {choices}" + (
            f" (did you mean '{close[0]}'?)" if close else ""
        )
    return f"{where}: {message}" if where else message


def _keys(location: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """The keys that are right at a place in the document."""
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
