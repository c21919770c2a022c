"""What Ray Tune runs: a searcher and a scheduler that ask the courses, and the training.

MONAI takes seconds to import. It is imported where a training begins, not by the driver.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossevo.cluster import Job, Outcome, Status
from lossevo.cluster.limit import run_within_limit
from lossevo.cluster.ray_connection import ray
from lossevo.cluster.ray_nodes import check_same_installation
from lossevo.experiment.trainings import LEAST_LIMIT_S
from lossevo.training import TrainingData, Trial
from lossevo.training.threads import one_thread
from lossevo.tuning.courses import Courses
from lossevo.tuning.problem import Problem

from ray import tune  # isort: skip  (after lossevo.cluster.ray_connection, which sets Ray's environment)
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # isort: skip
from ray.tune.search import Searcher  # isort: skip

if TYPE_CHECKING:
    from lossevo.training.session import Session

__all__ = ["AttemptTrainable", "CourseScheduler", "CourseSearcher", "tune"]


class _Unpickled:
    """Ray Tune pickles its searcher and scheduler into its folder, which nobody reads."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class CourseSearcher(_Unpickled, Searcher):  # type: ignore[misc]
    """Hands out what the courses ask for, to so many ``workers``."""

    def __init__(self, courses: Courses, workers: int) -> None:
        super().__init__(metric="reached", mode="max")
        self._courses, self._workers = courses, workers

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next attempt as the ``config`` of :class:`AttemptTrainable`; None: not now."""
        courses = self._courses
        if len(courses.running) >= self._workers:
            return None
        found = courses.next(trial_id)
        if found is None:
            return None if courses.running else str(Searcher.FINISHED)
        course, attempt = found
        return {
            "problem": list(courses.courses).index(course),
            "values": attempt.values,
            "seed": attempt.seed,
            "before": sorted(attempt.utilities),
            "left": list(course.rungs_left(attempt)),
        }

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """A training is over, or has lost its worker; its course knows."""
        self._courses.running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger has it."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class CourseScheduler(_Unpickled, FIFOScheduler):  # type: ignore[misc]
    """Records each result, and ends a training where its course says so."""

    def __init__(self, courses: Courses, workers: int) -> None:
        super().__init__()
        self._courses, self._workers, self._kept = courses, workers, False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Have Ray Tune keep all actors to the end, once.

        It keeps no more than trials wait. So it would end an actor where a wave ends, and one that is left would do the
        trainings of the next wave before another is up.
        """
        cache = getattr(tune_controller, "_actor_cache", None)
        if cache is not None and not self._kept:
            cache.increase_max(trial.placement_group_factory, by=self._workers)
        self._kept = True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """What Ray Tune does with the training: go on, or stop."""
        document = json.loads(result["outcome"])
        outcome = Outcome(**{**document, "status": Status(document["status"])})
        goes_on = self._courses.arrived(trial.trial_id, result["reached"], outcome)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A training has lost its worker.

        Raises:
            ResumableError: no training is to blame.
        """
        self._courses.lost(trial.trial_id, _error_of(trial))


def _error_of(trial: Any) -> str:
    """The last line of what Ray Tune has noted of a trial's last error."""
    with suppress(OSError, TypeError):
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
        return lines[-1].strip()[:300]
    return "no reason is known"


class AttemptTrainable(tune.Trainable):  # type: ignore[misc]
    """Each :meth:`step` trains up to the next rung. The scheduler says whether there is another.

    ``config`` has the place of the ``problem``, ``values`` and ``seed`` of the attempt, the rungs ``before`` that are
    on record, and those that are ``left``. A result has the step ``reached``, and the ``outcome`` as JSON.
    """

    def setup(
        self,
        config: Mapping[str, Any],
        data: TrainingData | None = None,
        problems: Sequence[Problem] = (),
        expected: Mapping[str, str] | None = None,
    ) -> None:
        """Called once in each actor, with the first attempt."""
        assert data is not None
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        check_same_installation(expected or {}, self._name)
        from lossevo.training.trainer import Trainer

        self._trainer = Trainer(data)
        self._problems = problems
        self._step_limit_s = data.settings.step_limit_s
        self._sound = True
        self._begin(config)

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Begin another attempt; False, and a new actor, where a training was broken off by its time limit."""
        if self._sound:
            self._begin(new_config)
        return self._sound

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._problem = self._problems[config["problem"]]
        self._values, self._seed = config["values"], config["seed"]
        self._before, self._left = list(config["before"]), list(config["left"])
        self._session: Session | None = None

    def step(self) -> dict[str, Any]:
        """Train up to the next rung.

        Raises:
            RuntimeError: the machine failed, not the training.
        """
        rung = self._left.pop(0)
        trial = self._problem.trial(self._values, self._seed, rung)
        limit_s = None if self._step_limit_s is None else LEAST_LIMIT_S + self._step_limit_s * rung
        outcome = run_within_limit(self._advance, Job(trial.to_payload(), timeout_s=limit_s), worker_name=self._name)
        if outcome.status is Status.MACHINE:
            raise RuntimeError(outcome.error)
        self._sound = outcome.status is not Status.TIMEOUT
        return {"reached": rung, "outcome": json.dumps(asdict(outcome))}

    def _advance(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        from lossevo.training.session import Session
        from lossevo.training.trainer import measured

        started = time.perf_counter()
        trial = Trial.from_payload(payload)
        with one_thread():
            if self._session is None:
                self._session = Session(trial, self._trainer)
                for step in self._before:  # on record, so that only the curve needs them
                    self._session.advance(step - self._session.steps)
                    self._session.validate()
            self._session.advance(trial.fidelity.steps - self._session.steps)
            return measured(self._session, trial, started).to_payload()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: an attempt whose actor is lost begins again, to the same bit."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""
