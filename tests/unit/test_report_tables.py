from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.average_precision import STATS
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.results import (
    AveragePrecision,
    CocoStats,
    Interval,
    PairedDetections,
    PairedStat,
    PairedStats,
    Ratio,
)
from deepmac_distill.evaluation.retention import retention_in_given_boxes
from deepmac_distill.evaluation.retention_results import Retention, RetentionDetected
from deepmac_distill.evaluation.splits import BySplit
from deepmac_distill.evaluation.summary import compare_given_boxes, summarize
from deepmac_distill.report import tables
from deepmac_distill.report.retention_tables import retention_sizes_table, retention_table
from deepmac_distill.report.table import Table

CLASSES = Classes(("cat", "dog"), (1, 2), (True, False))
ROWS = [
    [0, 1, 2],
    [1, 2, 3],
    [1, 1, 2],
    [1, 2, 2],
    [100, 5000, 20000],
    [0.9, 0.8, 0.7],
    [0.5, 0.4, 0.6],
    [0.6, 0.6, 0.6],
    [0.8, 0.5, 0.3],
    [0.3, 0.1, 0.2],
    [0.4, 0.3, 0.1],
    [0, 50, 0],
]
IOUS = pa.table([pa.array(c, f.type) for c, f in zip(ROWS, IOU_SCHEMA, strict=True)], IOU_SCHEMA)
AP = CocoStats(**dict.fromkeys(STATS, 0.25) | {"APl": None}, instances=3, ignored=0)
SEGM = AveragePrecision(BySplit(AP, AP, AP), (0.125, None))
FOUND = summarize(CLASSES, IOUS, segm=SEGM)


def with_ious(values: list[float]) -> pa.Table:
    return IOUS.set_column(IOUS.schema.get_field_index("iou"), "iou", pa.array(values))


def headings(table: Table) -> list[str]:
    return [column.heading for column in table.columns]


def test_given_boxes_are_shown_in_percent_with_the_lead_in_points() -> None:
    rows = tables.given_boxes_table(FOUND.given_boxes).texts()
    assert [row[0] for row in rows] == ["all", "seen", "unseen"]
    assert rows[1][1:6] == ["1", "1", "90.0", "60.0", "50.0"]
    assert rows[2][1:6] == ["1", "2", "75.0", "60.0", "50.0"]
    assert rows[2][6].startswith("+15.0 [+") and rows[2][7].startswith("+25.0 [+")


def test_the_headline_is_the_lead_over_the_ellipse_on_unseen_classes() -> None:
    line = tables.headline(FOUND)
    assert line is not None and line.startswith("unseen classes: mask IoU 75.0 % in given boxes, +15.0 [+")
    assert "over the ellipse" in line and "\n" not in line
    assert tables.headline(summarize(CLASSES, IOUS.slice(0, 1))) is None


def test_classes_shown_elsewhere_have_a_row_where_there_are_any() -> None:
    found = summarize(CLASSES, IOUS, segm=SEGM, shown_elsewhere=frozenset({"dog"}))
    rows = tables.given_boxes_table(found.given_boxes).texts()
    assert rows[3][:4] == ["shown elsewhere", "1", "2", "75.0"] and rows[2][3] == "–"
    assert [row[1] for row in tables.per_class_table(found.per_class).texts()] == ["seen", "shown elsewhere"]


@pytest.mark.parametrize(
    ("classes", "shown", "images", "why"),
    [
        (CLASSES, (), 3, None),
        (CLASSES, (), 2, "the validation set has no human masks of the unseen classes (dog)"),
        (CLASSES, ("dog",), 3, "the model saw, or may have seen, masks of every class that is not seen here"),
        (Classes(("cat", "dog"), (1, 2), (True, True)), (), 3, "data.seen names every class"),
    ],
)
def test_rows_without_figures_are_explained_in_one_line(
    classes: Classes, shown: tuple[str, ...], images: int, why: str | None
) -> None:
    ious = IOUS.slice(0, 1) if images < 3 else IOUS
    line = tables.why_nothing_is_unseen(summarize(classes, ious, shown_elsewhere=frozenset(shown)))
    assert line is None if why is None else why in line and "\n" not in line


def test_what_was_not_measured_is_a_dash_or_absent() -> None:
    rows = tables.detected_table(FOUND.detected).texts()
    assert [row[:2] for row in rows] == [["masks", "all"], ["masks", "seen"], ["masks", "unseen"]]
    assert rows[0][2] == "25.0" and rows[0][7] == "–"
    assert tables.per_class_table(FOUND.per_class).texts()[1] == [
        *("dog", "unseen", "2", "75.0", "60.0", "50.0", "40.0", "–", "–"),
    ]


def test_sizes_have_a_row_each_in_each_split() -> None:
    rows = tables.sizes_table(FOUND.given_boxes).texts()
    assert [row[:3] for row in rows[:3]] == [
        ["all", "small", "1"],
        ["all", "medium", "1"],
        ["all", "large", "1"],
    ]
    lead = "+30.0 [+30.0, +30.0]"
    assert rows[3] == ["seen", "small", "1", "90.0", "60.0", "50.0", lead, "80.0", "40.0"]
    assert rows[4] == ["seen", "medium", "0", *["–"] * 6]


def test_boundaries_have_a_row_a_split_and_none_where_they_were_not_measured() -> None:
    rows = tables.boundary_table(FOUND.given_boxes).texts()
    assert [row[0] for row in rows] == ["all", "seen", "unseen"]
    assert rows[1][1:] == ["80.0", "40.0", "30.0", "+40.0 [+40.0, +40.0]"]
    before = FOUND.given_boxes.map(lambda split: replace(split, boundary=None))
    assert tables.boundary_table(before).rows == ()


def test_two_models_stand_side_by_side_under_their_names() -> None:
    other = with_ious(IOUS["box_baseline_iou"].to_pylist())
    table = tables.comparison_table(compare_given_boxes(IOUS, other, CLASSES), "student", "teacher")
    assert headings(table)[3:] == ["student", "teacher", "student − teacher", "least difference"]
    assert table.texts()[1][3:5] == ["90.0", "50.0"] and table.texts()[1][5].startswith("+40.0 [")


def test_boundaries_and_sizes_of_two_models_stand_side_by_side() -> None:
    other = with_ious(IOUS["box_baseline_iou"].to_pylist())
    found = compare_given_boxes(IOUS, other, CLASSES)
    assert tables.boundary_comparison_table(found, "a", "b").texts()[1][:3] == ["seen", "80.0", "80.0"]
    rows = tables.size_comparison_table(found, "a", "b").texts()
    assert rows[3] == ["mask", "seen", "small", "1", "90.0", "50.0", "+40.0 [+40.0, +40.0]", "–"]
    assert rows[4] == ["mask", "seen", "medium", "0", "–", "–", "–", "–"]
    assert [row[0] for row in rows] == ["mask"] * 9 + ["boundary"] * 9
    before = found.map(lambda split: replace(split, boundary=None, by_size=None))
    for table in (tables.boundary_comparison_table, tables.size_comparison_table):
        assert table(before, "a", "b").rows == ()


def test_intervals_say_whether_they_hold_training_noise() -> None:
    assert "image sampling only" in tables.interval_note(()) == tables.interval_note((3,))
    assert tables.interval_note((0, 1, 2)).endswith("image sampling and training noise (3 seeds)")


def test_a_comparison_of_detections_names_both_models_and_their_difference() -> None:
    stat = PairedStat(0.25, 0.2, Interval(0.05, 0.01, 0.09))
    stats = PairedStats(**dict.fromkeys(STATS, stat))
    splits = BySplit(stats, stats, None)
    table = tables.detection_comparison_table(PairedDetections(splits, splits), "student", "teacher")
    assert headings(table)[2:] == ["student", "teacher", "student − teacher", "least difference"]
    assert table.texts() == [
        [of, split, "25.0", "20.0", "+5.0 [+1.0, +9.0]", "5.7"]
        for of in ("masks", "boxes")
        for split in ("all", "seen")
    ]


def test_a_difference_that_cannot_vary_has_no_least_one() -> None:
    """Two models that find nothing: AP 0 in every resampling shows nothing about what could be seen."""
    stat = PairedStat(0.0, 0.0, Interval(0.0, 0.0, 0.0))
    splits = BySplit(PairedStats(**dict.fromkeys(STATS, stat)), None, None)
    table = tables.detection_comparison_table(PairedDetections(splits, splits), "a", "b")
    assert table.texts()[0][2:] == ["0.0", "0.0", "+0.0 [+0.0, +0.0]", "–"]
    tiny = Interval(0.0, -0.0001, 0.0001)
    assert tables.least_cell(tiny) == "< 0.1" and tables.least_cell(Interval(0.0, -0.1, 0.1), tiny) > 0.1


def test_retention_has_a_row_a_split_and_a_dash_where_a_ratio_is_undefined() -> None:
    ious = {"human_seen": with_ious([0.9, 0.6, 0.6]), "pseudo": IOUS, "human_all": with_ious([0.9, 0.9, 0.9])}
    given_boxes = retention_in_given_boxes(ious, CLASSES, resamples=100)
    ap = replace(given_boxes.unseen.class_mean_iou, pseudo_over_human_all=Ratio(0.5))
    found = Retention({}, (), given_boxes, RetentionDetected(BySplit(ap, None, None)))
    rows = retention_table(found).texts()
    assert [row[:2] for row in rows] == [*(["IoU", s] for s in ("all", "seen", "unseen")), ["AP", "all"]]
    zero = "+0.0 [+0.0, +0.0]"
    assert rows[1][2:] == ["90.0", "90.0", "90.0", zero, zero, zero, "–", "–", "100.0"]
    assert rows[2][2:5] == ["60.0", "75.0", "90.0"] and rows[2][5].startswith("+15.0 [+1")
    assert rows[2][9] == "50.0"
    assert rows[3][10] == "50.0"
    assert len(retention_table(replace(found, detected=RetentionDetected())).rows) == 3
    more = retention_sizes_table(found).texts()
    assert [row[0] for row in more] == [
        *["boundary IoU"] * 3,
        *(f"IoU, {size}" for _ in range(3) for size in ("small", "medium", "large")),
    ]
    assert more[2][:3] == ["boundary IoU", "unseen", "40.0"] and more[6][:3] == ["IoU, small", "seen", "90.0"]
    before = given_boxes.map(lambda row: replace(row, boundary=None, by_size=None))
    assert retention_sizes_table(replace(found, given_boxes=before)).rows == ()
