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

# Batch sums, a REGION value that broadcasts into maps, coefficients beside maps and alone, the distance map.
_MIXED = (
    "1.5 - foreground_mean(2.0 * sum(p * y) / (batch_sum(p) + sum(y)))"
    " + 0.3 * class_mean(mean((p - mean(p) - batch_mean(y)) * logp * d)) * log(1.3)"
)

_EXPRESSIONS = {
    "tversky": expression_of("tversky"),
    "baikal": expression_of("baikal"),
    "boundary": expression_of("boundary"),
    "mixed": Expression.parse(_MIXED),
}


@dataclass(frozen=True)
class Exported:
    """An expression and the folder that holds its three files."""

    name: str
    expression: Expression
    folder: Path


@pytest.fixture(scope="session")
def metadata() -> dict[str, Any]:
    return {"name": "winner 7", "score": 0.8125, "score_se": 0.0041, "seeds": [1, 2, 3], "origin": "run-3", "task": {}}


@pytest.fixture(scope="session")
def mixed(metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """The mixed expression, exported through the front door and so verified in a process of its own."""
    return export_loss(_EXPRESSIONS["mixed"], tmp_path_factory.mktemp("exports") / "new" / "mixed", metadata=metadata)


@pytest.fixture(scope="session", params=_EXPRESSIONS)
def exported(
    request: pytest.FixtureRequest, metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Each expression with its files; those of all but the mixed one have not been verified yet."""
    name, expression = request.param, _EXPRESSIONS[request.param]
    if name == "mixed":
        return Exported(name, expression, request.getfixturevalue("mixed").folder)
    folder = tmp_path_factory.mktemp(name)
    document = document_of(expression, metadata)
    (folder / "loss.json").write_text(document.to_text(), encoding="utf-8")
    (folder / "loss.py").write_text(source_of(document), encoding="utf-8")
    save_program(document, folder / "loss.pt2")
    return Exported(name, expression, folder)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 3, 4, 6, 5) and labels."""
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, 4, 6, 5, generator=generator), torch.randint(0, 3, (2, 1, 4, 6, 5), generator=generator)
