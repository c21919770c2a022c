from __future__ import annotations

import json
from typing import Any

import pytest

from lossevo.errors import LossevoError
from lossevo.training import TrainingRequest, TrainingResult

REQUEST: dict[str, Any] = {
    "loss": {"name": "tversky", "parameters": {"w_fp": 0.3}},
    "train": ("a", "b"),
    "validate": ("c",),
    "budget_steps": 10,
    "seed": 3,
}


def test_request_survives_json():
    request = TrainingRequest(**REQUEST)

    assert TrainingRequest.from_payload(json.loads(json.dumps(request.to_payload()))) == request


def test_result_survives_json():
    result = TrainingResult(
        score=0.1 + 0.2,
        cases={"c": {"vertebra": None, "disc": 0.3}},
        curve=[[1, 0.7]],
        validation_curve=[[10, 0.30000000000000004]],
        seconds=1.5,
        false_voxels={"c": {"vertebra": 12}},
    )

    assert TrainingResult.from_payload(json.loads(json.dumps(result.to_payload()))) == result


def test_a_trajectory_survives_json_and_without_one_a_result_is_written_as_ever():
    result = TrainingResult(score=0.5, cases={}, curve=[], validation_curve=[], seconds=1.0)
    assert [*result.to_payload()] == ["score", "cases", "curve", "validation_curve", "seconds"]
    assert TrainingResult.from_payload(result.to_payload()).trajectory == []
    result = TrainingResult(
        **{**result.to_payload(), "trajectory": [{"step": 0, "w_fp": 0.3}, {"step": 5, "w_fp": 0.4}]}
    )
    assert TrainingResult.from_payload(json.loads(json.dumps(result.to_payload()))) == result


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"train": ()}, "at least one training"),
        ({"validate": ()}, "one validation subject"),
        ({"validate": ("c", "b")}, r"\['b'\] are both trained and validated on"),
        ({"budget_steps": 0}, "budget_steps is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_requests_that_make_no_sense_are_refused(change: dict[str, Any], complaint: str):
    with pytest.raises(LossevoError, match=complaint):
        TrainingRequest(**(REQUEST | change))
