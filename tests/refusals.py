"""A small data set that tests break, and how a command refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def assert_refused(ended: Any, says: str, folder: Path) -> None:
    """Code 2, one line of ours at the end, nothing of Python's, and no results."""
    assert ended.code == 2, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("deepmac: ")]
    assert lines == ended.err.splitlines()[-1:]
    assert says in lines[0]
    assert "Traceback" not in ended.err and ended.out == ""
    assert list(folder.rglob("done.json")) == list(folder.rglob("*.safetensors")) == []
