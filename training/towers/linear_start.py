"""Towers that begin as logistic regression, for data on which a tower of random weights ends behind it.

Where effects add up and rows are few, a tower fits what is not there. Logistic regression is a tower too: with w_f[x_f]
the weight of a field's value, two units carry u = sum_f w_f[x_f] through the layers as relu(u) and relu(-u), and their
difference is the logit. A phase keeps the best it has seen, its beginning included, so a tower that begins there is at
least as good on validation, and goes on to what else there is.

The weights lie in the first column of every table, at a scale s at which the tables' prior says about them just what
the regression's own said: table_l2 s^2 = 1 / C.

Shapes: N rows, F slots, V_f ids and d_f columns of slot f, H_l units of layer l.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from training.models.base import embed, slot_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from training.models.base import FieldSlot
    from training.models.reaction import Tower
    from training.phases.learner import SplitLike

QUIET: Final = 0.1
"""Scale at which the other units begin: the fusion form's tables keep what counts most, and that is the regression."""
SAMPLE_ROWS: Final = 16_384


@dataclass(frozen=True)
class Yardstick:
    """Logistic regression on the same data, as far as it is known.

    Attributes:
        C: Inverse strength of its L2, chosen on validation.
        logits: (N,) of the validation split.
    """

    C: float
    logits: NDArray[np.float64]


@dataclass(frozen=True)
class Linear:
    """A logistic regression over slots: weights (V_f,) a slot, and the intercept."""

    weights: tuple[NDArray[np.float64], ...]
    bias: float
    C: float


def fit_linear(slots: Sequence[FieldSlot], train: SplitLike, C: float, seed: int, most: int = 1_000_000) -> Linear:
    """Fit logistic regression to what the towers see: one-hot values, those of a set pooled as its slot says.

    Args:
        slots: The fields.
        train: The training split; a seeded sample of `most` rows where there are more.
        C: Inverse strength of L2.
        seed: Of the sample and the solver.
        most: Rows it is fitted on.
    """
    rng = np.random.default_rng([seed, 5])
    rows = np.arange(len(train.label))
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    sides = [torch.from_numpy(np.asarray(ids[rows])) for ids in (train.context_ids, train.candidate_ids)]
    blocks = [_one_hot(slot, slot_ids(slot, *sides).numpy()) for slot in slots]
    x = sparse.hstack(blocks, format="csr")
    x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)  # the solver takes no others
    model = LogisticRegression(C=C, solver="liblinear", dual=True, tol=0.1, max_iter=500, random_state=seed)
    weight = None if train.weight is None else np.asarray(train.weight)[rows]
    model.fit(x, np.asarray(train.label)[rows], sample_weight=weight)
    edges = np.cumsum([0, *(slot.rows for slot in slots)])
    found = tuple(model.coef_[0, first:last] for first, last in pairwise(edges))
    return Linear(found, float(model.intercept_[0]), C)


@torch.no_grad()
def begin_linear(tower: Tower, linear: Linear, train: SplitLike, *, table_l2: float, seed: int) -> None:
    """Set a fresh tower's weights so that its logit is the regression's.

    Args:
        tower: At its random beginning; every layer has two units at least.
        linear: Over the tower's slots.
        train: The training split; batch norms are undone by the statistics of some of its rows.
        table_l2: Precision of the tables' prior.
        seed: Of the rows.
    """
    s = math.sqrt(1.0 / (linear.C * table_l2)) if table_l2 else 0.1
    body = tower.body
    for i, weights in enumerate(linear.weights):
        value = torch.from_numpy(weights).to(tower.tables[i])
        if tower.slots[i].pad_id is not None:
            value[tower.slots[i].pad_id] = 0.0
        tower.tables[i][:, 0] = s * value
        body.projections[i][:, :2] = 0.0
        body.projections[i][0, 0], body.projections[i][0, 1] = 1.0 / s, -1.0 / s
    rng = np.random.default_rng([seed, 6])
    rows = np.sort(rng.choice(len(train.label), min(SAMPLE_ROWS, len(train.label)), replace=False))
    device = tower.tables[0].device
    sides = [torch.from_numpy(np.asarray(ids[rows])).to(device) for ids in (train.context_ids, train.candidate_ids)]
    u = embed(tower.slots, list(tower.tables), *sides) @ body.weight()[:, 0]
    mean, deviation = float(u.mean()), float(u.std())  # of evaluation: norms keep the unbiased variance
    for norm in body.norm_layers:
        norm.weight.fill_(QUIET)
        norm.weight[:2] = math.sqrt(deviation**2 + norm.eps)
    for linear_layer in body.linear_layers:
        # Nor do others read these two: units of both towers are matched by what they say, and would be mixed up.
        linear_layer.weight[:2], linear_layer.weight[:, :2] = 0.0, 0.0
        linear_layer.weight[0, 0] = linear_layer.weight[1, 1] = 1.0
        linear_layer.weight[0, 1] = linear_layer.weight[1, 0] = -1.0
        linear_layer.bias[:2] = 0.0
    body.output.weight.zero_()
    body.output.weight[0, 0], body.output.weight[0, 1] = 1.0, -1.0
    body.output.bias.fill_(mean + linear.bias)


def _one_hot(slot: FieldSlot, ids: NDArray[np.int32]) -> sparse.csr_array:
    """A slot's values (N, V_f); those of a mean of several count for their share."""
    N, width = ids.shape
    used = np.ones(ids.shape, bool) if slot.pad_id is None else ids != slot.pad_id
    share = used / np.maximum(used.sum(1, keepdims=True), 1.0) if slot.pooling == "mean" else used.astype(float)
    row = np.repeat(np.arange(N), width).reshape(N, width)
    return sparse.coo_array((share[used], (row[used], ids[used])), shape=(N, slot.rows)).tocsr()
