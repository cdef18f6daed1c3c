"""A small data set on disk, and `deepmac teach` on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refusals import document


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
