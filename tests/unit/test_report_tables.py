from __future__ import annotations

import pyarrow as pa
from rich.table import Table

from deepmac_distill.dataset.classes import Classes
from deepmac_distill.evaluation.average_precision import STATS
from deepmac_distill.evaluation.mask_iou import IOU_SCHEMA
from deepmac_distill.evaluation.retention import retention_in_given_boxes
from deepmac_distill.evaluation.summary import compare_given_boxes, summarize
from deepmac_distill.report import tables

CLASSES = Classes(("cat", "dog"), (1, 2), (True, False))
ROWS = [
    [1, 2, 3],
    [1, 1, 2],
    [1, 2, 2],
    [100, 5000, 20000],
    [0.9, 0.8, 0.7],
    [0.5, 0.4, 0.6],
    [0.6, 0.6, 0.6],
    [0, 50, 0],
]
IOUS = pa.table([pa.array(c, f.type) for c, f in zip(ROWS, IOU_SCHEMA, strict=True)], IOU_SCHEMA)
AP = dict.fromkeys(STATS, 0.25) | {"APl": None, "instances": 3, "ignored": 0}
FOUND = {"all": AP, "seen": AP, "unseen": AP, "per_class": {1: 0.125, 2: None}}
SUMMARY = summarize(CLASSES, ious=IOUS, segm=FOUND)


def cells(table: Table) -> list[list[str]]:
    return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_given_boxes_are_shown_in_percent_with_the_lead_in_points() -> None:
    table = tables.given_boxes_table(SUMMARY["given_boxes"])
    rows = cells(table)
    assert [row[0] for row in rows] == ["all", "seen", "unseen"]
    assert rows[1][1:6] == ["1", "1", "90.0", "50.0", "60.0"]
    assert rows[2][1:6] == ["1", "2", "75.0", "50.0", "60.0"]
    assert rows[2][6].startswith("+25.0 [+") and rows[2][7].startswith("+15.0 [+")


def test_what_was_not_measured_is_a_dash_or_absent() -> None:
    rows = cells(tables.detected_table(SUMMARY["detected"]))
    assert [row[:2] for row in rows] == [["masks", "all"], ["masks", "seen"], ["masks", "unseen"]]
    assert rows[0][2] == "25.0" and rows[0][7] == "–"
    assert cells(tables.per_class_table(SUMMARY["per_class"]))[1] == [
        *("dog", "unseen", "2", "75.0", "50.0", "60.0", "–", "–"),
    ]


def test_sizes_have_a_row_each_in_each_split() -> None:
    rows = cells(tables.sizes_table(SUMMARY["given_boxes"]))
    assert [row[:3] for row in rows[:3]] == [
        ["all", "small", "1"],
        ["all", "medium", "1"],
        ["all", "large", "1"],
    ]
    assert rows[3] == ["seen", "small", "1", "90.0", "50.0", "60.0"]
    assert rows[4] == ["seen", "medium", "0", "–", "–", "–"]


def test_two_runs_stand_side_by_side_under_their_names() -> None:
    other = IOUS.set_column(4, "iou", IOUS["box_iou"])
    table = tables.comparison_table(compare_given_boxes(IOUS, other, CLASSES), "student", "teacher")
    assert [column.header for column in table.columns][3:] == ["student", "teacher", "student − teacher"]
    assert cells(table)[1][3:5] == ["90.0", "50.0"] and cells(table)[1][5].startswith("+40.0 [")


def test_a_comparison_of_detections_names_both_runs_and_their_difference() -> None:
    row = {"AP": {"a": 0.25, "b": 0.2, "a_minus_b": {"value": 0.05, "low": 0.01, "high": 0.09}}}
    comparison = {kind: {"all": row, "unseen": None} for kind in ("segm", "bbox")}
    table = tables.detection_comparison_table(comparison, "student", "teacher")
    assert [column.header for column in table.columns][2:] == ["student", "teacher", "student − teacher"]
    assert cells(table) == [[of, "all", "25.0", "20.0", "+5.0 [+1.0, +9.0]"] for of in ("masks", "boxes")]


def test_retention_has_a_row_a_split_and_a_dash_where_a_ratio_is_undefined() -> None:
    better = IOUS.set_column(4, "iou", pa.array([0.9, 0.9, 0.9]))
    ious = {"a": IOUS.set_column(4, "iou", pa.array([0.9, 0.6, 0.6])), "b": IOUS, "c": better}
    given_boxes = retention_in_given_boxes(ious, CLASSES, resamples=100)
    ap = given_boxes["unseen"]["class_mean_iou"] | {"b_over_c": {"value": 0.5, "low": None, "high": None}}
    retention = {"given_boxes": given_boxes, "detected": {"segm": {"all": ap, "unseen": None}}}
    rows = cells(tables.retention_table(retention))
    assert [row[:2] for row in rows] == [*(["IoU", s] for s in ("all", "seen", "unseen")), ["AP", "all"]]
    zero = "+0.0\n[+0.0, +0.0]"
    assert rows[1][2:] == ["90.0", "90.0", "90.0", zero, zero, zero, "–", "100.0\n[100.0, 100.0]"]
    assert rows[2][2:5] == ["60.0", "75.0", "90.0"] and rows[2][5].startswith("+15.0\n[+1")
    assert rows[2][8].startswith("50.0\n[")
    assert rows[3][9] == "50.0"
    retention["detected"]["segm"] = None
    assert len(cells(tables.retention_table(retention))) == 3
