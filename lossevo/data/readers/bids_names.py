"""File names of BIDS, and which image a label belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lossevo.data.files import NIFTI_ENDINGS
from lossevo.data.readers.listing import folders, listed, stem, walk
from lossevo.data.scan import Problem, error, warning

# Of names that are no image's.
LABEL_SUFFIXES = frozenset({"dseg", "dlabel", "mask", "msk", "seg", "probseg", "softseg", "snp", "ctd"})
# What a label's name may say besides its image's: which structures, and by whom. All else (space, res, rec, acq, …)
# says that it was drawn on another image.
DESCRIBING = frozenset({"label", "labels", "seg", "desc", "lesion", "atlas", "scale", "hemi", "rater"})
# Names of the space in which the image was acquired.
NATIVE = frozenset({"orig", "scanner"})


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


class Match(NamedTuple):
    """The images that a label may belong to; if there is none, what of its name keeps it from one it fits otherwise."""

    images: tuple[Path, ...]
    foreign: tuple[str, ...] = ()


def match(label: Path, images: Sequence[Path]) -> Match:
    """The images whose entities the label's name has too, all of them, with nothing of another image besides.

    A label may name the image's suffix as well (``…_T2w_label-SC_seg``, ``…_space-T2w_dseg``), which then decides.
    ``…_space-MNI152_dseg`` belongs to an image of that space alone, ``…_rec-average_dwi_label-SC_seg`` to an average.
    """
    name = BidsName.of(label)
    subject = f"sub-{name.entities.get('sub')}"
    parsed = [(image, BidsName.of(image)) for image in images if image.name.startswith(subject)]
    fitting = [(image, of) for image, of in parsed if of.entities.items() <= name.entities.items()]
    suffixes = {*name.suffixes} - LABEL_SUFFIXES
    named = {*suffixes, name.entities.get("space"), name.entities.get("mod")}
    # T1w_label-… is no label of the only image, a T2w.
    fitting = [(image, of) for image, of in fitting if of.suffix in named] or ([] if suffixes else fitting)
    if not fitting:
        return Match(())
    foreign_of = {image: _foreign(name, of) for image, of in fitting}
    own = [(image, of) for image, of in fitting if not foreign_of[image]]
    if not own:
        return Match((), min(foreign_of.values(), key=len))
    most = max(len(of.entities) for _, of in own)
    return Match(tuple(image for image, of in own if len(of.entities) == most))


def _foreign(label: BidsName, image: BidsName) -> tuple[str, ...]:
    """The entities of a label that are neither the image's nor describe the label."""
    return tuple(
        f"{key}-{value}"
        for key, value in label.entities.items()
        if key not in image.entities
        and key not in DESCRIBING
        and not (key in ("space", "mod") and value in (image.suffix, *NATIVE))
    )


def unmatched(label: Path, found: Match, folder: Path) -> Problem:
    """What is wrong with a label that does not belong to exactly one image of ``folder``."""
    if found.foreign:
        message = f"{label}: left out, as no image in {folder} has its {' and '.join(found.foreign)}"
        return warning("other-image", message, label)
    listing = f" ({', '.join(image.name for image in found.images)})" if found.images else ""
    message = f"{label}: {len(found.images)} images fit its name{listing}, expected one in {folder}"
    return error("ambiguous-label" if found.images else "missing-image", message, label)


def second_label(label: Path, first: Path) -> Problem:
    """What is wrong with a label map, or mask of a structure, of an image that has one already."""
    names = [{*stem(file).split("_")} for file in (first, label)]
    if names[0] == names[1]:
        message = f"{label}: the same segmentation as {first.name}, in another format; remove one"
    else:
        differing = ", ".join(sorted(names[0] ^ names[1]))
        message = (
            f"{label}: a second segmentation of the same image beside {first} (they differ in {differing}), and which "
            "counts is not known; make one of them, or move one out of the data set"
        )
    return error("ambiguous-label", message, label)
