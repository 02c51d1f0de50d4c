"""What AFE keeps, drops and allocates, on fields whose truth is planted."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from encoded import slots_and_ids
from pydantic import ValidationError

from training.afe import AfeConfig, Selection, measure, new_groups, select
from training.field_selection.allocation import BudgetError, allocate, default_dimension, largest_useful

ROWS = 8000


def planted() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One field of each kind, in no order that tells."""
    rng = np.random.default_rng(1)
    item = rng.integers(0, 200, ROWS)
    brand = item // 20
    user = rng.integers(0, 30, ROWS)
    wrong = rng.random(ROWS) < 0.002
    a, b = rng.integers(0, 12, ROWS), rng.integers(0, 10, ROWS)
    noise = rng.integers(0, 40, ROWS)
    effect = rng.normal(0, 0.7, 200)[item] + rng.normal(0, 0.7, 10)[brand] + rng.normal(0, 0.6, 30)[user]
    effect += np.where((a < 6) == (b < 5), 0.7, -0.7)
    label = (rng.random(ROWS) < 1 / (1 + np.exp(1.0 - effect))).astype(np.uint8)
    columns = {
        "noise": noise,
        "xor_a": a,
        "item": item,
        "copy_of_noise": rng.permutation(40)[noise],
        "nearly_user": np.where(wrong, rng.permutation(user), user),
        "brand": brand,
        "copy_of_xor_a": rng.permutation(12)[a],
        "constant": np.zeros(ROWS, int),
        "user": user,
        "xor_b": b,
        "identifier": rng.integers(0, 6000, ROWS),
    }
    return columns, label


def chosen(columns: Mapping[str, np.ndarray], label: np.ndarray, **settings: object) -> Selection:
    slots, context, candidate = slots_and_ids(columns)
    config = AfeConfig.model_validate(settings)
    return select(measure(context, candidate, label, slots, config), config)


@pytest.fixture(scope="module")
def selection() -> Selection:
    return chosen(*planted())


def test_noise_is_dropped_with_its_copies_and_the_reason(selection: Selection) -> None:
    assert set(selection.noise) == {"noise", "copy_of_noise", "constant", "identifier"}
    assert selection.dropped["constant"] == "noise: one value only"
    assert selection.dropped["noise"].startswith("noise: ")
    assert " beyond " in selection.dropped["noise"]


def test_one_of_each_group_of_copies_stays(selection: Selection) -> None:
    assert len({"xor_a", "copy_of_xor_a"} & set(selection.kept)) == 1
    assert len({"user", "nearly_user"} & set(selection.kept)) == 1
    for copy, original in selection.copies.items():
        assert original in selection.kept
        assert selection.dropped[copy].startswith(f"copy of {original}: shares ")


def test_an_interaction_is_kept_whose_fields_say_nothing_alone(selection: Selection) -> None:
    kept_half = next(iter({"xor_a", "copy_of_xor_a"} & set(selection.kept)))
    assert {"xor_b", kept_half} <= set(selection.kept)
    assert {frozenset(pair) for pair in selection.interactions} == {frozenset({"xor_b", kept_half})}
    assert selection.evidence["xor_b"].p_value > 0.001
    assert selection.evidence["xor_b"].partner in {"xor_a", "copy_of_xor_a"}
    assert selection.dims["xor_b"] >= 4


def test_of_inexact_copies_the_original_stays_though_they_are_less_alike_than_each_is_to_it() -> None:
    rng = np.random.default_rng(4)
    original = rng.integers(0, 40, ROWS)
    label = (rng.random(ROWS) < np.linspace(0.1, 0.6, 40)[original]).astype(np.uint8)
    columns = {
        f"copy{number}": np.where(rng.random(ROWS) < 0.006, rng.permutation(original), original) for number in range(3)
    }
    found = chosen(columns | {"original": original}, label, copy_redundancy=0.985)
    assert found.kept == ("original",)
    assert set(found.copies.values()) == {"original"}


def test_a_function_of_a_finer_field_is_no_copy(selection: Selection) -> None:
    assert {"item", "brand"} <= set(selection.kept)


def test_kept_fields_have_dimensions_and_priors_in_the_order_of_the_slots(selection: Selection) -> None:
    names = list(planted()[0])
    assert list(selection.kept) == [name for name in names if name in selection.kept]
    assert tuple(selection.dims) == tuple(selection.gate_prior) == selection.kept
    assert set(selection.kept) | set(selection.dropped) == set(names) == set(selection.evidence)
    assert all(-2.0 <= prior <= 4.0 for prior in selection.gate_prior.values())
    assert selection.gate_prior["item"] == 4.0


def test_the_decision_does_not_depend_on_the_order_of_the_fields(selection: Selection) -> None:
    columns, label = planted()
    again = chosen({name: columns[name] for name in reversed(list(columns))}, label)
    assert set(again.noise) == set(selection.noise)
    assert {frozenset(pair) for pair in again.copies.items()} == {frozenset(pair) for pair in selection.copies.items()}


def test_fields_to_keep_are_kept_and_nothing_is_dropped_without_the_filter() -> None:
    columns, label = planted()
    assert {"identifier", "copy_of_xor_a", "xor_a"} <= set(
        chosen(columns, label, keep=("identifier", "copy_of_xor_a", "xor_a")).kept
    )
    everything = chosen(columns, label, filter=False, allocate=False, mean_dimension=4)
    assert everything.kept == tuple(columns)
    assert not everything.dropped
    assert set(everything.dims.values()) == {4}
    assert min(everything.gate_prior, key=lambda name: everything.gate_prior[name]) in {
        "noise",
        "copy_of_noise",
        "constant",
        "identifier",
    }


def test_a_field_that_others_hide_is_kept() -> None:
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2, (10, ROWS))
    total = bits.sum(0) - 5.0
    hidden = (rng.random(ROWS) < 1 / (1 + np.exp(-1.5 * total))).astype(int)
    # Its own effect just undoes what it tells about the ten others: found by bisection.
    low, high = 0.0, 4.0
    for _ in range(40):
        effect = (low + high) / 2
        p = 1 / (1 + np.exp(-(0.4 * total - effect * (hidden - 0.5))))
        low, high = (effect, high) if p[hidden == 1].mean() > p[hidden == 0].mean() else (low, effect)
    label = (rng.random(ROWS) < p).astype(np.uint8)
    columns = {f"bit{place}": bit for place, bit in enumerate(bits)} | {"hidden": hidden}
    columns["noise"] = rng.integers(0, 5, ROWS)
    found = chosen(columns, label)
    assert found.evidence["hidden"].p_value > 0.001
    assert found.evidence["hidden"].joint_p_value < 1e-9
    assert found.noise == ("noise",)


def test_the_best_field_stays_where_all_are_noise() -> None:
    rng = np.random.default_rng(2)
    columns = {f"noise{size}": rng.integers(0, size, 500) for size in (3, 30)} | {"constant": np.zeros(500, int)}
    label = rng.integers(0, 2, 500).astype(np.uint8)
    assert len(chosen(columns, label).kept) == 1
    assert chosen({"constant": columns["constant"]}, label).kept == ("constant",)


def test_a_selection_survives_a_file(selection: Selection) -> None:
    assert Selection.from_json(json.loads(json.dumps(selection.as_json()))) == selection


def test_wrong_settings_are_refused() -> None:
    columns, label = planted()
    few = {name: columns[name] for name in ("noise", "item")}
    with pytest.raises(ValueError, match=r"afe.keep: expected names of fields, got \['brnd'\]; the fields are "):
        chosen(few, label, keep=("brnd",))
    with pytest.raises(BudgetError, match=r"afe\.budget: expected at least 264 \(one dimension a field\), got 50"):
        chosen(few, label, budget=50)
    with pytest.raises(ValidationError, match="alhpa"):
        AfeConfig.model_validate({"alhpa": 0.1})


def test_groups_count_as_evidence_of_their_own_only_where_they_come_again() -> None:
    train = np.array([1, 1, 2, 3])
    assert new_groups(train, np.array([4, 5, 5, 1])) is not None
    assert new_groups(train, np.array([1, 2, 2, 9])) is None
    assert new_groups(None, None) is None


BITS = {"small": 0.02, "tail": 0.02, "weak": 0.0002, "binary": 0.02, "pair": 0.01}
TABLE_ROWS = {"small": 50, "tail": 50_000, "weak": 50, "binary": 4, "pair": 52}
FLOORS = {"small": 2, "tail": 2, "weak": 2, "binary": 2, "pair": 8}


def cost(dims: Mapping[str, int], width: int = 64) -> int:
    return sum(dim * (TABLE_ROWS[name] + width) for name, dim in dims.items())


@pytest.mark.parametrize("budget", [51_000, 120_000, 300_000, 10**7])
def test_dimensions_are_powers_of_two_under_the_budget(budget: int) -> None:
    dims = allocate(BITS, TABLE_ROWS, FLOORS, budget=budget, width=64, most=16)
    assert cost(dims) <= budget
    assert set(dims.values()) <= {1, 2, 4, 8, 16}
    assert dims["binary"] == 2  # two values and two reserved ids


def test_information_widens_a_table_and_rows_narrow_it() -> None:
    dims = allocate(BITS, TABLE_ROWS, FLOORS, budget=4 * cost(dict.fromkeys(BITS, 1)), width=64, most=16)
    assert dims["small"] > dims["tail"]
    assert dims["small"] >= dims["weak"]
    assert dims["pair"] >= FLOORS["pair"]
    more = allocate(BITS | {"tail": 2.0}, TABLE_ROWS, FLOORS, budget=2 * cost(dims), width=64, most=16)
    assert more["tail"] > dims["tail"]


def test_steps_are_those_of_most_value_per_parameter() -> None:
    # By brute force over all dimensions: no allocation of the same cost or less is worth more than a step's slack.
    bits = {"dear": 0.03, "small": 0.02, "pair": 0.01}
    rows = {"dear": 2000, "small": 50, "pair": 52}
    names, budget = tuple(bits), 9000
    dims = allocate(bits, rows, dict.fromkeys(names, 1), budget=budget, width=64, most=16)
    options = (1, 2, 4, 8, 16)

    def value(choice: Mapping[str, int]) -> float:
        return sum(bits[name] * dim / (1 + dim) for name, dim in choice.items())

    def price(choice: Mapping[str, int]) -> int:
        return sum(dim * (rows[name] + 64) for name, dim in choice.items())

    best = max(
        value(choice)
        for triple in np.array(np.meshgrid(*[options] * 3)).T.reshape(-1, 3)
        if price(choice := dict(zip(names, triple.tolist(), strict=True))) <= budget
    )
    assert price(dims) <= budget
    assert value(dims) >= 0.98 * best


def test_data_with_many_rows_a_value_earns_more_dimensions() -> None:
    assert default_dimension(rows=100_000, table_rows=3000) == 8
    assert default_dimension(rows=100_000, table_rows=60_000) == 4
    assert [largest_useful(rows, 16) for rows in (2, 3, 4, 6, 12, 1000)] == [1, 1, 2, 4, 8, 16]
    assert largest_useful(1000, 4) == 4


def clicks_of_users(level: float, rows: int = 40) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """200 users of so many rows, each with a level of its own by this deviation, and an item that matters."""
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(200), rows)
    item = rng.integers(0, 50, user.size)
    logit = rng.normal(0, level, 200)[user] + rng.normal(0, 1.0, 50)[item] if level else rng.normal(0, 1.0, 50)[item]
    label = (rng.random(user.size) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    return {"user": user + 2, "group_noise": rng.integers(2, 9, 200)[user], "item": item + 2}, label, user


@pytest.mark.parametrize(
    ("level", "rows", "kept"), [(1.0, 40, {"user", "item"}), (0.0, 40, {"item"}), (1.0, 4, {"item"})]
)
def test_a_field_that_names_groups_of_many_rows_is_kept_if_groups_have_levels_of_their_own(
    level: float, rows: int, kept: set[str]
) -> None:
    columns, label, user = clicks_of_users(level, rows)
    slots, context, candidate = slots_and_ids(columns)
    assert set(select(measure(context, candidate, label, slots, clusters=user)).kept) == kept
