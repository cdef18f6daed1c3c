"""What is kept of the paper's experiments, and the table of it: on the run of a tiny recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import paper as commands
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.experiments.paper_page import TableResult
from deepmac_distill.experiments.paper_runs import INSTANCES, KeptInstances, PaperRun, keep, kept_file
from deepmac_distill.stages.compare import read_ious

NAME = "deepmac-512-resnet-8"


@pytest.fixture
def kept(chain, tmp_path: Path) -> Path:
    """Two seeds of a row, of which the second is the first under another number."""
    results = tmp_path / "results"
    for seed in (0, 1):
        keep(chain[0], results, NAME, "small", seed, "make figure-3")
    second = kept_file(results, NAME, 1)
    run = json.loads(second.read_text())
    run["record"]["seed"] = 1
    second.write_text(json.dumps(run))
    return results


def test_a_row_is_shown_from_its_small_files(kept: Path, chain, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    given = ["show", "figure-3", "small", "--results", str(kept), "--heads", str(tmp_path / "no")]
    assert commands.main([*given, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "ResNet, depth 8" in said and "Not run: ResNet, depth 4" in said
    found = read_result(out / "figure-3.json", TableResult)
    (row,) = (row for row in found.rows if row.ours is not None)
    summary = json.loads((chain[0] / "evaluate-teacher" / "summary.json").read_text())
    assert row.ours is not None and row.ours.seeds == (0, 1)
    assert row.ours.figures["unseen"].value == summary["given_boxes"]["unseen"]["class_mean_iou"]["model"]
    assert row.ours.figures["unseen"].seeds_df == 1
    assert (out / "figure-3.svg").read_text().count("<circle") == 2
    assert "| ResNet, depth 8 |" in (out / "figure-3.md").read_text()


def test_a_kept_file_is_small_and_holds_what_decides(kept: Path) -> None:
    path = kept_file(kept, NAME, 0)
    assert path.stat().st_size < 100_000
    run = read_result(path, PaperRun)
    assert run.training == NAME and run.keys["labels.cut"] is not None
    assert not any(key.startswith(("data.root", "student.")) for key in run.keys)


def test_an_iou_an_instance_is_kept_once_for_all_rows(kept: Path, chain) -> None:
    instances, run = (
        read_result(kept / INSTANCES, KeptInstances),
        read_result(kept_file(kept, NAME, 0), PaperRun),
    )
    ious = read_ious(chain[0] / "evaluate-teacher").sort_by("row")
    assert instances.category_id == tuple(ious["category_id"].to_pylist())
    assert run.iou == pytest.approx(ious["iou"].to_pylist(), abs=1e-4) and run.loose_iou == ()
    fewer = json.loads((kept / INSTANCES).read_text())
    (kept / INSTANCES).write_text(json.dumps({name: ids[1:] for name, ids in fewer.items()}))
    with pytest.raises(RunError, match="other instances than those of this run"):
        keep(chain[0], kept, NAME, "small", 0, "make figure-3")


def test_seeds_of_another_recipe_or_other_data_are_refused(kept: Path, chain) -> None:
    path = kept_file(kept, NAME, 1)
    run = json.loads(path.read_text())
    path.write_text(json.dumps(run | {"keys": run["keys"] | {"teacher.train.lr": 7.0}}))
    with pytest.raises(RunError, match=r"made with teacher.train.lr = .*, seed 1 with 7.0"):
        keep(chain[0], kept, NAME, "small", 0, "make figure-3")
    path.write_text(json.dumps(run | {"truth": "0"}))
    with pytest.raises(RunError, match="evaluated on other data than seed 1"):
        keep(chain[0], kept, NAME, "small", 0, "make figure-3")


def test_a_run_without_an_evaluation_is_refused(run_copy, tmp_path: Path) -> None:
    run = run_copy("evaluate-*", "report")
    with pytest.raises(RunError, match="no evaluation of the teacher; expected one to keep"):
        keep(run, tmp_path, NAME, "small", 0, "make figure-3")
