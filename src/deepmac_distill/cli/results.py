"""Results as tables on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from deepmac_distill.cli.terminal import say
from deepmac_distill.printable import printable

if TYPE_CHECKING:  # importing results costs start-up time that --help should not pay
    from deepmac_distill.evaluation.box_noise import BoxNoise
    from deepmac_distill.evaluation.results import Comparison, Evaluation, Report
    from deepmac_distill.evaluation.retention_results import Retention
    from deepmac_distill.evaluation.seed_results import SeedsReport
    from deepmac_distill.report.table import Table

WIDTH_OF_FILES = 120  # where stdout is no terminal and COLUMNS is not set


def print_report(report: Report) -> None:
    """Teacher, student, and their difference."""
    for role, evaluation in (("teacher", report.teacher), ("student", report.student)):
        _console().rule(role)
        print_evaluation(evaluation)
    print_comparison(report.student_minus_teacher, "student", "teacher")


def print_seeds_report(found: SeedsReport) -> None:
    """Means over seeds of teacher, student and their difference, and each seed's figure."""
    from deepmac_distill.report import tables

    for role, evaluation in (("teacher", found.report.teacher), ("student", found.report.student)):
        _console().rule(role)
        print_evaluation(evaluation, seeds=found.seeds)
    print_comparison(found.report.student_minus_teacher, "student", "teacher")
    print_table(tables.seeds_table(found))


def print_evaluation(evaluation: Evaluation, per_class: bool = False, seeds: Sequence[int] = ()) -> None:
    """What one evaluation found, or several over these seeds."""
    from deepmac_distill.report import tables

    if line := tables.headline(evaluation):
        print_line(line)
    print_table(tables.given_boxes_table(evaluation.given_boxes))
    if why := tables.why_nothing_is_unseen(evaluation):
        say(why)
    _print_unless_empty(tables.boundary_table(evaluation.given_boxes))
    print_table(tables.sizes_table(evaluation.given_boxes))
    print_line(tables.interval_note(seeds))
    if evaluation.detected.segm:
        print_table(tables.detected_table(evaluation.detected))
    if per_class:
        print_table(tables.per_class_table(evaluation.per_class))


def print_box_noise(found: BoxNoise) -> None:
    """What one model does in loose boxes."""
    from deepmac_distill.report import tables
    from deepmac_distill.report.box_noise_table import box_noise_table, why_nothing_is_measured

    print_table(box_noise_table(found))
    if why := why_nothing_is_measured(found):
        print_line(why)
    print_line(tables.interval_note(()))


def print_retention(retention: Retention) -> None:
    """What the teacher's masks are worth."""
    from deepmac_distill.report import tables
    from deepmac_distill.report.retention_tables import retention_sizes_table, retention_table

    print_table(retention_table(retention))
    _print_unless_empty(retention_sizes_table(retention))
    print_line(tables.interval_note(retention.seeds))


def print_comparison(comparison: Comparison, a: str, b: str) -> None:
    """Two evaluations under the names `a` and `b`."""
    from deepmac_distill.report import tables

    print_table(tables.comparison_table(comparison.given_boxes, a, b))
    _print_unless_empty(tables.boundary_comparison_table(comparison.given_boxes, a, b))
    _print_unless_empty(tables.size_comparison_table(comparison.given_boxes, a, b))
    if comparison.detected:
        print_table(tables.detection_comparison_table(comparison.detected, a, b))
    print_line(tables.interval_note(comparison.seeds))
    one, other = comparison.how or (None, None)
    if one and other and (ways := one.unlike(other)):
        print_line(f"{a} and {b} {' and '.join(ways)} differently: {a}: {one.words}; {b}: {other.words}")


def print_line(line: str) -> None:
    """One line, broken where the terminal is narrow."""
    _console().print(printable(line), markup=False)


def print_table(table: Table) -> None:
    """One table, in as many parts as the terminal is narrow."""
    from deepmac_distill.report.terminal import rich_tables, table_width

    width = _console().width
    for part in rich_tables(table, width):
        _console(max(width, table_width(part))).print(part)


def _print_unless_empty(table: Table) -> None:
    """What an earlier version did not measure has no table."""
    if table.rows:
        print_table(table)


def _console(width: int | None = None) -> Console:
    """Results go to stdout; a file gets the width of `WIDTH_OF_FILES` unless COLUMNS asks for another."""
    if width is None and not (sys.stdout.isatty() or "COLUMNS" in os.environ):
        width = WIDTH_OF_FILES
    return Console(width=width, highlight=False)
