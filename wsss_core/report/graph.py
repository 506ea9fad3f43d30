"""The stage graph as SVG: one column a layer, edges led through the columns they cross.

The layered drawing of Sugiyama, Tagawa and Toda (1981): layers by the longest path, a dummy node wherever an edge
crosses a layer, and a few sweeps of the barycentre rule against crossings. Layers are Python's own graphlib; the sweeps
are ours, as no library holds them: networkx places layers but neither orders them nor leads edges round boxes, Graphviz
is a program to install besides Python, and igraph is under the GPL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from html import escape

WIDTH, HEIGHT, ACROSS, DOWN, DUMMY = 146, 58, 36, 18, 14
LETTERS, LETTERS_SQUEEZED = 15, 22


@dataclass(frozen=True)
class Node:
    """One box.

    Attributes
    ----------
    subtitle
        Second line, such as the method.
    value
        Figure at the right, such as the mIoU; "" for none.
    kind
        CSS class, such as the section.
    """

    title: str
    subtitle: str = ""
    value: str = ""
    kind: str = ""
    link: str = ""


def layers(edges: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Layer of every node: 0 without predecessors, else one more than the highest of them.

    Parameters
    ----------
    edges
        Every node to its predecessors; there must be no cycle.

    Examples
    --------
    >>> layers({"a": [], "b": ["a"], "c": ["a", "b"]})
    {'a': 0, 'b': 1, 'c': 2}
    """
    found: dict[str, int] = {}
    for name in TopologicalSorter(edges).static_order():
        found[name] = max((found[source] + 1 for source in edges[name]), default=0)
    return found


def graph_svg(nodes: Mapping[str, Node], edges: Mapping[str, Sequence[str]], title: str) -> str:
    """Draw a graph from left to right.

    Parameters
    ----------
    nodes
        Name to box.
    edges
        Every name to its predecessors.
    """
    depth = layers(edges)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in edges:
        columns[depth[name]].append(name)
    routes: dict[tuple[str, str], list[str]] = {}
    links: list[tuple[str, str]] = []
    for name, sources in edges.items():
        for source in sources:
            route = [source]
            for layer in range(depth[source] + 1, depth[name]):
                dummy = f"{source}\0{name}\0{layer}"
                columns[layer].append(dummy)
                route.append(dummy)
            route.append(name)
            routes[source, name] = route
            links += zip(route, route[1:], strict=False)
    columns = _ordered(columns, links)
    places, height = _places(columns, nodes)
    width = len(columns) * (WIDTH + ACROSS) - ACROSS
    parts = [_edge([places[n] for n in route], [n in nodes for n in route]) for route in routes.values()]
    parts += [_box(node, *places[name]) for name, node in nodes.items()]
    return (
        f'<svg class="graph" viewBox="-2 -2 {width + 4} {height + 4}" style="min-width:{0.72 * width:.0f}px;'
        f'max-width:{1.15 * width:.0f}px" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _ordered(columns: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The columns in the order with the fewest crossings that the sweeps find."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for source, target in links:
        before.setdefault(target, []).append(source)
        after.setdefault(source, []).append(target)
    best, fewest = columns, _crossings(columns, links)
    for sweep in range(8):
        columns = [list(column) for column in columns]
        if sweep % 2 == 0:
            for index in range(1, len(columns)):
                columns[index] = _by_centre(columns[index], columns[index - 1], before)
        else:
            for index in range(len(columns) - 2, -1, -1):
                columns[index] = _by_centre(columns[index], columns[index + 1], after)
        crossings = _crossings(columns, links)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _by_centre(column: Sequence[str], fixed: Sequence[str], neighbours: Mapping[str, Sequence[str]]) -> list[str]:
    """A column sorted by the mean relative place of each node's neighbours in the fixed column beside it."""
    place = {name: (k + 0.5) / len(fixed) for k, name in enumerate(fixed)}
    centres = {}
    for k, name in enumerate(column):
        beside = [place[n] for n in neighbours.get(name, ()) if n in place]
        centres[name] = sum(beside) / len(beside) if beside else (k + 0.5) / len(column)
    return sorted(column, key=centres.__getitem__)


def _crossings(columns: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    rank = {name: (layer, k) for layer, column in enumerate(columns) for k, name in enumerate(column)}
    ends = [(rank[a], rank[b]) for a, b in links]
    return sum(
        a[0] == c[0] and (a[1] - c[1]) * (b[1] - d[1]) < 0 for i, (a, b) in enumerate(ends) for c, d in ends[i + 1 :]
    )


def _places(
    columns: Sequence[Sequence[str]], nodes: Mapping[str, Node]
) -> tuple[dict[str, tuple[float, float]], float]:
    """Name to (left, middle) of its box, and the height of the drawing."""
    spans = [sum((HEIGHT if n in nodes else DUMMY) + DOWN for n in column) - DOWN for column in columns]
    height = max(spans, default=0)
    places: dict[str, tuple[float, float]] = {}
    for layer, (column, span) in enumerate(zip(columns, spans, strict=True)):
        y = (height - span) / 2
        for name in column:
            own = HEIGHT if name in nodes else DUMMY
            places[name] = (layer * (WIDTH + ACROSS), y + own / 2)
            y += own + DOWN
    return places, height


def _edge(places: Sequence[tuple[float, float]], real: Sequence[bool]) -> str:
    x, y = places[0][0] + WIDTH, places[0][1]
    path = f"M{x:.1f} {y:.1f}"
    for (left, middle), is_node in zip(places[1:], real[1:], strict=True):
        bend = (left - x) / 2
        path += f"C{x + bend:.1f} {y:.1f} {left - bend:.1f} {middle:.1f} {left:.1f} {middle:.1f}"
        x, y = left, middle
        if not is_node:
            x = left + WIDTH
            path += f"H{x:.1f}"
    return f'<path class="edge" d="{path}"/><path class="tip" d="M{x - 6:.1f} {y - 3.5:.1f}L{x:.1f} {y:.1f}l-6 3.5Z"/>'


def _box(node: Node, left: float, middle: float) -> str:
    top = middle - HEIGHT / 2
    shown = node.title if len(node.title) <= LETTERS_SQUEEZED else node.title[: LETTERS_SQUEEZED - 1] + "…"
    squeeze = f' textLength="{WIDTH - 24}" lengthAdjust="spacingAndGlyphs"' if len(shown) > LETTERS else ""
    box = (
        f'<rect class="box {escape(node.kind)}" x="{left}" y="{top:.1f}" width="{WIDTH}" height="{HEIGHT}" rx="9"/>'
        f'<text class="name" x="{left + 12}" y="{top + 24:.1f}"{squeeze}>{escape(shown)}</text>'
        f'<text class="about" x="{left + 12}" y="{top + 43:.1f}">{escape(node.subtitle)}</text>'
        f'<text class="value" x="{left + WIDTH - 12}" y="{top + 43:.1f}" text-anchor="end">{escape(node.value)}</text>'
        f"<title>{escape(' '.join(t for t in (node.title, node.subtitle, node.value) if t))}</title>"
    )
    return f'<a href="{escape(node.link)}">{box}</a>' if node.link else f"<g>{box}</g>"
