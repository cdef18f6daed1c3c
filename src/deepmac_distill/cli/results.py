"""Results as tables on stdout."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console


def print_report(report: dict[str, Any]) -> None:
    """What `stages.report` returns: teacher, student, and their difference."""
    for role in ("teacher", "student"):
        _console().rule(role)
        print_summary(report[role])
    print_comparison(report["student_minus_teacher"], "student", "teacher")


def print_summary(summary: dict[str, Any], per_class: bool = False) -> None:
    """What one evaluation wrote."""
    from deepmac_distill.report import tables

    console = _console()
    console.print(tables.given_boxes_table(summary["given_boxes"]))
    console.print(tables.sizes_table(summary["given_boxes"]))
    if summary["detected"]["segm"]:
        console.print(tables.detected_table(summary["detected"]))
    if per_class:
        console.print(tables.per_class_table(summary["per_class"]))


def print_retention(summary: dict[str, Any]) -> None:
    """What `stages.retention` returns."""
    from deepmac_distill.report import tables

    _console().print(tables.retention_table(summary))


def print_comparison(comparison: dict[str, Any], a: str, b: str) -> None:
    """What `stages.compare` returns, under the names `a` and `b`."""
    from deepmac_distill.report import tables

    console = _console()
    console.print(tables.comparison_table(comparison["given_boxes"], a, b))
    if comparison.get("detected"):
        console.print(tables.detection_comparison_table(comparison["detected"], a, b))


def _console() -> Console:
    """Results go to stdout, wide enough for a table also where there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)
