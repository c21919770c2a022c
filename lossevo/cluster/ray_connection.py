"""Connecting this process to Ray: to a Ray of its own on this machine, or to a running cluster.

Authentication. Ray listens on all network interfaces, also when it is started for one program on one machine, and
whoever can talk to it can run code. So a Ray of our own asks for a token: random, made anew for each process, handed
over in ``RAY_AUTH_TOKEN``. Left to itself Ray would write one to ``~/.ray/auth_token`` and leave it there. From 2.59 on
Ray switches token mode on by itself when ``RAY_AUTH_MODE`` is unset; setting that variable here would come too late,
since Ray reads it when it is first imported. A mode or token that the user has set is left alone.

Files. Ray keeps sockets, logs and objects in a folder that every user of the machine can read. A Ray of our own gets a
private one, which is removed when it ends.

Signals. Ray answers ``SIGTERM`` by printing addresses and ending the process. If the program has a handler of its own,
it stays.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lossevo.cpus import usable_cpus
from lossevo.errors import LossevoError

# Ray reads the next two when it is first imported. Under `uv run` it would upload the current folder to every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# Whoever gives a token wants it used; Ray up to 2.60 ignores it for an explicit address unless the mode is set as well.
if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
    os.environ.setdefault("RAY_AUTH_MODE", "token")
# Ray ends a process that has not reached the head for a minute. We want to stop before, with a word to the user.
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "300")

import ray

__all__ = ["RayConnection", "ray"]  # Ray is imported from here, so that it sees the environment set above

REACH_TIMEOUT_S: Final = 5.0
# A socket's path may have 107 characters. Ray needs about 65 of them below its folder, and the folder's name 19.
_LONGEST_TEMPORARY: Final = 22
PROBE_TIMEOUT_S: Final = 40.0

# How many seconds Ray goes on asking a head that refuses it, and looking for a node on this machine; else 20 and 60.
_IMPATIENT: Final = {"RAY_gcs_server_port_wait_time_s": "3", "RAY_gcs_server_request_timeout_seconds": "5"}

_AUTHENTICATION: Final = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class RayConnection:
    """The connection of this process to Ray. If there is one already it is used, and left open by :meth:`close`.

    Args:
        address: ``HOST:PORT``, ``"auto"``, or ``None`` for a Ray of our own.
        cpus: How many CPUs a Ray of our own offers; ``None`` for those that this process may use.

    Raises:
        LossevoError: No connection; the message says why, and what to do.
    """

    def __init__(self, address: str | None, *, cpus: int | None = None) -> None:
        self._environment = {name: os.environ.get(name) for name in _AUTHENTICATION}
        self._owned = not ray.is_initialized()
        self._folder: Path | None = None
        if not self._owned:
            self._check_same(address)
            return
        try:
            with _own_sigterm():
                if address is None:
                    self._folder = _private_folder()
                    # Ray opens its folder to everybody, so it is one inside.
                    _start(cpus or usable_cpus(), self._folder / "r")
                else:
                    _join(address)
            _set_driver_messages(False)
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """``HOST:PORT`` of the cluster's head."""
        return str(ray.get_runtime_context().gcs_address)

    def close(self) -> None:
        """Disconnect; a Ray of our own ends, a cluster goes on. Idempotent."""
        if not self._owned:
            return
        self._owned = False
        try:
            with _own_sigterm():
                ray.shutdown()
        finally:
            _set_driver_messages(True)
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            for name, value in self._environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def _check_same(self, address: str | None) -> None:
        if address not in (None, "auto", self.address):
            raise LossevoError(
                f"this process is connected to the Ray cluster at {self.address} already and cannot also use {address}"
            )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep a handler of ``SIGTERM`` that the program has set.

    Ray's Python replaces it by one that ends the process while Ray starts. Ray's C++ puts one before it that prints
    addresses, and takes both away when Ray ends, so that the signal would end the process; Python does not notice.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler in (None, signal.SIG_DFL) or threading.current_thread() is not threading.main_thread():
        yield
        return
    utilities = ray._private.utils
    theirs = utilities.set_sigterm_handler
    utilities.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utilities.set_sigterm_handler = theirs
        signal.signal(signal.SIGTERM, handler)


def _private_folder() -> Path:
    """A new folder that only this user can read, where a Ray of our own can put its sockets.

    Raises:
        LossevoError: there is none: no folder for temporary files can be used, or their paths are too long.
    """
    wanted = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    problems = []
    for parent in dict.fromkeys([*filter(None, wanted), "/tmp", "/var/tmp"]):
        if len(os.fsencode(parent)) > _LONGEST_TEMPORARY:
            problems.append(f"{parent}: its path has more than {_LONGEST_TEMPORARY} characters")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="lossevo-", dir=parent))
        except OSError as error:
            problems.append(f"{parent}: {error.strerror or error}")
    raise LossevoError(
        f"Ray needs a folder for temporary files, and none can be used ({'; '.join(problems)}); set TMPDIR to a folder "
        "with a short path in which you may write"
    )


def _start(cpus: int, folder: Path) -> None:
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    if mode == "token" and not (os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")):
        os.environ["RAY_AUTH_TOKEN"] = _local_token()
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            _temp_dir=str(folder),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise LossevoError(f"Ray could not be started on this machine: {_one_line(error)}") from error


@functools.cache
def _local_token() -> str:
    # Once per process: Ray keeps the first token it has read until the process ends.
    return secrets.token_hex(32)


def _join(address: str) -> None:
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if address != "auto":
        _check_reachable(address)
    _check_usable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise LossevoError(f"cannot connect to the Ray cluster at {address}: {_one_line(error)}") from error


def _check_reachable(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal() and host) or "/" in host:
        raise LossevoError(f"address {address!r}: expected HOST:PORT of the cluster's head, as in head:6379, or 'auto'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise LossevoError(
            f"cannot reach a Ray cluster at {address}: {error}. Does its head run (`ray start --head --port {port}`), "
            "and does the network let this machine through?"
        ) from error


def _check_usable(address: str) -> None:
    """Try the cluster in a child process first: see :mod:`lossevo.cluster.ray_probe`."""
    script = Path(__file__).with_name("ray_probe.py")
    try:
        child = subprocess.run(
            [sys.executable, "-P", str(script), address],
            env=_IMPATIENT | os.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LossevoError(_not_a_head(address)) from None
    if "Failed to connect to socket" in child.stderr:  # of a node that runs on another machine; this aborts the process
        raise LossevoError(_no_node(address))
    if child.returncode != 0:
        raise LossevoError(f"cannot connect to the Ray cluster at {address}: {_one_line(child.stderr)}")
    answer: dict[str, str] = json.loads(child.stdout.splitlines()[-1])
    match answer["problem"]:
        case "":
            return
        case "authentication":
            raise LossevoError(
                f"the Ray cluster at {address} asks for a token, and got none or a wrong one. Set RAY_AUTH_MODE=token, "
                "and the cluster's token in RAY_AUTH_TOKEN or the path of its file in RAY_AUTH_TOKEN_PATH"
            )
        case "version":
            raise LossevoError(
                f"the Ray cluster at {address} and this machine must run the same Ray and Python. "
                f"{_one_line(answer['message'])}"
            )
        case "node":
            raise LossevoError(_no_node(address))
        case _ if address == "auto":
            raise LossevoError(
                "this machine is part of no Ray cluster: start one with `ray start --head`, join one with "
                "`ray start --address HOST:PORT`, or leave --address out"
            )
        case _:
            raise LossevoError(_not_a_head(address))


def _no_node(address: str) -> str:
    return (
        f"this machine runs no node of the Ray cluster at {address}. Let it join first, lending no CPU: "
        f"`ray start --address {address} --num-cpus 0`"
    )


def _not_a_head(address: str) -> str:
    return (
        f"what listens at {address} does not answer as the head of a Ray cluster. Expected is the port that "
        "`ray start --head --port` was given, 6379 by default; not 8265 (dashboard) or 10001 (Ray Client)"
    )


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:500]


def _set_driver_messages(enabled: bool) -> None:
    # Ray prints a paragraph on standard output when a worker dies, log_to_driver or not. Here that is an outcome.
    ray._private.worker._worker_logs_enabled = enabled
