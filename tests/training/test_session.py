"""A training that stops and goes on is the training that runs through, to the last bit."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from lossevo.errors import LossevoError
from lossevo.expression import Expression
from lossevo.training import TaskSettings, Trial, make_training_data
from lossevo.training import session as session_module
from lossevo.training.session import Session
from lossevo.training.trainer import Trainer
from tests.training.conftest import prepared_balls
from tests.trials import trial_of

CPU = torch.device("cpu")
TASK = TaskSettings(patch_size=(8, 12, 12), patches_per_volume=2, channels=(4, 8), strides=(2,), warmup_steps=3)
CONSTANT = {"schedule": "constant", "loss_horizon_steps": 30}
OPEN_ENDED = {**CONSTANT, "weights": "ema"}
SUBJECTS = tuple(f"ball-{number:02d}" for number in range(6))
LEARNING = {"name": "adaptive", "parameters": {"loss": "dice_focal", "every": 2}}
SELDOM_LEARNING = {"name": "adaptive", "parameters": {"loss": "dice_focal", "every": 13}}
TIMED = {"expression": Expression.parse("(0.5 + t) * class_mean(mean(square(p - y)))").to_json()}


@cache
def trainer(**settings: Any) -> Trainer:
    prepared = prepared_balls(6, shape=(8, 14, 14), classes=3)
    return Trainer(make_training_data(prepared, TASK.model_copy(update=settings)), device=CPU)


def request(loss: str | Mapping[str, Any] = "dice_ce", *, steps: int = 12, **others: Any) -> Trial:
    return trial_of(loss, **{"train": SUBJECTS[2:], "validate": SUBJECTS[:2], "steps": steps, "seed": 3, **others})


def continued(session: Session, wanted: Trial, shared: Trainer) -> Session:
    """Another session that stands where ``session`` does."""
    other = Session(wanted, shared)
    other.restore(session.state())
    return other


def content(session: Session) -> dict[str, Any]:
    """What the state holds: tensors and plain values."""
    found = torch.load(io.BytesIO(session.state()), weights_only=True)
    assert isinstance(found, dict)
    return found["content"]


# --- the same, in pieces ---


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("dice_ce", {}),
        ("dice_ce", OPEN_ENDED | {"norm": "batch"}),
        ("dice_ce", {"channels_last": False, "residual_units": 1, "weights": "ema"}),
        ("boundary", CONSTANT | {"augmentation": "full"}),
        ("generalized_dice_boundary", CONSTANT),
        ("dice_hausdorff", OPEN_ENDED | {"network": "se_norm_unet"}),
        ("softadapt", {}),
        ("cov_weighting", CONSTANT),
        ("uncertainty_weighting", OPEN_ENDED),
        (LEARNING, {}),
        (LEARNING, OPEN_ENDED | {"augmentation": "full"}),
        ({"name": "adaptive", "parameters": {"loss": ["focal_tversky", "boundary"], "every": 3}}, CONSTANT),
        (TIMED, {}),
    ],
    ids=str,
)
def test_in_pieces_it_is_the_same_to_the_last_bit(loss: str | Mapping[str, Any], settings: dict[str, Any]) -> None:
    shared, wanted = trainer(**settings), request(loss)
    straight = Session(wanted, shared)
    straight.advance(12)
    pieces = Session(wanted, shared)
    for steps in (5, 1, 6):
        pieces = continued(pieces, wanted, shared)
        pieces.advance(steps)
        if pieces.steps < 12:
            assert pieces.state() != straight.state()
    assert pieces.state() == straight.state()
    assert pieces.validate() == straight.validate()
    assert pieces.trajectory() == straight.trajectory()
    assert pieces.curve.values == straight.curve.values


def test_another_process_trains_the_same_and_goes_on_with_the_same_training(tmp_path: Path) -> None:
    """From the beginning, and from a state of ours."""
    shared, wanted = trainer(**OPEN_ENDED, augmentation="full"), request(LEARNING)
    straight = Session(wanted, shared)
    straight.advance(4)
    (tmp_path / "state").write_bytes(straight.state())
    (tmp_path / "job").write_bytes(pickle.dumps((shared.data, wanted.to_payload())))
    code = (
        "import json, pickle, sys, torch; from pathlib import Path; from lossevo.training import Trial;"
        "from lossevo.training.session import Session; from lossevo.training.trainer import Trainer;"
        "folder = Path(sys.argv[1]); torch.set_num_threads(int(sys.argv[2]));"
        "data, payload = pickle.loads((folder / 'job').read_bytes());"
        "trial, trainer = Trial.from_payload(payload), Trainer(data, device=torch.device('cpu'));"
        "(folder / 'measurement').write_text(json.dumps(trainer.train(trial).to_payload()));"
        "session = Session(trial, trainer);"
        "session.restore((folder / 'state').read_bytes()); session.advance(5);"
        "(folder / 'state').write_bytes(session.state())"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path, str(torch.get_num_threads())], check=True)
    straight.advance(5)
    assert (tmp_path / "state").read_bytes() == straight.state()
    there = json.loads((tmp_path / "measurement").read_text())
    here = json.loads(json.dumps(shared.train(wanted).to_payload()))
    assert {**there, "seconds": 0} == {**here, "seconds": 0}


def test_a_state_does_not_move_with_its_session_and_can_be_returned_to() -> None:
    shared, wanted = trainer(**OPEN_ENDED), request(LEARNING)
    session = Session(wanted, shared)
    session.advance(3)
    early = session.state()
    session.advance(4)
    late = session.state()
    session.restore(early)
    assert session.steps == 3
    session.advance(4)
    assert session.state() == late


def test_the_validation_curve_goes_on_and_has_each_step_once() -> None:
    shared, wanted = trainer(), request()
    session = Session(wanted, shared)
    session.advance(2)
    session.validate()
    session = continued(session, wanted, shared)
    assert session.validate() == session.validate()
    session.advance(1)
    session.validate()
    assert [step for step, _ in session.validation_curve] == [2, 3]


# --- how far it goes ---


@pytest.mark.parametrize("loss", ["generalized_dice_boundary", SELDOM_LEARNING], ids=str)
def test_a_longer_training_continues_a_shorter_one(loss: str | Mapping[str, Any]) -> None:
    shared = trainer(**OPEN_ENDED, validations=1)
    short = Session(request(loss, steps=40), shared)
    short.advance(40)
    longer = continued(short, request(loss, steps=100), shared)
    longer.advance(60)
    straight = shared.train(request(loss, steps=100))
    cases = longer.validate()
    assert longer.validation_curve[-1] == [100, straight.mean("dice")]
    assert {case: [found.values["dice"] for found in classes.values()] for case, classes in cases.items()} == {
        case: list(found.values()) for case, found in straight.values["dice"].items()
    }
    assert longer.curve.thinned(60) == straight.curve
    assert longer.trajectory() == straight.trajectory


def test_with_one_cycle_it_ends_where_the_schedule_does() -> None:
    session = Session(request(steps=5), trainer())
    assert session.last_step == 5
    session.advance(4)
    with pytest.raises(LossevoError, match=r"cannot advance a training by 2 steps after 4 of 5.*'schedule: constant'"):
        session.advance(2)
    session.advance(1)
    with pytest.raises(LossevoError, match="by 1 steps after 5 of 5"):
        session.advance(1)


def test_a_one_cycle_training_cannot_continue_a_shorter_one() -> None:
    shared = trainer()
    short = Session(request(steps=5), shared)
    short.advance(5)
    with pytest.raises(LossevoError, match=r"another training: length of the one-cycle schedule: found 5, expected 9"):
        Session(request(steps=9), shared).restore(short.state())


@pytest.mark.parametrize("steps", [0, -1])
def test_it_advances_by_a_step_at_least(steps: int) -> None:
    with pytest.raises(LossevoError, match=f"by {steps} steps, expected 1 or more"):
        Session(request(), trainer()).advance(steps)


@pytest.mark.parametrize(("steps", "epochs"), [(15, 50), (30, 100), (45, 150)])
def test_with_the_constant_schedule_a_losss_epochs_go_by_its_horizon(steps: int, epochs: int) -> None:
    session = Session(request("generalized_dice_boundary", steps=12), trainer(**CONSTANT))
    session.advance(steps)
    assert int(content(session)["loss"]["w_boundary.epoch"]) == epochs


# --- what is validated ---


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_exponential_average_of_the_weights_is_validated_and_does_not_change_the_training(norm: str) -> None:
    settings = {**CONSTANT, "norm": norm}
    plain, averaging = (
        Session(request(), trainer(**settings, weights=weights, ema_decay=0.8)) for weights in ("last", "ema")
    )
    expected: dict[str, torch.Tensor] = {}
    for _ in range(6):
        plain.advance(1)
        for name, tensor in content(plain)["network"].items():
            if tensor.is_floating_point():
                before = expected.get(name, tensor.double())
                expected[name] = 0.8 * before + 0.2 * tensor.double()
    averaging.advance(6)
    found = content(averaging)
    for name, tensor in content(plain)["network"].items():
        assert torch.equal(found["network"][name], tensor), "the network itself trains as ever"
    assert content(plain)["averaged"] is None
    for name, tensor in expected.items():
        torch.testing.assert_close(found["averaged"][f"module.{name}"].double(), tensor, rtol=1e-5, atol=1e-6)

    # A plain network with the averaged weights predicts what was validated.
    other = Session(request(), trainer(**settings))
    other._network.load_state_dict(
        {name.removeprefix("module."): value for name, value in found["averaged"].items() if name != "n_averaged"}
    )
    assert averaging.validate() == other.validate()
    assert averaging.validate() != plain.validate()


# --- states that do not fit ---

OTHERS = {
    "loss": (request("dice"), {}),
    "seed": (request(seed=4), {}),
    "training subjects": (request(train=SUBJECTS[3:]), {}),
    "validation subjects": (request(validate=SUBJECTS[:1]), {}),
    "length of the one-cycle schedule": (request(steps=13), {}),
    "task and data": (request(), {"learning_rate": 0.02}),
}


@pytest.fixture(scope="module")
def state() -> bytes:
    session = Session(request(), trainer())
    session.advance(2)
    return session.state()


@pytest.mark.parametrize("what", OTHERS)
def test_the_state_of_another_training_is_refused(what: str, state: bytes) -> None:
    wanted, settings = OTHERS[what]
    with pytest.raises(LossevoError, match=f"that of another training: {what}: found .*, expected .*; give"):
        Session(wanted, trainer(**settings)).restore(state)


def test_the_state_of_another_recipe_is_refused(state: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(request(), trainer())
    monkeypatch.setattr(session_module, "RECIPE_VERSION", 999)
    with pytest.raises(LossevoError, match="another training: recipe: found 4, expected 999"):
        session.restore(state)


def test_the_same_subjects_in_another_order_are_the_same_training(state: bytes) -> None:
    session = Session(request(train=SUBJECTS[:1:-1]), trainer())
    session.restore(state)
    assert session.steps == 2


class Harmful:
    """What runs code as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_damaged_and_foreign_bytes_are_refused_in_one_line_and_run_nothing(state: bytes, tmp_path: Path) -> None:
    def saved(value: object) -> bytes:
        file = io.BytesIO()
        torch.save(value, file)
        return file.getvalue()

    known = torch.load(io.BytesIO(state), weights_only=True)
    lacking = {key: value for key, value in known["content"].items() if key != "moments"}
    foreign = {**known["content"], "network": {"weight": torch.zeros(3)}}
    harmful = tmp_path / "harm"

    def changed(**parts: object) -> bytes:
        return saved({**known, "content": {**known["content"], **parts}})

    moments = known["content"]["moments"]
    session = Session(request(), trainer())
    for wrong in (
        b"",
        b"no state",
        state[:-100],
        state[: len(state) // 2],
        saved({"weights": torch.zeros(3)}),
        saved([1, 2]),
        saved({**known, "content": lacking}),
        saved({**known, "content": foreign}),
        saved({**known, "identity": None}),
        changed(steps=-2),
        changed(steps=1),
        changed(steps=99, curve=torch.zeros(99)),
        changed(moments={}),
        changed(moments={**moments, 0: {**moments[0], "exp_avg": torch.zeros(1)}}),
        changed(curve=torch.zeros(0)),
        saved({**known, "harm": Harmful(harmful)}),
        pickle.dumps(Harmful(harmful)),
    ):
        with pytest.raises(LossevoError, match=r"^the state of a training is .*train again from the first step$"):
            session.restore(wrong)
    assert not harmful.exists()


def test_no_flipped_bit_changes_a_training_unseen(state: bytes) -> None:
    session = Session(request(), trainer())
    weight = next(iter(torch.load(io.BytesIO(state), weights_only=True)["content"]["network"].values()))
    inside = state.index(weight.reshape(-1)[:4].numpy().tobytes())
    refused: list[str] = []
    for place in (inside, *range(0, len(state), len(state) // 40)):
        flipped = bytearray(state)
        flipped[place] ^= 4
        try:
            session.restore(bytes(flipped))
        except LossevoError as error:
            refused.append(str(error))
        else:
            # Between the parts of the file there are bytes that say nothing.
            assert session.state() == state
        assert refused, "PyTorch itself takes another weight as it is"
    assert len(refused) > 15
    assert all("damaged" in message and "\n" not in message for message in refused)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_state_travels_through_a_cuda_device() -> None:
    shared = Trainer(trainer(**OPEN_ENDED).data, device=torch.device("cuda"))
    session = Session(request(LEARNING), shared)
    session.advance(5)
    other = continued(session, request(LEARNING), shared)
    assert other.state() == session.state()
    other.advance(5)
    assert other.steps == 10
