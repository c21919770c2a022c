"""lossevo.load: each of the three files is the candidate, with the same call convention and the habits of a module."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch import nn

import lossevo
from lossevo.errors import LossevoError
from lossevo.export.document import document_of
from lossevo.export.program import save_program
from lossevo.export.source import source_of
from lossevo.export.verification import deviation, deviations, expected_cases, own_gradient, value_and_gradient
from lossevo.expression import Expression
from lossevo.losses.definitions import Definition, loss_of
from lossevo.losses.symbolic import ExpressionLoss

FILES = ["loss.json", "loss.py", "loss.pt2"]
Batch = tuple[torch.Tensor, torch.Tensor]


class Exported(Protocol):
    name: str
    definition: Definition
    folder: Path


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_the_candidate_bit_for_bit(exported: Exported, file: str) -> None:
    loss = lossevo.load(exported.folder / file)
    # Its own gradient equals the formula's up to rounding; see the next test.
    loss.has_own_gradient = False
    assert loss.uses_distance_map == loss_of(exported.definition).uses_distance_map
    for found in deviations(loss, expected_cases(exported.definition)):
        assert (found.worst_case, found.value, found.gradient) == (found.worst_case, 0, 0)


def test_the_gradient_that_the_candidate_was_trained_with_is_the_formulas(exported: Exported) -> None:
    found = own_gradient(exported.definition)
    assert max(found.value, found.gradient) < 1e-12


@pytest.mark.parametrize("file", FILES)
def test_other_sizes_than_at_export(exported: Exported, file: str) -> None:
    loss, candidate = lossevo.load(exported.folder / file), loss_of(exported.definition)
    generator = torch.Generator().manual_seed(2)
    for shape in ((1, 2, 1, 1, 1), (1, 2, 3, 1, 4), (3, 6, 2, 3, 2), (1, 2, 17, 2, 9), (1, 2, 1, 7), (2, 1, 3, 5)):
        logits = torch.randn(shape, generator=generator)
        labels = torch.randint(0, 2, (shape[0], 1, *shape[2:]), generator=generator)
        assert torch.equal(loss(logits, labels), candidate(logits, labels)), shape


@pytest.mark.parametrize("file", FILES)
def test_computes_in_float32_under_autocast(exported: Exported, file: str, batch: Batch) -> None:
    loss, (logits, labels) = lossevo.load(exported.folder / file), batch
    half = logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, labels)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.equal(value, loss_of(exported.definition)(half.float(), labels))
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert bool(half.grad.any())


@pytest.mark.parametrize("file", FILES)
def test_trains_inside_a_network(exported: Exported, file: str, batch: Batch) -> None:
    class Supervised(nn.Module):
        def __init__(self, loss: nn.Module) -> None:
            super().__init__()
            self.network = nn.Conv3d(1, 3, 3, padding=1)
            self.loss = loss

        def forward(self, image: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.loss(self.network(image), labels)

    _, labels = batch
    torch.manual_seed(0)
    model = Supervised(lossevo.load(exported.folder / file))
    image = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).float()[:, 1:2]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    assert len(optimizer.param_groups[0]["params"]) == 2, "a loss has no parameters of its own"
    values = []
    for step in range(12):
        model.train(step % 2 == 0)
        model.zero_grad()
        value = model(image, labels)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
    again = Supervised(lossevo.load(exported.folder / file))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(image, labels), model(image, labels))


@pytest.mark.parametrize("file", FILES)
def test_copies_pickles_and_casts(exported: Exported, file: str, batch: Batch) -> None:
    loss = lossevo.load(exported.folder / file)
    expected = loss(*batch)
    assert torch.equal(copy.deepcopy(loss)(*batch), expected)
    assert torch.equal(pickle.loads(pickle.dumps(loss))(*batch), expected)
    # Its coefficients are float64 already, and the logits' type decides what it computes in.
    assert torch.equal(loss.to(torch.float64)(*batch), expected)


@pytest.mark.parametrize("file", FILES)
def test_a_network_that_changes_its_type_or_device_does_not_round_its_loss(mixed: Any, file: str, batch: Batch) -> None:
    loss = lossevo.load(mixed.folder / file)
    expected, state = loss(*batch), copy.deepcopy(loss.state_dict())
    network = nn.Sequential(nn.Conv3d(1, 3, 1), loss)
    for changed in (network.half(), network.to(torch.bfloat16), network.float()):
        assert changed[0].weight.dtype != torch.float64
        assert torch.equal(loss(*batch), expected)
    for name, value in loss.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.dtype == torch.float64
    assert all(buffer.device.type == "meta" for buffer in network.to("meta").buffers())


def test_progress_moves_in_a_hundred_steps_and_is_part_of_the_state(tmp_path: Path, batch: Batch) -> None:
    expression = Expression.parse("class_mean(mean((p - y) ^ (2 - t)))")
    document = document_of(expression, {})
    (tmp_path / "loss.json").write_text(document.to_text(), encoding="utf-8")
    (tmp_path / "loss.py").write_text(source_of(document), encoding="utf-8")
    save_program(document, tmp_path / "loss.pt2")
    candidate = ExpressionLoss(expression)
    losses = [lossevo.load(tmp_path / file) for file in FILES]
    network = nn.ModuleList(losses).half()
    for step in range(103):
        if step in (0, 1, 50, 100, 102):
            expected = candidate(*batch)
            assert [torch.equal(loss(*batch), expected) for loss in losses] == [True] * 3, step
        for loss in (candidate, *losses):
            loss.step()
    again = nn.ModuleList(lossevo.load(tmp_path / file) for file in FILES)
    again.load_state_dict(network.state_dict())
    assert [torch.equal(loss(*batch), candidate(*batch)) for loss in again] == [True] * 3


def test_a_spawned_process_unpickles_it_and_trains_in_ddp(mixed: Any, tmp_path: Path, batch: Batch) -> None:
    losses = [lossevo.load(mixed.folder / file) for file in FILES]
    payload = ([loss(*batch).item() for loss in losses], batch, losses)
    (tmp_path / "payload").write_bytes(pickle.dumps(payload))
    program = """
        import pickle, sys, torch
        from torch.nn.parallel import DistributedDataParallel

        class Supervised(torch.nn.Module):
            def __init__(self, loss):
                super().__init__()
                self.network, self.loss = torch.nn.Conv3d(3, 3, 1), loss

            def forward(self, image, labels):
                return self.loss(self.network(image), labels)

        expected, (logits, labels), losses = pickle.load(open(sys.argv[1], "rb"))
        assert [loss(logits, labels).item() for loss in losses] == expected
        torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}.store", rank=0, world_size=1)
        for loss in losses:
            model = DistributedDataParallel(Supervised(loss))
            model(logits, labels).backward()
            assert bool(model.module.network.weight.grad.any())
        torch.distributed.destroy_process_group()
        print("trained")
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path / "payload")]
    environment = {**os.environ, "PYTHONPATH": str(Path(lossevo.__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.stdout == "trained\n", result.stderr


class _Subclass(torch.Tensor):
    """Like MONAI's MetaTensor: a tensor of another class, which lacks an operation."""

    def new_empty(self, *arguments: Any) -> torch.Tensor:
        raise TypeError("no such operation")


@pytest.mark.parametrize("file", FILES)
def test_takes_subclasses_of_tensor(exported: Exported, file: str, batch: Batch) -> None:
    loss = lossevo.load(exported.folder / file)
    value = loss(*(tensor.as_subclass(_Subclass) for tensor in batch))
    assert type(value) is torch.Tensor
    assert torch.equal(value, loss(*batch))


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")


@needs_compiler
@pytest.mark.parametrize("file", ["loss.json", "loss.py"])
def test_compiled_it_is_the_same_loss(tversky: Exported, file: str, batch: Batch) -> None:
    compiled = lossevo.load(tversky.folder / file, compile=True)
    for case in expected_cases(tversky.definition)[:2]:
        value, gradient = value_and_gradient(compiled, case.logits, case.target, case.distance_map)
        assert deviation(value, case.value) < 1e-5
        assert deviation(gradient, case.gradient) < 1e-5
    plain = lossevo.load(tversky.folder / file)
    for copied in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
        assert torch.allclose(copied(*batch), plain(*batch))


def test_without_a_compiler_the_loader_says_so(tversky: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    for cached in (cpp_builder.get_cpp_compiler, cpp_builder.cpp_compiler_search):
        getattr(cached, "cache_clear", lambda: None)()
    with config.patch(force_disable_caches=True), pytest.raises(LossevoError, match=r"needs a C\+\+ compiler: install"):
        lossevo.load(tversky.folder, compile=True)


def test_coefficients_are_a_float64_buffer(mixed: Any) -> None:
    for file in FILES:
        state = lossevo.load(mixed.folder / file).state_dict()
        (coefficients,) = state.values()
        assert coefficients.dtype == torch.float64
        assert coefficients.tolist() == [1.5, 2.0, 0.3, 1.3]


@pytest.mark.parametrize("file", FILES)
def test_spacing_in_mm(mixed: Any, file: str, batch: Batch) -> None:
    expression = lossevo.load(mixed.folder).expression
    expected = ExpressionLoss(expression, spacing_mm=(4.0, 1.0, 0.5))(*batch)
    assert torch.equal(lossevo.load(mixed.folder / file, spacing_mm=(4, 1, 0.5))(*batch), expected)


@pytest.mark.parametrize("file", FILES)
def test_given_distance_map_is_used(mixed: Any, file: str, batch: Batch) -> None:
    distance_map = torch.linspace(-30, 30, batch[0].numel()).reshape(batch[0].shape)
    expected = lossevo.load(mixed.folder)(*batch, distance_map)
    assert torch.equal(lossevo.load(mixed.folder / file)(*batch, distance_map), expected)
    assert not torch.equal(expected, lossevo.load(mixed.folder)(*batch))


def test_loading_leaves_the_folder_as_it_is(mixed: Any) -> None:
    for file in FILES:
        lossevo.load(mixed.folder / file)
    assert sorted(path.name for path in mixed.folder.iterdir()) == sorted(FILES)


def test_a_folder_is_its_json_and_never_runs_code(tmp_path: Path, mixed: Any) -> None:
    assert isinstance(lossevo.load(str(mixed.folder)), ExpressionLoss)
    (tmp_path / "loss.py").write_text("raise SystemExit('executed')")
    with pytest.raises(LossevoError, match=r"holds no loss\.json"):
        lossevo.load(tmp_path)
    (tmp_path / "loss.json").write_text("damaged")
    with pytest.raises(LossevoError, match="not readable JSON"):
        lossevo.load(tmp_path)


def test_missing_and_foreign_paths(tmp_path: Path) -> None:
    with pytest.raises(LossevoError, match="does not exist"):
        lossevo.load(tmp_path / "loss.json")
    (tmp_path / "loss.pth").touch()
    with pytest.raises(LossevoError, match=r"expected a \.json, \.py or \.pt2 file"):
        lossevo.load(tmp_path / "loss.pth")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:", "SyntaxError"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("x = 1", "defines no class EvolvedLoss"),
        ("class EvolvedLoss: pass", "defines no class EvolvedLoss"),
        ("\x00", "cannot be executed"),
    ],
)
def test_py_that_is_not_ours(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "loss.py").write_text(source)
    with pytest.raises(LossevoError, match=message) as caught:
        lossevo.load(tmp_path / "loss.py")
    assert "loss.py" in str(caught.value)
