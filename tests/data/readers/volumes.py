"""Tiny volumes in the file formats of real data sets, for cohorts that tests write in their layouts."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SHAPE = (4, 6, 7)
# A sagittal acquisition as scanners make it: first axis posterior, second inferior, third (slices) to the left.
SAGITTAL = np.array([[0, 0, -4.0, 30.0], [-1.5, 0, 0, 40.0], [0, -0.5, 0, 50.0], [0, 0, 0, 1.0]])
SPACING_RAS_MM = (4.0, 1.5, 0.5)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ANNEX_POINTER = "/annex/objects/SHA256E-s123456--0123456789abcdef.nii.gz\n"
LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123456\n"


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 1000, shape, np.uint16)


def label(*values: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """Random voxels of 0 and ``values``, each of which occurs."""
    voxels = np.random.default_rng(seed).choice([0, *values], shape).astype(np.uint8)
    voxels.flat[: len(values)] = values
    return voxels


def write_nifti(file: Path, voxels, affine=None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), file)
    return file


def write_itk(file: Path, voxels, affine=None, *, components: bool = False) -> Path:
    """MetaImage, NRRD or DICOM with SimpleITK; voxels (X, Y, Z), or (X, Y, Z, M) of ``components``."""
    import SimpleITK as sitk

    file.parent.mkdir(parents=True, exist_ok=True)
    array = np.moveaxis(voxels, (0, 1, 2), (2, 1, 0))
    stored = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=components)
    lps = LPS @ (np.eye(4) if affine is None else affine)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    stored.SetSpacing(spacing.tolist())
    stored.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    stored.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(stored, str(file), useCompression=file.suffix != ".dcm")
    return file


def write_multiframe(file: Path, voxels: NDArray[np.uint16], affine=None) -> Path:
    """An Enhanced MR DICOM of one 3D volume; without affine it says nothing of its geometry."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import (
        EnhancedMRImageStorage,
        ExplicitVRLittleEndian,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        generate_uid,
    )

    def item(**elements):
        made = Dataset()
        for key, value in elements.items():
            setattr(made, key, value)
        return Sequence([made])

    columns, rows, frames = voxels.shape
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    known = affine is not None
    made.SOPClassUID = EnhancedMRImageStorage if known else MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[file.name])
    made.Modality, made.PatientID = "MR", "test"
    made.NumberOfFrames, made.Rows, made.Columns = frames, rows, columns
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    if known:
        lps = LPS @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        direction = lps[:3, :3] / spacing
        shared = Dataset()
        shared.PixelMeasuresSequence = item(
            PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2], SpacingBetweenSlices=spacing[2]
        )
        shared.PlaneOrientationSequence = item(ImageOrientationPatient=[*direction[:, 0], *direction[:, 1]])
        made.SharedFunctionalGroupsSequence = Sequence([shared])
        per_frame = []
        for frame in range(frames):
            group = Dataset()
            position = lps[:3, 3] + lps[:3, 2] * frame
            group.PlanePositionSequence = item(ImagePositionPatient=[float(x) for x in position])
            group.FrameContentSequence = item(
                StackID="1", InStackPositionNumber=frame + 1, DimensionIndexValues=[1, frame + 1]
            )
            per_frame.append(group)
        made.PerFrameFunctionalGroupsSequence = Sequence(per_frame)
    made.PixelData = np.ascontiguousarray(voxels.T).astype("<u2").tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file


def in_ras(voxels, affine=SAGITTAL):
    """What a reader should make of voxels stored with an affine."""
    return np.asarray(nib.as_closest_canonical(nib.Nifti1Image(voxels, affine)).dataobj)
