"""What a training depends on."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from deepmac_distill import config
from deepmac_distill.chain import Role
from deepmac_distill.comparing import Comparing, Inputs
from deepmac_distill.config import RoleConfig
from deepmac_distill.data.image_check import image_inputs
from deepmac_distill.data.image_store import ImageStore
from deepmac_distill.dataset.views import Annotations
from deepmac_distill.files import sha256_of_file
from deepmac_distill.look import Look
from deepmac_distill.stages.job import Job
from deepmac_distill.storage.fetching import fetched

# Keys of `train` that are named only where they are set: trainings without them are as they were.
_NAMED_WHERE_SET = ("init_from", "views", "window_scale_range", "window_shift", "box_jitter", "compile")
_CHANGES_NOTHING = ("recompute",)  # the same bits, so that a training may go on with less memory
_NO_WEIGHTS = ("checkpoint_every",)  # where a training may be stopped
_OF_WINDOWS = ("window_context", "window_size_px")  # of `train`, or of `look` where those are not set


def training_inputs(job: Job, role: Role, annotations: Annotations, images: ImageStore) -> dict[str, Any]:
    """What a training by the recipe of `role` depends on, by name."""
    recipe: RoleConfig = getattr(job.pipeline, role)
    inputs = {
        **config.flatten_model(recipe.model, f"{role}.model."),
        **_inputs_of(recipe, role),
        "seed": job.pipeline.seed,
        f"{role} annotations": annotations.fingerprint,
        **image_inputs("data.train_images", annotations, images, job.progress),
    }
    start, backbone = f"{role}.train.init_from", f"{role}.model.backbone_weights"
    for key in (start, backbone):
        if (named := inputs.get(key)) and named not in ("none", "imagenet", "wheel"):
            inputs[key] = f"sha256:{sha256_of_file(fetched(named))}"  # the content counts, not the path
    return inputs


def deciding_keys(recipe: RoleConfig) -> dict[str, Any]:
    """Every key of `train` that weights depend on, also where it has its default; but `init_from`, a path."""
    windows = {key: getattr(recipe, key) for key in _OF_WINDOWS} if recipe.train.views != "images" else {}
    aside = (*_CHANGES_NOTHING, *_NO_WEIGHTS, *_OF_WINDOWS, "init_from")
    return {key: value for key, value in config.flatten(recipe.train).items() if key not in aside} | windows


def how_compared(recipe: RoleConfig, role: Role, unnamed: Inputs = MappingProxyType({})) -> Comparing:
    """How these inputs are compared: of a look only the windows of training count.

    Earlier versions recorded every key of a look that was set.

    Args:
        unnamed: what further inputs were where they did not name them.
    """
    look, windows = config.flatten(Look(), f"{role}.look."), _windows_of(recipe, role)
    return Comparing(
        unnamed={**unnamed, **{key: look[key] for key in windows}},
        dropped=tuple(look.keys() - windows.keys()),
    )


def _windows_of(recipe: RoleConfig, role: Role) -> dict[str, Any]:
    if recipe.train.views == "images":
        return {}
    return {f"{role}.look.{key}": getattr(recipe, key) for key in _OF_WINDOWS}


def _inputs_of(recipe: RoleConfig, role: Role) -> dict[str, Any]:
    """What a training depends on beside model and data."""
    inputs, set_here = (values(recipe.train) for values in (config.flatten, config.changes))
    named = {
        key: value
        for key, value in inputs.items()
        if key not in _OF_WINDOWS + _CHANGES_NOTHING and (key not in _NAMED_WHERE_SET or key in set_here)
    }
    return {f"{role}.train.{key}": value for key, value in named.items()} | _windows_of(recipe, role)
