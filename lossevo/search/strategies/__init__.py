"""Who proposes losses: one class per published way of searching, behind one seam."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lossevo.expression import Expression
from lossevo.search.space import SearchSpace
from lossevo.search.strategies.ageing import AgeingEvolution
from lossevo.search.strategies.auto_seg_loss import metric_form
from lossevo.search.strategies.cma_es import CmaEsSearch, always
from lossevo.search.strategies.generational import GenerationalEvolution
from lossevo.search.strategies.random_search import RandomTrees
from lossevo.search.strategies.steady_state import Direction, SteadyStateEvolution
from lossevo.search.strategies.strategy import Proposal, Strategy
from lossevo.search.strategies.taylorglo import taylor_form, trainable
from lossevo.search.strategies.tuned_catalogue import CatalogueTuning
from lossevo.search.strategy_settings import (
    Ageing,
    AutoSegLoss,
    CmaEs,
    Generational,
    RandomSearch,
    SteadyState,
    TaylorGLO,
    TunedCatalogue,
)
from lossevo.search.valuation import Worth

__all__ = ["Proposal", "Strategy", "create_strategy"]


def create_strategy(
    space: SearchSpace,
    *,
    expected: int,
    worth: Worth,
    direction: Callable[[Expression], Direction],
    unit: float = 1.0,
    classes: int = 2,
) -> Strategy:
    """The strategy that a space asks for.

    Args:
        space: whose ``strategy`` it is.
        expected: candidates that the budget allows; a population is at most a fourth of it. It has at least eight
            members, a generation of CMA-ES at least four.
        worth: what a candidate is worth.
        direction: the unit gradient of a loss, by which losses are alike.
        unit: the range of the objective.
        classes: with background.
    """
    settings = space.strategy
    match settings:
        case SteadyState():
            size = max(8, min(settings.population, expected // 4))
            return SteadyStateEvolution(space, settings, size, worth, direction, unit)
        case Generational():
            size = max(8, min(settings.population, expected // 4))
            return GenerationalEvolution(space, settings, size, worth, unit)
        case Ageing():
            return AgeingEvolution(space, settings, worth)
        case RandomSearch():
            return RandomTrees(space)
        case TunedCatalogue():
            return CatalogueTuning(space, settings, worth)
        case TaylorGLO():
            assert space.wrap is not None
            accepts = partial(trainable, classes=classes) if settings.invariant else always
            return CmaEsSearch(
                space, settings, taylor_form(space.wrap), _generation(settings, expected), worth, accepts
            )
        case AutoSegLoss():
            return CmaEsSearch(space, settings, metric_form(settings), _generation(settings, expected), worth, always)


def _generation(settings: CmaEs, expected: int) -> int:
    return max(4, min(settings.population, expected // 4))
