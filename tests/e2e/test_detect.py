"""`deepmac detect`: the student on new pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO

from deepmac_distill.errors import DataError
from deepmac_distill.stages.image_info import read_image_info
from deepmac_distill.stages.outputs import require_ours

SCORE = ("--min-score", "0.001")  # a student of twelve steps is sure of nothing


@pytest.fixture
def photos(chain, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("000001.png", "000002.png"):
        shutil.copy(chain[0] / "scenes-val" / "images" / name, folder / name)
    return folder


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_becomes_pictures_and_one_coco_file(chain, deepmac, photos, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = deepmac("detect", photos, "--model", chain[0], *SCORE)
    assert ended.code == 0, ended.err
    assert files(tmp_path / "detections") == {"000001.png", "000002.png", "detections.json"}
    assert files(photos) == {"000001.png", "000002.png"}
    coco = COCO(str(tmp_path / "detections" / "detections.json"))
    assert [image["file_name"] for image in coco.imgs.values()] == ["000001.png", "000002.png"]
    assert len(coco.cats) == 12 and len(coco.anns) > 0
    for annotation in coco.anns.values():
        x, y, w, h = annotation["bbox"]
        mask = coco.annToMask(annotation)
        assert mask.shape == (64, 64) and mask.sum() == annotation["area"]
        inside = mask[int(y) : int(y + h) + 1, int(x) : int(x + w) + 1]
        assert inside.sum() == mask.sum() and annotation["score"] >= 0.001
    with Image.open(tmp_path / "detections" / "000001.png") as picture:
        assert picture.size == (64, 64)
    assert f"{len(coco.anns)} objects on 2 images" in ended.out


def test_it_finds_what_evaluation_finds(chain, deepmac, tmp_path: Path) -> None:
    """Alone or in a batch: only the last bits of a score may differ."""
    images = chain[0] / "scenes-val" / "images"
    given = ["detect", images, "--model", chain[0], "--out", tmp_path / "out", "--min-score", "0"]
    assert deepmac(*given).code == 0
    theirs = json.loads((chain[0] / "evaluate-student" / "detections.json").read_text())
    ours = json.loads((tmp_path / "out" / "detections.json").read_text())
    name_of = {image["id"]: image["file_name"] for image in ours["images"]}
    best = max(theirs, key=lambda found: found["score"])
    (same,) = [
        found
        for found in ours["annotations"]
        if name_of[found["image_id"]] == f"{best['image_id']:06d}.png"
        and found["bbox"] == pytest.approx(best["bbox"], abs=0.01)
        and found["category_id"] == best["category_id"]
    ]
    assert same["score"] == pytest.approx(best["score"], abs=1e-4)


def test_a_picture_that_cannot_be_read_is_named_and_the_rest_goes_on(
    chain, deepmac, photos, tmp_path: Path
) -> None:
    (photos / "broken.jpg").write_bytes(b"no")
    out = tmp_path / "out"
    ended = deepmac("detect", photos, tmp_path / "gone.png", "--model", chain[0], "--out", out)
    assert ended.code == 0 and "2 unreadable" in ended.out
    assert ended.err.count("broken.jpg: cannot be decoded") == ended.err.count("gone.png: no such file") == 1
    assert files(out) == {"000001.png", "000002.png", "detections.json"}
    again = deepmac("detect", photos / "broken.jpg", "--model", chain[0], "--out", tmp_path / "none")
    assert again.code == 2
    assert "broken.jpg: none of 1 images can be read" in again.err.splitlines()[-1]


def test_it_writes_over_its_own_pictures_alone(chain, deepmac, photos, tmp_path: Path) -> None:
    given = ["detect", photos, "--model", chain[0], "--out"]
    assert deepmac(*given, tmp_path / "out").code == deepmac(*given, tmp_path / "out").code == 0
    shutil.copy(photos / "000001.png", tmp_path / "out" / "000001.png")
    ended = deepmac(*given, tmp_path / "out")
    assert ended.code == 2 and "000001.png: is there and deepmac did not make it" in ended.err
    ended = deepmac(*given, photos)
    assert ended.code == 2 and "000001.png: is an input; expected another --out" in ended.err
    assert files(photos) == {"000001.png", "000002.png"}


def image_info(folder: Path, photos: Path, **changed: object) -> Path:
    """As COCO publishes its test sets: images and categories alone."""
    scenes = json.loads((photos.parent / "val.json").read_text())
    names = sorted(path.name for path in photos.iterdir())
    images = [{"id": 70 + i, "file_name": name, "height": 64, "width": 64} for i, name in enumerate(names)]
    categories = [{"id": 100 + one["id"], "name": one["name"]} for one in scenes["categories"]]
    path = folder / "image_info.json"
    path.write_text(json.dumps({"images": images, "categories": categories, **changed}))
    return path


def test_image_info_without_annotations_becomes_what_the_server_takes(
    chain, deepmac, photos, tmp_path: Path
) -> None:
    shutil.copy(chain[0] / "scenes-val" / "instances.json", tmp_path / "val.json")
    info = image_info(tmp_path, photos)
    ended = deepmac("detect", photos, "--image-info", info, "--model", chain[0], "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert files(tmp_path / "out") == {"results.json"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results and all(
        set(one) == {"image_id", "category_id", "segmentation", "score"} for one in results
    )
    assert {one["image_id"] for one in results} == {70, 71}
    assert {one["category_id"] for one in results} <= {100 + i for i in range(1, 13)}
    truth = COCO(str(info))
    truth.dataset["annotations"] = []
    assert len(truth.loadRes(results).anns) == len(results)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"images": []}, "images: got none, expected at least one"),
        ({"categories": [{"id": 1, "name": "cow"}]}, "trained on 12 classes, the data has 1"),
        ({"images": [{"id": 1, "file_name": "no.png", "height": 64, "width": 64}]}, "no.png: no such file"),
        (
            {"images": [{"id": 1, "file_name": "../a.png", "height": 64, "width": 64}]},
            "expected a path inside the image folder",
        ),
        (
            {"images": [{"id": 1, "file_name": "/etc/a.png", "height": 64, "width": 64}]},
            "expected a path inside the image folder",
        ),
        (
            {"images": [{"id": 1, "file_name": "000001.png", "height": 60, "width": 64}]},
            "000001.png: image is 64 x 64 (H x W), its annotations give 60 x 64",
        ),
        ({"images": None}, "images: got null, expected a list"),
    ],
)
def test_an_image_info_that_cannot_be_used_is_one_line(
    chain, deepmac, photos, tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    shutil.copy(chain[0] / "scenes-val" / "instances.json", tmp_path / "val.json")
    info = image_info(tmp_path, photos, **changed)
    ended = deepmac("detect", photos, "--image-info", info, "--model", chain[0], "--out", tmp_path / "out")
    assert ended.code == 2 and says in ended.err.splitlines()[-1]
    assert not (tmp_path / "out" / "results.json").exists()


def test_an_image_info_is_read_as_annotations_are(chain, photos, tmp_path: Path) -> None:
    """With the mark that Windows puts before a text, and no key twice."""
    shutil.copy(chain[0] / "scenes-val" / "instances.json", tmp_path / "val.json")
    path = image_info(tmp_path, photos)
    text = path.read_text()
    path.write_text("\ufeff" + text, encoding="utf-8")
    assert [one.id for one in read_image_info(path).images] == [70, 71]
    path.write_text(text.replace('"id": 70', '"id": 9, "id": 70', 1))
    with pytest.raises(DataError, match='key "id" stands twice'):
        read_image_info(path)


@pytest.mark.parametrize("content", ["{}", "[]", "no", '{"info": {"description": "COCO 2017 Dataset"}}'])
def test_a_file_of_somebody_else_is_not_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "detections.json").write_text(content)
    with pytest.raises(Exception, match="deepmac did not make it"):
        require_ours([tmp_path / "detections.json"], [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "gone.safetensors"], "gone.safetensors: no such file"),
        (["--model", "."], "holds files but no run"),
        (["--model", "gone.safetensors", "--min-score", "2"], "detect: invalid value for '--min-score'"),
        (["--model", "gone.safetensors", "--device", "tpu"], "device: got 'tpu', expected auto"),
        ([], "detect: missing option '--model'"),
    ],
)
def test_what_cannot_be_used_is_one_line(deepmac, photos, tmp_path, monkeypatch, arguments, says) -> None:
    monkeypatch.chdir(tmp_path)
    ended = deepmac("detect", photos, *arguments)
    assert ended.code == 2 and says in ended.err and len(ended.err.splitlines()) == 1
    assert files(tmp_path) == {"photos"}


def test_an_empty_folder_and_two_images_of_one_name_are_refused(chain, deepmac, photos, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    ended = deepmac("detect", tmp_path / "empty", "--model", chain[0])
    assert ended.code == 2 and "empty: holds no images" in ended.err
    shutil.copytree(photos, tmp_path / "more")
    ended = deepmac("detect", photos, tmp_path / "more", "--model", chain[0], "--out", tmp_path / "out")
    assert ended.code == 2 and "000001.png: 2 images have this name" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_model_without_detection_is_refused(chain, deepmac, photos, small_toml, tmp_path: Path) -> None:
    train = chain[0] / "scenes-train"
    blind = [
        "--set",
        "teacher.model.detection=false",
        "--steps",
        "1",
        "--seen",
        "all",
        "--out",
        tmp_path / "run",
    ]
    data = ["--annotations", train / "instances.json", "--images", train / "images"]
    assert deepmac("teach", "--config", small_toml, *data, *blind).code == 0
    weights = tmp_path / "run" / "teacher" / "weights.safetensors"
    ended = deepmac("detect", photos, "--model", weights, "--out", tmp_path / "out")
    assert ended.code == 2 and "was trained without detection" in ended.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    ended = deepmac("detect", photos, "--model", tmp_path / "run", "--out", tmp_path / "out")
    assert ended.code == 2 and "no student/weights.safetensors; expected `deepmac student" in ended.err
