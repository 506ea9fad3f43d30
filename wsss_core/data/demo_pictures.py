"""Drawn pictures in which the difficulties of weak supervision really happen.

Every object is a small telling part (a head, wheels, a lifebuoy: vivid, the same in all pictures) on a large plain
body whose colour tells less, for the classes' ranges overlap. Many objects stand where their class usually
stands, the others elsewhere. They hide one another, stones and reeds hide them, and they have thin legs, masts and
antennae. Stones have the bodies' colours, balls the parts' vividness, and both are background.

Lengths are in pixels, colours RGB in 0..1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsss_core.constants import IGNORE

CLASSES = ("beetle", "bird", "boat", "car", "sheep")
HABITAT = {"beetle": "sand", "bird": "sky", "boat": "water", "car": "road", "sheep": "meadow"}
ELSEWHERE = {
    "beetle": ("meadow", "road"),
    "bird": ("water", "meadow", "sand"),
    "boat": ("sand", "meadow", "sky"),
    "car": ("meadow", "sand", "sky"),
    "sheep": ("road", "sand", "sky"),
}
"""Backgrounds on which a class is seen when it is not where it usually is."""

_BODY_HUE = {"beetle": 0.32, "bird": 0.60, "boat": 0.84, "car": 0.02, "sheep": 0.14}
_HUE_SPREAD = 0.10
"""Mean and spread of the hue of bodies, in turns: neighbouring classes overlap."""

_FINE = 4
"""Shapes are filled on a grid this many times finer, so that their edges are smooth."""


@dataclass(frozen=True)
class Picture:
    """A picture and its truth.

    Attributes
    ----------
    image
        uint8 [H, W, 3].
    labels
        uint8 [H, W]: 0 background, c + 1 class c, 255 pixels that an edge divides.
    instances
        uint8 [H, W]: 0 background, i + 1 for the object i, 255 as in `labels`.
    objects
        Class and visible box (x0, y0, x1, y1; ends exclusive) of every object.
    """

    image: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    objects: tuple[tuple[int, tuple[int, int, int, int]], ...]


def numbered(
    rng: np.random.Generator,
    number: int,
    sides: tuple[int, int],
    usual_place: float,
    more_objects: Sequence[float],
    empty: bool = False,
) -> Picture:
    """One picture of a data set: size, classes and background by chance, the first class by its number.

    Parameters
    ----------
    number
        Every class comes first in as many pictures as the others.
    sides
        Least and greatest length of a side.
    usual_place
        Chance of the background where the first class usually is.
    more_objects
        Chances of a second object, a third and so on.
    empty
        Draw a background alone.
    """
    height, width = (int(side) for side in rng.integers(sides[0], sides[1] + 1, 2))
    if empty:
        return picture((height, width), (), tuple(_BACKGROUNDS)[number % len(_BACKGROUNDS)], rng)
    classes = [number % len(CLASSES)]
    for _ in range(int(rng.choice(len(more_objects) + 1, p=(1 - sum(more_objects), *more_objects)))):
        classes.append(int(rng.integers(len(CLASSES))))
    first = CLASSES[classes[0]]
    usual = rng.random() < usual_place
    place = HABITAT[first] if usual else ELSEWHERE[first][rng.integers(len(ELSEWHERE[first]))]
    return picture((height, width), classes, place, rng)


def picture(size: tuple[int, int], classes: Sequence[int], background: str, rng: np.random.Generator) -> Picture:
    """Draw one picture.

    Parameters
    ----------
    size
        (H, W).
    classes
        Class of every object; none for a picture of the background alone.
    background
        "sand", "sky", "water", "road" or "meadow".
    """
    while True:
        drawn = _draw(size, classes, background, rng)
        if drawn is not None:
            return drawn


def _draw(size: tuple[int, int], classes: Sequence[int], background: str, rng: np.random.Generator) -> Picture | None:
    """One attempt; None if an object can hardly be seen."""
    scene, horizon = _BACKGROUNDS[background](size, rng)
    canvas = _Canvas(scene)
    for _ in range(rng.integers(0, 3)):
        _stone_or_ball(canvas, horizon, rng)
    things: list[_Thing] = []
    for label in classes:
        tries = [_placed(label, size, horizon, len(classes), rng) for _ in range(3)]
        things.append(max(tries, key=lambda thing: min((thing.distance(t) for t in things), default=0.0)))
    things.sort(key=lambda thing: thing.base)
    for number, thing in enumerate(things, start=1):
        thing.draw(canvas, number)
        if rng.random() < 0.4:
            _in_front(canvas, background, thing, rng)
    labels, instances = np.zeros((2, *size), dtype=np.uint8)
    objects = []
    for number, thing in enumerate(things, start=1):
        inside = canvas.owner == number
        if inside.sum() < max(80, 0.45 * canvas.area[number]):
            return None
        labels[inside], instances[inside] = thing.label + 1, number
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        objects.append((thing.label, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)))
    labels[canvas.divided], instances[canvas.divided] = IGNORE, IGNORE
    return Picture(_photographed(canvas.image, rng), labels, instances, tuple(objects))


class _Canvas:
    """Picture under the brush: colours, which object owns a pixel, and which pixels an edge divides."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        self.size = image.shape[:2]
        self.owner = np.zeros(self.size, dtype=np.uint8)
        self.divided = np.zeros(self.size, dtype=bool)
        self.area: dict[int, int] = {}

    def fill(self, points: np.ndarray, colour: np.ndarray, owner: int, shading: float = 0.0) -> None:
        """Fill a polygon, [N, 2] of x and y; `shading` rounds it off, lit from above left."""
        self._cover(points, 2, lambda fine, p: cv2.fillPoly(fine, [p], 255), colour, owner, shading)

    def stroke(self, points: np.ndarray, width: float, colour: np.ndarray, owner: int) -> None:
        """Draw a line of some pixels' width."""
        thickness = max(1, round(width * _FINE))
        self._cover(
            points, 2 + width, lambda fine, p: cv2.polylines(fine, [p], False, 255, thickness), colour, owner, 0.0
        )

    def shade(self, centre: tuple[float, float], radii: tuple[float, float], strength: float) -> None:
        """Darken an ellipse with a soft edge."""
        y, x = np.ogrid[: self.size[0], : self.size[1]]
        distance = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
        self.image *= (1 - strength * np.exp(-distance * 1.5))[..., None].astype(np.float32)

    def _cover(
        self, points: np.ndarray, margin: float, draw: Callable, colour: np.ndarray, owner: int, shading: float
    ) -> None:
        low = np.maximum(np.floor(points.min(axis=0) - margin).astype(int), 0)
        high = np.minimum(np.ceil(points.max(axis=0) + margin).astype(int), self.size[::-1])
        if (high <= low).any():
            return
        fine = np.zeros(((high - low)[::-1]) * _FINE, dtype=np.uint8)
        draw(fine, np.round((points - low) * _FINE - 0.5).astype(np.int32))
        cover = cv2.resize(fine, (high - low).tolist(), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        area = np.s_[low[1] : high[1], low[0] : high[0]]
        paint = np.broadcast_to(np.asarray(colour, dtype=np.float32), (*cover.shape, 3))
        if shading:
            paint = np.clip(paint * _relief(cover, shading)[..., None], 0, 1)
        self.image[area] += (paint - self.image[area]) * cover[..., None]
        inside = cover >= 0.5
        divided = (cover > 0.25) & (cover < 0.75) & (self.owner[area] != owner)
        self.divided[area] = (self.divided[area] & (cover < 0.75)) | divided
        self.area[owner] = self.area.get(owner, 0) + int((inside & (self.owner[area] != owner)).sum())
        self.owner[area][inside] = owner


def _relief(cover: np.ndarray, strength: float) -> np.ndarray:
    """Brightness of a rounded shape: its blurred cover as a height, lit from above left."""
    sigma = 0.10 * max(cover.shape)
    height = cv2.GaussianBlur(cover, (0, 0), sigma)
    down, right = np.gradient(height)
    return 1 + strength * sigma * (0.9 * down + 0.5 * right)


@dataclass
class _Thing:
    """One object: local coordinates (length about 1, y down, feet at y = 0.5) to pixels, and its colours."""

    label: int
    scale: float
    turn: np.ndarray
    centre: np.ndarray
    bend: float
    colour: np.ndarray
    base: float
    shadow: float
    rng: np.random.Generator

    def points(self, local: np.ndarray) -> np.ndarray:
        """Pixels of local points, [N, 2]."""
        local = np.asarray(local, dtype=np.float64)
        bent = np.stack([local[:, 0], local[:, 1] + self.bend * local[:, 0] ** 2], axis=1)
        return bent @ self.turn.T * self.scale + self.centre

    def distance(self, other: _Thing) -> float:
        """Distance between the centres of two objects, in pixels."""
        return float(np.hypot(*(self.centre - other.centre)))

    def draw(self, canvas: _Canvas, owner: int) -> None:
        """Draw shadow and object."""
        x, y = self.points(np.array([[0.0, 0.46]]))[0]
        canvas.shade((x, y), (0.5 * self.scale, 0.11 * self.scale), self.shadow)
        _THINGS[CLASSES[self.label]](_Brush(canvas, self, owner))


@dataclass(frozen=True)
class _Brush:
    """Draws one object in its own coordinates."""

    canvas: _Canvas
    thing: _Thing
    owner: int

    def body(self, local: np.ndarray, tone: float = 1.0) -> None:
        colour = np.clip(self.thing.colour * tone, 0, 1)
        self.canvas.fill(self.thing.points(local), colour, self.owner, shading=1.3)

    def fill(self, local: np.ndarray, colour: Sequence[float], shading: float = 0.0) -> None:
        self.canvas.fill(self.thing.points(local), np.array(colour), self.owner, shading)

    def stroke(self, local: Sequence[Sequence[float]], width: float, colour: Sequence[float] | np.ndarray) -> None:
        width = max(1.3, width * self.thing.scale)
        self.canvas.stroke(self.thing.points(np.array(local)), width, np.array(colour), self.owner)


def _placed(label: int, size: tuple[int, int], horizon: int, count: int, rng: np.random.Generator) -> _Thing:
    """An object of random place, size, pose and colour."""
    height, width = size
    flies = CLASSES[label] == "bird" and rng.random() < 0.8
    scale = min(size) * rng.uniform(0.62, 0.90) * (1.0, 1.0, 0.82, 0.70)[min(count, 3)]
    room = 0.42 * scale
    x = rng.uniform(min(room, width / 2), max(width - room, width / 2))
    if flies:
        y = rng.uniform(room, max(room + 1, height - room))
    else:
        lowest = height - 0.5 * scale
        y = rng.uniform(min(max(0.45 * scale, horizon - 0.3 * scale), lowest), lowest)
    seen_from_above = CLASSES[label] == "beetle"
    angle = rng.uniform(-np.pi, np.pi) if seen_from_above else rng.normal(0, 0.10)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn = turn @ np.diag([-1.0, 1.0])
    hue = _BODY_HUE[CLASSES[label]] + rng.normal(0, _HUE_SPREAD)
    colour = _hsv(hue, rng.uniform(0.12, 0.55), rng.uniform(0.50, 0.95))
    shadow = 0.0 if flies else rng.uniform(0.25, 0.5)
    return _Thing(label, scale, turn, np.array([x, y]), rng.normal(0, 0.12), colour, y + 0.5 * scale, shadow, rng)


def _beetle(brush: _Brush) -> None:
    rng, black, dull = brush.thing.rng, (0.10, 0.08, 0.08), brush.thing.colour * 0.5
    for side in (-1, 1):
        for x in (-0.22, 0.0, 0.2):
            reach = x + rng.normal(0, 0.05)
            brush.stroke([(x, 0.15 * side), (reach + 0.03, 0.34 * side), (reach - 0.05, 0.46 * side)], 0.03, dull)
        tip = rng.normal(0, 0.05)
        brush.stroke([(0.40, 0.05 * side), (0.54, 0.10 * side), (0.64, (0.2 + tip) * side)], 0.026, black)
    brush.body(_blob(rng, -0.06, 0, 0.40, 0.27))
    brush.stroke([(-0.44, 0), (-0.1, 0.01), (0.26, 0)], 0.02, brush.thing.colour * 0.65)
    brush.fill(_ellipse(0.36, 0, 0.16, 0.18), (1.0, 0.80, 0.08), shading=1.0)
    for x in (0.28, 0.37, 0.46):
        reach = 0.16 * np.sqrt(max(0.0, 1 - ((x - 0.36) / 0.16) ** 2))
        brush.stroke([(x, -reach), (x, reach)], 0.04, black)


def _bird(brush: _Brush) -> None:
    rng, legs = brush.thing.rng, (0.80, 0.45, 0.12)
    for x in (-0.04, 0.10):
        foot = x + rng.normal(0, 0.04)
        brush.stroke([(x, 0.15), (foot, 0.44), (foot + 0.09, 0.46)], 0.03, legs)
    lift = rng.normal(0, 0.07)
    brush.body(
        np.array([(-0.22, -0.06), (-0.60, -0.12 + lift), (-0.54, 0.0 + lift), (-0.60, 0.08 + lift), (-0.2, 0.14)])
    )
    brush.body(_blob(rng, 0.0, 0.0, 0.33, 0.22))
    swing = rng.uniform(-0.36, 0.16)
    wing = np.array([(0.12, -0.06), (-0.06, -0.12), (-0.40, swing), (-0.30, swing + 0.12), (-0.02, 0.11)])
    brush.body(_smooth(wing), tone=0.82)
    brush.fill(np.array([(0.42, -0.27), (0.66, -0.18), (0.42, -0.12)]), (1.0, 0.80, 0.10))
    brush.fill(_ellipse(0.31, -0.20, 0.16, 0.16), (0.86, 0.10, 0.14), shading=1.0)
    brush.fill(_ellipse(0.36, -0.23, 0.062, 0.062), (1, 1, 1))
    brush.fill(_ellipse(0.375, -0.23, 0.032, 0.032), (0, 0, 0))


def _boat(brush: _Brush) -> None:
    rng = brush.thing.rng
    bulge, lean = rng.uniform(0.05, 0.22), rng.normal(0, 0.04)
    brush.stroke([(0.02, 0.22), (0.02 + lean, -0.60)], 0.03, (0.30, 0.20, 0.12))
    sail = np.array([(0.0, -0.56), (-0.18 - bulge, -0.16), (-0.40, 0.12), (-0.02, 0.14), (0.0, -0.2)])
    brush.body(_smooth(sail + (lean, 0)))
    jib = np.array([(0.06, -0.46), (0.16 + bulge / 2, -0.12), (0.36, 0.13), (0.07, 0.14)])
    brush.body(_smooth(jib + (lean, 0)), tone=0.9)
    sag = rng.uniform(0.38, 0.46)
    hull = np.array([(-0.50, 0.18), (-0.38, sag - 0.04), (-0.1, sag + 0.02), (0.25, sag), (0.52, 0.16), (0.0, 0.2)])
    brush.body(_smooth(hull, sharp=(0, 4)), tone=0.78)
    centre, ring = (rng.uniform(-0.2, 0.16), 0.29), 0.15
    brush.fill(_ellipse(*centre, ring, ring), (0.97, 0.97, 0.95), shading=0.6)
    for start in (0.0, 0.5, 1.0, 1.5):
        arc = np.linspace(start * np.pi, (start + 0.25) * np.pi, 8)
        outer = np.stack([np.cos(arc), np.sin(arc)], axis=1) * ring + centre
        brush.fill(np.concatenate([outer, (outer - centre)[::-1] * 0.45 + centre]), (0.92, 0.14, 0.10))
    brush.fill(_ellipse(*centre, ring * 0.42, ring * 0.42), (0.20, 0.24, 0.30))


def _car(brush: _Brush) -> None:
    rng = brush.thing.rng
    roof, tall = rng.uniform(-0.26, -0.16), rng.uniform(-0.02, 0.06)
    brush.stroke([(-0.30, roof + 0.12), (-0.40 + rng.normal(0, 0.05), roof - 0.24)], 0.022, (0.12, 0.12, 0.12))
    cabin = np.array([(-0.36, tall + 0.06), (-0.26, roof), (0.10, roof - 0.02), (0.30, tall + 0.06)])
    brush.body(_smooth(cabin, sharp=(0, 3)))
    low = np.array([(-0.52, 0.02), (-0.3, tall), (0.28, tall), (0.5, 0.1), (0.53, 0.28), (0.3, 0.33), (-0.5, 0.32)])
    brush.body(_smooth(low))
    glass = (0.62, 0.74, 0.80)
    brush.fill(np.array([(-0.26, tall + 0.01), (-0.2, roof + 0.07), (-0.05, roof + 0.06), (-0.05, tall + 0.01)]), glass)
    brush.fill(np.array([(0.0, tall + 0.01), (0.0, roof + 0.06), (0.09, roof + 0.06), (0.19, tall + 0.01)]), glass)
    for x in (-0.29, 0.28):
        brush.fill(_ellipse(x, 0.33, 0.135, 0.135), (0.07, 0.07, 0.09))
        brush.fill(_ellipse(x, 0.33, 0.085, 0.085), (0.25, 0.85, 0.95))
        turned = rng.uniform(0, np.pi)
        for spoke in (0.0, np.pi / 2):
            reach = 0.085 * np.array([np.cos(turned + spoke), np.sin(turned + spoke)])
            brush.stroke([(x - reach[0], 0.33 - reach[1]), (x + reach[0], 0.33 + reach[1])], 0.028, (0.07, 0.07, 0.09))


def _sheep(brush: _Brush) -> None:
    rng, dark = brush.thing.rng, (0.13, 0.11, 0.12)
    for x in (-0.30, -0.16, 0.14, 0.27):
        brush.stroke([(x, 0.12), (x + rng.normal(0, 0.035), 0.48)], 0.045, brush.thing.colour * 0.7)
    brush.body(_blob(rng, -0.03, -0.02, 0.42, 0.26, wobble=0.07))
    brush.body(_blob(rng, -0.44, -0.06, 0.08, 0.06))
    for side in (-1, 1):
        brush.fill(_ellipse(0.40 + 0.19 * side, -0.29, 0.10, 0.055), (1.0, 0.25, 0.60))
    brush.fill(_ellipse(0.41, -0.18, 0.16, 0.20), (1, 1, 1), shading=0.5)
    for side in (-1, 1):
        x = 0.41 + 0.078 * side
        brush.stroke([(x, -0.34), (x + 0.01 * side, -0.2), (x - 0.02 * side, -0.04)], 0.085, dark)
        brush.fill(_ellipse(x, -0.23, 0.03, 0.03), (1, 1, 1))
    brush.fill(_ellipse(0.41, -0.05, 0.075, 0.055), (1.0, 0.25, 0.60))


_THINGS: dict[str, Callable[[_Brush], None]] = {
    "beetle": _beetle,
    "bird": _bird,
    "boat": _boat,
    "car": _car,
    "sheep": _sheep,
}


def _stone_or_ball(canvas: _Canvas, horizon: int, rng: np.random.Generator) -> None:
    """A thing of no class: a stone in a body's colour, or a vivid striped ball."""
    height, width = canvas.size
    scale = min(canvas.size) * rng.uniform(0.07, 0.24)
    x, y = rng.uniform(0, width), rng.uniform(horizon, max(horizon + 1, height - scale / 2))
    canvas.shade((x, y + 0.4 * scale), (0.8 * scale, 0.3 * scale), 0.35)
    if rng.random() < 0.6:
        colour = _hsv(rng.uniform(0, 1), rng.uniform(0.05, 0.45), rng.uniform(0.4, 0.9))
        stone = _blob(rng, 0, 0, 0.6 * scale, 0.42 * scale, wobble=0.1) + (x, y)
        canvas.fill(stone, colour, 0, shading=1.3)
        return
    radius = min(0.3 * scale, 9.0)
    first, second = _hsv(rng.uniform(0.4, 0.85), 0.8, 0.9), _hsv(rng.uniform(0, 1), 0.2, 1.0)
    canvas.fill(_ellipse(x, y, radius, radius), first, 0, shading=0.8)
    canvas.fill(_ellipse(x, y, radius * 0.35, radius), second, 0)


def _in_front(canvas: _Canvas, background: str, thing: _Thing, rng: np.random.Generator) -> None:
    """Something of no class that hides a bit of an object: blades, a post, or a stone."""
    height, width = canvas.size
    x = thing.centre[0] + rng.uniform(-0.4, 0.4) * thing.scale
    foot = min(thing.base + rng.uniform(0.0, 0.12) * thing.scale, height + 4)
    if background in ("meadow", "water"):
        for _ in range(rng.integers(5, 11)):
            start = x + rng.normal(0, 0.10 * thing.scale)
            tall, lean = rng.uniform(0.25, 0.65) * thing.scale, rng.normal(0, 0.08) * thing.scale
            blade = np.array([(start, foot), (start + 0.3 * lean, foot - 0.6 * tall), (start + lean, foot - tall)])
            canvas.stroke(blade, rng.uniform(1.2, 2.6), _hsv(rng.uniform(0.2, 0.36), 0.6, rng.uniform(0.3, 0.65)), 0)
    elif background == "road":
        colour = _hsv(rng.uniform(0.05, 0.12), 0.25, rng.uniform(0.45, 0.8))
        canvas.stroke(np.array([(x, foot), (x + rng.normal(0, 2), foot - 0.8 * thing.scale)]), 4.0, colour, 0)
    elif background == "sand":
        colour = _hsv(rng.uniform(0, 1), rng.uniform(0.05, 0.3), rng.uniform(0.4, 0.85))
        radius = rng.uniform(0.10, 0.18) * thing.scale
        canvas.fill(_blob(rng, 0, 0, 1.3 * radius, radius) + (x, foot - 0.1 * thing.scale), colour, 0, shading=1.2)


def _sand(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    height, width = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    colour = _hsv(rng.uniform(0.08, 0.13), rng.uniform(0.25, 0.45), rng.uniform(0.75, 0.92))
    wave = _fractal(size, rng, 3, 4) * 5
    ripples = np.sin((y + x * rng.uniform(-0.5, 0.5)) / rng.uniform(2.0, 3.2) + wave)
    tone = 1 + 0.06 * ripples + 0.10 * _fractal(size, rng, 3, 4) + 0.06 * rng.standard_normal(size)
    image = _toned(colour, tone)
    canvas = _Canvas(image)
    for _ in range(rng.integers(15, 45)):
        radius = rng.uniform(0.6, 2.2)
        place = (rng.uniform(0, width), rng.uniform(0, height))
        grey = _hsv(rng.uniform(0.02, 0.14), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.8))
        canvas.fill(_ellipse(*place, 1.3 * radius, radius), grey, 0)
    return canvas.image, int(0.1 * height)


def _sky(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    height, width = size
    image = _air(size, rng)
    horizon = int(height * rng.uniform(0.78, 1.0))
    if horizon < height - 2:
        image = _below(image, _ridge(width, horizon, 0.03 * height, rng), _hsv(rng.uniform(0.22, 0.4), 0.4, 0.5), rng)
    return image, min(horizon, int(0.85 * height))


def _water(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    height, width = size
    horizon = int(height * rng.uniform(0.18, 0.42))
    image = _air(size, rng)
    if rng.random() < 0.6:
        hills = _hsv(rng.uniform(0.25, 0.6), rng.uniform(0.2, 0.4), rng.uniform(0.4, 0.65))
        image = _below(image, _ridge(width, horizon - 0.06 * height, 0.05 * height, rng), hills, rng)
    y, _ = np.mgrid[:height, :width].astype(np.float32)
    depth = np.clip((y - horizon) / (height - horizon), 0, 1)
    near, far = _hsv(rng.uniform(0.50, 0.60), 0.65, 0.45), _hsv(rng.uniform(0.50, 0.58), 0.40, 0.80)
    ripple = np.sin(14 * np.log1p(6 * depth) * rng.uniform(1.2, 1.8) + 4 * _fractal(size, rng, 4, 3, stretch=3))
    glint = np.clip(_fractal(size, rng, 12, 2, stretch=4) - 1.0, 0, 1)
    sea = far + (near - far) * depth[..., None] ** 0.7
    sea = sea * (1 + 0.13 * ripple + 0.05 * rng.standard_normal(size))[..., None] + 0.5 * glint[..., None]
    return np.where((y >= horizon)[..., None], np.clip(sea, 0, 1), image).astype(np.float32), horizon


def _road(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    height, width = size
    horizon = int(height * rng.uniform(0.15, 0.38))
    image = _air(size, rng)
    verge = _hsv(rng.uniform(0.12, 0.34), rng.uniform(0.25, 0.5), rng.uniform(0.45, 0.65))
    image = _below(image, _ridge(width, horizon, 0.04 * height, rng), verge, rng, rough=0.16)
    canvas = _Canvas(image)
    if rng.random() < 0.7:
        for x in np.arange(rng.uniform(0, 30), width, rng.uniform(22, 40)):
            tall = rng.uniform(0.10, 0.2) * height
            canvas.stroke(np.array([(x, horizon + 2), (x, horizon - tall)]), 1.6, np.array((0.35, 0.3, 0.27)), 0)
    top = horizon + 0.08 * height
    slope = rng.normal(0, 0.06) * height
    edge = np.array([(0, top - slope), (width, top + slope), (width, height), (0, height)])
    grey = rng.uniform(0.34, 0.52)
    asphalt = _toned(np.full(3, grey), 1 + 0.13 * rng.standard_normal(size) + 0.08 * _fractal(size, rng, 4, 3))
    cover = np.zeros(size, dtype=np.uint8)
    cv2.fillPoly(cover, [np.round(edge).astype(np.int32)], 1)
    image = np.where(cover[..., None] > 0, asphalt, canvas.image)
    canvas = _Canvas(image.astype(np.float32))
    middle, dash = top + rng.uniform(0.3, 0.7) * (height - top), rng.uniform(14, 24)
    for x in np.arange(-rng.uniform(0, 20), width, 2 * dash):
        y = middle + slope * (2 * x / width - 1)
        line = np.array([(x, y), (x + dash, y), (x + dash - 2, y + 4), (x - 2, y + 4)])
        canvas.fill(line, np.array((0.88, 0.87, 0.80)), 0)
    return canvas.image, int(top)


def _meadow(size: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
    height, width = size
    horizon = int(height * rng.uniform(0.12, 0.38))
    image = _air(size, rng)
    hill = _hsv(rng.uniform(0.25, 0.45), 0.35, rng.uniform(0.45, 0.65))
    image = _below(image, _ridge(width, horizon - 0.04 * height, 0.06 * height, rng), hill, rng)
    grass = _hsv(rng.uniform(0.20, 0.33), rng.uniform(0.45, 0.65), rng.uniform(0.50, 0.68))
    image = _below(image, _ridge(width, horizon, 0.02 * height, rng), grass, rng, rough=0.12)
    canvas = _Canvas(image)
    for _ in range(rng.integers(120, 220)):
        y = horizon + (height - horizon) * np.sqrt(rng.uniform(0.02, 1))
        x, tall = rng.uniform(0, width), 2 + 9 * (y - horizon) / height
        tone = rng.uniform(0.65, 1.3)
        start, end = (int(x), int(y)), (int(x + rng.normal(0, 2)), int(y - tall))
        cv2.line(canvas.image, start, end, tuple(np.clip(grass * tone, 0, 1).tolist()), 1, cv2.LINE_AA)
    for _ in range(rng.integers(0, 14)):
        y = rng.uniform(horizon + 0.1 * height, height)
        radius = 0.7 + 1.3 * (y - horizon) / height
        canvas.fill(_ellipse(rng.uniform(0, width), y, radius, radius), _hsv(rng.choice((0.0, 0.15, 0.8)), 0.4, 1.0), 0)
    return canvas.image, horizon


_BACKGROUNDS: dict[str, Callable[[tuple[int, int], np.random.Generator], tuple[np.ndarray, int]]] = {
    "sand": _sand,
    "sky": _sky,
    "water": _water,
    "road": _road,
    "meadow": _meadow,
}


def _air(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Sky with clouds, float32 [H, W, 3]."""
    y = np.linspace(0, 1, size[0], dtype=np.float32)[:, None, None]
    top, bottom = (
        _hsv(rng.uniform(0.54, 0.62), rng.uniform(0.35, 0.65), rng.uniform(0.70, 0.95)),
        np.array((0.9, 0.93, 1)),
    )
    blue = top + (bottom - top) * y * rng.uniform(0.5, 1)
    thick = _fractal(size, rng, 2, 5, stretch=1.8)
    clouds = np.clip((thick - rng.uniform(-0.2, 0.9)) * 1.6, 0, 1)[..., None] * rng.uniform(0.6, 0.95)
    white = (0.97 - 0.12 * np.clip(_fractal(size, rng, 4, 3), 0, 1))[..., None]
    return np.clip(blue + (white - blue) * clouds, 0, 1).astype(np.float32)


def _below(
    image: np.ndarray, ridge: np.ndarray, colour: np.ndarray, rng: np.random.Generator, rough: float = 0.07
) -> np.ndarray:
    """Fill everything below a ridge line with rough ground."""
    size = image.shape[:2]
    tone = 1 + rough * rng.standard_normal(size) + 1.2 * rough * _fractal(size, rng, 4, 4)
    cover = np.clip(np.arange(size[0])[:, None] - ridge[None] + 0.5, 0, 1)[..., None]
    return (image + (_toned(colour, tone) - image) * cover).astype(np.float32)


def _ridge(width: int, height: float, swing: float, rng: np.random.Generator) -> np.ndarray:
    x = np.linspace(0, 2 * np.pi, width)
    phases = rng.uniform(0, 2 * np.pi, 3)
    return height + swing * sum(np.sin((k + 0.5) * x + phase) / (k + 1) for k, phase in enumerate(phases))


def _toned(colour: np.ndarray, tone: np.ndarray) -> np.ndarray:
    return np.clip(colour * tone[..., None], 0, 1).astype(np.float32)


def _fractal(
    size: tuple[int, int], rng: np.random.Generator, cells: int, octaves: int, stretch: float = 1.0
) -> np.ndarray:
    """Smooth noise of about zero mean and unit spread, float32 [H, W]; `stretch` draws it out sideways."""
    total = np.zeros(size, dtype=np.float32)
    for octave in range(octaves):
        rows = cells * 2**octave + 2
        grid = rng.standard_normal((rows, max(3, int(rows / stretch)))).astype(np.float32)
        total += cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
    return total * 1.1


def _photographed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, colour cast, blur and noise of a photograph; uint8."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.22) * (x * np.cos(angle) + y * np.sin(angle)) - 0.07 * (x**2 + y**2)
    warm = rng.normal(0, 0.05)
    cast = np.array([1 + warm, 1.0, 1 - warm]) * rng.uniform(0.78, 1.12)
    image = np.clip(image * light[..., None] * cast, 0, 1) ** rng.uniform(0.85, 1.2)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.7))
    image = image + rng.uniform(0.008, 0.035) * rng.standard_normal(image.shape)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB of a hue in turns, saturation and value."""
    distance = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return value * (1 - saturation + saturation * np.clip(distance, 0, 1))


def _ellipse(x: float, y: float, a: float, b: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + a * np.cos(angle), y + b * np.sin(angle)], axis=1)


def _blob(rng: np.random.Generator, x: float, y: float, a: float, b: float, wobble: float = 0.05) -> np.ndarray:
    """An ellipse out of shape."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones_like(angle)
    for k in (2, 3, 4, 5):
        radius += rng.normal(0, wobble / np.sqrt(k - 1)) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return np.stack([x + a * radius * np.cos(angle), y + b * radius * np.sin(angle)], axis=1)


def _smooth(points: np.ndarray, sharp: Sequence[int] = ()) -> np.ndarray:
    """Closed polygon with its corners rounded off, except those named by number."""
    repeated = np.repeat(points, [3 if i in sharp else 1 for i in range(len(points))], axis=0)
    for _ in range(3):
        following = np.roll(repeated, -1, axis=0)
        repeated = np.stack([0.75 * repeated + 0.25 * following, 0.25 * repeated + 0.75 * following], 1).reshape(-1, 2)
    return repeated
