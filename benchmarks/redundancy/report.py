"""`REDUNDANCY.md` of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.pages.analysis import p_text
from training.pages.report_fields import KINDS
from training.pages.structural_views import HEADS, MODEL_NAMES, headline, shape, structure_rows
from training.structural.structure import Structure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN_PAIRS = 4
LEADING = "0.99"  # of `needed`: the share that the first row of the table by kinds goes by
UNDATED = "Measured before dates were kept"

HEAD = """# Redundancy of fields and of layers

Written by `python -m benchmarks.redundancy` from the samples under `REACTION_DATA_DIR`; `redundancy.json` holds the
numbers, also those of all fields. One run a task with the experiment's own settings and seed: make nothing of
differences under 0.001 AUC between models.

![What few fields carry, and what thinned layers keep](redundancy.png)
"""

FIELDS_ABOUT = """## Fields

Information about the label is corrected by its exact mean under shuffling. *Carried*: fields taken greedily, each
counted by what it says beyond the one before it that leaves it least (CMIM). That order counts no pair, so both fields
of a *kept pair*, which AFE's selection keeps for what it says only together, stand in the table beside the first that
carry 99%. *Embedding parameters* are shares of all ids, at one dimension. Interaction is I(f, g; Y) − I(f; Y) − I(g; Y)
in millibits: synergy above 0, redundancy about the label below; p-values are adjusted for all pairs. Of pairs that too
few rows share to tell, nothing is said.
"""

LAYERS_ABOUT = """## Dense layers

*Plain tower*: all fields in tables of 10, layers of 400-400-400, no AFE and no second tower, trained by the same loop
with the run's own `[train]` settings. *Tuned DNN*: that of `ACCURACY.md`, at the settings that its tuning chose there.
*Fused*: the run's served model. Nothing is retrained after parameters went. "Can go" is the largest share of the dense
parameters (projections of the fields included) that costs at most 0.001 validation AUC, as does all that is less;
"surely" goes by the lower end of the paired 95% bootstrap interval (of whole groups where there are groups). Importance
comes from training rows. The three ways are said in `training/structural/pruning.py`.
"""

NOISE_ABOUT = """## Control: noise

200 independent noise fields of 10 to {rows:,} values in {rows:,} rows, through measuring and filter as they are, all
pairs screened. (AFE always keeps one field: 0.5%.) The mean corrected estimate should be within two standard errors of
0 in 19 of 20 seeds.
"""


def render(measured: Mapping[str, Any]) -> str:
    """The whole page."""
    tasks: Mapping[str, Any] = measured["tasks"]
    parts = [HEAD, FIELDS_ABOUT]
    parts += [_fields(name, task["fields"]) for name, task in tasks.items()]
    parts.append(LAYERS_ABOUT)
    parts += [_layers(name, task["layers"]) for name, task in tasks.items()]
    if measured["noise"]:
        parts.append(NOISE_ABOUT.format(rows=measured["noise"][0]["rows"]) + "\n" + _noise(measured["noise"]))
    return "\n".join(parts)


def _fields(name: str, found: Mapping[str, Any]) -> str:
    top = ", ".join(
        f"{row['name']} {row['millibits']:.1f} ({row['low_millibits']:.1f} to {row['high_millibits']:.1f})"
        for row in found["fields"][:5]
    )
    kinds = [
        [
            KINDS[row["kind"]],
            len(row["names"]),
            f"{row['fields']:.0%}",
            f"{row['parameters']:.1%}",
            ", ".join(row["names"]),
        ]
        for row in found["kinds"]
        if row["names"]
    ]
    pairs = found["interactions"]
    chosen = pairs if len(pairs) <= 2 * SHOWN_PAIRS else [*pairs[:SHOWN_PAIRS], *pairs[-SHOWN_PAIRS:]]
    interactions = [
        [
            f"{row['first']} × {row['second']}",
            f"{1000 * row['both_bits']:.1f}",
            f"{1000 * row['beyond_better_bits']:.1f}",
            f"{1000 * row['interaction_bits']:+.1f}",
            f"{1000 * row['low_bits']:+.1f} to {1000 * row['high_bits']:+.1f}",
            p_text(row["p_value"]),
        ]
        for row in chosen
    ]
    clusters = "; ".join(", ".join(group) for group in found["clusters"]) or "none"
    return "\n".join(
        [
            f"### {name}: fields",
            "",
            _when(found) or f"{UNDATED}.",
            "",
            f"{found['rows']:,} training rows. {_carried(found)} Most informative, in millibits: {top}.",
            "",
            *_table(["fields that", "how many", "of fields", "of embedding parameters", "which"], kinds),
            "",
            f"Clusters that share more than half of an entropy: {clusters}.",
            "",
            *_table(["pair", "both", "beyond the better", "interaction", "95%", "p-value"], interactions),
            "",
        ]
    )


def _carried(found: Mapping[str, Any]) -> str:
    """How few fields carry how much in the greedy order, and which others the table counts with them."""
    order = found["carried"]
    needed = order["needed"]
    first = needed[LEADING]
    counts = ", ".join(f"{count} carry {float(share):.0%}" for share, count in needed.items())
    text = (
        f"Taken greedily, the first {counts} of the information of all {len(order['names'])} fields; all beyond the "
        f"first {first} hold {1 - order['parameters'][first - 1]:.1%} of the embedding parameters (at one dimension)."
    )
    carrying = [name for row in found["kinds"] if row["kind"] == "carries" for name in row["names"]]
    paired = [name for name in carrying if name not in order["names"][:first]]
    return f"{text} In the table beside them, of a kept pair: {', '.join(paired)}." if paired else text


def _layers(name: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return f"### {name}: layers\n\nNot measured.\n"
    models = {model: Structure.from_json(content) for model, content in found["models"].items()}
    lines = [
        f"- {MODEL_NAMES[model]} ({shape(structure)}; AUC {structure.auc:.4f}, log loss {structure.log_loss:.4f} on "
        f"{structure.rows:,} validation rows): {headline(structure)}."
        for model, structure in models.items()
    ]
    missing = [f"- {text}: not measured." for model, text in MODEL_NAMES.items() if model not in models]
    when = _when(found) or f"{UNDATED} and REACTION's methods had numbers: of an older one than is served."
    heads = _table(list(HEADS), structure_rows(models))
    return "\n".join([f"### {name}: layers", "", when, "", *lines, *missing, "", *heads, ""])


def _when(part: Mapping[str, Any]) -> str:
    """When a part was measured, and of which method; empty where that was not kept."""
    return (
        "" if part.get("method") is None else f"Measured on {part['measured']}, of method {part['method']} of REACTION."
    )


def _noise(controls: Sequence[Mapping[str, float]]) -> str:
    rows = [
        [
            f"{control['seed']:.0f}",
            f"{1000 * control['plug_in_bits']:.1f}",
            f"{1000 * control['mean_bits']:+.2f}",
            f"{1000 * control['standard_error_bits']:.2f}",
            f"{control['mean_bits'] / control['standard_error_bits']:+.2f}",
            f"{control['kept']:.1%}",
            f"{control['inside']:.1%}",
            p_text(control["least_interaction_p"]),
        ]
        for control in controls
    ]
    heads = [
        "seed",
        "plug-in, mbit",
        "corrected, mbit",
        "standard error",
        "in standard errors",
        "kept",
        "intervals with 0",
        "least p of pairs",
    ]
    return "\n".join([*_table(heads, rows), ""])


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(heads), ["---"] * len(heads), *cells]]
