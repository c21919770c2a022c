"""Trials for tests, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lossevo.training import Fidelity, Split, Trial


def trial_of(
    loss: Mapping[str, Any] | str, train: Sequence[str], validate: Sequence[str], steps: int, seed: int = 0
) -> Trial:
    """A trial of a loss, or of one of the catalogue by its name."""
    spec = {"name": loss} if isinstance(loss, str) else loss
    return Trial(spec, Fidelity(steps, seed, Split(tuple(train), tuple(validate))))
