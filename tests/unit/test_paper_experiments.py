"""The paper's experiments: what is trained for which row, by which protocol, with which commands."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

import paper as commands
from deepmac_distill import paper
from deepmac_distill.config import FOLDER, MaskRcnnConfig, Pipeline, flatten, load_pipeline
from deepmac_distill.errors import ConfigError, DataError
from deepmac_distill.evaluation.results import Interval
from deepmac_distill.experiments import paper_costs
from deepmac_distill.experiments.mask_head_rows import ROWS, values_of
from deepmac_distill.experiments.paper_costs import cost_of, forward_flop, masks_per_image
from deepmac_distill.experiments.paper_kept import Found, Kept
from deepmac_distill.experiments.paper_page import RowResult, TableResult, agreement, lines_of, result_of
from deepmac_distill.experiments.paper_plan import Runs, overrides_of, plan, require_data, to_train
from deepmac_distill.experiments.paper_plots import plots_of
from deepmac_distill.experiments.paper_tables import rows_of, table, tables
from deepmac_distill.experiments.paper_trainings import (
    SCALES,
    Scale,
    pipeline_of,
    pipeline_text,
    resolved,
    same_run,
    training,
    trainings,
)

ROOT = Path(__file__).parents[2]
# What the paper and its released configurations state: steps, images a step, rate, canvas.
PROTOCOLS = {
    "deepmac-512-hourglass-20": (50_000, 128, 1e-3, 512, "adam"),
    "deepmac-512-resnet101-hourglass-20": (140_000, 128, 1e-3, 512, "adam"),
    "deepmac-1024": (50_000, 128, 1e-3, 1024, "adam"),
    "mask-rcnn-resnet50-gt": (70_000, 64, 0.12, 1024, "sgd"),
    "deep-marc": (231_000, 256, 0.32, 1280, "sgd"),
}
# Warm-up, decays and scales of images as there; SpineNet's scale range is a deviation that its recipe names.
SCHEDULES = {
    "deepmac-512-hourglass-20": ("cosine", 5_000, (), (0.6, 1.3)),
    "deepmac-512-resnet101-hourglass-20": ("steps", 5_000, (90_000, 120_000), (0.6, 1.3)),
    "deepmac-1024": ("cosine", 5_000, (), (0.6, 1.3)),
    "mask-rcnn-resnet50-gt": ("steps", 500, (50_000, 65_000), (0.8, 1.25)),
    "deep-marc": ("steps", 2_000, (219_450, 226_380), (0.5, 2.0)),
}
# Of Mask R-CNN: mask head, its crop and channels, the boxes it trains on, anchors at a level.
MODELS = {
    "mask-rcnn-resnet50-gt": ("resnet50", "default-batch-norm", 14, 256, "gt", (1.0,)),
    "mask-rcnn-resnet50-proposals": ("resnet50", "default-batch-norm", 14, 256, "proposals+gt", (1.0,)),
    "mask-rcnn-resnet101-hourglass-20-gt": ("resnet101", "hourglass-20", 16, 64, "gt", (1.0,)),
    "mask-rcnn-resnet101-hourglass-52-gt": ("resnet101", "hourglass-52", 32, 64, "gt", (1.0,)),
    "deep-marc": ("spinenet-143", "hourglass-52", 32, 64, "gt", (1.0, 1.26, 1.587)),
}
ELSEWHERE = {"ShapeMask, ResNet-101-NAS-FPN"}  # there is no NAS-FPN here


def pipeline(name: str, scale: Scale, tmp_path: Path) -> Pipeline:
    path = tmp_path / f"{name}.toml"
    path.write_text(pipeline_text(name, scale))
    return load_pipeline(path)


@pytest.mark.parametrize("scale", SCALES)
def test_every_training_is_a_pipeline_file_of_its_own(scale: Scale, tmp_path: Path) -> None:
    for name in trainings():
        found = json.loads(json.dumps(flatten(pipeline(name, scale, tmp_path))))
        for key, value in resolved(name, scale).items():
            assert found[key] == value, (name, key)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_those_of_the_paper(name: str, tmp_path: Path) -> None:
    found = pipeline(name, "coco", tmp_path)
    train = found.teacher.train
    images = train.batch_size * train.gradient_accumulation_steps
    assert (train.steps, images, train.lr, train.image_size_px, train.optimizer) == PROTOCOLS[name]
    schedule = (train.schedule, train.warmup_steps, train.decay_steps, train.scale_range)
    assert schedule == SCHEDULES[name]
    assert found.data.seen == ("voc",) and found.labels.cut == 0.5
    if train.optimizer == "sgd":
        assert train.weight_decay == 4e-5 and train.momentum == 0.9


@pytest.mark.parametrize("name", MODELS)
def test_models_of_mask_rcnn_are_those_of_the_paper(name: str) -> None:
    model = pipeline_of(name, "coco").teacher.model
    assert isinstance(model, MaskRcnnConfig) and model.class_agnostic
    found = (model.backbone, model.mask_head, model.mask_crop, model.mask_channels, model.mask_boxes)
    assert (*found, model.anchor_scales) == MODELS[name]
    assert model.anchor_sizes == (32, 64, 128, 256, 512)
    assert (model.sampled_proposals, model.fpn_channels) == (512, 256)


def test_resnets_start_from_imagenet_and_hourglass_and_spinenet_from_scratch() -> None:
    for name in trainings():
        keys = resolved(name, "coco")
        if "teacher.segmenter" in keys:
            continue
        backbone, weights = keys["teacher.model.backbone"], keys["teacher.model.backbone_weights"]
        assert weights == ("imagenet" if backbone.startswith("resnet") else "none"), name


@pytest.mark.parametrize(
    ("name", "recipe", "role"),
    [
        ("deepmac-1024", "teacher_hg100", "teacher"),
        ("hourglass-52-backbone", "backbone_hg52_head_hg52", "teacher"),
        ("hourglass-104-backbone", "backbone_hg104_head_resnet4", "teacher"),
    ],
)
def test_a_training_that_has_a_recipe_too_is_that_recipe(
    name: str, recipe: str, role: str, tmp_path: Path
) -> None:
    ours, theirs = pipeline(name, "coco", tmp_path), load_pipeline(FOLDER / "paper" / f"{recipe}.toml")
    assert ours.teacher == getattr(theirs, role) and ours.data == theirs.data and ours.labels == theirs.labels


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("mask-rcnn-resnet50-gt", "student_mask_rcnn_r50"), ("deep-marc", "student_mask_rcnn_sn143")],
)
def test_mask_rcnn_trains_as_the_recipes_students(name: str, recipe: str, tmp_path: Path) -> None:
    student = load_pipeline(FOLDER / "paper" / f"{recipe}.toml").student
    assert pipeline(name, "coco", tmp_path).teacher.train == student.train


def test_every_row_that_the_paper_prints_is_a_row_of_a_command() -> None:
    targeted = {row.paper for one in tables().values() for row in one.rows}
    for where, models in paper.places().items():
        if where.startswith(("table 13", "appendix B")):  # benchmarks/appendix_b.py
            continue
        lacking = [name for name in models if (where, name) not in targeted]
        # A head that several places print stands in one of them with each row.
        assert set(lacking) <= ELSEWHERE, where


def test_recorded_rows_are_the_comparison_of_mask_heads() -> None:
    tree = tomllib.loads((FOLDER / "mask_heads.toml").read_text())
    assert tree["teacher"]["model"]["backbone"] == "tf_efficientnet_lite0"
    recorded = [row for one in tables().values() for row in one.rows if row.recorded]
    assert {row.recorded for row in recorded} <= set(ROWS) and len(recorded) > 15
    for row in recorded:
        keys = resolved(row.training, "small")
        for key, value in values_of(row.recorded).items():
            assert keys[key] == value, (row.label, key)


def test_figure_3_draws_four_families_and_appendix_c_every_voc_class() -> None:
    families = {row.family for row in table("figure-3").rows}
    assert len(families) == 4 and len(table("figure-3").rows) == 19
    assert sum(row.split == "non-voc" for row in table("appendix-c").rows) == 22


@pytest.mark.parametrize("scale", SCALES)
def test_rows_of_appendix_c_differ_in_the_classes_that_are_seen_alone(scale: Scale) -> None:
    apart = {"data.seen", "evaluation.splits"}
    rows = [row for row in table("appendix-c").rows if "1024" not in row.label]
    recipes = [
        {key: value for key, value in resolved(row.training, scale).items() if key not in apart}
        for row in rows
    ]
    assert not any(row.recorded for row in rows) and all(keys == recipes[0] for keys in recipes)
    assert same_run("one-class-chair-1024", "small") == "one-class-chair"
    whole = same_run("all-voc-classes", scale)
    assert whole == {"coco": "deepmac-512-hourglass-52", "small": "all-voc-classes"}[scale]
    if scale == "coco":
        large = resolved("one-class-chair-1024", "coco").items()
        assert {key for key, value in large if resolved("deepmac-1024", "coco").get(key) != value} == {
            *apart,
            "teacher.model.mask_head",
        }


def test_rows_share_trainings_and_what_is_the_same_is_trained_once() -> None:
    runs = Runs(scale="coco", data=Path("coco"), out=Path("runs"))
    assert len(to_train(table("table-2").rows, runs)) == 8
    small = Runs(scale="small", data=Path("sample"), out=Path("runs"))
    assert to_train(table("table-1").rows, small) == ["mask-rcnn-resnet50-proposals", "mask-rcnn-resnet50-gt"]
    rows = table("table-5").rows
    assert to_train(rows, small, recorded=rows) == [] and len(to_train(rows, small, recorded=rows[:1])) == 3
    assert [same_run(row.training, "small") for row in rows] == to_train(rows, small)
    assert same_run("hourglass-104-backbone", "coco") == "deepmac-512-resnet-4"  # table 7's is table 3's


def test_the_commands_of_a_row(tmp_path: Path) -> None:
    runs = Runs(scale="small", data=Path("sample"), out=tmp_path, steps=20)
    steps = list(plan(table("table-1"), ["mask-rcnn-resnet50-gt"], runs, seed=1))
    run = str(tmp_path / "mask-rcnn-resnet50-gt" / "seed-1")
    assert [words[0] for words in steps] == ["teach", "evaluate", "evaluate"]
    assert steps[0][3:] == [
        "--data",
        "sample",
        "--out",
        run,
        "--set",
        "seed=1",
        "--set",
        "teacher.train.steps=20",
    ]
    assert steps[2][2:] == ["--out", run, "--box-noise", "10"]


def test_a_row_that_starts_from_boxes_alone_comes_after_them() -> None:
    runs = Runs(scale="coco", data=Path("coco"), out=Path("runs"))
    names = to_train(rows_of(table("table-8"), ("deepmac-1024-from-boxes",)), runs)
    assert names == ["centernet-boxes", "deepmac-1024-from-boxes"]
    assert resolved("centernet-boxes", "coco")["teacher.model.mask_weight"] == 0.0
    teach = list(plan(table("table-8"), names, runs, seed=0))[2]
    assert teach[-1] == "teacher.train.init_from=runs/centernet-boxes/seed-0/teacher/weights.safetensors"


def test_grabcut_draws_the_masks_of_a_detector_that_is_trained_first() -> None:
    rows = rows_of(table("table-8"), ("grabcut",))
    runs = Runs(scale="coco", data=Path("coco"), out=Path("runs"))
    names = to_train(rows, runs)
    assert names == ["mask-rcnn-plain", "grabcut"]
    *_, alone, last = plan(table("table-8"), names, runs, seed=0)
    assert alone[:3] == ["evaluate", "teacher", "--config"]  # it learns nothing
    assert last[-2:] == ["--boxes-of", "runs/mask-rcnn-plain/seed-0/evaluate-teacher"]
    assert to_train(rows, Runs(scale="small", data=Path("x"), out=Path("runs"))) == ["grabcut"]


def test_a_tenth_trains_a_tenth_of_the_steps() -> None:
    runs = Runs(scale="coco", data=Path("coco"), out=Path("runs"), tenth=True)
    (teach, _) = plan(table("table-5"), ["deepmac-512-resnet-20"], runs, seed=0)
    scaled = ["teacher.train.steps=5000", "teacher.train.warmup_steps=500", "teacher.train.decay_steps=[]"]
    assert teach[-5::2] == scaled
    (teach, _) = plan(table("table-3"), ["deepmac-512-resnet101-resnet-4"], runs, seed=0)
    assert teach[-1] == "teacher.train.decay_steps=[9000, 12000]"


def test_costs_of_trainings() -> None:
    """Of a Deep-MAC, counted independently over whole passes."""
    cost = cost_of("hourglass-52-backbone")
    assert cost is not None and cost.flop / 1e18 == pytest.approx(5.5, rel=0.1)
    assert cost.days(8) == pytest.approx(cost.days(1) / 8) and cost_of("grabcut") is None


def test_table_13_and_appendix_b_have_costs(monkeypatch, capsys) -> None:
    monkeypatch.setattr(paper_costs, "forward_flop", lambda model, size_px: (10.0, 1.0))
    found = {one.name: one for one in paper_costs.appendix_b_costs("b2")}
    assert list(found) == [
        "teacher_hg100, teacher",
        "teacher_hg100, student",
        "student_mask_rcnn_r50, student",
        "student_mask_rcnn_sn143, student",
    ]
    drawn, every = (paper_costs.MASKS_PER_IMAGE[name] for name in ("voc", "all"))
    assert found["teacher_hg100, teacher"].flop == pytest.approx(50_000 * 128 * 3 * (10 + drawn))
    assert found["teacher_hg100, student"].flop == pytest.approx(50_000 * 128 * 3 * (10 + every))
    assert found["student_mask_rcnn_r50, student"].images == 70_000 * 64
    assert len(paper_costs.appendix_b_costs("b1")) == 1
    lvis = paper_costs.appendix_b_costs("b")[-2:]
    assert [one.name for one in lvis] == ["lvis_resnet4, teacher", "lvis_hg100, teacher"]
    assert lvis[0].flop == pytest.approx(50_000 * 128 * 3 * (10 + every))
    assert commands.main(["cost", "table-13"]) == 0
    assert "table-13: Students of a teacher's masks" in capsys.readouterr().out


def test_the_cost_of_mask_rcnn_is_what_torchvision_publishes() -> None:
    """It has the operations (products with a sum) of one image of 800 px with 1000 proposals and no mask."""
    model = pipeline_of("mask-rcnn-resnet50-gt", "coco").teacher.model
    assert isinstance(model, MaskRcnnConfig)
    bare = replace(model, backbone_weights="none", sampled_proposals=1000)
    of_image, of_mask = forward_flop(bare, 800)
    published = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["_ops"]
    assert of_image / 2 / 1e9 == pytest.approx(published, rel=0.002)
    convolutions, upsampling, predictor = 4 * 14**2 * 256 * 256 * 9, 28**2 * 256 * 256, 28**2 * 256
    assert of_mask / 2 == pytest.approx(convolutions + upsampling + predictor, rel=1e-3)


def test_masks_an_image_are_counted_in_a_file(tmp_path: Path, capsys, monkeypatch) -> None:
    mask = [[0, 0, 10, 0, 10, 10, 0, 10]]
    boxes = [(1, 1, mask), (1, 2, mask), (1, 2, mask), (2, 2, mask), (2, 1, None)]  # image, class, mask
    found = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "bear"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "bbox": [0, 0, 10, 10], "iscrowd": 0}
            | ({"segmentation": polygons, "area": 100} if polygons else {})
            for i, (image, category, polygons) in enumerate(boxes, start=1)
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(found))
    assert masks_per_image(path) == {"voc": 0.5, "non-voc": 1.5, "all": 2.0}
    assert commands.main(["cost", "table-7", "--annotations", str(path)]) == 0
    assert "Masks an image: 0.50 (voc), 1.50 (non-voc), 2.00 (all)" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert commands.main(["cost", "table-7", "--annotations", "gone.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    few, many = (cost_of("hourglass-52-backbone", {"voc": count}) for count in (1.0, 2.0))
    assert few is not None and many is not None and few.flop < many.flop


def test_a_start_that_saw_masks_is_run_only_where_the_user_names_it() -> None:
    rows, weights = table("table-8").rows, "detector.safetensors"
    runs = Runs(scale="coco", data=Path("coco"), out=Path("runs"))
    assert "deepmac-1024-from-detector" not in to_train(rows, runs)
    started = Runs(scale="coco", data=Path("coco"), out=Path("runs"), start=weights)
    assert "deepmac-1024-from-detector" in to_train(rows, started)
    (teach, _) = plan(table("table-8"), ["deepmac-1024-from-detector"], started, seed=0)
    assert teach[-1] == f"teacher.train.init_from={weights}"


def test_a_folder_that_lacks_a_file_is_refused_with_the_page_that_has_it(tmp_path: Path) -> None:
    runs = Runs(scale="coco", data=tmp_path, out=tmp_path)
    (tmp_path / "val2017").mkdir()
    lacking = r"instances_train2017\.json, annotations/instances_val2017\.json, train2017: not there; "
    archives = r"expected '2017 Train/Val annotations' and '2017 Train images' of .*cocodataset\.org"
    with pytest.raises(DataError, match=lacking + archives):
        require_data(table("table-5"), ["deepmac-512-resnet-20"], runs)
    for name in ("annotations", "train2017", "val2017"):
        (tmp_path / name).mkdir(exist_ok=True)
    for name in ("instances_train2017", "instances_val2017"):
        (tmp_path / "annotations" / f"{name}.json").touch()
    require_data(table("table-5"), ["deepmac-512-resnet-20"], runs)
    with pytest.raises(DataError, match=r"image_info_test-dev2017\.json, test2017: not there"):
        require_data(table("table-9"), ["deepmac-1024-all"], runs)
    with pytest.raises(ConfigError, match="data: got nothing, expected a folder"):
        require_data(table("table-5"), [], Runs(scale="coco", data=Path(), out=tmp_path))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "table-99", "small"], "table: got 'table-99', expected one of table-1"),
        (
            ["run", "table-6", "small", "--only", "no"],
            "table-6: row: got 'no', expected one of 0",
        ),
        (["run", "table-6", "small"], "table-6: data: got nothing"),
        (
            ["run", "table-6", "small", "--data", "no"],
            "no: images, instances_train.json, instances_val.json: not there; expected a folder as of make",
        ),
    ],
)
def test_what_cannot_be_run_is_one_line(
    arguments: list[str], says: str, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands.main(arguments) == 2
    said = capsys.readouterr()
    assert says in said.err and said.err.count("\n") == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["-1", "0", "x", "1.5", "²"])
def test_numbers_of_steps_and_seeds_are_from_one_on(number: str, capsys) -> None:
    for option in ("--steps", "--seeds"):
        with pytest.raises(SystemExit, match="2"):
            commands.parsed(["run", "table-6", "small", f"{option}={number}"])
        assert f"got {number}, expected a whole number from 1 on" in capsys.readouterr().err


def result(label: str, papers: float, ours: float, half: float, seeds_df: int = 2) -> RowResult:
    figure = Interval(ours, ours - half, ours + half, half if seeds_df else None, seeds_df)
    found = Found(seeds=(0, 1, 2), figures={"unseen": figure}, over_ellipse={}, per_class={})
    return RowResult(label=label, training=label, paper={"unseen": papers}, split="unseen", ours=found)


def test_agreement_counts_pairs_that_both_set_apart() -> None:
    words = agreement(
        [result("a", 30.0, 0.7, 0.01), result("b", 25.0, 0.6, 0.01), result("c", 20.0, 0.62, 0.2)], {}
    )
    assert (
        words.startswith("Of 3 pairs")
        and "order 1 in the same way and 0 in the other, each at 95 %; 2 not sep" in words
    )
    words = agreement([result("a", 30.0, 0.6, 0.01), result("b", 25.0, 0.7, 0.01)], {})
    assert "order 0 in the same way and 1 in the other, each at 95 %; 0 not separated. A true" in words
    words = agreement([result("a", 30.0, 0.7, 0.01, 0), result("b", 25.0, 0.6, 0.01)], {})
    assert "order 0 in the same way" in words and "1 of them since a row has one seed" in words
    assert agreement([result("a", 30.0, 0.6, 0.01), result("b", 29.5, 0.7, 0.01)], {}).startswith(
        "No two rows"
    )


def test_a_tenth_is_one_of_every_training_in_its_steps_and_in_what_is_scaled_with_them() -> None:
    for name in trainings():
        whole = pipeline_of(name, "coco").teacher
        if whole.segmenter:
            continue
        runs = Runs(scale="coco", data=Path("coco"), out=Path("runs"), tenth=True)
        words = dict(word.split("=", 1) for word in overrides_of(name, runs, seed=0))
        assert int(words["teacher.train.steps"]) == whole.train.steps // 10, name
        assert int(words["teacher.train.warmup_steps"]) == whole.train.warmup_steps // 10, name
        decays = json.loads(words["teacher.train.decay_steps"])
        assert decays == [step // 10 for step in whole.train.decay_steps], name


def test_rows_of_two_groups_are_not_compared() -> None:
    """Directions of table 8 are about other classes; backbones of table 3 start from other weights."""
    rows = [
        replace(result("a", 30.0, 0.7, 0.01), group="x"),
        replace(result("b", 25.0, 0.6, 0.01), group="y"),
    ]
    assert agreement(rows, {}).startswith("No two rows")
    for id, scale, groups in (("table-8", "coco", 2), ("table-3", "small", 2), ("table-3", "coco", 2)):
        of = table(id)
        found = result_of(of, of.rows, scale, Kept(Path("none"), Path("none")))
        assert len({row.group for row in found.rows}) == groups, (id, scale)


def test_rows_that_are_worse_than_an_ellipse_are_named() -> None:
    leads = {"bottle": 0.01, "bicycle": -0.2, "chair": -0.001, "car": -0.1}
    rows = []
    for row in table("appendix-c").rows:
        if row.label in leads:
            seeds_df = 0 if row.label == "car" else 2  # one seed shows nothing
            lead = Interval(
                leads[row.label], leads[row.label] - 0.005, leads[row.label] + 0.005, 0.004, seeds_df
            )
            ours = Found(seeds=(0,), figures={}, over_ellipse={"non-voc": lead}, per_class={})
            rows.append(replace(result(row.label, 1.0, 0.5, 0.1), split="non-voc", ours=ours))
    words = {"papers_measure": "AP", "our_measure": "IoU", "cut": "", "agreement": ""}
    found = TableResult(id="appendix-c", title="", scale="small", rows=tuple(rows), **words)
    said = " ".join(lines_of(found))
    assert "Worse than an ellipse that fills the box, on a row's unseen classes: bicycle." in said


def test_seeds_on_several_machines_are_named() -> None:
    one, other = result("a", 30.0, 0.7, 0.01), result("b", 25.0, 0.6, 0.01)
    words = {"id": "x", "title": "", "scale": "small", "papers_measure": "AP", "our_measure": "IoU"}

    def said(**machines: dict[str, tuple[int, ...]]) -> str:
        ours = [replace(row.ours, minutes=3.0, machines=machines[row.label]) for row in (one, other)]
        rows = [replace(row, ours=found) for row, found in zip((one, other), ours, strict=True)]
        return " ".join(lines_of(TableResult(**words, rows=tuple(rows), cut="", agreement="")))

    assert "evaluation: 3. All on CPU, torch 1." in said(a={"CPU, torch 1": (0, 1)}, b={"CPU, torch 1": (0,)})
    two = said(a={"CPU, torch 1": (0,), "GPU, torch 2": (1,)}, b={"CPU, torch 1": (0, 1)})
    assert "Seeds on CPU, torch 1: a 0; b 0, 1. Seeds on GPU, torch 2: a 1. So a pair of one seed" in two


def drawn(id: str, ours: dict[str, Found]) -> dict[str, str]:
    of = table(id)
    rows = tuple(
        RowResult(label=row.label, training=row.training, paper={}, split=row.split, ours=ours.get(row.label))
        for row in of.rows
    )
    words = {"papers_measure": "AP", "our_measure": "IoU", "cut": "", "agreement": ""}
    return plots_of(of, TableResult(id=id, title=of.title, scale="small", rows=rows, **words))


def test_figure_3_draws_a_line_a_family() -> None:
    figures = {"seen": Interval(0.7), "unseen": Interval(0.6)}
    some = [row.label for row in table("figure-3").rows if row.family in ("ResNet", "Hourglass")]
    one = Found(seeds=(0,), figures=figures, over_ellipse={}, per_class={})
    plots = drawn("figure-3", dict.fromkeys(some, one))
    root = ElementTree.fromstring(plots["figure-3.svg"])
    lines = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(lines) == 4 and len([one for one in root.iter() if one.tag.endswith("circle")]) == 2 * 9
    assert drawn("figure-3", {}) == {} and drawn("table-5", {}) == {}


def test_figure_5_draws_bars_and_clustered_ratios_of_at_most_one() -> None:
    def saw(bear: float, zebra: float, cake: float) -> Found:
        per_class = {"bear": bear, "zebra": zebra, "cake": cake, "cat": 0.9, "truck": None}
        return Found(seeds=(0,), figures={"non-voc": Interval(bear)}, over_ellipse={}, per_class=per_class)

    few = drawn("appendix-c", {"cat": saw(0.4, 0, 0), "all classes": saw(0.8, 0, 0)})
    bars = ElementTree.fromstring(few["figure-5a.svg"])
    assert len([one for one in bars.iter() if one.tag.endswith("rect") and one.get("fill") == "#1b6ca8"]) == 1
    dashed = [one for one in bars.iter() if one.get("stroke-dasharray")]
    assert len(dashed) == 1 and "all classes 80.0" in [one.text for one in bars.iter()]
    ours = {"cat": saw(0.4, 0.4, 0.1), "bus": saw(0.1, 0.2, 0.9), "dog": saw(0.4, 0.4, 0.2)}
    plots = drawn("appendix-c", {**ours, "all classes": saw(0.8, 0.4, 0.5)})
    assert set(drawn("appendix-c", {**ours, "all VOC classes": saw(0.8, 0.4, 0.5)})) == {"figure-5a.svg"}
    assert set(plots) == {"figure-5a.svg", "figure-5b.svg"}
    titles = [
        one.text for one in ElementTree.fromstring(plots["figure-5b.svg"]).iter() if one.tag.endswith("title")
    ]
    pairs = [title.rsplit(": ", 1) for title in titles if title]
    assert len(pairs) == 9  # sources by targets outside VOC with a figure
    assert dict(pairs)["cat to bear"] == "0.50" and dict(pairs)["bus to cake"] == "1.00"  # truncated
    sources = [pair.split(" to ")[0] for pair, _ in pairs][::3]
    assert abs(sources.index("cat") - sources.index("dog")) == 1  # alike ones stand together
    assert set(drawn("appendix-c", ours)) == {"figure-5a.svg"}


def test_the_makefile_has_a_target_for_each() -> None:
    text = (ROOT / "Makefile").read_text()
    with_a_rule = set(re.search(r"^PAPER = (.*)$", text, re.MULTILINE)[1].split())
    assert with_a_rule == set(tables()) and "\n$(PAPER): data-named $(READY)\n\t$(BIN)/python" in text
    rules = dict(re.findall(r"^([a-z0-9-]+):(.*)$", text, re.MULTILINE))
    assert with_a_rule <= rules.keys()  # each with its line in `make help`
    assert rules["table-13"].split()[0] == "appendix-b2" and rules["figure-5"].split()[0] == "appendix-c"
    assert all("##" in rules[name] for name in (*with_a_rule, "table-13", "figure-5", "appendix-d"))
    assert all(training(row.training) for one in tables().values() for row in one.rows)
