"""`deepmac import`: from a checkpoint of the authors' code to masks."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.labels.label_file import Labels
from deepmac_distill.models.build import build_model
from deepmac_distill.models.load import Weights
from deepmac_distill.structures import Instances
from deepmac_distill.weights.card import read_card, read_state
from tf_checkpoint import as_theirs, write_checkpoint

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tf-fixture"
AUTHORS = ("deepmac_hg104w4_hourglass52_nc4", "deepmac_hg104w4_resnet4_nc4")
RECIPE = DeepMacConfig(
    backbone="hourglass-52", backbone_width=8, head_channels=8, mask_head="resnet-4", mask_width=4
)


def written(folder: Path, classes: int = 90, masks: bool = True) -> dict[str, torch.Tensor]:
    """A checkpoint of random weights; returns those of ours that it was made of."""
    torch.manual_seed(0)
    state = build_model(RECIPE, classes, load_weights=False).state_dict()
    kept = {
        name: it for name, it in state.items() if masks or name.startswith("backbone.") or ".center." in name
    }
    write_checkpoint(folder / "checkpoint" / "ckpt-0", as_theirs(kept).items())
    return kept


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """Such as the public file, at small width, 128 px."""
    folder = tmp_path_factory.mktemp("public")
    state = written(folder / "deepmac")
    (folder / "deepmac" / "pipeline.config").write_text("max_dimension: 128 pad_to_max_dimension: true")
    path = folder / "deepmac_coco17.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(folder / "deepmac", "deepmac_coco17")
    return path, state


@pytest.fixture(scope="module")
def imported(archive, deepmac, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("imported") / "weights"
    ended = deepmac("import", archive[0], out)
    assert ended.code == 0, ended.err
    count = _tensors(archive[1])
    numbers = sum(it.numel() for it in archive[1].values() if it.ndim) - 10 * 9
    first, second = ended.out.splitlines()[:2]
    assert first == "hourglass-52, resnet-4, 80 classes, 128 px, lattice reference"
    assert second == f"{count} of {count} tensors, {numbers:,} numbers; every checksum holds"
    assert f"next: deepmac pseudolabel --model {out / 'weights.safetensors'}" in ended.out
    return out


def _tensors(state: dict[str, torch.Tensor]) -> int:
    return sum(it.ndim > 0 for it in state.values())


def test_an_archive_becomes_weights_and_a_card(archive, imported: Path) -> None:
    assert sorted(path.name for path in imported.iterdir()) == ["card.json", "weights.safetensors"]
    state = read_state(imported / "weights.safetensors")
    assert state.keys() == archive[1].keys()
    for name, theirs in archive[1].items():
        if ".heatmap.output." in name:  # of 90 channels those of COCO's classes
            assert torch.equal(state[name][:11], theirs[:11]) and torch.equal(state[name][-1], theirs[89])
        else:
            assert torch.equal(state[name], theirs)
    card = read_card(imported / "weights.safetensors")
    assert json.loads((imported / "card.json").read_text())["class_names"][:2] == ["person", "bicycle"]
    assert (card.role, card.lattice, card.image_size_px) == ("teacher", "reference", 128)
    assert len(card.class_names) == len(card.seen_mask_classes or ()) == 80
    assert card.category_ids[-1] == 90 and "imported from deepmac_coco17.tar.gz" in card.about


def test_it_labels_boxes_on_its_lattice_and_is_evaluated_as_shown_elsewhere(
    imported: Path, chain, deepmac, tmp_path: Path
) -> None:
    scenes = chain[0] / "scenes-val"
    document = json.loads((scenes / "instances.json").read_text())
    for category, name in zip(document["categories"], ("cat", "dog", "kite", "owl"), strict=False):
        category["name"] = name
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(document))
    data = ["--annotations", boxes, "--images", scenes / "images", "--out", tmp_path / "run"]
    ended = deepmac("pseudolabel", "--model", imported, *data, "--seen", "owl", "--device", "cpu")
    assert ended.code == 0, ended.err
    labels = Labels.open(tmp_path / "run" / "pseudolabel" / "masks.parquet")
    drawn = labels.table.filter(labels.table["cut"].is_valid())
    assert len(drawn) and set(drawn["soft_lattice"].to_pylist()) == {"reference"}
    saw = zip(drawn["category_name"].to_pylist(), drawn["teacher_saw_class"].to_pylist(), strict=True)
    assert all(seen == (name in ("cat", "dog", "kite")) for name, seen in saw)
    again = labels.with_cut(0.4).table  # cut again on that lattice
    assert again["cut"].null_count == labels.table["cut"].null_count
    val = ["--val-annotations", boxes, "--val-images", scenes / "images", "--set", "evaluation.bootstrap=5"]
    ended = deepmac("evaluate", "--model", imported / "weights.safetensors", *data, *val, "--seen", "owl")
    assert ended.code == 0 and "unseen classes count as shown elsewhere: it saw their masks" in ended.err


def test_a_training_goes_on_from_it_on_its_lattice_alone(
    imported: Path, scenes_toml: Path, deepmac, tmp_path: Path
) -> None:
    keys = ['backbone="hourglass-52"', "backbone_width=8", "head_channels=8", "mask_width=4", "mask_size=32"]
    model = [part for key in keys for part in ("--set", f"teacher.model.{key}")]
    model += ["--set", 'teacher.model.mask_head="resnet-4"', "--set", "teacher.train.image_size_px=128"]
    start = ["--set", f"teacher.train.init_from={imported / 'weights.safetensors'}", "--steps", "1"]
    command = ["teach", "--config", scenes_toml, "--out", tmp_path / "run", *model, *start]
    ended = deepmac(*command)
    says = "its masks have the lattice 'reference', model.lattice is 'centers'; expected the same"
    assert ended.code == 2 and ended.err.count("\n") == 1 and says in ended.err
    ended = deepmac(
        *command, "--set", 'teacher.model.lattice="reference"', "--set", "teacher.train.batch_size=2"
    )
    assert ended.code == 0, ended.err
    card = read_card(tmp_path / "run" / "teacher" / "weights.safetensors")
    assert card.lattice == "reference" and "person" in card.pretrained_mask_classes


def test_a_detector_has_no_masks_and_can_be_started_from(deepmac, tmp_path: Path, scenes_toml: Path) -> None:
    state = written(tmp_path / "centernet_hg104_128x128_coco17", masks=False)
    out = tmp_path / "out"
    ended = deepmac("import", tmp_path / "centernet_hg104_128x128_coco17", out)
    assert ended.code == 0, ended.err
    assert "no mask head, 80 classes, 128 px" in ended.out and "init_from=" in ended.out
    card = read_card(out / "weights.safetensors")
    assert (
        card.role == "detector" and "mask_head" not in card.model and len(card.pretrained_mask_classes) == 80
    )
    assert read_state(out / "weights.safetensors").keys() == state.keys()
    ended = deepmac("predict", "x.png", "--box", "1,1,5,5", "--model", out / "weights.safetensors")
    assert ended.code == 2 and ended.err.count("\n") == 1
    keys = ['backbone="hourglass-52"', "backbone_width=8", "head_channels=8"]
    model = [part for key in keys for part in ("--set", f"teacher.model.{key}")]
    start = ["--set", f"teacher.train.init_from={out / 'weights.safetensors'}", "--steps", "1"]
    size = ["--set", "teacher.train.image_size_px=128", "--set", "teacher.train.batch_size=2"]
    ended = deepmac("teach", "--config", scenes_toml, "--out", tmp_path / "run", *model, *start, *size)
    assert ended.code == 0 and "a detector of 80 classes" in ended.err, ended.err


def test_names_of_classes_and_masks_can_be_given(deepmac, tmp_path: Path) -> None:
    written(tmp_path / "mine_128x128", classes=3)
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    given = ["import", tmp_path / "mine_128x128"]
    assert deepmac(*given, tmp_path / "a").code == 0
    card = read_card(tmp_path / "a" / "weights.safetensors")
    assert card.class_names == ("class 1", "class 2", "class 3") and card.seen_mask_classes is None
    ended = deepmac(*given, tmp_path / "b", "--classes", tmp_path / "names.txt", "--masks-of", "dog,owl")
    assert ended.code == 0, ended.err
    card = read_card(tmp_path / "b" / "weights.safetensors")
    assert card.class_names == ("cat", "dog", "owl") and card.seen_mask_classes == ("dog", "owl")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "nothing names the size of its images; expected --image-size, such as 1024"),
        (["--image-size", "100"], "images of 100 px: expected a multiple of 128, at most 4096"),
        (["--image-size", "128", "--mask-size", "2048"], "masks of 2048 cells a side: expected 1024 at most"),
        (["--image-size", "128", "--mask-size", "3"], "--mask-size"),
        (["--image-size", "128", "--classes", "cat,dog"], "--classes: got 2 different names, expected 3"),
        (["--image-size", "128", "--classes", "no.txt"], "expected a file of names, one a line"),
        (["--image-size", "128", "--masks-of", "yak"], "--masks-of yak: expected classes of the checkpoint"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(deepmac, tmp_path: Path, flags: list[str], says: str) -> None:
    written(tmp_path / "mine", classes=3)
    ended = deepmac("import", tmp_path / "mine", tmp_path / "out", *flags)
    assert ended.code == 2 and ended.err.count("\n") == 1 and says in ended.err
    assert not (tmp_path / "out").exists()


def test_bad_checkpoints_are_one_line(deepmac, tmp_path: Path, archive) -> None:
    cut_off = tmp_path / "deepmac_128x128.tar.gz"
    cut_off.write_bytes(archive[0].read_bytes()[:50_000])
    other = tmp_path / "other_128x128"
    write_checkpoint(other / "ckpt-0", [(("_feature_extractor", "x"), np.zeros(3, np.float32))])
    large, net = tmp_path / "large_128x128", ("_feature_extractor", "_network")
    shapes = {("hourglass_network", "0", "x"): (0,), ("output_conv", "0", "conv", "kernel"): (3, 3, 0, 2**30)}
    tensors = [((*net, *path), np.zeros(shape, np.float32)) for path, shape in shapes.items()]
    write_checkpoint(large / "ckpt-0", tensors)
    for path, says in (
        (tmp_path / "none", "no such file or folder; expected a .tar.gz, a folder"),
        (cut_off, ""),
        (other, "got a backbone of 0 hourglasses, expected hourglass-52 or hourglass-104"),
        (large, "output_conv/0/conv/kernel: got 1073741824 channels, expected 1 to 8192"),
    ):
        ended = deepmac("import", path, tmp_path / "out")
        assert ended.code == 2 and ended.err.count("\n") == 1 and str(path) in ended.err and says in ended.err
        assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_line(deepmac, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        ended = deepmac("import", tmp_path, out)
        assert (
            ended.code == 2
            and ended.err.count("\n") == 1
            and "expected a folder that can be made" in ended.err
        )


def test_weights_that_are_there_are_kept_without_force(deepmac, archive, imported: Path) -> None:
    ended = deepmac("import", archive[0], imported)
    assert ended.code == 2 and "is there already; expected a new folder, or --force" in ended.err
    before = (imported / "weights.safetensors").read_bytes()
    assert deepmac("import", archive[0], imported, "--force").code == 0
    assert (imported / "weights.safetensors").read_bytes() == before


@pytest.mark.tensorflow
@pytest.mark.skipif(not SHARED.exists(), reason="no checkpoints of the authors' code here")
@pytest.mark.parametrize("name", AUTHORS)
def test_the_authors_checkpoint_computes_what_their_code_computed(deepmac, tmp_path: Path, name: str) -> None:
    """The whole network; the fixture of the unit tests has no room for a backbone."""
    ended = deepmac("import", SHARED / name / "checkpoint", tmp_path / "w", "--image-size", "128")
    assert ended.code == 0, ended.err
    model = Weights.read(tmp_path / "w" / "weights.safetensors").model(torch.device("cpu"))
    with np.load(SHARED / name / "reference.npz") as found:
        reference = {key: torch.from_numpy(found[key]) for key in found}
    image = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    height, width = reference["image"].shape[:2]
    image[0, :, :height, :width] = reference["image"].permute(2, 0, 1)
    boxes = Instances.of_boxes(
        [reference["boxes_xyxy"].float()], [torch.zeros(len(reference["boxes_xyxy"]), dtype=torch.int64)], 32
    )
    with torch.no_grad():
        maps = model.backbone(image)
        masks = model.segment(image, boxes).grids
        for stack, features in enumerate(maps):
            heads = model.heads[stack]
            for key, got in (
                ("features", features),
                ("object_center", heads.center.heatmap(features)),
                ("box_scale", heads.center.size(features)),
                ("box_offset", heads.center.offset(features)),
                ("INSTANCE_EMBEDDING", heads.instance(features)),
                ("PIXEL_EMBEDDING", heads.pixel(features)),
            ):
                expected = reference[f"{key}_{stack}"]
                torch.testing.assert_close(got[0].permute(1, 2, 0), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(masks, reference["mask_probs"], rtol=0, atol=1e-4)


@pytest.mark.tensorflow
@pytest.mark.skipif(not SHARED.exists(), reason="no checkpoints of the authors' code here")
def test_a_saved_model_of_the_authors_gives_the_weights_of_the_checkpoint(deepmac, tmp_path: Path) -> None:
    states = []
    for part in ("checkpoint", "saved_model"):
        ended = deepmac("import", SHARED / AUTHORS[1] / part, tmp_path / part, "--image-size", "128")
        assert ended.code == 0, ended.err
        states.append(read_state(tmp_path / part / "weights.safetensors"))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
