"""Each mask cut where its own grid expects the largest IoU: against all cuts and all masks there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from deepmac_distill.contract import ModelSpec
from deepmac_distill.geometry.rle import encode_grids
from deepmac_distill.labels.cut import CutMasks, are_best, note_of, recut

SIZE = np.array([[40, 60]])
BOX = [[8.0, 4.0, 40.0, 36.0]]
Grid = NDArray[np.uint8]


def cut_one(grid: Grid, cut: float | str = "expected-iou") -> CutMasks:
    return recut(grid[None], BOX, SIZE, cut, lattice="centers")  # type: ignore[arg-type]


def expected(grid: Grid, inside: NDArray[np.bool_]) -> float:
    """The ratio of the means, by its definition."""
    p = grid / 255
    return float(p[inside].sum() / max(inside.sum() + p[~inside].sum(), 1e-12))


grids = hnp.arrays(np.uint8, st.integers(1, 6).map(lambda side: (side, side)))
tied = hnp.arrays(
    np.uint8, st.integers(1, 6).map(lambda side: (side, side)), elements=st.sampled_from([0, 85, 170])
)


@given(st.one_of(grids, tied))
@settings(deadline=None)
def test_no_other_cut_has_a_larger_expected_iou(grid: Grid) -> None:
    found = cut_one(grid)
    best = max(expected(grid, grid > value) for value in range(255))
    assert found.expected_iou[0] == pytest.approx(best, abs=1e-6)
    assert expected(grid, grid / 255 > found.cuts[0]) == pytest.approx(best, abs=1e-6)
    assert found.cuts[0] == pytest.approx(best / (1 + best), abs=1e-6) and 0 <= found.cuts[0] <= 0.5


@given(hnp.arrays(np.uint8, (3, 3)))
@settings(deadline=None, max_examples=30)
def test_no_other_set_of_cells_has_a_larger_expected_iou(grid: Grid) -> None:
    best = 0.0
    for k in range(1, 10):
        for cells in combinations(range(9), k):
            inside = np.zeros(9, bool)
            inside[list(cells)] = True
            best = max(best, expected(grid.ravel(), inside))
    assert cut_one(grid).expected_iou[0] == pytest.approx(best, abs=1e-6)


@given(grids, st.floats(0.01, 0.99))
@settings(deadline=None)
def test_only_a_mask_at_its_best_cut_shows_it(grid: Grid, number: float) -> None:
    by_rule, by_number = cut_one(grid), cut_one(grid, number)
    assert are_best(by_rule.cuts, by_rule.expected_iou).all()
    if are_best(by_number.cuts, by_number.expected_iou).all():
        assert by_number.expected_iou == pytest.approx(by_rule.expected_iou, abs=1e-5)
    else:
        assert (by_number.expected_iou <= by_rule.expected_iou + 1e-6).all()


@pytest.mark.parametrize(("value", "cut", "pixels"), [(0, 0.0, 0), (255, 0.5, 32 * 32 - 4)])
def test_grids_without_doubt(value: int, cut: float, pixels: int) -> None:
    found = cut_one(np.full((8, 8), value, np.uint8))
    # Interpolation with the zeros outside falls to half on the edge of the box, to less in its corners.
    assert (found.cuts[0], found.areas[0]) == (cut, pixels)
    assert found.expected_iou[0] == found.scores[0] == value / 255


def test_a_mask_that_is_doubted_evenly_is_kept_whole() -> None:
    found = cut_one(np.full((8, 8), 76, np.uint8))  # 0.3 everywhere: 0.5 would leave nothing
    assert found.areas[0] > 0 and cut_one(np.full((8, 8), 76, np.uint8), 0.5).areas[0] == 0
    assert found.expected_iou[0] == pytest.approx(76 / 255)


def test_masks_at_their_own_cuts_are_the_bytes_of_single_ones() -> None:
    rng = np.random.default_rng(0)
    n = 60
    smooth = rng.random((n, 4, 4)).repeat(3, 1).repeat(3, 2)
    grid = (255 * smooth).round().astype(np.uint8)
    corner, side = rng.uniform(-5, 40, (n, 2)), rng.uniform(0.2, 40, (n, 2))
    boxes, sizes = np.c_[corner, corner + side], rng.integers(20, 70, (n, 2))
    boxes = np.clip(boxes, 0, sizes[:, [1, 0, 1, 0]])
    together = recut(grid, boxes, sizes, "expected-iou", lattice="centers")
    cuts = together.cuts.astype(float)
    assert len(set(cuts.tolist())) > 50
    for i, cut in enumerate(cuts.tolist()):
        one = recut(grid[i : i + 1], boxes[i : i + 1], sizes[i : i + 1], cut, lattice="centers")
        assert one.counts == [together.counts[i]] and one.scores[0] == together.scores[i]
        assert one.expected_iou[0] == together.expected_iou[i] and one.areas[0] == together.areas[i]
    for some in (grid, grid / 255, (grid / 255).astype(np.float32)):
        each = [encode_grids(some[[i]], boxes[[i]], *sizes[i], cuts[i])[0] for i in range(n)]
        assert encode_grids(some, boxes, *sizes.T, cuts) == each


def test_what_is_no_probability_is_cut_in_the_middle() -> None:
    grid = np.full((2, 8, 8), 76, np.uint8)
    boxes, sizes = np.repeat(BOX, 2, 0), np.repeat(SIZE, 2, 0)
    found = recut(grid, boxes, sizes, "expected-iou", np.array([False, True]), lattice="centers")
    assert found.cuts[0] == 0.5 and found.areas[0] == 0 < found.areas[1]
    assert (
        recut(grid, boxes, sizes, 0.2, probabilities=False, lattice="centers").cuts == np.float32(0.2)
    ).all()  # a number holds
    spec = ModelSpec(mask_size=8, input_size_px=None, probabilities=False, identity="hard")
    assert note_of("expected-iou", spec) == (
        "hard: gives no probabilities: its masks are cut at 0.5, not by expected-iou"
    )
    assert note_of(0.4, spec) == ""


@pytest.mark.parametrize("cut", ["expected_iou", "", -0.1, 1, 1.0, float("nan"), True, None, [0.5]])
def test_what_is_no_cut_is_refused(cut: object) -> None:
    with pytest.raises(ValueError, match=r"cut: got .*, expected a number, 0 <= cut < 1, or 'expected-iou'"):
        cut_one(np.zeros((2, 2), np.uint8), cut)  # type: ignore[arg-type]


def test_a_threshold_of_one_mask_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold: got 1\.5"):
        encode_grids(np.ones((2, 4, 4)), [[0, 0, 1, 1]] * 2, 5, 5, np.array([0.5, 1.5]))
    with pytest.raises(ValueError, match="threshold: got nan"):
        encode_grids(np.ones((1, 4, 4)), [[0, 0, 1, 1]], 5, 5, float("nan"))
