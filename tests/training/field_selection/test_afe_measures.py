"""Measuring encoded columns: views of fields, samples, blocks, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from encoded import slots_and_ids

from training.field_selection import measuring
from training.field_selection.field_views import MeasuredSlot, agreement_within, drawn_value, sample_rows, set_codes
from training.field_selection.information import adjusted_p_values
from training.field_selection.measures import Measures
from training.field_selection.measuring import measure
from training.field_selection.single_fields import HEAD, head_codes

ROWS = 4000


def coin(rate: np.ndarray, seed: int) -> np.ndarray:
    return (np.random.default_rng([seed, 99]).random(rate.size) < rate).astype(np.uint8)


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """An informative field, a coarser form of it, noise of few and of many values, one value only."""
    rng = np.random.default_rng(1)
    informative = rng.integers(0, 24, ROWS)
    columns = {
        "noise": rng.integers(0, 30, ROWS),
        "informative": informative,
        "coarse": informative // 4,
        "identifier": rng.integers(0, ROWS, ROWS),
        "constant": np.zeros(ROWS, int),
    }
    return columns, coin(np.linspace(0.1, 0.5, 24)[informative], 1)


@pytest.fixture(scope="module")
def measured(plain: tuple[dict[str, np.ndarray], np.ndarray]) -> Measures:
    columns, label = plain
    slots, context, candidate = slots_and_ids(columns)
    return measure(context, candidate, label, slots)


def test_a_set_s_code_depends_on_its_values_and_not_on_their_order_or_padding() -> None:
    ids = np.array([[3, 4, 2], [4, 3, 2], [3, 2, 2], [4, 2, 2], [3, 4, 5], [0, 2, 2]], np.int32)
    codes, size = set_codes(ids)
    assert codes[0] == codes[1]
    assert len(set(codes.tolist())) == 5
    assert size == 5


def test_a_drawn_value_is_one_of_the_row_s_own_each_equally_often() -> None:
    ids = np.tile(np.array([[7, 8, 2]], np.int32), (4000, 1))
    drawn = drawn_value(ids, 2, np.random.default_rng(0))
    assert set(drawn.tolist()) == {7, 8}
    assert abs((drawn == 7).mean() - 0.5) < 0.04
    assert drawn_value(np.array([[2, 2]], np.int32), 2, np.random.default_rng(0)).tolist() == [2]


def test_agreement_within_clusters_is_0_by_chance_and_1_for_a_constant() -> None:
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(3000), 3)
    field = rng.integers(0, 5, 3000)[clusters]
    free = rng.integers(0, 5, 9000)
    half = np.where(rng.random(9000) < 0.5, field, free)
    found = [agreement_within(codes, np.bincount(codes), clusters) for codes in (field, free, half)]
    assert found[0] == pytest.approx(1.0)
    assert abs(found[1]) < 0.02
    assert 0.15 < found[2] < 0.35
    assert agreement_within(free, np.bincount(free), np.arange(9000)) == 0.0


def test_a_sample_is_of_whole_clusters_and_about_the_size_asked_for() -> None:
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 2000, 10_000) * 17
    rows = sample_rows(10_000, clusters, 4000, rng)
    assert rows is not None
    assert abs(rows.size - 4000) < 600
    assert not set(clusters[rows]) & set(np.delete(clusters, rows))
    assert sample_rows(10_000, clusters, 10_000, rng) is None
    single = sample_rows(10_000, None, 4000, rng)
    assert single is not None
    assert len(set(single.tolist())) == 4000


def test_fields_get_the_information_that_they_were_given(measured: Measures) -> None:
    fields = {field.name: field for field in measured.fields}
    rate = np.linspace(0.1, 0.5, 24)
    bits = -rate * np.log2(rate) - (1 - rate) * np.log2(1 - rate)
    mean = rate.mean()
    truth = -mean * np.log2(mean) - (1 - mean) * np.log2(1 - mean) - bits.mean()
    assert fields["informative"].information_bits == pytest.approx(truth, rel=0.25)
    assert fields["informative"].p_value < 1e-12
    assert fields["coarse"].information_bits == pytest.approx(truth, rel=0.25)
    for name in ("noise", "identifier", "constant"):
        assert fields[name].p_value > 1e-3
        assert abs(fields[name].information_bits) <= 4 * fields[name].spread_bits + 1e-12
    assert fields["identifier"].plug_in_bits > 0.3
    assert fields["constant"].seen == 1
    assert fields["informative"].entropy_bits == pytest.approx(np.log2(24), rel=0.01)


def test_redundancy_of_a_hierarchy_is_1_over_the_smaller_entropy_only(measured: Measures) -> None:
    i, j = measured.names.index("informative"), measured.names.index("coarse")
    assert measured.redundancy_min[i][j] == pytest.approx(1.0)
    assert measured.redundancy_max[i][j] < 0.8
    assert measured.redundancy_max[j][i] == measured.redundancy_max[i][j]
    k = measured.names.index("identifier")
    assert measured.redundancy_max[i][k] < 0.1
    assert not measured.copies


def test_what_is_known_from_a_finer_field_adds_nothing(measured: Measures) -> None:
    i, j = measured.names.index("informative"), measured.names.index("coarse")
    assert measured.conditional_p[j][i] == 1.0
    assert measured.conditional_bits[j][i] == pytest.approx(0.0)
    assert measured.order[0] in {"informative", "coarse"}
    assert measured.gains_bits[0] == max(measured.gains_bits)


def test_blocks_of_rows_give_what_all_rows_give(
    plain: tuple[dict[str, np.ndarray], np.ndarray], measured: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, label = plain
    slots, context, candidate = slots_and_ids(columns)
    monkeypatch.setattr(measuring, "BLOCK_ROWS", 333)
    assert measure(context, candidate, label, slots) == measured


def test_fields_are_counted_on_all_rows_and_pairs_on_the_sample(
    plain: tuple[dict[str, np.ndarray], np.ndarray], measured: Measures
) -> None:
    columns, label = plain
    slots, context, candidate = slots_and_ids(columns)
    found = measure(context, candidate, label, slots, pair_rows=1500)
    assert (found.rows, found.sampled_rows) == (ROWS, 1500)
    # But for what is measured beyond several fields, which is on the sample as well.
    assert [replace(field, joint_bits=0.0, joint_p_value=1.0) for field in found.fields] == [
        replace(field, joint_bits=0.0, joint_p_value=1.0) for field in measured.fields
    ]
    assert found.conditional_bits != measured.conditional_bits


def test_the_same_seed_measures_the_same_and_progress_is_told(
    plain: tuple[dict[str, np.ndarray], np.ndarray], measured: Measures
) -> None:
    columns, label = plain
    slots, context, candidate = slots_and_ids(columns)
    told: list[tuple[int, int]] = []
    assert measure(context, candidate, label, slots, progress=lambda *step: told.append(step)) == measured
    assert told == [(step, 5) for step in range(1, 6)]


@pytest.mark.parametrize(("tags", "most"), [(8, 2), (60, 6)])
def test_a_multi_valued_field_is_found_by_its_sets_or_by_its_values(tags: int, most: int) -> None:
    rng = np.random.default_rng([4, tags])
    count = rng.integers(most - 1, most + 1, ROWS)
    informative, noise = (
        np.where(np.arange(most) < count[:, None], np.argsort(rng.random((ROWS, tags)), 1)[:, :most] + 3, 2)
        for _ in range(2)
    )
    effect = np.append(np.zeros(3), rng.normal(0, 0.8, tags))[informative].sum(1)
    label = coin(1 / (1 + np.exp(1 - effect)), 4)
    slots = [
        MeasuredSlot("informative", "context", 0, most, tags + 3, 2),
        MeasuredSlot("noise", "context", most, most, tags + 3, 2),
    ]
    context = np.hstack([informative, noise]).astype(np.int32)
    found = measure(context, np.zeros((ROWS, 0), np.int32), label, slots).fields
    assert found[0].p_value < 1e-6
    assert found[1].p_value > 1e-3
    assert (found[0].seen > 0.9 * ROWS) == (tags == 60)  # then nearly every row has a set of its own


@pytest.mark.parametrize("clustered", [False, True])
def test_of_many_noise_fields_hardly_any_is_found_alone_or_in_a_pair(clustered: bool) -> None:
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(800), 4)
    label = coin(1 / (1 + np.exp(1.2 - rng.normal(0, 1.2, 800)[group])), 5)
    sizes = np.geomspace(2, group.size, 24).astype(int)
    columns = {
        f"f{place}": rng.integers(0, size, 800)[group] if clustered and place % 2 else rng.integers(0, size, group.size)
        for place, size in enumerate(sizes)
    }
    slots, context, candidate = slots_and_ids(columns)
    found = measure(context, candidate, label, slots, clusters=group * 3)
    assert [field.clustered for field in found.fields][1::2] == [clustered] * 12
    alone = adjusted_p_values([field.p_value for field in found.fields])
    off = ~np.eye(24, dtype=bool)
    pairs = adjusted_p_values(np.array(found.conditional_p)[off])
    assert alone.min() > 0.01
    assert pairs.min() > 0.01
    z = np.array([field.information_bits / field.spread_bits for field in found.fields if field.spread_bits > 0])
    assert abs(z.mean()) < 3 / np.sqrt(z.size)


def test_information_of_clustered_noise_is_zero_on_average_whatever_its_values_tell_of_their_request_s_size() -> None:
    z = []
    for seed in range(30):
        rng = np.random.default_rng([6, seed])
        group = np.repeat(np.arange(500), rng.integers(1, 7, 500))
        label = coin(1 / (1 + np.exp(1 - rng.normal(0, 1.5, 500)[group])), seed)
        noise = rng.integers(0, 1500, 500)[group]
        noise[np.bincount(noise)[noise] < 2] = 1500  # a value of a single row is out of vocabulary
        slots, context, candidate = slots_and_ids({"noise": noise})
        field = measure(context, candidate, label, slots, clusters=group).fields[0]
        assert field.clustered
        z.append(field.information_bits / field.spread_bits)
    assert abs(np.mean(z)) < 3 / 30**0.5


def test_a_slightly_coarser_field_shares_only_its_part_of_the_larger_entropy() -> None:
    rng = np.random.default_rng(7)
    fine = rng.integers(0, 80, ROWS)
    coarse = np.where(fine < 48, fine // 2, fine)
    slots, context, candidate = slots_and_ids({"fine": fine, "coarse": coarse})
    found = measure(context, candidate, coin(np.full(ROWS, 0.3), 7), slots)
    assert found.redundancy_min[0][1] == pytest.approx(1.0)
    larger, smaller = (field.entropy_bits for field in found.fields)
    assert found.redundancy_max[0][1] == pytest.approx(smaller / larger, abs=0.02)
    assert [copy.redundancy for copy in found.copies] in ([], [found.redundancy_max[0][1]])


@pytest.mark.parametrize("clustered", [False, True])
def test_an_effect_of_frequent_values_is_not_drowned_by_a_long_tail(clustered: bool) -> None:
    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(2500), 2)
    tail = 1.0 / (np.arange(2500) + 3.0)
    identifier, noise = (rng.choice(2500, 2500, p=tail / tail.sum())[group] for _ in range(2))
    label = coin(np.where(identifier < 16, np.where(identifier % 2 == 0, 0.2, 0.38), 0.29), 8)
    slots, context, candidate = slots_and_ids({"identifier": identifier, "noise": noise})
    found = measure(context, candidate, label, slots, clusters=group if clustered else None).fields
    assert found[0].information_bits < 4 * found[0].spread_bits  # alone: p about 1e-4
    assert found[0].p_value < 1e-6
    assert found[1].p_value > 1e-3


def test_the_head_of_a_long_tail_is_its_most_frequent_values() -> None:
    total = np.random.default_rng(9).permutation(200)
    head = head_codes(total)
    assert head is not None
    assert [int(np.flatnonzero(head == place)[0]) for place in range(HEAD)] == np.argsort(-total)[:HEAD].tolist()
    assert np.count_nonzero(head == HEAD) == 200 - HEAD
    assert head_codes(np.array([5] * HEAD + [0] * 500)) is None


def test_measures_survive_a_file(measured: Measures) -> None:
    assert Measures.from_json(json.loads(json.dumps(measured.as_json()))) == measured


def test_what_cannot_be_measured_is_refused() -> None:
    slots, context, candidate = slots_and_ids({"a": np.array([0, 1, 2]), "b": np.array([0, 0, 1])})
    label = np.array([0, 1, 1], np.uint8)
    with pytest.raises(ValueError, match=r"context_ids: expected 3 rows as the label has, got 2"):
        measure(context[:2], candidate, label, slots)
    with pytest.raises(ValueError, match=r"clusters: expected 3 rows as the label has, got 1"):
        measure(context, candidate, label, slots, clusters=np.zeros(1, int))
    with pytest.raises(ValueError, match=r"field 'b': expected columns 1 to 1 in candidate_ids, got 1 columns"):
        measure(context, candidate[:, :1], label, slots)
    with pytest.raises(ValueError, match=r"label: expected rows of both classes, got 3 ones in 3 rows"):
        measure(context, candidate, np.ones(3, np.uint8), slots)
    with pytest.raises(ValueError, match=r"slots: expected at least one field to measure, got none"):
        measure(context, candidate, label, [])
