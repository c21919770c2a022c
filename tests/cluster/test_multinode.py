"""A Ray cluster of three machines, made of network namespaces: a head that lends no CPU, and two nodes of one CPU each.

Every namespace has its own network address and its own ``ray start``, started as `docker/compose.yaml` does it; token
authentication is on. Nothing is faked but the distance.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lossevo

HERE = Path(__file__).parent
ADDRESS = "10.77.0.1:6379"

pytestmark = pytest.mark.slow


def run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


class Machines:
    """Network namespaces on one bridge, and the processes in them."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="lv", dir="/tmp")  # a socket's path may have 107 characters, no more
        self.names: list[str] = []
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
            "PYTHONPATH": os.pathsep.join([str(Path(lossevo.__file__).parents[1]), str(HERE)]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def namespace(self, name: str) -> str:
        return f"lossevo-{os.getpid()}-{name}"

    def add(self, name: str, address: str) -> None:
        """A machine; the first one carries the bridge, the others are plugged into it."""
        namespace, first = self.namespace(name), self.namespace((self.names or [name])[0])
        run("ip", "netns", "add", namespace)
        self.names.append(name)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        if namespace == first:
            device = "bridge0"
            run("ip", "-n", namespace, "link", "add", device, "type", "bridge")
        else:
            device = "eth0"
            run("ip", "-n", first, "link", "add", name, "type", "veth", "peer", "name", device, "netns", namespace)
            run("ip", "-n", first, "link", "set", name, "master", "bridge0", "up")
        run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", device)
        run("ip", "-n", namespace, "link", "set", device, "up")

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(name), *command],
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start_ray(self, name: str, *options: str) -> subprocess.Popen[str]:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, "--block"]
        return self.start(name, *ray, f"--temp-dir={self.folder}/{name}", "--object-store-memory=100000000")

    def kill(self, name: str) -> None:
        """As pulling the plug: every process in the namespace ends at once."""
        while pids := run("ip", "netns", "pids", self.namespace(name)).split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)

    def close(self) -> None:
        for name in self.names:
            self.kill(name)
            run("ip", "netns", "delete", self.namespace(name))
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until_up(node: subprocess.Popen[str]) -> None:
    log = []
    for line in node.stdout:
        log.append(line)
        if "Ray runtime started" in line:
            return
    raise AssertionError("ray start failed:\n" + "".join(log))


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("network namespaces need root on Linux")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need `ip` (apt-get install iproute2)")
    machines = Machines()
    try:
        machines.add("head", "10.77.0.1")
        machines.add("node1", "10.77.0.11")
        machines.add("node2", "10.77.0.12")
        machines.add("laptop", "10.77.0.99")
        head = ("--head", "--port=6379", "--node-ip-address=10.77.0.1", "--num-cpus=0", "--include-dashboard=false")
        wait_until_up(machines.start_ray("head", *head))
        nodes = [machines.start_ray(name, f"--address={ADDRESS}", "--num-cpus=1") for name in ("node1", "node2")]
        for node in nodes:
            wait_until_up(node)
        yield machines
    finally:
        machines.close()


def search(jobs: int = 1, seconds: float = 0.0) -> list[str]:
    return [sys.executable, str(HERE / "cluster_search.py"), ADDRESS, str(jobs), str(seconds)]


def error_of(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    return json.loads(output.splitlines()[-1])["error"]


def test_jobs_run_on_all_nodes_and_survive_the_loss_of_one(machines):
    process = machines.start("head", *search(jobs=12, seconds=1.5))
    outcomes: list[dict] = []
    lost = ""
    for line in process.stdout:
        answer = json.loads(line)  # and nothing else is printed, a dying node or not
        if "ticket" not in answer:
            assert answer == {"workers": 2}
            continue
        outcomes.append(answer)
        hosts = {outcome["worker"].rsplit(":", 1)[0] for outcome in outcomes}
        if not lost and len(hosts) == 2:
            assert hosts == {"10.77.0.11", "10.77.0.12"}
            lost = outcomes[-1]["worker"].rsplit(":", 1)[0]
            time.sleep(0.3)  # so that it is at its next job
            machines.kill({"10.77.0.11": "node1", "10.77.0.12": "node2"}[lost])
            after = len(outcomes)
    assert process.wait(timeout=30) == 0
    assert {outcome["ticket"]: outcome["value"] for outcome in outcomes} == {x: {"y": x * x} for x in range(12)}
    assert {outcome["status"] for outcome in outcomes} == {"done"}
    assert all(not outcome["worker"].startswith(lost) for outcome in outcomes[after + 1 :])
    assert max(outcome["attempts"] for outcome in outcomes) >= 2
    assert sum(outcome["attempts"] > 1 for outcome in outcomes) == 1


def test_the_cluster_goes_on_and_its_cpus_are_free_again(machines):
    # A search that names no number of workers takes all CPUs: the one that is left, once Ray knows that a node is gone.
    process = machines.start("head", *search(jobs=2))
    output, _ = process.communicate(timeout=60)
    first, *outcomes = map(json.loads, output.splitlines())
    assert first["workers"] in (1, 2)
    assert {outcome["status"] for outcome in outcomes} == {"done"}


@pytest.mark.parametrize(
    "credentials", [{"RAY_AUTH_TOKEN": "a wrong one"}, {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": ""}]
)
def test_a_wrong_or_missing_token_is_an_error_that_says_so(machines, credentials):
    message = error_of(machines.start("head", *search(), **credentials))
    assert f"the Ray cluster at {ADDRESS} asks for a token, and got none or a wrong one" in message


def test_a_machine_without_a_ray_node_is_told_to_join(machines):
    # Its own view of the disk: on another machine Ray finds no sockets of a node.
    bare = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', machines.folder, *search()]
    message = error_of(machines.start("laptop", *bare))
    assert message.startswith(f"this machine runs no node of the Ray cluster at {ADDRESS}. Let it join first")
    assert f"`ray start --address {ADDRESS} --num-cpus 0`" in message


def test_a_cluster_of_another_ray_is_an_error_that_names_both_versions(machines):
    import ray

    forge = (
        "import json, ray; from ray.experimental.internal_kv import _internal_kv_get as get, _internal_kv_put as put;"
        f"ray.init(address={ADDRESS!r}, log_to_driver=False, logging_level='ERROR');"
        "key, space = b'CLUSTER_METADATA', b'cluster'; metadata = json.loads(get(key, namespace=space));"
        "put(key, json.dumps(metadata | {'ray_version': '2.0.0'}).encode(), overwrite=True, namespace=space)"
    )
    output, _ = (process := machines.start("head", sys.executable, "-c", forge)).communicate(timeout=60)
    assert process.returncode == 0, output
    message = error_of(machines.start("head", *search()))
    assert message.startswith(f"the Ray cluster at {ADDRESS} and this machine must run the same Ray and Python.")
    assert "Ray: 2.0.0" in message
    assert f"Ray: {ray.__version__}" in message
