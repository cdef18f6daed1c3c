"""The paper's figures stand once, and agree where one result is printed in two of its places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deepmac_distill import paper

ROOT = Path(__file__).parents[2]


# Rows that a table prints.
PRINTED = {
    "table 1": 4,
    "table 2": 6,  # its default heads are table 1's
    "table 3": 6,
    "table 4": 3,
    "table 5": 4,
    "table 6": 3,
    "table 7": 2,
    "table 8": 7 + 7,
    "table 9": 5,
    "table 10": 5,  # two more did not converge, and one is table 5's
    "table 11": 2 + 1,  # of its caption's two, ResNet-4 is table 3's
    "table 12": 3,
    "table 13": 3,
}
NO_FIT = {"resnet-4, without detection", "hourglass-52, without detection"}  # as printed


# Numbers of other things: a quantile, places in a drawing, examples.
BY_CHANCE = {
    "seed_noise.py": {"12.7"},
    "contact_sheet.py": {"35.0", "16.0"},
    "axis.py": {"35.0"},
    "table.py": {"18.1"},
    "boxes.py": {"22.0"},
}


@pytest.mark.parametrize("table", PRINTED)
def test_every_row_of_every_table_has_its_figures(table: str) -> None:
    rows = [
        name for where, models in paper.places().items() if where.split(",")[0] == table for name in models
    ]
    assert len(rows) == PRINTED[table]


def test_all_is_a_quarter_of_the_20_voc_classes_and_three_of_the_60_others() -> None:
    """So a mistyped figure shows, up to the paper's rounding."""
    whole = [
        (name, row)
        for models in paper.places().values()
        for name, row in models.items()
        if {"all", "seen", "unseen"} <= row.keys() and name not in NO_FIT
    ]
    assert len(whole) == 24
    for name, row in whole:
        assert row["all"] == pytest.approx(row["seen"] / 4 + 3 * row["unseen"] / 4, abs=0.11), name


def test_sizes_and_thresholds_stand_in_their_order() -> None:
    for models in paper.places().values():
        for name, row in models.items():
            assert set(row) <= set(paper.KINDS), name
            if "AP50" in row and name != "Mask R-CNN":  # one AP50 is printed below what its AP can be
                assert row["AP50"] > row["unseen"] > row["APs"] and row["AP50"] > row["AP75"], name
            if "APl" in row:
                assert row["APs"] < row["APm"], name


def test_what_the_paper_only_draws_has_a_span() -> None:
    assert paper.span("figure 3, seen") == (38.8, 40.0)
    low, high = paper.span("appendix C, one seen class, unseen")
    assert low < high == paper.figure("appendix C, one seen class", "hourglass-52, bottle")
    assert paper.span("figure 3, unseen")[1] == paper.figure("table 11", "hourglass-52")


def test_a_row_that_two_places_print_stands_once() -> None:
    """Rows of several figures that are the same by chance have other models."""
    found = [
        (name, row) for models in paper.places().values() for name, row in models.items() if len(row) > 1
    ]
    twice = [name for name, row in found if found.count((name, row)) > 1]
    assert twice == []


def test_no_other_file_holds_the_figures() -> None:
    """A catalog, a benchmark, a recipe or a table that has some of its own would have these."""
    figures = {
        str(value) for models in paper.places().values() for row in models.values() for value in row.values()
    }
    assert len(figures) > 150
    sources = [path for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".toml")]
    for path in (*sources, *(ROOT / "benchmarks").glob("*.py")):
        if path.parent.name == "deepmac_distill" and path.stem == "paper":  # its examples are tests
            continue
        numbers = set(re.findall(r"(?<![\w.,])\d\d\.\d(?![\w.])", path.read_text(encoding="utf-8")))
        assert numbers & figures <= BY_CHANCE.get(path.name, set()), path


def test_every_figure_is_a_percentage_and_every_place_is_named() -> None:
    for name, figure in paper.figures().items():
        assert 0 < figure.value < 100, name
        assert figure.where.startswith(("table ", "figure ", "appendix ")), name
    assert all(row.milliseconds > 10 for row in paper.speeds())
