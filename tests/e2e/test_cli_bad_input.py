"""What a user gets wrong ends with code 2 and one line: where, what is wrong, got, expected."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.card import read_card, save_weights

Raw = dict[str, Any]


def document() -> Raw:
    """Four images of 64 x 48, each with a seen box that has a mask and an unseen one."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64} for i in range(1, 5)]
    boxes = [
        {"id": 2 * i + k, "image_id": i, "category_id": 1 + k, "bbox": [8 + 10 * k, 8, 24, 16], "iscrowd": 0}
        for i in range(1, 5)
        for k in (0, 1)
    ]
    for box in boxes[::2]:
        box["segmentation"] = [[8, 8, 32, 8, 32, 24]]
    return {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "kite"}],
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(1, 5):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    (folder / "train.json").write_text(json.dumps(document()))
    return folder


@pytest.fixture
def teach(deepmac, small_toml: Path, data: Path, tmp_path: Path) -> Callable[..., Any]:
    """`deepmac teach` on the data, into a directory that is not there yet."""

    def run(*flags: str, command: str = "teach") -> Any:
        pipeline = [small_toml] if command == "run" else ["--config", small_toml]
        given = ["--data", data, "--annotations", "train.json", "--images", "images"]
        given += [] if "--seen" in flags else ["--seen", "cat"]
        return deepmac(command, *pipeline, "--out", tmp_path / "run", *given, *flags)

    return run


def assert_refused(ended: Any, says: str, folder: Path) -> None:
    """Code 2, one line of ours at the end, nothing of Python's, and no results."""
    assert ended.code == 2, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("deepmac: ")]
    assert lines == ended.err.splitlines()[-1:]
    assert says in lines[0]
    assert "Traceback" not in ended.err and ended.out == ""
    assert list(folder.rglob("done.json")) == list(folder.rglob("*.safetensors")) == []


def test_the_data_as_they_are_make_a_run(teach, tmp_path: Path) -> None:
    assert teach(command="run").code == 0
    assert (tmp_path / "run" / "student" / "weights.safetensors").exists()


def first(**changed: Any) -> Callable[[Raw], None]:
    """The first annotation with other values; None of a key's value is JSON's null."""
    return lambda raw: raw["annotations"][0].update(changed)


def of_image(**changed: Any) -> Callable[[Raw], None]:
    return lambda raw: raw["images"][0].update(changed)


def put(key: str, value: Any) -> Callable[[Raw], None]:
    return lambda raw: raw.update({key: value})


def without_masks(raw: Raw) -> None:
    for annotation in raw["annotations"]:
        annotation.pop("segmentation", None)


ANNOTATION, IMAGE = "train.json: annotation 2: ", "train.json: image 1: "


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("categories", []), "train.json: categories: got none, expected at least one"),
        (lambda raw: raw.pop("categories"), "train.json: categories: got null, expected a list"),
        (lambda raw: raw.pop("images"), "train.json: images: got null, expected a list"),
        (put("annotations", {"1": 2}), "train.json: annotations: got"),
        (put("images", [3]), "train.json: images[0]: got 3, expected an object"),
        (put("categories", [{"id": i, "name": "cat"} for i in (1, 2)]), '"cat" is used twice'),
        (put("categories", [{"id": 1, "name": n} for n in ("cat", "kite")]), "id 1 is used twice"),
        (without_masks, "train.json: no masks of the seen classes (cat); expected at least one"),
        (
            first(bbox=[1, 2, float("nan"), 4], segmentation=[]),
            ANNOTATION + "bbox [1, 2, NaN, 4]: expected four finite",
        ),
        (first(bbox=[1, 2, "3", 4]), ANNOTATION + 'bbox [1, 2, "3", 4]: expected four finite numbers'),
        (first(bbox=[1, 2, 3]), ANNOTATION + "bbox [1, 2, 3]: expected four"),
        (first(bbox=None, segmentation=[]), ANNOTATION + "bbox null: expected four"),
        (first(id=3.0), "annotations[0]: id 3.0: expected a whole number"),
        (first(id="2"), 'annotation "2": id "2": expected a whole number'),
        (first(image_id=99), ANNOTATION + "image_id 99: expected the id of an image"),
        (first(category_id=99), ANNOTATION + "category_id 99: expected the id of a category"),
        (first(segmentation=[[1, 2, 3]]), ANNOTATION + "segmentation: polygon of 3 numbers"),
        (first(segmentation={"size": [9, 9], "counts": [81]}), ANNOTATION + "segmentation: mask of size"),
        (first(iscrowd="no"), ANNOTATION + 'iscrowd "no": expected 0 or 1'),
        (of_image(id=2), "image 2: its id is used twice"),
        (of_image(height=0), IMAGE + "height 0: expected a whole number > 0"),
        (of_image(file_name="../1.png"), IMAGE + 'file_name "../1.png": expected a path inside'),
        (of_image(file_name="/etc/passwd"), IMAGE + 'file_name "/etc/passwd": expected a path inside'),
        (of_image(neg_category_ids={"1": 2}), IMAGE + 'neg_category_ids {"1": 2}: expected a list of ids'),
        (of_image(file_name="gone.png"), "gone.png: no such file; expected an image"),
        (of_image(width=65), "1.png: image is 48 x 64 (H x W), its annotations give 48 x 65"),
        (put("images", []), "image_id 1: expected the id of an image of the file"),
    ],
)
def test_a_file_that_is_not_what_coco_says_is_refused(
    teach, data: Path, tmp_path: Path, change: Callable[[Raw], Any], says: str
) -> None:
    raw = document()
    change(raw)
    (data / "train.json").write_text(json.dumps(raw))
    assert_refused(teach(), says, tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '"text"', '{"images": [1,]}', b"\xff\xfe\x00", b"\x89PNG"]
)
def test_a_file_that_is_no_json_object_is_refused(
    teach, data: Path, tmp_path: Path, content: str | bytes
) -> None:
    (data / "train.json").write_bytes(content.encode() if isinstance(content, str) else content)
    assert_refused(teach(), f"{data / 'train.json'}: ", tmp_path)


def broken(how: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        match how:
            case "truncated":
                path.write_bytes(path.read_bytes()[:2000])
            case "no image":
                path.write_bytes(b"<html>404</html>")
            case "empty":
                path.write_bytes(b"")
            case "folder":
                path.unlink()
                path.mkdir()

    return change


@pytest.mark.parametrize("how", ["truncated", "no image", "empty", "folder"])
def test_an_image_that_cannot_be_read_is_refused_by_name(teach, data: Path, tmp_path: Path, how: str) -> None:
    broken(how)(data / "images" / "3.png")
    assert_refused(teach(), f"{data / 'images' / '3.png'}: ", tmp_path)


WINDOW = "teacher.look.window_size_px: got 60, expected a multiple of 16 for this backbone"
UNDETECTED = ["--set", "teacher.model.detection=false"]
RCNN = ["--set", 'teacher.model={architecture="mask_rcnn", backbone="resnet18"}']


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--annotations", "gone.json"], "gone.json: cannot be read: No such file"),
        (["--annotations", "images"], "images: cannot be read: Is a directory"),
        (["--images", "gone"], "gone/1.png: no such file; expected an image"),
        (["--seen", "catt"], 'seen class "catt": no such class; expected one such as cat'),
        (["--seen", "cat,dog"], 'seen class "dog": no such class'),
        (["--seen", "gone.txt"], "gone.txt: list of seen classes: "),
        (["--seen", "kite"], "no masks of the seen classes (kite)"),
        (["--seen", ""], "expected at least one"),
        (["--device", "cuda:99"], "device: got cuda:99, but torch sees"),
        (["--device", "cuda:99999999999"], "device: got cuda:99999999999, but torch sees"),
        (["--device", "mps"], "device: got mps, but torch sees no Apple GPU; expected cpu or auto"),
        (["--device", "foo"], "device: got 'foo', expected auto, cpu, cuda, cuda:N or mps"),
        (["--seed", "-1"], "seed: got -1, expected at least 0"),
        (["--set", "teacher.train.image_size_px=60"], "teacher.train.image_size_px: got 60, expected a mult"),
        (["--set", "teacher.model.mask_head=unet"], "teacher.model.mask_head: got 'unet', expected one of"),
        (
            ["--set", "teacher.model.batch_norm_boxes=seen"],
            "teacher.model.batch_norm_boxes: got 'seen', exp",
        ),
        (["--set", "teacher.model.mask_size=7"], "teacher.model.mask_size: got 7, expected a multiple of 2"),
        (["--set", "teacher.model.backbone=tinny"], "teacher.model.backbone: got 'tinny', expected tiny, "),
        (["--set", "teacher.model.backbone_width=6"], "teacher.model.backbone_width: got 6, expected a mu"),
        (["--set", "teacher.model.backbone_weights=gone.pth"], "gone.pth: "),
        (["--set", "teacher.look.window_size_px=60", "--set", "teacher.look.boxes=windows"], WINDOW),
        (["--set", "teacher.look.boxes=zoom"], "teacher.look.boxes: got 'zoom', expected one of image, "),
        (
            ["--set", "teacher.look.window_context=0.5"],
            "teacher.look.window_context: got 0.5, expected 1 to 20",
        ),
        (
            ["--set", "teacher.train.window_shift=2"],
            "teacher.train.window_shift: got 2.0, expected in [0",
        ),
        (["--set", "teacher.train.box_jitter=0.5"], "teacher.train.box_jitter: got 0.5, expected in [0, 0.5"),
        (
            ["--set", "teacher.train.box_jitter=0.1"],
            "teacher.train.box_jitter: got 0.1, expected 0 for boxes that detection learns, or views",
        ),
        (["--set", "teacher.train.window_scale_range=[2,1]"], "teacher.train.window_scale_range: got (2.0, "),
        (
            ["--set", "teacher.train.views=windows"],
            "teacher.train.views: got 'windows', expected \"both\", or",
        ),
        (
            [*UNDETECTED, "--set", "teacher.train.views=windows"],
            "teacher.look.boxes: got 'image', expected ",
        ),
        (
            [*RCNN, "--set", "teacher.train.views=both"],
            "teacher.train.views: got 'both', expected ",
        ),
        (["--set", "teacher.train.learning_rate=1"], "teacher.train.learning_rate: unknown key"),
        (["--set", "teacher.train.lr=fast"], "teacher.train.lr: got 'fast', expected float"),
        (["--set", "teacher.train.lr"], "--set teacher.train.lr: expected key=value"),
        (["--set", "teacher.train.lr=1e30"], "loss is not finite: mask "),
        (["--set", "teacher.train.lr=inf"], "teacher.train.lr: got inf, expected a finite number"),
        (
            ["--set", "evaluation.min_lead_over_ellipse=nan"],
            "evaluation.min_lead_over_ellipse: got nan, expected a",
        ),
        (["--seed", "4294967296"], "seed: got 4294967296, expected at most 4294967295"),
        (["--seed", "9" * 30], f"seed: got {'9' * 30}, expected at most 9007199254740992"),
        (["--set", f"seed={'9' * 5000}"], "seed: got "),
        (["--set", "threads=1000000"], "threads: got 1000000, expected at most 1024"),
        (["--set", "data.workers=100000"], "data.workers: got 100000, expected 0 to 1024"),
        (["--set", "evaluation.bootstrap=1000000000"], "evaluation.bootstrap: got 1000000000, expected at"),
        (["--set", "evaluation.max_detections=100000000"], "evaluation.max_detections: got 100000000, exp"),
        (["--set", "name=../../../escaped"], "name: got '../../../escaped', expected a name without fold"),
        (["--set", "name=.."], "name: got '..', expected a name without folders"),
        (["--set", "name='a\\b'"], "expected a name without folders"),
    ],
)
def test_a_flag_that_cannot_be_used_is_refused(teach, tmp_path: Path, flags: list[str], says: str) -> None:
    assert_refused(teach(*flags), says, tmp_path)


def test_a_gpu_that_is_not_there_is_refused(teach, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert_refused(
        teach("--device", "cuda"), "got cuda, but torch sees 0 GPUs; expected cpu or auto", tmp_path
    )
    assert not (tmp_path / "run").exists()


def test_a_student_that_cannot_be_built_is_refused_before_the_teacher_is_trained(
    teach, tmp_path: Path
) -> None:
    ended = teach("--set", "student.train.image_size_px=60", command="run")
    assert_refused(ended, "student.train.image_size_px: got 60, expected a multiple of 16", tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[teacher.trian]\nsteps = 1", "teacher.trian: unknown key; did you mean train?"),
        ("seed = 'one'", "seed: got 'one', expected int"),
        ("steps = ", "cannot be read: "),
        ("{}", "cannot be read: "),
    ],
)
def test_a_pipeline_file_that_cannot_be_used_is_refused(
    deepmac, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "p.toml").write_text(text)
    ended = deepmac("run", tmp_path / "p.toml", "--out", tmp_path / "run")
    assert_refused(ended, f"{tmp_path / 'p.toml'}: {says}", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["p.toml"]


ENDS_WITHOUT_TORCH = """
import json, sys
from deepmac_distill.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as ended:
        assert ended.code == 2, (arguments, ended.code)
    assert "torch" not in sys.modules, arguments
"""


def test_a_mistake_in_a_pipeline_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[teacher.train]\nlr = 'fast'")
    given = ["--data", "anywhere", "--set"]
    commands = {
        f"{tmp_path / 'bad.toml'}: teacher.train.lr: got 'fast'": ["run", f"{tmp_path / 'bad.toml'}"],
        "gone.toml: no such pipeline file": ["run", f"{tmp_path / 'gone.toml'}"],
        "--set: wrong: unknown key": ["teach", *given, "wrong=1"],
        "--set: labels.soft: got 1, expected bool": ["pseudolabel", *given, "labels.soft=1"],
        "--set: student.model.mask_size: got 0": ["student", *given, "student.model.mask_size=0"],
        "--set: seed: got -1, expected at least 0": ["retention", *given, "seed=-1"],
        "evaluation.bootstrap: got 0": ["evaluate", *given, "evaluation.bootstrap=0"],
        "gone.safetensors: no such file; expected weights": [
            "evaluate",
            "--model",
            "gone.safetensors",
        ],
        "--box 1,2: expected four numbers": ["predict", "a.png", "--box", "1,2", "--model", "run"],
        "--cut: got 'best', expected a number, 0 <= cut < 1, or 'expected-iou'": [
            *("predict", "a.png", "--box", "1,1,9,9", "--model", "run", "--cut", "best")
        ],
        "--cut: got 1.0, expected a number": ["detect", "a.png", "--model", "run", "--cut", "1"],
    }
    program = [sys.executable, "-c", ENDS_WITHOUT_TORCH, json.dumps(list(commands.values()))]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    told = ended.stderr.splitlines()
    assert len(told) == len(commands)
    for line, says in zip(told, commands, strict=True):
        assert line.startswith("deepmac: ") and says in line


def test_an_output_directory_of_another_kind_is_refused_and_left_alone(teach, data: Path, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    assert_refused(teach(), f"{tmp_path / 'run'}: holds files but no run", tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]
    (tmp_path / "run" / "thesis.tex").unlink()
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("")
    assert_refused(teach(), "is a file; expected a run directory", tmp_path)


def test_a_stage_that_lacks_the_one_before_it_says_which(deepmac, teach, tmp_path: Path) -> None:
    assert_refused(
        teach(command="pseudolabel"),
        "no teacher/weights.safetensors; expected `deepmac teach --out",
        tmp_path,
    )
    given = ["--out", tmp_path / "run", "--set", "data.val_annotations=x.json"]
    assert_refused(
        deepmac("student", *given),
        "no pseudolabel/masks.parquet; expected `deepmac pseudolabel --out",
        tmp_path,
    )
    assert_refused(deepmac("evaluate", "student", *given), "no student/weights.safetensors", tmp_path)
    assert_refused(
        deepmac("evaluate", "--out", tmp_path / "run"), "run: no run there and no data named", tmp_path
    )
    ended = deepmac("compare", tmp_path, tmp_path / "run")
    assert_refused(
        ended, f"{tmp_path}: no evaluation; expected a folder that deepmac evaluate wrote", tmp_path
    )


def test_boxes_without_area_are_counted_by_default_and_refused_where_strict(
    teach, data: Path, tmp_path: Path
) -> None:
    raw = document()
    raw["annotations"][1]["bbox"] = [8, 8, 0, 16]
    (data / "train.json").write_text(json.dumps(raw))
    ended = teach("--set", "data.strict=true")
    assert_refused(ended, "annotation 3: bbox [8, 8, 0, 16] has no area; expected w > 0 and h > 0", tmp_path)
    assert teach().code == 0
    assert teach(command="pseudolabel").code == 0
    table = pq.read_table(tmp_path / "run" / "pseudolabel" / "masks.parquet").to_pylist()
    assert [row["status"] for row in table if row["annotation_id"] == 3] == ["degenerate"]
    assert json.loads((tmp_path / "run" / "select" / "counts.json").read_text())["unlabeled"] == 1


def test_a_mask_of_two_points_is_reported_and_labeled_like_a_box_without_one(
    teach, deepmac, data: Path, tmp_path: Path
) -> None:
    raw = document()
    raw["annotations"][0] |= {"segmentation": [[8, 8, 32, 24]], "iscrowd": None}
    raw["annotations"][2]["segmentation"].append([8, 8])
    (data / "train.json").write_text(json.dumps(raw))
    says = "annotation 2: segmentation: 1 of 1 polygon parts have fewer than 3 points, so no mask is left; "
    assert_refused(teach("--strict"), says, tmp_path)
    checked = deepmac("check", data / "train.json", "--seen", "cat")
    assert checked.code == 0 and says in checked.out and "0 errors, 2 warnings" in checked.out
    ended = teach()
    assert ended.code == 0 and "2 degenerate polygon parts, 1 unusable masks" in ended.err
    assert teach(command="pseudolabel").code == 0
    written = json.loads((tmp_path / "run" / "select" / "instances.json").read_text())["annotations"]
    by_id = {annotation["id"]: annotation for annotation in written}
    assert (by_id[2]["source"], by_id[4]["source"]) == ("teacher", "human")
    assert by_id[4]["segmentation"] == raw["annotations"][2]["segmentation"]


def test_an_unreadable_image_stops_labeling_by_default_and_has_rows_that_say_why_on_request(
    teach, data: Path, tmp_path: Path
) -> None:
    assert teach().code == 0
    broken("no image")(data / "images" / "3.png")
    ended = teach(command="pseudolabel")
    assert ended.code == 2 and f"deepmac: {data / 'images' / '3.png'}: cannot be decoded" in ended.err
    ended = teach("--set", "labels.on_unreadable=skip", command="pseudolabel")
    assert ended.code == 0, ended.err
    rows = pq.read_table(tmp_path / "run" / "pseudolabel" / "masks.parquet").to_pylist()
    assert len(rows) == 8
    lost = {row["annotation_id"]: row for row in rows if row["image_id"] == 3}
    assert (lost[6]["source"], lost[7]["source"]) == ("human", "none")
    assert lost[7]["status"] == "unreadable image" and "3.png: cannot be decoded" in lost[7]["reason"]


def weights_of_another_kind(kind: str, source: Path, path: Path) -> None:
    match kind:
        case "missing":
            return
        case "empty":
            path.write_bytes(b"")
        case "pickled":
            torch.save({"a": torch.zeros(1)}, path)
        case "of somebody else":
            save_file({"a": torch.zeros(1)}, path)
        case "truncated":
            path.write_bytes(source.read_bytes()[:-10])
        case "another architecture":
            card = read_card(source)
            save_weights(
                path, {"backbone.a": torch.zeros(1)}, replace(card, model=card.model | {"mask_width": 4})
            )
        case "an unknown model":
            save_weights(path, {}, replace(read_card(source), model={"backbone": "unheard of"}))


WEIGHTS = [
    ("missing", "no such file; expected "),
    ("empty", "not a safetensors file"),
    ("pickled", "not a safetensors file"),
    ("of somebody else", "format None, expected 'deepmac-distill weights 1'"),
    ("truncated", "not a safetensors file"),
    ("another architecture", "weight backbone.a: got (1,), expected nothing; another architecture?"),
    ("an unknown model", "model.backbone: got 'unheard of'"),
]


@pytest.mark.parametrize(("kind", "says"), WEIGHTS)
@pytest.mark.parametrize("command", ["pseudolabel", "evaluate", "predict"])
def test_weights_that_cannot_be_used_are_refused_by_name(
    chain, deepmac, tmp_path: Path, command: str, kind: str, says: str
) -> None:
    weights = tmp_path / "w.bin"
    weights_of_another_kind(kind, chain[0] / "teacher" / "weights.safetensors", weights)
    scenes = chain[0] / "scenes-val"
    data, seen = [scenes / "instances.json", scenes / "images"], ["--seen", ",".join(SEEN_SHAPES)]
    given = {
        "pseudolabel": ["--model", weights, "--annotations", data[0], "--images", data[1], *seen],
        "evaluate": ["--model", weights, "--val-annotations", data[0], "--val-images", data[1], *seen],
        "predict": [scenes / "images" / "000001.png", "--box", "1,1,9,9", "--model", weights],
    }[command]
    ended = deepmac(command, *given, "--out", tmp_path / "run")
    assert ended.code == 2, ended.err
    last = ended.err.splitlines()[-1]
    assert last.startswith("deepmac: ") and "w.bin" in last and says in last
    assert list(tmp_path.rglob("done.json")) == [] and ended.out == ""


def test_masks_that_belong_to_other_classes_are_refused_with_a_class_that_is_lacking(
    chain, teach, tmp_path: Path
) -> None:
    weights = tmp_path / "a mask for each class.safetensors"
    recipe = MaskRcnnConfig(
        backbone="tiny",
        backbone_width=8,
        fpn_channels=8,
        mask_channels=8,
        box_channels=8,
        anchor_sizes=(8, 16, 32, 64),
    )
    card = read_card(chain[0] / "teacher" / "weights.safetensors")
    model = build_model(recipe, len(card.class_names), load_weights=False)
    save_weights(weights, model.state_dict(), replace(card, model=asdict(recipe)))
    ended = teach("--model", str(weights), command="pseudolabel")
    weights.unlink()
    assert_refused(ended, "trained on 12 classes, the data has 2; the model lacks cat, kite", tmp_path)
    assert "expected boxes of its classes, or weights of a class-agnostic mask head" in ended.err


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ("1,2,3", "--box 1,2,3: expected four numbers x,y,w,h in pixels"),
        ("a,b,c,d", "--box a,b,c,d: expected four numbers"),
        ("1,1,inf,5", "--box 1,1,inf,5: expected four numbers"),
        ("nan,1,5,5", "--box nan,1,5,5: expected four numbers"),
        ("70,70,9,9", "000001.png: box [70.0, 70.0, 9.0, 9.0]: no area in the 64 x 64 image"),
        ("5,5,0,9", "000001.png: box [5.0, 5.0, 0.0, 9.0]: no area"),
        ("20,20,-5,9", "000001.png: box [20.0, 20.0, -5.0, 9.0]: no area"),
    ],
)
def test_a_box_that_cannot_be_used_is_refused(chain, deepmac, tmp_path: Path, box: str, says: str) -> None:
    image = chain[0] / "scenes-val" / "images" / "000001.png"
    ended = deepmac("predict", image, "--box", box, "--model", chain[0], "--out", tmp_path / "out")
    assert_refused(ended, says, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_image_to_predict_on_that_cannot_be_read_is_refused(chain, deepmac, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no")
    for name, says in (("a.png", "cannot be decoded"), ("b.png", "no such file"), (".", "cannot be decoded")):
        ended = deepmac("predict", tmp_path / name, "--box", "1,1,9,9", "--model", chain[0])
        assert_refused(ended, says, tmp_path)


def test_check_says_what_cannot_be_read_and_ends_with_two(deepmac, tmp_path: Path) -> None:
    ended = deepmac("check", tmp_path / "gone.json")
    assert ended.code == 2 and "gone.json: cannot be read" in ended.out


def test_a_model_card_has_every_key_of_a_model(chain) -> None:
    card = read_card(chain[0] / "teacher" / "weights.safetensors")
    implied = {"lattice"}  # named only where it is not the default, so that cards stay as they were
    assert card.model.keys() == set(DeepMacConfig.__dataclass_fields__) - implied


@pytest.mark.parametrize(
    ("hide", "says"),
    [
        ("tree", 'class to hide "tree": no seen class; expected one such as cat'),
        ("cat", "all seen classes are to be hidden; expected at least one to be left"),
        ("fold:2/2", "hide 'fold:2/2': expected fold:I/K with I < K and K from 2 to the number of seen"),
    ],
)
def test_what_cannot_be_hidden_is_refused(teach, tmp_path: Path, hide: str, says: str) -> None:
    assert_refused(teach("--hide", hide), says, tmp_path)
