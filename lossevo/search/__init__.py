"""The search: space, variation on DEAP, screening, engine, coefficient tuning, ledger, hall of fame, run folder."""

from lossevo.search.hall_of_fame import Entry
from lossevo.search.ledger import Ledger
from lossevo.search.progress import Event, Listener, Progress
from lossevo.search.run import Run, RunConfig, give_budget, read_config
from lossevo.search.space import SearchSpace, available, load_space
from lossevo.search.study import CohortSource, Study, Subjects, read_study

__all__ = [
    "CohortSource",
    "Entry",
    "Event",
    "Ledger",
    "Listener",
    "Progress",
    "Run",
    "RunConfig",
    "SearchSpace",
    "Study",
    "Subjects",
    "available",
    "give_budget",
    "load_space",
    "read_config",
    "read_study",
]
