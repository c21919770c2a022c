from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest

from lossevo.data import LabelScheme, read_cohort
from lossevo.data.readers import scan
from lossevo.errors import LossevoError
from tests.data.readers.volumes import SAGITTAL, SHAPE, image, in_ras, label, write_itk, write_nifti


@pytest.fixture
def manifest(tmp_path):
    for number in range(3):
        for channel in ("t1", "t2"):
            write_nifti(tmp_path / "images" / f"v{number}_{channel}.nii.gz", image(number + len(channel)))
        write_nifti(tmp_path / "labels" / f"v{number}.nii.gz", label(1, seed=number))
    file = tmp_path / "cohort.csv"
    file.write_text(
        "\ufeffSubject, image ,label\n"
        "anna,images/v0_t1.nii.gz; images/v0_t2.nii.gz,labels/v0.nii.gz\n"
        "\n"
        "anna,images/v1_t1.nii.gz;images/v1_t2.nii.gz,labels/v1.nii.gz\n"
        "ben,images/v2_t1.nii.gz;images/v2_t2.nii.gz,labels/v2.nii.gz\n",
        encoding="utf-8",
    )
    return file


def test_a_list_in_a_folder_or_by_name(manifest, detected, codes):
    found = detected("manifest", manifest.parent)
    assert detected("manifest", manifest) == found
    assert codes(found) == []
    assert [(case.case_id, case.subject) for case in found.cases] == [
        ("v0_t1", "anna"),
        ("v1_t1", "anna"),
        ("v2_t1", "ben"),
    ]
    assert found.label_names == {1: "foreground"}
    cohort = read_cohort(manifest)
    assert cohort.subjects == ("anna", "ben")
    np.testing.assert_array_equal(cohort.cases[2].load().image, [image(4), image(4)])
    np.testing.assert_array_equal(cohort.cases[2].load().label, label(1, seed=2))


def test_cases_folds_and_absolute_paths(manifest):
    images, labels = manifest.parent / "images", manifest.parent / "labels"
    lines = [f"p{n},{images}/v{n}_t1.nii.gz,{labels}/v{n}.nii.gz,case{n},{n % 2}" for n in range(3)]
    manifest.write_text("\n".join(["subject,image,label,case,fold", *lines]))
    found = scan(manifest)
    assert [(case.case_id, case.fold) for case in found.cases] == [("case0", 0), ("case1", 1), ("case2", 0)]
    assert found.channel_names == ("image",)


def test_one_4d_file_may_hold_all_channels(manifest):
    write_nifti(manifest.parent / "all.nii.gz", image(shape=(*SHAPE, 3)))
    manifest.write_text("subject,image,label\nanna,all.nii.gz,labels/v0.nii.gz\n")
    cohort = read_cohort(manifest)
    assert cohort.channel_names == ("channel 0", "channel 1", "channel 2")
    np.testing.assert_array_equal(cohort.cases[0].load().image, np.moveaxis(image(shape=(*SHAPE, 3)), -1, 0))


def test_image_and_label_may_be_of_different_formats_and_orientations(tmp_path):
    pytest.importorskip("SimpleITK")
    ras = in_ras(image())
    write_itk(tmp_path / "image.mha", image(), SAGITTAL)
    stored = label(1)
    write_nifti(
        tmp_path / "label.nii.gz", stored[::-1], SAGITTAL @ [[-1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    (tmp_path / "list.csv").write_text("subject,image,label\na,image.mha,label.nii.gz\n")
    volume = read_cohort(tmp_path).cases[0].load()
    np.testing.assert_array_equal(volume.image[0], ras)
    np.testing.assert_array_equal(volume.label, in_ras(stored))


def test_names_from_a_table(manifest):
    manifest.with_name("cohort_dseg.tsv").write_text("index\tname\n1\tL4\n2\tL5\n")
    assert read_cohort(manifest).class_names == ("background", "L4", "L5")
    write_nifti(manifest.parent / "labels" / "v0.nii.gz", label(3))
    with pytest.raises(LossevoError, match=r"v0\.nii\.gz: label value\(s\) 3 not named in cohort_dseg\.tsv"):
        read_cohort(manifest).cases[0].load()


def test_what_is_wrong_with_a_list(manifest, codes):
    good = manifest.read_text(encoding="utf-8-sig").splitlines()
    header, *lines = [line + "," for line in good if line]
    absent = "carl,images/absent.nii.gz;images/v0_t2.nii.gz,labels/v0.nii.gz,"
    broken = ["carl,,labels/v0.nii.gz,", lines[0], absent, lines[2] + "first"]
    manifest.write_text("\n".join([header + "fold", *lines[:2], *broken]))
    found = scan(manifest)
    assert codes(found) == ["invalid-line", "invalid-line", "duplicate-case", "missing-image"]
    assert "line 4 has no image" in found.problems[0].message
    assert "line 7 has fold 'first', expected 0, 1, …" in found.problems[1].message
    assert "absent.nii.gz: no such file, but" in found.problems[3].message


def test_a_line_with_more_cells_than_the_header_is_not_cut(manifest, codes):
    header, *lines = [line for line in manifest.read_text(encoding="utf-8-sig").splitlines() if line]
    lines[0] = lines[0].replace(";", ",")
    manifest.write_text("\n".join([header, *lines]))
    found = scan(manifest)
    assert codes(found) == ["invalid-line"]
    assert [case.case_id for case in found.cases] == ["v1_t1", "v2_t1"]
    for part in (str(manifest), "line 2 has 4 cells, the header 3 (subject, image, label)", "semicolons between chann"):
        assert part in found.problems[0].message


def test_lists_as_spreadsheets_write_them(manifest, codes):
    plain = scan(manifest)
    header, *lines = [line for line in manifest.read_text(encoding="utf-8-sig").splitlines() if line]
    quoted = [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
    for text in (
        "\ufeff" + "\r\n".join([header + ",,", ",,,,", *(line + ",," for line in lines), ",,,,", ""]),
        "\r".join([header, *quoted, "", "  ,,"]),
        "\n".join(["Label,SUBJECT,note,image", *(f"{c},{a},x,{b}" for a, b, c in (line.split(",") for line in lines))]),
    ):
        manifest.write_text(text, encoding="utf-8", newline="")
        found = scan(manifest)
        assert (codes(found), found.cases) == ([], plain.cases)


def test_names_with_commas_quotes_spaces_and_umlauts(manifest, codes):
    name = 'Rücken, "quer" 1.nii.gz'
    write_nifti(manifest.parent / name, image())
    quoted = name.replace('"', '""')
    manifest.write_text(f'subject,image,label\n"Müller, Jörg","{quoted}",labels/v0.nii.gz\n', encoding="utf-8")
    found = scan(manifest)
    assert codes(found) == []
    assert (found.cases[0].subject, found.cases[0].images[0].name) == ("Müller, Jörg", name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject;image;label\na;b;c", r"cohort\.csv: its cells are separated by semicolons, expected commas"),
        ("subject\timage\tlabel\na\tb\tc", r"cohort\.csv: its cells are separated by tabs, expected commas"),
        ("subject,image,Image,label\na,b,c,d", r"cohort\.csv: the header names the column image twice; leave one"),
        ('subject,image,label\na,b,c\na,"b,c\na,b,c', r"cohort\.csv: not readable as CSV from line 3 on"),
        ("subject,image,label\nMüller,b,c", r"cohort\.csv: not readable as UTF-8 .*; save it in that encoding"),
    ],
)
def test_lists_that_cannot_be_read_say_why(manifest, text: str, message: str):
    manifest.write_text(text, encoding="latin-1")
    with pytest.raises(LossevoError, match=message):
        scan(manifest.parent)


def test_missing_cells_are_told_with_their_line(manifest, codes):
    lines = manifest.read_text(encoding="utf-8-sig").splitlines()
    lines[3] = "anna,images/v1_t1.nii.gz;images/v1_t2.nii.gz"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    found = scan(manifest)
    assert codes(found) == ["invalid-line"]
    assert f"{manifest}: line 4 has no label" in found.problems[0].message


@pytest.mark.parametrize(
    ("voxels", "message"),
    [
        (-label(1, 2).astype(np.int16), r"v1\.nii\.gz: label value -2, expected 0 to 65535"),
        (label(1).astype(np.int32) * 70000, r"v1\.nii\.gz: label value 70000, expected 0 to 65535"),
        (np.arange(8 * 8 * 8).reshape(8, 8, 8).astype(np.int16), r"v1\.nii\.gz: 511 label values, .*is it an image\?"),
    ],
)
def test_values_that_no_label_has_are_told_with_their_file(manifest, codes, voxels, message: str):
    write_nifti(manifest.parent / "labels" / "v1.nii.gz", voxels)
    found = scan(manifest)
    assert (codes(found), found.label_names) == (["unexpected-label-value"], {1: "foreground"})
    with pytest.raises(LossevoError, match=message):
        read_cohort(manifest)


def test_lists_that_are_none(manifest, codes, tmp_path):
    manifest.write_text("subject,image\n")
    with pytest.raises(LossevoError, match="no CSV file with the columns subject, image, label"):
        scan(manifest, format="manifest")
    manifest.write_text("subject,image,label\n")
    assert codes(scan(manifest)) == ["empty"]
    manifest.with_name("other.csv").write_text("subject,image,label\n")
    with pytest.raises(LossevoError, match=r"2 lists of cases \(cohort\.csv, other\.csv\); give one of the files"):
        scan(tmp_path)


# Real data: a thoracolumbar T2w with labels by region, inside the package TPTBox (Apache-2.0).

REGIONS = {
    41: "arch", 42: "spinous process", 43: "costal process left", 44: "costal process right",
    45: "articular process superior left", 46: "articular process superior right",
    47: "articular process inferior left", 48: "articular process inferior right", 49: "corpus", 60: "cord",
    61: "canal", 62: "endplate", 100: "disc",
}  # fmt: skip


def test_regions_of_a_real_spine(tmp_path):
    try:
        package = importlib.metadata.distribution("TPTBox")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("TPTBox is not installed (pip install --no-deps TPTBox==1.1.0)")
    folder = package.locate_file("TPTBox/tests/sample_mri")
    lines = "".join(f"{value}\t{name}\n" for value, name in REGIONS.items())
    (tmp_path / "spine_dseg.tsv").write_text(f"index\tname\n{lines}")
    files = f"{folder}/sub-mri_label-6_T2w.nii.gz,{folder}/sub-mri_seg-subreg_label-6_msk.nii.gz"
    (tmp_path / "spine.csv").write_text(f"subject,image,label\nmri,{files}\n")
    processes = ["arch", *(name for name in REGIONS.values() if "process" in name)]
    scheme = LabelScheme(classes={"body": ["corpus", "endplate"], "arch": processes, "canal": ["canal", "cord"]})
    cohort = read_cohort(tmp_path, labels=scheme)
    assert cohort.class_names == ("background", "body", "arch", "canal")
    volume = cohort.cases[0].load()
    assert volume.label.shape == cohort.cases[0].grid.shape == volume.image.shape[1:]
    cm3 = np.bincount(volume.label.ravel()) * np.prod(volume.spacing_mm) / 1000
    centre = {name: np.argwhere(volume.label == index).mean(axis=0) for index, name in enumerate(cohort.class_names)}
    # Whole and cut bodies fill more than their arches; from front to back: bodies, canal, arches.
    assert cm3[1] > cm3[2] > 5
    assert centre["body"][1] > centre["canal"][1] > centre["arch"][1]
