"""BIDS derivatives in general: ``sub-01/…/sub-01_T2w.nii.gz`` and ``derivatives/PIPELINE/sub-01/…/…_dseg.nii.gz``.

A ``dseg`` is a label map; ``…_dseg.tsv`` beside it, or above it in the pipeline's folder, names its values. A ``mask``
is one structure, named by its entity ``label`` (or ``desc``), and ``hemi``. An image has one map and one mask of each
structure: two raters' are an error, and what was drawn in another space is left out. ``PATH`` is the data set, or one
of its pipelines where there are several.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from lossevo.data.readers.bids_names import BidsName, match, second_label, subject_files, unmatched
from lossevo.data.readers.listing import folders, found_label_names, stem
from lossevo.data.readers.reader import Reader
from lossevo.data.readers.segmentation_table import read_segmentation_table
from lossevo.data.readers.table import channel_names_of
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, Severity, error, warning
from lossevo.errors import LossevoError


def _pipelines(path: Path) -> dict[Path, list[Path]]:
    """The pipelines with segmentations, each with those; ``path`` is the data set or one pipeline."""
    if not path.is_dir():
        return {}
    derivatives = path / "derivatives"
    candidates = [derivatives, *folders(derivatives)] if derivatives.is_dir() else [path]
    found = {
        folder: [file for file in subject_files(folder) if BidsName.of(file).suffix in ("dseg", "mask")]
        for folder in candidates
    }
    return {folder: files for folder, files in found.items() if files}


def _raw(pipeline: Path) -> Path:
    """The folder of the images that a pipeline's files were made from."""
    for folder in (pipeline, *pipeline.parents):
        if folder.name == "derivatives":
            return folder.parent
    return pipeline


def _scan(path: Path) -> Scan:
    pipelines = _pipelines(path)
    if not pipelines:
        raise LossevoError(f"{path}: no sub-…_dseg.nii.gz or sub-…_mask.nii.gz in derivatives/PIPELINE/sub-…")
    if len(pipelines) > 1:
        listing = ", ".join(str(folder.relative_to(path)) for folder in pipelines)
        raise LossevoError(f"{path}: several pipelines have segmentations ({listing}); give the folder of one")
    [(pipeline, segmentations)] = pipelines.items()
    raw = _raw(pipeline)
    images = [file for file in subject_files(raw) or subject_files(raw / "rawdata") if not BidsName.of(file).is_label]
    # Image -> structure of a mask (None: a map) -> file.
    labels_of: dict[Path, dict[str | None, Path]] = defaultdict(dict)
    problems: list[Problem] = []
    for file in segmentations:
        found = match(file, images)
        if len(found.images) != 1:
            problems.append(unmatched(file, found, raw))
        elif (first := labels_of[found.images[0]].setdefault(_structure(file), file)) != file:
            problems.append(second_label(file, first))
    used = [(structure, file) for labels in labels_of.values() for structure, file in labels.items()]
    names, named_in, more = _names([file for structure, file in used if structure is None], pipeline)
    masks = {file: structure for structure, file in used if structure is not None}
    value_of = {name: value for value, name in names.items()}
    for name in sorted(set(masks.values())):
        value_of.setdefault(name, max(value_of.values(), default=0) + 1)
    cases = tuple(
        CaseFiles(
            stem(image),
            f"sub-{BidsName.of(image).entities['sub']}",
            (image,),
            # Maps first: a mask of one structure is drawn over them.
            tuple(
                LabelFile(file, value_of[masks[file]] if file in masks else None)
                for file in sorted(labels_of[image].values(), key=lambda file: (file in masks, file))
            ),
        )
        for image in images
        if image in labels_of
    )
    unlabelled = [image for image in images if image not in labels_of]
    if unlabelled:
        message = f"{raw}: {len(unlabelled)} images without segmentation ({unlabelled[0].name}, …) are left out"
        problems.append(warning("missing-label", message, unlabelled[0]))
    if not cases and not any(problem.severity is Severity.ERROR for problem in problems):
        problems.append(error("empty", f"{path}: no image with a segmentation: the cohort is empty", path))
    label_names = {value: name for name, value in sorted(value_of.items(), key=lambda item: item[1])}
    problems += more
    channels = channel_names_of(cases)
    return Scan("bids", path, cases, label_names, channels, tuple(problems), labels_named_in=named_in)


def _names(maps: Sequence[Path], pipeline: Path) -> tuple[dict[int, str], str, list[Problem]]:
    """Value -> name of all label maps, from their tables where there are any."""
    tables = {table for file in maps if (table := _table(file, pipeline)) is not None}
    if not tables:
        found, unreadable = found_label_names(maps) if maps else ({}, [])
        return found, "the other label maps", unreadable
    names: dict[int, str] = {}
    problems: list[Problem] = []
    for table in sorted(tables):
        for value, name in read_segmentation_table(table).items():
            if names.setdefault(value, name) != name:
                message = f"{table}: {value} is '{name}', but '{names[value]}' in another table; make them agree"
                problems.append(error("contradicting-names", message, table))
    return dict(sorted(names.items())), "dseg.tsv", problems


def _table(segmentation: Path, pipeline: Path) -> Path | None:
    """The nearest ``dseg.tsv`` upwards whose entities the segmentation has too (the inheritance principle of BIDS)."""
    entities: Mapping[str, str] = BidsName.of(segmentation).entities
    for folder in segmentation.parents:
        for table in sorted(folder.glob("*dseg.tsv"), key=lambda file: -len(file.name)):
            if BidsName.of(table.with_suffix("")).entities.items() <= entities.items():
                return table
        if folder == pipeline:
            break
    return None


def _structure(segmentation: Path) -> str | None:
    """What a mask is of; None for a label map. A side is a structure of its own: an image may have one of the two."""
    name = BidsName.of(segmentation)
    if name.suffix == "dseg":
        return None
    entities = name.entities
    structure = entities.get("label") or entities.get("desc") or "mask"
    return f"{structure} {entities['hemi']}" if "hemi" in entities else structure


BIDS = Reader(
    "bids",
    "derivatives/PIPELINE/sub-…/…_dseg.nii.gz or …_mask.nii.gz (BIDS)",
    lambda path: bool(_pipelines(path)),
    _scan,
    general=True,
)
