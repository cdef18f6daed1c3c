from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from deepmac_distill.evaluation.results import Interval, Ratio
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table, columns, names
from deepmac_distill.report.terminal import rich_tables, table_width

LEAD = Interval(0.3054, 0.2971, 0.3128)
WIDE = Table(
    "A title that is longer than a narrow terminal and says what the figures below it are",
    (
        *names("of", "split"),
        *columns("percent", ("human_seen", "pseudo", "human_all")),
        *columns("points", ("pseudo − human_seen", "human_all − pseudo")),
        Column("retention", "share"),
        Column("instances", "count"),
    ),
    tuple(
        (of, split, 0.654, 0.668, 0.675, LEAD, Interval(-0.01, -0.015, None), Ratio(1.405, 1.066, 1.677), n)
        for of, n in (("IoU", 1079), ("AP", 36_781_234))
        for split in ("all", "seen", "unseen", "shown elsewhere")
    ),
)


def drawn(table: Table, width: int) -> str:
    """What a terminal shows, its lines cut at its width."""
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        for part in rich_tables(table, width):
            assert table_width(part) <= width
            console.print(part)
    return capture.get()


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"[+-]?\d+\.\d|\b\d{4,}\b|–", text))


@pytest.mark.parametrize("width", [200, 80, 60])
def test_every_number_of_the_wide_table_appears_whole_at_any_width(width: int) -> None:
    shown = drawn(WIDE, width)
    expected = [cell for row in WIDE.texts() for cell in row[2:]]
    assert numbers(shown) == numbers(" ".join(expected))
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width


def test_a_table_that_fits_is_one_table_and_a_narrow_one_repeats_what_names_its_rows() -> None:
    assert len(rich_tables(WIDE, 200)) == 1
    parts = rich_tables(WIDE, 60)
    assert len(parts) > 1 and all(str(part.columns[1].header) == "split" for part in parts)
    assert [part.title is None for part in parts] == [False] + [True] * (len(parts) - 1)


@settings(deadline=None)
@given(st.integers(1, 120))
def test_no_width_loses_a_column(width: int) -> None:
    headings = [str(c.header).replace("\n", " ") for part in rich_tables(WIDE, width) for c in part.columns]
    others = [heading for heading in headings if heading not in ("of", "split")]
    assert others == [column.heading for column in WIDE.columns[2:]]


def test_a_long_name_is_folded_and_no_letter_of_it_lost() -> None:
    name = "hourglass-20-no-encoder-decoder-no-long-skips-and-more"
    table = Table("", (*names("model"), *columns("percent", ("a", "b", "c"))), ((name, 0.1, 0.2, 0.3),))
    shown = drawn(table, 40)
    assert "10.0" in shown and "30.0" in shown
    assert "".join(line.split()[0] for line in shown.splitlines() if line[1:5].strip("─ ")) == f"model{name}"


def test_brackets_and_bars_in_a_name_are_text() -> None:
    table = Table("", (*names("class"), *columns("percent", ("AP",))), (("[red]cup|mug", 0.1),))
    assert "[red]cup|mug" in drawn(table, 80)
    assert r"| [red]cup\|mug | 10.0 |" in markdown_table(table)


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 cells"):
        Table("t", names("a", "b"), (("x",),))
