"""Names that mean the same and are written differently: hints for whoever mistyped one."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping


def plain(name: str) -> str:
    """What stays of a name without case, Unicode form, kind of separator and invisible characters.

    Examples
    --------
    >>> plain("Sub\\\\Cafe\\u0301 01"), plain("sub/café_01")
    ('sub/café_01', 'sub/café_01')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    return re.sub(r"[\s_-]+", "_", visible.replace("\\", "/")).strip("_./")


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of two and more names that differ in their writing alone.

    Examples
    --------
    >>> alike(["cow", "Cow", "fire truck", "dog", "fire-truck"])
    [['Cow', 'cow'], ['fire truck', 'fire-truck']]
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[plain(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


class Lookalikes:
    """Files by their names, found also under another writing or in another folder.

    Parameters
    ----------
    files
        Name without ending to the files of that name.
    """

    def __init__(self, files: Mapping[str, Iterable[str]]) -> None:
        self._whole: dict[str, list[str]] = defaultdict(list)
        self._last: dict[str, list[str]] = defaultdict(list)
        for stem, names in files.items():
            self._whole[plain(stem)] += names
            self._last[plain(stem).rpartition("/")[2]] += names

    def of(self, stem: str) -> list[str]:
        """The files whose name differs from this one in its writing, or else in its folder."""
        name = plain(stem)
        return self._whole.get(name) or self._last.get(name.rpartition("/")[2], [])


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint at the nearest of some names, or nothing."""
    names = list(names)
    lower = {n.lower(): n for n in names}
    if name.lower() in lower:
        return f" (did you mean {lower[name.lower()]!r}? upper and lower case matter)"
    close = [n for n in names if plain(n) == plain(name)] or difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
