"""The report: one page without a network, with every name escaped and the run's own numbers on it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from training.pages.charts import Bar, Line, bar_chart, heat_map, line_chart, reliability, ticks
from training.pages.report_fields import signed
from training.pages.results import tower_table
from training.parameters import count_parameters
from training.report import render_report
from training.runs import Run, open_run

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "</svg><script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def run(tiny_home: Path) -> Run:
    return open_run(tiny_home / "run")


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return (run.path / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects tags, attributes and text; knows whether every tag was closed."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_asks_the_network_for_nothing(page: str) -> None:
    reader = read(page)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name in {"src", "href", "srcset"} or name.startswith("on")]
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_a_field_named_script_is_text_wherever_it_stands(page: str) -> None:
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert "<script>" in read(page).text


def test_both_colour_schemes_define_the_same_colours_and_every_class_of_the_charts_is_styled(page: str) -> None:
    light, dark = (
        set(re.findall(r"--([a-z0-9]+):", block)) for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    )
    assert light == dark
    style = page[page.index("<style>") : page.index("</style>")]
    assert set(re.findall(r"var\(--([a-z0-9]+)\)", style)) <= light
    for names in re.findall(r'<(?:rect|circle|line|polyline|text) class="([^"]+)"', page):
        for name in names.split():
            assert re.search(rf"\.{name}\b", style) or name == "label", name


def test_the_page_shows_the_runs_numbers_towers_phases_and_reasons(run: Run, page: str) -> None:
    text = " ".join(read(page).text)
    for split in ("validation", "test"):
        for model in (*run.metrics[split].values(), run.metrics["baseline"][split]):
            assert f"{model['auc']:.4f}" in text
            assert f"{model['log_loss']:.4f}" in text
    for word in ("Tower A", "Tower B", "Pair", "Fused", "LR baseline", "apart", "fusion", run.id):
        assert word in text
    for name, reason in run.selection["dropped"].items():
        assert name in text
        assert reason in text
    assert run.selection["dropped"], "the tiny log has a copy and a noise field"
    assert run.record["data_digest"] in text


def test_the_page_can_be_made_again_from_the_directory_alone(run: Run, page: str) -> None:
    assert render_report(run) == page


def test_parameters_before_and_after_are_counted_from_the_tables_that_there_are(run: Run) -> None:
    table = count_parameters(run)
    form = run.form()
    by_name = {field.name: field for field in table.fields}
    assert set(by_name) == {field.name for field in run.encoder.fields}
    for slot, weights in zip(form.slots, form.tables, strict=True):
        field = by_name[slot.name]
        if slot.name == "position":
            assert (field.fate, field.after) == ("constant", 0)
        else:
            assert (field.fate, field.after) == ("kept", weights.numel())
    assert {field.name for field in table.dropped} == set(by_name) - {slot.name for slot in form.slots}
    # One merged tower of widths (8, 8): projections, then 8 biases, weights of 8 squares, 8 x 8 + 8, 8 + 1.
    assert table.dense[1] == 8 + 8 + (8 * 8 + 8) + (8 + 1)
    assert table.projections[1] == 8 * sum(slot.dim for slot in form.slots if slot.name != "position")
    assert table.merged.embedding == sum(field.after for field in table.fields)
    assert table.merged.dense == table.projections[1] + table.dense[1]
    name, before, after = table.parts()[-1]
    assert (name, before, after) == ("Total", table.before, table.after)
    assert before == sum(part[1] for part in table.parts()[:-1])
    assert after == sum(part[2] for part in table.parts()[:-1])


def test_two_towers_before_have_the_parameters_of_a_pair_of_towers_in_the_mean_dimension(run: Run) -> None:
    from training.models.base import field_slots
    from training.models.reaction import Tower, TowerPair

    table = count_parameters(run)
    mean = table.fields[0].before_dim
    slots = field_slots(run.encoder, lambda _name, _rows: mean)
    pair = TowerPair(Tower(slots, run.config.dtf.widths), Tower(slots, run.config.dtf.widths))
    assert table.before == sum(weights.numel() for weights in pair.parameters())


def test_metrics_that_a_split_lacks_are_dashes_and_splits_without_numbers_are_left_out() -> None:
    metrics = {
        "validation": {"tower_a": {"auc": 0.5, "gauc": 0.25}, "fused": {"auc": 0.75}},
        "baseline": {"validation": {"auc": 0.25}, "C": 1.0},
    }
    table = tower_table(metrics)
    assert table["splits"] == ["Validation"]
    assert table["columns"] == ["AUC", "GAUC"]
    assert [(row["name"], row["cells"]) for row in table["rows"]] == [
        ("LR baseline", ["0.2500", "–"]),
        ("Tower A", ["0.5000", "0.2500"]),
        ("Fused", ["0.7500", "–"]),
    ]


def test_signs_are_real_minus_signs() -> None:
    assert signed(-0.5, ".2f") == "\N{MINUS SIGN}0.50"
    assert signed(0.5, ".2f") == "+0.50"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.431, 0.5689, [0.45, 0.5, 0.55]),
        (0.0, 37.5, [0.0, 10.0, 20.0, 30.0]),
        (3.0, 3.0, [3.0]),
    ],
)
def test_ticks_are_round_numbers_within_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_charts_of_hostile_extreme_and_empty_values_are_well_formed_and_stay_inside() -> None:
    drawings = [
        bar_chart([Bar(HOSTILE, (5.0, 0.0), (HOSTILE, "0"), hint=HOSTILE)], title=HOSTILE),
        bar_chart([Bar("a", (0.0,), ("0",)), Bar("b", (1e12,), ("many",)), Bar("c", (-3.0,), ("-3",))], title="t"),
        bar_chart([Bar("a", (0.0, 1e9), ("0", "1e9"))], title="t", scale="log"),
        bar_chart([], title="nothing"),
        heat_map([HOSTILE, "b", "c" * 80], [[1, 0.5, 2], [0.5, 1, -1], [2, -1, 1]], title=HOSTILE),
        heat_map([str(i) for i in range(45)], [[1.0] * 45] * 45, title="many"),
        heat_map([], [], title="nothing"),
        line_chart(
            [Line(HOSTILE, (((0.0, 1.0), (1.0, 0.5)), ((2.0, 0.25),)))],
            title=HOSTILE,
            x_label=HOSTILE,
            y_label="y",
            bands=[(HOSTILE, 0.0, 1.0)],
        ),
        line_chart([Line("one", (((1.0, 1.0),),))], title="one point", x_label="x", y_label="y"),
        reliability([(0.1, 0.2, 0.5), (0.9, 0.8, 0.5)], title=HOSTILE),
        reliability([], title="nothing"),
    ]
    for drawing in drawings:
        root = ET.fromstring(drawing)  # noqa: S314 - our own drawing; a parser that refuses what is not well formed
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for shape in root.iter("rect"):
            assert 0 <= float(shape.attrib["x"]) <= float(shape.attrib["x"]) + float(shape.attrib["width"]) <= width + 1
            assert 0 <= float(shape.attrib["y"]) + float(shape.attrib["height"]) <= height + 1
        assert not list(root.iter("script"))
    assert html.unescape(ET.fromstring(drawings[0]).attrib["aria-label"]) == HOSTILE  # noqa: S314
    assert line_chart([], title="nothing", x_label="x", y_label="y") == ""


def test_longer_values_have_longer_bars_in_proportion() -> None:
    drawing = bar_chart([Bar(str(value), (value,), ("",)) for value in (10.0, 20.0, 40.0)], title="t")
    widths = [float(shape.attrib["width"]) for shape in ET.fromstring(drawing).iter("rect")]  # noqa: S314
    assert widths == pytest.approx([widths[2] / 4, widths[2] / 2, widths[2]], abs=0.2)
