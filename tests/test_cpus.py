from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lossevo.cpus import _quotas, usable_cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_those_of_the_affinity_mask():
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + (
        "from lossevo.cpus import usable_cpus; print(usable_cpus())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) == "1\n"
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("groups", "files", "quotas"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, [1.5]),
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/job/step", {"job/cpu.max": "200000 100000", "job/step/cpu.max": "max 100000"}, [2.0]),
        ("0::/of/the/host", {"cpu.max": "50000 100000"}, [0.5]),
        (
            "4:memory:/\n2:cpu,cpuacct:/job",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "300000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
            [3.0],
        ),
        ("2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, groups: str, files: dict[str, str], quotas: list[float]):
    (tmp_path / "groups").write_text(groups)
    for name, content in files.items():
        file = tmp_path / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    assert list(_quotas(tmp_path / "groups", tmp_path / "mount")) == quotas
