"""What fits of a file is loaded; the rest is reported."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig
from deepmac_distill.errors import CheckpointError
from deepmac_distill.models.build import build_model
from deepmac_distill.weights.transfer import class_tensors, load_partially, read_weights, what_fits

SMALL = {"backbone": "tiny", "backbone_width": 8, "head_channels": 8, "mask_width": 8, "mask_size": 8}
COUNTER = "num_batches_tracked"
HEATMAP = {"heads.0.center.heatmap.output.weight", "heads.0.center.heatmap.output.bias"}


def deepmac(classes: int = 3, seed: int = 0, **changes) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(DeepMacConfig(**SMALL | {"mask_head": "hourglass-10"} | changes), classes, False)


def counted(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(COUNTER)}


def test_the_same_model_is_loaded_whole_counters_too() -> None:
    source, target = deepmac(seed=1), deepmac()
    for name, tensor in source.state_dict().items():
        if name.endswith(COUNTER):
            tensor.fill_(9)
    report = load_partially(target, source.state_dict(), "w")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())
    assert set(report.loaded) == counted(target).keys() and not report.skipped and not report.without_place
    every = sum(tensor.numel() for tensor in counted(target).values())
    assert report.parameters == (every, every)
    tensors = len(counted(target))
    assert report.lines() == [f"loaded {tensors} of {tensors} tensors ({every:,} of {every:,} parameters)"]


def test_another_mask_head_leaves_the_rest_to_be_loaded() -> None:
    source, target = deepmac(seed=1), deepmac(mask_head="resnet-4")
    before = copy.deepcopy(target.state_dict())
    report = load_partially(target, source.state_dict(), "w")
    own, theirs = counted(target), counted(source)
    fitting = {name for name in own if name in theirs and own[name].shape == theirs[name].shape}
    assert set(report.loaded) == fitting
    assert {name for name in own if not name.startswith("mask_head.")} <= fitting
    for name, tensor in own.items():
        assert torch.equal(tensor, theirs[name] if name in fitting else before[name])
    assert {one.part for one in report.skipped} == {"mask_head"}
    assert set(report.without_place) == {name for name in theirs if name not in own}
    head, missing, left_over = report.lines()
    assert head.startswith(f"loaded {len(fitting)} of {len(own)} tensors (")
    absent = sum(name not in theirs for name in own)
    of_head = sum(name.startswith("mask_head.") for name in own)
    assert missing == f"not loaded: mask_head, {absent} of {of_head} tensors: not in the file"
    count = len(report.without_place)
    assert left_over == f"{count} tensors of the file have no place here: mask_head {count}"


def test_another_number_of_classes_is_reported_by_both_shapes() -> None:
    source, target = deepmac(classes=5), deepmac(classes=3)
    report = load_partially(target, source.state_dict(), "w")
    assert {one.name for one in report.skipped} == HEATMAP
    assert report.lines()[1:] == [
        "not loaded: heads.0.center, 2 of 12 tensors: other shape: (5, 8, 1, 1) there, (3, 8, 1, 1) here "
        "in heads.0.center.heatmap.output.weight, for one"
    ]


def test_tensors_of_other_classes_are_left_alone_though_they_fit() -> None:
    source, target = deepmac(seed=1), deepmac()
    before = copy.deepcopy(target.state_dict())
    of_classes = class_tensors(deepmac, 3)
    assert of_classes == HEATMAP
    report = load_partially(target, source.state_dict(), "w", of_classes)
    for name, tensor in counted(target).items():
        assert torch.equal(tensor, (before if name in HEATMAP else source.state_dict())[name])
    assert {(one.name, one.reason) for one in report.skipped} == {
        (name, "belongs to other classes") for name in HEATMAP
    }


@pytest.mark.parametrize("agnostic", [False, True])
def test_class_tensors_of_a_mask_rcnn(agnostic: bool) -> None:
    config = MaskRcnnConfig(backbone="resnet18", class_agnostic=agnostic)
    found = class_tensors(lambda count: build_model(config, count, False), 2)
    layers = ["roi.box_predictor.cls_score", "roi.box_predictor.bbox_pred"]
    layers += [] if agnostic else ["mask_head.1.mask_fcn_logits"]
    assert found == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


def test_counters_that_a_file_lacks_are_no_matter() -> None:
    source, target = counted(deepmac(seed=1)), deepmac()
    assert not load_partially(target, source, "w").skipped


def test_nothing_that_fits_is_refused_with_a_name_of_both_sides() -> None:
    with pytest.raises(CheckpointError) as caught:
        load_partially(
            deepmac(), {"conv1.weight": torch.zeros(4, 3, 7, 7), "fc.bias": torch.zeros(9)}, "w.pth"
        )
    said = str(caught.value)
    assert said.startswith(
        "w.pth: none of its 2 tensors fits the model; got such as conv1.weight (4, 3, 7, 7)"
    )
    assert "expected such as backbone." in said and "\n" not in said
    counters = {name: t for name, t in deepmac().state_dict().items() if name.endswith(COUNTER)}
    for nothing in ({}, counters):
        with pytest.raises(
            CheckpointError, match="none of its 0 tensors fits the model; got such as nothing"
        ):
            load_partially(deepmac(), nothing, "w.pth")


def test_what_would_fit_is_known_without_memory_and_changes_nothing() -> None:
    with torch.device("meta"):
        target = build_model(DeepMacConfig(**SMALL, mask_head="hourglass-10"), 3, False)
    source = deepmac()
    before = copy.deepcopy(source.state_dict())
    assert what_fits(target, source.state_dict(), "w") == what_fits(source, source.state_dict(), "w")
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())


def test_many_parts_without_a_place_are_reported_briefly() -> None:
    weights = deepmac().state_dict() | {f"extra{i}.weight": torch.zeros(1) for i in range(20)}
    *_, line = load_partially(deepmac(), weights, "w").lines()
    assert line.startswith("20 tensors of the file have no place here: extra0 1, extra1 1, ")
    assert line.endswith(", ...") and line.count("extra") == 8


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_one_level_of_nesting_and_one_prefix_are_taken_off(tmp_path: Path, wrap, prefix: str) -> None:
    source = deepmac().state_dict()
    torch.save(wrap({prefix + name: tensor for name, tensor in source.items()}), tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    assert found.keys() == source.keys()
    assert all(torch.equal(tensor, source[name]) for name, tensor in found.items())


def test_the_prefix_of_some_names_alone_is_a_part_of_them(tmp_path: Path) -> None:
    names = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    save_file(names, tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == names.keys()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"net": {"a": torch.zeros(1)}}, "net: got dict, expected a tensor"),
        ({"model": {"model": {"a": torch.zeros(1)}}}, "model: got dict"),
        ([torch.zeros(1)], "content: got list"),
        ({"a": torch.zeros(1), "epoch": 3}, "epoch: got int"),
    ],
)
def test_anything_deeper_or_else_is_refused(tmp_path: Path, content, says: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=says) as caught:
        read_weights(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_of_a_pickle_is_run(tmp_path: Path) -> None:
    torch.save({"model": {"a": _Touch(tmp_path / "touched")}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="cannot read weights") as caught:
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "touched").exists() and "\n" not in str(caught.value)
