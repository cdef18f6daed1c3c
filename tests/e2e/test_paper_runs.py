"""What is kept of the paper's experiments, and the table of it: on the run of a tiny recipe."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import paper as commands
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.experiments import paper_checks
from deepmac_distill.experiments.paper_checks import (
    keys_of,
    recorded_rows,
    require_kept_data,
    require_kept_recipe,
)
from deepmac_distill.experiments.paper_kept import Kept
from deepmac_distill.experiments.paper_page import TableResult
from deepmac_distill.experiments.paper_plan import Runs, write_pipelines
from deepmac_distill.experiments.paper_runs import (
    INSTANCES,
    KeptInstances,
    PaperRun,
    different,
    keep,
    kept_file,
)
from deepmac_distill.experiments.paper_tables import table
from deepmac_distill.stages.compare import read_ious, read_record

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


def test_rows_of_another_recipe_are_not_skipped_as_done(kept: Path, tmp_path: Path) -> None:
    write_pipelines([NAME], runs := Runs(scale="small", data=Path("x"), out=tmp_path))
    with pytest.raises(RunError, match=r"made with \S+ = .*, asked for .*; expected one recipe for all rows"):
        require_kept_recipe([NAME], runs, kept)
    for seed in (0, 1):
        path = kept_file(kept, NAME, seed)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"keys": dict(keys_of(NAME, runs))}))
    require_kept_recipe([NAME], runs, kept)
    require_kept_recipe(["deepmac-512-resnet-12"], runs, kept)  # nothing is kept
    row = next(row for row in table("figure-3").rows if row.training == NAME)
    assert Kept(kept, tmp_path).changed(row, "small") == ""
    for other in (replace(runs, tenth=True), replace(runs, overrides=("teacher.train.lr=7",))):
        with pytest.raises(RunError, match=r"made with teacher\.train"):
            require_kept_recipe([NAME], other, kept)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"keys": dict(keys_of(NAME, other))}))
        assert Kept(kept, tmp_path).changed(row, "small").startswith("ResNet, depth 8: teacher.train.")
    path.rename(kept_file(kept, NAME, 0))
    words = Kept(kept, tmp_path).changed(row, "small")
    assert words == "ResNet, depth 8: teacher.train.lr = 7.0 in place of 0.001"


def test_recorded_rows_are_trained_for_other_data_and_other_recipes(
    coco_like: Path, chain, capsys, tmp_path, monkeypatch
) -> None:
    begun: list[list[str]] = []

    def done(words: list[str]) -> int:
        begun.append(words)
        return 0

    def kept_whole(run, results, training, scale, seed, command) -> Path:
        return keep(chain[0], results, training, scale, seed, command)

    monkeypatch.setattr(commands, "_call", done)
    monkeypatch.setattr(commands, "keep", kept_whole)
    out, results = tmp_path / "out", tmp_path / "results"
    given = ["run", "table-4", "small", "--data", str(coco_like), "--out", str(out)]
    assert commands.main(given) == 2  # among the rows of the package
    assert "--results FOLDER" in capsys.readouterr().err and begun == []
    rows = [row.training for row in table("table-4").rows]
    for more in (["--steps", "20"], ["--tenth", "--results", str(tmp_path / "tenth")]):
        assert commands.main([*given, *more, "--seeds", "1"]) == 0
        assert [words[0] for words in begun] == ["teach", "evaluate"] * len(rows) and not results.exists()
        begun.clear()
    assert commands.main([*given, "--results", str(results), "--seeds", "1"]) == 0
    assert len(begun) == 2 * len(rows) and len(list(results.glob("*-seed-0.json"))) == len(rows)
    said = capsys.readouterr().out
    assert "not trained again" not in said
    found = read_result(out / "table-4.json", TableResult)
    assert [row.ours and row.ours.seeds for row in found.rows] == [(0,)] * len(rows)
    other = read_result(commands.RESULTS / "paper" / INSTANCES, KeptInstances)
    assert len(read_result(results / INSTANCES, KeptInstances).image_id) < len(other.image_id)
    beside, of = Kept(results, commands.RESULTS / "mask_heads"), table("table-8")
    assert beside.found_of(of, of.rows[1], "small") is None  # recorded on the other data


def test_rows_of_the_data_that_was_recorded_are_taken_over(coco_like: Path, tmp_path, monkeypatch) -> None:
    runs, rows = Runs(scale="small", data=coco_like, out=tmp_path), table("table-4").rows
    kept = Kept(tmp_path / "results", commands.RESULTS / "mask_heads")
    assert recorded_rows(rows, runs, kept) == []
    monkeypatch.setattr(paper_checks, "_is_of", lambda data, classes, truth: True)
    assert recorded_rows(rows, runs, kept) == list(rows)
    for other in (replace(runs, steps=20), replace(runs, tenth=True), replace(runs, scale="coco")):
        assert recorded_rows(rows, other, kept) == []
    assert recorded_rows(rows, replace(runs, overrides=("threads=1",)), kept) == list(rows)
    assert recorded_rows(rows, replace(runs, overrides=("teacher.train.lr=1",)), kept) == []


def test_a_folder_that_lacks_a_file_is_refused_before_anything_starts(capsys, tmp_path: Path) -> None:
    assert commands.main(["run", "table-5", "small", "--data", str(tmp_path / "gone")]) == 2
    assert "gone: images, instances_train.json" in capsys.readouterr().err


def test_kept_rows_are_not_skipped_as_an_answer_for_other_data(
    coco_like: Path, capsys, tmp_path: Path
) -> None:
    """Neither the row itself nor another one whose folder holds it."""
    (kept := tmp_path / "kept").mkdir()
    shutil.copy(commands.RESULTS / "paper" / "one-class-bottle-seed-0.json", kept)
    for row in ("bottle", "dining table"):
        given = ["run", "appendix-c", "small", "--data", str(coco_like), "--out", str(tmp_path / "out")]
        assert commands.main([*given, "--only", row, "--results", str(kept)]) == 2
        said = capsys.readouterr()
        assert "instances_val.json: other data than" in said.err and said.err.count("\n") == 1
        assert "done before" not in said.out and not list((tmp_path / "out").rglob("seed-0"))
    runs = Runs(scale="small", data=coco_like, out=tmp_path)
    require_kept_data(["one-class-bottle"], runs, tmp_path)  # nothing is kept


def test_kept_rows_of_the_data_that_is_given_are_taken(kept: Path, coco_like: Path, tmp_path: Path) -> None:
    runs = Runs(scale="small", data=coco_like, out=tmp_path)
    require_kept_data([NAME], runs, kept)
    document = json.loads((coco_like / "instances_val.json").read_text())
    document["annotations"].pop()
    (coco_like / "instances_val.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match="other data than"):
        require_kept_data([NAME], runs, kept)


def test_weights_that_a_row_starts_from_are_part_of_its_recipe(tmp_path: Path) -> None:
    name = "deepmac-1024-from-detector"
    keys = []
    for content in (b"one", b"another"):
        (tmp_path / "detector.safetensors").write_bytes(content)
        start = str(tmp_path / "detector.safetensors")
        write_pipelines([name], runs := Runs(scale="small", data=Path("x"), out=tmp_path, start=start))
        keys.append(keys_of(name, runs))
    assert [key for key, *_ in different(*keys)] == ["teacher.train.init_from"]
    write_pipelines([NAME], runs)
    assert "teacher.train.init_from" not in keys_of(NAME, runs)  # of a row that starts from none


def test_a_validation_file_of_no_use_is_refused_before_a_training(coco_like: Path, tmp_path, capsys) -> None:
    given = ["run", "table-6", "small", "--data", str(coco_like), "--out", str(tmp_path / "out")]
    given += ["--only", "10 convolutions dilated"]
    for content, says in (
        ("{}", "images: got null"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}', "no images"),
    ):
        (coco_like / "instances_val.json").write_text(content)
        assert commands.main(given) == 2
        said = capsys.readouterr()
        assert f"instances_val.json: {says}" in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def coco_like(chain, tmp_path: Path) -> Path:
    """A folder in the layout of the sample, with the validation set of the tiny recipe."""
    folder = tmp_path / "sample"
    (folder / "images").mkdir(parents=True)
    record = read_record(chain[0] / "evaluate-teacher")
    for name in ("instances_train.json", "instances_val.json"):
        shutil.copy(record.annotations, folder / name)
    return folder


def test_rows_of_a_tenth_are_kept_apart(tmp_path: Path) -> None:
    asked = commands.parsed(["run", "table-6", "small", "--tenth", "--out", str(tmp_path)])
    assert commands._results(asked) == tmp_path / "results"
    shown = commands.parsed(["show", "table-6", "small", "--tenth", "--out", str(tmp_path)])
    assert commands._results(shown) == commands._results(asked)
    asked = commands.parsed(
        ["run", "table-6", "small", "--out", str(tmp_path), "--set", "teacher.train.lr=1"]
    )
    assert commands._results(asked) == tmp_path / "results"
    asked = commands.parsed(["run", "table-6", "small", "--out", str(tmp_path), "--set", "threads=1"])
    assert commands._results(asked) == commands.RESULTS / "paper"


def test_recorded_rows_are_no_tenth(tmp_path: Path, capsys) -> None:
    assert commands.main(["show", "table-4", "small", "--tenth", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Not run: ResNet-4; Hourglass-20; Hourglass-52" in said and "480 steps" not in said


def test_weights_to_start_from_that_are_not_there_are_refused_first(
    coco_like: Path, tmp_path: Path, capsys
) -> None:
    given = ["run", "table-8", "small", "--data", str(coco_like), "--out", str(tmp_path / "out")]
    assert commands.main([*given, "--start", "gone.safetensors"]) == 2
    assert "start: got gone.safetensors, expected a file of weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_an_evaluation_is_refused(run_copy, tmp_path: Path) -> None:
    run = run_copy("evaluate-*", "report")
    with pytest.raises(RunError, match="no evaluation of the teacher; expected one to keep"):
        keep(run, tmp_path, NAME, "small", 0, "make figure-3")
