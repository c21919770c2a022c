"""Code of the user's that makes a loss: a Python file, or a module that can be imported, and a name in it.

Such code runs only where somebody hands a :class:`LossModule` over, as ``lossevo evaluate --loss-module`` does. A loss
specification ``{"module": "/path/my_losses.py:MyLoss", "sha256": …}`` names the code and cannot run it: in a ledger, a
configuration or any other file it is text. The source of a file travels with the module, so that workers need no copy.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.abc import ExecutionLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from lossevo.cluster.job import describe as told
from lossevo.documents import read_text
from lossevo.errors import LossevoError, nearest, shown
from lossevo.losses.base import SegmentationLoss
from lossevo.losses.foreign import made_by, require_factory

_KEYS = {"module", "sha256"}
_MOST_BYTES = 2**20
_IMPORTABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_EXPECTED = "FILE.py:CLASS or package.module:CLASS"


@dataclass(frozen=True, slots=True)
class LossModule:
    """Permission to run some code, and the code.

    Attributes:
        place: absolute path of a Python file, or what ``import`` takes.
        name: of the class, or the function, that makes the loss.
        sha256: of the source file's text.
        source: that text; None for a module to import, which every worker has to have.
    """

    place: str
    name: str
    sha256: str
    source: str | None = field(repr=False)

    @classmethod
    def read(cls, text: str) -> Self:
        """What ``FILE.py:CLASS`` or ``package.module:CLASS`` names. The file is read and not run; of a package, its
        parents are imported to find the module.

        Raises:
            LossevoError: neither of both, no such file or module, or it cannot be read.
        """
        place, _, name = text.rpartition(":")
        if not place or not name.isidentifier():
            raise LossevoError(f"{shown(text)} names no loss, expected {_EXPECTED}")
        if place.endswith(".py"):
            path = Path(place).absolute()
            source = read_text(path, kind="Python", most_bytes=_MOST_BYTES)
            return cls(str(path), name, _sha256(source), source)
        if not _IMPORTABLE.fullmatch(place):
            raise LossevoError(f"{shown(text)} names no loss, expected {_EXPECTED}")
        return cls(place, name, _sha256_of_importable(place), None)

    @classmethod
    def in_spec(cls, spec: Mapping[str, Any]) -> Self:
        """What a specification names; without its source, if it has one.

        Raises:
            LossevoError: it is no specification of code.
        """
        module, sha256 = spec.get("module"), spec.get("sha256")
        if {*spec} != _KEYS or not isinstance(module, str) or not isinstance(sha256, str) or ":" not in module:
            raise LossevoError(f'loss specification {shown(spec)} is not {{"module": "FILE.py:CLASS", "sha256": ...}}')
        place, _, name = module.rpartition(":")
        return cls(place, name, sha256, None)

    def __str__(self) -> str:
        return f"{self.place}:{self.name}"

    @property
    def spec(self) -> dict[str, Any]:
        """Names the code, in plain data."""
        return {"module": str(self), "sha256": self.sha256}

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for the same code, wherever its file lies."""
        return self.name, self.sha256

    def make(self) -> SegmentationLoss:
        """A new loss. **Runs the code.**

        Raises:
            LossevoError: it fails, has no such name, that makes no loss, or a module to import is another one here.
        """
        module = self._imported() if self.source is None else _run(self.place, self.source, self.sha256)
        factory = getattr(module, self.name, None)
        if factory is None:
            known = [name for name in vars(module) if not name.startswith("_")]
            raise LossevoError(f"{self}: there is no {self.name} in {self.place}{nearest(self.name, known)}")
        return made_by(require_factory(factory, str(self)), str(self))

    def _imported(self) -> ModuleType:
        found = _sha256_of_importable(self.place)
        if found != self.sha256:
            raise LossevoError(
                f"{self}: on {platform.node()} the module is another one than was named (sha256 {found[:12]}… instead "
                f"of {self.sha256[:12]}…); install the same everywhere"
            )
        try:
            return importlib.import_module(self.place)
        except (Exception, SystemExit) as error:
            raise LossevoError(f"{self.place} cannot be imported on {platform.node()}: {told(error)}") from error


def made_from(spec: Mapping[str, Any], allowed: Iterable[LossModule]) -> SegmentationLoss:
    """A new loss by a specification, whose code runs if it is among those ``allowed``.

    Raises:
        LossevoError: it is not, or as :meth:`LossModule.make`.
    """
    asked = LossModule.in_spec(spec)
    for module in allowed:
        if module.identity == asked.identity:
            return module.make()
    raise LossevoError(
        f"a loss is code of {asked}, which is not run unless it is named: only 'lossevo evaluate --loss-module' and "
        "'lossevo analyze --loss-module' do so"
    )


class _Text(ExecutionLoader):
    """Loads a module from its text, wherever the file is."""

    def __init__(self, path: str, text: str) -> None:
        self._path, self._text = path, text

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_source(self, fullname: str) -> str:
        return self._text

    def is_package(self, fullname: str) -> bool:
        return False


def _run(path: str, text: str, sha256: str) -> ModuleType:
    """The module with this text; run once in a process."""
    name = f"lossevo_loss_module_{sha256[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Text(path, text)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    # Known by its name while it runs: dataclasses and torch.jit look their module up.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise LossevoError(f"{path} cannot be run on {platform.node()}: {told(error)}") from error
    return module


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256_of_importable(place: str) -> str:
    try:
        found = importlib.util.find_spec(place)
    except (Exception, SystemExit) as error:
        raise LossevoError(f"{place} cannot be imported on {platform.node()}: {told(error)}") from error
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise LossevoError(
            f"{place}: there is no module of this name that Python can import on {platform.node()}; install its "
            "package there, or name a file, as in my_losses.py:MyLoss"
        )
    return _sha256(read_text(Path(found.origin), kind="Python", most_bytes=_MOST_BYTES))
