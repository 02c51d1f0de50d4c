"""The report's part on fields: information with intervals, clusters, what few fields carry, interactions, what went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.field_selection.measures import Measures
from training.field_selection.redundancy import CLUSTERED, SHARES, carried, cluster, kinds, shared_entropy
from training.field_selection.selection import Selection
from training.pages.analysis import field_rows, group_rows, interval_text, p_text, pair_rows
from training.pages.charts import Bar, Line, bar_chart, heat_map, line_chart
from training.pages.charts_clusters import dendrogram

if TYPE_CHECKING:
    from markupsafe import Markup

    from training.field_selection.redundancy import Carried
    from training.pages.analysis import FieldRow
    from training.parameters import ParameterTable
    from training.runs import Run

MOST_FIELDS = 60
"""Most fields drawn in one chart; of more, those that carry most information."""

MOST_SHARED = 45
"""Most fields in the redundancy map."""

KINDS = {
    "carries": "are among the first that carry 99%, or in a kept pair",
    "weak": "add less than 1% together",
    "noise": "are noise",
    "copy": "are copies",
}


def afe_part(run: Run, parameters: ParameterTable) -> dict[str, Any]:
    """All that the template asks about fields."""
    measures, selection = Measures.from_json(run.measures), Selection.from_json(run.selection)
    fields = field_rows(measures, selection, run.config.afe.alpha)
    tones = {"kept": "on", "dropped": "off"}
    bars = [
        Bar(
            row.name,
            (row.shown_millibits,),
            (_information_text(row),),
            tone=tones.get(row.fate, "weak"),
            hint=f"{row.name}: {row.ids:,} ids, noise would have {row.noise_millibits:.2f} mbit. {row.reason}".strip(),
        )
        for row in fields[:MOST_FIELDS]
    ]
    shared = shared_entropy(measures)
    shown = sorted(measures.names.index(row.name) for row in fields[:MOST_SHARED])
    tree = cluster([measures.names[i] for i in shown], shared[shown][:, shown])
    leaves = [shown[place] for place in tree.order]
    order = carried(measures)
    saved = {field.name: field for field in parameters.dropped}
    dropped = [
        {
            "name": row.name,
            "reason": row.reason or "its gate closed in training",
            "ids": f"{row.ids:,}",
            "saved": f"{saved[row.name].before:,}" if row.name in saved else "–",
        }
        for row in fields
        if row.name in saved
    ]
    return {
        "information": bar_chart(bars, title="Information per field, in millibits"),
        "more_fields": f"{len(fields) - MOST_FIELDS} fields with less are not drawn."
        if len(fields) > MOST_FIELDS
        else "",
        "redundancy": heat_map(
            [measures.names[i] for i in leaves], shared[leaves][:, leaves].tolist(), title="What pairs of fields share"
        ),
        "tree": dendrogram(tree, title="Clusters of fields that share their entropy", cut=CLUSTERED),
        "groups": [", ".join(group) for group in cluster(measures.names, shared).clusters()],
        "carried": _carried_chart(order),
        "carried_about": carried_text(order),
        "kinds": [
            {
                "name": KINDS[row.kind],
                "fields": f"{len(row.names)} of {len(fields)}",
                "parameters": f"{row.parameters:.1%}",
                "names": ", ".join(row.names),
            }
            for row in kinds(measures, selection)
            if row.names
        ],
        "interactions": [
            {
                "names": f"{found.first} × {found.second}",
                "both": f"{1000 * found.both_bits:.2f}",
                "beyond": f"{1000 * found.beyond_better_bits:.2f}",
                "interaction": signed(1000 * found.interaction_bits, ".2f"),
                "interval": f"{signed(1000 * found.low_bits, '.2f')} to {signed(1000 * found.high_bits, '.2f')}",
                "p_value": p_text(found.p_value),
            }
            for found in measures.interactions
        ],
        "clusters": [
            {"kept": group.kept, "copies": ", ".join(f"{name} ({share:.1%})" for name, share in group.copies)}
            for group in group_rows(measures, selection)
        ],
        "dropped": dropped,
        "pairs": [
            {
                "names": f"{pair.first} × {pair.second}",
                "alone": signed(pair.alone_millibits, ".2f").removeprefix("+"),
                "gain": f"{pair.gain_millibits:.2f}",
                "p_value": p_text(pair.p_value),
            }
            for pair in pair_rows(measures, selection)
        ],
    }


def carried_text(order: Carried) -> str:
    """How few fields carry how much."""
    counts = ", ".join(f"{order.needed(share)} carry {share:.0%}" for share in SHARES)
    return (
        f"Of {len(order.names)} fields {counts} of the information; "
        f"all beyond the first {order.needed(SHARES[-1])} hold {order.parameters_beyond(SHARES[-1]):.1%} of the "
        "embedding parameters (at one dimension)."
    )


def _carried_chart(order: Carried) -> Markup:
    counts = range(len(order.names) + 1)
    lines = [
        Line(name, (tuple(zip(map(float, counts), (0.0, *(100 * value for value in values)), strict=True)),))
        for name, values in (
            ("information about the label", order.information),
            ("embedding parameters", order.parameters),
        )
    ]
    return line_chart(
        lines, title="What the first fields carry", x_label="fields, by what each adds", y_label="% of all"
    )


def _information_text(row: FieldRow) -> str:
    interval = interval_text(row)
    sure = f" ({interval})" if interval else ""
    alone = f"{signed(row.millibits, '.2f').removeprefix('+')} mbit{sure}, {_p(row.p_value)}"
    return f"{row.beyond_millibits:.2f} mbit beyond {row.beyond} (alone {alone})" if row.beyond else alone


def _p(p_value: float) -> str:
    text = p_text(p_value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def signed(value: float, form: str) -> str:
    """A number with its sign, the minus a real one."""
    return f"{value:+{form}}".replace("-", "\N{MINUS SIGN}")
