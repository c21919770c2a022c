"""How many CPUs this process may use: not those of the machine, but those that it was given."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """The CPUs of the affinity mask (``taskset``, SLURM), or fewer if a control group limits their time (containers,
    ``systemd``, Kubernetes); at least 1.
    """
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([given, *map(math.ceil, _quotas())]))


def _quotas(groups: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS) -> Iterator[float]:
    """The CPU time per time that each control group around this process allows, version 1 and 2."""
    with suppress(OSError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mount = root / controllers if controllers else root
            # Inside a container the path may be that of the host: then the limits are those of the mount itself.
            own = mount / path.lstrip("/")
            for folder in {mount, own, *(parent for parent in own.parents if parent.is_relative_to(mount))}:
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)  # "max" is no number: no limit
    with suppress(OSError, ValueError):
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        if quota_us > 0:
            yield quota_us / int((folder / "cpu.cfs_period_us").read_text())
