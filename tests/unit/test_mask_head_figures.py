"""Figures of the comparison of mask heads, against sums by hand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest

from deepmac_distill.evaluation.results import Interval
from deepmac_distill.experiments.mask_head_figures import HeadFigures, figures_of
from deepmac_distill.experiments.mask_head_results import HeadRun, Instances, Results
from deepmac_distill.experiments.mask_head_rows import PAIRS
from deepmac_distill.experiments.mask_head_table import (
    details_table,
    page,
    pairs_table,
    papers_differences,
    rows_table,
)
from deepmac_distill.experiments.run_record import Environment

IMAGES = 12  # each with one object of the seen class, one of the unseen class
T_OF_2 = 4.302653  # Student's t, 97.5 %, 2 degrees of freedom; from a printed table
SEEN = {"hourglass-20": (0.80, 0.82, 0.81), "resnet-4": (0.79, 0.81, 0.82)}
UNSEEN = {"hourglass-20": (0.70, 0.74, 0.69), "resnet-4": (0.60, 0.61, 0.62)}


def both(seen: float, unseen: float) -> tuple[float, ...]:
    return (seen, unseen) * IMAGES


def run(row: str, seed: int, iou: tuple[float, ...]) -> HeadRun:
    machine = Environment("3.11", "Linux", "a processor", 2, (), {"torch": "2"})
    return HeadRun(row, seed, {}, machine, "truth", {"teacher": 60.0}, 0.3, iou, iou)


def results(runs: list[HeadRun]) -> Results:
    ellipse, box = both(0.6, 0.55), both(0.5, 0.45)
    images = tuple(image for image in range(IMAGES) for _ in range(2))
    instances = Instances(
        *("truth", ("cat", "dog"), (1, 2), (True, False), images, (1, 2) * IMAGES, (100, 100) * IMAGES),
        *(box, ellipse, box, ellipse),
    )
    return Results(instances, tuple(runs), costs=None)


@pytest.fixture
def of_seeds() -> Callable[[int], HeadFigures]:
    """Figures of two heads with so many seeds; every object of a class is alike, so images add no noise."""

    def figures(seeds: int) -> HeadFigures:
        runs = [run(row, at, both(SEEN[row][at], UNSEEN[row][at])) for row in SEEN for at in range(seeds)]
        return figures_of(results(runs), resamples=30)

    return figures


def half(interval: Interval) -> float:
    assert interval.value - interval.low == pytest.approx(interval.high - interval.value)
    return interval.high - interval.value


def test_the_gap_is_unseen_minus_seen_and_the_interaction_the_difference_of_gaps(of_seeds) -> None:
    found = of_seeds(3)
    for row in SEEN:
        iou = found.rows[row].iou
        seen, unseen = statistics.mean(SEEN[row]), statistics.mean(UNSEEN[row])
        assert (iou.seen.value, iou.unseen.value) == pytest.approx((seen, unseen))
        assert iou.gap.value == pytest.approx(unseen - seen)
    (pair,) = found.pairs
    gaps = [found.rows[row].iou.gap.value for row in ("hourglass-20", "resnet-4")]
    assert pair.difference.gap.value == pytest.approx(gaps[0] - gaps[1])
    assert pair.difference.gap.value == pytest.approx(
        pair.difference.unseen.value - pair.difference.seen.value
    )


def test_the_interval_of_a_pair_is_that_of_its_differences_by_seed(of_seeds) -> None:
    """Where images add no noise it is Student's of three differences."""
    (pair,) = of_seeds(3).pairs
    assert pair.seeds == (0, 1, 2)
    unseen = [a - b for a, b in zip(UNSEEN["hourglass-20"], UNSEEN["resnet-4"], strict=True)]
    seen = [a - b for a, b in zip(SEEN["hourglass-20"], SEEN["resnet-4"], strict=True)]
    gap = [a - b for a, b in zip(unseen, seen, strict=True)]
    for ours, values in (
        (pair.difference.seen, seen),
        (pair.difference.unseen, unseen),
        (pair.difference.gap, gap),
    ):
        assert half(ours) == pytest.approx(T_OF_2 * statistics.stdev(values) / math.sqrt(3), rel=1e-4)


def test_floors_have_no_seeds_and_no_seed_noise(of_seeds) -> None:
    rows = of_seeds(3).rows
    assert rows["ellipse"].seeds == () and half(rows["ellipse"].iou.unseen) == pytest.approx(0)
    assert rows["box"].minus_ellipse.unseen.value == pytest.approx(-0.1)
    assert half(rows["resnet-4"].minus_ellipse.unseen) > 0.005


def test_one_seed_shows_nothing(of_seeds) -> None:
    found = of_seeds(1)
    assert half(found.pairs[0].difference.gap) == pytest.approx(0)
    assert found.pairs[0].difference.gap.seeds_df == 0
    assert pairs_table(found).texts()[0][-1] == "one seed shows nothing"
    assert pairs_table(of_seeds(3)).texts()[0][-1] in {"yes", "not shown"}


def test_a_second_seed_of_one_row_shows_nothing_either() -> None:
    """The state of a comparison that goes on: the first seed of all rows is there, and the second of one."""
    runs = [run(row, 0, both(0.8, UNSEEN[row][0])) for row in SEEN]
    again = figures_of(results([*runs, run("hourglass-20", 1, both(0.8, UNSEEN["hourglass-20"][1]))]), 20)
    assert again.pairs[0].seeds == (0,)
    assert half(again.rows["hourglass-20"].iou.unseen) > half(again.rows["resnet-4"].iou.unseen)
    assert pairs_table(again).texts()[0][-1] == "one seed shows nothing"


def test_pairs_are_of_the_seeds_that_both_have(of_seeds) -> None:
    runs = [run("hourglass-20", seed, both(0.8, 0.7 + seed / 100)) for seed in (0, 1, 2)]
    found = figures_of(results([*runs, run("resnet-4", 2, both(0.8, 0.6))]), resamples=30)
    assert found.pairs[0].seeds == (2,)
    assert found.pairs[0].difference.unseen.value == pytest.approx(0.12)
    assert figures_of(results([*runs, run("resnet-4", 5, both(0.8, 0.6))]), resamples=30).pairs == ()


def test_rows_are_ordered_by_unseen_classes_with_the_floors_among_them(of_seeds) -> None:
    found = of_seeds(2)
    for table in (rows_table(found), details_table(found, {})):
        assert [row[0] for row in table.rows] == ["hourglass-20", "resnet-4", "ellipse", "box"]
    assert rows_table(found).texts()[0][1:5] == ["2", "81.0", "72.0", "70.0, 74.0"]


def test_sizes_and_edges_have_means_of_their_own() -> None:
    one = run("resnet-4", 0, both(0.8, 0.6))
    alone = results([replace(one, boundary_iou=both(0.4, 0.3))])
    sizes = replace(alone.instances, area=(100, 100, 40_000, 40_000) + (2000, 2000) * (IMAGES - 2))
    better = replace(one, iou=(0.8, 0.5, 0.8, 0.9) + (0.8, 0.6) * (IMAGES - 2), boundary_iou=both(0.4, 0.3))
    row = figures_of(replace(alone, instances=sizes, runs=(better,)), resamples=5).rows["resnet-4"]
    assert dict(row.unseen_by_size.items()) == pytest.approx({"small": 0.5, "medium": 0.6, "large": 0.9})
    assert (row.boundary_iou.seen, row.boundary_iou.unseen) == pytest.approx((0.4, 0.3))
    nothing = figures_of(results([one]), resamples=5).rows["resnet-4"].unseen_by_size
    assert nothing.large is None and nothing.small == pytest.approx(0.6)


def test_the_papers_interactions_are_those_of_its_tables() -> None:
    """Table 4, in given boxes: 81.0 and 77.8 against 78.6 and 62.1."""
    printed = {(pair.a, pair.b): papers_differences(pair) for pair in PAIRS}
    assert printed["hourglass-20", "resnet-4"] == pytest.approx((2.4, 15.7, 13.3))
    assert printed["hourglass-52", "fully-connected-2"] == pytest.approx((1.4, 6.5, 5.1))
    assert printed["hourglass-20", "hourglass-10"] == (None, pytest.approx(3.1), None)


def test_without_seen_classes_there_is_no_interaction() -> None:
    """As where only hidden classes of the training file are evaluated."""
    runs = [run(row, at, both(0.8, UNSEEN[row][at])) for row in SEEN for at in range(2)]
    whole = results(runs)
    unseen = replace(whole, instances=replace(whole.instances, seen=(False, False)))
    text = page(unseen, figures_of(unseen, resamples=5))
    assert "| not measured |" in text and "nan" not in text and "took 1 minutes" in text
