"""The comparison of mask heads, whole trainings on scenes: what is trained, kept, skipped, and the tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import mask_heads
from deepmac_distill.config import load_pipeline, located
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.experiments import mask_head_costs, mask_head_rows
from deepmac_distill.experiments.mask_head_results import HeadRun
from deepmac_distill.experiments.mask_head_rows import GRABCUTS, HEADS, PAIRS, ROWS, values_of
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.card import read_card

TRAINED = ["hourglass-10", "hourglass-20"]


@pytest.fixture(scope="module")
def recipe(chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes of the chain as data on disk, and a tiny model on windows of them."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(
        f"""
        threads = 1
        device = "cpu"
        [data]
        train_annotations = "scenes-train/instances.json"
        train_images = "scenes-train/images"
        val_annotations = "scenes-val/instances.json"
        val_images = "scenes-val/images"
        seen = {list(SEEN_SHAPES)}
        [teacher.model]
        backbone = "tiny"
        backbone_width = 8
        head_channels = 8
        mask_width = 8
        mask_size = 8
        detection = false
        [teacher.look]
        boxes = "windows"
        window_size_px = 32
        [teacher.train]
        views = "windows"
        steps = 3
        batch_size = 4
        image_size_px = 32
        [evaluation]
        bootstrap = 5
        gt_boxes_only = true
        """
    )
    return path


def train(recipe: Path, folder: Path, *words: str, data: Path) -> int:
    given = ["train", "--recipe", recipe, "--data", data, "--out", folder / "runs"]
    return mask_heads.main([*map(str, given), "--results", str(folder / "results"), *words])


@pytest.fixture(scope="module")
def trained(recipe: Path, chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two heads with two seeds, and GrabCut. To be looked at: tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("heads")
    words = ("--seeds", "2", "--only", *TRAINED, *GRABCUTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mask_head_rows, "GRABCUT_PX", 64)  # of the scenes: quick, and some boxes are unanswered
        assert train(recipe, folder, *words, data=chain[0]) == 0
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def table(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert mask_heads.main(["table", "--results", str(folder / "results"), "--resamples", "20"]) == 0
    return capsys.readouterr().out


def test_every_row_and_seed_is_a_run_of_the_chain_with_its_own_mask_head(trained: Path) -> None:
    for row in TRAINED:
        runs = [trained / "runs" / row / f"seed-{seed}" for seed in range(2)]
        assert all((run / "evaluate-teacher" / "summary.json").exists() for run in runs)
        card = read_card(runs[0] / "teacher" / "weights.safetensors")
        assert (card.model["mask_head"], card.look.boxes) == (row, "windows")
        weights = [(run / "teacher" / "weights.safetensors").read_bytes() for run in runs]
        assert weights[0] != weights[1]  # another seed learned otherwise
    assert [path.name for path in (trained / "runs" / "grabcut").iterdir()] == ["seed-0"]


def test_grabcut_stands_there_with_the_box_where_it_has_no_answer(trained: Path) -> None:
    plain, backed = (read_result(trained / "results" / f"{row}-seed-0.json", HeadRun) for row in GRABCUTS)
    box = json.loads((trained / "results" / "instances.json").read_text())["box"]
    assert plain.training_loss is None and plain.seconds.keys() == {"evaluate-teacher"}
    for without, with_box, of_box in zip(plain.iou, backed.iou, box, strict=True):
        assert with_box == without or (without == 0 and with_box == pytest.approx(of_box, abs=0.05))
    assert 0 in plain.iou and 0 not in backed.iou
    fallbacks = [run.recipe["teacher.arguments"]["fallback"] for run in (plain, backed)]
    assert fallbacks == ["none", "box"]


def test_the_small_file_of_a_run_has_its_evaluation(trained: Path) -> None:
    run = trained / "runs" / "hourglass-10" / "seed-1"
    kept = read_result(trained / "results" / "hourglass-10-seed-1.json", HeadRun)
    ious = pq.read_table(run / "evaluate-teacher" / "ious.parquet").sort_by("row")
    assert kept.iou == pytest.approx(ious["iou"].to_pylist(), abs=1e-4)
    assert kept.boundary_iou == pytest.approx(ious["boundary_iou"].to_pylist(), abs=1e-4)
    assert (kept.seed, kept.recipe["teacher.model.mask_head"]) == (1, "hourglass-10")
    assert kept.seconds.keys() == {"teacher", "evaluate-teacher"} and kept.training_loss > 0
    shared = json.loads((trained / "results" / "instances.json").read_text())
    assert shared["box"] == pytest.approx(ious["box_baseline_iou"].to_pylist(), abs=1e-4)
    assert shared["image_id"] == ious["image_id"].to_pylist()


def test_what_is_there_is_not_trained_again(copied: Path, recipe: Path, chain, capsys) -> None:
    """Not even where its run is gone: the small file is what counts."""
    shutil.rmtree(copied / "runs" / "hourglass-20")
    before = (copied / "results" / "hourglass-20-seed-0.json").stat().st_mtime_ns
    assert train(recipe, copied, "--seeds", "1", "--only", "hourglass-20", data=chain[0]) == 0
    assert "hourglass-20-seed-0.json: done before, skipped" in capsys.readouterr().err
    assert (copied / "results" / "hourglass-20-seed-0.json").stat().st_mtime_ns == before
    assert not (copied / "runs" / "hourglass-20").exists()


def test_a_run_that_was_stopped_before_its_file_goes_on(copied: Path, recipe: Path, chain, capsys) -> None:
    file = copied / "results" / "hourglass-10-seed-1.json"
    before = file.read_bytes()
    file.unlink()
    assert train(recipe, copied, "--seeds", "2", "--only", "hourglass-10", data=chain[0]) == 0
    assert "teacher: done before, skipped" in capsys.readouterr().err and file.read_bytes() == before


def test_the_table_says_what_is_missing(trained: Path, copied: Path, capsys) -> None:
    printed = table(trained, capsys)
    assert all(f"| {name} | " in printed for name in (*TRAINED, *GRABCUTS, "ellipse", "box"))
    assert "| hourglass-20 − hourglass-10 | 2 | " in printed
    assert "–, +3.1, – (table 3) | the paper prints none |" in printed
    assert (
        "image sampling and of the row's or pair's own seeds" in printed
        and "3 steps of 4 windows of 32 px" in printed
    )
    missing = printed.split("Not there yet: ")[1]
    assert "hourglass-10 (seed 2)" in missing and "resnet-4 (seeds 0, 1, 2)" in missing
    for path in (copied / "results").glob("*-seed-1.json"):
        path.unlink()
    assert "image sampling only, and show no difference of heads" in table(copied, capsys)
    (copied / "results" / "hourglass-10-seed-0.json").unlink()
    assert "hourglass-20 − hourglass-10" not in table(copied, capsys)


def test_costs_of_every_head_join_the_table(copied: Path, recipe: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(mask_head_costs, "COST_CROPS", 4)
    monkeypatch.setattr(mask_head_costs, "COST_ROUNDS", 1)
    given = ["costs", "--recipe", str(recipe), "--results", str(copied / "results")]
    assert mask_heads.main(given) == 2
    assert "mask_size: got 8, expected a multiple of 32 for hourglass-52" in capsys.readouterr().err
    assert mask_heads.main([*given, "--set", "teacher.model.mask_size=32"]) == 0
    costs = json.loads((copied / "results" / "costs.json").read_text())["costs"]
    assert costs.keys() == set(HEADS)
    assert costs["hourglass-20-no-encoder-decoder"]["gmacs"] > 2 * costs["hourglass-20"]["gmacs"]
    assert all(min(cost["forward_ms"], cost["training_ms"]) > 0 for cost in costs.values())
    assert f"{costs['hourglass-10']['parameters']:,}" in table(copied, capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "resnet-5"], f"row: got 'resnet-5', expected one of {', '.join(ROWS)}"),
        (["--set", "teacher.train.stepz=4"], "teacher.train.stepz: unknown key; did you mean steps?"),
        (
            ["--set", "teacher.train.steps=4"],
            "hourglass-10-seed-0.json: made with teacher.train.steps = 3, expected 4 as now",
        ),
        (
            ["--seeds", "3", "--set", f'data.seen=["{SEEN_SHAPES[0]}"]', "--only", "resnet-4"],
            "other annotations or seen classes than those of",
        ),
        (["--recipe", "mask_headz"], "mask_headz: no such pipeline file"),
        (["--only", "resnet-4", "--hidden"], "hidden classes: got none"),
        (["--only", "resnet-4", "--set", "data.val_annotations="], "data.val_annotations: got nothing"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    words: list[str], says: str, copied: Path, recipe: Path, chain, capsys
) -> None:
    only = [] if "--only" in words else ["--only", *TRAINED]
    assert train(recipe, copied, *words, *only, data=chain[0]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("mask_heads: ") and says in last


def test_a_table_of_nothing_or_of_two_recipes_is_refused(copied: Path, tmp_path: Path, capsys) -> None:
    assert mask_heads.main(["table", "--results", str(tmp_path / "none")]) == 2
    assert "no results there" in capsys.readouterr().err
    path = copied / "results" / "hourglass-20-seed-1.json"
    run = json.loads(path.read_text())
    for change, says in (
        ({"recipe": run["recipe"] | {"teacher.train.lr": 0.5}}, "made with teacher.train.lr = 0.5"),
        ({"truth": "another"}, "evaluated on other data than instances.json has"),
    ):
        path.write_text(json.dumps(run | change))
        assert mask_heads.main(["table", "--results", str(path.parent)]) == 2
        assert says in capsys.readouterr().err


def test_on_hidden_classes_no_validation_set_is_read(recipe: Path, chain, tmp_path: Path) -> None:
    hide = f'data.hide=["{SEEN_SHAPES[0]}"]'
    words = ("--seeds", "1", "--only", "hourglass-10", "--set", hide, "--hidden")
    assert train(recipe, tmp_path, *words, data=chain[0]) == 0
    run = tmp_path / "runs" / "hourglass-10" / "seed-0"
    assert (run / "evaluate-teacher-hidden").is_dir() and not (run / "evaluate-teacher").exists()
    assert not list(run.glob("*validation*"))


def test_the_recipe_of_the_comparison_builds_every_row() -> None:
    for row in ROWS:
        pipeline = load_pipeline(located(Path("mask_heads")), values=values_of(row))
        if row in HEADS:
            model = build_model(pipeline.teacher.model, 1, load_weights=False)
            assert model.get_submodule("mask_head") is not None and not pipeline.teacher.model.detection
        else:
            assert pipeline.teacher.segmenter == "grabcut"
    assert {head for pair in PAIRS for head in (pair.a, pair.b)} == set(HEADS)
