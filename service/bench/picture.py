"""What a bench says, as a picture: percentiles of the latency against the load."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from service.bench.report import write_whole
from service.bench.search import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from service.bench.report import Rate, Report

__all__ = ["draw"]

_MS = 1e3
# Colours that stay apart in every common form of colour blindness (Okabe and Ito, 2008).
_LINES = {"max": "#999999", "p999": "#D55E00", "p99": "#0072B2", "p50": "#009E73"}
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}
_NAMES = {"max": "max", "p999": "p99.9", "p99": "p99", "p50": "p50"}


def draw(report: Report, path: Path) -> None:
    """Draw the curve; the ending of the path (.svg, .png, .pdf) is the format.

    Raises:
        ValueError: The format is not known.
        OSError: It cannot be written; what was there before is there still.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - of the extra: not for serving
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = [rate for rate in report.rates if rate.requests]
    usable = [r for r in drawn if r.verdict is not Verdict.GENERATOR_BOUND and not r.overloaded]
    over = [r for r in drawn if r.verdict is not Verdict.GENERATOR_BOUND and r.overloaded]
    bound = [r for r in drawn if r.verdict is Verdict.GENERATOR_BOUND]
    for name, colour in _LINES.items():
        width = 2.2 if name == "p99" else 1.2
        axes.plot(*_line(usable, name), color=colour, linewidth=width, marker="o", markersize=3.5, label=_NAMES[name])
    low, high = zip(*(rate.p99_range for rate in usable), strict=True) if usable else ((), ())
    axes.fill_between(
        [rate.rate for rate in usable],
        [value * _MS for value in low],
        [value * _MS for value in high],
        color=_LINES["p99"],
        alpha=0.15,
        linewidth=0,
        label="p99 of single runs",
    )
    if over:
        rates, tails = _line(over, "p99")
        axes.plot(rates, tails, "^", color=_LINES["p99"], markersize=7, label="p99 at least, overloaded")
    if bound:
        rates, tails = _line(bound, "p99")
        axes.plot(rates, tails, "x", color="#CC79A7", markersize=8, label="p99, generator-bound")
    axes.axhline(report.objective_p99 * _MS, color="black", linewidth=1, linestyle="--")
    axes.annotate(
        f"objective: p99 <= {report.objective_p99 * _MS:g} ms",
        (0.99, report.objective_p99 * _MS),
        xycoords=("axes fraction", "data"),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        fontsize=9,
        bbox=_PAPER,
    )
    axes.set_yscale("log")
    widest = max((rate.rate for rate in drawn), default=1.0)
    axes.set_xlim(0, 1.08 * widest)
    _mark_answer(report, axes, widest)
    axes.set_xlabel("offered load, requests/s (Poisson arrivals)")
    axes.set_ylabel("latency from the intended send time, ms")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    shape = f", {report.load.candidates} candidates" if report.load.candidates is not None else ""
    axes.set_title(f"{report.load.url}: {report.load.form}{shape}", fontsize=11)
    axes.grid(visible=True, which="both", color="#DDDDDD", linewidth=0.5)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    drawing = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    figure.savefig(drawing, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, drawing.getvalue())


def _line(rates: list[Rate], name: str) -> tuple[list[float], list[float]]:
    return [rate.rate for rate in rates], [getattr(rate.latency, name) * _MS for rate in rates]


def _mark_answer(report: Report, axes: Axes, widest: float) -> None:
    answer = report.answer
    if answer is None or answer.rate is None:
        return
    least = "" if answer.limited_by == "objective" else "at least "
    right = answer.rate > widest / 3  # else there is no room before the line
    axes.axvline(answer.rate, color="black", linewidth=1, linestyle=":")
    axes.annotate(
        f"{least}{answer.rate:,.0f}/s",
        (answer.rate, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if right else 5, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top",
        fontsize=9,
        bbox=_PAPER,
    )
