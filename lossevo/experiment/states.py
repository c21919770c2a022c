"""States of trainings that others may continue: a cache in the run folder, of bounded size.

A training whose state is gone begins anew and has the same result, so nothing here is ever needed: a full disk, a lost
or a damaged file costs time alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lossevo.errors import LossevoError
from lossevo.training import Trial
from lossevo.writing import write_bytes

MOST_BYTES: Final = 4 * 2**30


@dataclass
class States:
    """States in the files of a folder; if they take more than ``most_bytes`` those of least worth go first.

    A state counts as a good one until :meth:`judge` says otherwise.
    """

    folder: Path
    most_bytes: int = MOST_BYTES
    _sizes: dict[str, int] = field(default_factory=dict)
    _worth: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.folder.is_symlink() and self.folder.is_dir():
            self._sizes = {path.stem: path.stat().st_size for path in sorted(self.folder.glob("*.pt"))}

    def put(self, trial: Trial, state: bytes) -> None:
        """Keep the state in which a trial ended, if there is room."""
        if len(state) > self.most_bytes or self.folder.is_symlink():
            return
        name = _name(trial, trial.fidelity.steps)
        with suppress(LossevoError, OSError):
            self.folder.mkdir(exist_ok=True)
            write_bytes(self._path(name), state)
            self._sizes[name] = len(state)
        while sum(self._sizes.values()) > self.most_bytes:
            self._drop(min(self._sizes, key=lambda known: self._worth.get(known, math.inf)))

    def to_continue(self, trial: Trial) -> bytes | None:
        """The state that a trial goes on from; None if it begins anew or the state is gone."""
        if trial.continues is None:
            return None
        try:
            return self._path(_name(trial, trial.continues)).read_bytes()
        except OSError:
            return None

    def judge(self, trial: Trial, worth: float) -> None:
        """A trial has ended with this worth. The state that it went on from is of no more use."""
        if trial.continues is not None:
            self._drop(_name(trial, trial.continues))
        name = _name(trial, trial.fidelity.steps)
        if name in self._sizes:
            self._worth[name] = worth

    def clear(self) -> None:
        """Forget all, and the folder."""
        self._sizes, self._worth = {}, {}
        if not self.folder.is_symlink():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _drop(self, name: str) -> None:
        self._sizes.pop(name, None)
        self._worth.pop(name, None)
        with suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"


def _name(trial: Trial, steps: int) -> str:
    loss = hashlib.sha256(json.dumps(dict(trial.loss), sort_keys=True).encode()).hexdigest()[:16]
    return f"{loss}-{trial.fidelity.seed}-{steps}"
