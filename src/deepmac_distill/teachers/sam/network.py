"""A SAM of `transformers`, loaded from files that are checked."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.teachers.sam.families import Family
from deepmac_distill.teachers.sam.files import SamFiles

LARGEST_CANVAS_PX = 4096  # a canvas is made before any weights are looked at


def import_transformers() -> ModuleType:
    """The package, imported where a SAM is named only: that takes seconds.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            "sam needs transformers; install it with `pip install deepmac-distill[sam]`"
        ) from error


def read_config(folder: Path, family: Family) -> Any:
    """The configuration of the image model.

    Raises:
        CheckpointError: it cannot be read, or the canvas is no square.
    """
    transformers = import_transformers()
    kind = getattr(transformers, family.model_class, None)
    if kind is None:
        raise ConfigError(
            f"{folder}: needs {family.model_class}, which transformers {transformers.__version__} lacks; "
            "expected a newer one"
        )
    try:
        with _silence(transformers):
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            nested = getattr(config, "tracker_config", None)  # of a whole SAM 3
            if isinstance(nested, dict):
                config = kind.config_class.from_dict(nested)
        side = config.prompt_encoder_config.image_size
    except Exception as error:  # of every kind: a configuration may hold anything
        raise _unusable(folder, error) from error
    if not isinstance(side, int) or not 1 <= side <= LARGEST_CANVAS_PX:
        raise CheckpointError(
            f"{folder}: image_size: got {side!r}, expected the side of a square canvas, at most "
            f"{LARGEST_CANVAS_PX}"
        )
    return config


def load_network(files: SamFiles, family: Family, config: Any) -> Any:
    """The model in evaluation mode and single precision, on the CPU.

    Raises:
        CheckpointError: the weights cannot be read, or lack a tensor, which would be random then.
    """
    transformers, folder = import_transformers(), files.folder
    kind = getattr(transformers, family.model_class)
    try:
        with _silence(transformers):
            _require_parameters(files, kind, config)
            network, found = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except CheckpointError:
        raise
    except Exception as error:  # of every kind: files of strangers
        raise _unusable(folder, error) from error
    if lacking := sorted(found["missing_keys"]):
        raise CheckpointError(
            f"{folder}: lacks {len(lacking)} tensors, such as {lacking[0]}; expected the weights of a "
            f"{family.model_class}"
        )
    return network.eval()


def _require_parameters(files: SamFiles, kind: Any, config: Any) -> None:
    """A configuration may ask for all memory: the files have to hold a byte of each number first."""
    with torch.device("meta"):
        asked = sum(parameter.numel() for parameter in kind(config).parameters())
    if asked > (stored := sum(path.stat().st_size for path in files.weights)):
        raise CheckpointError(
            f"{files.folder}: config.json asks for {asked:,} parameters, more than the {stored:,} bytes of "
            "its weights; expected the configuration of these weights"
        )


def _unusable(folder: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200]
    return CheckpointError(f"{folder}: cannot be loaded: {type(error).__name__}: {reason}")


@contextmanager
def _silence(transformers: ModuleType) -> Iterator[None]:
    """No bars and no reports on stderr: what matters of them is checked."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
