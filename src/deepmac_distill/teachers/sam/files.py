"""Where the weights of a SAM are: in a folder, or in the cache of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from deepmac_distill.errors import ConfigError
from deepmac_distill.files import sha256_of_file
from deepmac_distill.regular import read_small

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_WANTED = [CONFIG, "model*.safetensors", INDEX]  # pickled weights can run code, and are never asked for


@dataclass(frozen=True, slots=True)
class SamFiles:
    """Files that can be loaded."""

    folder: Path
    weights: tuple[Path, ...]
    model_type: str  # of its config.json
    version: str  # what changes with the weights


def located(model: str, revision: str) -> SamFiles:
    """The files of a model, fetched where they are not in the cache and the network may be used.

    Args:
        model: a folder that transformers wrote, or a name on the hub.
        revision: of a name on the hub: branch, tag or commit.

    Raises:
        ConfigError: a file is missing or cannot be read; names it and where it was looked for.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        _require_files(folder, model, f"in {folder}")
        digest = hashlib.sha256()
        for path in _weight_files(folder):
            digest.update(sha256_of_file(path).encode())
        return _found_in(folder, f"sha256:{digest.hexdigest()}")
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1 or folder.exists():
        raise ConfigError(f"sam: model: {model}: got no folder, expected one with {CONFIG} and {WEIGHTS}")
    fetched = _fetched(model, revision)
    _require_files(fetched, model, f"in the cache ({fetched})")
    return _found_in(fetched, f"{model}@{fetched.name}")


def _found_in(folder: Path, version: str) -> SamFiles:
    return SamFiles(folder, tuple(_weight_files(folder)), _model_type(folder), version)


def _fetched(model: str, revision: str) -> Path:
    """The folder of a model in the hub's cache, whose name is the commit."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError

    place = f"the cache {constants.HF_HUB_CACHE} (HF_HOME moves it)"
    elsewhere = (
        f"`hf download {model} {CONFIG} {WEIGHTS}` where there is a network, or a folder with these files"
    )
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except HFValidationError as error:
        raise ConfigError(
            f"sam: model: got {model!r}, expected a folder, or a name such as owner/model"
        ) from error
    except GatedRepoError as error:
        page = f"https://huggingface.co/{model}"
        raise ConfigError(
            f"sam: model: {model}: its license has to be accepted first; expected that on {page}, and "
            "`hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        raise ConfigError(
            f"sam: model: {model}@{revision}: {CONFIG}, {WEIGHTS}: not in {place}, and {why}; "
            f"expected {elsewhere}"
        ) from error
    except OSError as error:  # no such model or revision, and whatever the network does
        reason = " ".join(str(error).split())
        raise ConfigError(f"sam: model: {model}@{revision}: {reason}; expected {elsewhere}") from error


def _require_files(folder: Path, model: str, place: str) -> None:
    named = [CONFIG, *(path.name for path in _weight_files(folder))]
    if missing := [name for name in named if not (folder / name).is_file()]:
        raise ConfigError(
            f"sam: model: {model}: {missing[0]}: no such file {place}; expected {CONFIG} and {WEIGHTS} "
            "(pickled weights are not read)"
        )


def _weight_files(folder: Path) -> list[Path]:
    """The files of the weights that should be there: one, or those that an index names."""
    index = folder / INDEX
    if not index.is_file() or (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        names = {Path(name).name for name in json.loads(read_small(index))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{index}: cannot be read; expected an index of weights") from error
    return [folder / name for name in sorted(names)]


def _model_type(folder: Path) -> str:
    try:
        found = json.loads(read_small(folder / CONFIG))["model_type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise ConfigError(f"{folder / CONFIG}: got no model_type, expected a configuration of transformers")
    return found
