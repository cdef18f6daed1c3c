"""`deepmac holdout` on generated scenes: its files, that it goes on, its gate, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.evaluation.holdout_masks import CUTS, HIDDEN, read_holdout
from deepmac_distill.stages import holdout

TWO = ("--teachers", "recipe,grabcut")


@pytest.fixture(scope="module")
def held_out(deepmac, scenes_toml: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("holdout") / "run"
    return out, deepmac("holdout", "-c", scenes_toml, "--out", out, "--quick", *TWO)


def test_every_hidden_mask_is_drawn_by_every_teacher_that_saw_none(held_out) -> None:
    out, ended = held_out
    assert ended.code == 0, ended.err
    assert "hold-out: 2 trainings and" in ended.out and "quick: trainings had fewer steps" in ended.out
    masks = read_holdout(out / "holdout" / "masks.parquet")
    document = json.loads((out / "scenes-train" / "instances.json").read_text())
    hidden = {name for fold in masks.record.folds for name in fold}
    names = {one["id"]: one["name"] for one in document["categories"]}
    drawn = {one["id"] for one in document["annotations"] if names[one["category_id"]] in hidden}
    assert masks.teachers == ("recipe", "grabcut") and masks.record.quick
    for teacher in masks.teachers:
        rows = masks.of(teacher, HIDDEN)
        assert set(rows["annotation_id"].to_pylist()) == drawn and len(rows) == len(drawn)
    rows = masks.of("recipe")
    at_half = np.array(rows["cut_ious"].to_pylist())[:, CUTS.index(0.5)]
    assert at_half.max() <= 1 and rows["iou"].equals(rows["iou_at_rule"])
    assert rows["expected_iou"].null_count == 0
    assert masks.of("grabcut")["expected_iou"].null_count == len(drawn)  # its grids are no probabilities
    whole = Dataset.open(out / "scenes-train" / "instances.json", seen=tuple(hidden)).for_training()
    assert masks.record.training_sha256 == whole.fingerprint != masks.record.data_sha256
    card = json.loads((out / "holdout-folds/2-quick/recipe-fold-0/config.json").read_text())
    assert set(card["data"]["hide"]) == set(masks.record.folds[0])
    assert card["teacher"]["train"]["steps"] == 3 and not card["data"]["val_annotations"]
    assert not (out / "validation_readings.jsonl").exists() and not (out / "scenes-val").exists()


def test_it_is_done_once_and_run_stops_at_the_gate(held_out, deepmac) -> None:
    out, _ = held_out
    before = (out / "holdout" / "masks.parquet").stat().st_mtime_ns
    again = deepmac("holdout", "--out", out)
    assert again.code == 0 and "holdout: done before, skipped" in again.err
    assert (out / "holdout" / "masks.parquet").stat().st_mtime_ns == before
    ended = deepmac("run", out / "config.json", "--out", out, "--set", "holdout.min_expected_iou_unseen=0.99")
    assert ended.code == 3, ended.err
    assert "recipe: expected IoU of unseen classes: got" in ended.err and "at least 99.0" in ended.err
    assert not (out / "teacher").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "data.seen=bar,drop"), "hold-out: got 2 seen classes with masks, expected 4 or more"),
        (("--teachers", "sam9"), "holdout.teachers: sam9: teacher.segmenter: got 'sam9', expected one of"),
        (("--teachers", "recipe,recipe"), "holdout.teachers: got 'recipe', expected each name once"),
        (("--set", "holdout.folds=1"), "holdout.folds: got 1, expected 2 to 100"),
        (("--set", "holdout.arguments.sam={}"), "expected a name among teachers"),
        (("--teachers", "none/a.safetensors"), "none/a.safetensors"),
    ],
)
def test_bad_input_is_one_line(deepmac, scenes_toml: Path, tmp_path: Path, words, message: str) -> None:
    ended = deepmac("holdout", "-c", scenes_toml, "--out", tmp_path / "run", *words)
    assert ended.code == 2 and message in ended.err.splitlines()[-1]


def test_what_a_later_teacher_would_fail_on_is_refused_before_the_first_is_trained(
    chain, deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    weights = chain[0] / "teacher" / "weights.safetensors"
    with safe_open(weights, "pt") as file:
        tensors, card = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors[min(tensors)].view(-1)[0] = float("inf")
    save_file(tensors, broken := tmp_path / "broken.safetensors", card)
    other = tmp_path / "other.toml"
    init = f"[teacher.train]\ninit_from = '{tmp_path}/none.pth'"
    other.write_text(scenes_toml.read_text().replace("[teacher.train]", init))
    for named, message in ((broken, "is not finite"), (other, "none.pth: ")):
        ended = deepmac(
            *("holdout", "-c", scenes_toml, "--out", tmp_path / "run", "--teachers", f"recipe,late={named}")
        )
        assert ended.code == 2 and message in ended.err.splitlines()[-1], ended.err
        assert not list(tmp_path.rglob("run/**/teacher*"))


def test_a_hold_out_that_was_stopped_between_trials_goes_on(
    deepmac, scenes_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trials are done and no stage of the run itself is."""

    def stops(job: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(holdout, "teach", stops)
    out = tmp_path / "run"
    words = ("holdout", "-c", scenes_toml, "--out", out, "--quick", "--teachers", "grabcut,recipe")
    assert deepmac(*words).code == 130
    for again in (words, ("holdout", "--out", out)):
        ended = deepmac(*again)
        assert (ended.code, "holdout-masks: done before, skipped" in ended.err) == (130, True), ended.err


def test_trials_are_written_through_no_link(deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "environment.json").write_text("{}")
    (out / "holdout-folds").symlink_to(outside)
    ended = deepmac("holdout", "-c", scenes_toml, "--out", out, "--teachers", "grabcut")
    assert ended.code == 2 and "holdout-folds: is a link" in ended.err
    assert not list(outside.iterdir())
