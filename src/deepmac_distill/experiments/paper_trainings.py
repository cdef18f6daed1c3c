"""What the tables and figures of the paper take to train, at its scale and at a small one.

`paper_trainings.toml` names each training once, whichever tables share it, as a protocol and the keys in
which it differs. A training resolves to a whole pipeline file, which is written where it runs.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from deepmac_distill.config import FOLDER, Pipeline, build
from deepmac_distill.errors import ConfigError

Scale = Literal["coco", "small"]
Keys = dict[str, Any]  # full key of a pipeline file -> value
_BARE = re.compile(r"[A-Za-z0-9_-]+")
SCALES: tuple[Scale, ...] = ("coco", "small")


@dataclass(frozen=True, slots=True)
class Training:
    """One teacher; `starts_from` and `start` give the weights that it starts from."""

    name: str
    protocol: str
    keys: Mapping[Scale, Keys] = field(default_factory=dict)
    why: str = ""
    starts_from: str = ""  # another training
    start: bool = False  # weights that the user names
    behind: str = ""  # at the paper's scale: a training whose model detects the boxes


@cache
def trainings() -> dict[str, Training]:
    """All of them by name."""
    found = {one.name: one for one in _families()}
    entries = _document()["trainings"]
    for name, entry in entries.items():
        found[name] = _training(name, _whole(entry, entries), {})
    return found


def training(name: str) -> Training:
    """The training of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in trainings():
        raise ConfigError(f"training: got {name!r}, expected one of {', '.join(trainings())}")
    return trainings()[name]


@cache
def resolved(name: str, scale: Scale) -> Keys:
    """Every key in which a training's pipeline differs from the defaults; without where data and runs are.

    >>> keys = resolved("deepmac-512-hourglass-20", "coco")
    >>> keys["teacher.model.mask_head"], keys["teacher.train.batch_size"], keys["data.val_images"]
    ('hourglass-20', 64, 'val2017')
    """
    one = training(name)
    keys = dict(_flat(_document()["coco"])) if scale == "coco" else {}
    return keys | _protocol(one.protocol, scale) | dict(one.keys[scale])


def same_run(name: str, scale: Scale) -> str:
    """The first training that is the same at a scale: at a small one, backbones that differ may not.

    >>> same_run("mask-rcnn-resnet101-gt", "small"), same_run("mask-rcnn-resnet101-gt", "coco")
    ('mask-rcnn-resnet50-gt', 'mask-rcnn-resnet101-gt')
    """
    mine = (resolved(name, scale), training(name).starts_from, training(name).start)
    return next(
        other
        for other, one in trainings().items()
        if (resolved(other, scale), one.starts_from, one.start) == mine
    )


def pipeline_text(name: str, scale: Scale) -> str:
    """The training as a pipeline file of its own: TOML that `deepmac teach --config` takes."""
    one = training(name)
    why = one.why or _document()["protocols"][one.protocol]["why"]
    lines = [f"purpose = {json.dumps(f'arXiv:2104.00613, {name}, scale {scale}. {why}')}"]
    lines.append(f"name = {json.dumps(name)}")
    return "\n".join(
        lines + [f"{_toml_key(key)} = {_toml(value)}" for key, value in resolved(name, scale).items()]
    )


def pipeline_of(name: str, scale: Scale) -> Pipeline:
    """The training as the pipeline that its file is read to."""
    return build(Pipeline, tomllib.loads(pipeline_text(name, scale)), name)


def schedule_of(name: str, scale: Scale) -> str:
    """In words: how long a training is, and on what; empty of what learns nothing.

    >>> schedule_of("deepmac-512-resnet-4", "small"), schedule_of("mask-rcnn-resnet50-gt", "coco")
    ('480 steps of 16 windows of 128 px', '70,000 steps of 64 photographs of 1024 px')
    """
    teacher = pipeline_of(name, scale).teacher
    if teacher.segmenter:
        return ""
    train = teacher.train
    canvases = train.batch_size * train.gradient_accumulation_steps
    what = "windows" if train.views == "windows" else "photographs"
    return f"{train.steps:,} steps of {canvases} {what} of {train.image_size_px} px"


def _families() -> Iterator[Training]:
    for family, entry in _document()["families"].items():
        for value in entry["each"]:
            slug = value.removesuffix("+gt").replace(" ", "-")
            given = {entry["key"]: [value] if entry["key"] == "data.seen" else value}
            yield _training(f"{family}-{slug}", entry, given)


def _whole(entry: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A training's entry with what it takes from the one that it is like."""
    if "like" not in entry:
        return dict(entry)
    first = _whole(entries[entry["like"]], entries)
    own = {name: value for name, value in entry.items() if name != "like"}
    return first | own | {"keys": _flat(first.get("keys", {})) | _flat(own.get("keys", {}))}


def _training(name: str, entry: Mapping[str, Any], given: Keys) -> Training:
    shared = _flat(entry.get("keys", {})) | given
    return Training(
        name=name,
        protocol=entry["protocol"],
        keys={scale: shared | _flat(entry.get(f"{scale}_keys", {})) for scale in SCALES},
        why=entry.get("why", ""),
        starts_from=entry.get("starts_from", ""),
        start=entry.get("start", False),
        behind=entry.get("behind", ""),
    )


def _protocol(name: str, scale: Scale) -> Keys:
    entry = _document()["protocols"][name]
    keys = _protocol(entry["like"], scale) if "like" in entry else {}
    own = dict(entry[scale])
    if recipe := own.pop("recipe", ""):
        tree = tomllib.loads((FOLDER / f"{recipe}.toml").read_text(encoding="utf-8"))
        keys = keys | {key: value for key, value in _flat(tree).items() if key not in ("name", "purpose")}
    return keys | _flat(own)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Keys:
    """Nested tables as full keys; a table that is a value (`teacher.arguments`) stays one."""
    found: Keys = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in ("teacher.arguments", "evaluation.splits"):
            found |= _flat(value, f"{key}.")
        else:
            found[key] = value
    return found


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml_key(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)


def _toml_key(key: str) -> str:
    """A full key; a part that is no bare TOML key is quoted."""
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part) for part in key.split("."))


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
