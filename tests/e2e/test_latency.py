"""`deepmac bench`: turns, medians, and one run on small models and generated scenes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig, ModelConfig
from deepmac_distill.data.synthetic import SCENE_CLASSES, write_scenes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.errors import RunError
from deepmac_distill.evaluation.results import from_json, read_result, to_json
from deepmac_distill.experiments import latency
from deepmac_distill.experiments.run_record import Environment
from deepmac_distill.look import Look
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.card import ModelCard, read_card, save_weights

IMAGES = 3
SMALL = {"backbone": "tiny", "backbone_width": 8, "head_channels": 8, "mask_width": 8, "mask_size": 8}
BLIND = {**SMALL, "mask_head": "resnet-4", "detection": False}
SMALL_MASK_RCNN = {
    **{"backbone": "tiny", "backbone_width": 8, "fpn_channels": 8, "mask_channels": 8, "box_channels": 8},
    **{"anchor_sizes": (8, 16, 32, 64), "proposals": 20},
}


def save_untrained(path: Path, config: ModelConfig, image_size_px: int, names: tuple[str, ...]) -> Path:
    torch.manual_seed(0)
    model = build_model(config, len(names), load_weights=False)
    ids, seen = tuple(range(1, 1 + len(names))), (True,) * len(names)
    card = ModelCard("teacher", dataclasses.asdict(config), names, ids, seen, image_size_px, 0, "")
    save_weights(path, model.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scenes, and weights of a deep teacher, two students and a model without detection."""
    folder = tmp_path_factory.mktemp("latency")
    write_scenes(folder, images=IMAGES, seed=0, size_px=64)
    teacher = DeepMacConfig(**SMALL, mask_head="hourglass-20")
    student = DeepMacConfig(**SMALL, mask_head="resnet-4")
    box_student = MaskRcnnConfig(**SMALL_MASK_RCNN)
    blind = DeepMacConfig(**BLIND)
    return {
        "folder": folder,
        "teacher": save_untrained(folder / "teacher.safetensors", teacher, 96, SCENE_CLASSES),
        "student": save_untrained(folder / "student.safetensors", student, 64, SCENE_CLASSES),
        "rcnn": save_untrained(folder / "rcnn.safetensors", box_student, 64, SCENE_CLASSES),
        "blind": save_untrained(folder / "blind.safetensors", blind, 64, SCENE_CLASSES),
    }


def flags(given: dict[str, Path], *more: str) -> list[str]:
    data = ["--annotations", str(given["folder"] / "instances.json")]
    data += ["--images", str(given["folder"] / "images")]
    return [*data, "--device", "cpu", "--rounds", "2", "--max-detections", "5", *more]


def test_models_take_turns_in_every_round_and_none_is_left_out() -> None:
    told: list[str] = []
    works = {name: lambda name=name: told.append(name) for name in "ABC"}
    seconds = latency.time_in_turn(works, 3)
    assert told == list("ABCABCABC")
    assert {name: len(values) for name, values in seconds.items()} == {"A": 3, "B": 3, "C": 3}


def test_every_turn_is_timed_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])
    works = {name: lambda s=s: clock.__setitem__(0, clock[0] + s) for name, s in (("A", 1.0), ("B", 0.25))}
    assert latency.time_in_turn(works, 2) == {"A": [1.0, 1.0], "B": [0.25, 0.25]}


RESULT = latency.Latency(
    environment=Environment("3.11", "Linux", "Some CPU", 2, ("Some GPU",), {"torch": "2.0"}),
    device="cpu",
    threads=2,
    autocast=False,
    images=4,
    boxes_per_image=2.5,
    max_detections=100,
    rounds=3,
    models={
        "deep": latency.ModelLatency(2_345_678, 128, (10.0, 30.0, 20.0), (50.0, 40.0, 60.0)),
        "shallow": latency.ModelLatency(1_000_000, 64, (4.0, 5.0, 99.0), None),
    },
)


def test_a_result_comes_back_from_its_json() -> None:
    assert from_json(to_json(RESULT), latency.Latency, "x.json") == RESULT
    broken = to_json(RESULT)
    del broken["models"]["deep"]["detect"]
    with pytest.raises(RunError, match=r"x.json: .*`detect`.*expected Latency figures of deepmac"):
        from_json(broken, latency.Latency, "x.json")


def test_the_table_has_medians_spreads_and_ratios_to_the_first() -> None:
    lines = latency.page(RESULT).splitlines()
    assert lines[2] == "| deep | 2.35 M | 128 | 20.0 (10.0 to 30.0) | 1.00 | 50.0 (40.0 to 60.0) | 1.00 |"
    assert lines[3] == "| shallow | 1.00 M | 64 | 5.0 (4.0 to 99.0) | 0.25 | – | – |"
    assert "Some CPU" in lines[5] and "Some GPU" not in lines[5] and "float32" in lines[5]
    rules = [line for line in lines if line.startswith("|---")]
    assert [line.count("|") for line in lines[:4]] == [8] * 4 and len(rules) == 2
    ours, theirs = latency.page(RESULT).split("From another machine, a V100")
    assert "Mask R-CNN" not in ours and "| 232 |" in theirs and "deep" not in theirs
    on_gpu = latency.page(dataclasses.replace(RESULT, device="cuda", autocast=True))
    assert "Some GPU" in on_gpu and "bfloat16" in on_gpu


def test_four_models_in_one_run(given: dict[str, Path], tmp_path: Path, deepmac, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # on a busy machine the milliseconds are too wide for one part
    named = [f"{name}={given[name]}" for name in ("teacher", "student", "rcnn", "blind")]
    ended = deepmac("bench", *named, *flags(given), "--json", tmp_path / "out.json")
    assert ended.code == 0, ended.err
    found = read_result(tmp_path / "out.json", latency.Latency)
    assert list(found.models) == ["teacher", "student", "rcnn", "blind"]
    assert found.images == IMAGES and found.rounds == 2  # no more images than the file has
    boxes = len(json.loads((given["folder"] / "instances.json").read_text())["annotations"])
    assert found.boxes_per_image == pytest.approx(boxes / IMAGES)
    assert found.environment.packages["torch"] == torch.__version__.split("+")[0]
    assert [row.canvas_px for row in found.models.values()] == [96, 64, 64, 64]
    sizes = {name: row.parameters for name, row in found.models.items()}
    assert sizes["teacher"] > sizes["student"] > sizes["blind"] > 0
    for name, row in found.models.items():
        assert len(row.segment) == 2 and min(row.segment) > 0
        assert row.detect is None if name == "blind" else min(row.detect) > 0
    assert latency.conditions(found) in ended.out and latency.OF_THE_PAPER in ended.out
    assert re.search(r"^ *blind .* – +– *$", ended.out, re.MULTILINE) and "…" not in ended.out
    assert re.search(r"^\| blind .*\| – \| – \|$", latency.page(found), re.MULTILINE)


def test_only_the_first_images_are_taken_and_they_are_the_files_own(given: dict[str, Path]) -> None:
    annotations = Dataset.open(given["folder"] / "instances.json", seen="all").for_training()
    images, device = given["folder"] / "images", torch.device("cpu")
    contestant = latency.load(given["teacher"], annotations, images, 2, device)
    assert [batch.image_ids for batch in contestant.whole] == [(1,), (2,)]
    assert all(batch.images.shape == (1, 3, 96, 96) for batch in contestant.whole)
    framed = [batch for (batch,) in contestant.framed]
    assert [batch.image_ids for batch in framed] == [(1,), (2,)] and contestant.look == ""


def test_a_model_that_looks_through_windows_is_timed_through_them(
    given: dict[str, Path], tmp_path: Path
) -> None:
    card = read_card(given["blind"])
    model = build_model(DeepMacConfig(**BLIND), len(SCENE_CLASSES), load_weights=False)
    look = Look(boxes="windows", window_size_px=32)
    save_weights(tmp_path / "w.safetensors", model.state_dict(), dataclasses.replace(card, look=look))
    annotations = Dataset.open(given["folder"] / "instances.json", seen="all").for_training()
    images, device = given["folder"] / "images", torch.device("cpu")
    contestant = latency.load(tmp_path / "w.safetensors", annotations, images, 2, device)
    assert all(batch.images.shape[1:] == (3, 32, 32) for group in contestant.framed for batch in group)
    assert contestant.look == "window 32 px x 1.5"
    (row,) = latency.measure({"blind": contestant}, device, rounds=1, max_detections=5).values()
    assert row.look == contestant.look and len(row.segment) == 1
    seen = dataclasses.replace(RESULT, models={"blind": row})
    assert f"| {row.look} |" in latency.page(seen)


def test_masks_of_other_classes_cannot_be_timed_on_these_boxes(
    given: dict[str, Path], tmp_path: Path, deepmac
) -> None:
    config = MaskRcnnConfig(**SMALL_MASK_RCNN)
    weights = save_untrained(tmp_path / "rcnn.safetensors", config, 64, ("cat", "dog"))
    ended = deepmac("bench", f"rcnn={weights}", *flags(given))
    assert ended.code == 2 and "has a mask for each of its 2 classes" in ended.err


@pytest.mark.parametrize("name", ["nowhere.safetensors", "instances.json"])
def test_weights_that_cannot_be_used_end_with_one_line(given: dict[str, Path], name: str, deepmac) -> None:
    path = given["folder"] / name
    ended = deepmac("bench", f"teacher={path}", *flags(given))
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1
    assert ended.err.startswith(f"deepmac: {path}: ")


@pytest.mark.parametrize("wrong", [["teacher"], ["=x"], ["a=x", "a=y"], ["a=x", "--rounds", "0"]])
def test_words_that_make_no_sense_are_refused(given: dict[str, Path], wrong: list[str], deepmac) -> None:
    ended = deepmac("bench", *flags(given), *wrong)
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1, ended.err
