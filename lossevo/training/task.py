"""The training task: every knob of the short training that judges a loss, and the data it trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lossevo.configuration_file import read
from lossevo.data.cache import StoredVolume
from lossevo.data.cohort import AnyVolume, Volume
from lossevo.data.original import OriginalLabel
from lossevo.data.patches import Cutting, PatchBank, StoredPatchBank, cut_patch_bank, store_patch_bank
from lossevo.data.preprocessing import PreparedCohort, PreprocessingSettings
from lossevo.errors import LossevoError

if TYPE_CHECKING:
    from lossevo.losses import LossModule

# Raise it whenever a change to this package makes the same trial give another result: old and new results must
# never be mixed in one ranking. tests/training/test_recipe.py tells when.
RECIPE_VERSION = 4

DEFAULT_PATCH_CACHE_BYTES = 2 * 2**30


class TaskSettings(BaseModel):
    """Knobs of the training task; the defaults are measured (``benchmarks/proxy.py``), on CPU and 4 mm spine MRI.

    What counts is not the Dice reached but how well the ranking of losses at ``budget_steps`` agrees with that of a
    longer training, how much of it is seed noise, and how many trainings fit into an hour. With a fourth level the
    median seed SD of nine losses at 150 steps is 0.011 instead of 0.007: its instance normalisation sees 98 voxels.
    Four levels of which the first is at full resolution (strides 1, 2, 2) gain 0.02 to 0.03 Dice for three to four
    times the time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Literal["unet", "se_norm_unet"] = Field(
        "unet", description="MONAI's U-Net, or the SE-Norm residual U-Net of Iantsen et al."
    )
    channels: tuple[int, ...] = Field((8, 16, 32), min_length=2, description="features per U-Net level")
    strides: tuple[int, ...] = Field((2, 2), description="downsampling between levels: one less than channels")
    residual_units: int = Field(0, ge=0, description="unet: residual units per level; 0 = one plain convolution")
    norm: Literal["instance", "batch"] = Field("instance", description="unet: normalisation")
    channels_last: bool = Field(True, description="channels_last_3d memory format on CPU: 1.2-1.6 times as fast")
    preprocessing: PreprocessingSettings = Field(
        PreprocessingSettings(), description="what is done to every case besides resampling: crop, intensities"
    )
    patch_size: tuple[int, int, int] = Field((16, 56, 56), description="voxels, multiples of the total stride")
    patches_per_volume: int = Field(4, ge=1)
    foreground_share: float = Field(0.67, ge=0, le=1, description="share of patches centred on foreground")
    augmentation: Literal["flip", "full"] = Field(
        "flip", description="flip: mirroring alone; full: also turns, scales, contrast, coil profile and noise"
    )
    flip_probability: float = Field(
        0.5, ge=0, le=1, description="chance of mirroring a patch left-right (axis X), which exchanges sides; 0: never"
    )
    batch_size: int = Field(2, ge=1)
    learning_rate: float = Field(1e-2, gt=0, description="peak of the schedule")
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["one_cycle", "constant"] = Field(
        "one_cycle",
        description="of the learning rate: one_cycle rises and falls over a training of known length; constant stays "
        "at its peak after a warm-up, so that a longer training continues a shorter one",
    )
    warmup_share: float = Field(0.3, gt=0, lt=1, description="one_cycle: share of the steps before the peak")
    warmup_steps: int = Field(8, ge=0, description="constant: steps of linear rise to the peak")
    loss_horizon_steps: int = Field(
        150,
        ge=1,
        description="constant: steps in which a loss with a schedule of its own goes through 100 epochs; it goes on at "
        "this pace. With one_cycle it goes through them in a training of any length",
    )
    weights: Literal["last", "ema"] = Field(
        "last", description="what is validated: the weights of the last step, or their exponential moving average"
    )
    ema_decay: float = Field(0.9, gt=0, lt=1, description="ema: what the average keeps of itself at each step")
    budget_steps: int = Field(75, ge=1, description="optimiser steps of a search's candidate training")
    step_limit_s: float | None = Field(
        None,
        gt=0,
        description="time limit: a training may take two minutes and so many seconds a step; not given, 20 times as "
        "long a step as the slowest hand-crafted loss of the same run",
    )
    validations: int = Field(3, ge=1, description="evenly spaced checkpoints validated, the last step included")
    window_overlap: float = Field(0.25, ge=0, lt=1, description="overlap of neighbouring windows in validation")
    fusion: Literal["gaussian", "bspline"] = Field(
        "gaussian",
        description="of overlapping windows: logits with Gaussian weights, or soft voting with B-spline weights",
    )

    @property
    def total_stride(self) -> int:
        """Every axis of the network's input must be a multiple of this."""
        return int(np.prod(self.strides))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(f"{len(self.channels)} levels of channels need {len(self.channels) - 1} strides")
        if any(size < 1 or size % self.total_stride for size in self.patch_size):
            raise ValueError(f"patch_size {self.patch_size}: every axis must be a multiple of {self.total_stride}")
        return self

    def fingerprint(self, data_fingerprint: str) -> str:
        """sha256 (hex) over these settings, the data and the recipe: equal means that results may be compared.

        ``budget_steps`` is left out: it is a default for trials, and each trial states its own; so are
        ``preprocessing``, which is part of ``data_fingerprint``, ``step_limit_s``, which no score depends on, and what
        does not apply to the schedule and the weights chosen.
        """
        left_out = {"budget_steps", "preprocessing", "step_limit_s"}
        # One-cycle and the last weights are not named, either: tasks had nothing else once.
        left_out |= (
            {"schedule", "warmup_steps", "loss_horizon_steps"} if self.schedule == "one_cycle" else {"warmup_share"}
        )
        left_out |= {"weights", "ema_decay"} if self.weights == "last" else set()
        settings = self.model_dump_json(exclude=left_out)
        return hashlib.sha256(f"{RECIPE_VERSION}\n{data_fingerprint}\n{settings}".encode()).hexdigest()


def load_task(path: Path) -> TaskSettings:
    """Settings from a YAML file; what it does not name keeps its default.

    Raises:
        LossevoError: no such file, not YAML, or a wrong key or value.
    """
    return read(TaskSettings, path, expects="network, channels, patch_size, learning_rate, …")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All that a worker needs besides the trials; numpy and paths only, so that it travels to any process.

    In memory it travels through an object store once; on disk it is a list of files, which a worker reads itself.

    Attributes:
        bank: training patches of all subjects.
        volumes: whole prepared volumes, for validation: of the bank's subjects, and of another cohort if there is one.
        class_names: index = label value; ``class_names[0]`` is the background.
        fingerprint: identifies data and settings; part of the key of any cached result.
        mirrored: what each class becomes in a left-right mirror; None: nothing is mirrored.
        originals: case id -> the label on its image's own grid, for trials that are measured there; else empty.
        loss_modules: code of the user's that trials may name; other code is not run.
        foreign_losses: specifications of losses that are not lossevo's: a worker that cannot make one is none.
    """

    bank: PatchBank | StoredPatchBank
    volumes: tuple[AnyVolume, ...]
    class_names: tuple[str, ...]
    settings: TaskSettings
    fingerprint: str
    mirrored: tuple[int, ...] | None
    originals: Mapping[str, OriginalLabel] = field(default_factory=dict)
    loss_modules: tuple[LossModule, ...] = ()
    foreign_losses: tuple[Mapping[str, Any], ...] = ()


def make_training_data(
    prepared: PreparedCohort,
    settings: TaskSettings,
    *,
    seed: int = 0,
    patch_cache_bytes: int = DEFAULT_PATCH_CACHE_BYTES,
    on_original_grid: bool = False,
    tested: PreparedCohort | None = None,
    prefix: str = "",
) -> TrainingData:
    """Cut the patch bank of ``prepared``; ``seed`` decides where the patches lie.

    Bank and volumes are held in memory if they take up to ``patch_cache_bytes`` together. Else both lie in the cohort's
    cache and are read when needed. Results do not depend on which. With ``on_original_grid`` trials can be measured on
    each image's own grid; the labels there are held in memory, compressed. ``tested`` is another cohort at the same
    spacing, of the same classes and channels, that is never trained on: its volumes join those of ``prepared``. Names
    of the two must differ; ``prefix`` comes before those of ``prepared``, and changes nothing else.

    Raises:
        LossevoError: they are larger, and the cohort was prepared without a cache or it cannot be written.
    """
    patch_size, classes = settings.patch_size, len(prepared.class_names)
    if settings.augmentation == "full":
        # Imported here because torch takes seconds, and settings and trials need none of it.
        from lossevo.data.augmentation import context_size

        patch_size = context_size(patch_size, prepared.spacing_mm)
    cutting = Cutting(patch_size, settings.patches_per_volume, seed, settings.foreground_share)
    channels = prepared.volumes[0].channels
    patches_bytes = len(prepared.volumes) * cutting.patches_per_volume * cutting.patch_bytes(channels, classes)
    volumes = (*prepared.volumes, *(tested.volumes if tested else ()))
    needed_bytes = patches_bytes + sum(volume.voxels * (4 * channels + 1) for volume in volumes)
    bank: PatchBank | StoredPatchBank
    if needed_bytes <= patch_cache_bytes:
        bank, volumes = cut_patch_bank(prepared, cutting), tuple(volume.read() for volume in volumes)
    elif prepared.cache is not None:
        bank = store_patch_bank(prepared, cutting, prepared.cache)
    else:
        raise LossevoError(
            f"cohort {prepared.name}: patches and volumes take {needed_bytes / 2**20:.0f} MiB, more than the "
            f"{patch_cache_bytes / 2**20:.0f} MiB allowed, and there is no cache on disk; raise --patch-cache, or set "
            "LOSSEVO_CACHE to a folder with room"
        )
    if prefix:
        own = len(prepared.volumes)
        bank = replace(bank, subject=tuple(f"{prefix}{subject}" for subject in bank.subject))
        volumes = (*(_renamed(volume, prefix) for volume in volumes[:own]), *volumes[own:])
    originals = {f"{prefix}{case_id}": original for case_id, original in prepared.originals.items()}
    originals |= tested.originals if tested else {}
    mirrored = prepared.mirroring.classes
    # Where no class has a side a training is the same as before there was anything to exchange.
    plain = mirrored is not None and [*mirrored] == sorted(mirrored)
    content = f"{prepared.fingerprint}:{seed}{'' if plain else f':{mirrored}'}"
    if tested is not None:
        content += f":tested on {tested.fingerprint}"
    return TrainingData(
        bank=bank,
        volumes=volumes,
        class_names=prepared.class_names,
        settings=settings,
        fingerprint=settings.fingerprint(content),
        mirrored=mirrored,
        originals=originals if on_original_grid else {},
    )


def _renamed(volume: AnyVolume, prefix: str) -> AnyVolume:
    assert isinstance(volume, Volume | StoredVolume)
    return replace(volume, case_id=f"{prefix}{volume.case_id}", subject=f"{prefix}{volume.subject}")
