from __future__ import annotations

import pytest

from lossevo.training import TaskSettings
from lossevo.training.schedule import rates_of


def test_one_cycle_rises_and_falls_over_the_training() -> None:
    settings = TaskSettings()
    rates = rates_of(settings, 40)
    assert len(rates) == 40
    assert max(rate.learning_rate for rate in rates) == pytest.approx(settings.learning_rate, rel=1e-2)
    assert rates[0].learning_rate == pytest.approx(settings.learning_rate / 25)
    assert rates[-1].learning_rate < 1e-6
    # OneCycleLR turns Adam's momentum against the learning rate.
    assert min(rate.beta1 for rate in rates) == pytest.approx(0.85, abs=1e-3)
    assert {rate.weight_decay for rate in rates} == {settings.weight_decay}


@pytest.mark.parametrize("warmup_steps", [0, 1, 4, 60])
def test_constant_rises_to_its_peak_and_stays(warmup_steps: int) -> None:
    settings = TaskSettings(schedule="constant", warmup_steps=warmup_steps, learning_rate=0.5)
    rates = rates_of(settings, 50)
    expected = [0.5 * min(1.0, (step + 1) / max(1, warmup_steps)) for step in range(50)]
    assert [rate.learning_rate for rate in rates] == pytest.approx(expected, rel=1e-9)
    assert {(rate.beta1, rate.beta2, rate.weight_decay) for rate in rates} == {(0.9, 0.999, settings.weight_decay)}


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_a_longer_constant_training_begins_with_the_rates_of_a_shorter_one(steps: int) -> None:
    settings = TaskSettings(schedule="constant", warmup_steps=5)
    assert rates_of(settings, 100)[:steps] == rates_of(settings, steps)


@pytest.mark.parametrize(("share", "steps"), [(0.1, 10), (0.2, 5), (0.25, 4), (0.5, 2), (0.05, 20), (0.04, 25)])
def test_a_warm_up_of_one_step_begins_low_and_then_falls(share: float, steps: int) -> None:
    rates = [rate.learning_rate for rate in rates_of(TaskSettings(warmup_share=share), steps)]
    peak = TaskSettings().learning_rate
    assert rates[0] == pytest.approx(peak / 25)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert all(0 < rate <= peak for rate in rates)
