"""Which candidates of a search are tuned, and which are confirmed: the best, but not many of a kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from lossevo.experiment.candidate import Candidate
from lossevo.experiment.hall_of_fame import structure
from lossevo.experiment.origin import Tuned
from lossevo.expression import Expression, ExpressionError
from lossevo.search.simplification import effective_slots
from lossevo.search.space import Tuning
from lossevo.search.strategies.coefficients import with_slots
from lossevo.search.strategies.tuning import Structure
from lossevo.search.valuation import Worth

Fingerprint = Callable[[Expression], str]
_OF_A_STRUCTURE = 2


def by_worth(candidates: Iterable[Candidate], worth: Worth) -> list[Candidate]:
    """Those that have a score, by what they are worth, the first of equals first."""
    scored = [candidate for candidate in candidates if candidate.scores]
    return sorted(scored, key=lambda candidate: (-worth(candidate), candidate.number))


def finalists(candidates: Iterable[Candidate], worth: Worth, count: int, fingerprint: Fingerprint) -> list[Candidate]:
    """The best evolved, one of a gradient, and the best hand-crafted losses: a third of the places, at least one.

    At most two evolved ones are of a structure while there are others; what places are left, further ones of a kind
    get: where CMA-ES tunes one formula all are. Of a tuning the mean of its distribution may be one, but not a sample:
    the best of many samples is the luckiest.
    """
    ordered = by_worth(candidates, worth)
    literature = [candidate for candidate in ordered if candidate.hand_crafted][: max(1, count // 3)]
    places = count - len(literature)
    structures: Counter[str] = Counter()
    fingerprints: set[str] = set()
    evolved: list[Candidate] = []
    of_a_kind: list[Candidate] = []

    def admit(candidate: Candidate) -> bool:
        found = fingerprint(candidate.expression)
        if found in fingerprints:
            return False  # where CMA-ES starts with new coefficients of 1 it has its parent's
        fingerprints.add(found)
        evolved.append(candidate)
        return True

    for candidate in ordered:
        if len(evolved) == places:
            break
        sampled = isinstance(candidate.origin, Tuned) and not candidate.origin.mean
        if candidate.hand_crafted or sampled:
            continue
        kind = structure(candidate)
        if structures[kind] == _OF_A_STRUCTURE:
            of_a_kind.append(candidate)
        elif admit(candidate):
            structures[kind] += 1
    for candidate in of_a_kind:
        if len(evolved) == places:
            break
        admit(candidate)
    return [*evolved, *literature]


def tunable(
    candidates: Iterable[Candidate], worth: Worth, count: int, settings: Tuning, fingerprint: Fingerprint
) -> list[Structure]:
    """The best evolved candidates of different structure, as they are tuned, with the slots that matter."""
    found: dict[str, Structure] = {}
    for candidate in by_worth(candidates, worth):
        kind = structure(candidate)
        if len(found) == count:
            break
        if candidate.hand_crafted or kind in found:
            continue
        try:
            expression = with_slots(candidate.expression, settings)
        except ExpressionError:  # with a coefficient per node it exceeds the limits of the language
            continue
        slots = effective_slots(expression, fingerprint)
        if slots:
            found[kind] = Structure(candidate, expression, slots)
    return list(found.values())
