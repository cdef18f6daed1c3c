"""Local copies of objects, for what reads paths: made once, and again where the object has changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from deepmac_distill.storage.copies import cache_folder, copy_of, is_copy, is_safe
from deepmac_distill.storage.failures import Gone
from deepmac_distill.storage.location import Location, place_of
from deepmac_distill.storage.store import Object, Store, store_of

_FRESH_SECONDS = 60.0  # in which a process takes an object for unchanged
_OF_STAGES = (".json", ".parquet", ".safetensors", ".png", ".md", ".toml", ".jsonl")


def of_folder(name: str) -> bool:
    """Files directly in a folder: tables of annotations, an evaluation, weights that were imported."""
    return "/" not in name and name.endswith((".json", ".parquet", ".safetensors"))


def of_models(name: str) -> bool:
    """The same, and the models of a run."""
    folder, _, last = name.rpartition("/")
    return of_folder(name) or (folder in ("teacher", "student") and of_folder(last))


def of_run(name: str) -> bool:
    """What a run has finished."""
    return name.endswith(_OF_STAGES) and not name.partition("/")[0].endswith(".part")


def fetched(named: str | Path, wanted: Callable[[str], bool] = of_folder) -> Path:
    """The local path of what a path or URI names: a path itself, or the copy of an object.

    Args:
        wanted: of the beginning of keys, which is a folder then, the names from there on that are fetched.

    Raises:
        StorageError: nothing of that name is there, or the store cannot be read.
        ConfigError: a URI that cannot be used.
    """
    place = place_of(named)
    if isinstance(place, Path):
        return place
    return _fetched(place, wanted, cache_folder(), int(time.monotonic() / _FRESH_SECONDS))


@lru_cache(maxsize=256)
def _fetched(place: Location, wanted: Callable[[str], bool], cache: Path, minute: int) -> Path:
    del cache, minute
    store = store_of(place)
    if place.key and (found := store.info(place)) is not None:
        return fetched_object(store, place, found)
    return fetched_folder(place, wanted)


def fetched_object(store: Store, place: Location, found: Object) -> Path:
    """The copy of an object that is known to be there."""
    path = copy_of(place)
    if not is_copy(path, found.size, found.changed_ns):
        store.download(place, path)
    return path


def fetched_folder(place: Location, wanted: Callable[[str], bool]) -> Path:
    """Copies of the objects below a place whose names from there on are wanted, and of no others.

    Raises:
        Gone: there are none.
    """
    store = store_of(place)
    names = {name: found for name, found in store.listed(place).items() if is_safe(name) and wanted(name)}
    if not names:
        raise Gone(f"{place}: nothing of use there; expected an object, a run, or Parquet tables")
    for name, found in names.items():
        fetched_object(store, place / name, found)
    folder = copy_of(place)
    for path in [*folder.rglob("*")]:
        name = str(path.relative_to(folder))
        if path.is_file() and wanted(name) and name not in names:
            path.unlink()  # of an object that is gone
    return folder
