"""How often one looked: which comparisons tested the same subjects before this one, and with which evolved losses.

A loss that was chosen by such a comparison is not tested afresh by the next one, and no p knows of that. Earlier
comparisons are found in the folders beside this one and in a registry: a file to which each comparison appends a line
of JSON. Both are somebody else's: they are data that is checked, links are not followed, and what cannot be read is
skipped with a warning.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from lossevo.comparison.configuration import ComparisonConfig
from lossevo.comparison.leakage import FoldPlan, seen_subjects
from lossevo.comparison.provenance import SearchRecord, named
from lossevo.documents import parse_json, read_json, read_text
from lossevo.errors import LossevoError, is_text, shown
from lossevo.experiment import CohortSource, Subjects
from lossevo.experiment.kinds import COMPARISON
from lossevo.writing import append_line

LINE_FORMAT: Final = "lossevo.registry/1"
FOLDS_FILE, EARLIER_FILE = "folds.json", "earlier.json"
_RESULTS = ("cases.csv", "summary.json")
_ADVICE = "name a new file, or one that 'lossevo evaluate --registry' made"


def _writable(text: str) -> str:
    if not is_text(text):
        raise ValueError("no text that can be written")
    return text


_Text = Annotated[str, StringConstraints(max_length=100_000), AfterValidator(_writable)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class EvolvedLoss(_Data):
    """An evolved loss of an earlier comparison; ``origin`` names its search, ``hash`` is that of its definition."""

    name: _Text
    origin: _Text
    hash: _Text


class Look(_Data):
    """A comparison as a line of a registry: who was tested, with which evolved losses. ``id`` is that of its content,
    so a comparison that was copied or made again is the same.
    """

    format: Literal["lossevo.registry/1"] = LINE_FORMAT
    id: _Text
    comparison: _Text
    began: _Text = ""
    cohort: CohortSource
    tested: tuple[_Text, ...]
    hashes: Mapping[_Text, _Text]
    evolved: tuple[EvolvedLoss, ...]

    @classmethod
    def of(cls, folder: Path, config: Mapping[str, Any], folds: Mapping[str, Any], *, began: str = "") -> Self:
        """What ``comparison.json`` and ``folds.json`` of a comparison say; checked here.

        Raises:
            ValueError: they are no comparison's.
        """
        test = TypeAdapter(list[list[str]]).validate_python(folds.get("test"))
        hashes = TypeAdapter(dict[str, str]).validate_python(folds.get("hashes", {}))
        contenders = TypeAdapter(list[_Named]).validate_python(config.get("contenders"))
        tested = sorted(subject for fold in test for subject in fold)
        external = config.get("test_cohort")
        settings = [config.get(key) for key in ("cohort", "labels", "spacing_mm", "task", "seeds", "seed")]
        settings += [external] if external else []
        return cls(
            id=_digest([settings, [contender.trained for contender in contenders], test, sorted(hashes.items())]),
            comparison=str(folder.absolute()),
            began=began,
            cohort=CohortSource.model_validate(external or config.get("cohort")),
            tested=tuple(tested),
            hashes={subject: hashes[subject] for subject in tested if subject in hashes},
            evolved=tuple(
                EvolvedLoss(name=contender.name, origin=contender.origin, hash=_digest(contender.spec))
                for contender in contenders
                if contender.evolved
            ),
        )


class _Named(_Data):
    name: str
    origin: str
    evolved: bool = False
    spec: dict[str, Any]
    learning_rate: float | None = None

    @property
    def trained(self) -> object:
        """What is trained: the loss, and a learning rate of its own."""
        return self.spec if self.learning_rate is None else [self.spec, self.learning_rate]


class EarlierComparison(_Data):
    """An earlier comparison that tested some of the same ``subjects`` (as they are called here)."""

    comparison: _Text
    began: _Text
    evolved: tuple[EvolvedLoss, ...]
    subjects: tuple[str, ...] = Field(min_length=1)


class _Earlier(_Data):
    earlier: tuple[EarlierComparison, ...]


def find_looks(folder: Path, registry: Path | None) -> tuple[Look, ...]:
    """The comparisons beside ``folder`` that have results, and those of ``registry``, each once.

    Raises:
        LossevoError: the registry cannot be read, or is none.
    """
    found = {look.id: look for look in (*_beside(folder), *(read_registry(registry) if registry else ()))}
    return tuple(found.values())


def record_look(
    folder: Path,
    config: ComparisonConfig,
    plan: FoldPlan,
    hashes: Mapping[str, str],
    looks: Iterable[Look],
) -> tuple[EarlierComparison, ...]:
    """Those of ``looks`` that tested the same subjects as a new comparison, which is put on its registry.

    A subject is the same as the leakage guard has it: by the content of its images and labels, else by its name
    (:func:`~lossevo.comparison.leakage.seen_subjects`).

    Raises:
        LossevoError: the registry cannot be written.
    """
    tested = {subject: hashes[subject] for subject in plan.tested}
    this = Look.of(
        folder,
        config.model_dump(mode="json"),
        {"test": plan.test, "hashes": dict(hashes)},
        began=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    earlier = []
    for look in looks:
        record = SearchRecord(subjects=Subjects(look.tested, (), (), look.hashes), cohort=look.cohort)
        same = seen_subjects(record, tested, cohort=config.tested_cohort) if look.id != this.id else frozenset()
        if same:
            earlier.append(
                EarlierComparison(
                    comparison=look.comparison, began=look.began, evolved=look.evolved, subjects=tuple(sorted(same))
                )
            )
    if config.registry is not None:
        append_line(config.registry, this.model_dump_json(), advice=_ADVICE)
    return tuple(earlier)


def read_registry(path: Path) -> tuple[Look, ...]:
    """The lines of a registry that can be read, with one warning of those that cannot; none if there is no file.

    Raises:
        LossevoError: a link, a folder, no text, too large, or no line of it is a registry's.
    """
    try:
        link, found, place = path.is_symlink(), path.exists(), path.parent.is_dir()
    except OSError as problem:
        raise LossevoError(f"{path}: cannot be read ({problem.strerror or problem}); {_ADVICE}") from None
    if link:
        raise LossevoError(f"{path}: a registry that is a symbolic link is not followed; name the file itself")
    if not found and not place:
        raise LossevoError(f"{path}: there is no folder {path.parent}; make it, or name a file elsewhere")
    if not found:
        return ()
    looks, problems = [], []
    for number, line in enumerate(read_text(path, kind="a registry").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            looks.append(Look.model_validate(parse_json(line, source=f"line {number}")))
        except (LossevoError, ValidationError) as problem:
            problems.append(_reason(problem, f"line {number}"))
    if problems and not looks:
        raise LossevoError(f"{path}: not a registry of comparisons ({problems[0]}); {_ADVICE}")
    if problems:
        _warn(f"{path}: {len(problems)} of {len(problems) + len(looks)} lines cannot be read and are skipped", problems)
    return tuple(looks)


def read_earlier(folder: Path) -> tuple[EarlierComparison, ...]:
    """What a comparison folder recorded of those before it; none for a folder of an older version.

    Raises:
        LossevoError: the record is damaged.
    """
    path = folder / EARLIER_FILE
    if not path.exists():
        return ()
    try:
        return _Earlier.model_validate(read_json(path)).earlier
    except ValidationError as problem:
        raise LossevoError(f"{path}: damaged ({_reason(problem, 'record')}); start a new comparison") from None


def looks_told(earlier: Sequence[EarlierComparison], tested: Sequence[str], registry: Path | None) -> list[str]:
    """How often one looked, as a note; nothing if nobody did and no registry is kept."""
    if not earlier:
        return [f"No earlier comparison of these subjects is known, here or in {registry.name}."] if registry else []
    count, losses = len(earlier), len({loss.hash for look in earlier for loss in look.evolved})
    same = {subject for look in earlier for subject in look.subjects}
    who = "The same subjects" if same.issuperset(tested) else f"{len(same)} of the {len(tested)} tested subjects"
    what = f"{losses} evolved loss{'es' if losses != 1 else ''}" if losses else "hand-crafted losses alone"
    return [
        f"{who} were looked at by {count} earlier comparison{'s' if count > 1 else ''} of {what} "
        f"({named({_name(look) for look in earlier})}). A loss or setting that was chosen by them is "
        "not tested afresh here, and no p or interval accounts for it."
    ]


def _name(look: EarlierComparison) -> str:
    """Of its folder, in one line: a registry may say anything."""
    name = Path(look.comparison).name
    return "".join(sign if sign.isprintable() else "?" for sign in name[:60]) or "unnamed"


def _beside(folder: Path) -> list[Look]:
    """The comparisons in the same parent folder that have results; one warning of what cannot be read."""
    looks, problems = [], []
    here = folder.absolute()
    try:
        others = sorted(path for path in here.parent.iterdir() if path.name != here.name)
    except OSError:
        return []
    for other in others:
        try:
            if not _is_comparison(other):
                continue
            config, folds = read_json(other / COMPARISON.file), read_json(other / FOLDS_FILE)
            if not isinstance(config, dict) or not isinstance(folds, dict):
                raise ValueError("expected an object of keys and values in each file")
            looks.append(Look.of(other, config, folds))
        except (LossevoError, ValueError, OSError) as problem:
            problems.append(_reason(problem, other.name))
    if problems:
        what = "folder looks like a comparison" if len(problems) == 1 else "folders look like comparisons"
        _warn(f"{here.parent}: {len(problems)} {what} but cannot be read, and so not counted as a look", problems)
    return looks


def _is_comparison(folder: Path) -> bool:
    """Whether it has a configuration and results; links are not followed."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    files = [folder / name for name in (COMPARISON.file, FOLDS_FILE)]
    results = any((folder / name).exists() for name in _RESULTS)
    return results and files[0].exists() and not any(file.is_symlink() for file in files)


def _reason(problem: Exception, where: str) -> str:
    """A problem in one line."""
    if isinstance(problem, ValidationError):
        first = problem.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{where}: {place + ': ' if place else ''}{first['msg']}, found {shown(first['input'], 40)}"
    text = str(problem)
    return text if where in text else f"{where}: {text}"


def _warn(what: str, problems: Sequence[str]) -> None:
    more = "" if len(problems) == 1 else f"; and {len(problems) - 1} more"
    warnings.warn(f"{what} ({problems[0]}{more})", stacklevel=3)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
