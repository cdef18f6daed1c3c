"""Pipeline files: every key and default (`schema`), and how TOML becomes them (`reading`)."""

from deepmac_distill.config.data import DataConfig
from deepmac_distill.config.limits import MAX_OF_EACH, MAX_RESAMPLES, MAX_SEED
from deepmac_distill.config.reading import (
    build,
    build_model_config,
    changed_look,
    changes,
    flatten,
    flatten_model,
    load_pipeline,
    look_changes,
    looking,
)
from deepmac_distill.config.recipes import FOLDER, located, recipe_file, recipe_names
from deepmac_distill.config.schema import (
    BackboneConfig,
    DeepMacConfig,
    MaskRcnnConfig,
    ModelConfig,
    Pipeline,
    RoleConfig,
    TeacherConfig,
)

__all__ = [
    "FOLDER",
    "MAX_OF_EACH",
    "MAX_RESAMPLES",
    "MAX_SEED",
    "BackboneConfig",
    "DataConfig",
    "DeepMacConfig",
    "MaskRcnnConfig",
    "ModelConfig",
    "Pipeline",
    "RoleConfig",
    "TeacherConfig",
    "build",
    "build_model_config",
    "changed_look",
    "changes",
    "flatten",
    "flatten_model",
    "load_pipeline",
    "located",
    "look_changes",
    "looking",
    "recipe_file",
    "recipe_names",
]
