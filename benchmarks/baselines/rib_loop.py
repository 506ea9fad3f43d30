"""RIB as the obvious loop: every step runs the whole network on every view, pooling visits rows and classes one by one.

The reference for the engine in `wsss_core.seeds.rib` (variant official): same numbers, none of its savings.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F

from wsss_core.data.augment import scaled_pair


def rib_loop(network, image: np.ndarray, classes, settings, pool) -> dict:
    """RIB of one image.

    Returns
    -------
    ``maps``, scale to [K, h_s, w_s]; ``losses`` of all steps; ``target`` logits of all steps; ``stop``.
    """
    device = network.classifier.weight.device
    initial = copy.deepcopy(network.state_dict())
    adapted = [*network.backbone.stages[network.backbone.adapted_from :].parameters(), network.classifier.weight]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for parameter in adapted:
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(
        [
            {"params": adapted[:-1], "lr": settings.learning_rate},
            {"params": adapted[-1:], "lr": settings.learning_rate * settings.classifier_rate},
        ],
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    base = [group["lr"] for group in optimizer.param_groups]
    target_labels = torch.zeros(network.n_classes, device=device)
    target_labels[list(classes)] = 1
    sums, losses, targets, stop = {}, [], [], "steps"
    for step in range(settings.steps):
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate * (1 - step / settings.steps) ** 0.9
        rows, labels = [], []
        for scale in settings.scales:
            views = torch.from_numpy(scaled_pair(image, scale)).to(device)
            logits = F.conv2d(network.features(views), network.classifier.weight)
            activation = F.relu(logits.detach())
            flipped = (activation[0] + activation[1].flip(-1))[list(classes)]
            sums[scale] = sums[scale] + flipped if scale in sums else flipped
            if scale == 1.0 and step > 0 and _explodes(flipped, settings.explosion):
                stop = "explosion"
                break
            if scale >= 1:
                rows += list(logits)
                labels += [target_labels, target_labels]
        if stop == "explosion":
            break
        n_target = len(rows)
        images, pool_labels = pool(step)
        rows += list(F.conv2d(network.features(images.to(device)), network.classifier.weight))
        labels += list(pool_labels.to(device))
        pooled = [_pooled(maps, tags, settings) for maps, tags in zip(rows, labels, strict=True)]
        loss = -torch.stack(pooled).sum()
        target = torch.stack(pooled[:n_target]).sum().item()
        losses.append(loss.item())
        targets.append(target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if settings.margin is not None and abs(target) > settings.margin:
            stop = "margin"
            break
    network.load_state_dict(initial)
    return {"maps": sums, "losses": losses, "target": targets, "stop": stop}


def _pooled(maps: torch.Tensor, tags: torch.Tensor, settings) -> torch.Tensor:
    """Sum over the classes of one row of pooled logits times labels."""
    total = maps.sum() * 0
    for c in range(len(tags)):
        if tags[c] > 0:
            if settings.pooling == "gndrp":
                normalised = maps[c].detach() / maps[c].detach().max()
                total = total + (maps[c] * (normalised < settings.threshold)).mean() * tags[c]
            else:
                total = total + maps[c].mean() * tags[c]
    return total


def _explodes(maps: torch.Tensor, explosion) -> bool:
    if explosion is None:
        return False
    on = torch.zeros(maps.shape[1:], dtype=torch.bool, device=maps.device)
    for one in maps:
        on |= one / (one.max() + 1e-5) > explosion[0]
    return bool(on.float().mean() > explosion[1])
