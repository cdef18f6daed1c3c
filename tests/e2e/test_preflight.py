"""What can be known before the first hour is refused before it: nothing is trained, nothing is made."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill import devices
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.errors import ConfigError
from deepmac_distill.stages import preflight
from deepmac_distill.training import loop

Raw = dict[str, Any]
FEW_IMAGES = {"train": 6, "val": 3}  # of a run that trains: every stage works, in seconds


@pytest.fixture
def run(chain, deepmac, small_toml: Path, tmp_path: Path, monkeypatch) -> Callable[..., Any]:
    """`deepmac run` on scenes as if they were a user's files; training a step fails the test."""

    def trained(*given: Any) -> None:
        raise AssertionError("a training has begun")

    def run(
        change: Callable[[Raw], None] | None, *flags: str | Path, split: str = "val", trains: bool = False
    ):
        files = {}
        for name in ("train", "val"):
            document = json.loads((chain[0] / f"scenes-{name}" / "instances.json").read_text())
            if trains:
                keep_images(document, FEW_IMAGES[name])
            if name == split and change:
                change(document)
            files[name] = tmp_path / f"{name}.json"
            files[name].write_text(json.dumps(document))
        if not trains:
            monkeypatch.setattr(loop, "accumulate_gradients", trained)
        return deepmac(
            *("run", small_toml, "--seen", ",".join(SEEN_SHAPES), "--out", tmp_path / "out"),
            *("--annotations", files["train"], "--images", chain[0] / "scenes-train" / "images"),
            *("--val-annotations", files["val"], "--val-images", chain[0] / "scenes-val" / "images"),
            *flags,
        )

    return run


def keep_images(document: Raw, count: int) -> None:
    document["images"] = document["images"][:count]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] in kept]


def no_images(document: Raw) -> None:
    document["images"], document["annotations"] = [], []


def no_annotations(document: Raw) -> None:
    document["annotations"] = []


def no_masks(document: Raw) -> None:
    for annotation in document["annotations"]:
        del annotation["segmentation"]


def only_crowds(document: Raw) -> None:
    for annotation in document["annotations"]:
        annotation["iscrowd"] = 1


@pytest.mark.parametrize(
    ("change", "split", "says"),
    [
        (no_images, "val", "val.json: no images; expected at least one to evaluate on"),
        (no_annotations, "val", "val.json: no mask that a person drew; expected at least one to evaluate on"),
        (no_masks, "val", "val.json: no mask that a person drew; expected at least one to evaluate on"),
        (only_crowds, "val", "val.json: no mask that a person drew"),
        (no_images, "train", "train.json: no images; expected at least one to train on"),
        (no_annotations, "train", "train.json: no box that can be used; expected at least one to train on"),
        (only_crowds, "train", "train.json: no box that can be used"),
        (no_masks, "train", "train.json: no masks of the seen classes"),
    ],
)
def test_data_of_no_use_are_refused_first(run, tmp_path: Path, change: Any, split: str, says: str) -> None:
    ended = run(change, split=split)
    assert ended.code == 2 and says in ended.err.splitlines()[-1], ended.err
    assert not (tmp_path / "out" / "teacher.part").exists()


def test_nothing_is_fetched_for_data_of_no_use(run, monkeypatch) -> None:
    def fetch(model: Any, of: Any) -> None:
        if of.backbone == "resnet18":
            raise ConfigError("weights are asked for")

    monkeypatch.setattr(preflight, "require_backbone_weights", fetch)
    keys = ("teacher.model.backbone=resnet18", "teacher.model.backbone_weights=imagenet")
    imagenet = [word for key in keys for word in ("--set", key)]
    assert "no images" in run(no_images, *imagenet, split="train").err
    assert "weights are asked for" in run(None, *imagenet).err


@pytest.mark.parametrize(
    "flags",
    [
        ("--set", "evaluation.bootstrap=1000000000"),
        ("--set", "student.model.mask_head=unet"),
        ("--set", "student.train.init_from=gone.safetensors"),
        ("--set", "student.model.backbone_weights=gone.pth"),
        ("--set", "labels.cut=2"),
        ("--set", "labels.calibration=gone.json"),
        ("--set", "labels.min_quality=0.5"),
        ("--set", "labels.mask_weight=quality"),
        ("--set", "evaluation.max_detections=-3"),
    ],
)
def test_keys_that_only_later_stages_use_are_refused_first(
    run, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    ended = run(None, *flags)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1, ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_that_is_missing_is_found_first(run, chain, tmp_path: Path, split: str) -> None:
    images = shutil.copytree(chain[0] / f"scenes-{split}" / "images", tmp_path / "copies")
    sorted(images.iterdir())[-1].unlink()
    ended = run(None, "--images" if split == "train" else "--val-images", images)
    assert ended.code == 2 and "copies" in ended.err.splitlines()[-1], ended.err


@pytest.mark.parametrize("key", ["image", "annotation", "category"])
@pytest.mark.parametrize("number", [-5, -(2**31) - 1, 2**40, 2**63 - 1, 2**64])
def test_ids_of_any_number_are_refused_first_or_work_to_the_end(
    run, tmp_path: Path, key: str, number: int
) -> None:
    def change(document: Raw) -> None:
        rows = document["categories" if key == "category" else f"{key}s"]
        old, rows[0]["id"] = rows[0]["id"], number
        for annotation in document["annotations"]:
            if key != "annotation" and annotation[f"{key}_id"] == old:
                annotation[f"{key}_id"] = number

    for split in ("train", "val"):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        few = [word for role in ("teacher", "student") for word in ("--set", f"{role}.train.steps=1")]
        ended = run(change, *few, split=split, trains=True)
        if ended.code:
            assert ended.code == 2 and "training" not in ended.err, ended.err
            assert not (tmp_path / "out" / "teacher").exists(), ended.err


def test_an_output_that_cannot_be_written_to_is_refused_first(run, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(preflight, "_only_read", lambda folder: True)
        ended = run(None)
    assert ended.code == 2 and "out: cannot be written to; expected an output directory" in ended.err
    ended = run(None, "--out", tmp_path / Path(*(["x" * 200] * 19)))
    assert ended.code == 2 and "expected a path of at most" in ended.err


def test_too_little_memory_or_disk_is_refused_first(run, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(devices, "free_bytes", lambda device: 100_000)
        ended = run(None)
    assert ended.code == 2 and "teacher: needs more than 0.00 GB of memory on cpu" in ended.err
    assert "expected a smaller model, or less of teacher.train.batch_size, teacher.train.image_s" in ended.err
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(preflight.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
        ended = run(None)
    assert ended.code == 2 and "of disk, 0.00 GB are free; expected that much, or another --out" in ended.err
    assert not (tmp_path / "out").exists()
