from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from lossevo.data.augmentation import (
    GAMMAS,
    LARGEST_ANGLE_DEGREES,
    PROBABILITY,
    SCALES,
    Augmentation,
    context_size,
    draw,
)
from lossevo.losses.signed_distance import signed_distance_map

SIZE = (24, 64, 56)
SPACING_MM = (2.0, 1.0, 1.25)
CONTEXT = context_size(SIZE, SPACING_MM)


def offsets_mm(shape):
    axes = [(torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * s for n, s in zip(shape, SPACING_MM, strict=True)]
    return torch.meshgrid(*axes, indexing="ij")


def ellipsoid(shape, *, angle: float = 0.0, scale: float = 1.0, centre_mm=(2.0, 5.0, -4.0)):
    """A body of 26 × 36 × 20 mm, turned about the left-right axis through the patch's centre, then scaled."""
    x, y, z = (part / scale for part in offsets_mm(shape))
    y, z = math.cos(angle) * y + math.sin(angle) * z, math.cos(angle) * z - math.sin(angle) * y
    x, y, z = (part - centre for part, centre in zip((x, y, z), centre_mm, strict=True))
    return ((x / 13) ** 2 + (y / 18) ** 2 + (z / 10) ** 2 <= 1).long()


def distances_mm(label):
    one_hot = torch.nn.functional.one_hot(label, 2).movedim(-1, 0)[None]
    return signed_distance_map(one_hot, SPACING_MM)


def nothing(batch: int = 1):
    """Draws of one step by which nothing happens."""
    kind = draw(0, steps=1, batch_size=batch)
    ones, zeros = np.ones((1, batch)), np.zeros((1, batch))
    return dataclasses.replace(
        kind, angle=zeros, scale=ones, gamma=ones, contrast=ones, bias=0 * kind.bias, noise_sd=zeros
    )


def augment(draws, image, label, distance=None, step: int = 0):
    return Augmentation(SIZE, SPACING_MM, 2)(image, label, distance, draws, step)


@pytest.fixture
def patch():
    """Image (2, 2, *CONTEXT) with values of all signs, label and distances of an ellipsoid."""
    label = ellipsoid(CONTEXT)[None, None].expand(2, 1, *CONTEXT).to(torch.uint8)
    image = torch.randn(2, 2, *CONTEXT, generator=torch.Generator().manual_seed(0))
    return image, label, distances_mm(label[0, 0].long()).expand(2, 2, *CONTEXT).half()


def test_a_longer_training_begins_with_the_draws_of_a_shorter_one_and_another_seed_differs():
    long, short, other = (
        draw(3, steps=50, batch_size=4),
        draw(3, steps=20, batch_size=4),
        draw(4, steps=50, batch_size=4),
    )
    for field in dataclasses.fields(long):
        values = getattr(long, field.name)
        np.testing.assert_array_equal(values[:20], getattr(short, field.name))
        assert not np.array_equal(values, getattr(other, field.name))


def test_draws_lie_in_their_ranges_and_strike_as_often_as_said():
    draws = draw(0, steps=500, batch_size=4)
    for values, idle, low, high in (
        (np.degrees(draws.angle), 0, -LARGEST_ANGLE_DEGREES, LARGEST_ANGLE_DEGREES),
        (draws.scale, 1, *SCALES),
        (draws.gamma, 1, *GAMMAS),
    ):
        struck = values[values != idle]
        assert low <= struck.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < struck.max() <= high
        assert struck.size / values.size == pytest.approx(PROBABILITY, abs=0.04)
    np.testing.assert_array_equal(draws.angle != 0, draws.scale != 1)


def test_when_nothing_happens_the_centre_is_cut_out(patch):
    image, label, distance = patch
    low = [(have - want) // 2 for have, want in zip(CONTEXT, SIZE, strict=True)]
    centre = tuple(slice(first, first + want) for first, want in zip(low, SIZE, strict=True))
    out = augment(nothing(2), image, label, distance)
    for got, whole in zip(out, patch, strict=True):
        torch.testing.assert_close(got, whole[:, :, *centre], rtol=0, atol=0)
        assert got.dtype == whole.dtype


@pytest.mark.parametrize("size", [SIZE, (16, 56, 56), (1, 8, 40), (8, 8, 8)])
@pytest.mark.parametrize("angle", [-1.0, -0.5, 0.0, 1.0])
def test_no_turned_or_shrunk_patch_reaches_beyond_what_was_cut(size, angle: float):
    context = context_size(size, SPACING_MM)
    grid = Augmentation(size, SPACING_MM, 2)._grid(
        np.array([math.radians(LARGEST_ANGLE_DEGREES) * angle]), np.array([SCALES[0]]), context
    )
    used = grid.abs().amax(dim=(0, 1, 2, 3)).flip(0)  # of X, Y, Z
    for axis in range(3):
        assert used[axis] <= 1 + 1e-9 or (context[axis] == 1 and used[axis] == 0)
    if angle == 1.0:
        smaller = [n - 2 for n in context]
        assert any(  # not larger than needed: a voxel less on each side would not do
            used[axis] * (context[axis] - 1) > smaller[axis] - 1 for axis in range(3)
        )


@pytest.mark.parametrize(("degrees", "scale"), [(15.0, 1.0), (-11.0, 0.9), (0.0, 1.1), (7.0, 1.07)])
def test_turn_and_scale_are_in_millimetres_and_the_distance_map_follows(degrees: float, scale: float):
    angle = math.radians(degrees)
    label = ellipsoid(CONTEXT)[None, None].to(torch.uint8)
    image = label.float()
    draws = dataclasses.replace(nothing(), angle=np.array([[angle]]), scale=np.array([[scale]]))
    out_image, out_label, out_mm = augment(draws, image, label, distances_mm(label[0, 0].long()))

    expected = ellipsoid(SIZE, angle=angle, scale=scale)
    dice = 2 * (out_label[0, 0] * expected).sum() / (out_label.sum() + expected.sum())
    assert dice > 0.93
    assert out_label.sum() / expected.sum() == pytest.approx(1, abs=0.07)
    torch.testing.assert_close((out_image[0, 0] > 0.5 - 5e-6).long(), out_label[0, 0].long())

    # The distances of what came out, recomputed, in a patch wide enough that nothing is cut off.
    recomputed = distances_mm(out_label[0, 0].long())
    error_mm = (out_mm - recomputed).abs()
    assert error_mm.mean() < 0.2 * max(SPACING_MM)
    assert error_mm.quantile(0.99) < 0.6 * max(SPACING_MM)
    inside = torch.nn.functional.one_hot(out_label[:, 0].long(), 2).movedim(-1, 1) > 0
    assert (out_mm[inside] <= 0).all()
    assert (out_mm[~inside] >= 0).all()


def test_each_intensity_transform_against_its_formula(patch):
    image, label, _ = (part[:1] for part in patch)
    plain = augment(nothing(), image, label)[0]
    low, high = plain.amin(dim=(2, 3, 4), keepdim=True), plain.amax(dim=(2, 3, 4), keepdim=True)

    gamma = augment(dataclasses.replace(nothing(), gamma=np.array([[1.4]])), image, label)[0]
    torch.testing.assert_close(gamma, ((plain - low) / (high - low)) ** 1.4 * (high - low) + low)

    contrast = augment(dataclasses.replace(nothing(), contrast=np.array([[0.8]])), image, label)[0]
    mean = plain.mean(dim=(2, 3, 4), keepdim=True)
    torch.testing.assert_close(contrast, (mean + 0.8 * (plain - mean)).clamp(low, high))

    bias = augment(dataclasses.replace(nothing(), bias=np.full((1, 1, 4, 4, 4), 0.2)), image, label)[0]
    torch.testing.assert_close(bias, low + (plain - low) * math.exp(0.2))

    noise_sd = np.array([[0.25]])
    noisy = augment(dataclasses.replace(nothing(), noise_sd=noise_sd), image, label)[0]
    added = (noisy - plain) / plain.std(dim=(2, 3, 4), keepdim=True)
    assert added.std() == pytest.approx(0.25, rel=0.03)
    assert added.mean() == pytest.approx(0, abs=0.01)
    again = augment(dataclasses.replace(nothing(), noise_sd=noise_sd), image, label)[0]
    torch.testing.assert_close(again, noisy, rtol=0, atol=0)


def test_a_sample_does_not_depend_on_its_neighbours_nor_on_whether_distances_are_asked_for(patch):
    image, label, distance = patch
    draws = draw(1, steps=12, batch_size=2)
    state = torch.random.get_rng_state()
    for step in range(12):
        both, both_label, both_mm = augment(draws, image, label, distance, step)
        without, without_label, none = augment(draws, image, label, None, step)
        assert none is None
        torch.testing.assert_close(without, both, rtol=0, atol=0)
        torch.testing.assert_close(without_label, both_label, rtol=0, atol=0)
        swapped = image.clone()
        swapped[1] = 0
        torch.testing.assert_close(augment(draws, swapped, label, distance, step)[0][0], both[0], rtol=1e-5, atol=1e-5)
        assert both.isfinite().all()
        assert both_mm.isfinite().all()
    torch.testing.assert_close(torch.random.get_rng_state(), state)  # the global generator is left alone
