"""A receipt as one HTML file: no script, nothing fetched, readable offline, on paper and in ten years.

Every value that the template prints goes through `printable` and is then escaped; only this package's own SVG and
stylesheet are markup. The page's Content-Security-Policy forbids scripts and remote files, should both ever fail.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tenfold.compare import goal_met, inconsistencies
from tenfold.durable import write_file
from tenfold.inert import printable
from tenfold.receipt import CurvePoint, Receipt
from tenfold.report import figures, units
from tenfold.report.headline import tiles, verdict
from tenfold.report.svg import Bar, Series, Tick, bars_svg, curve_svg, forecast_svg, running_mean

# The plan is shown for reading; a longer one is in the receipt itself.
_MOST_PLAN_LINES = 600

# The bold curve is the mean over this share of the logged points.
_SMOOTHED_SHARE = 0.05


def render_html(receipt: Receipt) -> str:
    """The page's text."""
    here = files("tenfold.report")
    page = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_inert, trim_blocks=True, lstrip_blocks=True
    )
    template = page.from_string(here.joinpath("receipt.html.j2").read_text(encoding="utf-8"))
    return template.render(
        receipt=receipt,
        style=Markup(here.joinpath("style.css").read_text(encoding="utf-8")),
        figures=figures,
        units=units,
        tiles=tiles(receipt),
        verdict=verdict(receipt),
        goal=figures.goal_text(receipt, goal_met(receipt)),
        doubts=inconsistencies(receipt),
        comparison_bars=_comparison_bars(receipt),
        forecast_bars=_forecast_bars(receipt),
        curves=_curves(receipt),
        smoothed_points=_smoothed_points(receipt.curve),
        plan=_plan_text(receipt),
    )


def write_html(receipt: Receipt, path: Path) -> None:
    """Write the page to `path`."""
    write_file(path, render_html(receipt))


def _inert(value: object) -> object:
    return value if isinstance(value, Markup) else printable(str(value))


def _comparison_bars(receipt: Receipt) -> list[tuple[str, Markup]]:
    """One picture per quantity that both sides know."""
    pictures: list[tuple[str, Markup]] = []
    for row in figures.comparisons(receipt):
        if row.label == figures.ABOVE_IDLE or row.ours is None or all(other.amount is None for other in row.others):
            continue
        bars = [Bar("this run", row.ours, row.ours_text, ours=True)]
        for other in row.others:
            if other.amount is not None:
                # A peak of memory is read off whatever ran; only time and money grow with the rest of the run.
                peak_was_read = row.unit == "bytes" and other.baseline.how == "extrapolated"
                fraction = 1.0 if peak_was_read else other.baseline.measured_fraction
                bars.append(Bar(other.baseline.kind, other.amount, other.text, ours=False, measured_fraction=fraction))
        pictures.append((row.label, bars_svg(row.label, bars)))
    return pictures


def _forecast_bars(receipt: Receipt) -> Markup:
    both = [
        (row.label, row.predicted, row.measured)
        for row in figures.forecasts(receipt)
        if row.predicted is not None and row.measured is not None
    ]
    return forecast_svg("predicted and measured", both) if both else Markup("")


def _curves(receipt: Receipt) -> list[tuple[str, Markup]]:
    """The loss, then every other metric of the evaluations, over steps and dollars."""
    points, ticks = receipt.curve, _ticks(receipt.curve)
    losses = [(float(point.step), point.loss) for point in points if point.loss is not None]
    width = _smoothed_points(points)
    means = running_mean([loss for _, loss in losses], width)
    smooth = [(step, mean) for (step, _), mean in zip(losses, means, strict=True)]
    series = [Series("training loss", tuple(losses), "raw" if width > 1 else "smooth")]
    series += [Series("mean", tuple(smooth), "smooth")] if width > 1 else []
    evaluated = _metric(points, "loss")
    series += [Series("evaluation loss", evaluated, "evaluated", dots=True)] if evaluated else []
    pictures = [("loss", curve_svg("loss over steps", series, ticks))]
    for name in sorted({name for point in points for name in point.metrics} - {"loss"}):
        curve = Series(name, _metric(points, name), "evaluated", dots=True)
        pictures.append((name, curve_svg(f"{name} over steps", [curve], ticks)))
    return [(name, picture) for name, picture in pictures if picture]


def _metric(points: tuple[CurvePoint, ...], name: str) -> tuple[tuple[float, float], ...]:
    found = ((float(point.step), point.metrics.get(name)) for point in points)
    return tuple((step, value) for step, value in found if value is not None)


def _smoothed_points(points: tuple[CurvePoint, ...]) -> int:
    return max(1, round(len(points) * _SMOOTHED_SHARE))


def _ticks(points: tuple[CurvePoint, ...]) -> list[Tick]:
    """Five logged points, evenly apart, each with its step and what had been spent by then."""
    chosen = sorted({round(number * (len(points) - 1) / 4) for number in range(5)}) if points else []
    return [_tick(points[number]) for number in chosen]


def _tick(point: CurvePoint) -> Tick:
    spent = units.seconds_text(point.seconds) if point.usd is None else units.usd_text(point.usd)
    return Tick(float(point.step), f"step {point.step:,}", spent)


def _plan_text(receipt: Receipt) -> Markup:
    lines = json.dumps(receipt.plan, indent=2, ensure_ascii=False).splitlines()
    shown = [_indented(line) for line in lines[:_MOST_PLAN_LINES]]
    if len(lines) > _MOST_PLAN_LINES:
        shown.append(f"... {len(lines) - _MOST_PLAN_LINES:,} more lines in the receipt")
    return Markup("\n").join(shown)


def _indented(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))] + printable(line)
