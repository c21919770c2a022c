"""The search: space, strategies, screening, allocation of trainings, engine, run folder."""

from lossevo.search.progress import SearchProgress
from lossevo.search.run import Run, RunConfig, give_budget, read_config
from lossevo.search.space import SearchSpace, available, load_space

__all__ = [
    "Run",
    "RunConfig",
    "SearchProgress",
    "SearchSpace",
    "available",
    "give_budget",
    "load_space",
    "read_config",
]
