"""``lossevo search`` as its users run it: in processes of its own that train for real, if only for two steps."""

from __future__ import annotations

import csv
import json
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from lossevo.data import SEPARATE, LabelScheme
from lossevo.experiment import Entry
from lossevo.experiment.ledger import Ledger
from lossevo.experiment.origin import Evolved, HandCrafted, Origin
from lossevo.expression import Expression
from lossevo.losses import expression_of

ESCAPE = "\x1b"
REQUIRED = {"rank", "id", "formula", "score", "score_se", "seeds", "steps", "complexity", "origin"}


def outcomes(folder: Path) -> int:
    with Ledger(folder / "ledger.sqlite", read_only=True) as ledger:
        return sum(record.outcome is not None for record in ledger.records())


class TestTerminal:
    def test_it_shows_a_live_view(self, finished):
        assert f"{ESCAPE}[" in finished.seen
        for shown in ("trainings/h", "candidates seen", "hand-crafted", "ETA", "evolution", "of 30"):
            assert shown in finished.seen

    def test_it_ends_with_the_hall_of_fame_and_the_next_commands(self, finished):
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", finished.seen)
        *_, ending = re.split(r"\brank +id\b", plain)  # the table's head
        entries = json.loads((finished.folder / "hall_of_fame.json").read_text(encoding="utf-8"))
        assert all(entry["id"] in ending for entry in entries[:10])
        for command in ("hof run --show 1", "export run 1 --out", "evaluate --data"):
            assert f"lossevo {command}" in ending


class TestInterruptions:
    @pytest.mark.chaos
    def test_ctrl_c_and_kill_9_cost_nothing(self, finished, start, cli, tmp_path):
        """Interrupted with two workers, resumed with two workers, killed, resumed with one: as if nothing had been."""
        run = tmp_path / "run"

        first = start(*finished.arguments, "--run", run, "--workers", 2)
        first.lines_until(" dice ", times=5)
        first.signal(signal.SIGSTOP)  # else it may end by itself before it is interrupted
        assert cli("hof", run).status == 0, "a running search can be looked at"
        second = cli("search", "--resume", run, "--in-process")
        assert (second.status, second.err) == (
            2,
            f"lossevo: {run}: another process works in this folder; wait for it or stop it\n",
        )
        first.signal(signal.SIGINT)  # which it hears when it goes on
        first.signal(signal.SIGCONT)
        out = first.rest()
        assert first.process.returncode == 130
        assert out.splitlines()[-1] == (
            f"Interrupted; every finished training is kept. Go on with:  lossevo search --resume {run}"
        )
        assert first.errors() == ""
        assert first.descendants_after(60) == []
        kept = outcomes(run)
        assert kept >= 5

        second = start("search", "--resume", run, "--workers", 2)
        resumed = "".join(second.lines_until(" dice ", times=6))
        assert re.search(r"\d+ trainings taken from the ledger", resumed)
        second.signal(signal.SIGKILL)
        second.process.wait()
        second.end()
        assert kept < outcomes(run) < 30
        kept = outcomes(run)

        third = start("search", "--resume", run, "--in-process")
        out = third.rest()
        assert third.process.returncode == 0
        assert third.errors() == ""
        assert outcomes(run) == outcomes(finished.folder)
        for name in ("hall_of_fame.json", "hall_of_fame.csv", "run.json", "subjects.json"):
            assert (run / name).read_bytes() == (finished.folder / name).read_bytes(), name
        self.check_log(out)
        self.check_work_was_not_done_again(out, kept, outcomes(run))

    @staticmethod
    def check_log(out: str) -> None:
        """Where no terminal is, one line an event and nothing that only a terminal understands."""
        assert ESCAPE not in out
        assert "\r" not in out
        events = out[: out.index(" rank ")].splitlines()[4:-3]
        assert len(events) > 5
        for event in events:
            assert re.match(r"\d\d:\d\d:\d\d \S", event), event
        trainings = [event for event in events if " dice " in event]
        for line in trainings:
            assert re.search(
                r"\[(evolution|confirmation) \d+/30\] [0-9a-f]{8} dice 0\.\d{4}  .+ \| best 0\.\d{4}, "
                r"hand-crafted 0\.\d{4} \| \d+ candidates seen, .+ \| \d+ trainings/h, 1 worker \d+% busy, ETA ",
                line,
            ), line

    @staticmethod
    def check_work_was_not_done_again(out: str, kept: int, done: int) -> None:
        assert sum(map(int, re.findall(r"(\d+) trainings taken from the ledger", out))) == kept
        assert re.search(rf"{done} trainings; 30 of 30 in the budget: \d+ trainings/h", out)


class TestResult:
    def test_every_training_is_on_record(self, finished):
        assert outcomes(finished.folder) == 30

    def test_files(self, finished):
        names = {path.name for path in finished.folder.iterdir()}
        assert names >= {"hall_of_fame.csv", "hall_of_fame.json", "ledger.sqlite", "run.json", "subjects.json"}
        assert not [name for name in names if name.endswith(".part")]
        documents = json.loads((finished.folder / "hall_of_fame.json").read_text(encoding="utf-8"))
        with (finished.folder / "hall_of_fame.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["id"] for row in rows] == [document["id"] for document in documents]
        assert all(document.keys() >= REQUIRED for document in documents)
        assert all(row.keys() >= REQUIRED for row in rows)

    def test_a_finished_search_only_shows_its_result_again(self, finished, cli):
        files = [finished.folder / name for name in ("hall_of_fame.csv", "hall_of_fame.json", "run.json")]
        before = [file.read_bytes() for file in files]
        said = cli("search", "--resume", finished.folder, "--in-process")
        assert (said.status, said.err) == (0, "")
        assert sum(map(int, re.findall(r"(\d+) trainings taken from the ledger", said.out))) == outcomes(
            finished.folder
        )
        assert "trainings/h" not in said.out
        assert "lossevo export" in said.out
        assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("arguments", [["--window", "3"], []])
def test_the_command_line_decides_what_the_run_records(cli, space_file, cohort, arguments, monkeypatch, tmp_path):
    from lossevo.search import Run, read_config

    monkeypatch.setattr(Run, "search", lambda *given, **named: [])
    said = cli("search", space_file, "--data", cohort, "--budget", 40, "--steps", 7, "--seed", 5,
               "--labels", "separate", "--spacing", 5, 4, 4, *arguments)  # fmt: skip
    assert (said.status, said.err) == (0, "")
    config = read_config(Path("runs/tiny-balls-1"))
    assert config.space.budget.trainings == 40
    assert config.space.budget.window == (3 if arguments else 4)
    assert (config.task.budget_steps, config.seed, config.labels) == (7, 5, SEPARATE)
    assert config.spacing_mm == (5, 4, 4)
    assert config.cohort.path == cohort.resolve()
    assert "runs/tiny-balls-1" in said.out
    assert cli("search", space_file, "--data", cohort, "--steps", 7).status == 0
    assert Path("runs/tiny-balls-2").is_dir()


def test_the_format_and_the_content_of_a_label_file_are_recorded(cli, space_file, cohort, monkeypatch, tmp_path):
    from lossevo.search import Run, read_config

    monkeypatch.setattr(Run, "search", lambda *given, **named: [])
    file = tmp_path / "labels.yaml"
    file.write_text("classes: {ball: [vertebra]}\n")
    said = cli("search", space_file, "--data", cohort, "--format", "nnunet", "--labels", file)
    assert (said.status, said.err) == (0, "")
    assert "ball against background" in said.out
    assert "--format nnunet" in said.out
    file.unlink()
    config = read_config(Path("runs/tiny-balls-1"))
    assert config.cohort.format == "nnunet"
    assert config.labels == LabelScheme(classes={"ball": ["vertebra"]})
    assert Run.open(Path("runs/tiny-balls-1")).data.class_names == ("background", "ball")


def test_a_task_file_decides_the_training_and_steps_come_on_top(cli, space_file, cohort, monkeypatch, tmp_path):
    from lossevo.search import Run, read_config

    monkeypatch.setattr(Run, "search", lambda *given, **named: [])
    (tmp_path / "task.yaml").write_text("channels: [2, 4]\nstrides: [2]\nbudget_steps: 9\n")
    for number, (arguments, steps) in enumerate([((), 9), (("--steps", 7), 7)], start=1):
        said = cli("search", space_file, "--data", cohort, "--task", tmp_path / "task.yaml", *arguments)
        assert (said.status, said.err) == (0, "")
        task = read_config(Path(f"runs/tiny-balls-{number}")).task
        assert (task.channels, task.strides, task.budget_steps) == ((2, 4), (2,), steps)


def test_without_data_it_says_that_it_uses_the_phantom(cli, monkeypatch, space_file):
    from lossevo.experiment import CohortSource
    from lossevo.search import Run, read_config

    monkeypatch.setattr(Run, "search", lambda *given, **named: [])
    monkeypatch.setattr(CohortSource, "open", few_phantoms)
    for space, name, trainings in (("segmentation", "segmentation", 96), (space_file, "tiny", 30)):
        said = cli("search", space)
        assert (said.status, said.err) == (0, "")
        assert "using the embedded phantom" in said.out
        config = read_config(Path(f"runs/{name}-phantom-1"))
        assert config.cohort == CohortSource()
        assert config.space.budget.trainings == trainings, "a file states its budget itself"


def few_phantoms(source, spacing, labels):
    from lossevo.data import phantom_cohort, relabel

    return relabel(phantom_cohort(cases=5, seed=0, spacing_mm=spacing), labels)


class TestNext:
    """What is proposed in the end."""

    @staticmethod
    def entry(place: int, formula: str, origin: Origin) -> Entry:
        expression = Expression.parse(formula)
        return Entry(place, expression.hash[:8], formula, formula, "dice", 0.9 - place / 10, None, 1, 75, 1.0, origin,
                     True, 0.9, {"expression": expression.to_json()})  # fmt: skip

    @pytest.fixture
    def proposed(self, cli, space_file, cohort, monkeypatch):
        from lossevo.search import Run

        def told(*entries: Entry) -> str:
            monkeypatch.setattr(Run, "search", lambda *given, **named: list(entries))
            said = cli("search", space_file, "--data", cohort, "--run", "run")
            assert (said.status, said.err) == (0, "")
            return said.out

        return told

    def test_an_evolved_loss_that_leads(self, proposed):
        out = proposed(self.entry(1, "class_mean(mean(y / p))", Evolved("crossover", ("a", "b"))))
        assert "--losses cross_entropy,dice,dice_ce,focal,tversky --hof run:1 --out run-comparison" in out
        assert "hand-crafted loss leads" not in out

    def test_the_best_evolved_loss_where_a_hand_crafted_one_leads(self, proposed):
        focal = self.entry(1, str(expression_of("dice_focal")), HandCrafted("dice_focal"))
        out = proposed(focal, self.entry(2, "class_mean(mean(y / p))", Evolved("crossover", ("a", "b"))))
        assert "A hand-crafted loss leads, dice_focal; the best evolved one has rank 2." in out
        assert "--losses cross_entropy,dice,dice_ce,focal,tversky --hof run:2 --hof run:1 --out" in out

    def test_the_leader_is_compared_as_it_was_trained(self, proposed):
        """Generalised Dice over the batch, which the catalogue's is not by default; the catalogue's Dice+CE is."""
        evolved = self.entry(2, "class_mean(mean(y / p))", Evolved("crossover", ("a", "b")))
        other = self.entry(1, str(expression_of("generalized_dice")), HandCrafted("generalized_dice"))
        assert "--losses cross_entropy,dice,dice_ce,focal,tversky --hof run:2 --hof run:1 " in proposed(other, evolved)

    def test_nothing_twice(self, proposed):
        found = self.entry(1, f"{expression_of('dice_ce')}", Evolved("crossover", ("a", "b")))
        assert "--losses cross_entropy,dice,focal,tversky --hof run:1 " in proposed(found)

    def test_a_leader_that_the_catalogue_has_is_named_once(self, proposed):
        leader = self.entry(1, str(expression_of("dice_ce")), HandCrafted("dice_ce"))
        out = proposed(leader, self.entry(2, "class_mean(mean(y / p))", Evolved("crossover", ("a", "b"))))
        assert "--losses cross_entropy,dice,focal,tversky --hof run:2 --hof run:1 " in out


@pytest.mark.parametrize(
    ("workers", "hint"), [(6, "; give a new run --window 24."), (2000, "--window 4096."), (4, None)]
)
def test_workers_that_stay_idle(cli, space_file, cohort, monkeypatch, workers, hint):
    from lossevo.search import Run

    def search(run, executor, **named):
        executor(None)
        return []

    monkeypatch.setattr(Run, "search", search)
    monkeypatch.setattr("lossevo.cluster.open_executor", lambda spec, **named: SimpleNamespace(workers=workers))
    said = cli("search", space_file, "--data", cohort)
    assert said.status == 0
    assert hint in said.err if hint else said.err == ""


def test_an_audit_says_how_many_rejected_candidates_would_have_been_good(cli, space_file, cohort, tmp_path):
    """A real search, and real trainings of what its screening rejected."""
    run = tmp_path / "run"
    asked = ("search", space_file, "--data", cohort, "--in-process", "--budget", "14", "--steps", "1", "--run", run)
    said = cli(*asked, "--audit-screening", "2")
    assert said.status == 0, said.err
    told = " ".join(said.out.split())
    assert "Of 2 candidates that the screening had rejected, trained for 1 steps, " in told
    assert " would have been in the better half of the search's (dice beyond " in told
    again = cli("search", "--resume", run, "--in-process")
    assert "Of 2 candidates that the screening had rejected" in " ".join(again.out.split())
