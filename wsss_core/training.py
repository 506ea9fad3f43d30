"""The one training loop: classifiers, boundary networks and segmentation networks are trained by `fit`.

An objective is a module with ``plan(settings, inputs) -> Plan``: what is trained, on which batches, by which loss. A
training run is a map from step numbers to batches, so there is no sampler state: batch ``k`` is a
pure function of (seed, stage, k), whatever ran before. Killing a run at any moment and starting it again
gives the weights of an uninterrupted run.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wsss_core import keyed
from wsss_core.data.table import check_classes
from wsss_core.errors import UserError, whole
from wsss_core.execution import Execution, placed, suits_channels_last
from wsss_core.pace import Clock
from wsss_core.store.checkpoints import load_state, require_finite, save_state
from wsss_core.store.shards import RecordKind, RecordStore

if TYPE_CHECKING:
    from wsss_core.data.table import ImageRecord, ImageTable
    from wsss_core.models.backbones import BackboneNetwork
    from wsss_core.models.cam import CamNetwork

log = logging.getLogger(__name__)


class Batches(Protocol):
    """Map-style data: ``batches[k]`` is the batch of step k (tensors, or a tuple or dict of tensors)."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Any: ...


@runtime_checkable
class NamedBatches(Protocol):
    """Batches that can tell which images make them."""

    def batch_names(self, step: int) -> list[str]:
        """Ids of the images of a step."""
        ...


@dataclass(frozen=True)
class Inputs:
    """What an objective works on.

    Attributes
    ----------
    table
        All images; those of the role "train" are trained on.
    weights
        Content of the weight file that the settings name (published parameter names), or None.
    seed, stage
        Key of the random draws.
    classifier
        The classifier that the stage starts from or is built upon, in evaluation mode on its device; None without one.
    labels
        What is learned beside the tags: folders of label masks, or shards of labels, that hold every image.
    truth
        Folders of true masks, that hold every image, for objectives that learn from both: 255 everywhere where none is
        given.
    ood
        Images that hold none of the classes, for objectives that use them.
    once
        From a function that computes tensors of all images to these tensors. A training that is resumed gets those of
        its beginning, which matters where they number what was found.
    """

    table: ImageTable
    weights: Mapping[str, Tensor] | None
    seed: int
    stage: str
    classifier: CamNetwork | None = None
    labels: Sequence[Path] = ()
    truth: Sequence[Path] = ()
    ood: Sequence[ImageRecord] = ()
    once: Callable[[Callable[[], Mapping[str, Tensor]]], Mapping[str, Tensor]] = lambda compute: compute()

    @property
    def records(self) -> tuple[ImageRecord, ...]:
        """The images to train on."""
        return self.table.split("train")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the foreground classes; label c + 1 is class c."""
        return self.table.class_names

    def label_files(self, kind: RecordKind, what: str) -> dict[str, Path]:
        """Id of every image to train on, to the shard of labels that holds it.

        Parameters
        ----------
        kind
            Of the records in the shards.
        what
            What the labels are, in the plural, for the message.

        Raises
        ------
        UserError
            If a shard was made for other classes, or images have no labels.
        """
        found: dict[str, Path] = {}
        for path in self.labels:
            store = RecordStore(path, kind)
            check_classes(path, store.attrs.get("class_names"), self.class_names)
            found |= dict.fromkeys(store, path)
        missing = [record.id for record in self.records if record.id not in found]
        if missing:
            raise UserError(f"{len(missing)} images have no {what}, such as {missing[0]!r}")
        return {record.id: found[record.id] for record in self.records}


@dataclass(frozen=True)
class Plan:
    """One training run, as `fit` takes it.

    Attributes
    ----------
    network
        What is trained, in place.
    batches, loss, optimizer, rate
        As for `fit`.
    labels_digest
        Digest of the labels learned from; a training that was begun with others is not resumed.
    finish
        What is done with the trained network before it is written.
    """

    network: BackboneNetwork
    batches: Batches
    loss: Callable[[Any], dict[str, Tensor]]
    optimizer: torch.optim.Optimizer
    rate: Callable[[int], float]
    labels_digest: str = ""
    finish: Callable[[], None] = lambda: None


class Objective(Protocol):
    """A module that trains a network: a file of `classify` or `segment`, or the file ``network`` of a refinement."""

    def plan(self, settings: Any, inputs: Inputs, /) -> Plan:
        """All that the training loop needs."""
        ...


class Watcher(Protocol):
    """Who looks on while a network is trained, and changes nothing."""

    def __call__(self, step: int, batch: Any, rates: Sequence[float], row: Mapping[str, float] | None) -> None:
        """Step k is done.

        Parameters
        ----------
        batch
            On the device.
        rates
            Learning rates of the optimiser's groups at this step.
        row
            The history's, at the steps at which there is one.
        """
        ...


MIN_STEPS = 100
"""Steps that a training takes at least where its settings leave the number of epochs open. A linear classifier on
frozen features needs about so many, whatever the number of photos (docs/results.md, "Defaults").
"""


def enough_epochs(usual: int, images: int, batch_size: int) -> int:
    """The usual number of epochs, or with few images as many as take `MIN_STEPS` steps.

    Examples
    --------
    >>> enough_epochs(5, images=10_582, batch_size=16), enough_epochs(5, images=60, batch_size=16)
    (5, 34)
    """
    steps_per_epoch = images // min(batch_size, images)
    return max(usual, -(-MIN_STEPS // steps_per_epoch))


def fitting_batch(batch_size: int, images: int) -> int:
    """The batch size, or the number of images if they are fewer, which is logged."""
    if images < batch_size:
        log.warning("batch_size: %d images a step, but there are only %d; all are taken", batch_size, images)
    return min(batch_size, images)


def polynomial(steps: int, power: float = 0.9, every: int = 1) -> Callable[[int], float]:
    """Learning-rate factor ``(1 - k / steps) ** power``, updated every `every` steps.

    Examples
    --------
    >>> rate = polynomial(100, power=1.0, every=10)
    >>> rate(0), rate(9), rate(10)
    (1.0, 1.0, 0.9)
    """
    return lambda step: (1 - min(step - step % every, steps - 1) / steps) ** power


def fit(
    network: nn.Module,
    batches: Batches,
    loss: Callable[[Any], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    *,
    seed: int,
    execution: Execution,
    state: Path | None = None,
    fingerprint: str = "",
    save_seconds: float = 60.0,
    log_every: int = 20,
    watch: Watcher | None = None,
) -> list[dict[str, float]]:
    """Train `network` in place for ``len(batches)`` steps, logging its pace by the clock (`wsss_core.pace`).

    Parameters
    ----------
    network
        What is saved and restored on resuming; its mode (train or eval) is the caller's choice.
    batches
        Batch of every step; moved to the device here.
    loss
        From a batch on the device to named scalar terms; ``"loss"`` is minimised, the others are logged.
    optimizer
        Its groups' learning rates at the start are the base rates.
    rate
        Factor on every base rate at step k.
    seed
        Key of the dropout generator; step k always sees the same draws.
    state
        File for resuming, which the caller removes when it has written what was trained. It is ignored unless written
        under the same `fingerprint`.
    watch
        Is shown every step.

    Returns
    -------
    One row of mean loss terms every `log_every` steps.

    Raises
    ------
    UserError
        If the loss stops being finite.
    """
    device = execution.torch_device()
    placed(network, device)
    _optimizer_to(optimizer, device)
    channels_last = device.type == "cuda" and suits_channels_last(network)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    start, history, window = _resume(state, fingerprint, network, optimizer, device)
    if start:
        log.info("resuming at step %d of %d", start, len(batches))
    stopping = _StopSignal()
    saved, clock = time.monotonic(), Clock("step", len(batches), start)
    for step, batch in zip(range(start, len(batches)), _load(batches, start, execution.workers), strict=True):
        torch.manual_seed(keyed.integer(seed, "fit", step))
        for group, base in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base * rate(step)
        batch = to_device(batch, device, channels_last)
        with execution.autocast(device.type):
            terms = loss(batch)
        if device.type == "cpu":  # elsewhere looking would wait for the device
            _require_finite([terms], step, batches)
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        optimizer.step()
        window.append({name: value.detach() for name, value in terms.items()})
        last = step + 1 == len(batches)
        pace = clock.pace(step + 1, last=last)
        if pace:
            log.info("%s  loss %.4f", pace, _means(window)["loss"])
        if (step + 1) % log_every == 0 or last:
            if device.type != "cpu":
                _require_finite(window, step + 1 - len(window), batches)
            history.append({"step": step + 1, "rate": rate(step), **_means(window)})
            window = []
        if watch is not None:
            watch(step, batch, [group["lr"] for group in optimizer.param_groups], None if window else history[-1])
        if state is not None and not last and (stopping.received or time.monotonic() - saved > save_seconds):
            _save(state, fingerprint, network, optimizer, step + 1, history, window)
            saved = time.monotonic()
        if stopping.received:
            log.warning("stopped by a signal after step %d", step + 1)
            sys.exit(143)
    stopping.restore()
    return history


def to_device(batch: Any, device: torch.device, channels_last: bool = False) -> Any:
    """Move a tensor, or every tensor in a tuple, list or dict, to a device; if asked, images with channels last."""
    if isinstance(batch, Tensor):
        images = batch.ndim == 4 and batch.is_floating_point()
        memory_format = torch.channels_last if images and channels_last else torch.preserve_format
        return batch.to(device, non_blocking=True, memory_format=memory_format)
    if isinstance(batch, dict):
        return {name: to_device(value, device, channels_last) for name, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device, channels_last) for value in batch)
    return batch


class _StopSignal:
    """Remembers SIGTERM, so that the loop can save and leave at a step boundary."""

    def __init__(self) -> None:
        self.received = False
        try:
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        except ValueError:  # not the main thread
            self._previous = None

    def _receive(self, *_: Any) -> None:
        self.received = True

    def restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)


class _From(torch.utils.data.Dataset):
    """The batches from step `start` on."""

    def __init__(self, batches: Batches, start: int) -> None:
        self.batches, self.start = batches, start

    def __len__(self) -> int:
        return len(self.batches) - self.start

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):
            raise IndexError(index)
        return self.batches[self.start + index]


def _load(batches: Batches, start: int, workers: int) -> Any:
    rest = _From(batches, start)
    if workers == 0:
        return (rest[index] for index in range(len(rest)))
    return torch.utils.data.DataLoader(
        rest,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork",  # batches hold functions, which other ways of starting cannot pass on
        pin_memory=torch.cuda.is_available(),
    )


def _require_finite(window: list[dict[str, Tensor]], first: int, batches: Batches) -> None:
    """Raise UserError at the first step, of those from `first` on, whose loss is not finite."""
    for step, terms in enumerate(window, first):
        loss = float(terms["loss"])
        if not math.isfinite(loss):
            names = batches.batch_names(step) if isinstance(batches, NamedBatches) else []
            images = f", of the images {', '.join(map(repr, names))}," if names else ""
            raise UserError(f"the loss{images} is {loss} at step {step + 1}: lower the learning rate of this stage")


def _means(window: list[dict[str, Tensor]]) -> dict[str, float]:
    return {name: float(torch.stack([terms[name].float() for terms in window]).mean()) for name in window[0]}


def _save(
    state: Path, fingerprint: str, network: nn.Module, optimizer: Any, step: int, history: list, window: list
) -> None:
    content = {
        "fingerprint": fingerprint,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "history": history,
        "window": window,
    }
    try:
        save_state(state, content)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        log.warning("%s: cannot be written, so a kill from here on costs what was trained (%s)", state, whole(error))


def _resume(
    state: Path | None, fingerprint: str, network: nn.Module, optimizer: Any, device: Any
) -> tuple[int, list, list]:
    """Next step, finished rows of the history, and the terms since the last row."""
    content = None if state is None else load_state(state, device)
    if content is None:
        return 0, [], []
    if content.get("fingerprint") != fingerprint:
        log.info("%s belongs to other settings: starting afresh", state)
        return 0, [], []
    fresh = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    try:
        network.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        _require_resumable(content, network, optimizer, fresh[1])
        return content["step"], content["history"], content["window"]
    except Exception as error:  # of another version, or damaged before it was sealed
        log.warning("%s: cannot be gone on with, so the training starts afresh (%s)", state, whole(error))
        network.load_state_dict(fresh[0])
        optimizer.load_state_dict(fresh[1])
        return 0, [], []


def _require_resumable(content: Mapping[str, Any], network: nn.Module, optimizer: Any, fresh: Mapping) -> None:
    """Raise an error if what was loaded does not fit what is trained; `fresh` is the optimiser's state before."""
    require_finite(network.state_dict(), "network")
    groups = zip(optimizer.state_dict()["param_groups"], fresh["param_groups"], strict=True)
    if any({**one, "lr": 0} != {**other, "lr": 0} for one, other in groups):
        raise ValueError("the optimiser is another")
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and (value.is_sparse or value.shape not in ((), parameter.shape)):
                raise ValueError(f"{name} of a parameter {list(parameter.shape)} is {list(value.shape)}")
            if value is not None and not torch.isfinite(torch.as_tensor(value)).all():
                raise ValueError(f"{name} of a parameter is not finite")
    if type(content["step"]) is not int or content["step"] < 1:
        raise ValueError(f"step is {content['step']!r}")
    rows = [row.values() for row in content["history"]]
    if not all(isinstance(number, int | float) and math.isfinite(number) for row in rows for number in row):
        raise ValueError("the history holds something else than numbers")
    if not all(isinstance(term, Tensor) and term.numel() == 1 for row in content["window"] for term in row.values()):
        raise ValueError("a term of the loss is no number")
    if len({tuple(row) for row in content["window"]}) > 1 or not all("loss" in row for row in content["window"]):
        raise ValueError("the terms of the loss differ")


def _optimizer_to(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    for slots in optimizer.state.values():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                slots[name] = value.to(device)
