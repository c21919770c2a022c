"""loss.pt2: what its graph does and does not hold."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lossevo.export.program import ProgramLoss, export_program, load_program
from lossevo.export.verification import TOLERANCE, deviation, deviations, expected_cases
from lossevo.expression import PRIMITIVES, TERMINALS, Expression, Kind, Primitive, Terminal
from lossevo.losses.neural import ACTIVATIONS, LearnedLoss
from lossevo.losses.symbolic import ExpressionLoss
from tests.networks import random_network

_PLAIN = {Kind.VOXEL: "(p * y + logp / 10)", Kind.REGION: "mean(p * y)", Kind.SCALAR: "0.7"}
_GROUPS = 5


def _scalar(text: str, kind: Kind) -> str:
    """A text of any kind, reduced to a scalar."""
    return {Kind.VOXEL: f"class_mean(mean({text}))", Kind.REGION: f"class_mean({text})", Kind.SCALAR: text}[kind]


def _use(known: Primitive | Terminal) -> str:
    """A scalar that a primitive or terminal is part of."""
    if isinstance(known, Terminal):
        return _scalar(f"{known.name} * {_PLAIN[known.kind]}", known.kind)
    if known.source is not None:
        return _scalar(known.text.format(_PLAIN[known.source]), known.target)
    operands = ["(p * y + logp / 10)", "(p + 1)"][: known.arity - known.parameters] + ["0.7"] * known.parameters
    return _scalar(known.text.format(*(f"({operand})" for operand in operands)), Kind.VOXEL)


@pytest.mark.parametrize("group", range(_GROUPS))
def test_everything_in_the_language_exports_and_nothing_ties_it_to_a_size_or_device(group: int) -> None:
    known = [*TERMINALS.values(), *PRIMITIVES.values()][group::_GROUPS]
    expression = Expression.parse(" + ".join(["class_mean(mean(p))", *map(_use, known)]))
    loss, candidate = ProgramLoss(export_program(expression)), ExpressionLoss(expression)
    for node in loss.graph.graph.nodes:
        assert not any(isinstance(one, torch.device) for one in (*node.args, *node.kwargs.values())), node.format_node()
    for found in deviations(loss, expected_cases(expression)):
        assert max(found.value, found.gradient) <= TOLERANCE, (found, [one.name for one in known])
    for _ in range(100):
        candidate.step()  # where the cases have left the other
    generator = torch.Generator().manual_seed(2)
    for shape in ((1, 2, 1, 1, 1), (3, 6, 2, 3, 2), (1, 2, 17, 2, 9), (1, 2, 1, 7)):
        logits = torch.randn(shape, generator=generator)
        labels = torch.randint(0, 2, (shape[0], 1, *shape[2:]), generator=generator)
        assert deviation(loss(logits, labels), candidate(logits, labels)) <= TOLERANCE, shape
    # "meta" has no values but refuses to mix devices.
    arguments = [torch.empty(1, 2, 3, 4, 5, device="meta")] * (3 if loss.uses_distance_map else 2)
    assert loss.to("meta").graph(*arguments).device.type == "meta"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_networks_export_and_nothing_ties_them_to_a_size_or_device(activation: str) -> None:
    network = random_network(activation=activation)
    loss, candidate = ProgramLoss(export_program(network)), LearnedLoss(network)
    for node in loss.graph.graph.nodes:
        assert not any(isinstance(one, torch.device | torch.dtype) for one in node.args), node.format_node()
        assert node.kwargs.get("device") is None
    for found in deviations(loss, expected_cases(network)):
        assert (found.worst_case, found.value, found.gradient) == (found.worst_case, 0, 0)
    generator = torch.Generator().manual_seed(2)
    for shape in ((1, 2, 1, 1, 1), (3, 6, 2, 3, 2), (1, 2, 17, 2, 9), (1, 2, 1, 7)):
        logits = torch.randn(shape, generator=generator)
        labels = torch.randint(0, 2, (shape[0], 1, *shape[2:]), generator=generator)
        assert deviation(loss(logits, labels), candidate(logits, labels)) <= TOLERANCE, shape
    assert loss.to("meta").graph(*[torch.empty(1, 2, 3, 4, 5, device="meta")] * 3).device.type == "meta"


def _loaded_without_lossevo(file: Path) -> torch.fx.GraphModule:
    """As the documentation has it."""
    module = torch.export.load(file).module()
    return torch.fx.GraphModule(module, copy.deepcopy(module.graph))


def test_without_lossevo_any_size_in_3d_and_2d_as_depth_1(mixed: Any) -> None:
    loss = _loaded_without_lossevo(mixed.folder / "loss.pt2").train().eval()
    expected = load_program(mixed.folder / "loss.pt2")
    generator = torch.Generator().manual_seed(3)
    for shape in ((2, 3, 4, 6, 5), (1, 2, 1, 9, 2), (3, 5, 7, 8)):
        logits, distance_map = (torch.randn(shape, generator=generator) for _ in range(2))
        target = torch.softmax(torch.randn(shape, generator=generator), 1)
        given = [logits, target, distance_map]
        if len(shape) == 4:
            given = [one.unsqueeze(2) for one in given]
        assert torch.equal(loss(*given), expected(logits, target, distance_map))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = loss(given[0].bfloat16(), *given[1:])
        assert half.dtype == torch.float32
        assert torch.equal(half, expected(logits.bfloat16(), target, distance_map))


@pytest.mark.parametrize("mistake", ["labels", "one class", "another batch", "another size", "2D"])
def test_without_lossevo_what_the_graph_does_not_take_is_an_error(mixed: Any, mistake: str) -> None:
    loss = _loaded_without_lossevo(mixed.folder / "loss.pt2")
    logits = torch.zeros(2, 3, 4, 5, 6)
    wrong = {
        "labels": (logits, logits[:, :1], logits),
        "one class": (logits[:, :1], logits[:, :1], logits[:, :1]),
        "another batch": (logits, logits[:1], logits),
        "another size": (logits, logits[..., 1:], logits),
        "2D": (logits[:, :, 0],) * 3,
    }[mistake]
    with pytest.raises((AssertionError, IndexError)):
        loss(*wrong)


def test_graph_runs_on_any_device_and_keeps_the_type(mixed: Any) -> None:
    # "meta" has no values but refuses to mix devices: nothing may be tied to the device of the export.
    graph = load_program(mixed.folder / "loss.pt2").graph
    for dtype, expected in ((torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)):
        logits = torch.empty(1, 2, 3, 4, 5, device="meta", dtype=dtype)
        target = torch.empty(1, 2, 3, 4, 5, device="meta", dtype=torch.bool)
        value = graph.to("meta")(logits, target, logits)
        assert (value.device.type, value.dtype, value.shape) == ("meta", expected, ())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_loads_on_the_cpu_and_runs_on_a_gpu(mixed: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    loss = load_program(mixed.folder / "loss.pt2")
    expected = loss(*batch)
    found = loss.cuda()(*(tensor.cuda() for tensor in batch))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_archive_tells_nothing_of_the_exporting_machine(mixed: Any) -> None:
    with zipfile.ZipFile(mixed.folder / "loss.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for private in (str(Path(torch.__file__).parent.parent), str(Path.home()), str(Path(__file__).parents[2])):
        assert private.encode() not in content
