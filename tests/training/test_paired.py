"""Whether one model beats another beyond noise: means against scikit-learn, errors against draws of the rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from training.paired import CLEARLY, Gain, gain

if TYPE_CHECKING:
    from training.phases.phase import Monitor

ROWS = 2000


def models(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits of a better and of a worse model that err alike in part, and weights."""
    draw = np.random.default_rng(seed)
    true, shared = draw.normal(-1.0, 1.0, ROWS), draw.normal(0.0, 0.5, ROWS)
    label = (draw.random(ROWS) < 1 / (1 + np.exp(-true))).astype(np.uint8)
    better, worse = (true + shared + draw.normal(0.0, spread, ROWS) for spread in (0.3, 0.9))
    return label, better, np.round(worse, 1), draw.uniform(0.2, 2.0, ROWS)


def compared(monitor: Monitor, *ours: np.ndarray, weight: np.ndarray | None, group: np.ndarray | None = None) -> Gain:
    label, one, other = ours
    return gain(monitor, SimpleNamespace(label=label, weight=weight, group=group), one, other)


def worth(monitor: Monitor, label: np.ndarray, logits: np.ndarray, weight: np.ndarray) -> float:
    if monitor == "auc":
        return float(sk.roc_auc_score(label, logits, sample_weight=weight))
    pctr = 1 / (1 + np.exp(-logits))
    if monitor == "scaled_log_loss":
        fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], label, sample_weight=weight)
        pctr = fitted.predict_proba(logits[:, None])[:, 1]
    return -float(sk.log_loss(label, pctr, sample_weight=weight))


MONITORS = pytest.mark.parametrize("monitor", ["log_loss", "scaled_log_loss", "auc"])


@MONITORS
def test_gain_and_its_error_are_those_of_a_reference_and_of_redrawn_rows(monitor: Monitor) -> None:
    label, better, worse, weight = models(0)
    found = compared(monitor, label, better, worse, weight=weight)
    expected = worth(monitor, label, better, weight) - worth(monitor, label, worse, weight)
    assert found.mean == pytest.approx(expected, abs=1e-7)
    assert compared(monitor, label, worse, better, weight=weight).mean == pytest.approx(-expected, abs=1e-7)
    draw = np.random.default_rng(1)
    again = []
    for rows in draw.integers(0, ROWS, (80, ROWS)):
        part = label[rows], weight[rows]
        again.append(worth(monitor, part[0], better[rows], part[1]) - worth(monitor, part[0], worse[rows], part[1]))
    assert found.error == pytest.approx(np.std(again), rel=0.3)


def grouped(seed: int, users: int) -> tuple[np.ndarray, ...]:
    """As `models`, but the worse one errs alike on all rows of a user, and a user's rows are as many as they like."""
    draw = np.random.default_rng(seed)
    user = draw.choice(users, ROWS, p=draw.dirichlet(np.ones(users)))
    taste, true = draw.normal(0.0, 1.0, users)[user], draw.normal(-1.0, 1.0, ROWS)
    label = (draw.random(ROWS) < 1 / (1 + np.exp(-true - taste))).astype(np.uint8)
    better, worse = true + 0.9 * taste, true + draw.normal(0.0, 0.7, users)[user]
    return label, better, worse, draw.uniform(0.2, 2.0, ROWS), 1000 - 7 * user


@MONITORS
def test_the_error_is_that_of_redrawn_groups_where_their_rows_depend_on_each_other(monitor: Monitor) -> None:
    label, better, worse, weight, group = grouped(0, 60)
    one = compared(monitor, label, better, worse, weight=weight)
    whole = compared(monitor, label, better, worse, weight=weight, group=group)
    assert whole.mean == one.mean
    members = [np.flatnonzero(group == name) for name in np.unique(group)]
    draw = np.random.default_rng(1)
    again = []
    for some in draw.integers(0, len(members), (80, len(members))):
        rows = np.concatenate([members[i] for i in some])
        part = label[rows], weight[rows]
        again.append(worth(monitor, part[0], better[rows], part[1]) - worth(monitor, part[0], worse[rows], part[1]))
    assert whole.error == pytest.approx(np.std(again), rel=0.25)
    assert whole.error > 1.5 * one.error


@MONITORS
def test_rows_are_what_is_independent_where_groups_say_less(monitor: Monitor) -> None:
    label, better, worse, weight = models(0)
    rows = compared(monitor, label, better, worse, weight=weight)
    everyone, nobody = np.zeros(ROWS, np.int64), np.arange(ROWS)[::-1]
    assert compared(monitor, label, better, worse, weight=weight, group=everyone) == rows
    alone = compared(monitor, label, better, worse, weight=weight, group=nobody)
    assert alone.error == pytest.approx(rows.error, rel=1e-3)


def test_only_what_is_beyond_noise_and_a_thousandth_is_clear() -> None:
    assert Gain(0.01, 0.009).clear()
    assert not Gain(0.01, 0.011).clear()
    assert not Gain(0.01, 0.009).clear(2.0)
    assert not Gain(CLEARLY, 0.0).clear()
    assert not Gain(-0.01, 0.001).clear()
    assert compared("auc", np.array([0, 1, 1]), *[np.array([0.0, 1, 2])] * 2, weight=None) == Gain(0.0, 0.0)
