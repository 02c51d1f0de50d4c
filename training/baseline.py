"""The yardstick of every run: one-hot logistic regression on the same encoded ids, its C tuned on validation.

A linear model over one-hot values is what a CTR model has to beat. It sees exactly the ids the towers see, the same
train rows and sample weights (up to a stated number of rows), and its strength of regularisation is chosen as a run's
own early stopping is: by log loss on the validation split.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from service.features import PAD, MultiValuedField
from training.runs import sample_rows
from training.towers.linear_start import Yardstick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from service.features import FeatureEncoder, Side
    from training.loader import PreparedData, Split

GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Inverse strengths of L2, weakest model first; the search stops when validation gets worse twice in a row."""

TRAIN_ROWS = 1_000_000
"""Most rows the baseline is fitted on: it has to stay minutes where the data has billions of rows."""

MOST_ENTRIES = 2**31 - 1

MAX_ITERATIONS = 200


@dataclass(frozen=True)
class Baseline:
    """A fitted one-hot logistic regression.

    Attributes:
        C: the chosen inverse strength of L2.
        weights: float64 (columns of the one-hot matrix,).
        bias: the intercept.
        rows: how many train rows it was fitted on.
        search: (C, validation log loss), every value tried.
    """

    C: float
    weights: NDArray[np.float64]
    bias: float
    rows: int
    search: tuple[tuple[float, float], ...]

    def predict(self, features: sparse.csr_array) -> NDArray[np.float64]:
        """Probabilities (N,) of one-hot rows."""
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * self.logits(features))))  # a sigmoid that cannot overflow

    def logits(self, features: sparse.csr_array) -> NDArray[np.float64]:
        """Log-odds (N,) of one-hot rows."""
        return np.asarray(features @ self.weights + self.bias)

    def facts(self) -> dict[str, Any]:
        """What `metrics.json` says of it, beside its metrics."""
        return {
            "model": "one-hot logistic regression",
            "C": self.C,
            "parameters": len(self.weights) + 1,
            "train_rows": self.rows,
            "search": [{"C": C, "log_loss": loss} for C, loss in self.search],
        }


def one_hot(
    encoder: FeatureEncoder, ids: Mapping[Side, NDArray[np.int32]], rows: NDArray[np.int64] | slice = slice(None)
) -> sparse.csr_array:
    """One-hot rows of encoded ids: a column a value; a multi-valued field is a bag of values, its pads left out.

    Args:
        encoder: gives the columns of each side and the number of ids a field.
        ids: side -> (N, columns of the side).
        rows: which rows to take.

    Returns:
        float64 CSR (N, sum of the fields' numbers of ids).
    """
    blocks, first = [], 0
    for side, matrix in ids.items():
        taken = np.asarray(matrix[rows])
        for column in encoder.columns(side):
            values = taken[:, column.first : column.first + column.width].astype(np.int64)
            field = encoder.field(column.name)
            pads = isinstance(field, MultiValuedField)
            keep = values != PAD if pads else np.ones_like(values, dtype=bool)
            blocks.append((values + first, keep))
            first += len(encoder.vocabulary(column.name))
    values = np.concatenate([block for block, _ in blocks], axis=1)
    keep = np.concatenate([block for _, block in blocks], axis=1)
    starts = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    # The solver takes 32-bit indices only; `fit_baseline` bounds the rows so that they suffice.
    index, starts = values[keep].astype(np.int32), starts.astype(np.int32)
    hot = sparse.csr_array((np.ones(len(index)), index, starts), shape=(len(values), first))
    hot.sum_duplicates()
    return hot


def fit_baseline(
    encoder: FeatureEncoder,
    train: Split,
    valid: Split,
    *,
    seed: int,
    train_rows: int = TRAIN_ROWS,
    grid: Sequence[float] = GRID,
    progress: Callable[[int, int], None] | None = None,
) -> Baseline:
    """Fit over the grid and keep the best by validation log loss.

    Args:
        encoder: gives the layout of the ids.
        train: what it is fitted on; a seeded sample of `train_rows` where there are more.
        valid: what C is chosen on; a seeded sample likewise.
        seed: of the two samples, and of the solver.
        train_rows: most rows of each.
        grid: values of C, strongest L2 first.
        progress: called with (done, total) after every value of C.
    """
    most = min(train_rows, MOST_ENTRIES // max(1, encoder.width("context") + encoder.width("candidate")))
    chosen, checked = (sample_rows(len(split.label), most, seed) for split in (train, valid))
    x, y = one_hot(encoder, _ids(train), chosen), np.asarray(train.label)[chosen]
    weight = None if train.weight is None else np.asarray(train.weight)[chosen]
    valid_x, valid_y = one_hot(encoder, _ids(valid), checked), np.asarray(valid.label)[checked]
    valid_weight = None if valid.weight is None else np.asarray(valid.weight)[checked]

    best: Baseline | None = None
    search: list[tuple[float, float]] = []
    # Dual coordinate descent: on one-hot rows the solution of lbfgs, ten times as fast (Criteo sample: the losses of
    # the whole grid within 2e-5, 4 s against 47 s). It regularises the intercept too.
    model = LogisticRegression(solver="liblinear", dual=True, tol=0.1, max_iter=MAX_ITERATIONS, random_state=seed)
    worse = 0
    for step, C in enumerate(grid):
        with warnings.catch_warnings():
            # An unfinished fit is a weaker baseline at this C; the grid takes the best on validation all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.set_params(C=C).fit(x, y, sample_weight=weight)
        fitted = Baseline(C, model.coef_[0].copy(), float(model.intercept_[0]), len(y), ())
        loss = float(log_loss(valid_y, fitted.predict(valid_x), sample_weight=valid_weight, labels=[0, 1]))
        worse = worse + 1 if search and loss > min(found for _, found in search) else 0
        if best is None or worse == 0:
            best = fitted
        search.append((C, loss))
        if progress is not None:
            progress(step + 1, len(grid))
        if worse == 2:  # noqa: PLR2004 - twice in a row, as documented
            break
    if best is None:
        raise ValueError("grid: expected at least one value of C, got none")
    return Baseline(best.C, best.weights, best.bias, best.rows, tuple(search))


def baseline_scores(baseline: Baseline, encoder: FeatureEncoder, split: Split) -> NDArray[np.float64]:
    """Probabilities (N,) of a split, in bounded memory."""
    return np.concatenate([baseline.predict(block) for block in _blocks(encoder, split)])


def _blocks(encoder: FeatureEncoder, split: Split) -> Iterator[sparse.csr_array]:
    step, ids = 1 << 18, _ids(split)
    for start in range(0, len(split.label), step):
        yield one_hot(encoder, ids, slice(start, start + step))


def fit_yardstick(data: PreparedData, seed: int) -> Yardstick:
    """What `train` has the trainer know of the baseline, for trainings without one."""
    train, valid = data.split("train"), data.split("valid")
    return yardstick_of(fit_baseline(data.encoder, train, valid, seed=seed), data.encoder, valid)


def yardstick_of(baseline: Baseline, encoder: FeatureEncoder, valid: Split) -> Yardstick:
    """What the trainer needs to know of it: how strong it is, and what it says of the validation split."""
    return Yardstick(baseline.C, np.concatenate([baseline.logits(block) for block in _blocks(encoder, valid)]))


def _ids(split: Split) -> dict[Side, NDArray[np.int32]]:
    return {"context": split.context_ids, "candidate": split.candidate_ids}
