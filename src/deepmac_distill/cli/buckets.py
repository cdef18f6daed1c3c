"""Words of a command that are URIs become paths before the command begins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deepmac_distill.errors import ConfigError
from deepmac_distill.storage.location import is_remote, is_uri, place_of, shown

_OUTPUTS = ("out", "as_json")  # what commands write


def with_copies(given: Mapping[str, object]) -> dict[str, object]:
    """The values of options, in which copies stand for what is read from buckets.

    Raises:
        StorageError: nothing is there, or the store cannot be read.
        ConfigError: a URI that cannot be used, or one of an output.
    """
    return {name: _local(name, value) for name, value in given.items()}


def copy_named(word: str) -> Path:
    """The path of a word, or of the copy of what a URI names.

    Raises:
        StorageError, ConfigError: as `with_copies`.
    """
    found = _local("", Path(word))
    return found if isinstance(found, Path) else Path(word)


def _local(name: str, value: object) -> object:
    if isinstance(value, list):
        return [_local(name, one) for one in value]
    if not (isinstance(value, Path) and is_uri(str(value))):
        return value
    if not is_remote(value):
        return place_of(value)
    if name in _OUTPUTS:
        raise ConfigError(f"{shown(value)}: is in a bucket; expected a path of this machine to write to")
    from deepmac_distill.storage.fetching import fetched, of_models, of_run  # imports Arrow

    return fetched(value, of_models if name == "model" else of_run)
