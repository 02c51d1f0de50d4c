"""`report.html`: a run on one page that needs no network: what AFE found, what DTF gained, what the model costs.

The page is made from the run directory alone, so it can be made again from any run. Names come from other people's
data: the template escapes everything, and the charts escape their own text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.pages.calibration_views import calibration_part
from training.pages.charts import Bar, Line, bar_chart, line_chart
from training.pages.report_fields import MOST_FIELDS, afe_part, signed
from training.pages.results import SPLITS, metrics_by_split, tower_table, warnings_of
from training.pages.structural_views import (
    ABOUT,
    MODEL_NAMES,
    environment,
    headline,
    shape,
    size_chart,
    structure_charts,
)
from training.parameters import ParameterTable, count_parameters
from training.structural.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from training.config import ExperimentConfig
    from training.runs import Run

BEGAN = {"towers": "both towers, merged", "afresh": "random weights, the towers teaching alone"}
CURVES = {"tower_a": "Tower A", "tower_b": "Tower B", "pair": "Pair", "fused": "Fused"}
AFTER = {"dropped": "dropped", "constant": "a constant when served"}
PARAMETERS_ABOUT = (
    "Before: two towers without AFE, each with tables of its own and every field in the data's mean dimension. After: "
    "the one tower that both merge into, each kept field in its own dimension. (The exporter may fold small tables "
    "into the first layer: more parameters, less work.)"
)


def render_report(run: Run) -> str:
    """The page of one run, as HTML."""
    parameters = count_parameters(run)
    page = {
        "title": run.config.name,
        "subtitle": _subtitle(run),
        "warnings": warnings_of(run.metrics),
        "cards": _cards(run, parameters),
        "towers": tower_table(run.metrics),
        **afe_part(run, parameters),
        **_curves_part(run.history(), run.config),
        "structure": _structure_part(run),
        **calibration_part(run),
        **_parameters_part(parameters),
        "facts": _facts(run),
        "footer": " ".join(["REACTION", run.record["versions"].get("reaction-ctr") or "", f"· run {run.id}"]),
    }
    return environment().get_template("report.html.j2").render(page)


def _subtitle(run: Run) -> str:
    rows = run.data_info["rows"]
    counts = ", ".join(
        f"{rows[split]:,} {name}"
        for split, name in (("train", "train"), ("valid", "validation"), ("test", "test"))
        if rows.get(split)
    )
    return f"{run.id}: {run.data_info['dataset']} data, {counts} rows"


def _cards(run: Run, parameters: ParameterTable) -> list[dict[str, str]]:
    splits = metrics_by_split(run.metrics)
    split = "test" if "test" in splits else "validation"
    models = splits[split]
    fused, baseline = models.get("calibrated", models["fused"]), models.get("baseline")
    cards = []
    for key, word, better in (("auc", "AUC", 1), ("log_loss", "log loss", -1)):
        card = {"name": f"{SPLITS[split]} {word}", "number": f"{fused[key]:.4f}", "tone": "", "change": "", "more": ""}
        if baseline is not None:
            change = fused[key] - baseline[key]
            card |= {
                "tone": "good" if change * better > 0 else "bad",
                "change": signed(change, ".4f"),
                "more": f"against {baseline[key]:.4f} of logistic regression",
            }
        cards.append(card)
    left = parameters.after / parameters.before
    total, dropped = len(parameters.fields), len(parameters.dropped)
    return [
        *cards,
        {
            "name": "Parameters to serve",
            "number": f"{parameters.after:,}",
            "tone": "good" if left <= 1 else "bad",
            "change": signed(100 * (left - 1), ".1f") + " %",
            "more": f"of {parameters.before:,}",
        },
        {
            "name": "Fields",
            "number": f"{total - dropped} of {total}",
            "tone": "",
            "change": "",
            "more": f"{dropped} dropped" if dropped else "none dropped",
        },
        {
            "name": f"{SPLITS[split]} calibration error",
            "number": f"{fused['ece']:.4f}",
            "tone": "",
            "change": "",
            "more": f"predicted {fused['mean_pctr']:.4f}, observed {fused['base_rate']:.4f}",
        },
    ]


def _apart(phase: str) -> bool:
    """Whether it trains one tower alone."""
    return phase.startswith("tower_")


def _curves_part(history: Sequence[Mapping[str, Any]], config: ExperimentConfig) -> dict[str, Any]:
    """One chart a metric. Towers are trained apart, so they start side by side; the other phases follow."""
    phases: dict[str, list[Mapping[str, Any]]] = {}
    for record in history:
        phases.setdefault(record["phase"], []).append(record)
    bands: list[tuple[str, float, float]] = []
    starts: dict[str, float] = {}
    end = max((phases[phase][-1]["epoch"] for phase in phases if _apart(phase)), default=0.0)
    if end:
        bands.append(("apart", 0.0, end))
    for phase, records in phases.items():
        starts[phase] = 0.0 if _apart(phase) else end
        if not _apart(phase):
            bands.append((phase, end, end + records[-1]["epoch"]))
            end += records[-1]["epoch"]
    curves = []
    for key, label in (("log_loss", "validation log loss"), ("auc", "validation AUC")):
        lines = []
        for model, name in CURVES.items():
            parts = [
                [
                    (starts[phase] + record["epoch"], float(record[f"{model}.{key}"]))
                    for record in records
                    # An untrained tower is far off the scale of all that follows.
                    if f"{model}.{key}" in record and not (_apart(phase) and record["step"] == 0)
                ]
                for phase, records in phases.items()
            ]
            if any(parts):
                lines.append(Line(name, tuple(tuple(part) for part in parts if part)))
        curves.append(line_chart(lines, title=f"{label} by epoch", x_label="epoch", y_label=label, bands=bands))
    return {"curves": curves, "curves_about": _curves_about(history, config)}


def _curves_about(history: Sequence[Mapping[str, Any]], config: ExperimentConfig) -> str:
    about = (
        "Validation metrics of the averaged weights. The towers learn apart, then the fused model learns "
        "under them, frozen. Every phase keeps its best, and the next one goes on from there."
    )
    chosen = {record["table_l2"] for record in history if "table_l2" in record}
    if chosen:
        about += (
            f" The towers were trained under several L2 of their tables; shown are the best, under {chosen.pop():g}."
        )
    if config.afe.share_below:
        about += (
            " Rare values share table rows by what was seen of them: those with less evidence than "
            f"{config.afe.share_below:g} even rows'."
        )
    if config.train.half_scale_at:
        about += (
            " Rows of rare values began near zero: with n of n + "
            f"{config.train.half_scale_at:g} parts of the others' scale, for n times seen."
        )
    # One that began anew as logistic regression is told of by a note.
    if config.dtf.fusion_start is not None:
        about += f" The fused model began from {BEGAN[config.dtf.fusion_start]}."
    return about


def _structure_part(run: Run) -> dict[str, Any] | None:
    if run.structure is None:
        return None
    models = {"fused": Structure.from_json(run.structure)}
    if run.plain_structure is not None:
        models["plain"] = Structure.from_json(run.plain_structure)
    parts = [
        {
            "name": f"{MODEL_NAMES[name]}: {shape(structure)}" if len(models) > 1 else "",
            "headline": headline(structure),
            "charts": structure_charts(structure),
        }
        for name, structure in models.items()
    ]
    return {"about": ABOUT, "models": parts, "by_size": size_chart(models) if len(models) > 1 else ""}


def _parameters_part(parameters: ParameterTable) -> dict[str, Any]:
    rows = [
        {
            "name": name,
            "before": f"{before:,}",
            "after": f"{after:,}",
            "left": f"{after / before:.1%}" if before else "–",
            "total": name == "Total",
        }
        for name, before, after in parameters.parts()
    ]
    chosen = sorted(parameters.fields, key=lambda field: -field.before)[:MOST_FIELDS]
    bars = [
        Bar(
            field.name,
            (float(field.before), float(field.after)),
            (f"{field.before:,}", AFTER.get(field.fate, f"{field.after:,}")),
            hint=f"{field.name}: 2 × {field.rows:,} ids × {field.before_dim}, then {field.rows:,} × {field.after_dim}",
        )
        for field in chosen
    ]
    return {
        "parameters": rows,
        "parameters_about": PARAMETERS_ABOUT,
        "parameters_per_field": bar_chart(bars, title="Embedding parameters per field", scale="log"),
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    record = run.record
    facts = [
        ("Seed", str(run.config.seed)),
        ("Git revision", record["git_revision"] or "unknown (not run from a checkout)"),
        ("Features digest", record["features_digest"]),
        ("Data digest", record["data_digest"]),
    ]
    if record.get("init_from"):
        facts.append(("Started from run", record["init_from"]))
    if (baseline := run.metrics.get("baseline")) is not None:
        facts.append(("Baseline", f"{baseline['model']}, C = {baseline['C']:g}, {baseline['train_rows']:,} train rows"))
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in record["wall_seconds"].items())
    facts.append(("Wall time", seconds))
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items() if value)
    facts.append(("Versions", versions))
    return facts
