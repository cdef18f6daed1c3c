"""`deepmac import-masks`: what people corrected in another tool is learned from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pycocotools.coco import COCO

import deepmac_distill


@pytest.fixture
def corrected(chain, deepmac, tmp_path: Path) -> Path:
    """The masks of a run as a tool gives them back: the first of a teacher made a rectangle."""
    out = tmp_path / "exported.json"
    assert deepmac("export", chain[0], "-f", "coco-polygons", "--out", out).code == 0
    document = json.loads(out.read_text())
    del document["deepmac_distill"]
    first = next(one for one in document["annotations"] if one["source"] == "teacher")
    x, y, w, h = first["bbox"]
    first["segmentation"] = [[x, y, x + w, y, x + w, y + h / 2, x, y + h / 2]]
    for one in document["annotations"]:
        del one["source"], one["mask_score"]
    (tmp_path / "corrected.json").write_text(json.dumps(document))
    return tmp_path / "corrected.json"


def test_a_student_learns_from_corrected_masks(
    chain, deepmac, run_copy, corrected: Path, tmp_path: Path
) -> None:
    run, out = run_copy("student", "evaluate-student", "report"), tmp_path / "out.json"
    ended = deepmac("import-masks", corrected, "--into", run, "--out", out)
    assert ended.code == 0, ended.err
    before, after = COCO(str(run / "select" / "instances.json")), COCO(str(out))
    total = len(before.anns)
    assert (
        f"out.json: 1 masks changed, 0 new (0 in boxes without one, 0 objects), {total - 1} unch" in ended.out
    )
    changed = [id for id in before.anns if before.anns[id]["source"] != after.anns[id]["source"]]
    assert len(changed) == 1 and after.anns[changed[0]]["source"] == "human"
    assert deepmac("check", out).code == 0
    ended = deepmac("student", "--out", run, "--labels", out)
    assert ended.code == 0 and (run / "student" / "weights.safetensors").exists(), ended.err
    done = deepmac_distill.Run(run).import_masks(corrected, tmp_path / "again.json")
    assert (done.changed, done.unchanged) == (1, total - 1)
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["FILE", "--into", "RUN"], "import-masks: missing option '--out'"),
        (["FILE", "--out", "o.json"], "import-masks: missing option '--into'"),
        (["gone.json", "--into", "RUN", "--out", "o.json"], "gone.json: cannot be read"),
        (["FILE", "--into", "gone", "--out", "o.json"], "gone: nothing there; expected a run directory or"),
        (
            ["FILE", "--into", "FILE", "--out", "FILE"],
            "corrected.json: is there already; expected a new path",
        ),
        (
            ["FILE", "--into", "empty", "--out", "o.json"],
            "empty: no select/instances.json; expected `deepmac",
        ),
        (
            ["other.json", "--into", "RUN", "--out", "o.json"],
            "other.json: none of its images is in the data set",
        ),
        (["list.json", "--into", "RUN", "--out", "o.json"], "list.json: got list, expected a JSON object"),
        (["panoptic.json", "--into", "RUN", "--out", "o.json"], "datum convert -if coco_panoptic -i . -f"),
    ],
)
def test_what_cannot_be_taken_back_is_one_line(
    chain, deepmac, corrected: Path, tmp_path: Path, monkeypatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("list.json").write_text("[]")
    document = json.loads(corrected.read_text())
    for image in document["images"]:
        image["file_name"] = "other-" + image["file_name"]
    Path("other.json").write_text(json.dumps(document))
    segments = [{"image_id": image["id"], "segments_info": []} for image in document["images"]]
    Path("panoptic.json").write_text(json.dumps(document | {"annotations": segments}))
    given = {"FILE": corrected, "RUN": chain[0]}
    kept = corrected.read_bytes()
    ended = deepmac("import-masks", *(given.get(word, word) for word in arguments))
    assert (ended.code, ended.out) == (2, "") and says in ended.err.splitlines()[-1]
    assert corrected.read_bytes() == kept and not Path("o.json").exists()
    shutil.rmtree("empty")


def test_images_that_lack_their_size_have_that_of_the_data_set(
    chain, deepmac, corrected: Path, tmp_path: Path
) -> None:
    document = json.loads(corrected.read_text())
    for image in document["images"]:  # as Label Studio writes images without objects
        image |= {"width": None, "height": None, "file_name": f"/data/upload/0123abcd-{image['file_name']}"}
    corrected.write_text(json.dumps(document))
    ended = deepmac("import-masks", corrected, "--into", chain[0], "--out", tmp_path / "out.json")
    assert ended.code == 0 and "out.json: 1 masks changed, 0 new" in ended.out, ended.err
