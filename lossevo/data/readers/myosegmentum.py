"""MyoSegmenTUM spine as published (Burian et al. 2019, doi 10.1186/s12891-019-2528-x; https://osf.io/3j54b).

::

    01/vertebrae/  WATER.dcm FAT.dcm FATFRACTION.dcm T2star.dcm B0.dcm   L1_01.mha … L5_01.mha
    01/muscle/     the same five                                         erector_spinae_left_01.mha … psoas_right_01.mha

One multi-frame DICOM per contrast, one mask per structure. Unzipped in place, folders are doubled (``01/01/…``). The
two series of a subject are acquisitions of their own (sagittal and axial) and never mix: ``myosegmentum`` reads the
vertebrae, ``myosegmentum-muscle`` the muscles. Masks may lie on another grid than the images; they are resampled to it
by nearest neighbour. Where a DICOM file gives no geometry, that of the masks is taken if the sizes agree.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from lossevo.data.readers.listing import listed, stem, walk
from lossevo.data.readers.reader import Reader
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, error, warning

CONTRASTS = ("WATER", "FAT", "FATFRACTION", "T2star", "B0")
STRUCTURES = {
    "vertebrae": ("L1", "L2", "L3", "L4", "L5"),
    "muscle": ("erector spinae left", "erector spinae right", "psoas left", "psoas right"),
}


def _series(path: Path, part: str) -> list[Path]:
    """The folders of one series, subjects sorted; ``path`` may be the data set, one subject, or above them."""
    if not path.is_dir():
        return []
    found = [folder for folder in walk(path, depth=4) if folder.name.lower() == part]
    return sorted(found, key=lambda folder: (folder.parent.name, len(folder.parts)))


def _matches(part: str, path: Path) -> bool:
    # Where there are both series, the vertebrae are the data set.
    if part == "muscle" and _matches("vertebrae", path):
        return False
    return any(listed(folder, ".dcm") and listed(folder, ".mha") for folder in _series(path, part))


def _scan(name: str, part: str, path: Path) -> Scan:
    names = dict(enumerate(STRUCTURES[part], start=1))
    folders: dict[str, Path] = {}
    problems: list[Problem] = []
    for folder in _series(path, part):
        subject = folder.parent.name
        if folders.setdefault(subject, folder) != folder:
            message = f"{folder}: subject {subject} is there twice, also in {folders[subject]}; this one is left out"
            problems.append(warning("duplicate-case", message, folder, subject))
    contrasts = [
        contrast for contrast in CONTRASTS if any(contrast.lower() in _images(folder) for folder in folders.values())
    ]
    cases = []
    for subject, folder in folders.items():
        images = _images(folder)
        labels = {_structure(file, subject): file for file in listed(folder, (".mha", ".mhd"))}
        expected = {value: structure for value, structure in names.items() if structure.lower() in labels}
        for contrast in (contrast for contrast in contrasts if contrast.lower() not in images):
            message = f"{folder}: no {contrast}.dcm, which other subjects have; copy it there or leave the subject out"
            problems.append(error("missing-image", message, folder, subject))
        for structure in sorted({*names.values()} - {*expected.values()}):
            file = folder / f"{structure.replace(' ', '_')}_{subject}.mha"
            message = f"{file}: no such file; the subject is left out where {structure} is wanted"
            problems.append(warning("missing-label", message, file, subject))
        for structure in labels.keys() - {structure.lower() for structure in names.values()}:
            message = f"{labels[structure]}: not one of {', '.join(names.values())}; not read"
            problems.append(warning("unknown-structure", message, labels[structure], subject))
        if expected and all(contrast.lower() in images for contrast in contrasts):
            files = tuple(LabelFile(labels[structure.lower()], value) for value, structure in expected.items())
            channels = tuple(images[contrast.lower()] for contrast in contrasts)
            cases.append(CaseFiles(subject, subject, channels, files))
    if not folders or not contrasts:
        contents = "CONTRAST.dcm and STRUCTURE_NN.mha"
        problems.append(error("empty", f"{path}: no folder NN/{part} with {contents}: the cohort is empty", path))
    return Scan(name, path, tuple(cases), names, tuple(contrasts), tuple(problems), resample_labels=True)


def _images(folder: Path) -> Mapping[str, Path]:
    return {stem(file).lower(): file for file in listed(folder, ".dcm")}


def _structure(file: Path, subject: str) -> str:
    return stem(file).removesuffix(f"_{subject}").replace("_", " ").lower()


def _reader(name: str, part: str, masks: str) -> Reader:
    summary = f"folders NN/{part} with WATER.dcm … and {masks}"
    return Reader(name, summary, functools.partial(_matches, part), functools.partial(_scan, name, part))


MYOSEGMENTUM = _reader("myosegmentum", "vertebrae", "L1_NN.mha …")
MYOSEGMENTUM_MUSCLE = _reader("myosegmentum-muscle", "muscle", "psoas_left_NN.mha …")
