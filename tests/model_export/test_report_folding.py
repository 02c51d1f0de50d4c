"""The export's table says why each field is folded or not, and times the choice beside the plain ways."""

from __future__ import annotations

from functools import partial
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from model_export.fusion import CostModel
from model_export.report import requests
from model_export.report_folding import ALL, CHOSEN, NONE, Way, folding_table, measure_ways, verdict, ways_table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from model_export.export import Exported


def shown(part: RenderableType) -> str:
    page = StringIO()
    Console(file=page, width=160).print(part)
    return page.getvalue()


def test_every_field_has_a_line_with_its_ids_its_d_three_predicted_times_and_the_choice(exported: Exported) -> None:
    lines = shown(folding_table(exported.tower)).splitlines()
    choices = {choice.name: choice for choice in exported.tower.folding}
    for field in exported.tower.fields:
        choice = choices[field.name]
        cells = [
            cell.strip() for cell in next(line for line in lines if f" {field.name} " in line).strip("│").split("│")
        ]
        assert cells[:4] == [field.name, field.side, str(field.rows), str(choice.dim)]
        assert float(cells[4]) == pytest.approx(choice.kept_us, abs=0.01)
        assert cells[7] == (
            "folded" if choice.folded else "kept" if field.dim == choice.dim else f"padded to {field.dim}"
        )
        assert (choice.folded, choice.served_dim) == (field.folded, field.dim)


def test_the_whole_graph_is_predicted_and_timed_as_chosen_unfolded_and_folded(exported: Exported) -> None:
    cost = CostModel()
    ways = measure_ways(exported, cost, partial(requests, exported), (1, 100), seconds=0.1)
    assert list(ways) == [CHOSEN, NONE, ALL]
    assert ways[CHOSEN].predicted_us == {rows: cost.call(exported.tower, rows) for rows in (1, 100)}
    for way in ways.values():
        assert all(time > 0 for time in way.measured_us.values())
        expected = (way.measured_us[1] + cost.many_weight * way.measured_us[100]) / (1 + cost.many_weight)
        assert way.weighed_us == pytest.approx(expected)
    text = shown(ways_table(ways))
    assert f"{ways[NONE].predicted_us[100]:.1f} → {ways[NONE].measured_us[100]:.1f}" in text


def test_the_verdict_compares_with_the_better_of_the_two_plain_ways() -> None:
    ways = {name: Way({1: 9.0}, {1: time}, time) for name, time in ((CHOSEN, 8.0), (NONE, 12.0), (ALL, 10.0))}
    assert verdict(ways).startswith("measured, weighed: as chosen takes 0.80 of the time of all folded")
