"""Clusters of fields, how few carry the information, and what the rest costs, on fields whose truth is planted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import tiny
from encoded import slots_and_ids
from sklearn.metrics import adjusted_mutual_info_score

from training.afe import measure, select
from training.field_selection.redundancy import carried, cluster, functions, kinds, shared_entropy
from training.pages.charts_clusters import dendrogram

if TYPE_CHECKING:
    from pathlib import Path

    from training.field_selection.measures import Measures

ROWS = 12_000


@pytest.fixture(scope="module")
def fields() -> dict[str, np.ndarray]:
    """A user and two functions of it, an item and its category, a nearly equal form of it, noise, and an XOR pair."""
    rng = np.random.default_rng(1)
    user, item = rng.integers(0, 300, ROWS), rng.integers(0, 200, ROWS)
    return {
        "noise": rng.integers(0, 40, ROWS),
        "city": user % 30,
        "user": user,
        "category": item // 20,
        "item": item,
        "item2": np.where(rng.random(ROWS) < 0.03, rng.integers(0, 200, ROWS), item),
        "country": user % 10,
        "copy": item,
        "left": rng.integers(0, 2, ROWS),
        "right": rng.integers(0, 2, ROWS),
    }


@pytest.fixture(scope="module")
def found(fields: dict[str, np.ndarray]) -> Measures:
    rng = np.random.default_rng(2)
    odds = rng.normal(0, 1, 300)[fields["user"]] + rng.normal(0, 1, 200)[fields["item"]]
    odds += np.where(fields["left"] ^ fields["right"], 0.8, -0.8)
    label = (rng.random(ROWS) < 1 / (1 + np.exp(-odds))).astype(np.uint8)
    slots, context, candidate = slots_and_ids(fields)
    return measure(context, candidate, label, slots)


def test_fields_of_one_origin_form_one_cluster(found: Measures) -> None:
    tree = cluster(found.names, shared_entropy(found))
    groups = {frozenset(group) for group in tree.clusters()}
    assert groups == {frozenset({"user", "city", "country"}), frozenset({"item", "item2", "category", "copy"})}
    assert sorted(tree.order) == list(range(len(found.names)))
    assert [merge.shared for merge in tree.merges] == sorted((merge.shared for merge in tree.merges), reverse=True)
    assert tree.clusters(1.1) == []
    # Leaves of one cluster stand together.
    places = [tree.order.index(found.names.index(name)) for name in ("user", "city", "country")]
    assert max(places) - min(places) == 2


def test_shared_entropy_of_equals_is_scikit_learns_adjusted_mutual_information(
    fields: dict[str, np.ndarray], found: Measures
) -> None:
    for first, second in (("item", "item2"), ("user", "noise"), ("item", "category"), ("city", "country")):
        i, j = found.names.index(first), found.names.index(second)
        expected = adjusted_mutual_info_score(fields[first], fields[second], average_method="max")
        assert found.redundancy_max[i][j] == pytest.approx(expected, abs=0.01)
        expected = adjusted_mutual_info_score(fields[first], fields[second], average_method="min")
        assert found.redundancy_min[i][j] == pytest.approx(expected, abs=0.01)


def test_functions_of_other_fields_are_known_as_such(found: Measures) -> None:
    names = found.names
    known = {(names[i], names[j]) for i, j in np.argwhere(functions(found))}
    assert {("city", "user"), ("country", "user"), ("country", "city"), ("category", "item"), ("copy", "item")} <= known
    assert not {("user", "city"), ("item2", "item"), ("noise", "user"), ("item", "user")} & known


def test_few_fields_carry_the_information_and_functions_of_them_add_nothing(found: Measures) -> None:
    order = carried(found)
    assert set(order.names[:2]) & {"user"}
    assert set(order.names[:2]) & {"item", "copy", "item2"}
    assert order.needed(0.9) == 2
    assert order.information[-1] == pytest.approx(1.0)
    assert list(order.information) == sorted(order.information)
    assert order.parameters[-1] == pytest.approx(1.0)
    rows = {field.name: field.rows for field in found.fields}
    beyond = sum(rows[name] for name in order.names[2:]) / sum(rows.values())
    assert order.parameters_beyond(0.9) == pytest.approx(beyond)


def test_every_field_is_of_one_kind_and_an_xor_carries(found: Measures) -> None:
    rows = kinds(found, select(found))
    by_name = {name: row.kind for row in rows for name in row.names}
    assert set(by_name) == set(found.names)
    assert sum(row.fields for row in rows) == pytest.approx(1.0)
    assert sum(row.parameters for row in rows) == pytest.approx(1.0)
    assert by_name["noise"] == "noise"
    assert {by_name["copy"], by_name["item"], by_name["item2"]} >= {"copy", "carries"}
    assert by_name["user"] == by_name["left"] == by_name["right"] == "carries"
    assert by_name["city"] == by_name["country"] == by_name["category"] == "weak"


def test_a_tree_is_drawn_with_every_name_and_stays_inside() -> None:
    rng = np.random.default_rng(3)
    shared = rng.random((12, 12))
    tree = cluster([f"<{place}>" for place in range(12)], (shared + shared.T) / 2)
    root = ET.fromstring(dendrogram(tree, title="<t>", cut=0.5))  # noqa: S314 - our own drawing
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert {f"<{place}>" for place in range(12)} <= {element.text for element in root.iter("text")}
    lines = list(root.iter("polyline"))
    assert len(lines) == 11
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    assert len(cluster(["one"], np.ones((1, 1))).merges) == 0


def test_the_command_and_the_report_show_clusters_interactions_and_what_carries(tiny_home: Path) -> None:
    done = tiny.training_here("analyze", "run", cwd=tiny_home)
    assert done.returncode == 0, done.stderr
    shown = tiny.training_here("analyze", "run", "--json", cwd=tiny_home)
    content = json.loads(shown.stdout)
    assert {"interactions", "clusters", "carried", "kinds"} <= set(content)
    page = (tiny_home / "run" / "report.html").read_text(encoding="utf-8")
    for words in (content["carried"]["text"], "ad, copy_of_ad"):
        assert words in " ".join(done.stdout.split())
        assert words in page
    assert "Interaction information" in page
    for field in content["measures"]["fields"]:
        assert field["low_bits"] <= field["information_bits"] <= field["high_bits"]
