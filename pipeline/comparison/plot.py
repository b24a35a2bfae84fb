"""Where everything stands in the plot of cost against quality: scales, ticks, intervals, the front, and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

WIDTH, HEIGHT = 760.0, 440.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 24.0, 20.0, 56.0
_RADIUS = 6.0
# A letter of the labels, 13 units high, is at most about this wide on average.
_LETTER, _LINE = 7.0, 16.0
_LONGEST_LABEL = 34
# Beyond this, equal distances stand for equal ratios.
_RATIO_FOR_LOG = 3.0
_ROOM = 0.08
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Point:
    """One entrant: cost with the least and the most of its turns, quality with its 95 % interval. `passes`: the gate."""

    name: str
    x: float
    x_ends: tuple[float, float]
    y: float
    y_ends: tuple[float, float]
    passes: bool
    on_front: bool


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in drawing units; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Label:
    """A name in the middle of its box. `leader`: whether it stands so far from its point that a line should lead there."""

    text: str
    box: Box
    leader: bool

    @property
    def middle(self) -> float:
        return (self.box.left + self.box.right) / 2

    @property
    def baseline(self) -> float:
        return self.box.bottom - 4

    @property
    def height(self) -> float:
        return (self.box.top + self.box.bottom) / 2

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The place on the box that is nearest to another, where a leader from there ends."""
        return min(max(x, self.box.left), self.box.right), min(max(y, self.box.top), self.box.bottom)


@dataclass(frozen=True, slots=True)
class Mark:
    """A point as it is drawn, in drawing units."""

    point: Point
    x: float
    y: float
    left: float
    right: float
    top: float
    bottom: float
    label: Label


@dataclass(frozen=True, slots=True)
class Plot:
    """All that is drawn. Ticks: (place, text). `front`: an SVG path, empty without a front."""

    marks: tuple[Mark, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    front: str

    width, height = WIDTH, HEIGHT
    frame = Box(_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)


def lay_out(points: Sequence[Point]) -> Plot:
    """The plot of at least one point. Costs must be above 0."""
    ends = [end for point in points for end in (*point.x_ends, point.x)]
    log = max(ends) / min(ends) >= _RATIO_FOR_LOG
    x_scale, x_ticks = _scale(ends, (_LEFT, WIDTH - _RIGHT), log)
    heights = [end for point in points for end in (*point.y_ends, point.y)]
    y_scale, y_ticks = _scale(heights, (HEIGHT - _BOTTOM, _TOP), False)
    front = sorted((x_scale(point.x), y_scale(point.y)) for point in points if point.on_front)
    bodies = [
        Box(x_scale(point.x_ends[0]), y_scale(point.y_ends[1]), x_scale(point.x_ends[1]), y_scale(point.y_ends[0])) for point in points
    ]
    centres = [(x_scale(point.x), y_scale(point.y)) for point in points]
    labels = place_labels([point.name for point in points], centres, [*_obstacles(centres, bodies), *_steps(front)])
    marks = tuple(
        Mark(point, x, y, body.left, body.right, body.top, body.bottom, label)
        for point, (x, y), body, label in zip(points, centres, bodies, labels, strict=True)
    )
    return Plot(marks, x_ticks, y_ticks, _path(front))


def _scale(values: Sequence[float], span: tuple[float, float], log: bool) -> tuple[Callable[[float], float], tuple[tuple[float, str], ...]]:
    """A map of values onto the span, some room left at both ends, and its ticks."""
    forward: Callable[[float], float] = math.log10 if log else float
    low, high = forward(min(values)), forward(max(values))
    room = _ROOM * (high - low) or max(abs(high), 1.0) * _ROOM
    low, high = low - room, high + room

    def place(value: float) -> float:
        return span[0] + (forward(value) - low) / (high - low) * (span[1] - span[0])

    ticks = _log_ticks(low, high) if log else _even_ticks(low, high)
    return place, tuple((place(tick), f"{tick:.10g}") for tick in ticks)


def _even_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, few enough to be read."""
    power = 10.0 ** math.floor(math.log10((high - low) / _MOST_TICKS))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if (high - low) / step <= _MOST_TICKS)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Round multiples of powers of ten between 10**low and 10**high, as fine as leaves few enough to be read."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,)):
        ticks = [digit * 10.0**power for power, digit in product(powers, digits) if low <= math.log10(digit * 10.0**power) <= high]
        if len(ticks) <= _MOST_TICKS:
            return ticks
    return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]


def _obstacles(centres: Sequence[tuple[float, float]], bodies: Sequence[Box]) -> list[Box]:
    """What labels should not cover: the points and their intervals."""
    found = []
    for (x, y), body in zip(centres, bodies, strict=True):
        found += [
            Box(x - _RADIUS - 2, y - _RADIUS - 2, x + _RADIUS + 2, y + _RADIUS + 2),
            Box(x - 4, body.top - 1, x + 4, body.bottom + 1),
            Box(body.left - 1, y - 2, body.right + 1, y + 2),
        ]
    return found


def _steps(front: Sequence[tuple[float, float]]) -> list[Box]:
    """The front's line as thin boxes."""
    found = []
    for (x, y), (to_x, to_y) in zip(front, [*front[1:], (WIDTH - _RIGHT, front[-1][1])] if front else [], strict=True):
        found += [Box(x, y - 1.5, to_x, y + 1.5), Box(to_x - 1.5, min(y, to_y), to_x + 1.5, max(y, to_y))]
    return found


def _path(front: Sequence[tuple[float, float]]) -> str:
    """Steps: for a budget, the best quality that it buys."""
    if not front:
        return ""
    (x, y), *others = front
    return f"M{x:.1f} {y:.1f}" + "".join(f"H{to_x:.1f}V{to_y:.1f}" for to_x, to_y in others) + f"H{WIDTH - _RIGHT:.1f}"


def place_labels(names: Sequence[str], centres: Sequence[tuple[float, float]], obstacles: Sequence[Box]) -> list[Label]:
    """A place for each name near its point, inside the drawing: not on another label, and on points and lines only where all is full."""
    placed: list[Label] = []
    for name, (x, y) in zip(names, centres, strict=True):
        text = name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "…"
        candidates = list(_candidates(text, x, y))

        def burden(label: Label, x: float = x, y: float = y) -> float:
            far = math.hypot(label.middle - x, label.height - y)
            covered = sum(label.box.overlap(box) for box in obstacles)
            on_labels = sum(label.box.overlap(other.box) for other in placed)
            return far + 20 * covered + 1e6 * on_labels

        placed.append(min(candidates, key=burden))
    return placed


def _candidates(text: str, x: float, y: float) -> list[Label]:
    """Boxes around the point, to all sides and ever further away, all inside the drawing."""
    wide = _LETTER * len(text)
    found = []
    for distance, (across, down) in product((12, 20, 32, 48, 68, 92, 120, 152), product((-1.0, -0.5, 0.0, 0.5, 1.0), repeat=2)):
        if abs(across) < 1 and abs(down) < 1:
            continue
        middle, height = x + across * (wide / 2 + distance), y + down * (_LINE / 2 + distance)
        middle = min(max(middle, _LEFT + wide / 2 + 4), WIDTH - _RIGHT - wide / 2)
        height = min(max(height, _TOP + _LINE / 2), HEIGHT - _BOTTOM - _LINE / 2)
        found.append(Label(text, Box(middle - wide / 2, height - _LINE / 2, middle + wide / 2, height + _LINE / 2), distance > 24))
    return found
