"""One function per stage, and the only place where the rooms meet: read this first.

    teach -> evaluate teacher -> pseudolabel -> student -> evaluate student -> report

`retention` stands beside the chain: the student without the teacher's masks, and with every human one.
Each stage takes a `Job`, works in its own folder of the run and returns what the next one needs.
"""

from __future__ import annotations

from typing import Any

from deepmac_distill.stages.check import check
from deepmac_distill.stages.compare import compare, sheet
from deepmac_distill.stages.evaluate import (
    evaluate,
    read_summary,
    report,
    require_lead,
    require_validation,
)
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.predict import predict
from deepmac_distill.stages.pseudolabel import pseudolabel
from deepmac_distill.stages.retention import retention
from deepmac_distill.stages.train import require_buildable, require_unleaked, student, teach

__all__ = [
    "Job",
    "check",
    "compare",
    "evaluate",
    "predict",
    "pseudolabel",
    "read_summary",
    "report",
    "retention",
    "run",
    "sheet",
    "student",
    "teach",
]


def run(job: Job) -> dict[str, Any]:
    """The whole chain; returns the report. Stages that are done are skipped, a stopped one goes on.

    Raises:
        GateError: the teacher's lead over the box is below `evaluation.min_lead_over_box`.
    """
    require_buildable(job, "teacher")
    require_buildable(job, "student")
    require_unleaked(job, "student")
    judged = require_validation(job)
    teach(job)
    if judged:
        require_lead(job, evaluate(job, "teacher"))
    pseudolabel(job)
    student(job)
    if not judged:
        job.progress.note("no data.val_annotations: nothing was evaluated")
        return {}
    evaluate(job, "student")
    return report(job)
