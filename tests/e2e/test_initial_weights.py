"""`train.init_from`: what is loaded and reported, what is refused, and what may not leak."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deepmac_distill.config import load_pipeline
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.progress import Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.stages.job import Job
from deepmac_distill.stages.train import train_stage
from deepmac_distill.training import loop
from deepmac_distill.weights.card import read_card, save_weights

KEY = "teacher.train.init_from"
HEATMAP = {"heads.0.center.heatmap.output.weight", "heads.0.center.heatmap.output.bias"}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# One step that moves no weight: what comes out is what went in, but for the statistics of batch norm.
STILL = ["--set", "teacher.train.steps=1", "--set", "teacher.train.lr=1e-30"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def weights(run: Path, stage: str = "teacher") -> Path:
    return run / stage / "weights.safetensors"


def learned(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(path).items() if not name.endswith(STATISTICS)}


def told(ended: Any) -> list[str]:
    start = "initial weights: "
    return [line.removeprefix(start) for line in ended.err.splitlines() if line.startswith(start)]


def assert_refused(ended: Any, says: str) -> None:
    last = ended.err.splitlines()[-1]
    assert ended.code == 2, ended.err
    assert last.startswith("deepmac: ") and says in last
    assert ended.out == "" and "Traceback" not in ended.err


@pytest.fixture
def flags(chain, small_toml, tmp_path) -> Callable[..., list[Any]]:
    """Flags for the chain's training scenes as data of one's own; `prefix` goes before every class name."""

    def of(prefix: str = "", seen: str | None = None) -> list[Any]:
        raw = read(chain[0] / "scenes-train" / "instances.json")
        for category in raw["categories"]:
            category["name"] = prefix + category["name"]
        path = tmp_path / f"{prefix}train.json"
        path.write_text(json.dumps(raw))
        seen = seen or ",".join(prefix + name for name in SEEN_SHAPES)
        images = chain[0] / "scenes-train" / "images"
        return ["--config", small_toml, "--annotations", path, "--images", images, "--seen", seen]

    return of


@pytest.fixture
def knowing(chain, tmp_path) -> Path:
    """The chain's teacher, but its card says that it was shown the masks of every class."""
    path = tmp_path / "knowing.safetensors"
    card = read_card(weights(chain[0]))
    save_weights(path, load_file(weights(chain[0])), replace(card, seen=(True,) * len(card.seen)))
    return path


def test_weights_of_the_same_classes_are_loaded_whole(chain, deepmac, flags, tmp_path) -> None:
    source, run, fresh = weights(chain[0]), tmp_path / "run", tmp_path / "fresh"
    ended = deepmac("teach", "--out", run, *flags(), *STILL, "--set", f"{KEY}={source}")
    assert ended.code == 0, ended.err
    first, counts = told(ended)
    classes = len(read_card(source).class_names)
    assert first == f"{source}: a teacher of the same {classes} classes"
    tensors = sum(not name.endswith("num_batches_tracked") for name in load_file(source))
    assert counts.startswith(f"loaded {tensors} of {tensors} tensors (")
    before, after = learned(source), learned(weights(run))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert deepmac("teach", "--out", fresh, *flags(), *STILL).code == 0
    losses = [
        json.loads((at / "teacher" / "metrics.jsonl").read_text().splitlines()[0]) for at in (run, fresh)
    ]
    assert losses[0]["step"] == losses[1]["step"] == 0
    assert losses[0]["mask"] < losses[1]["mask"] and losses[0]["center"] < losses[1]["center"]


def test_weights_of_other_classes_leave_the_class_tensors_alone(chain, deepmac, flags, tmp_path) -> None:
    """As many classes: the shapes agree, and it would be wrong all the same."""
    source, run, fresh = weights(chain[0]), tmp_path / "run", tmp_path / "fresh"
    ended = deepmac("teach", "--out", run, *flags("other "), *STILL, "--set", f"{KEY}={source}")
    assert ended.code == 0, ended.err
    classes = len(read_card(source).class_names)
    first, counts, skipped = told(ended)
    assert first == f"{source}: a teacher of {classes} classes, others than the data's or in another order"
    assert skipped == "not loaded: heads.0.center, 2 of 12 tensors: belongs to other classes"
    tensors = sum(not name.endswith("num_batches_tracked") for name in load_file(source))
    assert counts.startswith(f"loaded {tensors - 2} of {tensors} tensors (")
    assert deepmac("teach", "--out", fresh, *flags("other "), *STILL).code == 0
    theirs, untrained = learned(source), learned(weights(fresh))
    for name, tensor in learned(weights(run)).items():
        assert torch.equal(tensor, (untrained if name in HEATMAP else theirs)[name]), name


def test_a_file_without_a_card_is_matched_by_shape_and_said_to_be_silent(
    chain, deepmac, flags, tmp_path
) -> None:
    path, run = tmp_path / "foreign.pth", tmp_path / "run"
    state = {f"module.{name}": tensor for name, tensor in load_file(weights(chain[0])).items()}
    torch.save({"state_dict": state, "epoch": 3}, path)
    ended = deepmac("teach", "--out", run, *flags("other "), *STILL, "--set", f"{KEY}={path}")
    assert ended.code == 0, ended.err
    first, counts = told(ended)
    assert first == f"{path}: the file does not name the classes or masks that it has seen"
    assert counts.startswith("loaded ")
    theirs = learned(weights(chain[0]))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in learned(weights(run)).items())


def test_a_student_starts_from_a_teacher_with_another_mask_head(run_copy, deepmac) -> None:
    run = run_copy("student", "evaluate-student", "report")
    still = [flag.replace("teacher", "student") for flag in STILL]
    key = f"student.train.init_from={weights(run)}"
    ended = deepmac("student", "--out", run, *still, "--set", key)
    assert ended.code == 0, ended.err
    theirs, ours = load_file(weights(run)), load_file(weights(run, "student"))
    fitting = {
        name
        for name, tensor in learned(weights(run, "student")).items()
        if name in theirs and theirs[name].shape == tensor.shape
    }
    rest = {name for name in ours if not name.startswith("mask_head.") and not name.endswith(STATISTICS)}
    assert rest < fitting and all(torch.equal(ours[name], theirs[name]) for name in fitting)
    _, counts, *others = told(ended)
    assert counts.startswith("loaded ") and len(others) >= 2
    assert all(" mask_head" in line for line in others)
    assert "not in the file" in others[0] and "have no place here" in others[-1]


def test_masks_of_an_unseen_class_may_not_come_with_the_weights(knowing, deepmac, flags, tmp_path) -> None:
    card = read_card(knowing)
    hidden = next(name for name in card.class_names if name not in SEEN_SHAPES)
    ended = deepmac("teach", "--out", tmp_path / "run", *flags(), "--set", f"{KEY}={knowing}")
    assert_refused(ended, f"{knowing}: was shown masks of {hidden}, data.seen makes it unseen")
    assert not (tmp_path / "run" / "teacher").exists() and not (tmp_path / "run" / "teacher.part").exists()
    all_seen = flags(seen="all")
    assert (
        deepmac("teach", "--out", tmp_path / "all", *all_seen, *STILL, "--set", f"{KEY}={knowing}").code == 0
    )


def test_a_leak_into_the_student_stops_a_run_before_its_teacher(
    knowing, deepmac, scenes_toml, tmp_path
) -> None:
    given = ["--set", f"student.train.init_from={knowing}"]
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", *given)
    assert_refused(ended, f"{knowing}: was shown masks of ")
    assert not list((tmp_path / "run").glob("teacher*"))


def test_nor_by_way_of_a_run_of_other_classes(knowing, deepmac, flags, tmp_path) -> None:
    between = tmp_path / "between"
    ended = deepmac("teach", "--out", between, *flags("other "), *STILL, "--set", f"{KEY}={knowing}")
    assert ended.code == 0, ended.err  # of classes that these data do not have
    assert set(read_card(weights(between)).pretrained_mask_classes) == set(read_card(knowing).class_names)
    ended = deepmac("teach", "--out", tmp_path / "run", *flags(), "--set", f"{KEY}={weights(between)}")
    assert_refused(ended, f"{weights(between)}: was shown masks of ")
    assert deepmac("pseudolabel", "--out", between, *flags("other ")).code == 0


def test_the_upper_bound_may_start_from_what_was_shown_all(knowing, chain, scenes_toml, tmp_path) -> None:
    sets = ["student.train.steps=1", f"student.train.init_from={knowing}"]
    job = Job(load_pipeline(scenes_toml, sets), None, RunDir(tmp_path / "run"), Silent())
    scenes = chain[0] / "scenes-train"
    everything = Dataset.open(scenes / "instances.json", seen=SEEN_SHAPES).for_evaluation()
    all_seen = (True,) * len(everything.classes)
    path = train_stage(job, "student-human", everything, ImageFolder(scenes / "images"), seen=all_seen)
    assert all(read_card(path).seen)


def test_a_file_that_changed_is_refused_and_one_that_moved_is_not(
    chain, knowing, deepmac, flags, tmp_path
) -> None:
    path, moved, run = tmp_path / "w.safetensors", tmp_path / "moved.safetensors", tmp_path / "run"
    shutil.copy(weights(chain[0]), path)
    given = [*flags(), *STILL]
    assert deepmac("teach", "--out", run, *given, "--set", f"{KEY}={path}").code == 0
    shutil.copy(path, moved)
    ended = deepmac("teach", "--out", run, *given, "--set", f"{KEY}={moved}")
    assert ended.code == 0 and "teacher: done before, skipped" in ended.err
    state = load_file(path)
    next(iter(state.values())).add_(1)
    save_weights(path, state, read_card(weights(chain[0])))
    ended = deepmac("teach", "--out", run, *given, "--set", f"{KEY}={path}")
    assert_refused(ended, f"teacher was made with {KEY} = 'sha256:")
    assert_refused(deepmac("teach", "--out", run, *given), f"teacher was made with {KEY} = 'sha256:")


def test_without_the_key_inputs_and_cards_are_as_they_were_before_there_was_one(chain) -> None:
    for stage in ("teacher", "student"):
        assert not [name for name in read(chain[0] / stage / "done.json")["inputs"] if "initial" in name]
        assert b"pretrained_mask_classes" not in weights(chain[0], stage).read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "w.safetensors: no such file"),
        (b"not weights", "w.safetensors: not a safetensors file"),
    ],
)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_file_that_is_missing_or_broken_is_refused_before_any_work(
    deepmac, scenes_toml, tmp_path, role: str, content: bytes | None, says: str
) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    key = f"{role}.train.init_from"
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", "--set", f"{key}={path}")
    assert_refused(ended, f"{key}: ")
    assert says in ended.err and len(ended.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_weights_of_which_nothing_fits_are_refused_before_any_work(deepmac, scenes_toml, tmp_path) -> None:
    torch.save({"layer1.weight": torch.zeros(3, 3)}, tmp_path / "w.pth")
    key = f"student.train.init_from={tmp_path / 'w.pth'}"
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "run", "--set", key)
    assert_refused(ended, "w.pth: none of its 1 tensors fits the model; got such as layer1.weight (3, 3)")
    assert len(ended.err.splitlines()) == 1 and not (tmp_path / "run").exists()


def test_a_segmenter_with_nothing_to_train_takes_none(chain, deepmac, scenes_toml, tmp_path) -> None:
    sets = ["--set", "teacher.segmenter=grabcut", "--set", f"{KEY}={weights(chain[0])}"]
    ended = deepmac("teach", "--config", scenes_toml, "--out", tmp_path / "run", *sets)
    assert_refused(ended, f"{KEY}: got ")
    assert "grabcut has nothing to train" in ended.err and not (tmp_path / "run").exists()


def test_a_training_does_not_start_from_what_it_would_delete(run_copy, deepmac) -> None:
    run = run_copy()
    before = weights(run).read_bytes()
    ended = deepmac("teach", "--out", run, "--force", "--set", f"{KEY}={weights(run)}")
    assert_refused(ended, "is what this training itself writes; expected a copy elsewhere")
    assert weights(run).read_bytes() == before


def test_a_training_that_was_stopped_goes_on_from_its_state(
    chain, deepmac, flags, tmp_path, monkeypatch
) -> None:
    given = [*flags(), "--set", "teacher.train.steps=6", "--set", f"{KEY}={weights(chain[0])}"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert deepmac("teach", "--out", whole, *given).code == 0
    accumulate = loop.accumulate_gradients

    def stopping(*given: Any) -> Any:
        if given[-1] == 5:  # after the checkpoint of 4 steps
            raise KeyboardInterrupt
        return accumulate(*given)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accumulate_gradients", stopping)
        ended = deepmac("teach", "--out", stopped, *given)
    assert ended.code == 130 and told(ended)
    ended = deepmac("teach", "--out", stopped, *given)
    assert ended.code == 0 and not told(ended)
    assert weights(stopped).read_bytes() == weights(whole).read_bytes()
