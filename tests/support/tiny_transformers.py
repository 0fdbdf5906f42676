"""Transformers of a few thousand weights under names of timm: the smallest that it has take seconds to build."""

from typing import Any

from timm.models import VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer import checkpoint_filter_fn as swin_filter
from timm.models.vision_transformer import checkpoint_filter_fn as vit_filter

COMMON = {"fixed_input_size": True, "num_classes": 5, "first_conv": "patch_embed.proj"}
default_cfgs = generate_default_cfgs(  # under this name timm looks for them
    {
        "tiny_swin": COMMON | {"input_size": (3, 64, 64), "classifier": "head.fc"},
        "tiny_vit14": COMMON | {"input_size": (3, 56, 56), "classifier": "head"},
    }
)


@register_model
def tiny_swin(pretrained: bool = False, **options: Any) -> Any:
    """Swin with windows of 2x2, made for images of 64x64."""
    shape = {"img_size": 64, "embed_dim": 8, "depths": (2, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 2}
    return build_model_with_cfg(
        SwinTransformer,
        "tiny_swin",
        pretrained,
        pretrained_filter_fn=swin_filter,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **{"num_classes": 5, "drop_path_rate": 0.0, **shape, **options},
    )


@register_model
def tiny_vit14(pretrained: bool = False, **options: Any) -> Any:
    """DINOv2 with patches of 14x14, made for images of 56x56."""
    shape = {"img_size": 56, "patch_size": 14, "embed_dim": 16, "depth": 3, "num_heads": 2, "init_values": 1e-5}
    return build_model_with_cfg(
        VisionTransformer,
        "tiny_vit14",
        pretrained,
        pretrained_filter_fn=vit_filter,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},
        **{"num_classes": 5, **shape, **options},
    )
