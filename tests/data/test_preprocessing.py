from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lossevo.data import (
    MERGED,
    Case,
    Cohort,
    PreparedCohort,
    PreprocessingSettings,
    Volume,
    automatic_spacing_mm,
    prepare,
    read_nnunet,
    relabel,
)
from lossevo.data.cohort import Grid
from lossevo.data.intensities import z_score
from lossevo.data.resampling import resample, resample_label
from lossevo.errors import LossevoError

ROOT = Path(__file__).parents[2]


def volume(case_id: str = "a", *, seed: int = 0, shape=(8, 8, 8), classes=2, spacing_mm=(1.0, 1.0, 1.0), subject=None):
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 20, (1, *shape)).astype(np.float32)
    label = np.kron(rng.integers(0, classes, [-(-size // 2) for size in shape]), np.ones((2, 2, 2)))
    label = label[tuple(slice(size) for size in shape)].astype(np.uint8)
    return Volume(case_id, subject or case_id, image, label, spacing_mm)


def cohort(*volumes: Volume, class_names=("background", "vertebra"), channel_names=None) -> Cohort:
    cases = tuple(Case(v.case_id, v.subject, functools.partial(lambda v: v, v)) for v in volumes)
    names = channel_names or tuple(f"MRI{n}" for n in range(volumes[0].channels if volumes else 1))
    return Cohort("test", class_names, names, cases)


def identities(prepared: PreparedCohort, subject: str) -> set[str]:
    return {*prepared.subject_hashes[subject].split(",")}


def sphere(shape, spacing_mm, radius_mm: float, shift_mm=(0.0, 0.0, 0.0)):
    axes = [(np.arange(n) - (n - 1) / 2) * s - shift for n, s, shift in zip(shape, spacing_mm, shift_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return (x**2 + y**2 + z**2 <= radius_mm**2).astype(np.uint8)


# Resampling


@pytest.mark.parametrize(("from_mm", "to_mm"), [(1.0, 4.0), (1.0, 3.3), (4.0, 1.0), (3.0, 2.0), (0.7, 0.9), (2.0, 2.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_linear_ramp_stays_a_ramp_in_millimetres(from_mm: float, to_mm: float, axis: int):
    shape, from_spacing, to_spacing = [5, 5, 5], [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]
    shape[axis], from_spacing[axis], to_spacing[axis] = 48, from_mm, to_mm
    position_mm = (np.arange(48) - 23.5) * from_mm
    ramp = np.broadcast_to(np.expand_dims(position_mm, [a for a in range(3) if a != axis]), shape).astype(np.float32)
    profile = np.moveaxis(resample(ramp[None], tuple(from_spacing), tuple(to_spacing))[0], axis, 0)
    size = len(profile)
    assert size == int(48 * from_mm / to_mm + 0.5)
    expected_mm = (np.arange(size) - (size - 1) / 2) * to_mm
    inner = np.abs(expected_mm) <= 23.5 * from_mm - (
        to_mm if to_mm > from_mm else 0
    )  # there is nothing beyond the edge
    assert inner.sum() >= min(size, 48) - 3
    expected_mm = np.broadcast_to(expected_mm[inner, None, None], profile[inner].shape)
    # Exact at whole-number factors and when interpolating; else the sampled weights leave a small ripple.
    exact = to_mm <= from_mm or (to_mm / from_mm).is_integer()
    np.testing.assert_allclose(profile[inner], expected_mm, atol=1e-4 if exact else 0.1 * from_mm)


def test_one_axis_against_the_definition():
    row = np.random.default_rng(0).normal(size=12)
    expected = []
    for new_mm in (-4.5, -1.5, 1.5, 4.5):  # 12 voxels of 1 mm become 4 of 3 mm around the same centre
        weights = [max(0.0, 1 - abs(new_mm - (old - 5.5)) / 3) for old in range(12)]
        expected.append(sum(w * v for w, v in zip(weights, row, strict=True)) / sum(weights))
    out = resample(row.reshape(1, 12, 1).astype(np.float32), (1, 1, 1), (1, 3, 1))
    np.testing.assert_allclose(out.ravel(), expected, atol=1e-6)


def test_agrees_with_pytorchs_antialiased_interpolation():
    image = np.random.default_rng(0).normal(size=(1, 24, 30)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None], size=(8, 12), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(resample(image, (1, 1, 1), (1, 3, 2.5)), expected[0], atol=1e-5)


def test_finer_spacing_agrees_with_scipys_linear_interpolation():
    image = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    fine = resample(image, (2, 2, 3), (1, 1, 1))
    places = [
        (np.arange(new) - (new - 1) / 2) / factor + (old - 1) / 2
        for new, old, factor in zip(fine.shape, image.shape, (2, 2, 3), strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    np.testing.assert_allclose(fine, ndimage.map_coordinates(image, grid, order=1, mode="nearest"), atol=1e-5)


def test_high_frequencies_do_not_alias():
    # Stripes one voxel wide: picking every fourth voxel would give one of the two colours.
    stripes = np.broadcast_to(np.arange(64) % 2, (4, 4, 64)).astype(np.float32)
    np.testing.assert_allclose(resample(stripes, (1, 1, 1), (1, 1, 4))[..., 1:-1], 0.5, atol=1e-6)


@given(size=st.integers(1, 40), from_mm=st.floats(0.2, 10), to_mm=st.floats(0.2, 10), seed=st.integers(0, 100))
@settings(deadline=None)
def test_resampled_values_are_weighted_means_and_constants_stay(size: int, from_mm: float, to_mm: float, seed: int):
    image = np.random.default_rng(seed).uniform(-1, 1, (size, 2, 2)).astype(np.float32)
    out = resample(image, (from_mm, 1, 1), (to_mm, 1, 1))
    assert out.shape[0] >= 1
    assert out.min() >= image.min() - 1e-5
    assert out.max() <= image.max() + 1e-5
    np.testing.assert_allclose(resample(np.full_like(image, 0.7), (from_mm, 1, 1), (to_mm, 1, 1)), 0.7, rtol=1e-5)


THREADS = """
import hashlib
import numpy as np
from lossevo.data import phantom_cohort
from lossevo.data.resampling import resample, resample_label
rng = np.random.default_rng(0)
image = rng.normal(size=(1, 17, 201, 197)).astype(np.float32)
label = (image[0] > 1).astype(np.uint8) + (image[0] > 2)
made = [resample(image, (4, 1, 1), (1.3, 0.7, 2.1)), resample_label(label, 3, (1, 1, 1), (0.8, 0.8, 1.7))]
for region in ("lumbar", "cervical"):
    drawn = phantom_cohort(cases=1, region=region, spacing_mm=(4.0, 4.0, 4.0)).cases[0].load()
    made += [drawn.image, drawn.label]
print([hashlib.sha256(array.tobytes()).hexdigest() for array in made])
"""


def test_the_number_of_threads_changes_no_bit():
    """BLAS splits its sums otherwise with two threads than with one."""
    printed = set()
    for threads in "12":
        environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)}
        printed.add(subprocess.check_output([sys.executable, "-c", THREADS], env=environment, cwd=ROOT))
    assert len(printed) == 1


def test_resampling_does_not_prefer_a_side():
    image = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    out = resample(image, (1, 1, 1), (2.3, 0.6, 1.7))
    np.testing.assert_allclose(
        resample(image[::-1, ::-1, ::-1], (1, 1, 1), (2.3, 0.6, 1.7)), out[::-1, ::-1, ::-1], atol=1e-6
    )


@pytest.mark.parametrize(
    ("from_mm", "to_mm"),
    [((1, 1, 1), (4, 4, 4)), ((1, 1, 4), (4, 4, 4)), ((4, 0.9, 0.9), (3, 3, 3)), ((3, 3, 3), (1.5, 2, 1))],
)
def test_volume_and_place_of_a_sphere_are_preserved(from_mm, to_mm):
    rng = np.random.default_rng(0)
    shape = tuple(round(80 / side) for side in from_mm)
    ratios = []
    for shift_mm in rng.uniform(-2, 2, (6, 3)):
        label = sphere(shape, from_mm, 20.0, shift_mm)  # 33 cm³, a vertebral body's size
        out = resample_label(label, 2, from_mm, to_mm)
        ratios.append(out.sum() * np.prod(to_mm) / (label.sum() * np.prod(from_mm)))
        centre_mm = (np.argwhere(out).mean(axis=0) - (np.array(out.shape) - 1) / 2) * to_mm
        np.testing.assert_allclose(centre_mm, shift_mm, atol=0.1 * max(to_mm))
    np.testing.assert_allclose(ratios, 1, atol=0.05)
    assert np.mean(ratios) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize(
    ("from_mm", "to_mm"),
    [
        ((1, 1, 1), (4, 4, 4)),
        ((1, 1, 4), (2, 2, 4)),
        ((4, 1, 1), (4, 2.5, 2.5)),
        ((3, 3, 3), (1, 1, 1)),
        ((4, 1, 1), (1, 3, 1)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_half_space_is_where_the_plane_says_down_to_half_a_voxel(from_mm, to_mm, seed: int):
    # The kernel is symmetric, so a plane through a new voxel's centre shares it alike: it parts the new centres too.
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    offset_mm = rng.uniform(-3, 3)

    def height_mm(shape, spacing_mm):
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
        x, y, z = np.meshgrid(*axes, indexing="ij")
        return x * normal[0] + y * normal[1] + z * normal[2] - offset_mm

    shape = tuple(round(60 / side) for side in from_mm)
    out = resample_label((height_mm(shape, from_mm) >= 0).astype(np.uint8), 2, from_mm, to_mm)
    height = height_mm(out.shape, to_mm)
    within = tuple(slice(2, -2) for _ in range(3))  # at the volume's edge the kernel is cut, and no longer symmetric
    clear = np.abs(height) > 0.5 * np.abs(normal) @ from_mm  # the old grid's own steps
    np.testing.assert_array_equal(out[within][clear[within]], (height >= 0)[within][clear[within]])
    assert clear.mean() > 0.8


@pytest.mark.cohort
def test_volumes_of_real_vertebral_bodies_are_preserved(real_cohorts):
    ratios = []
    for case in read_nnunet(real_cohorts / "myosegmentum").cases:
        raw = case.load()
        out = resample_label(raw.label, 6, raw.spacing_mm, (4.0, 4.0, 4.0))
        counts = [np.bincount(label.ravel(), minlength=6)[1:] for label in (out, raw.label)]
        ratios.append(counts[0] * 4.0**3 / (counts[1] * np.prod(raw.spacing_mm)))
    np.testing.assert_allclose(np.mean(ratios, axis=0), 1, atol=0.01)
    assert np.std(ratios, axis=0).max() < 0.02


def test_labels_against_the_definition():
    rng = np.random.default_rng(0)
    for to_mm in ((1.7, 2.3, 2.9), (0.7, 0.9, 0.6), (1.0, 3.1, 0.4)):
        label = np.kron(rng.integers(0, 5, (4, 5, 6)), np.ones((3, 2, 2))).astype(np.uint8)
        label[label == 3] = 0  # a class that is nowhere
        shares = [resample((label == value).astype(np.float32), (1, 1, 1), to_mm) for value in range(5)]
        shares[0] -= 1e-5
        np.testing.assert_array_equal(resample_label(label, 5, (1, 1, 1), to_mm), np.argmax(shares, axis=0))


def test_label_is_the_class_with_most_weight_not_the_nearest_voxel():
    label = np.array([0, 0, 0, 1, 0, 1, 1, 1, 2, 1, 2, 2, 2, 2], np.uint8).reshape(1, 1, 14)
    weights = [max(0.0, 1 - abs(d) / 7) for d in range(-3, 7)]
    first = [sum(w for w, v in zip(weights, label.ravel()[:10], strict=True) if v == value) for value in range(3)]
    out = resample_label(label, 3, (1, 1, 1), (1, 1, 7)).ravel()
    assert out[0] == np.argmax(first) != label.ravel()[3]
    assert out[1] == 2


def test_voxel_shared_alike_by_background_and_foreground_is_foreground():
    halves = np.array([0, 1], np.uint8).reshape(1, 1, 2)
    for label in (halves, halves[..., ::-1]):
        np.testing.assert_array_equal(resample_label(label, 2, (1, 1, 1), (1, 1, 2)), [[[1]]])


def test_label_at_the_same_spacing_is_unchanged():
    label = volume(classes=4).label
    np.testing.assert_array_equal(resample_label(label, 4, (1, 2, 3), (1, 2, 3)), label)


# Intensities


def test_normalised_tissue_has_zero_mean_and_unit_sd():
    image = np.random.default_rng(0).gamma(2, 50, (20, 20, 20)).astype(np.float32)
    image[:8] = 0
    out = z_score(image).channel
    assert out[8:].mean() == pytest.approx(0, abs=1e-4)
    assert out[8:].std() == pytest.approx(1, abs=1e-4)
    assert np.all(out[:8] == out.min())


def test_normalisation_ignores_scale_padding_and_outliers():
    image = np.random.default_rng(0).gamma(2, 50, (20, 20, 20)).astype(np.float32)
    out = z_score(image).channel
    np.testing.assert_allclose(z_score(image * 7).channel, out, atol=1e-4)
    np.testing.assert_allclose(z_score(np.pad(image, 5)).channel[5:-5, 5:-5, 5:-5], out, atol=1e-4)
    bright = image.copy()
    bright[3, 4, 5] = 1e6
    elsewhere = np.arange(8000).reshape(20, 20, 20) != np.ravel_multi_index((3, 4, 5), (20, 20, 20))
    np.testing.assert_allclose(z_score(bright).channel[elsewhere], out[elsewhere], atol=0.02)
    assert z_score(bright).channel.max() < 10


def test_negative_intensities_are_kept_in_order():
    image = np.random.default_rng(0).normal(-200, 300, (12, 12, 12)).astype(np.float32)
    order = np.argsort(image.ravel())
    assert np.all(np.diff(z_score(image).channel.ravel()[order]) >= 0)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_image_is_refused(value: float):
    broken = volume("broken")
    broken.image[:] = value
    with pytest.raises(LossevoError, match="case broken: the image is constant"):
        prepare(cohort(volume("a"), broken))


def test_channels_are_normalised_on_their_own():
    raw = volume("a", shape=(20, 20, 20))
    raw = Volume("a", "a", np.concatenate([raw.image, raw.image[:, ::-1] * 50 + 3]), raw.label, raw.spacing_mm)
    image = prepare(cohort(raw), spacing_mm=(1, 1, 1)).volumes[0].image
    np.testing.assert_allclose(image[0], image[1][::-1], atol=1e-4)


# The whole cohort


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "expected_mm"),
    [
        ((19, 224, 224), (4.0, 1.0, 1.0), 4.0),
        ((19, 381, 381), (4.0, 1.0, 1.0), 4.0),
        ((16, 60, 60), (3.95, 1.0, 1.0), 4.0),
        ((20, 20, 20), (2.0, 2.0, 2.0), 2.0),
        ((128, 128, 128), (1.0, 1.0, 1.0), 2.0),
    ],
)
def test_automatic_spacing(shape, spacing_mm, expected_mm: float):
    raw = Volume("a", "a", np.zeros((1, 1, 1, 1), np.float32), np.broadcast_to(np.uint8(0), shape), spacing_mm)
    assert automatic_spacing_mm(cohort(raw)) == (expected_mm,) * 3


def test_automatic_spacing_is_that_of_the_median_case():
    fine, coarse = volume("a", spacing_mm=(1, 1, 2)), volume("b", seed=1, spacing_mm=(1, 1, 5))
    assert automatic_spacing_mm(cohort(fine, coarse, volume("c", seed=2, spacing_mm=(1, 1, 2)))) == (2.0, 2.0, 2.0)


def test_automatic_spacing_loads_no_case_whose_grid_is_known(write_nnunet_cohort):
    folder = write_nnunet_cohort({"a": (volume().image, volume().label)}, spacing_mm=(1.0, 4.0, 1.0))
    read = read_nnunet(folder)
    (folder / "imagesTr" / "a_0000.nii.gz").unlink()
    assert automatic_spacing_mm(read) == (4.0, 4.0, 4.0)


def test_prepared_volumes_are_sorted_resampled_and_described():
    raw = [volume(name, seed=seed, shape=(6, 16, 16), spacing_mm=(4.0, 1.0, 1.0)) for seed, name in enumerate("cab")]
    calls = []
    prepared = prepare(cohort(*raw), progress=lambda *call: calls.append(call))
    assert calls == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
    assert [v.case_id for v in prepared.volumes] == ["a", "b", "c"]
    assert prepared.subjects == ("a", "b", "c")
    assert prepared.spacing_mm == (4.0, 4.0, 4.0)
    for v in prepared.volumes:
        assert v.image.shape == (1, 6, 4, 4)
        assert v.label.shape == (6, 4, 4)
        assert (v.image.dtype, v.label.dtype) == (np.float32, np.uint8)
        assert v.spacing_mm == (4.0, 4.0, 4.0)


def test_cropping_keeps_every_label_and_is_recorded():
    raw = volume("a", shape=(24, 40, 40), spacing_mm=(2.0, 2.0, 2.0))
    raw.image[:, :, :16] = 0
    raw.label[:] = 0
    raw.label[2:20, 20:36, 8:30] = 1
    raw.label[3, 9, 3] = 1  # outside the patient
    plain, cropped = (
        prepare(cohort(raw), spacing_mm=(2.0, 2.0, 2.0), settings=PreprocessingSettings(crop=crop))
        for crop in ("none", "body")
    )
    (x, y, z) = (slice(*side) for side in cropped.recipe["cases"]["a"]["box"])
    assert y.start == 9
    assert plain.recipe["cases"]["a"]["box"] is None
    np.testing.assert_array_equal(cropped.volumes[0].label, raw.label[x, y, z])
    assert cropped.volumes[0].label.sum() == raw.label.sum()
    assert cropped.recipe["cases"]["a"]["prepared_shape"] == [1, *cropped.volumes[0].label.shape]


def test_a_fat_fraction_keeps_its_values_beside_a_weighted_image():
    raw = volume("a")
    share = np.random.default_rng(5).uniform(0, 0.9, raw.label.shape).astype(np.float32)
    raw = Volume("a", "a", np.stack([raw.image[0], share * 100]), raw.label, raw.spacing_mm)
    options = {"spacing_mm": (1, 1, 1)}
    prepared = prepare(cohort(raw, channel_names=("T2", "PDFF")), **options)
    np.testing.assert_allclose(prepared.volumes[0].image[1], share, rtol=1e-5)
    assert abs(prepared.volumes[0].image[0].mean()) < 1e-3
    assert prepared.recipe["intensities"] == [["T2", "z-score"], ["PDFF", "quantitative"]]
    relative = prepare(
        cohort(raw, channel_names=("T2", "PDFF")), settings=PreprocessingSettings(intensity="z-score"), **options
    )
    assert abs(relative.volumes[0].image[1].mean()) < 1e-3
    # What counts is what is done to a channel, not what it is called.
    assert relative.fingerprint == prepare(cohort(raw, channel_names=("T2", "T1")), **options).fingerprint


def test_the_recipe_is_plain_data_that_says_how_each_case_was_prepared():
    prepared = prepare(cohort(volume("a"), volume("b", seed=1)), spacing_mm=(2, 1, 1))
    recipe = json.loads(json.dumps(prepared.recipe))
    assert recipe == prepared.recipe
    case = recipe["cases"]["b"]
    assert (recipe["spacing_mm"], case["spacing_mm"], case["shape"]) == ([2.0, 1.0, 1.0], [1.0, 1.0, 1.0], [8, 8, 8])
    assert case["labelled_voxels"] == np.count_nonzero(prepared.volumes[1].label)
    numbers = case["intensities"][0]
    image = resample(volume("b", seed=1).image, (1, 1, 1), (2, 1, 1))
    expected = (np.clip(image, numbers["low"], numbers["high"]) - numbers["mean"]) / numbers["sd"]
    np.testing.assert_allclose(prepared.volumes[1].image, expected, atol=1e-5)


def test_duplicate_images_are_refused_naming_both_cases():
    first, second = volume("case_1"), volume("case_7")
    relabelled = Volume("case_7", "case_7", second.image, 1 - second.label, second.spacing_mm)
    for twin in (second, relabelled):
        with pytest.raises(LossevoError, match="case_1 and case_7 hold the same image"):
            prepare(cohort(first, twin))


def test_subject_is_recognised_in_a_renamed_reoriented_recompressed_copy(write_nnunet_cohort):
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 200, (6, 7, 8), np.uint8), rng.integers(0, 2, (6, 7, 8), np.uint8)
    other = rng.integers(0, 200, (6, 7, 8), np.uint8)
    original = prepare(read_nnunet(write_nnunet_cohort({"x": (image, label), "y": (other, label)}, name="original")))
    flipped = np.diag([1.0, -1.0, 1.0, 1.0])
    flipped[1, 3] = 6
    copied = {"renamed": (image[:, ::-1].astype(np.float32), 1 - label[:, ::-1])}
    copy = prepare(read_nnunet(write_nnunet_cohort(copied, name="copy", affine=flipped)))
    common = identities(copy, "renamed") & identities(original, "x")
    assert len(common) == 1
    assert not common & identities(original, "y")


@pytest.mark.parametrize("rescale", ["times 3", "z-scored", "8 bit", "scaled in the header"])
def test_a_subject_is_recognised_by_its_label_where_intensities_were_changed(write_nnunet_cohort, rescale: str):
    def changed(image):
        if rescale == "z-scored":
            return ((image - image.mean()) / image.std()).astype(np.float32)
        if rescale == "8 bit":
            return (255 * (image - image.min()) / np.ptp(image)).astype(np.uint8)
        return image * np.float32(3)

    rng = np.random.default_rng(0)
    image, label = rng.normal(100, 20, (2, 6, 7, 8)).astype(np.float32), rng.integers(0, 3, (2, 6, 7, 8), np.uint8)
    labels = {"background": 0, "L1": 1, "L2": 2}
    cases = {name: (image[n], label[n]) for n, name in enumerate("xy")}
    original = prepare(read_nnunet(write_nnunet_cohort(cases, labels=labels, name="original")))
    flipped = np.diag([1.0, -1.0, 1.0, 1.0])
    flipped[1, 3] = 6
    cases = {"renamed": (changed(image[0])[:, ::-1], label[0][:, ::-1].astype(np.float32))}
    folder = write_nnunet_cohort(cases, labels=labels, name="copy", affine=flipped)
    if rescale == "scaled in the header":
        file = folder / "imagesTr" / "renamed_0000.nii.gz"
        stored = nib.load(file)
        stored.set_data_dtype(np.int16)
        nib.save(stored, file)
    for classes in (labels, MERGED):  # merged, the same voxels are foreground
        copy = read_nnunet(folder)
        copy = prepare(relabel(copy, classes) if classes is MERGED else copy)
        (common,) = identities(copy, "renamed") & identities(original, "x")
        assert common.startswith("label:")
        assert not identities(copy, "renamed") & identities(original, "y")


@pytest.mark.parametrize("value", [0, 1])
def test_an_empty_or_full_label_identifies_nobody(value: int):
    raw, other = volume("a", seed=1), volume("b", seed=2)
    raw.label[:] = value
    hashes = prepare(cohort(raw, other)).subject_hashes
    assert "label:" not in hashes["a"]
    assert "label:" in hashes["b"]


def test_subject_hash_does_not_depend_on_the_names_of_its_cases():
    t1, t2 = volume("t1", seed=1, subject="anna"), volume("t2", seed=2, subject="anna")
    renamed = [Volume(new, "anna", v.image, v.label, v.spacing_mm) for new, v in (("z", t1), ("y", t2))]
    hashes = prepare(cohort(t1, t2)).subject_hashes
    assert list(hashes) == ["anna"]
    assert hashes == prepare(cohort(*renamed)).subject_hashes


def test_fingerprint_changes_with_whatever_changes_the_data_and_only_then():
    raw = [volume("a", seed=1, classes=3), volume("b", seed=2, classes=3)]
    names = ("background", "L1", "L2")
    same = {
        prepare(cohort(*raw, class_names=names)).fingerprint,
        prepare(cohort(*raw[::-1], class_names=names)).fingerprint,
        prepare(cohort(*raw, class_names=names), spacing_mm=(1.0, 1.0, 1.0)).fingerprint,
        prepare(cohort(*raw, class_names=names), spacing_mm=(1, 1, 1)).fingerprint,
    }
    assert len(same) == 1
    relabelled = Volume("b", "b", raw[1].image, (raw[1].label + 1) % 3, raw[1].spacing_mm)
    different = [
        prepare(cohort(*raw, class_names=names), spacing_mm=(2, 1, 1)),
        prepare(cohort(*raw, class_names=("background", "L1", "L3"))),
        prepare(cohort(*raw, class_names=names), settings=PreprocessingSettings(crop="body")),
        prepare(cohort(*raw, class_names=names), settings=PreprocessingSettings(statistics="body")),
        prepare(cohort(*raw, class_names=names), settings=PreprocessingSettings(intensity="quantitative")),
        prepare(cohort(raw[0], class_names=names)),
        prepare(cohort(raw[0], relabelled, class_names=names)),
        prepare(cohort(raw[0], volume("b", seed=3, classes=3), class_names=names)),
    ]
    assert len(same | {prepared.fingerprint for prepared in different}) == 9


def test_a_subject_is_recognised_by_one_channel_of_several():
    """Of water and fat, a copy may hold the water alone."""
    rng = np.random.default_rng(5)
    image = rng.normal(size=(2, 8, 9, 10)).astype(np.float32)
    label = np.zeros((8, 9, 10), np.uint8)
    label[3:5, 3:6, 3:6] = 1
    both = Volume("a", "a", image, label, (4.0, 4.0, 4.0))
    water = Volume("b", "b", image[:1], label, (4.0, 4.0, 4.0))
    of_both = prepare(cohort(both, channel_names=("water", "fat")), spacing_mm=(4.0, 4.0, 4.0)).subject_hashes["a"]
    of_water = prepare(cohort(water), spacing_mm=(4.0, 4.0, 4.0)).subject_hashes["b"]
    assert {*of_water.split(",")} < {*of_both.split(",")}
    assert any(not part.startswith("label:") for part in of_water.split(","))
    fat_too = Volume("c", "c", np.stack([image[0], image[0] + 1]), label, (4.0, 4.0, 4.0))
    with pytest.raises(LossevoError, match="a and c hold the same image"):
        prepare(cohort(both, fat_too, channel_names=("water", "fat")), spacing_mm=(4.0, 4.0, 4.0))


def test_empty_cohort():
    with pytest.raises(LossevoError, match="cohort test: it has no cases"):
        prepare(cohort())


def test_cohort_without_foreground():
    raw = volume("a")
    raw.label[:] = 0
    with pytest.raises(LossevoError, match="cohort test: no label has any foreground at 1×1×1 mm"):
        prepare(cohort(raw))


@pytest.mark.parametrize("spacing_mm", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, float("nan"))])
def test_impossible_spacing(spacing_mm):
    with pytest.raises(LossevoError, match="spacing_mm must be three sizes above 0 mm"):
        prepare(cohort(volume()), spacing_mm=spacing_mm)


@pytest.mark.parametrize("spacing_mm", [(1e-4, 1e-4, 1e-4), (1.0, 1.0, 1e-11), (1e-320, 1.0, 1.0)])
@pytest.mark.parametrize("grid_is_known", [True, False])
def test_a_spacing_too_fine_for_memory_is_refused_before_anything_is_allocated(spacing_mm, grid_is_known: bool):
    raw = volume("a")
    grid = Grid(raw.label.shape, raw.spacing_mm) if grid_is_known else None
    with pytest.raises(LossevoError, match=r"case a: its 8×8×8 voxels of 1×1×1 mm would become .* GB; .* coarser spac"):
        prepare(
            Cohort("test", ("background", "vertebra"), ("MR",), (Case("a", "a", lambda: raw, grid),)),
            spacing_mm=spacing_mm,
        )


def test_a_spacing_that_leaves_nothing_is_not_blamed_on_the_image():
    with pytest.raises(
        LossevoError, match="case a: only 1×1×1 voxels are left at 500×500×500 mm; take a finer spacing"
    ):
        prepare(cohort(volume("a")), spacing_mm=(500.0, 500.0, 500.0))
