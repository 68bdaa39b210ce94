"""A SAM 2 of the real architecture, tiny and with random weights: for tests and for measuring memory."""

from __future__ import annotations

from typing import Any

import torch

from motion4d_ros.models.video.sam2_predictor import StreamingPredictor, architecture, build_predictor

WIDTH = 32  # channels


def tiny_architecture(image_size: int = 64) -> Any:
    """The `tiny` configuration of sam2.1 with one block per stage, 32 channels and one memory layer."""
    model = architecture("configs/sam2.1/sam2.1_hiera_t.yaml", image_size)
    trunk, neck = model.image_encoder.trunk, model.image_encoder.neck
    trunk.embed_dim, trunk.stages, trunk.global_att_blocks = 8, [1, 1, 2, 1], [3]
    neck.d_model, neck.backbone_channel_list, neck.position_encoding.num_pos_feats = WIDTH, [64, 32, 16, 8], WIDTH
    attention = model.memory_attention
    attention.d_model, attention.num_layers = WIDTH, 1
    attention.layer.d_model, attention.layer.dim_feedforward = WIDTH, 64
    attention.layer.self_attention.embedding_dim = WIDTH
    attention.layer.cross_attention.embedding_dim, attention.layer.cross_attention.kv_in_dim = WIDTH, 16
    encoder = model.memory_encoder
    encoder.out_dim, encoder.position_encoding.num_pos_feats, encoder.in_dim = 16, 16, WIDTH
    encoder.fuser.layer.dim, encoder.mask_downsampler.embed_dim = WIDTH, WIDTH
    return model


def tiny_predictor(image_size: int = 64, seed: int = 0) -> StreamingPredictor:
    """Ready to track on the CPU."""
    torch.manual_seed(seed)
    return build_predictor(tiny_architecture(image_size), None, "cpu")
