from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from deepmac_distill.config import Pipeline, flatten, load_pipeline
from deepmac_distill.errors import ConfigError


def load(text: str, tmp_path: Path, *overrides: str) -> Pipeline:
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    return load_pipeline(path, list(overrides))


def refusal(text: str, tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load("", tmp_path) == load_pipeline(None) == Pipeline()


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    pipeline = load("seed = 3\n[student.train]\nlr = 1\ndecay_steps = [5]\nschedule = 'steps'", tmp_path)
    changed = {key for key, value in flatten(pipeline).items() if flatten(Pipeline())[key] != value}
    assert changed == {"seed", "student.train.lr", "student.train.decay_steps", "student.train.schedule"}
    assert pipeline.student.train.lr == 1.0 and type(pipeline.student.train.lr) is float
    assert pipeline.student.train.decay_steps == (5,)


def test_the_student_keeps_its_light_mask_head_when_a_file_names_something_else_of_it(tmp_path: Path) -> None:
    for text in ("", "[student.train]\nlr = 1", "[student.model]\nmask_width = 8"):
        assert load(text, tmp_path).student.model.mask_head == "resnet-4"


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("sed = 1", "sed", "did you mean seed?"),
        ("[teacher.train]\nlearning = 1", "teacher.train.learning", "unknown key"),
        ("[teacher]\nepochs = 1", "teacher.epochs", "expected one of model, train"),
        ("teacher = 3", "teacher", "got 3, expected a table"),
        ("seed = '1'", "seed", "got '1', expected int"),
        ("seed = true", "seed", "got True, expected int"),
        ("seed = -1", "seed", "got -1, expected at least 0"),
        ("threads = -1", "threads", "got -1, expected at least 0"),
        ("[data]\nsource = 'voc'", "data.source", "expected one of coco, scenes"),
        ("[data]\nseen = []", "data.seen", "expected at least one class"),
        ("[data]\nseen = [1]", "data.seen", "got 1, expected str"),
        ("[data]\nworkers = -1", "data.workers", "got -1"),
        ("[data.scenes]\nsize_px = 16", "data.scenes.size_px", "at least 32"),
        ("[data.scenes]\nseed = -2", "data.scenes.seed", "at least -1"),
        ("[data.scenes]\nval_images = 0", "data.scenes.train_images, val_images", "expected > 0"),
        ("[teacher.model]\nmask_width = 6", "teacher.model.mask_width", "a multiple of 4"),
        ("[teacher.model]\nbackbone_width = 0", "teacher.model.backbone_width", "got 0"),
        ("[teacher.model]\nmask_weight = -1", "teacher.model.mask_weight", "got -1"),
        (
            "[teacher.model]\nbatch_norm_boxes = 'none'",
            "teacher.model.batch_norm_boxes",
            "masked, all",
        ),
        ("[student.train]\nsteps = 0", "student.train.steps", "got 0, expected at least 1"),
        ("[student.train]\nsteps = 1.5", "student.train.steps", "got 1.5, expected int"),
        ("[student.train]\nlr = 0", "student.train.lr", "expected > 0"),
        ("[student.train]\nlr = nan", "student.train.lr", "got nan"),
        (
            "[teacher.model]\nbatch_norm_boxes = 'all'\nmask_instances_per_image = 4",
            "teacher.model.mask_instances_per_image",
            "got 4, expected 0 with batch_norm_boxes",
        ),
        (
            "[teacher.train]\nwindow_context = 0.5",
            "teacher.train.window_context",
            "1 to 20, or 0 for the look's",
        ),
        ("[teacher.train]\nwindow_size_px = -1", "teacher.train.window_size_px", "or 0 for the look's"),
        (
            "[evaluation]\nmin_lead_over_ellipse = nan",
            "evaluation.min_lead_over_ellipse",
            "got nan, expected a fin",
        ),
        (
            "[evaluation]\nmin_lead_over_ellipse = inf",
            "evaluation.min_lead_over_ellipse",
            "got inf, expected a fin",
        ),
        (
            "[evaluation]\nmin_lead_over_ellipse = 5",
            "evaluation.min_lead_over_ellipse",
            "a fraction, -1 to 1",
        ),
        ("[teacher.train]\nmax_grad_norm = inf", "teacher.train.max_grad_norm", "got inf, expected a finite"),
        ("[labels]\ncut = nan", "labels.cut", "got nan, expected a finite"),
        ("[teacher.look]\nwindow_context = nan", "teacher.look.window_context", "got nan, expected a finite"),
        ("[labels]\nmin_expected_iou = 1", "labels.min_expected_iou", "got 1.0, expected in [0, 1)"),
        ("[student.train]\nmax_grad_norm = -1", "student.train.max_grad_norm", "got -1"),
        ("[student.train]\nweight_decay = -1", "student.train.weight_decay", "got -1"),
        ("[student.train]\nmomentum = 1", "student.train.momentum", "in [0, 1)"),
        ("[student.train]\nwarmup_steps = 9\nsteps = 8", "student.train.warmup_steps", "0 to steps"),
        ("[student.train]\nema_decay = 1", "student.train.ema_decay", "in [0, 1)"),
        ("[student.train]\nscale_range = [1, 0.5]", "student.train.scale_range", "low <= high"),
        ("[student.train]\nscale_range = 1", "student.train.scale_range", "got 1, expected a list"),
        ("[student.train]\nschedule = 'steps'", "student.train.decay_steps", "got ()"),
        ("[student.train]\ndecay_steps = [3]", "student.train.decay_steps", "exactly when schedule"),
        ("[labels]\ncut = 1", "labels.cut", "got 1.0, expected in [0, 1), expected-iou or calibrated"),
        ("[labels]\ncut = 'best'", "labels.cut", "got 'best', expected a number or expected-iou, calibrated"),
        ("[labels]\ncut = true", "labels.cut", "got True, expected a number or expected-iou, calibrated"),
        ("[labels]\ncut = 0.5\nsoft = false", "labels.soft", "true for a cut other than expected-iou"),
        ("[labels]\nthreshold = 0.4", "labels.threshold", "it is now called cut"),
        ("[labels]\non_rejected = 'hide'", "labels.on_rejected", "keep_box, drop, ignore"),
        ("[evaluation]\nbootstrap = 0", "evaluation.bootstrap", "got 0"),
    ],
)
def test_a_refused_value_is_named_by_its_full_key(tmp_path: Path, text: str, key: str, says: str) -> None:
    message = refusal(text, tmp_path)
    assert message.startswith(f"{tmp_path / 'pipeline.toml'}: {key}: ") and says in message


@pytest.mark.parametrize("text", ["seed = ", "seed = 1\nseed = 2", "[data", '{"seed": 1}', "a = '\x00'"])
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path: Path, text: str) -> None:
    message = refusal(text, tmp_path)
    assert message.startswith(f"{tmp_path / 'pipeline.toml'}: cannot be read: ") and "TOML" in message


def test_a_missing_file_and_one_in_another_encoding_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such pipeline file"):
        load_pipeline(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="is a folder; expected a TOML file"):
        load_pipeline(tmp_path)
    (tmp_path / "latin.toml").write_bytes("name = 'Zürich'".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml: cannot be read"):
        load_pipeline(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("teacher.train.lr=1e-4", "teacher.train.lr", 1e-4),
        (" teacher.train.steps = 7 ", "teacher.train.steps", 7),
        ("data.seen=voc", "data.seen", ["voc"]),
        ("data.seen=potted plant, cat", "data.seen", ["potted plant", "cat"]),
        ('data.seen=["a", "b"]', "data.seen", ["a", "b"]),
        ("evaluation.reference=true", "evaluation.reference", True),
        ("student.model.pyramid_channels=[8, 4, 4]", "student.model.pyramid_channels", [8, 4, 4]),
        ("data.root=/a=b", "data.root", "/a=b"),
    ],
)
def test_the_right_side_of_an_override_is_toml_or_a_bare_word(override: str, key: str, value: object) -> None:
    assert flatten(load_pipeline(None, [override]))[key] == value


def test_overrides_come_after_the_file_and_the_last_one_counts(tmp_path: Path) -> None:
    text = "seed = 1\n[teacher.train]\nlr = 0.5\nsteps = 9"
    pipeline = load(text, tmp_path, "seed=2", "seed=3", "teacher.train.lr=0.25")
    assert (pipeline.seed, pipeline.teacher.train.lr, pipeline.teacher.train.steps) == (3, 0.25, 9)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("teacher.train.lr", "expected key=value"),
        ("=1", "expected key=value"),
        ("teacher..lr=1", "expected key=value"),
        ("seed.more=1", "seed is a value, expected a table"),
        ("teacher.train.step=1", "teacher.train.step: unknown key; did you mean steps?"),
        ("evaluation.reference=True", "evaluation.reference: got 'True', expected bool"),
    ],
)
def test_an_override_is_as_strict_as_a_file(tmp_path: Path, override: str, says: str) -> None:
    assert says in refusal("seed = 1", tmp_path, override)


def test_the_resolved_form_that_a_run_keeps_reads_back_as_the_same_pipeline(tmp_path: Path) -> None:
    pipeline = load("seed = 3\n[data]\nseen = ['a', 'b']\n[labels]\ncut = 0.25", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(pipeline)))
    assert load_pipeline(tmp_path / "config.json") == pipeline


SHORT = "[student.train]\nsteps = 100\nwarmup_steps = 20\nschedule = 'steps'\ndecay_steps = [50, 80]"


@pytest.mark.parametrize(
    ("overrides", "warmup", "decays", "notes"),
    [
        ([], 20, (50, 80), 0),
        (["student.train.steps=90"], 20, (50, 80), 0),  # all of it still fits
        (["student.train.steps=60"], 20, (30, 48), 1),
        (["student.train.steps=10"], 2, (5, 8), 2),
        (["student.train.steps=200"], 20, (50, 80), 0),
        (["student.train.steps=10", "student.train.decay_steps=[3]"], 2, (3,), 1),
    ],
)
def test_a_shorter_training_has_a_shorter_warm_up_and_says_so(
    tmp_path: Path, overrides: list[str], warmup: int, decays: tuple[int, ...], notes: int
) -> None:
    (tmp_path / "a.toml").write_text(SHORT)
    told: list[str] = []
    train = load_pipeline(tmp_path / "a.toml", overrides, note=told.append).student.train
    assert (train.warmup_steps, train.decay_steps, len(told)) == (warmup, decays, notes)
    by_value = {key: int(value) for key, value in (text.split("=") for text in overrides[:1])}
    assert load_pipeline(tmp_path / "a.toml", overrides[1:], by_value).student.train == train


def test_a_warm_up_that_an_override_names_itself_is_not_changed(tmp_path: Path) -> None:
    given = ("student.train.steps=10", "student.train.warmup_steps=20")
    assert "student.train.warmup_steps: got 20, expected 0 to steps, 10" in refusal(SHORT, tmp_path, *given)


def test_a_wrong_number_of_steps_is_refused_before_anything_is_scaled(tmp_path: Path) -> None:
    assert "student.train.steps: got 0" in refusal(SHORT, tmp_path, "student.train.steps=0")
    assert "student.train.steps: got 'few'" in refusal(SHORT, tmp_path, "student.train.steps=few")
    assert "student: got 3, expected a table" in refusal("student = 3", tmp_path)
