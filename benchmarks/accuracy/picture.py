"""`accuracy.png`: AUC against latency and against parameters, a row of two pictures a task; up and left is better."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

OURS: Final = "REACTION"
OUTSIDE: Final = "LightGBM"
"""Has neither parameters nor latency to be compared by: a line across."""

SIZE: Final = "100"
_COLOURS: Final = {True: "#c0392b", False: "#34495e"}
_ROOM: Final = 4.0  # pixels by which a name is nearer to its own mark than to any other
_SIDES: Final[dict[int, Literal["left", "center", "right"]]] = {1: "left", 0: "center", -1: "right"}
_HEIGHTS: Final[dict[int, Literal["bottom", "center", "top"]]] = {1: "bottom", 0: "center", -1: "top"}
_REACH: Final = (9, 16, 26, 38, 52)  # points from a mark to its label
_DIRECTIONS: Final = ((1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (-1, 0))


def draw(document: Mapping[str, Any], path: Path) -> bool:
    """Write the picture.

    Args:
        document: What `summary.summarise` gives.
        path: A .png file.

    Returns:
        Whether there was anything to draw.
    """
    rows = [row for row in document["rows"] if row["test_auc_mean"] is not None]
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    if not tasks:
        return False
    figure, grid = plt.subplots(len(tasks), 2, figsize=(13, 4.6 * len(tasks)), squeeze=False, layout="constrained")
    for task, axes in zip(tasks, grid, strict=True):
        own = [row for row in rows if row["task"] == task]
        title = f"{own[0]['dataset']}, {own[0]['split']} split"
        latency = [((row["latency_net_us"] or {}).get(SIZE), row) for row in own]
        _panel(axes[0], latency, title, f"net latency at {SIZE} candidates, one thread, µs")
        _panel(axes[1], [(row["parameters_inference"], row) for row in own], title, "parameters at inference")
    figure.canvas.draw()
    for axes in grid.ravel():
        _label(axes)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats: none has less of the first and at least as much of the second."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] > points[kept[-1]][1]:
            kept.append(i)
    return kept


def _panel(axes: Axes, pairs: Sequence[tuple[float | None, Mapping[str, Any]]], title: str, what: str) -> None:
    drawn = [(x, row) for x, row in pairs if x is not None and x > 0]
    axes.set(title=title, xlabel=what, ylabel="test AUC")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(0.16, 0.16)
    if not drawn:
        axes.set(xlim=(1, 10), xticks=[], yticks=[])
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center")
        return
    points = [(x, row["test_auc_mean"]) for x, row in drawn]
    if len(points) == 1:  # of one point matplotlib makes axes of no width
        ((x, y),) = points
        axes.set(xlim=(x / 10, x * 10), ylim=(y - 0.01, y + 0.01))
    for row in (row for _, row in pairs if row["model"] == OUTSIDE):
        axes.axhline(row["test_auc_mean"], color="#7d8b4f", linewidth=1, linestyle="--", zorder=1, label=OUTSIDE)
        axes.legend(loc="lower right", fontsize=8, frameon=False)
    best = [points[i] for i in front(points)]
    axes.plot(
        [x for x, _ in best], [y for _, y in best], color="#bbbbbb", linewidth=1, zorder=1, drawstyle="steps-post"
    )
    for (x, y), (_, row) in zip(points, drawn, strict=True):
        ours = row["model"] == OURS
        shape = "D" if ours else "o"
        size = 7.0 if ours else 5.5
        spread = row["test_auc_std"] or 0.0
        axes.errorbar(x, y, yerr=spread, capsize=2, elinewidth=0.8, color=_COLOURS[ours], linestyle="")
        axes.plot(x, y, shape, color=_COLOURS[ours], markersize=size, gid=row["model"])


def _label(axes: Axes) -> None:
    """Write each model's name beside its mark, where it covers no mark and no other name."""
    marks = [line for line in axes.lines if line.get_gid()]
    places = [axes.transData.transform(np.ravel(line.get_xydata())) for line in marks]
    taken: list[Bbox] = []
    for line, place in zip(marks, places, strict=True):
        others = [other for other in places if other is not place]
        for reach, (right, up) in product(_REACH, _DIRECTIONS):
            text = _name(axes, line, right * reach, up * reach, tied=reach > _REACH[1])
            box = text.get_window_extent()
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            near = _distance(box, place) + _ROOM
            if inside and not any(box.overlaps(o) for o in taken) and all(_distance(box, o) > near for o in others):
                break
            text.remove()
        else:
            box = _name(axes, line, 9, 0, tied=False).get_window_extent()
        taken.append(box)


def _name(axes: Axes, line: Line2D, right: float, up: float, *, tied: bool) -> Annotation:
    return axes.annotate(
        str(line.get_gid()),
        (float(np.ravel(line.get_xdata())[0]), float(np.ravel(line.get_ydata())[0])),
        (right, up),
        textcoords="offset points",
        ha=_SIDES[int(np.sign(right))],
        va=_HEIGHTS[int(np.sign(up))],
        fontsize=9,
        color=line.get_color(),
        fontweight="bold" if line.get_gid() == OURS else "normal",
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6} if tied else None,
    )


def _distance(box: Bbox, point: np.ndarray) -> float:
    """Pixels from a point to the nearest of a box."""
    x, y = point
    return float(np.hypot(max(box.x0 - x, 0.0, x - box.x1), max(box.y0 - y, 0.0, y - box.y1)))
