"""`--seeds N`: a run of each seed, and what they have in common."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import results
from deepmac_distill.evaluation.results import read_result
from deepmac_distill.evaluation.retention_results import Retention
from deepmac_distill.evaluation.seed_results import SeedsReport
from deepmac_distill.experiments.run_record import RunRecord, record_over_seeds

SPLITS = ("all", "seen", "unseen")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def assert_refused(ended: Any, says: str) -> None:
    assert ended.code == 2 and ended.out == ""
    last = ended.err.splitlines()[-1]
    assert last.startswith("deepmac: ") and says in last


@pytest.fixture(scope="module")
def seeded(chain, deepmac, scenes_toml, tmp_path_factory) -> tuple[Path, Any]:
    """Two seeds of the chain's recipe, the first of which is the chain's own run, and how that ended."""
    out = tmp_path_factory.mktemp("seeds") / "runs"
    return out, deepmac("run", scenes_toml, "--out", out, "--seeds", "2")


def test_each_seed_is_a_complete_run_on_the_same_scenes(seeded, chain) -> None:
    out, ended = seeded
    assert ended.code == 0, ended.err
    assert {path.name for path in out.iterdir()} == {"seed-0", "seed-1", "report"}
    runs = [out / "seed-0", out / "seed-1"]
    stages = {path.name for path in chain[0].iterdir() if path.is_dir()}
    assert [{path.name for path in run.iterdir() if path.is_dir()} for run in runs] == [stages] * 2
    assert [read(run / "config.json")["seed"] for run in runs] == [0, 1]
    instances, one, other = (run / "scenes-val" / "instances.json" for run in (chain[0], *runs))
    assert instances.read_bytes() == one.read_bytes() == other.read_bytes()
    alone, one, other = (run / "student" / "weights.safetensors" for run in (chain[0], *runs))
    assert alone.read_bytes() == one.read_bytes() != other.read_bytes()  # a run of one seed is what it was


def test_the_report_holds_means_with_intervals_of_images_and_seeds(seeded) -> None:
    out, ended = seeded
    found = read_result(out / "report" / "summary.json", SeedsReport)
    assert found.seeds == (0, 1)
    for role in ("teacher", "student"):
        ours = getattr(found.report, role)
        each = [read(out / f"seed-{seed}" / f"evaluate-{role}" / "summary.json") for seed in (0, 1)]
        for split in SPLITS:
            row, theirs = ours.given_boxes[split], [one["given_boxes"][split] for one in each]
            for part in ("model", "model_minus_ellipse", "model_minus_box"):
                mean = np.mean([one[part]["value"] for one in theirs])
                assert getattr(row, part).value == pytest.approx(mean)
            ap = [one["detected"]["segm"][split]["AP"] for one in each]
            assert pytest.approx(np.mean(ap)) == ours.detected.segm[split].AP
            listed = [found.class_mean_iou[role][str(seed)][split] for seed in (0, 1)]
            assert listed == [one["class_mean_iou"]["model"] for one in theirs]
    # Two seeds: one degree of freedom, whose t is 12.7, of the teacher's own spread.
    levels = [one.unseen for one in found.class_mean_iou["teacher"].values()]
    unseen = found.report.teacher.given_boxes.unseen.model
    assert unseen.seeds_half == pytest.approx(12.7062 * np.std(levels, ddof=1) / np.sqrt(2), rel=1e-4)
    assert unseen.high - unseen.value >= unseen.seeds_half and unseen.seeds_df == 1
    for part in (
        found.report.teacher.given_boxes.unseen.boundary,
        found.report.student.given_boxes.all.by_size.small,
    ):
        lead = part.model_minus_ellipse  # of whatever stands in a result, the interval holds both errors
        assert lead.high - lead.value == pytest.approx(lead.value - lead.low)
    assert "image sampling and training noise (2 seeds)" in ended.out and "standard deviation" in ended.out


def test_a_second_call_does_only_what_is_missing(seeded, deepmac, scenes_toml, tmp_path) -> None:
    out = shutil.copytree(seeded[0], tmp_path / "runs")
    shutil.rmtree(out / "seed-1" / "evaluate-student")
    before = read_result(out / "report" / "summary.json", SeedsReport)
    ended = deepmac("run", scenes_toml, "--out", out, "--seeds", "2")
    assert ended.code == 0, ended.err
    done = [line.split(":")[0] for line in ended.err.splitlines() if "done before, skipped" in line]
    assert [done.count(name) for name in ("teacher", "student", "evaluate-student")] == [2, 2, 1]
    assert read_result(out / "report" / "summary.json", SeedsReport) == before


def test_each_seed_is_kept_as_a_small_file_and_a_table_takes_what_is_there(seeded, tmp_path) -> None:
    results.record(seeded[0], tmp_path / "kept", "make runs")
    files = results.recorded_files("kept", tmp_path)
    assert [path.name for path in files] == ["seed-0.json", "seed-1.json"]
    assert all(path.stat().st_size < 100_000 for path in files)
    kept = [read(path) for path in files]
    page, one = results.chain_table(*kept), results.chain_table(kept[0])
    assert "seeds 0, 1 (missing: 2)" in page and "image sampling and training noise (2 seeds)" in page
    assert ", seed 0, " in one and "image sampling only" in one
    found = read_result(seeded[0] / "report" / "summary.json", SeedsReport).report
    _, mean = record_over_seeds([read_result(path, RunRecord) for path in files])
    for role in ("teacher", "student"):
        ours, exact = (getattr(x, role).given_boxes.unseen.model_minus_ellipse for x in (mean, found))
        assert ours.value == pytest.approx(exact.value)
        # Of 20 resamples, other ones for each seed: the widths agree as far as these can show.
        assert (ours.high - ours.low) / (exact.high - exact.low) == pytest.approx(1.0, abs=0.3)


def test_status_shows_each_seed(seeded, deepmac) -> None:
    ended = deepmac("status", seeded[0])
    assert ended.code == 0
    headings = [line for line in ended.out.splitlines() if line.startswith("seed ")]
    assert headings == [f"seed {seed}: {seeded[0] / f'seed-{seed}'}" for seed in (0, 1)]
    assert sum(line.startswith("report ") for line in ended.out.splitlines()) == 2


def test_retention_goes_over_the_seeds_that_are_there(seeded, deepmac, tmp_path) -> None:
    out = shutil.copytree(seeded[0], tmp_path / "runs")
    ended = deepmac("retention", "--out", out, "--seeds", "2")
    assert ended.code == 0, ended.err
    found = read_result(out / "retention" / "summary.json", Retention)
    assert found.seeds == (0, 1) and "image sampling and training noise (2 seeds)" in ended.out
    each = [read(out / f"seed-{seed}" / "retention" / "summary.json") for seed in (0, 1)]
    assert [one["seeds"] for one in each] == [[0], [1]]
    for split in SPLITS:
        row = found.given_boxes[split].class_mean_iou
        theirs = [one["given_boxes"][split]["class_mean_iou"] for one in each]
        assert row.pseudo == pytest.approx(np.mean([one["pseudo"] for one in theirs]))
        assert all(one["retention"]["low"] is None for one in theirs)
        assert row.retention.low is not None or row.retention.undefined
    assert_refused(deepmac("retention", "--out", out, "--seeds", "3"), "seed-2: no run there")
    shutil.rmtree(out / "retention")
    (tmp_path / "outside").mkdir()
    (out / "retention").symlink_to(tmp_path / "outside")
    ended = deepmac("retention", "--out", out, "--seeds", "2")
    assert ended.code == 2 and "retention: is a link" in ended.err.splitlines()[-1]
    assert not list((tmp_path / "outside").iterdir())


def test_recipes_of_several_seeds_are_compared_pair_by_pair(seeded, deepmac) -> None:
    out, options = seeded[0], ("--json", "--resamples", "20")
    pairs = [
        [folder / f"evaluate-{role}" for role in ("student", "teacher")]
        for folder in (out, *out.glob("seed-*"))
    ]
    found, *each = (json.loads(deepmac("compare", *pair, *options).out) for pair in pairs)
    assert found["seeds"] == [0, 1]
    for split in SPLITS:
        ours = found["given_boxes"][split]["a_minus_b"]
        values = [one["given_boxes"][split]["a_minus_b"]["value"] for one in each]
        assert ours["value"] == pytest.approx(np.mean(values))
        half = 12.706 * np.std(values, ddof=1) / 2**0.5  # one degree of freedom
        assert ours["high"] - ours["value"] == pytest.approx(ours["value"] - ours["low"])
        assert ours["high"] - ours["value"] >= half


def test_a_folder_of_seeds_beside_one_seed_is_that_seed_alone(seeded, deepmac) -> None:
    out, options = seeded[0], ("--json", "--resamples", "20")
    pair = out / "seed-1" / "evaluate-student", out / "seed-1" / "evaluate-teacher"
    one = deepmac("compare", *pair, *options)
    mixed = deepmac("compare", out / "evaluate-student", pair[1], *options)
    assert mixed.code == 0 and json.loads(mixed.out) == {**json.loads(one.out), "seeds": [1]}
    assert f"{out / 'evaluate-student'}: seed 0 left out: not in the other" in mixed.err
    assert "left out" not in one.err


def test_seeds_without_a_partner_are_named(seeded, deepmac, tmp_path) -> None:
    out, other = seeded[0], shutil.copytree(seeded[0], tmp_path / "other")
    shutil.move(other / "seed-1", other / "seed-7")
    shutil.copytree(other / "seed-7", other / "seed-8")
    shutil.rmtree(other / "seed-8" / "evaluate-teacher")
    ended = deepmac("compare", out / "evaluate-student", other / "evaluate-teacher", "--resamples", "5")
    assert ended.code == 0 and "image sampling only" in ended.out
    notes = [line for line in ended.err.splitlines() if "left out" in line]
    assert [note.split(": ", 1)[1] for note in notes] == [
        "seed 1 left out: not in the other",
        "seed 7 left out: not in the other",
        "seed 8 left out: not evaluated",
    ]
    shutil.rmtree(other / "seed-0")
    nothing = deepmac("compare", out / "evaluate-student", other / "evaluate-student")
    assert_refused(nothing, "seeds 0, 1 and ")
    assert "seeds 7, 8; expected a seed that both have" in nothing.err


def test_what_is_no_evaluation_names_those_in_it(seeded, chain, deepmac, tmp_path) -> None:
    out, run = seeded[0], chain[0]
    student, several = out / "evaluate-student", f"{out}: holds runs of several seeds; expected {out}"

    def refused(path: Path, says: str) -> None:
        assert_refused(deepmac("compare", path, student), says)
        assert_refused(deepmac("compare", student, path), says)

    refused(out, f"{several}/evaluate-student or {out}/evaluate-teacher")
    refused(out / "evaluate-none", several)
    refused(run, f"{run}: is a run; expected {run}/evaluate-student or ")
    refused(tmp_path, f"{tmp_path}: no evaluation; expected a folder that")
    refused(run / "evaluate-student", f"{run}/evaluate-student of one run")


@pytest.mark.parametrize("command", ["run", "retention"])
def test_seeds_and_single_runs_are_not_mixed(seeded, chain, deepmac, scenes_toml, command: str) -> None:
    def ended(*words: Any) -> Any:
        return deepmac(command, "--config", scenes_toml, *words)

    assert_refused(ended("--out", seeded[0]), "holds runs of several seeds; expected one of them")
    assert_refused(ended("--out", chain[0], "--seeds", "2"), "holds no runs of several seeds")
    assert_refused(deepmac("teach", "--out", seeded[0]), "no run of one seed there")
    assert_refused(ended("--seeds", "0"), "invalid value for '--seeds'")
    words = ("--out", seeded[0], "--seeds", "2", "--set", "seed=5")
    assert_refused(ended(*words), "--set seed: got 5 for every run, expected --seed")


def test_a_seed_is_written_through_no_link(chain, deepmac, scenes_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "seed-0").symlink_to(chain[0])
    ended = deepmac("run", scenes_toml, "--out", tmp_path / "runs", "--seeds", "2")
    assert_refused(ended, "seed-0: is a link")


def test_a_report_over_seeds_is_written_through_no_link(
    seeded, deepmac, scenes_toml: Path, tmp_path: Path
) -> None:
    out, outside = shutil.copytree(seeded[0], tmp_path / "runs"), tmp_path / "outside"
    shutil.rmtree(out / "report")
    outside.mkdir()
    (out / "report").symlink_to(outside)
    ended = deepmac("run", scenes_toml, "--out", out, "--seeds", "2")
    assert ended.code == 2 and "report: is a link" in ended.err.splitlines()[-1]
    assert not list(outside.iterdir())
