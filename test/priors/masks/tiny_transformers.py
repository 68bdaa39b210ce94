"""SAM 2 and EdgeTAM of `transformers`, tiny and with random weights, in memory or as a folder of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import EdgeTamVideoConfig, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

from motion4d_ros.models.video.transformers_video import KINDS, TransformersSegmenter, resize

WIDTH, MEMORY = 128, 64  # channels; the architectures demand that many of a memory
SOURCES = ("sam2", "edgetam")


def tiny_description(source: str, side: int = 64) -> Any:
    """The configuration of the real architecture with one block per stage, few channels and one memory layer.

    EdgeTAM has a backbone of SAM 2 in place of its RepViT, which needs the package `timm`.
    """
    trunk = Sam2HieraDetConfig(
        hidden_size=8, embed_dim_per_stage=[8, 16, 32, 64], blocks_per_stage=[1, 1, 2, 1], global_attention_blocks=[3],
        num_attention_heads=1, num_attention_heads_per_stage=[1, 2, 4, 8], image_size=[side, side],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=trunk, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=WIDTH, num_feature_levels=3
    )
    shared = {
        "vision_config": vision,
        "prompt_encoder_config": {"hidden_size": WIDTH},
        "mask_decoder_config": {"hidden_size": WIDTH, "mlp_dim": 64, "iou_head_hidden_dim": WIDTH},
        "memory_attention_hidden_size": WIDTH, "memory_attention_num_layers": 1,
        "memory_encoder_hidden_size": WIDTH, "memory_encoder_output_channels": MEMORY,
        "mask_downsampler_embed_dim": WIDTH, "memory_fuser_embed_dim": WIDTH, "memory_fuser_intermediate_dim": 64,
    }  # fmt: skip
    if source == "sam2":
        description: Any = Sam2VideoConfig(**shared, memory_attention_feed_forward_hidden_size=64)
    else:
        description = EdgeTamVideoConfig(
            **shared, memory_attention_mlp_hidden_size=64, memory_attention_rope_k_sizes=[4, 4],
            perceiver_resampler_num_latents=16, perceiver_resampler_num_latents_2d=16,
            perceiver_resampler_hidden_size=MEMORY, perceiver_resampler_mlp_intermediate_size=32,
            perceiver_resampler_attention_head_dim=MEMORY, perceiver_resampler_num_layers=1,
        )  # fmt: skip
    resize(description, side)
    return description


def tiny_model(source: str, side: int = 64, seed: int = 0) -> Any:
    """The network itself. Its weights are so drawn that what it is shown matters; objects are mostly visible."""
    torch.manual_seed(seed)
    model = KINDS[source][0](tiny_description(source, side)).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                value.normal_(0.0, value[0].numel() ** -0.5)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(3.0)
    return model


def tiny_segmenter(source: str, side: int = 64, seed: int = 0) -> TransformersSegmenter:
    """Ready to track on the CPU."""
    return TransformersSegmenter(tiny_model(source, side, seed), source)


def write_tiny(folder: Path, source: str, side: int = 64, seed: int = 0) -> Path:
    """A checkpoint as it is published: `config.json` and `model.safetensors`."""
    tiny_model(source, side, seed).save_pretrained(folder)
    return folder
