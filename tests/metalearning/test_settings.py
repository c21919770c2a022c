"""A settings file: what is wrong in it is told with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lossevo.configuration_file import read
from lossevo.errors import LossevoError
from lossevo.metalearning import MetaSettings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: .inf", "learning_rate: Input should be a finite number"),
        ("learning_rate: .nan", "learning_rate: Input should be a finite number"),
        ("inputs: [margin]", r"inputs of a loss network are \('margin',\), expected target and margin or probability"),
        ("inputs: [margin, target, target]", r"inputs of a loss network are .*'target', 'target'\), expected .*, once"),
        ("shaping: [distances]", r"shaping \('distances',\): expected some of probability, distance, frequency, which"),
        ("shaping: [distance, distance]", r"shaping \('distance', 'distance'\): expected .*, which inputs lacks, once"),
        ("shaping: [target]", r"shaping \('target',\): expected some of probability, distance, frequency, which"),
    ],
)
def test_a_wrong_settings_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(LossevoError, match=rf"settings\.yaml: {message}"):
        read(MetaSettings, file, expects="inputs, shaping, …")


def test_shaping_adds_to_the_inputs(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("inputs: [probability, target]\nshaping: [margin, distance]")
    assert read(MetaSettings, file, expects="inputs, shaping, …").shaping == ("margin", "distance")
