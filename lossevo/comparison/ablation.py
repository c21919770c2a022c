"""Evolved losses without each of their terms: which part earns the gain."""

from __future__ import annotations

from collections.abc import Sequence

from lossevo.comparison.contenders import Contender
from lossevo.errors import LossevoError
from lossevo.expression import Expression, unicode
from lossevo.expression.rendering import unicode_part
from lossevo.expression.terms import without_each_term
from lossevo.losses.definitions import definition_in
from lossevo.losses.literature import literature_name


def with_ablations(contenders: Sequence[Contender]) -> tuple[Contender, ...]:
    """The contenders, and behind each evolved one that is a formula itself without each of its terms.

    A loss without a term was chosen on the subjects on which the loss was. One that is compared anyway is not added.

    Raises:
        LossevoError: no contender has a term that can be left out.
    """
    found: list[Contender] = []
    known = {contender.identity for contender in contenders}
    for contender in contenders:
        found.append(contender)
        for shorter in _without_each_term(contender):
            if shorter.identity not in known:
                known.add(shorter.identity)
                found.append(shorter)
    if len(found) == len(contenders):
        raise LossevoError(
            "--ablate: no evolved loss is compared that is a sum of several terms and has another loss left without "
            "one; see a formula with 'lossevo hof RUN --show RANK', or leave --ablate out"
        )
    return tuple(found)


def _without_each_term(contender: Contender) -> list[Contender]:
    definition = definition_in(contender.spec) if contender.evolved and not contender.parts else None
    if not isinstance(definition, Expression):
        return []
    shorter = []
    for number, (term, rest) in enumerate(without_each_term(definition), start=1):
        shorter.append(
            contender.model_copy(
                update={
                    "name": f"{contender.name} without term {number}",
                    "spec": {"expression": rest.to_json()},
                    "formula": unicode(rest),
                    "origin": f"{contender.origin}, without its term {number}: "
                    f"{unicode_part(term, definition.coefficients)}",
                    "evolved": literature_name(rest) is None,
                }
            )
        )
    return shorter
