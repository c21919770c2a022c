"""Predictions on each image's own grid, against SciPy in millimetres."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import nn

from lossevo.data import OriginalLabel, PreparedCohort, PreprocessingSettings, Volume, prepare, read_cohort
from lossevo.data.cache import Cache
from lossevo.data.resampling import resample, resample_label
from lossevo.errors import LossevoError
from lossevo.metrics import dice_per_class, evaluate, false_alarms, parse_metrics
from lossevo.training import TaskSettings, Trial, make_training_data
from lossevo.training.inference import Prediction, predict
from lossevo.training.reference import reference_cases
from lossevo.training.regrid import label_on_original
from lossevo.training.session import Session
from lossevo.training.trainer import Trainer, train
from lossevo.training.validation import validate
from tests.training.conftest import prepared_balls
from tests.trials import trial_of

CPU = torch.device("cpu")
METRICS = ("dice", "nsd@2mm", "hd95")
TASK = TaskSettings(patch_size=(8, 12, 12), channels=(4, 8), strides=(2,), patches_per_volume=2, validations=2)
WORKING_MM = (4.0, 4.0, 4.0)

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]


def original_of(shape: Shape, spacing_mm: Spacing, box=None, label: np.ndarray | None = None) -> OriginalLabel:
    label = np.zeros(shape, np.uint8) if label is None else label
    return OriginalLabel.of(Volume("a", "a", np.zeros((1, *shape), np.float32), label, spacing_mm), box)


def logits_on(shape: Shape, classes: int, *, background: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Smooth logits with a peak for each class here and there."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    logits = np.stack([gaussian_filter(channel, 1.0) * 12 for channel in noise])
    logits[0] += background
    return torch.from_numpy(logits.astype(np.float32))


def by_scipy(probabilities: np.ndarray, working_mm: Spacing, original: OriginalLabel) -> tuple[np.ndarray, np.ndarray]:
    """The label on the image's own grid, and by how much the largest probability leads: by places in millimetres."""
    label, lead = np.zeros(original.shape, np.uint8), np.ones(original.shape)
    box = original.box or tuple(slice(0, size) for size in original.shape)
    places = []
    for side, own_mm, new_mm, size in zip(box, original.spacing_mm, working_mm, probabilities.shape[1:], strict=True):
        edges_mm = np.arange(side.start, side.stop + 1) * own_mm
        centres_mm, middle_mm = (edges_mm[1:] + edges_mm[:-1]) / 2, (edges_mm[0] + edges_mm[-1]) / 2
        places.append((centres_mm - middle_mm) / new_mm + (size - 1) / 2)
    grid = np.meshgrid(*places, indexing="ij")
    found = np.stack([map_coordinates(p.astype(np.float64), grid, order=1, mode="nearest") for p in probabilities])
    label[box] = found.argmax(axis=0)
    first, second = np.sort(found, axis=0)[[-1, -2]]
    lead[box] = first - second
    return label, lead


def assert_alike(label: np.ndarray, probabilities: np.ndarray, working_mm: Spacing, original: OriginalLabel) -> None:
    expected, lead = by_scipy(probabilities, working_mm, original)
    clear = lead > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(label[clear], expected[clear])


GRIDS = [
    # working shape and mm, own shape and mm
    ((8, 13, 12), (4.0, 4.0, 4.0), (8, 52, 49), (4.0, 1.0, 1.0)),  # slices kept
    ((30, 13, 12), (2.0, 2.0, 2.0), (15, 27, 24), (4.0, 1.0, 1.0)),  # own slices are coarser
    ((10, 9, 8), (3.0, 3.0, 3.0), (37, 34, 31), (0.8, 0.8, 0.8)),  # sizes that were rounded
    ((9, 10, 11), (1.0, 1.0, 1.0), (4, 3, 2), (2.5, 3.0, 5.0)),  # all coarser
    ((1, 7, 9), (4.0, 2.0, 2.0), (3, 7, 18), (1.0, 2.0, 1.0)),  # one working voxel
    ((9, 7, 1), (2.0, 1.0, 9.0), (18, 7, 1), (1.0, 1.0, 4.0)),
]
BOXES = {"whole": (0, 0), "cropped": (2, 3)}


@pytest.mark.parametrize("margins", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("background", [0.0, 6.0])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("shape", "working_mm", "own", "own_mm"), GRIDS)
def test_it_is_what_scipy_gives_in_millimetres(shape, working_mm, own, own_mm, classes, background, margins):
    before, after = margins
    box = tuple(slice(before, before + size) for size in own) if before else None
    original = original_of(tuple(before + size + after for size in own), own_mm, box)
    prediction = Prediction(logits_on(shape, classes, background=background), voting=False)

    label = label_on_original(prediction, working_mm, original)

    assert_alike(label, prediction.probabilities.numpy(), working_mm, original)
    assert label.dtype == np.uint8
    if background == 0:
        assert set(np.unique(label)) >= {1}
    for part_bytes in (1, 10_000, 2**40):
        np.testing.assert_array_equal(label_on_original(prediction, working_mm, original, part_bytes=part_bytes), label)


def test_voting_gives_probabilities_already():
    probabilities = logits_on((8, 9, 10), 3).softmax(dim=0)
    original = original_of((16, 9, 30), (2.0, 4.0, 1.3))
    label = label_on_original(Prediction(probabilities, voting=True), WORKING_MM, original)
    assert_alike(label, probabilities.numpy(), WORKING_MM, original)


@pytest.mark.parametrize("box", [None, (slice(1, 9), slice(0, 9), slice(3, 13))])
def test_without_resampling_it_is_the_label_itself(box):
    """Also where logits differ and probabilities, rounded, do not."""
    logits = logits_on((8, 9, 10), 3)
    logits[1, 0], logits[2, 0] = 200.0, 200.00002
    prediction = Prediction(logits, voting=False)
    original = original_of((11, 9, 14) if box else (8, 9, 10), WORKING_MM, box)
    label = label_on_original(prediction, WORKING_MM, original)
    expected = np.zeros(original.shape, np.uint8)
    expected[box or ...] = prediction.label
    np.testing.assert_array_equal(label, expected)
    assert (prediction.label[0] == 2).all()


@pytest.mark.parametrize("value", [0, 1])
def test_what_is_one_class_everywhere_stays_so(value: int):
    logits = torch.zeros(3, 4, 5, 6)
    logits[value] = 9.0
    label = label_on_original(Prediction(logits, voting=False), WORKING_MM, original_of((8, 11, 13), (2.0, 2.0, 2.0)))
    assert (label == value).all()


def test_the_first_of_equal_classes_wins():
    """As for the label at the working spacing; halfway between two voxels, say."""
    halves = torch.zeros(2, 2, 1, 1)
    halves[0, 0] = halves[1, 1] = 1.0
    label = label_on_original(Prediction(halves, voting=True), (4.0, 1.0, 1.0), original_of((3, 1, 1), (2.0, 1.0, 1.0)))
    assert label.ravel().tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("own", "own_mm", "working_mm", "least"),
    [
        ((15, 60, 66), (4.0, 1.0, 1.0), (2.0, 2.0, 2.0), 0.98),
        ((16, 61, 66), (5.0, 0.9, 0.9), (2.0, 2.0, 2.0), 0.98),
        ((40, 40, 41), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), 0.97),
        ((15, 60, 66), (4.0, 1.0, 1.0), (4.0, 4.0, 4.0), 0.95),
    ],
)
def test_the_way_there_and_back_keeps_a_label_and_its_place(own, own_mm, working_mm, least: float):
    """A perfect network, that says how much of each class is in each voxel, or the working label for certain."""
    grid = np.stack(np.meshgrid(*(np.arange(n) * mm for n, mm in zip(own, own_mm, strict=True)), indexing="ij"), -1)
    middle = np.multiply(own, own_mm) / 2
    label = np.where(np.linalg.norm(grid - middle, axis=-1) < 14, 1 + (grid[..., 2] > middle[2]), 0).astype(np.uint8)
    original = original_of(own, own_mm, label=label)
    shares = np.stack([resample((label == value).astype(np.float32), own_mm, working_mm) for value in range(3)])
    certain = np.moveaxis(np.eye(3, dtype=np.float32)[resample_label(label, 3, own_mm, working_mm)], -1, 0)
    found, coarse = (
        label_on_original(Prediction(torch.tensor(known), voting=True), working_mm, original)
        for known in (shares, certain)
    )
    dice = np.mean(dice_per_class(found, label, 3))
    assert dice > least
    assert np.mean(dice_per_class(coarse, label, 3)) > least - 0.1
    for axis in range(3):
        for shift in (-1, 1):
            assert np.mean(dice_per_class(np.roll(found, shift, axis), label, 3)) < dice - 0.02


class Bright(nn.Module):
    """Calls every voxel of the second class that is bright, of the first that is dark."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(image, 1.5), -image, image], dim=1) * 5


def blob(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label (8, 48, 47) of 4×1×1 mm in air: a dark and a bright ball; the last case lacks the bright one."""
    rng = np.random.default_rng([9, number])
    shape = (8, 48, 47)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * (4.0, 1.0, 1.0)
    label = np.zeros(shape, np.uint8)
    for value, z in ((1, 15), (2, 32)):
        label[np.linalg.norm(grid - (16, rng.uniform(18, 28), z), axis=-1) < 8] = value
    image = 200 + rng.normal(0, 10, shape) + np.array((0, -80, 80))[label]
    if number == 5:
        label[label == 2] = 0
    return image.astype(np.float32), label


@pytest.fixture
def folder(write_nnunet_cohort) -> Path:
    """Six blobs as an nnU-Net data set."""
    cases = {f"case{number}": blob(number) for number in range(6)}
    return write_nnunet_cohort(cases, labels={"background": 0, "D": 1, "B": 2}, spacing_mm=(4, 1, 1))


SUBJECTS = tuple(f"case{n}" for n in range(6))


def request(grid: str = "original", **changes) -> Trial:
    trial = trial_of("dice_ce", SUBJECTS[:4], SUBJECTS[4:], 40, seed=1)
    return dataclasses.replace(trial, metrics=METRICS, grid=grid, **changes)


def prepared(folder: Path, *, cache: Cache | None = None, crop: str = "none") -> PreparedCohort:
    return prepare(read_cohort(folder), spacing_mm=WORKING_MM, settings=PreprocessingSettings(crop=crop), cache=cache)


def test_a_training_is_measured_on_the_images_own_grid(folder: Path):
    data = make_training_data(prepared(folder), TASK, on_original_grid=True)
    trainer = Trainer(data, device=CPU)
    result, working = trainer.train(request()), trainer.train(request("working"))

    session = Session(request(), trainer)
    session.advance(40)
    for volume in data.volumes[4:]:
        prediction = predict(session._network, volume.image, TASK, CPU)
        original = data.originals[volume.case_id]
        by_hand, _ = by_scipy(prediction.probabilities.numpy(), WORKING_MM, original)
        label = blob(SUBJECTS.index(volume.case_id))[1]
        expected = evaluate(by_hand, label, (4.0, 1.0, 1.0), METRICS, classes=["D", "B"])
        for metric in METRICS:
            has = [name for name in ("D", "B") if (label == 1 + (name == "B")).any()]
            assert [expected[name][metric] for name in has] == pytest.approx(
                [result.values[metric][volume.case_id][name] for name in has], rel=1e-3
            )
            assert result.values[metric][volume.case_id] != working.values[metric][volume.case_id]
    assert result.mean("dice") > 0.5
    assert result.values["dice"]["case5"]["B"] is None
    # The course of the training is that at the working spacing.
    assert result.validation_curve == working.validation_curve
    assert result.validation_curve[-1][1] == working.mean("dice")
    assert result.curve == working.curve


@pytest.mark.parametrize("crop", ["none", "body"])
def test_the_result_does_not_depend_on_where_data_lies(folder: Path, tmp_path: Path, crop: str):
    cache = Cache(tmp_path / "cache")
    results = []
    for use, bound in ((None, 2**30), (cache, 2**30), (cache, 0)):
        cohort = prepared(folder, cache=use, crop=crop)
        data = make_training_data(cohort, TASK, patch_cache_bytes=bound, on_original_grid=True)
        results.append(train(request(), pickle.loads(pickle.dumps(data))))
    assert results[0].values == results[1].values == results[2].values
    assert results[0].mean("dice") > 0.5


def test_false_alarms_are_voxels_of_the_own_grid(folder: Path):
    data = make_training_data(prepared(folder), TASK, on_original_grid=True)
    case = data.volumes[5]
    found, working = (
        validate(Bright(), [case], data, CPU, parse_metrics(METRICS), grid) for grid in ("original", "working")
    )
    prediction = predict(Bright(), case.image, TASK, CPU)
    by_hand, _ = by_scipy(prediction.probabilities.numpy(), WORKING_MM, data.originals["case5"])
    alarm = false_alarms(by_hand, blob(5)[1], (4.0, 1.0, 1.0), classes=["D", "B"])["B"]
    result = found.cases["case5"]["B"]
    assert result.false_voxels == alarm["voxels"] > 0
    assert result.false_ml == alarm["ml"]
    assert result.false_voxels > 8 * working.cases["case5"]["B"].false_voxels
    assert found.working_dice == working.working_dice


@pytest.mark.parametrize(
    ("box", "dark", "cut_off"),
    [
        (None, slice(0, 9), True),  # dark up to the image's border
        (None, slice(1, 9), False),
        ((slice(2, 18), slice(0, 24), slice(0, 24)), slice(0, 9), True),  # up to the crop's box, within the image
        ((slice(2, 18), slice(0, 24), slice(0, 24)), slice(1, 9), False),
    ],
)
def test_what_the_border_or_the_crops_box_cuts_off(box, dark: slice, cut_off: bool):
    label = np.zeros((16, 24, 24), np.uint8)
    label[4:8, 8:16, 8:16] = 1
    image = np.zeros((1, 16, 24, 24), np.float32)
    image[0, dark, 8:16, 8:16] = -10
    volume = Volume(case_id="a", subject="a", image=image, label=label, spacing_mm=(4.0, 4.0, 4.0))
    size = 16 if box is None else 20
    whole = np.zeros((size, 24, 24), np.uint8)
    whole[(size - 16) // 2 :][:16] = label
    data = dataclasses.replace(
        make_training_data(prepared_balls(2), TASK),
        originals={"a": OriginalLabel.of(dataclasses.replace(volume, label=whole), box)},
    )
    for grid in ("original", "working"):
        found = validate(Bright(), [volume], data, CPU, parse_metrics("dice"), grid)
        assert found.cases["a"]["ball1"].cut_off is cut_off


def test_a_search_holds_no_labels_of_own_grids(folder: Path):
    data = make_training_data(prepared(folder), TASK)
    assert not data.originals
    assert data.fingerprint == make_training_data(prepared(folder), TASK, on_original_grid=True).fingerprint
    with pytest.raises(LossevoError, match=r"own grid, but the training data lacks that of case4, case5; make it with"):
        Trainer(data, device=CPU).train(request())
    session = Session(request("working"), Trainer(data, device=CPU))
    with pytest.raises(LossevoError, match="lacks that of case4"):
        session.validate(grid="original")


def test_a_small_structure_may_be_on_the_own_grid_alone():
    label = np.zeros((8, 8, 8), np.uint8)
    label[:, :4] = 1
    label[4, 6, 4] = 2
    volume = Volume(
        "a", "a", np.zeros((1, 2, 2, 2), np.float32), resample_label(label, 3, (1.0,) * 3, (4.0,) * 3), WORKING_MM
    )
    original = original_of((8, 8, 8), (1.0, 1.0, 1.0), label=label)
    assert [case.classes for case in reference_cases([volume])] == [{1}]
    assert [case.classes for case in reference_cases([volume], {"a": original})] == [{1, 2}]
