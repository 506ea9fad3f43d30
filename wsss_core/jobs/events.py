"""Event files for TensorBoard, written while a network is trained.

At every row of the history: its losses, and the learning rates. From time to time also what the network makes of the
photos it has just seen, which costs a pass without gradients: of a classifier the average precision of their tags, and
class activation maps; of a segmentation network its labels. Nothing of this changes what is trained: the network's
modes are put back, and its random draws are those of the step's own seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsss_core.data.augment import MEAN, STD
from wsss_core.extras import extra
from wsss_core.models.cam import CamNetwork
from wsss_core.models.deeplab import DeepLabV2
from wsss_core.models.smp import SmpNetwork
from wsss_core.report.overlays import heat_overlay, mask_overlay, resized_labels, resized_maps
from wsss_core.segment.batches import network_input

RECENT, PICTURES, ROWS = 4, 4, 5
"""Batches that an average precision is of, photos that are shown, and rows of the history from one look to the next."""


class Events:
    """What `training.fit` calls after every step (a `training.Watcher`).

    Parameters
    ----------
    folder
        For the event files. Those of an earlier training are removed when step 0 is done.
    network
        What is trained.

    Raises
    ------
    UserError
        If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, network: nn.Module) -> None:
        extra("tensorboard", "tensorboard")
        self._folder, self._network = folder, network
        self._writer: Any = None
        self._recent: deque[Any] = deque(maxlen=RECENT)
        self._rows = 0

    def __call__(self, step: int, batch: Any, rates: Sequence[float], row: Mapping[str, float] | None) -> None:
        """Note a step; see `training.Watcher`."""
        if self._writer is None:
            self._writer = self._open(step)
        self._recent.append(batch)
        if row is None:
            return
        for name, value in row.items():
            if name not in ("step", "rate"):
                self._writer.add_scalar(f"loss/{name}", value, step + 1)
        for group, rate in enumerate(rates):
            self._writer.add_scalar(f"rate/{group}", rate, step + 1)
        if self._rows % ROWS == 0:
            with looking(self._network):
                self._look(step + 1)
        self._rows += 1
        self._writer.flush()

    def _open(self, step: int) -> Any:
        if step == 0:
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
        return extra("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(self._folder), purge_step=step + 1)

    def _look(self, step: int) -> None:
        """Pass the last photos through the network."""
        match self._network, self._recent[-1]:
            case CamNetwork() as network, (Tensor() as images, Tensor() as tags, *_) if images.ndim == 4:
                logits = torch.cat([network(batch[0]).float() for batch in self._recent])
                labels = torch.cat([batch[1] for batch in self._recent])
                if labels.shape == logits.shape:
                    self._writer.add_scalar("tags/average_precision", tag_precision(logits, labels), step)
                    maps = network.maps(images[:PICTURES]).relu()
                    self._show(step, classifier_pictures(images[:PICTURES], maps, tags))
            case (DeepLabV2() | SmpNetwork()) as network, dict() as seen:
                small = {str(name): value[:PICTURES] for name, value in seen.items()}
                found = network(network_input(small)).argmax(1).byte()
                self._show(step, label_pictures(small["images"], small["labels"], found))

    def _show(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        for number, picture in enumerate(pictures):
            self._writer.add_image(f"photos/{number}", picture, step, dataformats="HWC")


@contextmanager
def looking(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and without gradients; afterwards every module has the mode that it had."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def tag_precision(logits: Tensor, labels: Tensor) -> float:
    """Mean over the classes that have photos with their tag and without of the average precision of their logits.

    Parameters
    ----------
    logits, labels
        [N, C]; labels above 0.5 are tags.

    Returns
    -------
    0 to 1; NaN if there is no such class.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    >>> tag_precision(logits, torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]))
    0.5
    """
    from sklearn.metrics import average_precision_score  # nearly a second, which trainings without a watcher save

    tags = (labels > 0.5).cpu().numpy()
    mixed = [c for c in range(tags.shape[1]) if 0 < tags[:, c].sum() < len(tags)]
    scores = [average_precision_score(tags[:, c], logits[:, c].cpu().numpy()) for c in mixed]
    return float(np.mean(scores)) if scores else float("nan")


def classifier_pictures(images: Tensor, maps: Tensor, tags: Tensor) -> list[np.ndarray]:
    """Photos beside the maps of their tags, uint8 [S, 2 S, 3] each, of normalised images [B, 3, S, S]."""
    mean, deviation = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
    photos = ((images * deviation + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    pictures = []
    for photo, of_photo, tagged in zip(photos, maps.float().cpu().numpy(), tags.cpu().numpy(), strict=False):
        classes = np.flatnonzero(tagged > 0.5).tolist()
        chosen = of_photo[classes]
        shown = resized_maps(chosen / (chosen.max((1, 2), initial=0, keepdims=True) + 1e-5), photo.shape[:2])
        pictures.append(np.concatenate([photo, heat_overlay(photo, shown, classes)], 1))
    return pictures


def label_pictures(photos: Tensor, labels: Tensor, found: Tensor) -> list[np.ndarray]:
    """The labels learned beside the labels found, over their photos: uint8 [S, 2 S, 3] each."""
    rows = zip(*(part.cpu().numpy() for part in (photos, labels, found)), strict=True)
    return [
        np.concatenate([mask_overlay(p, given), mask_overlay(p, resized_labels(f, p.shape[:2]))], 1)
        for p, given, f in rows
    ]
