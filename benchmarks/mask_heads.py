"""The paper's mask heads on one frozen backbone: which of them carries over to classes without masks?

    python benchmarks/mask_heads.py train --pipeline FILE.toml --data FOLDER \\
        --deepmac DEEPMAC.safetensors --mask-rcnn MASK_RCNN.safetensors --out runs/mask_heads \\
        [--seeds 0 1] [--only ROW ...] [--threads N]
    python benchmarks/mask_heads.py table runs/mask_heads [--json benchmarks/results/mask_heads.json]

A trained model is frozen but for its mask head, and its backbone's maps of a few views of every training
image are kept. On them each row learns its mask head from scratch, by one recipe and for the same number of
steps, from the masks of seen classes alone; then it is judged in the given boxes of the validation set. Rows
that are done are not done again, so several processes may share the work with `--only`. What is frozen once
learned together with a mask head of its own, which may favor heads of that kind.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from deepmac_distill import config
from deepmac_distill.config import ModelConfig, Pipeline, load_pipeline
from deepmac_distill.contract import BoxSegmenter
from deepmac_distill.data.loader import evaluation_batches
from deepmac_distill.dataset.classes import Classes
from deepmac_distill.dataset.coco import Annotations, read_coco
from deepmac_distill.devices import environment, use_threads
from deepmac_distill.errors import CheckpointError, RunError
from deepmac_distill.evaluation.mask_iou import given_box_ious
from deepmac_distill.evaluation.means import Means, interval
from deepmac_distill.evaluation.results import Interval, to_json
from deepmac_distill.evaluation.splits import Split
from deepmac_distill.evaluation.summary import paired_ious
from deepmac_distill.files import sha256_of_file, write_json
from deepmac_distill.inference import boxes_for, segment_boxes
from deepmac_distill.labels.describe import given_box_masks
from deepmac_distill.models.build import build_model
from deepmac_distill.models.catalog import size_of
from deepmac_distill.models.deepmac import mask_input_channels
from deepmac_distill.progress import Silent
from deepmac_distill.report.table import percent, points
from deepmac_distill.structures import Batch
from deepmac_distill.teachers.grabcut import GrabCut
from deepmac_distill.training.loop import LoopSettings, make_optimizer, train
from deepmac_distill.training.schedule import make_schedule
from deepmac_distill.weights.card import read_card
from frozen import VIEWS, Frozen, Shown, images_of
from mask_head_rows import GRABCUT, ROWS, Row

STEPS, BATCH_SIZE = 400, 8
RECIPE = {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.05}
WARMUP_STEPS, CLIP_NORM, EMA_DECAY = 40, 5.0, 0.99
GRABCUT_PX = 640  # COCO's photographs as they are; it learns nothing that a smaller canvas would make cheaper
COST_CROPS, COST_ROUNDS = 32, 5
RESAMPLES = 1000


def train_row(row: Row, base: Frozen, seed: int, out: Path) -> nn.Module:
    """The row's model after its steps; its state is kept in `out` meanwhile."""
    torch.manual_seed(seed)
    model = build_model(_recipe(row, base.card.model), len(base.training.classes), load_weights=False)
    kept = {name: tensor for name, tensor in base.state.items() if not name.startswith("mask_head.")}
    missing = model.load_state_dict(kept, strict=False).missing_keys
    if strays := [name for name in missing if not name.startswith("mask_head.")]:
        raise CheckpointError(f"{row.keys}: no weight {strays[0]}; expected all but the mask head's")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("mask_head."))
    model.backbone = Shown()
    state = train(
        model,
        partial(base.training_batches, model.backbone, model.target_mask_size, BATCH_SIZE, seed),
        make_optimizer(model, **RECIPE),
        make_schedule("cosine", STEPS, WARMUP_STEPS),
        LoopSettings(
            steps=STEPS,
            gradient_accumulation_steps=1,
            max_grad_norm=CLIP_NORM,
            ema_decay=EMA_DECAY,
            checkpoint_every=STEPS,
            autocast=False,
        ),
        torch.device("cpu"),
        out,
        Silent(),
    )
    model.load_state_dict(state)
    return model.eval()


def judge(model: BoxSegmenter, batches: Iterable[Batch], truth: Annotations) -> pa.Table:
    """IoU of every judged instance of the validation set."""
    segmented = segment_boxes(model, batches, torch.device("cpu"), autocast=False)
    return given_box_ious(truth, given_box_masks(truth, segmented))


def judge_grabcut(truth: Annotations, pipeline: Pipeline) -> pa.Table:
    """The same for GrabCut, which needs the pixels and nothing else."""
    model = GrabCut(input_size_px=GRABCUT_PX)
    whole = boxes_for(model.spec, truth, images_of(pipeline, "val"))
    return judge(model, evaluation_batches(whole, 1), truth)


def do_rows(
    pipeline: Pipeline, weights: Mapping[str, Path], names: Sequence[str], seeds: Sequence[int], out: Path
) -> None:
    """Train and judge each row that is named and not yet there: `out`/ROW/seed-N/ious.parquet."""
    root = Path(pipeline.data.root)
    training = read_coco(root / pipeline.data.train_annotations, pipeline.data.seen)
    truth = read_coco(root / pipeline.data.val_annotations, pipeline.data.seen, hide_unseen=False)
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "annotations": str(truth.path.resolve()),
        "seen": list(truth.classes.seen_names),
        "base_models": {kind: read_card(path).model for kind, path in weights.items()},
    }
    write_json(out / "evaluation.json", facts)
    contents = {"training": training.fingerprint, "truth": truth.fingerprint}
    bases: dict[str, Frozen] = {}
    for seed in seeds:
        for name in names:
            folder = out / name / f"seed-{seed}"
            base = None if name == GRABCUT else sha256_of_file(weights[ROWS[name].base])
            inputs = {**contents, "weights": base, **_settings(name, seed)}
            if (name == GRABCUT and seed != seeds[0]) or _is_done(folder, inputs):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            if name == GRABCUT:
                ious = judge_grabcut(truth, pipeline)
            else:
                kind = ROWS[name].base
                if kind not in bases:
                    bases[kind] = Frozen.of(weights[kind], pipeline, training, truth)
                model = train_row(ROWS[name], bases[kind], seed, folder)
                ious = judge(model, bases[kind].validation_batches(model.backbone), truth)
            (folder / "state.pt").unlink(missing_ok=True)
            pq.write_table(ious, folder / "ious.parquet")
            write_json(folder / "done.json", {"inputs": inputs, "environment": environment()})
            print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)


def _settings(name: str, seed: int) -> dict[str, Any]:
    """What a row depends on beside its data and the frozen model."""
    if name == GRABCUT:
        return {"image_size_px": GRABCUT_PX}
    return {
        "keys": dict(ROWS[name].keys),
        "recipe": {
            **RECIPE,
            "warmup_steps": WARMUP_STEPS,
            "max_grad_norm": CLIP_NORM,
            "ema_decay": EMA_DECAY,
        },
        "steps": STEPS,
        "batch_size": BATCH_SIZE,
        "views": VIEWS,
        "seed": seed,
    }


def _is_done(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a row is there.

    Raises:
        RunError: it is there, but made with other inputs; names the first.
    """
    if not (folder / "done.json").exists():
        return False
    made = json.loads((folder / "done.json").read_text(encoding="utf-8"))["inputs"]
    for key, now in inputs.items():
        if made[key] != now:
            raise RunError(f"{folder}: made with {key} = {made[key]}, now {now}; expected another --out")
    return True


def costs(base_models: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Of each row's mask head, for one instance: its size, and the ms of a forward and of a training pass."""
    found = {}
    for name in names:
        row = ROWS[name]
        recipe = _recipe(row, base_models[row.base])
        if row.base == "deepmac":
            side = recipe.mask_size
            channels = mask_input_channels(
                recipe.pixel_embedding, recipe.instance_embedding, recipe.coordinates
            )
        else:
            channels, side = recipe.fpn_channels, recipe.mask_crop
        shape = (COST_CROPS, channels, side, side)
        with torch.device("meta"):
            size = size_of(build_model(recipe, 1, load_weights=False).mask_head, torch.empty(shape))
        head = build_model(recipe, 1, load_weights=False).mask_head
        found[name] = {**asdict(size), **_milliseconds(head, torch.randn(shape))}
    return found


def compare(out: Path, annotations: Annotations) -> dict[str, Any]:
    """Every figure of the comparison: of each row its class means, and its difference to its rival."""
    ious = {
        name: _mean_over_seeds(out / name)
        for name in (*ROWS, GRABCUT)
        if any((out / name).glob("*/done.json"))
    }
    paired = paired_ious(ious)
    first = next(iter(ious.values()))
    paired = paired.append_column("box", first["box_baseline_iou"])
    names = [*ious, "box"]
    means = Means.of(paired, names, annotations.classes, RESAMPLES, seed=0)
    column = {name: position for position, name in enumerate(names)}

    def difference(split: Split, a: str, b: str) -> dict[str, float | None]:
        values = means.class_means[split]
        return to_json(interval(values[:, column[a]] - values[:, column[b]]))

    rows = {}
    for name in names:
        rows[name] = {
            "iou": {split: float(means.class_means[split][0, column[name]]) for split in ("seen", "unseen")},
            "minus_box": {split: difference(split, name, "box") for split in ("seen", "unseen")},
            "unseen_of_each_seed": _of_each_seed(out / name, annotations.classes) if name != "box" else [],
            "misses": float(np.mean(paired[name].to_numpy() == 0)),  # share of the objects of IoU 0
            "training_loss": _training_loss(out / name),
        }
        if name in ROWS and ROWS[name].against in ious:
            row = ROWS[name]
            rows[name] |= {
                "against": row.against,
                "difference": {split: difference(split, name, row.against) for split in ("seen", "unseen")},
                "paper": {"mask AP of unseen classes": row.paper, "where": row.where},
            }
    return rows


def markdown(document: Mapping[str, Any]) -> str:
    """The comparison as one table."""
    lines = [
        "| model | unseen IoU | − box | seen IoU | minus | unseen IoU, ours | unseen mask AP, the paper's "
        "| parameters | GMACs | forward ms | training ms | kept MiB |",
        "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in sorted(document["rows"].items(), key=lambda item: -item[1]["iou"]["unseen"]):
        cells = [name, percent(row["iou"]["unseen"])]
        cells += ["" if name == "box" else _points(row["minus_box"]), percent(row["iou"]["seen"])]
        if "against" in row:
            own, rivals = row["paper"]["mask AP of unseen classes"]
            cells += [row["against"], _points(row["difference"])]
            cells += [f"{own - rivals:+.1f} ({row['paper']['where']})"]
        else:
            cells += ["", "", ""]
        cost = document["costs"].get(name)
        if cost:
            cells += [f"{cost['parameters']:,}", f"{cost['gmacs']:.3f}"]
            cells += [f"{cost[key]:.1f}" for key in ("forward_ms", "training_ms", "saved_mib")]
        else:
            cells += [""] * 5
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _points(difference: Mapping[str, Any]) -> str:
    return points(Interval(**difference["unseen"]))


def _recipe(row: Row, base_model: Mapping[str, Any]) -> ModelConfig:
    return config.build(ModelConfig, {**base_model, "backbone_weights": "none", **row.keys}, "row")


def _milliseconds(head: nn.Module, crops: Tensor) -> dict[str, float]:
    """Of a forward pass and of a forward and backward pass, for one crop; medians."""

    def forward() -> None:
        with torch.inference_mode():
            head.eval()(crops)

    def training() -> None:
        head.train()(crops).mean().backward()

    found = {}
    for name, work in (("forward_ms", forward), ("training_ms", training)):
        work()
        rounds = []
        for _ in range(COST_ROUNDS):
            started = time.perf_counter()
            work()
            rounds.append(time.perf_counter() - started)
        found[name] = 1000 * statistics.median(rounds) / len(crops)
    return found


def _seed_tables(folder: Path) -> list[pa.Table]:
    return [
        pq.read_table(path).sort_by("annotation_id") for path in sorted(folder.glob("seed-*/ious.parquet"))
    ]


def _mean_over_seeds(folder: Path) -> pa.Table:
    """One table: the IoU of an instance is the mean over the seeds."""
    tables = _seed_tables(folder)
    total = tables[0]["iou"]
    for other in tables[1:]:
        total = pc.add(total, other["iou"])
    position = tables[0].schema.get_field_index("iou")
    return tables[0].set_column(position, "iou", pc.divide(total, float(len(tables))))


def _made(out: Path) -> dict[str, Any]:
    """Row -> what its first seed was made with, and where."""
    return {
        path.parts[-3]: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(out.glob("*/*/done.json"), reverse=True)
    }


def _training_loss(folder: Path) -> float | None:
    """Of the mask, at the end: the mean over the last quarter of the log of the first seed; None without."""
    path = folder / "seed-0" / "metrics.jsonl"
    if not path.exists():
        return None
    losses = [json.loads(line)["mask"] for line in path.read_text(encoding="utf-8").splitlines()]
    return statistics.mean(losses[-max(len(losses) // 4, 1) :])


def _of_each_seed(folder: Path, classes: Classes) -> list[float]:
    means = [
        Means.of(table, ("iou",), classes, 0, 0).class_means["unseen"][0, 0] for table in _seed_tables(folder)
    ]
    return [float(mean) for mean in means]


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    training = commands.add_parser("train")
    training.add_argument("--pipeline", type=Path, required=True)
    training.add_argument("--data", default="")
    training.add_argument("--deepmac", type=Path, required=True)
    training.add_argument("--mask-rcnn", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--threads", type=int)
    training.add_argument("--seeds", type=int, nargs="+", default=[0])
    training.add_argument("--only", nargs="+", choices=[*ROWS, GRABCUT], default=[*ROWS, GRABCUT])
    showing = commands.add_parser("table")
    showing.add_argument("out", type=Path)
    showing.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.action == "train":
        overrides = [f'data.root="{given.data}"'] if given.data else []
        pipeline = load_pipeline(given.pipeline, overrides)
        weights = {"deepmac": given.deepmac, "mask_rcnn": given.mask_rcnn}
        use_threads(pipeline.threads if given.threads is None else given.threads)
        do_rows(pipeline, weights, given.only, given.seeds, given.out)
    else:
        facts = json.loads((given.out / "evaluation.json").read_text(encoding="utf-8"))
        truth = read_coco(Path(facts["annotations"]), tuple(facts["seen"]), hide_unseen=False)
        rows = compare(given.out, truth)
        document = {
            "environment": environment(),  # where the costs were measured
            "rows": rows,
            "made": _made(given.out),
            "costs": costs(facts["base_models"], rows.keys() & ROWS.keys()),
        }
        if given.json:
            write_json(given.json, document)
        print(markdown(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
