from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.losses import names
from lossevo.training import TrainingData, Trial, make_training_data
from lossevo.training.curve import LossCurve
from lossevo.training.trainer import Trainer, train
from tests.trials import trial_of

CPU = torch.device("cpu")
SUBJECTS = tuple(f"ball-{number:02d}" for number in range(8))


def request(loss: str = "dice_ce", *, steps: int = 6, seed: int = 0, validate: int = 2) -> Trial:
    spec = {"name": loss, "parameters": {}}
    return trial_of(spec, SUBJECTS[validate:], SUBJECTS[:validate], steps, seed)


class Recorder(nn.Module):
    """Cross-entropy (or ``spoil(step, cross-entropy)``) that keeps all it was called with."""

    def __init__(self, *, uses_distance_map: bool = False, scale: float = 1.0, spoil=lambda step, value: value):
        super().__init__()
        self.uses_distance_map, self.scale, self.spoil = uses_distance_map, scale, spoil
        self.logits: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []
        self.distance_maps: list[torch.Tensor | None] = []
        self.steps: list[int] = []

    def use_spacing(self, spacing_mm):
        self.spacing_mm = spacing_mm

    def step(self):
        self.steps.append(len(self.logits))

    def trajectory(self):
        return []

    def forward(self, logits, target, **optional):
        self.logits.append(logits.detach().clone())
        self.targets.append(target)
        self.distance_maps.append(optional.get("distance_map"))
        value = self.scale * nn.functional.cross_entropy(logits, target[:, 0])
        return self.spoil(len(self.logits), value)


@pytest.fixture
def train_recording(monkeypatch, balls):
    """Trains with a Recorder in place of what the request's spec names."""

    def run(recorder: Recorder, steps: int = 6, seed: int = 0):
        monkeypatch.setattr("lossevo.training.session.from_spec", lambda spec, modules: recorder)
        return Trainer(balls, device=CPU).train(request(steps=steps, seed=seed))

    return run


@pytest.mark.parametrize("loss", ["dice_ce", "cross_entropy", "tversky"])
def test_learns_a_bright_ball(balls, loss: str):
    result = Trainer(balls, device=CPU).train(request(loss, steps=100))

    assert result.mean("dice") > 0.8
    assert [step for step, _ in result.validation_curve] == [34, 67, 100]
    assert result.validation_curve[-1][1] == result.mean("dice")
    assert set(result.values["dice"]) == set(SUBJECTS[:2])
    assert result.mean("dice") == pytest.approx(np.mean([case["ball1"] for case in result.values["dice"].values()]))
    assert len(result.curve) <= 60
    assert result.curve[-1][0] == 100
    assert result.curve[-1][1] < result.curve[0][1]


def test_learns_with_the_se_norm_network_and_spline_voting(make_balls, small_settings):
    settings = small_settings.model_copy(
        update={"network": "se_norm_unet", "channels": (4, 8), "strides": (2,), "fusion": "bspline"}
    )
    data = make_training_data(make_balls(shape=(18, 30, 24)), settings)

    assert Trainer(data, device=CPU).train(request(steps=60)).mean("dice") > 0.8


def test_two_channels_three_classes_and_volumes_that_fit_neither_stride_nor_patch(make_balls, small_settings):
    data = make_training_data(make_balls(shape=(17, 26, 27), channels=2, classes=3), small_settings)

    result = Trainer(data, device=CPU).train(request(steps=120))

    assert all(set(case) == {"ball1", "ball2"} for case in result.values["dice"].values())
    assert result.mean("dice") > 0.6


def payload_without_time(result) -> dict:
    return {key: value for key, value in result.to_payload().items() if key != "seconds"}


def test_the_same_request_gives_the_same_bits_whatever_ran_before(balls):
    trainer = Trainer(balls, device=CPU)
    torch.manual_seed(1)
    first = payload_without_time(trainer.train(request(steps=20)))
    trainer.train(request("tversky", steps=5, seed=9))
    torch.manual_seed(2)

    assert payload_without_time(trainer.train(request(steps=20))) == first
    assert payload_without_time(Trainer(balls, device=CPU).train(request(steps=20))) == first
    assert payload_without_time(trainer.train(request(steps=20, seed=1))) != first


def test_losses_share_initial_weights_and_batches(train_recording):
    one, other, reseeded = Recorder(), Recorder(scale=-3.0), Recorder()
    train_recording(one)
    train_recording(other)
    train_recording(reseeded, seed=1)

    assert torch.equal(one.logits[0], other.logits[0])
    assert not torch.equal(one.logits[-1], other.logits[-1])
    assert all(torch.equal(a, b) for a, b in zip(one.targets, other.targets, strict=True))
    assert not torch.equal(one.logits[0], reseeded.logits[0])


def test_a_longer_training_sees_the_same_batches_first(train_recording):
    short, long = Recorder(), Recorder()
    train_recording(short, steps=4)
    train_recording(long, steps=8)

    assert all(torch.equal(a, b) for a, b in zip(short.targets, long.targets[:4], strict=True))


def test_the_global_generator_is_left_alone(balls):
    before = torch.get_rng_state()
    Trainer(balls, device=CPU).train(request(steps=2))

    assert torch.equal(torch.get_rng_state(), before)


def test_distance_map_is_given_to_losses_that_ask_for_it(train_recording):
    plain, asking = Recorder(), Recorder(uses_distance_map=True)
    train_recording(plain, steps=2)
    train_recording(asking, steps=2)

    assert plain.distance_maps == [None, None]
    for distance_mm, target in zip(asking.distance_maps, asking.targets, strict=True):
        assert distance_mm.shape == (2, 2, 16, 24, 24)
        assert torch.equal(distance_mm[:, 1:] < 0, target == 1)


@pytest.mark.parametrize("steps", [3, 100, 130])
def test_a_losss_schedule_advances_by_a_hundred_epochs_spread_over_the_training(train_recording, steps: int):
    recorder = Recorder()
    train_recording(recorder, steps=steps)

    assert recorder.steps == [-(-steps * epoch // 100) for epoch in range(1, 101)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step(train_recording, value: float):
    with pytest.raises(FloatingPointError, match=f"training loss is {value} at step 3"):
        train_recording(Recorder(spoil=lambda step, loss: loss * value if step == 3 else loss))


def test_a_gradient_that_is_not_finite_names_its_step(train_recording):
    def spoil(step: int, loss: torch.Tensor) -> torch.Tensor:
        return loss + (loss - loss.detach()).abs().sqrt() if step == 2 else loss  # finite, its derivative is not

    with pytest.raises(FloatingPointError, match=r"gradient norm is (nan|inf) at step 2"):
        train_recording(Recorder(spoil=spoil))


def test_a_loss_without_the_prediction_fails_as_diverged_and_says_why(balls):
    expression = Expression.parse("class_mean(mean(y * y))")
    trial = trial_of({"expression": expression.to_json()}, SUBJECTS[2:], SUBJECTS[:2], 3, 0)
    with pytest.raises(FloatingPointError, match="no gradient, since it does not depend on the prediction"):
        train(trial, balls)


def test_divergence_between_two_looks_is_still_dated_to_its_step():
    curve = LossCurve(check_interval=25)
    for loss in (1.0, 2.0, float("nan"), float("nan")):
        curve.add(torch.tensor(loss), torch.tensor(1.0))

    with pytest.raises(FloatingPointError, match="step 3"):
        curve.check()


@pytest.mark.parametrize("steps", [1, 59, 60, 61, 150, 400])
def test_curve_is_thinned_to_means_over_windows(steps: int):
    curve = LossCurve(check_interval=7)
    for step in range(1, steps + 1):
        curve.add(torch.tensor(float(step)), torch.tensor(1.0))
    curve.check()

    points = curve.thinned(60)
    assert len(points) <= 60
    assert points[-1][0] == steps
    ends = [0, *(int(step) for step, _ in points)]
    assert [mean for _, mean in points] == [(low + 1 + high) / 2 for low, high in pairwise(ends)]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_budgets_train(balls, steps: int):
    result = Trainer(balls, device=CPU).train(request(steps=steps))

    assert [step for step, _ in result.validation_curve] == sorted({-(-steps // 3), -(-2 * steps // 3), steps})


def test_an_unknown_subject_loss_or_empty_validation_is_refused(balls, make_balls, small_settings):
    unknown = trial_of("dice", ("ball-99",), SUBJECTS[:1], 1)
    with pytest.raises(LossevoError, match=r"no subject 'ball-99'.*did you mean"):
        train(unknown, balls)
    with pytest.raises(LossevoError, match="dise"):
        train(request("dise"), balls)

    prepared = make_balls()
    for volume in prepared.volumes[:2]:
        volume.label[:] = 0
    with pytest.raises(LossevoError, match="no validation subject has a labelled voxel"):
        train(request(), make_training_data(prepared, small_settings))


def test_whether_a_case_counts_is_decided_by_its_label_whatever_is_predicted(make_balls, small_settings):
    prepared = make_balls(classes=3)
    lacking_one, lacking_all = prepared.volumes[0].label, prepared.volumes[1].label
    lacking_one[lacking_one == 2] = 0
    lacking_all[:] = 0
    trainer = Trainer(make_training_data(prepared, small_settings), device=CPU)

    results = [trainer.train(request(steps=steps, validate=3)) for steps in (1, 60)]

    for result in results:
        undefined = {
            case: [name for name, dice in of.items() if dice is None] for case, of in result.values["dice"].items()
        }
        assert undefined == {"ball-00": ["ball2"], "ball-01": ["ball1", "ball2"], "ball-02": []}
        assert {case: [*of] for case, of in result.false_voxels.items()} == {
            "ball-00": ["ball2"],
            "ball-01": ["ball1", "ball2"],
        }
        whole = result.values["dice"]["ball-02"]
        assert result.mean("dice") == pytest.approx(
            (result.values["dice"]["ball-00"]["ball1"] + sum(whole.values()) / 2) / 2
        )
    first, trained = (result.false_voxels["ball-01"] for result in results)
    assert first != trained, "the two predictions differ, and what is averaged over does not"


def test_a_loss_measures_with_the_spacing_of_the_images(train_recording):
    recorder = Recorder()
    train_recording(recorder, steps=1)

    assert recorder.spacing_mm == (4.0, 4.0, 4.0)


@pytest.mark.parametrize("name", names())
def test_every_loss_of_the_catalogue_trains(balls, name: str):
    result = Trainer(balls, device=CPU).train(request(name, steps=3))

    assert result.curve[-1][0] == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_learns_on_cuda(balls: TrainingData):
    assert Trainer(balls, device=torch.device("cuda")).train(request(steps=100)).mean("dice") > 0.8
