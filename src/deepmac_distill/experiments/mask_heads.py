"""The paper's mask heads on one frozen backbone: which of them carries over to classes without masks?

A trained model is frozen but for its mask head, and its backbone's maps of a few views of every training
image are kept. On them each row learns its mask head from scratch, by one recipe and for the same number of
steps, from the masks of seen classes alone; then it is evaluated in the given boxes of the validation set.
Each row is a run of its own, with a stage for each seed, so several processes may share the rows. What is
frozen once learned together with a mask head of its own, which may favor heads of that kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from deepmac_distill import config
from deepmac_distill.config import ModelConfig, Pipeline
from deepmac_distill.contract import BoxSegmenter
from deepmac_distill.data.loader import evaluation_batches
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.dataset.views import Annotations, Truth
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.experiments.frozen_features import Frozen, Shown, images_of
from deepmac_distill.experiments.mask_head_rows import GRABCUTS, ROWS, Row
from deepmac_distill.files import sha256_of_file, write_json
from deepmac_distill.inference import boxes_for, segment_boxes
from deepmac_distill.labels.cut import EVEN_CUT
from deepmac_distill.labels.describe import given_box_masks
from deepmac_distill.models.build import build_model
from deepmac_distill.models.deepmac import DeepMac
from deepmac_distill.models.mask_rcnn import MaskRcnn
from deepmac_distill.progress import Progress, Silent
from deepmac_distill.rundir import RunDir
from deepmac_distill.structures import Batch
from deepmac_distill.teachers.grabcut import GrabCut
from deepmac_distill.training.loop import LoopSettings, make_optimizer, train
from deepmac_distill.training.schedule import make_schedule
from deepmac_distill.weights.card import read_card

GRABCUT_PX = 640  # COCO's photographs as they are; it learns nothing that a smaller canvas would make cheaper


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRecipe:
    """How every mask head is trained."""

    steps: int = 400
    batch_size: int = 8  # images
    views: int = 4  # of every training image
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 40
    max_grad_norm: float = 5.0
    ema_decay: float = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the rows are trained and evaluated on."""

    pipeline: Pipeline  # where the data are, and how views are drawn
    weights: Mapping[str, Path]  # kind of model -> one that is trained; of kinds that no row needs, none
    recipe: HeadRecipe
    training: Annotations
    truth: Truth
    _frozen: dict[str, Frozen] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, pipeline: Pipeline, weights: Mapping[str, Path], recipe: HeadRecipe) -> Comparison:
        """Read the annotations of both splits."""
        root, data = Path(pipeline.data.root), pipeline.data
        return cls(
            pipeline=pipeline,
            weights=weights,
            recipe=recipe,
            training=Dataset.open(root / data.train_annotations, seen=data.seen).for_training(),
            truth=Dataset.open(root / data.val_annotations, seen=data.seen).for_evaluation(),
        )

    def trained(self, kind: str) -> Path:
        """The weights of a kind of model.

        Raises:
            ConfigError: none were given.
        """
        if kind not in self.weights:
            flag = kind.replace("_", "-")
            raise ConfigError(f"rows on a frozen {kind}: got no weights, expected --{flag} FILE")
        return self.weights[kind]

    def frozen(self, kind: str) -> Frozen:
        """The frozen model of a kind; its maps are made once."""
        if kind not in self._frozen:
            self._frozen[kind] = Frozen.of(
                self.trained(kind), self.pipeline, self.training, self.truth, self.recipe.views
            )
        return self._frozen[kind]


def compare_heads(
    comparison: Comparison,
    names: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    progress: Progress,
    force: bool = False,
) -> None:
    """Train and evaluate each row that is named and not yet there: `out`/ROW/seed-N/ious.parquet.

    Raises:
        RunError: a row was made with other inputs, or another process works on it.
        ConfigError: a row needs weights that were not given.
    """
    out.mkdir(parents=True, exist_ok=True)
    _write_facts(comparison, out / "evaluation.json")
    for seed in seeds:
        for name in names:
            if name in GRABCUTS and seed != seeds[0]:
                continue

            def work(folder: Path, name: str = name, seed: int = seed) -> None:
                pq.write_table(_ious_of(comparison, name, seed, folder), folder / "ious.parquet")

            inputs = _inputs(comparison, name, seed)
            progress.note(f"{name}, seed {seed}")
            RunDir(out / name).run_stage(f"seed-{seed}", inputs, work, progress, force=force)


def _write_facts(comparison: Comparison, path: Path) -> None:
    """What the rows are evaluated on, and the models that they stand on, those of earlier calls too."""
    before = json.loads(path.read_text(encoding="utf-8"))["base_models"] if path.exists() else {}
    facts = {
        "annotations": str(comparison.truth.path.resolve()),
        "seen": list(comparison.truth.classes.seen_names),
        "base_models": before | {kind: read_card(at).model for kind, at in comparison.weights.items()},
    }
    write_json(path, facts)


def train_row(
    row: Row, base: Frozen, recipe: HeadRecipe, seed: int, out: Path
) -> tuple[DeepMac | MaskRcnn, Shown]:
    """The row's model after its steps, and its backbone; its state is kept in `out` meanwhile."""
    torch.manual_seed(seed)
    model = build_model(head_config(row, base.card.model), len(base.training.classes), load_weights=False)
    kept = {name: tensor for name, tensor in base.state.items() if not name.startswith("mask_head.")}
    missing = model.load_state_dict(kept, strict=False).missing_keys
    if strays := [name for name in missing if not name.startswith("mask_head.")]:
        raise CheckpointError(f"{row.keys}: no weight {strays[0]}; expected all but the mask head's")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("mask_head."))
    shown = Shown()
    model.add_module("backbone", shown)
    state = train(
        model,
        partial(base.training_batches, shown, model.target_mask_size, recipe.batch_size, seed),
        make_optimizer(model, "adamw", recipe.lr, recipe.weight_decay),
        make_schedule("cosine", recipe.steps, recipe.warmup_steps),
        LoopSettings(
            steps=recipe.steps,
            gradient_accumulation_steps=1,
            max_grad_norm=recipe.max_grad_norm,
            ema_decay=recipe.ema_decay,
            checkpoint_every=recipe.steps,
            autocast=False,
        ),
        torch.device("cpu"),
        out,
        Silent(),
    )
    model.load_state_dict(state)
    return model.eval(), shown


def evaluate_heads(model: BoxSegmenter, batches: Iterable[Batch], truth: Truth) -> pa.Table:
    """IoU of every instance of the validation set that can be evaluated."""
    groups = ([batch] for batch in batches)
    segmented = segment_boxes(model, groups, torch.device("cpu"), autocast=False)
    return given_box_ious(truth, given_box_masks(truth, segmented, EVEN_CUT))


def head_config(row: Row, base_model: Mapping[str, Any]) -> ModelConfig:
    """The frozen model's configuration with the row's mask head."""
    return config.build_model_config({**base_model, "backbone_weights": "none", **row.keys}, "row")


def _ious_of(comparison: Comparison, name: str, seed: int, folder: Path) -> pa.Table:
    if name in GRABCUTS:
        return _evaluate_grabcut(comparison.truth, comparison.pipeline, GRABCUTS[name])
    base = comparison.frozen(ROWS[name].base)
    model, shown = train_row(ROWS[name], base, comparison.recipe, seed, folder)
    return evaluate_heads(model, base.validation_batches(shown), comparison.truth)


def _evaluate_grabcut(truth: Truth, pipeline: Pipeline, fallback: str) -> pa.Table:
    """GrabCut needs the pixels and nothing else."""
    model = GrabCut(input_size_px=GRABCUT_PX, fallback=fallback)
    whole = boxes_for(model.spec, truth, images_of(pipeline, "val"))
    return evaluate_heads(model, evaluation_batches(whole, 1), truth)


def _inputs(comparison: Comparison, name: str, seed: int) -> dict[str, Any]:
    """What a row depends on."""
    contents: dict[str, Any] = {
        "training": comparison.training.fingerprint,
        "truth": comparison.truth.fingerprint,
    }
    if name in GRABCUTS:
        named = {} if GRABCUTS[name] == "none" else {"fallback": GRABCUTS[name]}
        return contents | {"image_size_px": GRABCUT_PX} | named
    return {
        **contents,
        "weights": sha256_of_file(comparison.trained(ROWS[name].base)),
        "keys": dict(ROWS[name].keys),
        **asdict(comparison.recipe),
        "seed": seed,
    }
