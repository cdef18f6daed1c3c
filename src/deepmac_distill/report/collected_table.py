"""Runs of any pipeline files as one table."""

from __future__ import annotations

from collections.abc import Sequence

from deepmac_distill.evaluation.collected_results import Collected, Row
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import MISSING, Cell, Column, Table, columns, names
from deepmac_distill.report.tables import interval_note


def collected_table(found: Collected) -> Table:
    """A row for each recipe: mask IoU in given boxes with intervals, then AP where there is any."""
    detects = any(one.mask_AP.value is not None for row in found.rows for one in row.figures.values())
    splits = found.splits
    return Table(
        "Runs side by side: mask IoU in given boxes, mean over classes, and COCO average precision (%)",
        (
            *names("run"),
            Column("seeds", "count"),
            *(Column(f"IoU {split}", "figure") for split in splits),
            *(columns("percent", [f"mask AP {split}" for split in splits]) if detects else ()),
            *(columns("percent", ["box AP all"]) if detects and "all" in splits else ()),
        ),
        tuple(_cells(row, splits, detects) for row in found.rows),
    )


def collected_lines(found: Collected) -> list[str]:
    """What a table of runs has to be read with: its splits, its intervals, each row's look and versions."""
    first = found.rows[0]
    sizes = [
        f"{name} {one.classes} classes, {one.instances} instances" for name, one in first.figures.items()
    ]
    lines = [f"splits of the first row: {'; '.join(sizes)}"]
    few = [row.name for row in found.rows if len(row.seeds) < 2]
    if few and len(few) < len(found.rows):
        lines.append(f"of one seed, intervals of image sampling only: {', '.join(few)}")
    seeds = max((row.seeds for row in found.rows), key=len)
    lines.append(f"{interval_note(seeds)}; AP is the mean over seeds, its interval training noise alone")
    lines += _by_value("versions", [(row.name, _versions(row)) for row in found.rows])
    lines += _by_value("evaluated", [(row.name, row.how or "not recorded") for row in found.rows])
    return lines


def collected_page(found: Collected) -> str:
    """The table and its lines as Markdown."""
    return "\n".join(
        [markdown_table(collected_table(found)), "", *(f"- {one}" for one in collected_lines(found))]
    )


def _cells(row: Row, splits: Sequence[str], detects: bool) -> tuple[Cell, ...]:
    figures = [row.figures[split] for split in splits]
    cells: list[Cell] = [row.name, len(row.seeds) or 1, *(one.iou for one in figures)]
    if detects:
        cells += [one.mask_AP for one in figures]
        cells += [row.figures["all"].box_AP] if "all" in splits else []
    return tuple(cells)


def _versions(row: Row) -> str:
    return ", ".join(f"{name} {version or MISSING}" for name, version in row.versions.items())


def _by_value(what: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """One line where all rows have one value, else one line a value.

    >>> _by_value("versions", [("a", "torch 2"), ("b", "torch 2")])
    ['versions of all: torch 2']
    >>> _by_value("versions", [("a", "torch 2"), ("b", "torch 3")])
    ['versions of a: torch 2', 'versions of b: torch 3']
    """
    by_value: dict[str, list[str]] = {}
    for name, value in pairs:
        by_value.setdefault(value, []).append(name)
    if len(by_value) == 1:
        return [f"{what} of all: {next(iter(by_value))}"]
    return [f"{what} of {', '.join(who)}: {value}" for value, who in by_value.items()]
