"""Calibration: recovers what was done to scores, leaves good ones alone, keeps their order, and survives its file."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from training.calibrating import Scored, choose, fit, losses
from training.calibration import IDENTITY, Calibration, CalibrationConfig, CalibrationError, probability
from training.metrics import auc, log_loss

ROWS = 20_000


def logs(seed: int, bend: object = None, rows: int = ROWS) -> Scored:
    """Rows whose logit is right, or bent by a function of the true one."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(-1.5, 1.5, rows)
    label = (generator.random(rows) < probability(truth)).astype(float)
    return Scored(truth if bend is None else bend(truth), label, np.ones(rows))  # type: ignore[operator]


increasing = st.builds(
    lambda slopes, first, steps, offset: Calibration(
        tuple(slopes), tuple(np.cumsum([first, *steps[: len(slopes) - 2]]).tolist())[: len(slopes) - 1], offset
    ),
    st.lists(st.floats(0.05, 20.0), min_size=1, max_size=6),
    st.floats(-5.0, 0.0),
    st.lists(st.floats(0.1, 2.0), min_size=5, max_size=5),
    st.floats(-3.0, 3.0),
)


@settings(deadline=None)
@given(increasing, st.lists(st.floats(-30.0, 30.0), min_size=2, max_size=20))
def test_it_is_the_line_through_its_knots_and_strictly_increasing(
    calibration: Calibration, values: list[float]
) -> None:
    knots, slopes = np.array(calibration.knots), np.array(calibration.slopes)
    found = calibration(values)
    if len(knots):
        heights = calibration.offset + np.concatenate([[0.0], np.cumsum(slopes[1:-1] * np.diff(knots))])
        ends = np.array([-40.0, *knots, 40.0])
        high = [
            heights[0] + slopes[0] * (ends[0] - knots[0]),
            *heights,
            heights[-1] + slopes[-1] * (ends[-1] - knots[-1]),
        ]
        expected = np.interp(values, ends, high)
    else:
        expected = calibration.offset + slopes[0] * np.array(values)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    for (x, a), (y, b) in pairwise(sorted(zip(values, found.tolist(), strict=True))):
        assert (b > a) or y - x < 1e-12


@pytest.mark.parametrize(("slope", "offset"), [(0.6, 0.4), (1.5, -0.7), (1.0, 1.2)])
def test_scores_that_were_scaled_and_shifted_are_put_right(slope: float, offset: float) -> None:
    # The logit that is given is a z + b; the calibration that undoes it is (z - b) / a.
    scored = logs(1, lambda z: slope * z + offset)
    choice = choose(CalibrationConfig(), scored.logits, scored.label)
    assert choice.calibration.kind == "affine"
    (found,) = choice.calibration.slopes
    assert found == pytest.approx(1.0 / slope, rel=0.05)
    assert choice.calibration.offset == pytest.approx(-offset / slope, abs=0.08)
    fresh = logs(2, lambda z: slope * z + offset)
    after = losses(choice.calibration(fresh.logits), fresh.label).mean()
    ideal = losses((fresh.logits - offset) / slope, fresh.label).mean()
    assert after < losses(fresh.logits, fresh.label).mean() - 0.001
    assert after == pytest.approx(ideal, abs=2e-4)


def test_the_affine_fit_is_scikit_learns_logistic_regression() -> None:
    scored = logs(3, lambda z: 0.7 * z + 0.3)
    found = fit("affine", scored)
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(scored.logits[:, None], scored.label)
    assert found.slopes[0] == pytest.approx(float(theirs.coef_[0, 0]), rel=1e-3)
    assert found.offset == pytest.approx(float(theirs.intercept_[0]), abs=1e-3)


def test_weights_are_copies_of_rows() -> None:
    scored = logs(4, lambda z: 0.7 * z + 0.3, 2_000)
    times = np.random.default_rng(0).integers(1, 4, len(scored.label))
    weighted = fit("piecewise", Scored(scored.logits, scored.label, times.astype(float)))
    copied = fit(
        "piecewise", Scored(*(np.repeat(part, times) for part in (scored.logits, scored.label, scored.weight)))
    )
    grid = np.linspace(-6, 4, 50)
    np.testing.assert_allclose(weighted(grid), copied(grid), atol=0.02)


def test_where_scores_are_bent_the_piecewise_function_is_as_good_as_isotonic_regression_and_ties_nothing() -> None:
    def bend(z: np.ndarray) -> np.ndarray:
        return np.where(z > -1.5, 0.35 * (z + 1.5), 2.0 * (z + 1.5)) - 1.0

    scored, fresh = logs(5, bend), logs(6, bend)
    choice = choose(CalibrationConfig(), scored.logits, scored.label)
    assert choice.calibration.kind == "piecewise"
    assert choice.candidates["affine"].kept
    assert choice.candidates["piecewise"].kept
    isotonic = IsotonicRegression(y_min=1e-6, y_max=1 - 1e-6, out_of_bounds="clip").fit(scored.logits, scored.label)
    theirs = log_loss(fresh.label, isotonic.predict(fresh.logits))
    ours = log_loss(fresh.label, probability(choice.calibration(fresh.logits)))
    assert ours <= theirs
    assert ours == pytest.approx(log_loss(fresh.label, probability(logs(6).logits)), abs=1e-3)
    assert auc(fresh.label, choice.calibration(fresh.logits)) == auc(fresh.label, fresh.logits)


@pytest.mark.parametrize("seed", range(8))
def test_scores_that_are_right_stay_as_they_are(seed: int) -> None:
    scored = logs(100 + seed, rows=8_000)
    choice = choose(CalibrationConfig(), scored.logits, scored.label, seed=seed)
    assert choice.calibration == IDENTITY
    assert set(choice.candidates) == {"affine", "piecewise"}
    assert not any(candidate.kept for candidate in choice.candidates.values())


def test_where_groups_share_their_noise_a_gain_within_them_is_not_taken_for_one() -> None:
    # 40 groups, each with a shift of its own that has nothing to do with any row to come.
    generator = np.random.default_rng(11)
    group = np.repeat(np.arange(40), 500)
    truth = generator.normal(-1.0, 1.0, group.size)
    shifted = truth + generator.normal(0.0, 1.0, 40)[group]
    label = (generator.random(group.size) < probability(shifted)).astype(float)
    by_row, by_group = (choose(CalibrationConfig(), truth, label, None, own) for own in (None, group))
    assert by_group.candidates["affine"].error > 3 * by_row.candidates["affine"].error


def test_too_few_clicks_or_a_section_that_says_none_change_nothing() -> None:
    scored = logs(7, lambda z: 0.5 * z, 400)
    rare = np.zeros(400)
    rare[:20] = 1.0
    assert choose(CalibrationConfig(), scored.logits, rare).why == "fewer than 50 rows of a class"
    none = choose(CalibrationConfig(kind="none"), scored.logits, scored.label)
    assert (none.calibration, none.why, none.candidates) == (IDENTITY, "none was asked for", {})
    assert set(choose(CalibrationConfig(kind="affine"), scored.logits, scored.label).candidates) == {"affine"}


@given(increasing)
def test_it_is_read_back_as_it_was_written(calibration: Calibration) -> None:
    assert Calibration.from_json(json.loads(json.dumps(calibration.as_json()))) == calibration


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "format: expected 'reaction-calibration', got 'other'"),
        ({"version": 2}, "version: expected 1, got 2"),
        ({"slopes": [1.0, 0.0]}, "positive slopes"),
        ({"slopes": [1.0]}, "one slope more than knots"),
        ({"slopes": [1.0, 1.0, 1.0], "knots": [1.0, 1.0]}, "ascending knots"),
        ({"slopes": ["a", 1.0]}, "slopes.0: .*, got 'a'"),
        ({"more": 1}, "more: .*"),
        ({"offset": None}, "offset: .*"),
    ],
)
def test_a_file_that_holds_no_calibration_is_refused_with_the_place(change: dict[str, object], message: str) -> None:
    good = Calibration((1.0, 2.0), (0.5,), 0.1).as_json()
    with pytest.raises(CalibrationError, match=message):
        Calibration.from_json({**good, **change})
    with pytest.raises(CalibrationError, match="expected \\['slopes'\\], got none"):
        Calibration.from_json({key: value for key, value in good.items() if key != "slopes"})
