"""Static pictures of a receipt: bars and curves as SVG text, coloured by the page's stylesheet.

Coordinates are SVG user units. Every text passes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from markupsafe import Markup

from tenfold.inert import printable

_BAR_WIDTH = 320.0
_BAR_HEIGHT = 10.0
_BAR_PITCH = 46.0

_PLOT_WIDTH, _PLOT_HEIGHT = 760.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 12.0, 44.0

# A curve has at most this many buckets, each drawn from its lowest to its highest value: more than the pixels show.
_MOST_BUCKETS = 360


@dataclass(frozen=True)
class Bar:
    """One horizontal bar; the part of it beyond `measured_fraction` is drawn hatched, as not measured."""

    label: str
    value: float
    text: str
    ours: bool
    measured_fraction: float = 1.0


@dataclass(frozen=True)
class Series:
    """One curve: points (x, y) in order of x; `dots` draws a mark at each point."""

    label: str
    points: tuple[tuple[float, float], ...]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Tick:
    """A place on the horizontal axis, with up to two lines under it."""

    x: float
    first_line: str
    second_line: str = ""


def bars_svg(title: str, bars: Sequence[Bar]) -> Markup:
    """Bars from zero on one common scale, the label above each and its value at the right."""
    largest = max((bar.value for bar in bars), default=0.0) or 1.0
    parts: list[Markup] = []
    for number, bar in enumerate(bars):
        y = number * _BAR_PITCH
        whole = max(1.5, _BAR_WIDTH * bar.value / largest)
        known = whole * bar.measured_fraction
        colour = "ours" if bar.ours else "theirs"
        parts.append(_label(0, y + 15, bar.label, "bar-label"))
        parts.append(_label(_BAR_WIDTH, y + 15, bar.text, "bar-value end"))
        if bar.measured_fraction < 1:
            parts.append(_rect(known, y + 22, whole - known, f"{colour} hatched"))
        if known > 0:
            parts.append(_rect(0, y + 22, known, colour))
    return _svg(title, _BAR_WIDTH, max(1, len(bars)) * _BAR_PITCH - 8, parts)


def forecast_svg(title: str, rows: Sequence[tuple[str, float, float]]) -> Markup:
    """For each row a bar as long as the measurement and an upright mark where the prediction stood."""
    label_width, width, pitch = 150.0, 760.0, 34.0
    parts: list[Markup] = []
    for number, (label, predicted, measured) in enumerate(rows):
        y = number * pitch
        scale = (width - label_width - 6) / (max(predicted, measured) or 1.0)
        parts.append(_label(0, y + 20, label, "bar-label"))
        parts.append(_rect(label_width, y + 10, max(1.5, measured * scale), "ours", height=14))
        x = label_width + predicted * scale
        line = '<line x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}" class="mark"/>'
        parts.append(Markup(line).format(x, y + 5, y + 29))
    return _svg(title, width, len(rows) * pitch + 2, parts)


def curve_svg(title: str, series: Sequence[Series], ticks: Sequence[Tick]) -> Markup:
    """Curves over one horizontal axis, with a grid at round values of y and no zero forced into view."""
    points = [point for each in series for point in each.points]
    if len(points) < 2:
        return Markup("")
    places = [x for x, _ in points] + [tick.x for tick in ticks]
    low_x, high_x = min(places), max(places)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    levels = round_levels(low_y, high_y)
    low_y, high_y = min(low_y, levels[0]), max(high_y, levels[-1])
    decimals = max(0, -floor(log10(levels[1] - levels[0])))

    def place_x(x: float) -> float:
        return _LEFT + (x - low_x) / ((high_x - low_x) or 1.0) * (_PLOT_WIDTH - _LEFT - _RIGHT)

    def place_y(y: float) -> float:
        return _TOP + (high_y - y) / ((high_y - low_y) or 1.0) * (_PLOT_HEIGHT - _TOP - _BOTTOM)

    parts: list[Markup] = []
    for level in levels:
        line = '<line x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        parts.append(Markup(line).format(_LEFT, _PLOT_WIDTH - _RIGHT, y=place_y(level)))
        parts.append(_label(_LEFT - 10, place_y(level) + 4, f"{level:,.{decimals}f}", "axis end"))
    for number, tick in enumerate(ticks):
        anchor = "" if number == 0 else " end" if number == len(ticks) - 1 else " middle"
        parts.append(_label(place_x(tick.x), _PLOT_HEIGHT - 24, tick.first_line, "axis" + anchor))
        parts.append(_label(place_x(tick.x), _PLOT_HEIGHT - 8, tick.second_line, "axis faint" + anchor))
    for each in series:
        placed = [(place_x(x), place_y(y)) for x, y in each.points]
        parts += _dots(placed, each.style) if each.dots else []
        parts.append(_polyline(placed if each.dots else _thinned(placed), each.style))
    return _svg(title, _PLOT_WIDTH, _PLOT_HEIGHT, parts)


def round_levels(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round values (1, 2 or 5 times a power of ten) that enclose low to high."""
    span = (high - low) or abs(high) or 1.0
    rough = span / wanted
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = floor(low / step), ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of the last `width` values at each place, of fewer at the start."""
    means: list[float] = []
    total = 0.0
    for number, value in enumerate(values):
        total += value - (values[number - width] if number >= width else 0.0)
        means.append(total / min(number + 1, width))
    return means


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The lowest and highest point of each bucket, in order: no spike is lost, and no page is a hundred megabytes."""
    if len(points) <= 2 * _MOST_BUCKETS:
        return list(points)
    edges = [round(number * len(points) / _MOST_BUCKETS) for number in range(_MOST_BUCKETS + 1)]
    kept: list[tuple[float, float]] = []
    for start, end in pairwise(edges):
        bucket = points[start:end]
        extremes = {min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])}
        kept += sorted(extremes)
    return kept


def _polyline(points: Sequence[tuple[float, float]], style: str) -> Markup:
    placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline points="{}" class="{}"/>').format(placed, style)


def _dots(points: Sequence[tuple[float, float]], style: str) -> list[Markup]:
    circle = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5" class="{}"/>')
    return [circle.format(x, y, f"{style}-dot") for x, y in points]


def _rect(x: float, y: float, width: float, style: str, height: float = _BAR_HEIGHT) -> Markup:
    rect = '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2" class="{}"/>'
    return Markup(rect).format(x, y, width, height, style)


def _label(x: float, y: float, text: str, style: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, style, printable(text))


def _svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(
        width, height, printable(title)
    )
    return head + Markup("").join(parts) + Markup("</svg>")
