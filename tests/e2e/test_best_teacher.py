"""`labels.teacher`: the winner of the hold-out, or teachers by class, through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deepmac_distill.files import sha256_of_file
from deepmac_distill.labels.label_file import Labels

SMALL_GRABCUT = "holdout.arguments.grabcut.input_size_px=64"
TWO = ("--teachers", "recipe,grabcut", "--quick", "--set", SMALL_GRABCUT)
BEST = ("--set", "labels.teacher=best")


@pytest.fixture(scope="module")
def tried(deepmac, scenes_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a hold-out alone."""
    out = tmp_path_factory.mktemp("best") / "run"
    assert deepmac("holdout", "-c", scenes_toml, "--out", out, *TWO).code == 0
    return out


@pytest.fixture
def run(tried: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tried, tmp_path / "run"))


def names_in(run: Path) -> set[str | None]:
    return set(Labels.open(run / "pseudolabel" / "masks.parquet").table["teacher"].to_pylist())


def test_the_winner_labels_and_the_chain_leaves_out_a_training_that_nobody_needs(deepmac, run: Path) -> None:
    winner = json.loads((run / "holdout" / "summary.json").read_text())["winner"]
    ended = deepmac("run", run / "config.json", "--out", run, *BEST)
    assert ended.code == 0, ended.err
    assert f"labels.teacher = 'best': {winner} won the hold-out" in ended.err
    assert names_in(run) == {winner, None}
    assert (run / "teacher").exists() == (winner == "recipe")
    kept = json.loads((run / "config.json").read_text())
    assert kept["labels"]["teacher"] == "best" and not kept["teacher"]["segmenter"]  # its own, not the winner
    labels = Labels.open(run / "pseudolabel" / "masks.parquet")
    drawn = labels.teachers[winner]["masks"]
    rows = labels.table.to_pylist()
    assert sum(drawn.values()) == sum(row["teacher"] == winner for row in rows) > 0
    again = deepmac("run", "--out", run, run / "config.json")
    assert again.code == 0 and "pseudolabel: done before, skipped" in again.err
    status = deepmac("status", run)
    assert status.code == 0 and "not begun" not in status.out and "holdout" in status.out
    exported = run / "x.json"
    assert deepmac("export", run, "-f", "coco-rle", "--out", exported).code == 0
    found = json.loads(exported.read_text())["annotations"]
    assert {one["attributes"].get("teacher") for one in found} == {winner, None}
    assert (
        deepmac(
            "predict",
            sorted((run / "scenes-val" / "images").iterdir())[0],
            "--box",
            "4,4,30,30",
            "--model",
            run,
            "--out",
            run.parent / "p",
        ).code
        == 0
    )


def test_teachers_by_class_draw_in_their_own_classes_alone(deepmac, chain, run_copy) -> None:
    run = run_copy("pseudolabel", "select", "student", "evaluate-*", "report")
    of_runs = Labels.open(chain[0] / "pseudolabel" / "masks.parquet").table.to_pylist()
    unseen = sorted({row["category_name"] for row in of_runs if row["source"] == "teacher"})
    assert len(unseen) > 1
    by_class = f"labels.teacher_by_class.{unseen[0]}=grabcut"
    key = ("--set", "holdout.teachers=recipe,grabcut", "--set", SMALL_GRABCUT, "--set", by_class)
    ended = deepmac("pseudolabel", "--out", run, *key)
    assert ended.code == 0, ended.err
    assert "grabcut drew " in ended.err
    rows = Labels.open(run / "pseudolabel" / "masks.parquet").table.to_pylist()
    for row, before in zip(rows, of_runs, strict=True):
        name = "grabcut" if row["category_name"] == unseen[0] else "recipe"
        assert row["teacher"] == (name if row["source"] == "teacher" else None)
        if row["category_name"] != unseen[0]:
            assert row == before  # bit by bit what the recipe's own teacher drew
    ended = deepmac("pseudolabel", "--out", run, "--set", "labels.teacher_by_class={}")
    assert ended.code == 2 and "pseudolabel was made with grabcut: " in ended.err.splitlines()[-1]
    whole = (run / "pseudolabel" / "masks.parquet").read_bytes()
    shutil.rmtree(run / "pseudolabel")
    for shard in ("0/2", "1/2"):
        assert deepmac("pseudolabel", "--out", run, *key, "--shard", shard).code == 0
    assert deepmac("assemble", "--out", run, *key).code == 0
    assert (run / "pseudolabel" / "masks.parquet").read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("labels.teacher=best",), "labels.teacher = 'best': no hold-out there; expected `deepmac holdout`"),
        (("labels.teacher=sam9",), "labels.teacher: got 'sam9', expected best, or one of recipe, starter"),
        (("labels.teacher_by_class.bar=x",), "labels.teacher_by_class.bar: got 'x', expected one of recipe"),
        (("labels.teacher_by_class.cow=grabcut",), "labels.teacher_by_class.cow: no such class in "),
        (("holdout.teachers=best=grabcut",), "holdout.teachers: got 'best', expected another name"),
        (
            ("holdout.teachers=recipe=grabcut",),
            "holdout.teachers: got 'recipe=grabcut', expected another name",
        ),
        (("holdout.teachers=m=gone.safetensors", "labels.teacher=m"), "gone.safetensors"),
        (
            ("holdout.teachers=recipe,m=demo", "labels.teacher_by_class.bar=m"),
            "labels: recipe and m would have to be trained; expected one such teacher in a run",
        ),
    ],
)
def test_who_cannot_label_is_one_line(
    run_copy: Callable[..., Path], deepmac, words: tuple[str, ...], message: str
) -> None:
    run = run_copy("pseudolabel", "select", "student", "evaluate-*", "report")
    ended = deepmac("pseudolabel", "--out", run, *(part for word in words for part in ("--set", word)))
    assert ended.code == 2 and message in ended.err.splitlines()[-1] and "Traceback" not in ended.err
    assert not (run / "pseudolabel").exists()


@pytest.mark.parametrize(
    ("winner", "words", "message"),
    [
        (
            "recipe",
            ("teach", "--set", "teacher.train.steps=99"),
            "is of another recipe than labels here (its",
        ),
        (
            "recipe",
            ("teach", "--annotations", "OTHER", "--images", "IMAGES"),
            "is of other masks or boxes than",
        ),
        (
            "grabcut",
            ("pseudolabel", "--look", "mirror=true"),
            "--look: is how the pipeline's own teacher looks",
        ),
        ("x=grabcut", ("pseudolabel",), "summary.json: winner: got 'x=grabcut', expected one of "),
    ],
)
def test_a_hold_out_of_something_else_is_refused(
    deepmac, run: Path, winner: str, words, message: str
) -> None:
    summary = json.loads((run / "holdout" / "summary.json").read_text())
    force_winner(run, summary | {"winner": winner})
    document = json.loads((run / "scenes-train" / "instances.json").read_text())
    document["annotations"] = document["annotations"][1:]
    other = run.parent / "other.json"
    other.write_text(json.dumps(document))
    paths = {"OTHER": other, "IMAGES": run / "scenes-train" / "images"}
    ended = deepmac(*(paths.get(word, word) for word in words), "--out", run, *BEST)
    assert ended.code == 2 and message in ended.err.splitlines()[-1], ended.err


def test_a_tie_goes_to_the_cheaper_and_is_named(deepmac, run: Path) -> None:
    summary = json.loads((run / "holdout" / "summary.json").read_text())
    force_winner(run, summary | {"winner": "grabcut", "tied": ["recipe", "grabcut"]})
    ended = deepmac("pseudolabel", "--out", run, *BEST)
    assert ended.code == 0, ended.err
    assert "'best': grabcut won the hold-out, tied with recipe and the cheaper one" in ended.err
    assert names_in(run) == {"grabcut", None}


def test_without_a_winner_there_is_nobody_to_label(deepmac, run: Path) -> None:
    summary = json.loads((run / "holdout" / "summary.json").read_text())
    force_winner(run, summary | {"winner": None, "tied": []})
    ended = deepmac("pseudolabel", "--out", run, *BEST)
    assert ended.code == 2 and "no winner: every teacher saw masks of the classes" in ended.err


def force_winner(run: Path, summary: dict[str, object]) -> None:
    """Another winner, as if the stage had written it."""
    path = run / "holdout" / "summary.json"
    path.write_text(json.dumps(summary))
    done = run / "holdout" / "done.json"
    record = json.loads(done.read_text())
    record["outputs"]["summary.json"] = sha256_of_file(path)
    done.write_text(json.dumps(record))
