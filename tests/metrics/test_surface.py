"""Surface distances against DeepMind's package, a loop, MONAI and closed forms; and what must hold for any masks."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_surface_dice
from surface_distance import lookup_tables
from surface_distance import metrics as deepmind

from lossevo.metrics import SurfaceDistances, surface, surface_distances
from lossevo.metrics.surface_elements import element_areas, neighbour_codes
from tests.metrics.masks import KINDS, Mask, Pair, mask, pairs

TOLERANCES = (0.123, 0.987, 2.345)  # no sum of voxel sizes
KERNELS = {2: lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL, 3: lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL}
TABLES = {
    2: lookup_tables.create_table_neighbour_code_to_contour_length,
    3: lookup_tables.create_table_neighbour_code_to_surface_area,
}


@pytest.fixture(params=["tree", "map"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to find the nearest element, whatever the share of elements."""
    monkeypatch.setattr(surface, "_VOXELS_PER_SEARCH", 0 if request.param == "tree" else 10**9)
    return request.param


def values(found: SurfaceDistances) -> dict[str, float]:
    nsd = {f"nsd@{tolerance}": found.nsd(tolerance) for tolerance in TOLERANCES}
    return {"hd": found.hd(), "hd95": found.hd95(), "assd": found.assd(), **nsd}


def of(pair: Pair) -> dict[str, float]:
    return values(surface_distances(*pair))


def deepmind_values(pair: Pair) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it uses old names of SciPy's
        found = deepmind.compute_surface_distances(pair.reference, pair.prediction, pair.spacing_mm)
    return from_lists(*(found[f"distances_{way}"] for way in ("gt_to_pred", "pred_to_gt")), found)


def from_lists(from_reference: Any, from_prediction: Any, found: dict[str, Any]) -> dict[str, float]:
    """DeepMind's metrics of DeepMind's or of the loop's distances."""
    areas = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    means = deepmind.compute_average_surface_distance(found)
    assert len(from_reference) == len(found["surfel_areas_gt"])
    assert len(from_prediction) == len(found["surfel_areas_pred"])
    return {
        "hd": deepmind.compute_robust_hausdorff(found, 100),
        # Where exactly 95 % of the area is reached, rounding decides there, and we take the smaller distance.
        "hd95": deepmind.compute_robust_hausdorff(found, 95 - 1e-7),
        # Of both surfaces together; DeepMind gives the mean of each.
        "assd": float(np.average(means, weights=areas)),
        **{f"nsd@{t}": deepmind.compute_surface_dice_at_tolerance(found, t) for t in TOLERANCES},
    }


def loop_values(pair: Pair) -> dict[str, float]:
    """By loops over cells and over pairs of elements; areas by DeepMind's table."""
    axes, spacing = pair.reference.ndim, np.array(pair.spacing_mm)
    table = TABLES[axes](pair.spacing_mm)

    def elements(of: Mask) -> list[tuple[Any, float]]:
        found = []
        for cell in itertools.product(*(range(size + 1) for size in of.shape)):
            code = 0
            for offset in itertools.product((0, 1), repeat=axes):
                voxel = tuple(at + step - 1 for at, step in zip(cell, offset, strict=True))
                if all(0 <= at < size for at, size in zip(voxel, of.shape, strict=True)) and of[voxel]:
                    code += int(KERNELS[axes][offset])
            if 0 < code < 2**2**axes - 1:
                found.append((np.array(cell) * spacing, float(table[code])))
        return found

    both = [elements(pair.reference), elements(pair.prediction)]
    listed: dict[str, Any] = {}
    for (ours, theirs), way, whose in (
        (both, "gt_to_pred", "gt"),
        (both[::-1], "pred_to_gt", "pred"),
    ):
        nearest = sorted((min(math.dist(at, other) for other, _ in theirs), area) for at, area in ours)
        listed[f"distances_{way}"], listed[f"surfel_areas_{whose}"] = (
            np.array(part) for part in zip(*nearest, strict=True)
        )
    return from_lists(listed["distances_gt_to_pred"], listed["distances_pred_to_gt"], listed)


def cube(shape: tuple[int, ...], *sides: tuple[int, int]) -> Mask:
    found = np.zeros(shape, bool)
    found[tuple(slice(*side) for side in sides)] = True
    return found


class TestAreas:
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 3.5), (0.3, 5.0, 0.7), (2.0, 1.0), (0.4, 3.1)])
    def test_every_cell_has_the_area_of_deepminds_table(self, spacing: tuple[float, ...]):
        axes = len(spacing)
        theirs, ours = TABLES[axes](spacing), element_areas(spacing)
        assert len(ours) == 2**2**axes
        for code in range(2**2**axes):
            cell = np.array([code // int(bit) % 2 for bit in KERNELS[axes].ravel()], bool).reshape((2,) * axes)
            middle = int(neighbour_codes(cell)[(1,) * axes])
            assert ours[middle] == pytest.approx(theirs[code], abs=1e-12), f"code {code:b}"

    def test_a_plane_has_the_area_of_the_faces_of_its_voxels(self):
        plane = neighbour_codes(cube((4, 6, 6), (0, 2), (0, 6), (0, 6)))[2, 1:-1, 1:-1]
        assert element_areas((9.0, 0.5, 3.0))[plane] == pytest.approx(np.full((5, 5), 1.5))

    def test_a_voxel_is_an_octahedron_and_a_pixel_a_rhombus(self):
        # octahedron with semi-axes a, b, c: 8 triangles of area √((bc)² + (ac)² + (ab)²) / 2
        a, b, c = 0.5, 1.0, 2.0
        voxel = element_areas((2 * a, 2 * b, 2 * c))[neighbour_codes(np.ones((1, 1, 1), bool))].sum()
        assert voxel == pytest.approx(4 * math.hypot(b * c, a * c, a * b))
        assert element_areas((2 * a, 2 * b))[neighbour_codes(np.ones((1, 1), bool))].sum() == pytest.approx(
            4 * math.hypot(a, b)
        )


@pytest.mark.usefixtures("search")
class TestOtherImplementations:
    @given(pair=pairs())
    def test_equal_to_deepmind(self, pair: Pair):
        assert of(pair) == pytest.approx(deepmind_values(pair), rel=1e-6, abs=1e-6)

    @pytest.mark.parametrize("kinds", list(itertools.combinations_with_replacement(KINDS, 2)), ids="-".join)
    @pytest.mark.parametrize("spacing", [(0.7, 0.7, 3.3), (1.0, 1.0, 1.0), (1.1, 0.45)], ids=str)
    def test_equal_to_deepmind_on_larger_masks(self, kinds: tuple[str, str], spacing: tuple[float, ...]):
        rng = np.random.default_rng(5)
        prediction, reference = (mask(kind, (23, 19, 12)[: len(spacing)], rng) for kind in kinds)
        pair = Pair(prediction, reference, spacing)
        assert of(pair) == pytest.approx(deepmind_values(pair), rel=1e-6, abs=1e-6)

    @pytest.mark.parametrize("seed", range(12))
    def test_equal_to_a_loop(self, seed: int):
        rng = np.random.default_rng(seed)
        axes = 2 + seed % 2
        shape, spacing = (5, 4, 3)[:axes], tuple(rng.uniform(0.3, 4, axes).tolist())
        pair = Pair(*(mask(KINDS[(seed + step) % 6], shape, rng) for step in (0, seed // 6 + 1)), spacing)
        assert of(pair) == pytest.approx(loop_values(pair), rel=1e-6, abs=1e-6)

    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 3.3)])
    @pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
    def test_nsd_equals_monai_with_subvoxels(self, spacing: tuple[float, float, float]):
        # Not MONAI's other ways: without use_subvoxels its NSD counts boundary voxels, whatever their area. Its
        # Hausdorff and average distances are those of boundary voxels too, and HD95 of an empty prediction is NaN.
        rng = np.random.default_rng(0)
        pair = Pair(*(np.pad(mask("blob", (14, 12, 10), rng), 2) for _ in range(2)), spacing)
        tensors = [torch.from_numpy(m)[None, None].float() for m in (pair.prediction, pair.reference)]
        for tolerance in TOLERANCES:
            theirs = compute_surface_dice(
                *tensors, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
            )
            assert surface_distances(*pair).nsd(tolerance) == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.usefixtures("search")
class TestClosedForms:
    @pytest.mark.parametrize("shift", [1, 3])
    def test_strips_from_border_to_border_that_are_shifted(self, shift: int):
        shape, spacing = (30, 20), (1.5, 0.7)
        pair = Pair(cube(shape, (10 + shift, 15 + shift), (0, 20)), cube(shape, (10, 15), (0, 20)), spacing)
        found = surface_distances(*pair)
        assert found.hd() == found.hd95() == pytest.approx(1.5 * shift)
        assert found.nsd(1.5 * shift) == 1
        assert 0 < found.assd() < 1.5 * shift

    def test_parallel_planes_are_as_far_apart_as_their_shift(self):
        shape = (12, 9, 8)
        found = surface_distances(
            cube(shape, (0, 7), (0, 9), (0, 8)), cube(shape, (0, 4), (0, 9), (0, 8)), (2.0, 0.5, 0.5)
        )
        assert found.hd() == pytest.approx(3 * 2.0)  # to the upper plane from beside the lower one
        assert found.nsd(2.0 * 3) == 1
        assert found.nsd(2.0 * 3 - 0.01) < 1

    @pytest.mark.parametrize("shift", [1, 2, 4])
    def test_shifted_cubes(self, shift: int):
        side = 8
        pair = Pair(
            cube((20, 20, 20), (4 + shift, 4 + shift + side), (5, 13), (5, 13)),
            cube((20, 20, 20), (4, 12), (5, 13), (5, 13)),
            (1.5, 1.0, 1.0),
        )
        found = surface_distances(*pair)
        assert found.hd() == found.hd95() == pytest.approx(1.5 * shift)
        assert found.nsd(1.5 * shift) == 1
        assert found.nsd(1.5 * shift - 0.01) < 1

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("axes", [2, 3])
    def test_identical_masks(self, kind: str, axes: int):
        one = mask(kind, (6, 5, 4)[:axes], np.random.default_rng(1))
        found = surface_distances(one, one.copy(), (1.0, 2.0, 3.0)[:axes])
        assert (found.hd(), found.hd95(), found.assd(), found.nsd(0.001)) == (0, 0, 0, 1)

    def test_single_voxels(self):
        first, second = np.zeros((2, 9, 9, 9), bool)
        first[1, 1, 1] = second[4, 5, 1] = True
        found = surface_distances(first, second, (1.0, 1.0, 7.0))
        assert found.hd() == pytest.approx(5)  # 3-4-5, between corresponding corners
        # The corner at (1, 1) is √(2² + 3²) from (3, 4); of the four along each side, in both layers alike.
        corners = [math.hypot(3, 4), math.hypot(2, 4), math.hypot(3, 3), math.hypot(2, 3)]
        assert found.assd() == pytest.approx(sum(corners) / 4)

    def test_a_mask_at_the_border_has_a_surface_there(self):
        whole = np.ones((6, 6, 6), bool)
        half = cube((6, 6, 6), (0, 3), (0, 6), (0, 6))
        found = surface_distances(half, whole, (1.0, 1.0, 1.0))
        assert found.hd() == pytest.approx(3)
        # The whole's surface: 6 faces of 5 × 5 full elements, and 12 edges and 8 corners that are cut off.
        assert found.reference_areas.sum() == pytest.approx(6 * 25 + 12 * 5 * math.sqrt(0.5) + 8 * math.sqrt(3) / 8)

    def test_spacing_as_files_round_it_is_within_the_tolerance(self):
        spacing = float(np.float32(0.4))
        assert 5 * spacing > 2  # so a bare comparison counts the surface as outside
        pair = Pair(cube((20, 3), (3, 4), (0, 3)), cube((20, 3), (8, 9), (0, 3)), (spacing, 1.0))
        assert surface_distances(*pair).nsd(2) == 1
        assert surface_distances(*pair).nsd(1.99) < 1


@pytest.mark.usefixtures("search")
class TestProperties:
    @settings(max_examples=50)
    @given(pair=pairs())
    def test_symmetric_and_bounded(self, pair: Pair):
        found = of(pair)
        assert found == pytest.approx(of(Pair(pair.reference, pair.prediction, pair.spacing_mm)), rel=1e-9)
        diagonal = math.hypot(*np.multiply(pair.reference.shape, pair.spacing_mm))
        assert 0 <= found["assd"] <= found["hd"] * (1 + 1e-6)
        assert 0 <= found["hd95"] <= found["hd"] <= diagonal * (1 + 1e-6)
        nsd = [found[f"nsd@{tolerance}"] for tolerance in TOLERANCES]
        assert nsd == sorted(nsd)
        assert 0 <= nsd[0] <= nsd[-1] <= 1 + 1e-12
        assert surface_distances(*pair).nsd(found["hd"]) == pytest.approx(1)

    @settings(max_examples=50)
    @given(pair=pairs(), width=st.integers(1, 3))
    def test_padding_changes_nothing(self, pair: Pair, width: int):
        padded = Pair(*(np.pad(one, width) for one in pair[:2]), pair.spacing_mm)
        assert of(padded) == pytest.approx(of(pair), rel=1e-6)

    @settings(max_examples=50)
    @given(pair=pairs(), order=st.permutations(range(3)), flipped=st.sets(st.integers(0, 2)))
    def test_flipping_and_swapping_axes_with_their_spacing_changes_nothing(
        self, pair: Pair, order: list[int], flipped: set[int]
    ):
        axes = pair.reference.ndim
        turn = [axis for axis in order if axis < axes]
        turned = [np.flip(one, [axis for axis in flipped if axis < axes]).transpose(turn) for one in pair[:2]]
        other = Pair(turned[0], turned[1], tuple(pair.spacing_mm[axis] for axis in turn))
        assert of(other) == pytest.approx(of(pair), rel=1e-6)

    @settings(max_examples=50)
    @given(pair=pairs(), factor=st.sampled_from([0.01, 0.5, 3.0, 100.0]))
    def test_scaling_the_spacing_scales_what_is_in_mm(self, pair: Pair, factor: float):
        found = surface_distances(*pair)
        scaled = surface_distances(*pair[:2], [step * factor for step in pair.spacing_mm])
        for name in ("hd", "hd95", "assd"):
            assert getattr(scaled, name)() == pytest.approx(factor * getattr(found, name)(), rel=1e-6)
        for tolerance in TOLERANCES:
            assert scaled.nsd(factor * tolerance) == pytest.approx(found.nsd(tolerance))


def test_masks_without_a_surface_or_of_two_shapes_are_refused():
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    for pair in ((empty, full), (full, empty)):
        with pytest.raises(ValueError, match="empty mask has no surface"):
            surface_distances(*pair, (1.0, 1.0))
    with pytest.raises(ValueError, match="shape"):
        surface_distances(full, np.ones((3, 4), bool), (1.0, 1.0))
