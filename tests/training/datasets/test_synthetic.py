"""The generated log is what its truth says, learnable, and out of reach of additive models."""

import numpy as np
import polars as pl
import pytest
from encoded import encode
from pydantic import ValidationError
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score

from training.datasets import DATASETS
from training.datasets.base import BuildContext
from training.datasets.config import DataConfig
from training.datasets.synthetic import BASE_RATE, TEST, TRAIN, SyntheticData, auc, generate

ROWS = 50_000
SEEDS = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def log() -> SyntheticData:
    return generate(ROWS, 1)


def one_hot(data: SyntheticData, names: frozenset[str]) -> sparse.csr_matrix:
    """Rows x ids of all fields but those named; a multi-valued field's ids side by side."""
    rows = np.arange(data.label.size)
    slots, context, candidate = encode(data, rows)
    blocks = []
    for slot in slots:
        if slot.name not in names:
            ids = (context if slot.side == "context" else candidate)[:, slot.first : slot.first + slot.width]
            used = ids != slot.pad_id if slot.pad_id is not None else np.ones_like(ids, dtype=bool)
            where = np.nonzero(used)
            blocks.append(sparse.csr_matrix((np.ones(where[0].size), (where[0], ids[used])), (rows.size, slot.rows)))
    return sparse.hstack(blocks, format="csr")


def test_the_same_seed_gives_the_same_log_and_another_one_another() -> None:
    first, again, other = generate(3000, 1), generate(3000, 1), generate(3000, 2)
    assert first.frame.equals(again.frame)
    assert first.truth == again.truth
    assert first.frame.columns != other.frame.columns


def test_names_order_sides_and_the_number_of_pairs_are_drawn() -> None:
    logs = [generate(2000, seed) for seed in range(12)]
    assert {len(log.truth.xor_pairs) for log in logs} == {2, 3}
    places = [[field.role for field in log.truth.fields.values()].index("xor") for log in logs]
    assert len(set(places)) > 3
    assert len({frozenset(log.truth.named("xor")) for log in logs}) == 12
    sides = {tuple(log.truth.fields[name].side for name in log.truth.xor_pairs[0]) for log in logs}
    assert len(sides) > 2


def test_the_truth_names_every_field_and_its_role(log: SyntheticData) -> None:
    truth = log.truth
    assert tuple(truth.fields) == tuple(field.name for field in log.fields)
    assert log.frame.columns == [*truth.fields, "label", "request", "split"]
    assert all(len(truth.named(role)) >= 2 for role in ("informative", "weak", "noise", "xor"))  # type: ignore[arg-type]
    assert {field.kind for field in truth.fields.values()} == {"categorical", "numeric", "multi_valued"}
    sizes = [truth.fields[name].size for name in truth.xor_pairs[0]]
    assert sizes == [50, 50]
    assert {name for pair in truth.xor_pairs for name in pair} == truth.named("xor")
    assert {field.side for field in truth.fields.values()} == {"context", "candidate"}
    assert set(log.frame.schema.values()) == {pl.String}


def test_identifiers_are_of_high_cardinality_and_long_tailed(log: SyntheticData) -> None:
    for role, share in (("informative", 0.5), ("noise", 0.05)):
        sizes = {name: log.frame[name].n_unique() for name in log.truth.named(role)}  # type: ignore[arg-type]
        widest = max(sizes, key=lambda name: sizes[name])
        assert sizes[widest] >= 400
        counts = log.frame[widest].value_counts()["count"].sort(descending=True)
        assert counts[:50].sum() / ROWS > share * 0.1
        assert counts.median() < counts.mean()


def test_context_is_one_value_a_request_and_a_request_is_in_one_split(log: SyntheticData) -> None:
    for name, field in log.truth.fields.items():
        varies = log.frame.group_by("request").agg(pl.col(name).n_unique())[name].max()
        assert (varies == 1) == (field.side == "context")
    assert log.frame.group_by("request").agg(pl.col("split").n_unique())["split"].max() == 1
    sizes = log.frame["request"].value_counts()["count"]
    assert sizes.max() == 6
    shares = log.frame["split"].value_counts()
    assert dict(zip(shares["split"], shares["count"] / ROWS, strict=True)) == pytest.approx(
        {"train": 0.7, "valid": 0.15, "test": 0.15}, abs=0.02
    )


def test_copies_say_the_same_under_other_texts_or_nearly(log: SyntheticData) -> None:
    exact = []
    for group in log.truth.duplicates:
        for copy in group:
            original = log.truth.fields[copy].copy_of
            if original is None:
                continue
            both = log.frame.select(pl.col(original).fill_null(""), pl.col(copy).fill_null(""))
            values = [both[name].cast(pl.Categorical).to_physical().to_numpy() for name in (original, copy)]
            entropy = mutual_info_score(values[0], values[0])
            exact.append(mutual_info_score(*values) == pytest.approx(entropy))
            assert mutual_info_score(*values) > 0.97 * entropy
            assert not (set(both[original].unique()) & set(both[copy].unique()) - {""}) or original != copy
    assert set(exact) <= {True, False}
    assert True in exact


def test_the_label_follows_the_probabilities_at_the_base_rate(log: SyntheticData) -> None:
    assert log.truth.base_rate == pytest.approx(BASE_RATE)
    assert log.label.mean() == pytest.approx(BASE_RATE, abs=4 * (BASE_RATE / ROWS) ** 0.5)
    deviations = (log.label - log.probabilities) / np.sqrt(log.probabilities * (1 - log.probabilities))
    assert abs(deviations.mean()) < 4 / ROWS**0.5
    assert deviations.std() == pytest.approx(1.0, abs=0.02)


def test_the_bayes_auc_is_scikit_learns_of_the_true_probabilities(log: SyntheticData) -> None:
    test = log.split == TEST
    assert log.truth.bayes_auc == pytest.approx(roc_auc_score(log.label[test], log.probabilities[test]))
    tied = np.round(log.probabilities, 1)
    assert auc(log.label, tied) == pytest.approx(roc_auc_score(log.label, tied))


@pytest.mark.parametrize("seed", SEEDS)
def test_losing_a_pair_costs_two_points_and_all_pairs_leave_additive_models_three_below(seed: int) -> None:
    log = generate(ROWS, seed)
    test = log.split == TEST
    label, best = log.label[test], log.truth.bayes_auc
    for pair in log.truth.xor_pairs:
        assert best - auc(label, log.probabilities_without(pair)[test]) >= 0.02
    assert best - auc(label, log.probabilities_without(*log.truth.xor_pairs)[test]) >= 0.03


def test_expectation_without_a_pair_is_the_mean_over_both_signs(log: SyntheticData) -> None:
    pair = log.truth.xor_pairs[0]
    rest = log.logits - log.xor_effects[pair]
    weight = np.abs(log.xor_effects[pair])
    expected = (1 / (1 + np.exp(-rest - weight)) + 1 / (1 + np.exp(-rest + weight))) / 2
    assert log.probabilities_without(pair) == pytest.approx(expected)
    assert log.probabilities_without() == pytest.approx(log.probabilities)


def test_an_xor_field_says_nothing_alone_and_its_pair_everything(log: SyntheticData) -> None:
    for pair in log.truth.xor_pairs:
        effect = log.xor_effects[pair]
        for name in pair:
            sizes = log.frame[name].value_counts(sort=True)
            for value in sizes[name][:3]:
                of_value = log.frame[name].eq_missing(value).to_numpy()
                assert abs(np.sign(effect[of_value]).mean()) < 5 / of_value.sum() ** 0.5
        cells = log.frame.select(*pair, pl.Series("effect", effect)).group_by(*pair).agg(pl.col("effect").n_unique())
        assert cells["effect"].max() == 1


def test_one_hot_logistic_regression_stays_three_points_below(log: SyntheticData) -> None:
    # Without noise and copies, which could only hurt it.
    copies = frozenset(name for name, field in log.truth.fields.items() if field.copy_of is not None)
    X = one_hot(log, log.truth.named("noise") | copies)
    train, test = log.split == TRAIN, log.split == TEST
    model = LogisticRegression(C=0.3, max_iter=200, tol=1e-3).fit(X[train], log.label[train])
    reached = auc(log.label[test], model.decision_function(X[test]))
    assert 0.6 < reached <= log.truth.bayes_auc - 0.03


def test_it_is_a_data_set_with_options(log: SyntheticData, tmp_path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    config = DataConfig(dataset="synthetic", options={"rows": 2000})
    table = DATASETS["synthetic"](config, BuildContext(tmp_path, seed=7))
    batch = next(iter(table.source.batches()))
    assert batch.frame.equals(generate(2000, 7).frame)
    assert table.spec.group == "request"
    assert table.spec.label_column == "label"
    assert {field.name for field in table.spec.fields} <= set(table.source.columns)
    seeded = DataConfig(dataset="synthetic", options={"rows": 2000, "seed": 8})
    other = DATASETS["synthetic"](seeded, BuildContext(tmp_path, seed=7))
    assert next(iter(other.source.batches())).frame.equals(generate(2000, 8).frame)
    for options in ({"row": 2000}, {"rows": 10}, {"rows": "many"}):
        with pytest.raises(ValidationError):
            DATASETS["synthetic"](DataConfig(dataset="synthetic", options=options), BuildContext(tmp_path, seed=7))
