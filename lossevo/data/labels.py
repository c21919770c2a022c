"""Which structures are segmented, and under which names: the one place that turns label values into classes.

Readers name what each label value means. The names are the same in every data set: vertebral levels ``C1`` … ``C7``,
``T1`` … ``T13``, ``L1`` … ``L6``, ``S1``; discs ``disc L4-L5``; ``canal``, ``cord``, ``sacrum`` (which counts as level
S1), and whatever else a data set has. A vertebra cut by the edge of the image is ``L1 (partial)``. A
:class:`LabelScheme` chooses among the names and makes classes of them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer
from pydantic import model_validator as validator

from lossevo.configuration_file import checked, read
from lossevo.data.cohort import Cohort, Volume
from lossevo.data.mirror import (
    NOT_MIRRORED,
    Mirror,
    by_class_names_too,
    mirror_by_names,
    mirror_by_pairs,
    relabelled_mirror,
)
from lossevo.errors import LossevoError, is_text, nearest, shown

LEVELS = tuple(
    f"{region}{number}" for region, count in (("C", 7), ("T", 13), ("L", 6), ("S", 5)) for number in range(1, count + 1)
)
PARTIAL = " (partial)"

_LEVEL = r"(?:c[1-7]|th?(?:1[0-3]|[1-9])|l[1-6]|s[1-5]|sacrum)"
_VERTEBRA_NAME = re.compile(rf"(?:vertebrae?[ _-]?)?({_LEVEL})(?:[ _-]?(?:body|vertebrae?))?", re.I)
_DISC_NAME = re.compile(rf"(?:dis[ck]|ivd)[ _-]?({_LEVEL})[ _/-]({_LEVEL})", re.I)
_RANGE = re.compile(rf"({_LEVEL})(?:\s*-\s*({_LEVEL}))?", re.I)


class LabelScheme(BaseModel):
    """What is segmented: the classes, the vertebral levels, and what becomes of partially visible vertebrae.

    Also the content of a label file (YAML)::

        classes:
          vertebra: [L1-L5]          # a range of levels
          disc: [disc L1-S1]         # the discs between these levels
          canal: [canal, cord]       # structures by name
        partial: merge               # SPIDER's partially visible vertebrae count as the vertebra; else background
        mirror_pairs: [[psoas_1, psoas_2]]   # what a left-right mirror exchanges; else the names tell; off: no mirror

    A plain ``"merged"`` or ``"separate"`` is validated as a scheme with these classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    classes: str | dict[str, tuple[str, ...]] = Field(
        "merged", description="merged, separate, or class name -> structures, in the order of the classes"
    )
    levels: str | None = Field(None, description="vertebrae of these levels alone, e.g. L1-L5; all else is background")
    partial: Literal["background", "merge"] = Field("background", description="partially visible vertebrae")
    mirror_pairs: Literal["auto", "off"] | tuple[tuple[str, str], ...] = Field(
        "auto", description="structures or classes that are left and right; auto: by their names; off: never mirrored"
    )

    @validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        return {"classes": data} if isinstance(data, str) else data

    @field_validator("classes", mode="before")
    @classmethod
    def _checked_classes(cls, classes: Any) -> Any:
        expected = "merged, separate, or class names with lists of structures, such as {vertebra: [L1-L5]}"
        if classes in ("merged", "separate"):
            return classes
        if not isinstance(classes, Mapping) or not classes:
            raise ValueError(f"found {classes!r}, expected {expected}")
        resolved = {}
        for name, structures in classes.items():
            listed = structures if isinstance(structures, list | tuple) else [structures]
            if name == "background" or not isinstance(name, str) or not is_text(name):
                raise ValueError(f"class {name!r}: expected a name other than background, which is everything else")
            if not listed or not all(isinstance(item, str | int) and not isinstance(item, bool) for item in listed):
                raise ValueError(f"class {name!r}: found {structures!r}, expected a list of structures such as [L1-L5]")
            resolved[name] = tuple(map(_structure, listed))
            for item in resolved[name]:
                if between := _DISC_NAME.fullmatch(item):
                    _span(between[1], between[2])
                elif _is_range(item):
                    _range(item)
        return resolved

    @field_validator("levels")
    @classmethod
    def _checked_levels(cls, levels: str | None) -> str | None:
        for item in _items(levels or ""):
            _range(item)
        if levels is not None and not _items(levels):
            raise ValueError("expected vertebral levels such as L1-L5 or C3,C5-C7")
        return levels

    @field_validator("mirror_pairs", mode="before")
    @classmethod
    def _checked_pairs(cls, pairs: Any) -> Any:
        if pairs in ("auto", "off") or pairs is False:  # YAML reads off as false
            return pairs or "off"
        alike = isinstance(pairs, list | tuple) and all(
            isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(name, str | int) for name in pair)
            for pair in pairs
        )
        if not alike:
            raise ValueError(f"found {shown(pairs)}, expected auto, off or pairs such as [[psoas left, psoas right]]")
        named = tuple(tuple(_structure(name) for name in pair) for pair in pairs)
        given = [name.casefold() for pair in named for name in pair]
        if twice := next((name for name in given if given.count(name) > 1), None):
            raise ValueError(f"'{twice}' is given twice; a structure has one counterpart")
        return named

    @model_serializer(mode="wrap")
    def _shortest(self, serialise: SerializerFunctionWrapHandler) -> Any:
        plain = isinstance(self.classes, str) and self.levels is None and self.partial == "background"
        if self.mirror_pairs != "auto":
            return serialise(self)
        if plain:
            return self.classes
        return {key: value for key, value in serialise(self).items() if key != "mirror_pairs"}

    def __str__(self) -> str:
        classes = (
            self.classes
            if isinstance(self.classes, str)
            else "; ".join(f"{name}: {', '.join(structures)}" for name, structures in self.classes.items())
        )
        partial = ["partial vertebrae merged"] if self.partial == "merge" else []
        mirrored = {"auto": [], "off": ["not mirrored"]}.get(
            str(self.mirror_pairs), [f"{len(self.mirror_pairs)} pair(s) of left and right"]
        )
        return ", ".join([classes, *([self.levels] if self.levels else []), *partial, *mirrored])


MERGED = LabelScheme(classes="merged")
SEPARATE = LabelScheme(classes="separate")


def label_scheme(labels: str | Path = "merged", levels: str | None = None) -> LabelScheme:
    """The scheme that a user asks for: ``merged``, ``separate`` or a label file, and levels such as ``L1-L5``.

    Raises:
        LossevoError: no such file, something wrong in it, or no such levels.
    """
    if str(labels) in ("merged", "separate"):
        scheme = LabelScheme(classes=str(labels))
    elif Path(labels).suffix in (".yaml", ".yml"):
        scheme = read(LabelScheme, Path(labels), expects="classes, levels, partial, mirror_pairs")
    else:
        hint = nearest(str(labels), ("merged", "separate"))
        raise LossevoError(f"--labels is {str(labels)!r}{hint}; expected merged, separate or a YAML file with classes")
    if levels is None:
        return scheme
    if scheme.levels is not None:
        raise LossevoError(f"{labels}: has levels {scheme.levels} already; leave out --levels {levels}, or change it")
    return checked(LabelScheme, {**dict(scheme), "levels": levels}, f"--levels {levels}")


class Classes(NamedTuple):
    """The class names, background first, the class that each structure belongs to, 0 where it is background, and what
    a left-right mirror makes of the classes.
    """

    names: tuple[str, ...]
    of_structure: Mapping[str, int]
    mirror: Mirror


def classes_of(scheme: LabelScheme, structures: Iterable[str], *, source: str) -> Classes:
    """The classes that ``scheme`` makes of the structures of a cohort; ``source`` names the cohort in messages.

    Raises:
        LossevoError: a class or level that matches none of the structures, a structure in two classes, or more than
            255 classes.
    """
    stored = list(dict.fromkeys(structures))
    # What counts as which structure; a partial vertebra is nothing unless it is merged into the whole one.
    name_of = {name: name.removesuffix(PARTIAL) for name in stored if scheme.partial == "merge" or not _partial(name)}
    known = list(dict.fromkeys(name_of.values()))
    wanted = known if scheme.levels is None else _of_levels(scheme.levels, known, source)
    if scheme.classes == "separate":
        classes = {name: [name] for name in wanted}
    elif scheme.classes == "merged":
        classes = {"vertebra" if all(map(is_vertebra, wanted)) else "foreground": list(wanted)}
    else:
        assert not isinstance(scheme.classes, str)
        classes = {
            name: [found for item in items for found in _matching(item, wanted, f"class {name!r}", source)]
            for name, items in scheme.classes.items()
        }
    if not wanted or len(classes) > 255:
        raise LossevoError(f"{source}: {len(classes)} classes of structures; expected 1 to 255")
    class_of: dict[str, int] = {}
    for index, (name, members) in enumerate(classes.items(), start=1):
        for member in members:
            if class_of.setdefault(member, index) != index:
                raise LossevoError(
                    f"'{member}' is in two classes, '{[*classes][class_of[member] - 1]}' and '{name}'; leave it in one"
                )
    names = ("background", *classes)
    of_structure = {name: class_of.get(name_of.get(name, ""), 0) for name in stored}
    if scheme.mirror_pairs == "off":
        mirror = NOT_MIRRORED
    elif scheme.mirror_pairs == "auto":
        mirror = by_class_names_too(mirror_by_names(of_structure, len(names)), names)
    else:
        mirror = mirror_by_pairs(scheme.mirror_pairs, of_structure, names, source=source)
    return Classes(names, of_structure, mirror)


def relabel(cohort: Cohort, scheme: LabelScheme) -> Cohort:
    """The cohort with the classes that ``scheme`` makes of its classes.

    Raises:
        LossevoError: the scheme does not fit the cohort (see :func:`classes_of`).
    """
    classes = classes_of(scheme, cohort.class_names[1:], source=f"cohort {cohort.name}")
    mirror = classes.mirror
    if scheme.mirror_pairs == "auto":
        # The names of the cohort's own classes may not tell what is in them, but the cohort knows.
        mirror = relabelled_mirror(cohort.mirroring, cohort.class_names, classes.of_structure, len(classes.names))
        mirror = by_class_names_too(mirror, classes.names)
    table = np.array([0, *(classes.of_structure[name] for name in cohort.class_names[1:])], dtype=np.uint8)
    cases = tuple(
        dataclasses.replace(
            case,
            load=functools.partial(_relabelled, case.load, table),
            reading=case.reading and f"{case.reading} {table.tolist()}",
        )
        for case in cohort.cases
    )
    return dataclasses.replace(cohort, class_names=classes.names, cases=cases, mirror=mirror)


def level_of(structure: str) -> str | None:
    """The vertebral level that a name stands for: ``L1`` of ``L1 body``, ``T12`` of ``vertebrae_Th12``, else None."""
    match = _VERTEBRA_NAME.fullmatch(structure)
    return _level(match[1]) if match else None


def is_vertebra(structure: str) -> bool:
    """Whether a name is that of a vertebra or a part of one."""
    return level_of(structure.removesuffix(PARTIAL)) is not None or "vertebra" in structure.lower()


def disc(upper: str, lower: str) -> str:
    """The name of the disc between two levels."""
    return f"disc {upper}-{lower}"


def _structure(item: str | int) -> str:
    """The name of a structure in a label file; a data set that names no structures numbers them."""
    return f"label {item}" if isinstance(item, int) else item


def _partial(name: str) -> bool:
    return name.endswith(PARTIAL)


def _relabelled(load: Callable[[], Volume], table: NDArray[np.uint8]) -> Volume:
    volume = load()
    return dataclasses.replace(volume, label=table[volume.label])


def _of_levels(levels: str, structures: Sequence[str], source: str) -> list[str]:
    found = {name for item in _items(levels) for name in _matching(item, structures, "levels", source)}
    return [name for name in structures if name in found]


def _matching(item: str, structures: Sequence[str], where: str, source: str) -> list[str]:
    """The structures that an entry of a class stands for: a name, a range of levels, or a group."""
    levels = {name: level for name in structures if (level := level_of(name)) is not None}
    discs = {name: (_level(match[1]), _level(match[2])) for name in structures if (match := _DISC_NAME.fullmatch(name))}
    found = [name for name in structures if name.lower() == item.lower()]
    if not found and item.lower() == "vertebrae":
        found = [name for name in structures if is_vertebra(name)]
    elif not found and item.lower() == "discs":
        found = [name for name in structures if name in discs or name.lower() in ("disc", "disk")]
    elif not found and (between := _DISC_NAME.fullmatch(item)):
        span = _span(between[1], between[2])
        found = [name for name, (upper, lower) in discs.items() if upper in span and lower in span]
    elif not found and _is_range(item):
        span = _range(item)
        found = [name for name, level in levels.items() if level in span]
    if not found:
        raise LossevoError(
            f"{where}: nothing in {source} matches '{item}'{nearest(item, structures)}; it has {_listed(structures)}"
        )
    return found


def _listed(structures: Sequence[str], most: int = 40) -> str:
    more = [f"and {len(structures) - most} more"] if len(structures) > most else []
    return ", ".join([*structures[:most], *more]) or "no structure at all"


def _items(levels: str) -> list[str]:
    return [item.strip() for item in levels.split(",") if item.strip()]


def _is_range(item: str) -> bool:
    return _RANGE.fullmatch(item) is not None


def _range(item: str) -> tuple[str, ...]:
    """The levels from the first to the last of ``L1-L5``; a level alone is a range too."""
    match = _RANGE.fullmatch(item)
    if match is None:
        raise ValueError(f"{item!r} is no vertebral level or range; expected such as L1-L5 or C3,C5-C7")
    return _span(match[1], match[2] or match[1])


def _span(first: str, last: str) -> tuple[str, ...]:
    start, stop = LEVELS.index(_level(first)), LEVELS.index(_level(last))
    if stop < start:
        raise ValueError(f"{first}-{last} runs upwards; give the upper level first, {last}-{first}")
    return LEVELS[start : stop + 1]


def _level(text: str) -> str:
    """A level as it is written here: ``Th12`` is T12, the sacrum begins with S1."""
    return "S1" if text.lower() == "sacrum" else text.upper().replace("TH", "T")
