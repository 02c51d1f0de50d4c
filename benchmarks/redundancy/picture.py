"""One picture: a row a task, left what the first fields carry, right AUC by the dense parameters left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.pages.structural_views import DEEPEST, MODEL_NAMES
from training.structural.structure import METHODS, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STYLES = {"magnitude": ":", "magnitude_by_layer": "-.", "rank": "--", "units": "-"}
COLOURS = {"fused": "#2459c8", "plain": "#d3650a", "tuned": "#4b8b3b"}


def draw(tasks: Mapping[str, Any], to: Path) -> None:
    """Draw the tasks that were measured; nothing where none was."""
    if not tasks:
        return
    import matplotlib as mpl  # noqa: PLC0415 - of an extra

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, grid = plt.subplots(len(tasks), 2, figsize=(12, 3.6 * len(tasks)), squeeze=False, layout="constrained")
    for (name, task), (left, right) in zip(tasks.items(), grid, strict=True):
        order = task["fields"]["carried"]
        counts = range(len(order["names"]) + 1)
        left.plot(counts, [0, *(100 * share for share in order["information"])], color="#2459c8", label="information")
        left.plot(
            counts, [0, *(100 * share for share in order["parameters"])], color="#d3650a", label="embedding parameters"
        )
        left.axhline(99, color="#999999", linewidth=0.7, linestyle=":")
        left.set(xlabel="fields, by what each adds", ylabel="% of all", title=f"{name}: what the first fields carry")
        left.legend(frameon=False, loc="lower right")
        for model, content in ({} if task["layers"] is None else task["layers"]["models"]).items():
            structure = Structure.from_json(content)
            for method, curve in structure.curves.items():
                points = [point for point in curve if point.auc_change >= -DEEPEST]
                right.plot(
                    [point.parameters for point in points],
                    [structure.auc + point.auc_change for point in points],
                    STYLES[method],
                    color=COLOURS[model],
                    label=f"{MODEL_NAMES[model]}: {METHODS[method]}",
                )
        right.set(
            xscale="log",
            xlabel="dense parameters left",
            ylabel="validation AUC",
            title=f"{name}: dense layers thinned out",
        )
        if right.lines:
            right.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        if task["layers"] is None:
            right.set_axis_off()
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#eeeeee")
    figure.savefig(to, dpi=110, metadata={"Software": None})
    plt.close(figure)
