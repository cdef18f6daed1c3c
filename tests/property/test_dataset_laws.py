from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.chunk import Places, chunk_of
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.findings import annotation_findings, has_pixels
from deepmac_distill.dataset.polygons import POLYGONS, FlatPolygons
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.printable import printable

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner)
    ),
    max_leaves=8,
)
sides = st.floats(-80, 80) | st.just(0.0)


def document(annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 30, "width": 50} for i in range(3)],
        "categories": [{"id": 4, "name": "yak"}, {"id": 9, "name": "cat"}],
        "annotations": annotations,
    }


def read(value: Any, seen: str = "cat") -> Annotations:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(value))
        return Dataset.open(path, seen=seen).for_training()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda image_id, category_id, bbox: {
                "image_id": image_id,
                "category_id": category_id,
                "bbox": bbox,
            },
            st.integers(0, 2),
            st.sampled_from([4, 9]),
            st.tuples(sides, sides, sides, sides),
        ),
        max_size=8,
    )
)
def test_rows_out_are_boxes_in_and_ok_boxes_have_area_inside_the_image(boxes: list[dict[str, Any]]) -> None:
    assume(not any(min(box["bbox"]) >= 0 and max(box["bbox"]) <= 1 for box in boxes))  # no shares of images
    found = read(document([box | {"id": 100 - i} for i, box in enumerate(boxes)]))
    assert sorted(found.annotations["annotation_id"].to_pylist()) == sorted(
        100 - i for i in range(len(boxes))
    )
    offsets = found.rows_by_image()
    for image_id, start, end in zip(range(3), offsets, offsets[1:], strict=False):
        assert set(found.annotations["image_id"].to_pylist()[start:end]) <= {image_id}
    xyxy = found.boxes_xyxy()
    assert ((xyxy >= 0) & (xyxy <= [50, 30, 50, 30])).all()
    usable = np.array([status == "ok" for status in found.annotations["status"].to_pylist()], dtype=bool)
    assert np.array_equal(usable, (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1))


@settings(max_examples=60, deadline=None)
@given(json_values, json_values)
def test_unseen_masks_cannot_leak_whatever_they_hold(segmentation: Any, area: Any) -> None:
    box = {"id": 1, "image_id": 0, "category_id": 4, "bbox": [1, 2, 3, 4]}
    garbage = read(document([box | {"segmentation": segmentation, "area": area}]))
    assert garbage.fingerprint == read(document([box])).fingerprint


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["images", "categories", "annotations"]),
    st.sampled_from(
        ["id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "name", "height"]
    ),
    json_values,
)
def test_any_value_anywhere_is_read_or_refused_and_check_agrees(table: str, key: str, value: Any) -> None:
    full = document([{"id": 1, "image_id": 0, "category_id": 9, "bbox": [1, 2, 3, 4]}])
    full[table][0][key] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(full))
        errors = [str(problem) for problem in find_problems(path, "cat") if problem.level == "error"]
        try:
            Dataset.open(path, seen="cat").for_training()
            assert not errors
        except DataError as error:
            assert str(error) in [printable(one) for one in errors]
            assert "\n" not in str(error)


def places(count: int) -> Places:
    """Annotations of an image of 30 x 50 (H x W), whose image and category are known."""
    numbers, known = np.arange(count), np.ones(count, dtype=bool)
    return Places(numbers, numbers, numbers * 0, numbers * 0, np.full((count, 2), [30, 50]), known, known)


points = st.lists(st.floats(-90, 90) | st.integers(-9, 60) | json_values, max_size=8)
annotations = st.fixed_dictionaries(
    {},
    optional={
        "bbox": st.lists(sides, min_size=4, max_size=4) | json_values,
        "segmentation": st.lists(points, max_size=3) | json_values,
        "area": json_values,
        "iscrowd": st.integers(0, 2) | json_values,
        "mask_score": json_values,
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(annotations, max_size=5))
def test_screening_suspects_every_annotation_that_the_rules_find_fault_with(
    entries: list[dict[str, Any]],
) -> None:
    chunk = chunk_of(entries, places(len(entries)))
    expected = [
        (row, finding)
        for row, entry in enumerate(entries)
        for finding in annotation_findings(entry, (30, 50), known_image=True, known_category=True)
    ]
    assert chunk.findings == expected
    for row, finding in expected:
        if finding.message.startswith("segmentation") and finding.level == "error":
            assert not chunk.rows["polygons"][row].is_valid and not chunk.rows["rle_counts"][row].is_valid


coordinate = st.integers(0, 100).map(lambda value: value / 2) | st.floats(-20, 70)
polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7)


@settings(max_examples=300, deadline=None)
@given(st.lists(polygon, min_size=1, max_size=3))
def test_a_polygon_that_is_surely_drawn_covers_a_pixel(polygons: list[list[tuple[float, float]]]) -> None:
    parts = [[float(value) for point in part for value in point] for part in polygons]
    flat = FlatPolygons.of(pa.array([parts], POLYGONS))
    [sure] = flat.surely_drawn(np.array([[30, 50]])).tolist()
    assert has_pixels(parts, 30, 50) or not sure
