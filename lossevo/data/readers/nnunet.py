"""nnU-Net v2 raw data sets: ``dataset.json``, ``imagesTr/CASE_XXXX.nii.gz``, ``labelsTr/CASE.nii.gz``.

The format: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md. ``dataset.json`` may also
be in the older style (nnU-Net v1) that calls the channels ``modality`` and maps ``{"1": "name"}``, and may list the
files of each case under ``dataset`` instead of keeping them in the two folders. One case is one subject, unless an
entry ``"subjects": {case: patient}`` (of lossevo; nnU-Net takes no notice of it) or a name of BIDS (``sub-01_ses-2``)
says otherwise.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lossevo.data.files import ENDINGS
from lossevo.data.loading import ranges
from lossevo.data.readers.datalist import is_datalist, is_list_of_elsewhere
from lossevo.data.readers.listing import json_channel_names, json_label_names, listed, read_json, stem
from lossevo.data.readers.reader import Reader
from lossevo.data.readers.table import missing_of_list, subject_of
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, error, warning
from lossevo.errors import LossevoError, shown

DESCRIPTION = "dataset.json"
_EXPECTED = "channel_names, labels, numTraining and file_ending"


def _matches(folder: Path) -> bool:
    file = folder / DESCRIPTION
    return file.is_file() and not is_datalist(file) and not is_list_of_elsewhere(file)


def _scan(folder: Path) -> Scan:
    if not folder.is_dir():
        raise LossevoError(
            f"{folder}: no such folder; expected an nnU-Net raw data set (dataset.json, imagesTr, labelsTr)"
        )
    file = folder / DESCRIPTION
    if not file.is_file():
        raise LossevoError(f"{file}: missing; an nnU-Net raw data set names its channels and labels there")
    description = read_json(file, _EXPECTED)
    label_names = _label_names(description.get("labels"), file)
    gaps = _gaps(label_names, file)
    channel_names = json_channel_names(description.get("channel_names", description.get("modality")), file)
    ending = description.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or ending.lower() not in ENDINGS:
        raise LossevoError(
            f"{file}: file_ending {ending!r} cannot be read, only {', '.join(ENDINGS)}; convert the images and labels"
        )
    listing = description.get("dataset")
    if listing is None:
        images, labels, problems = _from_folders(folder, ending)
    else:
        images, labels = _from_description(listing, file)
        entries = [(case, [*images[case].values(), labels[case]]) for case in images]
        problems = [problem for problem in missing_of_list(entries, file) if problem is not None]
    where = folder / "imagesTr", folder / "labelsTr", ending
    problems += gaps
    problems += _incomplete(images, labels, where, channels=len(channel_names))
    expected = description.get("numTraining", len(images))
    if expected != len(images):
        problems.append(
            error(
                "case-count",
                f"{file}: numTraining is {shown(expected)}, but {'dataset' if listing else 'imagesTr'} holds "
                f"{len(images)} case(s); complete the data set or correct the number",
                file,
            )
        )
    broken = {problem.case_id for problem in problems if problem.case_id is not None}
    subjects = _subjects(description.get("subjects", {}), file)
    for case_id in sorted(subjects.keys() - images.keys() - labels.keys()):
        problems.append(
            error(
                "unknown-case",
                f'{file}: "subjects" names {case_id!r}, which is no case here; correct it there, or a patient with a '
                "misspelt case would be parted in splits",
                file,
            )
        )
    cases = tuple(
        CaseFiles(
            case_id,
            subjects.get(case_id) or subject_of(case_id, images[case_id][0], folder),
            tuple(images[case_id][channel] for channel in range(len(channel_names))),
            (LabelFile(labels[case_id]),),
        )
        for case_id in sorted(images.keys() & labels.keys())
        if case_id not in broken
    )
    return Scan("nnunet", folder, cases, label_names, channel_names, tuple(problems), labels_named_in=DESCRIPTION)


def _label_names(labels: Any, file: Path) -> dict[int, str]:
    names = json_label_names(labels, file)
    if 0 not in names or len(names) < 2:
        raise LossevoError(
            f'{file}: "labels" must have the value 0 (background) and at least one foreground class, got '
            f"{shown(sorted(names))}"
        )
    return {value: names[value] for value in sorted(names) if value}


def _gaps(names: dict[int, str], file: Path) -> list[Problem]:
    if max(names) == len(names):
        return []
    told = f'{file}: "labels" has gaps (0, {ranges(names)}), which nnU-Net itself refuses'
    return [warning("label-gaps", f"{told}; lossevo reads them, and 'lossevo data convert' numbers them anew", file)]


def _subjects(subjects: Any, file: Path) -> dict[str, str]:
    if not isinstance(subjects, dict) or not all(isinstance(subject, str) for subject in subjects.values()):
        raise LossevoError(f'{file}: "subjects" must map case ids to patients, such as {{"case_1": "patient_1"}}')
    return subjects


def _from_folders(folder: Path, ending: str) -> tuple[dict[str, dict[int, Path]], dict[str, Path], list[Problem]]:
    """Case id -> channel -> image, case id -> label, and images whose name is not understood."""
    for name in ("imagesTr", "labelsTr"):
        if not (folder / name).is_dir():
            raise LossevoError(
                f"{folder / name}: no such folder; an nnU-Net raw data set keeps its training cases there"
            )
    images: dict[str, dict[int, Path]] = {}
    problems = []
    for file in listed(folder / "imagesTr", ending.lower()):
        match = re.fullmatch(r"(.+)_(\d{4})", stem(file))
        if match is None:
            expected = f"CASE_0000{ending} (case, underscore, four-digit channel)"
            problems.append(error("image-name", f"{file}: expected a name like {expected}", file))
        elif twin := images.get(match[1], {}).get(int(match[2])):
            problems.append(error("duplicate-case", f"{file}: the same name as {twin}; remove one", file, match[1]))
        else:
            images.setdefault(match[1], {})[int(match[2])] = file
    labels = {stem(file): file for file in listed(folder / "labelsTr", ending.lower())}
    if not images and not labels and not problems:
        problems.append(error("empty", f"{folder}: imagesTr holds no {ending} file: the cohort is empty", folder))
    return images, labels, problems


def _from_description(listing: Any, file: Path) -> tuple[dict[str, dict[int, Path]], dict[str, Path]]:
    """The same from the entry ``dataset``: ``{case: {"images": [...], "label": ...}}``, relative to dataset.json."""
    try:
        if any(isinstance(entry["images"], str) for entry in listing.values()):
            raise TypeError
        images = {
            case: {channel: _expanded(path, file) for channel, path in enumerate(entry["images"])}
            for case, entry in listing.items()
        }
        return images, {case: _expanded(entry["label"], file) for case, entry in listing.items()}
    except (AttributeError, KeyError, TypeError):
        raise LossevoError(f'{file}: "dataset" must map each case to {{"images": [FILE, …], "label": FILE}}') from None


def _expanded(path: str, file: Path) -> Path:
    """A path of ``dataset``, with variables of the environment as nnU-Net expands them.

    Raises:
        LossevoError: a variable is not set, and no file is called so.
    """
    expanded = file.parent / os.path.expandvars(path)
    unset = re.search(r"\$(\w+|\{[^}]*\})", os.path.expandvars(path))
    if unset and not expanded.exists():
        name = unset[1].strip("{}")
        raise LossevoError(
            f'{file}: "dataset" names {shown(path, 200)}, but the variable {name} is not set; set it '
            f"(export {name}=FOLDER), or write the path"
        )
    return expanded


def _incomplete(
    images: dict[str, dict[int, Path]], labels: dict[str, Path], where: tuple[Path, Path, str], *, channels: int
) -> list[Problem]:
    image_folder, label_folder, ending = where
    problems = []
    for case_id in sorted(images.keys() | labels.keys()):
        found = images.get(case_id, {})
        missing = [channel for channel in range(channels) if channel not in found]
        if case_id not in labels:
            file = next(iter(found.values()))
            message = f"{file}: no label {label_folder / case_id}{ending}"
            problems.append(error("missing-label", message, file, case_id))
        elif missing:
            file = labels[case_id]
            message = f"{file}: no image {image_folder / case_id}_{missing[0]:04d}{ending}"
            problems.append(error("missing-image", message, file, case_id))
        elif len(found) > channels:
            file = found[max(found)]
            message = f"{file}: dataset.json names {channels} channel(s) only; name this one there or remove the file"
            problems.append(error("unnamed-channel", message, file, case_id))
    return problems


NNUNET = Reader("nnunet", "dataset.json with imagesTr and labelsTr (nnU-Net v2 or v1)", _matches, _scan)
