from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lossevo.errors import LossevoError
from lossevo.training import TaskSettings, load_task, make_training_data
from lossevo.training.task import RECIPE_VERSION
from lossevo.training.trainer import train
from tests.trials import trial_of


def test_settings_survive_json():
    settings = TaskSettings(channels=(4, 8), strides=(2,), learning_rate=3e-3)

    assert TaskSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    "change",
    [{"strides": (2, 2, 2, 2)}, {"patch_size": (16, 56, 50)}, {"patch_size": (0, 8, 8)}, {"learning_rat": 1e-2}],
)
def test_inconsistent_or_unknown_settings_are_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change)) + "|strides"):
        TaskSettings(**change)


def test_fingerprint_tells_settings_and_data_apart_but_not_the_default_budget():
    settings = TaskSettings()

    assert settings.fingerprint("data") == TaskSettings(budget_steps=999).fingerprint("data")
    assert settings.fingerprint("data") != settings.fingerprint("other data")
    assert settings.fingerprint("data") != TaskSettings(learning_rate=3e-3).fingerprint("data")
    assert settings.fingerprint("data") != TaskSettings(augmentation="full").fingerprint("data")
    # How cases are prepared is part of the data's own fingerprint.
    assert settings.fingerprint("data") == TaskSettings(preprocessing={"crop": "body"}).fingerprint("data")


def test_fingerprint_of_a_task_without_the_newer_settings_is_what_it_was():
    """Results of before may be compared with those of now: the training is the same."""
    recipe_4 = "d1db21573ccd2e4e013ad38ad1da920f41297b658c83fef1ed8d42a0a7886d48"
    assert RECIPE_VERSION != 4 or TaskSettings().fingerprint("data") == recipe_4


@pytest.mark.parametrize(
    ("settings", "change", "differs"),
    [
        ({}, {"schedule": "constant"}, True),
        ({}, {"weights": "ema"}, True),
        ({}, {"warmup_steps": 20, "loss_horizon_steps": 20, "ema_decay": 0.5}, False),
        ({"schedule": "constant"}, {"warmup_steps": 20}, True),
        ({"schedule": "constant"}, {"loss_horizon_steps": 20}, True),
        ({"schedule": "constant"}, {"warmup_share": 0.5}, False),
        ({"weights": "ema"}, {"ema_decay": 0.5}, True),
        ({"weights": "ema"}, {"warmup_share": 0.5}, True),
    ],
    ids=str,
)
def test_fingerprint_knows_what_applies_to_the_schedule_and_the_weights(settings, change, differs: bool):
    before, after = (TaskSettings(**given).fingerprint("data") for given in (settings, settings | change))
    assert (before != after) is differs


def test_training_data_is_reproducible_and_pickles(make_balls, small_settings):
    prepared = make_balls(3)
    data, again, other = (make_training_data(prepared, small_settings, seed=seed) for seed in (5, 5, 6))

    copy = pickle.loads(pickle.dumps(data, protocol=5))
    for twin in (again, copy):
        assert twin.fingerprint == data.fingerprint
        assert twin.settings == data.settings
        np.testing.assert_array_equal(twin.bank.image, data.bank.image)
    assert other.fingerprint != data.fingerprint


def test_another_cohort_may_be_validated_on(make_balls, small_settings):
    """Patches are of the one, volumes of both; the fingerprint knows both, and names tell them apart."""
    trained, tested = make_balls(3), replace(make_balls(2), fingerprint="the other")
    alone = make_training_data(trained, small_settings)
    data = make_training_data(trained, small_settings, tested=tested, prefix="one/")
    np.testing.assert_array_equal(data.bank.image, alone.bank.image)
    assert {*data.bank.subject} == {"one/ball-00", "one/ball-01", "one/ball-02"}
    names = [volume.subject for volume in data.volumes]
    assert names == ["one/ball-00", "one/ball-01", "one/ball-02", "ball-00", "ball-01"]
    assert names == [volume.case_id for volume in data.volumes]
    changed = replace(tested, fingerprint="changed")
    other = make_training_data(trained, small_settings, tested=changed, prefix="one/")
    assert len({alone.fingerprint, data.fingerprint, other.fingerprint}) == 3
    train(trial_of("dice", ("one/ball-00", "one/ball-02"), ("ball-01",), 1), data)
    train(trial_of("dice", ("one/ball-00", "one/ball-02"), ("one/ball-01",), 1), data)
    with pytest.raises(LossevoError, match="no subject 'ball-00' in the training data"):
        train(trial_of("dice", ("ball-00",), ("ball-01",), 1), data)


def test_a_driver_that_only_sends_requests_imports_no_monai():
    check = "import sys, lossevo.training; sys.exit('monai' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_task_file_says_what_differs_from_the_default(tmp_path):
    file = tmp_path / "gpu.yaml"
    file.write_text("network: se_norm_unet\npatch_size: [96, 96, 96]\nchannels: [16, 32, 64]\nbudget_steps: 1000\n")

    expected = TaskSettings(network="se_norm_unet", patch_size=(96, 96, 96), channels=(16, 32, 64), budget_steps=1000)
    assert load_task(file) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patchsize: [8, 8, 8]", r"task\.yaml: unknown key 'patchsize' \(did you mean 'patch_size'\?\)"),
        ("network: unett", r"task\.yaml: network: found 'unett', expected .*did you mean 'unet'"),
        ("patch_size: [16, 56, 50]", r"task\.yaml: patch_size .*multiple of 4"),
        ("learning_rate: .inf", r"task\.yaml: learning_rate: Input should be a finite number"),
        ("weight_decay: .nan", r"task\.yaml: weight_decay: Input should be a finite number"),
        ("- unet", r"task\.yaml: expected keys and values \(network, .*found list"),
        ("network: [", r"task\.yaml: cannot be read as YAML"),
    ],
)
def test_a_wrong_task_file_is_explained(tmp_path, text, message):
    file = tmp_path / "task.yaml"
    file.write_text(text)
    with pytest.raises(LossevoError, match=message):
        load_task(file)


def test_a_missing_task_file_is_named(tmp_path):
    with pytest.raises(LossevoError, match=r"none\.yaml: no such file"):
        load_task(tmp_path / "none.yaml")


def test_the_examples_in_the_documentation_are_tasks(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "proxy.md").read_text(encoding="utf-8")
    file = tmp_path / "example.yaml"
    tasks = []
    for block in text.split("```yaml\n")[1:]:
        file.write_text(block.partition("```")[0], encoding="utf-8")
        tasks.append(load_task(file))
    wide, open_ended = tasks
    assert (wide.network, wide.fusion, wide.learning_rate) == ("se_norm_unet", "bspline", 3e-3)
    assert (open_ended.schedule, open_ended.weights) == ("constant", "ema")
    # What is shown beside them are the defaults.
    assert open_ended == TaskSettings(schedule="constant", weights="ema")


def test_a_key_that_is_given_twice_is_refused(tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text("batch_size: 2\nlearning_rate: 0.1\nbatch_size: 4\n")
    with pytest.raises(LossevoError, match=r"task\.yaml: cannot be read as YAML: .*'batch_size' is given twice"):
        load_task(file)
