"""`deepmac bench`: what models cost in time, on one machine in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.jobs import named_paths
from deepmac_distill.cli.options import Device, command
from deepmac_distill.cli.results import print_table
from deepmac_distill.cli.terminal import say
from deepmac_distill.files import write_json


@command(app)
def bench(
    on: Device,
    models: Annotated[
        list[str],
        typer.Argument(help="NAME=WEIGHTS each, such as student=runs/x/student/weights.safetensors."),
    ],
    annotations: Annotated[Path, typer.Option("--annotations", help="COCO JSON that gives the boxes.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of its images.")],
    images_count: Annotated[
        int, typer.Option("--images-count", min=1, help="The first so many of the file.")
    ] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="In each of them every model has its turn.")] = 5,
    max_detections: Annotated[int, typer.Option("--max-detections", min=1, help="Per image.")] = 100,
    threads: Annotated[int, typer.Option(min=0, help="Of torch on the CPU; 0 leaves its own choice.")] = 0,
    as_json: Annotated[Path | None, typer.Option("--json", help="File to write every figure to.")] = None,
) -> None:
    """Time models side by side, in ms per image: masks in given boxes, and detection with masks."""
    weights = named_paths(models, "NAME=WEIGHTS")
    from deepmac_distill.devices import pick_device, use_threads
    from deepmac_distill.evaluation.results import to_json
    from deepmac_distill.experiments import latency
    from deepmac_distill.stages.outputs import OURS, require_ours

    if as_json:
        require_ours([as_json], [annotations, *weights.values()])
    device = pick_device(on.device or "auto")
    use_threads(threads)
    found = latency.time_models(
        weights,
        annotations,
        images,
        images_count=images_count,
        rounds=rounds,
        max_detections=max_detections,
        device=device,
    )
    print_table(latency.measured_table(found))
    say(latency.conditions(found))
    say(latency.OF_THE_PAPER)
    print_table(latency.paper_table())
    if as_json:
        write_json(as_json, {"info": OURS, **to_json(found)})
