"""The export's table says why each field is folded or not, and times the choice beside the plain ways."""

from __future__ import annotations

import re
from functools import partial
from io import StringIO
from math import inf
from typing import TYPE_CHECKING

import pytest
from forms import random_form
from rich.console import Console
from test_folding import ANY, candidates

from model_export.fusion import CostModel, ParameterBudget, fuse_towers
from model_export.fusion.counts import parameters
from model_export.fusion.embedding import fold_where_cheaper
from model_export.fusion.tower import FoldingTrade
from model_export.report import requests
from model_export.report_folding import (
    ALL,
    CHOSEN,
    NONE,
    UNLIMITED,
    Way,
    folding_table,
    measure_ways,
    trade_line,
    verdict,
    ways_table,
)
from training.models.base import FieldSlot

if TYPE_CHECKING:
    from rich.console import RenderableType

    from model_export.export import Exported


def shown(part: RenderableType, width: int = 160) -> str:
    page = StringIO()
    Console(file=page, width=width).print(part)
    return page.getvalue()


def test_every_field_has_a_line_with_its_ids_its_d_three_predicted_times_and_the_choice(exported: Exported) -> None:
    lines = shown(folding_table(exported.tower)).splitlines()
    choices = {choice.name: choice for choice in exported.tower.folding}
    for field in exported.tower.fields:
        choice = choices[field.name]
        cells = [
            cell.strip() for cell in next(line for line in lines if f" {field.name} " in line).strip("│").split("│")
        ]
        assert cells[:3] == [field.name, str(field.rows), str(choice.dim)]
        # Where others are padded, products may leave no room for the field as it was.
        assert cells[3] == "–" if choice.kept_us == inf else float(cells[3]) == pytest.approx(choice.kept_us, abs=0.01)
        chosen = "folded" if choice.folded else "kept" if field.dim == choice.dim else f"padded to {field.dim}"
        assert cells[6] == chosen + "*" * bool(choice.why)
        assert (choice.folded, choice.served_dim) == (field.folded, field.dim)


@pytest.mark.parametrize(
    ("cost", "why"),
    [
        (CostModel(growth_us=1e6), r"but 0\.\d\d MiB more, which have to save [\d,]+\.\d\d µs"),
        (CostModel(growth_us=0.0, margin=0.99), "but no way that fits makes its side 99% cheaper: it stays as it was"),
    ],
    ids=["growth", "margin"],
)
def test_below_it_stands_what_decided_where_a_choice_is_not_the_fastest(cost: CostModel, why: str) -> None:
    tower = fold_where_cheaper(fuse_towers(random_form(candidates((4, 8, 8), 2000), (24,))), cost, ANY)
    assert not any(field.folded for field in tower.fields)
    table, _, notes = shown(folding_table(tower)).partition("* field_")
    slow = [c for c in tower.folding if round(min(c.padded_us, c.folded_us), 2) < round(c.kept_us, 2)]
    assert slow
    for choice in tower.folding:
        assert bool(choice.why) is (choice in slow)
        assert ("kept*" in next(line for line in table.splitlines() if f" {choice.name} " in line)) is (choice in slow)
        assert not choice.why or choice.why in notes
        saved = choice.kept_us - min(choice.padded_us, choice.folded_us)
        assert not choice.why or re.fullmatch(rf"folded it takes {saved:.2f} µs less, {why}", choice.why)
    cheap = fold_where_cheaper(tower, CostModel(growth_us=0.0, margin=0.0), ANY)
    assert "*" not in shown(folding_table(cheap))


def test_at_80_columns_names_break_and_no_number_or_choice_is_cut() -> None:
    slots = (
        FieldSlot("a_field_with_a_name_that_is_longer_than_any_column", "candidate", 0, 1, 2_000_000, 2),
        FieldSlot("short", "context", 0, 1, 50, 16),
    )
    tower = fold_where_cheaper(fuse_towers(random_form(slots, (24,))), CostModel())
    text = shown(folding_table(tower), 80)
    assert "…" not in text
    assert "2,000,000" in text
    assert max(map(len, text.splitlines())) <= 80
    names = "".join(line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│"))
    assert slots[0].name in names


def test_the_whole_graph_is_predicted_and_timed_as_chosen_unfolded_and_folded(exported: Exported) -> None:
    cost = CostModel()
    ways = measure_ways(exported, cost, partial(requests, exported), (1, 100), seconds=0.1)
    assert list(ways) == [CHOSEN, NONE, ALL, UNLIMITED]
    assert ways[CHOSEN].parameters == parameters(exported.tower).total < ways[UNLIMITED].parameters
    assert ways[CHOSEN].predicted_us == {rows: cost.call(exported.tower, rows) for rows in (1, 100)}
    for way in ways.values():
        assert all(time > 0 for time in way.measured_us.values())
        expected = (way.measured_us[1] + cost.many_weight * way.measured_us[100]) / (1 + cost.many_weight)
        assert way.weighed_us == pytest.approx(expected)
    text = shown(ways_table(ways))
    assert f"{ways[NONE].predicted_us[100]:.1f} → {ways[NONE].measured_us[100]:.1f}" in text


def test_the_verdict_compares_with_the_better_of_the_two_plain_ways() -> None:
    ways = {name: Way(1, {1: 9.0}, {1: time}, time) for name, time in ((CHOSEN, 8.0), (NONE, 12.0), (ALL, 10.0))}
    assert verdict(ways).startswith("measured, weighed: as chosen takes 0.80 of the time of all folded")


def test_what_the_budget_bought_and_refused_is_said() -> None:
    some = FoldingTrade(1100, (1000, 9.0), (1090, 7.5), (4000, 6.0))
    assert trade_line(some) == (
        "parameters: 1,000 with no field folded or padded, 1,090 as chosen, of 1,100 allowed: 1.50 of 9.00 µs of "
        "look-ups bought with +90; the budget refused 1.50 µs for +2,910 more"
    )
    every = FoldingTrade(None, (1000, 9.0), (900, 7.5), (900, 7.5))
    assert trade_line(every).endswith(
        "of any number allowed: 1.50 of 9.00 µs of look-ups bought with -100; the budget refused nothing"
    )


def test_a_field_that_the_budget_refused_says_by_how_much() -> None:
    tower = fuse_towers(random_form(candidates((4, 8, 8), 2000), (24,)))
    cost = CostModel(flop_ns=1.0)
    served = fold_where_cheaper(tower, cost, ParameterBudget(1.0))
    assert not any(field.folded for field in served.fields)
    assert any(field.folded for field in fold_where_cheaper(tower, cost, ANY).fields)
    why = next(choice.why for choice in served.folding if choice.name == "field_1")
    assert re.fullmatch(r"folded it takes [\d.]+ µs less, but 31,784 parameters more, and the budget has 0 left", why)
