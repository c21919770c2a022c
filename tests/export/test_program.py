"""loss.pt2: what its graph does and does not hold."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lossevo.export.program import load_program


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
