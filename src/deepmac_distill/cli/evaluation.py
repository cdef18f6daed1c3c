"""Commands that measure models and show the figures: `evaluate`, `compare`, `sheet`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deepmac_distill.cli.app import app
from deepmac_distill.cli.cutting import Cutting
from deepmac_distill.cli.evaluating import Evaluating
from deepmac_distill.cli.jobs import job_of, named_paths, refuse_look_of_the_run
from deepmac_distill.cli.options import Code, Config, Data, Looking, Redo, Run, TrainData, ValData, command
from deepmac_distill.cli.results import print_comparison
from deepmac_distill.cli.sharding import SharedBy
from deepmac_distill.cli.terminal import Terminal, say
from deepmac_distill.config import MAX_OF_EACH, MAX_RESAMPLES, MAX_SEED
from deepmac_distill.errors import ConfigError


@command(app)
def evaluate(
    config: Config,
    at: Run,
    data: Data,
    train: TrainData,
    val: ValData,
    redo: Redo,
    code: Code,
    looking: Looking,
    cutting: Cutting,
    evaluating: Evaluating,
    sharding: SharedBy,
    role: Annotated[
        str | None, typer.Argument(help="teacher (default), student, student-seen, student-human or starter.")
    ] = None,
    boxes_of: Annotated[
        Path | None,
        typer.Option(
            "--boxes-of",
            help="Evaluation folder of a detector on the same set: AP is of its boxes with these masks.",
        ),
    ] = None,
) -> None:
    """Measure mask IoU in given boxes and COCO AP of detections, for all, seen and unseen classes."""
    evaluated, percents = evaluating.evaluated(role), evaluating.percents
    refuse_look_of_the_run(at, evaluated)
    if boxes_of and (percents or sharding.shard or evaluating.hidden):
        raise ConfigError("--boxes-of: expected no --box-noise, --hidden and --shard beside it")
    job = job_of(
        *(config.config, at, data, train, val, redo, code, looking, cutting, sharding),
        values=evaluating.values,
    )
    evaluating.evaluate(job, evaluated, boxes_of)


@command(app)
def compare(
    a: Annotated[
        Path,
        typer.Argument(
            help="An evaluation folder, such as runs/x/evaluate-student; where runs/x holds several seeds it "
            "stands for all of them."
        ),
    ],
    b: Annotated[Path, typer.Argument(help="Another one, on the same validation set.")],
    resamples: Annotated[
        int, typer.Option(min=1, max=MAX_RESAMPLES, help="Bootstrap resamples of the images.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print paired differences of two evaluations, a minus b, with 95 % intervals.

    Where both runs have several seeds (--seeds), models are paired by seed.
    """
    from deepmac_distill.evaluation.results import to_json
    from deepmac_distill.stages.pairs import compare as compare_pairs
    from deepmac_distill.stages.pairs import paired_evaluations

    terminal, pairs = Terminal(), paired_evaluations(a, b)
    for line in pairs.left_out:
        terminal.note(line)
    found = compare_pairs(pairs, resamples, seed, terminal)
    if as_json:
        print(json.dumps(to_json(found), indent=2))
    else:
        for name, folder, how in zip("ab", (a, b), found.how or (None, None), strict=True):
            say(f"{name}: {folder}" + (f" ({how.words})" if how and how.words else ""))
        print_comparison(found, "a", "b")


@command(app)
def sheet(
    evaluations: Annotated[
        list[str], typer.Argument(help="HEADING=FOLDER each, such as student=runs/x/evaluate-student.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG file to write.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the validation images; default: the folder used for evaluation."),
    ] = None,
    of_each: Annotated[
        int, typer.Option(min=1, max=MAX_OF_EACH, help="So many worst, median and best masks of each.")
    ] = 1,
) -> None:
    """Draw the worst, median and best unseen masks of any evaluations on one validation set."""
    from deepmac_distill.stages.compare import sheet as draw_evaluations

    folders = named_paths(evaluations, "HEADING=FOLDER")
    say(draw_evaluations(folders, out, images, of_each))
    say(out)
