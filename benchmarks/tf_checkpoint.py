"""Imports a full-size checkpoint of random numbers: CPU seconds and memory.

    python benchmarks/tf_checkpoint.py FOLDER [--json benchmarks/results/tf_checkpoint.json]

It writes hourglass-104 with hourglass-100 and 90 classes, 1,582 tensors of 964 MB, to FOLDER as TensorFlow
does, and runs `deepmac import` on it. The writer here is for this and for tests.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.devices import environment
from deepmac_distill.files import write_json
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.tensorflow.crc import masked_crc
from deepmac_distill.weights.tensorflow.names import FIRST_KERNEL, tf_paths

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
KEYS_IN_BLOCK = 50
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")


def varint(value: int) -> bytes:
    """A number as LevelDB and protocol buffers write it."""
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(dtype: int, shape: Iterable[int], offset: int, size: int, crc: int) -> bytes:
    """A tensor in the index."""
    sides = b"".join(field(2, field(1, side)) for side in shape)
    return (
        field(1, dtype)
        + field(2, sides)
        + field(4, offset)
        + field(5, size)
        + b"\x35"
        + crc.to_bytes(4, "little")
    )


def table(entries: Mapping[bytes, bytes]) -> bytes:
    """The index: blocks of keys and values, a block of their places, and a footer."""
    data, places = b"", {}
    keys = sorted(entries)
    for first in range(0, len(keys), KEYS_IN_BLOCK):
        some = keys[first : first + KEYS_IN_BLOCK]
        data, places[some[-1]] = _with_block(data, {key: entries[key] for key in some})
    data, statistics = _with_block(data, {})
    data, index = _with_block(data, places)
    return data + (statistics + index).ljust(40, b"\0") + MAGIC


def _with_block(data: bytes, entries: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """The data with one more block, and the place of it."""
    block, before = b"", b""
    for key, value in entries.items():
        shared = next((i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), len(before))
        shared = min(shared, len(key))
        block += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    block += bytes(4) + (1).to_bytes(4, "little")  # one restart, at 0
    place = varint(len(data)) + varint(len(block))
    return data + block + b"\0" + masked_crc(block + b"\0").to_bytes(4, "little"), place


def graph(paths: Iterable[tuple[str, ...]], root: str) -> bytes:
    """The objects that hold variables at these paths below a root."""
    nodes: list[tuple[dict[str, int], str | None]] = [({}, None)]
    for path in [(root, *path) for path in paths]:
        at = 0
        for name in path:
            if name not in nodes[at][0]:
                nodes[at][0][name] = len(nodes)
                nodes.append(({}, None))
            at = nodes[at][0][name]
        nodes[at] = (nodes[at][0], key_of(path))
    message = b""
    for children, key in nodes:
        node = b"".join(field(1, field(1, at) + field(2, name.encode())) for name, at in children.items())
        if key is not None:
            node += field(2, field(1, b"VARIABLE_VALUE") + field(3, key.encode()))
        message += field(1, node)
    return message


def key_of(path: tuple[str, ...]) -> str:
    """The key of a variable at a path from the root."""
    return "/".join(name.replace("/", ".S") for name in path) + VALUE


def write_checkpoint(
    prefix: Path, tensors: Iterable[tuple[tuple[str, ...], np.ndarray]], root: str = "model"
) -> None:
    """Write PREFIX.index and its data file; each array is held only while it is written."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    entries = {b"": field(1, 1) + field(3, field(1, 1))}
    paths, offset = [], 0
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as file:
        for path, values in tensors:
            data = np.ascontiguousarray(values, dtype="<f4").tobytes()
            key = key_of((root, *path)).encode()
            entries[key] = entry(1, values.shape, offset, len(data), masked_crc(data))
            paths.append(path)
            offset += file.write(data)
        text = graph(paths, root)
        of_length = masked_crc(len(text).to_bytes(4, "little")).to_bytes(4, "little")
        crc = masked_crc(len(text).to_bytes(4, "little"), of_length, text)
        size = file.write(varint(len(text)) + of_length + text)
        entries[GRAPH.encode()] = entry(7, (), offset, size, crc)
    Path(f"{prefix}.index").write_bytes(table(entries))


def as_theirs(state: Mapping[str, torch.Tensor]) -> dict[tuple[str, ...], np.ndarray]:
    """The tensors of a model of ours as the authors' code has them, by their paths."""
    arrays = {}
    for name, path in tf_paths(state.keys()).items():
        values = state[name].numpy()
        values = values[:, ::-1] if name == FIRST_KERNEL else values
        arrays[path] = values.transpose(2, 3, 1, 0) if values.ndim == 4 else values
    return arrays


def write_full_size(prefix: Path) -> None:
    """Random numbers in the shapes of the authors' largest model."""
    with torch.device("meta"):
        model = build_model(DeepMacConfig(mask_head="hourglass-100"), 90, load_weights=False)
    state, rng = model.state_dict(), np.random.default_rng(0)
    paths = tf_paths(state.keys())

    def tensors() -> Iterable[tuple[tuple[str, ...], np.ndarray]]:
        for name, path in paths.items():
            shape = tuple(state[name].shape)
            values = rng.standard_normal(math.prod(shape), dtype=np.float32)
            yield path, values.reshape([shape[at] for at in (2, 3, 1, 0)] if len(shape) == 4 else shape)

    write_checkpoint(prefix, tensors())


def main() -> None:
    """Write the checkpoint where it is not there, import it, print what that took, and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folder: Path = given.folder
    prefix = folder / "deepmac_1024x1024_synthetic" / "checkpoint" / "ckpt-0"
    if not Path(f"{prefix}.index").exists():
        write_full_size(prefix)
    command = [
        sys.executable,
        "-m",
        "deepmac_distill",
        "import",
        prefix.parents[1],
        folder / "imported",
        "--force",
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures: dict[str, Any] = {
        "environment": environment(),
        "bytes": Path(f"{prefix}.data-00000-of-00001").stat().st_size,
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_gb": round(after.ru_maxrss * 1024 / 1e9, 2),
        "report": done.stdout.splitlines()[:2],
    }
    print(json.dumps(figures, indent=2))
    if given.json:
        write_json(given.json, figures)


if __name__ == "__main__":
    main()
