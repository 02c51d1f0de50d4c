"""From trials to a choice, on validation alone: the lowest mean log loss, of three runs at least where one may be luck.

One seed does not decide: how much a run's random numbers are worth is measured by running the best trial with
`TIE_SEEDS`, and those that are as near to it as two runs may be by chance are run so, too. From then on every run of a
config counts, those of the table among them, whose seeds no trial has seen: a config that was lucky as a trial is found
out by them, and another takes its place.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
"""Log losses that close to the lowest are a tie, however little seeds differ."""

UNSURE = 2.0 * 2.0**0.5
"""Standard deviations of the best trial over seeds by which two runs may differ by chance."""

CONTENDERS = 3
"""Most configs of a tie that are run again: the nearest."""


def same(config: Config) -> str:
    """A config as a key."""
    return json.dumps(config, sort_keys=True)


@dataclass(frozen=True)
class Losses:
    """Validation log losses of one model on one task's data, by a config's key; infinite where a run failed.

    Attributes:
        trials: By seed, of its trials.
        every: Of all its runs, on whichever seed and for whichever purpose; the library's own trainer's are none.
    """

    trials: dict[str, dict[int, float]]
    every: dict[str, list[float]]

    @classmethod
    def of(cls, runs: Iterable[tuple[Config, str, int, float | None]]) -> Losses:
        """From runs' config, purpose, seed and log loss, None where one failed."""
        trials: dict[str, dict[int, float]] = defaultdict(dict)
        every: dict[str, list[float]] = defaultdict(list)
        for config, purpose, seed, loss in runs:
            if purpose in {"trial", "seed"}:
                value = float("inf") if loss is None else loss
                every[same(config)].append(value)
                if purpose == "trial":
                    trials[same(config)][seed] = value
        return cls(dict(trials), dict(every))

    @classmethod
    def of_lines(cls, lines: Iterable[Line]) -> Losses:
        """From lines of the ledger."""
        return cls.of(
            (line.config, line.purpose, line.seed, None if line.validation is None else line.validation.log_loss)
            for line in lines
        )

    @classmethod
    def of_records(cls, lines: Iterable[dict[str, Any]]) -> Losses:
        """From lines of the ledger as JSON gives them."""
        return cls.of(
            (line["config"], line["purpose"], line["seed"], line.get("validation", {}).get("log_loss"))
            for line in lines
        )

    @property
    def tried(self) -> list[str]:
        """Configs with a trial, none of whose runs failed, in the order of their loss at the trials' seed."""
        found = [config for config, seeds in self.trials.items() if TRIAL_SEED in seeds]
        sound = [config for config in found if np.isfinite(self.every[config]).all()]
        return sorted(sound, key=lambda config: self.trials[config][TRIAL_SEED])

    def tied(self, config: str) -> bool:
        """Whether it has been run with the seeds of a tie."""
        return set(TIE_SEEDS) <= self.trials.get(config, {}).keys()


def contenders(losses: Losses) -> list[str]:
    """The configs that a choice is between: the best at the trials' seed, and the next ones as far as they are near it.

    Args:
        losses: Of all runs, of this search or an earlier one. The more runs of the best there are, the better chance
            is known: a config that seemed far away may come to be near.

    Returns:
        Keys, `CONTENDERS` at most; the best alone, until it has been run with `TIE_SEEDS`; none where all failed.
    """
    ranked = losses.tried
    if len(ranked) < len(("best", "next")) or not losses.tied(ranked[0]):
        return ranked[:1]
    first = {config: losses.trials[config][TRIAL_SEED] for config in ranked[:CONTENDERS]}
    chance = float(np.std(losses.every[ranked[0]], ddof=1))
    bound = first[ranked[0]] + max(NEAR, UNSURE * chance)
    return [config for config, loss in first.items() if loss <= bound]


def decided(losses: Losses) -> str | None:
    """The config that all runs together say is best; None while a contender has not been run with `TIE_SEEDS`."""
    near = contenders(losses)
    if len(losses.tried) == 1:
        return near[0]
    if not near or not all(losses.tied(config) for config in near):
        return None
    often = {config: losses.every[config] for config in losses.tried if len(losses.every[config]) >= len(TIE_SEEDS)}
    return min(often, key=lambda config: float(np.mean(often[config])))


def untried(configs: Sequence[Config], losses: Losses) -> list[Config]:
    """Those that have had no trial."""
    return [config for config in configs if TRIAL_SEED not in losses.trials.get(same(config), {})]


def choose(tuning: Search, lines: Iterable[Line]) -> Config | None:
    """The config of the table, or None while trials are missing.

    Args:
        tuning: All that are to be tried; of one alone nothing has to be known.
        lines: Of the ledger, one task's and one model's.
    """
    if len(tuning.configs) == 1:
        return tuning.configs[0]
    losses = Losses.of_lines(lines)
    if not tuning.whole or untried(tuning.configs, losses):
        return None
    found = decided(losses)
    return None if found is None else json.loads(found)
