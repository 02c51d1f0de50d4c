"""LR: the one-hot logistic regression of every run's report (`training.baseline`), C tuned on validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.accuracy.fitted import Config, Fitted, Place
from benchmarks.accuracy.ledger import Parameters
from training.baseline import baseline_scores, fit_baseline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from training.loader import Split


def fit(name: str, place: Place, config: Config, seed: int) -> Fitted:  # noqa: ARG001 - the interface's
    """Fit over the grid of C and keep the best on validation."""
    data = place.data
    model = fit_baseline(
        data.encoder,
        data.split("train"),
        data.split("valid"),
        seed=seed,
        train_rows=config["train"]["rows"],
        grid=config["model"]["grid"],
    )

    def score(split: Split) -> NDArray[np.float64]:
        return baseline_scores(model, data.encoder, split)

    weights = len(model.weights)
    # As in its graph: the bias is in every row of one field's table, and no number of its own.
    return Fitted(
        score=score,
        parameters=Parameters(training=weights + 1, inference=weights, embedding=weights, dense=0, bytes=4 * weights),
        flops=2 * (data.encoder.width("context") + data.encoder.width("candidate")),
        facts={"C": model.C, "fitted_rows": model.rows},
    )
