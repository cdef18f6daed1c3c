"""The page about many machines shows what its script computes."""

from __future__ import annotations

import json
from pathlib import Path

import million
import scale_cost

ROOT = Path(__file__).parents[2]


def test_tables_of_the_page_are_those_of_the_script() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert scale_cost.tables() in page
    for row in json.loads((scale_cost.RESULTS / "beside_model.json").read_text())["rows"]:
        assert f"| {row['part']} | {row['cpu_ms_per_image']:.2f} |" in page
    assert million.table(json.loads((scale_cost.RESULTS / "million.json").read_text())["rows"]) in page
