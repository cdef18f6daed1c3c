"""The summary as tables for a terminal or a Markdown page: IoU and AP in percent, differences in points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

MISSING = "–"


def given_boxes_table(given_boxes: Mapping[str, Any]) -> Table:
    """Class-mean mask IoU for given boxes: `summary["given_boxes"]`."""
    table = _table("Mask IoU in given boxes, mean over classes (%)", left=1)
    for heading in ("classes", "instances", "model", "box", "ellipse", "model − box", "model − ellipse"):
        table.add_column(heading, justify="right", no_wrap=True)
    for split, row in given_boxes.items():
        means = [percent(row["class_mean_iou"][name]) for name in ("model", "box", "ellipse")]
        leads = [points(row[f"model_minus_{name}"]) for name in ("box", "ellipse")]
        table.add_row(split, str(row["classes"]), str(row["instances"]), *means, *leads)
    return table


def sizes_table(given_boxes: Mapping[str, Any]) -> Table:
    """Class-mean mask IoU by the size of the truth: `summary["given_boxes"]`."""
    table = _table("Mask IoU by size, mean over classes (%)", left=2)
    table.columns[1].header = "size"
    for heading in ("instances", "model", "box", "ellipse"):
        table.add_column(heading, justify="right", no_wrap=True)
    for split, whole in given_boxes.items():
        for size, row in whole["by_size"].items():
            means = [percent(row["class_mean_iou"][name]) for name in ("model", "box", "ellipse")]
            table.add_row(split, size, str(row["instances"]), *means)
    return table


def detected_table(detected: Mapping[str, Any]) -> Table:
    """COCO average precision of masks and boxes: `summary["detected"]`."""
    table = _table("COCO average precision (%)", left=2)
    table.columns[0].header, table.columns[1].header = "of", "split"
    stats = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
    for heading in (*stats, "instances"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, heading in (("segm", "masks"), ("bbox", "boxes")):
        for split, row in (detected.get(kind) or {}).items():
            table.add_row(heading, split, *(percent(row[stat]) for stat in stats), str(row["instances"]))
    return table


def per_class_table(per_class: list[Mapping[str, Any]]) -> Table:
    """One row a class, in label order: `summary["per_class"]`."""
    table = _table("Per class (%)", left=2)
    table.columns[0].header, table.columns[1].header = "class", "masks in training"
    for heading in ("instances", "model IoU", "box IoU", "ellipse IoU", "mask AP", "box AP"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in per_class:
        values = [percent(row[key]) for key in ("model", "box", "ellipse", "segm_AP", "bbox_AP")]
        table.add_row(row["name"], "seen" if row["seen"] else "unseen", str(row["instances"]), *values)
    return table


def comparison_table(comparison: Mapping[str, Any], a: str, b: str) -> Table:
    """Two runs on the same instances, from `compare_given_boxes`; `a` and `b` name them."""
    table = _table("Mask IoU in given boxes, mean over classes (%)", left=1)
    for heading in ("classes", "instances", a, b, f"{a} − {b}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for split, row in comparison.items():
        means = [percent(row["class_mean_iou"][name]) for name in ("a", "b")]
        table.add_row(split, str(row["classes"]), str(row["instances"]), *means, points(row["a_minus_b"]))
    return table


def detection_comparison_table(comparison: Mapping[str, Any], a: str, b: str) -> Table:
    """Two runs' COCO AP of masks and boxes, from `compare_average_precision` of each kind."""
    table = _table("COCO average precision (%)", left=2)
    table.columns[0].header, table.columns[1].header = "of", "split"
    for heading in (a, b, f"{a} − {b}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, heading in (("segm", "masks"), ("bbox", "boxes")):
        for split, row in comparison[kind].items():
            if row is not None:
                found = row["AP"]
                values = [percent(found[name]) for name in ("a", "b")]
                table.add_row(heading, split, *values, points(found["a_minus_b"]))
    return table


def retention_table(retention: Mapping[str, Any]) -> Table:
    """Mask IoU and mask AP of a run's three students, from stage `retention`; an interval below its value."""
    table = _table(
        "The student: a, from human masks of seen classes; b, from the teacher's of the rest too;\n"
        "c, from all human masks. Retention is (b − a) / (c − a).\n"
        "Mask IoU in given boxes, mean over classes, and mask AP (%)",
        left=2,
    )
    table.collapse_padding = True
    table.columns[0].header = "of"
    for heading in ("a", "b", "c", "b − a", "c − b", "c − a", "retention", "b / c"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = {split: row["class_mean_iou"] for split, row in retention["given_boxes"].items()}
    for heading, figures in (("IoU", rows), ("AP", retention["detected"]["segm"] or {})):
        for split, row in figures.items():
            if row is None:
                continue
            differences = [points(row[name]) for name in ("b_minus_a", "c_minus_b", "c_minus_a")]
            ratios = [share(row[name]) for name in ("retention", "b_over_c")]
            cells = [text.replace(" [", "\n[") for text in differences + ratios]
            table.add_row(heading, split, *(percent(row[arm]) for arm in "abc"), *cells)
    return table


def share(ratio: Mapping[str, Any]) -> str:
    """A ratio in percent with its 95 % interval; a dash where it is undefined.

    >>> share({"value": 0.812, "low": 0.701, "high": 0.922}), share({"value": 0.5, "low": None, "high": None})
    ('81.2 [70.1, 92.2]', '50.0')
    """
    value, low, high = (ratio[key] for key in ("value", "low", "high"))
    return percent(value) + ("" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]")


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; a dash for nothing.

    >>> percent(0.7834), percent(None)
    ('78.3', '–')
    """
    return MISSING if fraction is None else f"{100 * fraction:.1f}"


def points(difference: Mapping[str, float | None]) -> str:
    """A difference in percentage points with its 95 % interval.

    >>> points({"value": 0.204, "low": 0.181, "high": 0.2271})
    '+20.4 [+18.1, +22.7]'
    """
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    if value is None:
        return MISSING
    return f"{100 * value:+.1f}" + ("" if low is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]")


def _table(title: str, left: int) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for _ in range(left):
        table.add_column("split", no_wrap=True)
    return table
