"""What every kind of run shares: study, run folder, ledger, queue of trainings, candidates, hall of fame, progress."""

from lossevo.experiment.events import Event, Listener, Progress
from lossevo.experiment.hall_of_fame import Entry
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.study import CohortSource, Study, Subjects, read_study

__all__ = ["CohortSource", "Entry", "Event", "Ledger", "Listener", "Progress", "Study", "Subjects", "read_study"]
