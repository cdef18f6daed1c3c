"""SAMs of each kind with random weights, as `transformers` saves them: small for tests, large to time.

SAM 2, SAM 3 and EdgeTAM are published within their video models, as "sam2_video" and "sam3_video" are here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

CANVAS_PX, WIDTH, PATCH_PX = 64, 16, 16
_MAPS = [[CANVAS_PX // stride] * 2 for stride in (4, 8, 16)]
MODEL_CLASSES = {
    "sam": "SamModel",
    "sam_hq": "SamHQModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "edgetam": "EdgeTamModel",
    "sam3_tracker": "Sam3TrackerModel",
    "sam3_video": "Sam3TrackerModel",
}


def save_small(kind: str, folder: Path) -> Path:
    """A small one of a kind of `MODEL_CLASSES`: 64 px, masks of 16 x 16 logits."""
    torch.manual_seed(0)
    if kind == "sam2_video":
        transformers.Sam2VideoModel(_sam2_video()).save_pretrained(folder)
    elif kind == "sam3_video":
        _save_as_published(transformers.Sam3TrackerModel(_configuration("sam3_tracker")), folder)
    else:
        getattr(transformers, MODEL_CLASSES[kind])(_configuration(kind)).save_pretrained(folder)
    return folder


def save_base(folder: Path) -> Path:
    """One of the size of SAM-B: 94 million parameters, 1024 px."""
    torch.manual_seed(0)
    transformers.SamModel(transformers.SamConfig()).save_pretrained(folder)
    return folder


def _configuration(kind: str) -> Any:
    match kind:
        case "sam":
            return _configured("Sam", _vit("Sam"))
        case "sam_hq":
            return _configured("SamHQ", _vit("SamHQ"), vit_dim=WIDTH)
        case "sam2":
            return _configured("Sam2", _hiera())
        case "edgetam":
            return _configured("EdgeTam", _repvit())
        case "sam3_tracker":
            return _configured("Sam3Tracker", _rotary_vit())
    raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(MODEL_CLASSES)}")


def _configured(prefix: str, vision: Any, **of_decoder: int) -> Any:
    image = {"image_size": CANVAS_PX, "patch_size": PATCH_PX}
    prompts = _of(prefix, "PromptEncoder")(hidden_size=WIDTH, mask_input_channels=4, **image)
    decoder = _of(prefix, "MaskDecoder")(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_dim=2 * WIDTH,
        iou_head_hidden_dim=WIDTH,
        **of_decoder,
    )
    return _of(prefix, "")(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompts.to_dict(),
        mask_decoder_config=decoder.to_dict(),
        initializer_range=0.2,
    )


def _of(prefix: str, part: str) -> Any:
    return getattr(transformers, f"{prefix}{part}Config")


def _vit(prefix: str) -> Any:
    return _of(prefix, "Vision")(
        hidden_size=WIDTH,
        output_channels=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_pos_feats=WIDTH // 2,
        mlp_dim=2 * WIDTH,
        window_size=2,
        global_attn_indexes=[1],
        image_size=CANVAS_PX,
        patch_size=PATCH_PX,
        initializer_range=0.2,
    )


def _hiera() -> Any:
    channels = [8, 16, 32, 64]
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=channels[0],
        image_size=[CANVAS_PX] * 2,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=channels,
        num_attention_heads_per_stage=[1] * 4,
        window_size_per_stage=[4, 4, 4, 2],
        global_attention_blocks=[3],
    )
    return transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=channels[::-1],
        backbone_feature_sizes=_MAPS,
        fpn_hidden_size=WIDTH,
    )


def _repvit() -> Any:
    """Of 5 million parameters: timm has no smaller one of the kind."""
    options = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    named = {"architecture": "repvit_m0_9", "num_classes": 2, "model_args": options}
    return transformers.EdgeTamVisionConfig(
        backbone_config=transformers.TimmWrapperConfig.from_dict(named),
        backbone_feature_sizes=_MAPS,
        fpn_hidden_size=WIDTH,
    )


def _rotary_vit() -> Any:
    backbone = transformers.Sam3ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=CANVAS_PX,
        patch_size=PATCH_PX,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=CANVAS_PX,
    )
    return transformers.Sam3VisionConfig(
        backbone_config=backbone, fpn_hidden_size=WIDTH, backbone_feature_sizes=_MAPS
    )


def _sam2_video() -> Any:
    image = _configuration("sam2")
    parts = {
        f"{part}_config": getattr(image, f"{part}_config").to_dict() | {"model_type": f"sam2_video_{part}"}
        for part in ("prompt_encoder", "mask_decoder")
    }
    return transformers.Sam2VideoConfig(
        vision_config=image.vision_config,
        image_size=CANVAS_PX,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=2 * WIDTH,
        memory_encoder_hidden_size=WIDTH,
        memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=2 * WIDTH,
        memory_fuser_num_layers=1,
        **parts,
    )


def _save_as_published(tracker: Any, folder: Path) -> None:
    """Under the names that the tensors have in a whole SAM 3, by which transformers finds the tracker's."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {_name_in_video(name): tensor for name, tensor in tracker.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {"model_type": "sam3_video", "tracker_config": tracker.config.to_dict()}
    (folder / "config.json").write_text(json.dumps(config))


def _name_in_video(name: str) -> str:
    if name.startswith("vision_encoder.neck."):
        return name.replace("vision_encoder.neck.", "tracker_neck.", 1)
    prefix = "detector_model" if name.startswith("vision_encoder.") else "tracker_model"
    return f"{prefix}.{name}"
