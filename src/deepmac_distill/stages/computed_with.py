"""What decides the last bits of a result beside a stage's inputs; all shards of a stage have it in common."""

from __future__ import annotations

from typing import Any

import torch

from deepmac_distill.config import Pipeline
from deepmac_distill.devices import autocast_allowed

# By which joining chooses from all labels, whatever the shard that came last was asked for.
_RULES = ("min_mask_score", "min_expected_iou", "min_mask_bbox_iou", "min_quality", "on_rejected")


def computed_with(pipeline: Pipeline, device: torch.device) -> dict[str, Any]:
    """JSON values by the key that each follows from.

    A stage that one process does may go on with others: whoever changes them there knows it. Of a shard
    nobody sees what the others have.
    """
    alike: dict[str, Any] = {
        "device": device.type,
        "labels.batch_size": pipeline.labels.batch_size,
        "evaluation.batch_size": pipeline.evaluation.batch_size,
    }
    alike |= {f"labels.{name}": getattr(pipeline.labels, name) for name in _RULES}
    if device.type == "cpu":  # a GPU's sums do not depend on the threads that feed it
        alike["threads"] = pipeline.threads
    for role in ("teacher", "student"):
        choice = getattr(pipeline, role).train.autocast
        alike[f"{role}.train.autocast"] = "bfloat16" if autocast_allowed(device, choice) else "float32"
    return alike
