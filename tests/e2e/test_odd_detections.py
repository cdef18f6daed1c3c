"""`deepmac compare` on detections of a stranger: a file of another shape is one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"{}",
        b"[{}]",
        b"[null]",
        b"\xff",
        b'[{"image_id": 1, "category_id": 1, "score": "high", "bbox": [1, 2, 3, 4]}]',
        b'[{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 2, 3]}]',
    ],
)
def test_detections_of_another_shape_are_refused_by_name(
    run_copy: Callable[..., Path], deepmac, content: bytes
) -> None:
    run = run_copy()
    path = run / "evaluate-student" / "detections.json"
    path.write_bytes(content)
    ended = deepmac("compare", run / "evaluate-teacher", run / "evaluate-student")
    assert ended.code == 2 and ended.err.splitlines()[-1].startswith(f"deepmac: {path}: "), ended.err
