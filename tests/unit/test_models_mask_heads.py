"""Every mask head of the paper: its size, its main path, what it sees, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepmac_distill.models.hourglass import Hourglass
from deepmac_distill.models.mask_heads import MASK_HEADS, build_mask_head

# Counted on networks rebuilt from the authors' code and the paper's tables, not on ours; width 64, 50
# channels in, 32 cells a side. What a name adds to another's structure without parameters is not repeated.
PUBLISHED = {
    "hourglass-10": 1_605_249,
    "hourglass-20": 5_530_625,
    "hourglass-20-no-long-skips": 4_644_353,
    "hourglass-20-no-encoder-decoder": 5_513_985,
    "hourglass-32": 10_440_065,
    "hourglass-52": 23_454_593,
    "hourglass-100": 47_221_121,
    "resnet-4": 529_217,
    "resnet-8": 1_120_577,
    "resnet-12": 1_711_937,
    "resnet-16": 2_303_297,
    "resnet-20": 3_546_817,
    "resnet-20-dilated-10": 3_546_817,
    "resnet-20-dilated-10-late": 3_546_817,
    "resnet-20-dilated-20": 3_546_817,
    "bottleneck-6": 540_353,
    "bottleneck-9": 820_417,
    "bottleneck-12": 1_100_481,
    "bottleneck-15": 1_380_545,
    "bottleneck-21": 2_635_457,
    "bottleneck-6-literal": 1_350_209,
    "bottleneck-21-literal": 4_831_745,
    "bottleneck-quarter-6": 35_249,
    "bottleneck-quarter-12": 70_833,
    "bottleneck-quarter-21": 168_113,
    "bottleneck-quarter-30": 309_297,
    "bottleneck-quarter-51": 703_153,
    "fully-connected-2": 68_162_752,
    "fully-connected-4": 70_261_952,
}
ONE_OF_EACH_KIND = [
    "hourglass-10",
    "hourglass-20-no-long-skips",
    "hourglass-20-no-encoder-decoder",
    "resnet-4",
    "resnet-20-dilated-20",
    "bottleneck-6",
    "bottleneck-6-literal",
    "bottleneck-quarter-12",
    "fully-connected-2",
]
CELLS = 16


def narrow(name: str, in_channels: int = 4, width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return build_mask_head(name, in_channels, width, CELLS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_head_has_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        head = build_mask_head(name, in_channels=50)
    assert sum(p.numel() for p in head.parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", MASK_HEADS)
def test_a_head_keeps_the_crop_and_counts_its_main_path_in_its_name(name: str) -> None:
    """Not counted: long skips, shortcuts, the last 1 x 1, and the 1 x 1 stem of all but the hourglasses."""
    with torch.device("meta"):
        head = build_mask_head(name, in_channels=50, width=8)
        assert head(torch.empty(2, 50, 32, 32)).shape == (2, 32, 32)
    digits = next(int(part) for part in name.split("-") if part.isdigit())
    if name.startswith("fully-connected"):
        assert len(head.layers) == digits
        return
    kinds = ((1, 1), (3, 3)) if name.startswith("bottleneck") else ((3, 3),)
    paths = {
        path: part.kernel_size for path, part in head.body.named_modules() if isinstance(part, nn.Conv2d)
    }
    aside = ("skip", "shortcut", "project")
    main = [p for p, k in paths.items() if k in kinds and not any(word in p.split(".") for word in aside)]
    assert len(main) - name.startswith("bottleneck") == digits  # the stem of a bottleneck head is 1 x 1


def test_an_unknown_mask_head_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="resnet-5"):
        build_mask_head("resnet-5", in_channels=50)


@pytest.mark.parametrize(
    ("name", "dilated"),
    [
        ("resnet-20", []),
        ("resnet-20-dilated-10", list(range(10))),
        ("resnet-20-dilated-10-late", list(range(10, 20))),
        ("resnet-20-dilated-20", list(range(20))),
    ],
)
def test_the_dilated_convolutions_are_the_named_ones(name: str, dilated: list[int]) -> None:
    three = [part for part in narrow(name).body.modules() if getattr(part, "kernel_size", 0) == (3, 3)]
    assert [i for i, conv in enumerate(three) if conv.dilation == (2, 2)] == dilated
    assert all(conv.padding == conv.dilation for conv in three)


def test_without_encoder_and_decoder_every_map_keeps_the_crops_size() -> None:
    sizes = {"hourglass-20": {16, 8, 4}, "hourglass-20-no-encoder-decoder": {16}}
    for name, expected in sizes.items():
        head, seen = narrow(name), set()
        for part in head.body.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(lambda _m, _i, out, seen=seen: seen.add(out.shape[-1]))
        head(torch.zeros(2, 4, CELLS, CELLS))
        assert seen == expected


def test_without_long_skips_all_must_pass_the_bottom() -> None:
    """A bottom that forgets its input makes the output forget it, unless something passes beside."""
    x = torch.randn(2, 8, CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    for long_skips in (True, False):
        hourglass = Hourglass((1, 1), (8, 8), long_skips=long_skips).eval()
        for parameter in hourglass.inner.parameters():
            nn.init.zeros_(parameter)
        hourglass.inner[0].shortcut = nn.Sequential(nn.Conv2d(8, 8, 1)).requires_grad_(False)
        nn.init.zeros_(hourglass.inner[0].shortcut[0].weight)
        assert torch.equal(hourglass(x), hourglass(x + 1)) == (not long_skips)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_a_head_learns_a_shape_by_heart_through_every_parameter(name: str) -> None:
    head = narrow(name, width=16).train()
    generator = torch.Generator().manual_seed(1)
    crops = torch.randn(6, 4, CELLS, CELLS, generator=generator)
    truth = (crops[:, :2].sum(1) > 0).float()
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    first = None
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(head(crops), truth)
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert loss.item() < 0.5 * first


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_two_crops_at_once_are_two_crops_alone(name: str) -> None:
    head = narrow(name).eval()
    crops = torch.randn(2, 4, CELLS, CELLS, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([head(crops[:1]), head(crops[1:])])
    torch.testing.assert_close(head(crops), alone, rtol=1e-4, atol=1e-5)


def test_fully_connected_kernels_are_glorot_normal() -> None:
    torch.manual_seed(0)
    layer = build_mask_head("fully-connected-2", 4, width=8, size=CELLS).layers[0]
    expected = (2 / sum(layer.weight.shape)) ** 0.5
    assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
    assert layer.weight.abs().max() > 3 * expected  # a uniform one ends at 1.7
    assert not layer.bias.any()


def test_kernels_are_glorot_uniform_and_biases_zero() -> None:
    torch.manual_seed(0)
    for part in build_mask_head("resnet-4", in_channels=50).modules():
        if isinstance(part, nn.Conv2d):
            out_channels, in_channels, k, _ = part.weight.shape
            limit = (6 / (k * k * (in_channels + out_channels))) ** 0.5
            assert 0.9 * limit < part.weight.abs().max() <= limit
            assert part.bias is None or not part.bias.any()
