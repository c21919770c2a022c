from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.losses import create, from_spec, names
from lossevo.losses.learnable import LEARNABLE
from lossevo.tuning.space import LEARNING_RATE, Space, require_known

BOTH = ("lr", "parameters")


def space_of(loss: str, what=BOTH, bounds=None, **parameters) -> Space:
    spec = {"name": loss, "parameters": parameters} if parameters else {"name": loss}
    return Space.of(spec, what, learning_rate=0.01, bounds=bounds or {})


@pytest.mark.parametrize("loss", names())
def test_every_loss_of_the_catalogue_has_a_learning_rate_and_its_bounded_parameters(loss):
    space = space_of(loss)
    items = [item for item in LEARNABLE.get(loss, ()) if (loss, item.name) != ("dice_focal", "alpha")]
    assert space.names == (LEARNING_RATE, *(item.name for item in items))
    assert space.dimensions[0].low == pytest.approx(0.001)
    assert space.dimensions[0].high == pytest.approx(0.1)


@pytest.mark.parametrize("loss", LEARNABLE)
def test_drawn_values_make_a_loss_that_has_them(loss):
    """Against the attributes that the loss itself computes with, over the whole range, both ends included."""
    space, rng = space_of(loss), np.random.default_rng(3)
    for share in (0.0, 1.0, *rng.uniform(size=5)):
        values = space.rounded({d.name: d.low + share * (d.high - d.low) for d in space.dimensions})
        spec, rate = space.placed(values)
        made = from_spec(spec)
        assert rate == values[LEARNING_RATE]
        for item in (item for item in LEARNABLE[loss] if item.name in space.names):
            for place in item.value_places:
                owner, _, attribute = place.rpartition(".")
                assert float(getattr(made.get_submodule(owner), attribute)) == pytest.approx(values[item.name])
            if item.partner:
                default = create(loss)
                whole = sum(float(getattr(default, name)) for name in (item.name, item.partner))
                assert float(getattr(made, item.partner)) == pytest.approx(whole - values[item.name], abs=1e-6)


@pytest.mark.parametrize("loss", names())
def test_the_start_is_the_untuned_loss(loss):
    space = space_of(loss)
    assert space.placed(space.start) == ({"name": loss}, 0.01)


def test_a_weight_of_foreground_that_is_not_given_begins_where_it_changes_nothing_but_the_scale():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randint(3, (2, 1, 4, 5))
    start = space_of("focal").start
    weighed = create("focal", gamma=start["gamma"], alpha=start["alpha"])(logits, label)
    assert 2 * weighed == pytest.approx(create("focal")(logits, label).item())


def test_a_weight_inside_a_sum_is_tuned_where_it_is_given():
    assert "alpha" not in space_of("dice_focal").names
    assert "alpha" in space_of("dice_focal", alpha=0.3).names


def test_what_is_chosen_of_a_loss_stays_and_decides_the_start():
    space = space_of("focal_tversky", gamma=2.0, w_fp=0.25, w_fn=0.5)
    start = space.start
    assert (start["gamma"], start["w_fp"]) == (2.0, 0.25)
    spec, _ = space.placed({**start, "w_fp": 0.5})
    assert spec["parameters"] == {"gamma": 2.0, "w_fp": 0.5, "w_fn": 0.25}


def test_an_expression_has_a_learning_rate_alone():
    from lossevo.losses import expression_of

    spec = {"expression": expression_of("dice").to_json()}
    space = Space.of(spec, BOTH, learning_rate=0.01, bounds={})
    assert space.names == (LEARNING_RATE,)
    assert space.placed({LEARNING_RATE: 0.02}) == (spec, 0.02)


def test_only_what_is_asked_for_is_tuned():
    assert space_of("tversky", ("lr",)).names == (LEARNING_RATE,)
    assert space_of("tversky", ("parameters",)).names == ("w_fp",)
    assert space_of("tversky", ("parameters",)).placed({"w_fp": 0.5})[1] is None
    assert space_of("dice", ("parameters",)).names == ()


def test_what_lies_on_both_sides_of_one_is_searched_by_its_logarithm():
    by_logarithm = {(loss, d.name) for loss in LEARNABLE for d in space_of(loss).dimensions[1:] if d.by_logarithm}
    assert by_logarithm == {("asymmetric_similarity", "beta"), ("focal_tversky", "gamma"), ("exp_log", "gamma")}


def test_values_have_four_significant_digits_and_stay_within_bounds():
    space = space_of("tversky", bounds={"w_fp": (0.123456, 0.7)})
    assert space.rounded({LEARNING_RATE: 0.0123456, "w_fp": 0.1}) == {LEARNING_RATE: 0.01235, "w_fp": 0.123456}


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"w_fp": (0.5, 1.2)}, r"--bounds: w_fp of tversky from 0.5 to 1.2; expected .* within 0.01 to 0.99"),
        ({"w_fp": (0.5, 0.2)}, "expected a lower and a higher bound within"),
        ({"learning_rate": (0.0, 0.1)}, "learning_rate of tversky from 0 to 0.1; expected .* above 0"),
        ({"w_fp": (0.5, 0.9)}, "w_fp of tversky is 0.3, outside the bounds 0.5 to 0.9 within which it is tuned"),
        ({"w_fp": (float("nan"), 0.9)}, "from nan to 0.9"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(bounds, message):
    with pytest.raises(LossevoError, match=message):
        space_of("tversky", bounds=bounds)


def test_a_parameter_outside_its_bounds_is_refused():
    with pytest.raises(LossevoError, match=r"w_fp of tversky is 0.001, outside the bounds 0.01 to 0.99"):
        space_of("tversky", w_fp=0.001, w_fn=0.999)


def test_bounds_of_what_no_loss_has_are_refused():
    spaces = [space_of("dice"), space_of("tversky")]
    require_known({"w_fp": (0.1, 0.9)}, spaces)
    with pytest.raises(
        LossevoError, match=r"--bounds: w_fb is not tuned \(did you mean 'w_fp'\?\); tuned are learning_rate, w_fp"
    ):
        require_known({"w_fb": (0.1, 0.9)}, spaces)


def test_the_documented_bounds_are_those_of_the_losses():
    documented = {}
    for line in (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `") and " to " in line:
            loss, bounds = (cell.strip() for cell in line.strip("| ").split(" | "))
            documented[loss.strip("`")] = re.findall(r"`(\w+)` ([\d.]+) to ([\d.]+)", bounds)
    known = {
        loss: [(d.name, f"{d.low:.3g}", f"{d.high:.3g}") for d in space_of(loss, ("parameters",)).dimensions]
        for loss in LEARNABLE
    }
    assert documented == known


def test_a_learning_rate_of_its_own_stays_where_it_is_not_tuned():
    def space(what):
        return Space.of({"name": "tversky"}, what, learning_rate=0.01, bounds={}, own_rate=0.002)

    alone = space(("parameters",))
    assert alone.placed(alone.start) == ({"name": "tversky"}, 0.002)
    both = space(BOTH)
    assert (both.dimensions[0].start, both.dimensions[0].high) == (0.002, pytest.approx(0.02))
