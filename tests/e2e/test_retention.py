"""`deepmac retention`: three students that differ in the masks they were shown, and what may not leak."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepmac_distill.data.synthetic import SEEN_SHAPES
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.weights.card import read_card

SEEN = ",".join(SEEN_SHAPES)
ARMS = {"human_seen": "student-seen", "pseudo": "student", "human_all": "student-human"}
DIFFERENCES = {
    "pseudo_minus_human_seen": ("pseudo", "human_seen"),
    "human_all_minus_pseudo": ("human_all", "pseudo"),
    "human_all_minus_human_seen": ("human_all", "human_seen"),
}
ADDED = {"student-seen", "student-human", "evaluate-student-seen", "evaluate-student-human", "retention"}


Change = Callable[[dict], Any]


def none(raw: dict) -> None:
    """No change."""


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def weights(run: Path, stage: str) -> Path:
    return run / stage / "weights.safetensors"


def assert_refused(ended: Any, says: str) -> None:
    last = ended.err.splitlines()[-1]
    assert ended.code == 2, ended.err
    assert last.startswith("deepmac: ") and says in last
    assert ended.out == "" and "Traceback" not in ended.err


@pytest.fixture(scope="module")
def retained(chain, deepmac, tmp_path_factory) -> tuple[Path, Any]:
    """The chain's run after `deepmac retention`, and how that ended. Tests that change it take a copy."""
    run = tmp_path_factory.mktemp("retention") / "run"
    shutil.copytree(chain[0], run)
    return run, deepmac("retention", "--out", run)


@pytest.fixture
def own_data(chain, small_toml, tmp_path) -> Callable[..., list[Any]]:
    """Flags for the chain's scenes as data of one's own, after changes to the annotations of each file."""

    def flags(train: Change = none, val: Change = none, seen: str = SEEN) -> list[Any]:
        given: list[Any] = ["--config", small_toml, "--seen", seen]
        for kind, change, prefix in (("train", train, "--"), ("val", val, "--val-")):
            scenes = chain[0] / f"scenes-{kind}"
            raw = read(scenes / "instances.json")
            change(raw)
            (tmp_path / f"{kind}.json").write_text(json.dumps(raw))
            given += [f"{prefix}annotations", tmp_path / f"{kind}.json", f"{prefix}images", scenes / "images"]
        return given

    return flags


def of_unseen(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict], None]:
    def work(raw: dict) -> None:
        unseen = {c["id"] for c in raw["categories"] if c["name"] not in SEEN_SHAPES}
        for annotation in raw["annotations"]:
            if annotation["category_id"] in unseen:
                change(annotation)

    return work


def drop_mask(annotation: dict[str, Any]) -> None:
    annotation.pop("segmentation")


def test_three_students_are_trained_and_evaluated_beside_the_runs_own(chain, retained) -> None:
    run, ended = retained
    assert ended.code == 0, ended.err
    assert {p.name for p in run.iterdir()} == {p.name for p in chain[0].iterdir()} | ADDED
    assert "student: done before, skipped" in ended.err
    before, after = content(chain[0]), content(run)
    changed = {name for name, data in before.items() if after[name] != data}
    assert changed <= {"validation_readings.jsonl", "config.json"}
    assert len({weights(run, stage).read_bytes() for stage in ARMS.values()}) == 3
    assert "Retention is" in ended.out and f"figures: {run / 'retention'}" in ended.out
    stages = [json.loads(line)["stage"] for line in after["validation_readings.jsonl"].splitlines()]
    assert stages[3:] == ["evaluate-student-seen", "evaluate-student-human", "retention"]


def test_its_figures_are_those_of_evaluate_and_compare(retained, deepmac) -> None:
    run, _ = retained
    found = read(run / "retention" / "summary.json")
    assert found["arms"] == ARMS and found["unseen_without_human_masks"] == []
    evaluated = {arm: read(run / f"evaluate-{stage}" / "summary.json") for arm, stage in ARMS.items()}
    for split in ("all", "seen", "unseen"):
        for arm, summary in evaluated.items():
            for mean in ("class_mean_iou", "instance_mean_iou"):
                theirs = summary["given_boxes"][split][mean]["model"]
                assert found["given_boxes"][split][mean][arm] == pytest.approx(theirs)
            ap = summary["detected"]["segm"][split]["AP"]
            assert found["detected"]["segm"][split][arm] == pytest.approx(ap)
    for name, arms in DIFFERENCES.items():
        folders = [run / f"evaluate-{ARMS[arm]}" for arm in arms]
        ended = deepmac("compare", *folders, "--json", "--resamples", "20")
        compared = json.loads(ended.out)
        for split in ("all", "seen", "unseen"):
            row = found["given_boxes"][split]
            theirs = compared["given_boxes"][split]["a_minus_b"]
            assert row["class_mean_iou"][name] == pytest.approx(theirs, abs=1e-12)
            assert (
                found["detected"]["segm"][split][name]
                == compared["detected"]["segm"][split]["AP"]["a_minus_b"]
            )


def test_a_second_call_skips_everything_and_changes_no_byte(retained, deepmac) -> None:
    run, first = retained
    before = content(run)
    ended = deepmac("retention", "--out", run)
    assert ended.code == 0 and ended.out == first.out and content(run) == before
    for stage in (*ARMS.values(), "retention"):
        assert f"{stage}: done before, skipped" in ended.err


def test_force_redoes_all_three_to_the_same_bytes(retained, deepmac, tmp_path) -> None:
    run = shutil.copytree(retained[0], tmp_path / "run")
    ended = deepmac("retention", "--out", run, "--force")
    assert ended.code == 0 and ended.out == retained[1].out.replace(str(retained[0]), str(run))
    assert not re.search("(student|retention).*: done before", ended.err)
    for stage in ARMS.values():
        assert weights(run, stage).read_bytes() == weights(retained[0], stage).read_bytes()


def test_a_card_says_which_masks_its_student_was_shown(retained) -> None:
    cards = {arm: read_card(weights(retained[0], stage)) for arm, stage in ARMS.items()}
    for arm in ("human_seen", "pseudo"):
        assert {n for n, seen in zip(cards[arm].class_names, cards[arm].seen, strict=True) if seen} == set(
            SEEN_SHAPES
        )
    assert all(cards["human_all"].seen) and {card.role for card in cards.values()} == {"student"}
    assert cards["human_seen"].model == cards["pseudo"].model == cards["human_all"].model


def test_what_the_student_of_all_masks_saw_is_unseen_under_its_own_name_alone(
    retained, deepmac, own_data, tmp_path
) -> None:
    """Elsewhere its card follows it: into figures, and into labels and so into their student."""
    upper, given = weights(retained[0], "student-human"), own_data()
    every = set(read_card(upper).class_names)
    out = tmp_path / "evaluated"
    ended = deepmac("evaluate", "--model", upper, "--out", out, *given[:4], *given[8:])
    assert ended.code == 0 and "count as shown elsewhere: it saw their masks" in ended.err, ended.err
    (summary,) = out.glob("evaluate-*/summary.json")
    figures = read(summary)["given_boxes"]
    assert figures["unseen"]["classes"] == 0 and figures["shown_elsewhere"]["classes"] > 0
    ended = deepmac("pseudolabel", "--model", upper, "--out", tmp_path / "other", *given[:8])
    assert ended.code == 0, ended.err
    labels = Labels.open(tmp_path / "other" / "pseudolabel" / "masks.parquet")
    assert set(labels.seen_mask_classes or ()) == every
    assert deepmac("evaluate", "student-human", "--out", retained[0]).code == 0
    by_name = read(retained[0] / "evaluate-student-human" / "summary.json")["given_boxes"]
    assert by_name["unseen"]["classes"] > 0


def test_nothing_else_reads_the_student_of_all_masks(retained, deepmac, scenes_toml, tmp_path) -> None:
    run = shutil.copytree(retained[0], tmp_path / "run")
    for stage in ("student-human", "evaluate-student-human"):
        for path in (run / stage).iterdir():
            path.write_bytes(b"?")
    shutil.rmtree(run / "select")
    before = content(run)
    ended = deepmac("run", scenes_toml, "--out", run)
    assert ended.code == 0, ended.err
    after = content(run)
    assert {name for name, data in before.items() if after[name] != data} <= {"config.json"}
    for name in ("instances.json", "counts.json"):
        assert after[f"select/{name}"] == (retained[0] / "select" / name).read_bytes()


def test_hidden_masks_reach_the_student_of_all_masks_alone(retained, deepmac, own_data, tmp_path) -> None:
    rng = random.Random(0)

    def garbage(annotation: dict[str, Any]) -> None:
        annotation["segmentation"] = [[rng.uniform(0, 64) for _ in range(2 * rng.randint(3, 6))]]
        annotation["area"] = rng.uniform(1, 4096)

    run, given = tmp_path / "run", own_data(train=of_unseen(garbage))
    assert deepmac("teach", "--out", run, *given[:8]).code == 0
    assert deepmac("pseudolabel", "--out", run).code == 0
    ended = deepmac("retention", "--out", run, *given)  # trains its own student too
    assert ended.code == 0, ended.err
    same = {
        arm: weights(run, s).read_bytes() == weights(retained[0], s).read_bytes() for arm, s in ARMS.items()
    }
    assert same == {"human_seen": True, "pseudo": True, "human_all": False}


def test_a_student_whose_labels_came_from_elsewhere_is_taken_if_its_recipe_is_the_same(
    retained, deepmac, tmp_path
) -> None:
    without = shutil.ignore_patterns("select", "pseudolabel")
    run = shutil.copytree(retained[0], tmp_path / "run", ignore=without)
    ended = deepmac("retention", "--out", run)
    assert ended.code == 0 and ended.out == retained[1].out.replace(str(retained[0]), str(run))
    ended = deepmac("retention", "--out", run, "--set", "student.train.lr=0.5")
    assert_refused(ended, "student was made with student.train.lr = 0.001, now 0.5")


def test_a_student_of_other_seen_classes_is_refused_before_the_others_are_trained(
    retained, deepmac, tmp_path
) -> None:
    kept = shutil.ignore_patterns("select", "pseudolabel", "student-*", "evaluate-*", "retention")
    run = shutil.copytree(retained[0], tmp_path / "run", ignore=kept)
    ended = deepmac("retention", "--out", run, "--seen", SEEN_SHAPES[0])
    assert_refused(ended, "expected the same seen classes (--seen)")
    assert not list(run.glob("student-*"))


def test_without_labels_or_a_student_the_command_to_run_is_named(run_copy, deepmac) -> None:
    run = run_copy("pseudolabel", "select", "student")
    assert_refused(deepmac("retention", "--out", run), "expected `deepmac pseudolabel --out")
    assert_refused(deepmac("evaluate", "student-seen", "--out", run), "expected `deepmac retention --out")
    assert not list(run.glob("student*"))


def test_labels_of_other_annotations_are_refused(run_copy, deepmac, own_data) -> None:
    run = run_copy("student")

    def shift(raw: dict) -> None:
        raw["annotations"][0]["bbox"][0] += 1

    ended = deepmac("retention", "--out", run, *own_data(train=shift)[2:])
    assert_refused(ended, "pseudolabel was made from other annotations or seen classes")
    assert not list(run.glob("student*"))


def drawn_by_a_teacher(raw: dict[str, Any]) -> None:
    """Masks of unseen classes, in a file that carries our mark: elsewhere a `source` is a foreign key."""
    raw["deepmac_distill"] = {"schema": 2}
    of_unseen(lambda annotation: annotation.update(source="teacher"))(raw)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": of_unseen(drop_mask)}, "train.json: no human masks of the unseen classes ("),
        ({"val": of_unseen(drop_mask)}, "val.json: no human masks of the unseen classes ("),
        ({"train": drawn_by_a_teacher}, "masks of a teacher; expected human masks alone"),
        ({"seen": "all"}, "data.seen: got every class of "),
    ],
)
def test_data_that_cannot_tell_the_students_apart_are_refused_before_any_training(
    deepmac, own_data, tmp_path, changes: dict[str, Any], says: str
) -> None:
    ended = deepmac("retention", "--out", tmp_path / "run", *own_data(**changes))
    assert_refused(ended, says)
    assert not list(tmp_path.rglob("done.json"))


def test_without_a_validation_set_it_is_refused(deepmac, own_data, tmp_path) -> None:
    ended = deepmac("retention", "--out", tmp_path / "run", *own_data()[:8])
    assert_refused(ended, "data.val_annotations: got nothing")


def test_unseen_classes_without_a_human_mask_are_named(deepmac, own_data, tmp_path) -> None:
    def drop_rings(raw: dict) -> None:
        (ring,) = (c["id"] for c in raw["categories"] if c["name"] == "ring")
        of_unseen(lambda a: a["category_id"] == ring and drop_mask(a))(raw)

    ended = deepmac("retention", "--out", tmp_path / "run", *own_data(train=drop_rings))
    assert_refused(ended, "expected `deepmac pseudolabel --out")
    assert "no human masks in training of 1 unseen classes (ring)" in ended.err


@pytest.mark.parametrize("agnostic", [False, True])
def test_a_student_with_a_mask_for_each_class_is_called_unfair(run_copy, deepmac, tmp_path, agnostic) -> None:
    run = run_copy("pseudolabel", "select", "student")
    model = f'architecture = "mask_rcnn"\nbackbone = "resnet18"\nclass_agnostic = {str(agnostic).lower()}\n'
    text = (run / "config.toml").read_text()
    text = re.sub(r"(?<=\[student.model\]\n).*?(?=\[student.train\])", model, text, flags=re.DOTALL)
    (tmp_path / "rcnn.toml").write_text(text)
    ended = deepmac("retention", "--config", tmp_path / "rcnn.toml", "--out", run)
    assert_refused(ended, "expected `deepmac pseudolabel --out")
    assert ("class_agnostic = true is the fair comparison" in ended.err) != agnostic


def test_help_names_it(deepmac) -> None:
    assert "retention" in deepmac("--help").out and deepmac("retention", "--help").code == 0
