from __future__ import annotations

import numpy as np
import pytest

from lossevo.data.intensities import clip_limits, fat_fraction, mode_of, z_score
from lossevo.errors import LossevoError


@pytest.mark.parametrize("name", ["PDFF", "pdff", "FF", "fat fraction", "FATFRACTION", "fat_fraction (%)", "MR PDFF"])
def test_a_fat_fraction_is_known_by_its_name(name: str):
    assert mode_of(name) == "quantitative"


@pytest.mark.parametrize("name", ["T2", "T1 TSE", "fat", "water", "FLAIR diff", "offset", "channel 0"])
def test_other_channels_are_relative(name: str):
    assert mode_of(name) == "z-score"


@pytest.mark.parametrize("unit", [1, 100, 1000])
def test_a_fat_fraction_means_the_same_in_every_unit_and_case(unit: int):
    share = np.random.default_rng(0).uniform(0, 0.97, (9, 9, 9)).astype(np.float32)
    np.testing.assert_allclose(fat_fraction(share * unit).channel, share, rtol=1e-5)
    lean = share * 0.5  # another case, without fat: its values are not stretched
    np.testing.assert_allclose(fat_fraction(lean * unit).channel, lean, rtol=1e-5)
    assert fat_fraction(share * unit).numbers == {"low": 0.0, "high": unit}


def test_noise_beyond_the_scale_is_clipped():
    share = np.random.default_rng(0).normal(0.5, 0.2, (20, 20, 20)).astype(np.float32)
    share[0, 0, 0] = -40
    share[1, 1, 1] = 60
    out = fat_fraction(share).channel
    assert (out.min(), out.max()) == (0, 1)
    np.testing.assert_array_equal(
        out[5:][(share[5:] > 0) & (share[5:] < 1)], share[5:][(share[5:] > 0) & (share[5:] < 1)]
    )


def test_what_is_no_fat_fraction_is_refused():
    with pytest.raises(LossevoError, match=r"99\.5 percentile is 2986.*name the channel otherwise"):
        fat_fraction(np.linspace(0, 3001, 1000, dtype=np.float32).reshape(10, 10, 10))
    with pytest.raises(LossevoError, match="constant"):
        fat_fraction(np.full((3, 3, 3), 0.5, np.float32))


def test_the_tissue_given_is_what_is_measured():
    rng = np.random.default_rng(0)
    image = rng.normal(20, 3, (20, 20, 20)).astype(np.float32)
    body = np.zeros(image.shape, bool)
    body[5:] = True
    image[body] = rng.normal(200, 30, body.sum())
    scaled = z_score(image, body)
    assert scaled.channel[body].mean() == pytest.approx(0, abs=1e-4)
    assert scaled.channel[body].std() == pytest.approx(1, abs=1e-4)
    inner = np.clip(image[body], scaled.numbers["low"], scaled.numbers["high"])
    assert scaled.numbers["mean"] == pytest.approx(inner.mean(), rel=1e-5)
    assert scaled.numbers["sd"] == pytest.approx(inner.std(), rel=1e-4)


def test_limits_of_clipping():
    assert clip_limits(np.arange(1001, dtype=np.float32)) == (5, 995)
    assert clip_limits(np.empty(0, np.float32)) == (0, 0)
