"""`deepmac sheet`: evaluations of any runs on one picture."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from deepmac_distill.report.contact_sheet import PANEL_PX


def test_any_number_of_evaluations_stand_on_one_sheet(chain, deepmac, tmp_path: Path) -> None:
    run, out = chain[0], tmp_path / "new" / "sheet.png"
    given = [f"teacher={run / 'evaluate-teacher'}", f"student={run / 'evaluate-student'}"]
    ended = deepmac("sheet", *given, f"again={run / 'evaluate-student'}", "--out", out)
    assert ended.code == 0 and str(out) in ended.out and "unseen classes" in ended.out
    with Image.open(out) as three:
        assert three.width > 5 * PANEL_PX and three.height > 9 * PANEL_PX  # three rows for each
    assert deepmac("sheet", given[0], "--out", out, "--of-each", "2").code == 0
    with Image.open(out) as one:
        assert one.width < three.width and one.height > 5 * PANEL_PX


def test_what_cannot_be_shown_is_said_in_one_line(chain, deepmac, run_copy, tmp_path: Path) -> None:
    run, out = run_copy(), tmp_path / "sheet.png"
    evaluation = run / "evaluate-teacher"
    for words, expected in (
        ([str(evaluation)], "expected HEADING=FOLDER"),
        ([f"a={evaluation}", f"a={evaluation}"], "each heading once"),
        ([f"a={run / 'teacher'}"], "no evaluation"),
    ):
        ended = deepmac("sheet", *words, "--out", out)
        assert ended.code == 2 and expected in ended.err and len(ended.err.splitlines()) == 1
    record = json.loads((evaluation / "evaluation.json").read_text())
    del record["images"]  # as older evaluations have it
    (evaluation / "evaluation.json").write_text(json.dumps(record))
    ended = deepmac("sheet", f"a={evaluation}", "--out", out)
    assert ended.code == 2 and "--images FOLDER" in ended.err
    images = run / "scenes-val" / "images"
    assert deepmac("sheet", f"a={evaluation}", "--out", out, "--images", images).code == 0
    (evaluation / "evaluation.json").write_text(json.dumps(record | {"annotations_sha256": "other"}))
    ended = deepmac("sheet", f"a={evaluation}", "--out", out, "--images", images)
    assert ended.code == 2 and "evaluated on other annotations" in ended.err
