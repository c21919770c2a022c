"""Losses with parameters, from a YAML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lossevo.comparison import contenders_with_specs, read_specs
from lossevo.errors import LossevoError
from lossevo.losses import from_spec

SPECS = """
adaptive_tversky: {name: adaptive, parameters: {loss: tversky, every: 10}}
recall:
  name: tversky
  parameters: {w_fp: 0.1, w_fn: 0.9}
plain: {name: jaccard}
"""


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "losses.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_each_is_a_contender_of_its_name(written):
    contenders = read_specs(written(SPECS))
    assert [contender.name for contender in contenders] == ["adaptive_tversky", "recall", "plain"]
    assert contenders[1].spec == {"name": "tversky", "parameters": {"w_fp": 0.1, "w_fn": 0.9}}
    assert from_spec(contenders[0].spec).every == 10
    assert contenders[0].origin == "adaptive(loss=tversky, every=10) of losses.yaml"
    assert not any(contender.evolved or contender.search for contender in contenders)


def test_they_come_after_those_that_are_named(written):
    contenders = contenders_with_specs(["tversky", "dice"], specs=[written(SPECS)])
    assert [contender.name for contender in contenders] == ["tversky", "dice", "adaptive_tversky", "recall", "plain"]
    assert len(contenders_with_specs(specs=[written(SPECS)])) == 3
    assert len(contenders_with_specs(["dice"])) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- dice", "losses.yaml: expected keys and values .NAME: .name: LOSS, parameters"),
        ("{}", "losses.yaml: it names no loss"),
        ("mine: dice", "losses.yaml: mine: "),
        ("mine: {name: dice, parameter: {}}", "losses.yaml: mine: unknown key 'parameter' .did you mean 'parameters'"),
        ("mine: {parameters: {}}", "losses.yaml: mine: key 'name' is missing"),
        ("mine: {name: dise}", "losses.yaml: mine: unknown loss 'dise' .did you mean 'dice'"),
        ("mine: {name: tversky, parameters: {w_pf: 1}}", "losses.yaml: mine: .*no parameter 'w_pf'"),
        ("mine: {name: dice}\nmine: {name: focal}", "the key 'mine' is given twice"),
        ("dice: {name: jaccard}", "losses.yaml: dice: a loss of this name is compared already"),
        ("a: {name: focal}\nb: {name: focal}", "the same loss twice: a, and b of .*losses.yaml"),
    ],
)
def test_what_is_wrong_is_named(written, text: str, message: str):
    with pytest.raises(LossevoError, match=message):
        contenders_with_specs(["dice"], specs=[written(text)])


def test_no_file(tmp_path):
    with pytest.raises(LossevoError, match=r"nowhere.yaml: no such file; expected YAML with NAME"):
        contenders_with_specs(specs=[tmp_path / "nowhere.yaml"])


def test_a_loss_with_its_defaults_written_out_is_the_same_loss(tmp_path: Path) -> None:
    file = tmp_path / "specs.yaml"
    file.write_text("mine: {name: tversky, parameters: {w_fn: 0.7, w_fp: 0.3}}\n")
    with pytest.raises(LossevoError, match="the same loss twice"):
        contenders_with_specs(["tversky"], (), (), [file])
