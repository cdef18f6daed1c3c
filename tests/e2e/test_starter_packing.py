"""How the starter is made: its card, the list of its photographs, and the photographs it is measured on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import starter as packing
from deepmac_distill.errors import DataError
from deepmac_distill.weights.card import read_card

BY, BY_SA = packing.LICENSES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A COCO file of three photographs, with their licenses and addresses."""
    images = [
        {"id": i, "file_name": f"{i}.jpg", "license": i % 2, "flickr_url": f"flickr/{i}", "coco_url": "there"}
        for i in (3, 1, 2)
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "iscrowd": int(i == 3)}
        for i, image, category in ((1, 1, 7), (2, 1, 7), (3, 2, 9), (4, 3, 8))
    ]
    licenses = [{"id": 1, "url": BY}, {"id": 0, "url": BY_SA}, {"id": 5, "url": "http://by-nc"}]
    document = {"images": images, "annotations": annotations, "categories": [], "licenses": licenses}
    (tmp_path / "instances.json").write_text(json.dumps(document))
    return tmp_path


def test_the_package_gets_half_the_weights_and_every_source(chain, data: Path) -> None:
    weights = chain[0] / "teacher" / "weights.safetensors"
    packing.pack(weights, data, data / "package")
    assert {path.name for path in (data / "package").iterdir()} == {"weights.safetensors", "ATTRIBUTION.csv"}
    card = read_card(data / "package" / "weights.safetensors")
    assert "Trained on 3 photographs" in card.about
    assert "(2 CC BY 2.0 and 1 CC BY-SA 2.0; ATTRIBUTION.csv names each)" in card.about
    assert "the 3 masks of 2 classes" in card.about and "from scratch" in card.about
    assert card.class_names == read_card(weights).class_names
    with (data / "package" / "ATTRIBUTION.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file_name"], row["license"], row["photograph"]) for row in rows] == [
        ("1.jpg", "CC BY 2.0", "flickr/1"),
        ("2.jpg", "CC BY-SA 2.0", "flickr/2"),
        ("3.jpg", "CC BY 2.0", "flickr/3"),
    ]


@pytest.mark.parametrize(
    ("license", "says"), [(None, "2.jpg: got no license"), (5, "2.jpg: got http://by-nc, expected one of")]
)
def test_a_photograph_that_may_not_be_shared_stops_it(chain, data: Path, license, says: str) -> None:
    document = json.loads((data / "instances.json").read_text())
    document["images"][2]["license"] = license
    (data / "instances.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=says):
        packing.pack(chain[0] / "teacher" / "weights.safetensors", data, data / "package")
    assert not (data / "package").exists()


def test_what_was_seen_is_left_out_by_image_id(data: Path) -> None:
    everything = json.loads((data / "instances.json").read_text())
    everything["images"].append({"id": 4, "file_name": "4.jpg"})
    everything["annotations"].append({"id": 9, "image_id": 4})
    (data / "all.json").write_text(json.dumps(everything))
    packing.others(data / "all.json", data / "instances.json", data / "others.json")
    left = json.loads((data / "others.json").read_text())
    assert ([i["id"] for i in left["images"]], [a["id"] for a in left["annotations"]]) == ([4], [9])
    assert left["categories"] == everything["categories"]
