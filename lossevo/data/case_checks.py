"""What is wrong with one case: all that its files show, each read once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossevo.data.files import NIFTI_ENDINGS, pointer, read_stored
from lossevo.data.geometry import Affine, largest_distance_mm, spacing_of
from lossevo.data.intensities import clip_limits, fat_fraction, mode_of
from lossevo.data.label_map import label_map
from lossevo.data.loading import AFFINE_TOLERANCE_VOXELS, SPACING_TOLERANCE, placed, ranges, read_case
from lossevo.data.scan import CaseFiles, LabelFile, Problem, Scan, Severity, error, warning
from lossevo.data.stored import Geometry, Header, Stored, UnusableFile, canonical, canonical_grid
from lossevo.errors import LossevoError

# Rounded quaternions and 32-bit headers stay far below; what is above was written by two different programs.
AFFINE_NOTICE_VOXELS = 0.01

SPACING_LIMITS_MM = (0.1, 10.0)
LARGEST_ANISOTROPY = 20.0


@dataclass(frozen=True, slots=True)
class CaseReport:
    """What was found in a case, axes towards the patient's right, anterior and superior.

    ``shape`` and ``spacing_mm`` are those of the first file that has them, ``volumes_cm3`` the volume of each class
    that has voxels. ``image_hashes`` (file, SHA-256 of a channel's voxels) and ``label_hash`` (None without any
    labelled voxel) know content again under another name, type or stored orientation.
    """

    case_id: str
    subject: str
    channels: int
    shape: tuple[int, ...] | None
    spacing_mm: tuple[float, ...] | None
    volumes_cm3: Mapping[str, float]
    image_hashes: tuple[tuple[Path, str], ...]
    label_hash: str | None
    problems: tuple[Problem, ...]

    @property
    def has_errors(self) -> bool:
        """Whether the case cannot be used as it is."""
        return any(problem.severity is Severity.ERROR for problem in self.problems)


Tell = Callable[[str, Path, str], None]


@dataclass(slots=True)
class _Findings:
    """The problems of a case as they are found."""

    case_id: str
    problems: list[Problem] = field(default_factory=list)

    def about(self, files: set[Path] | None) -> bool:
        """Whether an error was found in one of these files, or (None) at all."""
        errors = (problem for problem in self.problems if problem.severity is Severity.ERROR)
        return any(files is None or problem.file in files for problem in errors)

    def error(self, code: str, file: Path, message: str) -> None:
        self.problems.append(error(code, f"{file}: {message}", file, self.case_id))

    def warning(self, code: str, file: Path, message: str) -> None:
        self.problems.append(warning(code, f"{file}: {message}", file, self.case_id))


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the voxels of a file lie, if that is known (``placed``)."""

    file: Path
    shape: tuple[int, ...]
    affine: Affine
    placed: bool

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        return spacing_of(self.affine)


def examine(files: CaseFiles, scan: Scan, class_names: Mapping[int, str]) -> CaseReport:
    """Read every file of a case, one at a time, and report all that is wrong with it.

    ``class_names`` maps the label values that are of interest, out of ``scan.label_names``, to names.
    """
    found = _Findings(files.case_id)
    headers: list[tuple[Path, Header]] = []
    image_hashes: list[tuple[Path, str]] = []
    for file in files.images:
        if stored := _read(file, scan, found):
            headers.append((file, stored.header))
            voxels, _ = canonical(stored)
            for channel in np.moveaxis(voxels, -1, 0) if voxels.ndim == 4 else voxels[None]:
                number = len(image_hashes)
                channel_name = scan.channel_names[number] if number < len(scan.channel_names) else ""
                _check_image(channel, channel_name, file, found)
                image_hashes.append((file, content_hash(channel)))
    if len(headers) == len(files.images) and len(image_hashes) != len(scan.channel_names):
        found.error(
            "channel-count",
            files.images[0] if files.images else scan.folder,
            f"case {files.case_id} has {len(image_hashes)} channel(s), the data set names {len(scan.channel_names)} "
            f"({', '.join(scan.channel_names)}); all cases need the same channels",
        )

    counts_in: list[tuple[int, dict[int, int]]] = []
    digest = hashlib.sha256()
    for label in files.labels:
        if stored := _read(label.file, scan, found):
            headers.append((label.file, stored.header))
            try:
                stored = replace(stored, voxels=label_map(stored, label.file))
            except UnusableFile as problem:
                found.problems.append(error(problem.code, str(problem), label.file, files.case_id))
                continue
            counts_in.append((len(headers) - 1, _check_label(stored.voxels, label, scan, found)))
            digest.update(f"{label.value}:{content_hash(canonical(stored)[0])}".encode())

    grids = _grids(headers, found)
    volumes_cm3: dict[str, float] = {}
    for number, counts in counts_in:
        voxel_cm3 = abs(float(np.linalg.det(grids[number].affine[:3, :3]))) / 1000
        for value, count in counts.items():
            if name := class_names.get(value):
                volumes_cm3[name] = volumes_cm3.get(name, 0.0) + count * voxel_cm3
    if files.labels and not volumes_cm3 and not found.about({label.file for label in files.labels}):
        wanted = listed(dict.fromkeys(class_names.values()))
        found.warning("empty-label", files.labels[0].file, f"no voxel of {wanted}; leave the case out, or label it")

    _check_grids(
        [grid for grid in grids if grid.placed],
        {label.file for label in files.labels} if scan.resample_labels else set(),
        found,
    )
    if not found.about(None):
        _check_whole(files, scan, found)
    return CaseReport(
        case_id=files.case_id,
        subject=files.subject,
        channels=len(image_hashes),
        shape=grids[0].shape if grids else None,
        spacing_mm=grids[0].spacing_mm if grids else None,
        volumes_cm3=volumes_cm3,
        image_hashes=tuple(image_hashes),
        label_hash=digest.hexdigest() if volumes_cm3 else None,
        problems=tuple(found.problems),
    )


def _grids(headers: list[tuple[Path, Header]], found: _Findings) -> list[_Grid]:
    """Where the voxels of each file lie, those without geometry where another file lies."""
    files = [file for file, _ in headers]
    whole = [header for _, header in headers]
    lost = False
    without = [file for file, header in headers if header.geometry is Geometry.ASSUMED]
    none_known = not any(header.has_geometry for header in whole)
    try:
        whole = placed(files, whole)
    except LossevoError as problem:
        found.problems.append(error("no-geometry", str(problem), None, found.case_id))
        without, lost = [], True
    for file in without[:1] if none_known else without:
        codes = " (sform and qform code 0)" if file.name.lower().endswith(NIFTI_ENDINGS) else ""
        what = f"gives no position and orientation{codes}"
        found.warning(
            "no-geometry",
            file,
            f"{what}, nor does any other file of the case; left and right, and sizes it does not give, are assumed"
            if none_known
            else f"{what}; it is taken to lie where the file of the case with its shape lies. Other programs may not: "
            "copy that one's header",
        )
    return [
        _Grid(file, *canonical_grid(header), placed=header.has_geometry or not lost)
        for file, header in zip(files, whole, strict=True)
    ]


def content_hash(voxels: NDArray[Any]) -> str:
    """SHA-256 of shape and voxels as 32-bit floats: the same whatever type and compression they are stored in."""
    plain = np.ascontiguousarray(voxels, dtype="<f4")
    digest = hashlib.sha256(str(plain.shape).encode())
    digest.update(plain.data)
    return digest.hexdigest()


def _read(file: Path, scan: Scan, found: _Findings) -> Stored | None:
    """What is in a file, or None and an error."""
    if any(problem.file == file and problem.severity is Severity.ERROR for problem in scan.problems):
        return None
    if command := pointer(file):
        found.error("pointer", file, f"is only a pointer to the content; fetch it with '{command}'")
        return None
    if file.is_dir():
        found.error("missing-file", file, "is a folder, expected a file; correct the list of cases")
        return None
    if not file.is_file():
        found.error("missing-file", file, "does not exist; complete the data set, or leave the case out")
        return None
    try:
        stored = read_stored(file)
    except LossevoError as problem:
        code = problem.code if isinstance(problem, UnusableFile) else "unreadable"
        found.problems.append(error(code, str(problem), file, found.case_id))
        return None
    _check_header(file, stored.header, found)
    return stored


def _check_header(file: Path, header: Header, found: _Findings) -> None:
    least, most = min(header.spacing_mm), max(header.spacing_mm)
    if header.has_geometry and (
        least < SPACING_LIMITS_MM[0] or most > SPACING_LIMITS_MM[1] or most > LARGEST_ANISOTROPY * least
    ):
        _, affine = canonical_grid(header)
        found.warning(
            "extreme-spacing",
            file,
            f"voxels of {sides(spacing_of(affine))} mm; expected {SPACING_LIMITS_MM[0]:g} to {SPACING_LIMITS_MM[1]:g} "
            f"mm and sides that differ by at most a factor of {LARGEST_ANISOTROPY:g}. A localizer, or a wrong header "
            f"(it is in {header.unit})?",
        )
    if header.form_difference_mm > AFFINE_TOLERANCE_VOXELS * least:
        found.warning(
            "sform-qform",
            file,
            f"its sform and qform place voxels up to {header.form_difference_mm:.3g} mm apart, so programs disagree "
            "about its geometry; lossevo takes the sform. Compare with a viewer and write both alike",
        )
    for oddity in header.oddities:
        found.warning(oddity.code, file, oddity.message)


def _check_image(channel: NDArray[Any], name: str, file: Path, found: _Findings) -> None:
    with np.errstate(over="ignore"):
        channel = np.asarray(channel, np.float32)  # as it is trained on
    finite = np.isfinite(channel)
    if not finite.all():
        count = int(finite.size - np.count_nonzero(finite))
        found.error("not-finite", file, f"{count} voxel(s) are NaN or infinite; replace them or leave out the case")
        return
    # As preparing it will find.
    if mode_of(name) == "quantitative":
        voxels, low, high = "all voxels", float(channel.min()), float(channel.max())
    else:
        signal = channel[channel != 0]
        voxels = "99 % of the voxels that are not 0" if signal.size else "all voxels"
        low, high = clip_limits(signal)
    if not high > low:
        found.error("constant-image", file, f"{voxels} are {low:g}: no image; leave out the case")
    elif mode_of(name) == "quantitative":
        try:
            fat_fraction(channel)
        except LossevoError as problem:
            found.error("no-fat-fraction", file, str(problem))


def _check_label(voxels: NDArray[Any], label: LabelFile, scan: Scan, found: _Findings) -> dict[int, int]:
    """Number of voxels of each non-zero value of ``scan.label_names``."""
    values, counts = np.unique(voxels, return_counts=True)
    count_of = {int(value): int(count) for value, count in zip(values, counts, strict=True) if value != 0}
    if sum(count_of.values()) == voxels.size:
        found.warning("no-background", label.file, "no voxel is 0, the background; is it an image, or numbered from 1?")
    if label.value is not None:
        if len(count_of) > 1:
            some = ", ".join(map(str, list(count_of)[:5]))
            found.error("mask-values", label.file, f"values {some}, expected a mask of one structure (0 and 1)")
        return {label.value: sum(count_of.values())} if count_of else {}
    if unknown := {value: count for value, count in count_of.items() if value not in scan.label_names}:
        told = ", ".join(f"{value} ({count} voxels)" for value, count in list(unknown.items())[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        found.error(
            "unexpected-label-value",
            label.file,
            f"label value(s) {told}{more} are not named in {scan.labels_named_in}, which has 0 and "
            f"{ranges(scan.label_names)}; name them there or correct the label",
        )
    return {value: count for value, count in count_of.items() if value not in unknown}


def _check_grids(grids: list[_Grid], resampled: set[Path], found: _Findings) -> None:
    """Channels and labels against the first image, or labels against each other if there is no image."""
    for other in grids[1:]:
        lenient = other.file in resampled
        _compare(other, grids[0], found.warning if lenient else found.error, found.warning, resampled=lenient)


def _check_whole(files: CaseFiles, scan: Scan, found: _Findings) -> None:
    """The last word is with what reads cases for training."""
    if any(problem.case_id == files.case_id and problem.severity is Severity.ERROR for problem in scan.problems):
        return
    try:
        read_case(files, scan)
    except LossevoError as problem:
        found.problems.append(error("unusable", str(problem), None, files.case_id))


def _compare(
    other: _Grid,
    reference: _Grid,
    tell: Tell,
    warn: Tell,
    *,
    resampled: bool,
) -> None:
    advice = "it is resampled to the image" if resampled else "resample one to the grid of the other"
    # Of a plane, the thickness is often assumed, and moves no voxel.
    several = np.array([sides != (1, 1) for sides in zip(other.shape, reference.shape, strict=True)])
    same_spacing = np.allclose(
        np.array(other.spacing_mm)[several], np.array(reference.spacing_mm)[several], rtol=SPACING_TOLERANCE
    )
    if other.shape != reference.shape:
        tell(
            "shape-mismatch",
            other.file,
            f"shape {other.shape} differs from {reference.shape} of {reference.file}; {advice}",
        )
    if not same_spacing:
        tell(
            "spacing-mismatch",
            other.file,
            f"voxels of {sides(other.spacing_mm)} mm differ from {sides(reference.spacing_mm)} mm of "
            f"{reference.file}; {advice}",
        )
    elif other.shape == reference.shape:
        distance_mm = largest_distance_mm(other.affine, reference.affine, other.shape)
        side_mm = min(reference.spacing_mm)
        if distance_mm > AFFINE_NOTICE_VOXELS * side_mm:
            serious = distance_mm > AFFINE_TOLERANCE_VOXELS * side_mm
            (tell if serious else warn)(
                "affine-mismatch",
                other.file,
                f"its origin or direction places voxels up to {distance_mm:.3g} mm away from where {reference.file} "
                f"has them; {advice if serious else 'so little is ignored'}",
            )


def listed(names: Iterable[str], most: int = 12) -> str:
    """``L5, L4, L3 and 22 more``."""
    first = list(names)
    return ", ".join(first[:most]) + (f" and {len(first) - most} more" if len(first) > most else "")


def sides(spacing_mm: tuple[float, ...]) -> str:
    """``1×1×4``."""
    return "×".join(f"{side:.3g}" for side in spacing_mm)
