from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lossevo.data.readers import scan
from lossevo.data.scan import Scan, Severity


@pytest.fixture
def codes():
    """The codes of a scan's problems, by severity."""

    def codes(found: Scan, severity: Severity = Severity.ERROR) -> list[str]:
        assert all("\n" not in problem.message for problem in found.problems)
        return [problem.code for problem in found.problems if problem.severity is severity]

    return codes


@pytest.fixture
def detected(tmp_path: Path):
    """The scan of what a test has written under its folder, which must be recognised as a format without help."""

    def detected(format: str, folder: Path = tmp_path) -> Scan:
        found = scan(folder)
        assert found.format == format
        assert scan(folder, format=format) == found
        return found

    return detected


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
