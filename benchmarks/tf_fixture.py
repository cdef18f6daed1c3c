"""Cuts tests/data/deepmac_tensorflow.npz from checkpoints that the authors' code wrote, and its outputs.

    python benchmarks/tf_fixture.py FOLDER tests/data/deepmac_tensorflow.npz

FOLDER holds what tensorflow/models (research/object_detection at 1cbb7a7d, 2021-07-19, Apache-2.0) wrote
under tensorflow-cpu 2.15.1 with random weights: a Deep-MAC of two hourglasses, width 4, mask head resnet4,
3 classes, and embedding heads of 1 x 3 kernels; `checkpoint/ckpt-0.*` by tf.train.CheckpointManager,
`saved_model/variables/*` of the same weights by the exporter, and `reference.npz`, every stage's output for a
photograph of COCO at 128 x 98 px.

The fixture has numbers alone, and no photograph: both indexes and object graphs whole, the bytes of the
tensors in `KEPT` where they stand, and the outputs in `OUTPUTS` of the last stack.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from deepmac_distill.weights.tensorflow.bundle import Bundle, read_index
from deepmac_distill.weights.tensorflow.convert import TfModel

KEPT = ("_mask_net", *(f"_prediction_head_dict/{it}/1" for it in ("object_center", "PIXEL_EMBEDDING")))
INSTANCE = "_prediction_head_dict/INSTANCE_EMBEDDING/1"
OUTPUTS = ("boxes_xyxy", "features_1", "object_center_1", "instance_at_center", "mask_probs")
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
LIMIT = 300_000  # bytes of the fixture


def kept_bytes(prefix: Path, keys: list[str]) -> dict[str, np.ndarray]:
    """The index, and the parts of the data file that hold these keys: where each begins, and its bytes."""
    data = Path(f"{prefix}.data-00000-of-00001").read_bytes()
    index = Path(f"{prefix}.index").read_bytes()
    entries, _ = read_index(index)
    spans = sorted((entries[key].offset, entries[key].size) for key in keys)
    return {
        "index": np.frombuffer(index, np.uint8),
        "size": np.array(len(data)),
        "spans": np.array(spans),
        "bytes": np.frombuffer(b"".join(data[at : at + size] for at, size in spans), np.uint8),
    }


def chosen_keys(prefix: Path) -> list[str]:
    """Keys of the tensors that are kept, in the order of the plain checkpoint's names, and the graph's."""
    entries, _ = read_index(Path(f"{prefix}.index").read_bytes())
    with Path(f"{prefix}.data-00000-of-00001").open("rb") as data:
        model = TfModel.of(Bundle(entries, [data]))
    named = [key for key in model.variables() if key.partition("/")[2].startswith((*KEPT, INSTANCE))]
    return [*sorted(named), GRAPH]


def main(folder: Path, out: Path) -> None:
    """Write the fixture."""
    arrays: dict[str, np.ndarray] = {}
    for name, prefix in (
        ("checkpoint", folder / "checkpoint" / "ckpt-0"),
        ("saved_model", folder / "saved_model" / "variables" / "variables"),
    ):
        # The SavedModel's values are the checkpoint's: its own graph and one small part show that.
        keys = chosen_keys(prefix)
        if name == "saved_model":
            keys = [key for key in keys if key == GRAPH or "_mask_net/project_out" in key]
        arrays |= {f"{name}/{part}": values for part, values in kept_bytes(prefix, keys).items()}
    with np.load(folder / "reference.npz") as reference:
        arrays |= {f"reference/{name}": reference[name] for name in OUTPUTS}
    arrays["reference/mask_probs"] = (arrays["reference/mask_probs"] * 65535).round().astype(np.uint16)
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as file:  # numpy reads it as any other .npz
        for name, values in arrays.items():
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, values)
    size = out.stat().st_size
    parts = {name: values.nbytes for name, values in arrays.items()}
    print(f"{out}: {size:,} bytes; {parts}")
    if size >= LIMIT:
        sys.exit(f"{out}: got {size:,} bytes, expected fewer than {LIMIT:,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
