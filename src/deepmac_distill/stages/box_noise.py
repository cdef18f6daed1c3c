"""Stage `box-noise`: masks in given boxes that are loose, one strength of noise after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepmac_distill.chain import Trained, command_line
from deepmac_distill.errors import ConfigError
from deepmac_distill.evaluation.box_noise import MOST, BoxNoise, NoiseLevel, with_box_noise
from deepmac_distill.evaluation.how_evaluated import HowEvaluated
from deepmac_distill.evaluation.mask_iou import with_names
from deepmac_distill.evaluation.results import read_result, to_json
from deepmac_distill.evaluation.summary import summarize_given_boxes
from deepmac_distill.files import write_json
from deepmac_distill.labels.cut import DEFAULT_CUT
from deepmac_distill.models.load import segmenter_for
from deepmac_distill.rundir import UNITS
from deepmac_distill.stages.chosen_teacher import choosing, cutting
from deepmac_distill.stages.evaluated_masks import note_how, shown_elsewhere
from deepmac_distill.stages.evaluated_model import EvaluatedModel
from deepmac_distill.stages.evaluated_units import EvaluationUnits
from deepmac_distill.stages.job import Job


def box_noise(job: Job, model: Trained | Path, percents: Sequence[float], *, hidden: bool = False) -> Path:
    """Evaluate a model in noisy boxes (see `with_box_noise`); returns the results' folder.

    ``summary.json`` holds every figure (`BoxNoise`), ``ious.parquet`` each instance's at each strength. The
    IoU is that with the whole truth: pixels outside a noisy box count against it. Of a shard (`job.shard`) it
    is the folder of the parts, as of `evaluate`.

    Args:
        percents: strengths of noise.
        hidden: as in `evaluate`.

    Raises:
        ConfigError: a strength is out of range or twice in the list, or there is none.
    """
    require_percents(percents)
    job = cutting(choosing(job)) if model == "teacher" else job
    of = EvaluatedModel.of(job, "box-noise", model, hidden=hidden, further=_named(percents, "-"))
    inputs, unnamed = {"box noise": list(percents)}, {"labels.cut": DEFAULT_CUT}
    words = (model,) if isinstance(model, str) else ("--model", model)
    again = command_line("evaluate", *words, "--box-noise", _named(percents, ","), out=job.run.path)
    return of.do(
        job, inputs, unnamed, lambda folder: _evaluate(job, of, percents, again, folder), together=True
    )


def require_percents(percents: Sequence[float]) -> None:
    """Refuse strengths of noise that cannot be.

    Raises:
        ConfigError: one is out of range or twice in the list, or there is none.
    """
    expected = f"percents from 0 to below {MOST}, each once in six digits, such as 0,5,10,20"
    apart = len({_named([percent], "") for percent in percents}) == len(percents)  # each has a folder
    if not percents or not apart or not all(0 <= percent < MOST for percent in percents):
        raise ConfigError(f"box noise: got {_named(percents, ',') or 'nothing'}, expected {expected}")


def _named(percents: Sequence[float], between: str) -> str:
    return between.join(f"{percent:g}" for percent in percents)


def read_box_noise(folder: Path) -> BoxNoise:
    """The figures that `box_noise` wrote.

    Raises:
        RunError: they are missing, broken or something else.
    """
    return read_result(folder / "summary.json", BoxNoise)


def _evaluate(job: Job, of: EvaluatedModel, percents: Sequence[float], again: str, folder: Path) -> None:
    on, source, classes = of.on, of.source, of.on.truth.classes
    resamples, seed = job.pipeline.evaluation.bootstrap, job.pipeline.seed
    model = segmenter_for(source, job.device, classes.names)
    elsewhere = shown_elsewhere(job, on.truth, source, of.upper_bound)
    note_how(job, source, model.spec)
    levels, tables = [], []
    for percent in percents:
        loose = replace(on, truth=with_box_noise(on.truth, percent, seed))
        units = EvaluationUnits.of(job, loose, source, model, None, f"boxes with {percent:g} % noise")
        drawn = units.do(folder / UNITS / _named([percent], ""), of.stage, again)
        if drawn is None:  # another process joins them
            continue
        ious = drawn.ious
        found = summarize_given_boxes(
            ious, classes, resamples, seed, shown_elsewhere=elsewhere, named=of.on.splits
        )
        levels.append(NoiseLevel(percent, found))
        named = with_names(on.truth, ious)
        tables.append(named.append_column("box_noise", pa.array(np.full(len(ious), float(percent)))))
    if not levels:
        return
    pq.write_table(pa.concat_tables(tables), folder / "ious.parquet")
    how = HowEvaluated(source.identity, source.look, job.cut)
    write_json(folder / "summary.json", to_json(BoxNoise(tuple(levels), seed, how)))
