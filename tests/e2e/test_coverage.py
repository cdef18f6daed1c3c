"""The measured coverage of intervals over seeds: that its command runs, on a few squares."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import coverage_of_ap
import coverage_of_intervals
import paired_ap
from deepmac_distill.evaluation.means import interval


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
    monkeypatch.setattr("sys.argv", [*words, "--json", str(tmp_path / "kept.json")])
    assert coverage_of_intervals.main() == 0
    printed, kept = capsys.readouterr().out, json.loads((tmp_path / "kept.json").read_text())
    assert printed == coverage_of_intervals.page(kept) + "\n" and "share of 4 experiments" in printed
    assert list(kept["coverage"]) == list(coverage_of_intervals.SCENARIOS)
    for row in kept["coverage"].values():
        assert list(row) == list(coverage_of_intervals.FIGURES)
        assert all(share is None or 0 <= share <= 1 for share in row.values())
    monkeypatch.setattr("sys.argv", ["coverage", str(tmp_path / "none")])
    assert coverage_of_intervals.main() == 2
    assert capsys.readouterr().err.startswith("coverage: ")


def test_a_pooled_spread_is_that_of_all_rows() -> None:
    """By hand: spreads of 0.1 and 0.3 over two seeds pool to the root of 0.05; images add nothing."""
    arms = [np.tile([0.5 - half, 0.5 + half], (4, 1)) for half in (0.05 * 2**0.5, 0.15 * 2**0.5)]
    own = interval(arms[1])
    found = coverage_of_intervals.pooled(own, arms)
    assert own.high - own.value == pytest.approx(12.7062 * 0.3 / 2**0.5, rel=1e-4)
    assert found.high - found.value == pytest.approx(4.30265 * 0.05**0.5 / 2**0.5, rel=1e-4)


def test_the_coverage_of_average_precision_has_a_row_for_each_way_to_count_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage_of_ap, "POPULATION", paired_ap.Size(80, 2, objects=4, detections=8))
    monkeypatch.setattr("sys.argv", ["coverage", "--repeats", "2", "--images", "60"])
    assert coverage_of_ap.main() == 0
    printed = capsys.readouterr().out
    assert [line.split(" | ")[0] for line in printed.splitlines()[2:4]] == ["| as often as drawn", "| once"]


def test_an_image_counts_as_often_as_it_was_drawn_or_once() -> None:
    ways = coverage_of_ap.experiment(30, np.random.default_rng(0))
    for draws in ways.values():
        assert draws[0].sum() == 30 and draws.shape[1] == coverage_of_ap.POPULATION.images
    assert (ways["as often as drawn"].sum(axis=1) == 30).all()
    assert (ways["once"][1:].sum(axis=1) < 30).all()


@pytest.mark.parametrize("by_hotcoco", [0, 2])
def test_the_cost_of_paired_intervals_is_measured(by_hotcoco: int) -> None:
    found = paired_ap.cost(paired_ap.Size(6, 3, objects=2, detections=5), by_hotcoco)
    assert found.cpu_seconds > 0 and found.hotcoco_resamples == by_hotcoco
    costs = {"six images": asdict(found)}
    page = paired_ap.page({"costs": costs, "environment": {"processor": "one"}})
    assert f"| six images | {found.cpu_seconds:.1f} | {found.peak_mib:,.0f} | – | – |" in page
