"""How long another cut of a label file takes, beside the codec alone, and how much memory.

    python benchmarks/relabel.py [--masks 100000] [--json relabel.json]

Soft masks over boxes of about 5 % of a 640 x 480 image, 500 rows in a row group as in a run's file. The file
is labeled by the rule that cuts each mask at its own best, and read at a number; and the other way round.
`codec` is the time to encode the same grids at the same cuts, already in memory, 500 at a call.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from codec import HEIGHT, WIDTH, make_boxes, make_grids
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.geometry.boxes import xyxy_to_xywh
from deepmac_distill.geometry.rle import encode_grids
from deepmac_distill.labels.cut import EXPECTED_IOU, Cut, box_ious, recut
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.labels.rules import Rules
from deepmac_distill.labels.table import label_table, label_writer

UNIT, NUMBER = 500, 0.4


def make_units(masks: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Grids and boxes of one row group after the other."""
    rng = np.random.default_rng(0)
    pool = (make_grids(rng, 4 * UNIT) * 255).round().astype(np.uint8)
    for _ in range(masks // UNIT):
        yield pool[rng.integers(0, len(pool), UNIT)], make_boxes(rng, UNIT)


def unit_table(unit: int, grids: np.ndarray, boxes: np.ndarray, cut: Cut) -> pa.Table:
    """Label rows, as labeling writes them, at a cut."""
    n = len(grids)
    sizes = np.tile([HEIGHT, WIDTH], (n, 1))
    masks = recut(grids, boxes, sizes, cut, lattice="centers")
    same = {"source": "teacher", "status": "labeled", "reason": "", "category_name": "yak"}
    return label_table(
        {
            "annotation_id": np.arange(n) + unit * n,
            "image_id": np.full(n, unit),
            "file_name": [f"{unit:012}.jpg"] * n,
            "category_id": np.ones(n, np.int32),
            "bbox": xyxy_to_xywh(boxes).tolist(),
            "height": sizes[:, 0],
            "width": sizes[:, 1],
            **{name: [value] * n for name, value in same.items()},
            "rle_counts": masks.counts,
            "cut": masks.cuts,
            "soft": [grid.tobytes() for grid in grids],
            "soft_size": np.full(n, grids.shape[-1]),
            "mask_area": masks.areas,
            "mask_score": masks.scores,
            "mask_bbox_iou": box_ious(masks.tight_boxes, boxes),
            "expected_iou": masks.expected_iou,
        }
    )


def measure(masks: int, path: Path, labeled: Cut, asked: Cut) -> dict[str, str | float]:
    """Seconds of process CPU time for each way to read the file, and the growth of the largest memory."""
    codec, sizes = 0.0, np.tile([HEIGHT, WIDTH], (UNIT, 1))
    with label_writer(path, {}) as writer:
        for unit, (grids, boxes) in enumerate(make_units(masks)):
            cuts = recut(grids, boxes, sizes, asked, lattice="centers").cuts
            start = time.process_time()
            encode_grids(grids, boxes, HEIGHT, WIDTH, cuts)
            codec += time.process_time() - start
            writer.write(unit_table(unit, grids, boxes, labeled))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    accepted = Rules().accept(Labels.open(path).with_cut(asked).table)
    relabel = time.process_time() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    start = time.process_time()
    _ = Labels.open(path).with_cut(labeled).table
    read = time.process_time() - start
    return {
        "cut": str(asked),
        "masks": len(accepted),
        "file_mb": path.stat().st_size / 1e6,
        "codec_s": codec,
        "relabel_s": relabel,
        "relabel_over_codec": relabel / codec,
        "read_and_check_s": read,
        "memory_grown_mb": grown / 1e3,
    }


def main() -> None:
    """Measure, print, and write JSON when asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--masks", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = []
    for labeled, asked in ((EXPECTED_IOU, NUMBER), (NUMBER, EXPECTED_IOU)):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(args.masks, Path(folder) / "masks.parquet", labeled, asked))
        for name, value in found[-1].items():
            print(f"{name:20}{value if isinstance(value, str) else format(value, ',.2f'):>14}")
    if args.json:
        write_json(args.json, {"environment": environment(), "runs": found})


if __name__ == "__main__":
    main()
