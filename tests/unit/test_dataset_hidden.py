from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import TrainingView
from small_coco import box, plain, read

# pycocotools.mask.decode predates numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_no_byte_of_a_hidden_mask_goes_to_another_process(tmp_path: Path) -> None:
    document = plain()
    corner = 30.015625
    for entry, area in zip(document["annotations"], (123.25, 456.5, 0), strict=True):
        entry |= {"segmentation": [[10, 10, corner + entry["id"], 10, 20, 30]], "area": area} if area else {}
    view = read(tmp_path, document)
    sent = pickle.dumps(view)
    hidden, shown = document["annotations"][:2]
    for entry, there in ((hidden, False), (shown, True)):
        assert (struct.pack("<d", corner + entry["id"]) in sent) is there
        assert (struct.pack("<d", entry["area"]) in sent) is there
    again = pickle.loads(sent)
    assert isinstance(again, TrainingView) and again.annotations.equals(view.annotations)


def test_a_mask_of_an_unseen_class_and_its_area_are_hidden(tmp_path: Path) -> None:
    hidden, shown = read(tmp_path, plain()), read(tmp_path, plain(), hide_unseen=False)
    assert hidden.has_mask().tolist() == [False, True, False]
    assert hidden.annotations["area"].to_pylist() == [None, 400, None]
    assert hidden.annotations["source"].to_pylist() == ["none", "human", "none"]
    assert shown.has_mask().tolist() == [False, True, True]
    assert shown.annotations["area"].to_pylist() == [None, 400, 400]


def test_hidden_masks_leave_no_trace_in_the_hash_even_where_they_are_garbage(tmp_path: Path) -> None:
    clean = read(tmp_path, plain())
    for garbage in ([[1, 2, 3]], {"size": [1, 1], "counts": "??"}, "nonsense", None):
        document = plain()
        document["annotations"][0] |= {"segmentation": garbage, "area": 1e9}
        assert read(tmp_path, document).fingerprint == clean.fingerprint
    document["annotations"][1]["segmentation"] = [[10, 10, 30, 10, 30, 31]]
    assert read(tmp_path, document).fingerprint != clean.fingerprint


def test_a_teachers_mask_of_an_unseen_class_is_ours_to_see(tmp_path: Path) -> None:
    document = plain(deepmac_distill={})
    document["annotations"][0] |= {"source": "teacher", "mask_score": 0.75}
    found = read(tmp_path, document)
    assert found.has_mask().tolist() == [False, True, True]
    assert found.annotations["source"].to_pylist() == ["none", "human", "teacher"]
    assert found.annotations["mask_score"].to_pylist() == [None, None, 0.75]


def test_raw_json_has_lost_hidden_masks_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(plain()))
    expected = plain()
    del expected["annotations"][0]["segmentation"], expected["annotations"][0]["area"]
    assert Dataset.open(path, seen="cat").for_training().document() == expected
    assert Dataset.open(path, seen="cat").for_evaluation().document() == plain()


LINE, TRIANGLE = [1.0, 1.0, 5.0, 1.0], [1.0, 1.0, 5.0, 1.0, 5.0, 5.0]


def test_degenerate_parts_of_hidden_masks_are_not_even_counted(tmp_path: Path) -> None:
    document = plain()
    document["annotations"][0]["segmentation"] = [LINE]
    assert read(tmp_path, document).counts == read(tmp_path, plain()).counts
    assert read(tmp_path, document, hide_unseen=False).counts["degenerate_polygon_parts"] == 1


def test_the_hash_tells_what_is_seen(tmp_path: Path) -> None:
    document = plain(annotations=[box(1)])
    assert read(tmp_path, document).fingerprint != read(tmp_path, document, "all").fingerprint
