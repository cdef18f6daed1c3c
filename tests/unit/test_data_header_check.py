"""Headers and last bytes of images are read in seconds, each once, before anything works on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmac_distill.data import header_check
from deepmac_distill.data.header_check import require_readable
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.images import require_whole
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.errors import DataError
from deepmac_distill.progress import Silent

KINDS = ("jpg", "png", "webp", "gif", "bmp", "tif")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def images_of(folder: Path, count: int) -> tuple[Annotations, ImageFolder]:
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(1, count + 1)]
    for image in images:
        Image.fromarray(PIXELS + np.uint8(image["id"])).save(folder / image["file_name"])
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "a.json").write_text(json.dumps(document))
    return Dataset.open(folder / "a.json", seen="all").for_training(), ImageFolder(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_image_of_every_format_is_taken_and_a_cut_one_is_not(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    Image.fromarray(PIXELS).save(path)
    require_whole(path, size=(40, 60))
    with pytest.raises(DataError, match="image is 40 x 60"):
        require_whole(path, size=(60, 40))
    content = path.read_bytes()
    if kind != "tif":  # its pixels may be anywhere
        path.write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(DataError, match="cannot be decoded"):
            require_whole(path, size=(40, 60))
    path.write_bytes(content + b"\0" * 40)  # as cameras append
    require_whole(path, size=(40, 60))


def test_what_was_looked_at_is_not_again_and_the_next_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotations, images = images_of(tmp_path, 5)
    monkeypatch.setenv("DEEPMAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(header_check, "_LOOKED_AT", 2)
    looked_at: list[str] = []
    whole = ImageFolder.require_whole

    def counted(self: ImageFolder, name: str, height: int, width: int) -> None:
        looked_at.append(name)
        whole(self, name, height, width)

    monkeypatch.setattr(ImageFolder, "require_whole", counted)
    ticks = iter([0.0, 0.5, 2.0])  # the second look at the clock finds the time over
    notes = Notes()
    with monkeypatch.context() as patch:
        patch.setattr(header_check.time, "monotonic", lambda: next(ticks))
        require_readable(annotations, images, notes, seconds=1.0)
    assert len(looked_at) == 2 and "the headers of 2 of 5 images were read so far" in notes.lines[0]
    require_readable(annotations, images, notes)
    assert sorted(looked_at) == [f"{i}.png" for i in range(1, 6)] and len(notes.lines) == 1
    require_readable(annotations, images, notes)
    assert len(looked_at) == 5
    (tmp_path / "3.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"3\.png: cannot be decoded"):
        require_readable(annotations, images, notes)
