"""Appendix B of the paper (arXiv:2104.00613): which runs it takes, and the commands that make them.

A run here is one of `deepmac_distill.chain`: the teacher's run goes through all its stages, a further student
learns from the teacher's labels, and the teachers for LVIS see all masks of COCO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepmac_distill.chain import STAGES, WEIGHTS, Role, Stage, planned
from deepmac_distill.config import FOLDER, load_pipeline
from deepmac_distill.experiments.short_training import a_tenth

Protocol = Literal["paper", "small"]
Part = Literal["b1", "b2", "b"]  # the teacher, its students, and with LVIS

# Row of the paper's figures -> run folder and role, for each protocol; the recipe is of the same name.
RUNS: dict[Protocol, dict[str, tuple[str, Role]]] = {
    "paper": {
        "teacher given boxes": ("teacher_hg100", "teacher"),
        "teacher mask AP": ("teacher_hg100", "teacher"),
        "student deepmac": ("teacher_hg100", "student"),
        "student mask rcnn r50": ("student_mask_rcnn_r50", "student"),
        "student mask rcnn sn143": ("student_mask_rcnn_sn143", "student"),
        "lvis resnet4": ("lvis_resnet4", "teacher"),
        "lvis hg100": ("lvis_hg100", "teacher"),
    },
    "small": {
        "teacher given boxes": ("coco_sample", "teacher"),
        "teacher mask AP": ("coco_sample", "teacher"),
        "student deepmac": ("coco_sample", "student"),
        "student mask rcnn r50": ("coco_sample_mask_rcnn", "student"),
    },
}
FOLDERS: dict[Protocol, str] = {"paper": "appendix_b", "small": "appendix_b_small"}  # of the table
MAIN = "teacher given boxes"  # the row whose run has the teacher that labels for all students


Step = list[str]  # one command: the words after `deepmac`


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a protocol: their folder, data and recipes."""

    protocol: Protocol
    data: str
    folder: Path = Path("runs")
    recipes: Path = FOLDER
    steps: int = 0  # of a trial, of each training; 0: those of the recipe
    tenth: bool = False  # a tenth of the recipe's steps, warm-up and decays scaled

    @property
    def main(self) -> str:
        """The run of the teacher and its first student."""
        return RUNS[self.protocol][MAIN][0]

    def others(self, role: Role) -> list[str]:
        """The runs beside it that are there for the figures of a role alone."""
        named = dict.fromkeys(name for name, _ in RUNS[self.protocol].values())
        return [name for name in named if name != self.main and roles_of(self.protocol, name) == {role}]

    def recipe(self, name: str) -> Path:
        """The pipeline file of a run."""
        return next(self.recipes.rglob(f"{name}.toml"))

    def begun(self, name: str) -> list[str]:
        """What a run is begun with: its recipe, its data, its folder, its length."""
        begun = [str(self.recipe(name)), "--data", self.data, "--out", str(self.folder / name)]
        return [*begun, *(word for override in self.overrides(name) for word in ("--set", override))]

    def overrides(self, name: str) -> list[str]:
        """KEY=VALUE of what a run differs in from its recipe: the length of its trainings."""
        roles = sorted(roles_of(self.protocol, name))
        if self.steps:
            return [f"{role}.train.steps={self.steps}" for role in roles]
        pipeline = load_pipeline(self.recipe(name)) if self.tenth else None
        return [word for role in roles if pipeline for word in a_tenth(role, getattr(pipeline, role).train)]

    def commands(self, name: str, stages: Sequence[Stage], *first: str) -> list[list[str]]:
        """The commands of some stages; `first` are words of the first one, which names the recipe."""
        begins, *others = dict.fromkeys(stage.command for stage in stages if stage.kind != "report")
        out = ["--out", str(self.folder / name)]
        return [
            [*begins.split(), "--config", *self.begun(name), *first],
            *([*command.split(), *out] for command in others),
        ]


def plan(runs: Runs, part: Part, lvis: str = "", anyway: bool = False) -> list[Step]:
    """The commands of `b1` (the teacher), `b2` (and its students) or `b` (and LVIS), forecasts first.

    Args:
        lvis: LVIS's validation file; empty leaves LVIS out.
        anyway: a forecast of too little memory does not end the plan.
    """
    students = [] if part == "b1" else runs.others("student")
    teachers = runs.others("teacher") if part == "b" and lvis else []
    truth = ["--set", f"data.val_annotations={Path(lvis).absolute()}"]
    teacher_stages = planned(evaluated=True, roles=("teacher",))
    forecasts = [[*runs.begun(runs.main), *(["--teacher"] if part == "b1" else [])]]
    forecasts += [[*runs.begun(name), "--student"] for name in students]
    forecasts += [[*runs.begun(name), *truth, "--teacher"] for name in teachers]
    work = runs.commands(runs.main, teacher_stages if part == "b1" else planned(evaluated=True))
    labels = runs.folder / runs.main / "pseudolabel" / STAGES["pseudolabel"].makes[0].file
    for name in students:
        stages = planned(evaluated=True, roles=("student",))
        work += runs.commands(name, stages, "--labels", str(labels))
    for name in teachers:
        work += runs.commands(name, teacher_stages, *truth)
    steps = [["forecast", *words, *(["--anyway"] if anyway else [])] for words in forecasts]
    steps += work
    return steps if part == "b1" else [*steps, _sheet(runs, students), _timing(runs, students)]


def trainings(part: Part) -> list[tuple[str, Role]]:
    """Run and role of each training of a part by the paper's protocol, in their order; `b` with LVIS.

    >>> trainings("b1")
    [('teacher_hg100', 'teacher')]
    """
    runs = Runs("paper", "")
    found: list[tuple[str, Role]] = [(runs.main, "teacher")]
    if part != "b1":
        found += [(name, "student") for name in (runs.main, *runs.others("student"))]
    return found + ([(name, "teacher") for name in runs.others("teacher")] if part == "b" else [])


def roles_of(protocol: Protocol, name: str) -> set[Role]:
    """Whose figures a run has."""
    return {role for run_name, role in RUNS[protocol].values() if run_name == name}


def _sheet(runs: Runs, students: Sequence[str]) -> Step:
    """Masks of teacher and students beside the truth."""
    main = runs.folder / runs.main
    folders = {"teacher": main / "evaluate-teacher", "student": main / "evaluate-student"}
    folders |= {name: runs.folder / name / "evaluate-student" for name in students}
    words = [f"{name}={folder}" for name, folder in folders.items()]
    out = runs.folder / FOLDERS[runs.protocol] / "contact_sheet.png"
    return ["sheet", *words, *_validation(runs)[2:], "--out", str(out)]


def _timing(runs: Runs, students: Sequence[str]) -> Step:
    """Teacher and students in turn, on the validation images."""
    main = runs.folder / runs.main
    weights = {"teacher": main / "teacher" / WEIGHTS, "student": main / "student" / WEIGHTS}
    weights |= {name: runs.folder / name / "student" / WEIGHTS for name in students}
    words = [f"{name}={path}" for name, path in weights.items()]
    out = runs.folder / FOLDERS[runs.protocol] / "latency.json"
    return ["bench", *words, *_validation(runs), "--json", str(out)]


def _validation(runs: Runs) -> list[str]:
    """Flags that name the validation set of the main run: its annotations, its images."""
    config = load_pipeline(runs.recipe(runs.main)).data
    data = Path(runs.data)
    return [
        *("--annotations", str(data / config.val_annotations)),
        *("--images", str(data / (config.val_images or config.train_images))),
    ]
