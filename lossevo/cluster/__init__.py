"""Running jobs: in this process, or on the workers of a Ray cluster. Knows plain data, nothing of losses."""

from __future__ import annotations

from lossevo.cluster.executor import Executor, open_executor
from lossevo.cluster.job import Job, Outcome, Status, WorkerSpec

__all__ = ["Executor", "Job", "Outcome", "Status", "WorkerSpec", "open_executor"]
