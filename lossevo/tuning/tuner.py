"""Courses on Ray Tune.

A tuning is resumed by telling its courses what is on record; only what is missing is trained. Ray Tune's own files,
which would have to be unpickled, lie in a folder for temporary files, and are never read.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lossevo.errors import LossevoError, ResumableError
from lossevo.experiment.events import Listener
from lossevo.experiment.ledger import Ledger
from lossevo.installation import installation
from lossevo.training import TrainingData
from lossevo.tuning.course import Course
from lossevo.tuning.courses import RETRIES, Courses

_ENVIRONMENT: Final = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C ends a tuning as if it were finished
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths of a cache or of code may be relative
    "RAY_AIR_NEW_OUTPUT": "0",  # else it prints tables of its own
}


@dataclass(frozen=True, slots=True)
class Workers:
    """Where trainings run; see :func:`lossevo.cluster.open_executor`. Ray Tune has no workers in process."""

    workers: int | None = None
    address: str | None = None
    gpus_per_worker: float | None = None


def run_courses(
    courses: Sequence[Course],
    data: TrainingData,
    ledger: Ledger,
    *,
    workers: Workers | None,
    listener: Listener = lambda event: None,
) -> None:
    """Train until all courses are finished. What the ledger knows is not trained again.

    Raises:
        LossevoError: there are no ``workers`` but something to train, Ray cannot be had, or the ledger cannot be
            written.
        ResumableError: the cluster was lost, or loses workers again and again.
    """
    together = Courses(courses, ledger, listener)
    together.replay()
    if together.finished:
        return
    if workers is None:
        raise LossevoError("a tuning trains on Ray, not in process; leave --in-process out")
    with _environment(_ENVIRONMENT):
        # Importing Ray Tune takes a second, which whoever has all on record should not pay.
        from lossevo.cluster.ray_connection import RayConnection
        from lossevo.cluster.ray_nodes import plan_workers

        connection = RayConnection(workers.address, cpus=workers.workers)
        storage = Path(tempfile.mkdtemp(prefix="lossevo-tune-"))
        try:
            count, gpus = plan_workers(workers.workers, workers.gpus_per_worker, address=connection.address)
            together.begin(count)
            # One by one Ray Tune would let the first actor do all short trainings before another is up.
            with _environment({"TUNE_MAX_PENDING_TRIALS_PG": str(count)}):
                _fit_watched(together, data, count, gpus, storage, connection.address)
        finally:
            connection.close()
            shutil.rmtree(storage, ignore_errors=True)
    if not together.finished:
        raise ResumableError("Ray Tune ended before the tuning was finished")


def _fit(courses: Courses, data: TrainingData, workers: int, gpus: float, storage: Path) -> None:
    """Let Ray Tune train what is left."""
    from lossevo.tuning.ray_tune import AttemptTrainable, CourseScheduler, CourseSearcher, tune

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    problems = tuple(course.problem for course in courses.courses)
    trainable = tune.with_parameters(AttemptTrainable, data=data, problems=problems, expected=dict(installation()))
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=CourseSearcher(courses, workers),
            scheduler=CourseScheduler(courses, workers),
            num_samples=2 * (1 + RETRIES) * courses.left,  # more than attempts begun again and controls can be
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tuning",
            storage_path=str(storage),
            verbose=0,
            # The courses begin attempts again: Ray Tune does not where an actor died between two trials.
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that are set meanwhile; what is set already stays."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _fit_watched(courses: Courses, data: TrainingData, workers: int, gpus: float, storage: Path, address: str) -> None:
    """As :func:`_fit`; the loss of the cluster's head, for which Ray Tune would wait, is an error.

    Raises:
        ResumableError: the head, or Ray's node on this machine, is gone.
    """
    from lossevo.cluster.head_watch import HeadWatch
    from lossevo.cluster.ray_nodes import node_socket

    gone: list[str] = []

    def lost(message: str) -> None:
        gone.append(message)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    watch, interrupted = HeadWatch(address, node_socket(), lost), False
    try:
        _fit(courses, data, workers, gpus, storage)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        watch.stop()
    if gone:
        raise ResumableError(f"{gone[0]}; start Ray again")
    if interrupted:
        gc.collect()  # the last references to Ray Tune's actors: else they would go on on a cluster that stays
        raise KeyboardInterrupt
