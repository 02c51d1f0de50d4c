"""`analyze`: AFE's measures and decisions, of a run, of prepared data, or of an experiment's raw data."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.afe import AfeConfig, measure_prepared, select
from training.config import load_config, refuse_unknown_fields
from training.console import text_table
from training.field_selection.measures import Measures
from training.field_selection.redundancy import SHARES, carried, cluster, kinds, shared_entropy
from training.field_selection.selection import Selection
from training.loader import PreparedData
from training.pages.analysis import field_rows, group_rows, p_text, pair_rows
from training.pages.report_fields import KINDS, carried_text
from training.prepare import prepare
from training.runs import open_run

if TYPE_CHECKING:
    from rich.table import Table

    from training.phases.phase import Progress as PhaseProgress
    from training.progress import Progress

MOST_REDUNDANT = 10
"""Most pairs of kept fields listed by what they share."""


def analyze_source(source: Path, config: Path | None, progress: PhaseProgress, preparing: Progress) -> dict[str, Any]:
    """Measure and decide, or read what a run measured and decided.

    Args:
        source: a run (nothing is measured again), prepared data, or an experiment, whose data is prepared in a
            temporary directory.
        config: the experiment whose `[afe]` section counts for prepared data; the defaults if None.
        progress: told (phase, done, total, note).
        preparing: told how far the preparation is.

    Returns:
        {"source", "rows", "base_rate", "fields", "groups", "pairs", "redundant", "interactions", "clusters", "carried",
        "kinds", "selection", "measures"}, JSON-able.

    Raises:
        ConfigError, DataError, RunError: the source is none of the three, or is not what it should be.
    """
    if source.suffix == ".toml":
        experiment = load_config(source)
        with tempfile.TemporaryDirectory() as directory:
            data = prepare(
                experiment.data,
                base=source.parent,
                seed=experiment.seed,
                name=experiment.name,
                out=Path(directory) / "data",
                progress=preparing,
            )
            return _measured(source, data, experiment.afe, progress)
    if (source / "dataset.json").is_file():
        afe = AfeConfig() if config is None else load_config(config).afe
        return _measured(source, PreparedData.open(source), afe, progress)
    run = open_run(source)
    measures, selection = Measures.from_json(run.measures), Selection.from_json(run.selection)
    return _found(source, measures, selection, run.config.afe.alpha)


def _measured(source: Path, data: PreparedData, afe: AfeConfig, progress: PhaseProgress) -> dict[str, Any]:
    refuse_unknown_fields(afe, [field.name for field in data.encoder.fields])
    measures = measure_prepared(data, afe, lambda done, total: progress("measuring", done, total, ""))
    return _found(source, measures, select(measures, afe), afe.alpha)


def _found(source: Path, measures: Measures, selection: Selection, alpha: float) -> dict[str, Any]:
    kept = [index for index, name in enumerate(measures.names) if name in set(selection.kept)]
    redundant: list[dict[str, Any]] = [
        {
            "first": measures.names[i],
            "second": measures.names[j],
            "of_smaller_entropy": measures.redundancy_min[i][j],
            "of_larger_entropy": measures.redundancy_max[i][j],
        }
        for place, i in enumerate(kept)
        for j in kept[place + 1 :]
    ]
    redundant.sort(key=lambda pair: -pair["of_smaller_entropy"])
    order = carried(measures)
    return {
        "source": str(source),
        "rows": measures.rows,
        "base_rate": measures.base_rate,
        "fields": [asdict(row) for row in field_rows(measures, selection, alpha)],
        "groups": [asdict(row) for row in group_rows(measures, selection)],
        "pairs": [asdict(row) for row in pair_rows(measures, selection)],
        "redundant": redundant[:MOST_REDUNDANT],
        "interactions": [asdict(found) for found in measures.interactions],
        "clusters": cluster(measures.names, shared_entropy(measures)).clusters(),
        "carried": {
            **asdict(order),
            "needed": {f"{share:g}": order.needed(share) for share in SHARES},
            "text": carried_text(order),
        },
        "kinds": [asdict(row) for row in kinds(measures, selection)],
        "selection": selection.as_json(),
        "measures": measures.as_json(),
    }


def analysis_tables(found: dict[str, Any]) -> list[Table | str]:
    """What `analyze_source` found, as tables."""
    fields = [
        [
            row["name"],
            row["side"],
            f"{row['ids']:,}",
            f"{row['millibits']:.2f}",
            "–" if row["low_millibits"] is None else f"{row['low_millibits']:.2f}–{row['high_millibits']:.2f}",
            p_text(row["p_value"]),
            row["dimension"] or "–",
            row["fate"],
        ]
        for row in found["fields"]
    ]
    # Short headings, and reasons apart: the whole is to be read in 80 columns.
    heads = ["field", "side", "ids", "mbit", "95%", "p-value", "dim", "fate"]
    title = f"Information about the label ({found['rows']:,} rows, base rate {found['base_rate']:.4f}; in millibits)"
    tables: list[Table | str] = [text_table(title, heads, fields, left=(0, 7))]
    reasons = [
        [row["name"], row["reason"] or f"{row['beyond_millibits']:.2f} mbit beyond {row['beyond']}"]
        for row in found["fields"]
        if row["reason"] or row["beyond"]
    ]
    if reasons:
        tables.append(text_table("Why", ["field", "reason"], reasons, left=(0, 1)))
    if found["groups"]:
        groups = [
            [row["kept"], ", ".join(f"{name} ({share:.1%})" for name, share in row["copies"])]
            for row in found["groups"]
        ]
        tables.append(
            text_table("Fields that say the same", ["kept", "dropped copies (shared entropy)"], groups, left=(0, 1))
        )
    pairs = [
        [
            f"{row['first']} × {row['second']}",
            f"{row['alone_millibits']:.2f}",
            f"{row['gain_millibits']:.2f}",
            p_text(row["p_value"]),
        ]
        for row in found["pairs"]
    ]
    if pairs:
        heads = ["pair", "better alone", "gain", "p-value"]
        tables.append(text_table("Pairs that matter only together (mbit)", heads, pairs))
    redundant = [
        [f"{row['first']} × {row['second']}", f"{row['of_smaller_entropy']:.3f}", f"{row['of_larger_entropy']:.3f}"]
        for row in found["redundant"]
    ]
    if redundant:
        heads = ["pair", "of smaller", "of larger"]
        tables.append(text_table("What kept fields share (of the smaller and the larger entropy)", heads, redundant))
    return [*tables, *_whole_tables(found)]


def _whole_tables(found: dict[str, Any]) -> list[Table | str]:
    """Interactions, clusters, and how few fields carry how much."""
    tables: list[Table | str] = []
    if found["interactions"]:
        rows = [
            [
                f"{row['first']} × {row['second']}",
                *(f"{1000 * row[key]:.2f}" for key in ("both_bits", "beyond_better_bits")),
                f"{1000 * row['interaction_bits']:+.2f}",
                f"{1000 * row['low_bits']:+.2f} to {1000 * row['high_bits']:+.2f}",
                p_text(row["p_value"]),
            ]
            for row in found["interactions"]
        ]
        heads = ["pair", "both", "beyond better", "interaction", "95%", "p-value"]
        tables.append(text_table("Pairs: synergy above 0, redundancy about the label below (mbit)", heads, rows))
    if found["clusters"]:
        clusters = [[str(len(group)), ", ".join(group)] for group in found["clusters"]]
        tables.append(text_table("Clusters that share more than half", ["fields", "which"], clusters, left=(1,)))
    rows = [
        [KINDS[row["kind"]], str(len(row["names"])), f"{row['fields']:.0%}", f"{row['parameters']:.1%}"]
        for row in found["kinds"]
    ]
    heads = ["fields that", "how many", "of fields", "of embedding parameters"]
    return [*tables, text_table("What they carry and cost", heads, rows), found["carried"]["text"]]
