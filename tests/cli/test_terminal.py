"""Names that would control a terminal, look like markup, or cannot be written: shown as they are, or refused."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from lossevo.cli.tables import Screen, rows_table
from lossevo.cli.terminal import guarded, note, one_line, print_json, printable

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31m \u202egnp.\u202c \x9b5m \x7f \ufeff"
MARKUP = "[red]x[/] [/] [bold :warning: [link=http://x]y[/link] \\["
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> bool:
    """Whether there is nothing in it but what rich itself sends: colours, and the cursor of a live line."""
    ours = re.sub(r"\x1b\[[0-9;?]*[mKAhlG]|\r", "", text)
    return not UNSAFE.search(ours)


class TestText:
    def test_what_is_escaped(self):
        assert printable("a\tb\nc ψ±×³ 左 é") == "a\tb\nc ψ±×³ 左 é"
        assert printable("\x1b[31m\x9b\x07\r") == "\\x1b[31m\\x9b\\x07\\x0d"
        assert printable("\u202e\U000e0041") == "\\u202e\\U000e0041"
        assert printable(os.fsdecode(b"a\xff")) == "a\\xff"
        assert printable("\ud800") == "\\ud800"
        assert one_line("a\nb\r\nc\u2028d") == "a b c d"
        assert not UNSAFE.search(printable(EVIL))

    def test_json_stays_the_same_document(self, capsys):
        document = {"name": EVIL + MARKUP + os.fsdecode(b"\xff"), "ψ": [1, None]}
        print_json(document)
        out = capsys.readouterr().out
        assert harmless(out)
        assert "ψ" in out
        assert json.loads(out) == document

    def test_a_note_is_one_line(self, capsys):
        note(f"a\nb {EVIL}")
        err = capsys.readouterr().err
        assert err.startswith("Note: a b \\x1b]0;owned")
        assert (err.count("\n"), harmless(err)) == (1, True)

    def test_all_that_goes_to_standard_error(self, capsys):
        with guarded():
            print(EVIL, file=sys.stderr)
            sys.stderr.writelines([EVIL, os.fsdecode(b"\xff")])
            sys.stderr.write(warnings.formatwarning(EVIL, UserWarning, "x.py", 1, ""))
        err = capsys.readouterr().err
        assert err.count("\\x1b]0;owned") >= 3
        assert harmless(err)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", [EVIL, MARKUP, "[/]", "a[b", "x\\", ":smile:", os.fsdecode(b"\xff")])
def test_a_screen_shows_names_as_they_are(name: str, terminal: bool):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    screen = Screen(file=stream, width=200, force_terminal=terminal, color_system="standard" if terminal else None)
    screen.print(name, highlight=False)
    screen.print(Text(name, "red"))
    table = Table(title=name, caption=name)
    table.add_column(name)
    table.add_row(name)
    screen.print(table)
    screen.print(rows_table([{name: name}]))
    with screen.status(name) as status:
        status.update(f"1/2 {name}")
    stream.flush()
    shown = stream.buffer.getvalue().decode()
    assert harmless(shown)
    assert shown.count(printable(name)) >= 7


@pytest.fixture
def balls(cohort, tmp_path) -> Path:
    return Path(shutil.copytree(cohort, tmp_path / "balls"))


def rename(folder: Path, new: str) -> None:
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / part / f"ball_00{ending}").rename(folder / part / f"{new}{ending}")


class TestData:
    @pytest.mark.parametrize("name", ["[red]a[/]", "[/]", "a\u202eb\x9b31m", "=1+1", "$x$ y", "-rf"])
    def test_cases_and_classes(self, cli, balls, tmp_path, name):
        rename(balls, name.replace("/", ""))
        document = json.loads((balls / "dataset.json").read_text())
        (balls / "dataset.json").write_text(json.dumps(document | {"labels": {"background": 0, f"{name}\x1b[2J": 1}}))
        shown = printable(name)
        said = cli("data", "check", balls)
        assert said.status == 0
        assert harmless(said.out + said.err)
        assert f"{shown}\\x1b[2J" in said.out.replace("\n", "")
        assert shown.replace("/", "") in said.out
        checked = cli("data", "check", balls, "--json")
        assert harmless(checked.out)
        assert json.loads(checked.out)["classes"] == [f"{name}\x1b[2J"]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")
            pictures = cli("data", "show", balls, "--out", tmp_path / "pictures", "--cases", 2)
        assert pictures.status == 0
        converted = cli("data", "convert", balls, tmp_path / "raw")
        assert harmless(converted.out)
        assert f"{shown}\\x1b[2J" in converted.out

    def test_messages(self, cli, balls):
        document = json.loads((balls / "dataset.json").read_text())
        labels = {"background": 0, "\x1b[31mL1": [1]}
        (balls / "dataset.json").write_text(json.dumps(document | {"labels": labels}))
        said = cli("data", "check", balls)
        assert (said.status, harmless(said.err), "\\x1b[31mL1" in said.err) == (2, True, True)
        for arguments in (("data", "check", f"no{EVIL}"), ("losses", "show", EVIL), ("data", f"--x{EVIL}")):
            said = cli(*arguments)
            assert said.status == 2
            assert harmless(said.out + said.err)


class TestNamesThatAreNotUtf8:
    @pytest.fixture
    def lossevo(self, tmp_path):
        """The program itself, in a process that knows nothing of pytest's streams."""

        def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
            command = [sys.executable, "-m", "lossevo", *map(os.fsencode, map(str, arguments))]
            return subprocess.run(command, capture_output=True, cwd=tmp_path, env=os.environ | environment, check=False)

        return run

    @pytest.mark.parametrize(
        "command", [("check",), ("check", "--json"), ("show", "--out", "p"), ("convert", "out")], ids=" ".join
    )
    def test_a_case(self, cli, balls, command):
        rename(balls, os.fsdecode(b"b\xe4ll"))
        said = cli("data", command[0], balls, *command[1:])
        assert said.status == 2
        assert said.out == ""
        assert said.err.startswith("lossevo: ")
        assert "b\\udce4ll" in said.err or "b\\xe4ll" in said.err
        assert "a name that is not UTF-8; rename it" in said.err
        assert said.err.count("\n") == 1

    def test_what_is_no_case_does_not_matter(self, cli, balls):
        (balls / os.fsdecode(b"notes\xff.txt")).touch()
        (balls / "imagesTr" / os.fsdecode(b"x\xff.nii.gz")).touch()
        said = cli("data", "check", balls)
        assert "x\\xff.nii.gz: expected a name like CASE_0000.nii.gz" in said.out
        assert (said.status, said.err) == (2, "")
        assert json.loads(cli("data", "check", balls, "--json").out)["errors"] == 1

    def test_an_argument_and_a_folder(self, cli, balls, tmp_path, monkeypatch):
        odd = tmp_path / os.fsdecode(b"d\xe4ta")
        balls.rename(odd)
        for arguments in (("data", "check", odd), ("data", "phantom", odd), ("search", "--data", odd)):
            said = cli(*arguments)
            assert (said.status, said.out) == (2, "")
            assert said.err.endswith(
                "d\\xe4ta: not UTF-8; rename the file or folder, as all names are written in UTF-8\n"
            )
        monkeypatch.chdir(odd)
        said = cli("data", "check", ".")
        assert said.status == 2
        assert "a name that is not UTF-8" in said.err

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_a_terminal_that_knows_few_letters(self, lossevo, encoding):
        said = lossevo("losses", PYTHONIOENCODING=encoding)
        assert (said.returncode, said.stderr) == (0, b"")
        assert b"\\u03a3" in said.stdout  # Σ
