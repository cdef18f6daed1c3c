"""Results as a reader meets them: tables on a narrow terminal, broken files, splits that are empty."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import results
import sizes
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.results import from_json, read_result, to_json
from deepmac_distill.experiments.appendix_b_table import AppendixB
from deepmac_distill.experiments.run_record import RunRecord
from deepmac_distill.report.table import percent

NUMBER = re.compile(r"[+-]?\d+\.\d")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def assert_refused(ended: Any, says: str) -> None:
    assert ended.code == 2 and ended.out == ""
    assert ended.err.startswith("deepmac: ") and says in ended.err and len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("columns", [80, 60])
def test_tables_are_whole_on_a_narrow_terminal(chain, deepmac, monkeypatch, columns: int) -> None:
    folders = [chain[0] / "evaluate-student", chain[0] / "evaluate-teacher"]
    for words in (("compare", *folders), ("evaluate", "student", "--per-class", "--out", chain[0])):
        monkeypatch.delenv("COLUMNS", raising=False)
        wide = deepmac(*words)
        monkeypatch.setenv("COLUMNS", str(columns))
        narrow = deepmac(*words)
        tables = [line for line in narrow.out.splitlines() if str(chain[0]) not in line]
        assert max(map(len, tables)) <= columns and "…" not in narrow.out
        assert sorted(NUMBER.findall(narrow.out)) == sorted(NUMBER.findall(wide.out))


@pytest.fixture
def evaluation(run_copy: Callable[..., Path]) -> Path:
    return run_copy() / "evaluate-teacher"


@pytest.mark.parametrize("name", ["ious.parquet", "detections.json", "summary.json"])
def test_figures_that_were_changed_are_refused(evaluation: Path, deepmac, name: str) -> None:
    content = (evaluation / name).read_bytes()
    changed = (
        content.replace(b"0", b"1", 3) if name != "ious.parquet" else _one_iou_changed(evaluation / name)
    )
    (evaluation / name).write_bytes(changed)
    other = evaluation.parent / "evaluate-student"
    words = ("results", evaluation.parent) if name == "summary.json" else ("compare", evaluation, other)
    assert_refused(deepmac(*words), f"{name}: was changed since the stage was done; expected it untouched")


def _one_iou_changed(path: Path) -> bytes:
    table = pq.read_table(path)
    ious = table["iou"].to_pylist()
    column = pa.array([1.0 - ious[0], *ious[1:]])
    pq.write_table(table.set_column(table.column_names.index("iou"), "iou", column), path)
    return path.read_bytes()


def test_files_of_an_evaluation_that_are_broken_are_named(evaluation: Path, deepmac) -> None:
    other = evaluation.parent / "evaluate-student"
    for name, text, says in (
        ("evaluation.json", "{", "evaluation.json: not JSON"),
        ("evaluation.json", "{}", "evaluation.json: Object missing required field `annotations`"),
        ("ious.parquet", "PAR1", "ious.parquet: cannot be read"),
    ):
        before = (evaluation / name).read_bytes()
        (evaluation / name).write_text(text)
        assert_refused(deepmac("compare", evaluation, other), says)
        (evaluation / name).write_bytes(before)


def test_a_summary_of_something_else_is_refused(evaluation: Path, deepmac) -> None:
    (evaluation / "summary.json").write_text('{"arms": {}}')
    ended = deepmac("evaluate", "teacher", "--out", evaluation.parent)
    assert ended.code == 2 and ended.out == "" and "summary.json" in ended.err.splitlines()[-1]


@pytest.fixture
def own(chain, tmp_path) -> Callable[..., list[Any]]:
    """Words that evaluate the chain's teacher on its scenes with one more class, as other data."""

    def words(change: Callable[[dict], None], seen: str) -> list[Any]:
        scenes = chain[0] / "scenes-val"
        raw = read(scenes / "instances.json")
        raw["categories"].append({"id": 99, "name": "unicorn"})
        change(raw)
        (tmp_path / "val.json").write_text(json.dumps(raw))
        model = ["--model", chain[0] / "teacher" / "weights.safetensors"]
        given = ["--val-annotations", tmp_path / "val.json", "--val-images", scenes / "images"]
        given += ["--config", chain[0] / "config.toml", "--seen", seen, "--out", tmp_path / "run"]
        return ["evaluate", *model, *given, "--set", "evaluation.gt_boxes_only=true"]

    return words


def test_classes_that_the_model_saw_elsewhere_are_not_unseen(deepmac, own, tmp_path) -> None:
    ended = deepmac(*own(lambda raw: None, SEEN_SHAPES[0]))
    assert ended.code == 0, ended.err
    assert "shown elsewhere" in ended.out
    (folder,) = (tmp_path / "run").glob("evaluate-*")
    rows = read(folder / "summary.json")["per_class"]
    elsewhere = {row["name"] for row in rows if row["shown_elsewhere"]}
    assert elsewhere == set(SEEN_SHAPES[1:]) == set(read(folder / "evaluation.json")["shown_elsewhere"])
    given = read(folder / "summary.json")["given_boxes"]
    unseen = {row["name"] for row in rows} - set(SEEN_SHAPES) - {"unicorn"}
    assert given["unseen"]["classes"] == len(unseen) and given["shown_elsewhere"]["classes"] > 0
    compared = json.loads(deepmac("compare", folder, folder, "--json", "--resamples", "2").out)
    assert compared["given_boxes"]["shown_elsewhere"]["classes"] == given["shown_elsewhere"]["classes"]


def test_an_unseen_row_without_figures_is_explained(deepmac, own) -> None:
    def drop_unseen_masks(raw: dict) -> None:
        unseen = {c["id"] for c in raw["categories"] if c["name"] not in SEEN_SHAPES}
        for annotation in raw["annotations"]:
            if annotation["category_id"] in unseen:
                del annotation["segmentation"]

    ended = deepmac(*own(drop_unseen_masks, ",".join(SEEN_SHAPES)))
    assert ended.code == 0, ended.err
    assert "unseen: no figures: the validation set has no human masks of the unseen classes" in ended.out


def test_check_ends_with_a_row_for_each_class_whole_on_a_narrow_terminal(chain, deepmac, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    instances = chain[0] / "scenes-val" / "instances.json"
    ended = deepmac("check", instances, "--seen", ",".join(SEEN_SHAPES))
    assert ended.code == 0, ended.err
    table = ended.out.partition("Classes")[2]
    raw = read(instances)
    for category in raw["categories"]:
        boxes = sum(a["category_id"] == category["id"] for a in raw["annotations"])
        kind = "seen" if category["name"] in SEEN_SHAPES else "unseen"
        assert re.search(rf"{category['name']} +{kind} +{boxes}\b", table)
    assert max(map(len, table.splitlines())) <= 30 and "median" in table


def test_what_is_kept_of_a_run_is_what_its_files_say(chain, tmp_path: Path) -> None:
    run, out = chain[0], tmp_path / "kept.json"
    results.record(run, out, "make demo")
    kept, stated = read(out), read_result(out, RunRecord)
    assert (stated.command, stated.run) == ("make demo", f"runs/{run.name}")
    assert stated.seed == read(run / "config.json")["seed"]
    assert stated.seconds["teacher"] == read(run / "teacher" / "done.json")["seconds_since_last_start"]
    for name, file in (
        ("environment", "environment.json"),
        ("labels", "select/counts.json"),
        ("teacher", "evaluate-teacher/summary.json"),
        ("student", "evaluate-student/summary.json"),
    ):
        assert kept[name] == read(run / file)
    page = results.chain_table(kept)
    assert "`make demo`, seed " in page and page.count("| teacher |") == page.count("| student |") == 3
    by_size = sizes.page(kept)
    assert by_size.count("| teacher | unseen |") == by_size.count("| student | seen |") == 4
    unseen = stated.teacher.given_boxes.unseen.by_size.small
    assert f"| {percent(unseen.boundary.class_mean_iou.model)} |" in by_size.splitlines()[7]
    assert by_size.splitlines()[7].startswith(f"| teacher | unseen | small | {unseen.instances} |")


def without_later_keys(value: Any) -> Any:
    """Without what the version that recorded did not measure, which reads as its default."""
    later = {"how": None, "seeds_half": None, "seeds_df": 0, "named": {}}
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if key not in later or one != later[key]}
        return {key: without_later_keys(one) for key, one in kept.items()}
    return [without_later_keys(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("demo", RunRecord),
        ("coco_sample", RunRecord),
        ("coco_sample_mask_rcnn", RunRecord),
        ("appendix_b_small", AppendixB),
    ],
)
def test_recorded_figures_have_the_form_in_which_they_are_written(name: str, kind: type) -> None:
    recorded = read(results.RESULTS / f"{name}.json")
    written = json.loads(json.dumps(to_json(from_json(recorded, kind, name))))
    assert without_later_keys(written) == without_later_keys(recorded)
    del recorded["runs" if kind is AppendixB else "seed"]
    with pytest.raises(RunError, match=f"{name}: Object missing required field"):
        from_json(recorded, kind, name)
