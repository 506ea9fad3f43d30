"""Whether tags and true masks tell the same story: what chance does not explain is a fault in how one of them was made.

An honest data set has images whose mask lacks a tagged class: the object is hidden, tiny, or ignored. They are few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import binom

from wsss_core.constants import IGNORE

LACKING = 0.25
"""Share of a class's tagged images that may honestly lack it in their masks: crowds, hidden and tiny objects."""

EMPTY = 0.05
"""Share of tagged images whose masks may honestly show none of their tags."""

CHANCE = 1e-3
"""What is less probable than this is no accident."""


@dataclass(frozen=True)
class Truth:
    """Tags and mask of one image.

    Attributes
    ----------
    image
        Its id.
    tags
        Tagged classes.
    labels
        Values that occur in the mask: 0 background, c + 1 class c, 255 ignored.
    """

    image: str
    tags: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def shown(self) -> frozenset[int]:
        """Classes that the mask holds."""
        return frozenset(label - 1 for label in self.labels if label not in (0, IGNORE))

    @property
    def empty(self) -> bool:
        """Whether the image is tagged and its mask shows none of the tags."""
        return bool(self.tags) and self.shown.isdisjoint(self.tags)


def contradictions(class_names: Sequence[str], truths: Sequence[Truth]) -> list[str]:
    """What is wrong with the masks of a data set as a whole, in the words of the first check that finds something.

    Parameters
    ----------
    truths
        All images that have a usable mask.

    Examples
    --------
    >>> contradictions(["cat"], [Truth("a", (0,), (0, 255)), Truth("b", (0,), (0, 255))])[0].partition(":")[0]
    'none of 2 masks holds a class, only the values 0 and 255 (255 is ignored, label 1 is class cat)'
    """
    for check in (_no_class_at_all, _another_order, _classes_in_no_mask, _too_many_lack_a_class, _too_many_are_empty):
        found = check(class_names, truths)
        if found:
            return found
    return []


def unscored(class_names: Sequence[str], truths: Sequence[Truth]) -> list[str]:
    """Names of the classes that no mask holds, where there are masks: their rows in every table stay empty."""
    shown = {c for truth in truths for c in truth.shown}
    return [name for c, name in enumerate(class_names) if c not in shown] if truths else []


def no_accident(count: int, among: int, share: float) -> bool:
    """Whether `count` or more of `among` images are too many, if each is one of them with a probability of `share`.

    Examples
    --------
    >>> no_accident(3, 3, 0.1), no_accident(2, 20, 0.1), no_accident(12, 20, 0.1)
    (True, False, True)
    """
    return bool(binom.sf(count - 1, among, share) <= CHANCE * (1 + 1e-9))


def _no_class_at_all(class_names: Sequence[str], truths: Sequence[Truth]) -> list[str]:
    if not truths or any(truth.shown for truth in truths):
        return []
    values = sorted({label for truth in truths for label in truth.labels})
    held = f"the value{'s' * (len(values) > 1)} {' and '.join(map(str, values))}"
    return [
        f"none of {len(truths)} masks holds a class, only {held} (255 is ignored, label 1 is class {class_names[0]}): "
        "masks saved as 0 and 255, as many tools write them, must be written with the labels of the classes"
    ]


def _another_order(class_names: Sequence[str], truths: Sequence[Truth]) -> list[str]:
    """Classes whose tagged images mostly show another, untagged class."""
    found = []
    for c in range(len(class_names)):
        tagged = [truth for truth in truths if c in truth.tags]
        lacking = [truth for truth in tagged if c not in truth.shown]
        instead = Counter(d for truth in lacking for d in sorted(truth.shown.difference(truth.tags)))
        other, times = max(instead.items(), key=lambda item: item[1], default=(c, 0))
        if len(tagged) >= 3 and 2 * times > len(tagged):
            found.append(
                f"{_lack(class_names, c, len(lacking), len(tagged))}, {times} of them hold {other + 1} "
                f"({class_names[other]}): is the class list in another order than the labels?"
            )
    return found


def _classes_in_no_mask(class_names: Sequence[str], truths: Sequence[Truth]) -> list[str]:
    """Tagged classes that no mask holds; one image that shows its other tags may just hide one."""
    found = []
    for name in unscored(class_names, truths):
        c = class_names.index(name)
        tagged = [truth for truth in truths if c in truth.tags]
        if len(tagged) > 1 or any(truth.empty for truth in tagged):
            found.append(
                f"no mask holds label {c + 1} ({name}), though {_images(len(tagged))} with a mask "
                f"{'is' if len(tagged) == 1 else 'are'} tagged with it, such as {_some(tagged)}; their masks hold "
                f"{_values(tagged)}"
            )
    return found


def _too_many_lack_a_class(class_names: Sequence[str], truths: Sequence[Truth]) -> list[str]:
    found = []
    for c in range(len(class_names)):
        tagged = [truth for truth in truths if c in truth.tags]
        lacking = [truth for truth in tagged if c not in truth.shown]
        if lacking and no_accident(len(lacking), len(tagged), LACKING):
            text = _lack(class_names, c, len(lacking), len(tagged))
            found.append(f"{text}, such as {_some(lacking)}, which hold {_values(lacking)}")
    return found


def _too_many_are_empty(class_names: Sequence[str], truths: Sequence[Truth]) -> list[str]:
    tagged = [truth for truth in truths if truth.tags]
    empty = [truth for truth in tagged if truth.empty]
    if not empty or not no_accident(len(empty), len(tagged), EMPTY):
        return []
    return [
        f"{len(empty)} of {len(tagged)} tagged images have a mask that shows none of their tags, such as "
        f"{_some(empty)}; these masks hold {_values(empty)}: do they belong to other images, or were they saved in "
        "another way than the rest?"
    ]


def _lack(class_names: Sequence[str], c: int, lacking: int, tagged: int) -> str:
    return f"{lacking} of {tagged} images tagged {class_names[c]!r} do not hold its label {c + 1} in their masks"


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _some(truths: Sequence[Truth]) -> str:
    return ", ".join(repr(truth.image) for truth in truths[:3])


def _values(truths: Iterable[Truth]) -> str:
    values = sorted({label for truth in truths for label in truth.labels})
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")
