"""From a cohort as stored to volumes a network can train on: one spacing, one intensity scale, the wanted classes."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from lossevo.cpus import usable_cpus
from lossevo.data.body import Box, body_box, body_mask
from lossevo.data.cache import Cache, StoredVolume
from lossevo.data.cohort import AnyVolume, Case, Cohort, Grid, Volume
from lossevo.data.entry import read_array, read_record
from lossevo.data.intensities import Mode, Scaled, fat_fraction, mode_of, z_score
from lossevo.data.mirror import Mirror, mirror_of_names
from lossevo.data.original import OriginalLabel
from lossevo.data.resampling import Spacing, resample, resample_label, resampled_size
from lossevo.errors import LossevoError
from lossevo.installation import code_hash

Progress = Callable[[int, int, str], None]
T = TypeVar("T")

# Part of every fingerprint: raise it when prepared voxels come out differently. tests/data/test_recipe.py tells when.
PREPROCESSING_VERSION = 2

# Tells the hash of a label from those of images in ``subject_hashes``.
LABEL_MARK = "label:"

AUTOMATIC_LARGEST_VOXELS = 2**18

# What resampling leaves of a case is no image if it is less than this.
FEW_VOXELS = 64

# A case on its way takes about so much; so many cases are on their way as fit, and as there are cores.
BYTES_PER_VOXEL = 16
READING_BYTES = 2**30


class PreprocessingSettings(BaseModel):
    """What is done to every case besides resampling; the defaults are measured (docs/preprocessing.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    crop: Literal["none", "body"] = Field(
        "none", description="body: cut away what lies outside the patient; never a labelled voxel"
    )
    statistics: Literal["nonzero", "body"] = Field(
        "nonzero", description="z-score: the voxels whose percentiles, mean and SD are measured"
    )
    intensity: Literal["auto", "z-score", "quantitative"] = Field(
        "auto", description="quantitative: a fat fraction on a fixed scale; auto: by the channel's name (PDFF, FF)"
    )


@dataclass(frozen=True, slots=True, eq=False)
class PreparedCohort:
    """Resampled, normalised volumes in the order of their case ids, and hashes that say what they were made from.

    ``subject_hashes`` maps each subject to the SHA-256 of each of its images and of the foreground of each of its
    labels (behind ``label:``), with commas between, whatever their names, type, file compression or stored orientation.
    So a subject is recognised in a renamed or relabelled copy or part of a cohort, and, by its labels, in one whose
    intensities were changed. ``fingerprint`` is a SHA-256 of everything that decides the prepared voxels: images,
    labels, spacings, classes, settings. ``recipe`` says in plain data how each case was prepared: settings, boxes,
    percentiles. ``cache`` is where the volumes lie, if any. ``mirror`` is the cohort's (:class:`Cohort`). ``originals``
    maps each case id to the label on the image's own grid.
    """

    name: str
    class_names: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    volumes: tuple[AnyVolume, ...]
    subject_hashes: Mapping[str, str]
    fingerprint: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    cache: Cache | None = None
    mirror: Mirror | None = None
    originals: Mapping[str, OriginalLabel] = field(default_factory=dict)

    @property
    def mirroring(self) -> Mirror:
        """What a left-right mirror makes of the classes."""
        return self.mirror or mirror_of_names(self.class_names)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects in sorted order, each once."""
        return tuple(sorted(self.subject_hashes))


def prepare(
    cohort: Cohort,
    *,
    spacing_mm: Spacing | None = None,
    settings: PreprocessingSettings | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> PreparedCohort:
    """Bring every case to one spacing, one intensity scale and the wanted classes, a few cases at a time.

    ``spacing_mm=None`` takes :func:`automatic_spacing_mm`; the three sides may differ. Classes stay as they are: what
    is to be one class is merged before, by :func:`~lossevo.data.labels.relabel`, since a voxel shared by two vertebrae
    is vertebra though neither may outweigh background. With a ``cache`` the volumes lie there and are read when used,
    and a case that is there already is not read from its source again. ``progress(done, total, case_id)`` is called
    after each case.

    Raises:
        LossevoError: the cohort is empty, two cases hold the same image, an image is constant, no case has any
            foreground, the settings are invalid, or a case cannot be loaded or would not fit into memory.
    """
    if not cohort.cases:
        raise LossevoError(f"cohort {cohort.name}: it has no cases")
    if spacing_mm is None:
        spacing_mm = automatic_spacing_mm(cohort)
    elif not all(math.isfinite(side) and side > 0 for side in spacing_mm):
        raise LossevoError(f"spacing_mm must be three sizes above 0 mm, got {spacing_mm}")
    spacing_mm = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    preparation = _Preparation(cohort, spacing_mm, settings or PreprocessingSettings(), cache)

    volumes: list[AnyVolume] = []
    records: dict[str, Mapping[str, Any]] = {}
    originals: dict[str, OriginalLabel] = {}
    case_of_image: dict[str, tuple[str, str]] = {}
    hashes_of_subject: dict[str, list[str]] = {}
    fingerprint = hashlib.sha256(preparation.identity.encode())
    cases = sorted(cohort.cases, key=lambda case: case.case_id)
    largest = max(_voxels(case.case_id, case.grid, spacing_mm) if case.grid else 0 for case in cases)
    with reading_pool(largest) as pool:
        for done, (volume, original, record) in enumerate(pool.map(preparation, cases), start=1):
            images = record["image_sha256"].split(",")
            twins = [case_of_image.setdefault(image, (volume.case_id, volume.subject)) for image in images]
            others = [(twin, subject) for twin, subject in twins if twin != volume.case_id]
            # Of one patient, several cases may share a contrast.
            if len(others) == len(images) or any(subject != volume.subject for _, subject in others):
                twin, _ = others[0]
                raise LossevoError(
                    f"cohort {cohort.name}: {twin} and {volume.case_id} hold the same image, which would leak from "
                    "training into validation; remove one of them"
                )
            foreground = record["foreground_sha256"]
            hashes = [*images, *([LABEL_MARK + foreground] if foreground else [])]
            hashes_of_subject.setdefault(volume.subject, []).extend(hashes)
            source = (record["spacing_mm"], record["image_sha256"], record["label_sha256"])
            fingerprint.update(json.dumps([volume.case_id, volume.subject, *source]).encode())
            volumes.append(volume)
            originals[volume.case_id] = original
            records[volume.case_id] = record
            if progress is not None:
                progress(done, len(cases), volume.case_id)
    if not any(record["labelled_voxels"] for record in records.values()):
        raise LossevoError(f"cohort {cohort.name}: no label has any foreground at {_sides(spacing_mm)} mm")
    # Each image for itself: a subject is also known by one series out of several.
    subject_hashes = {subject: ",".join(sorted({*hashes})) for subject, hashes in sorted(hashes_of_subject.items())}
    return PreparedCohort(
        cohort.name,
        cohort.class_names,
        spacing_mm,
        tuple(volumes),
        subject_hashes,
        fingerprint.hexdigest(),
        recipe={**preparation.recipe, "cases": records},
        cache=cache,
        mirror=cohort.mirroring,
        originals=originals,
    )


def automatic_spacing_mm(cohort: Cohort) -> Spacing:
    """An isotropic spacing at which training on a CPU is short; loads the cases whose grid is not known.

    The rule: the coarsest axis of the median case (so no finer than the data), coarsened further until the median
    volume has at most 2^18 voxels, rounded up to 0.1 mm. Spine MRI of 1×1×4 mm comes out at 4 mm.
    """
    grids = [case.grid or _grid_of(case.load()) for case in cohort.cases]
    coarsest_mm = float(np.median([max(grid.spacing_mm) for grid in grids]))
    median_mm3 = float(np.median([math.prod(grid.spacing_mm) * math.prod(grid.shape) for grid in grids]))
    side_mm = max(coarsest_mm, (median_mm3 / AUTOMATIC_LARGEST_VOXELS) ** (1 / 3))
    side_mm = math.ceil(side_mm * 10 - 1e-6) / 10
    return (side_mm, side_mm, side_mm)


class _Prepared(NamedTuple):
    """A case made ready, and how: ``record`` is plain data."""

    volume: AnyVolume
    original: OriginalLabel
    record: dict[str, Any]


class _Preparation:
    """What is done to each case; called from several threads."""

    def __init__(
        self, cohort: Cohort, spacing_mm: Spacing, settings: PreprocessingSettings, cache: Cache | None
    ) -> None:
        self._classes = len(cohort.class_names)
        self._spacing_mm = spacing_mm
        self._settings = settings
        self._modes: tuple[Mode, ...] = tuple(
            mode_of(name) if settings.intensity == "auto" else settings.intensity for name in cohort.channel_names
        )
        self._cache = cache
        self.recipe: dict[str, Any] = {
            "version": PREPROCESSING_VERSION,
            "orientation": "RAS",
            "class_names": list(cohort.class_names),
            "spacing_mm": list(spacing_mm),
            "resampling": "anti-aliased linear; labels: largest linear share",
            "crop": settings.crop,
            "statistics": settings.statistics,
            "intensities": [list(pair) for pair in zip(cohort.channel_names, self._modes, strict=True)],
        }
        """Everything that decides the voxels besides the case itself, as plain data."""

    @property
    def identity(self) -> str:
        """The same as text; names of the channels do not matter, only what is done to them."""
        return json.dumps({**self.recipe, "intensities": self._modes})

    def __call__(self, case: Case) -> _Prepared:
        if self._cache is None:
            return self._made(case.load())
        before = self._source_key(case)
        if before is None:
            raw = case.load()
            key = self._key(f"{_hash_of(raw.image)} {_hash_of(raw.label)} {raw.spacing_mm}")
            return self._found(case, key) or self._kept(self._made(raw), key)
        key = self._key(before)
        if found := self._found(case, key):
            return found
        made = self._made(case.load())
        # Bytes that changed while they were read are not those that were hashed.
        return self._kept(made, key) if self._source_key(case) == before else made

    def _source_key(self, case: Case) -> str | None:
        """What ``case.load()`` depends on; None if that is not known."""
        if self._cache is None or case.files is None or not case.reading:
            return None
        try:
            images = [self._cache.content_hash(file) for file in case.files.images]
            labels = [(self._cache.content_hash(label.file), label.value) for label in case.files.labels]
        except OSError:  # loading it says better what is wrong
            return None
        return json.dumps([case.reading, images, labels])

    def _key(self, source: str) -> str:
        # Other code may read or prepare the same bytes otherwise.
        return hashlib.sha256(f"{code_hash('data')}\n{self.identity}\n{source}".encode()).hexdigest()

    def _found(self, case: Case, key: str) -> _Prepared | None:
        file = self._cache.find("volumes", key) if self._cache else None
        return self._stored(case.case_id, case.subject, file) if file else None

    def _kept(self, made: _Prepared, key: str) -> _Prepared:
        assert self._cache is not None
        volume = made.volume
        original = np.frombuffer(made.original.packed, np.uint8)
        file = self._cache.put("volumes", key, made.record, image=volume.image, label=volume.label, original=original)
        return self._stored(volume.case_id, volume.subject, file) if file else made

    def _stored(self, case_id: str, subject: str, file: Path) -> _Prepared:
        record = read_record(file)
        channels, *shape = record["prepared_shape"]
        volume = StoredVolume(case_id, subject, self._spacing_mm, channels, math.prod(shape), file)
        original = OriginalLabel(
            case_id,
            _three(record["shape"]),
            _three(record["spacing_mm"]),
            _three(slice(*side) for side in record["box"]) if record["box"] else None,
            read_array(file, "original").tobytes(),
        )
        return _Prepared(volume, original, record)

    def _made(self, raw: Volume) -> _Prepared:
        # Channel by channel: a patient is the same with fewer contrasts.
        image_sha256 = ",".join(_hash_of(channel[None]) for channel in raw.image)
        label_sha256 = _hash_of(raw.label)
        _voxels(raw.case_id, _grid_of(raw), self._spacing_mm)
        image, label = raw.image, raw.label
        box: Box | None = None
        if self._settings.crop == "body":
            box = body_box(image, label, raw.spacing_mm)
            image, label = image[:, *box], label[box]
        label = resample_label(label, self._classes, raw.spacing_mm, self._spacing_mm)
        image = resample(image, raw.spacing_mm, self._spacing_mm)
        try:
            channels = self._scaled(image)
        except LossevoError as error:
            if image[0].size < FEW_VOXELS < raw.label.size:
                size = "×".join(map(str, image.shape[1:]))
                raise LossevoError(
                    f"case {raw.case_id}: only {size} voxels are left at {_sides(self._spacing_mm)} mm; take a finer "
                    "spacing"
                ) from error
            raise LossevoError(f"case {raw.case_id}: {error}; leave it out") from error
        image = np.stack([scaled.channel for scaled in channels])
        record = {
            "image_sha256": image_sha256,
            "label_sha256": label_sha256,
            "foreground_sha256": _foreground_hash(raw.label),
            "shape": list(raw.label.shape),
            "spacing_mm": list(raw.spacing_mm),
            "box": [[side.start, side.stop] for side in box] if box else None,
            "prepared_shape": list(image.shape),
            "labelled_voxels": int(np.count_nonzero(label)),
            "intensities": [scaled.numbers for scaled in channels],
        }
        volume = Volume(raw.case_id, raw.subject, image, label, self._spacing_mm)
        return _Prepared(volume, OriginalLabel.of(raw, box), record)

    def _scaled(self, image: NDArray[np.float32]) -> list[Scaled]:
        tissue = body_mask(image) if self._settings.statistics == "body" else None
        scale: dict[Mode, Callable[[NDArray[np.float32]], Scaled]] = {
            "z-score": partial(z_score, tissue=tissue),
            "quantitative": fat_fraction,
        }
        return [scale[mode](channel) for mode, channel in zip(self._modes, image, strict=True)]


@contextmanager
def reading_pool(largest_voxels: int, *, bytes_per_voxel: int = BYTES_PER_VOXEL) -> Iterator[ThreadPoolExecutor]:
    """Threads for work on volumes of up to so many voxels (0: unknown): as many as there are cores and memory for."""
    fitting = READING_BYTES // (bytes_per_voxel * max(largest_voxels, 1))
    pool = ThreadPoolExecutor(max(1, min(fitting, usable_cpus(), 8)))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _voxels(case_id: str, grid: Grid, spacing_mm: Spacing) -> int:
    """The voxels of a case before or after resampling, whichever are more.

    Raises:
        LossevoError: they would not fit into the memory of this machine.
    """
    size = resampled_size(grid.shape, grid.spacing_mm, spacing_mm)
    voxels, memory = math.prod(size), _memory_bytes()
    if voxels * BYTES_PER_VOXEL > memory:
        raise LossevoError(
            f"case {case_id}: its {'×'.join(map(str, grid.shape))} voxels of {_sides(grid.spacing_mm)} mm would become "
            f"{'×'.join(f'{side:.6g}' for side in size)} of {_sides(spacing_mm)} mm, which needs about "
            f"{voxels * BYTES_PER_VOXEL / 1e9:.3g} GB; this machine has {memory / 1e9:.3g}. Take a coarser spacing"
        )
    return max(math.prod(grid.shape), math.ceil(voxels))


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**36


def _grid_of(volume: Volume) -> Grid:
    x, y, z = volume.label.shape
    return Grid((x, y, z), volume.spacing_mm)


def _hash_of(array: NDArray[np.float32] | NDArray[np.uint8]) -> str:
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(json.dumps(array.shape).encode())
    digest.update(little_endian.data)
    return digest.hexdigest()


def _foreground_hash(label: NDArray[np.uint8]) -> str | None:
    """Of where there is anything; None for a label that is empty or full, which may be anybody's."""
    inside = label > 0
    if inside.all() or not inside.any():
        return None
    digest = hashlib.sha256(json.dumps(["foreground", *label.shape]).encode())
    digest.update(np.packbits(inside).data)
    return digest.hexdigest()


def _three(along_axes: Iterable[T]) -> tuple[T, T, T]:
    x, y, z = along_axes
    return x, y, z


def _sides(spacing_mm: Spacing) -> str:
    return "×".join(f"{side:g}" for side in spacing_mm)
