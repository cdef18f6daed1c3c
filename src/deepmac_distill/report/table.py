"""One table of results, and how its cells read; `terminal` and `markdown` render it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepmac_distill.evaluation.results import Interval, Ratio
from deepmac_distill.printable import printable

MISSING = "–"
Unit = Literal["text", "count", "figure", "percent", "points", "share"]
Cell = str | int | float | Interval | Ratio | None  # None: nothing was measured


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and the unit in which the cells below it read.

    text: words; count: whole numbers; figure: numbers that are written out already; percent: fractions;
    points: differences of fractions, with intervals; share: ratios in percent, with intervals.
    """

    heading: str
    unit: Unit = "percent"
    names_row: bool = False  # repeated wherever the columns of one row stand apart

    @property
    def is_number(self) -> bool:
        """Numbers stand at the right, and are never cut."""
        return self.unit != "text"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, columns, and rows of one cell a column."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.title!r}: expected {len(self.columns)} cells in every row")

    def texts(self) -> list[list[str]]:
        """Every cell as it reads."""
        units = [column.unit for column in self.columns]
        return [[cell_text(cell, unit) for cell, unit in zip(row, units, strict=True)] for row in self.rows]


def names(*headings: str) -> tuple[Column, ...]:
    """Columns that name their row."""
    return tuple(Column(heading, "text", names_row=True) for heading in headings)


def columns(unit: Unit, headings: Sequence[str]) -> tuple[Column, ...]:
    """Columns of one unit."""
    return tuple(Column(heading, unit) for heading in headings)


def cell_text(cell: Cell, unit: Unit) -> str:
    """A cell as it reads under a column of some unit.

    >>> cell_text(0.7834, "percent"), cell_text(12, "count"), cell_text(None, "count")
    ('78.3', '12', '–')
    >>> cell_text(Interval(0.204, 0.181, 0.2271), "points")
    '+20.4 [+18.1, +22.7]'
    >>> cell_text(Ratio(0.812, 0.701, 0.922), "share")
    '81.2 [70.1, 92.2]'
    >>> print(cell_text("two\\nlines", "text"))
    two\\nlines
    """
    if cell is None:
        return MISSING
    if isinstance(cell, Interval | Ratio):
        return points(cell) if unit == "points" else share(cell)
    if unit == "percent" and not isinstance(cell, str):
        return percent(cell)
    return printable(str(cell))


def percent(fraction: float | None) -> str:
    """A fraction in percent with one decimal; a dash for nothing.

    >>> percent(0.7834), percent(None)
    ('78.3', '–')
    """
    return MISSING if fraction is None else f"{100 * fraction:.1f}"


def points(difference: Interval | Ratio) -> str:
    """A difference in percentage points with its 95 % interval; a dash for nothing.

    >>> points(Interval(0.204, 0.181, 0.2271)), points(Interval(None))
    ('+20.4 [+18.1, +22.7]', '–')
    """
    return _with_interval(difference, "+.1f")


def share(ratio: Interval | Ratio) -> str:
    """A ratio in percent with its 95 % interval; a dash where it is undefined.

    >>> share(Ratio(0.812, 0.701, 0.922)), share(Ratio(0.5))
    ('81.2 [70.1, 92.2]', '50.0')
    """
    return _with_interval(ratio, ".1f")


def _with_interval(figure: Interval | Ratio, form: str) -> str:
    if figure.value is None:
        return MISSING
    value = format(100 * figure.value, form)
    if figure.low is None or figure.high is None:
        return value
    return f"{value} [{format(100 * figure.low, form)}, {format(100 * figure.high, form)}]"
