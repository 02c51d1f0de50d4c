"""A dendrogram as inline SVG: which fields share how much, as a tree from left (all) to right (nothing)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from training.pages.charts import CHARACTER, LONGEST_LABEL, WIDTH, drawing, text

if TYPE_CHECKING:
    from training.field_selection.redundancy import Tree

ROW = 18.0
TICKS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)


def dendrogram(tree: Tree, *, title: str, cut: float) -> Markup:
    """Draw a tree of fields.

    Args:
        tree: the hierarchy.
        title: what the chart shows, for screen readers.
        cut: share from which on fields are one cluster: a dashed line.
    """
    names = [tree.names[place] for place in tree.order]
    left = 12 + CHARACTER * min(LONGEST_LABEL, max((len(name) for name in names), default=0))
    wide, foot = WIDTH - left - 30, ROW * len(names) + 6

    def along(shared: float) -> float:
        return left + wide * (1.0 - min(max(shared, 0.0), 1.0))

    drawn = []
    for share in TICKS:
        drawn.append(
            Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1:.1f}"/>').format(along(share), foot)
        )
        drawn.append(text(along(share), foot + 12, f"{share:g}", "middle", "value"))
    drawn.append(Markup('<line class="ideal" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1:.1f}"/>').format(along(cut), foot))
    places: dict[int, tuple[float, float]] = {}
    for row, (place, name) in enumerate(zip(tree.order, names, strict=True)):
        places[place] = (float(left), ROW * (row + 0.5))
        short = name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"
        drawn.append(text(left - 8, ROW * (row + 0.5), short, "end", "label"))
    members = {place: [name] for place, name in enumerate(tree.names)}
    for number, merge in enumerate(tree.merges, len(tree.names)):
        (x1, y1), (x2, y2), x = places[merge.first], places[merge.second], along(merge.shared)
        members[number] = members[merge.first] + members[merge.second]
        hint = Markup("<title>{}</title>").format(f"{', '.join(members[number])}: {merge.shared:.3f}")
        path = f"{x1:.1f},{y1:.1f} {x:.1f},{y1:.1f} {x:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
        tone = "s0" if merge.shared >= cut else "s5"
        drawn.append(Markup('<polyline class="line {}" points="{}">{}</polyline>').format(tone, path, hint))
        places[number] = (x, (y1 + y2) / 2.0)
    drawn.append(text(left + wide / 2, foot + 28, "share of the entropy in common", "middle", "note"))
    return drawing(WIDTH, foot + 38, title, drawn)
