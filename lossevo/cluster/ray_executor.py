"""Jobs on Ray: one long-lived actor per worker, and a scheduler of our own that outlives dying actors and nodes.

Ray's ``ActorPool`` neither replaces a dead actor nor knows deadlines, and Ray *tasks* would start a process per
training (with GPUs) and retry one that exhausts memory for ever.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from lossevo.cluster.executor import BusyMeter
from lossevo.cluster.head_watch import HeadWatch
from lossevo.cluster.job import Job, Outcome, Status, Worker, WorkerSpec, describe, make_worker
from lossevo.cluster.limit import AwakeClock, run_within_limit
from lossevo.cluster.ray_connection import RayConnection, ray
from lossevo.cluster.ray_nodes import check_same_installation, node_socket, plan_workers, search_path
from lossevo.cluster.retries import Record, Retries, Verdict
from lossevo.errors import LossevoError, ResumableError
from lossevo.installation import installation

START_TIMEOUT_S: Final = 180.0
SILENCE_S: Final = 60.0
"""A worker that has not answered so long after its job's limit is lost. Networks are cut off for less."""
CONTROL_S: Final = 2.0
"""How long a worker has to stay alive, where no job was done yet that could show that workers can live."""

_TICK_S: Final = 1.0
_PATIENCE_S: Final = 5.0

# What goes wrong between machines, and Ray does not tell.
_ADVICE: Final = ". Check that all nodes have the RAY_AUTH_MODE and the token of this machine, and can reach it"

# Two processes of two threads each on two cores train seven times slower than two of one thread.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class _Actor:
    """The worker, in its own process. It is made by a call, not in the constructor, so that its errors come back."""

    def start(self, factory: str, payload: Any, expected: Mapping[str, str]) -> tuple[str, str]:
        """Returns the worker's name and the id of its node."""
        self._name = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        check_same_installation(expected, self._name)
        self._worker: Worker = make_worker(factory, payload)
        return self._name, ray.get_runtime_context().get_node_id()

    def run(self, job: Job) -> Outcome:
        return run_within_limit(self._worker, job, worker_name=self._name)

    def idle(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(slots=True, eq=False)
class _Task:
    """A job on its way."""

    ticket: int
    job: Job
    record: Record = field(default_factory=Record)


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of one worker. Its actor is replaced when it dies or hangs."""

    actor: Any = None
    ready: bool = False
    started: float = 0.0
    name: str = ""
    node_id: str = ""
    fresh: bool = True
    task: _Task | None = None
    patience_s: float = math.inf
    clock: AwakeClock = field(default_factory=lambda: AwakeClock(_TICK_S))


class RayExecutor:
    """Workers are Ray actors of one CPU each, spread over the cluster.

    A dispatcher thread owns all state. It sleeps until something happens (a job came in, a worker is ready, done or
    dead, time has passed) and at once gives idle workers their next job, whatever the caller's thread is doing.

    - The worker keeps a job's time limit, and is replaced after a ``TIMEOUT``. A worker that does not answer for
      :data:`SILENCE_S` longer, while this process could run, is lost.
    - What happens to a job whose worker is lost says :mod:`lossevo.cluster.retries`.
    - A worker that cannot be made ends the run, and so does a sick cluster: :meth:`completed` raises.

    Raises:
        LossevoError: No connection, too small a cluster, or the worker's factory failed.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        workers: int | None = None,
        address: str | None = None,
        gpus_per_worker: float | None = None,
    ) -> None:
        self._slots: list[_Slot] = []
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._arrived: queue.SimpleQueue[tuple[int, Outcome] | LossevoError] = queue.SimpleQueue()
        self._waiting: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()
        self._accused: tuple[_Task, Outcome] | None = None
        self._done: Job | None = None
        self._control: _Slot | None = None
        self._submitted = 0
        self._outstanding = 0
        self._failed_starts = 0
        self._first_ready = threading.Event()
        self._stopping = False
        self._head: HeadWatch | None = None
        self._head_is_lost = False
        self._dispatcher = threading.Thread(target=self._dispatch, name="lossevo-dispatcher", daemon=True)
        self._advice = "" if address is None else _ADVICE
        self._connection = RayConnection(address, cpus=workers)
        self._address = self._connection.address
        try:
            self.workers, gpus = plan_workers(workers, gpus_per_worker, address=self._address)
            self._meter = BusyMeter(self.workers)
            self._retries = Retries(self.workers)
            self._factory = spec.factory
            self._payload = ray.put(spec.payload)
            self._new_actor = ray.remote(_Actor).options(
                num_cpus=1,
                num_gpus=gpus,
                max_restarts=0,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": _ONE_THREAD | ({"PYTHONPATH": search_path()} if address is None else {})},
            )
            self._slots = [_Slot() for _ in range(self.workers)]
            for slot in self._slots:
                self._start(slot)
            self._dispatcher.start()
            self._head = HeadWatch(self._address, node_socket(), self._on_head_lost)
            self._await_first_worker()
        except BaseException:
            self.close()
            raise

    def submit(self, job: Job) -> int:
        """See :meth:`Executor.submit`."""
        if self._stopping:
            raise RuntimeError("the executor is closed")
        task = _Task(self._submitted, job)
        self._meter.submitted()
        self._submitted += 1
        self._outstanding += 1
        self._inbox.put(partial(self._waiting.append, task))
        return task.ticket

    def completed(self) -> Iterator[tuple[int, Outcome]]:
        """See :meth:`Executor.completed`."""
        while self._outstanding and not self._stopping:
            arrival = self._arrived.get()
            if isinstance(arrival, LossevoError):
                self._arrived.put(arrival)  # for whoever asks again
                raise arrival
            self._outstanding -= 1
            yield arrival

    def busy_share(self) -> float:
        """See :meth:`Executor.busy_share`."""
        return self._meter.share()

    def close(self) -> None:
        """See :meth:`Executor.close`. A cluster that was running before goes on running."""
        if self._stopping:
            return
        self._stopping = True
        self._inbox.put(lambda: None)
        if self._head is not None:
            self._head.stop()
        try:
            if self._dispatcher.is_alive():
                self._dispatcher.join(_PATIENCE_S if self._head_is_lost else None)
            if ray.is_initialized() and not self._head_is_lost:
                for slot in self._slots:
                    if slot.actor is not None:
                        ray.kill(slot.actor)
            self._payload = None
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _on_head_lost(self, what: str) -> None:
        self._head_is_lost = True
        self._arrived.put(ResumableError(f"{what}; start Ray again{self._advice}" if self._advice else what))

    def _await_first_worker(self) -> None:
        if not self._first_ready.wait(START_TIMEOUT_S):
            total, free = ray.cluster_resources(), ray.available_resources()
            numbers = (f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s are free" for name in ("CPU", "GPU"))
            raise LossevoError(
                f"no worker could be started within {START_TIMEOUT_S:g} s on the Ray cluster at "
                f"{self._address}: {', '.join(numbers)}{self._advice}"
            )
        if not self._arrived.empty() and isinstance(failure := self._arrived.get(), LossevoError):
            raise failure

    # What follows runs in the dispatcher thread.

    def _dispatch(self) -> None:
        try:
            while not self._stopping:
                self._read_inbox()
                self._give_up_the_silent()
                self._feed()
        except LossevoError as error:
            self._arrived.put(error)
        except Exception as error:
            failure = ResumableError(f"lost the Ray cluster at {self._address}: {describe(error)}")
            failure.__cause__ = error
            self._arrived.put(failure)
        finally:
            self._first_ready.set()

    def _read_inbox(self) -> None:
        """All that came in; if nothing did, wait for the next."""
        with contextlib.suppress(queue.Empty):
            self._inbox.get(timeout=_TICK_S)()
            while True:
                self._inbox.get_nowait()()

    def _start(self, slot: _Slot) -> None:
        slot.actor = self._new_actor.remote()
        slot.ready, slot.fresh, slot.started = False, True, time.monotonic()
        self._watch(slot, slot.actor.start.remote(self._factory, self._payload, dict(installation())), self._on_started)

    def _replace(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        self._start(slot)

    def _watch(self, slot: _Slot, reference: Any, on_result: Callable[[_Slot, Any], None]) -> None:
        actor = slot.actor

        def handle(future: Any) -> None:
            if slot.actor is actor:  # else news of an actor that has been replaced since
                on_result(slot, future)

        reference.future().add_done_callback(lambda future: self._inbox.put(partial(handle, future)))

    def _on_started(self, slot: _Slot, future: Any) -> None:
        error = future.exception()
        if error is None:
            slot.name, slot.node_id = future.result()
            slot.ready = True
            self._failed_starts = 0
            self._first_ready.set()
        elif isinstance(error, ray.exceptions.RayTaskError):
            # If one was ready before, it is this machine that cannot, and not the factory.
            kind = ResumableError if self._first_ready.is_set() else LossevoError
            raise kind(str(error.cause)) from error.cause
        else:
            self._failed_starts += 1
            if self._failed_starts > self.workers + 1:
                raise ResumableError(
                    f"{self._failed_starts} workers in a row died while they were starting: {_cause_of_death(error)}"
                    + self._advice
                )
            self._replace(slot)

    def _feed(self) -> None:
        running = any(slot.task for slot in self._slots)
        if self._accused is not None and (self._done is not None or not (running or self._waiting or self._suspects)):
            if not running:
                self._try_control()
            return
        if any(slot.task and slot.task.record.alone for slot in self._slots):
            return
        idle = [slot for slot in self._slots if slot.ready and slot.task is None]
        for slot in idle[: len(self._waiting)]:
            self._run(slot, self._waiting.popleft())
        if self._suspects and idle and not any(slot.task for slot in self._slots):
            fresh = self._fresh()
            if fresh is not None:
                self._run(fresh, self._suspects.popleft())

    def _fresh(self) -> _Slot | None:
        """A worker that has done nothing and has become ready since a worker was last lost; None until there is one.

        What was ready before may have been lost with the other, unnoticed: Ray's memory monitor ends several at once.
        No job may run.
        """
        ready = [slot for slot in self._slots if slot.ready]
        fresh = next((slot for slot in ready if slot.fresh), None)
        latest = time.monotonic() - START_TIMEOUT_S
        starting = any(not slot.ready and slot.started > latest for slot in self._slots)
        if ready and fresh is None and not starting:
            self._replace(ready[0])  # which gives up its room, to itself or to one that waits for room
        return fresh

    def _run(self, slot: _Slot, task: _Task) -> None:
        slot.task, slot.fresh = task, False
        task.record.attempts += 1
        self._time(slot, task.job.timeout_s)
        self._meter.started(slot)
        self._watch(slot, slot.actor.run.remote(task.job), self._on_finished)

    def _time(self, slot: _Slot, limit_s: float | None) -> None:
        slot.patience_s = math.inf if limit_s is None else limit_s + SILENCE_S
        slot.clock = AwakeClock(_TICK_S)

    def _on_finished(self, slot: _Slot, future: Any) -> None:
        task, seconds = self._release(slot)
        error = future.exception()
        if isinstance(error, ray.exceptions.RayTaskError):  # the worker raises nothing: its return value cannot travel
            self._deliver(task, self._failure(slot, task, Status.ERROR, describe(error.cause), seconds))
        elif error is not None:
            # An actor is "unavailable" when its connection broke and Ray does not know yet why: a node going down.
            unavailable = isinstance(error, ray.exceptions.ActorUnavailableError)
            memory = isinstance(error, ray.exceptions.OutOfMemoryError)  # Ray's memory monitor killed it
            status = Status.OUT_OF_MEMORY if memory else Status.DIED
            with_node = unavailable or not _is_alive(slot.node_id)
            self._on_lost(
                slot, task, status, f"its worker died: {_cause_of_death(error)}", seconds, with_node=with_node
            )
        else:
            self._on_answer(slot, task, future.result())

    def _on_answer(self, slot: _Slot, task: _Task, outcome: Outcome) -> None:
        if outcome.status is Status.DONE:
            self._done = task.job
        if outcome.status is Status.MACHINE:
            self._on_lost(slot, task, Status.MACHINE, outcome.error, outcome.seconds)
            return
        self._retries.answered()
        if outcome.status in (Status.TIMEOUT, Status.OUT_OF_MEMORY):
            self._replace(slot)  # whatever the job left behind when it was interrupted
        if outcome.status is Status.OUT_OF_MEMORY and self._retries.out_of_memory(task.record) is Verdict.AGAIN:
            self._suspects.append(task)
        else:
            self._deliver(task, replace(outcome, attempts=task.record.attempts))

    def _give_up_the_silent(self) -> None:
        for slot in self._slots:
            if slot is self._control and slot.clock.tick() >= slot.patience_s:
                raise self._sick("a worker that did again what it had done before does not answer")
            if slot.task is not None and slot.clock.tick() >= slot.patience_s:
                task, seconds = self._release(slot)
                message = f"took longer than {task.job.timeout_s:g} s, and its worker did not answer"
                self._on_lost(slot, task, Status.TIMEOUT, message, seconds, with_node=not _is_alive(slot.node_id))

    def _on_lost(
        self, slot: _Slot, task: _Task, status: Status, message: str, seconds: float, *, with_node: bool = False
    ) -> None:
        verdict = self._retries.lost(task.record, with_node=with_node)
        for other in self._slots:
            other.fresh = other.fresh and not other.ready
        self._replace(slot)
        if verdict is Verdict.SICK or (verdict is Verdict.BLAMED and (self._accused or status is Status.MACHINE)):
            raise self._sick(message)
        if verdict is Verdict.BLAMED:
            times = f" in each of {task.record.attempts} attempts"
            self._accused = (task, self._failure(slot, task, status, message + times, seconds))
        elif task.record.alone:
            self._suspects.append(task)
        else:
            self._waiting.appendleft(task)

    def _try_control(self) -> None:
        if self._control is None and (slot := self._fresh()) is not None:
            self._control, slot.fresh = slot, False
            self._time(slot, self._done.timeout_s if self._done else CONTROL_S)
            call = slot.actor.run.remote(self._done) if self._done else slot.actor.idle.remote(CONTROL_S)
            self._watch(slot, call, self._on_control)

    def _on_control(self, slot: _Slot, future: Any) -> None:
        """A fresh worker has done again what one did before, or has not: whether the accused job is to blame."""
        assert self._accused is not None
        (task, failure), self._accused, self._control = self._accused, None, None
        if future.exception() is not None:
            raise self._sick(failure.error)
        if self._done is not None:
            if future.result().status is not Status.DONE:
                raise self._sick(failure.error)
            self._retries.answered()
        self._deliver(task, failure)

    def _sick(self, message: str) -> ResumableError:
        return ResumableError(
            f"the Ray cluster at {self._address} loses workers again and again, and no training is to blame: "
            f"{message}. Look at the memory, the disks and the network of its machines{self._advice}"
        )

    def _release(self, slot: _Slot) -> tuple[_Task, float]:
        task, slot.task = slot.task, None
        assert task is not None
        return task, self._meter.stopped(slot)

    def _failure(self, slot: _Slot, task: _Task, status: Status, error: str, seconds: float) -> Outcome:
        return Outcome(status, None, error, seconds, slot.name, task.record.attempts)

    def _deliver(self, task: _Task, outcome: Outcome) -> None:
        self._arrived.put((task.ticket, outcome))


def _is_alive(node_id: str) -> bool:
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def _cause_of_death(error: BaseException) -> str:
    """The line of Ray's account that says it, less the general advice."""
    lines = str(error).strip().splitlines()
    line = lines[0] if isinstance(error, ray.exceptions.OutOfMemoryError) else lines[-1]
    return line.partition(" Some common causes")[0]
