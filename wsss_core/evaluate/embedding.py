"""A classifier's features of many images in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsss_core import keyed
from wsss_core.data.table import ImageRecord, ImageTable
from wsss_core.settings import setting


@dataclass(frozen=True)
class FeaturesSettings:
    """Classifiers' features in the plane, by t-SNE (van der Maaten & Hinton, JMLR 2008)."""

    classifiers: tuple[str, ...] = setting(
        (), "classifiers shown side by side on the same images, such as before and after; their names", minItems=1
    )
    images: int = setting(500, "at most so many images, chosen by a hash of their ids", minimum=4)
    classes: tuple[str, ...] = setting((), "names of the classes shown; []: all")
    perplexity: float = setting(
        30.0, "t-SNE's perplexity; at most a third of the number of images is taken", exclusiveMinimum=0
    )


def shown_images(images: ImageTable, classes: Sequence[str], count: int) -> list[ImageRecord]:
    """At most `count` images, chosen by a hash of their ids, in order of id.

    They play the role "train" and hold exactly one class, which is among the given names, or the role "ood".
    """
    names = images.class_names
    single = [r for r in images.split("train") if len(r.classes) == 1 and names[r.classes[0]] in classes]
    among = [*single, *images.split("ood")]
    chosen = sorted(among, key=lambda record: keyed.key_bytes("features", record.id))[:count]
    return sorted(chosen, key=lambda record: record.id)


def groups_of(records: Sequence[ImageRecord], features: np.ndarray, weights: np.ndarray) -> list[int]:
    """Class of every image: its tag, or without one the class that a classifier finds in it most.

    Parameters
    ----------
    features
        [N, D], pooled.
    weights
        [C, D] of the classifier.
    """
    return [
        record.classes[0] if record.classes else int(logits.argmax())
        for record, logits in zip(records, features @ weights.T, strict=True)
    ]


def embed(features: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of features, started from their first two principal components.

    Parameters
    ----------
    features
        [N, D], N at least 4.
    perplexity
        Lowered to (N - 1) / 3 where it is higher.
    seed
        Seed of the random draws, below 2**32.

    Returns
    -------
    float32 [N, 2], centred, of unit mean square.
    """
    from sklearn.manifold import TSNE

    values = np.asarray(features, dtype=np.float32)
    tsne = TSNE(
        2,
        perplexity=min(perplexity, (len(values) - 1) / 3),
        init="pca" if values.std() > 0 else "random",
        random_state=seed,
        method="exact" if len(values) < 100 else "barnes_hut",
    )
    places = tsne.fit_transform(values)
    places = places - places.mean(0)
    return (places / max(float(np.sqrt(np.square(places).mean())), 1e-12)).astype(np.float32)


def tsne_seed(run_seed: int, classifier: str) -> int:
    """Seed of `embed` for a classifier of a run, by its name without swept values: variants of a sweep draw alike.

    Examples
    --------
    >>> tsne_seed(0, "bce@epochs=2") == tsne_seed(0, "bce@epochs=5")
    True
    """
    return keyed.integer(run_seed, classifier.partition("@")[0], "t-SNE") % 2**32
