"""A table of results for a terminal of any width: no number is ever cut off."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from deepmac_distill.report.table import Column, Table

_Entry = tuple[Column, str, list[str]]  # a column, its heading and its cells, each of one or more lines
MIN_NAME_WIDTH = 12  # of a column of words that is folded to make room


def rich_tables(table: Table, width: int) -> list[RichTable]:
    """The table for a terminal `width` characters wide, as one Rich table where it fits.

    Where it does not, intervals go below their values; where that is not enough, the columns stand in several
    tables, each with the names of its rows, which are folded only where nothing else helps. A single column
    of numbers that is wider than the terminal stays whole.
    """
    flat, stacked = _columns(table, False), _columns(table, True)
    for columns in (flat, stacked):
        if table_width(one := _drawn(columns, table.title, width)) <= width:
            return [one]
    parts = _parts(table.title, stacked, width, width)
    if all(table_width(part) <= width for part in parts):
        return parts
    return _parts(table.title, stacked, width, max(MIN_NAME_WIDTH, width // 3))


def _parts(title: str, entries: Sequence[_Entry], width: int, name_width: int) -> list[RichTable]:
    """The columns in their order, in as few tables as fit."""
    keys = [entry for entry in entries if entry[0].names_row]
    parts: list[list[_Entry]] = []
    for entry in (entry for entry in entries if not entry[0].names_row):
        if parts and table_width(_drawn([*keys, *parts[-1], entry], "", name_width)) <= width:
            parts[-1].append(entry)
        else:
            parts.append([entry])
    titles = [title, *[""] * (len(parts) - 1)]
    return [_drawn([*keys, *part], one, name_width) for part, one in zip(parts, titles, strict=True)]


def table_width(table: RichTable) -> int:
    """Characters that a Rich table takes where it has room."""
    return Console(width=10_000).measure(table).maximum


def _columns(table: Table, stacked: bool) -> list[_Entry]:
    """Each column's texts; `stacked`, intervals go below their values and headings are broken."""
    texts = table.texts()
    entries = []
    for position, column in enumerate(table.columns):
        cells, heading = [row[position] for row in texts], column.heading
        if stacked and column.is_number:
            cells = [text.replace(" [", "\n[") for text in cells]
            heading = _broken(
                heading, max((len(line) for text in cells for line in text.split("\n")), default=1)
            )
        entries.append((column, heading, cells))
    return entries


def _broken(heading: str, width: int) -> str:
    """A heading over lines of at most `width` characters, or of its longest word."""
    longest = max(len(word) for word in heading.split())
    return "\n".join(textwrap.wrap(heading, max(width, longest), break_long_words=False))


def _drawn(entries: Sequence[_Entry], title: str, name_width: int) -> RichTable:
    drawn = RichTable(
        title=Text(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for column, heading, _ in entries:
        if column.is_number:
            drawn.add_column(Text(heading), justify="right", no_wrap=True)
        else:
            drawn.add_column(Text(heading), overflow="fold", max_width=name_width)
    for row in zip(*(cells for _, _, cells in entries), strict=True):
        drawn.add_row(*map(Text, row))  # no markup: a name may hold brackets
    return drawn
