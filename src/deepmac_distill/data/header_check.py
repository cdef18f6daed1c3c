"""Images looked at in seconds before hours of work: each by its header and its last bytes."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from deepmac_distill.data.image_check import images_sha256
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.data.images import without_warnings
from deepmac_distill.dataset.cache import read_checked, write_checked
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.files import sha256_of_json
from deepmac_distill.progress import Progress
from deepmac_distill.storage.copies import cache_folder

SECONDS = 10.0  # for one set; some 100,000 headers from a disk that has them in memory
AT_ONCE = 8  # images that wait for the disk together
_LOOKED_AT = 256  # between two looks at the clock
Row = tuple[str, int, int]  # file name, height and width by the annotations


def require_readable(
    annotations: Annotations, images: ImageStore, progress: Progress, seconds: float = SECONDS
) -> None:
    """Refuse a set with an image that is none, is cut off, or has another size than its annotations give.

    Where the time is not enough for all, they are taken in an order by chance, always the same, and the next
    command goes on where this one ended. What was looked at is not looked at again until a file changes.

    Raises:
        DataError: names such an image, or one that is missing.
    """
    images_sha256(annotations, images)  # they are all there
    columns = (annotations.images[name].to_pylist() for name in ("file_name", "height", "width"))
    rows: list[Row] = list(zip(*columns, strict=True))
    random.Random(0).shuffle(rows)  # files of one folder often have one fault
    of = sha256_of_json([images.state_of([name for name, _, _ in rows]), rows, images.max_megapixels])
    kept = cache_folder() / "headers" / f"{sha256_of_json([images.absolute(), str(annotations.path)])}.json"
    known = (read_checked(kept) if kept.is_file() else None) or {}
    done = int(known["done"]) if known.get("of") == of else 0
    looked_at = done + _look(rows[done:], images, seconds)
    if looked_at > done:
        _keep(kept, {"of": of, "done": looked_at})
    if looked_at < len(rows):
        progress.note(
            f"{images}: the headers of {looked_at} of {len(rows)} images were read so far, and are sound; "
            "the others are read as they come (deepmac check --images decodes all)"
        )


def _look(rows: Sequence[Row], images: ImageStore, seconds: float) -> int:
    """How many images were looked at in this time."""
    ends, looked_at, waiting = time.monotonic() + seconds, 0, iter(rows)

    with without_warnings(), ThreadPoolExecutor(AT_ONCE) as threads:  # whose own settings cross each other
        while time.monotonic() < ends and (some := list(islice(waiting, _LOOKED_AT))):
            for _ in threads.map(lambda row: images.require_whole(*row), some):
                looked_at += 1
    return looked_at


def _keep(kept: Path, value: dict[str, object]) -> None:
    try:
        write_checked(kept, value)
    except OSError:  # a cache that cannot be written costs time alone
        return
