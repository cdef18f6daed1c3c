"""A table of results for a Markdown page."""

from __future__ import annotations

from deepmac_distill.report.table import Table


def markdown_table(table: Table) -> str:
    """Headings, alignment and rows; the page around it gives the title.

    >>> from deepmac_distill.report.table import Column, names
    >>> print(markdown_table(Table("", (*names("split"), Column("model")), (("all", 0.5),))))
    | split | model |
    |---|---:|
    | all | 50.0 |
    """
    lines = [_line([column.heading for column in table.columns])]
    lines.append(f"|{'|'.join('---:' if column.is_number else '---' for column in table.columns)}|")
    return "\n".join([*lines, *map(_line, table.texts())])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
