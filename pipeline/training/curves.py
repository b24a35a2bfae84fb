"""The curves of a run as one SVG file: losses above, the dev score below. Figures only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

Points = list[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 640, 200, 56, 34, 66
_RIGHT = 20
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#55615e}.title{font-weight:600;fill:#1b2422}.grid{stroke:#dde2df}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}.train{stroke:#1c6b63}.dev{stroke:#c98b1e}circle.dev{fill:#c98b1e;stroke:none}"
    "text.train{fill:#1c6b63;stroke:none}text.dev{fill:#8a5d0c;stroke:none}"
)


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line. `kind`: train or dev, which decides the colour; dev has a dot at each point."""

    name: str
    kind: str
    points: Points


def draw_curves(log: Sequence[Mapping[str, Any]]) -> str:
    """The SVG of a run's log lines."""
    panels = [("Loss per target token", _losses(log)), ("ROUGE of the dev set, F1 in percent", _scores(log))]
    shown = [(title, curves) for title, curves in panels if any(curve.points for curve in curves)]
    last = max((float(line["step"]) for line in log), default=1.0)
    parts = [_panel(title, curves, last, _TOP + i * (_HEIGHT + _GAP)) for i, (title, curves) in enumerate(shown)]
    height = _TOP + max(len(shown), 1) * (_HEIGHT + _GAP) - 10
    width = _LEFT + _WIDTH + _RIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Curves of a training run"><style>{_STYLE}</style><rect width="{width}" height="{height}" fill="#ffffff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _losses(log: Sequence[Mapping[str, Any]]) -> list[Curve]:
    train = [(float(line["step"]), float(line["loss"])) for line in log if "loss" in line]
    return [Curve("training", "train", train), Curve("dev", "dev", _looks(log, "loss"))]


def _scores(log: Sequence[Mapping[str, Any]]) -> list[Curve]:
    return [Curve("ROUGE-1", "train", _looks(log, "rouge1")), Curve("ROUGE-2", "dev", _looks(log, "rouge2"))]


def _looks(log: Sequence[Mapping[str, Any]], name: str) -> Points:
    return [(float(line["step"]), float(line["look"][name])) for line in log if name in line.get("look", {})]


def _panel(title: str, curves: Sequence[Curve], last: float, top: float) -> str:
    values = [y for curve in curves for _, y in curve.points]
    ticks = round_ticks(min(values), max(values))

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * x / last, top + _HEIGHT * (1 - (y - ticks[0]) / (ticks[-1] - ticks[0]))

    drawn = [f'<text class="title" x="{_LEFT}" y="{top - 14:g}">{title}</text>']
    for tick in ticks:
        _, y = place(0, tick)
        drawn.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_LEFT + _WIDTH}"/>')
        drawn.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in round_ticks(0, last):
        if tick <= last:
            x, _ = place(tick, ticks[0])
            drawn.append(f'<text x="{x:.1f}" y="{top + _HEIGHT + 17:g}" text-anchor="middle">{tick:g}</text>')
    drawn.append(f'<text x="{_LEFT + _WIDTH}" y="{top + _HEIGHT + 33:g}" text-anchor="end">steps</text>')
    drawn += [_curve(curve, [place(*point) for point in curve.points]) for curve in curves if curve.points]
    drawn += _legend([curve for curve in curves if curve.points], top)
    return "".join(drawn)


def _curve(curve: Curve, places: Points) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dots = "".join(f'<circle class="{curve.kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in places) if curve.kind == "dev" else ""
    return f'<path class="line {curve.kind}" d="M{path}"/>{dots}'


def _legend(curves: Sequence[Curve], top: float) -> list[str]:
    places = range(_LEFT + _WIDTH, 0, -90)
    return [
        f'<text class="{curve.kind}" x="{x}" y="{top - 14:g}" text-anchor="end">{curve.name}</text>'
        for x, curve in zip(places, reversed(curves), strict=False)
    ]


def round_ticks(low: float, high: float) -> list[float]:
    """Three to eight round numbers, evenly spaced, from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 5
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
