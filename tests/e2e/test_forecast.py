"""`deepmac forecast` reports what a pipeline needs and refuses what cannot end well, before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deepmac_distill.chain import planned
from deepmac_distill.config import (
    DeepMacConfig,
    MaskRcnnConfig,
    ModelConfig,
    Pipeline,
    RoleConfig,
    load_pipeline,
)
from deepmac_distill.config.schema import EvaluationConfig
from deepmac_distill.config.training import TrainConfig
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.errors import CheckpointError, DeviceError, RunError
from deepmac_distill.forecast import needs as forecasting
from deepmac_distill.forecast.cost import Load, Rates, training_bytes
from deepmac_distill.forecast.inventory import Inventory, PerImage
from deepmac_distill.forecast.measuring import measured_rates
from deepmac_distill.forecast.needs import Machine
from deepmac_distill.forecast.stage_need import (
    CARD_BYTES,
    StageNeed,
    evaluation_need,
    labeling_need,
    masks_trained_on,
    peak_disk_bytes,
    selection_need,
    training_need,
)
from deepmac_distill.look import Look
from deepmac_distill.progress import Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.job import Job
from deepmac_distill.training.state_bytes import StateBytes

SEEN = ",".join(SEEN_SHAPES)
PLENTY = Machine(memory=10**12, ram=10**12, disk=10**12)
RATES = Rates(
    fixed_bytes=1e3,
    bytes_per_image=10.0,
    bytes_per_pixel=2.0,
    bytes_per_mask=100.0,
    seconds_per_pixel=1e-6,
    seconds_per_mask=1e-3,
)
STATE = StateBytes(weights=40, gradients=30, optimizer=60, average=40)
DATA = Inventory(
    annotations=Path("a.json"),
    folder=Path("images"),
    json_bytes=1000,
    images=50,
    boxes=200,
    usable=PerImage(mean=4.0, most=9),
    seen=PerImage(mean=1.0, most=3),
)


@pytest.fixture
def data(chain, tmp_path: Path) -> Path:
    """Generated scenes as a COCO folder."""
    shutil.copytree(chain[0] / "scenes-train", tmp_path / "data")
    shutil.copy(chain[0] / "scenes-val" / "instances.json", tmp_path / "data" / "val.json")
    shutil.copytree(chain[0] / "scenes-val" / "images", tmp_path / "data" / "val")
    return tmp_path / "data"


@pytest.fixture
def forecast(deepmac, small_toml: Path, data: Path, tmp_path: Path) -> Callable:
    """The command on that folder, of a run that is not there."""

    def run(*flags: str):
        given = ["--data", data, "--annotations", "instances.json", "--images", "images", "--seen", SEEN]
        given += ["--val-annotations", "val.json", "--val-images", "val", "--out", tmp_path / "run"]
        return deepmac("forecast", small_toml, *given, *flags)

    return run


def job_of(pipeline: Pipeline, out: Path) -> Job:
    return Job(pipeline=pipeline, source=None, run=RunDir(out), progress=Silent())


def test_it_lists_every_stage_and_writes_nothing(forecast, data: Path, tmp_path: Path, monkeypatch) -> None:
    before = sorted(data.rglob("*"))
    monkeypatch.setenv("COLUMNS", "60")  # the table is in parts, and whole
    ended = forecast()
    assert ended.code == 0, ended.err
    told = [line.split()[0] for line in ended.out.splitlines() if line.strip()]
    stages_in_order = [stage.name for stage in planned(evaluated=True) if stage.kind != "report"]
    assert list(dict.fromkeys(name for name in told if name in stages_in_order)) == stages_in_order
    assert f"{data / 'instances.json'}: 24 images" in ended.out and "all there" in ended.out
    assert "estimated" in ended.out and "time together" in ended.out
    table = ended.out.partition("Needs")[2].partition("device cpu")[0]
    assert "…" not in table and max(map(len, table.splitlines())) <= 60
    assert not (tmp_path / "run").exists() and sorted(data.rglob("*")) == before


def test_weights_of_backbones_are_not_fetched(forecast, deepmac, small_toml, monkeypatch, tmp_path) -> None:
    """They may be large, and the machine without a network; a training that needs them is refused."""

    def no_network(name: str, extractor: object) -> None:
        raise CheckpointError(f"no network for {name}")

    monkeypatch.setattr("deepmac_distill.models.backbone_weights.imagenet_weights", no_network)
    keys = ["--set", "student.model.backbone=resnet18", "--set", "student.model.backbone_weights=imagenet"]
    ended = forecast("--student", *keys)
    assert ended.code == 0, ended.err
    ended = deepmac("run", small_toml, "--out", tmp_path / "run", *keys)
    assert ended.code == 2 and "no network for resnet18" in ended.err


def test_one_role_alone_is_reported_alone(forecast) -> None:
    ended = forecast("--student")
    assert ended.code == 0 and "evaluate-student" in ended.out
    assert "teacher" not in ended.out and "pseudolabel" not in ended.out


def test_generated_scenes_need_no_data(deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    ended = deepmac("forecast", scenes_toml, "--out", tmp_path / "run", "--teacher")
    assert ended.code == 0 and "24 images" in ended.out and not (tmp_path / "run").exists()


def test_a_hold_out_is_a_stage_where_its_winner_labels(
    forecast, deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    best = ("--set", "labels.teacher=best", "--set", "holdout.teachers=recipe")
    rows = [line.split() for line in forecast("--teacher", *best).out.splitlines() if "holdout" in line]
    assert len(rows) == 1 and "measured" not in rows[0]
    ended = deepmac("forecast", scenes_toml, "--out", tmp_path / "new", "--teacher", *best)
    assert ended.code == 0 and "holdout" in ended.out and not (tmp_path / "new").exists()


def test_stages_that_are_done_need_nothing(deepmac, chain) -> None:
    run, _ = chain
    ended = deepmac("forecast", run / "config.toml", "--out", run)
    assert ended.code == 0, ended.err
    assert ended.out.count("done before") == 6 and "time not measured" in ended.out


def test_missing_data_are_named_with_where_to_get_them(deepmac, tmp_path: Path, small_toml: Path) -> None:
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    given = ["--annotations", "annotations/instances_train2017.json", "--images", "train2017"]
    given += ["--val-annotations", "lvis_v1_val.json", "--val-images", "val2017"]
    ended = deepmac("forecast", small_toml, "--data", tmp_path / "coco", *given, "--out", tmp_path / "run")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    for name in ("annotations/instances_train2017.json", "lvis_v1_val.json", "val2017/"):
        assert str(tmp_path / "coco" / name) in ended.err
    assert "https://cocodataset.org/#download" in ended.err
    assert "https://www.lvisdataset.org/dataset" in ended.err
    assert "teacher" in ended.out  # the machine is checked all the same
    assert ended.out.count("not measured") == 3  # but not how long images take of which nothing is known
    again = deepmac(
        "forecast", small_toml, "--data", tmp_path / "coco", *given, "--out", tmp_path / "run", "--anyway"
    )
    assert again.code == 2  # data that are not there are no estimate


def test_an_image_that_is_not_there_is_found(forecast, data: Path) -> None:
    (data / "images" / "000003.png").unlink()
    ended = forecast("--teacher")
    assert ended.code == 2
    assert f"1 of 24 images of {data / 'images'}/, such as 000003.png" in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("lacking", "kind", "says"),
    [
        ({"memory": 10**6}, DeviceError, "cpu: teacher: needs about "),
        ({"disk": 10**4}, RunError, "of disk, 0.0 MB are free"),
        ({"ram": 10**3}, DeviceError, "instances.json: reading it takes about "),
    ],
)
def test_a_machine_that_is_too_small_is_refused(
    data: Path, small_toml: Path, tmp_path: Path, lacking: dict, kind: type, says: str
) -> None:
    flags = [f"data.root='{data}'", "data.train_annotations='instances.json'", f"data.seen='{SEEN}'"]
    job = job_of(load_pipeline(small_toml, flags), tmp_path / "run")
    assert forecasting.forecast(job, ["teacher"], PLENTY).problems == ()
    (problem,) = forecasting.forecast(job, ["teacher"], replace(PLENTY, **lacking)).problems
    assert type(problem) is kind and problem.exit_code == 2 and says in str(problem)
    assert "expected" in str(problem) and "\n" not in str(problem)


def test_anyway_turns_too_little_memory_into_a_note(forecast, monkeypatch) -> None:
    monkeypatch.setattr(forecasting, "free_of", lambda job: replace(PLENTY, memory=10**6))
    ended = forecast("--teacher")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1 and "needs about" in ended.err
    ended = forecast("--teacher", "--anyway")
    assert ended.code == 0 and "note: cpu: teacher: needs about" in ended.out
    monkeypatch.setattr(forecasting, "free_of", lambda job: replace(PLENTY, memory=10**6, disk=10**4))
    ended = forecast("--teacher", "--anyway")
    assert ended.code == 2 and "of disk" in ended.err


def test_what_cannot_be_measured_is_not_made_up(data: Path, small_toml: Path, tmp_path: Path) -> None:
    """Memory for the weights alone does not suffice, so nothing is run; their count is still right."""
    flags = [f"data.root='{data}'", "data.train_annotations='instances.json'", f"data.seen='{SEEN}'"]
    job = job_of(load_pipeline(small_toml, flags), tmp_path / "run")
    (need,) = forecasting.forecast(job, ["teacher"], replace(PLENTY, memory=10)).needs
    assert need.seconds is None and need.memory_bytes > 10


def test_a_model_that_cannot_be_built_is_refused_first(forecast) -> None:
    ended = forecast("--set", "teacher.train.image_size_px=40")
    assert ended.code == 2 and ended.out == "" and "teacher.train.image_size_px: got 40" in ended.err


def test_a_teacher_without_training_is_not_measured(forecast) -> None:
    ended = forecast("--teacher", "--set", "teacher.segmenter=grabcut")
    assert ended.code == 0, ended.err
    assert ended.out.count("not measured") == 1 + 1  # its evaluation, and so the time together


def recipe(**train) -> RoleConfig:
    base = RoleConfig(model=DeepMacConfig(mask_size=16))
    return replace(base, train=replace(base.train, **train))


def test_training_is_its_passes() -> None:
    settings = recipe(steps=10, gradient_accumulation_steps=3, batch_size=4, image_size_px=64)
    need = training_need("teacher", settings, STATE, RATES, PerImage(mean=1.5, most=7), margin=3.0)
    fullest = Load(images=4, size_px=64, masks=7 + 3 * 1.5)
    assert need.memory_bytes == training_bytes(STATE, RATES, fullest, margin=3.0)
    assert need.seconds == pytest.approx(30 * (4 * 64**2 * 1e-6 + 6 * 1e-3))
    assert (need.disk_bytes, need.scratch_bytes) == (40 + CARD_BYTES, 2 * 140)
    unmeasured = training_need("teacher", settings, STATE, None, PerImage(), margin=3.0)
    assert (unmeasured.memory_bytes, unmeasured.seconds) == (STATE.total, None)


def test_evaluation_in_given_boxes_alone_is_one_pass_without_detections() -> None:
    settings = EvaluationConfig(max_detections=10)
    both = evaluation_need("evaluate-teacher", recipe(image_size_px=64), DATA, settings, RATES)
    alone = evaluation_need(
        "evaluate-teacher", recipe(image_size_px=64), DATA, replace(settings, gt_boxes_only=True), RATES
    )
    assert both.seconds == pytest.approx((100 * 64**2 * 1e-6 + 50 * 14 * 1e-3) / 3)
    assert alone.seconds == pytest.approx((50 * 64**2 * 1e-6 + 50 * 4 * 1e-3) / 3)
    assert both.disk_bytes - alone.disk_bytes == 500 * 50 * 10


def looking(look: Look, **train) -> RoleConfig:
    plain = RoleConfig(model=DeepMacConfig(mask_size=16, detection=False))
    return replace(plain, look=look, train=replace(plain.train, image_size_px=64, **train))


def test_windows_are_canvases_of_their_own_with_one_mask_each() -> None:
    given = {"steps": 10, "batch_size": 4}
    windows, both, images = (
        training_need(
            "teacher",
            looking(Look(boxes="windows", window_size_px=32), **given, views=views),
            STATE,
            RATES,
            PerImage(mean=1.5, most=7),
            margin=3.0,
        )
        for views in ("windows", "both", "images")
    )
    assert windows.memory_bytes == training_bytes(
        STATE, RATES, Load(images=4, size_px=32, masks=4), margin=3.0
    )
    assert windows.seconds == pytest.approx(10 * (4 * 32**2 * 1e-6 + 4 * 1e-3))
    assert both.memory_bytes == images.memory_bytes > windows.memory_bytes
    assert both.seconds == pytest.approx((windows.seconds + images.seconds) / 2)


@pytest.mark.parametrize(
    ("look", "pixels", "masks"),
    [
        (Look(), 50 * 64**2, 150),
        (Look(boxes="windows", window_size_px=32), 150 * 32**2, 150),
        (Look(boxes="average", window_size_px=32), 50 * 64**2 + 150 * 32**2, 300),
        (Look(boxes="by-size", window_size_px=32), 50 * 64**2 + 150 * 32**2, 150),
        (Look(boxes="windows", window_size_px=32, mirror=True), 2 * 150 * 32**2, 300),
    ],
    ids=str,
)
def test_a_look_through_windows_costs_a_pass_for_each_box_and_a_mirror_twice_as_much(
    look: Look, pixels: int, masks: int
) -> None:
    need = labeling_need("pseudolabel", looking(look), DATA, True, RATES)
    assert need.seconds == pytest.approx((pixels * 1e-6 + masks * 1e-3) / 3)
    settings = EvaluationConfig()
    evaluated = evaluation_need("evaluate-teacher", looking(look), DATA, settings, RATES)
    boxes = 200 / 150  # that are evaluated, for each that is labeled
    windows = pixels - (50 * 64**2 if look.in_images else 0)
    expected = (pixels - windows + boxes * windows) * 1e-6 + boxes * masks * 1e-3
    assert evaluated.seconds == pytest.approx(expected / 3)


def test_labels_are_as_large_as_their_grids() -> None:
    settings = recipe(image_size_px=64)
    soft, hard = (labeling_need("pseudolabel", settings, DATA, soft, RATES) for soft in (True, False))
    assert soft.disk_bytes - hard.disk_bytes == 16**2 * 3 * 50  # unseen boxes
    assert soft.scratch_bytes == soft.disk_bytes
    assert selection_need("select", DATA) == StageNeed(
        stage="select", disk_bytes=1000 + 500 * 200, seconds=0.0
    )
    assert soft.seconds == pytest.approx((50 * 64**2 * 1e-6 + 150 * 1e-3) / 3)


def test_masks_in_a_pass_are_those_of_the_model_s_own_rule() -> None:
    given, boxes = PerImage(mean=3.0, most=20), PerImage(mean=7.0, most=40)

    def found(model: ModelConfig) -> PerImage:
        return masks_trained_on(model, given, boxes)

    assert found(DeepMacConfig()) == given
    assert found(DeepMacConfig(mask_instances_per_image=5)) == PerImage(mean=3.0, most=5)
    assert found(DeepMacConfig(batch_norm_boxes="all")) == boxes
    assert found(MaskRcnnConfig(mask_boxes="gt")) == given
    assert found(MaskRcnnConfig()) == PerImage(mean=128, most=128)


def test_what_passes_is_gone_when_the_next_stage_starts() -> None:
    needs = [
        StageNeed(stage="teacher", disk_bytes=5, scratch_bytes=20),
        StageNeed(stage="pseudolabel", disk_bytes=10, scratch_bytes=10),
        StageNeed(stage="student", done=True),
    ]
    assert peak_disk_bytes(needs) == 25 and peak_disk_bytes([]) == 0


def test_the_disk_bound_holds_for_a_real_run(chain, small_toml: Path) -> None:
    """The stages of a run that is done are not larger than what is forecast for them."""
    run, _ = chain
    pipeline = load_pipeline(run / "config.json")
    found = forecasting.forecast(job_of(pipeline, run.parent / "another"), machine=PLENTY)
    for need in found.needs:
        files = [path for path in (run / need.stage).rglob("*") if path.is_file()]
        left = sum(path.stat().st_size for path in files if path.suffix in (".safetensors", ".parquet"))
        assert left <= need.disk_bytes + 20_000, need.stage  # names and headers


@pytest.mark.parametrize("mask_boxes", ["gt", "proposals+gt"])
def test_masks_of_mask_rcnn_are_counted_whatever_boxes_train_them(
    mask_boxes: str, scenes_toml: Path, tmp_path: Path
) -> None:
    """With proposals as many masks are trained on whatever is given; labeling has those that are given."""
    model = MaskRcnnConfig(
        backbone="tiny",
        backbone_width=8,
        fpn_channels=8,
        box_channels=8,
        anchor_sizes=(8, 16, 32, 64),
        mask_boxes=mask_boxes,
        sampled_proposals=16,
    )
    recipe = RoleConfig(model=model, train=TrainConfig(image_size_px=64))
    job = Job(load_pipeline(scenes_toml), None, RunDir(tmp_path), Silent())
    rates = measured_rates(job, recipe, DATA, PLENTY.memory)
    assert rates.bytes_per_mask > 4 * model.mask_channels * model.mask_crop**2  # a map of its branch alone
