"""Searches that are stopped, started at once, or short of room: nothing is lost, and nobody else's is changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lossevo.experiment import Subjects
from lossevo.experiment.ledger import Ledger


def requests(run: Path) -> list:
    with Ledger(run / "ledger.sqlite", read_only=True) as ledger:
        return [record.trial for record in ledger.records()]


@pytest.fixture
def arguments(space_file, cohort) -> tuple[str, ...]:
    return "search", str(space_file), "--data", str(cohort), "--steps", "2", "--seed", "3"


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "where"),
        [
            (signal.SIGTERM, ["--workers", "1"]),
            (signal.SIGHUP, ["--in-process"]),
            pytest.param(signal.SIGTERM, ["--in-process"], marks=pytest.mark.chaos),
            pytest.param(signal.SIGHUP, ["--workers", "1"], marks=pytest.mark.chaos),
        ],
    )
    def test_they_stop_it_as_ctrl_c_does(self, start, arguments, tmp_path, number, where):
        """SIGTERM is what SLURM, Kubernetes and docker stop send, to this process or to all."""
        run = tmp_path / "run"
        program = start(*arguments, "--run", run, *where)
        program.lines_until(" dice ", times=3)
        if where == ["--in-process"]:
            program.signal(number)  # to all
        else:
            program.process.send_signal(number)
        out = program.rest()
        assert program.process.returncode == 130
        assert out.splitlines()[-1] == (
            f"Interrupted; every finished training is kept. Go on with:  lossevo search --resume {run}"
        )
        assert program.errors() == ""
        assert program.descendants_after(60) == []
        assert len(requests(run)) >= 3

    def test_they_stop_it_while_ray_starts(self, start, arguments, tmp_path):
        """Ray has a handler of its own for SIGTERM, which would end the process without a word."""
        run = tmp_path / "run"
        program = start(*arguments, "--run", run, "--workers", 1)
        program.lines_until("evolution: ")
        while not any("gcs_server" in _command(pid) for pid in program.descendants()):
            assert program.process.poll() is None, program.errors()
        program.process.send_signal(signal.SIGTERM)
        out = program.rest()
        assert (program.process.returncode, program.errors()) == (130, "")
        assert out.splitlines()[-1].endswith(f"Go on with:  lossevo search --resume {run}")
        assert program.descendants_after(60) == []

    def test_one_that_python_drops_comes_again(self, tmp_path):
        """What is raised in a destructor or a callback is lost, and some stop a process only once."""
        script = (
            "import os, signal, sys, time\n"
            "from lossevo.cli import app\n"
            "class Dropping:\n"
            "    def __del__(self):\n"
            "        os.kill(os.getpid(), signal.SIGTERM)\n"
            "        time.sleep(0.1)\n"
            "def command():\n"
            "    try:\n"
            "        Dropping()\n"
            "        time.sleep(60)\n"
            "    except KeyboardInterrupt:\n"
            "        raise SystemExit(130)\n"
            "app.app = command\n"
            "app.main()\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
        assert (done.returncode, done.stderr) == (130, "")

    def test_nohup_stays_in_force(self, start, arguments, tmp_path):
        with_nohup = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which a new process inherits
        try:
            program = start(*arguments, "--budget", "16", "--run", tmp_path / "run", "--in-process")
        finally:
            signal.signal(signal.SIGHUP, with_nohup)
        program.lines_until(" dice ", times=3)
        program.process.send_signal(signal.SIGHUP)
        program.rest()
        assert program.process.returncode == 0

    @pytest.mark.chaos
    def test_ctrl_z_for_longer_than_a_training_may_take_changes_nothing(self, start, arguments, finished, tmp_path):
        task = tmp_path / "task.yaml"
        task.write_text("step_limit_s: 0.001\n")  # and two minutes
        run = tmp_path / "run"
        program = start(*arguments, "--task", task, "--run", run, "--workers", 2)
        program.lines_until(" dice ", times=5)
        program.signal(signal.SIGSTOP)
        subprocess.run(["sleep", "130"], check=True)
        program.signal(signal.SIGCONT)
        program.rest()
        assert program.process.returncode == 0
        for name in ("hall_of_fame.json", "subjects.json"):
            assert (run / name).read_bytes() == (finished.folder / name).read_bytes(), name


class TestAtOnce:
    def test_searches_without_a_name_get_folders_of_their_own(self, start, space_file, cohort, tmp_path):
        """As of a SLURM array."""
        given = "search", space_file, "--data", cohort, "--steps", "1", "--in-process"
        programs = {seed: start(*given, "--seed", seed) for seed in (3, 4)}
        for program in programs.values():
            program.lines_until(" dice ", times=3)
        runs = {json.loads((run / "run.json").read_text())["seed"]: run for run in (tmp_path / "runs").iterdir()}
        assert runs.keys() == {3, 4}
        for run in runs.values():
            subjects = Subjects.read(run)
            for request in requests(run):
                assert (request["split"]["train"], request["split"]["validate"]) == (
                    [*subjects.train],
                    [*subjects.validation],
                )

    @pytest.mark.parametrize("command", ["search", "evaluate"])
    def test_of_those_with_one_name_one_runs_and_is_not_disturbed(self, start, space_file, cohort, tmp_path, command):
        given = {
            "search": ("search", space_file, "--budget", "16", "--run", "same"),
            "evaluate": ("evaluate", "--losses", "dice,cross_entropy", "--out", "same"),
        }[command]
        programs = {
            seed: start(*given, "--data", cohort, "--steps", "1", "--in-process", "--seed", seed) for seed in (3, 4)
        }
        for program in programs.values():
            program.rest()
        (winner,) = (seed for seed, program in programs.items() if not program.process.returncode)
        for seed, program in programs.items():
            if seed != winner:
                assert program.process.returncode == 2
                assert "same: another process works in" in program.errors() or "exists already" in program.errors()
        document = "run.json" if command == "search" else "comparison.json"
        assert json.loads((tmp_path / "same" / document).read_text())["seed"] == winner


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a file system of its own needs root on Linux")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not allow to mount")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_leaves_nothing_and_the_same_command_works_when_there_is_room(cli, arguments, small_disk):
    filler = small_disk / "filler"
    with suppress(OSError):  # until there is no room
        filler.write_bytes(b"0" * 2**20)
    arguments = (*arguments, "--budget", 16, "--run", small_disk / "run", "--in-process")
    said = cli(*arguments)
    assert said.status == 2
    assert said.err.startswith(f"lossevo: {small_disk}/run")
    assert "No space left on device" in said.err or "disk is full" in said.err
    assert {path.name for path in small_disk.iterdir()} == {"filler"}
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert cli(*arguments).status == 0


class TestMoreOfTheSame:
    def test_a_finished_search_takes_more_budget(self, cli, arguments, tmp_path):
        run = tmp_path / "run"
        assert cli(*arguments, "--budget", 20, "--run", run, "--in-process").status == 0
        before = requests(run)
        said = cli("search", "--resume", run, "--budget", 30, "--in-process")
        assert said.status == 0
        assert sum(map(int, re.findall(r"(\d+) trainings taken from the ledger", said.out))) == 20
        assert requests(run)[:20] == before
        assert len(requests(run)) > 20
        less = cli("search", "--resume", run, "--budget", 26, "--in-process")
        assert (less.status, less.err) == (
            2,
            f"lossevo: --budget is 26, but {run} was begun with 30 trainings; give at least as many\n",
        )

    @pytest.mark.parametrize("command", ["search", "evaluate", "metalearn", "tune"])
    def test_retrying_needs_something_to_go_on_with(self, cli, command):
        said = cli(command, "--retry-failed")
        assert (said.status, said.err) == (
            2,
            "lossevo: --retry-failed goes on with a folder; name it with --resume\n",
        )

    @pytest.mark.parametrize("command", ["search", "evaluate", "metalearn"])
    def test_nothing_changes_in_a_folder_that_is_no_such_folder(self, cli, command, cohort):
        before = sorted(cohort.iterdir())
        assert cli(command, "--resume", cohort, "--retry-failed", "--in-process").status == 2
        assert sorted(cohort.iterdir()) == before

    def test_what_failed_is_done_again(self, cli, finished, tmp_path):
        run = Path(shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns(".lock")))
        with Ledger(run / "ledger.sqlite") as ledger, ledger._transaction() as connection:
            connection.execute("UPDATE trials SET status = 'timeout', measurement = NULL WHERE ticket IN (3, 4)")
        said = cli("search", "--resume", run, "--retry-failed", "--in-process")
        assert said.status == 0
        assert "2 failed trainings are done again." in said.out
        assert (run / "hall_of_fame.json").read_bytes() == (finished.folder / "hall_of_fame.json").read_bytes()
