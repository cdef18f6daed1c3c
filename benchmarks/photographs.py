"""The first table of photographs: the teacher and its students, what they reach and what they cost.

`results.py` puts it on the pages, from recorded runs and the latencies that `deepmac bench` measured of them.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from deepmac_distill.evaluation.results import Evaluation, from_json
from deepmac_distill.experiments.latency import Latency, ModelLatency
from deepmac_distill.experiments.run_record import RunRecord, record_over_seeds
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Cell, Column, Table, columns, names
from deepmac_distill.report.tables import interval_note

TEACHER, STUDENTS = "teacher", ("student", "coco_sample_mask_rcnn")  # as latencies are named


def page(latency: Any, resnet_4: Any, mask_rcnn: Any, *teachers: Any) -> str:
    """Markdown: a row for the teacher over its seeds, and one for each student.

    Args:
        latency: what `deepmac bench` measured of the three.
        resnet_4: the recorded run of the first student.
        mask_rcnn: that of the second.
        teachers: that of the teacher, one a seed.
    """
    costs = from_json(latency, Latency, "latency")
    seeds, taught = record_over_seeds([from_json(one, RunRecord, "teacher") for one in teachers])
    learned = [from_json(one, RunRecord, "student") for one in (resnet_4, mask_rcnn)]
    rows = [(f"teacher, seeds {', '.join(map(str, seeds))}", taught.teacher, costs.models[TEACHER])] + [
        (f"student, seed {one.seed}: {one.student_model}", one.student, costs.models[name])
        for one, name in zip(learned, STUDENTS, strict=True)
    ]
    table = Table(
        "",
        (
            *names("model"),
            Column("mask IoU in given boxes, unseen classes"),
            Column("its lead over the ellipse", "points"),
            *columns("percent", ("small ones", "seen classes", "box AP", "mask AP")),
            *columns("figure", ("ms an image, given boxes", "ms an image, detection")),
        ),
        tuple((name, *_reached(found), *_cost(cost)) for name, found, cost in rows if found),
    )
    return (
        f"{markdown_table(table)}\n\n"
        "IoU is the mean over classes of the mean over instances, AP is over all classes, in percent. "
        f"Brackets are {interval_note(seeds)} for the teacher, of image sampling only for a student. "
        f"ms are medians of {costs.rounds} rounds in turn (`deepmac bench`), an image at a time with "
        f"{costs.boxes_per_image:.1f} boxes, on {costs.machine}."
    )


def _reached(found: Evaluation) -> tuple[Cell, ...]:
    unseen, seen = found.given_boxes.unseen, found.given_boxes.seen
    boxes, masks = found.detected.bbox, found.detected.segm
    return (
        unseen.class_mean_iou.model,
        unseen.model_minus_ellipse,
        unseen.by_size.small.class_mean_iou.model,
        seen.class_mean_iou.model,
        *(None if kind is None else kind.all.AP for kind in (boxes, masks)),
    )


def _cost(cost: ModelLatency) -> tuple[Cell, ...]:
    return tuple(f"{median(rounds):.0f}" if rounds else None for rounds in (cost.segment, cost.detect))
