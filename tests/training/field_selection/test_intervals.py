"""Intervals of information and interaction of pairs, against closed forms, coverage and noise."""

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from encoded import slots_and_ids
from scipy.stats import chi2

from training.afe import measure, select
from training.field_selection.field_views import view_field
from training.field_selection.information import LabelTable, entropy
from training.field_selection.intervals import pointwise_variance
from training.field_selection.measures import FieldMeasure, Interaction, Measures
from training.field_selection.screening import conditional_test, stratify
from training.field_selection.single_fields import Sample, measure_alone

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def bits(rate: float) -> float:
    """Entropy of a coin."""
    return entropy([rate, 1.0 - rate]) / np.log(2)


def flipped(rng: np.random.Generator, values: np.ndarray, chance: float) -> np.ndarray:
    return values ^ (rng.random(values.size) < chance)


def measured(columns: dict[str, np.ndarray], label: np.ndarray, clusters: np.ndarray | None = None) -> Measures:
    slots, context, candidate = slots_and_ids(columns)
    return measure(context, candidate, label.astype(np.uint8), slots, clusters=clusters)


def alone(codes: np.ndarray, label: np.ndarray) -> FieldMeasure:
    (slot,), _, candidate = slots_and_ids({"x": codes})
    rng = np.random.default_rng(0)
    sample = Sample((slot,), (view_field(slot, candidate, None, 64, rng),), label.astype(np.uint8), None)
    return measure_alone(sample, 0, LabelTable.count(codes, label, slot.rows), rng)


def test_pointwise_variance_of_a_symmetric_channel_has_its_closed_form() -> None:
    # ln(2 (1 - e)) or, with chance e, ln(2 e).
    table = LabelTable(total=np.array([400, 400, 0]), positive=np.array([100, 300, 0]))
    assert pointwise_variance(table) == pytest.approx(0.25 * 0.75 * np.log(3) ** 2)
    sure = LabelTable(total=np.array([30, 70]), positive=np.array([0, 70]))
    assert pointwise_variance(sure) == pytest.approx(0.3 * 0.7 * np.log(7 / 3) ** 2)


def channel(chance: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.integers(0, 2, rows)
        return x, flipped(rng, x, chance)

    return draw


def rates(values: int, low: float, high: float) -> Draw:
    def draw(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.integers(0, values, rows)
        return x, (rng.random(rows) < np.linspace(low, high, values)[x]).astype(int)

    return draw


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(channel(0.02), 1 - bits(0.02), id="nearly certain"),
        pytest.param(channel(0.3), 1 - bits(0.3), id="strong"),
        pytest.param(channel(0.47), 1 - bits(0.47), id="weak"),
        pytest.param(
            rates(150, 0.1, 0.5), bits(0.3) - np.mean([bits(r) for r in np.linspace(0.1, 0.5, 150)]), id="many values"
        ),
        pytest.param(rates(15, 0.25, 0.25), 0.0, id="noise"),
        pytest.param(rates(2500, 0.25, 0.25), 0.0, id="noise of rare values"),
    ],
)
def test_an_interval_covers_the_truth_about_as_often_as_it_says(draw: Draw, truth: float) -> None:
    found = [alone(*draw(np.random.default_rng([1, seed]), 5000)) for seed in range(80)]
    covered = np.mean([field.low_bits <= truth <= field.high_bits for field in found])
    assert covered > 0.88
    # Nor is it idle: hardly wider than the estimates are spread.
    spread = np.std([field.information_bits for field in found])
    assert np.mean([field.high_bits - field.low_bits for field in found]) < 2 * 1.96 * 1.7 * spread


@pytest.mark.slow
def test_of_200_noise_fields_the_mean_is_0_within_two_errors_as_often_as_it_should_be_and_hardly_any_is_kept() -> None:
    errors, kept, inside, plug_in = [], [], [], []
    for seed in range(12):
        rng = np.random.default_rng([2, seed])
        rows = 2000
        label = (rng.random(rows) < 0.25).astype(int)
        found = [alone(rng.integers(0, size, rows), label) for size in np.geomspace(10, rows, 200).astype(int)]
        estimates = np.array([field.information_bits for field in found])
        errors.append(estimates.mean() / (estimates.std(ddof=1) / np.sqrt(200)))
        kept.append(len(select(apart(found, rows, 0.25)).kept) / 200)
        inside.append(np.mean([field.low_bits <= 0 <= field.high_bits for field in found]))
        plug_in.append(np.mean([field.plug_in_bits for field in found]))
    # One in 22 is beyond two by chance: three and more of twelve once in 66 times; the squares' sum has a known law.
    assert np.sum(np.abs(errors) > 2.0) <= 2
    assert chi2.ppf(0.005, 12) < np.sum(np.square(errors)) < chi2.ppf(0.995, 12)
    assert max(kept) <= 0.05
    assert min(inside) > 0.9
    assert min(plug_in) > 0.1


def apart(fields: Sequence[FieldMeasure], rows: int, rate: float) -> Measures:
    """Fields that say nothing of one another: pairs of independent ones are measured in other tests."""
    named = tuple(replace(field, name=f"noise {place}") for place, field in enumerate(fields))
    none = tuple((0.0,) * len(named) for _ in named)
    sure = tuple((1.0,) * len(named) for _ in named)
    names = tuple(field.name for field in named)
    return Measures(rows, rows, rate, named, none, sure, none, none, (), names, (0.0,) * len(named))


def pair(measures: Measures, first: str, second: str) -> Interaction:
    return next(found for found in measures.interactions if {found.first, found.second} == {first, second})


def test_synergy_of_an_xor_redundancy_of_copies_and_chains_have_their_closed_forms() -> None:
    rng = np.random.default_rng(3)
    rows = 30_000
    a, b, z, noise = (rng.integers(0, 2, rows) for _ in range(4))
    x = flipped(rng, z, 0.2)
    label = flipped(rng, np.where(rng.random(rows) < 0.5, a ^ b, z), 0.1).astype(int)
    found = measured({"a": a, "b": b, "z": z, "copy": z, "x": x, "noise": noise}, label)
    # Half the rows follow a xor b, half z, one in ten flipped: each alone is a channel that flips with chance 0.3.
    through = 0.3
    xor = pair(found, "a", "b")
    assert xor.low_bits < 1 - bits(through) < xor.high_bits
    assert xor.interaction_bits == pytest.approx(1 - bits(through), rel=0.1)
    assert xor.p_value < 1e-6
    assert xor.beyond_better_bits == pytest.approx(xor.interaction_bits, abs=2e-3)
    copies = pair(found, "z", "copy")
    assert copies.interaction_bits == pytest.approx(-(1 - bits(through)), rel=0.1)
    assert copies.beyond_better_bits == pytest.approx(0.0, abs=1e-9)
    assert copies.both_bits == pytest.approx(1 - bits(through), rel=0.1)
    # x tells of the label through z only: a chain of two channels.
    chain = pair(found, "x", "z")
    alone_bits = 1 - bits(0.2 * (1 - through) + 0.8 * through)
    assert chain.low_bits < -alone_bits < chain.high_bits
    assert chain.interaction_bits == pytest.approx(-alone_bits, rel=0.15)
    assert chain.p_value < 1e-6
    for other in ("a", "z", "x"):
        assert pair(found, other, "noise").p_value > 0.01
    assert [entry.interaction_bits for entry in found.interactions] == sorted(
        (entry.interaction_bits for entry in found.interactions), reverse=True
    )


def test_pairs_of_noise_are_hardly_ever_said_to_interact() -> None:
    least, covered = [], []
    for seed in range(6):
        rng = np.random.default_rng([4, seed])
        columns = {f"f{size}": rng.integers(0, size, 1500) for size in (2, 5, 12, 40, 200, 1500)}
        found = measured(columns, rng.random(1500) < 0.3)
        least.append(min(entry.p_value for entry in found.interactions))
        covered += [entry.low_bits <= 0 <= entry.high_bits for entry in found.interactions]
    assert min(least) > 0.005
    assert np.mean(covered) > 0.9


def test_requests_are_one_piece_of_evidence_about_how_context_fields_interact() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 2, 1500), rng.integers(0, 2, 1500)
    label = flipped(rng, a & b, 0.3)
    group = np.repeat(np.arange(1500), 4)
    columns = {"a": a[group], "b": b[group]}
    by_rows = measured(columns, label[group]).interactions[0]
    by_requests = measured(columns, label[group], clusters=group).interactions[0]
    wider = (by_requests.high_bits - by_requests.low_bits) / (by_rows.high_bits - by_rows.low_bits)
    assert wider == pytest.approx(2.0, rel=0.15)


def test_measuring_takes_memory_by_the_values_never_by_their_pairs() -> None:
    rng = np.random.default_rng(6)
    rows, peaks = 10_000, []
    label = rng.random(rows) < 0.2
    for values in (50_000, 200_000):
        columns = {f"f{place}": np.r_[values - 1, rng.integers(0, values, rows - 1)] for place in range(4)}
        tracemalloc.start()
        measured(columns, label)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # A table of one pair would be 40 billion cells. Counts of four fields are 4 x 2 x 8 bytes a value.
    assert peaks[1] < 100 * 2**20
    assert peaks[1] - peaks[0] < 150_000 * 8 * 24


def test_two_identifiers_that_hardly_meet_twice_are_not_called_redundant() -> None:
    rng = np.random.default_rng(7)
    rows = 6000
    user, item = rng.integers(0, 600, rows), rng.integers(0, 600, rows)
    taste, fame = rng.normal(0, 1.2, 600), rng.normal(0, 1.2, 600)
    label = rng.random(rows) < 1 / (1 + np.exp(-taste[user] - fame[item]))
    found = measured({"user": user, "item": item, "age": user // 100}, label)
    # 6000 rows in 360,000 cells: beyond one, the other cannot be measured, although it says as much as alone.
    assert {"user", "item"} not in [{entry.first, entry.second} for entry in found.interactions]
    i, j = found.names.index("user"), found.names.index("item")
    assert found.conditional_bits[i][j] < 0.3 * found.fields[i].information_bits
    # What the user decides is redundant, although tables of pairs are too small for all users.
    own = next(field for field in found.fields if field.name == "age").information_bits
    assert pair(found, "user", "age").interaction_bits == pytest.approx(-own, rel=0.1)


def test_what_is_resolved_scales_a_sparse_estimate_up_to_the_truth() -> None:
    rng = np.random.default_rng(8)
    estimates, seen = [], []
    logits = np.linspace(-1.0, 1.0, 25)
    for _ in range(15):
        condition, target = rng.integers(0, 400, 20_000), rng.integers(0, 25, 20_000)
        label = (rng.random(20_000) < 1 / (1 + np.exp(-logits[target]))).astype(np.uint8)
        test = conditional_test(target, 25, stratify(condition, 400, label))
        estimates.append(test.information / test.resolved)
        seen.append(test.information)
    # Two rows a cell: half of the effect is left to see.
    truth = entropy([0.5, 0.5]) - np.mean([entropy([p, 1 - p]) for p in 1 / (1 + np.exp(-logits))])
    assert np.mean(estimates) == pytest.approx(truth, rel=0.12)
    assert np.mean(seen) < 0.7 * truth
