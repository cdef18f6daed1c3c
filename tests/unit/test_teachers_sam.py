"""SAM, SAM 2, SAM 3's tracker, SAM-HQ and EdgeTAM as teachers, against transformers' own."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from deepmac_distill.data.frames import view_for
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.inference import require_contract
from deepmac_distill.labels.cut import recut
from deepmac_distill.structures import Instances
from deepmac_distill.teachers.sam.families import FAMILIES
from deepmac_distill.teachers.sam.grids import grids_over_boxes, shares_outside
from deepmac_distill.teachers.sam.teacher import Sam
from random_sams import CANVAS_PX, MODEL_CLASSES, save_small

SIZE_HW = (480, 640)  # of an image


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a small random SAM of each kind."""
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = save_small(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return of


@pytest.fixture
def copy_of(folder_of, tmp_path: Path) -> Any:
    def of(kind: str) -> Path:
        shutil.copytree(folder_of(kind), tmp_path / kind)
        return tmp_path / kind

    return of


def boxes_of(*images: list[list[float]]) -> Instances:
    boxes = [torch.tensor(some).reshape(-1, 4) for some in images]
    return Instances.of_boxes(boxes, [torch.zeros(len(some), dtype=torch.int64) for some in boxes], 1)


def canvases(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, CANVAS_PX, CANVAS_PX)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


UNEQUAL = ([[4, 4, 30, 40], [1, 1, 60, 60], [10, 10, 12, 13]], [], [[0, 0, 64, 64], [20, 30, 50, 44]])


@pytest.mark.parametrize("kind", MODEL_CLASSES)
def test_logits_are_those_of_transformers_however_boxes_are_spread(folder_of, kind: str) -> None:
    sam = Sam(str(folder_of(kind)), boxes_at_once=2)
    images, instances = canvases(len(UNEQUAL)), boxes_of(*UNEQUAL)
    found = {
        int(position): (mask, score)
        for at, logits, scores in sam.decoded(images, instances)
        for position, mask, score in zip(at, logits, scores, strict=True)
    }
    assert sorted(found) == list(range(len(instances)))
    # Of "sam3_video" the weights are those of "sam3_tracker" under other names.
    own = getattr(transformers, MODEL_CLASSES[kind]).from_pretrained(
        folder_of({"sam3_video": "sam3_tracker"}.get(kind, kind))
    )
    family = FAMILIES[kind]
    pixels = (images - torch.tensor(family.mean).view(3, 1, 1)) / torch.tensor(family.std).view(3, 1, 1)
    positions = itertools.count()
    for image, boxes in enumerate(UNEQUAL):
        if not boxes:
            continue
        with torch.no_grad():
            theirs = own.eval()(
                pixel_values=pixels[image : image + 1],
                input_boxes=torch.tensor([boxes], dtype=torch.float32),
                multimask_output=False,
            )
        for mask, score in zip(theirs.pred_masks[0, :, 0], theirs.iou_scores[0, :, 0], strict=True):
            got = found[next(positions)]
            assert torch.allclose(got[0], mask, atol=1e-5) and torch.allclose(got[1], score, atol=1e-5)


@pytest.mark.parametrize("kind", MODEL_CLASSES)
def test_it_keeps_the_contract(folder_of, kind: str) -> None:
    sam = Sam(str(folder_of(kind)), mask_size=8)
    instances = boxes_of(*UNEQUAL)
    masks = sam.segment(canvases(len(UNEQUAL)), instances)
    require_contract(sam, masks, len(instances))
    assert masks.answered.all() and masks.iou is not None and masks.outside is not None
    assert sam.spec.seen_mask_classes is None and sam.spec.class_agnostic and sam.spec.probabilities
    assert sam.spec.input_size_px == CANVAS_PX and kind in sam.spec.identity
    nothing = sam.segment(canvases(2), boxes_of([], []))
    require_contract(sam, nothing, 0)


@pytest.mark.parametrize("kind", ["sam", "sam_hq", "sam2", "sam3_tracker"])
def test_bfloat16_is_for_the_encoder_alone(folder_of, kind: str) -> None:
    sam, images, instances = Sam(str(folder_of(kind))), canvases(len(UNEQUAL)), boxes_of(*UNEQUAL)
    whole = sam.segment(images, instances)
    boxes_seen: list[torch.dtype] = []
    network = sam._on(images.device)
    network.prompt_encoder.register_forward_hook(lambda _, __, found: boxes_seen.append(found[0].dtype))
    network.mask_decoder.register_forward_hook(lambda _, __, found: boxes_seen.append(found[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = sam.segment(images, instances)
    require_contract(sam, half, len(instances))
    assert set(boxes_seen) == {torch.float32}
    assert (half.grids - whole.grids).abs().max() < 0.01


def test_images_without_boxes_are_not_encoded_and_chunks_bound_what_is_decoded(
    folder_of, monkeypatch
) -> None:
    sam = Sam(str(folder_of("sam")), boxes_at_once=2)
    encoded: list[int] = []
    encode = Sam._encoded

    def counted(self: Sam, network: Any, images: Tensor) -> Any:
        encoded.append(len(images))
        return encode(self, network, images)

    monkeypatch.setattr(Sam, "_encoded", counted)
    sizes = [len(at) for at, _, _ in sam.decoded(canvases(3), boxes_of(*UNEQUAL))]
    assert encoded == [2] and sizes == [2, 1, 2]


def test_other_weights_and_other_grids_are_another_teacher(folder_of, copy_of) -> None:
    moved = copy_of("sam")
    same, coarser = Sam(str(folder_of("sam"))).spec, Sam(str(folder_of("sam")), mask_size=32).spec
    assert Sam(str(moved)).spec.identity == same.identity != coarser.identity
    model = transformers.SamModel.from_pretrained(moved)
    torch.nn.init.ones_(next(model.parameters()))
    model.save_pretrained(moved)
    assert Sam(str(moved)).spec.identity != same.identity


# --- what it sees


PROCESSORS = {
    "sam": transformers.SamImageProcessor,
    "sam_hq": transformers.SamImageProcessor,
    "sam2": transformers.Sam2ImageProcessor,
    "edgetam": transformers.Sam2ImageProcessor,
    "sam3_tracker": transformers.Sam3ImageProcessor,
}


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("size_hw", [(48, 80), (90, 70)])
def test_it_sees_an_image_as_its_publishers_processor_prepares_it(
    folder_of, kind: str, size_hw: tuple[int, int]
) -> None:
    image = torch.randint(
        0, 256, (3, *size_hw), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    spec = Sam(str(folder_of(kind))).spec
    canvas = view_for(spec, *size_hw).image(image)
    family = FAMILIES[kind]
    ours = (canvas - torch.tensor(family.mean).view(3, 1, 1)) / torch.tensor(family.std).view(3, 1, 1)
    side = {"height": CANVAS_PX, "width": CANVAS_PX}
    sizes = {"size": side} if family.stretched else {"size": {"longest_edge": CANVAS_PX}, "pad_size": side}
    theirs = PROCESSORS[kind](**sizes)(image, return_tensors="pt")["pixel_values"][0]
    assert theirs.shape == ours.shape
    assert (theirs - ours).abs().max() < 1.5 / min(family.std)  # a level and a half: rounding


# --- from logits to grids


def level_set(
    rng: np.random.Generator, box: NDArray[np.float64], scale: tuple[float, float], gain: float
) -> Tensor:
    """(1, 256, 256) logits of a smooth closed shape about a box; scale: cells for a pixel, (x, y)."""
    rows, columns = np.mgrid[:256, :256] + 0.5
    (x1, y1, x2, y2), x, y = box, columns / scale[0], rows / scale[1]
    dx, dy = (2 * x - x1 - x2) / (x2 - x1), (2 * y - y1 - y2) / (y2 - y1)
    waves = rng.uniform(-0.09, 0.09, 3), rng.uniform(0, 6, 3)
    radius = 0.85 + sum(
        a * np.cos((k + 1) * np.arctan2(dy, dx) + p) for k, (a, p) in enumerate(zip(*waves, strict=True))
    )
    return torch.from_numpy(gain * (radius - np.hypot(dx, dy))).float()[None]


def published(logits: Tensor, stretched: bool) -> NDArray[np.bool_]:
    if stretched:
        masks = transformers.Sam2ImageProcessor().post_process_masks([logits[None]], [SIZE_HW])
    else:
        masks = transformers.SamImageProcessor().post_process_masks([logits[None]], [SIZE_HW], [(768, 1024)])
    return masks[0][0, 0].numpy()


@pytest.mark.parametrize("gain", [2, 20, 200])  # of a vague edge, and of one within a cell
@pytest.mark.parametrize("stretched", [False, True])
def test_masks_are_those_of_the_published_post_processing(stretched: bool, gain: float) -> None:
    rng, (height, width) = np.random.default_rng(0), SIZE_HW
    scale = np.array([1024 / width, 1024 / (height if stretched else width)])
    for _ in range(12):
        sides = np.exp(rng.uniform(np.log(24), np.log(400), 2))
        corner = rng.uniform(0, [width, height] - sides)
        box = np.r_[corner, corner + sides]
        logits = level_set(rng, box, (scale[0] / 4, scale[1] / 4), gain)
        on_canvas = torch.from_numpy(box * np.tile(scale, 2)).float()[None]
        grids = (255 * grids_over_boxes(logits, on_canvas, 1024, 64)).round().to(torch.uint8).numpy()
        counts = recut(grids, box[None], np.array([SIZE_HW]), 0.5, lattice="centers").counts[0]
        ours = coco_mask.decode({"size": list(SIZE_HW), "counts": counts}).astype(bool)
        rows, columns = np.mgrid[:height, :width] + 0.5
        inside = (columns > box[0]) & (columns < box[2]) & (rows > box[1]) & (rows < box[3])
        theirs = published(logits, stretched) & inside
        assert (ours & theirs).sum() / (ours | theirs).sum() >= 0.99


def test_the_share_outside_is_what_the_box_cuts_off() -> None:
    logits = torch.full((4, 8, 8), -3.0)  # on a canvas of 32 px: cells of 4 px
    logits[:3, 2:6, 2:6] = 3.0  # 8 to 24 px
    boxes = torch.tensor([[8.0, 8, 24, 24], [8, 8, 16, 24], [10, 8, 24, 24], [0, 0, 32, 32]])
    assert shares_outside(logits, boxes, 32).tolist() == pytest.approx([0, 0.5, 1 / 8, 0])
    assert shares_outside(logits[:0], boxes[:0], 32).shape == (0,)


# --- files that are not as they should be


def refusal(model: str | Path, **more: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        Sam(str(model), **more)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_weights_that_are_not_there_are_named_with_the_place(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    told = refusal("facebook/sam2.1-hiera-small")
    assert "sam: model: facebook/sam2.1-hiera-small@main: config.json, model.safetensors: not in" in told
    assert str(tmp_path / "hub") in told and "HF_HUB_OFFLINE is set" in told
    assert "hf download facebook/sam2.1-hiera-small config.json model.safetensors" in told


def test_what_the_cache_holds_is_used_without_a_network_and_named_by_its_commit(
    folder_of, monkeypatch, tmp_path: Path
) -> None:
    commit, entry = "0" * 39 + "a", tmp_path / "models--some--sam"
    shutil.copytree(folder_of("sam"), entry / "snapshots" / commit)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert Sam("some/sam").spec.identity == f"sam sam some/sam@{commit}, 64 cells"
    (entry / "snapshots" / commit / "model.safetensors").unlink()
    told = refusal("some/sam")
    assert "some/sam: model.safetensors: no such file in the cache" in told and commit in told


def test_folders_without_what_is_needed_are_refused(copy_of, tmp_path: Path) -> None:
    assert "got no folder" in refusal(tmp_path / "nothing")
    assert "got no folder" in refusal("./nothing")
    assert "expected a folder, or a name such as owner/model" in refusal("owner/-model-")
    sam = copy_of("sam")
    (sam / "model.safetensors").rename(sam / "pytorch_model.bin")
    assert "model.safetensors: no such file in" in refusal(sam) and "pickled" in refusal(sam)
    (sam / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../model-1.safetensors"}}')
    assert "model-1.safetensors: no such file" in refusal(sam)
    (sam / "model.safetensors.index.json").write_text("[]")
    assert "expected an index of weights" in refusal(sam)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "got no model_type"),
        ("[]", "got no model_type"),
        ('{"model_type": 3}', "got no model_type"),
        ('{"model_type": "bert"}', "got a bert, expected one of sam, sam_hq, sam2"),
        ('{"model_type": "sam3"}', "got a sam3, expected one of sam"),
    ],
)
def test_configurations_of_something_else_are_refused(copy_of, text: str, told: str) -> None:
    sam = copy_of("sam")
    (sam / "config.json").write_text(text)
    assert told in refusal(sam)


def changed_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_configurations_that_transformers_refuses_are_one_line(copy_of) -> None:
    sam = copy_of("sam")
    changed_config(sam, prompt_encoder_config={"image_size": [3, 4]})
    with pytest.raises(CheckpointError, match=r"image_size|cannot be loaded") as refused:
        Sam(str(sam))
    assert "\n" not in str(refused.value)


def test_configurations_that_ask_for_all_memory_are_refused(copy_of) -> None:
    sam = copy_of("sam2")
    config = json.loads((sam / "config.json").read_text())
    prompts, decoder = (config[f"{name}_config"] for name in ("prompt_encoder", "mask_decoder"))
    changed_config(sam, mask_decoder_config=decoder | {"mlp_dim": 10**10})
    assert "parameters, more than the" in loading(sam)
    changed_config(sam, prompt_encoder_config=prompts | {"image_size": 10**6})
    with pytest.raises(CheckpointError, match="image_size: got 1000000, expected the side"):
        Sam(str(sam))


def loading(folder: Path) -> str:
    sam = Sam(str(folder))
    with pytest.raises(CheckpointError) as refused:
        sam.segment(canvases(1), boxes_of([[4, 4, 30, 40]]))
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)
    return str(refused.value)


def test_no_tensor_is_random(copy_of, folder_of) -> None:
    sam = copy_of("sam_hq")
    shutil.copy(folder_of("sam") / "model.safetensors", sam)  # a SAM has no token for fine edges
    assert "lacks" in loading(sam) and "mask_decoder." in loading(sam)


def test_weights_that_are_damaged_or_do_not_fit_are_one_line(copy_of) -> None:
    sam = copy_of("sam")
    whole = (sam / "model.safetensors").read_bytes()
    (sam / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in loading(sam)
    (sam / "model.safetensors").write_bytes(whole)
    decoder = json.loads((sam / "config.json").read_text())["mask_decoder_config"]
    changed_config(sam, mask_decoder_config=decoder | {"mlp_dim": 48})
    assert "cannot be loaded" in loading(sam)


def test_code_that_comes_with_a_model_is_never_run(copy_of, tmp_path: Path) -> None:
    sam = copy_of("sam")
    mark = tmp_path / "ran"
    (sam / "stranger.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    changed_config(sam, auto_map={"AutoModel": "stranger.SamModel", "AutoConfig": "stranger.SamConfig"})
    Sam(str(sam)).segment(canvases(1), boxes_of([[4, 4, 30, 40]]))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"mask_size": 3}, "sam: mask_size: got 3, expected a whole number of at least 4"),
        ({"mask_size": 8.0}, "sam: mask_size: got 8.0"),
        ({"boxes_at_once": 0}, "sam: boxes_at_once: got 0, expected a whole number of at least 1"),
        ({"revision": ""}, "sam: revision: got '', expected a name"),
    ],
)
def test_arguments_out_of_range_are_refused(folder_of, arguments: dict[str, Any], told: str) -> None:
    assert told in refusal(folder_of("sam"), **arguments)
    assert "sam: model: got ''" in refusal("")
