"""SAM and SAM 2 of `transformers`, from a folder on this machine: masks of what points, boxes and rough masks point at.

Kirillov et al., "Segment Anything", ICCV 2023 (arXiv 2304.02643); Ravi et al., "SAM 2: Segment Anything in Images and
Videos", ICLR 2025 (arXiv 2408.00714). transformers is an extra of this package, ``wsss[foundation]``. Nothing is ever
fetched. The image passes the encoder once; prompts pass the decoder together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wsss_core.errors import UserError
from wsss_core.extras import extra
from wsss_core.store.checkpoints import require_finite

KINDS = {"sam": ("SamModel", "SamProcessor"), "sam2": ("Sam2Model", "Sam2Processor")}
"""Kinds of networks, and their classes in transformers."""

TYPES = {"sam": "sam", "sam2": "sam2", "sam2_video": "sam2"}
"""``model_type`` of a config.json to the kind of network; SAM 2 is published with its memory for videos, which stays
unused."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files that hold weights, one of which a folder must have."""

PREPARATION = ("preprocessor_config.json", "processor_config.json")
"""Files that say how images are prepared, likewise."""

NO_POINT = -10
"""Label of a place in a list of points where there is none."""


@dataclass(frozen=True)
class Prompts:
    """N prompts of one image, each of which asks for one object; what is None is not given.

    Attributes
    ----------
    points
        (x, y) of pixels, float [N, P, 2].
    labels
        Of the points, int64 [N, P]: 1 on the object, 0 beside it, `NO_POINT` where a prompt has fewer points.
    boxes
        (x0, y0, x1, y1) in pixels, float [N, 4].
    masks
        Rough masks as logits: above 0 on the object, float [N, H, W].
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None

    def __len__(self) -> int:
        return next((len(one) for one in (self.points, self.boxes, self.masks) if one is not None), 0)


def kind_of(folder: Path) -> str:
    """The kind of network in a folder, after a look at its files; a key of `KINDS`.

    Raises
    ------
    UserError
        If the folder or one of its files is missing, or it holds another network.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; it must hold a SAM or SAM 2 checkpoint of transformers")
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no config.json in it; it must hold a SAM or SAM 2 checkpoint of transformers")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    given = content.get("model_type") if isinstance(content, dict) else None
    if given not in TYPES:
        raise UserError(f"{path}: model_type is {given!r}; allowed: {', '.join(TYPES)}")
    for names in (WEIGHTS, PREPARATION):
        if not any((folder / name).is_file() for name in names):
            raise UserError(f"{folder}: incomplete, as none of {', '.join(names)} is in it")
    return TYPES[given]


class Sam:
    """A network of SAM or SAM 2 that is asked and not trained.

    Parameters
    ----------
    folder
        Checkpoint as transformers saves it: config.json, the weights and how images are prepared.
    device
        Where it works.

    Raises
    ------
    UserError
        If transformers is not installed, or the folder does not hold the whole network.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.kind = kind_of(folder)
        library = extra("transformers", "foundation")
        network, processor = (getattr(library, name) for name in KINDS[self.kind])
        try:
            self.model, told = network.from_pretrained(folder, local_files_only=True, output_loading_info=True)
            self.processor = processor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # of whatever kind transformers and the readers of its files raise
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{folder}: transformers cannot load it: {line}") from error
        lacking = sorted(told["missing_keys"]) + sorted(str(one[0]) for one in told["mismatched_keys"])
        if lacking:
            few = ", ".join(lacking[:3])
            raise UserError(f"{folder}: {len(lacking)} parameters are missing or of another shape, such as {few}")
        require_finite(self.model.state_dict(), str(folder))
        self.model.requires_grad_(False).eval().to(device)
        self.device = device

    @torch.no_grad()
    def masks(
        self, image: np.ndarray, prompts: Prompts, candidates: int = 1, at_once: int = 16
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mask of each prompt.

        Parameters
        ----------
        image
            uint8 [H, W, 3], RGB.
        candidates
            1: the network's mask for prompts that leave no doubt; 3: its three for part, thing and whole, of which the
            one of highest predicted IoU is taken.
        at_once
            Most prompts that pass the decoder together.

        Returns
        -------
        Masks, bool [N, H, W], and the IoU that the network predicts for each, float32 [N].
        """
        size, count = image.shape[:2], len(prompts)
        found, scores = np.zeros((count, *size), dtype=bool), np.zeros(count, dtype=np.float32)
        if not count:
            return found, scores
        prepared = self.processor(images=Image.fromarray(image), return_tensors="pt")
        seen = tuple(int(side) for side in self._seen(prepared))
        embedded = self.model.get_image_embeddings(prepared["pixel_values"].to(self.device))
        for first in range(0, count, at_once):
            some = slice(first, first + at_once)
            asked = {name: value.to(self.device) for name, value in self._asked(prompts, some, size, seen).items()}
            n = len(scores[some])
            answer = self.model(
                image_embeddings=_repeated(embedded, n), multimask_output=candidates == 3, **asked
            )  # one prompt for each of n equal images: so each may have a mask of its own
            iou = answer.iou_scores[:, 0].float()
            best = iou.argmax(1)
            low = answer.pred_masks[torch.arange(n), 0, best][:, None, None].float().cpu()
            names = ["original_sizes"] + ["reshaped_input_sizes"] * (self.kind == "sam")
            sizes = [prepared[name].expand(n, -1) for name in names]
            masks = self.processor.image_processor.post_process_masks(low, *sizes)
            found[some] = torch.cat(masks)[:, 0].numpy()
            scores[some] = iou.amax(1).clamp(0, 1).cpu().numpy()
        return found, scores

    def _seen(self, prepared: Mapping[str, Tensor]) -> Tensor:
        """(h, w) of the image as the network sees it, without padding."""
        if self.kind == "sam":
            return prepared["reshaped_input_sizes"][0]
        return torch.tensor(prepared["pixel_values"].shape[2:])

    def _asked(self, prompts: Prompts, some: slice, size: tuple[int, ...], seen: tuple[int, ...]) -> dict[str, Tensor]:
        """Some prompts in the network's pixels, each for an image of its own."""
        scale = torch.tensor([seen[1] / size[1], seen[0] / size[0]])
        asked = {}
        if prompts.points is not None and prompts.labels is not None:
            asked["input_points"] = (prompts.points[some] * scale)[:, None].float()
            asked["input_labels"] = prompts.labels[some][:, None]
        if prompts.boxes is not None:
            asked["input_boxes"] = (prompts.boxes[some] * scale.repeat(2))[:, None].float()
        if prompts.masks is not None:
            asked["input_masks"] = fitted(prompts.masks[some], seen, self._side() / 4)[:, None].float()
        return asked

    def _side(self) -> int:
        """Pixels of the side of the square that the network sees."""
        return int(self.model.config.prompt_encoder_config.image_size)


def fitted(masks: Tensor, seen: tuple[int, ...], side: float) -> Tensor:
    """Rough masks at the resolution of SAM's prompts: a quarter of what it sees, padded below and to the right.

    Parameters
    ----------
    masks
        Logits [N, H, W].
    seen
        (h, w) of the image as the network sees it.
    side
        Side of the square of a prompt.

    Returns
    -------
    [N, side, side]; padding holds the lowest logit.

    Examples
    --------
    >>> fitted(torch.tensor([[[4.0, -4.0]]]), (8, 16), 4.0)[0, 0].round(decimals=3).tolist()
    [4.0, 2.0, -2.0, -4.0]
    """
    whole = int(side)
    inner = tuple(min(whole, max(1, math.ceil(length / 4))) for length in seen)
    small = F.interpolate(masks[:, None].float(), inner, mode="bilinear", align_corners=False, antialias=True)[:, 0]
    return F.pad(small, (0, whole - inner[1], 0, whole - inner[0]), value=float(small.min()))


def _repeated(embedded: Any, n: int) -> Any:
    """Embeddings [1, D, h, w] of an image, or a list of them, for n images."""
    if isinstance(embedded, Tensor):
        return embedded.expand(n, -1, -1, -1)
    return [one.expand(n, -1, -1, -1) for one in embedded]
