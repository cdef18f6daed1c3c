"""SpineNet: the published sizes, the strides of its maps, and that nothing in it is idle."""

from __future__ import annotations

import pytest
import torch

from deepmac_distill.config import DeepMacConfig, MaskRcnnConfig
from deepmac_distill.errors import ConfigError
from deepmac_distill.models.build import build_model
from deepmac_distill.models.spinenet import SPINENETS, SpineNet, SpineNetBackbone

# Millions of parameters as ImageNet classifiers (arXiv:1912.05027, table 8): 1000 classes on 256 channels.
PUBLISHED_MILLIONS = {"spinenet-49": 22.1, "spinenet-96": 36.5, "spinenet-143": 60.5}


@pytest.mark.parametrize("name", SPINENETS)
def test_a_spinenet_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in SpineNet(*SPINENETS[name]).parameters())
    assert round((parameters + 256 * 1000 + 1000) / 1e6, 1) == PUBLISHED_MILLIONS[name]


def test_maps_have_strides_8_to_128() -> None:
    with torch.device("meta"):
        backbone = SpineNetBackbone("spinenet-143", channels=32)
        maps = backbone(torch.empty(2, 3, 256, 384, dtype=torch.uint8))
    assert {level: tuple(x.shape) for level, x in maps.items()} == {
        str(k): (2, 32, 256 // 2**k, 384 // 2**k) for k in (3, 4, 5, 6, 7)
    }


def test_every_parameter_has_a_gradient_and_stages_may_be_dropped() -> None:
    torch.manual_seed(0)
    net = SpineNet(1, 0.5, out_channels=8, drop_rate=0.2).train()
    sum(x.square().mean() for x in net(torch.randn(2, 3, 128, 128))).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    rates = [part.p for part in net.modules() if hasattr(part, "p")]
    assert len(rates) == 15 and rates == sorted(rates) and rates[-1] == pytest.approx(0.2)


def test_deepmac_has_no_use_for_it() -> None:
    with pytest.raises(ConfigError, match="stride 4"):
        build_model(DeepMacConfig(backbone="spinenet-49", mask_width=4), 3, load_weights=False)


def test_three_anchor_scales_are_nine_anchors_a_cell() -> None:
    with torch.device("meta"):
        config = MaskRcnnConfig(backbone="spinenet-49", anchor_scales=(1.0, 2 ** (1 / 3), 2 ** (2 / 3)))
        model = build_model(config, 3, load_weights=False)
    assert model.rpn.head.cls_logits.out_channels == 9
