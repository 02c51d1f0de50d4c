"""From trials to a choice, on validation alone: the lowest log loss, three seeds where it is near."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.accuracy.fitted import Config
    from benchmarks.accuracy.ledger import Line
    from benchmarks.accuracy.search import Search

TRIAL_SEED = 1
TIE_SEEDS = (1, 2, 3)
TABLE_SEEDS = (11, 12, 13, 14, 15)
"""Of the table: seeds that no trial has seen."""

NEAR = 5e-4
"""Log losses that close to the lowest are a tie, to be decided by `TIE_SEEDS`."""

CONTENDERS = 3
"""Most configs of a tie that are run again: the nearest."""


def same(config: Config) -> str:
    """A config as a key."""
    return json.dumps(config, sort_keys=True)


def losses(lines: Iterable[Line]) -> dict[str, dict[int, float]]:
    """Validation log loss by config and seed of one task's and one model's trials; infinite where a run failed."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for line in lines:
        if line.purpose == "trial":
            loss = np.inf if line.validation is None else line.validation.log_loss
            found[same(line.config)][line.seed] = float(loss)
    return dict(found)


def contenders(configs: Sequence[Config], found: dict[str, dict[int, float]]) -> list[Config]:
    """The configs that a choice is between: the best at the trials' seed, and those near it.

    Args:
        configs: All that were to be tried.
        found: What `losses` gives; every config has been tried with `TRIAL_SEED`.
    """
    ranked = sorted(configs, key=lambda config: found[same(config)][TRIAL_SEED])
    least = found[same(ranked[0])][TRIAL_SEED]
    return [config for config in ranked[:CONTENDERS] if found[same(config)][TRIAL_SEED] <= least + NEAR]


def choose(tuning: Search, lines: Iterable[Line]) -> Config | None:
    """The config of the table, or None while trials are missing.

    Args:
        tuning: All that are to be tried; of one alone nothing has to be known.
        lines: Of the ledger, one task's and one model's.
    """
    configs = tuning.configs
    if len(configs) == 1:
        return configs[0]
    found = losses(lines)
    if not tuning.whole or any(TRIAL_SEED not in found.get(same(config), {}) for config in configs):
        return None
    near = contenders(configs, found)
    if len(near) == 1:
        return near[0]
    if any(seed not in found[same(config)] for config in near for seed in TIE_SEEDS):
        return None
    return min(near, key=lambda config: float(np.mean([found[same(config)][seed] for seed in TIE_SEEDS])))
