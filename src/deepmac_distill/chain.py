"""The stages of a run: their order, what each reads and makes, and the command that does it.

The one place for this. Running, `deepmac status`, forecast, retention and appendix B read it from here;
what a stage does is in `stages`. Nothing here imports torch.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Role = Literal["teacher", "student"]  # whose recipe of the pipeline file
Trained = Literal["teacher", "student", "student-seen", "student-human"]  # a stage that leaves weights
Arm = Literal["human_seen", "pseudo", "human_all"]  # a student of retention, by the masks it learns from
Kind = Literal["train", "evaluate", "label", "select", "report", "retention", "holdout"]


@dataclass(frozen=True, slots=True)
class Product:
    """A file that a stage makes for people to use."""

    file: str  # in the folder of the stage
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage; it works in the folder of its name."""

    name: str
    kind: Kind
    command: str  # words after `deepmac`
    role: Role  # whose recipe it follows, or whose masks it is about
    model: Trained  # the training whose weights it leaves or uses
    reads: tuple[str, ...] = ()  # stages whose outputs it takes, if they are this run's
    makes: tuple[Product, ...] = ()
    derived: bool = False  # cheap: other inputs redo it
    arm: Arm | None = None  # which student of retention it trains


WEIGHTS = "weights.safetensors"
SEED = "seed-"  # and a number: the run of one of several seeds
_FIGURES = (Product("summary.json", "figures"),)


def _training(name: Trained, command: str, reads: tuple[str, ...] = (), arm: Arm | None = None) -> Stage:
    role: Role = "teacher" if name == "teacher" else "student"
    makes = (Product(WEIGHTS, name),)
    return Stage(
        name=name, kind="train", command=command, role=role, model=name, reads=reads, makes=makes, arm=arm
    )


def _evaluation(of: Trained) -> Stage:
    role: Role = "teacher" if of == "teacher" else "student"
    return Stage(
        name=f"evaluate-{of}",
        kind="evaluate",
        command=f"evaluate {of}",
        role=role,
        model=of,
        reads=(of,),
        makes=_FIGURES,
    )


# Before the chain, where it is asked for: teachers tried on hidden classes, before one of them labels.
HOLDOUT = Stage(
    name="holdout",
    kind="holdout",
    command="holdout",
    role="teacher",
    model="teacher",
    makes=(Product("holdout.md", "teachers on hidden classes"), Product("masks.parquet", "their masks")),
    derived=True,
)
CHAIN = (
    _training("teacher", "teach"),
    _evaluation("teacher"),
    Stage(
        name="pseudolabel",
        kind="label",
        command="pseudolabel",
        role="teacher",
        model="teacher",
        reads=("teacher",),
        makes=(Product("masks.parquet", "masks of all boxes"),),
    ),
    Stage(
        name="select",
        kind="select",
        command="pseudolabel",
        role="teacher",
        model="teacher",
        reads=("pseudolabel",),
        makes=(Product("instances.json", "the same as COCO"),),
        derived=True,
    ),
    # The masks are those of `pseudolabel`; the rules that choose among them are those of `select`.
    _training("student", "student", ("pseudolabel", "select"), arm="pseudo"),
    _evaluation("student"),
    Stage(
        name="report",
        kind="report",
        command="run",
        role="student",
        model="student",
        reads=("evaluate-teacher", "evaluate-student"),
        makes=(Product("contact_sheet.png", "contact sheet"), *_FIGURES),
        derived=True,
    ),
)
# Beside the chain: the student without the teacher's masks, and the one with every human mask.
BESIDE = (
    _training("student-seen", "retention", arm="human_seen"),
    _training("student-human", "retention", arm="human_all"),
    _evaluation("student-seen"),
    _evaluation("student-human"),
    Stage(
        name="retention",
        kind="retention",
        command="retention",
        role="student",
        model="student",
        reads=("evaluate-student-seen", "evaluate-student", "evaluate-student-human"),
        makes=_FIGURES,
        derived=True,
    ),
)
STAGES = {stage.name: stage for stage in (HOLDOUT, *CHAIN, *BESIDE)}
TRAININGS = {stage.model: stage for stage in STAGES.values() if stage.kind == "train"}
ARMS: dict[Arm, Trained] = {  # of retention, as it compares them
    stage.arm: stage.model
    for stage in (TRAININGS[STAGES[evaluation].model] for evaluation in STAGES["retention"].reads)
    if stage.arm
}


def planned(
    *,
    evaluated: bool,
    roles: tuple[Role, ...] = ("teacher", "student"),
    segmenter: bool = False,
    holdout: bool = False,
) -> tuple[Stage, ...]:
    """The stages of a whole run in their order.

    Args:
        evaluated: there is a validation set.
        roles: both, or the one whose training and evaluation are asked for; labeling comes between.
        segmenter: the teacher needs no training.
        holdout: teachers are tried first.

    >>> [stage.name for stage in planned(evaluated=False)]
    ['teacher', 'pseudolabel', 'select', 'student']
    >>> [stage.name for stage in planned(evaluated=True, roles=("teacher",))]
    ['teacher', 'evaluate-teacher']
    """
    kinds: set[Kind] = {"train", *(("evaluate",) if evaluated else ())}
    if len(roles) > 1:
        kinds |= {"label", "select", *(("report",) if evaluated else ())}
    untrained = {"teacher"} if segmenter else set()
    return (HOLDOUT,) * holdout + tuple(
        stage
        for stage in CHAIN
        if stage.kind in kinds and stage.role in roles and stage.name not in untrained
    )


def command_line(command: str, *words: str | Path, out: Path, force: bool = False) -> str:
    """A command for a run as it is typed.

    >>> command_line("evaluate teacher", out=Path("my runs/x"), force=True)
    "deepmac evaluate teacher --out 'my runs/x' --force"
    """
    flags = ["--out", str(out), *(["--force"] if force else [])]
    return shlex.join(["deepmac", *command.split(), *map(str, words), *flags])


def products(run: Path) -> list[tuple[str, Path]]:
    """What a run has made that people use: (title, file), in the order of the stages."""
    return [
        (product.title, run / stage.name / product.file)
        for stage in STAGES.values()
        for product in stage.makes
        if (run / stage.name / product.file).exists()
    ]


def seed_runs(folder: Path) -> dict[int, Path]:
    """The runs of one recipe in a folder of several seeds (`--seeds`), by seed."""
    found = {
        int(path.name.removeprefix(SEED)): path
        for path in (folder.glob(f"{SEED}*") if folder.is_dir() else ())
        if path.name.removeprefix(SEED).isdecimal() and (path / "environment.json").is_file()
    }
    return dict(sorted(found.items()))


def redo_after(run: Path, changed: str) -> str:
    """The commands, as one line for a shell, that redo what a run has made of a stage that changed; or empty.

    Derived stages and what only the whole run makes are left out: they follow by themselves.
    """
    old = {changed}
    again: list[str] = []
    for stage in STAGES.values():
        if not old & set(stage.reads) or not (run / stage.name).exists():
            continue
        old.add(stage.name)
        if not stage.derived:
            again.append(command_line(stage.command, out=run, force=True))
    return " && ".join(dict.fromkeys(again))
