"""Plain vision transformers of timm as backbones (Dosovitskiy et al., ICLR 2021): ViT, DeiT, DINOv2, DINOv3, EVA, CLIP.

The first stage makes tokens of patches, with their positions and with the tokens that stand before those of the patches
(of the class, of a teacher, registers); each other stage is a quarter of the blocks, and the last one ends with the
network's normalisation. The first four taps are tokens as they are, the last is normalised, as timm's
``forward_intermediates`` returns them; a test holds both against each other.

Between stages, tokens are a grid [B, D, r + h, w]: the P tokens before those of the patches take the first
r = ceil(P / w) rows, filled up with zeros. So a stage knows from the grid alone how large the image was.

An image whose sides are no multiples of the patch is continued by zeros, below and to the right. Positions are resized
to the grid as timm does it. An output stride below the side of the patch (8 of 16, 7 of 14) lets patches overlap, as in
"Deep ViT Features as Dense Visual Descriptors" (Amir, Gandelsman, Bagon & Dekel, 2021): four times the tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_core.errors import UserError
from wsss_core.extras import extra
from wsss_core.models.backbones.base import Backbone
from wsss_core.models.backbones.timm_networks import TimmBackbone, create, entrance, parameters

PARTS = 4
"""Stages that share the blocks."""


def is_one(network: Any) -> bool:
    """Whether a network of timm is a plain vision transformer."""
    vit, eva = extra("timm.models.vision_transformer", "timm"), extra("timm.models.eva", "timm")
    embedding = extra("timm.layers", "timm").PatchEmbed
    of_family = isinstance(network, (vit.VisionTransformer, eva.Eva))
    return of_family and type(network.patch_embed) is embedding and len(network.blocks) >= PARTS


def build(name: str, output_stride: int | None) -> Backbone:
    """The network; see `wsss_core.models.backbones.backbone`.

    Raises
    ------
    UserError
        If patches that far apart would leave pixels between them.
    """
    network: Any = create(name, dynamic_img_size=True)
    patch = max(network.patch_embed.patch_size)
    stride = output_stride or patch
    if stride > patch:
        smaller = [one for one in (8, 16) if one <= patch]
        raise UserError(
            f"backbone {name}: its patches have {patch} pixels, so its output stride cannot be {stride}; set "
            f"{' or '.join(map(str, smaller))}, or null for {patch} where that is allowed"
        )
    final = network.fc_norm if isinstance(network.norm, nn.Identity) else network.norm
    final_name = "fc_norm" if final is getattr(network, "fc_norm", None) else "norm"
    blocks, prefix = list(network.blocks), network.num_prefix_tokens
    network.blocks, network.norm, network.fc_norm = nn.ModuleList(), nn.Identity(), nn.Identity()
    network.attn_pool, network.head = None, nn.Identity()
    stages: list[nn.Module] = [
        nn.Sequential(OrderedDict([*entrance(network), ("embedding", _Embedding(network, stride))]))
    ]
    ends = [round(len(blocks) * part / PARTS) for part in range(PARTS + 1)]
    for start, end in zip(ends, ends[1:], strict=False):
        norm = final if end == len(blocks) else None
        stages.append(_Blocks(blocks[start:end], start, prefix, getattr(network, "rope", None), norm))
    published = dict(_names(stages, ends, final_name))
    unused = frozenset(parameters(name) - set(published.values()))
    width = network.embed_dim
    return _TokenBackbone(name, stages, [width] * 5, [stride] * 5, 3, 0.001, published, unused, prefix)


class _TokenBackbone(TimmBackbone):
    """Stages of a vision transformer."""

    def __init__(self, *arguments: Any) -> None:
        *others, prefix = arguments
        super().__init__(*others)
        self._prefix = prefix

    def tap(self, stage: int, output: Tensor, size: Sequence[int]) -> Tensor:
        """Of a stage's tokens, those of the patches."""
        before = 0 if stage == len(self.stages) - 1 else _rows(self._prefix, output.shape[3])
        return output[:, :, before:]


class _Embedding(nn.Module):
    """Images [B, 3, H, W] to the tokens of their patches, as a grid.

    Parameters
    ----------
    network
        Of timm, without its blocks.
    stride
        Pixels between patches.
    """

    def __init__(self, network: Any, stride: int) -> None:
        super().__init__()
        self.network, self.stride = network, stride
        network.patch_embed.proj.stride = (stride, stride)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, D, r + ceil(H / stride), ceil(W / stride)]."""
        network, stride = self.network, self.stride
        more = [side - stride for side in network.patch_embed.patch_size]  # what a patch sees beyond its own cell
        (top, left), rest = (side // 2 for side in more), [side - side // 2 for side in more]
        bottom, right = (-side % stride + other for side, other in zip(images.shape[2:], rest, strict=True))
        patches = network.patch_embed.proj(F.pad(images, (left, right, top, bottom)))
        tokens = network._pos_embed(network.patch_embed.norm(patches.permute(0, 2, 3, 1)))
        if isinstance(tokens, tuple):  # with rotations, which the blocks ask for themselves
            tokens = tokens[0]
        return _laid(network.norm_pre(tokens), network.num_prefix_tokens, patches.shape[3])


class _Blocks(nn.Module):
    """Some blocks, and behind the last of all the network's normalisation.

    Parameters
    ----------
    blocks
        Of timm.
    first
        Number of the first one in the network.
    prefix
        Number P of tokens before those of the patches.
    rope
        What turns queries and keys by their positions, if anything does; it belongs to the first stage.
    norm
        Normalisation behind the blocks; with it, the result is the tokens of the patches alone.
    """

    def __init__(self, blocks: Sequence[nn.Module], first: int, prefix: int, rope: Any, norm: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.first, self.prefix = first, prefix
        self._rope = (rope,)  # in a tuple it is no part of this stage

    def forward(self, grid: Tensor) -> Tensor:
        """[B, D, r + h, w] to the same, or with the normalisation to [B, D, h, w]."""
        columns = grid.shape[3]
        before = _rows(self.prefix, columns)
        tokens = grid.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens[:, : self.prefix], tokens[:, before * columns :]], 1)
        (rope,) = self._rope
        turns = None if rope is None else rope.get_embed(shape=[grid.shape[2] - before, columns])
        for number, block in enumerate(self.blocks, self.first):
            more = {} if turns is None else {"rope": turns[number] if turns.ndim > 3 else turns}
            tokens = block(tokens, **more)
        if self.norm is None:
            return _laid(tokens, self.prefix, columns)
        return _laid(self.norm(tokens)[:, self.prefix :], 0, columns)


def _rows(prefix: int, columns: int) -> int:
    """Rows of the grid that the tokens before those of the patches take."""
    return -(-prefix // columns)


def _laid(tokens: Tensor, prefix: int, columns: int) -> Tensor:
    """Tokens [B, P + h * w, D] as a grid [B, D, r + h, w]."""
    missing = _rows(prefix, columns) * columns - prefix
    if missing:
        empty = tokens.new_zeros(1, 1, 1).expand(len(tokens), missing, tokens.shape[2])
        tokens = torch.cat([tokens[:, :prefix], empty, tokens[:, prefix:]], 1)
    return tokens.transpose(1, 2).unflatten(2, (-1, columns))


def _names(stages: Sequence[nn.Module], ends: Sequence[int], final: str) -> Iterator[tuple[str, str]]:
    """Names of the parameters in the stages, to timm's."""
    for name in stages[0].state_dict():
        yield f"stages.0.{name}", name.removeprefix("embedding.network.")
    for number, (stage, first) in enumerate(zip(stages[1:], ends, strict=False), 1):
        for name in stage.state_dict():
            kind, _, rest = name.partition(".")
            if kind == "norm":
                yield f"stages.{number}.{name}", f"{final}.{rest}"
            else:
                index, _, rest = rest.partition(".")
                yield f"stages.{number}.{name}", f"blocks.{first + int(index)}.{rest}"
