"""What a left-right mirror makes of the classes of a cohort: sides are exchanged, or nothing may be mirrored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lossevo.data.sides import sides_of
from lossevo.errors import LossevoError, nearest

BACKGROUND = 0
_MOST_NAMED = 3
_MOST_LISTED = 40


@dataclass(frozen=True, slots=True)
class Mirror:
    """What each class becomes in a left-right mirror.

    ``classes[value]`` is the class that ``value`` becomes, the background being 0; None where nothing may be mirrored,
    and ``why`` says why not.
    """

    classes: tuple[int, ...] | None
    why: str = ""

    def pairs(self, class_names: Sequence[str]) -> list[tuple[str, str]]:
        """The names of the classes that are exchanged."""
        exchanged = enumerate(self.classes or ())
        return [(class_names[value], class_names[other]) for value, other in exchanged if value < other]


NOT_MIRRORED = Mirror(None, "mirror_pairs is off")


def not_mirrored(mirror: Mirror) -> str:
    """What users are told where nothing may be mirrored."""
    if mirror == NOT_MIRRORED:
        return "nothing is mirrored left-right in training, as the label file says"
    return (
        f"nothing is mirrored left-right in training: {mirror.why}. If sides are called otherwise, or there are none, "
        "name the pairs in a label file: mirror_pairs: [[LEFT, RIGHT], …], or []"
    )


def mirror_of_names(class_names: Sequence[str]) -> Mirror:
    """The mirror of classes that are structures themselves, the background first.

    >>> mirror_of_names(["background", "psoas left", "psoas right", "L1"]).classes
    (0, 2, 1, 3)
    """
    return mirror_by_names(dict(zip(class_names[1:], range(1, len(class_names)), strict=True)), len(class_names))


def mirror_by_names(class_of: Mapping[str, int], classes: int) -> Mirror:
    """The mirror of so many ``classes``; ``class_of`` maps structures to classes, and their names tell their sides."""
    sides = sides_of(class_of)
    unclear = [f"'{name}' {why}" for name, why in sides.unclear.items() if class_of[name] != BACKGROUND]
    if unclear:
        more = f", and {len(unclear) - _MOST_NAMED} more" if len(unclear) > _MOST_NAMED else ""
        return Mirror(None, "; ".join(unclear[:_MOST_NAMED]) + more)
    return mirror_by_partners(sides.partner, class_of, classes)


def mirror_by_partners(partner: Mapping[str, str], class_of: Mapping[str, int], classes: int) -> Mirror:
    """The mirror of so many ``classes`` in which ``partner`` says what each structure becomes."""
    becomes: dict[int, tuple[int, str, str]] = {BACKGROUND: (BACKGROUND, "", "")}
    for name, other in partner.items():
        value, counterpart = class_of[name], class_of[other]
        known, first, first_other = becomes.setdefault(value, (counterpart, name, other))
        if known != counterpart:
            if BACKGROUND in (value, counterpart):
                # A counterpart that is not asked for is background.
                return Mirror(None, f"'{name if value else other}' is a class, and its counterpart is background")
            return Mirror(None, f"'{first}' becomes '{first_other}', but '{name}' of the same class '{other}'")
    return Mirror(tuple(becomes.get(value, (value, "", ""))[0] for value in range(classes)))


def relabelled_mirror(mirror: Mirror, class_names: Sequence[str], class_of: Mapping[str, int], classes: int) -> Mirror:
    """The mirror of new ``classes`` made of those that ``mirror`` is of."""
    if mirror.classes is None:
        return mirror
    named = zip(class_names[1:], mirror.classes[1:], strict=True)
    return mirror_by_partners({name: class_names[other] for name, other in named}, class_of, classes)


def by_class_names_too(mirror: Mirror, class_names: Sequence[str]) -> Mirror:
    """The same mirror, but classes that are their own mirror image so far are exchanged if their names say so.

    In ``kidney_left: [2]`` and ``kidney_right: [3]`` the structures are numbers, and the classes have sides.
    """
    if mirror.classes is None:
        return mirror
    own = {name: value for value, name in enumerate(class_names) if value and mirror.classes[value] == value}
    sides = sides_of(class_names[1:])
    classes = [*mirror.classes]
    for name, value in own.items():
        other = sides.partner.get(name)
        if other is None:
            return Mirror(None, f"class '{name}' {sides.unclear[name]}")
        if other not in own:
            return Mirror(None, f"class '{name}' has the counterpart '{other}', but their structures have not")
        classes[value] = own[other]
    return Mirror(tuple(classes))


def mirror_by_pairs(
    pairs: Collection[tuple[str, str]], class_of: Mapping[str, int], class_names: Sequence[str], *, source: str
) -> Mirror:
    """The mirror that exchanges ``pairs`` of structures or classes; all others have no side.

    Raises:
        LossevoError: there is no such structure or class.
    """
    known = {name.casefold(): name for name in (*class_names[1:], *class_of)}
    value_of = dict(zip(class_names, range(len(class_names)), strict=True))
    partner = {name: name for name in class_of}
    exchanged: dict[int, int] = {}
    for pair in pairs:
        for asked in pair:
            if asked.casefold() not in known:
                raise LossevoError(
                    f"mirror_pairs: nothing in {source} is called '{asked}'{nearest(asked, known.values())}; it has "
                    f"{', '.join([*known.values()][:_MOST_LISTED])}{', …' * (len(known) > _MOST_LISTED)}"
                )
        one, other = (known[asked.casefold()] for asked in pair)
        if one in class_of and other in class_of:
            partner |= {one: other, other: one}
        elif one in value_of and other in value_of:
            exchanged |= {value_of[one]: value_of[other], value_of[other]: value_of[one]}
        else:
            raise LossevoError(f"mirror_pairs: of '{one}' and '{other}' one is a class, the other a structure")
    # What belongs to an exchanged class goes with it.
    rest = {name: other for name, other in partner.items() if class_of[name] not in exchanged}
    mirror = mirror_by_partners(rest, class_of, len(class_names))
    if mirror.classes is None or not exchanged:
        return mirror
    classes = tuple(exchanged.get(value, other) for value, other in enumerate(mirror.classes))
    if sorted(classes) != list(range(len(classes))):
        return Mirror(None, "mirror_pairs gives a class two counterparts")
    return Mirror(classes)
