"""Which structures are the left and the right one of a pair: their names tell.

Recognised are words and abbreviations of several languages, in front, behind or inside, however a name is written:
``kidney_left``, ``KidneyL``, ``lh-cortex``, ``Niere rechts``, ``rein_gauche``, ``LKID``. What could mean a side, but
also something else (``lkid``, ``L1``, a single ``g``), counts as one only if the counterpart is there too. Vertebral
levels (``L1`` … ``L5``) are no sides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lossevo.data.side_words import (
    ABBREVIATED_PAIRS,
    ADJECTIVES,
    DOUBTFUL_WORDS,
    LETTER_PAIRS,
    LONE_STEMS,
    OF_THE_HEART,
    OF_THE_HEART_SHORT,
    OF_THE_MIDDLE,
    REGIONS,
    SIDE_WORDS,
    STEMS,
    plain,
)

_SHORTEST_REST = 3
"""Letters that must be left of a word without its side, so that cleft and bright are none."""
_MOST_LETTERS = 8
_OTHER = {"L": "R", "R": "L"}
# What single letters and two-letter abbreviations stand for is known to their author alone.
_UNSURE = {
    "letters": "may be left and right, or something else",
    "two letters": "may be left and right, but no mirror images of each other, as LV and RV",
}
# Readings that mean the same: leftkidney, kidney_left and kidney_izq.
_ALIKE = ("word", "stem", "doubtful")

_UPPER_THEN_STEM = re.compile(rf"(?<=[A-Z]{{2}})(?=(?:{'|'.join(sorted(LONE_STEMS))})(?![a-z]))")
_CAMEL = re.compile(r"(?<=[a-zа-яα-ω])(?=[A-ZА-ЯΑ-Ω])|(?<=[A-Z])(?=[A-Z][a-z])")
_TOKEN = re.compile(r"[左右]|[LRlr]\d+(?![^\W\d_])|(?<!\d)\d+[LRlr](?![^\W_])|[^\W\d_]+?(?=[左右])|[^\W\d_]+|\d+")
_NUMBERED = re.compile(r"([lr])(\d+)")
_LOBE = re.compile(r"[lr][uml]l")
_NUMBER_FIRST = re.compile(r"(\d+)([lr])")


@dataclass(frozen=True, slots=True)
class Sides:
    """What names say of sides.

    ``partner`` maps each name to that of the other side, or to itself. ``unclear`` maps each name that has, or may
    have, a side, but no one counterpart, to what is wrong with it; it is not in ``partner``.
    """

    partner: Mapping[str, str]
    unclear: Mapping[str, str]


class _Reading(NamedTuple):
    """A way to read a name: what is left of it without sides, and the sides in it."""

    kind: str
    rest: str
    sides: str


def sides_of(names: Iterable[str]) -> Sides:
    """The pairs among ``names``.

    >>> sides_of(["psoas left", "psoas right", "L1"]).partner
    {'psoas left': 'psoas right', 'psoas right': 'psoas left', 'L1': 'L1'}
    """
    tokens_of = {name: _tokens(name) for name in dict.fromkeys(names)}
    letters = _letters(tokens_of.values())
    certain = {
        name: reading for name, tokens in tokens_of.items() if (reading := _certain(tokens, letters)) is not None
    }
    readings = {
        name: [certain[name]] if name in certain else list(dict.fromkeys(_doubtful(tokens, letters)))
        for name, tokens in tokens_of.items()
    }
    named: dict[_Reading, list[str]] = defaultdict(list)
    for name, found in readings.items():
        for reading in found:
            named[reading].append(name)

    partner: dict[str, str] = {}
    unclear: dict[str, str] = {}
    for name, found in readings.items():
        kind, others = next(
            ((reading.kind, others) for reading in found if (others := _counterparts(name, reading, named))), ("", [])
        )
        if len(others) > 1:
            unclear[name] = f"has more than one counterpart, {' and '.join(others)}"
        elif others and kind in _UNSURE:
            unclear[name] = f"and {others[0]} {_UNSURE[kind]}"
        elif others and _of_the_heart(tokens_of[name]):
            unclear[name] = f"and {others[0]} are no mirror images of each other"
        elif others:
            partner[name] = others[0]
        elif name in certain and {*certain[name].sides} != {*"LR"}:
            unclear[name] = "has no counterpart"
        else:
            partner[name] = name
    for name, other in list(partner.items()):
        if partner.get(other) != name:
            unclear.setdefault(name, f"is not the only counterpart of {other}")
    families = {_family(tokens_of[name]) for name, other in partner.items() if other != name}
    for name, other in partner.items():
        tokens = tokens_of[name]
        if other == name and (_family(tokens) in families - {""} or any(map(_has_stem, tokens))):
            unclear.setdefault(name, "has no counterpart")
    return Sides({name: other for name, other in partner.items() if name not in unclear}, unclear)


def _counterparts(name: str, reading: _Reading, named: Mapping[_Reading, list[str]]) -> list[str]:
    """The names that a reading makes counterparts of a name."""
    sides = "".join(_OTHER[side] for side in reading.sides)
    kinds = _ALIKE if reading.kind in _ALIKE else (reading.kind,)
    found = (other for kind in kinds for other in named.get(_Reading(kind, reading.rest, sides), ()))
    return [other for other in dict.fromkeys(found) if other != name]


def _tokens(name: str) -> list[str]:
    """The words, numbers and single letters of a name, in small letters; ``L1`` and ``4R`` are one."""
    parted = _CAMEL.sub(" ", _UPPER_THEN_STEM.sub(" ", plain(name)))
    return [token.casefold() for token in _TOKEN.findall(parted)]


def _letters(all_tokens: Iterable[list[str]]) -> dict[str, set[str]]:
    """What names have beside a single letter, or ``th``, and which such letters there are beside it."""
    found: dict[str, set[str]] = defaultdict(set)
    for tokens in all_tokens:
        for place, token in enumerate(tokens):
            if (len(token) == 1 and token.isalpha()) or token in REGIONS:
                found["".join(_all_but(tokens, place))].add(token)
    return found


def _certain(tokens: list[str], letters: Mapping[str, Collection[str]]) -> _Reading | None:
    """The reading of a name that has a side, whatever others there are; None if there may be none."""
    for words in (SIDE_WORDS, {"l": "L", "r": "R"}):
        sides = "".join(words.get(token, "") for token in tokens)
        rest = [token for token in tokens if token not in words]
        if sides and (words is SIDE_WORDS or not _is_region(sides, rest, letters)):
            return _Reading("word", "".join(rest), sides)
    for place, token in enumerate(tokens):
        if number := _NUMBER_FIRST.fullmatch(token):
            return _Reading("number", f"{''.join(_all_but(tokens, place))} {number[1]}", number[2].upper())
    return None


def _is_region(sides: str, rest: list[str], letters: Mapping[str, Collection[str]]) -> bool:
    """Whether a single L is lumbar: L 4, L spine, or L among C, T and S."""
    if "R" in sides:
        return False
    beside = letters.get("".join(rest), ())
    if "r" not in beside and REGIONS.intersection(beside):
        return True
    numbers = [int(token) for token in rest if token.isdecimal()]
    others = [token for token in rest if not token.isdecimal()]
    middle = all(token in OF_THE_MIDDLE or token in REGIONS for token in others)
    return bool(rest) and middle and all(1 <= number <= 6 for number in numbers)


def _doubtful(tokens: list[str], letters: Mapping[str, Collection[str]]) -> Iterator[_Reading]:
    """Readings that count only if the counterpart is there."""
    if "l" in tokens:
        yield _Reading("word", "".join(token for token in tokens if token != "l"), "L" * tokens.count("l"))
    if sides := "".join(DOUBTFUL_WORDS.get(token, "") for token in tokens):
        yield _Reading("doubtful", "".join(token for token in tokens if token not in DOUBTFUL_WORDS), sides)
    if numbers := [number for token in tokens if (number := _NUMBERED.fullmatch(token))]:
        rest = [token for token in tokens if not _NUMBERED.fullmatch(token)]
        sides = "".join(number[1].upper() for number in numbers)
        yield _Reading("number", f"{''.join(rest)} {' '.join(number[2] for number in numbers)}", sides)
    for place, token in enumerate(tokens):
        rest = _all_but(tokens, place)
        for stem, side in STEMS.items():
            if stem in token and token != stem:
                without = "".join([*tokens[:place], _without(token, stem), *tokens[place + 1 :]])
                yield _Reading("stem" if len(without) >= _SHORTEST_REST else "short stem", without, side)
        if len(token) == 1:
            beside = letters.get("".join(rest), ())
            for pair, sure in LETTER_PAIRS.items():
                if token in pair and {*beside} == {*pair}:
                    yield _Reading("word" if sure else "letters", "".join(rest), "LR"[pair.index(token)])
        elif token.isalpha():
            for where, bare, letter in (("after", token[1:], token[0]), ("before", token[:-1], token[-1])):
                if letter in "lr":
                    kind = "letter" if len(bare) > 1 or bare in ABBREVIATED_PAIRS else "two letters"
                    yield _Reading(kind, f"{where} {place} {' '.join([*rest, bare])}", letter.upper())
            for pair in LETTER_PAIRS:  # VG and VD, OG and OD are chambers of a French heart
                if len(token) == 2 and token[0] in "vo" and token[1] in pair:
                    side = "LR"[pair.index(token[1])]
                    yield _Reading("two letters", f"{pair} {place} {' '.join([*rest, token[0]])}", side)


def _all_but(tokens: list[str], place: int) -> list[str]:
    return tokens[:place] + tokens[place + 1 :]


def _without(token: str, stem: str) -> str:
    """A word without its side; the ending of an adjective goes with it."""
    before, _, after = token.partition(stem)
    return before + (re.sub(r"^(?:um|[oaei]s?)", "", after) if stem in ADJECTIVES else after)


def _has_stem(token: str) -> bool:
    """Whether a word begins or ends with a side, and the rest is long enough to be a structure."""
    return any(
        token.startswith(stem) or not token.partition(stem)[2]
        for stem in LONE_STEMS
        if stem in token and len(_without(token, stem)) >= _SHORTEST_REST
    )


def _of_the_heart(tokens: list[str]) -> bool:
    """Whether a name is that of a chamber of the heart."""
    named = any(part in token for token in tokens for part in OF_THE_HEART)
    return (named or any(map(OF_THE_HEART_SHORT.fullmatch, tokens))) and "lateral" not in tokens


def _family(tokens: list[str]) -> str:
    """What names have in common that differ in side and number (rib l1, rib l2), or are lobes of lungs (LUL, RML)."""
    if any(map(_LOBE.fullmatch, tokens)):
        return " ".join("lobe" if _LOBE.fullmatch(token) else token for token in tokens)
    if not any(token in ("l", "r") or _NUMBERED.fullmatch(token) for token in tokens):
        return ""
    return " ".join(re.sub(r"^[lr](?=\d*$)", "side", re.sub(r"\d+", "0", token)) for token in tokens)
