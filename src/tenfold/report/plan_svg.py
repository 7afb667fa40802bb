"""Static pictures of a plan: what each GPU's memory would hold, and dollars against hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup

from tenfold.inert import printable

WIDTH = 760.0
_LABEL_WIDTH, _PITCH, _BAR = 190.0, 26.0, 14.0
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 64.0, 16.0, 12.0, 44.0, 320.0


@dataclass(frozen=True)
class Stack:
    """One machine's memory: its size, and what is in it by kind, in the order of `kinds`."""

    label: str
    size_bytes: float
    parts_bytes: tuple[float, ...]
    chosen: bool


@dataclass(frozen=True)
class Spot:
    """One way at its hours and dollars."""

    hours: float
    usd: float
    label: str
    chosen: bool


def memory_svg(stacks: Sequence[Stack]) -> Markup:
    """For each machine a bar of its memory on one scale, filled by what the cheapest way on it would hold."""
    largest = max((stack.size_bytes for stack in stacks), default=1.0)
    scale = (WIDTH - _LABEL_WIDTH - 96) / largest
    parts: list[Markup] = []
    for number, stack in enumerate(stacks):
        y = number * _PITCH
        weight = "bar-label own" if stack.chosen else "bar-label"
        parts.append(_text(0, y + 15, stack.label, weight))
        parts.append(_rect(_LABEL_WIDTH, y + 4, stack.size_bytes * scale, "room"))
        x = _LABEL_WIDTH
        for kind, size in enumerate(stack.parts_bytes):
            parts.append(_rect(x, y + 4, size * scale, f"kind-{kind}"))
            x += size * scale
        used = sum(stack.parts_bytes)
        text = f"{used / 1e9:,.1f} of {stack.size_bytes / 1e9:,.0f} GB"
        parts.append(_text(_LABEL_WIDTH + stack.size_bytes * scale + 8, y + 15, text, "axis"))
    return _svg("memory by machine", WIDTH, max(1, len(stacks)) * _PITCH, parts)


def trade_svg(spots: Sequence[Spot], front: Sequence[Spot]) -> Markup:
    """Dollars over hours, both on logarithmic axes; the front as a line, the chosen way marked."""
    every = [*spots, *front]
    if not every:
        return Markup("")
    across = _Axis.of([spot.hours for spot in every], _LEFT, WIDTH - _RIGHT)
    up = _Axis.of([spot.usd for spot in every], _HEIGHT - _BOTTOM, _TOP)
    parts: list[Markup] = []
    for level in up.levels:
        line = '<line x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        parts.append(Markup(line).format(_LEFT, WIDTH - _RIGHT, y=up.place(level)))
        parts.append(_text(_LEFT - 8, up.place(level) + 4, f"${level:,.{_decimals(level)}f}", "axis end"))
    for level in across.levels:
        line = '<line x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}" class="grid"/>'
        parts.append(Markup(line).format(_TOP, _HEIGHT - _BOTTOM, x=across.place(level)))
        parts.append(_text(across.place(level), _HEIGHT - 24, f"{level:,.{_decimals(level)}f} h", "axis middle"))
    circle = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" class="{}"><title>{}</title></circle>')
    if len(front) > 1:
        placed = " ".join(f"{across.place(spot.hours):.1f},{up.place(spot.usd):.1f}" for spot in front)
        parts.append(Markup('<polyline points="{}" class="smooth"/>').format(placed))
    for spot in every:
        radius, style = ("6", "chosen-spot") if spot.chosen else ("3.5", "spot")
        place = across.place(spot.hours), up.place(spot.usd)
        parts.append(circle.format(*place, radius, style, printable(spot.label)))
        if spot.chosen:
            parts.append(_text(place[0] + 10, place[1] - 8, spot.label, "bar-label own"))
    return _svg("dollars against hours", WIDTH, _HEIGHT, parts)


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis between two places on the page, with round values on it."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = max(min(values), 1e-9), max(*values, 1e-9)
        return cls(low / 1.15, max(high, low * 1.3) * 1.15, start, end)

    def place(self, value: float) -> float:
        share = (log10(max(value, self.low)) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.start + share * (self.end - self.start)

    @property
    def levels(self) -> list[float]:
        """1, 2 and 5 times powers of ten; only the powers where there would be too many."""
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        fine = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        inside = [level for level in fine if self.low <= level <= self.high]
        return inside if len(inside) <= 8 else [level for level in inside if log10(level) % 1 < 1e-9]


def _decimals(level: float) -> int:
    return max(0, -floor(log10(level)))


def _rect(x: float, y: float, width: float, style: str) -> Markup:
    rect = '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>'
    return Markup(rect).format(x, y, max(0.0, width), _BAR, style)


def _text(x: float, y: float, text: str, style: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, style, printable(text))


def _svg(title: str, width: float, height: float, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">').format(width, height, title)
    return head + Markup("").join(parts) + Markup("</svg>")
