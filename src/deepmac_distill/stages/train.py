"""Stage `teach`, and the training that all models share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deepmac_distill import devices
from deepmac_distill.chain import STAGES, Role, Trained
from deepmac_distill.config import MaskRcnnConfig, RoleConfig, flatten_model
from deepmac_distill.data.dataset import AnnotatedImages
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations, require_seen_masks
from deepmac_distill.errors import ConfigError
from deepmac_distill.labels.export import seen_mask_classes_of
from deepmac_distill.labels.lesson import ChosenLabels, Lesson
from deepmac_distill.links import inner
from deepmac_distill.models.build import build_model
from deepmac_distill.rundir import STATE
from deepmac_distill.stages.chosen_teacher import choosing
from deepmac_distill.stages.few_values import few_values_note
from deepmac_distill.stages.job import Job, training_split
from deepmac_distill.stages.lesson_batches import lesson_batches, log_every
from deepmac_distill.stages.preflight import require_ready
from deepmac_distill.stages.shapes import learn_shapes
from deepmac_distill.stages.training_inputs import deciding_keys, how_compared, training_inputs
from deepmac_distill.storage.fetching import fetched
from deepmac_distill.training.checkpoint import DamagedState
from deepmac_distill.training.event_file import EventFile
from deepmac_distill.training.loop import LoopSettings, make_optimizer, train
from deepmac_distill.training.schedule import make_schedule
from deepmac_distill.weights import transfer
from deepmac_distill.weights.card import (
    ModelCard,
    read_card_if_any,
    require_not_shown,
    save_weights,
)


def teach(job: Job) -> Path | None:
    """Train the teacher on boxes of all classes and masks of the seen ones; returns its weights.

    A segmenter is not trained: there is a note, and nothing to return.
    """
    job = choosing(job)
    if not job.trains_teacher:
        name = job.choice.main.name if job.choice else job.pipeline.teacher.segmenter
        job.progress.note(f"teacher: {name} is not trained; it is ready for deepmac pseudolabel")
        return None
    require_ready(job, [STAGES["teacher"]])
    data = training_split(job)
    annotations = job.read_and_note(data.annotations)
    if (unseen := annotations.classes.unseen_names) and learns_no_unseen_mask(job.pipeline.teacher):
        job.progress.note(
            f"teacher.model has a mask for each class, and those of {len(unseen)} unseen classes learn "
            "nothing, so labels of these are useless; a teacher needs class_agnostic = true"
        )
    require_seen_masks(annotations)
    return train_stage(job, "teacher", annotations, data.images)


def learns_no_unseen_mask(recipe: RoleConfig) -> bool:
    """Whether masks belong to classes, with nothing that carries them over."""
    model = recipe.model
    return (
        isinstance(model, MaskRcnnConfig)
        and not model.class_agnostic
        and model.mask_head != "weight-transfer"
    )


def require_unleaked(job: Job, role: Role) -> None:
    """Refuse initial weights that were shown what is unseen here, as the training itself does.

    Raises:
        CheckpointError: names a class.
    """
    recipe: RoleConfig = getattr(job.pipeline, role)
    if recipe.train.init_from:
        annotations = job.read(training_split(job).annotations)
        _pretrained_mask_classes(job, role, recipe, annotations, annotations.classes.seen)


def train_stage(
    job: Job,
    stage: Trained,
    annotations: Annotations,
    images: ImageStore,
    seen: tuple[bool, ...] | None = None,
    labels: ChosenLabels | None = None,
) -> Path:
    """Train by the recipe of a stage's role, which can be built, on these annotations; returns the weights.

    Args:
        seen: (K,) classes whose masks are shown, for the weights' card; None: those of `annotations`.
        labels: whose masks a student is shown beside those in `annotations`.

    Raises:
        DataError: the labels are of other annotations.
        CheckpointError: the initial weights were shown masks of a class that is unseen here.
    """
    role = _role_of(stage)
    recipe: RoleConfig = getattr(job.pipeline, role)
    seen = annotations.classes.seen if seen is None else seen
    pretrained_mask_classes = _pretrained_mask_classes(job, stage, recipe, annotations, seen)
    inputs = {}
    if job.ranks.leads:  # images are hashed for it
        inputs = training_inputs(job, role, annotations, images) | (labels.inputs() if labels else {})
    comparing = how_compared(recipe, role, labels.unnamed() if labels else {})

    def work(folder: Path) -> None:
        lesson = labels.lesson(annotations) if labels else Lesson(annotations)
        if lesson.counts:
            counts = ", ".join(f"{count} {name}" for name, count in lesson.counts.items() if count)
            job.progress.note(f"{stage}: masks: {counts}")
        several = f" in {job.ranks.world} processes" if job.ranks.world > 1 else ""
        job.progress.note(f"{stage}: {_described(recipe)} on {job.device}{several}")
        if note := few_values_note(recipe, role):
            job.progress.note(note)
        state = _fit_or_begin_again(job, recipe, lesson, images, folder)
        if job.ranks.leads:
            start = {"init_from": inputs.get(f"{role}.train.init_from", "")}  # by its content
            card = _card(role, recipe, annotations, seen, pretrained_mask_classes)
            card = replace(card, train=deciding_keys(recipe) | start)
            card = card.taught_by(_teacher_mask_classes(annotations, labels))
            save_weights(folder / "weights.safetensors", state, card)

    return job.do(stage, inputs, work, comparing=comparing, together=True) / "weights.safetensors"


def _pretrained_mask_classes(
    job: Job, stage: Trained, recipe: RoleConfig, annotations: Annotations, seen: tuple[bool, ...]
) -> tuple[str, ...]:
    """Classes whose masks the initial weights saw, by their card, sorted.

    Raises:
        ConfigError: the initial weights would be deleted by the training that starts from them.
        CheckpointError: they were shown masks of a class that is unseen here.
    """
    if not recipe.train.init_from:
        return ()
    path = fetched(recipe.train.init_from)
    if path.resolve().is_relative_to((job.run.path / stage).resolve()):
        raise ConfigError(
            f"{_role_of(stage)}.train.init_from: {path} is what this training itself writes; expected "
            "a copy elsewhere, or another run (--out)"
        )
    card = read_card_if_any(path)
    if card is None:
        return ()
    require_not_shown(path, card, annotations.classes.names, seen)
    return card.seen_mask_classes or ()  # unknown is refused, unless every class may be seen


def _teacher_mask_classes(annotations: Annotations, labels: ChosenLabels | None) -> tuple[str, ...] | None:
    """Classes whose masks the teacher saw, of whose masks this training learns; None: nobody knows."""
    if labels is not None:
        return labels.labels.seen_mask_classes
    return seen_mask_classes_of(annotations.head) if annotations.counts["teacher_masks"] else ()


def _role_of(stage: Trained) -> Role:
    """Whose recipe a stage trains by: the arms of retention are students."""
    return "teacher" if stage == "teacher" else "student"


def _fit_or_begin_again(
    job: Job, recipe: RoleConfig, lesson: Lesson, images: ImageStore, folder: Path
) -> dict[str, Any]:
    try:
        return _fit(job, recipe, lesson, images, folder)
    except DamagedState as error:
        job.progress.note(f"{error}; {folder.stem} begins again")
        (folder / STATE).unlink()
        return _fit(job, recipe, lesson, images, folder)


def _fit(job: Job, recipe: RoleConfig, lesson: Lesson, images: ImageStore, folder: Path) -> dict[str, Any]:
    annotations = lesson.annotations
    torch.manual_seed(job.pipeline.seed)
    model = build_model(recipe.model, len(annotations.classes), load_weights=True)
    settings, seed = recipe.train, job.pipeline.seed
    if not (folder / STATE).exists():  # a state holds all weights
        learn_shapes(model, lesson, images)
        if settings.init_from:
            _start_from(job, recipe, model, annotations.classes.names)
    source = AnnotatedImages(
        annotations,
        images,
        mask_size=model.target_mask_size,
        mask_weight=lesson.mask_weight,
        soft=lesson.soft,
        lattice=model.spec.lattice,
    )
    optimizer = make_optimizer(
        model,
        settings.optimizer,
        settings.lr,
        settings.weight_decay,
        settings.momentum,
        model.parameter_groups()["pretrained"],
        settings.backbone_lr_factor,
    )
    return train(
        model,
        lambda first: lesson_batches(
            recipe,
            source,
            seed,
            first,
            job.pipeline.data.workers,
            job.ranks.share_of(settings.batch_size),
        ),
        optimizer,
        make_schedule(settings.schedule, settings.steps, settings.warmup_steps, settings.decay_steps),
        LoopSettings(
            steps=settings.steps,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            max_grad_norm=settings.max_grad_norm,
            ema_decay=settings.ema_decay,
            checkpoint_every=settings.checkpoint_every,
            log_every=log_every(recipe),
            autocast=devices.training_dtype(job.device, settings.autocast),
            recompute=settings.recompute,
            compile=settings.compile,
            images=settings.batch_size * settings.gradient_accumulation_steps,
            seed=seed,
        ),
        job.device,
        folder,
        job.progress,
        job.ranks,
        lambda first: [EventFile(inner(job.run.path, to, folder.stem), first) for to in job.pipeline.log.to],
    )


def _start_from(job: Job, recipe: RoleConfig, model: torch.nn.Module, class_names: tuple[str, ...]) -> None:
    """Load what fits of the initial weights, and report what did and what did not."""
    path = fetched(recipe.train.init_from)
    card, of_others = read_card_if_any(path), frozenset[str]()
    if card is None:
        origin = "the file does not name the classes or masks that it has seen"
    elif card.class_names == class_names:
        origin = f"a {card.role} of the same {len(class_names)} classes"
    else:
        origin = (
            f"a {card.role} of {len(card.class_names)} classes, others than the data's or in another order"
        )
        of_others = transfer.class_tensors(
            lambda count: build_model(recipe.model, count, load_weights=False), len(class_names)
        )
    report = transfer.load_partially(model, transfer.read_weights(path), str(path), of_others)
    job.progress.note(f"initial weights: {path}: {origin}")
    for line in report.lines():
        job.progress.note(f"initial weights: {line}")


def _described(recipe: RoleConfig) -> str:
    settings = recipe.train
    canvases = {
        "images": f"images at {settings.image_size_px} px",
        "windows": f"windows at {recipe.window_size_px} px",
    }
    canvases["both"] = " and ".join(canvases.values()) + " in turn"
    size = settings.batch_size * settings.gradient_accumulation_steps
    length = f"{settings.steps} steps of {size} {canvases[settings.views]}"
    model = recipe.model
    if not isinstance(model, MaskRcnnConfig):
        return f"deepmac, {model.backbone} with {model.mask_head}, {length}"
    masks = "one mask for all classes" if model.class_agnostic else "a mask for each class"
    return f"mask_rcnn, {model.backbone}, {masks}, mask boxes {model.mask_boxes}, {length}"


def _card(
    role: Role,
    recipe: RoleConfig,
    annotations: Annotations,
    seen: tuple[bool, ...],
    pretrained_mask_classes: tuple[str, ...],
) -> ModelCard:
    return ModelCard(
        role=role,
        model=flatten_model(recipe.model),
        class_names=annotations.classes.names,
        category_ids=annotations.classes.category_ids,
        seen=seen,
        image_size_px=recipe.train.image_size_px,
        look=recipe.look,
        views=recipe.train.views,
        steps=recipe.train.steps,
        data_sha256=annotations.fingerprint,
        pretrained_mask_classes=pretrained_mask_classes,
    )
