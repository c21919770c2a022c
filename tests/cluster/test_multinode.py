"""A Ray cluster of four machines, made of Linux namespaces: a head, two workers, and one to search from.

Every machine has its own network address, processes and temporary files, and runs the command of its service in
``docker/compose.yaml``; token authentication is on. Nothing is faked but the distance.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import lossevo
from lossevo.cluster import Outcome, Status
from lossevo.experiment import Ledger
from tests.cohorts import write_balls

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ADDRESS = "10.77.0.1:6379"
TOOLS = ("ip", "unshare", "nsenter", "setpriv")

pytestmark = pytest.mark.slow


class Machine:
    """Namespaces that live as long as one process, which the kernel ends with us and takes everything in them along."""

    def __init__(self, folder: str, environment: dict[str, str]) -> None:
        self.environment = environment | {"RAY_TMPDIR": folder}
        self.init = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL",
             "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
             "sh", "-c", 'mount -t tmpfs none "$0" && ip link set lo up && echo ready && exec sleep infinity', folder],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.init.stdout.readline() == "ready\n"
        self.pid = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()[0]

    def ip(self, *arguments: str) -> None:
        subprocess.run(["nsenter", "--target", self.pid, "--net", "ip", *arguments], check=True)

    def set_up_network(self, device: str, address: str) -> None:
        self.ip("addr", "add", f"{address}/24", "dev", device)
        self.ip("link", "set", device, "up")
        self.ip("route", "add", "default", "dev", device)  # by its source address Ray knows its own

    def start(self, *command: str, stdin: int = subprocess.DEVNULL, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", "--target", self.pid, "--net", "--mount", "--pid", *command],
            env=self.environment | environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pull_the_plug(self) -> None:
        self.init.kill()
        self.init.wait()


def compose_command(service: str) -> list[str]:
    """The service's command, with defaults put in for variables and the head's address for its name."""
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    words = (re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in services[service]["command"])
    return [word.replace("head:6379", ADDRESS) for word in words]


def wait_until_up(node: subprocess.Popen[str]) -> None:
    log = []
    for line in node.stdout:
        log.append(line)
        if "Ray runtime started" in line:
            return
    raise AssertionError("ray start failed:\n" + "".join(log))


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, Machine]]:
    """Its machines by name; they end with the context."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("namespaces need root on Linux")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"namespaces need {', '.join(missing)} (apt-get install iproute2 util-linux)")
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], check=False).returncode != 0:
        pytest.skip("this machine does not allow new namespaces")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(Path(lossevo.__file__).parents[1]), str(HERE)]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_HEAD": ADDRESS,
    }
    made: dict[str, Machine] = {}
    with tempfile.TemporaryDirectory(prefix="lv", dir="/tmp") as folder:  # a socket's path may have 107 characters
        try:
            head = made["head"] = Machine(folder, environment)
            head.ip("link", "add", "bridge0", "type", "bridge")
            head.set_up_network("bridge0", "10.77.0.1")
            for name, address in (("worker1", "10.77.0.11"), ("worker2", "10.77.0.12"), ("search", "10.77.0.20")):
                machine = made[name] = Machine(folder, environment)
                head.ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", machine.pid)
                head.ip("link", "set", name, "master", "bridge0", "up")
                machine.set_up_network("eth0", address)
            wait_until_up(head.start(*compose_command("head")))
            for node in [made[name].start(*compose_command("worker")) for name in ("worker1", "worker2")]:
                wait_until_up(node)
            yield made
        finally:
            for machine in made.values():
                machine.pull_the_plug()


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    """Shared by the tests that leave them as they were, and the last."""
    with cluster() as machines:
        yield machines


@pytest.fixture
def own_machines() -> Iterator[dict[str, Machine]]:
    with cluster() as machines:
        yield machines


def search(jobs: int = 1, seconds: float = 0.0, limit_s: float = 600.0) -> list[str]:
    return [sys.executable, str(HERE / "cluster_search.py"), ADDRESS, str(jobs), str(seconds), str(limit_s)]


def error_of(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    return json.loads(output.splitlines()[-1])["error"]


def test_a_machine_without_a_ray_node_is_told_to_join(machines):
    message = error_of(machines["search"].start(*search()))
    assert message.startswith(f"this machine runs no node of the Ray cluster at {ADDRESS}. Let it join first")
    assert f"`ray start --address {ADDRESS} --num-cpus 0`" in message


@pytest.mark.parametrize("credentials", [{"RAY_AUTH_TOKEN": "wrong"}, {"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN": ""}])
def test_a_wrong_or_missing_token_is_an_error_that_says_so(machines, credentials):
    message = error_of(machines["head"].start(*search(), **credentials))
    assert f"the Ray cluster at {ADDRESS} asks for a token, and got none or a wrong one" in message


@pytest.mark.chaos
def test_a_driver_that_was_cut_off_for_40_s_finds_its_jobs_done(own_machines):
    """They ended in time, though it hears of that only long after their limit."""
    process = own_machines["search"].start(
        str(ROOT / "docker" / "join-cluster"), *search(jobs=6, seconds=4.0, limit_s=10.0)
    )
    outcomes = {}
    for line in process.stdout:
        answer = json.loads(line)
        if "workers" in answer:
            time.sleep(1.0)
            own_machines["head"].ip("link", "set", "search", "down")
            time.sleep(40.0)
            own_machines["head"].ip("link", "set", "search", "up")
        else:
            outcomes[answer["ticket"]] = answer
    assert process.wait(timeout=60) == 0
    assert {ticket: outcome["value"] for ticket, outcome in outcomes.items()} == {x: {"y": x * x} for x in range(6)}
    assert {outcome["status"] for outcome in outcomes.values()} == {"done"}


@pytest.mark.chaos
def test_the_loss_of_the_head_is_one_line_before_ray_ends_the_process(own_machines):
    process = own_machines["search"].start(str(ROOT / "docker" / "join-cluster"), *search(jobs=400, seconds=1.0))
    for line in process.stdout:
        if "ticket" in json.loads(line):
            own_machines["head"].pull_the_plug()
            break
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "the head of the Ray cluster at 10.77.0.1:6379 has not answered for 45 s" in output.splitlines()[-1]


@pytest.mark.chaos
def test_a_tuning_runs_on_all_nodes_and_survives_the_loss_of_one(own_machines, tmp_path):
    """Nodes share no folder with the machine that tunes: its temporary files are its own."""
    cohort, out = write_balls(tmp_path / "balls"), tmp_path / "tuned"
    machine = own_machines["search"]
    process = machine.start(
        str(ROOT / "docker" / "join-cluster"), sys.executable, "-m", "lossevo", "tune", "dice,tversky",
        *("--data", str(cohort), "--out", str(out), "--address", ADDRESS, "--steps", "12"),
        *("--trials", "16", "--window", "8", "--finalists", "1", "--seeds", "1"),
        TMPDIR=machine.environment["RAY_TMPDIR"],
    )  # fmt: skip

    def outcomes() -> list[Outcome]:
        with Ledger(out / "ledger.sqlite", read_only=True) as ledger:
            return [record.outcome for record in ledger.records() if record.outcome]

    def hosts() -> set[str]:
        return {outcome.worker.rsplit(":", 1)[0] for outcome in outcomes()}

    told = []
    for line in process.stdout:
        told.append(line)
        if ": dice " in line and len(hosts()) == 2:
            own_machines["worker1"].pull_the_plug()
            break
    rest, _ = process.communicate(timeout=300)
    assert process.returncode == 0, "".join(told) + rest
    assert {outcome.status for outcome in outcomes()} == {Status.DONE}
    assert hosts() == {"10.77.0.11", "10.77.0.12"}
    assert all((out / name).is_file() for name in ("dice.yaml", "tversky.yaml", "table.md"))


def test_a_cluster_of_another_ray_is_an_error_that_names_both_versions(machines):
    import ray

    # It pretends to be of another version until it is told to go on; ray.init would not join it to undo that.
    forge = (
        "import json, ray; from ray.experimental.internal_kv import _internal_kv_get as get, _internal_kv_put as put;"
        f"ray.init(address={ADDRESS!r}, log_to_driver=False, logging_level='ERROR');"
        "key, space = b'CLUSTER_METADATA', b'cluster'; true = get(key, namespace=space);"
        "forged = json.dumps(json.loads(true) | {'ray_version': '2.0.0'}).encode();"
        "put(key, forged, overwrite=True, namespace=space);"
        "print('forged', flush=True); input();"
        "put(key, true, overwrite=True, namespace=space)"
    )
    forger = machines["head"].start(sys.executable, "-c", forge, stdin=subprocess.PIPE)
    try:
        assert forger.stdout.readline() == "forged\n"
        message = error_of(machines["head"].start(*search()))
    finally:
        output, _ = forger.communicate("\n", timeout=60)
        assert forger.returncode == 0, output
    assert message.startswith(f"the Ray cluster at {ADDRESS} and this machine must run the same Ray and Python.")
    assert "Ray: 2.0.0" in message
    assert f"Ray: {ray.__version__}" in message


def test_jobs_run_on_all_nodes_and_survive_the_loss_of_one_and_the_cluster_goes_on(machines):
    """The last one, since it takes a machine away."""
    process = machines["search"].start(str(ROOT / "docker" / "join-cluster"), *search(jobs=12, seconds=1.5))
    workers: set[str] = set()
    outcomes: dict[int, dict] = {}
    lost = ""
    for line in process.stdout:
        answer = json.loads(line)  # nothing else is printed, also when a node dies
        if "workers" in answer:
            assert answer == {"workers": 2}
            continue
        outcomes[answer["ticket"]] = answer
        host = answer["worker"].rsplit(":", 1)[0]
        assert host != lost
        workers.add(host)
        if not lost and len(workers) == 2:
            assert workers == {"10.77.0.11", "10.77.0.12"}
            time.sleep(0.3)  # so that it is at its next job
            machines[{"10.77.0.11": "worker1", "10.77.0.12": "worker2"}[host]].pull_the_plug()
            lost = host
    assert process.wait(timeout=60) == 0
    assert {ticket: outcome["value"] for ticket, outcome in outcomes.items()} == {x: {"y": x * x} for x in range(12)}
    assert {outcome["status"] for outcome in outcomes.values()} == {"done"}
    assert sum(outcome["attempts"] > 1 for outcome in outcomes.values()) == 1

    # CPUs of the search that has ended are free again.
    process = machines["head"].start(*search(jobs=2))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    first, *rest = map(json.loads, output.splitlines())
    assert first["workers"] in (1, 2)  # Ray takes half a minute to be sure that a node is gone
    assert [outcome["status"] for outcome in rest] == ["done", "done"]
