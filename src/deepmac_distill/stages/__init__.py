"""One function per stage, and the only place where the rooms meet: read this first.

Which stages there are, and in what order, stands in `deepmac_distill.chain`; `run` does them.
Each stage takes a `Job`, works in its own folder of the run and returns what the next one needs.
"""

from __future__ import annotations

from deepmac_distill.stages.check import check, class_statistics
from deepmac_distill.stages.compare import compare, sheet
from deepmac_distill.stages.detect import detect
from deepmac_distill.stages.evaluate import evaluate, read_evaluation, report
from deepmac_distill.stages.given_boxes import boxes_of_file, the_same_in_each
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.pictures import files_of
from deepmac_distill.stages.predict import outputs_of, predict
from deepmac_distill.stages.pseudolabel import pseudolabel
from deepmac_distill.stages.retention import retention
from deepmac_distill.stages.run import run
from deepmac_distill.stages.show import show
from deepmac_distill.stages.student import student
from deepmac_distill.stages.train import teach

__all__ = [
    "Job",
    "boxes_of_file",
    "check",
    "class_statistics",
    "compare",
    "detect",
    "evaluate",
    "files_of",
    "outputs_of",
    "predict",
    "the_same_in_each",
    "pseudolabel",
    "read_evaluation",
    "report",
    "retention",
    "run",
    "sheet",
    "show",
    "student",
    "teach",
]
