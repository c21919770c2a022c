"""Fixtures shared by all rooms."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import ArrayLike, NDArray

# Examples are the same in every run and may take as long as a busy machine needs; whoever looks for new ones asks for
# --hypothesis-profile=explore.
_UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, database=None, **_UNTIMED)
settings.register_profile("explore", derandomize=False, **_UNTIMED)
settings.load_profile("repeatable")


class WriteNnunetCohort(Protocol):
    """Writes ``{case_id: (image, label)}`` as an nnU-Net v2 raw data set; returns its folder.

    Images are (X, Y, Z), or (M, X, Y, Z) for several channels. ``description`` overrides entries of dataset.json;
    an entry of None is left out.
    """

    def __call__(
        self,
        cases: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        labels: Mapping[str, int] | None = None,
        affine: NDArray[np.float64] | None = None,
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        name: str = "cohort",
        **description: Any,
    ) -> Path: ...


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared cohorts are cached, but not in the cache of whoever runs the tests; subprocesses inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSEVO_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Here and in subprocesses: the number of threads decides the order of sums, and parts of lossevo set it to one."""
    import torch  # here, so that what tests collect decides what is imported when

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        yield


@pytest.fixture(autouse=True, scope="session")
def compiled_once() -> Iterator[None]:
    """Subprocesses keep the bytecode of lossevo, which each would compile anew otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture
def write_nnunet_cohort(tmp_path: Path) -> WriteNnunetCohort:
    def write(cases, *, labels=None, affine=None, spacing_mm=(1.0, 1.0, 1.0), name="cohort", **description):
        affine = np.diag([*spacing_mm, 1.0]) if affine is None else affine
        folder = tmp_path / name
        (folder / "imagesTr").mkdir(parents=True)
        (folder / "labelsTr").mkdir()
        channels = 1
        for case_id, (image, label) in cases.items():
            image, label = np.asarray(image), np.asarray(label)
            image = image if image.ndim > label.ndim else image[None]
            channels = len(image)
            for channel, voxels in enumerate(image):
                nib.save(nib.Nifti1Image(voxels, affine), folder / "imagesTr" / f"{case_id}_{channel:04d}.nii.gz")
            nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"{case_id}.nii.gz")
        entries = {
            "channel_names": {str(channel): f"channel {channel}" for channel in range(channels)},
            "labels": {"background": 0, "vertebra": 1} if labels is None else dict(labels),
            "numTraining": len(cases),
            "file_ending": ".nii.gz",
            **description,
        }
        entries = {key: value for key, value in entries.items() if value is not None}
        (folder / "dataset.json").write_text(json.dumps(entries), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def real_cohorts() -> Path:
    """Folder of the real cohorts; tests that use it are marked ``cohort``."""
    if "LOSSEVO_DATA" not in os.environ:
        pytest.skip("LOSSEVO_DATA is not set")
    return Path(os.environ["LOSSEVO_DATA"])


@pytest.fixture(scope="module")
def ray_of_the_tests() -> Iterator[None]:
    """One Ray of two CPUs for the tests of a file: starting one takes seconds."""
    from lossevo.cluster.ray_connection import RayConnection

    connection = RayConnection(None, cpus=2)
    yield
    connection.close()
