"""The paper's figures stand once, and agree where one result is printed in two of its places."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmac_distill import paper

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("claim", "where", "model"),
    [
        ("teacher mask AP", "table 8, 1024 px", "hourglass-100"),
        (
            "student mask rcnn r50",
            "table 13, a student",
            "mask_rcnn resnet50, default-batch-norm, a mask for each class",
        ),
        (
            "student mask rcnn sn143",
            "table 13, a student",
            "mask_rcnn spinenet-143, default-batch-norm, a mask for each class",
        ),
    ],
)
def test_a_claim_of_appendix_b_is_the_figure_of_its_table(claim: str, where: str, model: str) -> None:
    (row,) = (row for row in paper.claims() if row.id == claim)
    assert row.figures["unseen"] == paper.figure(where, model)


def test_no_other_file_holds_the_figures() -> None:
    """A catalog, a benchmark or a table that has some of its own would have these."""
    marks = ("81.4", "35.5", "38.7", "31.7", "70.3")
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not [mark for mark in marks if mark in text], path


def test_every_figure_is_a_percentage_and_every_place_is_named() -> None:
    for name, figure in paper.figures().items():
        assert 0 < figure.value < 100 and figure.where.startswith(("table ", "figure ")), name
    assert all(row.milliseconds > 10 for row in paper.speeds())
