"""Checkpoints of TensorFlow: what the authors' code wrote, and what a writer of our own puts into it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.errors import CheckpointError
from deepmac_distill.models.build import build_model
from deepmac_distill.models.deepmac import DeepMac
from deepmac_distill.weights.tensorflow import files
from deepmac_distill.weights.tensorflow.bundle import Bundle, read_index
from deepmac_distill.weights.tensorflow.coco import COCO_CLASSES
from deepmac_distill.weights.tensorflow.convert import TfModel, convert
from deepmac_distill.weights.tensorflow.files import opened
from deepmac_distill.weights.tensorflow.names import tf_paths
from deepmac_distill.weights.tensorflow.table import read_table
from tf_checkpoint import as_theirs, table, write_checkpoint

FIXTURE = Path(__file__).parents[1] / "data" / "deepmac_tensorflow.npz"
RECIPE = DeepMacConfig(  # of the fixture
    backbone="hourglass-104", backbone_width=4, mask_head="resnet-4", mask_width=4, lattice="reference"
)
CANVAS = 128


@pytest.fixture(scope="module")
def fixture() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as found:
        return dict(found)


def bundle_of(fixture: dict[str, np.ndarray], name: str) -> Bundle:
    """A checkpoint of the authors; of its data all but the tensors that the fixture keeps is zero."""
    data, at = bytearray(int(fixture[f"{name}/size"])), 0
    kept = fixture[f"{name}/bytes"].tobytes()
    for offset, size in fixture[f"{name}/spans"].tolist():
        data[offset : offset + size] = kept[at : at + size]
        at += size
    return Bundle(read_index(fixture[f"{name}/index"].tobytes())[0], [io.BytesIO(data)])


@pytest.fixture(scope="module")
def model(fixture: dict[str, np.ndarray]) -> DeepMac:
    """Ours with the parts that the fixture keeps: the heads of the last stack, and the mask head."""
    model = build_model(RECIPE, 3, load_weights=False).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    kept = ("mask_head.", "heads.1.pixel.", "heads.1.instance.", "heads.1.center.heatmap.")
    wanted = {name: shape for name, shape in shapes.items() if name.startswith(kept)}
    del shapes
    whole = tf_paths(model.state_dict().keys())  # numbers of layers depend on all of a mask head
    assert {name: whole[name] for name in tf_paths(wanted.keys())} == tf_paths(wanted.keys())
    arrays = convert(TfModel.of(bundle_of(fixture, "checkpoint")), wanted).tensors
    state = {name: torch.from_numpy(values) for name, values in arrays.items()}
    assert set(model.load_state_dict(state, strict=False).unexpected_keys) == set()
    assert isinstance(model, DeepMac)
    return model


def reference(fixture: dict[str, np.ndarray], name: str) -> torch.Tensor:
    return torch.from_numpy(fixture[f"reference/{name}"])


def test_every_tensor_of_the_authors_checkpoint_has_a_place(fixture: dict[str, np.ndarray]) -> None:
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in build_model(RECIPE, 3, load_weights=False).state_dict().items()
    }
    for name in ("checkpoint", "saved_model"):
        found = TfModel.of(bundle_of(fixture, name))
        keys = {found.key(path) for path in tf_paths(shapes.keys()).values()}
        assert len(keys) == 874 and None not in keys and keys == found.variables()


def test_heads_are_those_of_the_reference(model: DeepMac, fixture: dict[str, np.ndarray]) -> None:
    features = reference(fixture, "features_1").permute(2, 0, 1)[None]
    with torch.no_grad():
        heatmap = model.heads[1].center.heatmap(features)[0].permute(1, 2, 0)
    torch.testing.assert_close(heatmap, reference(fixture, "object_center_1"), rtol=0, atol=1e-4)


def test_masks_are_those_of_the_reference_on_its_lattice_alone(
    model: DeepMac, fixture: dict[str, np.ndarray]
) -> None:
    """Embedding heads of 1 x 3 kernels, the crop, the embedding of centers and the mask head."""
    features = reference(fixture, "features_1").permute(2, 0, 1)[None].contiguous()
    boxes = reference(fixture, "boxes_xyxy").float()
    expected = reference(fixture, "mask_probs").float() / 65535
    index = torch.zeros(len(boxes), dtype=torch.int64)
    with torch.no_grad():
        masks = model._mask_probs(features, boxes, index)
    torch.testing.assert_close(masks, expected, rtol=0, atol=1e-4)
    other = build_model(DeepMacConfig(**(_values(RECIPE) | {"lattice": "centers"})), 3, load_weights=False)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        masks = other.eval()._mask_probs(features, boxes, index)
    assert (masks - expected).abs().max() > 0.02


def _values(config: DeepMacConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in DeepMacConfig.__dataclass_fields__}


def test_a_saved_model_holds_the_same_weights_under_other_keys(fixture: dict[str, np.ndarray]) -> None:
    one, other = (TfModel.of(bundle_of(fixture, name)) for name in ("checkpoint", "saved_model"))
    paths = tf_paths(build_model(RECIPE, 3, load_weights=False).state_dict().keys()).values()
    assert all(one.shape(path) == other.shape(path) for path in paths)
    assert one.variables() != {key.removeprefix("_") for key in other.variables()}
    for leaf in ("kernel", "bias"):
        path = ("_mask_net", "project_out", leaf)
        keys = [found.key(path) for found in (one, other)]
        assert None not in keys
        assert np.array_equal(one.bundle.array(keys[0]), other.bundle.array(keys[1]))


def test_what_the_data_file_lacks_is_found_by_its_checksum(fixture: dict[str, np.ndarray]) -> None:
    found = TfModel.of(bundle_of(fixture, "checkpoint"))
    key = found.key(("_feature_extractor", "_network", "output_conv", "0", "conv", "kernel"))
    with pytest.raises(ValueError, match=r"output_conv/0/conv/kernel.*: its checksum differs"):
        found.bundle.array(key)


@pytest.mark.parametrize(
    "head",
    ["hourglass-10", "hourglass-20", "hourglass-20-no-long-skips", "hourglass-52", "resnet-12", "resnet-20"],
)
def test_every_tensor_goes_there_and_back(head: str, tmp_path: Path) -> None:
    recipe = DeepMacConfig(
        backbone="hourglass-52", backbone_width=8, head_channels=8, mask_head=head, mask_width=4
    )
    torch.manual_seed(0)
    state = build_model(recipe, 5, load_weights=False).state_dict()
    write_checkpoint(tmp_path / "ckpt-0", as_theirs(state).items())
    with opened(tmp_path, tmp_path) as checkpoint:
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if "num_batches" not in name}
        found = convert(TfModel.of(checkpoint.bundle), shapes)
    assert found.without_place == () and found.tensors.keys() == shapes.keys()
    assert all(np.array_equal(found.tensors[name], state[name].numpy()) for name in shapes)


def test_coco_has_80_classes_of_90_ids() -> None:
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES.values())) == 80 and max(COCO_CLASSES) == 90
    assert (COCO_CLASSES[1], COCO_CLASSES[44], COCO_CLASSES[90]) == ("person", "bottle", "toothbrush")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The folder of a checkpoint of two variables."""
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_checkpoint(tmp_path / "in" / "ckpt-0", [(("a", "kernel"), values), (("a", "bias"), values[0])])
    return tmp_path / "in"


def packed(path: Path, members: dict[str, bytes], *links: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return path


def contents(folder: Path, under: str = "") -> dict[str, bytes]:
    return {f"{under}{path.name}": path.read_bytes() for path in folder.iterdir()}


def read_all(path: Path, space: Path) -> dict[str, np.ndarray]:
    with opened(path, space) as checkpoint:
        found = TfModel.of(checkpoint.bundle)
        return {key: checkpoint.bundle.array(key) for key in found.variables()}


def refusal(path: Path, space: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_all(path, space)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_archives_folders_prefixes_and_saved_models_are_one_thing(small: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    for name, data in contents(small).items():
        (saved / "variables").mkdir(parents=True, exist_ok=True)
        (saved / "variables" / name.replace("ckpt-0", "variables")).write_bytes(data)
    both = contents(small, "x/checkpoint/") | contents(saved / "variables", "x/saved_model/variables/")
    archive = packed(tmp_path / "x.tar.gz", both)
    ways = [small, small / "ckpt-0", small / "ckpt-0.index", saved, archive]
    found = [read_all(path, tmp_path) for path in ways]
    assert all(arrays.keys() == found[0].keys() and len(arrays) == 2 for arrays in found)
    assert all(np.array_equal(arrays[key], found[0][key]) for arrays in found for key in arrays)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "saved", "x.tar.gz"]


def test_the_checkpoint_file_chooses_among_several(small: Path, tmp_path: Path) -> None:
    for name, data in contents(small).items():
        (small / name.replace("ckpt-0", "ckpt-7")).write_bytes(data)
    assert refusal(small, tmp_path) == "got 2 checkpoints (ckpt-0, ckpt-7); name one prefix"
    (small / "checkpoint").write_text('model_checkpoint_path: "/somewhere/ckpt-7"\nall: "ckpt-0"\n')
    with opened(small, tmp_path) as checkpoint:
        assert checkpoint.bundle.shards[0].name.endswith("ckpt-7.data-00000-of-00001")


def test_what_is_no_checkpoint_is_refused(small: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere", tmp_path).startswith("no such file or folder; expected a .tar.gz,")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty", tmp_path).startswith("got no checkpoint of TensorFlow 2 (*.index)")
    (tmp_path / "weights.pth").write_bytes(b"PK")
    assert refusal(tmp_path / "weights.pth", tmp_path).startswith("got a file that is no archive")
    (small / "ckpt-0.data-00000-of-00001").unlink()
    assert refusal(small, tmp_path) == "got no ckpt-0.data-00000-of-00001 beside the index, expected it"


def test_members_that_leave_the_archive_are_refused(small: Path, tmp_path: Path) -> None:
    for name in ("../ckpt-0.index", "/tmp/ckpt-0.index", "a/../../ckpt-0.index"):
        path = packed(tmp_path / "x.tar.gz", {name: b""})
        assert refusal(path, tmp_path) == f"member {name!r}: leaves the folder, expected a path inside it"
    path = packed(tmp_path / "x.tar.gz", {}, "x/ckpt-0.index")
    assert refusal(path, tmp_path) == "member 'x/ckpt-0.index': is a link or no plain file, expected one"


def test_an_archive_that_is_too_large_or_cut_off_is_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "x.tar.gz", contents(small))
    whole = path.read_bytes()
    for end in (10, len(whole) // 2):
        path.write_bytes(whole[:end])
        assert refusal(path, tmp_path)
    path.write_bytes(whole)
    monkeypatch.setattr(files, "MAX_ARCHIVE_BYTES", 100)
    assert refusal(path, tmp_path) == "got more than 100 bytes, expected a checkpoint"


def damaged(data: bytes) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[at] ^= int(rng.integers(1, 256))
        yield bytes(changed)
    for end in range(0, len(data), max(1, len(data) // 40)):
        yield data[:end]


@pytest.mark.parametrize("name", ["ckpt-0.index", "ckpt-0.data-00000-of-00001"])
def test_damaged_files_are_refused_in_one_line(small: Path, tmp_path: Path, name: str) -> None:
    whole = read_all(small, tmp_path)
    data = (small / name).read_bytes()
    for changed in damaged(data):
        (small / name).write_bytes(changed)
        try:
            found = read_all(small, tmp_path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            continue
        # What no checksum covers is what nothing depends on, such as the filling of the footer.
        assert found.keys() == whole.keys() and all(np.array_equal(found[key], whole[key]) for key in whole)


def test_an_index_with_good_checksums_may_still_lie(small: Path, tmp_path: Path) -> None:
    """Mutations under a valid checksum: sizes, shapes, places, types."""
    entries = read_table((small / "ckpt-0.index").read_bytes())
    rng = np.random.default_rng(1)
    keys = sorted(entries)
    for turn in range(300):
        changed = dict(entries)
        key = keys[turn % len(keys)]
        value = bytearray(changed[key] or b"\0")
        for at in rng.integers(0, len(value), 2):
            value[at] = int(rng.integers(0, 256))
        changed[key] = bytes(value) + bytes(rng.integers(0, 256, turn % 3, dtype=np.uint8))
        (small / "ckpt-0.index").write_bytes(table(changed))
        try:
            read_all(small, tmp_path)
        except CheckpointError as error:
            assert "\n" not in str(error)


def test_sizes_that_only_a_file_states_take_no_memory(small: Path, tmp_path: Path) -> None:
    from tf_checkpoint import entry

    entries = read_table((small / "ckpt-0.index").read_bytes())
    key = b"model/a/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    for shape, size, says in (
        ((2**20, 2**18), 2**40, "expected 1,099,511,627,776 or more: the file is cut off"),
        ((2**31, 2**31), 24, "got a shape of [2147483648, 2147483648], expected a weight's"),
        ((2, 3), 2**40, "got 1099511627776 bytes, expected those of a float32 of (2, 3)"),
    ):
        (small / "ckpt-0.index").write_bytes(table(entries | {key: entry(1, shape, 0, size, 0)}))
        assert says in refusal(small, tmp_path)
