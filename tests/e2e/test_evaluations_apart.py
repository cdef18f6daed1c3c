"""Evaluations of other looks, cuts, data or boxes stand apart, and each says how it was made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.how_evaluated import HowEvaluated
from deepmac_distill.evaluation.results import to_json
from deepmac_distill.look import Look
from deepmac_distill.stages.compare import EvaluationRecord, require_one_way
from deepmac_distill.weights import starter
from deepmac_distill.weights.half import write_half

BOX = ["--box", "4,6,30,20"]
EVERY = ["--seen", ",".join(SEEN_SHAPES), "--set", "evaluation.bootstrap=20"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run(chain, deepmac, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose teacher is evaluated at another cut and look too."""
    folder = tmp_path_factory.mktemp("apart") / "run"
    shutil.copytree(chain[0], folder)
    for asked in (["--cut", "0.3"], ["--look", "mirror=true"]):
        ended = deepmac("evaluate", "teacher", "--out", folder, *asked)
        assert ended.code == 0, ended.err
    return folder


def test_another_cut_has_a_folder_of_its_own_and_is_not_kept(run: Path, deepmac) -> None:
    found = run / "evaluate-teacher-cut-0.3"
    assert read(found / "done.json")["inputs"]["labels.cut"] == 0.3
    assert read(found / "summary.json") != read(run / "evaluate-teacher" / "summary.json")
    assert read(run / "config.json")["labels"]["cut"] == "calibrated"
    same = deepmac("evaluate", "teacher", "--out", run, "--cut", "expected-iou")
    assert same.code == 0 and "evaluate-teacher: done before, skipped" in same.err
    refused = deepmac("evaluate", "teacher", "--out", run, "--cut", "1.5")
    assert refused.code == 2 and refused.err.splitlines()[-1] == (
        "deepmac: --cut: got 1.5, expected a number, 0 <= cut < 1, or 'expected-iou'"
    )


def test_each_evaluation_records_the_model_and_how_it_looked(run: Path) -> None:
    how = {name: read(run / name / "evaluation.json")["how"] for name in FOLDERS}
    assert [one["look"]["mirror"] for one in how.values()] == [False, False, True]
    assert [one["cut"] for one in how.values()] == ["expected-iou", 0.3, "expected-iou"]
    (identity,) = {one["identity"] for one in how.values()}
    assert identity == read(run / "teacher" / "done.json")["outputs"]["weights.safetensors"]


FOLDERS = ("evaluate-teacher", "evaluate-teacher-cut-0.3", "evaluate-teacher-mirror")


def test_a_comparison_names_what_differs_beside_the_models(run: Path, deepmac) -> None:
    own, cut, mirrored = (run / name for name in FOLDERS)
    looked, both = deepmac("compare", mirrored, own), deepmac("compare", mirrored, cut)
    assert "a and b looked differently: a: " in " ".join(looked.out.split())
    assert "a and b looked and were cut differently" in " ".join(both.out.split())
    assert f"a: {mirrored} (" in looked.out and "mirrored too, cut at expected-iou)" in looked.out
    ways = read_json(deepmac("compare", mirrored, own, "--json").out)["how"]
    assert [way["look"]["mirror"] for way in ways] == [True, False]
    alike = deepmac("compare", own, run / "evaluate-student")
    assert alike.code == 0 and "differently" not in alike.out


def read_json(text: str) -> Any:
    return json.loads(text)


def test_a_mean_over_seeds_is_of_one_way_to_look_and_to_cut(tmp_path: Path) -> None:
    ways = {
        "a": HowEvaluated("1" * 8, Look(), 0.5),
        "b": HowEvaluated("2" * 8, Look(), 0.5),
        "old": HowEvaluated(),
        "mirrored": HowEvaluated("3" * 8, Look(mirror=True), 0.5),
        "cut": HowEvaluated("4" * 8, Look(), "expected-iou"),
    }
    for name, how in ways.items():
        (tmp_path / name).mkdir()
        record = EvaluationRecord(annotations="", annotations_sha256="", seen=(), weights="", how=how)
        (tmp_path / name / "evaluation.json").write_text(json.dumps(to_json(record)))
    require_one_way([tmp_path / name for name in ("a", "b", "old")])
    for other in ("mirrored", "cut"):
        with pytest.raises(DataError, match=f"{other}: evaluated as .*; expected as .*a: 11111111, image"):
            require_one_way([tmp_path / "a", tmp_path / other])


def test_predict_records_how_and_cuts_as_the_run_does(run: Path, deepmac, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    kept = read(copy / "config.json")
    kept["labels"]["cut"] = 0.125
    (copy / "config.json").write_text(json.dumps(kept))
    image = run / "scenes-val" / "images" / "000001.png"
    for name, asked in (("own", []), ("asked", ["--cut", "0.25", "--look", "mirror=true"])):
        assert deepmac("predict", image, *BOX, "--model", copy, "--out", tmp_path / name, *asked).code == 0
    own, asked = (read(tmp_path / f"{name}.json") for name in ("own", "asked"))
    assert (own["info"]["cut"], own["annotations"][0]["cut"]) == (0.125, 0.125)
    assert (asked["info"]["cut"], asked["info"]["look"]["mirror"]) == (0.25, True)
    assert own["info"]["identity"] == read(run / "teacher" / "done.json")["outputs"]["weights.safetensors"]
    assert own["info"]["look"]["mirror"] is False and own["info"]["model"].endswith("weights.safetensors")
    given = ["--model", copy, "--out", tmp_path / "found", "--min-score", "0"]
    assert deepmac("detect", image, *given).code == 0
    assert read(tmp_path / "found" / "detections.json")["info"]["cut"] == 0.125


@pytest.fixture
def here(chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and a starter made of the chain's teacher."""
    monkeypatch.chdir(tmp_path)
    write_half(chain[0] / "teacher" / "weights.safetensors", tmp_path / "made" / "w.safetensors", "small")
    monkeypatch.setattr(starter, "WEIGHTS", tmp_path / "made" / "w.safetensors")
    return tmp_path


def of(scenes: Path) -> list[str]:
    return ["--val-annotations", str(scenes / "instances.json"), "--val-images", str(scenes / "images")]


def test_the_starter_is_evaluated_on_one_set_after_another(chain, deepmac, here: Path) -> None:
    """And a training file of the working directory that nobody named is not read."""
    Path("instances_train.json").write_text("no annotations")
    for name in ("scenes-val", "scenes-train"):
        ended = deepmac("evaluate", "starter", *of(chain[0] / name), *EVERY, "--out", "run")
        assert ended.code == 0, ended.err
    assert len(list(Path("run").glob("evaluate-*-on-*"))) == 2
    assert read(Path("run/config.json"))["data"]["train_annotations"] == ""
    refused = deepmac("teach", *EVERY, "--out", "other")
    assert refused.code == 2 and "data.train_annotations: got nothing, expected a COCO file" in refused.err


def test_a_file_named_starter_comes_first_and_is_noted(chain, deepmac, here: Path) -> None:
    shutil.copy(chain[0] / "student" / "weights.safetensors", "starter")
    note = "starter: is the file or folder of that name here, which comes before the starter of the package"
    of_val = [*of(chain[0] / "scenes-val"), *EVERY, "--out", "run"]
    for named in (["starter"], ["--model", "starter"]):
        ended = deepmac("evaluate", *named, *of_val)
        assert ended.code == 0 and ended.err.count(note) == 1, ended.err
    (folder,) = Path("run").glob("evaluate-*")
    student = read(chain[0] / "student" / "done.json")["outputs"]["weights.safetensors"]
    assert read(folder / "evaluation.json")["how"]["identity"] == student
    image = chain[0] / "scenes-val" / "images" / "000001.png"
    assert note in deepmac("predict", image, *BOX, "--model", "starter", "--out", "masks").err
    assert note not in deepmac("predict", image, *BOX, "--out", "masks").err


def test_noise_on_a_file_without_masks_is_refused(chain, deepmac, here: Path) -> None:
    bare = read(chain[0] / "scenes-val" / "instances.json")
    for annotation in bare["annotations"]:
        del annotation["segmentation"]
    Path("bare.json").write_text(json.dumps(bare))
    images = ["--val-images", str(chain[0] / "scenes-val" / "images")]
    noise = ["--box-noise", "0,10", "--out", "run"]
    ended = deepmac("evaluate", "starter", "--val-annotations", "bare.json", *images, *EVERY, *noise)
    assert ended.code == 2 and "bare.json: no mask that a person drew" in ended.err


def test_strengths_of_noise_have_folders_of_their_own(chain, deepmac, here: Path) -> None:
    scenes = chain[0] / "scenes-val"
    data = ["--val-annotations", str(scenes / "instances.json"), "--val-images", str(scenes / "images")]
    for strengths in ("0,10", "20"):
        noise = ["--box-noise", strengths, "--out", "run"]
        ended = deepmac("evaluate", "starter", *data, *EVERY, *noise)
        assert ended.code == 0, ended.err
        assert "image sampling only" in ended.out
    names = sorted(path.name.split("-", 3)[-1][12:] for path in Path("run").glob("box-noise-*"))
    assert names == ["0-10", "20"], names
