"""What a training depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepmac_distill import config
from deepmac_distill.chain import Role
from deepmac_distill.config import RoleConfig
from deepmac_distill.data.image_check import images_sha256
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.files import sha256_of_file
from deepmac_distill.stages.job import Job

# Keys of `train` that are named only where they are set: trainings without them are as they were.
_NAMED_WHERE_SET = ("init_from", "views", "window_scale_range", "window_shift", "box_jitter")


def training_inputs(job: Job, role: Role, annotations: Annotations, images: ImageStore) -> dict[str, Any]:
    """What a training by the recipe of `role` depends on, by name."""
    recipe: RoleConfig = getattr(job.pipeline, role)
    inputs = {
        **config.flatten(recipe.model, f"{role}.model."),
        **_inputs_of(recipe, role),
        "seed": job.pipeline.seed,
        f"{role} annotations": annotations.fingerprint,
        "data.train_images": images_sha256(annotations, images),
    }
    start, backbone = f"{role}.train.init_from", f"{role}.model.backbone_weights"
    for key in (start, backbone):
        if (named := inputs.get(key)) and named not in ("none", "imagenet", "wheel"):
            inputs[key] = f"sha256:{sha256_of_file(Path(named))}"  # the content counts, not the path
    return inputs


def _inputs_of(recipe: RoleConfig, role: Role) -> dict[str, Any]:
    """What a training depends on beside model and data; its look, since the card records it."""
    inputs, set_here = (values(recipe.train) for values in (config.flatten, config.changes))
    named = {key: value for key, value in inputs.items() if key not in _NAMED_WHERE_SET or key in set_here}
    train = {f"{role}.train.{key}": value for key, value in named.items()}
    return train | config.changes(recipe.look, f"{role}.look.")
