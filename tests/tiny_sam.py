"""Checkpoints of SAM and SAM 2 of a few thousand random parameters, as transformers saves them."""

from __future__ import annotations

from pathlib import Path

SIDE = 64
"""Pixels of the side of the square that these networks see."""


def write_sam(folder: Path, kind: str = "sam") -> Path:
    """Save a tiny network; `kind` is sam or sam2."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    width = 16
    decoder = {"hidden_size": width, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
    if kind == "sam":
        config = t.SamConfig(
            vision_config={
                "hidden_size": 16,
                "output_channels": width,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": SIDE,
                "patch_size": 16,
                "global_attn_indexes": [1],
                "window_size": 2,
                "mlp_dim": 32,
                "num_pos_feats": width // 2,
            },
            prompt_encoder_config={
                "hidden_size": width,
                "image_size": SIDE,
                "patch_size": 16,
                "image_embedding_size": SIDE // 16,
                "mask_input_channels": 4,
            },
            mask_decoder_config=decoder,
        )
        network = t.SamModel(config)
        prepare = t.SamImageProcessor(
            size={"longest_edge": SIDE},
            pad_size={"height": SIDE, "width": SIDE},
            mask_size={"longest_edge": SIDE // 2},
            mask_pad_size={"height": SIDE // 2, "width": SIDE // 2},
        )
        processor = t.SamProcessor(prepare)
    else:
        config = t.Sam2Config(
            vision_config={
                "model_type": "sam2_vision_model",
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": 8,
                    "num_attention_heads": 1,
                    "image_size": [SIDE, SIDE],
                    "blocks_per_stage": [1, 1, 2, 1],
                    "embed_dim_per_stage": [8, 16, 32, 64],
                    "num_attention_heads_per_stage": [1, 1, 2, 2],
                    "window_size_per_stage": [4, 4, 4, 4],
                    "global_attention_blocks": [3],
                    "window_positional_embedding_background_size": [4, 4],
                },
                "backbone_channel_list": [64, 32, 16, 8],
                "backbone_feature_sizes": [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2],
                "fpn_hidden_size": width,
                "num_feature_levels": 3,
            },
            prompt_encoder_config={
                "hidden_size": width,
                "image_size": SIDE,
                "patch_size": 16,
                "mask_input_channels": 4,
            },
            mask_decoder_config=decoder,
        )
        network = t.Sam2Model(config)
        processor = t.Sam2Processor(t.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}))
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
