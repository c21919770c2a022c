"""Which definitions are losses of the literature: a formula that is equal to a loss of the catalogue as published."""

from __future__ import annotations

from functools import cache

from lossevo.losses.definitions import Definition
from lossevo.losses.expressions import expressible_names, expression_of


def literature_name(definition: Definition) -> str | None:
    """The name of the loss of the catalogue that a definition is, coefficients included; None if it is no such loss.

    This alone decides whether a loss was found by a search. Where the definition was met does not matter: a loss of
    the literature has the same formula in a hall of fame as in the catalogue, and no subject had a part in it. With
    other coefficients it is another loss, since somebody chose them.
    """
    return _names_by_hash().get(definition.hash)


@cache
def _names_by_hash() -> dict[str, str]:
    return {expression_of(name).hash: name for name in expressible_names()}
