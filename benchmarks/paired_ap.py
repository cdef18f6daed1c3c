"""CPU seconds of the paired intervals of average precision that `report` and `compare` print, and memory.

    python benchmarks/paired_ap.py [--only "5,000 images, 80 classes"] [--hotcoco 5] [--json FILE]

Synthetic detections of two models, jittered truths among wrong ones, masks and boxes; 200 resamplings, splits
all, seen and unseen. `--hotcoco N` measures N resamplings of hotcoco's own comparison instead, which was used
before, and scales them to 200. Each set is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np

from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.devices import environment
from deepmac_distill.evaluation.average_precision import KINDS, RANKS, CocoTruth, Detection
from deepmac_distill.evaluation.paired_precision import compare_average_precision
from deepmac_distill.evaluation.splits import split_classes
from deepmac_distill.files import write_json
from deepmac_distill.geometry.rle import encode_boxes
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Table, columns, names

HEIGHT, WIDTH, RESAMPLES = 480, 640, 200


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is to evaluate."""

    images: int
    classes: int
    objects: int = 7  # an image
    detections: int = 100  # an image


SETS = {"5,000 images, 80 classes": Size(5000, 80), "4 images, 1,203 classes": Size(4, 1203)}


@dataclass(frozen=True, slots=True)
class Cost:
    """What one comparison of two models costs."""

    cpu_seconds: float
    peak_mib: float  # of the whole process
    hotcoco_resamples: int = 0  # so many were measured of hotcoco's own, and scaled


def make_truth(size: Size, rng: np.random.Generator) -> dict[str, Any]:
    """COCO JSON of boxes with a rectangle as mask; frequent classes and rare ones, as in photographs."""
    n = size.images * size.objects
    extent = rng.uniform(8, 200, (n, 2))
    boxes = np.concatenate([rng.uniform(0, 1, (n, 2)) * ([WIDTH, HEIGHT] - extent), extent], axis=1)
    codes = masks_of(boxes)
    classes = rng.choice(size.classes, n, p=frequencies(size.classes)) + 1
    return {
        "images": [
            {"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.jpg"} for i in range(size.images)
        ],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, size.classes + 1)],
        "annotations": [
            {
                **{"id": at + 1, "image_id": at // size.objects, "category_id": int(classes[at])},
                **{"bbox": boxes[at].tolist(), "area": float(extent[at].prod()), "iscrowd": 0},
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": codes[at].decode()},
            }
            for at in range(n)
        ],
    }


def make_detections(truth: Mapping[str, Any], size: Size, rng: np.random.Generator) -> list[Detection]:
    """Of each image three shots at each object, 70 % of them of its class, and boxes at random."""
    n = size.images * size.detections
    image, turn = np.divmod(np.arange(n), size.detections)
    of_object = np.minimum(image * size.objects + turn % size.objects, len(truth["annotations"]) - 1)
    boxes = np.array([a["bbox"] for a in truth["annotations"]])[of_object]
    boxes = boxes + np.tile(boxes[:, 2:], 2) * rng.normal(0, 0.08, (n, 4))
    extent = rng.uniform(8, 200, (n, 2))
    elsewhere = np.concatenate([rng.uniform(0, 1, (n, 2)) * ([WIDTH, HEIGHT] - extent), extent], axis=1)
    aimed = turn < 3 * size.objects
    boxes = np.where(aimed[:, None], boxes, elsewhere)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 2)
    classes = rng.choice(size.classes, n, p=frequencies(size.classes)) + 1
    named = np.array([a["category_id"] for a in truth["annotations"]])[of_object]
    classes = np.where(aimed & (rng.random(n) < 0.7), named, classes)
    scores = rng.random(n) * np.where(aimed, 1.0, 0.5)
    codes = masks_of(boxes)
    return [
        {
            **{"image_id": int(image[at]), "category_id": int(classes[at]), "score": float(scores[at])},
            **{"bbox": boxes[at].tolist(), "segmentation": {"size": [HEIGHT, WIDTH], "counts": codes[at]}},
        }
        for at in range(n)
    ]


def masks_of(boxes: np.ndarray) -> list[bytes]:
    """Run-length codes of (N, 4) boxes of corner and size, as masks; some at a time, for the memory."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    parts = np.array_split(corners, max(1, len(corners) // 2000))
    return [code for part in parts for code in encode_boxes(part, HEIGHT, WIDTH)]


def frequencies(classes: int) -> np.ndarray:
    """A few classes are frequent and many are rare."""
    shares = np.arange(1, classes + 1) ** -0.7
    return shares / shares.sum()


def cost(size: Size, hotcoco_resamples: int) -> Cost:
    """Make the set, then measure the comparison of masks and of boxes."""
    rng = np.random.default_rng(0)
    data = make_truth(size, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        seen = [row["name"] for row in data["categories"][::2]]
        truth = Dataset.open(path, seen=seen).for_evaluation()
    a, b = (make_detections(data, size, rng) for _ in range(2))
    seconds = 0.0
    for kind in KINDS:
        masks, began = CocoTruth.of(truth, kind), time.process_time()
        if hotcoco_resamples:
            compare_with_hotcoco(masks, a, b, hotcoco_resamples)
        else:
            compare_average_precision(masks, [a], [b], resamples=RESAMPLES)
        seconds += time.process_time() - began
    seconds *= RESAMPLES / (hotcoco_resamples or RESAMPLES)
    return Cost(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, hotcoco_resamples)


def compare_with_hotcoco(truth: CocoTruth, a: list[Detection], b: list[Detection], resamples: int) -> None:
    """What this project did before: a comparison of each split."""
    ids, found = np.array(truth.truth.classes.category_ids), [truth.found(one) for one in (a, b)]
    for _, members in split_classes(truth.truth.classes).items():
        both = [truth.matched(one, RANKS, ids[members].tolist()) for one in found]
        hotcoco.compare(*both, n_bootstrap=resamples, seed=0)


def page(recorded: Mapping[str, Any]) -> str:
    """Markdown: what a comparison costs, beside hotcoco's own."""
    before = recorded.get("hotcoco", {})
    table = Table(
        "",
        (
            *names("set"),
            *columns("figure", ("CPU seconds", "peak MiB", "hotcoco's own: CPU seconds", "peak MiB")),
        ),
        tuple((name, *_cells(found), *_cells(before.get(name))) for name, found in recorded["costs"].items()),
    )
    scaled = {row["hotcoco_resamples"] for row in before.values()}
    note = f" hotcoco's own is {max(scaled)} resamplings, scaled." if scaled else ""
    return (
        f"{markdown_table(table)}\n\n"
        f"`python benchmarks/paired_ap.py --json benchmarks/results/paired_ap.json`: masks and boxes, "
        f"{RESAMPLES} resamplings, 100 detections an image, peak of the whole process; "
        f"{recorded['environment']['processor']}.{note}"
    )


def _cells(found: Mapping[str, Any] | None) -> tuple[str | None, ...]:
    return (None, None) if found is None else (f"{found['cpu_seconds']:.1f}", f"{found['peak_mib']:,.0f}")


def main() -> int:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=SETS, action="append")
    parser.add_argument("--hotcoco", type=int, default=0, metavar="RESAMPLES")
    parser.add_argument("--json", type=Path, help="keep the figures here, beside those that are there")
    given = parser.parse_args()
    costs = {}
    for name in given.only or SETS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            costs[name] = asdict(pool.apply(cost, (SETS[name], given.hotcoco)))
        print(f"{name}: {costs[name]}")
    if given.json:
        kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else {}
        part = "hotcoco" if given.hotcoco else "costs"
        kept = {**kept, "environment": environment(), part: {**kept.get(part, {}), **costs}}
        write_json(given.json, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
