"""Every strategy, by the suite of all."""

from __future__ import annotations

import pytest

from lossevo.experiment.candidate import Candidate
from lossevo.search.screening import Screening
from lossevo.search.space import load_space
from lossevo.search.strategies import create_strategy
from lossevo.search.strategy_settings import Ageing, RandomSearch
from tests.conformance.strategy import StrategyConformance
from tests.search.synthetic import small_space

SCREENING = Screening(2)
SPACES = {
    "steady state": small_space(),
    "generational": small_space("glo", strategy={"population": 8, "elites": 2}),
    "ageing": small_space().model_copy(update={"strategy": Ageing(kind="ageing", initial=8, population=12)}),
    "random": small_space().model_copy(update={"strategy": RandomSearch(kind="random")}),
    "tuned catalogue": load_space("tuned_catalogue"),
    "taylorglo": load_space("taylorglo"),
    "auto seg loss": load_space("auto_seg_loss"),
}


def worth(candidate: Candidate) -> float:
    return candidate.score


class TestStrategies(StrategyConformance):
    @pytest.fixture(params=SPACES)
    def make(self, request):
        space = SPACES[request.param]
        return lambda: create_strategy(space, expected=40, worth=worth, direction=SCREENING.direction)
