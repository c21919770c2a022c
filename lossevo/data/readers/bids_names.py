"""File names of BIDS, and which image a label belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lossevo.data.files import NIFTI_ENDINGS
from lossevo.data.readers.listing import folders, listed, stem, walk

# Of names that are no image's.
LABEL_SUFFIXES = frozenset({"dseg", "dlabel", "mask", "msk", "seg", "probseg", "softseg", "snp", "ctd"})


@dataclass(frozen=True, slots=True)
class BidsName:
    """``sub-01_acq-sag_T2w_label-SC_seg``: entities {sub: 01, acq: sag, label: SC}, suffixes (T2w, seg)."""

    entities: Mapping[str, str]
    suffixes: tuple[str, ...]

    @classmethod
    def of(cls, file: Path) -> BidsName:
        """The parts of a file's name."""
        parts = stem(file).split("_")
        entities = dict(part.split("-", 1) for part in parts if "-" in part)
        return cls(entities, tuple(part for part in parts if "-" not in part))

    @property
    def suffix(self) -> str:
        """The last part: what kind of file it is."""
        return self.suffixes[-1] if self.suffixes else ""

    @property
    def is_label(self) -> bool:
        """Whether the file is a segmentation of some kind: ``dseg``, or the older ``seg-manual``."""
        old = ("seg", "lesion", "labels-disc")
        return self.suffix in LABEL_SUFFIXES or any(key in old for key in self.entities)


def subject_files(folder: Path) -> list[Path]:
    """The NIfTI files below the ``sub-…`` folders of a folder, and beside them if their names begin with ``sub-``."""
    if not folder.is_dir():
        return []
    subjects = [item for item in folders(folder) if item.name.startswith("sub-")]
    places = [folder, *(place for subject in subjects for place in walk(subject, depth=3))]
    return sorted(file for place in places for file in listed(place, NIFTI_ENDINGS) if file.name.startswith("sub-"))


def images_of(label: Path, images: Sequence[Path]) -> list[Path]:
    """The images that a label may belong to, best one: those whose entities the label's name has too, all of them.

    A label may name the image's suffix as well (``…_T2w_label-SC_seg``, ``…_space-T2w_dseg``), which then decides.
    """
    name = BidsName.of(label)
    subject = f"sub-{name.entities.get('sub')}"
    parsed = [(image, BidsName.of(image)) for image in images if image.name.startswith(subject)]
    fitting = [(image, of) for image, of in parsed if of.entities.items() <= name.entities.items()]
    if not fitting:
        return []
    most = max(len(of.entities) for _, of in fitting)
    fitting = [(image, of) for image, of in fitting if len(of.entities) == most]
    suffixes = {*name.suffixes} - LABEL_SUFFIXES
    named = {*suffixes, name.entities.get("space"), name.entities.get("mod")}
    if chosen := [image for image, of in fitting if of.suffix in named]:
        return chosen
    # T1w_label-… is no label of the only image, a T2w.
    return [] if suffixes else [image for image, _ in fitting]
