"""From how many values per channel may batch norm use the statistics of the pass?

python benchmarks/batch_norm.py measure benchmarks/results/batch_norm.json   # 15 minutes on one core

Two measurements, each with several least numbers of values (`BatchNorm.min_values`):

- the norm of the mask loss's gradient at initialization, for passes of 1 to 32 masks, at the paper's widths;
- a short training of a narrow hourglass-52 on generated scenes with one seen class, so that a pass has few
  masks: the largest gradient norm, and the IoU of 32 x 32 grids in given boxes of other scenes.

Where two least numbers keep the same layers from the statistics of the pass, one result stands for both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.data.augment import evaluation_views, training_views
from deepmac_distill.data.dataset import AnnotatedImages, BoxDataset
from deepmac_distill.data.image_store import ImageFolder
from deepmac_distill.data.loader import evaluation_batches, training_batches
from deepmac_distill.data.synthetic import write_scenes
from deepmac_distill.dataset.dataset import Dataset
from deepmac_distill.files import write_json
from deepmac_distill.models.blocks import BatchNorm
from deepmac_distill.models.build import build_model
from deepmac_distill.models.deepmac import DeepMac
from deepmac_distill.models.mask_heads import build_mask_head
from deepmac_distill.report.markdown import markdown_table
from deepmac_distill.report.table import Column, Table, columns, names
from deepmac_distill.training.loop import make_optimizer
from deepmac_distill.training.schedule import make_schedule

HEADS = ("hourglass-20", "hourglass-52", "hourglass-100")
MASKS = (1, 2, 3, 4, 8, 16, 32)  # in a pass
LEAST = (2, 4, 8, 16, 32)  # values per channel
SEEDS = (0, 1, 2)
SEEN, SIZE_PX, CELLS = "ellipse", 64, 32
TRAIN_IMAGES, VAL_IMAGES, BATCH, STEPS, LR = 300, 60, 4, 300, 2e-3


def gradient_norm(head: str, masks: int, least: int, seed: int) -> float:
    """Of the mask loss at initialization: random crops and targets, the paper's widths."""
    torch.manual_seed(seed)
    model = with_least(build_mask_head(head, in_channels=50), least).train()
    crops, targets = torch.randn(masks, 50, CELLS, CELLS), torch.rand(masks, CELLS, CELLS)
    F.binary_cross_entropy_with_logits(model(crops), targets).backward()
    return norm_of(model)


def with_least(model: nn.Module, least: int) -> nn.Module:
    """The model whose batch norms ask for so many values per channel."""
    for part in model.modules():
        if isinstance(part, BatchNorm):
            part.min_values = least
    return model


def norm_of(model: nn.Module) -> float:
    """The norm of the gradient that is there."""
    return float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def norms_at_initialization(head: str, masks: int) -> dict[int, list[float]]:
    """Least number of values -> a norm for each seed."""
    bottom = CELLS // build_mask_head(head, in_channels=50).size_multiple  # cells a side
    sizes = [cells * cells for cells in (bottom, 2 * bottom, 4 * bottom)]
    kinds: dict[tuple[bool, ...], list[float]] = {}
    found = {}
    for least in LEAST:
        guarded = tuple(masks * cells < least for cells in sizes)
        if guarded not in kinds:
            kinds[guarded] = [gradient_norm(head, masks, least, seed) for seed in SEEDS]
        found[least] = kinds[guarded]
    return found


def train(folder: Path, least: int, seed: int) -> dict[str, float]:
    """A narrow hourglass-52 on few masks a pass; IoU on the seen class and on the others."""
    training = Dataset.open(folder / "train/instances.json", seen=(SEEN,)).for_training()
    torch.manual_seed(seed)
    model = narrow(len(training.classes))
    with_least(model, least).train()
    optimizer, schedule = make_optimizer(model, "adam", LR), make_schedule("cosine", STEPS, STEPS // 10)
    source = AnnotatedImages(training, ImageFolder(folder / "train/images"), mask_size=CELLS)
    dataset = BoxDataset(source, training_views(SIZE_PX), seed=seed)
    norms, counts = [], []
    for step, batch in zip(range(STEPS), training_batches(dataset, BATCH, seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = LR * schedule(step)
        optimizer.zero_grad()
        model(batch)["mask"].backward()
        norms.append(norm_of(model))
        counts.append(int(batch.instances.has_mask.sum()))
        optimizer.step()
    return {
        "masks_per_pass": statistics.mean(counts),
        "largest_norm": max(norms),
        "median_norm": statistics.median(norms),
        **ious(model.eval(), folder),
    }


def narrow(classes: int) -> DeepMac:
    """The model of the short trainings."""
    config = DeepMacConfig(
        backbone="tiny",
        backbone_width=16,
        head_channels=16,
        mask_head="hourglass-52",
        mask_width=16,
        mask_size=CELLS,
        detection=False,
    )
    model = build_model(config, classes, load_weights=False)
    assert isinstance(model, DeepMac)
    return model


def ious(model: DeepMac, folder: Path) -> dict[str, float]:
    """Mean IoU of the grids, over instances of other scenes."""
    truth = Dataset.open(folder / "val/instances.json", seen=(SEEN,)).for_evaluation()
    seen_class = truth.classes.names.index(SEEN)
    source = AnnotatedImages(truth, ImageFolder(folder / "val/images"), mask_size=CELLS)
    dataset = BoxDataset(source, evaluation_views(SIZE_PX))
    values: dict[str, list[Tensor]] = {"seen": [], "unseen": []}
    for batch in evaluation_batches(dataset, 16):
        found = model.segment(batch.images, batch.instances).grids > 0.5
        wanted = batch.instances.masks > 127
        iou = (found & wanted).flatten(1).sum(1) / (found | wanted).flatten(1).sum(1).clamp(min=1)
        is_seen = batch.instances.class_index == seen_class
        values["seen"].append(iou[is_seen])
        values["unseen"].append(iou[~is_seen])
    return {f"{name}_iou": float(torch.cat(some).mean()) for name, some in values.items()}


def measure(out: Path) -> None:
    """Both measurements, row by row; what the file holds already is not measured again."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = (
        json.loads(out.read_text()) if out.exists() else {"initialization": {}, "training": {}}
    )
    for head, masks in itertools.product(HEADS, MASKS):
        of_head = rows["initialization"].setdefault(head, {})
        if str(masks) not in of_head:
            of_head[str(masks)] = norms_at_initialization(head, masks)
            write_json(out, rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scenes(folder / "train", images=TRAIN_IMAGES, seed=0, size_px=SIZE_PX)
        write_scenes(folder / "val", images=VAL_IMAGES, seed=1, size_px=SIZE_PX)
        for least, seed in itertools.product(LEAST, SEEDS):
            of_least = rows["training"].setdefault(str(least), {})
            if str(seed) not in of_least:
                of_least[str(seed)] = train(folder, least, seed)
                write_json(out, rows)


def page(recorded: Any) -> str:
    """Markdown: both measurements, the largest norm and the mean IoU of the seeds."""
    least = [str(values) for values in LEAST]
    norms = Table(
        "",
        (*names("mask head"), Column("masks in the pass", "count"), *columns("figure", least)),
        tuple(
            (head, int(masks), *(f"{max(found[each]):.2g}" for each in least))
            for head, rows in recorded["initialization"].items()
            for masks, found in rows.items()
        ),
    )
    trained = Table(
        "",
        (
            *columns("figure", ("running statistics below", "largest norm", "median norm")),
            *columns("percent", ("IoU, seen class", "IoU, others")),
        ),
        tuple(
            (
                each,
                f"{max(seed['largest_norm'] for seed in seeds.values()):.2g}",
                f"{statistics.mean(seed['median_norm'] for seed in seeds.values()):.1f}",
                *(
                    statistics.mean(seed[f"{split}_iou"] for seed in seeds.values())
                    for split in ("seen", "unseen")
                ),
            )
            for each, seeds in recorded["training"].items()
            if len(seeds) == len(SEEDS)
        ),
    )
    return "\n\n".join(
        (
            "Gradient norm at initialization, the largest of three seeds, where batch norm uses its running "
            "statistics below so many values per channel:",
            markdown_table(norms),
            f"{STEPS} steps of a narrow hourglass-52 on scenes of one seen class, 1.7 masks a pass; the mean "
            "of three seeds, of those rows where all three are measured:",
            markdown_table(trained),
            "`python benchmarks/batch_norm.py measure benchmarks/results/batch_norm.json`",
        )
    )


def main() -> int:
    """The command of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="action", required=True)
    commands.add_parser("measure").add_argument("out", type=Path)
    torch.set_num_threads(1)
    measure(parser.parse_args().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
