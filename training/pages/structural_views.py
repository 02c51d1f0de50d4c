"""Structural redundancy for people: a sentence, a table and charts, for terminal, report and a page of its own."""

from __future__ import annotations

from itertools import pairwise
from math import log10
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from training.console import text_table
from training.pages.charts import Line, line_chart
from training.structural.structure import ALLOWED_LOSS, METHODS, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup
    from rich.table import Table

    from training.structural.structure import Point

MODEL_NAMES: Final = {"fused": "Fused", "plain": "Plain tower", "tuned": "Tuned DNN"}
"""Models of `analyze-structure`, and of `benchmarks.redundancy` beside them, as people read them."""

DEEPEST: Final = 0.01
"""Loss of AUC down to which a curve is drawn: beyond, the model is broken, and the rest too flat to see."""

TABLE_SHARES: Final = (0.9, 0.75, 0.5, 0.25, 0.1)

ABOUT: Final = (
    "Dense parameters (projections of the fields included, tables not) are taken out without retraining, and what goes "
    "is replaced by its mean, a unit by its regression on those kept. Weights go by the loss expected without them; "
    "singular values are a layer's between its data and its derivatives; units go by what the others do not tell. "
    "Importance comes from training rows, the loss of AUC from validation rows; shaded: 95% of paired resamples."
)


def environment() -> Environment:
    """Of the package's templates: everything is escaped, and an undefined name is an error."""
    return Environment(
        loader=PackageLoader("training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def headline(structure: Structure) -> str:
    """The one sentence that matters."""
    method, share = structure.most_removable()
    left = structure.parameters - round(share * structure.parameters)
    return (
        f"{share:.0%} of {structure.parameters:,} dense parameters can go at a loss of at most {ALLOWED_LOSS:g} AUC "
        f"(by {METHODS[method]}; {structure.removable(method, surely=True):.0%} with confidence), which leaves {left:,}"
    )


def shape(structure: Structure) -> str:
    """The layers, as "390 to 400-400-400"."""
    first, *hidden = structure.widths
    return f"{first} to {'-'.join(map(str, hidden))}"


def structure_rows(models: Mapping[str, Structure]) -> list[list[str]]:
    """Model, method, share that can go, share that can surely go, parameters left, and changes at fixed shares."""
    rows = []
    for model, structure in models.items():
        for method in structure.curves:
            share = structure.removable(method)
            rows.append(
                [
                    MODEL_NAMES[model],
                    METHODS[method],
                    f"{share:.1%}",
                    f"{structure.removable(method, surely=True):.1%}",
                    f"{structure.parameters - round(share * structure.parameters):,}",
                    *(_change_at(structure.curves[method], left) for left in TABLE_SHARES),
                ]
            )
    return rows


HEADS: Final = (
    "model",
    "taken out",
    "can go",
    "surely",
    "left",
    *(f"AUC at {left:.0%}" for left in TABLE_SHARES),
)


def _change_at(points: Sequence[Point], left: float) -> str:
    """The change of AUC at a share left, between the points on both sides; a dash beyond the last point."""
    for above, below in pairwise(points):
        if below.left <= left:
            part = (above.left - left) / (above.left - below.left)
            return f"{above.auc_change + part * (below.auc_change - above.auc_change):+.4f}"
    return "–"


def structure_tables(found: Mapping[str, Any]) -> list[Table | str]:
    """What `analyze_structure` found, for the terminal."""
    models = {name: Structure.from_json(content) for name, content in found["models"].items()}
    lines: list[Table | str] = [
        text_table(
            f"What the dense layers can lose ({ALLOWED_LOSS:g} AUC allowed; AUC at a share left)",
            HEADS,
            structure_rows(models),
            left=(0, 1),
        )
    ]
    for name, structure in models.items():
        lines.append(
            f"{MODEL_NAMES[name]} ({shape(structure)}; AUC {structure.auc:.4f}, log loss {structure.log_loss:.4f} on "
            f"{structure.rows:,} validation rows): {headline(structure)}"
        )
    return lines


def structure_charts(structure: Structure) -> list[Markup]:
    """Change of AUC and of log loss by the share taken out, a curve a method."""
    charts = []
    for key, label in (("auc", "change of AUC"), ("log_loss", "change of log loss")):
        lines = [
            Line(METHODS[method], (tuple(points),), tuple(area))
            for method, curve in structure.curves.items()
            for points, area in (_drawn(curve, key),)
        ]
        charts.append(
            line_chart(
                lines,
                title=f"{label} by dense parameters taken out",
                x_label="dense parameters taken out, %",
                y_label=label,
            )
        )
    return charts


def _drawn(curve: Sequence[Point], key: str) -> tuple[list[tuple[float, float]], list[tuple[float, float, float]]]:
    """A curve as far as it is worth drawing: (% taken out, change) and (% taken out, low, high)."""
    points: list[tuple[float, float]] = []
    area: list[tuple[float, float, float]] = []
    for place, point in enumerate(curve):
        out, change = 100.0 * (1.0 - point.left), float(getattr(point, f"{key}_change"))
        if point.auc_change < -DEEPEST:
            before = curve[place - 1]
            part = (before.auc_change + DEEPEST) / (before.auc_change - point.auc_change)
            start = float(getattr(before, f"{key}_change"))
            points.append((points[-1][0] + part * (out - points[-1][0]), start + part * (change - start)))
            break
        points.append((out, change))
        area.append((out, float(getattr(point, f"{key}_low")), float(getattr(point, f"{key}_high"))))
    return points, area


def size_chart(models: Mapping[str, Structure]) -> Markup:
    """AUC by the dense parameters left (a logarithmic scale): every model thinned in the way that suits it best."""
    lines = []
    for name, structure in models.items():
        method, _ = structure.most_removable()
        points = [
            (log10(max(point.parameters, 1)), structure.auc + point.auc_change)
            for point in structure.curves[method]
            if point.auc_change >= -DEEPEST
        ]
        lines.append(Line(f"{MODEL_NAMES[name]}, by {METHODS[method]}", (tuple(points[::-1]),)))
    return line_chart(
        lines,
        title="validation AUC by dense parameters left",
        x_label="dense parameters left, as a power of ten",
        y_label="validation AUC",
    )


def structure_page(found: Mapping[str, Any], title: str) -> str:
    """A page of its own, as HTML that needs no network: every model's curves, and all of them by size."""
    models = {name: Structure.from_json(content) for name, content in found["models"].items()}
    parts = [
        {
            "name": f"{MODEL_NAMES[name]}: {shape(structure)}",
            "headline": headline(structure),
            "measured": f"AUC {structure.auc:.4f}, log loss {structure.log_loss:.4f} on {structure.rows:,} rows",
            "charts": structure_charts(structure),
        }
        for name, structure in models.items()
    ]
    page = {
        "title": f"{title}: what the dense layers can lose",
        "subtitle": f"run {found['run']}",
        "about": ABOUT,
        "models": parts,
        "by_size": size_chart(models) if len(models) > 1 else "",
        "heads": HEADS,
        "rows": structure_rows(models),
    }
    return environment().get_template("structure.html.j2").render(page)
