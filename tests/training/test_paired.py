"""Whether one model beats another beyond noise: means against scikit-learn, errors against draws of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from training.paired import CLEARLY, Gain, gain

ROWS = 2000


def models(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits of a better and of a worse model that err alike in part, and weights."""
    draw = np.random.default_rng(seed)
    true, shared = draw.normal(-1.0, 1.0, ROWS), draw.normal(0.0, 0.5, ROWS)
    label = (draw.random(ROWS) < 1 / (1 + np.exp(-true))).astype(np.uint8)
    better, worse = (true + shared + draw.normal(0.0, spread, ROWS) for spread in (0.3, 0.9))
    return label, better, np.round(worse, 1), draw.uniform(0.2, 2.0, ROWS)


def worth(monitor: str, label: np.ndarray, logits: np.ndarray, weight: np.ndarray) -> float:
    if monitor == "auc":
        return float(sk.roc_auc_score(label, logits, sample_weight=weight))
    pctr = 1 / (1 + np.exp(-logits))
    if monitor == "scaled_log_loss":
        fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], label, sample_weight=weight)
        pctr = fitted.predict_proba(logits[:, None])[:, 1]
    return -float(sk.log_loss(label, pctr, sample_weight=weight))


@pytest.mark.parametrize("monitor", ["log_loss", "scaled_log_loss", "auc"])
def test_gain_and_its_error_are_those_of_a_reference_and_of_redrawn_rows(monitor: str) -> None:
    label, better, worse, weight = models(0)
    found = gain(monitor, label, better, worse, weight)  # type: ignore[arg-type]
    expected = worth(monitor, label, better, weight) - worth(monitor, label, worse, weight)
    assert found.mean == pytest.approx(expected, abs=1e-7)
    assert gain(monitor, label, worse, better, weight).mean == pytest.approx(-expected, abs=1e-7)  # type: ignore[arg-type]
    draw = np.random.default_rng(1)
    again = []
    for rows in draw.integers(0, ROWS, (80, ROWS)):
        part = label[rows], weight[rows]
        again.append(worth(monitor, part[0], better[rows], part[1]) - worth(monitor, part[0], worse[rows], part[1]))
    assert found.error == pytest.approx(np.std(again), rel=0.3)


def test_only_what_is_beyond_noise_and_a_thousandth_is_clear() -> None:
    assert Gain(0.01, 0.009).clear()
    assert not Gain(0.01, 0.011).clear()
    assert not Gain(0.01, 0.009).clear(2.0)
    assert not Gain(CLEARLY, 0.0).clear()
    assert not Gain(-0.01, 0.001).clear()
    assert gain("auc", np.array([0, 1, 1]), np.array([0.0, 1, 2]), np.array([0.0, 1, 2]), None) == Gain(0.0, 0.0)
