"""The hyper-gradient: as finite differences of a step of PyTorch's optimiser give it, whatever the loss's scale."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lossevo.data import PatchBank
from lossevo.errors import LossevoError
from lossevo.losses import create, signed_distance_map
from lossevo.losses.base import one_hot
from lossevo.losses.learnable import LEARNABLE
from lossevo.training import TrainingData, Trial, make_training_data
from lossevo.training import session as session_module
from lossevo.training.batches import Batch
from lossevo.training.lookahead import OUTER, LearningLoss, hyper_gradient, look_ahead
from lossevo.training.trainer import Trainer
from tests.trials import trial_of

CPU = torch.device("cpu")
WRAPPED = [*LEARNABLE, {"name": "focal", "parameters": {"alpha": 0.25}}, ["dice", "boundary"]]


def network(seed: int = 0) -> nn.Module:
    """Two convolutions with norms between, one of them with running statistics, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = nn.Sequential(
            nn.Conv3d(1, 3, 3, padding=1), nn.InstanceNorm3d(3), nn.PReLU(), nn.BatchNorm3d(3), nn.Conv3d(3, 3, 1)
        )
    return layers.double()


def batches(count: int, seed: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        image = torch.randn(2, 1, 4, 3, 5, generator=generator, dtype=torch.float64)
        label = torch.randint(0, 3, (2, 1, 4, 3, 5), generator=generator)
        found.append(Batch(image, label, signed_distance_map(one_hot(label, 3).double(), (4.0, 1.0, 1.0))))
    return found


def train(loss, module, optimiser, some: list[Batch], *, start: int = 0) -> None:
    """Steps on all batches but the last, with updates of the loss where they are due."""
    for steps, (batch, following) in enumerate(pairwise(some), start=start):
        if loss.wants_lookahead(steps):
            look_ahead(loss, module, optimiser, batch, following, steps)
        optimiser.zero_grad()
        loss(module(batch.image), batch.label, batch.distance_map).backward()
        optimiser.step()


def trained(loss, steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    module = network()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1)
    train(loss, module, optimiser, batches(steps + 1))
    return module, optimiser


def after_a_step(loss: LearningLoss, free: Tensor, module, optimiser, batch: Batch, following: Batch) -> float:
    """M after a real step of the optimiser with the loss at ``free``, its gradient of the length that it has now."""
    module, optimiser = copy.deepcopy((module, optimiser))
    logits = module(batch.image)
    at = logits.detach().requires_grad_()
    now, then = (torch.autograd.grad(loss.at(x, at, batch.label, batch.distance_map), at)[0] for x in (loss.free, free))
    optimiser.zero_grad()
    logits.backward(then * now.norm() / then.norm())
    optimiser.step()
    return OUTER(module(following.image), following.label).item()


@pytest.mark.parametrize("wrapped", WRAPPED, ids=str)
@pytest.mark.parametrize("steps", [0, 3], ids=["from the start", "amid a training"])
def test_it_is_that_of_finite_differences(wrapped, steps: int):
    loss = create("adaptive", loss=wrapped)
    module, optimiser = trained(loss, steps)
    batch, following = batches(2, seed=9)
    found = hyper_gradient(loss, module, optimiser, batch, following)
    assert found.shape == loss.free.shape
    for index, gradient in enumerate(found):
        h = 1e-4 * torch.eye(len(found), dtype=torch.float64)[index]
        ahead, behind = (
            after_a_step(loss, x, module, optimiser, batch, following) for x in (loss.free + h, loss.free - h)
        )
        assert gradient.item() == pytest.approx((ahead - behind) / 2e-4, rel=1e-3, abs=1e-9)
        assert gradient != 0


class Scaled(nn.Module):
    """A loss times exp(a x): with a > 0 the smaller x, the smaller the loss."""

    def __init__(self, loss: nn.Module, a: float) -> None:
        super().__init__()
        self.loss, self.a, self.free = loss, a, loss.free.clone()

    def at(self, free, logits, target, distance_map=None):
        scale = (self.a * (free - self.free)).sum().exp()
        return scale * self.loss.at(free, logits, target, distance_map)


@pytest.mark.parametrize("wrapped", ["tversky", "focal", "dice_focal"])
@pytest.mark.parametrize("a", [-1.0, 5.0])
def test_to_shrink_the_loss_is_no_way_to_improve(wrapped: str, a: float):
    """The trivial solution is excluded by construction: no factor that depends on the parameters changes anything."""
    loss = create("adaptive", loss=wrapped)
    module, optimiser = trained(loss)
    batch, following = batches(2, seed=9)
    plain = hyper_gradient(loss, module, optimiser, batch, following)
    scaled = hyper_gradient(Scaled(loss, a), module, optimiser, batch, following)
    torch.testing.assert_close(scaled, plain, rtol=1e-9, atol=1e-15)


def test_a_parameter_that_only_scales_the_loss_has_no_gradient():
    class Scale(nn.Module):
        free = torch.zeros(1, dtype=torch.float64)

        def at(self, free, logits, target, distance_map=None):
            return free.exp().squeeze() * create("dice_ce")(logits, target)

    module, optimiser = trained(create("adaptive"))
    batch, following = batches(2, seed=9)
    assert hyper_gradient(Scale(), module, optimiser, batch, following).abs() < 1e-16


def test_a_loss_without_gradient_gives_none():
    class Flat(nn.Module):
        free = torch.zeros(2, dtype=torch.float64)

        def at(self, free, logits, target, distance_map=None):
            return (0 * free.sum() * logits).sum()

    module, optimiser = trained(create("adaptive"))
    batch, following = batches(2, seed=9)
    assert torch.equal(hyper_gradient(Flat(), module, optimiser, batch, following), torch.zeros(2).double())


def test_neither_network_nor_optimiser_changes():
    loss = create("adaptive", loss="tversky")
    module, optimiser = trained(loss)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy((module.state_dict(), optimiser.state_dict()))
    look_ahead(loss, module, optimiser, *batches(2, seed=9), steps=5)
    torch.testing.assert_close((module.state_dict(), optimiser.state_dict()), before, rtol=0, atol=0)
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in module.parameters())
    assert loss.trajectory()[1]["step"] == 5


def test_a_training_that_is_resumed_goes_on_exactly():
    loss = create("adaptive", loss="dice_focal", every=2)
    some = batches(12)
    module = network()
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01)
    train(loss, module, optimiser, some[:8])
    resumed = create("adaptive", loss="dice_focal", every=2), network(seed=5)
    resumed[0].load_state_dict(loss.state_dict())
    resumed[1].load_state_dict(module.state_dict())
    theirs = torch.optim.AdamW(resumed[1].parameters(), lr=0.01)
    theirs.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    train(loss, module, optimiser, some[7:], start=7)
    train(*resumed, theirs, some[7:], start=7)
    assert resumed[0].trajectory() == loss.trajectory()
    assert [row["step"] for row in loss.trajectory()] == [0, 2, 4, 6, 8, 10]
    torch.testing.assert_close(resumed[1].state_dict(), module.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        lambda module: torch.optim.Adam(module.parameters(), weight_decay=0.1),
        lambda module: torch.optim.AdamW(module.parameters(), amsgrad=True),
        lambda module: torch.optim.AdamW([{"params": module[0].parameters()}, {"params": module[4].parameters()}]),
    ],
    ids=["SGD", "Adam with decay", "amsgrad", "two groups"],
)
def test_a_step_that_cannot_be_looked_ahead_is_refused(make):
    module = network()
    with pytest.raises(LossevoError, match=r"cannot look ahead a step of .*, expected AdamW"):
        hyper_gradient(create("adaptive"), module, make(module), *batches(2))


# --- in a training ---

SUBJECTS = tuple(f"ball-{number:02d}" for number in range(8))


def request(name: str, parameters=None, *, steps: int = 12) -> Trial:
    spec = {"name": name, "parameters": parameters or {}}
    return trial_of(spec, SUBJECTS[2:], SUBJECTS[:2], steps)


def payload(result) -> dict:
    return {key: value for key, value in result.to_payload().items() if key != "seconds"}


def test_a_training_is_the_wrapped_losss_until_the_first_update(balls: TrainingData):
    """The same batches in the same order: nothing is set aside."""
    trainer = Trainer(balls, device=CPU)
    plain = payload(trainer.train(request("tversky")))
    adaptive = payload(trainer.train(request("adaptive", {"loss": "tversky", "every": 12})))
    assert adaptive.pop("trajectory") == [{"step": 0, "w_fp": 0.3, "w_fn": 0.7}]
    assert adaptive == plain
    assert "trajectory" not in plain


def test_a_training_learns_the_parameters_and_is_deterministic(balls: TrainingData):
    trainer = Trainer(balls, device=CPU)
    wanted = request("adaptive", {"loss": ["focal_tversky", "boundary"], "factors": [1, 0.01], "every": 5})
    result = trainer.train(wanted)
    assert [row["step"] for row in result.trajectory] == [0, 5, 10]
    assert len({row["w_boundary"] for row in result.trajectory}) == 3
    assert payload(trainer.train(wanted)) == payload(result)


def test_the_step_is_judged_on_the_next_batch_of_the_training_subjects(balls: TrainingData, monkeypatch):
    seen = []
    real = session_module.look_ahead

    def spy(loss, module, optimiser, batch, following, steps):
        seen.append((batch, following, steps))
        real(loss, module, optimiser, batch, following, steps)

    monkeypatch.setattr(session_module, "look_ahead", spy)
    Trainer(balls, device=CPU).train(request("adaptive", {"every": 1}, steps=4))
    assert [steps for *_, steps in seen] == [1, 2]
    assert torch.equal(seen[1][0].image, seen[0][1].image)
    assert isinstance(balls.bank, PatchBank)
    theirs = torch.from_numpy(balls.bank.image[balls.bank.of_subjects(SUBJECTS[2:])])
    for _, following, _ in seen:
        for patch in following.image:
            assert any(torch.equal(patch, one) or torch.equal(patch, one.flip(1)) for one in theirs)


def test_other_losses_are_left_alone(balls: TrainingData, monkeypatch):
    def refuse(*arguments):
        raise AssertionError

    monkeypatch.setattr(session_module, "look_ahead", refuse)
    trainer = Trainer(balls, device=CPU)
    assert trainer.train(request("dice_ce", steps=3)).trajectory == []
    weights = trainer.train(request("softadapt", steps=3)).trajectory
    assert weights == [{"step": step, "w_dice": 1.0, "w_cross_entropy": 1.0} for step in range(3)]


def test_several_classes_and_batch_norm(make_balls, small_settings):
    settings = small_settings.model_copy(update={"norm": "batch", "augmentation": "full"})
    data = make_training_data(make_balls(classes=3), settings)
    result = Trainer(data, device=CPU).train(request("adaptive", {"loss": "exp_log", "every": 2}, steps=6))
    assert len(result.trajectory) == 3
    assert result.trajectory[-1]["gamma"] != 0.3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_learns_on_cuda(balls: TrainingData):
    result = Trainer(balls, device=torch.device("cuda")).train(request("adaptive", {"loss": "tversky"}, steps=100))
    assert result.mean("dice") > 0.8
    assert len(result.trajectory) == 20


def test_frozen_parameters_are_refused_and_modes_are_left_alone() -> None:
    loss, module = create("adaptive", loss="tversky"), network()
    optimiser = torch.optim.AdamW(module.parameters())
    module.eval()
    look_ahead(loss, module, optimiser, *batches(2), steps=5)
    assert not any(part.training for part in module.modules())
    module[0].weight.requires_grad_(False)
    with pytest.raises(LossevoError, match="does not move all parameters"):
        look_ahead(loss, module, optimiser, *batches(2), steps=5)
    head = torch.optim.AdamW(network()[3:].parameters())
    with pytest.raises(LossevoError, match="does not move all parameters"):
        look_ahead(loss, network(), head, *batches(2), steps=5)
