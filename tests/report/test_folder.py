"""What lies in the folder of an analysis, and whose folder it may be."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from lossevo import report
from lossevo.analysis import analyze, to_document
from lossevo.errors import LossevoError

FIGURES = [
    *(f"profile-{family}" for family in ("distribution", "region", "distance", "evolved")),
    *("cost", "foreground-share", "gradient-by-distance", "responses", "scenes"),
]


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_figure_is_there_as_png_and_as_svg(folder):
    assert files(folder / "figures") == {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    for name in FIGURES:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (folder / "figures" / f"{name}.svg").read_bytes()


def test_the_tables_are_those_of_the_analysis(folder, analysis):
    assert {path.name for path in folder.glob("*.csv")} == {"summary.csv", *(f"{name}.csv" for name in analysis.tables)}
    for name, table in analysis.tables.items():
        pd.testing.assert_frame_equal(pd.read_csv(folder / f"{name}.csv"), table, check_dtype=False)


def test_the_document_is_that_of_the_analysis(folder, analysis):
    assert json.loads((folder / "analysis.json").read_text()) == json.loads(json.dumps(to_document(analysis)))


def test_the_same_analysis_gives_the_same_files(folder, analysis, tmp_path):
    report.prepare_folder(tmp_path)
    report.write(analysis, tmp_path)
    assert files(tmp_path) == files(folder)
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in files(folder))


def test_an_earlier_analysis_is_replaced_and_nothing_else(analysis, tmp_path):
    report.prepare_folder(tmp_path)
    (tmp_path / "analysis.json").write_text('{"made_by": "lossevo analyze"}')
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "figures" / "profile-gone.png").write_text("of a family that is no longer there")
    report.prepare_folder(tmp_path)
    report.write(analyze(analysis.losses[:1]), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert not (tmp_path / "figures" / "profile-gone.png").exists()


@pytest.mark.parametrize("content", [{"x": "y"}, {"analysis.json": "[]"}, {"analysis.json": "no JSON"}])
def test_a_folder_of_others_is_refused(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(LossevoError, match="nothing is overwritten"):
        report.prepare_folder(tmp_path)
    assert files(tmp_path) == set(content)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LossevoError, match="file"):
            report.prepare_folder(path)
