"""The public names of the package are there, and cost nothing until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lossevo


def test_public_names() -> None:
    assert set(lossevo.__all__) <= set(dir(lossevo))
    assert "tversky" in lossevo.losses.names()
    assert str(lossevo.Expression.parse("class_mean(mean(p))")) == "class_mean(mean(p))"
    assert callable(lossevo.load)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = lossevo.lode


def test_importing_lossevo_does_not_import_pytorch() -> None:
    program = "import lossevo, sys; assert not {'torch', 'lossevo.export', 'lossevo.losses'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
