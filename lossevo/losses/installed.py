"""Losses that installed packages bring: the entry points of the group ``lossevo.losses``, each a name and a factory
(:mod:`lossevo.losses.foreign`).

In the package's ``pyproject.toml``::

    [project.entry-points."lossevo.losses"]
    their_loss = "their_package.losses:TheirLoss"

An installed package is trusted, as any dependency is; so its loss goes by its name alone. It is imported when it is
asked for.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Container
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from lossevo.cluster.job import describe as told
from lossevo.errors import LossevoError, shown
from lossevo.losses.base import Description, SegmentationLoss
from lossevo.losses.foreign import Factory, made_by, parameters_of, require_factory

GROUP = "lossevo.losses"
FAMILY = "installed"
"""The family of all of them, whatever they say of themselves."""

_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_RESERVED = "all"


@dataclass(frozen=True, slots=True)
class InstalledLoss:
    """An entry point.

    Attributes:
        name: of the loss.
        distribution: name and version of the package that brings it.
        entry: what it is loaded by.
        problem: why it cannot be used, known without importing it; mostly empty.
    """

    name: str
    distribution: str
    entry: EntryPoint
    problem: str = ""

    def __str__(self) -> str:
        return f"loss '{self.name}' of {self.distribution}"

    def factory(self) -> Factory:
        """What makes it. **Imports the package.**

        Raises:
            LossevoError: the name is taken, it cannot be imported, or is no loss.
        """
        if self.problem:
            raise LossevoError(f"{self}: {self.problem}")
        try:
            loaded = self.entry.load()
        except (Exception, SystemExit) as error:
            raise LossevoError(f"{self} ({self.entry.value}) cannot be imported: {told(error)}") from error
        return require_factory(loaded, f"{self} ({self.entry.value})")

    def make(self, **chosen: Any) -> SegmentationLoss:
        """A new loss with the parameters chosen.

        Raises:
            LossevoError: as :meth:`factory`, or it cannot be made with these.
        """
        return made_by(self.factory(), str(self), chosen)

    def parameters(self) -> dict[str, Any]:
        """Its parameters and their defaults.

        Raises:
            LossevoError: as :meth:`factory`.
        """
        return parameters_of(self.factory()) or {}

    def describe(self) -> Description:
        """What it says of itself: a :class:`~lossevo.losses.Description` or the first line of its docstring.

        Raises:
            LossevoError: as :meth:`factory`.
        """
        factory = self.factory()
        own = getattr(factory, "description", None)
        if isinstance(own, Description):
            return Description(self.name, FAMILY, own.summary, own.formula, self.distribution, own.purpose)
        summary = documentation_of(factory).partition("\n")[0]
        return Description(self.name, FAMILY, summary, f"code of {self.entry.value}", self.distribution, summary)


def installed(taken: Container[str]) -> dict[str, InstalledLoss]:
    """The losses that installed packages bring, by name; nothing is imported. Names in ``taken`` are refused."""
    found: dict[str, InstalledLoss] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, _distribution(entry))):
        name, distribution, problem = entry.name, _distribution(entry), ""
        if not _NAME.fullmatch(name):
            problem = "this is no name of a loss, expected letters, digits, '_', '-' and '.'"
        elif name in taken or name == _RESERVED:
            problem = "the name is lossevo's own; its package has to call it otherwise"
        elif name in found:
            problem = f"{found[name].distribution} brings a loss of this name too; uninstall one of them"
        found[name] = InstalledLoss(name, distribution, entry, problem)
    return found


def documentation_of(factory: Factory) -> str:
    """Its own docstring, not its parent's; mostly empty."""
    own = vars(factory).get("__doc__") if isinstance(factory, type) else factory.__doc__
    return inspect.cleandoc(own or "")


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else shown(entry.value)
