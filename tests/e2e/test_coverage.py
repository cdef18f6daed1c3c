"""The measured coverage of intervals over seeds: that its command runs, on a few squares."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import coverage_of_intervals


def write_squares(path: Path, images: range) -> None:
    """Two squares an image, one of a seen class and one of an unseen one."""
    annotations = []
    for image in images:
        for category_id, side in ((1, 10 + image), (2, 20 + image)):
            corners = [[0, 0, side, 0, side, side, 0, side]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category_id,
                    "iscrowd": 0,
                    "bbox": [0, 0, side, side],
                    "area": side**2,
                    "segmentation": corners,
                }
            )
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "kite"}]
    sizes = [{"id": i, "file_name": f"{i}.jpg", "width": 80, "height": 80} for i in images]
    path.write_text(json.dumps({"images": sizes, "annotations": annotations, "categories": categories}))


def test_it_prints_a_coverage_of_each_kind_of_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_squares(tmp_path / "instances_train.json", range(1, 9))
    write_squares(tmp_path / "instances_val.json", range(9, 13))
    words = ["coverage", str(tmp_path), "--repeats", "4", "--images", "10", "--seeds", "2"]
    monkeypatch.setattr("sys.argv", words)
    assert coverage_of_intervals.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *("class mean", "difference", "retention", "class mean, images alone")
    ]
    assert all(re.search(r": \d+\.\d % of \d$", line) for line in lines)
    monkeypatch.setattr("sys.argv", ["coverage", str(tmp_path / "none")])
    assert coverage_of_intervals.main() == 2
    assert capsys.readouterr().err.startswith("coverage: ")
