"""Exports shared by the tests of this room: writing one takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from lossevo.export import ExportReport, export_loss
from lossevo.export.document import document_of
from lossevo.export.program import save_program
from lossevo.export.source import source_of
from lossevo.expression import Expression
from lossevo.losses import expression_of
from lossevo.losses.definitions import Definition
from tests.networks import random_network

# Batch sums, a REGION value that broadcasts into maps, coefficients beside maps and alone, the distance map.
_MIXED = (
    "1.5 - foreground_mean(2.0 * sum(p * y) / (batch_sum(p) + sum(y)))"
    " + 0.3 * class_mean(mean((p - mean(p) - batch_mean(y)) * logp * d)) * log(1.3)"
)

_DICE_BOUNDARY = Expression.parse("1 - foreground_mean(2 * sum(p * y) / sum(p + y)) + foreground_mean(mean(p * d))")
_LOSSES: dict[str, Definition] = {
    "tversky": expression_of("tversky"),
    "baikal": expression_of("baikal"),
    "boundary": expression_of("boundary"),
    "mixed": Expression.parse(_MIXED),
    "learned": random_network(activation="tanh"),
}


@dataclass(frozen=True)
class Exported:
    """A loss and the folder that holds its three files."""

    name: str
    definition: Definition
    folder: Path


@pytest.fixture(scope="session")
def metadata() -> dict[str, Any]:
    return {"name": "winner 7", "score": 0.8125, "score_se": 0.0041, "seeds": [1, 2, 3], "origin": "run-3", "task": {}}


@pytest.fixture(scope="session")
def mixed(metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The mixed expression, exported through the front door and so verified in a process of its own."""
    return export_loss(_LOSSES["mixed"], tmp_path_factory.mktemp("exports") / "new" / "mixed", metadata=metadata)


@pytest.fixture(scope="session")
def learned(metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """A loss network, likewise."""
    return export_loss(_LOSSES["learned"], tmp_path_factory.mktemp("exports") / "learned", metadata=metadata)


@pytest.fixture(scope="session", params=_LOSSES)
def exported(
    request: pytest.FixtureRequest, metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Each loss with its files; those of all but the mixed and the learned one have not been verified yet."""
    if request.param in ("mixed", "learned"):
        return Exported(request.param, _LOSSES[request.param], request.getfixturevalue(request.param).folder)
    return _written(request.param, tmp_path_factory.mktemp(request.param), metadata)


@pytest.fixture(scope="session")
def tversky(metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A loss that trains."""
    return _written("tversky", tmp_path_factory.mktemp("tversky"), metadata)


@pytest.fixture(scope="session")
def dice_boundary(metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A loss that trains and measures distances in mm."""
    return _written("dice_boundary", tmp_path_factory.mktemp("dice_boundary"), metadata)


def _written(name: str, folder: Path, metadata: dict[str, Any]) -> Exported:
    document = document_of(_LOSSES.get(name, _DICE_BOUNDARY), metadata)
    (folder / "loss.json").write_text(document.to_text(), encoding="utf-8")
    (folder / "loss.py").write_text(source_of(document), encoding="utf-8")
    save_program(document, folder / "loss.pt2")
    return Exported(name, document.definition, folder)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 3, 4, 6, 5) and labels."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, 4, 6, 5, generator=generator), torch.randint(0, 3, (2, 1, 4, 6, 5), generator=generator)
