"""Cells of labels: taken apart, and held against what betrays that they should have been taken apart otherwise.

A wrong separator makes one class of two, or two of one, and nothing stops a training on them. What can be seen is
refused, with the setting that would read it; the rest is seen by whoever reads the counts that `index` prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from wsss_core.data.names import alike
from wsss_core.errors import UserError

BETRAYING = ',;|/\\\t\n&+[]{}"`:'
"""Characters that stand between labels, or around a list of them, and seldom in the name of a class."""

_OF_LISTS = '[]{}"`:'


def split_labels(cell: str, separator: str) -> list[str]:
    """The labels of a cell; a separator of " " stands for any white space.

    Examples
    --------
    >>> split_labels(" cat  dog ", " "), split_labels("fire engine; bus;", ";")
    (['cat', 'dog'], ['fire engine', 'bus'])
    """
    labels = cell.split() if separator == " " else cell.split(separator)
    return [label.strip() for label in labels if label.strip()]


def check_labels(
    rows: Sequence[Sequence[str]], separator: str | None, names: Collection[str] | None, where: str
) -> None:
    """Refuse labels that betray another separator, or two ways of writing one name.

    Parameters
    ----------
    rows
        Labels of every image, as `split_labels` gives them.
    separator
        What took cells apart; "" where a cell is one label, None where labels do not stand in cells.
    names
        The class list, if there is one: its names are never doubted.
    where
        File, for messages.

    Raises
    ------
    UserError
        If a label holds what separates labels elsewhere, or a cell of one label is made of others; if the class list
        holds names that the separator cuts; without a class list, if words always stand together, as those of one name
        do, or labels differ by their writing alone.

    Examples
    --------
    >>> check_labels([["cat"], ["cat", "dog"]], " ", None, "labels.csv")
    >>> check_labels([["cow,dog"]], " ", None, "a.csv")
    Traceback (most recent call last):
    wsss_core.errors.UserError: a.csv: 1 of 1 labels, such as 'cow,dog', hold ',', though dataset.separator is ' '; \
set it to ',', or list the names as they are in dataset.classes
    """
    counts = Counter(label for row in rows for label in row)
    for found in (
        "" if separator is None else _other_separators(counts, separator, names or ()),
        _cut_names(separator, names or ()) if separator else "",
        _made_of_others(counts, names or ()) if separator == "" else "",
        *([] if names is not None else [_always_together(rows, separator), _written_differently(counts)]),
    ):
        if found:
            raise UserError(f"{where}: {found}")


def _other_separators(counts: Counter[str], separator: str, names: Collection[str]) -> str:
    odd = [label for label in counts if label not in names and set(label) & set(BETRAYING) - {separator}]
    if not odd:
        return ""
    held = Counter(letter for label in odd for letter in set(label) & set(BETRAYING) - {separator})
    character = max(held, key=lambda letter: (held[letter], -BETRAYING.index(letter)))
    shown = f"{len(odd)} of {len(counts)} labels, such as {_listed(odd)}, hold {character!r}"
    if character in _OF_LISTS:
        advice = f"as a list does that a program wrote; write the labels plainly, separated by {separator!r}"
    else:
        why = f"though dataset.separator is {separator!r}" if separator else "though a cell of this column is one label"
        advice = f"{why}; set {'it' if separator else 'dataset.separator'} to {character!r}"
    return f"{shown}, {advice}, or list the names as they are in dataset.classes"


def _cut_names(separator: str, names: Collection[str]) -> str:
    cut = [name for name in names if split_labels(name, separator) != [name]]
    if not cut:
        return ""
    return (
        f"the class list holds {_listed(cut)}, which dataset.separator, {separator!r}, would cut; "
        "separate labels by another character, such as ;"
    )


def _made_of_others(counts: Counter[str], names: Collection[str]) -> str:
    """Cells of one label whose words are labels themselves: "cow dog" beside "cow" and "dog"."""
    words = {label: label.split() for label in counts if label not in names}
    made = [label for label, parts in words.items() if len(parts) > 1 and counts.keys() >= set(parts)]
    if not made:
        return ""
    return (
        f"a cell of this column is one label, but cells such as {_listed(made)} are made of other labels; call the "
        "column labels, whose cells are taken apart at white space, or list the names as they are in dataset.classes"
    )


def _always_together(rows: Iterable[Sequence[str]], separator: str | None) -> str:
    """Words that always stand behind certain others, which never stand alone: "stop sign", or "big cow, small cow"."""
    if separator != " ":
        return ""
    count: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for row in rows:
        count.update(row)
        pairs.update(zip(row, row[1:], strict=False))
    for last in count:
        firsts = [first for first, second in pairs if second == last]
        followed = all(pairs[first, last] == count[first] for first in firsts)
        if followed and count[last] > 1 and sum(pairs[first, last] for first in firsts) == count[last]:
            shown = _listed(f"{first} {last}" for first in firsts)
            return (
                f"{shown} always stand together: if that is one name, dataset.separator must not be white space "
                "but, say, ;. If these are two classes, list all classes in dataset.classes"
            )
    return ""


def _written_differently(counts: Counter[str]) -> str:
    groups = alike(counts)
    if not groups:
        return ""
    shown = "; ".join(" and ".join(f"{name!r} ({counts[name]} images)" for name in group) for group in groups[:3])
    return (
        f"classes that differ by their writing alone: {shown}. Write them alike, or list all classes in dataset.classes"
    )


def _listed(names: Iterable[str]) -> str:
    first = [repr(name) for name in names]
    return ", ".join(first[:3]) + (", …" if len(first) > 3 else "")
