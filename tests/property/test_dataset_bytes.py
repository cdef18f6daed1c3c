"""Files that nobody wrote on purpose: any bytes are read, or refused by an error of ours."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from deepmac_distill.dataset.check import find_problems
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.findings import runs_of
from deepmac_distill.dataset.repeated_keys import key_twice
from deepmac_distill.errors import DataError

HEIGHT, WIDTH = 12, 9
SOUND = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [1, 1, 6, 7],
                "segmentation": [[1, 1, 7, 1, 7, 8]],
            },
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 6, 7], "iscrowd": 1}
            | {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [20, 5, 83]}},
        ],
    }
).encode()
edits = st.lists(
    st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 4), st.binary(max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(edits)
def test_mutated_files_are_read_or_refused_and_check_agrees(changes: list[tuple[int, int, bytes]]) -> None:
    content = bytearray(SOUND)
    for at, removed, put in changes:
        content[at : at + removed] = put
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        path.write_bytes(content)
        errors = [problem for problem in find_problems(path, "all") if problem.level == "error"]
        try:
            Dataset.open(path, seen="all").for_evaluation().document()
            assert errors == []
        except DataError as error:
            assert errors and "\n" not in str(error)


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet=[chr(code) for code in range(40, 120)], max_size=12)
    | st.lists(st.integers(), max_size=5)
)
def test_codes_are_refused_or_are_those_of_pycocotools(counts: Any) -> None:
    rle = {"size": [HEIGHT, WIDTH], "counts": counts}
    try:
        runs = runs_of(rle, HEIGHT, WIDTH)
    except ValueError:
        return
    code = rle if isinstance(counts, str) else coco_mask.frPyObjects(rle, HEIGHT, WIDTH)
    pixels = np.repeat(np.arange(len(runs)) % 2, runs)
    assert np.array_equal(coco_mask.decode(code).T.ravel(), pixels)


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.sampled_from(["a:b", ":", '"', "\u00e9"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=3), values, min_size=1, max_size=4), st.booleans(), st.data())
def test_a_key_that_stands_twice_is_found_and_no_other(
    entry: dict[str, Any], ascii_only: bool, data: st.DataObject
) -> None:
    text = json.dumps(entry, ensure_ascii=ascii_only)
    assert key_twice(text.encode(), entry) is None
    key = data.draw(st.sampled_from(sorted(entry)))
    twice = f"{{{json.dumps(key)}: {json.dumps(data.draw(values))}, {text[1:]}"
    assert key_twice(twice.encode(), json.loads(twice)) == key
