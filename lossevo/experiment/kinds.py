"""The kinds of folders in which trainings are kept, each with the format of its configuration and its command.

A folder states its format, ``family/version``. Who needs the kind of a folder asks here, so that nobody parses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lossevo.errors import LossevoError, shown
from lossevo.experiment.folder import read_json, refuse_unfinished

RUN_FILE: Final = "run.json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of folder.

    Attributes:
        name: what it holds, in words.
        command: the command of the command line that makes such a folder and goes on with it.
        format: what its configuration states, ``family/version``; this version is read, and no other.
        file: the file of the configuration.
    """

    name: str
    command: str
    format: str
    file: str = RUN_FILE

    @property
    def family(self) -> str:
        """The format without its version."""
        return self.format.rpartition("/")[0]

    def resume(self, folder: Path) -> str:
        """The command that goes on with such a folder."""
        return f"lossevo {self.command} --resume {folder}"


SEARCH: Final = Kind("search", "search", "lossevo.run/3")
META_TRAINING: Final = Kind("meta-training", "metalearn", "lossevo.metalearning/3")
COMPARISON: Final = Kind("comparison", "evaluate", "lossevo.comparison/3", "comparison.json")
TUNING: Final = Kind("tuning", "tune", "lossevo.tuning/1", "tuning.json")
KINDS: Final = (SEARCH, META_TRAINING, COMPARISON, TUNING)


def kind_stated(document: Mapping[str, Any]) -> Kind | None:
    """The kind of folder that a configuration is of, whatever its version; None if there is no such kind."""
    family = str(document.get("format")).rpartition("/")[0]
    return next((kind for kind in KINDS if kind.family == family), None)


def read_run_document(folder: Path) -> dict[str, Any]:
    """The configuration of a run folder, be it a search or a meta-training.

    Raises:
        LossevoError: not a run folder, not finished when it was made, or damaged.
    """
    refuse_unfinished(folder, SEARCH.command)
    if not (folder / RUN_FILE).is_file():
        makers = " or ".join(f"'lossevo {kind.command}'" for kind in KINDS if kind.file == RUN_FILE)
        raise LossevoError(f"{folder}: not a run folder (it has no {RUN_FILE}); give one that {makers} made")
    document = read_json(folder / RUN_FILE)
    if kind := kind_stated(document):
        _require_version(document, kind, folder)
    return document


def read_document(folder: Path, kind: Kind) -> dict[str, Any]:
    """The configuration of a folder of this kind.

    Raises:
        LossevoError: as :func:`read_run_document`, or the folder is of another kind or version.
    """
    if kind.file == RUN_FILE:
        document = read_run_document(folder)
    else:
        refuse_unfinished(folder, kind.command)
        if not (folder / kind.file).is_file():
            raise LossevoError(
                f"{folder}: not a {kind.name} folder (it has no {kind.file}); give one that "
                f"'lossevo {kind.command} --out' made"
            )
        document = read_json(folder / kind.file)
    found = kind_stated(document)
    if found is not None and found is not kind:
        raise LossevoError(f"{folder}: no {kind.name}, but a {found.name}; '{found.resume(folder)}' goes on with it")
    _require_version(document, kind, folder)
    return document


def refuse_other_version(folder: Path) -> None:
    """Raise LossevoError if a run folder says that another version of lossevo made it."""
    try:
        document = read_json(folder / RUN_FILE)
    except LossevoError:
        return
    if kind := kind_stated(document):
        _require_version(document, kind, folder)


def _require_version(document: Mapping[str, Any], kind: Kind, folder: Path) -> None:
    if document.get("format") != kind.format:
        raise LossevoError(
            f"{folder / kind.file}: format {shown(document.get('format'))}, but this lossevo reads {kind.format!r}; "
            "use the version that made it, or start anew"
        )


def resume_command(folder: Path) -> str:
    """The command that goes on with a run folder; a search's if the folder does not say what it is."""
    try:
        kind = kind_stated(read_json(folder / RUN_FILE))
    except LossevoError:
        kind = None
    return (kind or SEARCH).resume(folder)
