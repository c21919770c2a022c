"""The registry: names, descriptions, parameters, and losses from plain data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import SegmentationLoss, create, describe, from_spec, names, parameters

LOGITS = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.ones(1, 1, 4, 5, dtype=torch.uint8)


def test_the_losses_of_the_literature_are_there():
    assert names() == (
        *("cross_entropy", "focal", "topk"),
        *("dice", "generalized_dice", "jaccard", "tversky"),
        *("asymmetric_similarity", "sensitivity_specificity", "lovasz"),
        *("boundary", "hausdorff_dt", "hausdorff_dt_one_sided"),
        *("hausdorff_erosion", "hausdorff_convolution", "log_hausdorff_dt"),
        *("dice_ce", "dice_focal", "dice_topk", "focal_tversky", "unified_focal"),
        *("generalized_dice_boundary", "dice_hausdorff", "exp_log", "cldice"),
        *("softadapt", "cov_weighting", "uncertainty_weighting", "adaptive"),
        *("baikal", "baikal_cma"),
    )


@pytest.mark.parametrize("name", names())
def test_every_loss_is_described_and_has_its_papers_defaults(name):
    description = describe(name)
    assert description.name == name
    assert description.family in {"distribution", "region", "distance", "compound", "adaptive", "learned"}
    assert all([description.summary, description.formula, description.source])
    loss = create(name, **parameters(name))
    assert isinstance(loss, SegmentationLoss)
    assert loss(LOGITS, LABELS) == create(name)(LOGITS, LABELS)


def test_parameters_and_their_defaults():
    assert parameters("tversky") == {
        "w_fp": 0.3,
        "w_fn": 0.7,
        "batch": False,
        "include_background": False,
        "absent": "count",
        "smooth": 1e-5,
    }
    assert parameters("baikal") == {}


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "dice"},
        {"name": "tversky", "parameters": {"w_fp": 0.9, "w_fn": 0.1}},
        {"name": "cross_entropy", "parameters": {"weight": [1, 2, 3]}},
        {"name": "boundary", "parameters": {"spacing_mm": [4.0, 1.0]}},
    ],
)
def test_a_spec_is_plain_data(spec):
    loss = from_spec(json.loads(json.dumps(spec)))
    assert loss(LOGITS, LABELS) == create(spec["name"], **spec.get("parameters", {}))(LOGITS, LABELS)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "tverski"}, r"unknown loss 'tverski' \(did you mean 'tversky'\?\); known: cross_entropy, focal"),
        ({"name": ["dice"]}, "unknown loss"),
        (
            {"name": "tversky", "parameters": {"w_pf": 0.3}},
            r"loss 'tversky' has no parameter 'w_pf' \(did you mean 'w_fp'\?\); it takes w_fp, w_fn, batch",
        ),
        ({"name": "baikal", "parameters": {"gamma": 1}}, "has no parameter 'gamma'; it takes none"),
        ({"name": "dice", "parameters": [1]}, "expected a mapping"),
        ({"name": "dice", "parameters": {1: 2}}, "expected a mapping"),
        ({"name": "dice", "params": {}}, "is none of"),
        ({"name": "dice", "expression": {}}, "is none of"),
        ({}, "is none of"),
        ("dice", "is none of"),
        (None, "is none of"),
    ],
)
def test_a_spec_that_is_none_is_refused(spec, message):
    with pytest.raises(LossevoError, match=message):
        from_spec(spec)


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("focal", {"gamma": -1}, "gamma is -1, expected a number >= 0"),
        ("focal", {"gamma": float("nan")}, "gamma is nan"),
        ("focal", {"gamma": float("inf")}, "finite"),
        ("focal", {"gamma": "2"}, "gamma is '2'"),
        ("focal", {"gamma": True}, "gamma is True"),
        ("focal", {"alpha": 1.5}, "alpha is 1.5, expected a number from 0 to 1"),
        ("focal", {"alpha": [1, -1, 1]}, "alpha is .* one number >= 0 per class"),
        ("focal", {"alpha": "balanced"}, "alpha is 'balanced'"),
        ("cross_entropy", {"weight": [0, 0, 0]}, "not all 0"),
        ("cross_entropy", {"weight": [1, float("nan"), 0]}, "weight is"),
        ("cross_entropy", {"weight": 2.0}, "weight is 2.0"),
        ("cross_entropy", {"label_smoothing": 1.1}, "label_smoothing is 1.1, expected a number from 0 to 1"),
        ("dice", {"batch": 1}, "batch is 1, expected true or false"),
        ("dice", {"smooth": -1e-5}, "smooth is -1e-05"),
        ("dice", {"absent": "ignore"}, "absent is 'ignore', expected 'count' or 'skip'"),
        ("sensitivity_specificity", {"w_sensitivity": 1.5}, "w_sensitivity is 1.5, expected a number from 0 to 1"),
        ("topk", {"fraction": 0}, "fraction is 0, expected a number from 0.0001 to 1"),
        ("exp_log", {"frequencies": [0.5, 0.5, 0]}, "frequencies is .* one number > 0 per class"),
        ("tversky", {"w_fn": None}, "w_fn is None"),
        ("focal_tversky", {"gamma": 0}, "gamma is 0"),
        ("dice_ce", {"w_ce": -1}, "w_ce is -1"),
        ("boundary", {"spacing_mm": 1.0}, "spacing_mm is 1.0"),
        ("boundary", {"spacing_mm": ["a"]}, "spacing_mm is"),
    ],
)
def test_a_value_that_a_parameter_cannot_have_is_refused(name, chosen, message):
    with pytest.raises(LossevoError, match=message):
        create(name, **chosen)


@pytest.mark.parametrize("chosen", [{"weight": [1.0, 2.0]}, {"weight": [1.0, 2.0, 3.0, 4.0]}])
def test_one_weight_per_class(chosen):
    with pytest.raises(LossevoError, match=r"weight has \d values for 3 classes"):
        create("cross_entropy", **chosen)(LOGITS, LABELS)


ODD = (None, "", [], {}, "x" * 100_000, -1, 10**400, math.nan, [1], [10**400, 1], [[], []], ["dice", "nope"], b"x", 1j)
ODD_TENSORS = (np.array([1.0, 2.0]), torch.ones(2).cfloat(), torch.ones(2, 2))


@pytest.mark.parametrize("name", names())
def test_whatever_a_parameter_is_given_is_taken_or_refused_in_a_line(name):
    said = [""]
    for parameter in parameters(name):
        for value in (*ODD, *ODD_TENSORS):
            try:
                create(name, **{parameter: value})
            except LossevoError as mistake:
                said.append(str(mistake))
    assert not any("\n" in message for message in said)
    assert max(map(len, said)) < 1000


def test_a_specification_of_any_size_is_refused_in_a_line():
    for spec in (*ODD, {"name": "x" * 10**6}, {"name": "dice", "parameters": {"x" * 10**6: 1}}, {"name": ["dice"]}):
        with pytest.raises(LossevoError) as caught:
            from_spec(spec)
        assert len(str(caught.value)) < 1000
