from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lossevo.training import Measurement

VALUES = {
    "dice": {"c": {"vertebra": None, "disc": 0.1 + 0.2}, "d": {"vertebra": 0.5, "disc": 0.7}},
    "nsd@2mm": {"c": {"vertebra": None, "disc": 1.0}, "d": {"vertebra": 0.0, "disc": 0.5}},
}
MEASUREMENT = Measurement(VALUES, curve=[[1, 0.7]], validation_curve=[[10, 0.45]], seconds=1.5)


@pytest.mark.parametrize(
    "measurement",
    [
        MEASUREMENT,
        replace(
            MEASUREMENT,
            trajectory=[{"step": 0, "w_fp": 0.3}, {"step": 5, "w_fp": 0.4}],
            false_voxels={"c": {"vertebra": 12}},
            cut_off={"d": ["disc"]},
        ),
    ],
)
def test_it_survives_json(measurement: Measurement):
    assert Measurement.from_payload(json.loads(json.dumps(measurement.to_payload()))) == measurement


def test_what_is_mostly_empty_is_left_out():
    assert [*MEASUREMENT.to_payload()] == ["values", "curve", "validation_curve", "seconds"]


def test_means_are_over_the_classes_that_a_case_has_and_then_over_cases():
    assert MEASUREMENT.mean("dice") == pytest.approx((0.3 + 0.6) / 2)
    assert MEASUREMENT.mean("nsd@2mm") == pytest.approx((1.0 + 0.25) / 2)
    with pytest.raises(ValueError, match=r"hd95 was not measured, but dice, nsd@2mm"):
        MEASUREMENT.mean("hd95")
