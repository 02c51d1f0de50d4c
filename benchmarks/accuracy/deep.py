"""A run of a baseline that is a torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accuracy.baselines import build
from benchmarks.accuracy.early import BaselineLearner, Trained, calibrate, train
from benchmarks.accuracy.fitted import Config, Fitted, Place, by_library
from benchmarks.accuracy.ledger import Parameters
from benchmarks.accuracy.library import RECIPE, train_by_library
from training.models.activation import dropped
from training.models.base import field_slots
from training.phases.phase import probabilities

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.accuracy.baselines import Baseline
    from training.loader import PreparedData


class Dropout(nn.Dropout):
    """Torch's, with the random bits of ours: a sixth of a wide tower's step goes into drawing them one by one."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop units while training."""
        return dropped(x, self.p) if self.training else x


def new_module(name: str, data: PreparedData, config: Config, seed: int) -> Baseline:
    """A baseline for this data, its initial values drawn by the seed."""
    torch.manual_seed(seed)
    dim = config["model"]["embedding_dim"]
    module = build(name, field_slots(data.encoder, lambda *_: dim), config["model"])
    for part in module.modules():
        if type(part) is nn.Dropout:
            part.__class__ = Dropout
    return module


def trained_model(name: str, data: PreparedData, config: Config, seed: int) -> Trained:
    """Train one: in our loop, or where its config says so in the library's by its recipe, and calibrated.

    Raises:
        NonFiniteLossError: The loss is no longer finite.
    """
    torch.set_num_threads(1)
    module, settings = new_module(name, data, config, seed), config["train"]
    splits, cut = (data.split("train"), data.split("valid")), data.encoder.width("context")
    if not by_library(config):
        return train(module, *splits, settings, context_columns=cut, seed=seed)
    model = train_by_library(module, data, settings, RECIPE, seed=seed)
    learner = BaselineLearner(module, cut, settings["l2"] / splits[0].rows)
    trained = Trained(learner, model.steps, model.steps / model.steps_an_epoch, model.best_step)
    return calibrate(trained, splits[1])


def fit(name: str, place: Place, config: Config, seed: int) -> Fitted:
    """Train one, and count it.

    Raises:
        NonFiniteLossError: The loss is no longer finite.
    """
    trained = trained_model(name, place.data, config, seed)
    module = trained.learner.module
    return Fitted(
        score=lambda split: probabilities(trained.logits(split)),
        parameters=count(module),
        flops=flops(module),
        steps=trained.steps,
        epochs=trained.epochs,
        facts={"best_step": trained.best_step}
        | ({} if trained.calibration is None else {"calibration": list(trained.calibration)}),
    )


def count(module: Baseline) -> Parameters:
    """Its parameters; a batch norm's are none at inference, where it is folded into the layer beside it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    total = sum(p.numel() for p in parameters)
    embedding = sum(p.numel() for p in module.table_parameters())
    norms = sum(p.numel() for m in module.modules() if isinstance(m, nn.BatchNorm1d) for p in m.parameters())
    dense = total - embedding - norms
    return Parameters(
        training=total, inference=embedding + dense, embedding=embedding, dense=dense, bytes=4 * (embedding + dense)
    )


def flops(module: Baseline) -> int:
    """Of the matrix products of one row."""
    module.eval()
    columns = {"context": 0, "candidate": 0}
    for slot in module.slots:
        columns[slot.side] = max(columns[slot.side], slot.first + slot.width)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*(torch.zeros(1, columns[side], dtype=torch.int64) for side in ("context", "candidate")))
    return int(counter.get_total_flops())
