"""What travels to a worker and back: jobs, outcomes, and the recipe of a worker. Plain data, and how one job is run.

Whatever happens to a job is a :class:`Status` of its :class:`Outcome`; a job never raises into the search.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from lossevo.errors import LossevoError, ResumableError

Worker = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_ERROR_LENGTH = 500


class Status(StrEnum):
    """How a job ended."""

    DONE = "done"
    DIVERGED = "diverged"  # FloatingPointError: NaN or infinity where a number was needed
    ERROR = "error"  # any other exception
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    DIED = "died"  # the worker process ended under the job, and fresh ones did that run nothing else beside it
    MACHINE = "machine"  # OSError and the like: no executor delivers it, it runs the job again or stops


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a worker.

    Args:
        payload: The worker's argument; JSON-able plain data.
        timeout_s: Seconds the call may take, as the worker measures them; ``None`` for no limit. Time in which the
            worker's process is stopped does not count.
    """

    payload: Mapping[str, Any]
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be positive or None, not {self.timeout_s!r}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes:
        value: What the worker returned; ``None`` unless ``status`` is ``DONE``.
        error: One line saying what went wrong and where; empty when ``status`` is ``DONE``.
        seconds: Time the last attempt spent in the worker.
        worker: The worker of the last attempt, ``host:pid``.
        attempts: How often the job was started; more than 1 when workers died under it.
    """

    status: Status
    value: Mapping[str, Any] | None
    error: str
    seconds: float
    worker: str
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How to make a worker wherever it is to live: ``factory(payload)`` returns it, ``worker(job.payload)`` runs a job.

    Args:
        factory: ``"package.module:callable"``, importable on every machine that runs workers.
        payload: What all workers share. NumPy arrays in it reach workers read-only and, on one machine, without a copy.
    """

    factory: str
    payload: Any = None


def make_worker(factory: str, payload: Any) -> Worker:
    """``factory(payload)``.

    Raises:
        LossevoError: The factory cannot be imported, or it raised.
    """
    module_name, colon, name = factory.partition(":")
    if not (module_name and colon and name):
        raise LossevoError(f"worker factory {factory!r}: expected 'package.module:callable'")
    try:
        worker: Worker = getattr(importlib.import_module(module_name), name)(payload)
    except LossevoError:
        raise
    except Exception as error:
        raise LossevoError(f"worker factory {factory!r} failed: {describe(error)}") from error
    return worker


def run(worker: Worker, payload: Mapping[str, Any], *, worker_name: str) -> Outcome:
    """Call ``worker(payload)``; every exception becomes a status.

    ``FloatingPointError`` → ``DIVERGED``, ``TimeoutError`` → ``TIMEOUT``, ``MemoryError`` and PyTorch's out-of-memory
    errors → ``OUT_OF_MEMORY``, ``OSError``, ``ResumableError`` and a device that fails → ``MACHINE``, anything else,
    ``SystemExit`` included, → ``ERROR``.
    """
    start = time.perf_counter()
    value: Mapping[str, Any] | None = None
    status, message = Status.DONE, ""
    try:
        value = worker(payload)
        if not isinstance(value, Mapping):
            raise TypeError(f"the worker returned {type(value).__name__}, expected a mapping")
    except (Exception, SystemExit) as error:
        value, status, message = None, _status_of(error), describe(error)
    seconds = time.perf_counter() - start
    if status is Status.OUT_OF_MEMORY:
        _free_memory()  # outside the except clause, whose traceback keeps the tensors alive
    return Outcome(status=status, value=value, error=message, seconds=seconds, worker=worker_name)


def describe(error: BaseException) -> str:
    """``"ValueError: the message (module.py:12)"`` on one line: what was raised, and where."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if len(text) > _ERROR_LENGTH:
        text = text[: _ERROR_LENGTH - 1] + "…"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    return f"{text} ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else text


def _status_of(error: BaseException) -> Status:
    if isinstance(error, FloatingPointError):
        return Status.DIVERGED
    if isinstance(error, TimeoutError) and error.errno is None:  # else a disk or a network is too slow (ETIMEDOUT)
        return Status.TIMEOUT
    if isinstance(error, MemoryError) or _is_torch_out_of_memory(error):
        return Status.OUT_OF_MEMORY
    # A loss reads no file and opens no socket: that is never its fault.
    if isinstance(error, (OSError, ResumableError)) or _is_broken_device(error):
        return Status.MACHINE
    return Status.ERROR


def _is_torch_out_of_memory(error: BaseException) -> bool:
    # The CPU allocator raises a bare RuntimeError; only its text tells.
    torch = sys.modules.get("torch")
    return torch is not None and (
        isinstance(error, torch.OutOfMemoryError)
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def _is_broken_device(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "AcceleratorError") and isinstance(error, torch.AcceleratorError)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
