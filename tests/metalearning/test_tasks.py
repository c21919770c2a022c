"""What travels between driver and workers loses nothing on the way."""

from __future__ import annotations

import json

import torch

from lossevo.metalearning.tasks import MetaTask, packed, unpacked


def test_tensors_come_back_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(3, 2, generator=generator), torch.tensor(1e-42), torch.randn(2, 1, 4, generator=generator)]
    layout = torch.randn(1, 2, 2, 2, 2, generator=generator).to(memory_format=torch.channels_last_3d)
    back = unpacked(packed([*tensors, layout]), [*tensors, layout])
    for one, other in zip([*tensors, layout], back, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


def test_a_task_is_json() -> None:
    network = {"inputs": ["margin", "target"], "activation": "elu", "layers": [[[1.0, 2.0]]]}
    task = MetaTask(network, ("distance",), "adam", True, False, "dice", ("a",), ("b", "c"), 2, 7, 75, 4, 4, "AAAA")
    assert MetaTask.from_payload(json.loads(json.dumps(task.to_payload()))) == task
