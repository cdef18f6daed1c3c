"""What boxes cut off of masks, unit by unit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from deepmac_distill.inference import SegmentedBoxes
from deepmac_distill.labels.outside_box import OutsideBox
from deepmac_distill.labels.table import LABELS_SCHEMA, facts_of_units, write_unit


def batch(*shares: float, answered: tuple[bool, ...] | None = None, stated: bool = True) -> SegmentedBoxes:
    n = len(shares)
    return SegmentedBoxes(
        rows=np.arange(n),
        grids=np.zeros((n, 4, 4), np.uint8),
        answered=np.array(answered or (True,) * n, bool),
        outside=np.array(shares, np.float32) if stated else None,
    )


def test_masks_that_were_not_drawn_do_not_count() -> None:
    found = OutsideBox.of([batch(0.25, 0.5, answered=(True, False)), batch(0.0, 0.75)])
    assert found == OutsideBox(masks=3, shares=1.0, above_a_tenth=2)


def test_a_teacher_that_states_nothing_leaves_nothing() -> None:
    nothing = OutsideBox.of([batch(0.5, stated=False), batch()])
    assert nothing.facts() == nothing.summary() == {} and nothing.words() == ""
    assert OutsideBox.of_facts([{}, {}]) == nothing == OutsideBox.of_facts([])


def test_units_that_were_done_at_other_times_give_the_same(tmp_path: Path) -> None:
    units = [[batch(0.25, 0.0625)], [], [batch(0.5), batch(0.125, 0.0)]]
    for unit in (2, 0, 1):
        facts = OutsideBox.of(units[unit]).facts()
        assert json.loads(json.dumps(facts)) == facts
        write_unit(tmp_path, unit, LABELS_SCHEMA.empty_table(), facts)
    whole = OutsideBox.of([some for unit in units for some in unit])
    assert OutsideBox.of_facts(facts_of_units(tmp_path, len(units))) == whole
    assert whole.summary() == {"outside_box": {"masks": 5, "mean_share": 0.1875, "above_a_tenth": 3}}
