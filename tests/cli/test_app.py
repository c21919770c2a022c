"""The command line as a whole: help, version, exit statuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lossevo
from lossevo.errors import LossevoError

COMMANDS = ("search", "hof", "export", "evaluate", "losses", "analyze", "data")
HEAVY = ("torch", "ray", "monai", "numpy", "scipy", "pandas", "deap", "cma", "sympy", "nibabel", "matplotlib", "jinja2")


def test_help_imports_nothing_heavy():
    """It is asked for often, and importing PyTorch takes seconds."""
    program = (
        "import sys\n"
        "from lossevo.cli.app import main\n"
        "for arguments in (['--help'], *([command, '--help'] for command in sys.argv[1].split()), ['--version']):\n"
        "    sys.argv = ['lossevo', *arguments]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        f"print('heavy:', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(lossevo.__file__).parents[1])}
    out = subprocess.run(
        [sys.executable, "-c", program, " ".join(COMMANDS)], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert out.endswith("heavy: []\n")
    assert f"lossevo {lossevo.__version__}" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(cli, command):
    said = cli(command, "--help")
    assert (said.status, said.err) == (0, "")
    examples = said.out[said.out.index("Examples:") : said.out.index("Options:")]
    assert re.search(rf"\n +lossevo {command}\b", examples)


def test_every_command_is_listed(cli):
    said = cli("--help")
    assert said.status == 0
    for command in COMMANDS:
        assert re.search(rf"\n  {command} +\S", said.out)
    assert "Start with 'lossevo search'" in said.out


def test_every_search_space_is_listed(cli):
    from lossevo.search import available

    said = cli("search", "--help").out
    assert len(available()) >= 7
    assert all(re.search(rf"\b{space}\b", said) for space in available())


@pytest.mark.parametrize("arguments", [[], ["hof"], ["export"], ["evaluate"], ["analyze"], ["data"]])
def test_without_arguments_there_is_help(cli, arguments):
    said = cli(*arguments)
    assert said.status in (0, 2)
    assert "Usage:" in said.out + said.err
    assert "Options:" in said.out + said.err


def test_an_unknown_command_gives_the_nearest(cli):
    said = cli("serch")
    assert said.status == 2
    assert re.search("No such command 'serch'.*search", said.err)


def test_a_mistake_is_one_line_however_it_was_written(cli, monkeypatch):
    def fail(folder):
        raise LossevoError("first\nsecond")

    monkeypatch.setattr("lossevo.experiment.hall_of_fame.read", fail)
    assert cli("hof", "x").err == "lossevo: first second\n"


def test_a_bug_is_no_mistake_of_the_user(cli, monkeypatch):
    monkeypatch.setattr("lossevo.experiment.hall_of_fame.read", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("hof", "x")


def test_whoever_reads_the_output_may_leave(cohort):
    """As in ``lossevo data check COHORT --json | head -1``."""
    environment = {**os.environ, "PYTHONPATH": str(Path(lossevo.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "lossevo", "data", "check", str(cohort), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    errors = process.stderr.read()
    process.wait()
    assert errors == b""


def test_python_m_lossevo_is_the_same_command():
    environment = {**os.environ, "PYTHONPATH": str(Path(lossevo.__file__).parents[1])}
    out = subprocess.check_output([sys.executable, "-m", "lossevo", "--version"], env=environment, text=True)
    assert out == f"lossevo {lossevo.__version__}\n"
