"""TOML and ``--set`` become the dataclasses of `schema`, strictly.

An unknown key, a wrong type or a value out of range is an error that names the full key, such as
``teacher.train.lr``.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import math
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from deepmac_distill.config.limits import MAX_INTEGER
from deepmac_distill.config.schema import ModelConfig, Pipeline, TeacherConfig
from deepmac_distill.config.short_runs import fit_schedules
from deepmac_distill.errors import ConfigError
from deepmac_distill.files import read_text
from deepmac_distill.look import Look
from deepmac_distill.regular import UnfitFile

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def load_pipeline(
    path: Path | None,
    overrides: Sequence[str] = (),
    values: Mapping[str, object] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Pipeline:
    """Read a pipeline file (None: all defaults), put `values` into it, then ``key=value`` overrides in order.

    A file that ends in .json is the resolved form that a run keeps. Where steps are overridden, warm-up and
    decays that would come after them are scaled to fit.

    Args:
        values: by full key, such as ``{"teacher.train.lr": 1e-4}``; taken as they are.
        note: is given a line for each key that was scaled.

    Raises:
        ConfigError: the file is missing or is not TOML, or a key or value is refused, by its full name.
    """
    before = {} if path is None else _read_tree(path)
    tree = copy.deepcopy(before)
    where = "--set" if path is None else str(path)
    given = [*(values or {}).items(), *map(_parsed, overrides)]
    for key, value in given:
        _put(tree, key, value)
    for line in fit_schedules(tree, before, {key for key, _ in given}):
        note(line)
    return build(Pipeline, tree, where)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A config dataclass as ``{"teacher.train.lr": 0.001, ...}``, the form in which runs compare inputs."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, key = getattr(config, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{key}.")
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def flatten_model(model: ModelConfig, prefix: str = "") -> dict[str, Any]:
    """`flatten` for a model, without keys that are named only where they are set: others are as before.

    >>> from deepmac_distill.config import DeepMacConfig
    >>> [flatten_model(DeepMacConfig(lattice=it)).get("lattice") for it in ("centers", "reference")]
    [None, 'reference']
    """
    values = flatten(model, prefix)
    return {key: it for key, it in values.items() if key != f"{prefix}lattice" or it != "centers"}


def changes(config: Any, prefix: str = "") -> dict[str, Any]:
    """`flatten` without the values that are the defaults.

    >>> changes(Look(mirror=True), "teacher.look.")
    {'teacher.look.mirror': True}
    """
    defaults = flatten(type(config)(), prefix)
    return {key: value for key, value in flatten(config, prefix).items() if value != defaults[key]}


Built = TypeVar("Built", bound="DataclassInstance")
RENAMED = {  # keys of earlier versions, refused with the name they have now
    "accumulate": "gradient_accumulation_steps",
    "clip_norm": "max_grad_norm",
    "colour_jitter": "color_jitter",
    "given_boxes_only": "gt_boxes_only",
    "initial_weights": "init_from",
    "min_box_fill_iou": "min_mask_bbox_iou",
    "min_lead_over_box": "min_lead_over_ellipse",
    "threshold": "cut",
}


def build(cls: type[Built], tree: Any, where: str) -> Built:
    """Make the config dataclass `cls` from nested dicts, strictly; what they leave out is the default.

    Raises:
        ConfigError: names `where`, the full key, what was got and what was expected.
    """
    return _changed(cls(), tree, where, "")


def build_model_config(tree: Any, where: str) -> ModelConfig:
    """`build` for a model: the config class whose `architecture` the dict names.

    Raises:
        ConfigError: as `build`.
    """
    kinds = get_args(ModelConfig)
    default: ModelConfig = _variant(kinds, kinds[0](), tree, where, "")
    return _changed(default, tree, where, "")


def look_changes(text: str) -> dict[str, Any]:
    """What ``--look boxes=by-size,mirror=true`` changes of any look.

    Raises:
        ConfigError: an unknown key, or a value that no look has.
    """
    tree: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not (equals and key.strip()) or key.strip() in tree:
            raise ConfigError(f"--look {text}: expected key=value, each key once, such as boxes=windows")
        tree[key.strip()] = _toml_value(value.strip())
    changed_look(Look(), tree)
    return tree


def changed_look(look: Look, changes: Mapping[str, Any]) -> Look:
    """A look with some of its values changed.

    Raises:
        ConfigError: an unknown key, or a value that no look has.
    """
    return _changed(look, dict(changes), "--look", "")


def looking(teacher: TeacherConfig, changes: Mapping[str, Any]) -> TeacherConfig:
    """The teacher with what `look_changes` gives as its own look, in all but its training.

    Raises:
        ConfigError: an unknown key, or a value that no look has or that does not fit what it trains on.
    """
    try:
        return teacher.looking(changed_look(teacher.look, changes))
    except ValueError as refused:
        raise ConfigError(f"--look: teacher.{refused}") from None


def _changed(default: Built, tree: Any, where: str, prefix: str) -> Built:
    """`default` with the values of `tree`: a table that names one key leaves its neighbors alone."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: {prefix.rstrip('.')}: got {tree!r}, expected a table")
    hints = get_type_hints(type(default))
    for key in tree:
        if key not in hints:
            raise ConfigError(f"{where}: {prefix}{key}: unknown key{_did_you_mean(key, hints)}")
    values: dict[str, Any] = {}
    for key, value in tree.items():
        inner, kinds = f"{prefix}{key}.", get_args(hints[key]) or (hints[key],)
        if dataclasses.is_dataclass(kinds[0]):
            start = _variant(kinds, getattr(default, key), value, where, inner)
            values[key] = _changed(start, value, where, inner)
        else:
            values[key] = _convert(hints[key], value, where, f"{prefix}{key}")
    try:
        return dataclasses.replace(default, **values)
    except ValueError as refused:
        raise ConfigError(f"{where}: {prefix}{refused}") from None


def _variant(kinds: tuple[Any, ...], default: Any, tree: Any, where: str, prefix: str) -> Any:
    """`default`, or that of another of `kinds` where the table names its `architecture`."""
    named = tree.get("architecture") if isinstance(tree, dict) else None
    if named is None or named == getattr(default, "architecture", named):
        return default
    by_name = {kind().architecture: kind for kind in kinds}
    if named not in by_name:
        options = ", ".join(by_name) + ('; set teacher.segmenter = "grabcut"' if named == "grabcut" else "")
        raise ConfigError(f"{where}: {prefix}architecture: got {named!r}, expected one of {options}")
    return by_name[named]()


def _read_tree(path: Path) -> dict[str, Any]:
    form, read = ("JSON", json.loads) if path.suffix == ".json" else ("TOML", tomllib.loads)
    try:
        return read(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such pipeline file; expected a TOML file") from None
    except UnfitFile as error:
        raise ConfigError(f"{path}: {error.strerror}; expected a {form} file") from None
    except (ValueError, RecursionError) as error:  # what both readers and the decoder raise
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {reason}; expected {form}") from None


def _convert(hint: Any, value: Any, where: str, key: str) -> Any:
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            options = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{where}: {key}: got {value!r}, expected one of {options}")
        return value
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: {key}: got {value!r}, expected a table")
        kind = get_args(hint)[1]
        if kind is Any:
            return value
        return {name: _convert(kind, item, where, f"{key}.{name}") for name, item in value.items()}
    if get_origin(hint) is tuple:
        if isinstance(value, str) and get_args(hint)[0] is str:
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, list):
            raise ConfigError(f"{where}: {key}: got {value!r}, expected a list")
        return tuple(_convert(get_args(hint)[0], item, where, key) for item in value)
    if get_origin(hint) in (Union, types.UnionType):  # a number, or a word that stands for a rule
        kind, words = get_args(hint)
        if type(value) in (kind, int):
            return _convert(kind, value, where, key)
        if value in get_args(words):
            return value
        options = ", ".join(map(str, get_args(words)))
        raise ConfigError(f"{where}: {key}: got {value!r}, expected a number or {options}")
    if type(value) is int and abs(value) > MAX_INTEGER:
        raise ConfigError(f"{where}: {key}: got {_short(value)}, expected at most {MAX_INTEGER}")
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is float and not math.isfinite(value):  # compares with nothing: no range refuses it
        raise ConfigError(f"{where}: {key}: got {value!r}, expected a finite number")
    if type(value) is not hint:
        raise ConfigError(f"{where}: {key}: got {_short(value)}, expected {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{where}: {key}: got {value}, expected a finite number")
    return value


def _short(value: Any) -> str:
    """A value as it is shown, which Python refuses of the longest integers."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:100]}..."


def _parsed(override: str) -> tuple[str, object]:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override}: expected key=value, such as teacher.train.lr=1e-4")
    return key.strip(), _toml_value(text.strip())


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    node = tree
    for name in tables:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {name} is a value, expected a table")
    node[last] = value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text  # a bare word is a string: --set data.seen=voc needs no quotes


def _did_you_mean(key: str, known: dict[str, Any]) -> str:
    if RENAMED.get(key) in known:
        return f"; it is now called {RENAMED[key]}"
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"
