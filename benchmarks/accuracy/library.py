"""The library's own trainer around a baseline: `BaseModel.fit` as it is, on our arrays, initial values and batches.

Its optimiser, loss, regulariser, clipped gradients, batch norm's running statistics, evaluation and choice of the best
epoch by its checkpoints are the library's.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from fuxictr.pytorch.models.rank_model import BaseModel

from training.phases.learner import EVALUATION_ROWS, Rows
from training.phases.phase import NonFiniteLossError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from benchmarks.accuracy.baselines import Baseline
    from benchmarks.accuracy.fitted import Config
    from training.loader import PreparedData, Split

SAME: Final = {"monitor": {"logloss": -1}, "reduce_lr_on_plateau": False, "early_stop_patience": 1000}
"""All epochs at one rate, the best of them by log loss: as our loop does without patience."""

RECIPE: Final = {"monitor": {"AUC": 1, "logloss": -1}, "reduce_lr_on_plateau": True, "early_stop_patience": 2}
"""As the configs that the library is published with: a tenth of the rate after an epoch that is no better by AUC less
log loss, and the end after two."""


class LibraryModel(BaseModel):  # type: ignore[misc]
    """A baseline as the library's trainer wants it.

    Args:
        module: The baseline.
        l2: The library's `embedding_regularizer`.
        folder: Where it writes its checkpoint.
        stopping: How it chooses the epoch, and when it ends.

    Attributes:
        best_step: The step whose weights it keeps.
    """

    def __init__(self, module: Baseline, l2: float, folder: str, stopping: Mapping[str, Any]) -> None:
        super().__init__(
            module.feature_map,
            model_id="baseline",
            embedding_regularizer=l2,
            **stopping,
            verbose=0,
            model_root=folder,
            metrics=["logloss", "AUC"],
        )
        self.inner = module
        self.best_step = 0
        Path(self.checkpoint).parent.mkdir(parents=True, exist_ok=True)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """The library's form of an answer."""
        X = self.get_inputs(inputs)
        return {"y_pred": self.output_activation(self.inner.logits(X)), "X": X}

    def add_loss(self, return_dict: dict[str, Any], y_true: Tensor) -> Tensor:
        """The model's own objective, where it has one beside the mean log loss."""
        return self.inner.objective(return_dict["X"], y_true, None)

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return int(self._total_steps)

    @property
    def steps_an_epoch(self) -> int:
        """Optimiser steps of one pass over the training rows."""
        return int(self._steps_per_epoch)

    def save_weights(self, checkpoint: str) -> None:
        """Note the step as well: it saves what is best so far."""
        self.best_step = self._total_steps
        super().save_weights(checkpoint)


class Batches:
    """Batches as the library's trainer takes them; with a seed in our order, which is another every time.

    Args:
        module: Names the features.
        split: The rows.
        context_columns: Cc.
        size: Rows of a batch.
        seed: None for the order of the rows.
    """

    def __init__(
        self, module: Baseline, split: Split, context_columns: int, size: int, seed: int | None = None
    ) -> None:
        self._module, self._rows, self._cut = module, Rows(split, torch.device("cpu")), context_columns
        self._seed, self._epoch = seed, 0
        self._number = -(-split.rows // size)

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        N = len(self._rows)
        order = np.arange(N)
        if self._seed is not None:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(N)
            self._epoch += 1
        for place in range(self._number):
            index = np.sort(order[N * place // self._number : N * (place + 1) // self._number])
            batch = self._rows.batch(index)
            X = self._module.inputs(batch.ids[:, : self._cut], batch.ids[:, self._cut :])
            yield {**X, "label": batch.label}


def train_by_library(
    module: Baseline, data: PreparedData, config: Config, stopping: Mapping[str, Any], *, seed: int
) -> LibraryModel:
    """Train a baseline by `BaseModel.fit`; its best weights are then in place.

    Args:
        module: With its initial values.
        data: The prepared data; rows have no weights.
        config: The `train` section of a run's config.
        stopping: `SAME` or `RECIPE`.
        seed: Of the order of rows and dropout.

    Raises:
        NonFiniteLossError: What it ends with says no number.
    """
    train, valid, context_columns = data.split("train"), data.split("valid"), data.encoder.width("context")
    with tempfile.TemporaryDirectory(prefix="fuxictr-") as folder, contextlib.redirect_stdout(io.StringIO()):
        model = LibraryModel(module, config["l2"] / train.rows, folder, stopping)
        model.compile("adam", "binary_crossentropy", config["rate"])
        torch.manual_seed(seed)
        checked = Batches(module, valid, context_columns, EVALUATION_ROWS)
        try:
            model.fit(
                Batches(module, train, context_columns, config["batch_size"], seed),
                epochs=config["epochs"],
                validation_data=checked,
            )
        except ValueError as error:  # scikit-learn's, of its metrics
            if "NaN" not in str(error):
                raise
            raise NonFiniteLossError(f"the library's trainer: {error}") from error
    return model


def predicted(model: LibraryModel, data: PreparedData) -> NDArray[np.float64]:
    """Probabilities (N,) on the validation split, by the library."""
    valid, context_columns = data.split("valid"), data.encoder.width("context")
    return np.asarray(model.predict(Batches(model.inner, valid, context_columns, EVALUATION_ROWS)), np.float64)
