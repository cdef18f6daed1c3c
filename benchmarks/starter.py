"""The starter that travels in the package: made of a trained teacher, and measured on other photographs.

python benchmarks/starter.py pack runs/starter/teacher/weights.safetensors DATA    # into the package
python benchmarks/starter.py others OTHERS/instances.json DATA/instances.json OUT.json
python benchmarks/starter.py record runs/starter benchmarks/results/starter.json "make starter ..."

`make starter DATA=FOLDER OTHERS=FOLDER` does all of it. Both folders hold instances.json and images/. Of
DATA's photographs the package gets the list of their sources, nothing else. `others` leaves DATA's images out
of another COCO file, by image id.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmac_distill.config import load_pipeline
from deepmac_distill.errors import DataError
from deepmac_distill.evaluation.results import Evaluation, from_json, read_result, to_json
from deepmac_distill.experiments.run_record import Environment, described
from deepmac_distill.files import sha256_of_file, write_json, written_whole
from deepmac_distill.models.backbone_weights import WHEELS
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Cell, Column, Table, columns, names
from deepmac_distill.weights import starter
from deepmac_distill.weights.card import read_card
from deepmac_distill.weights.half import write_half

LICENSES = {  # by the address that COCO gives
    "http://creativecommons.org/licenses/by/2.0/": "CC BY 2.0",
    "http://creativecommons.org/licenses/by-sa/2.0/": "CC BY-SA 2.0",
}
ATTRIBUTION = "ATTRIBUTION.csv"


@dataclass(frozen=True, slots=True)
class StarterFigures:
    """What is kept of the starter: on photographs that it did not see, in half and in whole precision."""

    command: str
    environment: Environment
    seed: int
    recipe: str  # in a few words
    cut: float | str  # `labels.cut` of the evaluations
    bytes: int  # of its file
    images: int  # that it is measured on
    half: Evaluation
    whole: Evaluation


def pack(weights: Path, data: Path, folder: Path) -> None:
    """Write the starter and the list of the photographs that it learned from.

    Raises:
        DataError: a license does not allow to share.
    """
    annotations = data / "instances.json"
    document = json.loads(annotations.read_text(encoding="utf-8"))
    rows = attribution(document, annotations)
    wheel = WHEELS.get(read_card(weights).model["backbone"])
    package = (wheel or "").replace("_", "-")
    start = f"the ImageNet weights of {package} (Apache-2.0)" if wheel else "scratch"
    write_half(weights, folder / starter.WEIGHTS.name, about(document, rows, start))
    with written_whole(folder / ATTRIBUTION) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def attribution(document: dict[str, Any], where: Path) -> list[dict[str, str]]:
    """A row for each photograph of a COCO file: its license and where it is from.

    Raises:
        DataError: a license does not allow to share what is made of the photograph, or none is named.
    """
    addresses = {license["id"]: license["url"] for license in document["licenses"]}
    rows = []
    for image in sorted(document["images"], key=lambda image: image["file_name"]):
        address = addresses.get(image.get("license"))
        if address not in LICENSES:
            got, expected = address or "no license", ", ".join(LICENSES)
            raise DataError(f"{where}: {image['file_name']}: got {got}, expected one of {expected}")
        rows.append(
            {
                "file_name": image["file_name"],
                "license": LICENSES[address],
                "license_url": address,
                "photograph": image["flickr_url"],
                "as_in_coco": image["coco_url"],
            }
        )
    return rows


def about(document: dict[str, Any], rows: list[dict[str, str]], start: str) -> str:
    """What the card says of the starter."""
    by_license = " and ".join(
        f"{count} {name}" for name, count in sorted(Counter(r["license"] for r in rows).items())
    )
    shown = [a for a in document["annotations"] if not a.get("iscrowd")]
    classes = len({a["category_id"] for a in shown})
    return (
        f"Starter: a small teacher for a first look. Trained on {len(rows)} photographs of COCO 2017 "
        f"({by_license}; {ATTRIBUTION} names each) with the {len(shown)} masks of {classes} classes on them "
        f"(annotations: COCO Consortium, CC BY 4.0), from {start}."
    )


def others(everything: Path, seen: Path, out: Path) -> None:
    """Write a COCO file without the images of another one."""
    document, left_out = (json.loads(path.read_text(encoding="utf-8")) for path in (everything, seen))
    ids = {image["id"] for image in left_out["images"]}
    document["images"] = [image for image in document["images"] if image["id"] not in ids]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] not in ids]
    write_json(out, document)


def record(run: Path, command: str) -> StarterFigures:
    """What is kept of the run that made the starter, and of its two evaluations."""
    pipeline = load_pipeline(run / "config.json")
    (half,) = run.glob(f"evaluate-{sha256_of_file(starter.WEIGHTS)[:8]}-on-*")
    measured = json.loads((half / "evaluation.json").read_text(encoding="utf-8"))["annotations"]
    return StarterFigures(
        command=command,
        environment=read_result(run / "environment.json", Environment),
        seed=pipeline.seed,
        recipe=described(pipeline.teacher),
        cut=pipeline.labels.cut,
        bytes=starter.WEIGHTS.stat().st_size,
        images=len(json.loads(Path(measured).read_text(encoding="utf-8"))["images"]),
        half=read_result(half / "summary.json", Evaluation),
        whole=read_result(run / "evaluate-teacher" / "summary.json", Evaluation),
    )


def page(recorded: Any) -> str:
    """Markdown: the starter beside ellipse and box, by size."""
    found = from_json(recorded, StarterFigures, "starter")
    half, whole = found.half.given_boxes.all, found.whole.given_boxes.all
    table = Table(
        "",
        (
            *names("objects"),
            Column("number", "count"),
            *columns("percent", ("starter", "ellipse", "box")),
            Column("starter − ellipse", "points"),
            Column("boundary IoU", "percent"),
        ),
        tuple((size, row.instances, *_cells(row)) for size, row in (("all", half), *half.by_size.items())),
    )
    difference = 100 * abs((half.model.value or 0) - (whole.model.value or 0))
    return (
        f"{markdown_table(table)}\n\n"
        f"`{found.command}`: {found.recipe}, seed {found.seed}, torch {found.environment.torch}. Mask IoU in "
        f"given boxes on {found.images} photographs, mean over {half.classes} classes, in percent; brackets "
        f"are 95 % intervals of image sampling only. `labels.cut` is {found.cut}. The file has "
        f"{found.bytes / 1e6:.1f} MB; half precision changes the mean by {difference:.1g} points."
    )


def _cells(row: Any) -> tuple[Cell, ...]:
    means = row.class_mean_iou
    edge = row.boundary.class_mean_iou.model if row.boundary else None
    return means.model, means.ellipse, means.box, row.model_minus_ellipse, edge


def main() -> int:
    """The commands of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    for action, given in {
        "pack": ("weights", "data"),
        "others": ("everything", "seen", "out"),
        "record": ("run", "out"),
    }.items():
        command = commands.add_parser(action)
        for name in given:
            command.add_argument(name, type=Path)
        if action == "record":
            command.add_argument("command")
    given = parser.parse_args()
    match given.action:
        case "pack":
            pack(given.weights, given.data, starter.WEIGHTS.parent)
        case "others":
            others(given.everything, given.seen, given.out)
        case _:
            write_json(given.out, to_json(record(given.run, given.command)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
